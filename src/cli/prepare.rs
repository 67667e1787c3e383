//! From a session to a plan: what is asked for made definite, what is there looked at, both compared.
//!
//! Purpose: the order of questions. Reads only; whatever stands in the way comes out as a list.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::args::Wishes;
use super::carry_out::access;
use super::session::Session;
use super::stop::Stop;
use crate::exit::ExitCode;
use crate::image::{Arch, Boot, Build, FactoryError, Schematic};
use crate::observe::{self, Ask};
use crate::plan::make::inherit;
use crate::plan::observed::{Finding, Observed};
use crate::plan::step::{Discovery, Hardware, Image, MachineSpec};
use crate::plan::{ClusterConfig, Limits, Plan, PlannedVm, Versions, Wanted, check, lint, make};
use crate::profile::expand::{Taken, WantedVm, expand};
use crate::profile::{DiscoveryMode, Talos};
use crate::pve::PveError;
use crate::pve::vm::{Guest, GuestKind};
use crate::steps::config;
use crate::talos::secrets::Secrets;
use crate::types::{MachineName, NodeName, RunId, SchematicId, Sha256, Version, VersionWish, VmId};

/// Hardware of all VMs, before the site's and the profile's own keys.
const HARDWARE: &str = include_str!("../../templates/vm-hardware.json");

/// The schematic of a profile that names none.
const SCHEMATIC: &str = include_str!("../../templates/schematic.yaml");

/// The extension without which a guest agent is never there.
const AGENT: &str = "siderolabs/qemu-guest-agent";

/// Everything that a verb about a rebuild shows or carries out.
pub struct Prepared {
    /// What was seen.
    pub seen: Observed,
    /// What stands in the way or should be known.
    pub findings: Vec<Finding>,
    /// The plan; none when something refuses the run.
    pub plan: Option<Plan>,
    /// The cluster's secrets.
    pub secrets: Secrets,
}

/// Looks at everything and plans a fresh rebuild.
pub async fn prepare(session: &Session, wishes: &Wishes, run: RunId, now: jiff::Timestamp) -> Result<Prepared, Stop> {
    let talos = session.talos()?;
    let secrets = session.secrets(now)?;
    let mut found = Vec::new();
    let guests = session.pve.guests().await.map_err(|error| unreachable(&error))?;
    let rows = rows(session, &guests)?;
    let ask = ask(session, &rows);
    let mut seen = observe::pve::observe(&session.pve, &ask).await.map_err(|error| unreachable(&error))?;
    session.pve.caller().clone_into(&mut seen.caller);
    seen.missing_rights =
        observe::rights::missing(&session.pve, &ask, &seen).await.map_err(|error| unreachable(&error))?;
    let release = release(session, talos, wishes, &mut seen, &mut found).await?;
    let vms = inherit(&planned_vms(&rows), &run, &seen);
    let access = access(&secrets, now)?;
    seen.cluster =
        observe::cluster::observe(&session.connector, &secrets, &access, &vms, &endpoint(session)?, now).await;
    let Some(release) = release else {
        found.extend(seen.problems.clone());
        return Ok(Prepared { seen, findings: found, plan: None, secrets });
    };
    let wanted = wanted(session, talos, run, release, &rows, vms, &secrets)?;
    let mut findings = check::findings(&wanted, &seen);
    findings.splice(0..0, found);
    let plan = if check::refuses(&findings) { None } else { Some(planned(&wanted, &seen)?) };
    Ok(Prepared { seen, findings, plan, secrets })
}

fn planned(wanted: &Wanted, seen: &Observed) -> Result<Plan, Stop> {
    let plan =
        make::make(wanted, seen).map_err(|error| Stop::because(ExitCode::Refused, "no plan can be made", &error))?;
    let notes = lint::lint(&plan);
    if notes.is_empty() {
        return Ok(plan);
    }
    let text = notes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    Err(Stop::new(ExitCode::Internal, format!("the plan breaks its own rules: {text}")).hinted("please report this"))
}

