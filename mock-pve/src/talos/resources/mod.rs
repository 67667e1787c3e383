//! A machine's resources, made from its state when somebody asks.
//!
//! Start at [`list`]; `types.rs` says which types there are, the other files make their resources.

mod block;
mod documents;
mod kernel;
mod kubernetes;
mod leaves;
mod network;
mod runtime;
mod secrets;
mod settings;
mod specs;
mod types;
mod upkeep;
mod volumes;
mod wire;

use prost::Message as _;
use serde_json::{Value, json};

use self::wire::Proto;
use super::proto::cosi::resource as api;
use crate::world::machine::{Machine, State};

pub(super) use kernel::bus;
pub(super) use runtime::command_line;
use types::NAMESPACES;
pub(super) use types::Type;

/// A resource.
pub(super) struct Item {
    pub(super) kind: &'static str,
    pub(super) namespace: &'static str,
    pub(super) id: String,
    /// Its version, where that counts something else than changes of the content.
    pub(super) version: Option<u64>,
    pub(super) annotations: &'static [(&'static str, &'static str)],
    pub(super) yaml: String,
    pub(super) proto: Vec<u8>,
}

/// Since that version a machine configuration's YAML is a string, and an annotation says so (Talos,
/// pkg/machinery/resources/config, `machine_config.go`); before, it is the configuration's own.
const TEXT_IN_TEXT: u32 = 12;
const IS_TEXT: &[(&str, &str)] = &[("talos.dev/yaml-spec", "1")];

/// Makes resources of one type.
struct Maker(&'static Type);

impl Maker {
    fn item(&self, id: &str, value: &Value) -> Item {
        self.typed(id, value, Proto::default())
    }

    /// One that clients decode by its type, too.
    fn typed(&self, id: &str, value: &Value, proto: Proto) -> Item {
        Item {
            kind: self.0.name,
            namespace: self.0.namespace,
            id: id.to_owned(),
            version: None,
            annotations: &[],
            yaml: serde_saphyr::to_string(value).unwrap_or_default(),
            proto: proto.finish(),
        }
    }
}

/// The type with that name, if this Talos has it.
pub(super) fn kind_of(machine: &Machine, name: &str) -> Option<&'static Type> {
    let minor = machine.see(|state| state.version().minor);
    types::TYPES.iter().find(|kind| kind.name == name && kind.is_in(minor))
}

/// Whether there is such a namespace.
pub(super) fn is_namespace(machine: &Machine, name: &str) -> bool {
    let minor = machine.see(|state| state.version().minor);
    NAMESPACES.iter().any(|(one, _, since)| *one == name && *since <= minor)
}

/// All resources of a type.
pub(super) fn list(machine: &Machine, kind: &'static Type) -> Vec<Item> {
    match kind.name {
        "ResourceDefinitions.meta.cosi.dev" => {
            let minor = machine.see(|state| state.version().minor);
            types::TYPES.iter().filter(|one| one.is_in(minor)).map(definition).collect()
        }
        "Namespaces.meta.cosi.dev" => {
            let (maker, minor) = (Maker(kind), machine.see(|state| state.version().minor));
            let known = NAMESPACES.iter().filter(|(.., since)| *since <= minor);
            known
                .map(|(name, text, _)| {
                    maker.typed(name, &json!({ "description": text }), Proto::default().text(1, text))
                })
                .collect()
        }
        "MachineConfigs.config.talos.dev" => {
            let (active, staged, minor) =
                machine.see(|state| (state.config.clone(), state.staged.clone(), state.version().minor));
            let part = || machine.see(|state| state.partial.clone());
            let Some(active) = active.or_else(part) else { return Vec::new() };
            let mut all = Vec::new();
            if minor >= 10 {
                all.push(("persistent", staged.as_ref().unwrap_or(&active).text()));
            }
            all.push(("v1alpha1", active.text()));
            all.into_iter().map(|(id, text)| machine_config(kind, id, text, minor)).collect()
        }
        "CertSANs.secrets.talos.dev" => secrets::list(machine, kind),
        name if leaves::NAMES.contains(&name) => leaves::list(machine, kind),
        name if documents::NAMES.contains(&name) => documents::list(machine, kind),
        name if upkeep::NAMES.contains(&name) => upkeep::list(machine, kind),
        name if volumes::NAMES.contains(&name) => volumes::list(machine, kind),
        name if kernel::NAMES.contains(&name) => kernel::list(machine, kind),
        name if settings::NAMES.contains(&name) => settings::list(machine, kind),
        name if name.ends_with("RootSecrets.secrets.talos.dev") => secrets::list(machine, kind),
        name if name.ends_with("Specs.net.talos.dev") => specs::list(machine, kind),
        name if name.ends_with(".k8s.talos.dev") => kubernetes::list(machine, kind),
        name if name.ends_with(".net.talos.dev") => network::list(machine, kind),
        name if name.ends_with(".block.talos.dev") => block::list(machine, kind),
        name if name.ends_with(".kubernetes.talos.dev") || name.ends_with(".etcd.talos.dev") => {
            kubernetes::list(machine, kind)
        }
        _ => runtime::list(machine, kind),
    }
}

