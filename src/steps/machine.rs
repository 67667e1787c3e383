//! Steps on single machines: finding them, proving a canary, applying a configuration, waiting for the boot after it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use super::World;
use super::classify::{by_pve, by_talos, refused, wrong};
use super::ours::at;
use crate::engine::{Class, Seen, StepCx, StepError};
use crate::net::tls::SpkiPin;
use crate::plan::step::{Discovery, MachineSpec, OurVm};
use crate::plan::{Output, Step};
use crate::talos::client::maintenance::{Answers, Facts, Maintenance, probe};
use crate::talos::client::{Drain, Machine, TalosError};
use crate::types::{Mac, MachineName, SchematicId, StepId, Version};

/// How long one machine may take to say who it is.
const WHO: Duration = Duration::from_secs(5);

/// How long a call to a machine may take.
const CALL: Duration = Duration::from_secs(20);

/// Between two rounds of looking.
const ROUND: Duration = Duration::from_millis(500);

/// How many addresses are tried at once when a network is scanned.
const SCAN_WIDTH: usize = 64;

/// How long a host may take to accept a connection in a scan; machines are on the same site.
const KNOCK: Duration = Duration::from_millis(800);

/// Talos' port.
const PORT: u16 = 50000;

/// What a canary has to be.
pub(super) struct Expected<'a> {
    pub(super) version: &'a Version,
    pub(super) schematic: &'a SchematicId,
    pub(super) install_disk: &'a str,
    pub(super) configs: &'a [MachineSpec],
}

impl World {
    /// Looks until a machine in maintenance has both the MAC and the SMBIOS UUID of the VM.
    pub(super) async fn find_machine(
        &self,
        vm: &OurVm,
        mac: Mac,
        discovery: &[Discovery],
        cx: &StepCx<'_>,
    ) -> Result<Output, StepError> {
        let doing = format!("find the machine of VM {} ({})", vm.vmid, vm.name);
        let config = self.pve.vm_config(&at(vm)).await.map_err(|error| by_pve(&doing, error))?;
        let uuid = config.smbios_uuid().ok_or_else(|| wrong(&doing, "the VM has no SMBIOS UUID"))?;
        let limit = Duration::from_secs(self.plan.limits.boot);
        let since = cx.elapsed();
        let mut strangers = BTreeSet::new();
        loop {
            for way in discovery {
                let candidates = match way {
                    Discovery::Static(address) => vec![*address],
                    Discovery::Scan(network) => self.scan(network).await.map_err(|why| wrong(&doing, why))?,
                };
                for address in candidates {
                    match self.identify(address).await {
                        Some((machine, facts)) if is(&facts, mac, &uuid) => {
                            let pin = Some(machine.pin().to_string());
                            return Ok(Output::Machine { address, pin, boot_id: None });
                        }
                        Some(_) => drop(strangers.insert(address)),
                        None => {}
                    }
                }
            }
            if cx.elapsed().saturating_sub(since) >= limit {
                let others = list(&strangers);
                let seen =
                    if others.is_empty() { "none answered".to_owned() } else { format!("others answered at {others}") };
                return Err(wrong(doing, format!("no machine in maintenance with MAC {mac} within {} s; {seen}", limit.as_secs()))
                    .hinted("look at the VM's console: without an address there is no DHCP server on its bridge, without a boot the disk is wrong"));
            }
            let others = list(&strangers);
            cx.waiting(&format!("a machine with MAC {mac}"), (!others.is_empty()).then_some(others.as_str()));
            cx.sleep(ROUND).await;
        }
    }

    /// What a machine in maintenance says about itself; none when nobody, or nobody in maintenance, answers.
    async fn identify(&self, address: IpAddr) -> Option<(Maintenance, Facts)> {
        match probe(&self.connector, &address.to_string(), WHO).await {
            Ok(Answers::Maintenance(machine)) => match machine.facts().await {
                Ok(facts) => Some((machine, facts)),
                Err(error) => {
                    tracing::debug!(%address, %error, "a machine in maintenance doesn't say who it is");
                    None
                }
            },
            Ok(Answers::Configured(_)) | Err(_) => None,
        }
    }

    /// The hosts of a network that accept connections on Talos' port.
    async fn scan(&self, network: &str) -> Result<Vec<IpAddr>, String> {
        let network: ipnet::IpNet = network.parse().map_err(|_| format!("'{network}' is not a network"))?;
        let mut hosts = network.hosts();
        let mut knocking = FuturesUnordered::new();
        let mut open = Vec::new();
        loop {
            while knocking.len() < SCAN_WIDTH
                && let Some(host) = hosts.next()
            {
                knocking.push(async move {
                    let knocked = tokio::time::timeout(KNOCK, self.connector.tcp(&host.to_string(), PORT)).await;
                    matches!(knocked, Ok(Ok(_))).then_some(host)
                });
            }
            match knocking.next().await {
                Some(found) => open.extend(found),
                None => break,
            }
        }
        open.sort();
        Ok(open)
    }

