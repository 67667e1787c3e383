//! `kill`, as bash has it: for processes of guests and tasks.

use super::Job;
use crate::world::processes::Signal;

const USAGE: &str = "kill: usage: kill [-s sigspec | -n signum | -sigspec] pid | jobspec ... or kill -l [sigspec]";

/// What a signal of that name or number comes to; `None`: there is none.
fn signal(name: &str) -> Option<Signal> {
    let name = name.to_ascii_uppercase();
    match name.strip_prefix("SIG").unwrap_or(&name) {
        "0" | "EXIT" => Some(Signal::Nothing),
        "9" | "KILL" => Some(Signal::Kill),
        "1" | "HUP" | "2" | "INT" | "3" | "QUIT" | "15" | "TERM" => Some(Signal::Terminate),
        _ => None,
    }
}

pub(super) fn run(job: &mut Job<'_>) -> u8 {
    let arguments = job.arguments;
    let complain = |job: &mut Job<'_>, text: &str| job.streams.complain(&format!("bash: line 1: kill: {text}"));
    let (named, pids) = match arguments {
        [flag, name, rest @ ..] if flag == "-s" || flag == "-n" => (name.as_str(), rest),
        [flag, rest @ ..] if flag.len() > 1 && flag.starts_with('-') && flag != "--" => (&flag[1..], rest),
        all => ("TERM", all),
    };
    let Some(signal) = signal(named) else {
        complain(job, &format!("{named}: invalid signal specification"));
        return 1;
    };
    let pids = pids.strip_prefix(&["--".to_owned()]).unwrap_or(pids);
    if pids.is_empty() {
        job.streams.complain(USAGE);
        return 2;
    }
    let mut code = 0;
    for text in pids {
        let Ok(pid) = text.parse::<u32>() else {
            complain(job, &format!("{text}: arguments must be process or job IDs"));
            code = 1;
            continue;
        };
        if !job.host.world.send_signal(&job.host.node, pid, signal) {
            complain(job, &format!("({pid}) - No such process"));
            code = 1;
        }
    }
    code
}
