//! Calendar events.
//!
//! Purpose: the subset of systemd's that the original's schedules are written in, and when one of them comes next. All
//! clocks of a world show UTC. Must not know: what happens then. Start at [`Calendar::parse`].

mod complaint;

use jiff::civil::{Date, Weekday};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

/// When something happens again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Calendar {
    /// Days of the week from Sunday on; none: all of them.
    weekdays: Vec<u32>,
    year: Field,
    month: Field,
    day: Field,
    hour: Field,
    minute: Field,
    second: Field,
}

/// The values that a part of a date or a time may have; none: any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Field(Vec<Piece>);

/// `from`, `from..to`, `from/step`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    from: u32,
    to: u32,
    step: u32,
}

const DAYS: [(&str, &str); 7] = [
    ("sun", "sunday"),
    ("mon", "monday"),
    ("tue", "tuesday"),
    ("wed", "wednesday"),
    ("thu", "thursday"),
    ("fri", "friday"),
    ("sat", "saturday"),
];

/// Days that are looked at before an event counts as one that never comes: leap days on a certain weekday are rare.
const HORIZON: u32 = 366 * 40;

impl Field {
    fn only(value: u32) -> Self {
        Self(vec![Piece { from: value, to: value, step: 1 }])
    }

    fn listed(values: &[u32]) -> Self {
        Self(values.iter().map(|value| Piece { from: *value, to: *value, step: 1 }).collect())
    }

    /// `*`, `1,2`, `8..17`, `0/15`, `*/5`.
    fn parse(text: &str, least: u32, most: u32) -> Option<Self> {
        if text == "*" {
            return Some(Self::default());
        }
        let number = |text: &str| -> Option<u32> {
            let digits = !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
            text.parse().ok().filter(|value| digits && (least..=most).contains(value))
        };
        let pieces = text.split(',').map(|piece| {
            if let Some((from, step)) = piece.split_once('/') {
                let (from, to) = match from.split_once("..") {
                    Some((from, to)) => (number(from)?, number(to)?),
                    None => (if from == "*" { least } else { number(from)? }, most),
                };
                let step = step.parse().ok().filter(|step| *step > 0)?;
                return (from <= to).then_some(Piece { from, to, step });
            }
            if let Some((from, to)) = piece.split_once("..") {
                let (from, to) = (number(from)?, number(to)?);
                return (from <= to).then_some(Piece { from, to, step: 1 });
            }
            number(piece).map(|value| Piece { from: value, to: value, step: 1 })
        });
        pieces.collect::<Option<Vec<_>>>().map(Self)
    }

    fn has(&self, value: u32) -> bool {
        let fits =
            |piece: &Piece| (piece.from..=piece.to).contains(&value) && (value - piece.from).is_multiple_of(piece.step);
        self.0.is_empty() || self.0.iter().any(fits)
    }
}

fn weekday(text: &str) -> Option<u32> {
    let at =
        DAYS.iter().position(|(short, long)| text.eq_ignore_ascii_case(short) || text.eq_ignore_ascii_case(long))?;
    u32::try_from(at).ok()
}

/// `mon`, `mon..fri`, `sat,sun`; a range may go over the end of the week.
fn weekdays(text: &str) -> Option<Vec<u32>> {
    let mut found = Vec::new();
    for part in text.split(',') {
        match part.split_once("..") {
            None => found.push(weekday(part)?),
            Some((from, to)) => {
                let (from, to) = (weekday(from)?, weekday(to)?);
                let more = (to + 7 - from) % 7;
                found.extend((0..=more).map(|day| (from + day) % 7));
            }
        }
    }
    Some(found)
}

impl Calendar {
    /// Every day at midnight.
    fn daily() -> Self {
        let zero = || Field::only(0);
        Self {
            weekdays: Vec::new(),
            year: Field::default(),
            month: Field::default(),
            day: Field::default(),
            hour: zero(),
            minute: zero(),
            second: zero(),
        }
    }

    fn of_word(word: &str) -> Option<Self> {
        let daily = Self::daily();
        let first = Self { day: Field::only(1), ..daily.clone() };
        Some(match word {
            "minutely" => Self { hour: Field::default(), minute: Field::default(), ..daily },
            "hourly" => Self { hour: Field::default(), ..daily },
            "daily" => daily,
            "weekly" => Self { weekdays: vec![1], ..daily },
            "monthly" => first,
            "yearly" | "annually" => Self { month: Field::only(1), ..first },
            "quarterly" => Self { month: Field::listed(&[1, 4, 7, 10]), ..first },
            "semiannually" | "semi-annually" => Self { month: Field::listed(&[1, 7]), ..first },
            _ => return None,
        })
    }

    /// Understands an event: days of the week, a date and a time, none of which has to be there.
    pub fn parse(text: &str) -> Option<Self> {
        let mut words: Vec<&str> = text.split_whitespace().collect();
        if words.len() > 1 && words.last().is_some_and(|zone| zone.eq_ignore_ascii_case("utc")) {
            words.pop();
        }
        if let [word] = words[..]
            && let Some(known) = Self::of_word(word)
        {
            return Some(known);
        }
        let mut event = Self::daily();
        let mut rest = words.as_slice();
        if let [first, more @ ..] = rest
            && let Some(days) = weekdays(first)
        {
            (event.weekdays, rest) = (days, more);
        }
        if let [first, more @ ..] = rest
            && first.contains('-')
        {
            event.set_date(first)?;
            rest = more;
        }
        match rest {
            [] if words.is_empty() => None,
            [] => Some(event),
            [time] => event.set_time(time).map(|()| event),
            _ => None,
        }
    }

