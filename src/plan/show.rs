//! A plan as text: what is approved is the object that will run.
//!
//! Purpose: the runbook's table of VMs, what is destroyed and what kept, bytes, expected duration and downtime.

use std::fmt::Write as _;

use super::check::size;
use super::observed::{Finding, Severity};
use super::{Phase, Plan, PlannedVm, Step, Verb};
use crate::types::Role;

/// Seconds that the kinds of steps take on ordinary hardware, for the estimate: measured orders of magnitude
/// (clone of a few hundred MiB, boot of a VM, start of the control plane), never a promise.
const CLONE: u64 = 20;
const BOOT: u64 = 25;
const CLUSTER_UP: u64 = 90;
const TEMPLATE: u64 = 30;
/// Writing a release and going down for it.
const REWRITE: u64 = 60;
/// Bytes per second assumed for a download.
const DOWNLOAD: u64 = 50_000_000;

/// What the plan is expected to take, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// From start to end.
    pub duration: u64,
    /// The Kubernetes API down, from the first shutdown to the new API server.
    pub downtime: u64,
}

/// The estimate for a plan: phases after another, steps of a phase side by side.
pub fn estimate(plan: &Plan) -> Estimate {
    let seconds = |phase: &Phase| -> u64 {
        let longest = phase.steps.iter().map(|planned| cost(&planned.step)).sum::<u64>();
        let lanes = phase.width.min(phase.steps.len().div_ceil(4).max(1)) as u64;
        longest / lanes
    };
    let of = |from: &str| -> u64 {
        plan.phases.iter().skip_while(|phase| !from.is_empty() && phase.name != from).map(seconds).sum()
    };
    let download = plan.download_bytes / DOWNLOAD;
    Estimate {
        duration: of("") + download,
        downtime: if plan.destroys.is_empty() { 0 } else { of("freeze").saturating_sub(plan.limits.steady) },
    }
}

fn cost(step: &Step) -> u64 {
    match step {
        Step::CreateTemplate { .. } | Step::StreamImage { .. } => TEMPLATE,
        Step::CloneVm { .. } | Step::MigrateVm { .. } => CLONE,
        Step::StartVm { .. } | Step::AwaitMachine { .. } => BOOT,
        Step::ShutdownMachine { .. } | Step::ShutdownKept { .. } => 30,
        Step::StopMajority { machines, .. } => 30 * (machines.len() as u64).saturating_sub(1),
        Step::AwaitHealthy { .. } => CLUSTER_UP,
        Step::AwaitNodesReady { steady, .. } | Step::AwaitUpgraded { steady, .. } => *steady,
        Step::UpgradeMachine { .. } | Step::RollBackMachine { .. } => 2 * BOOT + REWRITE,
        _ => 2,
    }
}

/// Whether carrying the plan out would change anything.
pub fn changes_anything(plan: &Plan) -> bool {
    plan.steps().any(|planned| !matches!(planned.step, Step::ConfirmFacts))
}

/// The plan for people.
pub fn text(plan: &Plan) -> String {
    let mut out = String::new();
    let from = plan
        .before
        .as_ref()
        .map_or_else(String::new, |before| format!(" (runs Talos {}, Kubernetes {})", before.talos, before.kubernetes));
    let _ = writeln!(out, "Plan {} · {} of cluster {}{from}", plan.run, plan.verb, plan.cluster);
    if let Some(after) = &plan.after {
        let _ = write!(out, "to Talos {}, Kubernetes {}", after.talos, after.kubernetes);
    }
    if let Some(config) = &plan.cluster_config {
        let _ = write!(out, ", schematic {}", config.schematic);
    }
    out.push_str("\n\n");
    if !plan.vms.is_empty() {
        if plan.verb.reboots() {
            running(plan, &mut out);
        } else {
            machines(plan, &mut out);
        }
        changed(plan, &mut out);
    }
    for (number, hop) in plan.hops.iter().enumerate() {
        let (what, from, to) = (hop.what, &hop.from, &hop.to);
        let _ = writeln!(
            out,
            "{}Hop {}: {what} {from} -> {to} ({})",
            if number == 0 { "\n" } else { "" },
            number + 1,
            hop.because
        );
    }
    destroyed(plan, &mut out);
    for way in &plan.ways {
        let _ = writeln!(out, "Template {} on {}: the image is {} ({})", way.template, way.node, way.how, way.because);
    }
    for kept in &plan.keeps {
        let _ = writeln!(out, "Kept: {} ({}): {}", kept.vmid, kept.name, kept.because);
    }
    let _ = writeln!(out, "\nSteps:");
    for phase in &plan.phases {
        let _ = writeln!(out, "  {}", phase.name);
        for planned in &phase.steps {
            let flag = if planned.step.is_destructive() { "!" } else { "·" };
            let _ = writeln!(out, "    {flag} {}", planned.step.title());
            if let Step::SyncManifests { expected, .. } = &planned.step {
                for line in expected {
                    let _ = writeln!(out, "        {line}");
                }
            }
        }
    }
    let estimate = estimate(plan);
    let (bytes, duration) = (size(plan.download_bytes), minutes(estimate.duration));
    let _ = match plan.verb {
        Verb::Rebuild | Verb::Rollback => {
            let downtime = minutes(estimate.downtime);
            writeln!(
                out,
                "\nDownloads {bytes}; expected to take about {duration}, with the Kubernetes API down for about {downtime}."
            )
        }
        Verb::Create | Verb::Teardown | Verb::TemplateBuild => {
            writeln!(out, "\nDownloads {bytes}; expected to take about {duration}.")
        }
        Verb::Upgrade | Verb::GoBack => writeln!(out, "\nExpected to take about {duration}{}.", api_meanwhile(plan)),
    };
    out
}

