//! Resources that only administrators see: the authorities of a control plane, and what its certificates are for.

use std::net::IpAddr;

use base64::Engine as _;
use serde_json::{Value, json};

use super::wire::Proto;
use super::{Item, Maker, Type, addresses, documents};
use crate::world::machine::{Machine, MachineType, NodeConfig};

pub(super) fn list(machine: &Machine, kind: &'static Type) -> Vec<Item> {
    let Some(config) = machine.see(|state| state.config.clone()) else { return Vec::new() };
    let maker = Maker(kind);
    let control_plane = config.machine_type() == MachineType::ControlPlane;
    match kind.name {
        "OSRootSecrets.secrets.talos.dev" => {
            let mut names = config.api_names();
            let ips: Vec<String> = names.extract_if(.., |name| name.parse::<IpAddr>().is_ok()).collect();
            let value = json!({ "issuingCA": pair(&config, "/machine/ca"), "acceptedCAs": accepted(&config, "/machine"),
                "certSANIPs": ips, "certSANDNSNames": names, "token": config.str("/machine/token") });
            let proto = with_ips(Proto::default().message(1, &wire_pair(&config, "/machine/ca")), 2, &ips)
                .texts(3, names.iter().map(String::as_str))
                .text(4, config.str("/machine/token").unwrap_or_default());
            let proto = wire_accepted(proto, 5, &value);
            vec![maker.typed("os", &value, proto)]
        }
        "CertSANs.secrets.talos.dev" => {
            let (host, full) = machine.see(|state| (state.hostname(), state.full_hostname()));
            let mut own = machine.see(addresses);
            own.extend(machine.room().shared(machine.vmid()).iter().map(ToString::to_string));
            let one = |id: &str, extra: Vec<String>| {
                let (ips, names): (Vec<String>, Vec<String>) = std::iter::once("127.0.0.1".to_owned())
                    .chain(own.clone())
                    .chain(std::iter::once(host.clone()))
                    .chain(Some(full.clone()).filter(|full| *full != host))
                    .chain(extra)
                    .partition(|name| name.parse::<IpAddr>().is_ok());
                let proto =
                    with_ips(Proto::default(), 1, &ips).texts(2, names.iter().map(String::as_str)).text(3, &full);
                maker.typed(id, &json!({ "ips": ips, "dnsNames": names, "fqdn": full }), proto)
            };
            let mut all = vec![one("api", config.api_names())];
            if control_plane {
                all.push(one("k8s", config.api_server_names()));
            }
            all
        }
        _ if !control_plane => Vec::new(),
        "EtcdRootSecrets.secrets.talos.dev" => {
            let proto = Proto::default().message(1, &wire_pair(&config, "/cluster/etcd/ca"));
            vec![maker.typed("etcd", &json!({ "etcdCA": pair(&config, "/cluster/etcd/ca") }), proto)]
        }
        "KubernetesRootSecrets.secrets.talos.dev" => vec![kubernetes(&maker, &config)],
        _ => Vec::new(),
    }
}

/// A certificate and its key as they stand in the configuration.
fn pair(config: &NodeConfig, pointer: &str) -> Value {
    let part = |name: &str| config.str(&format!("{pointer}/{name}")).unwrap_or_default();
    json!({ "crt": part("crt"), "key": part("key") })
}

fn wire_pair(config: &NodeConfig, pointer: &str) -> Proto {
    let part = |name: &str| decode(config.str(&format!("{pointer}/{name}")).unwrap_or_default());
    Proto::default().bytes(1, &part("crt")).bytes(2, &part("key"))
}

fn decode(text: &str) -> Vec<u8> {
    base64::engine::general_purpose::STANDARD.decode(text.trim()).unwrap_or_default()
}

fn with_ips(proto: Proto, field: u32, ips: &[String]) -> Proto {
    ips.iter().filter_map(|ip| ip.parse::<IpAddr>().ok()).fold(proto, |proto, ip| {
        let octets = match ip {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        proto.message(field, &Proto::default().bytes(1, &octets))
    })
}

/// The authorities whose certificates are taken: the issuing one, and what stands beside it.
pub(super) fn accepted(config: &NodeConfig, section: &str) -> Value {
    let mut all = vec![json!({ "crt": config.str(&format!("{section}/ca/crt")).unwrap_or_default() })];
    let others = config.main().pointer(&format!("{section}/acceptedCAs")).and_then(Value::as_array);
    all.extend(others.into_iter().flatten().cloned());
    Value::Array(all)
}

/// `acceptedCAs` of a resource, for those who read its bytes.
pub(super) fn wire_accepted(proto: Proto, field: u32, value: &Value) -> Proto {
    let all = value["acceptedCAs"].as_array().into_iter().flatten();
    all.fold(proto, |proto, one| {
        proto.message(field, &Proto::default().bytes(1, &decode(one["crt"].as_str().unwrap_or_default())))
    })
}

fn kubernetes(maker: &Maker, config: &NodeConfig) -> Item {
    let text = |pointer: &str| config.str(pointer).unwrap_or_default();
    let (id, secret) = text("/cluster/token").split_once('.').unwrap_or_default();
    let domain = config.str("/cluster/network/dnsDomain").unwrap_or("cluster.local");
    let (names, near) = (config.kubernetes_names(), "https://localhost:6443");
    let (aes, secretbox) = (text("/cluster/aescbcEncryptionSecret"), text("/cluster/secretboxEncryptionSecret"));
    let value = json!({
        "name": config.cluster_name(),
        "endpoint": documents::url(config.endpoint()),
        "local_endpoint": documents::url(near),
        "certSANs": names,
        "dnsDomain": domain,
        "issuingCA": pair(config, "/cluster/ca"),
        "acceptedCAs": accepted(config, "/cluster"),
        "serviceAccount": { "key": text("/cluster/serviceAccount/key") },
        "aggregatorCA": pair(config, "/cluster/aggregatorCA"),
        "aesCBCEncryptionSecret": aes,
        "bootstrapTokenID": id,
        "bootstrapTokenSecret": secret,
        "secretboxEncryptionSecret": secretbox,
    });
    let url = |text: &str| Proto::default().text(1, text);
    let proto = Proto::default()
        .text(1, config.cluster_name())
        .message(2, &url(config.endpoint()))
        .message(3, &url(near))
        .texts(4, names.iter().map(String::as_str))
        .text(6, domain)
        .message(7, &wire_pair(config, "/cluster/ca"))
        .message(8, &Proto::default().bytes(1, &decode(text("/cluster/serviceAccount/key"))))
        .message(9, &wire_pair(config, "/cluster/aggregatorCA"))
        .text(10, aes)
        .text(11, id)
        .text(12, secret)
        .text(13, secretbox);
    maker.typed("k8s", &value, wire_accepted(proto, 15, &value))
}
