//! The table and the chart.

use std::fmt::Write as _;
use std::process::Command;

use crate::disks::Disk;
use crate::ways::{Rows, Run, WAYS};

/// A goal: how many times faster than another way, or how many times as slow as one at most.
struct Goal {
    of: &'static str,
    against: &'static str,
    at_least: f64,
    what: &'static str,
}

const GOALS: &[Goal] = &[
    Goal { of: "recast-ssh", against: "pipe", at_least: 10.0, what: "`ssh` ≥ 10× `curl | xz -d | ssh dd`" },
    Goal {
        of: "recast-ssh",
        against: "pipe-best",
        at_least: 4.0,
        what: "`ssh` ≥ 4× `ssh 'xz -T2 -dc | dd conv=sparse'`",
    },
    Goal { of: "recast-upload", against: "pipe-best", at_least: 4.0, what: "`upload` ≥ 4× the same" },
    Goal {
        of: "recast-pull",
        against: "qcow2",
        at_least: 1.0 / 1.15,
        what: "`pull` ≤ 1.15× download + `qemu-img convert`",
    },
    Goal { of: "walk", against: "xz-1", at_least: 10.0, what: "decoder ≥ 10× liblzma on one thread" },
    Goal { of: "recast-ssh-4", against: "recast-ssh", at_least: 1.0 / 1.5, what: "four nodes ≤ 1.5× one" },
];

fn seconds(run: &Run) -> f64 {
    run.seconds
}

fn first_line(program: &str, words: &[&str]) -> String {
    let done = Command::new(program).args(words).output();
    let text = done.map(|done| if done.stdout.is_empty() { done.stderr } else { done.stdout }).unwrap_or_default();
    String::from_utf8_lossy(&text).lines().next().unwrap_or_default().to_owned()
}

/// The page.
pub(crate) fn markdown(measured: &[(Disk, Rows)], rounds: usize) -> String {
    let mut text = String::from("# From the image's URL into the template's volume\n\n");
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let _ = writeln!(
        text,
        "Made by `cargo bench --bench pipeline -- --docs docs`, {rounds} round(s), interleaved, every result compared with the\n\
         disk over its whole length after the clock had stopped. Client and node share {cores} cores and loopback; the node's files\n\
         are on disk, the workstation's in memory, and no way waits for the workstation's disk.\n\
         \"others' CPU\" is what everything else on the computer took meanwhile. Bytes are those on loopback, headers and\n\
         encryption included.\n\
         {}, {}, {}. Ratios count, seconds don't.\n",
        first_line("xz", &["--version"]),
        first_line("qemu-img", &["--version"]),
        first_line("ssh", &["-V"]),
    );
    for (disk, rows) in measured {
        let _ = writeln!(text, "## {}: {} bytes, {} as `.raw.xz`\n", disk.name, disk.bytes, disk.packed);
        text.push_str(
            "| way | median s | min to max | × `ssh` | CPU s | others' CPU s | MB from the image server \
             | MB workstation to node | peak RSS, MiB |\n",
        );
        text.push_str("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n");
        let base = rows.median("recast-ssh", seconds);
        for way in WAYS {
            let Some(median) = rows.median(way.name, seconds) else { continue };
            let runs = &rows.runs[way.name];
            let low = runs.iter().map(seconds).fold(f64::INFINITY, f64::min);
            let high = runs.iter().map(seconds).fold(0.0, f64::max);
            let ratio = base.map_or_else(String::new, |base| format!("{:.1}", median / base));
            let cpu = rows.median(way.name, |run| run.cpu).unwrap_or_default();
            let others = rows.median(way.name, |run| run.others).unwrap_or_default();
            #[expect(clippy::cast_precision_loss, reason = "megabytes")]
            let served = rows.median(way.name, |run| run.served as f64 / 1e6).unwrap_or_default();
            #[expect(clippy::cast_precision_loss, reason = "megabytes")]
            let shipped = rows.median(way.name, |run| run.shipped as f64 / 1e6).unwrap_or_default();
            #[expect(clippy::cast_precision_loss, reason = "mebibytes")]
            let peak = rows.median(way.name, |run| run.peak_kib as f64 / 1024.0).unwrap_or_default();
            let peak = if peak > 0.0 { format!("{peak:.0}") } else { String::new() };
            let bold = if way.ours { "**" } else { "" };
            let _ = writeln!(
                text,
                "| {bold}{}{bold} | {median:.2} | {low:.2} to {high:.2} | {ratio} | {cpu:.1} | {others:.1} | {served:.0} \
                 | {shipped:.0} | {peak} |",
                way.what.replace('|', "\\|")
            );
        }
        text.push('\n');
        // The goals are those of a disk that is mostly zeros.
        if disk.name == "t111" {
            goals(&mut text, disk, rows);
        }
    }
    text.push_str("![seconds, by way](pipeline.svg)\n");
    text
}

