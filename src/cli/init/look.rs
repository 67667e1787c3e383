//! What runs: the VMs with the tags, and the machines in them.
//!
//! Purpose: every VM with the machine in it, found by its SMBIOS UUID, or every reason why that can't be had, at once.
//! Reads only. Must not know: what a profile looks like.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::net::IpAddr;
use std::time::Duration;

use futures_util::future::join_all;
use secrecy::SecretString;
use serde::Deserialize;

use crate::cli::stop::Stop;
use crate::event::Failure;
use crate::exit::ExitCode;
use crate::net::Connector;
use crate::pve::vm::{Guest, GuestKind, VmRef};
use crate::pve::{Pve, PveError, VmConfig};
use crate::talos::access::talosconfig::Context;
use crate::talos::client::cosi::Kind;
use crate::talos::client::{Access, Machine, TalosError};
use crate::types::{Mac, SchematicId, Version, VmId};

/// How long a machine may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A VM of the cluster, and the machine in it.
pub(super) struct Seen {
    pub(super) at: VmRef,
    pub(super) config: VmConfig,
    pub(super) machine: Inside,
}

/// A machine that told of itself.
#[derive(Clone)]
pub(super) struct Inside {
    /// Where it was reached; there may be several ways.
    pub(super) addresses: Vec<IpAddr>,
    pub(super) uuid: String,
    pub(super) hostname: String,
    pub(super) release: Version,
    pub(super) arch: String,
    pub(super) schematic: Option<SchematicId>,
    pub(super) extensions: Vec<String>,
    /// The configuration in force.
    pub(super) config: SecretString,
}

/// A template that the VMs may have been cloned from.
pub(super) struct Template {
    pub(super) vmid: VmId,
    pub(super) name: String,
    pub(super) tags: String,
    pub(super) notes: String,
}

/// Everything that was found.
pub(super) struct Found {
    pub(super) vms: Vec<Seen>,
    pub(super) templates: Vec<Template>,
}

/// How the cluster is entered.
pub(super) struct Entry<'a> {
    pub(super) connector: &'a Connector,
    pub(super) context: &'a Context,
    pub(super) access: &'a Access,
}

pub(super) fn problem(what: impl Into<String>, hint: impl Into<String>) -> Failure {
    Failure { what: what.into(), causes: Vec::new(), hints: vec![hint.into()] }
}

