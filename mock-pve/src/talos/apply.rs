//! `ApplyConfiguration`, which differs between maintenance mode before 1.13, since 1.13, and a configured machine.

use std::sync::Arc;

use tonic::Status;

use super::proto::machine::apply_configuration_request::Mode;
use super::proto::machine::{ApplyConfiguration, ApplyConfigurationRequest};
use crate::world::machine::{Command, ConfigError, Machine, NodeConfig, State};

const NO_CONFIG_YET: &str = "Dry run summary:\nNode is running in maintenance mode and does not have a config yet.";
const WITHOUT_REBOOT: &str = "Applied configuration without a reboot";

pub(super) fn in_maintenance(
    machine: &Machine,
    request: &ApplyConfigurationRequest,
) -> Result<ApplyConfiguration, Status> {
    let version = machine.see(State::version);
    let modern = version.full_maintenance_api();
    let mode = mode(request)?;
    if !modern && !matches!(mode, Mode::Auto | Mode::Reboot | Mode::Try) {
        let name = mode.as_str_name().to_lowercase().replace('_', "-");
        let why = format!("apply configuration --mode='{name}' is not supported in maintenance mode");
        return Err(Status::unimplemented(why));
    }
    let config = NodeConfig::parse(&request.data, version).map_err(|error| match error {
        _ if modern => Status::invalid_argument(error.to_string()),
        ConfigError::Parse(why) => Status::unknown(format!("failed to parse config: {why}")),
        ConfigError::Invalid(_) => Status::invalid_argument(format!("configuration validation failed: {error}")),
    })?;
    if request.dry_run {
        return Ok(ApplyConfiguration { mode_details: NO_CONFIG_YET.to_owned(), ..Default::default() });
    }
    machine.command(Command::Apply { config: Arc::new(config), reboot: false });
    Ok(if modern {
        ApplyConfiguration {
            mode: Mode::NoReboot.into(),
            mode_details: WITHOUT_REBOOT.to_owned(),
            ..Default::default()
        }
    } else {
        ApplyConfiguration::default()
    })
}

pub(super) fn configured(machine: &Machine, request: &ApplyConfigurationRequest) -> Result<ApplyConfiguration, Status> {
    let version = machine.see(State::version);
    let config =
        NodeConfig::parse(&request.data, version).map_err(|error| Status::invalid_argument(error.to_string()))?;
    let reboot = match mode(request)? {
        Mode::Reboot if version.minor >= 14 => {
            let why = "the REBOOT mode is not supported, please use AUTO or NO_REBOOT modes instead";
            return Err(Status::unimplemented(why));
        }
        Mode::Reboot => true,
        Mode::Auto | Mode::NoReboot => false,
        other => {
            return Err(Status::unimplemented(format!("mode {} is not part of this double", other.as_str_name())));
        }
    };
    let details =
        if reboot { "Applied configuration with a reboot: requested".to_owned() } else { WITHOUT_REBOOT.to_owned() };
    let mode = if reboot { Mode::Reboot } else { Mode::NoReboot }.into();
    if request.dry_run {
        let same = machine.see(|state| state.config.as_ref().is_some_and(|old| old.text() == config.text()));
        let diff = if same { "No changes." } else { "The configurations differ." };
        let mode_details = format!("Dry run summary:\n{details} (skipped in dry-run).\nConfig diff:\n\n{diff}");
        return Ok(ApplyConfiguration { mode, mode_details, ..Default::default() });
    }
    machine.command(Command::Apply { config: Arc::new(config), reboot });
    Ok(ApplyConfiguration { mode, mode_details: details, ..Default::default() })
}

fn mode(request: &ApplyConfigurationRequest) -> Result<Mode, Status> {
    Mode::try_from(request.mode).map_err(|_| Status::invalid_argument(format!("unknown mode {}", request.mode)))
}
