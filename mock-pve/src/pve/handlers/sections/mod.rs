//! Configs that are written down and read back: `/cluster/mapping/…`, `/cluster/sdn/…`, `/cluster/ha/rules`,
//! `/cluster/metrics/server`, `/cluster/acme/plugins`, `/cluster/jobs/realm-sync`.
//!
//! One entry per id in a file of its own; what is not said about an entry is that of its kind (Proxmox VE 8.4,
//! PVE/API2/Cluster/Mapping, PVE/API2/Network/SDN, PVE/API2/Cluster/MetricServer.pm, PVE/API2/ACMEPlugin.pm,
//! PVE/API2/Jobs/RealmSync.pm; the rules: release 9).

mod kinds;
mod networks;

use base64::Engine as _;
use serde_json::{Map, Value, json};

use self::kinds::{CONTROLLER, DIR, DNS, IPAM, PCI, PLUGIN, RULE, SERVER, SYNC, USB, VNET, ZONE, of_release};
use super::sdn_lock;
use crate::pve::call::{Call, Result};
use crate::pve::params::Value as Given;
use crate::world::State;
use crate::world::calendar::Calendar;
use crate::world::config::digest_of;
use crate::world::property::Properties;
use crate::world::refusal::{Refusal, Rule};
use crate::world::section_config::Section;
use crate::world::state::Sections;

type Object = Map<String, Value>;

/// What is told of an entry beside its options.
#[derive(Clone, Copy)]
enum Told {
    /// Its id and the file's digest.
    Everywhere,
    /// The same, but of one that is asked for only the digest.
    Listed,
    /// In lists only its id and these options, of one nothing but the options.
    Briefly(&'static [&'static str]),
}

/// One kind of entries.
struct Kind {
    /// Where they are kept.
    file: &'static str,
    /// The parameter that is the id, and the key under which it is shown.
    id: &'static str,
    /// Where rights over one are given; nothing: over all or none, as the method's own rule says.
    path: &'static str,
    /// Rights any of which shows one.
    see: &'static [&'static str],
    /// `create … failed`, `update … failed`, `delete … failed`; nothing: refusals stand for themselves.
    failed: [&'static str; 3],
    /// That there is one of that id already.
    exists: &'static str,
    /// That there is none that could be changed.
    gone: &'static str,
    /// That there is none that could be shown.
    missing: &'static str,
    /// The type of those that have only one.
    only: Option<&'static str>,
    /// How one is shown.
    told: Told,
    /// What each type may say.
    types: &'static [Section],
    /// Options that are numbers.
    numbers: &'static [&'static str],
}

