//! A request for objects, taken apart.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::Method;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::answer::{Cause, Refusal};
use super::decode::Strictness;
use super::kinds::Kind;
use super::managed::{Manager, Operation};
use super::rbac::User;
use super::select::Selector;
use crate::world::cluster::objects;

/// What a request asks for.
#[derive(Clone)]
pub(super) struct Ask {
    pub(super) method: Method,
    pub(super) kind: Arc<Kind>,
    pub(super) namespace: Option<String>,
    pub(super) name: Option<String>,
    pub(super) subresource: Option<String>,
    pub(super) query: BTreeMap<String, String>,
    pub(super) content_type: String,
    pub(super) shape: Show,
    pub(super) agent: String,
    pub(super) selector: Selector,
    /// Who asks.
    pub(super) user: User,
}

/// In what form objects are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Show {
    Object,
    /// Lines to print.
    Table,
    /// Only their metadata.
    Metadata,
}

impl Show {
    /// What an `Accept` header asks for first.
    pub(super) fn of(accept: &str) -> Self {
        let first =
            accept.split(',').map(str::trim).find(|one| !one.starts_with("application/vnd.kubernetes.protobuf"));
        match first {
            Some(first) if first.contains("as=Table") => Self::Table,
            Some(first) if first.contains("as=PartialObjectMetadata") => Self::Metadata,
            _ => Self::Object,
        }
    }
}

/// Whether a write is only tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Run {
    Wet,
    Dry,
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

    pub(super) fn is(&self, name: &str) -> bool {
        ["true", "1", "True"].contains(&self.flag(name))
    }

    pub(super) fn prefix(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!("/registry/{}/{namespace}/", self.kind.stored),
            None => format!("/registry/{}/", self.kind.stored),
        }
    }

    pub(super) fn key(&self, name: &str) -> String {
        objects::key(&self.kind.stored, self.namespace.as_deref(), name)
    }

    /// Whether the request's selectors want an object.
    pub(super) fn wants(&self, object: &Value) -> bool {
        self.selector.wants(object)
    }

    /// What the API calls it: `get`, `list`, `deletecollection` …
    pub(super) fn verb(&self) -> &'static str {
        match (&self.method, &self.name) {
            (&Method::GET | &Method::HEAD, None) if self.is("watch") => "watch",
            (&Method::GET | &Method::HEAD, None) => "list",
            (&Method::GET | &Method::HEAD, Some(_)) => "get",
            (&Method::POST, _) => "create",
            (&Method::PUT, _) => "update",
            (&Method::PATCH, _) => "patch",
            (&Method::DELETE, None) => "deletecollection",
            (&Method::DELETE, Some(_)) => "delete",
            _ => "",
        }
    }

    pub(super) fn run(&self) -> Run {
        if self.flag("dryRun").is_empty() { Run::Wet } else { Run::Dry }
    }

    pub(super) fn strictness(&self) -> Strictness {
        match self.flag("fieldValidation") {
            "Strict" => Strictness::Strict,
            "Ignore" => Strictness::Ignore,
            _ => Strictness::Warn,
        }
    }

    /// Who writes: `fieldManager`, else the program's name.
    pub(super) fn manager(&self, operation: Operation) -> Manager {
        let given = self.flag("fieldManager");
        let name = if given.is_empty() { self.agent.split('/').next().unwrap_or_default() } else { given };
        let name = if name.is_empty() { "unknown" } else { name };
        let subresource = self.subresource.clone().unwrap_or_default();
        Manager { name: name.to_owned(), operation, version: self.kind.api_version(), subresource }
    }

    /// Refuses options that make no sense.
    pub(super) fn check(&self, options: &str) -> Result<(), Refusal> {
        let mut causes = Vec::new();
        let dry = self.flag("dryRun");
        if !["", "All"].contains(&dry) {
            causes.push(Cause::unsupported("dryRun", &json!(dry), &["All"]));
        }
        let validation = self.flag("fieldValidation");
        if !["", "Ignore", "Warn", "Strict"].contains(&validation) {
            causes.push(Cause::unsupported("fieldValidation", &json!(validation), &["Ignore", "Strict", "Warn"]));
        }
        let applies = self.content_type.starts_with("application/apply-patch");
        if options == "PatchOptions" {
            if applies && self.flag("fieldManager").is_empty() {
                causes.push(Cause::required("fieldManager", "is required for apply patch"));
            }
            if !applies && !self.flag("force").is_empty() {
                causes.push(Cause::forbidden("force", "may not be specified for non-apply patch"));
            }
        }
        if self.flag("fieldManager").len() > 128 {
            causes.push(Cause {
                reason: "FieldValueTooLong",
                message: "Too long: may not be more than 128 bytes".to_owned(),
                field: "fieldManager".to_owned(),
            });
        }
        if causes.is_empty() {
            return Ok(());
        }
        Err(Refusal::invalid_as(&format!("{options}.meta.k8s.io"), ("meta.k8s.io", options), "", &causes))
    }
}
