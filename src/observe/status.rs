//! Fills a [`Status`]: what Proxmox VE, the machines and the Kubernetes API say right now. Changes nothing.
//!
//! What does not answer is no error here: that is what a status is asked for. Start reading at [`look`].

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use futures_util::future::join_all;

use crate::k8s;
use crate::net::Connector;
use crate::plan::status::{Etcd, Host, Kubernetes, KubernetesNode, Machine, Status, Talos, Vm};
use crate::pve::vm::{Guest, GuestKind, VmRef};
use crate::pve::{Pve, PveError, VmConfig};
use crate::talos::client::etcd::Ask;
use crate::talos::client::{Access, Machine as Client, TalosError};
use crate::types::{MachineName, Role};

/// How long a machine may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A machine that the profile names.
#[derive(Clone, Debug)]
pub struct Known {
    /// Its name.
    pub name: MachineName,
    /// Its role.
    pub role: Role,
    /// Its number, when the profile fixes it.
    pub vmid: Option<crate::types::VmId>,
    /// Its static address.
    pub address: Option<IpAddr>,
}

/// How a Talos cluster is asked.
pub struct Inside<'a> {
    /// The one way out.
    pub connector: &'a Connector,
    /// An administrator's access.
    pub access: &'a Access,
    /// The Kubernetes endpoint, a URL.
    pub endpoint: &'a str,
}

/// Looks at everything. Without `inside` only at the VMs.
pub async fn look(pve: &Pve, tags: &[String], known: &[Known], inside: Option<&Inside<'_>>) -> Status {
    let mut status = Status::default();
    match hosts(pve).await {
        Ok(hosts) => status.hosts = hosts,
        Err(error) => status.unwell.push(told("Proxmox VE's nodes can't be read", &error)),
    }
    status.machines = match machines(pve, tags, known).await {
        Ok(machines) => machines,
        Err(error) => {
            status.unwell.push(told("Proxmox VE's VMs can't be read", &error));
            known.iter().map(bare).collect()
        }
    };
    if let Some(inside) = inside {
        ask_machines(inside, &mut status).await;
        status.kubernetes = Some(kubernetes(inside, &status.machines).await);
    }
    status
}

/// What failed, with the chain of its causes.
fn told(what: &str, error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = what.to_owned();
    let mut next = Some(error);
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        next = cause.source();
    }
    text
}

/// The chain of causes alone.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    match error.source() {
        Some(_) => told(&error.to_string(), error),
        None => error.to_string(),
    }
}

fn bare(known: &Known) -> Machine {
    Machine { name: known.name.to_string(), role: Some(known.role), address: known.address, ..Machine::default() }
}

async fn hosts(pve: &Pve) -> Result<Vec<Host>, PveError> {
    let mut hosts: Vec<Host> =
        pve.nodes().await?.into_iter().map(|node| Host { online: node.is_online(), name: node.node }).collect();
    hosts.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(hosts)
}

/// The profile's machines in its order, then what else carries its tags.
async fn machines(pve: &Pve, tags: &[String], known: &[Known]) -> Result<Vec<Machine>, PveError> {
    let guests = pve.guests().await?;
    let vms = guests.iter().filter(|guest| guest.kind == GuestKind::Qemu && guest.template != Some(true));
    let tagged = |guest: &Guest| guest.tags().contains_all(tags.iter().map(String::as_str));
    let named = |guest: &Guest, known: &Known| guest.name.as_deref() == Some(known.name.as_str());
    let concerned: Vec<&Guest> =
        vms.filter(|guest| tagged(guest) || known.iter().any(|known| named(guest, known))).collect();
    let mut taken = BTreeSet::new();
    let mut machines = Vec::new();
    for known in known {
        // The cluster's own before one that only has its name.
        let mut candidates: Vec<&&Guest> = concerned.iter().filter(|guest| named(guest, known)).collect();
        candidates.sort_by_key(|guest| (!tagged(guest), Some(guest.vmid) != known.vmid));
        let mut machine = bare(known);
        if let Some(guest) = candidates.first() {
            taken.insert(guest.vmid);
            machine.vm = vm(pve, guest, tags).await?.map(|(vm, _)| vm);
        }
        machines.push(machine);
    }
    for guest in concerned.iter().filter(|guest| tagged(guest) && !taken.contains(&guest.vmid)) {
        let Some((vm, config)) = vm(pve, guest, tags).await? else { continue };
        let name = config.name().map_or_else(|| format!("VM {}", guest.vmid), str::to_owned);
        machines.push(Machine { name, role: role(&config), vm: Some(vm), ..Machine::default() });
    }
    Ok(machines)
}

fn role(config: &VmConfig) -> Option<Role> {
    let tags = config.tags();
    [Role::ControlPlane, Role::Worker].into_iter().find(|role| tags.contains_all([role.to_string().as_str()]))
}

/// None when it went away meanwhile.
async fn vm(pve: &Pve, guest: &Guest, tags: &[String]) -> Result<Option<(Vm, VmConfig)>, PveError> {
    let at = VmRef::new(guest.node.clone(), guest.vmid);
    let config = match pve.vm_config(&at).await {
        Ok(config) => config,
        Err(error) if error.is_missing_vm(guest.vmid) => return Ok(None),
        Err(error) => return Err(error),
    };
    let power = pve.vm_status(&at).await?.status;
    let boot = config.drives().get("scsi0").and_then(crate::pve::Disk::size).map(|bytes| bytes >> 30);
    let vm = Vm {
        vmid: guest.vmid,
        node: guest.node.clone(),
        power,
        cores: config.cores(),
        memory_mb: config.memory_mib(),
        disk_gib: boot,
        tagged: config.tags().contains_all(tags.iter().map(String::as_str)),
    };
    Ok(Some((vm, config)))
}

