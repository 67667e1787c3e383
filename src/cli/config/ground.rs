//! What the machines' configurations are made from: the profile, its patches, the secrets, the versions.
//!
//! Only files are read, except where the profile leaves a machine's MAC to Proxmox VE: then its API is asked. Must not
//! know: what becomes of the configurations.

use std::borrow::Cow;
use std::path::PathBuf;

use jiff::Timestamp;

use super::moved::refusal;
use crate::cli::Surroundings;
use crate::cli::args::{Global, Migrate, Target};
use crate::cli::patches::{Patches, removed};
use crate::cli::session::{self, Session};
use crate::cli::stop::Stop;
use crate::exit::ExitCode;
use crate::image::{Arch, Boot, Build, Schematic, installer_name};
use crate::plan::step::{MachineSpec, PatchAt};
use crate::plan::{ClusterConfig, Versions};
use crate::profile::expand::{Taken, WantedVm, expand};
use crate::profile::load::{self, Loaded};
use crate::profile::{self, Profile, Site, SiteNode, Talos};
use crate::pve::vm::{Guest, VmRef};
use crate::steps::config;
use crate::talos::config::migrate::{Finding, Image, Subjects, Weight, findings, translate};
use crate::talos::config::{Contract, Patch, Rendered};
use crate::talos::secrets::Secrets;
use crate::types::{Mac, MachineName, Role, SchematicId, Sha256, Version, VersionWish};

/// What becomes of keys that moved to documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum OldKeys {
    /// The patches that have them are refused.
    Refuse,
    /// They are written as those documents.
    Translate,
}

impl From<Migrate> for OldKeys {
    fn from(asked: Migrate) -> Self {
        if asked.migrate { Self::Translate } else { Self::Refuse }
    }
}

/// A profile's configurations before they are made.
pub(in crate::cli) struct Ground {
    pub(in crate::cli) profile: Loaded<Profile>,
    pub(in crate::cli) path: PathBuf,
    pub(in crate::cli) site: Site,
    pub(in crate::cli) secrets: Secrets,
    pub(in crate::cli) versions: Versions,
    config: ClusterConfig,
    rows: Vec<WantedVm>,
}

/// A machine with its patches.
pub(in crate::cli) struct Source {
    pub(in crate::cli) spec: MachineSpec,
    pub(in crate::cli) patches: Vec<Patch>,
    pub(in crate::cli) address: Option<std::net::IpAddr>,
}

impl Ground {
    pub(in crate::cli) fn read(global: &Global, target: &Target, now: Timestamp) -> Result<Self, Stop> {
        let (path, profile) = session::profile(global)?;
        let folder = session::parent(&path);
        let named = global.site.clone().or_else(|| profile.value.site.as_ref().map(|site| folder.join(site)));
        let site_path = named.clone().unwrap_or_else(|| folder.join("site.yaml"));
        // Without a site its defaults are: a configuration hangs on few of them.
        let there = named.is_some() || site_path.exists();
        let mut site = if there { load::site_file(&site_path)?.value } else { session::bare_site() };
        if !there {
            // Where VMs are placed doesn't matter here: the nodes are those that the profile names.
            for (_, _, group) in profile.value.nodes.iter() {
                for name in group.assignments.iter().filter_map(|assignment| assignment.node.clone()) {
                    site.nodes.push(SiteNode { name, api: None, fingerprint: None, ssh: None });
                }
            }
        }
        let talos = session::talos(&profile.value)?;
        let secrets = session::secrets_of(talos, &folder, now)?;
        let either = |asked: &Option<Version>, own: &VersionWish, key: &str| match asked {
            Some(version) => Ok(version.clone()),
            None => exact(own, key),
        };
        let versions = Versions {
            talos: either(&target.to, &talos.version, "talos.version")?,
            kubernetes: either(&target.kubernetes, &talos.kubernetes_version, "talos.kubernetes_version")?,
        };
        let endpoint = profile.value.network.api_endpoint.as_ref();
        let endpoint =
            endpoint.ok_or_else(|| Stop::new(ExitCode::Invalid, "the profile has no network.api_endpoint"))?;
        let (schematic, installer) = installer(&talos.factory, talos, &site, &versions.talos)?;
        let config = ClusterConfig {
            endpoint: endpoint.url(),
            pod_cidr: profile.value.network.pod_cidr.to_string(),
            service_cidr: profile.value.network.service_cidr.to_string(),
            install_disk: talos.install_disk.clone(),
            schematic,
            installer,
            mtu: profile.value.network.mtu,
            vip: talos.vip.as_ref().map(|vip| vip.ip),
        };
        let rows = expand(&profile.value, &site, &Taken::default())?;
        Ok(Self { profile, path, site, secrets, versions, config, rows })
    }

