//! The keys of a profile.
//!
//! What could not be read has been noted and stands here as an empty value: no such profile leaves [`super::profile`].

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::fields::{Fields, Value};
use super::read_after::{backup, bootstrap, finish, flux, hooks};
use crate::profile::quantity::{self, A_DISK_SIZE};
use crate::profile::{
    AddressDiscovery, ApiEndpoint, Arch, Assignment, ConfigPatch, DiscoveryMode, Factory, Group, Groups, Guards,
    Inherit, Kind, Network, PatchSource, PatchTarget, Placement, Profile, SecretsFile, StartVmId, Strategy, Talos,
    Timeouts, Transport, Vip,
};
use crate::types::{MachineName, NodeName, SchematicId, VersionWish, VmId};

/// Words for later `strategy`s, which the design names and this version doesn't have.
const LATER: &str = "is not supported by this version of recast";

pub(super) fn profile(mut keys: Fields<'_>) -> Profile {
    keys.refuse(&["data_disks"]);
    let talos = keys.get("talos").map(|value| talos(value.fields()));
    let shared = talos.as_ref().map(|talos| talos.factory.clone()).unwrap_or_default();
    let profile = Profile {
        name: keys.required("name", Value::text).unwrap_or_default(),
        kind: keys
            .required("type", |value| value.choice(&[("talos", Kind::Talos), ("generic", Kind::Generic)]))
            .unwrap_or(Kind::Generic),
        site: keys.optional("site", Value::text).map(Into::into),
        talos,
        network: keys.get("network").map(|value| network(value.fields())).unwrap_or_default(),
        nodes: keys.required("nodes", |value| Some(groups(value.fields(), &shared))).unwrap_or_default(),
        template: keys.optional("template", vmid),
        tags: keys.required("tags", |value| value.list(Value::text)).unwrap_or_default(),
        address_discovery: keys.get("address_discovery").map(|value| discovery(value.fields())).unwrap_or_default(),
        guards: keys.get("guards").map(|value| guards(value.fields())).unwrap_or_default(),
        strategy: keys.optional("strategy", strategy).unwrap_or_default(),
        transport: keys.optional("transport", transport),
        backup: keys.get("backup").map(|value| backup(value.fields())).unwrap_or_default(),
        timeouts: keys.get("timeouts").map(|value| timeouts(value.fields())).unwrap_or_default(),
        steady: keys.optional("steady", Value::duration).unwrap_or(std::time::Duration::from_secs(30)),
        bootstrap: keys.get("bootstrap").map(|value| bootstrap(value.fields())).unwrap_or_default(),
        hooks: keys.get("hooks").map(|value| hooks(value.fields())).unwrap_or_default(),
        finish: keys.get("finish").map(|value| finish(value.fields())).unwrap_or_default(),
        flux: keys.get("flux").map(|value| flux(value.fields())),
    };
    keys.finish();
    profile
}

fn strategy(value: &Value<'_>) -> Option<Strategy> {
    if value.text().as_deref() == Some("park") {
        value.problem(format!("`park` {LATER}"));
        return None;
    }
    value.choice(&[("replace", Strategy::Replace)])
}

pub(super) fn transport(value: &Value<'_>) -> Option<Transport> {
    value.choice(&[
        ("auto", Transport::Auto),
        ("pull", Transport::Pull),
        ("upload", Transport::Upload),
        ("ssh", Transport::Ssh),
    ])
}

fn talos(mut keys: Fields<'_>) -> Talos {
    let talos = Talos {
        version: keys.required("version", Value::parsed).unwrap_or(VersionWish::Latest),
        kubernetes_version: keys.required("kubernetes_version", Value::parsed).unwrap_or(VersionWish::Latest),
        config_dir: keys.required("config_dir", Value::text).unwrap_or_default().into(),
        secrets_file: keys
            .required("secrets_file", secrets_file)
            .unwrap_or_else(|| SecretsFile::Path(std::path::PathBuf::new())),
        patches_dir: keys.optional("patches_dir", Value::text).map(Into::into),
        config_patches: keys.optional("config_patches", |value| value.list(config_patch)).unwrap_or_default(),
        vip: keys.optional("vip", |value| vip(value.fields())),
        factory: keys.get("factory").map(|value| factory(value.fields(), &Factory::default())).unwrap_or_default(),
        install_disk: keys
            .optional("install_disk", |value| {
                value.a("a device such as /dev/sda", |text| text.starts_with("/dev/").then(|| text.to_owned()))
            })
            .unwrap_or_else(|| "/dev/sda".to_owned()),
    };
    keys.finish();
    talos
}

fn secrets_file(value: &Value<'_>) -> Option<SecretsFile> {
    if value.is_text() {
        return value.text().map(|path| SecretsFile::Path(path.into()));
    }
    let mut keys = value.fields();
    let command = keys.required("command", Value::text);
    keys.finish();
    command.map(SecretsFile::Command)
}

