//! A machine of a cluster, over mutual TLS.
//!
//! Purpose: what is asked of one machine at a time: version, services, config, power. etcd's calls are in `etcd`, the
//! health check in `health`. Must not know: the other machines.

use std::fmt;
use std::time::Duration;

use secrecy::SecretString;

use super::cosi::{Kind, Resource};
use super::disks::Disk;
use super::link::{Access, Address, Link};
use super::maintenance::{Applied, Hand};
use super::status::Extensions;
use super::{Download, MachineStatus, TalosError, kubeconfig};
use crate::net::Connector;
use crate::talos::proto::machine::{
    LogsRequest, ReadRequest, RebootRequest, ServiceRestartRequest, ShutdownRequest, reboot_request,
};
use crate::types::Version;

/// Changes with every boot (Documentation/admin-guide/sysctl/kernel.rst).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// No text file or kubeconfig that is read here comes near it.
const TEXT_LIMIT: usize = 4 << 20;

/// What a machine runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// The Talos version.
    pub version: Version,
    /// `amd64` …
    pub arch: String,
    /// `nocloud`, `metal` …
    pub platform: String,
}

/// A service of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// `etcd`, `kubelet`, `ext-qemu-guest-agent` …
    pub id: String,
    /// `Running`, `Waiting`, `Failed` …
    pub state: String,
    /// None for services without a health check.
    pub healthy: Option<bool>,
    /// Its latest message.
    pub message: String,
}

impl Service {
    /// Running, and healthy where that is known.
    pub fn is_up(&self) -> bool {
        self.state == "Running" && self.healthy != Some(false)
    }
}

/// Whether a machine moves its pods away before it goes down. Its services stop gracefully in either case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drain {
    /// Cordons and drains the node first; the cordon is written to etcd.
    First,
    /// Stops its pods where they are.
    Skip,
}

/// How a machine reboots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RebootMode {
    /// By kexec where possible.
    Default,
    /// Through the firmware.
    PowerCycle,
}

/// A machine of a cluster. Clones share the connection, which is made when first used and again when it broke.
#[derive(Clone)]
pub struct Machine {
    pub(super) link: Link,
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine").field("address", &self.link.address).finish_non_exhaustive()
    }
}

impl Machine {
    /// The machine at `address` (an IP, a name, either with a port). `patience` bounds each call, and the silence between
    /// two items of a stream. Must be called inside of a tokio runtime; connects with the first call.
    pub fn new(connector: &Connector, address: &str, access: &Access, patience: Duration) -> Result<Self, TalosError> {
        let address = Address::parse(address)?;
        let link = Link::new(connector, &address, &access.trust, Some(access.identity.clone()), patience)?;
        Ok(Self { link })
    }

    /// The same machine over the same connection with another patience.
    #[must_use]
    pub fn waiting(&self, patience: Duration) -> Self {
        Self { link: self.link.waiting(patience) }
    }

    /// Host and port, as asked for.
    pub fn address(&self) -> &str {
        &self.link.address
    }

    /// What it runs. The cheapest call there is, so also the question whether it is there.
    pub async fn release(&self) -> Result<Release, TalosError> {
        self.link.release().await
    }

    /// How far it is; `None` before its first status.
    pub async fn status(&self) -> Result<Option<MachineStatus>, TalosError> {
        self.link.machine_status().await
    }

    /// Its extensions and its schematic.
    pub async fn extensions(&self) -> Result<Extensions, TalosError> {
        self.link.extensions().await
    }

    /// Its SMBIOS UUID, lower case.
    pub async fn system_uuid(&self) -> Result<Option<String>, TalosError> {
        self.link.system_uuid().await
    }

    /// Its disks.
    pub async fn disks(&self) -> Result<Vec<Disk>, TalosError> {
        self.link.disks().await
    }

    /// Any resource by type and id.
    pub async fn get(&self, kind: Kind, id: &str) -> Result<Option<Resource>, TalosError> {
        self.link.get(kind, id).await
    }

    /// All resources of a type.
    pub async fn list(&self, kind: Kind) -> Result<Vec<Resource>, TalosError> {
        self.link.list(kind).await
    }

    /// The config in force, all its documents; `None` when it has none.
    pub async fn config(&self) -> Result<Option<SecretString>, TalosError> {
        self.link.get(Kind::MACHINE_CONFIG, "v1alpha1").await?.map(Resource::into_config).transpose()
    }

    /// Lets the machine check a config without taking it.
    pub async fn validate(&self, config: &SecretString) -> Result<Applied, TalosError> {
        self.link.apply_config(config, Hand::Check).await
    }

