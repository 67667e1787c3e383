//! The keys of a site.

use secrecy::SecretString;

use super::fields::{Fields, Value};
use super::read_profile::{cidr, transport, url};
use crate::profile::{
    Auth, Credential, Defaults, Dial, SecretSource, Site, SiteFactory, SiteNode, SshAccess, SshHost, Tls, VmIdRange,
    VmIdRanges,
};
use crate::types::{NodeName, Sha256, StorageId, VmId};

pub(super) fn site(mut keys: Fields<'_>) -> Site {
    let site = Site {
        endpoints: keys
            .required("endpoints", |value| {
                value.list(|item| item.a("a URL such as https://pve1.example.org:8006", endpoint))
            })
            .unwrap_or_default(),
        tls: keys.get("tls").map(|value| tls(value.fields())).unwrap_or_default(),
        auth: keys.optional("auth", |value| auth(value)),
        ssh: keys.get("ssh").map(|value| ssh(value.fields())),
        nodes: keys.required("nodes", |value| value.list(|item| Some(node(item.fields())))).unwrap_or_default(),
        factory: keys.get("factory").map(|value| factory(value.fields())).unwrap_or_default(),
        defaults: keys.get("defaults").map(|value| defaults(value.fields())).unwrap_or_default(),
        vmid_ranges: keys.get("vmid_ranges").map(|value| ranges(value.fields())).unwrap_or_default(),
        dial: keys.optional("dial", |value| value.list(|item| dial(item.fields()))).unwrap_or_default(),
    };
    keys.finish();
    site
}

/// `https://host:port`; a host alone gets scheme and PVE's port.
fn endpoint(text: &str) -> Option<String> {
    let rest = match text.split_once("://") {
        Some(("https", rest)) => rest,
        Some(_) => return None,
        None => text,
    };
    let rest = rest.trim_end_matches('/');
    let bare_v6 = rest.starts_with('[') && rest.ends_with(']');
    if rest.is_empty() || rest.contains(['/', '@', ' ']) {
        return None;
    }
    if bare_v6 || !rest.contains(':') {
        return Some(format!("https://{rest}:8006"));
    }
    rest.rsplit_once(':')?.1.parse::<u16>().ok()?;
    Some(format!("https://{rest}"))
}

/// 64 hex digits, with or without colons, as `pvenode cert info` and `openssl x509 -fingerprint` show them.
fn fingerprint(value: &Value<'_>) -> Option<Sha256> {
    value.a("the SHA-256 of a certificate (32 pairs of hex digits)", |text| text.replace(':', "").parse().ok())
}

fn tls(mut keys: Fields<'_>) -> Tls {
    let insecure = keys.get("insecure");
    let tls = Tls {
        ca: keys.optional("ca", Value::text).map(Into::into),
        insecure: insecure.as_ref().and_then(Value::flag).unwrap_or_default(),
        fingerprint: keys.optional("fingerprint", fingerprint),
    };
    if let Some(value) = insecure.filter(|_| tls.insecure) {
        value.warning(
            "certificates are not verified: anybody on the way can read the token",
            "set `tls.ca` or `tls.fingerprint` instead",
        );
    }
    keys.finish();
    tls
}

fn auth(value: &Value<'_>) -> Option<Auth> {
    let mut keys = value.fields();
    let token = keys.get("token");
    let user = keys.get("user");
    keys.finish();
    match (token, user) {
        (Some(token), None) => credential(&token, "secret", "id").map(Auth::Token),
        (None, Some(user)) => credential(&user, "password", "name").map(Auth::User),
        _ => {
            value.problem("expected either `token` or `user`");
            None
        }
    }
}

fn credential(value: &Value<'_>, inline: &'static str, name: &'static str) -> Option<Credential> {
    if value.is_text() {
        let secret = SecretSource::Inline(SecretString::from(value.text()?));
        warn_inline(value);
        return Some(Credential { id: None, secret });
    }
    let mut keys = value.fields();
    let id = keys.optional(name, Value::text);
    let mut found = Vec::new();
    found.extend(keys.optional("env", Value::text).map(SecretSource::Env));
    found.extend(keys.optional("file", Value::text).map(|file| SecretSource::File(file.into())));
    found.extend(keys.optional("command", Value::text).map(SecretSource::Command));
    if let Some(written) = keys.get(inline) {
        found.extend(written.text().map(|text| SecretSource::Inline(SecretString::from(text))));
        warn_inline(&written);
    }
    keys.finish();
    if found.len() > 1 || found.is_empty() {
        value.problem(format!("expected one of `env`, `file`, `command` or `{inline}`"));
    }
    Some(Credential { id, secret: found.pop()? })
}

