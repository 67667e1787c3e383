//! What the machines say of themselves, where somebody has a talosconfig for them.
//!
//! Must not know: Proxmox VE. Start reading at [`Talosconfig`].

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::join_all;
use mock_pve::world::seed::Seed;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::cli::args::Inventory;
use crate::cli::session::Place;
use crate::cli::stop::Stop;
use crate::exit::ExitCode;
use crate::net::Connector;
use crate::talos::client::{Access, Machine};

/// How long a machine may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// One context of a talosconfig.
pub(super) struct Talosconfig {
    name: String,
    access: Access,
    machines: Vec<String>,
}

#[derive(Deserialize)]
struct File {
    context: Option<String>,
    #[serde(default)]
    contexts: BTreeMap<String, Context>,
}

#[derive(Deserialize)]
struct Context {
    #[serde(default)]
    endpoints: Vec<String>,
    #[serde(default)]
    nodes: Vec<String>,
    ca: String,
    crt: String,
    key: String,
}

impl Talosconfig {
    /// The current context of the file that is named; none is named where only the environment could.
    pub(super) fn named(asked: &Inventory, place: &Place) -> Result<Option<Self>, Stop> {
        let named = asked.talosconfig.clone().or_else(|| place.env.get("TALOSCONFIG").map(Into::into));
        named.map(|path| Self::read(&path)).transpose()
    }

    fn read(path: &Path) -> Result<Self, Stop> {
        let wrong = |why: &str| {
            Stop::new(ExitCode::Invalid, format!("the talosconfig {} can't be used: {why}", path.display()))
        };
        let text = fs::read_to_string(path).map(SecretString::from).map_err(|error| wrong(&error.to_string()))?;
        // The parser's own words may quote the file, which holds a key.
        let mut file: File = serde_saphyr::from_str(text.expose_secret()).map_err(|_| wrong("it isn't one"))?;
        let name = file.context.clone().ok_or_else(|| wrong("it names no current context"))?;
        let context = file.contexts.remove(&name).ok_or_else(|| wrong("its current context isn't in it"))?;
        let pem = |text: &str| STANDARD.decode(text.trim()).map_err(|_| wrong("a certificate in it isn't base64"));
        let key = String::from_utf8(pem(&context.key)?).map_err(|_| wrong("its key isn't PEM"))?;
        let access =
            Access::from_pem(&pem(&context.ca)?, &pem(&context.crt)?, &SecretString::from(key)).map_err(|error| {
                Stop::because(ExitCode::Invalid, "the talosconfig's certificates can't be used", &error)
            })?;
        let mut machines = context.nodes;
        machines.extend(context.endpoints);
        machines.sort();
        machines.dedup();
        Ok(Self { name, access, machines })
    }
}

/// What is told of each machine, under its VM's number where that is known.
pub(super) async fn guests(connector: &Connector, config: &Talosconfig, seed: &Seed, notes: &mut Vec<String>) -> Value {
    let uuids: BTreeMap<String, u32> = seed
        .vms
        .iter()
        .filter_map(|vm| {
            let smbios = vm.config.get("smbios1")?.as_str()?;
            let uuid = smbios.split(',').find_map(|part| part.strip_prefix("uuid="))?;
            Some((uuid.to_lowercase(), vm.vmid))
        })
        .collect();
    let told = join_all(config.machines.iter().map(|address| guest(connector, &config.access, address))).await;
    let mut guests = Map::new();
    for (address, told) in config.machines.iter().zip(told) {
        match told {
            Ok((uuid, mut facts)) => {
                facts["context"] = json!(config.name);
                let vmid = uuid.and_then(|uuid| uuids.get(&uuid.to_lowercase()).copied());
                guests.insert(vmid.map_or_else(|| address.clone(), |vmid| vmid.to_string()), facts);
            }
            Err(why) => notes.push(format!("the machine at {address} doesn't tell of itself: {why}")),
        }
    }
    Value::Object(guests)
}

async fn guest(connector: &Connector, access: &Access, address: &str) -> Result<(Option<String>, Value), String> {
    let machine = Machine::new(connector, address, access, PATIENCE).map_err(|error| error.to_string())?;
    let release = machine.release().await.map_err(|error| error.to_string())?;
    let uuid = machine.system_uuid().await.unwrap_or_default();
    let hostname = machine.hostname().await.unwrap_or_default();
    let mut facts = json!({"address": address, "hostname": hostname, "talos": release.version.to_string()});
    // A reader may not see the configuration, and most of it is nobody's business: two facts of it are.
    if let Ok(Some(config)) = machine.config().await
        && let Ok(config) = serde_saphyr::from_str::<Configured>(config.expose_secret())
    {
        facts["role"] = json!(config.machine.kind);
        let image = config.machine.kubelet.and_then(|kubelet| kubelet.image).unwrap_or_default();
        facts["kubernetes"] = json!(image.rsplit_once(":v").map(|(_, version)| version));
    }
    Ok((uuid, facts))
}

#[derive(Deserialize)]
struct Configured {
    machine: ConfiguredMachine,
}

#[derive(Deserialize)]
struct ConfiguredMachine {
    #[serde(rename = "type")]
    kind: String,
    kubelet: Option<Kubelet>,
}

#[derive(Deserialize)]
struct Kubelet {
    image: Option<String>,
}
