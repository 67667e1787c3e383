//! Schedules of `CronJobs`, as far as it is noticed that they can't be right (robfig/cron, `ParseStandard`).

/// The fields of a schedule: least, most, and names for numbers.
const FIELDS: [(u32, u32, &[&str]); 5] = [
    (0, 59, &[]),
    (0, 23, &[]),
    (1, 31, &[]),
    (1, 12, &["", "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]),
    (0, 6, &["sun", "mon", "tue", "wed", "thu", "fri", "sat"]),
];
const NAMED: [&str; 7] = ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];

/// Refuses a schedule with the reason.
pub(super) fn check(schedule: &str) -> Result<(), String> {
    if schedule.is_empty() {
        return Err("empty spec string".to_owned());
    }
    if schedule.starts_with('@') {
        let every = schedule.strip_prefix("@every ").is_some_and(|rest| rest.ends_with(['h', 'm', 's']));
        let known = every || NAMED.contains(&schedule);
        return if known { Ok(()) } else { Err(format!("unrecognized descriptor: {schedule}")) };
    }
    let given: Vec<&str> = schedule.split_whitespace().collect();
    if given.len() != FIELDS.len() {
        let (wanted, found) = (FIELDS.len(), given.len());
        return Err(format!("expected exactly {wanted} fields, found {found}: [{}]", given.join(" ")));
    }
    for (text, (least, most, names)) in given.iter().zip(FIELDS) {
        for part in text.split(',').filter(|part| !part.is_empty()) {
            range(part, least, most, names)?;
        }
    }
    Ok(())
}

fn range(text: &str, least: u32, most: u32, names: &[&str]) -> Result<(), String> {
    let number = |one: &str| -> Result<u32, String> {
        let named = names.iter().position(|name| !name.is_empty() && name.eq_ignore_ascii_case(one));
        if let Some(number) = named.and_then(|number| u32::try_from(number).ok()) {
            return Ok(number);
        }
        let invalid = |_| format!("failed to parse int from {one}: strconv.Atoi: parsing \"{one}\": invalid syntax");
        one.parse().map_err(invalid)
    };
    let slashed: Vec<&str> = text.split('/').collect();
    let ends: Vec<&str> = slashed[0].split('-').collect();
    let (start, mut end) = match ends.as_slice() {
        ["*" | "?"] => (least, most),
        [one] => (number(one)?, number(one)?),
        [first, last] => (number(first)?, number(last)?),
        _ => return Err(format!("too many hyphens: {text}")),
    };
    match slashed.as_slice() {
        [_] => {}
        [_, step] => {
            if number(step)? == 0 {
                return Err(format!("step of range should be a positive number: {text}"));
            }
            // `5/10`: from there to the end.
            if ends.len() == 1 {
                end = most;
            }
        }
        _ => return Err(format!("too many slashes: {text}")),
    }
    if start < least {
        return Err(format!("beginning of range ({start}) below minimum ({least}): {text}"));
    }
    if end > most {
        return Err(format!("end of range ({end}) above maximum ({most}): {text}"));
    }
    if start > end {
        return Err(format!("beginning of range ({start}) beyond end of range ({end}): {text}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn schedules_are_read_as_cron_reads_them() {
        for right in ["* * * * *", "*/5 0-6,12 1 jan-mar MON", "5/10 ? * * *", "@hourly", "@every 1h30m", "0  0 * * 6"]
        {
            assert_eq!(check(right), Ok(()), "{right}");
        }
        for (wrong, why) in [
            ("", "empty spec string"),
            ("nope", "expected exactly 5 fields, found 1: [nope]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("a * * * *", "failed to parse int from a: strconv.Atoi: parsing \"a\": invalid syntax"),
            ("@never", "unrecognized descriptor: @never"),
        ] {
            assert_eq!(check(wrong).unwrap_err(), why);
        }
    }
}
