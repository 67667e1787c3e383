//! `Q/spiceproxy`, `N/spiceshell`, `N/vncshell`: what a graphical viewer is told.
//!
//! Rules after Proxmox VE 8.4 (PVE/API2/Qemu.pm, PVE/API2/Nodes.pm, PVE/AccessControl.pm, `remote_viewer_config`). There is
//! nothing to see behind them.

use serde_json::{Value, json};

use super::console::{patience, screen_password};
use crate::pve::call::{Call, Result};
use crate::world::property::Properties;
use crate::world::refusal::{Refusal, Rule};

/// What a viewer's file says.
fn config(call: &Call, title: &str, path: &str, port: u16) -> Value {
    let ca = std::fs::read_to_string(call.world.dir().join("tls/ca.pem")).unwrap_or_default();
    let now = call.world.clock().unix();
    let ticket = call.auth.viewer_ticket(&format!("{}:{path}:{port}", call.caller.identity), now);
    let node = call.node();
    let host = format!(
        "pvespiceproxy:{now:08x}:{}:{}:{port}::{}",
        path.trim_start_matches('/').replace('/', ":"),
        node,
        hex::encode(&ticket.as_bytes()[ticket.len().saturating_sub(20)..])
    );
    let proxy = call.params.text("proxy").unwrap_or(&node);
    let proxy = if proxy.contains("://") { proxy.to_owned() } else { format!("http://{proxy}:3128") };
    json!({
        "type": "spice", "title": title, "host": host, "proxy": proxy, "tls-port": port, "password": ticket,
        "ca": ca.replace('\n', "\\n"), "host-subject": format!("CN={node}"), "secure-attention": "Ctrl+Alt+Ins",
        "toggle-fullscreen": "Shift+F11", "release-cursor": "Ctrl+Alt+R", "delete-this-file": 1,
    })
}

/// `POST Q/spiceproxy`
pub(in crate::pve) fn spice_of_vm(call: &Call) -> Result {
    let vmid = call.vmid();
    let (title, qxl) = {
        let state = call.world.state();
        let vm = state.vm(&call.node(), vmid)?;
        if vm.running.is_none() {
            return Err(Refusal::failed(format!("VM {vmid} not running\n")));
        }
        let vga = vm.config.get("vga").map(|vga| Properties::parse(vga, "type"));
        let qxl = vga.and_then(|vga| vga.get("type").map(|kind| kind.starts_with("qxl"))).unwrap_or(false);
        let name = vm.config.get("name").map(|name| format!(" - {name}")).unwrap_or_default();
        (format!("VM {vmid}{name}"), qxl)
    };
    if !qxl {
        return Err(Refusal::failed("no spice port\n"));
    }
    let waiting = call.world.wait_for_viewer(&call.local)?;
    Ok(config(call, &title, &format!("/vms/{vmid}"), waiting.port()).into())
}

/// Whoever isn't a user by himself has no shell, and commands other than a login are for root.
fn check_shell(call: &Call) -> Rule<()> {
    let who = &call.caller.identity;
    if who.contains('!') {
        return Err(Refusal::failed(format!("value '{who}' does not look like a valid user name\n")));
    }
    if call.params.text("cmd").is_some_and(|command| command != "login") && !call.caller.is_root() {
        return Err(Refusal::forbidden("user != root@pam"));
    }
    Ok(())
}

/// `POST N/spiceshell`
pub(in crate::pve) fn spice_of_node(call: &Call) -> Result {
    check_shell(call)?;
    let node = call.node();
    let mut waiting = call.world.wait_for_viewer(&call.local)?;
    let shown = config(call, &format!("Shell on '{node}'"), &format!("/nodes/{node}"), waiting.port());
    let patience = patience(&call.world);
    call.world.start_task(&call.caller, &call.local, "spiceshell", "", |_| async move {
        // Whether anybody came or not, the terminal just ends.
        let _ = tokio::time::timeout(patience, waiting.viewer()).await;
        Ok(())
    });
    Ok(shown.into())
}

/// `POST N/vncshell`
pub(in crate::pve) fn screen_of_node(call: &Call) -> Result {
    check_shell(call)?;
    let mut waiting = call.world.wait_for_viewer(&call.local)?;
    let (user, port) = (&call.caller.identity, waiting.port());
    let path = format!("/nodes/{}", call.node());
    let mut ticket = call.auth.viewer_ticket(&format!("{user}:{path}:{port}"), call.world.clock().unix());
    let ca = std::fs::read_to_string(call.world.dir().join("tls/ca.pem")).unwrap_or_default();
    let mut answer = json!({"user": user, "port": port.to_string(), "cert": ca});
    if call.params.is_on("websocket") {
        let password = screen_password();
        ticket = format!("{password}:{ticket}");
        answer["password"] = json!(password);
    }
    answer["ticket"] = json!(ticket);
    let patience = patience(&call.world);
    let upid = call.world.start_task(&call.caller, &call.local, "vncshell", "", |_| async move {
        // What becomes of the terminal goes to the system's log only.
        let _ = tokio::time::timeout(patience, waiting.viewer()).await;
        Ok(())
    });
    answer["upid"] = json!(upid);
    Ok(answer.into())
}
