//! What holds inside each document beside the main one, as far as it isn't about the network.
//!
//! Rules of siderolabs/talos `pkg/machinery/config/types/*/` (v1.13.9; v1.14.0-rc.1 for the documents that are newer).
//! Expressions are not evaluated: a node does that.

use super::cluster::{AUTHORIZERS, is_url, resources};
use super::machine::{encryption_keys, kubelet_config, node};
use super::names::is_dns_name;
use super::network::filters;
use super::scalars::{holds, is_32_bytes, is_host_with_port, list, number, text};
use super::{Check, links};
use crate::talos::config::schema::shapes;
use crate::talos::config::yaml::{Map, Value};

/// Kinds that Talos takes without a name although several of them may stand side by side.
const NAMELESS: [&str; 3] = ["TrustedRootsConfig", "PCIDriverRebindConfig", "KubeSpanEndpointsConfig"];

/// Components of Kubernetes, which need their image unless they are switched off.
const COMPONENTS: [&str; 5] =
    ["KubeAPIServerConfig", "KubeControllerManagerConfig", "KubeSchedulerConfig", "KubeProxyConfig", "KubeletConfig"];

/// Checks one document.
pub(super) fn document(check: &mut Check<'_>) {
    let named = shapes::document(check.kind).is_some_and(|kind| kind.named) && !NAMELESS.contains(&check.kind);
    if named && check.text("name").is_none() {
        check.error("name", "is missing");
    }
    if COMPONENTS.contains(&check.kind) && !check.is_false("enabled") {
        if check.text("image").is_none() {
            check.error("image", "is missing");
        }
        resources(check, "resources");
    }
    links::document(check);
    storage(check);
    kubernetes(check);
    others(check);
}

fn needs(check: &mut Check<'_>, path: &str) {
    if check.at(path).is_none() || check.at(path).and_then(Value::as_text) == Some("") {
        check.error(path, "is missing");
    }
}

/// How large a volume may be: whether a partition is made for it.
#[derive(Clone, Copy, PartialEq)]
enum Size {
    Own,
    OfDisk,
}

fn storage(check: &mut Check<'_>) {
    let ours = match check.kind {
        "VolumeConfig" => {
            let name = check.text("name").unwrap_or_default();
            if !["STATE", "EPHEMERAL", "IMAGECACHE"].contains(&name) {
                check.error("name", format!("'{name}' is no volume of Talos: STATE, EPHEMERAL, IMAGECACHE"));
            }
            if name == "STATE" {
                if check.at("provisioning").and_then(Value::as_map).is_some_and(|map| !map.is_empty()) {
                    check.error("provisioning", "is not for STATE");
                }
                for (at, key) in check.list("encryption.keys").iter().enumerate() {
                    if key.at(&["lockToState"]) == Some(&true.into()) {
                        check.error(&format!("encryption.keys[{at}].lockToState"), "is not for STATE");
                    }
                }
            }
            return encrypted(check);
        }
        "UserVolumeConfig" => match check.text("volumeType") {
            Some("directory") => {
                for key in ["provisioning", "encryption", "filesystem", "mount"] {
                    if check.at(key).and_then(Value::as_map).is_some_and(|map| !map.is_empty()) {
                        check.error(key, "is not for a directory");
                    }
                }
                None
            }
            Some("disk") => Some(Size::OfDisk),
            None | Some("partition") => Some(Size::Own),
            Some(other) => {
                return check.error("volumeType", format!("'{other}' can't be chosen: partition, disk, directory"));
            }
        },
        "RawVolumeConfig" | "SwapVolumeConfig" => Some(Size::Own),
        "ExistingVolumeConfig" => {
            needs(check, "discovery.volumeSelector.match");
            None
        }
        "ExternalVolumeConfig" => None,
        _ => return,
    };
    let name = check.text("name").unwrap_or_default();
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') || name.len() > 34 {
        check.error("name", "may have up to 34 letters, digits and hyphens");
    }
    if let Some(size) = ours {
        needs(check, "provisioning.diskSelector.match");
        let sized = ["minSize", "maxSize"].iter().any(|key| check.text(&format!("provisioning.{key}")).is_some());
        match size {
            Size::Own if !sized => check.error("provisioning", "needs minSize or maxSize"),
            Size::OfDisk if sized || check.at("provisioning.grow").is_some() => {
                check.error("provisioning", "a whole disk has no minSize, maxSize and grow");
            }
            _ => {}
        }
        let filesystem = check.text("filesystem.type");
        if let Some(other) = filesystem.filter(|given| !["xfs", "ext4", "none"].contains(given)) {
            check.error("filesystem.type", format!("'{other}' can't be chosen: xfs or ext4"));
        }
        if check.is_true("filesystem.projectQuotaSupport") && filesystem.is_some_and(|given| given != "xfs") {
            check.error("filesystem.projectQuotaSupport", "is for xfs only");
        }
        encrypted(check);
    }
}

