//! `N/certificates`: what a node shows of its certificates, and those that are brought to it.
//!
//! Rules after Proxmox VE 8.4 (PVE/API2/Certificates.pm, PVE/CertHelpers.pm, PVE/API2/ACME.pm). A certificate that was
//! brought is kept and told; the double goes on to serve its own.

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::public_key::PublicKey;
use x509_parser::x509::X509Name;

use super::host::{section, write};
use crate::pve::call::{Call, Result};
use crate::world::property::Properties;
use crate::world::refusal::Refusal;

type Object = Map<String, Value>;

/// Where a node's own certificate is kept.
const KEY: &str = "certificate";
const CUSTOM: &str = "pveproxy-ssl.pem";

/// `/C=AT/CN=x`
fn oneline(name: &X509Name<'_>) -> String {
    let part = |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| {
        let id = attribute.attr_type();
        let known = x509_parser::objects::oid2abbrev(id, x509_parser::objects::oid_registry());
        let key = known.map_or_else(|_| id.to_id_string(), str::to_owned);
        format!("/{key}={}", attribute.as_str().unwrap_or_default())
    };
    name.iter_attributes().map(part).collect()
}

fn ip(bytes: &[u8]) -> Option<String> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(std::net::Ipv4Addr::from(four).to_string());
    }
    let words = bytes.chunks(2).map(hex::encode).collect::<Vec<_>>();
    (bytes.len() == 16).then(|| words.join(":"))
}

/// What is told of the first certificate in a text; nothing: there is none in it.
fn told(filename: &str, pem: &str) -> Option<Value> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
    let (_, certificate) = X509Certificate::from_der(&der).ok()?;
    let fingerprint: Vec<String> = Sha256::digest(&der).iter().map(|byte| format!("{byte:02X}")).collect();
    let names = certificate.extensions().iter().filter_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
        _ => None,
    });
    let names: Vec<String> = names
        .flatten()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(bytes) => ip(bytes),
            _ => None,
        })
        .collect();
    let (kind, bits) = match certificate.public_key().parsed().ok()? {
        PublicKey::RSA(key) => ("rsaEncryption", key.key_size()),
        PublicKey::EC(point) => ("id-ecPublicKey", point.key_size()),
        _ => ("ED25519", 256),
    };
    let end = "-----END CERTIFICATE-----";
    let first = pem.find("-----BEGIN").zip(pem.find(end)).map(|(from, to)| format!("{}\n", &pem[from..to + end.len()]));
    Some(json!({
        "filename": filename, "fingerprint": fingerprint.join(":"), "subject": oneline(certificate.subject()),
        "issuer": oneline(certificate.issuer()), "notbefore": certificate.validity().not_before.timestamp(),
        "notafter": certificate.validity().not_after.timestamp(), "san": names, "pem": first,
        "public-key-type": kind, "public-key-bits": bits,
    }))
}

/// `GET N/certificates/info`
pub(in crate::pve) fn info(call: &Call) -> Result {
    let (node, folder) = (call.node(), call.world.dir().join("tls"));
    let file = |name: String| std::fs::read_to_string(folder.join(name)).ok();
    let state = call.world.state();
    let custom = section(&state, call, KEY).and_then(|kept| kept.get("pem")?.as_str()).map(str::to_owned);
    let files = [
        ("pve-root-ca.pem", file("ca.pem".to_owned())),
        ("pve-ssl.pem", file(format!("{node}.pem"))),
        (CUSTOM, custom),
    ];
    Ok(files.iter().filter_map(|(name, pem)| told(name, pem.as_deref()?)).collect::<Vec<_>>().into())
}

