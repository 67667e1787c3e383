//! Who may do what, and on which machine: roles out of certificates, `node` and `nodes` out of the request.

use rustls_pki_types::CertificateDer;
use tonic::{Code, Request, Status};
use x509_parser::prelude::FromDer as _;

use super::proto::{common, google};
use crate::world::machine::{Api, Dialled, Machine, MachineType, State};

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

    /// How a log names the caller: by its roles.
    pub(super) fn name(&self) -> String {
        if self.maintenance { "maintenance".to_owned() } else { self.roles.join(",") }
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

/// The full name of the method that was called: `/machine.MachineService/Version`.
#[derive(Clone, Debug)]
pub(super) struct Method(pub(super) String);

/// The machines that a request is for. `here` is the one that was called.
pub(super) fn targets<T>(here: &Machine, request: &Request<T>) -> Result<Vec<Target>, Status> {
    let values = |key: &str| -> Vec<String> {
        let all = request.metadata().get_all(key).iter();
        all.filter_map(|value| value.to_str().ok()).map(str::to_owned).collect()
    };
    let local = || vec![Target { name: None, machine: Ok(here.clone()) }];
    if peer(request)?.maintenance || request.metadata().contains_key("proxyfrom") {
        return Ok(local());
    }
    let (node, nodes) = (values("node"), values("nodes"));
    if node.len() > 1 {
        return Err(Status::invalid_argument("node metadata must be single-valued"));
    }
    if here.see(|state| state.machine_type() != Some(MachineType::ControlPlane)) {
        // It has nothing to show elsewhere; what is for itself needn't go anywhere.
        let elsewhere = |names: &[String]| !matches!(names, [] | [_]) || names.iter().any(|name| !is_local(here, name));
        if elsewhere(&node) || elsewhere(&nodes) {
            return Err(Status::permission_denied("no request forwarding"));
        }
        return Ok(local());
    }
    if let Some(name) = nodes.iter().chain(&node).find(|name| name.parse::<std::net::SocketAddr>().is_ok()) {
        return Err(Status::internal(format!("invalid target \"{name}\"")));
    }
    if !nodes.is_empty() {
        let found = nodes.into_iter().map(|name| Target { machine: find(here, &name), name: Some(name) });
        return Ok(found.collect());
    }
    match node.as_slice() {
        [] => Ok(local()),
        [name, ..] => Ok(vec![Target { name: None, machine: Ok(find(here, name)?) }]),
    }
}

/// The only machine of a request whose method can't go to several.
pub(super) fn target<T>(here: &Machine, request: &Request<T>) -> Result<Machine, Status> {
    let mut all = targets(here, request)?;
    match all.pop() {
        Some(target) if all.is_empty() => target.machine,
        _ => Err(not_to_many(here, request)),
    }
}

/// The same for a method that refuses `nodes`, even one of them; only a machine that forwards nothing takes its own name
/// there, and so does whoever was forwarded to.
pub(super) fn only<T>(here: &Machine, request: &Request<T>) -> Result<Machine, Status> {
    let names: Vec<&str> = request.metadata().get_all("nodes").iter().filter_map(|name| name.to_str().ok()).collect();
    let routed = !peer(request)?.maintenance && !request.metadata().contains_key("proxyfrom");
    let forwards = here.see(|state| state.machine_type() == Some(MachineType::ControlPlane));
    let dropped = !forwards && matches!(names.as_slice(), [name] if is_local(here, name));
    if routed && !names.is_empty() && !dropped {
        return Err(not_to_many(here, request));
    }
    target(here, request)
}

/// What is said when a method that answers for one machine is called for several.
pub(super) fn not_to_many<T>(here: &Machine, request: &Request<T>) -> Status {
    let method = request.extensions().get::<Method>().map(|method| method.0.as_str()).unwrap_or_default();
    if here.see(|state| state.version().full_maintenance_api()) {
        return Status::invalid_argument(format!("one-2-many proxying is not supported for method {method}"));
    }
    Status::invalid_argument("one-2-many proxying is not supported for COSI methods")
}

fn is_local(here: &Machine, name: &str) -> bool {
    let is_here = |state: &State| {
        [state.hostname(), state.full_hostname(), state.nodename()].iter().any(|one| one == name)
            || state.addresses().any(|one| one.to_string() == name)
    };
    name == "127.0.0.1" || here.see(is_here)
}

fn find(here: &Machine, name: &str) -> Result<Machine, Status> {
    if is_local(here, name) {
        return Ok(here.clone());
    }
    let known = here.room().find(name).filter(|machine| machine.see(|state| state.api == Api::Configured));
    let reached = here.reaches(name, if known.is_some() { Dialled::Answers } else { Dialled::Silent });
    let known = known.filter(|_| reached);
    known.ok_or_else(|| {
        let why = format!(
            "connection error: desc = \"transport: Error while dialing: dial tcp {name}:50000: connect: connection refused\""
        );
        Status::new(Code::Unavailable, why)
    })
}
