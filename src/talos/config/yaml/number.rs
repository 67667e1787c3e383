//! Numbers, and dates, with the text that they were written as.
//!
//! Must not know: where they stand.

use super::{Value, plain};

/// What a number is to the real generator's library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// A whole one.
    Whole,
    /// One with a fraction or an exponent, even if there is nothing behind its point.
    Fraction,
    /// A date, which is none but is told from texts as numbers are.
    Date,
    /// A text that stands without quotes, whatever readers take it for.
    Bare,
}

/// A number as it was written; equal when the normal forms are equal.
#[derive(Clone)]
pub struct Number {
    pub(super) raw: String,
    pub(super) normal: String,
    pub(super) sort: Sort,
}

impl Number {
    /// Reads `raw` as the YAML 1.1/1.2 mix that the real generator's library resolves; `None` when it is no number.
    pub fn parse(raw: &str) -> Option<Self> {
        plain::number(raw).map(|(normal, sort)| Self { raw: raw.to_owned(), normal, sort })
    }

    /// A date, as RFC 3339 has it.
    pub(super) fn date(raw: &str, normal: String) -> Self {
        Self { raw: raw.to_owned(), normal, sort: Sort::Date }
    }

    /// A text without the quotes that it would have for the sake of readers of YAML 1.1: only on its way out. `None`
    /// when it has none for their sake.
    pub fn bare(text: &str) -> Option<Self> {
        plain::bare(text).map(|normal| Self { raw: text.to_owned(), normal, sort: Sort::Bare })
    }

    /// What the real generator writes for a value that has no name: no reader takes it.
    pub fn nameless(shown: &str) -> Self {
        Self { raw: shown.to_owned(), normal: shown.to_owned(), sort: Sort::Bare }
    }

    /// What it is.
    pub fn sort(&self) -> Sort {
        self.sort
    }

    /// The number whose decimal form is `normal`, written as file modes are: `0o644`. Equal to the decimal one only in
    /// what it means, not in its form.
    pub fn octal(normal: &str) -> Option<Self> {
        let octal = |mode: u32| Self { raw: normal.to_owned(), normal: format!("{mode:#o}"), sort: Sort::Whole };
        normal.parse().ok().map(octal)
    }

    /// What it counts, if there is nothing behind its point.
    pub fn whole(&self) -> Option<i128> {
        match self.sort {
            Sort::Whole => self.normal.parse().ok(),
            Sort::Fraction => plain::whole(self.normal.parse().ok()?),
            Sort::Date | Sort::Bare => None,
        }
    }

    /// This one as JSON has it: whole where nothing is behind its point, unless it is very large, and however it was
    /// written. A date is a text there.
    pub fn in_json(&self) -> Option<Value> {
        match self.sort {
            Sort::Date => Some(Value::Text(self.normal.clone())),
            Sort::Bare => Some(Value::Text(self.raw.clone())),
            Sort::Whole => Self::parsed(&self.normal).map(Value::Number),
            Sort::Fraction => {
                let value: f64 = self.normal.parse().ok().filter(|value: &f64| value.is_finite())?;
                // Its shortest digits, filled up with zeros.
                let is_whole = value.abs() < 1e21 && plain::whole(value).is_some();
                let text = if is_whole { format!("{value}") } else { self.normal.clone() };
                Self::parsed(if text == "-0" { "0" } else { &text }).map(Value::Number)
            }
        }
    }

    /// This one, which stood in a JSON text, in the only form that is left of it behind there.
    #[must_use]
    pub fn of_json(&self) -> Self {
        let normal = if self.raw == "-0" { "0" } else { self.normal.as_str() };
        Self::parsed(normal).unwrap_or_else(|| self.clone())
    }

    /// A number as if it had been written the way this program writes it.
    fn parsed(text: &str) -> Option<Self> {
        Self::parse(text).map(|number| Self { raw: number.normal.clone(), ..number })
    }

    /// As it stood in the source: what a string-typed field takes.
    pub fn raw(&self) -> &str {
        &self.raw
    }

    /// As it is written: decimal, shortest form.
    pub fn normal(&self) -> &str {
        &self.normal
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.normal == other.normal
    }
}
