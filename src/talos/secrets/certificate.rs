//! X.509 certificates exactly as Talos issues them, and the few facts read back from one.
//!
//! Written as DER by hand: the order of extensions, empty subjects and several organisations in one name part are beyond
//! what certificate builders offer. The shapes follow siderolabs/crypto's `x509` (v0.6.4).
//! Must not know: the bundle or files.

use aws_lc_rs::rand;
use jiff::{Timestamp, ToSpan as _, tz};

use super::key::PrivateKey;
use super::{Flaw, SecretsError, der, pem};

const ORGANIZATION: &[u8] = &[0x06, 0x03, 0x55, 0x04, 0x0a];
const KEY_USAGE: &[u8] = &[0x06, 0x03, 0x55, 0x1d, 0x0f];
const EXTENDED_KEY_USAGE: &[u8] = &[0x06, 0x03, 0x55, 0x1d, 0x25];
const BASIC_CONSTRAINTS: &[u8] = &[0x06, 0x03, 0x55, 0x1d, 0x13];
const SUBJECT_KEY_ID: &[u8] = &[0x06, 0x03, 0x55, 0x1d, 0x0e];
const AUTHORITY_KEY_ID: &[u8] = &[0x06, 0x03, 0x55, 0x1d, 0x23];
const SERVER_AUTH: &[u8] = &[0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01];
const CLIENT_AUTH: &[u8] = &[0x06, 0x08, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02];
const TRUE: &[u8] = &[0x01, 0x01, 0xff];

/// Days a new CA is valid: ten years of 365 days.
const CA_HOURS: i64 = 87_600;

/// A self-signed CA certificate as PEM. `organization` is its subject; none leaves it empty.
pub(super) fn authority(organization: Option<&str>, key: &PrivateKey, now: Timestamp) -> Result<String, SecretsError> {
    let name = name(organization.as_slice());
    let mut key_id = [0; 20];
    rand::fill(&mut key_id).map_err(|_| SecretsError::Crypto)?;
    let extensions = [
        extension(KEY_USAGE, Criticality::Critical, &[0x03, 0x02, 0x02, 0x84]),
        extension(EXTENDED_KEY_USAGE, Criticality::Optional, &der::sequence(&[SERVER_AUTH, CLIENT_AUTH])),
        extension(BASIC_CONSTRAINTS, Criticality::Critical, &der::sequence(&[TRUE])),
        extension(SUBJECT_KEY_ID, Criticality::Optional, &der::octets(&key_id)),
    ];
    let blueprint = Blueprint { subject: &name, issuer: &name, extensions: &extensions, hours: CA_HOURS, now };
    blueprint.sign(key, key)
}

/// A client certificate of `organizations` for `key`, signed by the CA, as PEM.
pub(crate) fn client(
    organizations: &[&str],
    key: &PrivateKey,
    authority: &Authority<'_>,
    now: Timestamp,
    hours: i64,
) -> Result<String, SecretsError> {
    let facts = Facts::of(authority.certificate).map_err(|_| SecretsError::Crypto)?;
    let mut extensions = vec![
        extension(KEY_USAGE, Criticality::Critical, &[0x03, 0x02, 0x07, 0x80]),
        extension(EXTENDED_KEY_USAGE, Criticality::Optional, &der::sequence(&[CLIENT_AUTH])),
    ];
    if let Some(id) = &facts.key_id {
        let content = der::sequence(&[&der::element(0x80, id)]);
        extensions.push(extension(AUTHORITY_KEY_ID, Criticality::Optional, &content));
    }
    let subject = name(organizations);
    let blueprint = Blueprint { subject: &subject, issuer: &facts.subject, extensions: &extensions, hours, now };
    blueprint.sign(key, authority.key)
}

/// A CA that signs.
pub(crate) struct Authority<'a> {
    /// Its certificate, PEM.
    pub(crate) certificate: &'a str,
    /// Its key.
    pub(crate) key: &'a PrivateKey,
}

/// What is read from a certificate.
pub(crate) struct Facts {
    pub(crate) not_after: Timestamp,
    pub(crate) is_ca: bool,
    /// The key's bit string.
    pub(crate) public: Vec<u8>,
    subject: Vec<u8>,
    key_id: Option<Vec<u8>>,
}