/// PVE can't be read: nothing else can be said.
fn unreachable(error: &PveError) -> Stop {
    let stop = Stop::because(ExitCode::Refused, "Proxmox VE could not be read", error);
    match error {
        PveError::Pin { .. } => stop.hinted(
            "if the node's certificate was renewed, compare the fingerprint on its console and put the new one into the site file",
        ),
        PveError::Untrusted(_) => stop.hinted(
            "give the site file tls.ca with /etc/pve/pve-root-ca.pem of a PVE node, or the node's fingerprint",
        ),
        PveError::Unauthorized { .. } => stop.hinted("check the token's id and secret in the site file"),
        _ => stop,
    }
}

/// The profile's VMs with names, numbers and nodes spelled out.
fn rows(session: &Session, guests: &[Guest]) -> Result<Vec<WantedVm>, Stop> {
    let profile = &session.profile.value;
    let member = |guest: &&Guest| {
        guest.kind == GuestKind::Qemu
            && guest.template != Some(true)
            && guest.tags().contains_all(profile.tags.iter().map(String::as_str))
    };
    let assignments = profile.nodes.iter().flat_map(|(_, _, group)| &group.assignments);
    let assigned: BTreeSet<VmId> = assignments.filter_map(|assignment| assignment.vmid).collect();
    let taken = Taken {
        // A number that the profile assigns and a stranger has is `check`'s to refuse: it can name the stranger.
        on_pve: guests.iter().map(|guest| guest.vmid).filter(|vmid| !assigned.contains(vmid)).collect(),
        replaced: guests.iter().filter(member).map(|guest| guest.vmid).collect(),
        siblings: BTreeSet::new(),
        room_mb: BTreeMap::new(),
    };
    Ok(expand(profile, &session.site, &taken)?)
}

fn ask(session: &Session, rows: &[WantedVm]) -> Ask {
    let profile = &session.profile.value;
    let ranges = &session.site.vmid_ranges;
    let mut nodes: Vec<NodeName> = rows.iter().map(|vm| vm.node.clone()).collect();
    nodes.sort();
    nodes.dedup();
    Ask {
        cluster: profile.name.clone(),
        tags: profile.tags.clone(),
        names: rows.iter().map(|vm| vm.name.to_string()).collect(),
        vmids: rows.iter().map(|vm| vm.vmid).collect::<Vec<VmId>>(),
        template_ids: ranges.templates.first.0..=ranges.templates.last.0,
        nodes,
        storage: session.site.defaults.storage.clone(),
        bridge: profile.network.bridge.clone().unwrap_or_else(|| session.site.defaults.bridge.clone()),
        vlan: profile.network.vlan.or(session.site.defaults.vlan),
    }
}

fn endpoint(session: &Session) -> Result<String, Stop> {
    let endpoint = session.profile.value.network.api_endpoint.as_ref();
    let endpoint = endpoint.ok_or_else(|| Stop::new(ExitCode::Invalid, "the profile has no network.api_endpoint"))?;
    Ok(endpoint.url())
}

fn planned_vms(rows: &[WantedVm]) -> Vec<PlannedVm> {
    let planned = rows.iter().map(|vm| PlannedVm {
        name: vm.name.to_string(),
        role: vm.role,
        vmid: vm.vmid,
        node: vm.node.clone(),
        address: vm.address,
        cores: vm.cores,
        memory_mb: vm.memory_mb,
        disk_gib: vm.disk_gib,
        mac: vm.mac,
        replaces: None,
    });
    planned.collect()
}

/// What will be installed.
struct Release {
    versions: Versions,
    schematic: SchematicId,
    installer: String,
    extensions: Vec<String>,
}

