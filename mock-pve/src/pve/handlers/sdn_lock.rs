//! `/cluster/sdn/lock`, `/cluster/sdn/rollback` (9): one at a time writes down what the virtual networks are to be.
//!
//! Rules after Proxmox VE 9.1 (PVE/API2/Network/SDN.pm, PVE/Network/SDN.pm `lock_sdn_config`).

use serde_json::{Value, json};

use crate::pve::call::{Call, Result};
use crate::world::refusal::{Refusal, Rule};
use crate::world::state::Sections;
use crate::world::{PveVersion, State};

const FILE: &str = "sdn/lock";

fn token(state: &State) -> Option<&str> {
    state.sections.get(FILE)?.get("lock")?.get("token").and_then(Value::as_str)
}

fn held_by(state: &State, given: Option<&str>, doing: &str) -> Rule<()> {
    match token(state) {
        Some(held) if given != Some(held) => Err(Refusal::failed(format!(
            "{doing}: invalid lock token provided! at /usr/share/perl5/PVE/Network/SDN.pm line 291.\n"
        ))),
        _ => Ok(()),
    }
}

/// Refuses whoever doesn't hold the lock that somebody holds.
pub(super) fn check(state: &State, call: &Call, doing: &str) -> Rule<()> {
    match state.pve {
        PveVersion::V8 => Ok(()),
        PveVersion::V9 => held_by(state, call.params.text("lock-token"), doing),
    }
}

/// Gives the lock back after the work, if that was asked for.
pub(super) fn release_after(state: &mut State, call: &Call) {
    let holds = call.params.text("lock-token").is_some_and(|token| !token.is_empty());
    if holds && call.params.is_on("release-lock") {
        state.sections.remove(FILE);
    }
}

/// `POST /cluster/sdn/lock`
pub(in crate::pve) fn acquire(call: &Call) -> Result {
    let doing = "could not acquire lock for SDN config";
    let made = call.world.random_uuid();
    let mut state = call.world.state();
    held_by(&state, None, doing)?;
    if !call.params.is_on("allow-pending") && state.networks_pending() {
        let text = "configuration has pending changes at /usr/share/perl5/PVE/API2/Network/SDN.pm line 149.\n";
        return Err(Refusal::failed(format!("{doing}: {text}")));
    }
    let entry = json!({"token": made}).as_object().cloned().unwrap_or_default();
    state.sections.insert(FILE.to_owned(), Sections::from([("lock".to_owned(), entry)]));
    Ok(made.into())
}

/// `DELETE /cluster/sdn/lock`
pub(in crate::pve) fn release(call: &Call) -> Result {
    let mut state = call.world.state();
    if !call.params.is_on("force") {
        check(&state, call, "could not release lock")?;
    }
    state.sections.remove(FILE);
    Ok(().into())
}

/// `POST /cluster/sdn/rollback`: what is written down is what is in force again.
pub(in crate::pve) fn roll_back(call: &Call) -> Result {
    let mut state = call.world.state();
    check(&state, call, "could not rollback SDN configuration")?;
    state.roll_networks_back();
    release_after(&mut state, call);
    Ok(().into())
}
