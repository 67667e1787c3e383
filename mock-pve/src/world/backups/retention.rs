//! Which backups stay.

use std::collections::{BTreeMap, BTreeSet};

use super::names::moment;
use crate::world::property::Properties;

/// How many of which are kept: `keep-last` and the like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keep(BTreeMap<String, u64>);

/// What becomes of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// It stays.
    Keep,
    /// It goes.
    Remove,
    /// It stays because somebody said so.
    Protected,
    /// It stays because its name is nobody's.
    Renamed,
}

impl Mark {
    /// As lists show it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Remove => "remove",
            Self::Protected => "protected",
            Self::Renamed => "renamed",
        }
    }
}

/// Periods in the order in which they choose.
const PERIODS: [&str; 6] = ["keep-last", "keep-hourly", "keep-daily", "keep-weekly", "keep-monthly", "keep-yearly"];

impl Keep {
    /// Of a property string that was checked.
    pub fn parse(text: &str) -> Self {
        let number = |value: &str| match value {
            "on" | "yes" | "true" => Some(1),
            "off" | "no" | "false" => Some(0),
            value => value.parse().ok(),
        };
        let parts = Properties::parse(text, "").parts;
        Self(parts.into_iter().filter_map(|(key, value)| Some((key, number(&value)?))).collect())
    }

    /// Of the old option: that many, or all.
    pub fn of_count(count: u64) -> Self {
        let (key, value) = if count == 0 { ("keep-all", 1) } else { ("keep-last", count) };
        Self(BTreeMap::from([(key.to_owned(), value)]))
    }

    /// Whether everything stays by word.
    pub fn keeps_all(&self) -> bool {
        self.0.get("keep-all").is_some_and(|flag| *flag > 0)
    }

    /// How many there may be; 0: no limit.
    pub(super) fn limit(&self) -> u64 {
        if self.keeps_all() { 0 } else { self.0.values().sum() }
    }

    /// `keep-daily=7, keep-last=3`.
    pub(super) fn shown(&self) -> String {
        self.0.iter().map(|(key, count)| format!("{key}={count}")).collect::<Vec<_>>().join(", ")
    }
}

/// What is the same for two backups of one period.
fn period(of: &str, time: u64) -> String {
    let at = moment(time).to_zoned(jiff::tz::TimeZone::UTC);
    match of {
        "keep-hourly" => at.strftime("%Y-%m-%d %H").to_string(),
        "keep-daily" => at.strftime("%Y-%m-%d").to_string(),
        "keep-weekly" => {
            let week = at.date().iso_week_date();
            format!("{}/{}", week.year(), week.week())
        }
        "keep-monthly" => at.strftime("%Y-%m").to_string(),
        "keep-yearly" => at.strftime("%Y").to_string(),
        _ => time.to_string(),
    }
}

/// Marks the backups of one guest by their times: those that are marked stay as they are.
pub fn mark(group: &mut [(u64, Option<Mark>)], keep: &Keep) {
    if keep.keeps_all() || PERIODS.iter().all(|period| keep.0.get(*period).is_none_or(|count| *count == 0)) {
        for (_, mark) in group {
            mark.get_or_insert(Mark::Keep);
        }
        return;
    }
    let mut order: Vec<usize> = (0..group.len()).collect();
    order.sort_by_key(|at| std::cmp::Reverse(group[*at].0));
    for of in PERIODS {
        let count = keep.0.get(of).copied().unwrap_or(0);
        if count == 0 {
            continue;
        }
        let kept = group.iter().filter(|(_, mark)| *mark == Some(Mark::Keep));
        let already: BTreeSet<String> = kept.map(|(time, _)| period(of, *time)).collect();
        let mut new: BTreeSet<String> = BTreeSet::new();
        for at in &order {
            let (time, mark) = &mut group[*at];
            let id = period(of, *time);
            if mark.is_some() || already.contains(&id) {
                continue;
            }
            if new.contains(&id) {
                *mark = Some(Mark::Remove);
            } else if new.len() as u64 >= count {
                break;
            } else {
                new.insert(id);
                *mark = Some(Mark::Keep);
            }
        }
    }
    for (_, mark) in group {
        mark.get_or_insert(Mark::Remove);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(times: &[(u64, Option<Mark>)], keep: &str) -> Vec<&'static str> {
        let mut group = times.to_vec();
        mark(&mut group, &Keep::parse(keep));
        group.into_iter().map(|(_, mark)| mark.unwrap().name()).collect()
    }

    #[test]
    fn a_protected_one_never_goes_and_does_not_count() {
        let day = 86_400;
        let group = [(10 * day, None), (11 * day, Some(Mark::Protected)), (12 * day, None), (12 * day + 60, None)];
        assert_eq!(marks(&group, "keep-last=1"), ["remove", "protected", "remove", "keep"]);
        assert_eq!(marks(&group, "keep-last=2"), ["remove", "protected", "keep", "keep"]);
        assert_eq!(marks(&group, "keep-daily=2"), ["keep", "protected", "remove", "keep"]);
    }

    #[test]
    fn nothing_said_keeps_everything() {
        let group = [(1, None), (2, None)];
        for keep in ["keep-all=1", "keep-all=1,keep-last=1", "keep-last=0", ""] {
            assert_eq!(marks(&group, keep), ["keep", "keep"], "{keep}");
        }
        assert_eq!((Keep::of_count(0).limit(), Keep::of_count(3).limit()), (0, 3));
        assert_eq!(Keep::parse("keep-last=3,keep-daily=7").shown(), "keep-daily=7, keep-last=3");
    }

    #[test]
    fn periods_choose_one_after_the_other() {
        // Two a day for six days: the last one, then the newest of the days before it.
        let times: Vec<(u64, Option<Mark>)> = (0..12).map(|half| (half * 43_200, None)).collect();
        let kept = marks(&times, "keep-last=1,keep-daily=2");
        let kept: Vec<usize> = kept.iter().enumerate().filter(|(_, mark)| **mark == "keep").map(|(at, _)| at).collect();
        assert_eq!(kept, [7, 9, 11]);
    }
}
