//! `dd`.

use std::io::{self, Read, Write};
use std::time::Instant;

use super::Job;
use crate::ssh::pipe::words;
use crate::ssh::shell::{self, Opened};

#[expect(clippy::struct_excessive_bools, reason = "they are the command's own flags")]
struct Plan {
    from: Option<String>,
    to: Option<String>,
    input_block: usize,
    output_block: usize,
    count: Option<u64>,
    skip: u64,
    seek: u64,
    truncate: bool,
    whole: bool,
    bytes: bool,
    quiet: bool,
}

fn number(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|letter: char| !letter.is_ascii_digit());
    let factor = match &text[digits.len()..] {
        "" | "c" => 1,
        "w" => 2,
        "b" => 512,
        "kB" => 1000,
        "K" | "k" | "KiB" => 1 << 10,
        "MB" => 1_000_000,
        "M" | "MiB" => 1 << 20,
        "GB" => 1_000_000_000,
        "G" | "GiB" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

fn plan(arguments: &[String]) -> Result<Plan, String> {
    let mut plan = Plan {
        from: None,
        to: None,
        input_block: 512,
        output_block: 512,
        count: None,
        skip: 0,
        seek: 0,
        truncate: true,
        whole: false,
        bytes: false,
        quiet: false,
    };
    for argument in arguments {
        let Some((key, value)) = argument.split_once('=') else {
            return Err(format!("unrecognized operand '{argument}'"));
        };
        let size = || number(value).ok_or_else(|| format!("invalid number: '{value}'"));
        let block = || match size()?.try_into() {
            Ok(0) | Err(_) => Err(format!("invalid number: '{value}'")),
            Ok(block) => Ok(std::cmp::min(block, 64 << 20)),
        };
        match key {
            "if" => plan.from = Some(value.to_owned()),
            "of" => plan.to = Some(value.to_owned()),
            "bs" => (plan.input_block, plan.output_block) = (block()?, block()?),
            "ibs" => plan.input_block = block()?,
            "obs" => plan.output_block = block()?,
            "count" => plan.count = Some(size()?),
            "skip" | "iseek" => plan.skip = size()?,
            "seek" | "oseek" => plan.seek = size()?,
            "status" => plan.quiet = value == "none",
            "conv" | "iflag" | "oflag" => {
                for word in value.split(',') {
                    match word {
                        "notrunc" => plan.truncate = false,
                        "fullblock" => plan.whole = true,
                        "seek_bytes" | "skip_bytes" | "count_bytes" => plan.bytes = true,
                        "sparse" | "fsync" | "fdatasync" | "direct" | "dsync" | "sync" | "noerror" | "nocreat"
                        | "nonblock" | "append" | "noatime" => {}
                        other => return Err(format!("invalid {key} flag: '{other}'")),
                    }
                }
            }
            _ => return Err(format!("unrecognized operand '{argument}'")),
        }
    }
    Ok(plan)
}

/// Blocks and bytes that went through.
#[derive(Default)]
struct Counts {
    whole_in: u64,
    part_in: u64,
    whole_out: u64,
    part_out: u64,
    bytes: u64,
}

pub(super) fn run(job: &mut Job<'_>) -> u8 {
    let plan = match plan(job.arguments) {
        Ok(plan) => plan,
        Err(text) => {
            job.fails(&text);
            job.streams.complain("Try 'dd --help' for more information.");
            return 1;
        }
    };
    if let Some(path) = &plan.from {
        match shell::read(job.host, path) {
            Ok(input) => job.streams.input = input,
            Err(why) => return job.fails(&format!("failed to open '{path}': {why}")),
        }
    }
    if let Some(path) = &plan.to {
        let unit = if plan.bytes { 1 } else { plan.output_block as u64 };
        let at = plan.seek.saturating_mul(unit);
        let how = if plan.truncate { Opened::CutAt(at) } else { Opened::At(at) };
        match shell::write(job.host, path, how, &job.streams) {
            Ok(output) => job.streams.output = output,
            Err(why) => return job.fails(&format!("failed to open '{path}': {why}")),
        }
    }
    let began = Instant::now();
    let mut counts = Counts::default();
    let result = copy(job, &plan, &mut counts);
    let code = match result {
        Ok(()) => 0,
        Err(error) => {
            let to = plan.to.as_deref().unwrap_or("standard output");
            job.fails(&format!("error writing '{to}': {}", words(&error)))
        }
    };
    if let Some(path) = &plan.to {
        job.host.world.notice_file(&job.host.node, path);
    }
    if !plan.quiet {
        let (whole_in, part_in, whole_out, part_out) =
            (counts.whole_in, counts.part_in, counts.whole_out, counts.part_out);
        job.streams.complain(&format!("{whole_in}+{part_in} records in"));
        job.streams.complain(&format!("{whole_out}+{part_out} records out"));
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let rate = counts.bytes as f64 / began.elapsed().as_secs_f64().max(1e-6) / 1e6;
        let seconds = began.elapsed().as_secs_f64();
        let amount = match counts.bytes {
            bytes if bytes < 1000 => format!("{bytes} bytes"),
            bytes => format!("{bytes} bytes ({}.{} MB)", bytes / 1_000_000, bytes / 100_000 % 10),
        };
        job.streams.complain(&format!("{amount} copied, {seconds:.6} s, {rate:.1} MB/s"));
    }
    code
}

fn copy(job: &mut Job<'_>, plan: &Plan, counts: &mut Counts) -> io::Result<()> {
    let unit = if plan.bytes { 1 } else { plan.input_block as u64 };
    let mut input = job.streams.input.clone();
    let skip = plan.skip.saturating_mul(unit);
    io::copy(&mut (&mut input).take(skip), &mut io::sink())?;
    let mut block = vec![0; plan.input_block];
    let mut left = plan.count.map(|count| if plan.bytes { count } else { count.saturating_mul(unit) });
    let mut blocks = plan.count.filter(|_| !plan.bytes);
    loop {
        if left == Some(0) || blocks == Some(0) {
            return Ok(());
        }
        let most = left.map_or(block.len(), |left| usize::try_from(left).unwrap_or(block.len()).min(block.len()));
        let mut filled = 0;
        // Without `fullblock` a short read is a block of its own; from a pipe that is only more blocks, unless counted.
        while filled < most {
            let read = input.read(&mut block[filled..most])?;
            filled += read;
            if read == 0 || (plan.count.is_some() && !plan.whole) {
                break;
            }
        }
        if filled == 0 {
            return Ok(());
        }
        if filled == plan.input_block {
            counts.whole_in += 1;
        } else {
            counts.part_in += 1;
        }
        left = left.map(|left| left - filled as u64);
        blocks = blocks.map(|blocks| blocks - 1);
        job.streams.output.write_all(&block[..filled])?;
        if filled == plan.output_block {
            counts.whole_out += 1;
        } else {
            counts.part_out += 1;
        }
        counts.bytes += filled as u64;
    }
}