fn goals(text: &mut String, disk: &Disk, rows: &Rows) {
    text.push_str("| goal | measured | |\n| --- | ---: | --- |\n");
    let verdict = |met: bool| if met { "met" } else { "missed" };
    for goal in GOALS {
        let of = rows.median(goal.of, seconds);
        let Some((of, against)) = of.zip(rows.median(goal.against, seconds)) else { continue };
        let ratio = against / of;
        let shown = if goal.at_least >= 1.0 { format!("{ratio:.1}×") } else { format!("{:.2}×", 1.0 / ratio) };
        let what = goal.what.replace('|', "\\|");
        let _ = writeln!(text, "| {what} | {shown} | {} |", verdict(ratio >= goal.at_least));
    }
    for name in ["recast-ssh", "recast-upload"] {
        #[expect(clippy::cast_precision_loss, reason = "a ratio")]
        let ratio = rows.median(name, |run| run.shipped as f64 / disk.packed as f64);
        if let Some(ratio) = ratio {
            let _ = writeln!(
                text,
                "| {name}: bytes from the workstation ≤ 1.05× of the packed image | {ratio:.3}× | {} |",
                verdict(ratio <= 1.05)
            );
        }
    }
    for name in ["recast-ssh", "recast-ssh-4", "recast-upload", "recast-pull"] {
        #[expect(clippy::cast_precision_loss, reason = "mebibytes")]
        let peak = rows.median(name, |run| run.peak_kib as f64 / 1024.0);
        if let Some(peak) = peak {
            let _ = writeln!(text, "| {name}: RSS ≤ 64 MiB | {peak:.0} MiB | {} |", verdict(peak <= 64.0));
        }
    }
    text.push('\n');
}

/// Bars of the last disk, by time.
pub(crate) fn svg(measured: &[(Disk, Rows)]) -> String {
    let Some((disk, rows)) = measured.last() else { return String::new() };
    let mut bars: Vec<(&str, bool, f64)> = WAYS
        .iter()
        .filter(|way| !matches!(way.name, "walk" | "xz-1"))
        .filter_map(|way| Some((way.name, way.ours, rows.median(way.name, seconds)?)))
        .collect();
    bars.sort_by(|one, other| one.2.total_cmp(&other.2));
    let longest = bars.iter().map(|bar| bar.2).fold(0.1, f64::max);
    let height = 50 + 26 * bars.len();
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 760 {height}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"760\" height=\"{height}\" fill=\"#ffffff\"/>\n\
         <text x=\"10\" y=\"24\" font-size=\"15\">{}: seconds from URL to volume, median</text>\n",
        disk.name
    );
    let mut y = 42;
    for (name, ours, seconds) in bars {
        let width = (seconds / longest * 500.0).max(1.0);
        let colour = if ours { "#0b7285" } else { "#adb5bd" };
        let _ = writeln!(
            svg,
            "<text x=\"150\" y=\"{0}\" text-anchor=\"end\">{name}</text>\n\
             <rect x=\"160\" y=\"{y}\" width=\"{width:.0}\" height=\"18\" fill=\"{colour}\"/>\n\
             <text x=\"{1:.0}\" y=\"{0}\">{seconds:.1}</text>",
            y + 14,
            168.0 + width
        );
        y += 26;
    }
    svg.push_str("</svg>\n");
    svg
}
