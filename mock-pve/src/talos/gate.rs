//! Who may do what, and on which machine: roles out of certificates, `node` and `nodes` out of the request.

use rustls_pki_types::CertificateDer;
use tonic::{Code, Request, Status};
use x509_parser::prelude::FromDer as _;

use super::proto::{common, google};
use crate::world::machine::{Api, Machine, MachineType};

/// Who called.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    roles: Vec<String>,
    /// Nobody asked for a certificate.
    pub(super) maintenance: bool,
}

/// What a method asks of its caller (Talos, internal/app/machined/pkg/system/services/machined.go).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// `os:reader` and up.
    Read,
    /// `os:operator` and up.
    Operate,
    /// Readers, and `os:etcd:backup`.
    Backup,
    /// Operators, and `os:etcd:backup`: what holds all secrets.
    Snapshot,
    /// Administrators, and `os:meta:writer`.
    Meta,
    /// `os:admin` only.
    Admin,
}

impl Peer {
    /// A caller of maintenance mode, where everybody is a reader.
    pub(super) fn maintenance() -> Self {
        Self { roles: vec!["os:reader".to_owned()], maintenance: true }
    }

    /// Roles of a client certificate: its organisations. `None` when its extended key usage isn't exactly client
    /// authentication.
    pub(super) fn from_certificate(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = x509_parser::certificate::X509Certificate::from_der(certificate).ok()?;
        let usage = parsed.extended_key_usage().ok()??.value;
        let others = usage.server_auth || usage.any || usage.code_signing || usage.email_protection;
        if !usage.client_auth || others || !usage.other.is_empty() {
            return None;
        }
        let organizations = parsed.subject().iter_organization();
        let roles = organizations.filter_map(|one| one.as_str().ok()).map(str::to_owned).collect();
        Some(Self { roles, maintenance: false })
    }

    /// Somebody with that role.
    #[cfg(test)]
    pub(super) fn with_role(role: &str) -> Self {
        Self { roles: vec![role.to_owned()], maintenance: false }
    }

    fn has(&self, roles: &[&str]) -> bool {
        self.roles.iter().any(|role| roles.contains(&role.as_str()))
    }

    /// Whether the caller may see resources that hold secrets.
    pub(super) fn is_admin(&self) -> bool {
        self.has(&["os:admin"])
    }

    pub(super) fn check(&self, need: Need) -> Result<(), Status> {
        let allowed = match need {
            Need::Read => self.has(&["os:admin", "os:operator", "os:reader"]),
            Need::Operate => self.has(&["os:admin", "os:operator"]),
            Need::Backup => self.has(&["os:admin", "os:operator", "os:reader", "os:etcd:backup"]),
            Need::Snapshot => self.has(&["os:admin", "os:operator", "os:etcd:backup"]),
            Need::Meta => self.has(&["os:admin", "os:meta:writer"]),
            Need::Admin => self.has(&["os:admin"]),
        };
        if allowed { Ok(()) } else { Err(Status::permission_denied("not authorized")) }
    }
}

/// A machine that a request is for.
pub(super) struct Target {
    /// As the caller named it, if by `nodes`.
    pub(super) name: Option<String>,
    /// The machine, or why it can't be reached.
    pub(super) machine: Result<Machine, Status>,
}

impl Target {
    /// What a reply says about where it comes from.
    pub(super) fn metadata(&self, error: Option<&Status>) -> Option<common::Metadata> {
        let hostname = self.name.clone()?;
        Some(match error {
            None => common::Metadata { hostname, ..Default::default() },
            Some(status) => common::Metadata {
                hostname,
                error: go_text(status),
                status: Some(google::rpc::Status {
                    code: status.code().into(),
                    message: status.message().to_owned(),
                    details: Vec::new(),
                }),
            },
        })
    }
}

/// A status as Go prints it.
fn go_text(status: &Status) -> String {
    format!("rpc error: code = {:?} desc = {}", status.code(), status.message())
}

/// The caller of a request.
pub(super) fn peer<T>(request: &Request<T>) -> Result<Peer, Status> {
    request.extensions().get().cloned().ok_or_else(|| Status::unauthenticated("no peer"))
}

/// The machines that a request is for. `here` is the one that was called.
pub(super) fn targets<T>(here: &Machine, request: &Request<T>) -> Result<Vec<Target>, Status> {
    let values = |key: &str| -> Vec<String> {
        let all = request.metadata().get_all(key).iter();
        all.filter_map(|value| value.to_str().ok()).map(str::to_owned).collect()
    };
    let local = || vec![Target { name: None, machine: Ok(here.clone()) }];
    if peer(request)?.maintenance {
        return Ok(local());
    }
    let (node, nodes) = (values("node"), values("nodes"));
    if !nodes.is_empty() {
        let found = nodes.into_iter().map(|name| Target { machine: find(here, &name), name: Some(name) });
        return Ok(found.collect());
    }
    match node.as_slice() {
        [] => Ok(local()),
        [name] => Ok(vec![Target { name: None, machine: Ok(find(here, name)?) }]),
        _ => Err(Status::invalid_argument("node metadata must be single-valued")),
    }
}

/// The only machine of a request that can't go to several.
pub(super) fn target<T>(here: &Machine, request: &Request<T>) -> Result<Machine, Status> {
    let mut all = targets(here, request)?;
    match all.pop() {
        Some(target) if all.is_empty() => target.machine,
        _ => Err(Status::invalid_argument("one-2-many proxying is not supported for this method")),
    }
}

fn find(here: &Machine, name: &str) -> Result<Machine, Status> {
    if name.parse::<std::net::SocketAddr>().is_ok() {
        return Err(Status::internal(format!("invalid target \"{name}\"")));
    }
    let is_here = name == "127.0.0.1"
        || here.see(|state| state.hostname() == name || state.addresses().any(|one| one.to_string() == name));
    if is_here {
        return Ok(here.clone());
    }
    if here.see(|state| state.machine_type() != Some(MachineType::ControlPlane)) {
        return Err(Status::permission_denied("no request forwarding"));
    }
    let known = here.room().find(name).filter(|machine| machine.see(|state| state.api == Api::Configured));
    known.ok_or_else(|| {
        let why = format!(
            "connection error: desc = \"transport: Error while dialing: dial tcp {name}:50000: connect: connection refused\""
        );
        Status::new(Code::Unavailable, why)
    })
}