/// `POST N/certificates/custom`
pub(in crate::pve) fn upload(call: &Call) -> Result {
    let known = section(&call.world.state(), call, KEY).cloned();
    let text = |key: &str| {
        let text = call.params.text(key).filter(|text| !text.is_empty())?;
        text.find("-----BEGIN").map(|at| text[at..].to_owned())
    };
    let key = text("key").or_else(|| known.as_ref()?.get("key")?.as_str().map(str::to_owned));
    let Some(key) = key else {
        return Err(Refusal::param("key", "Attempted to upload custom certificate without (existing) key."));
    };
    if known.is_some() && !call.params.is_on("force") {
        return Err(Refusal::failed("Custom certificate file exists but force flag is not set.\n"));
    }
    let pem = text("certificates").unwrap_or_default();
    let failed = |why: &str| Refusal::failed(format!("Setting certificate files failed - {why}\n"));
    let shown = told(CUSTOM, &pem).ok_or_else(|| {
        let path = format!("/etc/pve/nodes/{}/{CUSTOM}", call.node());
        failed(&format!("unable to read certificate from {path}"))
    })?;
    if PrivateKeyDer::from_pem_slice(key.as_bytes()).is_err() {
        return Err(failed("unable to read the key"));
    }
    write(call, KEY, Object::from_iter([("pem".to_owned(), json!(pem)), ("key".to_owned(), json!(key))]));
    Ok(shown.into())
}

/// `DELETE N/certificates/custom`: of none, too.
pub(in crate::pve) fn remove(call: &Call) -> Result {
    let mut state = call.world.state();
    if let Some(files) = state.sections.get_mut(&format!("nodes/{}", call.node())) {
        files.remove(KEY);
    }
    Ok(().into())
}

/// The account that orders for a node, if it says for which names.
fn account(config: Option<&Object>) -> Option<String> {
    let config = config?;
    let acme = config.get("acme").and_then(Value::as_str).unwrap_or_default();
    let acme = Properties::parse(acme, "account");
    let named = acme.get("domains").is_some() || config.keys().any(|key| key.starts_with("acmedomain"));
    named.then(|| acme.get("account").unwrap_or("default").to_owned())
}

/// What is done with an authority's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    Order,
    Renew,
    Revoke,
}

/// Begins a task that asks the authority, whom nobody can reach from here.
fn ask(call: &Call, deed: Deed) -> Result {
    let state = call.world.state();
    let known = section(&state, call, KEY);
    let pem = known.and_then(|known| known.get("pem")?.as_str());
    let forced = call.params.is_on("force");
    let month = i64::try_from(call.world.clock().unix()).unwrap_or_default() + 30 * 24 * 3600;
    let ends = pem.and_then(|pem| told(CUSTOM, pem)?["notafter"].as_i64());
    match (deed, ends) {
        (Deed::Order, Some(_)) if !forced => {
            return Err(Refusal::param("force", "Custom certificate exists but 'force' is not set."));
        }
        (Deed::Renew, None) => {
            return Err(Refusal::failed("No current (custom) certificate found, please order a new certificate!\n"));
        }
        (Deed::Renew, Some(ends)) if !forced && ends > month => {
            let text = "Certificate does not expire within the next 30 days, and 'force' is not set.";
            return Err(Refusal::param("force", text));
        }
        _ => {}
    }
    let account = account(section(&state, call, "config"));
    let missing = || Refusal::failed("ACME domain list in node configuration is missing!\n");
    let account = account.ok_or_else(missing)?;
    let directory = super::acme::directory_of(&state, &account);
    drop(state);
    let kind = match deed {
        Deed::Order => "acmenewcert",
        Deed::Renew => "acmerenew",
        Deed::Revoke => "acmerevoke",
    };
    let upid = call.world.start_task(&call.caller, &call.node(), kind, "", |work| async move {
        let missing = || Refusal::failed(format!("ACME account config file '{account}' does not exist.\n"));
        let directory = directory.ok_or_else(missing)?;
        work.log("Loading ACME account details");
        if deed != Deed::Revoke {
            work.log("Placing ACME order");
        }
        Err(super::acme::unreachable(&directory))
    });
    Ok(upid.into())
}

/// `POST N/certificates/acme/certificate`
pub(in crate::pve) fn order(call: &Call) -> Result {
    ask(call, Deed::Order)
}

/// `PUT N/certificates/acme/certificate`
pub(in crate::pve) fn renew(call: &Call) -> Result {
    ask(call, Deed::Renew)
}

/// `DELETE N/certificates/acme/certificate`
pub(in crate::pve) fn revoke(call: &Call) -> Result {
    ask(call, Deed::Revoke)
}