    pub(in crate::cli) fn talos(&self) -> Result<&Talos, Stop> {
        session::talos(&self.profile.value)
    }

    pub(in crate::cli) fn contract(&self) -> Result<Contract, Stop> {
        Contract::of(&self.versions.talos)
            .map_err(|error| Stop::because(ExitCode::Invalid, "there are no configurations for this Talos", &error))
    }

    /// The machines with their patches; every patch that can't be read is told.
    pub(in crate::cli) async fn machines(
        &self,
        global: &Global,
        surroundings: &Surroundings,
    ) -> Result<Vec<Source>, Stop> {
        let talos = self.talos()?;
        let folder = session::parent(&self.path);
        let files = Patches { talos, profile: &self.path, folder: &folder };
        for stray in files.stray(self.rows.iter().map(|row| (row.name.as_str(), row.role)))? {
            surroundings.console.tell(&format!("warning: no machine takes the patch {}\n", stray.display()));
        }
        let mut asked = None;
        let mut sources = Vec::new();
        let mut stop: Option<Stop> = None;
        for row in &self.rows {
            let at: Vec<PatchAt> = files.shared(row.role).into_iter().chain(files.own(row.name.as_str())).collect();
            let mut patches = Vec::new();
            for patch in &at {
                match config::patch(patch) {
                    Ok(patch) => patches.push(patch),
                    Err(error) => add(&mut stop, Stop::because(ExitCode::Invalid, "a patch can't be used", &error)),
                }
            }
            let mac = match row.mac {
                Some(mac) => mac,
                // Their own patches say which link they mean.
                None if patches.iter().any(Patch::sets_links) => Mac([0; 6]),
                None => {
                    if asked.is_none() {
                        asked = Some(Session::open(&surroundings.place, global)?);
                    }
                    self.mac(asked.as_ref(), row).await?
                }
            };
            let network = &self.profile.value.network;
            let prefix = network.prefix.or_else(|| network.subnet().map(|subnet| subnet.prefix_len()));
            let address = row.address.zip(prefix).map(|(address, prefix)| format!("{address}/{prefix}"));
            let spec = MachineSpec {
                name: row.name.clone(),
                role: row.role,
                mac,
                gateway: address.as_ref().and(network.gateway),
                nameservers: network.nameservers.clone(),
                address,
                installer: self.own_installer(row.role)?,
                patches: at,
                whole: None,
                digest: Sha256::of(b""),
            };
            sources.push(Source { spec, patches, address: row.address });
        }
        stop.map_or(Ok(sources), Err)
    }

    /// The MAC of the VM that has the machine's name now.
    async fn mac(&self, session: Option<&Session>, row: &WantedVm) -> Result<Mac, Stop> {
        let unknown = || {
            Stop::new(ExitCode::Invalid, format!("the MAC of {} is not known", row.name))
                .hinted("give it in the profile (nodes.<group>.assignments[].mac), or a patch that sets up its links")
        };
        let session = session.ok_or_else(unknown)?;
        let vm = self.vm(session, &row.name).await?.ok_or_else(unknown)?;
        let config = session.pve.vm_config(&vm).await.map_err(|error| crate::cli::prepare::unreachable(&error))?;
        config.nics().get("net0").and_then(|nic| nic.mac).ok_or_else(unknown)
    }

    /// The VM that has a machine's name now.
    pub(super) async fn vm(&self, session: &Session, name: &MachineName) -> Result<Option<VmRef>, Stop> {
        let guests = session.pve.guests().await.map_err(|error| crate::cli::prepare::unreachable(&error))?;
        let is_it = |guest: &&Guest| guest.name.as_deref() == Some(name.as_str()) && guest.template != Some(true);
        Ok(guests.iter().find(is_it).map(|guest| VmRef { node: guest.node.clone(), vmid: guest.vmid }))
    }

    fn own_installer(&self, role: Role) -> Result<Option<String>, Stop> {
        Ok(self.own_image(role)?.map(|(_, installer)| installer))
    }

    /// The schematic and the installer of a role's machines, where their group has its own.
    fn own_image(&self, role: Role) -> Result<Option<(SchematicId, String)>, Stop> {
        let talos = self.talos()?;
        let group = self.profile.value.nodes.iter().find(|(of, ..)| *of == role).map(|(_, _, group)| group);
        let own = group.and_then(|group| group.factory.as_ref()).filter(|own| **own != talos.factory);
        own.map(|own| installer(own, talos, &self.site, &self.versions.talos)).transpose()
    }