impl Kind {
    fn entries<'a>(&self, state: &'a State) -> impl Iterator<Item = (&'a String, &'a Object)> {
        state.sections.get(self.file).into_iter().flatten()
    }

    fn digest(&self, state: &State) -> String {
        let all: Vec<_> = self.entries(state).collect();
        digest_of(&serde_json::to_string(&all).unwrap_or_default())
    }

    /// What is written down, with what is there of itself, as a request wants to see it.
    fn view(&self, state: &State, call: &Call) -> Sections {
        let mut all = super::sdn::view(state, call, self.file);
        let own = match self.file {
            "sdn/ipams" => Some(("pve", "pve")),
            "acme/plugins" => Some(("standalone", "standalone")),
            _ => None,
        };
        if let Some((id, kind)) = own {
            all.entry(id.to_owned()).or_insert_with(|| Object::from_iter([("type".to_owned(), json!(kind))]));
        }
        all
    }

    fn listed(&self, state: &State, id: &str, entry: &Object) -> Value {
        let mut shown = entry.clone();
        let key = if self.file == PLUGIN.file { "plugin" } else { self.id };
        if let Some(packed) = entry.get("data").and_then(Value::as_str).filter(|_| self.file == PLUGIN.file) {
            let plain: String = unpacked(packed).into_iter().map(char::from).collect();
            shown.insert("data".to_owned(), json!(plain));
        }
        match self.told {
            Told::Briefly(keys) => {
                shown.retain(|key, _| keys.contains(&key.as_str()));
                shown.entry("disable").or_insert(json!(0));
                shown.entry("port").or_insert(Value::Null);
            }
            Told::Listed if self.file == SYNC.file => {}
            Told::Everywhere | Told::Listed => {
                shown.insert("digest".to_owned(), json!(self.digest(state)));
            }
        }
        shown.insert(key.to_owned(), json!(id));
        Value::Object(shown)
    }

    /// Where rights over an entry are given.
    fn right(&self, entry: &Object, id: &str) -> Option<String> {
        if self.file == VNET.file {
            let zone = entry.get("zone").or_else(|| entry.get("pending")?.get("zone"));
            let zone = zone.and_then(Value::as_str).unwrap_or_default();
            return Some(format!("/sdn/zones/{zone}/{id}"));
        }
        (!self.path.is_empty()).then(|| format!("{}{id}", self.path))
    }

    fn given(&self, call: &Call) -> Object {
        let mut control = vec![self.id, "digest", "delete", "lock-token", "force"];
        if self.file == SERVER.file {
            // It lies where only root can read it.
            control.push("token");
        }
        let keys = call.params.0.iter().filter(|(key, _)| !control.contains(&key.as_str()));
        keys.map(|(key, value)| {
            let value = if let Given::List(list) = value {
                json!(list)
            } else {
                let text = call.text(key);
                // What an authority's plugin is told is packed in the file, in one way.
                if self.file == PLUGIN.file && key == "data" {
                    let plain: Vec<u8> = unpacked(text);
                    return (key.clone(), json!(base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(plain)));
                }
                let number = self.numbers.contains(&key.as_str()).then(|| text.parse::<i64>().ok()).flatten();
                number.map_or_else(|| json!(text), |number| json!(number))
            };
            (key.clone(), value)
        })
        .collect()
    }

    /// What comes of a refusal behind the file's lock.
    fn locked(&self, verb: usize) -> impl Fn(Refusal) -> Refusal {
        let failed = self.failed[verb];
        move |refusal| match refusal {
            Refusal::Failed(text) if failed.is_empty() => Refusal::Failed(text),
            refusal if failed.is_empty() => Refusal::failed(format!("{}\n", refusal.text())),
            refusal => refusal.within(failed),
        }
    }

    fn named(text: &str, id: &str) -> Refusal {
        Refusal::failed(text.replace("{}", id))
    }

    /// Networks are written down only by who holds their lock.
    fn check_lock(&self, state: &State, call: &Call, verb: usize) -> Rule<()> {
        if self.file.starts_with("sdn/") { sdn_lock::check(state, call, self.failed[verb]) } else { Ok(()) }
    }

    /// The type of an entry.
    fn section(&self, state: &State, kind: &str) -> Rule<Section> {
        let found = Section::of(self.types, kind).copied();
        let found = found.ok_or_else(|| Refusal::failed(format!("unknown section type '{kind}'\n")))?;
        Ok(of_release(found, self.file, state.pve))
    }

    /// What an entry needs of the rest of the world.
    fn check_around(&self, state: &mut State, id: &str, new: &mut Object, old: Option<&Object>) -> Rule<()> {
        if self.file == DIR.file {
            return check_once_a_node(new);
        }
        if self.file == SYNC.file && old.is_none() {
            let realm = new.get("realm").and_then(Value::as_str).unwrap_or_default();
            let kind = state.access.realms.get(realm).map(|realm| realm.get("type").and_then(Value::as_str));
            return match kind {
                None => Err(Refusal::param("realm", format!("No such realm '{realm}'"))),
                Some(Some("ldap" | "ad")) => Ok(()),
                Some(_) => Err(Refusal::param("realm", "Only LDAP/AD realms can be synced.")),
            };
        }
        networks::check(state, self.file, id, new, old)
    }

    fn list(&self, call: &Call) -> Result {
        let state = call.world.state();
        let wanted = call.params.text("type");
        if let Some(node) = call.params.text("check-node").filter(|node| *node != "localhost" && *node != call.local) {
            let text = match self.file {
                "mapping/usb" => "Wrong node to check\n".to_owned(),
                _ => format!("wrong node to check - {node} != {}\n", call.local),
            };
            return Err(Refusal::failed(text));
        }
        let all = self.view(&state, call);
        let list = all
            .iter()
            .filter(|(id, entry)| self.right(entry, id).is_none_or(|path| state.may_any(&call.caller, &path, self.see)))
            .filter(|(_, entry)| wanted.is_none() || entry.get("type").and_then(Value::as_str) == wanted)
            .map(|(id, entry)| {
                let mut shown = self.listed(&state, id, entry);
                if call.params.text("check-node").is_some() {
                    let key = if self.file == USB.file { "errors" } else { "checks" };
                    shown[key] = self.findings(call, entry);
                }
                if self.file == SYNC.file {
                    let calendar = entry.get("schedule").and_then(Value::as_str).and_then(Calendar::parse);
                    shown["last-run"] = Value::Null;
                    if let Some(next) = calendar.and_then(|calendar| calendar.next(call.world.clock().unix())) {
                        shown["next-run"] = json!(next);
                    }
                }
                shown
            });
        Ok(list.collect::<Vec<_>>().into())
    }

    /// What the node that is asked says of a mapping: it has no such device, as it has none at all.
    fn findings(&self, call: &Call, entry: &Object) -> Value {
        let own = entry.get("map").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        let own: Vec<_> = own
            .map(|map| Properties::parse(map, ""))
            .filter(|map| map.get("node") == Some(call.local.as_str()))
            .collect();
        if own.is_empty() {
            let node = call.text("check-node");
            return json!([{"severity": "warning", "message": format!("No mapping for node {node}.")}]);
        }
        let finding = |map: &Properties| {
            let path = map.get("path").unwrap_or_default();
            let text = match self.file {
                "mapping/pci" => {
                    let first = path.split(';').next().unwrap_or_default();
                    let function = if first.contains('.') { "" } else { ".0" };
                    format!("pci device '{first}{function}' not found\n")
                }
                "mapping/usb" if path.is_empty() => {
                    format!("usb device '{}' not found\n", map.get("id").unwrap_or_default())
                }
                "mapping/usb" => format!("usb device '{path}' not found\n"),
                _ => return None,
            };
            Some(json!({"severity": "error", "message": format!("Invalid configuration: {text}")}))
        };
        own.iter().filter_map(finding).collect()
    }

    fn read(&self, call: &Call) -> Result {
        let state = call.world.state();
        let id = call.text(self.id);
        let all = self.view(&state, call);
        let missing = || match self.file {
            "jobs/realm-sync" => Refusal::param("id", format!("No such job '{id}'")),
            _ => Self::named(self.missing, id),
        };
        let entry = all.get(id).ok_or_else(missing)?;
        if self.file == VNET.file
            && let Some(path) = self.right(entry, id)
        {
            state.check_any(&call.caller, &path, self.see)?;
        }
        if matches!(self.told, Told::Everywhere) {
            return Ok(self.listed(&state, id, entry).into());
        }
        let mut shown = entry.clone();
        if self.file.starts_with("mapping/") {
            shown.insert("digest".to_owned(), json!(self.digest(&state)));
        }
        Ok(shown.into())
    }

    fn create(&self, call: &Call) -> Result {
        let id = call.text(self.id).to_owned();
        let mut state = call.world.state();
        let mut entry = self.given(call);
        if let Some(kind) = self.only {
            entry.insert("type".to_owned(), json!(kind));
        }
        let kind = entry.get("type").and_then(Value::as_str).unwrap_or_default();
        let section = self.section(&state, kind)?;
        let locked = self.locked(0);
        let known = || section.check_new(&entry);
        let inside = [VNET.file, SERVER.file, PLUGIN.file, SYNC.file].contains(&self.file);
        if !inside {
            known()?;
        }
        self.check_lock(&state, call, 0)?;
        if self.view(&state, call).contains_key(&id) {
            return Err(locked(Self::named(self.exists, &id)));
        }
        if inside {
            known().map_err(&locked)?;
        }
        let around = self.check_around(&mut state, &id, &mut entry, None);
        // Folders are looked at before the file is locked.
        if self.file == DIR.file {
            around?;
        } else {
            around.map_err(locked)?;
        }
        Self::write(&mut state, self.file, id, entry);
        Ok(().into())
    }

    /// Writes an entry down; a text that is empty isn't written.
    fn write(state: &mut State, file: &str, id: String, mut entry: Object) {
        entry.retain(|_, value| value.as_str() != Some(""));
        state.sections.entry(file.to_owned()).or_default().insert(id, entry);
    }

    fn update(&self, call: &Call) -> Result {
        let id = call.text(self.id);
        let mut state = call.world.state();
        let known = self.view(&state, call).get(id).cloned();
        if self.file == VNET.file {
            let known = known.as_ref().ok_or_else(|| Self::named(self.missing, id))?;
            let path = self.right(known, id).unwrap_or_default();
            state.check_any(&call.caller, &path, &["SDN.Allocate"])?;
        }
        self.check_lock(&state, call, 1)?;
        let locked = self.locked(1);
        let digest = self.digest(&state);
        if call.params.text("digest").is_some_and(|wanted| !wanted.is_empty() && wanted != digest) {
            let text = "detected modified configuration - file changed by other user? Try again.\n";
            return Err(locked(Refusal::failed(text)));
        }
        let known = known.ok_or_else(|| locked(Self::named(self.gone, id)))?;
        let given = self.given(call);
        if self.file == SYNC.file && given.is_empty() {
            return Err(Refusal::failed("no job options specified\n"));
        }
        let kind = known.get("type").and_then(Value::as_str).unwrap_or_default();
        let delete = call.params.list("delete");
        let mut entry = known.clone();
        let section = self.section(&state, kind).map_err(&locked)?;
        let whole = self.file.starts_with("mapping/");
        let checked = if whole { section.check_new(&given) } else { section.check_change(&given) };
        checked.and_then(|()| section.delete(&mut entry, &given, &delete)).map_err(&locked)?;
        entry.extend(given);
        self.check_around(&mut state, id, &mut entry, Some(&known)).map_err(locked)?;
        Self::write(&mut state, self.file, id.to_owned(), entry);
        Ok(().into())
    }

    fn delete(&self, call: &Call) -> Result {
        let id = call.text(self.id);
        let mut state = call.world.state();
        let locked = self.locked(2);
        let known = state.sections.get(self.file).and_then(|file| file.get(id));
        if self.file == VNET.file {
            let known = known.ok_or_else(|| Self::named(self.missing, id))?;
            let path = self.right(known, id).unwrap_or_default();
            state.check_any(&call.caller, &path, &["SDN.Allocate"])?;
        }
        self.check_lock(&state, call, 2)?;
        let is_there = known.is_some();
        networks::check_unused(&state, self.file, id).map_err(&locked)?;
        if let Some(file) = state.sections.get_mut(self.file) {
            file.remove(id);
        }
        // Some are deleted whether they are there or not.
        let gladly = ["mapping/pci", "mapping/usb", "mapping/dir", "acme/plugins"].contains(&self.file);
        if is_there || gladly || (self.file == IPAM.file && id == "pve") {
            return Ok(().into());
        }
        Err(match self.file {
            "metrics/server" => {
                let file = "/usr/share/perl5/PVE/API2/Cluster/MetricServer.pm";
                Refusal::failed(format!("cannot lookup undefined type! at {file} line 295.\n"))
            }
            "jobs/realm-sync" => locked(Refusal::param("id", format!("No such job '{id}'"))),
            _ => locked(Self::named(self.gone, id)),
        })
    }
}