fn config_patch(value: &Value<'_>) -> Option<ConfigPatch> {
    let mut keys = value.fields();
    let targets =
        [("all", PatchTarget::All), ("controlplane", PatchTarget::ControlPlane), ("worker", PatchTarget::Worker)];
    let target = keys.optional("for", |value| value.choice(&targets)).unwrap_or_default();
    let file = keys.optional("file", Value::text).map(|file| PatchSource::File(file.into()));
    let inline = keys.optional("inline", Value::text).map(PatchSource::Inline);
    keys.finish();
    match (file, inline) {
        (Some(source), None) | (None, Some(source)) => Some(ConfigPatch { target, source }),
        _ => {
            value.problem("expected either `file` or `inline`");
            None
        }
    }
}

fn vip(mut keys: Fields<'_>) -> Option<Vip> {
    let interface = keys.optional("interface", Value::text);
    let ip = keys.required("ip", address);
    keys.finish();
    Some(Vip { interface, ip: ip? })
}

/// What isn't said of architecture, signature and URL is as in `shared`.
fn factory(mut keys: Fields<'_>, shared: &Factory) -> Factory {
    let factory = Factory {
        schematic_id: keys.optional("schematic_id", |value| {
            value.a("a schematic ID (64 hex digits)", |text| {
                let hex =
                    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
                hex.then(|| SchematicId::new(text))
            })
        }),
        extensions: keys
            .optional("extensions", |value| {
                value.list(|item| item.a("an extension such as siderolabs/qemu-guest-agent", extension))
            })
            .unwrap_or_default(),
        url: keys.optional("url", url).or_else(|| shared.url.clone()),
        secureboot: keys.optional("secureboot", Value::flag).unwrap_or(shared.secureboot),
        arch: keys
            .optional("arch", |value| value.choice(&[("amd64", Arch::Amd64), ("arm64", Arch::Arm64)]))
            .unwrap_or(shared.arch),
    };
    keys.finish();
    factory
}

fn extension(text: &str) -> Option<String> {
    let word = |part: &str| !part.is_empty() && part.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(&c));
    let (owner, name) = text.split_once('/')?;
    (word(owner) && word(name)).then(|| text.to_owned())
}

fn network(mut keys: Fields<'_>) -> Network {
    let default = Network::default();
    let network = Network {
        api_endpoint: keys.optional("api_endpoint", |value| {
            value.a("an address, a host or host:port, without a scheme", api_endpoint)
        }),
        pod_cidr: keys.optional("pod_cidr", cidr).unwrap_or(default.pod_cidr),
        service_cidr: keys.optional("service_cidr", cidr).unwrap_or(default.service_cidr),
        gateway: keys.optional("gateway", address),
        prefix: keys.optional("prefix", Value::number),
        nameservers: keys.optional("nameservers", |value| value.list(address)).unwrap_or_default(),
        bridge: keys.optional("bridge", Value::text),
        vlan: keys.optional("vlan", Value::number),
        mtu: keys.optional("mtu", Value::number),
    };
    keys.finish();
    network
}

/// Reads `192.168.178.50`, `k8s.example.org:6443`, `fd00::1` or `[fd00::1]:6443`.
pub(super) fn api_endpoint(text: &str) -> Option<ApiEndpoint> {
    let endpoint = |host: &str, port| Some(ApiEndpoint { host: host.to_owned(), port });
    if text.parse::<std::net::IpAddr>().is_ok() {
        return endpoint(text, 6443);
    }
    if let Some(rest) = text.strip_prefix('[') {
        let (host, port) = rest.split_once(']')?;
        host.parse::<std::net::Ipv6Addr>().ok()?;
        return endpoint(host, if port.is_empty() { 6443 } else { port.strip_prefix(':')?.parse().ok()? });
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, port.parse().ok().filter(|port| *port > 0)?),
        None => (text, 6443),
    };
    let label = |label: &str| {
        !label.is_empty() && label.len() < 64 && label.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_".contains(&c))
    };
    // All digits and dots would be an address with a slip of the finger.
    let looks_like_address = host.bytes().all(|c| c.is_ascii_digit() || c == b'.');
    let is_address = host.parse::<std::net::Ipv4Addr>().is_ok();
    (is_address || !looks_like_address && host.split('.').all(label)).then(|| endpoint(host, port))?
}

fn groups(mut keys: Fields<'_>, shared: &Factory) -> Groups {
    let groups = Groups {
        controlplane: keys.get("controlplane").map(|value| group(value.fields(), shared)),
        workers: keys.get("workers").map(|value| group(value.fields(), shared)),
    };
    keys.finish();
    groups
}

