//! Steps on single machines: finding them, proving a canary, applying a configuration, waiting for the boot after it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use secrecy::ExposeSecret as _;

use super::World;
use super::classify::{by_pve, by_talos, refused, wrong};
use super::find::{Finder, Since, Unclear, WHO, Who, list};
use super::ours::at;
use crate::engine::{Class, Seen, StepCx, StepError};
use crate::net::tls::SpkiPin;
use crate::plan::provenance;
use crate::plan::step::{Discovery, MachineSpec, OurVm};
use crate::plan::{Output, Step};
use crate::talos::client::maintenance::{Facts, Maintenance};
use crate::talos::client::{Drain, Machine, TalosError};
use crate::talos::config::yaml;
use crate::types::{Mac, MachineName, SchematicId, StepId, Version};

/// How long a call to a machine may take.
const CALL: Duration = Duration::from_secs(20);

/// Between two rounds of looking.
const ROUND: Duration = Duration::from_millis(500);

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
        let who = Who { vm: at(vm), mac, uuid };
        let limit = Duration::from_secs(self.plan.limits.boot);
        let since = cx.elapsed();
        let mut strangers = BTreeSet::new();
        loop {
            match self.finder().look(&who, discovery, &mut strangers).await {
                Ok(Some(found)) => {
                    let pin = Some(found.machine.pin().to_string());
                    return Ok(Output::Machine { address: found.address, pin, boot_id: None });
                }
                Ok(None) => {}
                Err(unclear @ Unclear::Agent(_)) => {
                    return Err(StepError::new(Class::Permanent, doing, unclear).hinted(
                        "grant VM.Monitor, from PVE 9 on VM.GuestAgent.Audit, or set address_discovery.mode to scan",
                    ));
                }
                Err(unclear @ Unclear::Network(_)) => return Err(StepError::new(Class::Permanent, doing, unclear)),
                Err(unclear) => {
                    return Err(StepError::new(Class::Refused, doing, unclear)
                        .hinted("nothing was sent to either; give one of them another MAC, or stop it, then resume"));
                }
            }
            if cx.elapsed().saturating_sub(since) >= limit {
                let others = list(&strangers);
                let seen =
                    if others.is_empty() { "none answered".to_owned() } else { format!("others answered at {others}") };
                let what = format!("no machine in maintenance with MAC {mac} within {} s; {seen}", limit.as_secs());
                // A canary that never answers has told what it was asked; nothing of the old cluster was touched for it.
                let canary = provenance::field(&vm.mark, "step").is_some_and(|step| step.starts_with("canary/"));
                let failed = if canary { refused(doing, what) } else { wrong(doing, what) };
                return Err(failed.hinted("look at the VM's console: without an address there is no DHCP server on its bridge, without a boot the disk is wrong"));
            }
            let others = list(&strangers);
            cx.waiting(&format!("a machine with MAC {mac}"), (!others.is_empty()).then_some(others.as_str()));
            cx.sleep(ROUND).await;
        }
    }

    fn finder(&self) -> Finder<'_> {
        Finder { connector: &self.connector, pve: &self.pve }
    }

    /// What a machine in maintenance says about itself; none when nobody, or nobody in maintenance, answers.
    async fn identify(&self, address: IpAddr) -> Option<(Maintenance, Facts)> {
        self.finder().identify(address).await
    }

    /// The machine that step `found` saw, by the key it had then. Maintenance makes a new key at each boot, so one that
    /// rebooted since is looked for once more, by MAC and UUID as before.
    async fn reached(&self, doing: &str, found: &StepId, cx: &StepCx<'_>) -> Result<Maintenance, StepError> {
        let machine = self.pinned(doing, found, cx.output_of(found))?;
        let Some(Output::Machine { address, .. }) = cx.output_of(found) else { return Ok(machine) };
        if let Since::Same = self.finder().since(*address, &machine).await {
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
        let links: BTreeSet<&str> = facts.links.iter().map(|link| link.name.as_str()).collect();
        if links.is_empty() {
            wrong.push("it has no network link".to_owned());
        }
        for spec in expected.configs {
            let text = self.rendered(doing, spec)?;
            for name in links_named(text.expose_secret()).iter().filter(|name| !links.contains(name.as_str())) {
                let seen = links.iter().copied().collect::<Vec<_>>().join(", ");
                wrong.push(format!("the configuration of {} names link {name}, and it has {seen}", spec.name));
            }
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
        let (Some(config), Some(after)) = (&plan.cluster_config, &plan.after) else {
            return Err(wrong(doing, "the plan configures nothing"));
        };
        let rendered = super::config::render(&self.secrets, &plan.cluster, config, after, spec)
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

/// The names of physical links that a configuration refers to. Extensions and images change how links are called, and a
/// configuration with the wrong name leaves the machine without its address.
fn links_named(config: &str) -> BTreeSet<String> {
    // What configures a link that Talos makes itself names no physical one.
    const MADE: &[&str] = &["bond", "bridge", "dummy", "wireguard", "vlan"];
    let mut names = BTreeSet::new();
    for document in yaml::read(config).unwrap_or_default() {
        let text = |value: Option<&yaml::Value>| value.and_then(yaml::Value::as_text).map(str::to_owned);
        let root = document.root;
        let listed = root.at(&["machine", "network", "interfaces"]).and_then(yaml::Value::as_list);
        for interface in listed.unwrap_or_default() {
            if MADE.iter().all(|made| interface.at(&[made]).is_none()) {
                names.extend(text(interface.at(&["interface"])));
            }
        }
        if text(root.at(&["kind"])).as_deref() == Some("LinkConfig") {
            names.extend(text(root.at(&["name"])));
        }
    }
    names.remove("lo");
    names
}

/// Where a machine answers once it is configured: its static address, else where it was found.
fn home(spec: &MachineSpec, found: &StepId, cx: &StepCx<'_>) -> Option<IpAddr> {
    let own = spec.address.as_ref().and_then(|address| address.split('/').next()?.parse().ok());
    own.or(match cx.output_of(found) {
        Some(Output::Machine { address, .. }) => Some(*address),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_physical_links_are_looked_for() {
        let config = "machine:\n  network:\n    interfaces:\n      - interface: eth0\n        vip: {ip: 10.0.0.9}\n      \
             - interface: bond0\n        bond: {mode: 802.3ad}\n      - deviceSelector: {hardwareAddr: aa}\n---\n\
             apiVersion: v1alpha1\nkind: LinkConfig\nname: ens18\n---\napiVersion: v1alpha1\nkind: VLANConfig\nname: v7\n";
        assert_eq!(links_named(config), ["ens18".to_owned(), "eth0".to_owned()].into());
        assert_eq!(links_named("machine: {}\n"), BTreeSet::new());
    }
}
