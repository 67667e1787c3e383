//! What QEMU's own prompt answers.
//!
//! Purpose: the monitor commands that say or change what a world knows of a running VM, and keys. Must not know: requests,
//! rights. Start at [`World::monitor`]. Texts after QEMU (monitor/hmp-cmds.c, ui/ui-hmp-cmds.c); a command that isn't
//! played is one that this QEMU doesn't know.

use super::World;
use super::drive;
use super::pending::QEMU;
use super::property::Properties;
use super::refusal::{Refusal, Rule};

/// Keys that are more than one letter.
const KEYS: &str = "unmapped pause shift shift_r alt alt_r ctrl ctrl_r menu esc minus equal backspace tab bracket_left \
    bracket_right ret semicolon apostrophe grave_accent backslash comma dot slash asterisk spc caps_lock num_lock \
    scroll_lock kp_divide kp_multiply kp_subtract kp_add kp_enter kp_decimal sysrq kp_0 kp_1 kp_2 kp_3 kp_4 kp_5 kp_6 kp_7 \
    kp_8 kp_9 less f1 f2 f3 f4 f5 f6 f7 f8 f9 f10 f11 f12 f13 f14 f15 f16 f17 f18 f19 f20 f21 f22 f23 f24 print home pgup \
    pgdn end left up down right insert delete stop again props undo front copy open paste find cut lf help meta_l meta_r \
    compose ro kp_comma kp_equals hiragana henkan yen muhenkan katakanahiragana power sleep wake audionext audioprev \
    audiostop audioplay audiomute volumeup volumedown mediaselect mail calculator computer ac_home ac_back ac_forward \
    ac_refresh ac_bookmarks lang1 lang2";

/// What `info` knows.
const INFO: &[&str] = &["status", "name", "uuid", "version", "kvm", "balloon", "cpus", "network"];
/// Commands that take no arguments.
const PLAIN: &[&str] = &["stop", "cont", "c", "system_powerdown", "system_reset", "quit", "q"];

fn help(name: &str) -> String {
    format!("Try \"help {name}\" for more information\r\n")
}

/// A command that takes no arguments got some.
fn too_much(name: &str, called: &str) -> String {
    format!("{name}: extraneous characters at the end of line\r\n{}", help(called))
}

/// A network card and what is at its other end.
fn network_card(vmid: u32, key: &str, nic: &Properties) -> String {
    let model = match nic.get("model").unwrap_or_default() {
        "virtio" => "virtio-net-pci",
        other => other,
    };
    let scripts = "/usr/libexec/qemu-server/pve-bridge";
    format!(
        "{key}: index=0,type=nic,model={model},macaddr={}\r\n \\ {key}: index=0,type=tap,ifname=tap{vmid}i{},\
         script={scripts},downscript={scripts}down\r\n",
        nic.get("macaddr").unwrap_or_default().to_ascii_lowercase(),
        key.trim_start_matches("net"),
    )
}

/// Whether the processors of a VM run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Processors {
    Going,
    Still,
}

fn is_key(name: &str) -> bool {
    let code = name.strip_prefix("0x").is_some_and(|hex| !hex.is_empty() && u32::from_str_radix(hex, 16).is_ok());
    let plain = name.len() == 1 && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    code || plain || name == "<" || KEYS.split_whitespace().any(|known| known == name)
}

/// What `sendkey` says: nothing, or which key there isn't.
fn press(keys: &str) -> String {
    let keys = keys.split_whitespace().next().unwrap_or_default();
    match keys.split('-').find(|key| !is_key(key)) {
        Some(unknown) => format!("invalid parameter: {unknown}\r\n"),
        None => String::new(),
    }
}

impl World {
    /// Presses keys of a VM that runs. The caller holds its lock file.
    pub fn send_key(&self, node: &str, vmid: u32, keys: &str) -> Rule<()> {
        self.state().vm(node, vmid)?;
        self.must_run(node, vmid)?;
        match press(keys) {
            said if said.is_empty() => Ok(()),
            said => Err(Refusal::failed(said.replace('\r', ""))),
        }
    }

