//! How a world begins: from a seed, or from a state folder that was used before.
//!
//! Purpose: [`World::new`]. Must not know: what happens later.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::{Map, Value, json};

use super::access::{Access, Acl, Role, Token, User};
use super::clock::Clock;
use super::network::Networks;
use super::property::{Properties, parse_size};
use super::rng::Rng;
use super::seed::{NodeSeed, Seed, VmSeed, VolumeSeed};
use super::state::{Node, Pool, PveVersion, Runtime, State, Storage, Vm, Volume};
use super::volume::parse_name;
use super::{Inner, Settings, World, WorldError, guest, qcow2, roles};

const GIB: f64 = 1_073_741_824.0;

/// The file of the state folder that keeps what the world began with.
pub const SEED: &str = "seed.json";

impl World {
    /// Makes the world of a seed, or goes on with the one that the state folder holds.
    pub fn new(seed: Seed, settings: Settings) -> Result<Self, WorldError> {
        let Settings { dir, time_scale, rng_seed, pve } = settings;
        let folder = |source| WorldError::Folder { path: dir.clone(), source };
        std::fs::create_dir_all(&dir).map_err(folder)?;
        let saved = dir.join("state.json");
        // The seed is kept last, once everything in it was made.
        let resumed = saved.exists() && dir.join(SEED).exists();
        let state = if saved.exists() {
            let text = std::fs::read(&saved).map_err(|source| WorldError::Folder { path: saved.clone(), source })?;
            let mut state: State =
                serde_json::from_slice(&text).map_err(|source| WorldError::Saved { path: saved.clone(), source })?;
            after_power_cut(&mut state);
            state.apply_networks_of_old();
            state
        } else {
            from_seed(&seed, &dir, rng_seed, pve)?
        };
        let reserved: BTreeSet<_> = seed.machines.iter().map(|machine| machine.address.addr()).collect();
        let networks = Networks::new(seed.networks.clone(), seed.dial.clone(), reserved);
        let world = Self(Arc::new(Inner {
            clock: Clock::new(time_scale),
            dir,
            seed,
            state: Mutex::new(state),
            changed: std::sync::atomic::AtomicBool::new(false),
            unsaved: Arc::default(),
            resumed,
            networks: Mutex::new(networks),
            shells: Mutex::default(),
            guests: Mutex::new(BTreeMap::new()),
            power: Mutex::new(Vec::new()),
            flocks: Mutex::new(HashMap::new()),
            dumps: Mutex::new(HashMap::new()),
            made: Mutex::default(),
            rescheduled: tokio::sync::Notify::new(),
            prelaunched: Mutex::default(),
            stops: Mutex::new(HashMap::new()),
            ended: tokio::sync::Notify::new(),
            deeds: Mutex::new(Vec::new()),
            consoles: super::consoles::Consoles::default(),
            etcds: super::cluster::Etcds::default(),
            talos: super::machine::Shared::default(),
            members: tokio::sync::watch::channel(0).0,
            services: Mutex::default(),
            history: Mutex::default(),
            script: std::sync::OnceLock::new(),
            answers: Mutex::default(),
        }));
        world.keep_statistics();
        world.keep_services();
        guest::run(&world);
        world.save().map_err(|source| WorldError::Folder { path: saved, source })?;
        world.keep_saving();
        Ok(world)
    }
}

/// Whatever ran when the folder was left, runs no more.
fn after_power_cut(state: &mut State) {
    for vm in state.vms.values_mut() {
        if let Some(running) = &mut vm.running {
            running.since = 0.0;
        }
    }
    for task in state.tasks.by_upid.values_mut().filter(|task| task.status.is_none()) {
        task.status = Some("unexpected status".to_owned());
        task.endtime = Some(task.starttime);
    }
}

