//! Who may log in, and what for.
//!
//! Purpose: realms, users, tokens, groups and access control entries, as a seed has them. Must not know: how any of it
//! is kept.

use serde::{Deserialize, Serialize};

/// A login realm.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RealmSeed {
    /// Its id.
    pub realm: String,
    /// `pam`, `pve`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// Shown in the login form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

/// A user.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UserSeed {
    /// `name@realm`.
    pub userid: String,
    /// 0 locks the user out; 1 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enable: Option<u8>,
    /// Unix time; 0 is never.
    pub expire: u64,
    /// Free text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Name of a secret (upper-case letters, digits and `_`), or the password itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// Groups it is in.
    pub groups: Vec<String>,
    /// Its API tokens.
    pub tokens: Vec<TokenSeed>,
}

/// An API token.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TokenSeed {
    /// The part after `!`.
    pub tokenid: String,
    /// 1: only rights given to the token itself. 1 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub privsep: Option<u8>,
    /// Unix time; 0 is never.
    pub expire: u64,
    /// Free text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Name of a secret, or the secret itself; made up when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}

/// A group of users.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct GroupSeed {
    /// Its id.
    pub groupid: String,
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

/// An access control entry.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct AclSeed {
    /// `/`, `/vms/100`, …
    pub path: String,
    /// `user`, `group` or `token`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whom it is for.
    pub ugid: String,
    /// What it gives.
    pub roleid: String,
    /// 1: holds below the path too. 1 when absent.
    #[serde(default = "one")]
    pub propagate: u8,
}

fn one() -> u8 {
    1
}
