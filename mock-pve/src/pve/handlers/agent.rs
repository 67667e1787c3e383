//! `Q/agent/…`.

use serde_json::{Value, json};

use crate::pve::call::{Call, Result};
use crate::pve::params::Value as Given;
use crate::world::GuestInfo;
use crate::world::drive;
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

/// What the guest's agent knows (QEMU 7.2, qga/qapi-schema.json). One of them can't run in this guest, and some never answer
/// when they succeed.
const AGENT: [&str; 42] = [
    "get-cpustats",
    "get-diskstats",
    "ssh-remove-authorized-keys",
    "ssh-add-authorized-keys",
    "ssh-get-authorized-keys",
    "get-devices",
    "get-osinfo",
    "get-timezone",
    "get-users",
    "get-host-name",
    "exec",
    "exec-status",
    "get-memory-block-info",
    "set-memory-blocks",
    "get-memory-blocks",
    "set-user-password",
    "get-fsinfo",
    "get-disks",
    "set-vcpus",
    "get-vcpus",
    "network-get-interfaces",
    "suspend-hybrid",
    "suspend-ram",
    "suspend-disk",
    "fstrim",
    "fsfreeze-thaw",
    "fsfreeze-freeze-list",
    "fsfreeze-freeze",
    "fsfreeze-status",
    "file-flush",
    "file-seek",
    "file-write",
    "file-read",
    "file-close",
    "file-open",
    "shutdown",
    "info",
    "set-time",
    "get-time",
    "ping",
    "sync",
    "sync-delimited",
];

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
        "get-fsinfo" | "get-users" | "get-memory-blocks" => result(json!([])),
        "get-vcpus" => {
            let state = call.world.state();
            let cpus = drive::cpus(&state.vm(&call.node(), call.vmid())?.config);
            let list = (0..cpus.min(1024)).map(|id| json!({"logical-id": id, "can-offline": id > 0, "online": true}));
            result(Value::Array(list.collect()))
        }
        "get-memory-block-info" => result(json!({"size": 134_217_728})),
        "fsfreeze-status" => result(json!("thawed")),
        "fsfreeze-freeze" | "fsfreeze-thaw" => result(json!(0)),
        "fstrim" => result(json!({"paths": []})),
        "info" => result(json!({
            "version": "7.2.0",
            "supported_commands": AGENT
                .iter()
                .map(|name| {
                    let silent = *name == "shutdown" || name.starts_with("suspend-");
                    json!({
                        "name": format!("guest-{name}"), "enabled": *name != "get-devices", "success-response": !silent,
                    })
                })
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

/// Refuses a guest that has nothing to run.
fn shell(call: &Call, name: &str) -> Rule<()> {
    agent(call)?;
    if call.world.has_shell(call.vmid()) {
        return Ok(());
    }
    let text = format!("Agent error: Command guest-{name} has been disabled\n");
    Err(Refusal::failed(text))
}

/// `POST Q/agent/exec`
pub(in crate::pve) fn exec(call: &Call) -> Result {
    shell(call, "exec")?;
    let words = match call.params.0.get("command") {
        Some(Given::List(list)) => list.clone(),
        _ => vec![call.text("command").to_owned()],
    };
    let input = call.params.text("input-data").unwrap_or_default();
    match call.world.guest_exec(call.vmid(), &words, input) {
        Some(pid) => Ok(json!({"pid": pid}).into()),
        None => Err(Refusal::failed(format!(
            "Agent error: Guest command failed: Failed to execute child process \u{201c}{}\u{201d} (No such file or \
             directory)\n",
            words.first().map_or("", String::as_str)
        ))),
    }
}

/// `GET Q/agent/exec-status`
pub(in crate::pve) fn exec_status(call: &Call) -> Result {
    shell(call, "exec-status")?;
    let pid = call.params.number("pid").unwrap_or_default();
    let Some(process) = call.world.guest_process(call.vmid(), pid) else {
        return Err(Refusal::failed("Agent error: Invalid parameter 'pid'\n"));
    };
    if !process.is_over() {
        return Ok(json!({"exited": 0}).into());
    }
    let mut shown = json!({"exited": 1, "exitcode": process.code});
    for (name, text) in [("out", &process.out), ("err", &process.err)] {
        if !text.is_empty() {
            shown[format!("{name}-data")] = json!(text);
            shown[format!("{name}-truncated")] = json!(0);
        }
    }
    Ok(shown.into())
}

/// `GET Q/agent/file-read`
pub(in crate::pve) fn file_read(call: &Call) -> Result {
    shell(call, "file-open")?;
    let path = call.text("file");
    match call.world.guest_file(call.vmid(), path) {
        Some(text) => Ok(json!({"bytes-read": text.len(), "content": text}).into()),
        None => Err(Refusal::failed(format!(
            "Agent error: failed to open file '{path}' (mode: 'r'): No such file or directory\n"
        ))),
    }
}

/// `POST Q/agent/file-write`
pub(in crate::pve) fn file_write(call: &Call) -> Result {
    use base64::Engine as _;
    shell(call, "file-open")?;
    let given = call.text("content");
    // Whoever says that it is encoded already means it.
    let encoded = (call.params.text("encode") == Some("0"))
        .then(|| base64::engine::general_purpose::STANDARD.decode(given).unwrap_or_default());
    let text = encoded.map_or_else(|| given.to_owned(), |bytes| String::from_utf8_lossy(&bytes).into_owned());
    call.world.write_guest_file(call.vmid(), call.text("file"), &text);
    Ok(().into())
}

/// `POST Q/agent/set-user-password`
pub(in crate::pve) fn set_password(call: &Call) -> Result {
    shell(call, "set-user-password")?;
    Err(Refusal::failed("Agent error: cannot find 'passwd' program in PATH\n"))
}