    /// What the monitor of a VM prints for a line.
    pub fn monitor(&self, node: &str, vmid: u32, line: &str) -> Rule<String> {
        self.must_run(node, vmid)?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let said = match words[..] {
            [] => String::new(),
            ["info", what] => return self.monitor_info(node, vmid, what),
            ["info", what, ..] if INFO.contains(&what) => too_much(what, &format!("info {what}")),
            ["info", what, ..] => format!("unknown command: 'info {what}'\r\n"),
            [name, _, ..] if PLAIN.contains(&name) => too_much(name, name),
            ["sendkey"] => format!("sendkey: string expected\r\n{}", help("sendkey")),
            ["stop"] => self.hold(node, vmid, Processors::Still)?,
            ["cont" | "c"] => self.hold(node, vmid, Processors::Going)?,
            ["system_powerdown"] => {
                self.ask_to_shut_down(vmid);
                String::new()
            }
            ["system_reset"] => {
                self.reset(vmid);
                String::new()
            }
            ["quit" | "q"] => {
                self.switch_off(vmid);
                String::new()
            }
            ["sendkey", keys] | ["sendkey", keys, _] => press(keys),
            [unknown, ..] => format!("unknown command: '{unknown}'\r\n"),
        };
        Ok(said)
    }

    fn monitor_info(&self, node: &str, vmid: u32, what: &str) -> Rule<String> {
        let state = self.state();
        let vm = state.vm(node, vmid)?;
        let Some(running) = &vm.running else { return Ok(String::new()) };
        let config = &running.config;
        Ok(match what {
            "status" => match running {
                running if running.prelaunch => "VM status: prelaunch\r\n".to_owned(),
                running if running.paused => "VM status: paused\r\n".to_owned(),
                _ => "VM status: running\r\n".to_owned(),
            },
            "name" => format!("{}\r\n", config.get("name").cloned().unwrap_or_else(|| format!("vm{vmid}"))),
            "uuid" => {
                let smbios = Properties::parse(config.get("smbios1").map_or("", String::as_str), "uuid");
                format!("{}\r\n", smbios.get("uuid").unwrap_or("00000000-0000-0000-0000-000000000000"))
            }
            "version" => format!("{QEMU}\r\n"),
            "kvm" => {
                let off = config.get("kvm").is_some_and(|flag| flag == "0");
                format!("kvm support: {}\r\n", if off { "disabled" } else { "enabled" })
            }
            "balloon" => {
                let memory = drive::memory_mib(config);
                format!("balloon: actual={memory} max_mem={memory}\r\n")
            }
            "cpus" => {
                let line = |cpu: u64| {
                    format!(
                        "{} CPU #{cpu}: thread_id={}\r\n",
                        if cpu == 0 { "*" } else { " " },
                        u64::from(running.pid) + 2 + cpu
                    )
                };
                (0..drive::cpus(config).min(1024)).map(line).collect()
            }
            "network" => drive::nics(config).iter().map(|(key, nic)| network_card(vmid, key, nic)).collect(),
            unknown => format!("unknown command: 'info {unknown}'\r\n"),
        })
    }

    /// Holds or releases the processors of a VM at once.
    fn hold(&self, node: &str, vmid: u32, processors: Processors) -> Rule<String> {
        match processors {
            Processors::Still => {
                if let Some(running) = &mut self.state().vm_mut(node, vmid)?.running {
                    running.paused = true;
                }
            }
            Processors::Going => self.let_run(vmid),
        }
        Ok(String::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_known_by_their_names() {
        assert_eq!(press("ctrl-alt-nosuch"), "invalid parameter: nosuch\r\n");
        for keys in ["ctrl-alt-delete", "a", "shift-f12", "0x1c", "ret 100", "<"] {
            assert_eq!(press(keys), "", "{keys}");
        }
        assert_eq!(press("A"), "invalid parameter: A\r\n");
    }

    #[test]
    fn a_network_card_is_shown_with_its_other_end() {
        let nic = Properties::parse("model=virtio,macaddr=BC:24:11:00:00:0A", "");
        let shown = network_card(100, "net3", &nic);
        assert!(
            shown.starts_with("net3: index=0,type=nic,model=virtio-net-pci,macaddr=bc:24:11:00:00:0a\r\n"),
            "{shown}"
        );
        assert!(shown.contains(" \\ net3: index=0,type=tap,ifname=tap100i3,"), "{shown}");
        assert!(too_much("status", "info status").ends_with("Try \"help info status\" for more information\r\n"));
    }
}
