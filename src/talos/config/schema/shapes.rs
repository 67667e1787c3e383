//! The table of shapes, read once from `shapes.txt`.
//!
//! The table is data: the Go types of siderolabs/talos `pkg/machinery/config/types` (v1.14.0-rc.1, which v1.13.9 is a part
//! of) in their order, one fact a line; its format is said at its top. A shape that Talos changes is changed there, and
//! nothing else.
//!
//! Must not know: values. Start with [`document`].

use std::collections::HashMap;
use std::sync::LazyLock;

/// What a document of a kind is.
#[derive(Debug)]
pub(in crate::talos::config) struct Kind {
    /// Its name in `kind`; `v1alpha1` for the main document.
    pub(in crate::talos::config) name: &'static str,
    /// Its keys.
    pub(in crate::talos::config) shape: &'static str,
    /// Whether there may be several, told apart by their name.
    pub(in crate::talos::config) named: bool,
    /// Whether it configures a network link of its name.
    pub(in crate::talos::config) link: bool,
    /// Whether only control planes may have it.
    pub(in crate::talos::config) control_plane: bool,
    /// Kinds that may not stand beside it under the same name.
    pub(in crate::talos::config) conflicts: Vec<&'static str>,
}

/// A key of a shape.
#[derive(Debug)]
pub(in crate::talos::config) struct Field {
    pub(in crate::talos::config) key: &'static str,
    /// Written even when it is empty.
    pub(super) always: bool,
    /// A patch's value takes the place of the old one.
    pub(in crate::talos::config) replace: bool,
    pub(in crate::talos::config) of: Type,
}

/// What may stand in a place.
#[derive(Debug)]
pub(in crate::talos::config) enum Type {
    Scalar(Scalar),
    /// A scalar that patches replace together with its absence.
    Unit(Scalar),
    /// Anything.
    Free,
    /// A flag's value: a string, or a list of them.
    Argument,
    /// Keys and certificates in base64, as a unit.
    Pem(&'static [&'static str]),
    Optional(Box<Type>),
    List(Box<Type>, Elements),
    Map(Box<Type>, Entries),
    Shape(&'static str),
}

/// How a patch's elements join a list.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::talos::config) enum Elements {
    Append,
    MergeBy(Vec<&'static str>),
    ReplaceBy(&'static str),
}

/// How a patch's entries join a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::talos::config) enum Entries {
    Merge,
    Replace,
}

/// Kinds of scalars.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::talos::config) enum Scalar {
    Text,
    /// Text without leading blank lines.
    Trimmed,
    Bool,
    Integer {
        least: i128,
        most: i128,
    },
    Duration,
    Address,
    AddressPort,
    Prefix,
    Mac,
    Expression,
    /// Bytes with a unit, kept as written.
    Size,
    /// The same or a percentage.
    Share,
    /// Bytes, written in the shortest exact form.
    DiskSize,
    /// A disk's size with a comparison before it: `>= 100GB`.
    DiskCondition,
    Url,
    Mode,
    Base64,
    PortRange,
    Table,
    /// One of these names, in whatever letter case.
    OneOf(&'static str),
    /// One of these names, or its place among them.
    Numbered(&'static str),
}

struct Table {
    kinds: Vec<Kind>,
    shapes: HashMap<&'static str, Vec<Field>>,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| read(include_str!("shapes.txt")));

/// The kind of this name.
pub(in crate::talos::config) fn document(name: &str) -> Option<&'static Kind> {
    TABLE.kinds.iter().find(|kind| kind.name == name)
}

/// The names of all kinds but the main document's.
pub(super) fn kinds() -> impl Iterator<Item = &'static str> {
    TABLE.kinds.iter().map(|kind| kind.name).filter(|name| *name != "v1alpha1")
}

/// The keys of a shape, in order.
pub(in crate::talos::config) fn fields(shape: &str) -> &'static [Field] {
    TABLE.shapes.get(shape).map_or(&[], Vec::as_slice)
}

/// A key of a shape.
pub(in crate::talos::config) fn field(shape: &str, key: &str) -> Option<&'static Field> {
    fields(shape).iter().find(|field| field.key == key)
}

fn read(text: &'static str) -> Table {
    let mut table = Table { kinds: Vec::new(), shapes: HashMap::new() };
    let mut current = "";
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(kind) = line.strip_prefix("document ") {
            table.kinds.extend(read_kind(kind));
        } else if let Some(field) = line.strip_prefix("  ") {
            if let Some(field) = read_field(field) {
                table.shapes.entry(current).or_default().push(field);
            }
        } else {
            current = line;
            table.shapes.entry(current).or_default();
        }
    }
    table
}