/// Resolves versions and schematic with the factory, and looks whether it has the image. None when it has not.
async fn release(
    session: &Session,
    talos: &Talos,
    wishes: &Wishes,
    seen: &mut Observed,
    found: &mut Vec<Finding>,
) -> Result<Option<Release>, Stop> {
    let factory = &session.factory;
    let wish = wishes.to.as_ref().unwrap_or(&talos.version);
    let version = match factory.resolve(wish).await {
        Ok(version) => version,
        Err(error) => {
            seen.problems.push(
                Finding::refusal(
                    format!("Talos {wish} can't be had"),
                    "`recast check --to latest` shows the newest release",
                )
                .because(&error),
            );
            return Ok(None);
        }
    };
    let kubernetes = kubernetes(wishes.kubernetes.as_ref().unwrap_or(&talos.kubernetes_version))?;
    let (schematic, extensions) = schematic(session, talos, wishes, &version, seen, found).await?;
    let Some(schematic) = schematic else { return Ok(None) };
    let build = Build { schematic: schematic.clone(), version: version.clone(), arch: Arch::Amd64, boot: boot(talos) };
    match factory.head_image(&build).await {
        Ok(head) => {
            let url = factory.image_url(&build);
            seen.image = Some(Image {
                sha256: session.pinned(&schematic, &version, &url)?,
                url,
                schematic: schematic.clone(),
                version: version.clone(),
                bytes: head.bytes,
            });
        }
        Err(error) => seen.problems.push(no_image("image", &build, &error)),
    }
    if let Err(error) = factory.head_installer(&build).await {
        seen.problems.push(no_image("installer", &build, &error));
    }
    let installer = factory.installer(&build);
    Ok(Some(Release { versions: Versions { talos: version, kubernetes }, schematic, installer, extensions }))
}

fn boot(talos: &Talos) -> Boot {
    if talos.factory.secureboot { Boot::Secure } else { Boot::Plain }
}

fn no_image(what: &str, build: &Build, error: &FactoryError) -> Finding {
    Finding::refusal(
        format!("the factory has no {what} for Talos {} and schematic {}", build.version, build.schematic),
        "check the version and the schematic; `recast schematic` computes an ID",
    )
    .because(error)
}

/// Kubernetes releases aren't listed by anything recast talks to, so the patch has to be named.
fn kubernetes(wish: &VersionWish) -> Result<Version, Stop> {
    match wish {
        VersionWish::Exact(version) => Ok(version.clone()),
        other => Err(Stop::new(ExitCode::Invalid, format!("Kubernetes {other} is not an exact version"))
            .hinted("name the patch too, as in --kubernetes 1.35.0")),
    }
}

async fn schematic(
    session: &Session,
    talos: &Talos,
    wishes: &Wishes,
    version: &Version,
    seen: &mut Observed,
    found: &mut Vec<Finding>,
) -> Result<(Option<SchematicId>, Vec<String>), Stop> {
    let names = wishes
        .extensions
        .clone()
        .unwrap_or_else(|| if wishes.schematic.is_some() { Vec::new() } else { talos.factory.extensions.clone() });
    if !names.is_empty() {
        match session.factory.extensions(version).await {
            Ok(available) => {
                let unknown = crate::image::check_extensions(&names, version, &available);
                let none_missing = unknown.is_empty();
                for unknown in unknown {
                    let hint = unknown.nearest.as_ref().map_or_else(
                        || "the factory lists them at /version/…/extensions/official".to_owned(),
                        |nearest| format!("did you mean {nearest}?"),
                    );
                    seen.problems
                        .push(Finding::refusal(format!("Talos {version} has no extension {}", unknown.name), hint));
                }
                if !none_missing {
                    // No factory has an image with it: asking for one says the same in other words.
                    return Ok((None, names));
                }
            }
            Err(error) => seen.problems.push(
                Finding::refusal("the factory's extensions could not be read", "try again, or name a schematic")
                    .because(&error),
            ),
        }
    }
    let computed = Schematic::with_extensions(names.clone()).id().ok();
    let chosen_id =
        wishes.schematic.clone().or_else(|| talos.factory.schematic_id.clone().filter(|_| wishes.extensions.is_none()));
    if let (Some(chosen_id), Some(computed)) = (&chosen_id, &computed)
        && !names.is_empty()
        && chosen_id != computed
    {
        found.push(Finding::warning(
            format!("the extensions listed in the profile make schematic {computed}, not {chosen_id}"),
            "the schematic_id counts; correct the list or the id",
        ));
    }
    let chosen = match chosen_id {
        Some(id) => id,
        None => match session.factory.submit(&schematic_of(&names)?).await {
            Ok(submitted) => submitted.id,
            Err(error) => {
                seen.problems.push(
                    Finding::refusal("the factory did not take the schematic", "try again later").because(&error),
                );
                return Ok((None, names));
            }
        },
    };
    let extensions = match session.factory.schematic(&chosen).await {
        Ok(yaml) => Schematic::from_yaml(&yaml)
            .map_or(names, |schematic| schematic.customization.system_extensions.official_extensions),
        // Not every factory hands schematics out again; what the image really holds is shown by the canary.
        Err(_) => names,
    };
    Ok((Some(chosen), extensions))
}

