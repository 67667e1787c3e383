//! `sleep`, on the world's clock.

use super::Job;

pub(super) fn run(job: &mut Job<'_>) -> u8 {
    let mut seconds = 0.0;
    for argument in job.arguments {
        match interval(argument) {
            Some(more) => seconds += more,
            None => return misused(job, &format!("invalid time interval ‘{argument}’")),
        }
    }
    if job.arguments.is_empty() {
        return misused(job, "missing operand");
    }
    let (clock, visit) = (job.host.world.clock().clone(), job.host.visit.clone());
    job.host.runtime.block_on(async {
        tokio::select! {
            () = clock.sleep(seconds) => {}
            () = visit.over() => {
                visit.breaks();
            }
        }
    });
    visit.is_cut().unwrap_or(0)
}

fn misused(job: &mut Job<'_>, text: &str) -> u8 {
    job.fails(text);
    job.streams.complain("Try 'sleep --help' for more information.");
    1
}

/// `1.5`, `2m`, `infinity` in seconds.
fn interval(text: &str) -> Option<f64> {
    let (number, unit) = match text.strip_suffix(['s', 'm', 'h', 'd']) {
        Some(number) => (number, text.chars().next_back()),
        None => (text, None),
    };
    let factor = match unit {
        Some('m') => 60.0,
        Some('h') => 3600.0,
        Some('d') => 86400.0,
        _ => 1.0,
    };
    number.parse::<f64>().ok().filter(|number| *number >= 0.0).map(|number| number * factor)
}
