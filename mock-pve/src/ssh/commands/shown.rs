//! Answers as `pvesh` prints them.
//!
//! Purpose: tables, JSON as Perl writes it, YAML (pve-common, PVE/CLIFormatter.pm and PVE/Format.pm). Must not know: what is
//! shown. Start at [`Style::show`].

use std::io;

use serde::Serialize as _;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};
use serde_json::{Map, Value};

use crate::pve::returns::{Column, Render, Shape};

/// The form of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Form {
    /// A table, or a text.
    #[default]
    Text,
    /// One line.
    Json,
    /// Indented.
    JsonPretty,
    /// YAML.
    Yaml,
}

impl Form {
    /// The form of that name.
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "text" => Self::Text,
            "json" => Self::Json,
            "json-pretty" => Self::JsonPretty,
            "yaml" => Self::Yaml,
            _ => return None,
        })
    }
}

/// Whether a part of a table is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Shown,
    Hidden,
}

/// How an answer is printed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    /// Its form.
    pub(super) form: Form,
    /// The lines around and between cells.
    pub(super) border: Part,
    /// The names of columns.
    pub(super) header: Part,
    /// Sizes, times and the like in a form for people.
    pub(super) rendering: Part,
}

/// A table that is laid out.
struct Table<'a> {
    columns: Vec<(&'a str, Render)>,
    /// The lines of each cell.
    rows: Vec<Vec<Vec<String>>>,
}

impl Style {
    /// What is printed; empty: nothing.
    pub(super) fn show(self, answer: &Value, shape: Option<Shape>) -> String {
        let shape = shape.unwrap_or_else(|| guessed(answer));
        if shape == Shape::Null {
            return String::new();
        }
        match self.form {
            Form::Json => format!("{answer}\n"),
            Form::JsonPretty => pretty(answer) + "\n",
            Form::Yaml => yaml(answer),
            Form::Text => self.text(answer, &shape),
        }
    }

    fn text(self, answer: &Value, shape: &Shape) -> String {
        match (shape, answer) {
            (Shape::Object(columns), Value::Object(object)) => self.pairs(object, columns),
            (Shape::List(_), Value::Array(list)) if list.is_empty() => String::new(),
            (Shape::List(columns), Value::Array(list)) if list.iter().all(Value::is_object) => {
                self.table(list, &known_or_all(columns, list))
            }
            (_, Value::Array(list)) => {
                let plain = Self { header: Part::Hidden, ..self };
                let rows: Vec<Value> = list.iter().map(|value| serde_json::json!({"value": value})).collect();
                plain.table(&rows, &[Column { name: "value".to_owned(), render: Render::Text }])
            }
            (_, Value::Null) => String::new(),
            (_, value) => self.cell(Some(value), Render::Text) + "\n",
        }
    }

    /// An object as a table of two columns.
    fn pairs(self, object: &Map<String, Value>, columns: &[Column]) -> String {
        let all: Vec<Column>;
        let columns = if columns.is_empty() {
            all = object.keys().map(|name| Column { name: name.clone(), render: Render::Text }).collect();
            &all
        } else {
            columns
        };
        let row = |column: &Column| {
            let value = object.get(&column.name).filter(|value| !value.is_null())?;
            Some(serde_json::json!({"key": column.name, "value": self.cell(Some(value), column.render)}))
        };
        let rows: Vec<Value> = columns.iter().filter_map(row).collect();
        let text = |name: &str| Column { name: name.to_owned(), render: Render::Text };
        self.table(&rows, &[text("key"), text("value")])
    }

    /// Rows in the order of their first column.
    fn table(self, list: &[Value], columns: &[Column]) -> String {
        let mut list: Vec<Value> = list.to_vec();
        if let Some(first) = columns.first() {
            list.sort_by(|one, other| compare(one.get(&first.name), other.get(&first.name), first.render));
        }
        self.rows(&list, columns)
    }

    /// Rows in the order in which they come.
    pub(super) fn rows(self, list: &[Value], columns: &[Column]) -> String {
        let cell = |row: &Value, column: &Column| {
            let text = self.cell(row.get(&column.name), column.render);
            text.split('\n').map(str::to_owned).collect()
        };
        let rows = list.iter().map(|row| columns.iter().map(|column| cell(row, column)).collect()).collect();
        let columns = columns.iter().map(|column| (column.name.as_str(), column.render)).collect();
        Table { columns, rows }.drawn(self)
    }