    fn set_date(&mut self, text: &str) -> Option<()> {
        let parts: Vec<&str> = text.split('-').collect();
        let (year, month, day) = match parts[..] {
            [month, day] => ("*", month, day),
            [year, month, day] => (year, month, day),
            _ => return None,
        };
        self.year = Field::parse(year, 1970, 9999)?;
        self.month = Field::parse(month, 1, 12)?;
        self.day = Field::parse(day, 1, 31)?;
        Some(())
    }

    /// A lone part is minutes.
    fn set_time(&mut self, text: &str) -> Option<()> {
        let parts: Vec<&str> = text.split(':').collect();
        let (hour, minute, second) = match parts[..] {
            [minute] => ("*", minute, "0"),
            [hour, minute] => (hour, minute, "0"),
            [hour, minute, second] => (hour, minute, second),
            _ => return None,
        };
        self.hour = Field::parse(hour, 0, 23)?;
        self.minute = Field::parse(minute, 0, 59)?;
        self.second = Field::parse(second, 0, 59)?;
        Some(())
    }

    fn has_day(&self, date: Date) -> bool {
        let number = |value: i8| u32::try_from(value).unwrap_or_default();
        let weekday: Weekday = date.weekday();
        (self.weekdays.is_empty() || self.weekdays.contains(&number(weekday.to_sunday_zero_offset())))
            && self.year.has(u32::try_from(date.year()).unwrap_or_default())
            && self.month.has(number(date.month()))
            && self.day.has(number(date.day()))
    }

    /// The first second of a day, from that one on, at which it happens.
    fn second_from(&self, from: u32) -> Option<u32> {
        let hours = (from / 3600..24).filter(|hour| self.hour.has(*hour));
        let minutes = hours.flat_map(|hour| (0..60).map(move |minute| (hour, minute)));
        let minutes = minutes.filter(|(_, minute)| self.minute.has(*minute)).map(|(hour, minute)| hour * 60 + minute);
        let mut seconds = minutes.filter(|minute| minute * 60 + 59 >= from).flat_map(|minute| {
            (0..60).filter(|second| self.second.has(*second)).map(move |second| minute * 60 + second)
        });
        seconds.find(|second| *second >= from)
    }

    /// When it happens next after a moment; none: never again.
    pub fn next(&self, after: u64) -> Option<u64> {
        let from = i64::try_from(after).ok()?.checked_add(1)?;
        let at: Zoned = Timestamp::from_second(from).ok()?.to_zoned(TimeZone::UTC);
        let mut date = at.date();
        let midnight = |date: Date| -> Option<i64> {
            Some(date.at(0, 0, 0, 0).to_zoned(TimeZone::UTC).ok()?.timestamp().as_second())
        };
        let mut earliest = u32::try_from(from - midnight(date)?).ok()?;
        for _ in 0..HORIZON {
            if self.has_day(date)
                && let Some(second) = self.second_from(earliest)
            {
                return u64::try_from(midnight(date)? + i64::from(second)).ok();
            }
            date = date.tomorrow().ok()?;
            earliest = 0;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(event: &str, after: &str) -> String {
        let after = after.parse::<Timestamp>().unwrap().as_second();
        let found = Calendar::parse(event).unwrap().next(u64::try_from(after).unwrap()).unwrap();
        Timestamp::from_second(i64::try_from(found).unwrap()).unwrap().to_string()
    }

    #[test]
    fn an_event_comes_next_when_the_calendar_says() {
        // A Sunday.
        let now = "2026-11-22T04:30:00Z";
        for (event, expected) in [
            ("minutely", "2026-11-22T04:31:00Z"),
            ("hourly", "2026-11-22T05:00:00Z"),
            ("daily", "2026-11-23T00:00:00Z"),
            ("weekly", "2026-11-23T00:00:00Z"),
            ("monthly", "2026-12-01T00:00:00Z"),
            ("quarterly", "2027-01-01T00:00:00Z"),
            ("04:30", "2026-11-23T04:30:00Z"),
            ("21:00", "2026-11-22T21:00:00Z"),
            ("*/5", "2026-11-22T04:35:00Z"),
            ("0/7", "2026-11-22T04:35:00Z"),
            ("2,40", "2026-11-22T04:40:00Z"),
            ("mon..fri 2:30", "2026-11-23T02:30:00Z"),
            ("sat..mon 2:30", "2026-11-23T02:30:00Z"),
            ("Sunday 8..17:0/15", "2026-11-22T08:00:00Z"),
            ("mon,wed 3:0:30 UTC", "2026-11-23T03:00:30Z"),
            ("*-1-1 0:0", "2027-01-01T00:00:00Z"),
            ("sat *-1..7 15:00", "2026-12-05T15:00:00Z"),
            ("2028-2-29", "2028-02-29T00:00:00Z"),
        ] {
            assert_eq!(next(event, now), expected, "{event}");
        }
        let gone = Calendar::parse("2020-1-1").unwrap();
        assert_eq!(gone.next(1_800_000_000), None, "a day that is over");
    }

    #[test]
    fn what_is_no_event_is_refused() {
        for text in [
            "",
            " ",
            "utc",
            "x",
            "mon 25:00",
            "24:00",
            "1:60",
            "mon..xyz",
            "5..2",
            "0/0",
            "1-2-3-4",
            "1:2:3:4",
            "daily daily",
        ] {
            assert_eq!(Calendar::parse(text), None, "{text}");
        }
    }
}
