//! A machine without a config: who it is, and how it gets one.
//!
//! Purpose: the maintenance API. Its certificate is thrown away at the next boot and signed by nobody, so the first
//! handshake only notes the key, and every later connection (the one that carries the config with all its secrets above
//! all) must meet that very key. The caller matches MAC and SMBIOS UUID with what Proxmox VE says in between.
//! Must not know: configs' content, which machine is wanted. Start reading at [`probe`].

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tokio::io::AsyncReadExt;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::cosi::{Kind, Resource};
use super::error::alert;
use super::link::{Address, Link};
use super::status::{Extensions, NetworkLink};
use super::{Disk, MachineStatus, TalosError};
use crate::net::tls::{self, Recorder, Seen};
use crate::net::{Connector, SpkiPin, Trust};
use crate::talos::proto::machine::ApplyConfigurationRequest;
use crate::talos::proto::machine::apply_configuration_request::Mode;
use crate::types::Version;

/// How long a server that rejects us may take to say so after the handshake. It speaks first in any case (HTTP/2 settings).
const VERDICT_WITHIN: Duration = Duration::from_millis(500);

/// Who answers at an address.
#[derive(Debug)]
pub enum Answers {
    /// A machine that takes anyone: it has no config.
    Maintenance(Maintenance),
    /// A machine that wants a client certificate: it has its config.
    Configured(Seen),
}

/// Looks who answers at `address` (an IP, a name, either with a port). `within` bounds this look and each later call.
pub async fn probe(connector: &Connector, address: &str, within: Duration) -> Result<Answers, TalosError> {
    let address = Address::parse(address)?;
    let shown = address.to_string();
    let recorder = Recorder::default();
    let verdict = timeout(within, handshake(connector, &address, &recorder)).await;
    let unreachable = |source: Box<dyn Error + Send + Sync>| TalosError::Unreachable { address: shown.clone(), source };
    let taken = verdict.map_err(|_| unreachable(format!("no TLS session within {} s", within.as_secs_f32()).into()))?;
    match (taken, recorder.seen()) {
        (Ok(()), Some(seen)) => {
            let link = Link::new(connector, &address, &Trust::Spki(seen.spki), None, within)?;
            Ok(Answers::Maintenance(Maintenance { link, pin: seen.spki }))
        }
        // A server that asks for a certificate and gets none says so with an alert, whatever its name: rustls and Go differ.
        (Err(error), Some(seen)) if alert(&error).is_some() => Ok(Answers::Configured(seen)),
        (Err(error), _) => Err(unreachable(Box::new(error))),
        (Ok(()), None) => Err(unreachable("the machine showed no certificate".into())),
    }
}

/// Shakes hands and listens for a rejection. Nothing is written after the handshake: with TLS 1.3 the server's verdict on
/// the client arrives later, and a write that crosses it would turn the alert into a bare connection reset.
async fn handshake(connector: &Connector, address: &Address, recorder: &Recorder) -> io::Result<()> {
    let mut config = tls::client_config(&Trust::Record(recorder.clone()), None).map_err(io::Error::other)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    let name = rustls_pki_types::ServerName::try_from(address.host.clone()).map_err(io::Error::other)?;
    let stream = connector.tcp(&address.host, address.port).await.map_err(io::Error::other)?;
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    match timeout(VERDICT_WITHIN, stream.read_u8()).await {
        Ok(Err(error)) => Err(error),
        Ok(Ok(_)) | Err(_) => Ok(()),
    }
}

/// A machine in maintenance, pinned by its key.
#[derive(Clone, Debug)]
pub struct Maintenance {
    link: Link,
    pin: SpkiPin,
}

/// What a machine in maintenance says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its physical network links.
    pub links: Vec<NetworkLink>,
    /// Its SMBIOS UUID, lower case.
    pub uuid: Option<String>,
    /// What image it booted from.
    pub extensions: Extensions,
    /// Its Talos; before 1.10 maintenance doesn't tell.
    pub version: Option<Version>,
    /// Its disks, with the one it is installed on marked.
    pub disks: Vec<Disk>,
    /// How far it is.
    pub status: Option<MachineStatus>,
}