    /// The machine that step `found` saw, by the key it had then. Maintenance makes a new key at each boot, so one that
    /// rebooted since is looked for once more, by MAC and UUID as before.
    async fn reached(&self, doing: &str, found: &StepId, cx: &StepCx<'_>) -> Result<Maintenance, StepError> {
        let machine = self.pinned(doing, found, cx.output_of(found))?;
        let Some(Output::Machine { address, .. }) = cx.output_of(found) else { return Ok(machine) };
        let rebooted = matches!(machine.status().await, Err(TalosError::PinChanged { .. }));
        // With its configuration it shows another key as well; then there is nobody to look for.
        if !rebooted || self.identify(*address).await.is_none() {
            return Ok(machine);
        }
        let find = self.plan.steps().find(|planned| planned.id == *found);
        let Some(Step::FindMachine { vm, mac, discovery }) = find.map(|planned| &planned.step) else {
            return Err(wrong(doing, format!("the plan has no step {found} that finds it")));
        };
        cx.notice(format!("the machine of VM {} was rebooted since it was found, and is looked for again", vm.vmid));
        let again = self.find_machine(vm, *mac, discovery, cx).await?;
        self.pinned(doing, found, Some(&again))
    }

    fn pinned(&self, doing: &str, found: &StepId, output: Option<&Output>) -> Result<Maintenance, StepError> {
        let Some(Output::Machine { address, pin: Some(pin), .. }) = output else {
            return Err(wrong(doing, format!("{found} has not found it")));
        };
        let pin: SpkiPin = pin.parse().map_err(|error| StepError::new(Class::Permanent, doing, error))?;
        Maintenance::pinned(&self.connector, &address.to_string(), pin, CALL).map_err(|error| by_talos(doing, error))
    }

    pub(super) async fn prove_canary(
        &self,
        found: &StepId,
        expected: Expected<'_>,
        cx: &StepCx<'_>,
    ) -> Result<Output, StepError> {
        let doing = "prove the canary";
        let machine = self.reached(doing, found, cx).await?;
        let facts = machine.facts().await.map_err(|error| by_talos(doing, error))?;
        let mut wrong = Vec::new();
        match &facts.version {
            Some(version) if version != expected.version => {
                wrong.push(format!("it runs Talos {version}, not {}", expected.version));
            }
            _ => {}
        }
        match &facts.extensions.schematic {
            Some(schematic) if schematic == expected.schematic => {}
            Some(schematic) => {
                wrong.push(format!("it was made from schematic {schematic}, not {}", expected.schematic));
            }
            None => wrong.push("it does not say what schematic it was made from".to_owned()),
        }
        match facts.disks.iter().find(|disk| disk.system) {
            Some(disk) if disk.path == expected.install_disk => {}
            Some(disk) => {
                wrong.push(format!("Talos is on {}, and the configurations say {}", disk.path, expected.install_disk));
            }
            None if facts.disks.iter().any(|disk| disk.path == expected.install_disk) => {}
            None => wrong.push(format!("it has no disk {}", expected.install_disk)),
        }
        if facts.links.is_empty() {
            wrong.push("it has no network link".to_owned());
        }
        for spec in expected.configs {
            let text = self.rendered(doing, spec)?;
            match machine.validate(&text).await {
                Ok(applied) => {
                    for warning in applied.warnings {
                        cx.notice(format!("{}: {warning}", spec.name));
                    }
                }
                Err(TalosError::Rejected { reason, .. }) => {
                    wrong.push(format!("it rejects the configuration of {}: {reason}", spec.name));
                }
                Err(error) => return Err(by_talos(doing, error)),
            }
        }
        if wrong.is_empty() {
            return Ok(Output::Nothing);
        }
        Err(refused(doing, wrong.join("; "))
            .hinted("the old cluster was not touched; correct the profile and start again")
            .hinted("if the image is to blame, delete the template that this run made first: a new plan would take it again"))
    }

    /// The configuration of the plan, byte for byte.
    fn rendered(&self, doing: &str, spec: &MachineSpec) -> Result<secrecy::SecretString, StepError> {
        let plan = &self.plan;
        let rendered = super::config::render(&self.secrets, &plan.cluster, &plan.cluster_config, &plan.after, spec)
            .map_err(|error| StepError::new(Class::Permanent, doing, error))?;
        if rendered.digest == spec.digest {
            return Ok(rendered.text);
        }
        Err(refused(doing, format!("the configuration of {} is not the one that was planned", spec.name)).hinted(
            "its patches were edited, or another version of recast made the plan; put them back, or make a new plan",
        ))
    }

