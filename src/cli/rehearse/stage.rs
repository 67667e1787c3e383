//! Everything that is ready before the double starts.
//!
//! Purpose: reads the originals once, copies them, takes loopback networks, makes secrets, and decides the seed. No
//! socket is opened. Must not know: how the double is run. Start reading at [`Stage::set`].

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use mock_pve::scenario::{Scenario, ScenarioError};
use mock_pve::world::seed::{Seed, SeedError};

use super::addresses::{AddressError, Addresses};
use super::onto::{self, onto};
use super::place::Place;
use super::private::{Private, PrivateError, SITE};
use super::releases;
use super::seed::{Cluster, Contents, Plot, seed};
use super::subnet::Subnet;
use crate::profile::load::{self, Loaded};
use crate::profile::problem::Problems;
use crate::profile::{Dial, Kind, Profile, Site, Taken, expand};
use crate::talos::config::Contract;
use crate::talos::secrets::{Secrets, SecretsError};
use crate::types::{Malformed, Version};

/// What is to be rehearsed.
#[derive(Clone, Debug)]
pub struct Order {
    /// The real profile.
    pub profile: PathBuf,
    /// The real site; without it the one that the profile names or that lies beside it, if there is one.
    pub site: Option<PathBuf>,
    /// Whether the cluster runs when the rehearsal begins.
    pub contents: Contents,
    /// Talos versions that the rehearsed verb asks for by number.
    pub asked: Vec<Version>,
    /// How much faster than life the double's delays pass.
    pub time_scale: f64,
    /// Where the double's randomness starts.
    pub rng_seed: u64,
    /// What goes wrong and happens meanwhile.
    pub scenario: Option<PathBuf>,
    /// The site that it begins in, as `recast inventory` wrote it down.
    pub inventory: Option<PathBuf>,
}

