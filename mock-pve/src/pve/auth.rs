//! Who is asking.
//!
//! Purpose: tickets, CSRF tokens and API tokens (Proxmox VE 8.4, PVE/HTTPServer.pm, PVE/AccessControl.pm). Must not
//! know: what the caller wants. Start at [`Auth::identify`].

use std::collections::VecDeque;

use aws_lc_rs::{hmac, rand};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use percent_encoding::percent_decode_str;

use crate::world::World;
use crate::world::rights::Caller;

/// Seconds that a ticket holds.
const LIFETIME: u64 = 7200;

/// The signing key of one server.
#[derive(Debug)]
pub struct Auth {
    key: hmac::Key,
}

/// What a request's credentials came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// A caller, and how that was proved.
    Known(Caller, Means),
    /// The reason phrase of a 401.
    Unknown(&'static str),
}

/// How a caller proved who he is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Means {
    /// A ticket.
    Ticket,
    /// An API token.
    Token,
}

const FAILED: &str = "Authentication failed!";

impl Auth {
    /// A server with a key of its own.
    pub fn new() -> Self {
        Self::signing_with(&Self::secret())
    }

    /// A server with a key that was kept.
    pub fn signing_with(secret: &[u8]) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, secret) }
    }

    /// What a new key is made of.
    pub fn secret() -> [u8; 32] {
        let mut secret = [0_u8; 32];
        if rand::fill(&mut secret).is_err() {
            // Without randomness the key depends on the time; this is a double on loopback.
            let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |t| t.as_nanos());
            secret[..16].copy_from_slice(&nanos.to_be_bytes());
        }
        secret
    }

    fn sign(&self, text: &str) -> String {
        STANDARD.encode(hmac::sign(&self.key, text.as_bytes()))
    }

    /// A ticket for a user.
    pub fn ticket(&self, user: &str, now: u64) -> String {
        let plain = format!("PVE:{user}:{now:08X}");
        let signature = self.sign(&plain);
        format!("{plain}::{signature}")
    }

    /// The CSRF token that goes with a user's tickets.
    pub fn csrf(&self, user: &str, now: u64) -> String {
        let signature = self.sign(&format!("csrf:{now:08X}:{user}"));
        format!("{now:08X}:{}", signature.trim_end_matches('='))
    }

    /// The user of a ticket that holds.
    pub fn user_of(&self, ticket: &str, now: u64) -> Option<String> {
        let (plain, signature) = ticket.split_once("::")?;
        let decoded = STANDARD.decode(signature).ok()?;
        hmac::verify(&self.key, plain.as_bytes(), &decoded).ok()?;
        let mut parts: VecDeque<&str> = plain.strip_prefix("PVE:")?.split(':').collect();
        let issued = u64::from_str_radix(parts.pop_back()?, 16).ok()?;
        let user = parts.into_iter().collect::<Vec<_>>().join(":");
        (now <= issued.saturating_add(LIFETIME)).then_some(user)
    }

    /// What a user with a second factor gets for his password: the question, and nothing that opens a door.
    pub fn question(&self, asked: &str, user: &str, now: u64) -> String {
        let asked = percent_encoding::utf8_percent_encode(asked, percent_encoding::NON_ALPHANUMERIC);
        let plain = format!("PVE:!tfa!{asked}:{now:08X}");
        let signature = self.sign(&format!("{plain}:{user}"));
        format!("{plain}::{signature}")
    }

    /// Whether a question was asked of a user, and not too long ago.
    pub fn may_answer(&self, question: &str, user: &str, now: u64) -> bool {
        let Some((plain, signature)) = question.split_once("::") else { return false };
        let issued = plain.rsplit_once(':').and_then(|(_, issued)| u64::from_str_radix(issued, 16).ok());
        let fresh = issued.is_some_and(|issued| now <= issued.saturating_add(LIFETIME));
        let decoded = STANDARD.decode(signature).unwrap_or_default();
        fresh && hmac::verify(&self.key, format!("{plain}:{user}").as_bytes(), &decoded).is_ok()
    }

    /// A ticket for a terminal: who may look where (`root@pam:/vms/100:5900`) is signed and not told.
    pub fn viewer_ticket(&self, who: &str, now: u64) -> String {
        let plain = format!("PVEVNC:{now:08X}");
        let signature = self.sign(&format!("{plain}:{who}"));
        format!("{plain}::{signature}")
    }

    /// Whether a ticket lets somebody look at a terminal. It is good for forty seconds.
    pub fn may_view(&self, ticket: &str, who: &str, now: u64) -> bool {
        // A screen's ticket has its password before it.
        let ticket = ticket.get(9..).filter(|rest| rest.starts_with("PVEVNC:")).unwrap_or(ticket);
        let parts = ticket.split_once("::").and_then(|(plain, signature)| {
            let issued = u64::from_str_radix(plain.strip_prefix("PVEVNC:")?, 16).ok()?;
            Some((plain, issued, STANDARD.decode(signature).ok()?))
        });
        let Some((plain, issued, signature)) = parts else { return false };
        let fresh = now <= issued.saturating_add(40) && issued <= now.saturating_add(20);
        fresh && hmac::verify(&self.key, format!("{plain}:{who}").as_bytes(), &signature).is_ok()
    }

    fn csrf_holds(&self, user: &str, token: &str, now: u64) -> bool {
        let Some((time, _)) = token.split_once(':') else { return false };
        let Ok(issued) = u64::from_str_radix(time, 16) else { return false };
        now <= issued.saturating_add(LIFETIME) && self.csrf(user, issued) == token
    }

    /// Finds out who sent a request. `changes`: the method needs a CSRF token.
    pub fn identify(&self, world: &World, headers: &HeaderMap, changes: Changes) -> Identity {
        let now = world.clock().unix();
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let cookie = header("cookie").and_then(|text| value_in(text, "PVEAuthCookie"));
        let authorization = header("authorization").unwrap_or_default();
        let ticket = cookie.or_else(|| value_in(authorization, "PVEAuthCookie"));
        if let Some(ticket) = ticket {
            let Some(user) = self.user_of(&ticket, now).filter(|user| usable(world, user, now)) else {
                return Identity::Unknown(FAILED);
            };
            let csrf = header("csrfpreventiontoken").unwrap_or_default();
            if changes == Changes::Yes && !self.csrf_holds(&user, csrf, now) {
                return Identity::Unknown("Permission denied - invalid csrf token");
            }
            return Identity::Known(Caller { identity: user }, Means::Ticket);
        }
        let Some(token) = value_in(authorization, "PVEAPIToken") else { return Identity::Unknown("No ticket") };
        match self.token(world, token.trim(), now) {
            Some(caller) => Identity::Known(caller, Means::Token),
            None => Identity::Unknown(FAILED),
        }
    }

    fn token(&self, world: &World, text: &str, now: u64) -> Option<Caller> {
        let (id, secret) = text.split_once('=')?;
        let (user, name) = id.split_once('!')?;
        if !usable(world, user, now) {
            return None;
        }
        let state = world.state();
        let token = state.access.users.get(user)?.tokens.get(name)?;
        let same = hmac::sign(&self.key, secret.as_bytes());
        // Compared by their keyed hashes: as long for any secret.
        hmac::verify(&self.key, token.secret.as_bytes(), same.as_ref()).ok()?;
        (token.expire == 0 || token.expire > now).then(|| Caller { identity: id.to_owned() })
    }
}

