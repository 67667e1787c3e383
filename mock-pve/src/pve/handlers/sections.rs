//! `/cluster/mapping/…`, `/cluster/sdn/…`, `/cluster/ha/rules`: configs that are written down and read back.
//!
//! One entry per id in a file of its own; what is not said about an entry is that of its kind (Proxmox VE 8.4,
//! PVE/API2/Cluster/Mapping, PVE/API2/Network/SDN; the rules: release 9).

use serde_json::{Map, Value, json};

use super::sdn_lock;
use crate::pve::call::{Call, Result};
use crate::pve::params::Value as Given;
use crate::world::State;
use crate::world::config::digest_of;
use crate::world::refusal::{Refusal, Rule};

type Object = Map<String, Value>;

/// One kind of entries.
struct Kind {
    /// Where they are kept.
    file: &'static str,
    /// The parameter that is the id, and the key under which it is shown.
    id: &'static str,
    /// Where rights over one are given; nothing: over all or none, as the method's own rule says.
    path: &'static str,
    /// Rights any of which shows one.
    see: &'static [&'static str],
    /// `create … failed`, `update … failed`, `delete … failed`.
    failed: [&'static str; 3],
    /// What it is called where it is already there.
    noun: &'static str,
    /// The type of those that have only one.
    only: Option<&'static str>,
    /// Options that are numbers.
    numbers: &'static [&'static str],
}

const PCI: Kind = Kind {
    file: "mapping/pci",
    id: "id",
    path: "/mapping/pci/",
    see: &["Mapping.Modify", "Mapping.Use", "Mapping.Audit"],
    failed: ["create hardware mapping failed", "update hardware mapping failed", "delete pci mapping failed"],
    noun: "pci ID",
    only: None,
    numbers: &["mdev", "live-migration-capable"],
};
const USB: Kind = Kind {
    file: "mapping/usb",
    path: "/mapping/usb/",
    failed: ["create hardware mapping failed", "update hardware mapping failed", "delete usb mapping failed"],
    noun: "usb ID",
    ..PCI
};
const DIR: Kind = Kind {
    file: "mapping/dir",
    path: "/mapping/dir/",
    failed: ["create directory mapping failed", "update directory mapping failed", "delete dir mapping failed"],
    noun: "dir ID",
    ..PCI
};
const ZONE: Kind = Kind {
    file: "sdn/zones",
    id: "zone",
    path: "/sdn/zones/",
    see: &["SDN.Audit", "SDN.Allocate"],
    failed: ["create sdn zone object failed", "update sdn zone object failed", "delete sdn zone object failed"],
    noun: "sdn zone object ID",
    only: None,
    numbers: &[
        "mtu",
        "tag",
        "vrf-vxlan",
        "advertise-subnets",
        "bridge-disable-mac-learning",
        "disable-arp-nd-suppression",
        "exitnodes-local-routing",
        "vxlan-port",
        "dp-id",
    ],
};
const VNET: Kind = Kind {
    file: "sdn/vnets",
    id: "vnet",
    path: "",
    failed: ["create sdn vnet object failed", "update sdn vnet object failed", "delete sdn vnet object failed"],
    noun: "sdn vnet object ID",
    only: Some("vnet"),
    numbers: &["tag", "vlanaware", "isolate-ports"],
    ..ZONE
};
const CONTROLLER: Kind = Kind {
    file: "sdn/controllers",
    id: "controller",
    path: "/sdn/controllers/",
    failed: [
        "create sdn controller object failed",
        "update sdn controller object failed",
        "delete sdn controller object failed",
    ],
    noun: "sdn controller object ID",
    numbers: &["asn", "ebgp", "ebgp-multihop", "bgp-multipath-as-path-relax"],
    ..ZONE
};
const IPAM: Kind = Kind {
    file: "sdn/ipams",
    id: "ipam",
    path: "/sdn/ipams/",
    failed: ["create sdn ipam object failed", "update sdn ipam object failed", "delete sdn zone object failed"],
    noun: "sdn ipam object ID",
    numbers: &["section"],
    ..ZONE
};
const DNS: Kind = Kind {
    file: "sdn/dns",
    id: "dns",
    path: "/sdn/dns/",
    failed: ["create sdn dns object failed", "update sdn dns object failed", "delete sdn dns object failed"],
    noun: "sdn dns object ID",
    numbers: &["ttl", "reversev6mask"],
    ..ZONE
};
const RULE: Kind = Kind {
    file: "ha/rules",
    id: "rule",
    path: "",
    see: &[],
    failed: ["create ha rule failed", "update HA rules failed", "delete ha rule failed"],
    noun: "HA rule",
    only: None,
    numbers: &["disable", "strict"],
};