fn from_seed(seed: &Seed, dir: &Path, rng_seed: u64, pve: PveVersion) -> Result<State, WorldError> {
    let mut rng = Rng::new(rng_seed);
    let nodes = seed.all_nodes();
    let standalone = nodes.len() == 1 && seed.cluster_name.is_none();
    let (version, release) = match &seed.emulates {
        Some(emulates) => (emulates.version.clone(), emulates.release.clone()),
        None => match pve {
            PveVersion::V8 => ("8.4.21".to_owned(), "8.4".to_owned()),
            PveVersion::V9 => ("9.1.11".to_owned(), "9.1".to_owned()),
        },
    };
    let pve = if version.starts_with('9') { PveVersion::V9 } else { PveVersion::V8 };
    let local = nodes[0].name.clone();
    let mut state = State {
        pve,
        version,
        release,
        nodes: nodes
            .iter()
            .zip(1_u32..)
            .map(|(node, id)| (node.name.clone(), make_node(node, if standalone { 0 } else { id })))
            .collect(),
        local: local.clone(),
        cluster_name: (!standalone).then(|| seed.cluster_name.clone().unwrap_or_else(|| "pve".to_owned())),
        options: seed.cluster_options.clone(),
        storages: seed
            .storages
            .iter()
            .map(|storage| {
                let capacity = storage.capacity_gib.unwrap_or(500.0).clamp(0.0, 1e9) * GIB;
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped above")]
                let capacity = capacity as u64;
                (
                    storage.storage.clone(),
                    Storage { kind: storage.kind.clone(), options: storage.options.clone(), capacity },
                )
            })
            .collect(),
        volumes: BTreeMap::new(),
        vms: BTreeMap::new(),
        access: make_access(seed, pve, &mut rng),
        pools: seed
            .pools
            .iter()
            .map(|pool| {
                let made = Pool {
                    comment: pool.comment.clone(),
                    vms: pool.vms.iter().copied().collect(),
                    storages: pool.storages.iter().cloned().collect(),
                };
                (pool.poolid.clone(), made)
            })
            .collect(),
        tasks: super::tasks::Tasks::default(),
        ha: seed
            .ha_resources
            .iter()
            .filter_map(|resource| Some((resource.get("sid")?.as_str()?.to_owned(), resource.clone())))
            .collect(),
        ha_groups: BTreeMap::new(),
        replication: seed.replication_jobs.clone(),
        backup: seed.backup_jobs.clone(),
        firewall: seed.firewall.clone(),
        firewalls: BTreeMap::new(),
        sections: BTreeMap::new(),
        rng,
    };
    state.apply_networks();
    for volume in &seed.volumes {
        seed_volume(&mut state, dir, &local, volume)?;
    }
    for vm in &seed.vms {
        seed_vm(&mut state, dir, &local, vm)?;
    }
    Ok(state)
}

fn make_node(node: &NodeSeed, id: u32) -> Node {
    let bridge = json!({
        "iface": "vmbr0", "type": "bridge", "method": "manual", "method6": "manual", "active": 1, "autostart": 1,
        "bridge_ports": "", "bridge_stp": "off", "bridge_fd": "0", "families": ["inet"], "priority": 3,
    });
    let network =
        if node.network.is_empty() { bridge.as_object().cloned().into_iter().collect() } else { node.network.clone() };
    Node {
        id,
        ip: node.ip.map_or_else(|| format!("192.0.2.{}", id.max(1) + 1), |ip| ip.to_string()),
        cpus: node.cpus.unwrap_or(16),
        memory: node.memory_mb.unwrap_or(65_536) << 20,
        network,
        network_new: None,
        fingerprint: String::new(),
        outage: None,
    }
}

fn make_access(seed: &Seed, pve: PveVersion, rng: &mut Rng) -> Access {
    let secret = |given: Option<&String>, made_up: &mut dyn FnMut() -> String| -> String {
        let Some(given) = given else { return made_up() };
        let named = given.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
        if !named {
            return given.clone();
        }
        let value = seed.secrets.get(given).cloned().or_else(|| std::env::var(given).ok());
        // The conformance tool takes both the secret alone and USER@REALM!ID=SECRET.
        value.map_or_else(made_up, |value| match value.split_once('=') {
            Some((id, secret)) if id.contains('!') => secret.to_owned(),
            _ => value,
        })
    };
    let mut roles: BTreeMap<String, Role> = BTreeMap::new();
    let builtin = if seed.builtin_roles.is_empty() { roles::builtin(pve) } else { seed.builtin_roles.clone() };
    for (source, special) in [(&builtin, true), (&seed.roles, false)] {
        for (name, privs) in source {
            let privs = privs
                .iter()
                .filter(|name| !name.is_empty() && (special || roles::exists(pve, name)))
                .cloned()
                .collect();
            roles.insert(name.clone(), Role { special, privs });
        }
    }
    let users = seed
        .users
        .iter()
        .map(|user| {
            let made = User {
                enable: user.enable != Some(0),
                expire: user.expire,
                details: user.comment.iter().map(|comment| ("comment".to_owned(), comment.clone())).collect(),
                password: user.password.as_ref().map(|given| secret(Some(given), &mut || rng.uuid())),
                groups: user.groups.iter().cloned().collect(),
                tokens: user
                    .tokens
                    .iter()
                    .map(|token| {
                        let made = Token {
                            privsep: token.privsep != Some(0),
                            expire: token.expire,
                            comment: token.comment.clone(),
                            secret: secret(token.secret.as_ref(), &mut || rng.uuid()),
                        };
                        (token.tokenid.clone(), made)
                    })
                    .collect(),
            };
            (user.userid.clone(), made)
        })
        .collect();
    let mut realms: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    for realm in &seed.realms {
        let mut options = Map::new();
        options.insert("type".to_owned(), json!(realm.kind));
        if let Some(comment) = &realm.comment {
            options.insert("comment".to_owned(), json!(comment));
        }
        realms.insert(realm.realm.clone(), options);
    }
    for (realm, comment) in [("pam", "Linux PAM standard authentication"), ("pve", "Proxmox VE authentication server")]
    {
        realms
            .entry(realm.to_owned())
            .or_insert_with(|| json!({"type": realm, "comment": comment}).as_object().cloned().unwrap_or_default());
    }
    Access {
        realms,
        users,
        groups: seed.groups.iter().map(|group| (group.groupid.clone(), group.comment.clone())).collect(),
        roles,
        acl: seed
            .acl
            .iter()
            .map(|acl| Acl {
                path: acl.path.clone(),
                kind: acl.kind.clone(),
                ugid: acl.ugid.clone(),
                roleid: acl.roleid.clone(),
                propagate: acl.propagate != 0,
            })
            .collect(),
    }
}

