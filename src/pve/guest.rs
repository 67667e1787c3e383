//! What a guest's own agent says, and the firewall around it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::client::Pve;
use super::decode;
use super::encode::Form;
use super::error::PveError;
use super::vm::VmRef;
use crate::types::Mac;

/// A network interface as the guest sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestInterface {
    /// Its name in the guest.
    pub name: String,
    /// Its address on the wire.
    pub mac: Option<Mac>,
    /// Its IP addresses.
    pub addresses: Vec<IpAddr>,
}

#[derive(Deserialize)]
struct Answer {
    result: Value,
}

#[derive(Deserialize)]
struct Interface {
    name: String,
    #[serde(rename = "hardware-address", default)]
    hardware: Option<String>,
    #[serde(rename = "ip-addresses", default)]
    addresses: Vec<Address>,
}

#[derive(Deserialize)]
struct Address {
    #[serde(rename = "ip-address")]
    address: String,
}

/// A VM's own firewall, in PVE's keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Firewall {
    /// `enable`, `policy_in` …
    pub options: BTreeMap<String, String>,
    /// The rules from the first to the last, without their positions.
    pub rules: Vec<BTreeMap<String, String>>,
    /// Names of its own aliases and IP sets, which rules may refer to.
    pub names: Vec<String>,
}

impl Pve {
    /// What the guest agent says about network interfaces; none while no agent answers. Needs `VM.Monitor`, from PVE 9
    /// on `VM.GuestAgent.Audit`.
    pub async fn guest_interfaces(&self, vm: &VmRef) -> Result<Option<Vec<GuestInterface>>, PveError> {
        let answer: Answer = match self.get(&vm.at(&["agent", "network-get-interfaces"]), &Form::new()).await {
            Ok(answer) => answer,
            // (qemu-server, PVE/QemuServer/Agent.pm: `agent_available`, and the timeout of QMP)
            Err(error) if error.reason().is_some_and(silent) => return Ok(None),
            Err(error) => return Err(error),
        };
        // An error of the agent itself comes with status 200 and an object in place of the list.
        Ok(serde_json::from_value::<Vec<Interface>>(answer.result).ok().map(|listed| {
            let interfaces = listed.into_iter().map(|interface| GuestInterface {
                name: interface.name,
                mac: interface.hardware.and_then(|mac| mac.parse().ok()),
                addresses: interface.addresses.iter().filter_map(|address| address.address.parse().ok()).collect(),
            });
            interfaces.collect()
        }))
    }

    /// A VM's own firewall. Needs `VM.Audit`.
    pub async fn vm_firewall(&self, vm: &VmRef) -> Result<Firewall, PveError> {
        #[derive(Deserialize)]
        struct Named {
            name: String,
        }
        let options: Map<String, Value> = self.get(&vm.at(&["firewall", "options"]), &Form::new()).await?;
        let mut rules: Vec<Map<String, Value>> = self.get(&vm.at(&["firewall", "rules"]), &Form::new()).await?;
        rules.sort_by_key(|rule| rule.get("pos").and_then(Value::as_u64));
        let mut names = Vec::new();
        for kind in ["aliases", "ipset"] {
            let listed: Vec<Named> = self.get(&vm.at(&["firewall", kind]), &Form::new()).await?;
            names.extend(listed.into_iter().map(|named| named.name));
        }
        let texts = |map: &Map<String, Value>| {
            let mut texts = decode::texts(map);
            for key in ["digest", "pos", "ipversion"] {
                texts.remove(key);
            }
            texts
        };
        Ok(Firewall { options: texts(&options), rules: rules.iter().map(texts).collect(), names })
    }

    /// Sets options of a VM's firewall. Needs `VM.Config.Network`.
    pub async fn set_firewall_options(&self, vm: &VmRef, options: &BTreeMap<String, String>) -> Result<(), PveError> {
        self.put(&vm.at(&["firewall", "options"]), &Form::new().with_all(options)).await
    }

    /// Adds a rule before all others (PVE/API2/Firewall/Rules.pm: a new one goes to position 0).
    pub async fn add_firewall_rule(&self, vm: &VmRef, rule: &BTreeMap<String, String>) -> Result<(), PveError> {
        self.post::<Option<IgnoredAny>>(&vm.at(&["firewall", "rules"]), &Form::new().with_all(rule)).await.map(drop)
    }

    /// Removes the first rule.
    pub async fn remove_first_firewall_rule(&self, vm: &VmRef) -> Result<(), PveError> {
        self.delete::<Option<IgnoredAny>>(&vm.at(&["firewall", "rules", "0"]), &Form::new()).await.map(drop)
    }
}

/// Whether a refusal means that nobody in the guest answers (yet).
fn silent(reason: &str) -> bool {
    let reason = reason.to_lowercase();
    ["no qemu guest agent configured", "got timeout", "not running"].iter().any(|text| reason.contains(text))
}
