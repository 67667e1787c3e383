//! Overrides of the container runtime's specification, as far as people write them: its sections, and those of the process.
//!
//! Shapes are those of opencontainers/runtime-spec `specs-go/config.go` (v1.3.0); keys that are not in it are ignored there.

use super::Check;
use crate::talos::config::yaml::Value;

const OVERRIDES: &str = "machine.baseRuntimeSpecOverrides";

/// What a value is to be.
#[derive(Clone, Copy)]
enum Shape {
    Text,
    Texts,
    Switch,
    Number,
    Limit,
    Map,
    Maps,
}

const SHAPES: [(&str, Shape); 20] = [
    ("ociVersion", Shape::Text),
    ("hostname", Shape::Text),
    ("domainname", Shape::Text),
    ("process", Shape::Map),
    ("root", Shape::Map),
    ("hooks", Shape::Map),
    ("linux", Shape::Map),
    ("annotations", Shape::Map),
    ("mounts", Shape::Maps),
    ("process.terminal", Shape::Switch),
    ("process.user", Shape::Map),
    ("process.args", Shape::Texts),
    ("process.env", Shape::Texts),
    ("process.cwd", Shape::Text),
    ("process.capabilities", Shape::Map),
    ("process.rlimits", Shape::Maps),
    ("process.noNewPrivileges", Shape::Switch),
    ("process.apparmorProfile", Shape::Text),
    ("process.selinuxLabel", Shape::Text),
    ("process.oomScoreAdj", Shape::Number),
];

/// A limit of the process.
const LIMIT: [(&str, Shape); 3] = [("type", Shape::Text), ("hard", Shape::Limit), ("soft", Shape::Limit)];

impl Shape {
    /// Null is taken for everything.
    fn takes(self, value: &Value) -> bool {
        let all = |shape: Self| value.as_list().is_some_and(|list| list.iter().all(|value| shape.takes(value)));
        match (self, value) {
            (_, Value::Null)
            | (Self::Text, Value::Text(_))
            | (Self::Switch, Value::Bool(_))
            | (Self::Map, Value::Map(_)) => true,
            (Self::Number, Value::Number(number)) => number.normal().parse::<i64>().is_ok(),
            (Self::Limit, Value::Number(number)) => number.normal().parse::<u64>().is_ok(),
            (Self::Texts, _) => all(Self::Text),
            (Self::Maps, _) => all(Self::Map),
            _ => false,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Text => "a text",
            Self::Texts => "a list of texts",
            Self::Switch => "true or false",
            Self::Number => "a whole number",
            Self::Limit => "a whole number from 0 on",
            Self::Map => "a mapping",
            Self::Maps => "a list of mappings",
        }
    }
}

/// Checks them.
pub(super) fn overrides(check: &mut Check<'_>) {
    for (path, shape) in SHAPES {
        let path = format!("{OVERRIDES}.{path}");
        if check.at(&path).is_some_and(|value| !shape.takes(value)) {
            check.error(&path, format!("the container runtime wants {} here", shape.name()));
        }
    }
    let path = format!("{OVERRIDES}.process.rlimits");
    for (at, limit) in check.list(&path).iter().enumerate() {
        for (key, shape) in LIMIT {
            if limit.at(&[key]).is_some_and(|value| !shape.takes(value)) {
                check.error(
                    &format!("{path}[{at}].{key}"),
                    format!("the container runtime wants {} here", shape.name()),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::talos::config::validate::{Mode, validate};

    #[test]
    fn what_the_runtime_cannot_read_is_told() {
        let told = |overrides: &str| {
            let text = format!("machine:\n  type: worker\n  baseRuntimeSpecOverrides: {overrides}\n");
            let found = validate(&text, Mode::Cloud).unwrap();
            found.errors.iter().filter(|error| error.path.contains("baseRuntimeSpec")).count()
        };
        for fine in [
            "{process: {rlimits: [{type: RLIMIT_NOFILE, hard: 1024, soft: 18446744073709551615}]}}",
            "{process: {rlimits: [], env: [a, b], user: null, oomScoreAdj: -5, nope: 1}, nope: 1}",
            "{}",
        ] {
            assert_eq!(told(fine), 0, "{fine}");
        }
        for wrong in [
            "{process: 1}",
            "{process: {rlimits: true}}",
            "{process: {rlimits: [1]}}",
            "{process: {rlimits: [{hard: -1}]}}",
            "{process: {rlimits: [{soft: \"1\"}]}}",
            "{process: {rlimits: [{type: [a]}]}}",
            "{process: {env: [{}]}}",
            "{process: {noNewPrivileges: 1}}",
            "{mounts: {}}",
        ] {
            assert_eq!(told(wrong), 1, "{wrong}");
        }
    }
}
