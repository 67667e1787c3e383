//! `vzdump`, `qmrestore`: backups on the command line.

use super::Job;
use super::arguments::Arguments;

/// `vzdump VMID… [OPTIONS]`
pub(super) fn back_up(job: &mut Job<'_>) -> u8 {
    let mut arguments = Arguments::parse(job.arguments);
    if !arguments.words.is_empty() {
        arguments.options.insert("vmid".to_owned(), vec![arguments.words.join(",")]);
    }
    let path = format!("/nodes/{}/vzdump", job.host.node);
    job.act("POST", &path, arguments.options, "vzdump [<vmid>] [OPTIONS]")
}

/// `qmrestore ARCHIVE VMID [OPTIONS]`
pub(super) fn restore(job: &mut Job<'_>) -> u8 {
    const USAGE: &str = "qmrestore <archive> <vmid> [OPTIONS]";
    let mut arguments = Arguments::parse(job.arguments);
    match arguments.words.as_slice() {
        [archive, vmid] => {
            let given = [("archive", archive.clone()), ("vmid", vmid.clone())];
            arguments.options.extend(given.map(|(key, value)| (key.to_owned(), vec![value])));
        }
        [] | [_] => return job.misused("not enough arguments", USAGE),
        _ => return job.misused("too many arguments", USAGE),
    }
    let path = format!("/nodes/{}/qemu", job.host.node);
    job.act("POST", &path, arguments.options, USAGE)
}
