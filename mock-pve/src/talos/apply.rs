//! `ApplyConfiguration`, which differs between maintenance mode before 1.13, since 1.13, and a configured machine.

use std::sync::Arc;

use tonic::Status;

use super::proto::machine::apply_configuration_request::Mode;
use super::proto::machine::{ApplyConfiguration, ApplyConfigurationRequest};
use crate::world::machine::{Apply, Command, ConfigError, Machine, NodeConfig, State, diff, reboot_needed};

/// How long a configuration is tried when the caller doesn't say.
const TRY: std::time::Duration = std::time::Duration::from_mins(1);
const NO_CONFIG_YET: &str = "Dry run summary:\nNode is running in maintenance mode and does not have a config yet.";
const WITHOUT_REBOOT: &str = "Applied configuration without a reboot";
const STAGED: &str = "Staged configuration to be applied after the next reboot";

pub(super) fn in_maintenance(
    machine: &Machine,
    request: &ApplyConfigurationRequest,
) -> Result<ApplyConfiguration, Status> {
    let version = machine.see(State::version);
    let modern = version.full_maintenance_api();
    let asked = mode(request)?;
    if !modern && !matches!(asked, Mode::Auto | Mode::Reboot | Mode::Try) {
        let name = asked.as_str_name().to_lowercase().replace('_', "-");
        let why = format!("apply configuration --mode='{name}' is not supported in maintenance mode");
        return Err(Status::unimplemented(why));
    }
    let config = NodeConfig::parse(&request.data, version).map_err(|error| match error {
        _ if modern => Status::invalid_argument(error.to_string()),
        ConfigError::Parse(why) => Status::unknown(format!("failed to parse config: {why}")),
        ConfigError::Invalid(_) => Status::invalid_argument(format!("configuration validation failed: {error}")),
    })?;
    if !modern {
        if request.dry_run {
            return Ok(ApplyConfiguration { mode_details: NO_CONFIG_YET.to_owned(), ..Default::default() });
        }
        machine.command(Command::Apply { config: Arc::new(config), when: Apply::Now });
        return Ok(ApplyConfiguration::default());
    }
    // What it is now doesn't stand in the way, so nothing needs a reboot.
    let (mode, mut details) = match asked {
        Mode::Staged => (Mode::Staged, STAGED.to_owned()),
        Mode::Try => (Mode::Try, WITHOUT_REBOOT.to_owned()),
        _ => (Mode::NoReboot, WITHOUT_REBOOT.to_owned()),
    };
    if request.dry_run {
        let old = machine.see(|state| state.partial.clone());
        let mode_details = dry_run(&details, old.as_ref().map_or("", |old| old.text()), config.text());
        return Ok(ApplyConfiguration { mode: mode.into(), mode_details, ..Default::default() });
    }
    let when = accepted(machine, request, (asked, mode), &mut details);
    machine.command(Command::Apply { config: Arc::new(config), when });
    Ok(ApplyConfiguration { mode: mode.into(), mode_details: details, ..Default::default() })
}

/// Says on the console what was asked and what is done, and finds out when it counts.
fn accepted(
    machine: &Machine,
    request: &ApplyConfigurationRequest,
    (asked, mode): (Mode, Mode),
    details: &mut String,
) -> Apply {
    let name = |mode: Mode| mode.as_str_name().to_lowercase();
    let shown = if asked == Mode::Auto { format!("{}({})", name(asked), name(mode)) } else { name(asked) };
    machine.says(&format!("[talos] apply config request: mode {shown}"));
    match mode {
        Mode::Reboot => Apply::Reboot,
        Mode::Staged => Apply::Staged,
        Mode::Try => {
            let limit = request.try_mode_timeout.and_then(|limit| std::time::Duration::try_from(limit).ok());
            let limit = limit.unwrap_or(TRY);
            details.push_str(&format!(
                "\nThe config is applied in 'try' mode and will be automatically reverted back in {}",
                go_duration(limit)
            ));
            Apply::Try(limit.as_secs_f64())
        }
        _ => Apply::Now,
    }
}

