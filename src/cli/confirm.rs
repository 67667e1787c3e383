//! The last word before something is destroyed: the cluster's name, typed or given.

use super::Surroundings;
use super::args::Global;
use super::stop::Stop;
use crate::exit::ExitCode;

/// Passes only when the cluster's name was given with `--confirm`, or is typed on the terminal.
pub fn confirm(cluster: &str, global: &Global, surroundings: &Surroundings) -> Result<(), Stop> {
    if let Some(given) = &global.confirm {
        if given == cluster {
            return Ok(());
        }
        return Err(Stop::new(ExitCode::Refused, format!("--confirm names {given}, and this is cluster {cluster}"))
            .hinted("nothing was touched"));
    }
    if !surroundings.console.asked {
        return Err(Stop::new(ExitCode::Refused, "this destroys VMs and nobody is there to confirm it")
            .hinted(format!("add --confirm {cluster} once the plan is what you want")));
    }
    let typed = surroundings.console.ask(&format!("\nType the cluster's name to go on ({cluster}): "));
    if typed.as_deref() == Some(cluster) {
        return Ok(());
    }
    Err(Stop::new(ExitCode::Refused, "the cluster's name was not typed").hinted("nothing was touched"))
}
