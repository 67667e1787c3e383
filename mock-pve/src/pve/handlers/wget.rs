//! What `wget --progress=dot:giga` prints, as it stands in the log of a download (GNU Wget 1.21, `LC_ALL=C`).
//!
//! Purpose: one line for each thing that happens on the way to a file. Must not know: how files are fetched. Start at
//! [`Transcript::hears`].

use std::time::Instant;

use crate::pve::fetch::Step;
use crate::world::backups::names;

/// Bytes of a dot, and of a row of them.
const DOT: u64 = 1 << 20;
const ROW: u64 = 32 * DOT;

/// One download, told line by line.
pub(super) struct Transcript<'a> {
    /// Who writes a line down.
    say: Box<dyn FnMut(String) + Send + 'a>,
    /// The file that it goes to.
    to: String,
    began: Instant,
    row_began: Instant,
    rows: u64,
    size: Option<u64>,
}

fn date() -> String {
    names::shown(jiff::Timestamp::now().as_second().unsigned_abs())
}

/// A number below 1024, and by how many powers of that it was divided.
#[expect(clippy::cast_precision_loss, reason = "nobody reads sixteen digits")]
fn scaled(number: u64, by: f64) -> (f64, usize) {
    let (mut value, mut unit) = (number as f64 / by, 0);
    while value >= 1024.0 && unit < 3 {
        (value, unit) = (value / 1024.0, unit + 1);
    }
    (value, unit)
}

/// A speed with as many digits as fit, and its unit.
fn rate(bytes: u64, seconds: f64) -> (String, usize) {
    let (value, unit) = scaled(bytes, seconds.max(1e-6));
    let digits = if value >= 99.95 { 0 } else { usize::from(value < 9.995) + 1 };
    (format!("{value:.digits$}"), unit)
}

/// A duration with as many digits as say something.
fn short(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 0.0005 => "0".to_owned(),
        seconds if seconds < 0.0095 => format!("{seconds:.3}"),
        seconds if seconds < 0.095 => format!("{seconds:.2}"),
        seconds if seconds < 9.95 => format!("{seconds:.1}"),
        seconds => format!("{seconds:.0}"),
    }
}

/// `130K`
fn human(bytes: u64) -> String {
    let (value, unit) = scaled(bytes, 1024.0);
    format!("{value:.*}{}", usize::from(value < 10.0), ["K", "M", "G", "T"][unit])
}

impl<'a> Transcript<'a> {
    /// Of a download into such a file.
    pub(super) fn new(to: String, say: impl FnMut(String) + Send + 'a) -> Self {
        let now = Instant::now();
        Self { say: Box::new(say), to, began: now, row_began: now, rows: 0, size: None }
    }

    /// Writes down what happens.
    pub(super) fn hears(&mut self, step: Step<'_>) {
        match step {
            Step::Asks(url) => (self.say)(format!("--{}--  {url}", date())),
            Step::Unknown(name) => {
                (self.say)(format!("Resolving {name} ({name})... failed: Name or service not known."));
            }
            Step::Connected { host, address } => {
                if host.parse::<std::net::IpAddr>().is_err() {
                    (self.say)(format!("Resolving {host} ({host})... {}", address.ip()));
                }
                (self.say)(format!("{}... connected.", connecting(host, address)));
            }
            Step::Untrusted(host) => (self.say)(format!("ERROR: The certificate of '{host}' is not trusted.")),
            Step::Answered { status, reason } => {
                (self.say)(format!("HTTP request sent, awaiting response... {status} {reason}"));
                if status >= 400 {
                    (self.say)(format!("{} ERROR {status}: {reason}.", date()));
                }
            }
            Step::Moved(to) => (self.say)(format!("Location: {to} [following]")),
            Step::Begins { size, kind } => self.begins(size, kind),
            Step::Came(total) => self.came(total),
            Step::Ended(total) => self.ended(total),
        }
    }

    fn begins(&mut self, size: Option<u64>, kind: Option<&str>) {
        self.size = size;
        let length = match size {
            None => "unspecified".to_owned(),
            Some(size) if size < 1024 => size.to_string(),
            Some(size) => format!("{size} ({})", human(size)),
        };
        let kind = kind.map(|kind| format!(" [{kind}]")).unwrap_or_default();
        (self.say)(format!("Length: {length}{kind}"));
        (self.say)(format!("Saving to: '{}'", self.to));
        self.began = Instant::now();
        self.row_began = self.began;
    }