fn encrypted(check: &mut Check<'_>) {
    if check.at("encryption").and_then(Value::as_map).is_none_or(Map::is_empty) {
        return;
    }
    let keys = check.list("encryption.keys");
    let provider = check.text("encryption.provider").unwrap_or("none");
    if keys.is_empty() && provider == "none" {
        return;
    }
    if provider != "luks2" {
        check.error("encryption.provider", "must be luks2");
    }
    if keys.is_empty() {
        check.error("encryption.keys", "is missing");
    }
    encryption_keys(check, keys, "encryption.keys");
}

fn kubernetes(check: &mut Check<'_>) {
    match check.kind {
        "KubeletConfig" => kubelet_config(check, "config"),
        "KubeNodeConfig" => {
            node(check, ["labels", "annotations", "taints"]);
            filters(check, "nodeIP.validSubnets");
        }
        "KubeClusterConfig" => {
            needs(check, "clusterName");
            if !check.text("endpoint").is_some_and(is_url) {
                check.error("endpoint", "must be a URL such as https://10.0.0.10:6443");
            }
        }
        "KubeAPIServerConfig" => arguments(check),
        "KubeAuthorizerConfig" => {
            let kind = check.text("type").unwrap_or_default();
            if !AUTHORIZERS.contains(&kind) {
                check.error("type", format!("'{kind}' is none of {}", AUTHORIZERS.join(", ")));
            }
            if kind == "Webhook" && !holds(&check.document.root, "webhook") {
                check.error("webhook", "is missing");
            }
        }
        "KubeEtcdEncryptionConfig" if !holds(&check.document.root, "config") => check.error("config", "is missing"),
        "KubePrismConfig" if !(1..=65535).contains(&number(check.at("port"))) => {
            check.error("port", "must be a port from 1 to 65535");
        }
        "KubeFlannelCNIConfig" => {
            needs(check, "backendType");
            resources(check, "resources");
        }
        "KubeServiceAccountConfig" => {
            needs(check, "issuer.privateKey");
            needs(check, "issuer.issuerURL");
        }
        "KubeAggregatorCAConfig" => needs(check, "issuingCA"),
        "KubeExternalManifestConfig" | "KubeInlineManifestConfig" => {
            if let Some(name) = check.text("name").filter(|name| !is_dns_name(name)) {
                check.error("name", format!("'{name}' is no DNS name"));
            }
            let web = |url: &str| url.starts_with("http://") || url.starts_with("https://");
            if check.kind == "KubeExternalManifestConfig" && !check.text("url").is_some_and(web) {
                check.error("url", "must be a URL of http or https");
            }
        }
        "KubeProxyConfig" if !check.is_false("enabled") => match check.text("mode") {
            None | Some("nftables") => {}
            Some(mode @ ("iptables" | "ipvs")) => {
                check.warning("mode", format!("{mode} is not recommended: use nftables where that can be"));
            }
            Some(mode) => check.error("mode", format!("unknown mode '{mode}': nftables, iptables, ipvs")),
        },
        "KubeNetworkConfig" => subnets(check),
        _ => {}
    }
}

/// Flags of the API server that documents say.
fn arguments(check: &mut Check<'_>) {
    const DENIED: [(&str, &str); 5] = [
        ("anonymous-auth", "KubeAuthenticationConfig"),
        ("oidc-", "KubeAuthenticationConfig"),
        ("authentication-config", "KubeAuthenticationConfig"),
        ("authorization-config", "KubeAuthorizerConfig"),
        ("authorization-", "KubeAuthorizerConfig"),
    ];
    let Some(Value::Map(flags)) = check.at("extraArgs") else { return };
    for key in flags.keys() {
        let denied = |(prefix, _): &&(&str, &str)| key.starts_with(prefix);
        if let Some((_, document)) = DENIED.iter().find(denied) {
            check.error(&format!("extraArgs.{key}"), format!("belongs into a document {document}"));
        }
    }
}

fn subnets(check: &mut Check<'_>) {
    let (pods, services) = (check.list("podSubnets"), check.list("serviceSubnets"));
    if pods.len() != services.len() {
        check.error("serviceSubnets", "must be as many as podSubnets");
    }
    for (key, all) in [("podSubnets", pods), ("serviceSubnets", services)] {
        if !(1..=2).contains(&all.len()) {
            check.error(key, "must be one network, or one of each family");
        }
        let mut families = Vec::new();
        for (at, given) in all.iter().enumerate() {
            let Some(net) = given.as_text().and_then(|text| text.parse::<ipnet::IpNet>().ok()) else { continue };
            let v4 = net.addr().is_ipv4();
            let host_bits = net.max_prefix_len() - net.prefix_len();
            let path = format!("{key}[{at}]");
            if families.contains(&v4) {
                check.error(&path, "is the second one of its family");
            }
            families.push(v4);
            if net.trunc() != net {
                check.error(&path, format!("must be the network's first address: {}", net.trunc()));
            }
            if host_bits < 4 {
                check.error(&path, "is too small");
            }
            let (size, usual) = if v4 { ("nodeCIDRMaskSizeIPv4", 24) } else { ("nodeCIDRMaskSizeIPv6", 64) };
            let mask = check.at(size).map_or(usual, |size| number(Some(size)));
            let own = i64::from(net.prefix_len());
            if key == "serviceSubnets" && host_bits > 20 {
                check.error(&path, "is too large: 20 bits are for hosts at most");
            } else if key == "podSubnets" && (own > mask || mask - own > 16) {
                check.error(&path, format!("does not go with /{mask} for each node: up to 16 bits larger"));
            }
        }
    }
}