/// The schematic of these extensions; without any, the one of a profile that names nothing.
fn schematic_of(extensions: &[String]) -> Result<Schematic, Stop> {
    if !extensions.is_empty() {
        return Ok(Schematic::with_extensions(extensions.iter().cloned()));
    }
    Schematic::from_yaml(SCHEMATIC).map_err(|error| {
        Stop::because(ExitCode::Internal, "the schematic of profiles that name none is damaged", &error)
    })
}

/// The hardware that all VMs have before the site's and the profile's own keys.
fn preset() -> Hardware {
    serde_json::from_str(HARDWARE).expect("it is part of the program, and a test reads it")
}

fn wanted(
    session: &Session,
    talos: &Talos,
    run: RunId,
    release: Release,
    rows: &[WantedVm],
    vms: Vec<PlannedVm>,
    secrets: &Secrets,
) -> Result<Wanted, Stop> {
    let profile = &session.profile.value;
    let config = ClusterConfig {
        endpoint: endpoint(session)?,
        pod_cidr: profile.network.pod_cidr.to_string(),
        service_cidr: profile.network.service_cidr.to_string(),
        install_disk: talos.install_disk.clone(),
        schematic: release.schematic.clone(),
        installer: release.installer,
        vip: talos.vip.as_ref().map(|vip| vip.ip),
    };
    let machines = machines(session, talos, &config, &release.versions, &vms, secrets)?;
    let ranges = &session.site.vmid_ranges;
    Ok(Wanted {
        run,
        cluster: profile.name.clone(),
        profile: session.profile_digest(),
        secrets: secrets.fingerprint(),
        talos: release.versions.talos,
        kubernetes: release.versions.kubernetes,
        schematic: release.schematic,
        tags: profile.tags.clone(),
        machines,
        storage: session.site.defaults.storage.clone(),
        nic: nic(session),
        hardware: hardware(session, &release.extensions),
        extensions: release.extensions,
        extra: rows.iter().map(|vm| (vm.name.to_string(), vm.vm.clone())).collect(),
        template_ids: ranges.templates.first.0..=ranges.templates.last.0,
        discovery: discovery(session, &vms)?,
        limits: Limits {
            shutdown: profile.timeouts.shutdown.as_secs(),
            boot: profile.timeouts.boot.as_secs(),
            health: profile.timeouts.health.as_secs(),
            task: profile.timeouts.task.as_secs(),
            steady: profile.steady.as_secs(),
        },
        max_destroy: profile.guards.max_destroy,
        config,
        vms,
    })
}