    fn came(&mut self, total: u64) {
        // The last row waits for the end.
        while total > (self.rows + 1) * ROW {
            self.row((self.rows + 1) * ROW, None);
        }
    }

    /// One row of dots, up to `till`.
    fn row(&mut self, till: u64, took: Option<f64>) {
        let from = self.rows * ROW;
        let mut line = format!("{:>6}K", from / 1024);
        for dot in 0..32 {
            if dot % 8 == 0 {
                line.push(' ');
            }
            line.push(if from + (dot + 1) * DOT <= till { '.' } else { ' ' });
        }
        if let Some(size) = self.size.filter(|size| *size > 0) {
            line.push_str(&format!("{:>3}%", till * 100 / size));
        }
        let (speed, unit) = rate(till - from, self.row_began.elapsed().as_secs_f64());
        line.push_str(&format!(" {speed:>4}{}", [' ', 'K', 'M', 'G'][unit]));
        match (took, self.size) {
            (Some(took), _) => line.push_str(&format!("={}s", short(took))),
            (None, Some(size)) => line.push_str(&format!(" {}", self.left(till, size))),
            (None, None) => {}
        }
        (self.say)(line);
        self.rows += 1;
        self.row_began = Instant::now();
    }

    /// How long it will go on, at the speed so far.
    #[expect(clippy::cast_precision_loss, reason = "a guess anyway")]
    fn left(&self, till: u64, size: u64) -> String {
        let seconds = self.began.elapsed().as_secs_f64() * size.saturating_sub(till) as f64 / (till as f64).max(1.0);
        if seconds < 100.0 { format!("{seconds:.0}s") } else { format!("{:.0}m", seconds / 60.0) }
    }

    fn ended(&mut self, total: u64) {
        let took = self.began.elapsed().as_secs_f64();
        self.came(total);
        if total > 0 {
            self.row(total, Some(took));
        }
        let (speed, unit) = rate(total, took);
        let of = self.size.map(|size| format!("/{size}")).unwrap_or_default();
        let unit = ["B/s", "KB/s", "MB/s", "GB/s"][unit];
        (self.say)(format!("{} ({speed} {unit}) - '{}' saved [{total}{of}]", date(), self.to));
    }
}

/// How it says where it connects to: a name with the address that it found.
pub(super) fn connecting(host: &str, address: std::net::SocketAddr) -> String {
    if host.parse::<std::net::IpAddr>().is_ok() {
        format!("Connecting to {address}")
    } else {
        format!("Connecting to {host} ({host})|{}|:{}", address.ip(), address.port())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines of a download of that many bytes, without what time does to them.
    fn lines(total: u64) -> Vec<String> {
        let mut said = Vec::new();
        let mut transcript = Transcript::new("o".to_owned(), |line| said.push(line));
        transcript.hears(Step::Begins { size: Some(total), kind: Some("application/x-iso9660-image") });
        transcript.hears(Step::Came(total));
        transcript.hears(Step::Ended(total));
        drop(transcript);
        said.iter().map(|line| line.split('%').next().unwrap_or_default().to_owned()).collect()
    }

    #[test]
    fn rows_of_dots_are_those_of_the_original() {
        assert_eq!(
            lines(80_000_000)[..5],
            [
                "Length: 80000000 (76M) [application/x-iso9660-image]",
                "Saving to: 'o'",
                "     0K ........ ........ ........ ........ 41",
                " 32768K ........ ........ ........ ........ 83",
                " 65536K ........ ....                      100",
            ]
        );
        assert_eq!(lines(132_775)[0], "Length: 132775 (130K) [application/x-iso9660-image]");
        assert_eq!(lines(132_775)[2], "     0K                                    100");
        assert!(lines(132_775)[3].ends_with(" - 'o' saved [132775/132775]"));
    }

    #[test]
    fn numbers_have_the_digits_that_fit() {
        assert_eq!(rate(132_775, 0.000_256), ("495".to_owned(), 2));
        assert_eq!(rate(1_500_000, 1.0), ("1.43".to_owned(), 2));
        assert_eq!(
            (short(0.0), short(0.2), short(0.012), short(75.2)),
            ("0".into(), "0.2".into(), "0.01".into(), "75".into())
        );
        assert_eq!(human(1_600), "1.6K");
    }
}
