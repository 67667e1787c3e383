//! Clusters that run already when the world begins.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io;
use std::path::PathBuf;

use base64::Engine as _;
use serde::Deserialize;
use serde_json::json;

use super::config::{ConfigError, NodeConfig};
use super::versions::Version;
use crate::disk::{self, DiskError, Keep, NotAvailable, Recipe, Schematic, Signing};
use crate::etcd::{Ephemeral, KeptError, Member, Replica, Store};
use crate::world::World;
use crate::world::cluster::kubelet::Place;
use crate::world::cluster::leases;
use crate::world::cluster::manifests::Ingredients;
use crate::world::cluster::objects::{self, NodeFacts, Readiness};
use crate::world::cluster::workloads;
use crate::world::seed::{ClusterSeed, MachineRole, MachineSeed};

/// Why a seeded cluster can't be made.
#[derive(Debug, thiserror::Error)]
pub enum SeedingError {
    /// The seed names something that isn't there.
    #[error("the seed can't be used: {0}")]
    Seed(String),
    /// The secrets can't be read.
    #[error("the secrets {path} can't be read")]
    Secrets {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The secrets aren't what `talosctl gen secrets` writes.
    #[error("the secrets {path} are malformed: {why}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where and what.
        why: String,
    },
    /// A disk can't be made.
    #[error("the disk of a seeded machine can't be made")]
    Disk(#[from] DiskError),
    /// The schematic's extensions don't exist for the version.
    #[error(transparent)]
    Extension(#[from] NotAvailable),
    /// The configuration that follows from the seed is refused by its own Talos.
    #[error("a seeded machine's configuration is refused")]
    Config(#[from] ConfigError),
    /// etcd's data can't be written.
    #[error("a seeded cluster's etcd can't be made")]
    Etcd(#[from] KeptError),
}

#[derive(Deserialize)]
struct Secrets {
    cluster: Cluster,
    #[serde(rename = "secrets")]
    tokens: Tokens,
    trustdinfo: Trustd,
    certs: Certs,
}

#[derive(Deserialize)]
struct Cluster {
    id: String,
    secret: String,
}

#[derive(Deserialize)]
struct Tokens {
    bootstraptoken: String,
    secretboxencryptionsecret: Option<String>,
    aescbcencryptionsecret: Option<String>,
}

#[derive(Deserialize)]
struct Trustd {
    token: String,
}

#[derive(Deserialize)]
struct Certs {
    etcd: Pair,
    k8s: Pair,
    k8saggregator: Pair,
    k8sserviceaccount: KeyOnly,
    os: Pair,
}

#[derive(Deserialize)]
struct Pair {
    crt: String,
    key: String,
}

#[derive(Deserialize)]
struct KeyOnly {
    key: String,
}

/// Fills the disks of all seeded machines; the VMs whose machines are up already.
pub(super) fn seed(world: &World) -> Result<Vec<u32>, SeedingError> {
    let seed = world.seed();
    let mut warm = Vec::new();
    for cluster in &seed.clusters {
        let secrets = read_secrets(cluster)?;
        let machines: Vec<&MachineSeed> =
            seed.machines.iter().filter(|machine| machine.cluster == cluster.name).collect();
        let recipe = recipe(cluster, &seed.factory.schematics)?;
        let mut disks = BTreeMap::new();
        for machine in &machines {
            let boot = world.boot(machine.vmid);
            let disk = boot.and_then(|boot| boot.disk).ok_or_else(|| {
                SeedingError::Seed(format!("machine {} has no VM {} with a disk", machine.name, machine.vmid))
            })?;
            if !disk::is_partitioned(&disk) {
                fill(&disk, &recipe)?;
                let text = config(cluster, machine, &secrets, world);
                NodeConfig::parse(text.as_bytes(), Version::of(&recipe.version))?;
                disk::store(&disk, Keep::Config, text.as_bytes())?;
                disks.insert(machine.vmid, (*machine, disk));
            }
            warm.push(machine.vmid);
        }
        if disks.len() == machines.len() {
            etcd(cluster, &disks, &secrets, world)?;
        }
    }
    Ok(warm)
}

fn read_secrets(cluster: &ClusterSeed) -> Result<Secrets, SeedingError> {
    let path = &cluster.secrets_file;
    let text = std::fs::read_to_string(path).map_err(|source| SeedingError::Secrets { path: path.clone(), source })?;
    serde_saphyr::from_str(&text).map_err(|error| SeedingError::Malformed {
        path: path.clone(),
        // Only the first line: the rest quotes the file.
        why: error.to_string().lines().next().unwrap_or_default().to_owned(),
    })
}

/// What the machines booted: the schematic if it is known, else an image that only says which one it is.
fn recipe(cluster: &ClusterSeed, known: &[String]) -> Result<Recipe, SeedingError> {
    let version = format!("v{}", cluster.talos.trim_start_matches('v'));
    let common = [
        "",
        "customization: {systemExtensions: {officialExtensions: [siderolabs/qemu-guest-agent]}}",
        "customization: {systemExtensions: {officialExtensions: [siderolabs/iscsi-tools, siderolabs/qemu-guest-agent]}}",
        "customization: {systemExtensions: {officialExtensions: [siderolabs/iscsi-tools, siderolabs/qemu-guest-agent, \
         siderolabs/util-linux-tools]}}",
    ];
    for text in known.iter().map(String::as_str).chain(common) {
        if let Ok(schematic) = Schematic::parse(text)
            && schematic.id() == cluster.schematic
        {
            return Ok(schematic.recipe(&version, Signing::Plain)?);
        }
    }
    Ok(Recipe {
        version,
        schematic: cluster.schematic.clone(),
        extensions: Vec::new(),
        kernel_args: Vec::new(),
        signed: false,
    })
}

/// Puts an image on a VM's disk, which keeps its size.
fn fill(path: &std::path::Path, recipe: &Recipe) -> Result<(), SeedingError> {
    let failed = |source| SeedingError::Disk(DiskError::Io { path: path.to_owned(), source });
    let bytes = std::fs::metadata(path).map_err(failed)?.len();
    disk::build(recipe, path)?;
    let file = OpenOptions::new().write(true).open(path).map_err(failed)?;
    file.set_len(bytes.max(disk::IMAGE_BYTES)).map_err(failed)?;
    Ok(disk::provision(path)?)
}

/// One etcd over all control planes, with what a running cluster holds.
fn etcd(
    cluster: &ClusterSeed,
    disks: &BTreeMap<u32, (&MachineSeed, PathBuf)>,
    secrets: &Secrets,
    world: &World,
) -> Result<(), SeedingError> {
    let chance = || u64::from_str_radix(&world.random_uuid().replace('-', "")[..15], 16).unwrap_or(1);
    let mut members: Vec<(Member, PathBuf)> = Vec::new();
    for (machine, path) in disks.values().filter(|(machine, _)| machine.role == MachineRole::ControlPlane) {
        let (name, address) = (machine.name.clone(), machine.address.addr().to_string());
        members.push((Member { id: chance(), name, address, learner: false }, path.clone()));
    }
    if members.is_empty() {
        return Ok(());
    }
    let mark = {
        use sha2::Digest as _;
        hex::encode(sha2::Sha256::digest(decode(&secrets.certs.etcd.crt)))
    };
    let id = chance();
    let seed = format!("{id:016x}");
    let kubernetes = cluster.kubernetes.trim_start_matches('v');
    let mut store = Store::default();
    let of = Ingredients {
        talos: Version::of(&format!("v{}", cluster.talos.trim_start_matches('v'))).minor,
        proxy: Some(format!("registry.k8s.io/kube-proxy:v{kubernetes}")),
        kubernetes: kubernetes.to_owned(),
        cluster: cluster.name.clone(),
        endpoint: cluster.endpoint.clone(),
        pods: cluster.pod_cidr.map_or_else(|| "10.244.0.0/16".to_owned(), |cidr| cidr.to_string()),
        flannel: true,
        token: secrets.tokens.bootstraptoken.clone(),
    };
    workloads::fill(&mut store, objects::begin(&seed, &of));
    workloads::fill(&mut store, objects::users(&seed));
    for manifest in &cluster.workloads {
        let manifest = serde_json::Value::Object(manifest.clone());
        let object = objects::given(&manifest, &seed).ok_or_else(|| {
            let why = format!("a workload of cluster {} has no apiVersion, kind or metadata.name", cluster.name);
            SeedingError::Seed(why)
        })?;
        workloads::fill(&mut store, [object]);
    }
    let mut nodes = Vec::new();
    for (machine, _) in disks.values() {
        let control_plane = machine.role == MachineRole::ControlPlane;
        let facts = NodeFacts {
            name: machine.name.clone(),
            address: machine.address.addr().to_string(),
            control_plane,
            tainted: false,
            talos: format!("v{}", cluster.talos.trim_start_matches('v')),
            kubernetes: kubernetes.to_owned(),
            boot_id: world.random_uuid(),
            // It is told once the machine is on.
            machine_id: String::new(),
            uuid: world.boot(machine.vmid).map(|boot| boot.uuid).unwrap_or_default(),
            cores: 2,
            memory_mib: 4096,
            readiness: Readiness::Ready,
        };
        workloads::fill(&mut store, [objects::node(None, &facts, &seed), leases::node(None, &facts.name, &seed)]);
        if control_plane {
            workloads::fill(&mut store, objects::static_pods(&facts, &seed));
        }
        nodes.push(Place { node: facts.name, address: facts.address, boot_id: facts.boot_id });
    }
    workloads::live(&mut store, &nodes, &seed);
    for number in 0..cluster.keys {
        let name = format!("seeded-{number:04}");
        let object = objects::config_map("default", &name, json!({ "number": number.to_string() }), &seed);
        workloads::fill(&mut store, [(objects::key("configmaps", Some("default"), &name), object)]);
    }
    let all: Vec<Member> = members.iter().map(|(member, _)| member.clone()).collect();
    // As if every revision had been an entry of the log, after those that made the members.
    let at = (store.revision() + 3 * all.len() as u64, 2);
    for (member, path) in &members {
        let disk = Box::new(Ephemeral::on(path)?);
        Replica::seeded(id, mark.clone(), member.id, all.clone(), store.clone(), at, disk)?;
    }
    Ok(())
}

fn decode(text: &str) -> String {
    let bytes = base64::engine::general_purpose::STANDARD.decode(text.trim()).unwrap_or_default();
    String::from_utf8(bytes).unwrap_or_default()
}

/// The configuration that such a machine was once given.
fn config(cluster: &ClusterSeed, machine: &MachineSeed, secrets: &Secrets, world: &World) -> String {
    let control_plane = machine.role == MachineRole::ControlPlane;
    let boot = world.boot(machine.vmid);
    let nic = boot.as_ref().and_then(|boot| boot.nics.first());
    let gateway = nic.and_then(|nic| world.network(&nic.bridge)?.gateway);
    let mac = nic.map(|nic| nic.mac.to_lowercase()).unwrap_or_default();
    let talos = cluster.talos.trim_start_matches('v');
    let kubernetes = cluster.kubernetes.trim_start_matches('v');
    let pods = cluster.pod_cidr.map_or_else(|| "10.244.0.0/16".to_owned(), |cidr| cidr.to_string());
    let services = cluster.service_cidr.map_or_else(|| "10.96.0.0/12".to_owned(), |cidr| cidr.to_string());
    let certs = &secrets.certs;
    let pair = |pair: &Pair| json!({ "crt": pair.crt, "key": if control_plane { pair.key.as_str() } else { "" } });
    let mut interface = json!({
        "deviceSelector": { "hardwareAddr": mac }, "dhcp": false, "addresses": [machine.address.to_string()],
    });
    if let Some(gateway) = gateway {
        interface["routes"] = json!([{ "network": "0.0.0.0/0", "gateway": gateway.to_string() }]);
    }
    let host = cluster.endpoint.trim_start_matches("https://").split(':').next().unwrap_or_default();
    if control_plane
        && let Ok(shared) = host.parse::<std::net::IpAddr>()
        && !world.seed().machines.iter().any(|one| one.address.addr() == shared)
    {
        interface["vip"] = json!({ "ip": host });
    }
    let mut document = json!({
        "version": "v1alpha1",
        "debug": false,
        "persist": true,
        "machine": {
            "type": if control_plane { "controlplane" } else { "worker" },
            "token": secrets.trustdinfo.token,
            "ca": pair(&certs.os),
            "certSANs": [],
            "kubelet": {
                "image": format!("ghcr.io/siderolabs/kubelet:v{kubernetes}"),
                "defaultRuntimeSeccompProfileEnabled": true,
                "disableManifestsDirectory": true,
            },
            "network": { "hostname": machine.name, "interfaces": [interface] },
            "install": {
                "disk": "/dev/sda",
                "image": format!("factory.talos.dev/nocloud-installer/{}:v{talos}", cluster.schematic),
                "wipe": false,
            },
            "features": {
                "diskQuotaSupport": true,
                "kubePrism": { "enabled": true, "port": 7445 },
            },
        },
        "cluster": {
            "id": secrets.cluster.id,
            "secret": secrets.cluster.secret,
            "controlPlane": { "endpoint": cluster.endpoint },
            "clusterName": cluster.name,
            "network": { "dnsDomain": "cluster.local", "podSubnets": [pods], "serviceSubnets": [services] },
            "token": secrets.tokens.bootstraptoken,
            "ca": pair(&certs.k8s),
            "discovery": { "enabled": true, "registries": { "kubernetes": { "disabled": true }, "service": {} } },
        },
    });
    // Older versions refuse what they don't know.
    if Version::of(talos).minor >= 7 {
        document["machine"]["features"]["hostDNS"] = json!({ "enabled": true, "forwardKubeDNSToHost": true });
    }
    if control_plane {
        let part = &mut document["cluster"];
        if let Some(secret) = &secrets.tokens.secretboxencryptionsecret {
            part["secretboxEncryptionSecret"] = json!(secret);
        }
        if let Some(secret) = &secrets.tokens.aescbcencryptionsecret {
            part["aescbcEncryptionSecret"] = json!(secret);
        }
        part["aggregatorCA"] = pair(&certs.k8saggregator);
        part["serviceAccount"] = json!({ "key": certs.k8sserviceaccount.key });
        part["etcd"] = json!({ "ca": pair(&certs.etcd) });
        part["allowSchedulingOnControlPlanes"] = json!(true);
        for (key, name) in [
            ("apiServer", "kube-apiserver"),
            ("controllerManager", "kube-controller-manager"),
            ("scheduler", "kube-scheduler"),
        ] {
            part[key] = json!({ "image": format!("registry.k8s.io/{name}:v{kubernetes}") });
        }
        part["proxy"] = json!({ "image": format!("registry.k8s.io/kube-proxy:v{kubernetes}") });
    }
    serde_saphyr::to_string(&document).unwrap_or_default()
}
