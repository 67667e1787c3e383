//! Client certificates that a control plane hands out, and what may be written into META.

use std::time::Duration;

use base64::Engine as _;
use tonic::Status;

use super::node::control_plane;
use super::proto::machine as api;
use crate::world::machine::Machine;
use crate::world::machine::pki::{self, Kind, Subject};

/// Roles that a certificate may carry (Talos, pkg/machinery/role).
const ROLES: &[&str] = &[
    "os:admin",
    "os:operator",
    "os:reader",
    "os:etcd:backup",
    "os:image:verifier",
    "os:meta:writer",
    "os:impersonator",
];

pub(super) fn generate(
    machine: &Machine,
    request: &api::GenerateClientConfigurationRequest,
) -> Result<api::GenerateClientConfiguration, Status> {
    control_plane(machine, "generate client configuration")?;
    let positive = request.crt_ttl.and_then(|limit| Duration::try_from(limit).ok()).filter(|limit| !limit.is_zero());
    let limit = positive.ok_or_else(|| Status::invalid_argument("crt_ttl should be positive"))?;
    let config = machine.see(|state| state.config.clone());
    let config = config.ok_or_else(|| Status::failed_precondition("no configuration yet"))?;
    let authority = config.os_ca();
    let roles: Vec<&str> = request.roles.iter().map(String::as_str).filter(|role| ROLES.contains(role)).collect();
    let subject = Subject::Client { name: None, organizations: &roles };
    let issued = pki::issue_for(&authority, Kind::Ed25519, subject, limit);
    let identity = issued.map_err(|error| Status::internal(error.to_string()))?;
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let cluster = config.cluster_name();
    let name = match roles.as_slice() {
        [role] => format!("{}@{cluster}", role.trim_start_matches("os:")),
        _ => cluster.to_owned(),
    };
    let talosconfig = format!(
        "context: {name}\ncontexts:\n    {name}:\n        endpoints: []\n        ca: {}\n        crt: {}\n        key: {}\n",
        encode(&authority.certificate),
        encode(&identity.certificate_pem),
        encode(&identity.key_pem),
    );
    Ok(api::GenerateClientConfiguration {
        metadata: None,
        ca: authority.certificate.into_bytes(),
        crt: identity.certificate_pem.into_bytes(),
        key: identity.key_pem.into_bytes(),
        talosconfig: talosconfig.into_bytes(),
    })
}

fn key(key: u32) -> Result<u8, Status> {
    u8::try_from(key).map_err(|_| Status::invalid_argument("key must be a uint8"))
}

pub(super) fn meta_write(machine: &Machine, request: &api::MetaWriteRequest) -> Result<api::MetaWrite, Status> {
    machine.set_meta_tag(key(request.key)?, Some(request.value.clone())).map_err(Status::unknown)?;
    Ok(api::MetaWrite::default())
}

pub(super) fn meta_delete(machine: &Machine, request: api::MetaDeleteRequest) -> Result<api::MetaDelete, Status> {
    if machine.set_meta_tag(key(request.key)?, None).map_err(Status::unknown)? {
        return Ok(api::MetaDelete::default());
    }
    Err(Status::not_found("key not found"))
}