/// What a text in base64 says, in either alphabet; what belongs to neither is passed over (pve-manager 8,
/// PVE/CLI/pvenode.pm packs it the same way).
fn unpacked(text: &str) -> Vec<u8> {
    use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
    let lenient = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    let known = |letter: &char| letter.is_ascii_alphanumeric() || "+/".contains(*letter);
    let plain: String = text.replace('-', "+").replace('_', "/").chars().filter(known).collect();
    GeneralPurpose::new(&base64::alphabet::STANDARD, lenient).decode(plain).unwrap_or_default()
}

/// A folder is mapped once a node.
fn check_once_a_node(entry: &Object) -> Rule<()> {
    let maps = entry.get("map").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let mut nodes: Vec<String> =
        maps.filter_map(|map| Properties::parse(map, "").get("node").map(str::to_owned)).collect();
    nodes.sort();
    match nodes.chunk_by(|one, other| one == other).find(|group| group.len() > 1) {
        Some(group) => Err(Refusal::failed(format!("Node '{}' is specified {} times.\n", group[0], group.len()))),
        None => Ok(()),
    }
}

methods_of! {
    pci = PCI, "`/cluster/mapping/pci`";
    usb = USB, "`/cluster/mapping/usb`";
    dir = DIR, "`/cluster/mapping/dir`";
    zones = ZONE, "`/cluster/sdn/zones`";
    vnets = VNET, "`/cluster/sdn/vnets`";
    controllers = CONTROLLER, "`/cluster/sdn/controllers`";
    ipams = IPAM, "`/cluster/sdn/ipams`";
    dns = DNS, "`/cluster/sdn/dns`";
    rules = RULE, "`/cluster/ha/rules`";
    servers = SERVER, "`/cluster/metrics/server`";
    plugins = PLUGIN, "`/cluster/acme/plugins`";
    syncs = SYNC, "`/cluster/jobs/realm-sync`";
}
