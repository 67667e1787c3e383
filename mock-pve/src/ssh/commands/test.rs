//! `test`, `[`.

use super::Job;
use crate::world::node_files::NodeFile;

pub(super) fn run(job: &mut Job<'_>) -> u8 {
    let mut words: Vec<&str> = job.arguments.iter().map(String::as_str).collect();
    if job.name == "[" && words.pop() != Some("]") {
        job.streams.complain("bash: line 1: [: missing `]'");
        return 2;
    }
    match holds(job, &words) {
        Ok(holds) => u8::from(!holds),
        Err(text) => {
            let line = format!("bash: line 1: {}: {text}", job.name);
            job.streams.complain(&line);
            2
        }
    }
}

fn holds(job: &Job<'_>, words: &[&str]) -> Result<bool, String> {
    match words {
        [] => Ok(false),
        [one] => Ok(!one.is_empty()),
        ["!", rest @ ..] => holds(job, rest).map(|holds| !holds),
        ["-n", text] => Ok(!text.is_empty()),
        ["-z", text] => Ok(text.is_empty()),
        [operator @ ("-e" | "-f" | "-d" | "-b" | "-s" | "-r" | "-w" | "-c"), path] => Ok(is(job, operator, path)),
        [left, operator, right] => compared(left, operator, right),
        [operator, _] => Err(format!("{operator}: unary operator expected")),
        _ => Err("too many arguments".to_owned()),
    }
}

fn is(job: &Job<'_>, operator: &str, path: &str) -> bool {
    match job.host.world.node_file(&job.host.node, path) {
        None => false,
        Some(NodeFile::Device { .. }) => matches!(operator, "-e" | "-b" | "-r" | "-w"),
        Some(NodeFile::File { real, .. }) => match operator {
            "-f" => real.is_file(),
            "-d" => real.is_dir(),
            "-s" => std::fs::metadata(real).is_ok_and(|meta| meta.len() > 0),
            "-b" | "-c" => false,
            _ => real.exists(),
        },
        Some(NodeFile::Text(_)) => matches!(operator, "-e" | "-f" | "-r" | "-s"),
        Some(_) => matches!(operator, "-e" | "-c" | "-r" | "-w"),
    }
}

fn compared(left: &str, operator: &str, right: &str) -> Result<bool, String> {
    if let "=" | "==" | "!=" = operator {
        return Ok((left == right) == (operator != "!="));
    }
    let number = |text: &str| text.trim().parse::<i64>().map_err(|_| format!("{text}: integer expression expected"));
    let holds: fn(i64, i64) -> bool = match operator {
        "-eq" => |a, b| a == b,
        "-ne" => |a, b| a != b,
        "-lt" => |a, b| a < b,
        "-le" => |a, b| a <= b,
        "-gt" => |a, b| a > b,
        "-ge" => |a, b| a >= b,
        _ => return Err(format!("{operator}: binary operator expected")),
    };
    Ok(holds(number(left)?, number(right)?))
}