/// What would be done, and what it would change.
fn dry_run(details: &str, old: &str, new: &str) -> String {
    let changed = diff(old, new);
    let changed = if changed.is_empty() { "No changes." } else { &changed };
    format!("Dry run summary:\n{details} (skipped in dry-run).\nConfig diff:\n\n{changed}")
}

pub(super) async fn configured(
    machine: Machine,
    request: ApplyConfigurationRequest,
) -> Result<ApplyConfiguration, Status> {
    let version = machine.see(State::version);
    let config =
        NodeConfig::parse(&request.data, version).map_err(|error| Status::invalid_argument(error.to_string()))?;
    if !config.is_whole() {
        let why = "the applied machine configuration doesn't contain v1alpha1 config, did you mean to patch the machine \
                   config instead?";
        return Err(Status::invalid_argument(why));
    }
    let old = machine.see(|state| state.config.clone());
    let old = old.ok_or_else(|| Status::failed_precondition("no configuration yet"))?;
    if version.applies_one_by_one() {
        if machine.see(|state| state.sequence == Some("reboot")) {
            let why = "configuration was already applied and node is rebooting, cannot apply more configuration changes \
                       until next reboot";
            return Err(Status::failed_precondition(why));
        }
        if machine.see(|state| state.busy == Some("apply")) {
            return Err(Status::failed_precondition("another apply configuration is already in progress"));
        }
    }
    let asked = mode(&request)?;
    let why = reboot_needed(&old, &config, version);
    let (mode, mut details) = match (asked, why) {
        (Mode::Reboot, _) if version.minor >= 14 => {
            let why = "the REBOOT mode is not supported, please use AUTO or NO_REBOOT modes instead";
            return Err(Status::unimplemented(why));
        }
        (Mode::Reboot, _) => (Mode::Reboot, "Applied configuration with a reboot".to_owned()),
        (Mode::Auto, Some(why)) => (Mode::Reboot, format!("Applied configuration with a reboot: {why}")),
        (Mode::NoReboot | Mode::Try, Some(why)) => return Err(Status::invalid_argument(why)),
        (Mode::Auto | Mode::NoReboot, None) => (Mode::NoReboot, WITHOUT_REBOOT.to_owned()),
        (Mode::Try, None) => (Mode::Try, WITHOUT_REBOOT.to_owned()),
        (Mode::Staged, _) => (Mode::Staged, STAGED.to_owned()),
    };
    if request.dry_run {
        let mode_details = dry_run(&details, old.text(), config.text());
        return Ok(ApplyConfiguration { mode: mode.into(), mode_details, ..Default::default() });
    }
    let when = accepted(&machine, &request, (asked, mode), &mut details);
    let config = Arc::new(config);
    let mut changes = machine.changes();
    machine.update(|state| state.busy = Some("apply"));
    machine.command(Command::Apply { config: config.clone(), when });
    // It counts once the call returns.
    let counts = async {
        while machine.see(|state| state.busy == Some("apply")) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(std::time::Duration::from_secs(5), counts).await;
    Ok(ApplyConfiguration { mode: mode.into(), mode_details: details, ..Default::default() })
}

/// A duration as Go prints it: `1m0s`.
pub(super) fn go_duration(duration: std::time::Duration) -> String {
    let (seconds, rest) = (duration.as_secs(), duration.subsec_millis());
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let seconds = if rest == 0 { format!("{seconds}s") } else { format!("{seconds}.{rest:03}s") };
    match (hours, minutes) {
        (0, 0) => seconds,
        (0, minutes) => format!("{minutes}m{seconds}"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
    }
}

fn mode(request: &ApplyConfigurationRequest) -> Result<Mode, Status> {
    Mode::try_from(request.mode).map_err(|_| Status::invalid_argument(format!("unknown mode {}", request.mode)))
}
