//! The kubeconfig as Talos sends it: gzip around a tar that nobody closed.

use base64::Engine as _;
use tonic::Status;

use super::node::control_plane;
use crate::tar::{archive, header};
use crate::world::machine::pki::{self, Kind, Subject};
use crate::world::machine::{Machine, NodeConfig, Pem};

/// A fresh kubeconfig for an administrator, packed.
pub(super) fn kubeconfig(machine: &Machine) -> Result<Vec<u8>, Status> {
    control_plane(machine, "kubeconfig")?;
    let config = machine.see(|state| state.config.clone());
    let config = config.ok_or_else(|| Status::failed_precondition("no configuration yet"))?;
    let subject = Subject::Client { name: Some("admin"), organizations: &["system:masters"] };
    let made = pki::issue(&config.kubernetes_ca(), Kind::P256, subject, 365);
    let made = made.map_err(|error| Status::internal(error.to_string()))?;
    let pem = Pem { certificate: made.certificate_pem, key: made.key_pem };
    let text = kubeconfig_text(&config, config.endpoint(), ("admin", "admin"), &pem);
    let mut tar = header("kubeconfig", Some(text.len()));
    tar.extend(text.as_bytes());
    Ok(gzip(&tar))
}

/// A kubeconfig for that server, by the names of its user and its context before the cluster's, and who the user is.
pub(super) fn kubeconfig_text(config: &NodeConfig, server: &str, names: (&str, &str), pem: &Pem) -> String {
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let ((user, context), name) = (names, config.cluster_name());
    format!(
        "apiVersion: v1\nkind: Config\nclusters:\n- name: {name}\n  cluster:\n    server: {server}\n    \
         certificate-authority-data: {ca}\nusers:\n- name: {user}@{name}\n  user:\n    client-certificate-data: {crt}\n    \
         client-key-data: {key}\ncontexts:\n- context:\n    cluster: {name}\n    namespace: default\n    \
         user: {user}@{name}\n  name: {context}@{name}\ncurrent-context: {context}@{name}\n",
        ca = encode(&config.kubernetes_authorities().concat()),
        crt = encode(&pem.certificate),
        key = encode(&pem.key),
    )
}

/// Files and folders (without content) as `Copy` sends them: gzip around a tar, this one closed.
pub(super) fn packed(files: &[(String, Option<Vec<u8>>)]) -> Vec<u8> {
    gzip(&archive(files))
}

/// gzip (RFC 1952) of stored blocks.
fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
    let mut pieces = bytes.chunks(0xffff).peekable();
    while let Some(piece) = pieces.next() {
        let length = u16::try_from(piece.len()).unwrap_or(u16::MAX);
        out.push(u8::from(pieces.peek().is_none()));
        out.extend(length.to_le_bytes());
        out.extend((!length).to_le_bytes());
        out.extend(piece);
    }
    out.extend(crc32fast::hash(bytes).to_le_bytes());
    out.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
    out
}
