//! Firewall configs: options, rules, aliases, IP sets, security groups.
//!
//! Purpose: what can be written down and what is refused (Proxmox VE 8.4, PVE/Firewall.pm). No packet is ever
//! filtered. Must not know: requests. Start at [`Firewall`] and [`verify`].

mod file;
mod names;

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

pub use self::file::{parse, text};
pub use self::names::MACROS;
use self::names::{ICMP, ICMP6, PROTOCOLS, SERVICES};
use super::refusal::{Refusal, Rule};

/// A JSON object.
pub type Object = Map<String, Value>;

/// What one file of the firewall holds: the cluster's, a node's, or a VM's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Firewall {
    /// Options; those of the cluster are kept beside it.
    pub options: Object,
    /// Rules, first match first.
    pub rules: Vec<Object>,
    /// Aliases by lower-case name.
    pub aliases: BTreeMap<String, Object>,
    /// IP sets.
    pub sets: BTreeMap<String, IpSet>,
    /// Security groups (of the cluster).
    pub groups: BTreeMap<String, Group>,
}

/// A named list of addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpSet {
    /// Free text.
    pub comment: Option<String>,
    /// `cidr`, `nomatch`, `comment`.
    pub entries: Vec<Object>,
}

/// A named list of rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Free text.
    pub comment: Option<String>,
    /// Its rules.
    pub rules: Vec<Object>,
}

/// Where a rule stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// In the cluster's file.
    Cluster,
    /// In a security group.
    Group,
    /// In a node's file.
    Host,
    /// In a VM's file.
    Vm,
    /// In the file of a virtual network.
    Vnet,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Cluster => "cluster",
            Self::Group => "group",
            Self::Host => "host",
            Self::Vm => "vm",
            Self::Vnet => "vnet",
        }
    }
}

/// Whether a text names a protocol; `Err` is the original's text.
pub fn check_protocol(text: &str) -> Result<(), String> {
    let fits = text.is_empty() || PROTOCOLS.contains(&text) || text.parse::<u8>().is_ok_and(|number| number <= 142);
    if fits { Ok(()) } else { Err(format!("unknown protocol '{text}'\n")) }
}

/// Whether a text is a kind of ICMP messages, of either version of IP. `Err` is the original's text.
pub fn check_icmp_type(text: &str) -> Result<(), String> {
    let fits = text.is_empty() || ICMP.contains(&text) || ICMP6.contains(&text);
    if fits { Ok(()) } else { Err(format!("invalid icmp-type value '{text}'\n")) }
}

/// What a list of ports may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ports {
    /// Ports and services.
    Only,
    /// Kinds of ICMP messages as well, in their place.
    OrIcmp,
}

/// Whether a text is a list of ports. `Err` is the original's text.
pub fn check_ports(text: &str, may_name: Ports) -> Result<(), String> {
    let port = |text: &str| match text.parse::<u64>() {
        Ok(number) if number <= 65_535 => Ok(number),
        _ => Err(format!("invalid port '{text}'\n")),
    };
    let digits = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
    let mut count = 0;
    let mut icmp = false;
    // A rule that says nothing of it.
    if text.is_empty() {
        return Ok(());
    }
    if text.ends_with(',') {
        return Err("extraneous commas in list\n".to_owned());
    }
    for item in text.split(',') {
        match item.split_once(':') {
            Some((from, to)) if digits(from) && digits(to) => {
                count += 2;
                if port(from)? > port(to)? {
                    return Err(format!("backwards range '{from}:{to}' not allowed, did you mean '{to}:{from}'?\n"));
                }
            }
            _ if digits(item) => {
                count += 1;
                port(item)?;
            }
            _ if may_name == Ports::OrIcmp && (ICMP.contains(&item) || ICMP6.contains(&item)) => icmp = true,
            _ if SERVICES.contains(&item) => {}
            _ => return Err(format!("invalid port '{item}'\n")),
        }
    }
    if icmp && count > 0 {
        return Err("ICMP ports not allowed in port range\n".to_owned());
    }
    if count > 15 {
        return Err("too many entries in port list (> 15 numbers)\n".to_owned());
    }
    Ok(())
}

fn name_of(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.len() > 1
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c))
}