/// What becomes of the Kubernetes API while machines reboot.
fn api_meanwhile(plan: &Plan) -> &'static str {
    let control = |role: Role| role == Role::ControlPlane;
    let reboots = plan.steps().any(|planned| match &planned.step {
        Step::UpgradeMachine { machine, .. } | Step::RollBackMachine { machine, .. } => control(machine.role),
        _ => false,
    });
    match plan.vms.iter().filter(|vm| control(vm.role)).count() {
        _ if !reboots => "",
        1 => "; the Kubernetes API is away while the only control plane reboots",
        _ => "; control planes reboot one at a time, and the Kubernetes API stays up",
    }
}

/// The machines that are there, with what each of them runs and goes through.
fn running(plan: &Plan, out: &mut String) {
    let versions = |name: &str| {
        let mut way: Vec<String> = Vec::new();
        for planned in plan.steps() {
            let next = match &planned.step {
                Step::MeetMachine { machine, version } if machine.name.as_str() == name => version.to_string(),
                Step::UpgradeMachine { machine, release, .. } if machine.name.as_str() == name => {
                    release.version.to_string()
                }
                Step::RollBackMachine { machine, release, .. } if machine.name.as_str() == name => {
                    release.as_ref().map_or_else(|| "the release before".to_owned(), |back| back.version.to_string())
                }
                _ => continue,
            };
            way.push(next);
        }
        way.join(" -> ")
    };
    let rows: Vec<[String; 6]> = plan
        .vms
        .iter()
        .map(|vm| {
            let [name, role, vmid, node, address] = place(vm);
            [name, role, vmid, node, address, versions(&vm.name)]
        })
        .collect();
    table(&["NAME", "ROLE", "VMID", "NODE", "ADDRESS", "TALOS"].map(str::to_owned), &rows, out);
}

/// Which machine it is, and where.
fn place(vm: &PlannedVm) -> [String; 5] {
    let address = vm.address.map_or_else(|| "discovered".to_owned(), |address| address.to_string());
    [vm.name.clone(), vm.role.to_string(), vm.vmid.to_string(), vm.node.to_string(), address]
}

fn machines(plan: &Plan, out: &mut String) {
    let rows: Vec<[String; 9]> = plan
        .vms
        .iter()
        .map(|vm| {
            let [name, role, vmid, node, address] = place(vm);
            let (memory, disk) = (format!("{} MB", vm.memory_mb), format!("{} GiB", vm.disk_gib));
            let replaces = vm.replaces.map_or_else(|| "-".to_owned(), |old| old.to_string());
            [name, role, vmid, node, address, vm.cores.to_string(), memory, disk, replaces]
        })
        .collect();
    let heads = ["NAME", "ROLE", "VMID", "NODE", "ADDRESS", "CORES", "MEMORY", "DISK", "REPLACES"].map(str::to_owned);
    table(&heads, &rows, out);
}

fn table<const N: usize>(heads: &[String; N], rows: &[[String; N]], out: &mut String) {
    let mut widths = heads.each_ref().map(String::len);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.len());
        }
    }
    for row in std::iter::once(heads).chain(rows) {
        let line: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        let _ = writeln!(out, "  {}", line.join("  ").trim_end());
    }
}

/// What the new VMs have otherwise than the old ones.
fn changed(plan: &Plan, out: &mut String) {
    if plan.changes.is_empty() {
        return;
    }
    let _ = writeln!(out, "\nWhat changes (the rest is taken over):");
    for vm in &plan.vms {
        for change in plan.changes.iter().filter(|change| change.vm == vm.name) {
            let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
            let _ = writeln!(out, "  {}  {}: {} -> {}", vm.name, change.key, shown(&change.old), shown(&change.new));
        }
    }
}

fn destroyed(plan: &Plan, out: &mut String) {
    if plan.destroys.is_empty() {
        return;
    }
    let _ = writeln!(out, "\nDESTROYED, with their disks:");
    for vm in &plan.destroys {
        let disks: Vec<String> = vm.disks.iter().map(|(key, volume)| format!("{key} {volume}")).collect();
        let _ = writeln!(out, "  {} ({}) on {}: {}", vm.vmid, vm.name, vm.node, disks.join(", "));
        for fate in plan.fates.iter().filter(|fate| fate.vmid == vm.vmid) {
            let _ = writeln!(out, "    {}", fate.what);
        }
    }
}

/// The findings for people, refusals first.
pub fn findings(findings: &[Finding]) -> String {
    let mut out = String::new();
    for finding in findings {
        let label = match finding.severity {
            Severity::Refusal => "error",
            Severity::Warning => "warning",
        };
        let _ = writeln!(out, "{label}: {}", finding.what);
        for cause in &finding.causes {
            let _ = writeln!(out, "  cause: {cause}");
        }
        if let Some(hint) = &finding.hint {
            let _ = writeln!(out, "  hint: {hint}");
        }
    }
    out
}

/// `40 s`, `2 min 5 s`.
pub fn minutes(seconds: u64) -> String {
    if seconds < 90 { format!("{seconds} s") } else { format!("{} min {} s", seconds / 60, seconds % 60) }
}