fn machines(
    session: &Session,
    talos: &Talos,
    config: &ClusterConfig,
    versions: &Versions,
    vms: &[PlannedVm],
    secrets: &Secrets,
) -> Result<BTreeMap<MachineName, MachineSpec>, Stop> {
    let network = &session.profile.value.network;
    let patches = talos.patches_dir_in(&session.folder());
    let mut machines = BTreeMap::new();
    for vm in vms {
        let own = patches
            .iter()
            .map(|dir| dir.join(format!("{}.yaml", vm.name)))
            .filter(|path| path.is_file())
            .collect::<Vec<_>>();
        let address = match (vm.address, network.prefix.or_else(|| network.subnet().map(|subnet| subnet.prefix_len())))
        {
            (Some(address), Some(prefix)) => Some(format!("{address}/{prefix}")),
            (Some(address), None) if own.is_empty() => {
                return Err(Stop::new(ExitCode::Invalid, format!("the prefix length of {}'s address {address} is not known", vm.name))
                    .hinted("give network.prefix and network.gateway in the profile, or a patch of that name in talos.patches_dir"));
            }
            // The user's own patch sets the address.
            _ => None,
        };
        let Some(mac) = vm.mac else { continue };
        let mut spec = MachineSpec {
            name: MachineName::new(&vm.name),
            role: vm.role,
            mac,
            gateway: address.as_ref().and(network.gateway),
            nameservers: network.nameservers.clone(),
            address,
            patches: own,
            digest: Sha256::of(b""),
        };
        let rendered =
            config::render(secrets, &session.profile.value.name, config, versions, &spec).map_err(|error| {
                Stop::because(ExitCode::Invalid, format!("the configuration of {} can't be rendered", vm.name), &error)
            })?;
        spec.digest = rendered.digest;
        machines.insert(spec.name.clone(), spec);
    }
    Ok(machines)
}

fn nic(session: &Session) -> String {
    let network = &session.profile.value.network;
    let defaults = &session.site.defaults;
    let mut nic = format!("virtio,bridge={}", network.bridge.as_ref().unwrap_or(&defaults.bridge));
    if let Some(vlan) = network.vlan.or(defaults.vlan) {
        let _ = write!(nic, ",tag={vlan}");
    }
    if let Some(mtu) = network.mtu {
        let _ = write!(nic, ",mtu={mtu}");
    }
    nic
}

fn hardware(session: &Session, extensions: &[String]) -> Hardware {
    let defaults = &session.site.defaults;
    let mut hardware = preset();
    for (key, value) in [
        ("bios", &defaults.bios),
        ("machine", &defaults.machine),
        ("cpu", &defaults.cpu),
        ("scsihw", &defaults.scsihw),
        ("ostype", &defaults.ostype),
    ] {
        hardware.insert(key.to_owned(), value.clone());
    }
    // An agent that is configured and not there makes every shutdown wait for it.
    if defaults.agent && extensions.iter().any(|name| name == AGENT) {
        hardware.insert("agent".to_owned(), "enabled=1".to_owned());
    }
    hardware
}

/// Where to look for machines without a configuration: the subnet of the profile, or the one its addresses lie in.
fn discovery(session: &Session, vms: &[PlannedVm]) -> Result<Vec<Discovery>, Stop> {
    let profile = &session.profile.value;
    if profile.address_discovery.mode == DiscoveryMode::Static {
        return Ok(Vec::new());
    }
    let subnet = profile.address_discovery.subnet.or_else(|| profile.network.subnet()).or_else(|| {
        // A /24 around the first address: what a homelab has.
        let address = vms.iter().find_map(|vm| vm.address)?;
        ipnet::IpNet::new(address, 24).ok().map(|net| net.trunc())
    });
    let subnet = subnet.ok_or_else(|| {
        Stop::new(ExitCode::Invalid, "it is not known where new machines come up")
            .hinted("give address_discovery.subnet in the profile: the network in which they get their DHCP addresses")
    })?;
    Ok(vec![Discovery::Scan(subnet.trunc().to_string())])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_of_the_program_are_sound() {
        assert_eq!(preset().get("scsihw").map(String::as_str), Some("virtio-scsi-single"));
        let empty = schematic_of(&[]).unwrap().id().unwrap();
        assert_eq!(empty.as_str(), "376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba");
        let one = schematic_of(&["siderolabs/qemu-guest-agent".to_owned()]).unwrap().id().unwrap();
        assert_eq!(one.as_str(), "ce4c980550dd2ab1b17bbf2b08801c7eb59418eafe8f279833297925d67c7515");
    }
}