fn read_kind(line: &'static str) -> Option<Kind> {
    let mut words = line.split(' ');
    let (name, shape) = (words.next()?, words.next()?);
    let mut kind = Kind { name, shape, named: false, link: false, control_plane: false, conflicts: Vec::new() };
    for word in words {
        match word {
            "named" => kind.named = true,
            "link" => kind.link = true,
            "controlplane" => kind.control_plane = true,
            word => kind.conflicts = word.strip_prefix("conflicts:")?.split(',').collect(),
        }
    }
    Some(kind)
}

fn read_field(line: &'static str) -> Option<Field> {
    let (key, of) = line.split_once(' ')?;
    let bare = key.trim_end_matches(['!', '~']);
    let has = |mark| key[bare.len()..].contains(mark);
    Some(Field { key: bare, always: has('!'), replace: has('~'), of: read_type(of) })
}

fn read_type(text: &'static str) -> Type {
    if let Some(inner) = text.strip_prefix('?') {
        return Type::Optional(Box::new(read_type(inner)));
    }
    let (body, rule) = text.rsplit_once('@').unwrap_or((text, ""));
    if let Some(inner) = body.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let elements = match rule.strip_prefix('=') {
            Some(key) => Elements::ReplaceBy(key),
            None if rule.is_empty() => Elements::Append,
            None => Elements::MergeBy(rule.split(',').collect()),
        };
        return Type::List(Box::new(read_type(inner)), elements);
    }
    if let Some(inner) = body.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        let entries = if rule == "replace" { Entries::Replace } else { Entries::Merge };
        return Type::Map(Box::new(read_type(inner)), entries);
    }
    match body {
        "free" => Type::Free,
        "arg" => Type::Argument,
        "pair" => Type::Pem(&["crt", "key"]),
        "cert" => Type::Pem(&["crt"]),
        "key" => Type::Pem(&["key"]),
        "cel=" | "bytesize=" => Type::Unit(scalar(&body[..body.len() - 1]).unwrap_or(Scalar::Text)),
        body => scalar(body.trim_end_matches('=')).map_or(Type::Shape(body), Type::Scalar),
    }
}

fn scalar(name: &'static str) -> Option<Scalar> {
    let signed = |bits: u32| Scalar::Integer { least: -(1_i128 << (bits - 1)), most: (1_i128 << (bits - 1)) - 1 };
    let unsigned = |bits: u32| Scalar::Integer { least: 0, most: (1_i128 << bits) - 1 };
    Some(match name {
        "string" => Scalar::Text,
        "trimmed" => Scalar::Trimmed,
        "bool" => Scalar::Bool,
        "int" => signed(64),
        "int32" => signed(32),
        "uint" | "uint64" => unsigned(64),
        "uint32" => unsigned(32),
        "uint16" => unsigned(16),
        "uint8" => unsigned(8),
        "duration" => Scalar::Duration,
        "addr" => Scalar::Address,
        "addrport" => Scalar::AddressPort,
        "prefix" => Scalar::Prefix,
        "mac" => Scalar::Mac,
        "cel" => Scalar::Expression,
        "bytesize" => Scalar::Size,
        "size" => Scalar::Share,
        "disksize" => Scalar::DiskSize,
        "diskcondition" => Scalar::DiskCondition,
        "url" => Scalar::Url,
        "mode" => Scalar::Mode,
        "base64" => Scalar::Base64,
        "portrange" => Scalar::PortRange,
        "table" => Scalar::Table,
        name => match name.strip_prefix("numbered(") {
            Some(names) => Scalar::Numbered(names.strip_suffix(')')?),
            None => Scalar::OneOf(name.strip_prefix("enum(")?.strip_suffix(')')?),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_that_is_named_is_there() {
        fn named(of: &Type) -> Option<&'static str> {
            match of {
                Type::Shape(name) => Some(name),
                Type::Optional(inner) | Type::List(inner, _) | Type::Map(inner, _) => named(inner),
                _ => None,
            }
        }
        assert!(TABLE.kinds.len() > 80, "{}", TABLE.kinds.len());
        for kind in &TABLE.kinds {
            assert!(TABLE.shapes.contains_key(kind.shape), "{}", kind.name);
        }
        for field in TABLE.shapes.values().flatten() {
            if let Some(shape) = named(&field.of) {
                assert!(TABLE.shapes.contains_key(shape), "{}: {shape}", field.key);
            }
        }
    }
}
