//! Entries of a config that has sections: what each type of entry may and must say.
//!
//! Purpose: the checks that all such configs share (Proxmox VE 8.4, PVE/SectionConfig.pm, `check_config` and
//! `delete_from_config`). Must not know: what an option means, where entries are kept. Start at [`Section::of`].

use serde_json::{Map, Value};

use super::refusal::{Refusal, Rule};

/// An entry.
pub type Entry = Map<String, Value>;

/// One type of entries.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// Its name.
    pub kind: &'static str,
    /// Options that an entry must have.
    pub required: &'static [&'static str],
    /// Options that it may have.
    pub optional: &'static [&'static str],
    /// Options that it may have from the beginning, and that never change then.
    pub fixed: &'static [&'static str],
}

impl Section {
    /// The type of that name among those of a config.
    pub fn of<'a>(types: &'a [Self], kind: &str) -> Option<&'a Self> {
        types.iter().find(|section| section.kind == kind)
    }

    fn knows(&self, key: &str) -> bool {
        [self.required, self.optional, self.fixed].iter().any(|keys| keys.contains(&key))
    }

    fn check_known(&self, given: &Entry) -> Rule<()> {
        for (key, value) in given.iter().filter(|(key, _)| *key != "type") {
            if !self.knows(key) {
                return Err(Refusal::failed(format!("unexpected property '{key}'\n")));
            }
            if value.as_str().is_some_and(|text| text.contains(['\n', '\r'])) {
                return Err(Refusal::failed("property contains a line feed\n"));
            }
        }
        Ok(())
    }

    /// Refuses what can't be a new entry.
    pub fn check_new(&self, given: &Entry) -> Rule<()> {
        self.check_known(given)?;
        match self.required.iter().find(|key| !given.contains_key(**key)) {
            Some(key) => Err(Refusal::failed(format!("missing value for required option '{key}'\n"))),
            None => Ok(()),
        }
    }

    /// Refuses what can't be said of an entry that is there.
    pub fn check_change(&self, given: &Entry) -> Rule<()> {
        if let Some(key) = given.keys().find(|key| self.fixed.contains(&key.as_str())) {
            return Err(Refusal::failed(format!("can't change value of fixed parameter '{key}'\n")));
        }
        self.check_known(given)
    }

    /// Takes options out of an entry that gets others at the same time.
    pub fn delete(&self, entry: &mut Entry, given: &Entry, keys: &[String]) -> Rule<()> {
        for key in keys {
            let text = if !self.knows(key) {
                format!("no such option '{key}'\n")
            } else if self.required.contains(&key.as_str()) {
                format!("unable to delete required option '{key}'\n")
            } else if self.fixed.contains(&key.as_str()) {
                format!("unable to delete fixed option '{key}'\n")
            } else if given.contains_key(key) {
                format!("cannot set and delete property '{key}' at the same time!\n")
            } else {
                entry.remove(key);
                continue;
            };
            return Err(Refusal::failed(text));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn options_are_checked_by_type() {
        let types = [Section { kind: "a", required: &["server"], optional: &["port"], fixed: &["realm"] }];
        assert!(Section::of(&types, "b").is_none());
        let section = Section::of(&types, "a").unwrap();
        let entry = |value: Value| value.as_object().cloned().unwrap();
        let full = entry(json!({"type": "a", "server": "s", "realm": "r", "port": 1}));
        assert_eq!(section.check_new(&full), Ok(()));
        let refused = [
            section.check_new(&entry(json!({"port": 1}))),
            section.check_new(&entry(json!({"server": "s", "x": 1}))),
            section.check_new(&entry(json!({"server": "s\nport 2"}))),
            section.check_change(&entry(json!({"realm": "r"}))),
            section.delete(&mut full.clone(), &entry(json!({"port": 2})), &["port".to_owned()]),
            section.delete(&mut full.clone(), &Entry::new(), &["server".to_owned()]),
            section.delete(&mut full.clone(), &Entry::new(), &["x".to_owned()]),
        ];
        let texts = refused.map(|result| result.unwrap_err().text());
        assert_eq!(
            texts,
            [
                "missing value for required option 'server'",
                "unexpected property 'x'",
                "property contains a line feed",
                "can't change value of fixed parameter 'realm'",
                "cannot set and delete property 'port' at the same time!",
                "unable to delete required option 'server'",
                "no such option 'x'",
            ]
        );
        let mut left = full;
        section.delete(&mut left, &Entry::new(), &["port".to_owned()]).unwrap();
        assert_eq!(left.get("port"), None);
    }
}