impl Kind {
    fn missing(&self, id: &str) -> Refusal {
        Refusal::failed(match self.file {
            "mapping/pci" | "mapping/usb" | "mapping/dir" => format!("mapping '{id}' not found\n"),
            "sdn/vnets" => format!("sdn vnet '{id}' does not exist\n"),
            "ha/rules" => format!("no such ha rule '{id}'\n"),
            _ => format!("sdn '{id}' does not exist\n"),
        })
    }

    fn gone(&self, id: &str) -> Refusal {
        Refusal::failed(match self.file {
            "mapping/pci" | "mapping/usb" | "mapping/dir" | "ha/rules" => {
                format!("{} '{id}' does not exist\n", self.noun)
            }
            "sdn/vnets" => format!("sdn vnet '{id}' does not exist\n"),
            _ => format!("sdn '{id}' does not exist\n"),
        })
    }

    fn entries<'a>(&self, state: &'a State) -> impl Iterator<Item = (&'a String, &'a Object)> {
        state.sections.get(self.file).into_iter().flatten()
    }

    fn digest(&self, state: &State) -> String {
        let all: Vec<_> = self.entries(state).collect();
        digest_of(&serde_json::to_string(&all).unwrap_or_default())
    }

    fn shown(&self, state: &State, id: &str, entry: &Object) -> Value {
        let mut entry = entry.clone();
        entry.insert(self.id.to_owned(), json!(id));
        entry.insert("digest".to_owned(), json!(self.digest(state)));
        Value::Object(entry)
    }

    /// Where rights over an entry are given.
    fn right(&self, entry: &Object, id: &str) -> Option<String> {
        if self.file == "sdn/vnets" {
            let zone = entry.get("zone").or_else(|| entry.get("pending")?.get("zone"));
            let zone = zone.and_then(Value::as_str).unwrap_or_default();
            return Some(format!("/sdn/zones/{zone}/{id}"));
        }
        (!self.path.is_empty()).then(|| format!("{}{id}", self.path))
    }

    fn given(&self, call: &Call) -> Object {
        let control = [self.id, "digest", "delete", "lock-token", "force"];
        let keys = call.params.0.iter().filter(|(key, _)| !control.contains(&key.as_str()));
        keys.map(|(key, value)| {
            let value = if let Given::List(list) = value {
                json!(list)
            } else {
                let text = call.text(key);
                let number = self.numbers.contains(&key.as_str()).then(|| text.parse::<i64>().ok()).flatten();
                number.map_or_else(|| json!(text), |number| json!(number))
            };
            (key.clone(), value)
        })
        .collect()
    }

    fn prefixed(&self, verb: usize, refusal: Refusal) -> Refusal {
        match refusal {
            Refusal::Failed(text) => Refusal::failed(format!("{}: {text}", self.failed[verb])),
            other => other,
        }
    }

    fn check_zone(&self, state: &State, entry: &Object) -> Rule<()> {
        if self.file != "sdn/vnets" {
            return Ok(());
        }
        let zone = entry.get("zone").and_then(Value::as_str).unwrap_or_default();
        let there = state.sections.get(ZONE.file).is_some_and(|zones| zones.contains_key(zone));
        if there { Ok(()) } else { Err(Refusal::failed(format!("zone {zone} don't exist\n"))) }
    }

    /// Networks are written down only by who holds their lock.
    fn check_lock(&self, state: &State, call: &Call, verb: usize) -> Rule<()> {
        if self.file.starts_with("sdn/") { sdn_lock::check(state, call, self.failed[verb]) } else { Ok(()) }
    }

    fn list(&self, call: &Call) -> Result {
        let state = call.world.state();
        let wanted = call.params.text("type");
        let all = super::sdn::view(&state, call, self.file);
        let list = all
            .iter()
            .filter(|(id, entry)| self.right(entry, id).is_none_or(|path| state.may_any(&call.caller, &path, self.see)))
            .filter(|(_, entry)| wanted.is_none() || entry.get("type").and_then(Value::as_str) == wanted)
            .map(|(id, entry)| self.shown(&state, id, entry));
        Ok(list.collect::<Vec<_>>().into())
    }

    fn read(&self, call: &Call) -> Result {
        let state = call.world.state();
        let id = call.text(self.id);
        let all = super::sdn::view(&state, call, self.file);
        let entry = all.get(id).ok_or_else(|| self.missing(id))?;
        if self.file == "sdn/vnets"
            && let Some(path) = self.right(entry, id)
        {
            state.check_any(&call.caller, &path, self.see)?;
        }
        Ok(self.shown(&state, id, entry).into())
    }

    fn create(&self, call: &Call) -> Result {
        let id = call.text(self.id).to_owned();
        let mut state = call.world.state();
        self.check_lock(&state, call, 0)?;
        let mut entry = self.given(call);
        if let Some(kind) = self.only {
            entry.insert("type".to_owned(), json!(kind));
        }
        if state.sections.get(self.file).is_some_and(|file| file.contains_key(&id)) {
            let text = format!("{} '{id}' already defined\n", self.noun);
            return Err(self.prefixed(0, Refusal::failed(text)));
        }
        self.check_zone(&state, &entry).map_err(|refusal| self.prefixed(0, refusal))?;
        state.sections.entry(self.file.to_owned()).or_default().insert(id, entry);
        Ok(().into())
    }

    fn update(&self, call: &Call) -> Result {
        let id = call.text(self.id);
        let mut state = call.world.state();
        self.check_lock(&state, call, 1)?;
        let digest = self.digest(&state);
        if call.params.text("digest").is_some_and(|wanted| !wanted.is_empty() && wanted != digest) {
            let text = "detected modified configuration - file changed by other user? Try again.\n";
            return Err(self.prefixed(1, Refusal::failed(text)));
        }
        let known = state.sections.get(self.file).and_then(|file| file.get(id)).cloned();
        let mut entry = known.ok_or_else(|| self.prefixed(1, self.gone(id)))?;
        entry.extend(self.given(call));
        for key in call.params.list("delete") {
            if key == "type" || (key == "zone" && self.file == "sdn/vnets") {
                return Err(Refusal::param(&key, format!("cannot delete {key}")));
            }
            entry.remove(&key);
        }
        self.check_zone(&state, &entry).map_err(|refusal| self.prefixed(1, refusal))?;
        state.sections.entry(self.file.to_owned()).or_default().insert(id.to_owned(), entry);
        Ok(().into())
    }

    fn delete(&self, call: &Call) -> Result {
        let id = call.text(self.id);
        let mut state = call.world.state();
        self.check_lock(&state, call, 2)?;
        if self.file == ZONE.file {
            let used = state.sections.get(VNET.file).into_iter().flatten();
            let mut used = used.filter(|(_, vnet)| vnet.get("zone") == Some(&json!(id)));
            if let Some((vnet, _)) = used.next() {
                return Err(self.prefixed(2, Refusal::failed(format!("zone {id} is used by vnet {vnet}\n"))));
            }
        }
        let removed = state.sections.get_mut(self.file).and_then(|file| file.remove(id));
        // Mappings are deleted whether they are there or not.
        if removed.is_none() && !self.file.starts_with("mapping/") {
            return Err(self.prefixed(2, self.gone(id)));
        }
        Ok(().into())
    }
}