fn alias_name(text: &str) -> Option<(&str, &str)> {
    for scope in ["dc/", "guest/"] {
        if let Some(name) = text.strip_prefix(scope) {
            return name_of(name).then_some((scope, name));
        }
    }
    name_of(text).then_some(("", text))
}

fn address(text: &str) -> Result<IpAddr, String> {
    let plain = text.split('/').next().unwrap_or_default();
    let prefix = text.split_once('/').map(|(_, prefix)| prefix.parse::<u8>());
    match (plain.parse::<IpAddr>(), prefix) {
        (Ok(ip), None) => Ok(ip),
        (Ok(ip), Some(Ok(prefix))) if prefix <= if ip.is_ipv4() { 32 } else { 128 } => Ok(ip),
        _ => Err(format!("invalid IP address: invalid address {text}\n")),
    }
}

/// The family of an address, a range or a list of them; `None`: a set or an alias. `Err` is the original's text.
pub fn check_addresses(text: &str) -> Result<Option<u8>, String> {
    // A rule that says nothing of it.
    if text.is_empty() {
        return Ok(None);
    }
    if text.starts_with('+') && !text[1..].contains(' ') && text.len() > 1 {
        return if text.len() > 65 { Err("ipset name too long\n".to_owned()) } else { Ok(None) };
    }
    if alias_name(text).is_some() {
        return if text.len() > 64 { Err("alias name too long\n".to_owned()) } else { Ok(None) };
    }
    if text.ends_with(',') {
        return Err("extraneous commas in list\n".to_owned());
    }
    let mut family = None;
    let mut range = false;
    let parts: Vec<&str> = text.split(',').collect();
    for part in &parts {
        let (from, to) = part.split_once('-').map_or((*part, None), |(from, to)| (from, Some(to)));
        let ip = address(from)?;
        if let Some(to) = to {
            range = true;
            address(to)?;
        }
        let here = if ip.is_ipv6() { 6 } else { 4 };
        if family.is_some_and(|known| known != here) {
            return Err(format!("detected mixed ipv4/ipv6 addresses in address list '{text}'\n"));
        }
        family = Some(here);
    }
    if range && parts.len() > 1 {
        return Err("you can't use a range in a list\n".to_owned());
    }
    Ok(family)
}

/// An address as it is kept: bits behind the prefix cleared, a full prefix left out. With its family.
pub fn clean_cidr(text: &str) -> Option<(String, u8)> {
    let family = |ip: IpAddr| if ip.is_ipv6() { 6 } else { 4 };
    // A single address stays as it was written.
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some((text.to_owned(), family(ip)));
    }
    let net: ipnet::IpNet = text.parse().ok()?;
    let net = net.trunc();
    let shown = if net.prefix_len() == net.max_prefix_len() { net.addr().to_string() } else { net.to_string() };
    Some((shown, family(net.addr())))
}

/// What a rule may refer to.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// The cluster's file.
    pub cluster: &'a Firewall,
    /// The file that the rule is in, if it is another.
    pub local: Option<&'a Firewall>,
}

impl Known<'_> {
    fn has_set(&self, name: &str) -> bool {
        self.cluster.sets.contains_key(name) || self.local.is_some_and(|local| local.sets.contains_key(name))
    }

    /// An alias by its name, with or without the place it is from.
    pub fn alias(&self, text: &str) -> Option<&Object> {
        let (scope, name) = alias_name(text)?;
        let name = name.to_ascii_lowercase();
        let local = self.local.filter(|_| scope != "dc/").and_then(|local| local.aliases.get(&name));
        local.or_else(|| (scope != "guest/").then(|| self.cluster.aliases.get(&name)).flatten())
    }
}

fn wrong(name: &str, text: impl Into<String>) -> Refusal {
    Refusal::param(name, text.into().trim_end())
}