/// What one control plane says about etcd.
struct Voice {
    members: Vec<crate::talos::client::etcd::Member>,
    leader: u64,
    errors: Vec<String>,
}

/// Asks all machines at once.
async fn ask_machines(inside: &Inside<'_>, status: &mut Status) {
    let asked = status.machines.iter().map(|machine| async {
        let Some(address) = machine.address else {
            return (Err("its address is not known".to_owned()), None);
        };
        match ask(inside, address, machine.role).await {
            Ok((talos, voice)) => (Ok(talos), voice),
            Err(error) => (Err(chain(&error)), None),
        }
    });
    let answers = join_all(asked).await;
    let mut voices = Vec::new();
    for (machine, (talos, voice)) in status.machines.iter_mut().zip(answers) {
        match talos {
            Ok(talos) => machine.talos = Some(talos),
            Err(silence) => machine.silence = Some(silence),
        }
        voices.extend(voice);
    }
    status.etcd = etcd(&voices);
}

async fn ask(inside: &Inside<'_>, address: IpAddr, role: Option<Role>) -> Result<(Talos, Option<Voice>), TalosError> {
    let machine = Client::new(inside.connector, &address.to_string(), inside.access, PATIENCE)?;
    let version = machine.release().await?.version;
    let schematic = machine.extensions().await?.schematic;
    let status = machine.status().await?;
    let mut unmet = Vec::new();
    if let Some(status) = status.as_ref().filter(|status| !status.ready) {
        unmet.extend(status.unmet.iter().map(|unmet| format!("{}: {}", unmet.name, unmet.reason)));
    }
    let stage = status.map(|status| status.stage.to_string());
    let mut voice = None;
    if role == Some(Role::ControlPlane) {
        match voice_of(&machine).await {
            Ok(heard) => voice = Some(heard),
            Err(error) => unmet.push(told("etcd does not answer", &error)),
        }
    }
    Ok((Talos { version, schematic, stage, unmet }, voice))
}

async fn voice_of(machine: &Client) -> Result<Voice, TalosError> {
    let members = machine.etcd_members(Ask::Itself).await?;
    let own = machine.etcd_status().await?;
    let mut errors = own.errors;
    if let Ok(alarms) = machine.etcd_alarms().await {
        errors.extend(alarms.into_iter().map(|(member, alarm)| format!("alarm of member {member:x}: {alarm:?}")));
    }
    Ok(Voice { members, leader: own.leader, errors })
}

/// One picture of what the members say; the leader only where all agree.
fn etcd(voices: &[Voice]) -> Option<Etcd> {
    let first = voices.first()?;
    let all = || voices.iter().flat_map(|voice| &voice.members);
    let names = |learners_only: bool| -> Vec<String> {
        let named = all().filter(|member| !learners_only || member.is_learner).map(|member| member.name.clone());
        named.collect::<BTreeSet<String>>().into_iter().collect()
    };
    let agreed = voices.iter().all(|voice| voice.leader == first.leader);
    let leader = all().find(|member| agreed && member.id == first.leader).map(|member| member.name.clone());
    let errors: BTreeSet<String> = voices.iter().flat_map(|voice| voice.errors.iter().cloned()).collect();
    Some(Etcd { members: names(false), leader, learners: names(true), errors: errors.into_iter().collect() })
}

async fn kubernetes(inside: &Inside<'_>, machines: &[Machine]) -> Kubernetes {
    let mut seen = Kubernetes { endpoint: inside.endpoint.to_owned(), ..Kubernetes::default() };
    match api(inside, machines).await {
        Ok(Some((version, nodes))) => (seen.version, seen.nodes) = (Some(version), Some(nodes)),
        Ok(None) => seen.silence = Some("no control plane hands out a kubeconfig".to_owned()),
        Err(error) => seen.silence = Some(chain(error.as_ref())),
    }
    seen
}

type Answer = Option<(crate::types::Version, Vec<KubernetesNode>)>;

/// By the kubeconfig of the first control plane that answered.
async fn api(inside: &Inside<'_>, machines: &[Machine]) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
    let mut planes =
        machines.iter().filter(|machine| machine.role == Some(Role::ControlPlane) && machine.talos.is_some());
    let Some(address) = planes.find_map(|machine| machine.address) else { return Ok(None) };
    let machine = Client::new(inside.connector, &address.to_string(), inside.access, PATIENCE)?;
    let client = k8s::Client::new(inside.connector, &machine.kubeconfig().await?)?;
    let version = client.version().await?;
    let mut nodes: Vec<KubernetesNode> = client.nodes().await?.into_iter().map(node).collect();
    nodes.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(Some((version, nodes)))
}

fn node(node: k8s::Node) -> KubernetesNode {
    KubernetesNode {
        ready: node.ready.is_ok(),
        because: node.ready.err(),
        name: node.name,
        kubelet: node.kubelet,
        cordoned: node.unschedulable,
    }
}