    /// What the images of a role's machines are made from.
    pub(super) fn schematic(&self, role: Role) -> Result<SchematicId, Stop> {
        Ok(self.own_image(role)?.map_or_else(|| self.config.schematic.clone(), |(schematic, _)| schematic))
    }

    /// The Talos version that the profile says runs.
    pub(super) fn own_version(&self) -> Option<Version> {
        match &self.talos().ok()?.version {
            VersionWish::Exact(version) => Some(version.clone()),
            VersionWish::Minor(..) | VersionWish::Latest => None,
        }
    }

    /// A machine's patches, as they are or with old keys translated.
    pub(super) fn patches<'a>(&self, source: &'a Source, old: OldKeys) -> Result<Cow<'a, [Patch]>, Stop> {
        if old == OldKeys::Refuse {
            return Ok(Cow::Borrowed(&source.patches));
        }
        let (contract, role) = (self.contract()?, source.spec.role);
        Ok(translate(&source.patches, contract, role).into())
    }

    /// One machine's configuration.
    pub(in crate::cli) fn render(&self, source: &Source, old: OldKeys) -> Result<Rendered, Stop> {
        let patches = self.patches(source, old)?;
        let mut broken = self.findings(None, &patches);
        broken.retain(|found| found.weight == Weight::Breaks);
        broken.extend(removed(patches.iter(), &self.versions.kubernetes, source.spec.role));
        let target = (self.contract()?, &source.spec);
        if let Some(stop) = refusal(broken, &patches, target, (&self.secrets, old)) {
            return Err(stop);
        }
        let name = &self.profile.value.name;
        config::render_with(&self.secrets, name, &self.config, &self.versions, &source.spec, &patches).map_err(
            |error| {
                let what = format!("the configuration of {} can't be rendered", source.spec.name);
                Stop::because(ExitCode::Invalid, what, &error)
            },
        )
    }

    /// What the version means for patches.
    pub(in crate::cli) fn findings(&self, running: Option<&Version>, patches: &[Patch]) -> Vec<Finding> {
        self.findings_with(running, patches, Image::Unknown)
    }

    /// What the version and the image mean for patches.
    pub(super) fn findings_with(&self, running: Option<&Version>, patches: &[Patch], image: Image) -> Vec<Finding> {
        let patches: Vec<&Patch> = patches.iter().collect();
        let subjects = Subjects { patches: &patches, nocloud: true, image, ..Subjects::default() };
        findings(running, &self.versions.talos, &subjects)
    }
}

pub(in crate::cli) fn add(stop: &mut Option<Stop>, more: Stop) {
    match stop {
        Some(stop) => stop.problems.extend(more.problems),
        None => *stop = Some(more),
    }
}

fn exact(wish: &VersionWish, key: &str) -> Result<Version, Stop> {
    match wish {
        VersionWish::Exact(version) => Ok(version.clone()),
        other => Err(Stop::new(ExitCode::Invalid, format!("{key} is {other}, which is not one version"))
            .hinted("a configuration names exact images: write the patch too, as in 1.13.9")),
    }
}

/// The schematic and the installer of what a factory section says, both computed here.
fn installer(
    own: &profile::Factory,
    talos: &Talos,
    site: &Site,
    version: &Version,
) -> Result<(SchematicId, String), Stop> {
    let computed = || Schematic::with_extensions(own.extensions.iter().cloned()).id();
    let schematic = match &own.schematic_id {
        Some(id) => id.clone(),
        None => computed()
            .map_err(|error| Stop::because(ExitCode::Failed, "the schematic's ID can't be computed", &error))?,
    };
    let arch = match own.arch {
        profile::Arch::Amd64 => Arch::Amd64,
        profile::Arch::Arm64 => Arch::Arm64,
    };
    let boot = if own.secureboot { Boot::Secure } else { Boot::Plain };
    let build = Build { schematic: schematic.clone(), version: version.clone(), arch, boot };
    let url = own.url.as_ref().or(talos.factory.url.as_ref()).unwrap_or(&site.factory.url);
    let host = url.split_once("://").map_or(url.as_str(), |(_, host)| host).trim_end_matches('/');
    let registry = site.factory.registry.as_deref().unwrap_or(host);
    Ok((schematic, format!("{registry}/{}:{}", installer_name(&build), version.tag())))
}