fn others(check: &mut Check<'_>) {
    match check.kind {
        "DiscoveryIdentityConfig" => {
            needs(check, "clusterID");
            if !check.text("clusterSecret").is_some_and(is_32_bytes) {
                check.error("clusterSecret", "must be 32 bytes in base64");
            }
        }
        "DiscoveryServiceConfig" => needs(check, "endpoint"),
        "RegistryMirrorConfig" => {
            for (at, endpoint) in check.list("endpoints").iter().enumerate() {
                let url = text(endpoint, &["url"]);
                if !url.starts_with("http://") && !url.starts_with("https://") {
                    check.error(&format!("endpoints[{at}].url"), "must be a URL of http or https");
                }
            }
        }
        "RegistryAuthConfig" => {
            let given = ["username", "identityToken", "auth"].iter().filter(|key| check.text(key).is_some()).count();
            if given > 1 {
                check.error("", "username, identityToken and auth exclude each other");
            }
        }
        "RegistryTLSConfig" if check.text("ca").is_some_and(|ca| !ca.contains("-----BEGIN CERTIFICATE-----")) => {
            check.error("ca", "must be a certificate in PEM");
        }
        "EnvironmentConfig" => {
            let Some(Value::Map(variables)) = check.at("variables") else { return };
            let letter = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
            for key in variables.keys() {
                let good = key.bytes().next().is_some_and(letter)
                    && key.bytes().all(|byte| letter(byte) || byte.is_ascii_digit());
                if !good {
                    check.error(&format!("variables.{key}"), "is no name of a variable");
                }
            }
        }
        "EventSinkConfig" if !check.text("endpoint").is_some_and(is_host_with_port) => {
            check.error("endpoint", "must be HOST:PORT");
        }
        "ExtensionServiceConfig" => extension(check),
        "KmsgLogConfig" => {
            let url = check.text("url").unwrap_or_default();
            let host = ["tcp://", "udp://"].iter().find_map(|scheme| url.strip_prefix(scheme));
            let port = |host: &str| {
                host.trim_end_matches('/').rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok())
            };
            if !host.is_some_and(port) {
                check.error("url", "must be tcp://HOST:PORT or udp://HOST:PORT");
            }
        }
        "SideroLinkConfig" => {
            let url = check.text("apiUrl").unwrap_or_default();
            let host = ["https://", "grpc://"].iter().find_map(|scheme| url.strip_prefix(scheme));
            if !host.is_some_and(|host| {
                host.split('?').next().is_some_and(|host| !host.trim_end_matches('/').contains('/'))
            }) {
                check.error("apiUrl", "must be a URL of https or grpc without a path");
            }
        }
        "WatchdogTimerConfig" => needs(check, "device"),
        "ZswapConfig"
            if check.at("maxPoolPercent").is_some() && !(0..=100).contains(&number(check.at("maxPoolPercent"))) =>
        {
            check.error("maxPoolPercent", "must be a number from 0 to 100");
        }
        "ImageVerificationConfig" => images(check),
        _ => {}
    }
}

fn extension(check: &mut Check<'_>) {
    let files = check.list("configFiles");
    if files.is_empty() && check.list("environment").is_empty() {
        check.error("", "needs configFiles or environment");
    }
    for (at, file) in files.iter().enumerate() {
        for key in ["content", "mountPath"] {
            if text(file, &[key]).is_empty() {
                check.error(&format!("configFiles[{at}].{key}"), "is missing");
            }
        }
    }
}

fn images(check: &mut Check<'_>) {
    for (at, rule) in list(&check.document.root, &["rules"]).iter().enumerate() {
        let path = format!("rules[{at}]");
        if text(rule, &["image"]).is_empty() {
            check.error(&format!("{path}.image"), "is missing");
        }
        let is = |key: &str| rule.at(&[key]) == Some(&true.into());
        let verifiers = ["keyless", "publicKey"].iter().filter(|key| rule.at(&[key]).is_some()).count();
        let said = usize::from(is("skip")) + usize::from(is("deny")) + verifiers;
        if said != 1 {
            check.error(&path, "needs one of skip, deny, keyless and publicKey");
        }
    }
}