/// What a machine answered to a config.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// To be shown.
    pub warnings: Vec<String>,
    /// What it did or would do, in its words; may be empty, and with a dry run on a configured machine holds a diff.
    pub details: String,
}

impl Maintenance {
    /// A machine whose key is known from an earlier probe.
    pub fn pinned(connector: &Connector, address: &str, pin: SpkiPin, within: Duration) -> Result<Self, TalosError> {
        let link = Link::new(connector, &Address::parse(address)?, &Trust::Spki(pin), None, within)?;
        Ok(Self { link, pin })
    }

    /// The key it had when it was probed.
    pub fn pin(&self) -> SpkiPin {
        self.pin
    }

    /// Everything the identity check and the canary look at.
    pub async fn facts(&self) -> Result<Facts, TalosError> {
        Ok(Facts {
            links: self.link.network_links().await?,
            uuid: self.link.system_uuid().await?,
            extensions: self.link.extensions().await?,
            version: self.version().await?,
            disks: self.link.disks().await?,
            status: self.link.machine_status().await?,
        })
    }

    /// Its Talos: by resource since 1.10, by call since 1.13, `None` where maintenance tells neither.
    pub async fn version(&self) -> Result<Option<Version>, TalosError> {
        if let Some(version) = self.link.version_resource().await? {
            return Ok(Some(version));
        }
        match self.link.release().await {
            Ok(release) => Ok(Some(release.version)),
            Err(TalosError::Unimplemented { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// How far it is.
    pub async fn status(&self) -> Result<Option<MachineStatus>, TalosError> {
        self.link.machine_status().await
    }

    /// Any resource by type and id.
    pub async fn get(&self, kind: Kind, id: &str) -> Result<Option<Resource>, TalosError> {
        self.link.get(kind, id).await
    }

    /// All resources of a type.
    pub async fn list(&self, kind: Kind) -> Result<Vec<Resource>, TalosError> {
        self.link.list(kind).await
    }

    /// Lets the machine check a config without taking it. [`TalosError::Rejected`] is its verdict on a bad one.
    pub async fn validate(&self, config: &SecretString) -> Result<Applied, TalosError> {
        self.link.apply_config(config, Hand::Check).await
    }

    /// Gives the machine its config. Within seconds it stops answering here and comes back with its cluster's certificate.
    pub async fn apply(&self, config: &SecretString) -> Result<Applied, TalosError> {
        self.link.apply_config(config, Hand::Over).await
    }
}

/// What to do with a config.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Hand {
    /// Only check it.
    Check,
    /// Take it.
    Over,
}

impl Link {
    /// Always with mode AUTO: the protocol's default is REBOOT, which 1.14 refuses.
    pub(super) async fn apply_config(&self, config: &SecretString, hand: Hand) -> Result<Applied, TalosError> {
        let call = "ApplyConfiguration";
        let request = ApplyConfigurationRequest {
            data: config.expose_secret().as_bytes().to_vec(),
            mode: Mode::Auto.into(),
            dry_run: hand == Hand::Check,
            // Means something with mode TRY only; sent always, as Talos' own client does.
            try_mode_timeout: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
        };
        let answer = match self.answer(call, self.machine().apply_configuration(request)).await {
            Ok(answer) => answer,
            // Maintenance before 1.13 says Unknown to a text it can't read.
            Err(TalosError::Other { address, code: tonic::Code::Unknown, message, .. })
                if message.starts_with("failed to parse config") =>
            {
                return Err(TalosError::Rejected { address, call, reason: message });
            }
            Err(error) => return Err(error),
        };
        let applied = self.only(call, answer.messages)?;
        Ok(Applied { warnings: applied.warnings, details: applied.mode_details })
    }
}
