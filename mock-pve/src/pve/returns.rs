//! What methods return, as far as the command line needs it for its tables.
//!
//! Purpose: shape and columns by path (`schema/returns.txt`; Proxmox VE 8.4 and 9.1, `returns` of the API's schema), and
//! what lies below a path. Must not know: how a table is drawn. Start at [`Api::shape`] and [`Api::children`].

use serde_json::Value;

use super::http::Api;
use crate::world::PveVersion;

const TABLE: &str = include_str!("../../schema/returns.txt");

/// How the values of a column are made readable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Render {
    /// As they are, to the left.
    Text,
    /// As they are, to the right.
    Number,
    /// 1 or 0.
    Switch,
    /// Bytes, in the unit that fits.
    Bytes,
    /// Percent of 1.
    Fraction,
    /// Seconds, in weeks, days, hours, minutes and seconds.
    Duration,
    /// Seconds since 1970, as a date and a time.
    Timestamp,
    /// As YAML.
    Yaml,
}

/// A property of what is returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// How it is shown.
    pub render: Render,
}

/// What a method returns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Nothing.
    Null,
    /// A value.
    Single,
    /// An object; the properties that are known, none: all there are.
    Object(Vec<Column>),
    /// A list of objects, likewise.
    List(Vec<Column>),
}

fn column(text: &str) -> Column {
    let (name, render) = text.rsplit_once(':').unwrap_or((text, "s"));
    let render = match render {
        "n" => Render::Number,
        "b" => Render::Switch,
        "bytes" => Render::Bytes,
        "fraction" => Render::Fraction,
        "duration" => Render::Duration,
        "timestamp" | "timestamp_gmt" => Render::Timestamp,
        "yaml" => Render::Yaml,
        _ => Render::Text,
    };
    Column { name: name.to_owned(), render }
}

/// What the GET method of that pattern returns; `None`: nothing is known of it.
fn shape(pve: PveVersion, pattern: &str) -> Option<Shape> {
    let release = if pve == PveVersion::V8 { '8' } else { '9' };
    TABLE.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let mut fields = line.split('\t');
        let fits = fields.next() == Some(pattern) && fields.next()?.contains(release);
        let shape = fields.next().filter(|_| fits)?;
        let columns =
            fields.next().unwrap_or_default().split(' ').filter(|text| !text.is_empty()).map(column).collect();
        Some(match shape {
            "null" => Shape::Null,
            "object" => Shape::Object(columns),
            "list" => Shape::List(columns),
            _ => Shape::Single,
        })
    })
}

/// The property that names the children: the one that the path below it has in braces, or else one of these.
const NAMES: [&str; 7] = ["name", "subdir", "id", "volid", "type", "method", "path"];

/// What lies directly below a pattern, in whichever way.
fn is_below(pattern: &str, parent: &str) -> bool {
    pattern.strip_prefix(parent.trim_end_matches('/')).is_some_and(|rest| rest.len() > 1 && rest.starts_with('/'))
}

impl Api {
    /// What `GET path` returns; `None`: nothing is known of it.
    pub fn shape(&self, path: &str) -> Option<Shape> {
        shape(self.release(), &self.find("GET", path)?.pattern)
    }

    /// The names in what `GET path` answered, if anything lies below it.
    pub fn children(&self, path: &str, answer: &Value) -> Option<Vec<String>> {
        let parent = self.find("GET", path)?.pattern;
        let mut below = self.patterns("GET").filter(|pattern| is_below(pattern, &parent)).peekable();
        below.peek()?;
        let in_braces = below.find_map(|pattern| {
            let next = pattern[parent.trim_end_matches('/').len() + 1..].split('/').next()?;
            next.strip_prefix('{')?.strip_suffix('}').map(str::to_owned)
        });
        let name = |row: &Value| {
            let mut keys = in_braces.iter().map(String::as_str).chain(NAMES);
            let found = keys.find_map(|key| row.get(key))?;
            Some(found.as_str().map_or_else(|| found.to_string(), str::to_owned))
        };
        let mut names: Vec<String> = answer.as_array()?.iter().filter_map(name).collect();
        names.sort();
        Some(names)
    }

    /// What may be done with a path: `Drwcd`, with a dash for each that may not.
    pub fn capabilities(&self, path: &str) -> String {
        let read = match self.find("GET", path) {
            None => "--",
            Some(found) if self.patterns("GET").any(|pattern| is_below(pattern, &found.pattern)) => "Dr",
            Some(_) => "-r",
        };
        let others = [("PUT", 'w'), ("POST", 'c'), ("DELETE", 'd')];
        let others = others.iter().map(|(verb, letter)| if self.find(verb, path).is_some() { *letter } else { '-' });
        read.chars().chain(others).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_that_must_be_there_come_first() {
        let Some(Shape::List(columns)) = shape(PveVersion::V8, "/nodes") else { panic!("no list") };
        let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        assert_eq!(names[..4], ["node", "status", "cpu", "level"]);
        assert_eq!((columns[2].render, columns[5].render), (Render::Fraction, Render::Bytes));
        assert_eq!(shape(PveVersion::V8, "/nonsense"), None);
    }

    #[test]
    fn every_line_of_the_table_is_a_method_of_its_releases() {
        let load = |version| super::super::schema::Schema::load(version).unwrap();
        let (eight, nine) = (load(PveVersion::V8), load(PveVersion::V9));
        for line in TABLE.lines().filter(|line| !line.starts_with('#')) {
            let mut fields = line.split('\t');
            let (path, releases) = (fields.next().unwrap(), fields.next().unwrap());
            for (release, schema) in [('8', &eight), ('9', &nine)] {
                assert!(!releases.contains(release) || schema.method("GET", path).is_some(), "{line}");
            }
        }
    }
}
