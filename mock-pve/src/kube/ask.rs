//! A request, taken apart.

use std::collections::BTreeMap;

use http::Method;
use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::kinds::Kind;
use crate::world::cluster::objects;

/// What a request asks for.
#[derive(Clone)]
pub(super) struct Ask {
    pub(super) method: Method,
    pub(super) kind: &'static Kind,
    pub(super) namespace: Option<String>,
    pub(super) name: Option<String>,
    pub(super) subresource: Option<String>,
    pub(super) query: BTreeMap<String, String>,
    pub(super) content_type: String,
    /// The caller wants lines to print, not objects.
    pub(super) table: bool,
}

pub(super) fn parse_query(query: &str) -> BTreeMap<String, String> {
    let decode = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(key, value)| (decode(key), decode(value)))
        .collect()
}

impl Ask {
    pub(super) fn flag(&self, name: &str) -> &str {
        self.query.get(name).map_or("", String::as_str)
    }

    pub(super) fn prefix(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!("/registry/{}/{namespace}/", self.kind.stored),
            None => format!("/registry/{}/", self.kind.stored),
        }
    }

    pub(super) fn key(&self, name: &str) -> String {
        objects::key(self.kind.stored, self.namespace.as_deref(), name)
    }

    /// Whether the request's selectors want an object.
    pub(super) fn wants(&self, object: &Value) -> bool {
        let labels = self.flag("labelSelector").split(',').filter(|term| !term.is_empty()).all(|term| {
            let found = |key: &str| object["metadata"]["labels"].get(key).and_then(Value::as_str);
            match (term.split_once("!="), term.split_once('=')) {
                (Some((key, value)), _) => found(key.trim()) != Some(value.trim()),
                (None, Some((key, value))) => found(key.trim()) == Some(value.trim_start_matches('=').trim()),
                (None, None) => {
                    term.strip_prefix('!').map_or_else(|| found(term).is_some(), |key| found(key).is_none())
                }
            }
        });
        let fields = self.flag("fieldSelector").split(',').filter(|term| !term.is_empty()).all(|term| {
            let Some((path, value)) = term.split_once('=') else { return true };
            let (path, unequal) = path.strip_suffix('!').map_or((path, false), |path| (path, true));
            let found = object.pointer(&format!("/{}", path.replace('.', "/"))).and_then(Value::as_str);
            (found.unwrap_or_default() == value.trim_start_matches('=')) != unequal
        });
        labels && fields
    }
}