    /// An authenticated connection.
    pub(super) fn machine(&self, doing: &str, address: IpAddr) -> Result<Machine, StepError> {
        Machine::new(&self.connector, &address.to_string(), &self.access, CALL).map_err(|error| by_talos(doing, error))
    }

    /// A machine that already answers with the cluster's certificate has its configuration. One that answers nobody may
    /// be on its way there, since an earlier attempt's configuration makes it reboot: that is waited for.
    pub(super) async fn probe_applied(
        &self,
        found: &StepId,
        spec: &MachineSpec,
        cx: &StepCx<'_>,
    ) -> Result<Seen, StepError> {
        let doing = format!("look at {}", spec.name);
        let Some(address) = home(spec, found, cx) else { return Ok(Seen::Missing) };
        let machine = self.machine(&doing, address)?.waiting(WHO);
        let Some(Output::Machine { address: first, .. }) = cx.output_of(found) else { return Ok(Seen::Missing) };
        let limit = Duration::from_secs(self.plan.limits.boot);
        let since = cx.elapsed();
        loop {
            if machine.release().await.is_ok() {
                return Ok(Seen::Done(Output::Nothing));
            }
            if self.identify(*first).await.is_some() || cx.elapsed().saturating_sub(since) >= limit {
                return Ok(Seen::Missing);
            }
            cx.waiting(&format!("{} to answer", spec.name), None);
            cx.sleep(ROUND).await;
        }
    }

    pub(super) async fn apply_config(
        &self,
        found: &StepId,
        spec: &MachineSpec,
        cx: &StepCx<'_>,
    ) -> Result<Output, StepError> {
        let doing = format!("apply the configuration of {}", spec.name);
        let text = self.rendered(&doing, spec)?;
        let machine = self.reached(&doing, found, cx).await?;
        let applied = machine.apply(&text).await.map_err(|error| by_talos(&doing, error))?;
        for warning in applied.warnings {
            cx.notice(format!("{}: {warning}", spec.name));
        }
        Ok(Output::Nothing)
    }

    pub(super) async fn await_machine(
        &self,
        name: &MachineName,
        found: &StepId,
        address: Option<IpAddr>,
        version: &Version,
        cx: &StepCx<'_>,
    ) -> Result<Output, StepError> {
        let doing = format!("wait for {name}");
        let address = match (address, cx.output_of(found)) {
            (Some(address), _) => address,
            (None, Some(Output::Machine { address, .. })) => *address,
            _ => return Err(wrong(doing, "its address is not known")),
        };
        let machine = self.machine(&doing, address)?.waiting(WHO);
        let limit = Duration::from_secs(self.plan.limits.boot);
        let since = cx.elapsed();
        loop {
            let last = match machine.release().await {
                Ok(release) if release.version == *version => {
                    let boot_id = machine.boot_id().await.map_err(|error| by_talos(&doing, error))?;
                    return Ok(Output::Machine { address, pin: None, boot_id: Some(boot_id) });
                }
                Ok(release) => {
                    return Err(wrong(doing, format!("it runs Talos {}, not {version}", release.version)));
                }
                Err(error) => error,
            };
            if cx.elapsed().saturating_sub(since) >= limit {
                return Err(by_talos(doing, last).hinted("look at the VM's console"));
            }
            cx.waiting(&format!("{name} at {address}"), Some(&last.to_string()));
            cx.sleep(ROUND).await;
        }
    }

    /// Asks a machine of the old cluster to power off; the reason where it can't be asked.
    pub(super) async fn ask_to_shut_down(&self, address: IpAddr) -> Result<(), String> {
        let machine = self.machine("shut down", address).map_err(|error| error.to_string())?;
        // Without a drain: its cordons would be written to etcd, and its pods are stopped gracefully all the same.
        machine.waiting(WHO).shut_down(Drain::Skip).await.map_err(|error| error.to_string())
    }
}

/// Where a machine answers once it is configured: its static address, else where it was found.
fn home(spec: &MachineSpec, found: &StepId, cx: &StepCx<'_>) -> Option<IpAddr> {
    let own = spec.address.as_ref().and_then(|address| address.split('/').next()?.parse().ok());
    own.or(match cx.output_of(found) {
        Some(Output::Machine { address, .. }) => Some(*address),
        _ => None,
    })
}

fn is(facts: &Facts, mac: Mac, uuid: &str) -> bool {
    facts.links.iter().any(|link| link.mac == mac) && facts.uuid.as_deref() == Some(uuid)
}

fn list(addresses: &BTreeSet<IpAddr>) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
