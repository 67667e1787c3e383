//! The last word before something is changed: the cluster's name, typed or given.

use super::Surroundings;
use super::args::Global;
use super::stop::Stop;
use crate::exit::ExitCode;
use crate::plan::Plan;

/// Passes only when the cluster's name was given with `--confirm`, or is typed on the terminal.
pub fn confirm(plan: &Plan, global: &Global, surroundings: &Surroundings) -> Result<(), Stop> {
    let deed = match plan.verb {
        verb if verb.reboots() => "reboots machines",
        _ if plan.destroys.is_empty() => "creates VMs",
        _ => "destroys VMs",
    };
    confirm_deed(deed, &plan.cluster, global, surroundings)
}

/// As [`confirm`], for what else can't be taken back: `deed` says what, as in `deletes snapshots`.
pub fn confirm_deed(deed: &str, cluster: &str, global: &Global, surroundings: &Surroundings) -> Result<(), Stop> {
    if let Some(given) = &global.confirm {
        if given == cluster {
            return Ok(());
        }
        return Err(Stop::new(ExitCode::Refused, format!("--confirm names {given}, and this is cluster {cluster}"))
            .hinted("nothing was touched"));
    }
    if !surroundings.console.asked {
        return Err(Stop::new(ExitCode::Refused, format!("this {deed} and nobody is there to confirm it"))
            .hinted(format!("add --confirm {cluster} once that is what you want")));
    }
    let typed = surroundings.console.ask(&format!("\nType the cluster's name to go on ({cluster}): "));
    if typed.as_deref() == Some(cluster) {
        return Ok(());
    }
    Err(Stop::new(ExitCode::Refused, "the cluster's name was not typed").hinted("nothing was touched"))
}