fn because(what: impl Into<String>, error: &(dyn Error + 'static), hint: impl Into<String>) -> Failure {
    let mut problem = problem(what, hint);
    let mut next = Some(error);
    while let Some(cause) = next {
        problem.causes.push(cause.to_string());
        next = cause.source();
    }
    problem
}

/// Looks at everything that carries the tags.
pub(super) async fn look(pve: &Pve, tags: &[String], entry: &Entry<'_>) -> Result<Found, Stop> {
    let unread = |error: &PveError| Stop::because(ExitCode::Failed, "the VMs can't be read", error);
    let rights = pve.rights("/vms").await.map_err(|error| unread(&error))?;
    let guests = pve.guests().await.map_err(|error| unread(&error))?;
    let mut problems = Vec::new();
    let (ours, templates): (Vec<Guest>, Vec<Guest>) = tagged(&guests, tags);
    if !rights.has("VM.Audit") && ours.is_empty() {
        let hint = format!("as root on a PVE node: pveum acl modify /vms {} --roles PVEAuditor", whom(pve.caller()));
        problems.push(problem(format!("{} lacks VM.Audit on /vms: it sees no VMs", pve.caller()), hint));
    } else if ours.is_empty() {
        problems.extend(unknown(&guests, tags, &templates));
    }
    let mut vms = Vec::new();
    for guest in &ours {
        let at = VmRef::new(guest.node.clone(), guest.vmid);
        match pve.vm_config(&at).await {
            Ok(config) if config.is_template() => {}
            Ok(config) => vms.push((guest.clone(), at, config)),
            Err(error) => problems.push(because(
                format!("the configuration of VM {} can't be read", guest.vmid),
                &error,
                format!("as root on a PVE node: pveum acl modify /vms {} --roles PVEAuditor", whom(pve.caller())),
            )),
        }
    }
    vms.sort_by_key(|(_, at, _)| at.vmid);
    let machines = match_machines(pve, &vms, entry, &mut problems).await;
    if !problems.is_empty() {
        return Err(Stop { code: ExitCode::Refused, problems, files: Vec::new() });
    }
    let vms = vms.into_iter().zip(machines).filter_map(|((_, at, config), machine)| {
        let machine = machine?;
        Some(Seen { at, config, machine })
    });
    let vms = vms.collect();
    Ok(Found { vms, templates: self::templates(pve, &guests).await })
}

/// The options of `pveum acl modify` for a caller. A token has at most the rights of its user, so both get them.
fn whom(caller: &str) -> String {
    match caller.split_once('!') {
        Some((user, _)) => format!("--users {user} --tokens '{caller}'"),
        None => format!("--users {caller}"),
    }
}

/// The VMs and the templates that carry all tags.
fn tagged(guests: &[Guest], tags: &[String]) -> (Vec<Guest>, Vec<Guest>) {
    let carries =
        |guest: &&Guest| guest.kind == GuestKind::Qemu && guest.tags().contains_all(tags.iter().map(String::as_str));
    guests.iter().filter(carries).cloned().partition(|guest| guest.template != Some(true))
}

/// Why no VM carries the tags: those that nobody has with the nearest that somebody has, else those that none has together.
fn unknown(guests: &[Guest], tags: &[String], templates: &[Guest]) -> Vec<Failure> {
    let vms = guests.iter().filter(|guest| guest.kind == GuestKind::Qemu);
    let known: BTreeSet<String> = vms.flat_map(|guest| guest.tags().0).map(|tag| tag.to_lowercase()).collect();
    let list = |tags: &[&str]| tags.iter().map(|tag| format!("'{tag}'")).collect::<Vec<_>>().join(", ");
    let mut problems = Vec::new();
    for tag in tags.iter().filter(|tag| !known.contains(&tag.to_lowercase())) {
        let likeness = |other: &str| strsim::jaro_winkler(other, &tag.to_lowercase());
        let mut near: Vec<&str> = known.iter().map(String::as_str).collect();
        near.sort_by(|one, other| likeness(other).total_cmp(&likeness(one)));
        near.truncate(5);
        let hint = if near.is_empty() {
            "no VM that this caller may see has a tag: tag the cluster's VMs in Proxmox VE first".to_owned()
        } else {
            format!("the nearest tags that VMs have are {}", list(&near))
        };
        problems.push(problem(format!("no VM has the tag '{tag}'"), hint));
    }
    if problems.is_empty() {
        let all: Vec<&str> = tags.iter().map(String::as_str).collect();
        let what = if templates.is_empty() { "no VM" } else { "only templates, and no VM," };
        let each = tags.iter().map(|tag| {
            let count = guests.iter().filter(|guest| guest.tags().contains_all([tag.as_str()])).count();
            format!("{count} have '{tag}'")
        });
        let hint = format!("{}: tag the cluster's VMs, or name other tags", each.collect::<Vec<_>>().join(", "));
        problems.push(problem(format!("{what} has all of {}", list(&all)), hint));
    }
    problems
}

type Vm = (Guest, VmRef, VmConfig);

/// The machine in each VM. Those at the talosconfig's addresses are asked first, then those that they know of, then the
/// addresses that guest agents tell.
async fn match_machines(pve: &Pve, vms: &[Vm], entry: &Entry<'_>, problems: &mut Vec<Failure>) -> Vec<Option<Inside>> {
    let mut asked = Answers::default();
    let named = entry.context.nodes.iter().chain(&entry.context.endpoints).cloned();
    asked.ask(entry, named.collect()).await;
    let members = asked.members.clone();
    asked.ask(entry, members).await;
    let mut found: Vec<Option<Inside>> = Vec::new();
    for (guest, at, config) in vms {
        let name = config.name().unwrap_or("without a name");
        let this = format!("VM {} ({name}) on {}", at.vmid, at.node);
        if guest.status.as_deref() == Some("stopped") {
            problems.push(problem(
                format!("{this} is stopped: what is in it can't be read"),
                "start it; if it isn't the cluster's, take the tag off it",
            ));
            found.push(None);
            continue;
        }
        let mut tried: Vec<String> = Vec::new();
        let mut machine = asked.of(config);
        if machine.is_none() {
            tried = agent(pve, at).await;
            asked.ask(entry, tried.iter().cloned().collect()).await;
            machine = asked.of(config);
        }
        if machine.is_none() {
            problems.push(asked.silence(&this, &tried, &entry.context.name));
        }
        found.push(machine);
    }
    problems.extend(asked.refusals());
    if !found.is_empty() && found.iter().any(Option::is_some) {
        problems.extend(asked.strangers(vms));
    }
    found
}

/// Addresses of the guest, as its agent tells them.
async fn agent(pve: &Pve, at: &VmRef) -> Vec<String> {
    let Ok(Some(interfaces)) = pve.guest_interfaces(at).await else { return Vec::new() };
    let outward = |address: &IpAddr| match address {
        IpAddr::V4(address) => !address.is_link_local() && !address.is_unspecified(),
        IpAddr::V6(address) => !address.is_unicast_link_local() && !address.is_loopback(),
    };
    let listed = interfaces.into_iter().filter(|interface| interface.name != "lo");
    let addresses = listed.flat_map(|interface| interface.addresses).filter(outward);
    addresses.map(|address| address.to_string()).collect()
}

/// What was said at which address.
#[derive(Default)]
struct Answers {
    machines: BTreeMap<String, Inside>,
    silent: BTreeMap<String, TalosError>,
    asked: BTreeSet<String>,
    members: BTreeSet<String>,
}

impl Answers {
    async fn ask(&mut self, entry: &Entry<'_>, addresses: BTreeSet<String>) {
        let new: Vec<String> = addresses.into_iter().filter(|address| self.asked.insert(address.clone())).collect();
        let answers = join_all(new.iter().map(|address| inside(entry, address))).await;
        for (address, answer) in new.into_iter().zip(answers) {
            match answer {
                Ok((machine, members)) => {
                    self.members.extend(members);
                    self.machines
                        .entry(machine.uuid.clone())
                        .and_modify(|known| known.addresses.extend(&machine.addresses))
                        .or_insert(machine);
                }
                Err(error) => {
                    self.silent.insert(address, error);
                }
            }
        }
    }

    fn of(&self, config: &VmConfig) -> Option<Inside> {
        self.machines.get(&config.smbios_uuid()?).cloned()
    }

    /// Why nothing is known of what is in a VM.
    fn silence(&self, this: &str, tried: &[String], context: &str) -> Failure {
        let said: Vec<String> = tried
            .iter()
            .filter_map(|address| self.silent.get(address).map(|error| format!("at {address}: {}", in_short(error))))
            .collect();
        let other = tried.iter().any(|address| {
            matches!(
                self.silent.get(address),
                Some(TalosError::WrongCertificate { .. } | TalosError::Unreachable { .. })
            )
        });
        let mut problem = if other && said.iter().any(|text| text.contains("certificate")) {
            problem(
                format!("{this} runs a machine that isn't of the cluster of context '{context}'"),
                "the VMs of a profile are one cluster: take the tag off it, or name the tag and talosconfig of one cluster",
            )
        } else {
            problem(
                format!("{this} is no machine of the cluster of context '{context}'"),
                "if it runs Talos, add its address to the talosconfig's nodes; else take the tag off it",
            )
        };
        if said.is_empty() {
            problem.causes.push(
                "none of the machines that answered has its SMBIOS UUID, and no guest agent tells an address"
                    .to_owned(),
            );
        }
        problem.causes.extend(said);
        problem
    }

    /// Machines that don't let this certificate read what is needed: each address once.
    fn refusals(&self) -> Vec<Failure> {
        let refused = self.silent.iter().filter(|(_, error)| matches!(error, TalosError::NotAuthorized { .. }));
        refused
            .map(|(address, error)| {
                because(
                    format!("the machine at {address} doesn't show its configuration"),
                    error,
                    "the talosconfig must be an administrator's (os:admin)",
                )
            })
            .collect()
    }

    /// Machines of the cluster that are in none of the VMs.
    fn strangers(&self, vms: &[Vm]) -> Vec<Failure> {
        let known: BTreeSet<String> = vms.iter().filter_map(|(_, _, config)| config.smbios_uuid()).collect();
        let others = self.machines.values().filter(|machine| !known.contains(&machine.uuid));
        others
            .map(|machine| {
                let address = machine.addresses.first().map(ToString::to_string).unwrap_or_default();
                problem(
                    format!(
                        "{} at {address} is of this cluster, and in none of the VMs with the tags",
                        machine.hostname
                    ),
                    format!("a profile holds the whole cluster: tag its VM (SMBIOS UUID {})", machine.uuid),
                )
            })
            .collect()
    }
}

/// The innermost cause.
fn in_short(error: &TalosError) -> String {
    let mut last: &dyn Error = error;
    while let Some(cause) = last.source() {
        last = cause;
    }
    last.to_string()
}

#[derive(Deserialize)]
struct MemberSpec {
    #[serde(default)]
    addresses: Vec<String>,
}

/// What a machine tells of itself, and the addresses of others that it knows.
async fn inside(entry: &Entry<'_>, address: &str) -> Result<(Inside, Vec<String>), TalosError> {
    let machine = Machine::new(entry.connector, address, entry.access, PATIENCE)?;
    let release = machine.release().await?;
    let uuid = machine.system_uuid().await?.unwrap_or_default();
    let config = machine.config().await?.unwrap_or_default();
    let extensions = machine.extensions().await?;
    let members = machine.list(Kind::MEMBER).await.unwrap_or_default();
    let members: Vec<MemberSpec> = members.iter().filter_map(|member| member.spec().ok()).collect();
    let members = members.into_iter().flat_map(|member| member.addresses.into_iter().take(1));
    let host = address.parse().ok();
    Ok((
        Inside {
            addresses: host.into_iter().collect(),
            uuid,
            hostname: machine.hostname().await?,
            release: release.version,
            arch: release.arch,
            schematic: extensions.schematic,
            extensions: extensions.installed.into_iter().map(|extension| extension.name).collect(),
            config,
        },
        members.collect(),
    ))
}

/// The templates that the caller may see.
async fn templates(pve: &Pve, guests: &[Guest]) -> Vec<Template> {
    let mut found = Vec::new();
    for guest in guests.iter().filter(|guest| guest.kind == GuestKind::Qemu && guest.template == Some(true)) {
        let Ok(config) = pve.vm_config(&VmRef::new(guest.node.clone(), guest.vmid)).await else { continue };
        found.push(Template {
            vmid: guest.vmid,
            name: config.name().unwrap_or_default().to_owned(),
            tags: config.get("tags").unwrap_or_default().to_lowercase(),
            notes: config.description().to_owned(),
        });
    }
    found.sort_by_key(|template| template.vmid);
    found
}

impl Seen {
    /// The first NIC's address.
    pub(super) fn mac(&self) -> Option<Mac> {
        self.config.nics().get("net0").and_then(|nic| nic.mac)
    }

    /// As people know it.
    pub(super) fn shown(&self) -> String {
        format!("VM {} ({})", self.at.vmid, self.machine.hostname)
    }
}
