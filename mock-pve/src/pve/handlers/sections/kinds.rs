//! The kinds of entries, and what each of their types may say.
//!
//! Facts after Proxmox VE 8.4 and 9.1 (PVE/Mapping, PVE/Network/SDN, PVE/Status, PVE/Jobs/RealmSync.pm,
//! PVE/ACME/Challenge.pm: `options`).

use super::{Kind, Told};
use crate::world::PveVersion;
use crate::world::section_config::Section;

const NONE: &[&str] = &[];

const fn section(kind: &'static str, required: &'static [&'static str], optional: &'static [&'static str]) -> Section {
    Section { kind, required, optional, fixed: NONE }
}

pub(super) const PCI: Kind = Kind {
    file: "mapping/pci",
    id: "id",
    path: "/mapping/pci/",
    see: &["Mapping.Modify", "Mapping.Use", "Mapping.Audit"],
    failed: ["create hardware mapping failed", "update hardware mapping failed", "delete pci mapping failed"],
    exists: "pci ID '{}' already defined\n",
    gone: "pci ID '{}' does not exist\n",
    missing: "mapping '{}' not found\n",
    only: Some("pci"),
    told: Told::Listed,
    types: &[section("pci", &["map"], &["description", "mdev", "live-migration-capable"])],
    numbers: &["mdev", "live-migration-capable"],
};
pub(super) const USB: Kind = Kind {
    file: "mapping/usb",
    path: "/mapping/usb/",
    failed: ["create hardware mapping failed", "update hardware mapping failed", "delete usb mapping failed"],
    exists: "usb ID '{}' already defined\n",
    gone: "usb ID '{}' does not exist\n",
    only: Some("usb"),
    types: &[section("usb", &["map"], &["description"])],
    ..PCI
};
pub(super) const DIR: Kind = Kind {
    file: "mapping/dir",
    path: "/mapping/dir/",
    failed: ["create directory mapping failed", "update directory mapping failed", "delete dir mapping failed"],
    exists: "dir ID '{}' already defined\n",
    gone: "dir ID '{}' does not exist\n",
    only: Some("dir"),
    types: &[section("dir", &["map"], &["description"])],
    ..PCI
};
pub(super) const ZONE: Kind = Kind {
    file: "sdn/zones",
    id: "zone",
    path: "/sdn/zones/",
    see: &["SDN.Audit", "SDN.Allocate"],
    failed: ["create sdn zone object failed", "update sdn zone object failed", "delete sdn zone object failed"],
    exists: "sdn zone object ID '{}' already defined\n",
    gone: "sdn '{}' does not exist\n",
    missing: "sdn '{}' does not exist\n",
    only: None,
    told: Told::Everywhere,
    types: &[
        section("simple", NONE, &["nodes", "mtu", "dns", "reversedns", "dnszone", "ipam", "dhcp"]),
        section(
            "vlan",
            &["bridge"],
            &["nodes", "bridge-disable-mac-learning", "mtu", "dns", "reversedns", "dnszone", "ipam"],
        ),
        section(
            "qinq",
            &["bridge", "tag"],
            &["nodes", "bridge-disable-mac-learning", "mtu", "vlan-protocol", "dns", "reversedns", "dnszone", "ipam"],
        ),
        section(
            "vxlan",
            NONE,
            &["peers", "fabric", "nodes", "vxlan-port", "mtu", "dns", "reversedns", "dnszone", "ipam"],
        ),
        section(
            "evpn",
            &["controller", "vrf-vxlan"],
            &[
                "nodes",
                "exitnodes",
                "exitnodes-local-routing",
                "exitnodes-primary",
                "advertise-subnets",
                "disable-arp-nd-suppression",
                "bridge-disable-mac-learning",
                "rt-import",
                "vxlan-port",
                "mtu",
                "mac",
                "dns",
                "reversedns",
                "dnszone",
                "ipam",
            ],
        ),
        section("faucet", &["controller", "dp-id"], &["nodes", "dns", "reversedns", "dnszone", "ipam"]),
    ],
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
pub(super) const VNET: Kind = Kind {
    file: "sdn/vnets",
    id: "vnet",
    path: "",
    failed: ["create sdn vnet object failed", "update sdn vnet object failed", "delete sdn vnet object failed"],
    exists: "sdn vnet object ID '{}' already defined\n",
    gone: "sdn vnet '{}' does not exist\n",
    missing: "sdn vnet '{}' does not exist\n",
    only: Some("vnet"),
    types: &[section("vnet", &["zone"], &["tag", "alias", "vlanaware", "isolate-ports"])],
    numbers: &["tag", "vlanaware", "isolate-ports"],
    ..ZONE
};
pub(super) const CONTROLLER: Kind = Kind {
    file: "sdn/controllers",
    id: "controller",
    path: "/sdn/controllers/",
    failed: [
        "create sdn controller object failed",
        "update sdn controller object failed",
        "delete sdn controller object failed",
    ],
    exists: "sdn controller object ID '{}' already defined\n",
    types: &[
        section("evpn", &["asn"], &["peers", "fabric"]),
        section(
            "bgp",
            &["asn", "node", "peers"],
            &["bgp-multipath-as-path-relax", "ebgp", "ebgp-multihop", "loopback"],
        ),
        section("isis", &["isis-domain", "isis-ifaces", "isis-net", "node"], &["loopback"]),
        section("faucet", NONE, NONE),
    ],
    numbers: &["asn", "ebgp", "ebgp-multihop", "bgp-multipath-as-path-relax"],
    ..ZONE
};
pub(super) const IPAM: Kind = Kind {
    file: "sdn/ipams",
    id: "ipam",
    path: "/sdn/ipams/",
    failed: ["create sdn ipam object failed", "update sdn ipam object failed", "delete sdn zone object failed"],
    exists: "sdn ipam object ID '{}' already defined\n",
    types: &[
        section("pve", NONE, NONE),
        section("netbox", &["token", "url"], &["fingerprint"]),
        section("phpipam", &["section", "token", "url"], &["fingerprint"]),
    ],
    numbers: &["section"],
    ..ZONE
};
pub(super) const DNS: Kind = Kind {
    file: "sdn/dns",
    id: "dns",
    path: "/sdn/dns/",
    failed: ["create sdn dns object failed", "update sdn dns object failed", "delete sdn dns object failed"],
    exists: "sdn dns object ID '{}' already defined\n",
    types: &[section("powerdns", &["key", "url"], &["ttl", "reversemaskv6", "fingerprint"])],
    numbers: &["ttl", "reversemaskv6"],
    ..ZONE
};
pub(super) const RULE: Kind = Kind {
    file: "ha/rules",
    id: "rule",
    path: "",
    see: NONE,
    failed: ["create ha rule failed", "update HA rules failed", "delete ha rule failed"],
    exists: "HA rule '{}' already defined\n",
    gone: "HA rule '{}' does not exist\n",
    missing: "no such ha rule '{}'\n",
    only: None,
    told: Told::Everywhere,
    types: &[
        section("node-affinity", &["nodes", "resources"], &["comment", "disable", "strict"]),
        section("resource-affinity", &["affinity", "resources"], &["comment", "disable"]),
    ],
    numbers: &["disable", "strict"],
};
pub(super) const SERVER: Kind = Kind {
    file: "metrics/server",
    id: "id",
    path: "",
    see: NONE,
    failed: [""; 3],
    exists: "Metric server '{}' already exists\n",
    gone: "no such server '{}'\n",
    missing: "status server entry '{}' does not exist\n",
    only: None,
    told: Told::Briefly(&["disable", "port", "server", "type"]),
    types: &[
        section("graphite", &["server"], &["port", "mtu", "proto", "timeout", "path", "disable"]),
        section(
            "influxdb",
            &["port", "server"],
            &[
                "mtu",
                "disable",
                "organization",
                "bucket",
                "token",
                "influxdbproto",
                "timeout",
                "max-body-size",
                "api-path-prefix",
                "verify-certificate",
            ],
        ),
        section(
            "opentelemetry",
            &["server"],
            &[
                "port",
                "disable",
                "otel-protocol",
                "otel-path",
                "otel-timeout",
                "otel-headers",
                "otel-verify-ssl",
                "otel-max-body-size",
                "otel-resource-attributes",
                "otel-compression",
            ],
        ),
    ],
    numbers: &[
        "disable",
        "port",
        "mtu",
        "timeout",
        "max-body-size",
        "verify-certificate",
        "otel-timeout",
        "otel-verify-ssl",
        "otel-max-body-size",
    ],
};
pub(super) const PLUGIN: Kind = Kind {
    file: "acme/plugins",
    exists: "ACME plugin ID '{}' already exists\n",
    gone: "ACME plugin ID '{}' does not exist\n",
    missing: "ACME plugin '{}' not defined\n",
    told: Told::Everywhere,
    types: &[
        section("dns", &["api"], &["data", "validation-delay", "nodes", "disable"]),
        section("standalone", NONE, &["nodes", "disable"]),
    ],
    numbers: &["disable", "validation-delay"],
    ..SERVER
};
pub(super) const SYNC: Kind = Kind {
    file: "jobs/realm-sync",
    exists: "Job '{}' already exists\n",
    gone: "no such realm-sync job\n",
    only: Some("realm-sync"),
    told: Told::Listed,
    types: &[Section {
        kind: "realm-sync",
        required: &["realm", "schedule", "scope"],
        optional: &["enabled", "comment", "enable-new", "remove-vanished"],
        fixed: &["realm"],
    }],
    numbers: &["enabled", "enable-new"],
    ..SERVER
};

/// What only the later release has, or doesn't demand any more.
pub(super) fn of_release(section: Section, file: &str, pve: PveVersion) -> Section {
    let peers = matches!((file, section.kind), ("sdn/zones", "vxlan") | ("sdn/controllers", "evpn"));
    match (pve, section.kind) {
        (PveVersion::V8, "vxlan") if peers => Section { required: &["peers"], ..section },
        (PveVersion::V8, _) if peers => Section { required: &["asn", "peers"], ..section },
        _ => section,
    }
}