fn verify_type(rule: &Object, level: Level) -> Rule<()> {
    let text = |key: &str| rule.get(key).and_then(Value::as_str).unwrap_or_default();
    let (kind, action) = (text("type"), text("action"));
    let known: &[&str] = match level {
        Level::Cluster | Level::Host => &["in", "out", "forward", "group"],
        Level::Group => &["in", "out", "forward"],
        Level::Vm => &["in", "out", "group"],
        Level::Vnet => &["forward", "group"],
    };
    if kind.is_empty() {
        return Err(wrong("type", "missing property"));
    }
    if action.is_empty() {
        return Err(wrong("action", "missing property"));
    }
    if !known.contains(&kind) {
        return Err(wrong("type", format!("invalid rule type '{kind}' for rule_env '{}'", level.name())));
    }
    if kind == "group" {
        let fits = name_of(action) && action.len() <= 18;
        return if fits { Ok(()) } else { Err(wrong("action", "invalid characters in security group name")) };
    }
    if kind == "forward" && action == "REJECT" {
        return Err(wrong("action", "cannot define REJECT rules on forward chain"));
    }
    if !matches!(action, "ACCEPT" | "DROP" | "REJECT") {
        return Err(wrong("action", format!("unknown action '{action}'")));
    }
    Ok(())
}

fn verify_ports(rule: &Object) -> Rule<()> {
    let text = |key: &str| rule.get(key).and_then(Value::as_str).unwrap_or_default();
    let proto = text("proto");
    let icmp = matches!(proto, "icmp" | "icmpv6" | "ipv6-icmp");
    let with_ports = matches!(proto, "udp" | "17" | "udplite" | "136" | "tcp" | "6" | "dccp" | "33" | "sctp" | "132");
    for key in ["dport", "sport"] {
        let ports = text(key);
        if ports.is_empty() {
            continue;
        }
        let may_name = if key == "dport" && icmp { Ports::OrIcmp } else { Ports::Only };
        check_ports(ports, may_name).map_err(|error| wrong(key, error))?;
        if proto.is_empty() {
            return Err(wrong("proto", format!("missing property - '{key}' requires this property")));
        }
        if !(with_ports || icmp && key == "dport") {
            return Err(wrong(key, format!("protocol '{proto}' does not support ports")));
        }
    }
    let kind = text("icmp-type");
    if !kind.is_empty() {
        if !icmp {
            return Err(wrong("proto", "missing property - 'icmp-type' requires this property"));
        }
        if !text("dport").is_empty() {
            return Err(wrong("icmp-type", "'icmp-type' cannot be specified together with 'dport'"));
        }
        let known = if proto == "icmp" { ICMP } else { ICMP6 };
        if !known.contains(&kind) {
            return Err(wrong("icmp-type", format!("invalid icmp-type '{kind}' for proto '{proto}'")));
        }
    }
    Ok(())
}

