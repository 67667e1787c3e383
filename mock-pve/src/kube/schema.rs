//! The shapes of the kinds: which fields there are, what they hold, and how they are merged.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::Value;

use super::kinds::Kind;

const TEXT: &str = include_str!("../../schema/kubernetes.txt");

/// What a field may hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Text, with what it is where it is left out.
    Text(Option<&'static str>),
    Number,
    Truth,
    Quantity,
    NumberOrText,
    /// Anything, replaced whole.
    Any,
    /// Anything, merged as far as maps go: what custom resources hold.
    Deduced,
    /// A type of this file.
    Named(&'static str, Presence),
    /// An object of a custom kind.
    Custom,
    List(Box<Shape>),
    Set(Box<Shape>),
    Keyed(Vec<&'static str>, Box<Shape>),
    Map(Box<Shape>),
    WholeMap(Box<Shape>),
}

/// Whether an object of a type counts as there when it is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    Always,
    WhenGiven,
}

/// A type.
#[derive(Debug)]
pub(super) struct Type {
    /// It is replaced whole.
    pub(super) whole: bool,
    pub(super) fields: BTreeMap<&'static str, Shape>,
    /// Fields without which there is none.
    pub(super) required: Vec<&'static str>,
}

static TYPES: LazyLock<BTreeMap<&'static str, Type>> = LazyLock::new(|| {
    let lines = TEXT.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| {
            let (name, fields) = line.split_once(' ')?;
            let fields: Vec<_> = fields.split(' ').filter_map(|field| field.split_once(':')).collect();
            let kind = Type {
                whole: name.ends_with('!'),
                required: fields.iter().filter_map(|(name, _)| name.strip_suffix('*')).collect(),
                fields: fields
                    .into_iter()
                    .map(|(name, shape)| (name.trim_end_matches('*'), Shape::parse(shape)))
                    .collect(),
            };
            Some((name.trim_end_matches('!'), kind))
        })
        .collect()
});

impl Shape {
    fn parse(text: &'static str) -> Self {
        let inner = |text| Box::new(Self::parse(text));
        if let Some(rest) = text.strip_prefix('[') {
            let (keys, item) = rest.split_once(']').unwrap_or(("", rest));
            return match keys {
                "" => Self::List(inner(item)),
                "=" => Self::Set(inner(item)),
                keys => Self::Keyed(keys.split(',').collect(), inner(item)),
            };
        }
        if let Some(item) = text.strip_prefix("{}") {
            return Self::Map(inner(item));
        }
        if let Some(item) = text.strip_prefix("{!}") {
            return Self::WholeMap(inner(item));
        }
        match text {
            "s" => Self::Text(None),
            "n" => Self::Number,
            "b" => Self::Truth,
            "q" => Self::Quantity,
            "i" => Self::NumberOrText,
            "u" => Self::Any,
            text => match text.strip_prefix("s=") {
                Some(default) => Self::Text(Some(default)),
                None if text.ends_with('!') => Self::Named(text.trim_end_matches('!'), Presence::Always),
                None if text.starts_with("n=") => Self::Number,
                None if text.starts_with("b=") => Self::Truth,
                None => Self::Named(text, Presence::WhenGiven),
            },
        }
    }

    /// The shape of a kind's objects.
    pub(super) fn of(kind: &Kind) -> Self {
        if kind.custom.is_some() {
            return Self::Custom;
        }
        let room = if kind.group.is_empty() {
            "core".to_owned()
        } else {
            format!("{}.{}", kind.group.split('.').next().unwrap_or_default(), kind.version)
        };
        let name = format!("{room}.{}", kind.kind);
        TYPES.get_key_value(name.as_str()).map_or(Self::Deduced, |(name, _)| Self::Named(name, Presence::Always))
    }

    /// All types by name, those that this one needs included.
    pub(super) fn with_all(self) -> BTreeMap<&'static str, &'static Type> {
        let mut all = BTreeMap::new();
        let mut open = vec![self];
        while let Some(shape) = open.pop() {
            match shape {
                Self::Named(name, _) => {
                    if let Some(found) = TYPES.get(name).filter(|_| !all.contains_key(name)) {
                        all.insert(name, found);
                        open.extend(found.fields.values().cloned());
                    }
                }
                Self::List(item) | Self::Set(item) | Self::Keyed(_, item) | Self::Map(item) | Self::WholeMap(item) => {
                    open.push(*item);
                }
                _ => {}
            }
        }
        all
    }

    /// The type behind a name.
    pub(super) fn named(&self) -> Option<&'static Type> {
        match self {
            Self::Named(name, _) => TYPES.get(name),
            _ => None,
        }
    }

    /// The shape of a field or key of an object of this shape.
    pub(super) fn field(&self, name: &str) -> Option<Self> {
        match self {
            Self::Named(..) => self.named()?.fields.get(name).cloned(),
            Self::Custom if name == "metadata" => Some(Self::Named("meta.ObjectMeta", Presence::Always)),
            Self::Custom | Self::Deduced => Some(Self::Deduced),
            Self::Map(item) | Self::WholeMap(item) => Some((**item).clone()),
            Self::Any => Some(Self::Any),
            _ => None,
        }
    }

    /// Whether a value of this shape has one owner and is replaced whole.
    pub(super) fn is_whole(&self, value: &Value) -> bool {
        match self {
            Self::Named(..) => !value.is_object() || self.named().is_none_or(|found| found.whole),
            Self::Custom | Self::Map(_) | Self::Deduced => !value.is_object(),
            Self::Keyed(..) | Self::Set(_) => !value.is_array(),
            _ => true,
        }
    }

    /// By what an item of a list is told apart: `k:{…}` or `v:…`, as managed fields write it.
    pub(super) fn item(&self, item: &Value) -> Option<String> {
        match self {
            Self::Set(_) => Some(format!("v:{item}")),
            Self::Keyed(keys, shape) => {
                let mut by = serde_json::Map::new();
                for key in keys {
                    let default = match shape.field(key) {
                        Some(Self::Text(Some(default))) => Some(Value::from(default)),
                        _ => None,
                    };
                    if let Some(value) = item.get(key).cloned().or(default) {
                        by.insert((*key).to_owned(), value);
                    }
                }
                (!by.is_empty()).then(|| format!("k:{}", Value::Object(by)))
            }
            _ => None,
        }
    }

    /// The shape of a list's items.
    pub(super) fn items(&self) -> Self {
        match self {
            Self::List(item) | Self::Set(item) | Self::Keyed(_, item) => (**item).clone(),
            _ => Self::Any,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::kinds;

    #[test]
    fn every_type_that_is_named_exists_and_every_kind_has_one() {
        fn named(shape: &Shape, all: &mut Vec<&'static str>) {
            match shape {
                Shape::Named(name, _) => all.push(name),
                Shape::List(item)
                | Shape::Set(item)
                | Shape::Keyed(_, item)
                | Shape::Map(item)
                | Shape::WholeMap(item) => {
                    named(item, all);
                }
                _ => {}
            }
        }
        let mut all = Vec::new();
        for found in TYPES.values() {
            found.fields.values().for_each(|shape| named(shape, &mut all));
        }
        assert!(all.len() > 300);
        let missing: Vec<_> = all.iter().filter(|name| !TYPES.contains_key(*name)).collect();
        assert!(missing.is_empty(), "{missing:?}");
        for kind in kinds::builtin().iter().filter(|kind| kind.is_stored()) {
            assert!(matches!(Shape::of(kind), Shape::Named(..)), "{} {}", kind.group, kind.kind);
        }
    }
}