/// Why a rehearsal can't begin.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// Profile or site are wrong, as they would be in life.
    #[error("profile or site can't be used")]
    Files(Problems),
    /// Time can't pass like this.
    #[error("the time scale {0} is not a number above zero")]
    TimeScale(f64),
    /// The profile's addresses can't be mapped.
    #[error("the profile's addresses can't be rehearsed")]
    Addresses(#[from] AddressError),
    /// No configuration can be made for the version that the profile says runs.
    #[error("the profile's Talos can't be rehearsed")]
    Version(#[from] Malformed),
    /// A schematic that only a factory can name.
    #[error("the profile's extensions make a schematic whose ID only a factory knows")]
    Schematic,
    /// There is no free loopback network.
    #[error("no loopback network could be taken")]
    Loopback(#[source] std::io::Error),
    /// The private folder can't be made.
    #[error("the private folder can't be made")]
    Private(#[from] PrivateError),
    /// The scenario is wrong.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    /// The inventory is wrong.
    #[error(transparent)]
    Inventory(#[from] SeedError),
    /// No secrets could be made.
    #[error("throw-away secrets can't be made")]
    Secrets(#[from] SecretsError),
}

/// All that the double is started with, and what must stay while it runs.
#[derive(Debug)]
pub struct Stage {
    /// The private folder.
    pub private: Private,
    /// What is known of the place.
    pub place: Place,
    /// The double's world.
    pub seed: Seed,
    /// What goes wrong and happens meanwhile.
    pub scenario: Option<Scenario>,
    /// Where the profile's addresses are dialled.
    pub dial: Vec<Dial>,
    /// The loopback networks, held.
    pub networks: Vec<Subnet>,
    /// Whether the profile names an Image Factory of its own.
    pub own_factory: bool,
    /// What is different from life and should be known.
    pub notices: Vec<String>,
    /// The cluster's Kubernetes API and its throw-away secrets, when the profile has a cluster and it runs.
    pub running: Option<(String, Secrets)>,
}

impl Stage {
    /// Prepares `order`. Takes a second or so for the secrets' RSA key: not for an async thread.
    pub fn set(order: &Order, now: Timestamp) -> Result<Self, StageError> {
        if !(order.time_scale.is_finite() && order.time_scale > 0.0) {
            return Err(StageError::TimeScale(order.time_scale));
        }
        // What is wrong with a file is said before anything is made.
        let scenario = order.scenario.as_deref().map(Scenario::load).transpose()?;
        let inventory = order.inventory.as_deref().map(Seed::load).transpose()?;
        let loaded = load::profile_file(&order.profile).map_err(StageError::Files)?;
        let profile = &loaded.value;
        let place = Place::of(site(order, profile)?.as_ref(), profile);
        let vms =
            expand(profile, &place.site(), &Taken::default()).map_err(|found| StageError::Files(Problems(found)))?;
        let addresses = Addresses::choose(profile, &vms)?;
        let private = Private::of(profile, &order.profile, loaded.source.text(), order.time_scale)?;
        // The rehearsal has a site of its own: that the real one stays behind needn't be said.
        let site = site_path(order, profile);
        let mut notices: Vec<String> = private
            .left_out()
            .iter()
            .filter(|path| path.canonicalize().ok() != site.canonicalize().ok())
            .map(|path| format!("{} holds secrets and is left out of the rehearsal", path.display()))
            .collect();
        let networks = loopback(&addresses, order.rng_seed)?;
        let dial: Vec<Dial> = addresses
            .mapped
            .iter()
            .zip(&networks)
            .map(|(from, to)| Dial { from: (*from).into(), to: to.net().into() })
            .collect();
        adapt(&private, &loaded, &addresses, &mut notices)?;
        let talos = profile.talos.as_ref().filter(|_| profile.kind == Kind::Talos);
        let known = talos.map(|talos| {
            let versions = releases::current(talos);
            let schematic = releases::schematic(talos, private.lock()).ok_or(StageError::Schematic)?;
            let mut more = order.asked.clone();
            more.push(versions.talos.clone());
            Ok::<_, StageError>((talos, versions, schematic, releases::offered(&more)))
        });
        let known = known.transpose()?;
        let mut made = None;
        if let Some((_, versions, schematic, _)) = &known {
            let secrets = Secrets::generate(Contract::of(&versions.talos)?, now)?;
            private.write_secrets(&secrets.to_yaml())?;
            made = Some(secrets);
            if schematic.yaml.is_none() {
                notices.push(format!(
                    "what is in schematic {} is written down nowhere, so the rehearsal's factory doesn't have it: \
                     list its extensions in talos.factory.extensions",
                    schematic.id
                ));
            }
        }
        let cluster = known.as_ref().zip(private.secrets()).zip(profile.network.api_endpoint.as_ref()).map(
            |(((talos, versions, schematic, releases), secrets_file), endpoint)| {
                let host = addresses.endpoint.map_or_else(|| endpoint.host.clone(), |address| address.to_string());
                let endpoint = format!("https://{host}:{}", endpoint.port);
                Cluster { talos, versions, schematic, releases, secrets_file, endpoint }
            },
        );
        let contents = order.contents;
        let endpoint = cluster.as_ref().map(|cluster| cluster.endpoint.clone());
        let running = endpoint.zip(made).filter(|_| contents == Contents::Running);
        let plot = Plot { profile, place: &place, vms: &vms, addresses: &addresses, dial: &dial, cluster, contents };
        let mut seed = seed(&plot);
        if let Some(site) = inventory {
            let vmids = vms.iter().map(|vm| vm.vmid.0).collect();
            let names = vms.iter().map(|vm| vm.name.to_string()).collect();
            seed = onto(site, seed, &onto::Cluster { vmids, names, contents }, &mut notices);
        }
        let own_factory = talos.is_some_and(|talos| talos.factory.url.is_some());
        Ok(Self { private, place, seed, scenario, dial, networks, own_factory, notices, running })
    }
}

/// The real site, if there is one. Only its names, defaults and ranges are looked at.
fn site(order: &Order, profile: &Profile) -> Result<Option<Site>, StageError> {
    let path = site_path(order, profile);
    if order.site.is_none() && !path.exists() {
        return Ok(None);
    }
    load::site_file(&path).map(|site| Some(site.value)).map_err(StageError::Files)
}

/// The site file that is named, or that lies beside the profile.
fn site_path(order: &Order, profile: &Profile) -> PathBuf {
    let folder = order.profile.parent().unwrap_or(Path::new(""));
    let named = order.site.clone();
    named.unwrap_or_else(|| folder.join(profile.site.as_deref().unwrap_or(Path::new(SITE))))
}

/// One loopback network for each that the machines are in.
fn loopback(addresses: &Addresses, rng_seed: u64) -> Result<Vec<Subnet>, StageError> {
    // Neighbouring seeds begin apart, so that rehearsals side by side seldom ask for the same network.
    let [.., a, b, c, d] = rng_seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes();
    let start = u32::from_le_bytes([a, b, c, d]);
    let dir = std::env::temp_dir();
    addresses.mapped.iter().map(|_| Subnet::take(&dir, start).map_err(StageError::Loopback)).collect()
}

/// What the copy of the profile must say otherwise.
fn adapt(
    private: &Private,
    loaded: &Loaded<Profile>,
    addresses: &Addresses,
    notices: &mut Vec<String>,
) -> Result<(), StageError> {
    let profile = &loaded.value;
    if profile.site.is_some() {
        private.edit(&[("site", SITE)])?;
    }
    if let (Some(endpoint), Some(address)) = (&profile.network.api_endpoint, addresses.endpoint)
        && endpoint.host != address.to_string()
    {
        private.edit(&[("network.api_endpoint", &format!("{address}:{}", endpoint.port))])?;
        notices.push(format!("{} is not looked up in a rehearsal: {address} stands for it", endpoint.host));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The profile in a folder of its own, and without a site.
    fn stage(path: &str, contents: Contents) -> Stage {
        let original = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        let order = Order {
            profile: original,
            site: None,
            contents,
            asked: vec!["1.13.12".parse().unwrap()],
            time_scale: 20.0,
            rng_seed: 1,
            scenario: None,
            inventory: None,
        };
        Stage::set(&order, Timestamp::now()).unwrap_or_else(|error| panic!("{path}: {error}: {:?}", &error))
    }

    fn config<'a>(stage: &'a Stage, vmid: u32, key: &str) -> &'a str {
        let vm = stage.seed.vms.iter().find(|vm| vm.vmid == vmid).unwrap();
        vm.config[key].as_str().unwrap()
    }

    /// A seed that is written and read again is accepted, since `mock-pve --seed` may get it.
    fn again(seed: &Seed) -> Seed {
        serde_json::from_value(serde_json::to_value(seed).unwrap()).unwrap()
    }

    #[test]
    fn a_single_machine_is_seeded_as_its_profile_says() {
        let stage = stage("profiles/single.yaml", Contents::Running);
        let seed = again(&stage.seed);
        let vms: Vec<(u32, Option<&str>)> = seed.vms.iter().map(|vm| (vm.vmid, vm.status.as_deref())).collect();
        assert_eq!(vms, [(101, None), (1100, Some("running"))]);
        assert_eq!(config(&stage, 101, "tags"), "talos;template");
        assert_eq!(config(&stage, 1100, "tags"), "controlplane;single;talos");
        assert_eq!(config(&stage, 1100, "scsi0"), "local-lvm:vm-1100-disk-1,discard=on,iothread=1,size=32G,ssd=1");
        assert!(config(&stage, 1100, "net0").starts_with("virtio=BC:24:11:"));
        let cluster = &seed.clusters[0];
        assert_eq!((cluster.talos.as_str(), cluster.kubernetes.as_str()), ("1.12.4", "1.34.1"));
        assert_eq!(cluster.endpoint, "https://192.168.178.41:6443");
        assert!(cluster.secrets_file.starts_with(stage.private.root()) && cluster.secrets_file.is_file());
        assert_eq!(seed.machines[0].address.to_string(), "192.168.178.41/24");
        assert_eq!(seed.dial[0].from.to_string(), "192.168.178.0/24");
        assert!(seed.dial[0].to.to_string().starts_with("127."));
        assert!(seed.factory.talos_versions.iter().any(|version| version == "1.13.12"));
        assert!(seed.factory.schematics[0].contains("siderolabs/qemu-guest-agent"));
        assert_eq!(stage.notices, Vec::<String>::new());
        let text = std::fs::read_to_string(&cluster.secrets_file).unwrap();
        Secrets::load(&text, Timestamp::now()).unwrap();
    }

    #[test]
    fn three_nodes_are_seeded_with_the_macs_that_are_given() {
        let stage = stage("tests/fixtures/profiles/full.yaml", Contents::Running);
        let seed = again(&stage.seed);
        let vms: Vec<(u32, Option<&str>)> = seed.vms.iter().map(|vm| (vm.vmid, vm.node.as_deref())).collect();
        let nodes = [Some("pve1"), Some("pve2"), Some("pve3")];
        let on = |vmid: u32, node: usize| (vmid, nodes[node - 1]);
        assert_eq!(vms, [on(104, 1), on(1200, 1), on(1201, 2), on(1202, 3), on(1210, 1), on(1211, 3)]);
        assert!(config(&stage, 1201, "net0").starts_with("virtio=BC:24:11:00:12:01,bridge=vmbr0"));
        assert_eq!(seed.machines.len(), 5);
        assert_eq!(seed.nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>(), ["pve1", "pve2", "pve3"]);
        let [first, last] = seed.networks[0].dhcp.unwrap();
        for machine in &seed.machines {
            assert!(!(first..=last).contains(&machine.address.addr()), "{}", machine.name);
        }
    }

    #[test]
    fn a_profile_that_leaves_everything_open_is_seeded_too() {
        let spread = stage("tests/fixtures/profiles/spread.yaml", Contents::Running);
        assert_eq!((spread.seed.machines.len(), spread.seed.clusters[0].talos.as_str()), (7, "1.9.0"));
        assert!(spread.notices[0].starts_with("k8s.example.org is not looked up"), "{:?}", spread.notices);
        let copy = load::profile_file(spread.private.profile()).unwrap().value;
        assert!(copy.network.api_endpoint.unwrap().host.starts_with("192.0.2."));
        let generic = stage("tests/fixtures/profiles/generic.yaml", Contents::Running);
        assert_eq!((generic.seed.vms.len(), generic.seed.clusters.len(), generic.private.secrets()), (3, 0, None));
    }

    #[test]
    fn for_a_verb_that_creates_there_is_only_the_template() {
        let seed = stage("profiles/single.yaml", Contents::TemplateOnly).seed;
        assert_eq!((seed.vms.len(), seed.clusters.len(), seed.machines.len()), (1, 0, 0));
        assert_eq!(seed.vms[0].vmid, 101);
    }
}
