//! JSON Schemas of profile and site, for editors and for `recast schema`.
//!
//! Purpose: completion and first checks while typing; what a schema can't say (overlaps, names, places) is `check`'s.
//! They are made from the types, so they know exactly the keys that are read.
//! Must not know: how files are read.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::Value;

use super::{Profile, Site};

/// The schema of `<cluster>.yaml`.
pub fn profile() -> Value {
    titled(schemars::schema_for!(Profile), "recast profile")
}

/// The schema of `site.yaml`.
pub fn site() -> Value {
    titled(schemars::schema_for!(Site), "recast site")
}

fn titled(mut schema: Schema, title: &str) -> Value {
    schema.insert("title".to_owned(), title.into());
    schema.to_value()
}

macro_rules! text_type {
    ($(#[$doc:meta])* $name:ident, $schema:tt) => {
        $(#[$doc])*
        pub(super) struct $name;

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

text_type!(
    /// `30s`.
    DurationText,
    { "type": "string", "pattern": "^([0-9]+(ms|s|m|h))+$", "examples": ["30s", "5m"] }
);
text_type!(
    /// `100G`.
    DiskText,
    { "type": "string", "pattern": "^[0-9]+(M|MiB|G|GiB|T|TiB)$", "examples": ["100G"] }
);
text_type!(
    /// A version; YAML makes a number of an unquoted `1.9`.
    VersionText,
    {
        "type": ["string", "number"],
        "pattern": "^(latest|v?[0-9]+\\.[0-9]+(\\.[0-9]+(-[0-9A-Za-z.-]+)?)?)$",
        "examples": ["1.13.9", "1.13", "latest"]
    }
);
text_type!(
    /// `10.244.0.0/16`.
    CidrText,
    { "type": "string", "pattern": "^[0-9A-Fa-f.:]+/[0-9]{1,3}$", "examples": ["10.244.0.0/16"] }
);
text_type!(
    /// `BC:24:11:00:12:01`.
    MacText,
    { "type": "string", "pattern": "^([0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}$" }
);
text_type!(
    /// 64 hex digits.
    SchematicText,
    { "type": "string", "pattern": "^[0-9a-f]{64}$" }
);
text_type!(
    /// `siderolabs/qemu-guest-agent`.
    ExtensionText,
    { "type": "string", "pattern": "^[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+$" }
);
text_type!(
    /// A VMID or `auto`.
    StartText,
    { "anyOf": [{ "type": "integer", "minimum": 100, "maximum": 999_999_999 }, { "const": "auto" }] }
);
text_type!(
    /// `1000-1999`.
    RangeText,
    { "type": "string", "pattern": "^[0-9]+ *- *[0-9]+$", "examples": ["1000-1999"] }
);
text_type!(
    /// A certificate's SHA-256.
    FingerprintText,
    { "type": "string", "pattern": "^([0-9A-Fa-f]{2}:?){31}[0-9A-Fa-f]{2}$" }
);
text_type!(
    /// PVE configuration keys, and what is taken over.
    HardwareText,
    {
        "type": "object",
        "properties": {
            "inherit": {
                "description": "What a new VM takes over from the one it replaces; everything by default.",
                "type": "array",
                "items": {
                    "enum": ["mac", "nics", "startup", "onboot", "pool", "firewall", "ha", "tags", "description"]
                }
            }
        },
        "additionalProperties": { "type": ["string", "number", "boolean"] }
    }
);
text_type!(
    /// A file, or the command that prints it.
    SecretsFileText,
    {
        "anyOf": [
            { "type": "string" },
            {
                "type": "object",
                "properties": { "command": { "type": "string", "description": "Prints the secrets bundle." } },
                "additionalProperties": false,
                "required": ["command"]
            }
        ]
    }
);
text_type!(
    /// A patch in a file or inline.
    ConfigPatchText,
    {
        "type": "object",
        "properties": {
            "for": {
                "description": "Whose configurations; all by default.",
                "enum": ["all", "controlplane", "worker"]
            },
            "file": { "type": "string", "description": "The patch's file, relative to config_dir." },
            "inline": { "type": "string", "description": "The patch itself." }
        },
        "additionalProperties": false,
        "oneOf": [{ "required": ["file"] }, { "required": ["inline"] }]
    }
);

impl JsonSchema for super::Auth {
    fn schema_name() -> Cow<'static, str> {
        "Auth".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let kept = |id: &str, inline: &str, example: &str| {
            let text = |description: &str| serde_json::json!({ "type": "string", "description": description });
            let mut known = serde_json::Map::new();
            known.insert(id.to_owned(), text(&format!("The id, {example}; may be kept with the secret instead.")));
            known.insert("env".to_owned(), text("The environment variable that holds the secret."));
            known.insert("file".to_owned(), text("The file that holds the secret."));
            known.insert("command".to_owned(), text("The command that prints the secret."));
            known.insert(inline.to_owned(), text("The secret itself. Warns."));
            let sources = ["env", "file", "command", inline].map(|source| serde_json::json!({ "required": [source] }));
            serde_json::json!({
                "anyOf": [
                    { "type": "string", "description": "id=secret. Warns." },
                    { "type": "object", "properties": known, "additionalProperties": false, "oneOf": sources }
                ]
            })
        };
        json_schema!({
            "description": "Who recast is on PVE.",
            "type": "object",
            "properties": {
                "token": kept("id", "secret", "user@realm!name"),
                "user": kept("name", "password", "user@realm")
            },
            "additionalProperties": false,
            "oneOf": [{ "required": ["token"] }, { "required": ["user"] }]
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::profile::load;

    fn repository() -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR"))
    }

    fn as_json(path: &Path) -> Value {
        serde_saphyr::from_str(&fs::read_to_string(path).unwrap()).unwrap()
    }

    #[test]
    fn every_profile_and_site_of_the_repository_fits_its_schema() {
        let (profiles, sites) =
            (jsonschema::validator_for(&profile()).unwrap(), jsonschema::validator_for(&site()).unwrap());
        let mut seen = 0;
        for folder in ["tests/fixtures/profiles", "profiles"] {
            for entry in fs::read_dir(repository().join(folder)).unwrap() {
                let path = entry.unwrap().path();
                if path.extension().is_none_or(|extension| extension != "yaml") {
                    continue;
                }
                let is_site = path.file_stem().unwrap().to_str().unwrap().ends_with("site");
                let validator = if is_site { &sites } else { &profiles };
                let errors: Vec<String> = validator
                    .iter_errors(&as_json(&path))
                    .map(|error| format!("{}: {error}", error.instance_path()))
                    .collect();
                assert!(errors.is_empty(), "{}: {errors:?}", path.display());
                seen += 1;
            }
        }
        assert!(seen >= 8, "only {seen} files");
    }

    /// Key paths of every object in a schema, `[]` for items.
    fn paths(schema: &Value, root: &Value, at: &str, found: &mut Vec<String>) {
        if let Some(name) = schema.get("$ref").and_then(Value::as_str) {
            return paths(root.pointer(name.trim_start_matches('#')).unwrap(), root, at, found);
        }
        for key in ["anyOf", "allOf", "oneOf"] {
            for option in schema.get(key).and_then(Value::as_array).into_iter().flatten() {
                paths(option, root, at, found);
            }
        }
        if let Some(items) = schema.get("items") {
            paths(items, root, &format!("{at}[]"), found);
        }
        for (name, below) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            let path = format!("{at}.{name}");
            paths(below, root, &path, found);
            found.push(path);
        }
    }

    /// Key paths of a document, `[]` for items.
    fn written(value: &Value, at: &str, found: &mut Vec<String>) {
        match value {
            Value::Object(entries) => {
                for (name, below) in entries {
                    let path = format!("{at}.{name}");
                    written(below, &path, found);
                    found.push(path);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| written(item, &format!("{at}[]"), found)),
            _ => {}
        }
    }

    #[test]
    fn schema_and_reader_know_the_same_keys() {
        let fixtures = repository().join("tests/fixtures/profiles");
        for (schema, file) in [(profile(), "everything.yaml"), (site(), "everything-site.yaml")] {
            let path = fixtures.join(file);
            if file.contains("site") { load::site_file(&path).map(drop) } else { load::profile_file(&path).map(drop) }
                .unwrap_or_else(|problems| panic!("{problems}"));
            let (mut known, mut used) = (Vec::new(), Vec::new());
            paths(&schema, &schema, "", &mut known);
            written(&as_json(&path), "", &mut used);
            assert!(known.len() > 20, "{known:?}");
            // A site has either a token or a user, and a secret is kept in one place.
            let one_of = |path: &str| path.starts_with(".auth.") || path.starts_with(".factory.auth.");
            known.retain(|path| !used.contains(path) && !one_of(path));
            assert!(known.is_empty(), "{file} lacks {known:?}, or the reader does");
        }
    }

    #[test]
    fn the_committed_schemas_are_current() {
        for (name, schema) in [("schema.json", profile()), ("site.schema.json", site())] {
            let path = repository().join("profiles").join(name);
            let current = serde_json::to_string_pretty(&schema).unwrap() + "\n";
            if std::env::var_os("UPDATE_SCHEMAS").is_some() {
                fs::write(&path, &current).unwrap();
            }
            let committed = fs::read_to_string(&path).unwrap_or_default();
            assert!(committed == current, "{} is stale: run this test with UPDATE_SCHEMAS=1", path.display());
        }
    }
}
