//! A request that was let in, and what it is answered.
//!
//! Purpose: what handlers get and give. Must not know: HTTP.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::auth::Auth;
use super::multipart::Upload;
use super::params::{Params, Value as Given};
use super::schema::Method;
use crate::world::World;
use crate::world::refusal::{Refusal, Rule};
use crate::world::rights::Caller;

/// A checked request.
#[derive(Debug)]
pub(super) struct Call {
    /// The world it is about.
    pub world: World,
    /// The node that was contacted.
    pub local: String,
    /// Who asks; nobody, where no login is needed.
    pub caller: Caller,
    /// Path, query and body.
    pub params: Params,
    /// What is known of the method.
    pub method: Arc<Method>,
    /// The file that came with it.
    pub upload: Option<Upload>,
    /// Tickets are made here.
    pub auth: Arc<Auth>,
}

/// What goes into the envelope.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// `data`.
    pub data: Value,
    /// `total`.
    pub total: Option<usize>,
    /// `changes`.
    pub changes: Option<String>,
    /// Plain text in place of an envelope.
    pub plain: Option<String>,
}

impl From<Value> for Answer {
    fn from(data: Value) -> Self {
        Self { data, ..Self::default() }
    }
}

impl From<String> for Answer {
    fn from(text: String) -> Self {
        Self::from(Value::String(text))
    }
}

impl From<Map<String, Value>> for Answer {
    fn from(object: Map<String, Value>) -> Self {
        Self::from(Value::Object(object))
    }
}

impl From<Vec<Value>> for Answer {
    fn from(list: Vec<Value>) -> Self {
        Self::from(Value::Array(list))
    }
}

impl From<()> for Answer {
    fn from((): ()) -> Self {
        Self::default()
    }
}

/// What a handler returns.
pub(super) type Result = Rule<Answer>;

impl Call {
    /// The node in the path; `localhost` is the one that answers.
    pub(super) fn node(&self) -> String {
        let named = self.params.text("node").unwrap_or_default();
        if named == "localhost" { self.local.clone() } else { named.to_owned() }
    }

    /// The VMID in the path.
    pub(super) fn vmid(&self) -> u32 {
        self.params.number("vmid").unwrap_or_default()
    }

    /// A text parameter that the schema has demanded.
    pub(super) fn text(&self, name: &str) -> &str {
        self.params.text(name).unwrap_or_default()
    }

    /// A parameter as it is read from a config file: switches and numbers are numbers.
    pub(super) fn read_back(&self, name: &str) -> Value {
        if let Some(Given::List(list)) = self.params.0.get(name) {
            return Value::from(list.clone());
        }
        self.method.read_back(name, self.text(name))
    }

    /// The same of an option that is taken apart; there only switches are numbers.
    pub(super) fn taken_apart(&self, name: &str, default_key: &str) -> Value {
        self.method.taken_apart(name, self.text(name), default_key)
    }

    /// A text as `user.cfg` gives it back: without the blanks around it, and nothing where nothing is left.
    pub(super) fn kept(&self, name: &str) -> Option<String> {
        self.params.text(name).map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned)
    }

    /// `skiplock` and the like are for root himself.
    pub(super) fn root_only(&self, names: &[&str]) -> Rule<()> {
        let is_set = |name: &&&str| !matches!(self.params.text(name), None | Some("" | "0"));
        let given = names.iter().find(is_set);
        match given {
            Some(name) if !self.caller.is_root() => Err(Refusal::param(name, "Only root may use this option.")),
            _ => Ok(()),
        }
    }
}
