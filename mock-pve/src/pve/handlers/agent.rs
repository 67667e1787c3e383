//! `Q/agent/…`.

use serde_json::{Value, json};

use crate::pve::call::{Call, Result};
use crate::world::GuestInfo;
use crate::world::property::Properties;
use crate::world::refusal::{Refusal, Rule};

const COMMANDS: &[&str] = &[
    "exec",
    "exec-status",
    "file-read",
    "file-write",
    "fsfreeze-freeze",
    "fsfreeze-status",
    "fsfreeze-thaw",
    "fstrim",
    "get-fsinfo",
    "get-host-name",
    "get-memory-block-info",
    "get-memory-blocks",
    "get-osinfo",
    "get-time",
    "get-timezone",
    "get-users",
    "get-vcpus",
    "info",
    "network-get-interfaces",
    "ping",
    "set-user-password",
    "shutdown",
    "suspend-disk",
    "suspend-hybrid",
    "suspend-ram",
];

/// `GET Q/agent`
pub(in crate::pve) fn index(_: &Call) -> Result {
    Ok(COMMANDS.iter().map(|name| json!({"name": name})).collect::<Vec<_>>().into())
}

/// The agent of a VM, or why there is none (Proxmox VE 8.4, PVE/QemuServer/Agent.pm).
fn agent(call: &Call) -> Rule<GuestInfo> {
    let vmid = call.vmid();
    {
        let state = call.world.state();
        let vm = state.vm(&call.node(), vmid)?;
        let Some(running) = &vm.running else {
            return Err(Refusal::failed(format!("VM {vmid} is not running\n")));
        };
        if !running.config.contains_key("agent") {
            return Err(Refusal::failed("No QEMU guest agent configured\n"));
        }
        let enabled =
            running.config.get("agent").is_some_and(|text| Properties::parse(text, "enabled").is_on("enabled"));
        if !enabled || running.paused {
            return Err(Refusal::failed("QEMU guest agent is not running\n"));
        }
    }
    call.world
        .guest(vmid)
        .filter(|guest| guest.agent)
        .ok_or_else(|| Refusal::failed("QEMU guest agent is not running\n"))
}

fn result(value: impl Into<Value>) -> Result {
    Ok(json!({"result": value.into()}).into())
}

fn command(call: &Call, name: &str) -> Result {
    let guest = agent(call)?;
    match name {
        "get-host-name" => result(json!({"host-name": guest.hostname})),
        "get-osinfo" => result(json!({
            "id": "testguest", "name": "Testguest", "pretty-name": "Testguest 1", "version-id": "1", "machine": "x86_64",
            "kernel-release": "6.1.0", "kernel-version": "#1 SMP",
        })),
        "get-time" => result(json!(call.world.clock().unix().saturating_mul(1_000_000_000))),
        "get-timezone" => result(json!({"zone": "UTC", "offset": 0})),
        "get-fsinfo" | "get-users" | "get-vcpus" | "get-memory-blocks" => result(json!([])),
        "get-memory-block-info" => result(json!({"size": 134_217_728})),
        "fsfreeze-status" => result(json!("thawed")),
        "fsfreeze-freeze" | "fsfreeze-thaw" => result(json!(0)),
        "fstrim" => result(json!({"paths": []})),
        "info" => result(json!({
            "version": "7.2.0",
            "supported_commands": COMMANDS
                .iter()
                .map(|name| json!({"name": format!("guest-{name}"), "enabled": true, "success-response": true}))
                .collect::<Vec<_>>(),
        })),
        "network-get-interfaces" => {
            let interfaces = guest.interfaces.iter().map(|interface| {
                let addresses: Vec<Value> = interface
                    .addresses
                    .iter()
                    .map(|net| {
                        json!({
                            "ip-address": net.addr(), "prefix": net.prefix_len(),
                            "ip-address-type": if net.addr().is_ipv4() { "ipv4" } else { "ipv6" },
                        })
                    })
                    .collect();
                json!({
                    "name": interface.name, "hardware-address": interface.mac.to_ascii_lowercase(),
                    "ip-addresses": addresses,
                    "statistics": {
                        "rx-bytes": 0, "rx-packets": 0, "rx-errs": 0, "rx-dropped": 0, "tx-bytes": 0, "tx-packets": 0,
                        "tx-errs": 0, "tx-dropped": 0,
                    },
                })
            });
            result(Value::Array(interfaces.collect()))
        }
        "shutdown" => {
            call.world.tell(&call.caller, "shutdown", Some(call.vmid()), Some("agent"));
            call.world.ask_to_shut_down(call.vmid());
            result(json!({}))
        }
        _ => result(json!({})),
    }
}

/// `POST Q/agent`
pub(in crate::pve) fn generic(call: &Call) -> Result {
    command(call, call.text("command"))
}

macro_rules! commands {
    ($($function:ident = $name:literal),* $(,)?) => {
        $(
            #[doc = concat!("`Q/agent/", $name, "`")]
            pub(in crate::pve) fn $function(call: &Call) -> Result {
                command(call, $name)
            }
        )*
    };
}

commands! {
    ping = "ping",
    network = "network-get-interfaces",
    host_name = "get-host-name",
    os_info = "get-osinfo",
    fs_info = "get-fsinfo",
    info = "info",
    time = "get-time",
    timezone = "get-timezone",
    users = "get-users",
    vcpus = "get-vcpus",
    memory_blocks = "get-memory-blocks",
    memory_block_info = "get-memory-block-info",
    freeze = "fsfreeze-freeze",
    freeze_status = "fsfreeze-status",
    thaw = "fsfreeze-thaw",
    suspend_disk = "suspend-disk",
    suspend_hybrid = "suspend-hybrid",
    suspend_ram = "suspend-ram",
    trim = "fstrim",
    shutdown = "shutdown",
}

/// `POST Q/agent/exec`: the guest has nothing to run.
pub(in crate::pve) fn exec(call: &Call) -> Result {
    agent(call)?;
    Err(Refusal::failed(format!(
        "VM {} qmp command 'guest-exec' failed - The command guest-exec has been disabled for this instance\n",
        call.vmid()
    )))
}

/// `GET Q/agent/exec-status`
pub(in crate::pve) fn exec_status(call: &Call) -> Result {
    agent(call)?;
    let pid = call.text("pid");
    Err(Refusal::failed(format!(
        "VM {} qmp command 'guest-exec-status' failed - PID {pid} does not exist\n",
        call.vmid()
    )))
}