fn add_volume(
    state: &mut State,
    dir: &Path,
    node: &str,
    volid: &str,
    bytes: impl FnOnce(&Path) -> std::io::Result<u64>,
) -> Result<(), WorldError> {
    let refuse = |what: String| WorldError::Seed { what };
    let key = state.volume_key(node, volid).ok_or_else(|| refuse(format!("'{volid}' is no volume id")))?;
    if state.volumes.contains_key(&key) {
        return Ok(());
    }
    let storage =
        state.storages.get(&key.storage).ok_or_else(|| refuse(format!("'{volid}' is on no storage of the seed")))?;
    let named = parse_name(storage, &key.name).map_err(|text| refuse(text.trim_end().to_owned()))?;
    let path = state.file_of(dir, &key);
    let make = || {
        std::fs::create_dir_all(path.parent().unwrap_or(dir))?;
        bytes(&path)
    };
    let size = make().map_err(|source| WorldError::Folder { path: path.clone(), source })?;
    let volume = Volume {
        content: named.content.to_owned(),
        format: named.format,
        size,
        vmid: named.vmid,
        parent: named.parent,
        ctime: 1_700_000_000,
        notes: None,
        protected: false,
        snapshots: BTreeSet::new(),
    };
    state.volumes.insert(key, volume);
    Ok(())
}

fn seed_volume(state: &mut State, dir: &Path, local: &str, volume: &VolumeSeed) -> Result<(), WorldError> {
    let node = volume.node.as_deref().unwrap_or(local).to_owned();
    add_volume(state, dir, &node, &volume.volid, |path| {
        if volume.format == "qcow2" && volume.content == "import" {
            let image = qcow2::tiny(volume.virtual_size, &guest::boot_sector());
            std::fs::write(path, &image)?;
            return Ok(image.len() as u64);
        }
        let mut file = std::fs::File::create(path)?;
        file.set_len(volume.virtual_size)?;
        file.flush()?;
        Ok(volume.virtual_size)
    })
}

fn seed_vm(state: &mut State, dir: &Path, local: &str, vm: &VmSeed) -> Result<(), WorldError> {
    let node = vm.node.as_deref().unwrap_or(local).to_owned();
    if !state.nodes.contains_key(&node) {
        return Err(WorldError::Seed { what: format!("VM {} is on node '{node}', which doesn't exist", vm.vmid) });
    }
    let mut config: BTreeMap<String, String> = vm
        .config
        .iter()
        .filter(|(key, _)| *key != "digest")
        .map(|(key, value)| {
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Bool(flag) => u8::from(*flag).to_string(),
                other => other.to_string(),
            };
            (key.clone(), text)
        })
        .collect();
    if let Some(name) = &vm.name {
        config.entry("name".to_owned()).or_insert_with(|| name.clone());
    }
    let uuid = state.rng.uuid();
    config.entry("smbios1".to_owned()).or_insert_with(|| format!("uuid={uuid}"));
    let genid = state.rng.uuid();
    config.entry("vmgenid".to_owned()).or_insert(genid);
    config.entry("meta".to_owned()).or_insert_with(|| "creation-qemu=9.2.0,ctime=1700000000".to_owned());
    for (key, value) in &config {
        if !(super::drive::is_drive(key) || key.starts_with("unused")) {
            continue;
        }
        let drive = Properties::parse(value, "file");
        let Some(volid) = drive.get("file") else { continue };
        if state.volume_key(&node, volid).is_none() {
            continue;
        }
        let size = drive.get("size").and_then(parse_size).unwrap_or(4 << 20);
        add_volume(state, dir, &node, volid, |path| {
            std::fs::File::create(path)?.set_len(size)?;
            Ok(size)
        })?;
    }
    let running = vm.status.as_deref() == Some("running");
    let runtime = running.then(|| Runtime {
        pid: state.tasks.pid(),
        since: 0.0,
        paused: false,
        prelaunch: false,
        config: config.clone(),
    });
    state.vms.insert(vm.vmid, Vm { node, config, running: runtime, seeded: true, ..Vm::default() });
    Ok(())
}