/// Refuses a rule that can't be one; the family of its addresses and the proper name of its macro are written into it.
pub fn verify(rule: &mut Object, level: Level, known: Known<'_>) -> Rule<()> {
    verify_type(rule, level)?;
    let text = |rule: &Object, key: &str| rule.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let iface = text(rule, "iface");
    if !iface.is_empty() && matches!(level, Level::Group | Level::Vnet) {
        return Err(wrong("type", "parameter -i not allowed for this rule type"));
    }
    let number = iface.strip_prefix("net").is_some_and(|rest| rest.parse::<u8>().is_ok());
    if !iface.is_empty() && level == Level::Vm && !number {
        return Err(wrong("iface", "value does not match the regex pattern 'net\\d+'"));
    }
    let named = text(rule, "macro");
    if !named.is_empty() {
        let proper = MACROS.iter().find(|known| known.eq_ignore_ascii_case(&named));
        let proper = proper.ok_or_else(|| wrong("macro", format!("unknown macro '{named}'")))?;
        rule.insert("macro".to_owned(), json!(proper));
    }
    let proto = text(rule, "proto");
    check_protocol(&proto).map_err(|error| wrong("proto", error))?;
    let mut family = match proto.as_str() {
        "icmp" => Some(4),
        "icmpv6" | "ipv6-icmp" => Some(6),
        _ => None,
    };
    verify_ports(rule)?;
    for key in ["source", "dest"] {
        let value = text(rule, key);
        if value.is_empty() {
            continue;
        }
        let mut here = check_addresses(&value).map_err(|error| wrong(key, error))?;
        if let Some(name) = value.strip_prefix('+') {
            let name = ["guest/", "dc/", "sdn/"].iter().find_map(|scope| name.strip_prefix(scope)).unwrap_or(name);
            if !name_of(name) {
                return Err(wrong(key, format!("invalid ipset name '{value}'")));
            }
            if !known.has_set(name) {
                return Err(wrong(key, format!("no such ipset '{name}'")));
            }
        } else if here.is_none() {
            let alias = known.alias(&value).ok_or_else(|| wrong(key, format!("no such alias '{value}'")))?;
            here = alias.get("ipversion").and_then(Value::as_u64).and_then(|family| u8::try_from(family).ok());
        }
        if let (Some(known), Some(here)) = (family, here)
            && known != here
        {
            return Err(wrong(key, "detected mixed ipv4/ipv6 addresses in rule"));
        }
        family = family.or(here);
    }
    match family {
        Some(family) => rule.insert("ipversion".to_owned(), json!(family)),
        None => rule.remove("ipversion"),
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(rule: &Value, level: Level) -> String {
        let cluster = Firewall::default();
        let mut rule = rule.as_object().unwrap().clone();
        match verify(&mut rule, level, Known { cluster: &cluster, local: None }) {
            Err(Refusal::Params(errors)) => errors.into_iter().map(|(key, text)| format!("{key}: {text}")).collect(),
            other => format!("{other:?} {rule:?}"),
        }
    }

    #[test]
    fn rules_are_refused_in_the_originals_words() {
        let rule = |more: Value| {
            let mut rule = json!({"type": "in", "action": "ACCEPT"});
            rule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            rule
        };
        for (more, level, text) in [
            (json!({"action": "NOPE"}), Level::Vm, "action: unknown action 'NOPE'"),
            (json!({"type": "forward"}), Level::Vm, "type: invalid rule type 'forward' for rule_env 'vm'"),
            (json!({"dport": "22"}), Level::Vm, "proto: missing property - 'dport' requires this property"),
            (json!({"dport": "22", "proto": "esp"}), Level::Host, "dport: protocol 'esp' does not support ports"),
            (json!({"source": "+no"}), Level::Vm, "source: no such ipset 'no'"),
            (json!({"source": "no-such"}), Level::Vm, "source: no such alias 'no-such'"),
            (json!({"iface": "eth0"}), Level::Vm, "iface: value does not match the regex pattern 'net\\d+'"),
            (json!({"macro": "nope"}), Level::Vm, "macro: unknown macro 'nope'"),
            (json!({"iface": "net0"}), Level::Group, "type: parameter -i not allowed for this rule type"),
            (json!({}), Level::Vnet, "type: invalid rule type 'in' for rule_env 'vnet'"),
            (
                json!({"proto": "icmp", "icmp-type": "packet-too-big"}),
                Level::Vm,
                "icmp-type: invalid icmp-type 'packet-too-big' for proto 'icmp'",
            ),
        ] {
            assert_eq!(refused(&rule(more), level), text);
        }
        let mut fine = rule(json!({"macro": "ssh", "source": "10.0.0.0/8,10.1.1.1"})).as_object().unwrap().clone();
        let cluster = Firewall::default();
        verify(&mut fine, Level::Vm, Known { cluster: &cluster, local: None }).unwrap();
        assert_eq!((&fine["macro"], &fine["ipversion"]), (&json!("SSH"), &json!(4)));
    }

    #[test]
    fn addresses_and_ports_are_lists_or_ranges() {
        assert_eq!(clean_cidr("10.1.2.3/8"), Some(("10.0.0.0/8".to_owned(), 4)));
        assert_eq!(clean_cidr("10.1.2.3/32"), Some(("10.1.2.3".to_owned(), 4)));
        assert_eq!(clean_cidr("nonsense"), None);
        assert!(check_ports("22,80:90,https", Ports::Only).is_ok());
        for wrong in ["90:80", "70000", "nope", "1,"] {
            assert!(check_ports(wrong, Ports::Only).is_err(), "{wrong}");
        }
        assert_eq!(check_addresses("10.0.0.1-10.0.0.9"), Ok(Some(4)));
        assert!(check_addresses("10.0.0.1,::1").is_err());
    }
}