    /// Gives the machine another config, with a reboot only where it needs one.
    pub async fn apply(&self, config: &SecretString) -> Result<Applied, TalosError> {
        self.link.apply_config(config, Hand::Over).await
    }

    /// Its host name.
    pub async fn hostname(&self) -> Result<String, TalosError> {
        let call = "Hostname";
        let answer = self.link.answer(call, self.link.machine().hostname(())).await?;
        Ok(self.link.only(call, answer.messages)?.hostname)
    }

    /// Its services.
    pub async fn services(&self) -> Result<Vec<Service>, TalosError> {
        let call = "ServiceList";
        let answer = self.link.answer(call, self.link.machine().service_list(())).await?;
        let services = self.link.only(call, answer.messages)?.services;
        let to_service = |service: crate::talos::proto::machine::ServiceInfo| {
            let health = service.health.unwrap_or_default();
            let last = service.events.and_then(|events| events.events.into_iter().next_back());
            Service {
                id: service.id,
                state: service.state,
                healthy: if health.unknown { None } else { Some(health.healthy) },
                message: last.map(|event| event.msg).unwrap_or_default(),
            }
        };
        Ok(services.into_iter().map(to_service).collect())
    }

    /// Restarts a service.
    pub async fn restart_service(&self, id: &str) -> Result<(), TalosError> {
        let request = ServiceRestartRequest { id: id.to_owned() };
        self.link.answer("ServiceRestart", self.link.machine().service_restart(request)).await?;
        Ok(())
    }

    /// The last lines of a service's log, for a person.
    pub async fn log(&self, service: &str, lines: i32) -> Result<String, TalosError> {
        let request = LogsRequest {
            namespace: "system".to_owned(),
            id: service.to_owned(),
            driver: 0,
            follow: false,
            tail_lines: lines,
        };
        let log = self.link.download("Logs", self.link.machine().logs(request)).await?.whole(TEXT_LIMIT).await?;
        Ok(String::from_utf8_lossy(&log).into_owned())
    }

    /// The id of its present boot: another one means that it rebooted.
    pub async fn boot_id(&self) -> Result<String, TalosError> {
        let id = self.read(BOOT_ID).await?.whole(TEXT_LIMIT).await?;
        let id = String::from_utf8_lossy(&id).trim().to_owned();
        // An interrupted read ends with OK as well.
        if id.len() == 36 { Ok(id) } else { Err(self.link.answer_is("Read", "a boot id that isn't one")) }
    }

    /// A regular file of the machine, also of etcd's data directory.
    pub async fn read(&self, path: &str) -> Result<Download, TalosError> {
        let request = ReadRequest { path: path.to_owned() };
        self.link.download("Read", self.link.machine().read(request)).await
    }

    /// A new admin kubeconfig. Control planes only; each call mints a certificate.
    pub async fn kubeconfig(&self) -> Result<SecretString, TalosError> {
        let call = "Kubeconfig";
        let packed = self.link.download(call, self.link.machine().kubeconfig(())).await?.whole(TEXT_LIMIT).await?;
        kubeconfig::unpack(&packed).map_err(|what| self.link.answer_is(call, what))
    }

    /// Sets it on its way to power off; the answer comes before anything happens. A control plane stays an etcd member.
    pub async fn shut_down(&self, drain: Drain) -> Result<(), TalosError> {
        let request = ShutdownRequest { force: drain == Drain::Skip };
        self.link.answer("Shutdown", self.link.machine().shutdown(request)).await?;
        Ok(())
    }

    /// Sets it on its way to reboot, without a drain; the answer comes before anything happens. The id of the call, as
    /// events name it.
    pub async fn reboot(&self, mode: RebootMode) -> Result<String, TalosError> {
        let call = "Reboot";
        let mode = match mode {
            RebootMode::Default => reboot_request::Mode::Default,
            RebootMode::PowerCycle => reboot_request::Mode::Powercycle,
        };
        let answer = self.link.answer(call, self.link.machine().reboot(RebootRequest { mode: mode.into() })).await?;
        Ok(self.link.only(call, answer.messages)?.actor_id)
    }
}

impl Link {
    pub(super) async fn release(&self) -> Result<Release, TalosError> {
        let call = "Version";
        let answer = self.answer(call, self.machine().version(())).await?;
        let version = self.only(call, answer.messages)?;
        let info = version.version.ok_or_else(|| self.answer_is(call, "no version"))?;
        Ok(Release {
            version: info.tag.parse().map_err(|_| self.answer_is(call, "a tag that isn't a version"))?,
            arch: info.arch,
            platform: version.platform.unwrap_or_default().name,
        })
    }
}