    fn cell(self, value: Option<&Value>, render: Render) -> String {
        let Some(value) = value.filter(|value| !value.is_null()) else { return String::new() };
        let plain = || value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        if self.rendering == Part::Hidden {
            return plain();
        }
        let number = value.as_f64().or_else(|| value.as_str()?.parse().ok());
        match (render, number) {
            (Render::Switch, _) => {
                let off = matches!(value.as_str(), Some("" | "0")) || *value == false || number == Some(0.0);
                u8::from(!off).to_string()
            }
            (Render::Yaml, _) => yaml(value).trim_start_matches("---\n").to_owned(),
            (Render::Bytes, Some(bytes)) => size(bytes),
            (Render::Fraction, Some(part)) => format!("{:.2}%", part * 100.0),
            (Render::Duration, Some(seconds)) => duration(seconds),
            (Render::Timestamp, Some(seconds)) => moment(seconds),
            _ => plain(),
        }
    }
}

/// The columns that are known, or all that occur.
fn known_or_all(columns: &[Column], list: &[Value]) -> Vec<Column> {
    if !columns.is_empty() {
        return columns.to_vec();
    }
    let keys = list.iter().filter_map(Value::as_object).flat_map(Map::keys);
    let keys: std::collections::BTreeSet<&String> = keys.collect();
    keys.into_iter().map(|name| Column { name: name.clone(), render: Render::Text }).collect()
}

fn guessed(answer: &Value) -> Shape {
    match answer {
        Value::Object(_) => Shape::Object(Vec::new()),
        Value::Array(list) if list.first().is_none_or(Value::is_object) => Shape::List(Vec::new()),
        Value::Null => Shape::Null,
        _ => Shape::Single,
    }
}

fn compare(one: Option<&Value>, other: Option<&Value>, render: Render) -> std::cmp::Ordering {
    let text =
        |value: Option<&Value>| value.map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    if matches!(render, Render::Text | Render::Switch | Render::Yaml) {
        return text(one).cmp(&text(other));
    }
    let number = |value: Option<&Value>| value.and_then(Value::as_f64);
    number(one).partial_cmp(&number(other)).unwrap_or(std::cmp::Ordering::Equal)
}

impl Table<'_> {
    fn drawn(&self, style: Style) -> String {
        let widths: Vec<usize> = (0..self.columns.len()).map(|at| self.width(at)).collect();
        let rule = |[left, fill, between, right]: [&str; 4]| {
            let parts: Vec<String> = widths.iter().map(|width| fill.repeat(width + 2)).collect();
            format!("{left}{}{right}", parts.join(between))
        };
        let draw = |lines: &mut Vec<String>, ends: [&str; 4]| {
            if style.border == Part::Shown {
                lines.push(rule(ends));
            }
        };
        let mut lines = Vec::new();
        draw(&mut lines, ["┌", "─", "┬", "┐"]);
        let mut between = ["├", "─", "┼", "┤"];
        if style.header == Part::Shown {
            let names: Vec<&str> = self.columns.iter().map(|(name, _)| *name).collect();
            lines.push(self.line(&names, &widths, style.border));
            between = ["╞", "═", "╪", "╡"];
        }
        for (number, row) in self.rows.iter().enumerate() {
            if number > 0 || style.header == Part::Shown {
                draw(&mut lines, between);
                between = ["├", "─", "┼", "┤"];
            }
            for at in 0..row.iter().map(Vec::len).max().unwrap_or(1) {
                let cells: Vec<&str> = row.iter().map(|cell| cell.get(at).map_or("", String::as_str)).collect();
                lines.push(self.line(&cells, &widths, style.border));
            }
        }
        draw(&mut lines, ["└", "─", "┴", "┘"]);
        lines.iter().map(|line| format!("{line}\n")).collect()
    }

    /// The widest that stands in a column. Names count even where they aren't shown.
    fn width(&self, at: usize) -> usize {
        let name = self.columns.get(at).map_or(0, |(name, _)| name.chars().count());
        let cells = self.rows.iter().filter_map(|row| row.get(at)).flatten().map(|line| line.chars().count());
        cells.chain([name]).max().unwrap_or(0)
    }

    fn line(&self, cells: &[&str], widths: &[usize], border: Part) -> String {
        let last = cells.len().saturating_sub(1);
        let cell = |(at, text): (usize, &&str)| {
            let width = widths.get(at).copied().unwrap_or(0);
            let render = self.columns.get(at).map_or(Render::Text, |(_, render)| *render);
            let left = matches!(render, Render::Text | Render::Switch | Render::Yaml);
            match border {
                // The last one is neither filled up nor put to the right.
                Part::Hidden if at == last => (*text).to_owned(),
                _ if left => format!("{text:<width$}"),
                _ => format!("{text:>width$}"),
            }
        };
        let cells: Vec<String> = cells.iter().enumerate().map(cell).collect();
        match border {
            Part::Shown => format!("│ {} │", cells.join(" │ ")),
            Part::Hidden => cells.join(" "),
        }
    }
}

