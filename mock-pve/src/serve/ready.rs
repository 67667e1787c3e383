//! What clients need to know once the mock answers.
//!
//! Purpose: the ready file and a site file that points at everything. Must not know: how it is served. Start at
//! [`Ready`].

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::world::seed::Dial;

/// Where everything is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Ready {
    /// URL of the API.
    pub pve: String,
    /// SHA-256 of the first node's certificate.
    pub fingerprint: String,
    /// The CA's certificate.
    pub ca_file: PathBuf,
    /// Token ids and their secrets.
    pub tokens: BTreeMap<String, String>,
    /// URL of the Image Factory, if one is served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub factory: Option<String>,
    /// SSH on the first node.
    pub ssh: ReadySsh,
    /// The nodes.
    pub nodes: Vec<ReadyNode>,
    /// The machines.
    pub machines: Vec<ReadyMachine>,
    /// Where addresses really listen.
    pub dial: Vec<Dial>,
    /// A site file that points at all of it.
    pub site_file: PathBuf,
}

/// A node's API.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ReadyNode {
    /// Its name.
    pub name: String,
    /// `host:port`.
    pub api: String,
    /// SHA-256 of its certificate.
    pub fingerprint: String,
    /// Its SSH server.
    pub ssh: ReadySsh,
}

/// A node's SSH server.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ReadySsh {
    /// Where it listens.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Who logs in.
    pub user: String,
    /// The private key that opens it.
    pub key: PathBuf,
    /// Its host key, `ssh-ed25519 AAAA…`.
    pub host_key: String,
}

/// A machine of a seeded cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReadyMachine {
    /// Host name.
    pub name: String,
    /// What it is called and shown.
    pub address: IpAddr,
    /// Where it listens.
    pub dialled: IpAddr,
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

impl Ready {
    /// The site file's text; `token_file` holds `id=secret` of the token to use.
    pub fn site(&self, token_file: &std::path::Path) -> String {
        let mut text = String::from("# Points at a mock-pve; made anew at each of its starts.\nendpoints:\n");
        let path = |path: &std::path::Path| quoted(&path.display().to_string());
        // Writing to a string can't fail; here and below.
        let _ = writeln!(text, "  - {}", quoted(&self.pve));
        let _ = writeln!(text, "tls:\n  ca: {}", path(&self.ca_file));
        let _ = writeln!(text, "auth:\n  token:\n    file: {}", path(token_file));
        let _ = writeln!(text, "ssh:\n  user: {}\n  key: {}", quoted(&self.ssh.user), path(&self.ssh.key));
        text.push_str("nodes:\n");
        for ReadyNode { name, api, fingerprint, ssh } in &self.nodes {
            let _ = writeln!(
                text,
                "  - name: {}\n    api: {}\n    fingerprint: {}\n    ssh: {{host: {}, port: {}, host_key: {}}}",
                quoted(name),
                quoted(api),
                quoted(fingerprint),
                quoted(&ssh.host),
                ssh.port,
                quoted(&ssh.host_key)
            );
        }
        if let Some(factory) = &self.factory {
            let registry = factory.trim_start_matches("https://");
            let _ = writeln!(
                text,
                "factory:\n  url: {}\n  registry: {}\n  ca: {}",
                quoted(factory),
                quoted(registry),
                path(&self.ca_file)
            );
        }
        if !self.dial.is_empty() {
            text.push_str("dial:\n");
            for Dial { from, to } in &self.dial {
                let _ = writeln!(text, "  - from: {}\n    to: {}", quoted(&from.to_string()), quoted(&to.to_string()));
            }
        }
        text
    }
}
