//! Protobuf messages written field by field: the specs that clients decode by type.

use std::net::IpAddr;

use ipnet::IpNet;
use prost::encoding;
use prost_types::{ListValue, Struct, Value as Wire, value::Kind};
use serde_json::Value;

/// A message in the making.
#[derive(Clone, Debug, Default)]
pub(super) struct Proto(Vec<u8>);

impl Proto {
    pub(super) fn text(mut self, field: u32, value: &str) -> Self {
        if !value.is_empty() {
            encoding::string::encode(field, &value.to_owned(), &mut self.0);
        }
        self
    }

    pub(super) fn texts<'a>(self, field: u32, values: impl IntoIterator<Item = &'a str>) -> Self {
        values.into_iter().fold(self, |this, value| this.bytes(field, value.as_bytes()))
    }

    pub(super) fn flag(mut self, field: u32, value: bool) -> Self {
        if value {
            encoding::bool::encode(field, &value, &mut self.0);
        }
        self
    }

    pub(super) fn number(mut self, field: u32, value: u64) -> Self {
        if value != 0 {
            encoding::uint64::encode(field, &value, &mut self.0);
        }
        self
    }

    pub(super) fn bytes(mut self, field: u32, value: &[u8]) -> Self {
        encoding::bytes::encode(field, &value.to_vec(), &mut self.0);
        self
    }

    pub(super) fn message(self, field: u32, value: &Self) -> Self {
        self.bytes(field, &value.0)
    }

    /// An address, as Talos' `common.NetIP`.
    pub(super) fn address(self, field: u32, value: IpAddr) -> Self {
        self.message(field, &Self::default().bytes(1, &octets(value)))
    }

    /// An address with its prefix, as Talos' `common.NetIPPrefix`.
    pub(super) fn prefix(self, field: u32, value: IpNet) -> Self {
        self.message(field, &Self::default().bytes(1, &octets(value.addr())).number(2, value.prefix_len().into()))
    }

    /// A `google.protobuf.Struct`.
    pub(super) fn object(self, field: u32, value: &Value) -> Self {
        use prost::Message as _;
        self.bytes(field, &structure(value).encode_to_vec())
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.0
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn structure(value: &Value) -> Struct {
    let map = value.as_object().into_iter().flatten();
    Struct { fields: map.map(|(key, value)| (key.clone(), wire(value))).collect() }
}

fn wire(value: &Value) -> Wire {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(value) => Kind::BoolValue(*value),
        Value::Number(value) => Kind::NumberValue(value.as_f64().unwrap_or_default()),
        Value::String(value) => Kind::StringValue(value.clone()),
        Value::Array(values) => Kind::ListValue(ListValue { values: values.iter().map(wire).collect() }),
        Value::Object(_) => Kind::StructValue(structure(value)),
    };
    Wire { kind: Some(kind) }
}