macro_rules! sections {
    ($($module:ident = $kind:ident, $what:literal;)*) => {
        $(
            #[doc = $what]
            pub(in crate::pve) mod $module {
                use super::{Call, Result};

                /// All that may be seen.
                pub(in crate::pve) fn list(call: &Call) -> Result {
                    super::$kind.list(call)
                }

                /// One.
                pub(in crate::pve) fn read(call: &Call) -> Result {
                    super::$kind.read(call)
                }

                /// A new one.
                pub(in crate::pve) fn create(call: &Call) -> Result {
                    super::$kind.create(call)
                }

                /// Changes one.
                pub(in crate::pve) fn update(call: &Call) -> Result {
                    super::$kind.update(call)
                }

                /// Deletes one.
                pub(in crate::pve) fn delete(call: &Call) -> Result {
                    super::$kind.delete(call)
                }
            }
        )*
    };
}

sections! {
    pci = PCI, "`/cluster/mapping/pci`";
    usb = USB, "`/cluster/mapping/usb`";
    dir = DIR, "`/cluster/mapping/dir`";
    zones = ZONE, "`/cluster/sdn/zones`";
    vnets = VNET, "`/cluster/sdn/vnets`";
    controllers = CONTROLLER, "`/cluster/sdn/controllers`";
    ipams = IPAM, "`/cluster/sdn/ipams`";
    dns = DNS, "`/cluster/sdn/dns`";
    rules = RULE, "`/cluster/ha/rules`";
}