impl Default for Auth {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether a method changes anything, as far as CSRF is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changes {
    /// It does.
    Yes,
    /// `GET`, and uploads.
    No,
}

/// What stands after a name in a header: at its beginning or after a blank, with `=` or a blank between, up to a `;`.
/// Nothing counts as not there.
fn value_in(header: &str, name: &str) -> Option<String> {
    let begins = |at: usize| at == 0 || header[..at].ends_with(char::is_whitespace);
    let (at, _) =
        header.match_indices(name).find(|(at, _)| begins(*at) && header[at + name.len()..].starts_with(['=', ' ']))?;
    let value = header[at + name.len() + 1..].split(';').next().unwrap_or_default();
    let value = percent_decode_str(value).decode_utf8_lossy().into_owned();
    (!value.is_empty() && value != "0").then_some(value)
}

fn usable(world: &World, user: &str, now: u64) -> bool {
    world.state().access.users.get(user).is_some_and(|user| user.enable && (user.expire == 0 || user.expire > now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_found_where_the_original_finds_them() {
        assert_eq!(value_in("a=b; PVEAuthCookie=PVE%3Ax; c=d", "PVEAuthCookie").as_deref(), Some("PVE:x"));
        assert_eq!(value_in("PVEAPIToken a@pve!t=s", "PVEAPIToken").as_deref(), Some("a@pve!t=s"));
        assert_eq!(value_in("Basic PVEAPIToken=x", "PVEAPIToken").as_deref(), Some("x"));
        for nothing in ["", "PVEAPIToken", "PVEAPIToken=", "pveapitoken=x", "xPVEAPIToken=y", "PVEAPIToken=;x"] {
            assert_eq!(value_in(nothing, "PVEAPIToken"), None, "{nothing}");
        }
    }

    #[test]
    fn a_ticket_holds_for_its_user_and_two_hours() {
        let auth = Auth::new();
        let ticket = auth.ticket("root@pam", 1000);
        assert_eq!(auth.user_of(&ticket, 1000 + LIFETIME).as_deref(), Some("root@pam"));
        assert_eq!(auth.user_of(&ticket, 1001 + LIFETIME), None);
        assert_eq!(auth.user_of(&ticket.replace("root", "fool"), 1000), None);
        for garbage in ["", "PVE:", "PVE:a::", "PVE:root@pam:00000000::garbage", "::::"] {
            assert_eq!(auth.user_of(garbage, 0), None, "{garbage}");
        }
        let view = auth.viewer_ticket("a@pve:/vms/100", 1000);
        assert!(auth.may_view(&view, "a@pve:/vms/100", 1040) && !auth.may_view(&view, "a@pve:/vms/100", 1041));
        assert!(!auth.may_view(&view, "a@pve:/vms/101", 1000) && !auth.may_view("PVEVNC:x::y", "", 1000));
        let csrf = auth.csrf("a@pve", 1000);
        assert!(auth.csrf_holds("a@pve", &csrf, 1000) && !auth.csrf_holds("b@pve", &csrf, 1000));
    }
}