fn group(mut keys: Fields<'_>, shared: &Factory) -> Group {
    keys.refuse(&["data_disks"]);
    let (vm, inherit) = hardware(&mut keys);
    let group = Group {
        count: keys.required("count", Value::number).unwrap_or_default(),
        name_prefix: keys.required("name_prefix", Value::text).unwrap_or_default(),
        cores: keys.required("cores", Value::number).unwrap_or_default(),
        memory_mb: keys
            .required("memory", |value| value.a("a number of MB such as 8192", |text| text.parse().ok()))
            .unwrap_or_default(),
        disk_gib: keys.required("disk", |value| value.a(A_DISK_SIZE, quantity::disk_gib)).unwrap_or_default(),
        start_vmid: keys
            .optional("start_vmid", |value| {
                value.a("a VMID or `auto`", |text| match text {
                    "auto" => Some(StartVmId::Auto),
                    number => number.parse().ok().map(|number| StartVmId::At(VmId(number))),
                })
            })
            .unwrap_or_default(),
        placement: keys
            .optional("placement", |value| value.choice(&[("spread", Placement::Spread), ("pack", Placement::Pack)]))
            .unwrap_or_default(),
        assignments: keys
            .optional("assignments", |value| value.list(|item| Some(assignment(item.fields()))))
            .unwrap_or_default(),
        factory: keys.get("factory").map(|value| factory(value.fields(), shared)),
        vm,
        inherit: inherit.unwrap_or_else(Inherit::all),
    };
    keys.finish();
    group
}

fn assignment(mut keys: Fields<'_>) -> Assignment {
    keys.refuse(&["data_disks"]);
    let (vm, inherit) = hardware(&mut keys);
    let assignment = Assignment {
        name: MachineName::new(keys.required("name", Value::text).unwrap_or_default()),
        node: keys.optional("node", Value::text).map(NodeName::new),
        vmid: keys.optional("vmid", vmid),
        ip: keys.optional("ip", address),
        mac: keys.optional("mac", Value::parsed),
        vm,
        inherit,
    };
    keys.finish();
    assignment
}

/// PVE's keys, and what is taken over where that is said.
fn hardware(keys: &mut Fields<'_>) -> (BTreeMap<String, String>, Option<BTreeSet<Inherit>>) {
    let Some(value) = keys.get("vm") else { return <_>::default() };
    let inherit = value.at("inherit").and_then(|value| value.list(|item| item.choice(Inherit::ALL)));
    (value.scalars(&["inherit"]).unwrap_or_default(), inherit.map(BTreeSet::from_iter))
}

fn discovery(mut keys: Fields<'_>) -> AddressDiscovery {
    let modes = [
        ("auto", DiscoveryMode::Auto),
        ("static", DiscoveryMode::Static),
        ("cloud-init", DiscoveryMode::CloudInit),
        ("agent", DiscoveryMode::Agent),
        ("scan", DiscoveryMode::Scan),
    ];
    let discovery = AddressDiscovery {
        mode: keys.optional("mode", |value| value.choice(&modes)).unwrap_or_default(),
        subnet: keys.optional("subnet", cidr),
    };
    keys.finish();
    discovery
}

fn guards(mut keys: Fields<'_>) -> Guards {
    let default = Guards::default();
    let guards = Guards {
        max_destroy: keys.optional("max_destroy", Value::number),
        snapshot_max_age: keys.optional("snapshot_max_age", Value::duration).unwrap_or(default.snapshot_max_age),
        require_copy: keys.optional("require_copy", Value::flag).unwrap_or_default(),
    };
    keys.finish();
    guards
}

fn timeouts(mut keys: Fields<'_>) -> Timeouts {
    let default = Timeouts::default();
    let timeouts = Timeouts {
        shutdown: keys.optional("shutdown", Value::duration).unwrap_or(default.shutdown),
        boot: keys.optional("boot", Value::duration).unwrap_or(default.boot),
        health: keys.optional("health", Value::duration).unwrap_or(default.health),
        drain: keys.optional("drain", Value::duration).unwrap_or(default.drain),
        task: keys.optional("task", Value::duration).unwrap_or(default.task),
    };
    keys.finish();
    timeouts
}

pub(super) fn vmid(value: &Value<'_>) -> Option<VmId> {
    value.number().map(VmId)
}

fn address(value: &Value<'_>) -> Option<std::net::IpAddr> {
    value.a("an IP address", |text| text.parse().ok())
}

pub(super) fn cidr(value: &Value<'_>) -> Option<IpNet> {
    value.a("a network such as 10.244.0.0/16", |text| text.parse().ok())
}

pub(super) fn url(value: &Value<'_>) -> Option<String> {
    value.a("a URL such as https://factory.talos.dev", |text| {
        let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"))?;
        (!rest.is_empty()).then(|| text.trim_end_matches('/').to_owned())
    })
}