fn size(bytes: f64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut left = bytes;
    let mut unit = 0;
    while left >= 1024.0 && unit + 1 < UNITS.len() {
        left /= 1024.0;
        unit += 1;
    }
    format!("{left:.2} {}", UNITS[unit])
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds of a clock")]
fn duration(seconds: f64) -> String {
    let mut rest = seconds.round().max(0.0) as u64;
    let mut parts = Vec::new();
    for (unit, length) in [("w", 604_800), ("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)] {
        if rest >= length {
            parts.push(format!("{}{unit}", rest / length));
            rest %= length;
        }
    }
    if parts.is_empty() { "0s".to_owned() } else { parts.join(" ") }
}

#[expect(clippy::cast_possible_truncation, reason = "seconds of a clock")]
fn moment(seconds: f64) -> String {
    let time = jiff::Timestamp::from_second(seconds as i64).unwrap_or_default();
    time.strftime("%F %H:%M:%S").to_string()
}

/// Three blanks for each step, and one on both sides of a colon, as Perl's JSON has it.
struct Perl(PrettyFormatter<'static>);

impl Formatter for Perl {
    fn begin_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_array(writer)
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array(writer)
    }

    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_array_value(writer, first)
    }

    fn end_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array_value(writer)
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object(writer)
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object(writer)
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_object_key(writer, first)
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b" : ")
    }

    fn end_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object_value(writer)
    }
}

/// Indented JSON, as Perl writes it.
pub(super) fn pretty(value: &Value) -> String {
    let mut bytes = Vec::new();
    let formatter = Perl(PrettyFormatter::with_indent(b"   "));
    // Writing to a vector doesn't fail, and every key is a text.
    let _ = value.serialize(&mut Serializer::with_formatter(&mut bytes, formatter));
    String::from_utf8(bytes).unwrap_or_default()
}

fn yaml(value: &Value) -> String {
    format!("---\n{}", serde_saphyr::to_string(value).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const STYLE: Style = Style { form: Form::Text, border: Part::Shown, header: Part::Shown, rendering: Part::Shown };

    fn column(name: &str, render: Render) -> Column {
        Column { name: name.to_owned(), render }
    }

    #[test]
    fn a_list_is_a_table_in_the_order_of_its_first_column() {
        let list =
            json!([{"node": "pve2", "mem": 1_610_612_736_u64, "cpu": 0.0512}, {"node": "pve1", "uptime": 90_061}]);
        let shape = Shape::List(vec![
            column("node", Render::Text),
            column("cpu", Render::Fraction),
            column("mem", Render::Bytes),
            column("uptime", Render::Duration),
        ]);
        let expected = "\
┌──────┬───────┬──────────┬─────────────┐
│ node │   cpu │      mem │      uptime │
╞══════╪═══════╪══════════╪═════════════╡
│ pve1 │       │          │ 1d 1h 1m 1s │
├──────┼───────┼──────────┼─────────────┤
│ pve2 │ 5.12% │ 1.50 GiB │             │
└──────┴───────┴──────────┴─────────────┘
";
        assert_eq!(STYLE.show(&list, Some(shape)), expected);
    }

    #[test]
    fn an_object_is_a_table_of_keys_and_values() {
        let object = json!({"version": "8.4", "b": {"y": 1, "x": [true]}});
        let bare = Style { border: Part::Hidden, header: Part::Hidden, ..STYLE };
        assert_eq!(bare.show(&object, None), "b       {\"x\":[true],\"y\":1}\nversion 8.4\n");
        assert_eq!(STYLE.show(&json!([]), None), "");
        assert_eq!(STYLE.show(&json!("UPID:x"), None), "UPID:x\n");
        assert_eq!(bare.show(&json!(["b", "a"]), None), "a\nb\n");
    }

    #[test]
    fn json_and_yaml_are_as_perl_writes_them() {
        let value = json!({"a": [1, {"b": null}], "c": {}, "d": []});
        let pretty = Style { form: Form::JsonPretty, ..STYLE }.show(&value, None);
        let expected = "{\n   \"a\" : [\n      1,\n      {\n         \"b\" : null\n      }\n   ],\n   \"c\" : {},\n   \"d\" : []\n}\n";
        assert_eq!(pretty, expected);
        assert_eq!(Style { form: Form::Json, ..STYLE }.show(&json!({"a": "b"}), None), "{\"a\":\"b\"}\n");
        assert_eq!(Style { form: Form::Yaml, ..STYLE }.show(&json!({"a": "b"}), None), "---\na: b\n");
    }
}
