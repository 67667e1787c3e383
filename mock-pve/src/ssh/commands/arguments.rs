//! `--key value` of the PVE command lines.

use std::collections::BTreeMap;

/// What stands on a command line.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Arguments {
    /// Words without a key, in order.
    pub(super) words: Vec<String>,
    /// Values by key; a key that came several times has several.
    pub(super) options: BTreeMap<String, Vec<String>>,
}

/// Options that may stand without a value, which then means 1.
const SWITCHES: &[&str] = &[
    "acpi",
    "all",
    "autostart",
    "canonical",
    "ciupgrade",
    "current",
    "destroy-unreferenced-disks",
    "delete-source",
    "enabled",
    "force",
    "forceStop",
    "full",
    "human-readable",
    "kvm",
    "live-restore",
    "noborder",
    "noheader",
    "noproxy",
    "numa",
    "onboot",
    "online",
    "overrule-shutdown",
    "protected",
    "protection",
    "purge",
    "quiet",
    "remove",
    "skiplock",
    "start",
    "tablet",
    "template",
    "unique",
    "verbose",
    "vmstate",
    "with-local-disks",
];

impl Arguments {
    /// Takes a command line apart: `--key value`, `--key=value`, `-key value`.
    pub(super) fn parse(line: &[String]) -> Self {
        let mut parsed = Self::default();
        let mut rest = line.iter().peekable();
        while let Some(given) = rest.next() {
            let named = given.strip_prefix("--").or_else(|| given.strip_prefix('-')).filter(|name| !name.is_empty());
            let Some(name) = named.filter(|name| name.starts_with(|c: char| c.is_ascii_alphabetic())) else {
                parsed.words.push(given.clone());
                continue;
            };
            let (key, value) = if let Some((key, value)) = name.split_once('=') {
                (key.to_owned(), value.to_owned())
            } else {
                let alone = SWITCHES.contains(&name)
                    && rest.peek().is_none_or(|next| next.as_str() != "0" && next.as_str() != "1");
                let value = if alone { None } else { rest.next().cloned() };
                (name.to_owned(), value.unwrap_or_else(|| "1".to_owned()))
            };
            parsed.options.entry(key).or_default().push(value);
        }
        parsed
    }

    /// The last value of an option, which is taken out.
    pub(super) fn take(&mut self, key: &str) -> Option<String> {
        self.options.remove(key)?.pop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_values_and_switches_need_none() {
        let line = ["100", "101", "--full", "-name", "x", "--storage=a=b", "--online", "0", "--delete", "a"];
        let mut parsed = Arguments::parse(&line.map(str::to_owned));
        assert_eq!(parsed.words, ["100", "101"]);
        for (key, value) in [("full", "1"), ("name", "x"), ("storage", "a=b"), ("online", "0"), ("delete", "a")] {
            assert_eq!(parsed.take(key).as_deref(), Some(value), "{key}");
        }
        assert!(parsed.options.is_empty());
    }
}