fn warn_inline(value: &Value<'_>) {
    value.warning("a secret stands in this file", "keep it elsewhere and refer to it by `env`, `file` or `command`");
}

fn ssh(mut keys: Fields<'_>) -> SshAccess {
    let ssh = SshAccess {
        user: keys.optional("user", Value::text),
        key: keys.optional("key", Value::text).map(Into::into),
        agent: keys.optional("agent", Value::flag).unwrap_or_default(),
        known_hosts: keys.optional("known_hosts", Value::text).map(Into::into),
        program: keys.optional("program", Value::flag).unwrap_or_default(),
    };
    keys.finish();
    ssh
}

fn node(mut keys: Fields<'_>) -> SiteNode {
    let node = SiteNode {
        name: NodeName::new(keys.required("name", Value::text).unwrap_or_default()),
        api: keys.optional("api", |value| {
            value.a("host:port", |text| {
                let (host, port) = text.rsplit_once(':')?;
                (!host.is_empty() && !host.contains('/') && port.parse::<u16>().is_ok()).then(|| text.to_owned())
            })
        }),
        fingerprint: keys.optional("fingerprint", fingerprint),
        ssh: keys.get("ssh").map(|value| ssh_host(value.fields())),
    };
    keys.finish();
    node
}

fn ssh_host(mut keys: Fields<'_>) -> SshHost {
    let host = SshHost {
        host: keys.optional("host", Value::text),
        port: keys.optional("port", Value::number),
        host_key: keys.optional("host_key", Value::text),
    };
    keys.finish();
    host
}

fn factory(mut keys: Fields<'_>) -> SiteFactory {
    let default = SiteFactory::default();
    let factory = SiteFactory {
        url: keys.optional("url", url).unwrap_or(default.url),
        registry: keys.optional("registry", Value::text),
        ca: keys.optional("ca", Value::text).map(Into::into),
        auth: keys.optional("auth", auth),
    };
    keys.finish();
    factory
}

fn defaults(mut keys: Fields<'_>) -> Defaults {
    let default = Defaults::default();
    let defaults = Defaults {
        storage: keys.optional("storage", Value::text).map_or(default.storage, StorageId::new),
        bridge: keys.optional("bridge", Value::text).unwrap_or(default.bridge),
        bios: keys.optional("bios", Value::text).unwrap_or(default.bios),
        machine: keys.optional("machine", Value::text).unwrap_or(default.machine),
        cpu: keys.optional("cpu", Value::text).unwrap_or(default.cpu),
        scsihw: keys.optional("scsihw", Value::text).unwrap_or(default.scsihw),
        ostype: keys.optional("ostype", Value::text).unwrap_or(default.ostype),
        agent: keys.optional("agent", Value::flag).unwrap_or(default.agent),
        vlan: keys.optional("vlan", Value::number),
        pool: keys.optional("pool", Value::text),
        transport: keys.optional("transport", transport).unwrap_or_default(),
    };
    keys.finish();
    defaults
}

fn ranges(mut keys: Fields<'_>) -> VmIdRanges {
    let default = VmIdRanges::default();
    let ranges = VmIdRanges {
        templates: keys.optional("templates", range).unwrap_or(default.templates),
        vms: keys.optional("vms", range).unwrap_or(default.vms),
    };
    keys.finish();
    ranges
}

fn range(value: &Value<'_>) -> Option<VmIdRange> {
    value.a("a range of VMIDs such as 1000-1999", |text| {
        let (first, last) = text.split_once('-')?;
        let range = VmIdRange { first: VmId(first.trim().parse().ok()?), last: VmId(last.trim().parse().ok()?) };
        (range.first <= range.last && (100..=999_999_999).contains(&range.first.0) && range.last.0 <= 999_999_999)
            .then_some(range)
    })
}

fn dial(mut keys: Fields<'_>) -> Option<Dial> {
    let from = keys.required("from", cidr);
    let to = keys.required("to", cidr);
    keys.finish();
    Some(Dial { from: from?, to: to? })
}
