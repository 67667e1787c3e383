//! Whether a node can be used over SSH: the right host, let in, root's tools there.

use crate::net::Connector;
use crate::plan::observed::Finding;
use crate::ssh::{Login, Ssh};

/// What is needed there: Proxmox VE's storage tool, and the interpreter that it is written for.
const TOOLS: [&str; 2] = ["pvesm path", "perl -v"];

/// What speaks against using it; none when nothing does.
pub async fn look(connector: &Connector, login: &Login) -> Option<Finding> {
    let shown = login.shown();
    let ssh = match Ssh::connect(connector, login).await {
        Ok(ssh) => ssh,
        Err(error) => {
            let hint =
                error.hint().unwrap_or_else(|| "see whether `ssh` gets there, with the same user and key".to_owned());
            return Some(Finding::refusal(format!("no SSH session as {shown}"), hint).because(&error));
        }
    };
    let sudo = if login.user == "root" { "" } else { "sudo -n " };
    for tool in TOOLS {
        // `pvesm path` without a volume complains, with any exit code but the shell's own.
        match ssh.ask(&format!("{sudo}{tool}")).await {
            Ok((done, _)) if done.status != 127 && done.status != 126 && !(done.stderr.contains("sudo:")) => {}
            Ok((done, _)) => {
                let hint = "it has to be a Proxmox VE node, and the user root or one with `sudo -n` for all commands";
                return Some(Finding::refusal(format!("`{sudo}{tool}` does not run as {shown}: {}", done.why()), hint));
            }
            Err(error) => {
                return Some(Finding::refusal(format!("no command runs as {shown}"), "try again").because(&error));
            }
        }
    }
    None
}