/// The system disk's name.
fn disk_name(machine: &Machine) -> &'static str {
    if machine.hardware().disk_key.starts_with("virtio") { "vda" } else { "sda" }
}

/// Its YAML is a string that holds the configuration; in older versions, the configuration itself.
fn machine_config(kind: &'static Type, id: &str, text: &str, minor: u32) -> Item {
    let (yaml, annotations) = if minor >= TEXT_IN_TEXT {
        let indented: Vec<String> =
            text.lines().map(|line| if line.is_empty() { String::new() } else { format!("    {line}") }).collect();
        (format!("|\n{}\n", indented.join("\n")), IS_TEXT)
    } else {
        (text.to_owned(), &[][..])
    };
    let proto = Proto::default().bytes(1, text.as_bytes());
    Item { annotations, yaml, ..Maker(kind).typed(id, &Value::Null, proto) }
}

fn definition(kind: &'static Type) -> Item {
    let (display, aliases, all) = (kind.display(), kind.aliases(), kind.all_aliases());
    let print_columns = kind.columns.iter().map(|(name, path)| api::resource_definition_spec::PrintColumn {
        name: (*name).to_owned(),
        json_path: (*path).to_owned(),
    });
    let sensitivity = if kind.is_sensitive {
        api::resource_definition_spec::Sensitivity::Sensitive
    } else {
        api::resource_definition_spec::Sensitivity::NonSensitive
    };
    let spec = api::ResourceDefinitionSpec {
        resource_type: kind.name.to_owned(),
        display_type: display.clone(),
        default_namespace: kind.namespace.to_owned(),
        aliases: aliases.clone(),
        all_aliases: all.clone(),
        print_columns: print_columns.collect(),
        sensitivity: sensitivity.into(),
    };
    let columns: Vec<Value> =
        kind.columns.iter().map(|(name, path)| json!({ "name": name, "jsonPath": path })).collect();
    let yaml = json!({ "type": kind.name, "displayType": display, "defaultNamespace": kind.namespace,
        "aliases": aliases, "allAliases": all, "printColumns": columns,
        "sensitivity": if kind.is_sensitive { "sensitive" } else { "" } });
    Item {
        kind: "ResourceDefinitions.meta.cosi.dev",
        namespace: "meta",
        id: kind.name.to_lowercase(),
        version: Some(1),
        annotations: &[],
        yaml: serde_saphyr::to_string(&yaml).unwrap_or_default(),
        proto: spec.encode_to_vec(),
    }
}

fn pretty(bytes: u64) -> String {
    let gigabytes = bytes / 1_000_000_000;
    if gigabytes > 0 { format!("{gigabytes} GB") } else { format!("{} MB", bytes / 1_000_000) }
}

/// All addresses of a machine, without their prefixes.
fn addresses(state: &State) -> Vec<String> {
    state.addresses().map(|address| address.to_string()).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// The original has two types of that name, too.
    const SHARED: [&str; 2] = ["mountstatus", "mountstatuses"];

    #[test]
    fn no_two_types_share_more_than_an_abbreviation() {
        for minor in 5..=14 {
            let mut seen: BTreeMap<String, &str> = BTreeMap::new();
            for kind in types::TYPES.iter().filter(|kind| kind.is_in(minor)) {
                let item = definition(kind);
                let spec = api::ResourceDefinitionSpec::decode(item.proto.as_slice()).unwrap();
                let plural = kind.name.split('.').next().unwrap();
                let capitals = plural.chars().filter(char::is_ascii_uppercase).collect::<String>().to_lowercase();
                let is_word = |alias: &String| {
                    alias.len() > 4 && alias.strip_prefix(&capitals).is_none_or(|rest| !["", "s"].contains(&rest))
                };
                let words = spec.all_aliases.into_iter().filter(is_word);
                for alias in words.chain([item.id]).filter(|alias| !SHARED.contains(&alias.as_str())) {
                    let other = seen.insert(alias.clone(), kind.name);
                    assert!(other.is_none_or(|one| one == kind.name), "{alias}: {other:?} and {}", kind.name);
                }
            }
        }
    }
}