impl Facts {
    /// Reads a certificate from PEM.
    pub(crate) fn of(text: &str) -> Result<Self, Flaw> {
        let block = pem::decode(text)?;
        if block.label != "CERTIFICATE" {
            return Err(Flaw::WrongLabel { found: block.label, expected: "a certificate" });
        }
        let (_, certificate) = x509_parser::parse_x509_certificate(&block.der).map_err(|_| Flaw::GarbledCertificate)?;
        if !is_name(certificate.subject().as_raw()) || !is_name(certificate.issuer().as_raw()) {
            return Err(Flaw::GarbledCertificate);
        }
        let key_id = certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            x509_parser::extensions::ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
            _ => None,
        });
        Ok(Self {
            not_after: Timestamp::from_second(certificate.validity().not_after.timestamp())
                .map_err(|_| Flaw::GarbledCertificate)?,
            is_ca: certificate.is_ca(),
            public: certificate.public_key().subject_public_key.data.to_vec(),
            subject: certificate.subject().as_raw().to_vec(),
            key_id,
        })
    }
}

struct Blueprint<'a> {
    subject: &'a [u8],
    issuer: &'a [u8],
    extensions: &'a [Vec<u8>],
    now: Timestamp,
    hours: i64,
}

impl Blueprint<'_> {
    fn sign(&self, key: &PrivateKey, signer: &PrivateKey) -> Result<String, SecretsError> {
        let mut serial = [0; 16];
        rand::fill(&mut serial).map_err(|_| SecretsError::Crypto)?;
        let until = self.now.checked_add(self.hours.hours()).map_err(|_| SecretsError::Crypto)?;
        let extensions: Vec<&[u8]> = self.extensions.iter().map(Vec::as_slice).collect();
        let content = der::sequence(&[
            &der::element(0xa0, &der::integer(&[2])),
            &der::integer(&serial),
            signer.algorithm(),
            self.issuer,
            &der::sequence(&[&time(self.now), &time(until)]),
            self.subject,
            &key.public_info(),
            &der::element(0xa3, &der::sequence(&extensions)),
        ]);
        let signature = signer.sign(&content).map_err(|_| SecretsError::Crypto)?;
        let certificate = der::sequence(&[&content, signer.algorithm(), &der::bits(&signature)]);
        Ok(pem::encode("CERTIFICATE", &certificate))
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Criticality {
    Critical,
    Optional,
}

fn extension(id: &[u8], criticality: Criticality, content: &[u8]) -> Vec<u8> {
    let content = der::octets(content);
    match criticality {
        Criticality::Critical => der::sequence(&[id, TRUE, &content]),
        Criticality::Optional => der::sequence(&[id, &content]),
    }
}

/// A name of organisations alone; several of them are one part with several values.
fn name(organizations: &[&str]) -> Vec<u8> {
    if organizations.is_empty() {
        return der::sequence(&[]);
    }
    let values = organizations.iter().map(|organization| {
        let printable = organization.chars().all(|c| c.is_ascii_alphanumeric() || " '()+,-./:=?".contains(c));
        let text = der::element(if printable { 0x13 } else { 0x0c }, organization.as_bytes());
        der::sequence(&[ORGANIZATION, &text])
    });
    der::sequence(&[&der::set(values.collect())])
}

/// Whether this is a name that Talos reads: sets of attributes, each an identifier with a text.
fn is_name(name: &[u8]) -> bool {
    const TEXTS: [u8; 6] = [0x0c, 0x12, 0x13, 0x14, 0x16, 0x1e];
    let Some((mut parts, _)) = der::take(name, 0x30) else { return false };
    while !parts.is_empty() {
        let Some((mut part, rest)) = der::take(parts, 0x31) else { return false };
        parts = rest;
        while !part.is_empty() {
            let Some((attribute, rest)) = der::take(part, 0x30) else { return false };
            part = rest;
            let value = der::take(attribute, 0x06).and_then(|(_, value)| value.first());
            if !value.is_some_and(|tag| TEXTS.contains(tag)) {
                return false;
            }
        }
    }
    true
}

/// A time as certificates write it: two digits of the year before 2050, four from then on (RFC 5280, 4.1.2.5).
fn time(at: Timestamp) -> Vec<u8> {
    let at = at.to_zoned(tz::TimeZone::UTC);
    if (1950..2050).contains(&at.year()) {
        der::element(0x17, at.strftime("%y%m%d%H%M%SZ").to_string().as_bytes())
    } else {
        der::element(0x18, at.strftime("%Y%m%d%H%M%SZ").to_string().as_bytes())
    }
}
