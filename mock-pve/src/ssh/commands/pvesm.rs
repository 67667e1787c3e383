//! `pvesm`: storages on the command line.

use serde_json::Value;

use super::Job;
use super::arguments::Arguments;
use super::remote::{DIED, Parameters, parameters};
use crate::world::disks::{Place, formatting};
use crate::world::property::parse_size;
use crate::world::refusal::Refusal;
use crate::world::state::VolumeKey;
use crate::world::volume::{Family, parse_name, shown_path};

const USAGE: &str = "USAGE: pvesm <COMMAND> [ARGS] [OPTIONS]";

pub(super) fn run(job: &mut Job<'_>) -> u8 {
    let Some((command, rest)) = job.arguments.split_first() else {
        job.streams.complain(&format!("ERROR: no command specified\n{USAGE}"));
        return DIED;
    };
    let arguments = Arguments::parse(rest);
    match command.as_str() {
        "alloc" => alloc(job, arguments),
        "path" => path(job, &arguments),
        "free" => free(job, &arguments),
        "status" => status(job, arguments),
        "list" => list(job, arguments),
        "set" => {
            let [storage] = arguments.words.as_slice() else {
                return job.misused("not enough arguments", "pvesm set <storage> [OPTIONS]");
            };
            let path = format!("/storage/{storage}");
            job.act("PUT", &path, arguments.options, "pvesm set <storage> [OPTIONS]")
        }
        other => {
            job.streams.complain(&format!("ERROR: unknown command 'pvesm {other}'\n{USAGE}"));
            DIED
        }
    }
}

fn refused(job: &mut Job<'_>, refusal: &Refusal) -> u8 {
    job.streams.complain(refusal.text().trim_end());
    DIED
}

fn alloc(job: &mut Job<'_>, mut arguments: Arguments) -> u8 {
    const ALLOC: &str = "pvesm alloc <storage> <vmid> <filename> <size> [OPTIONS]";
    let format = arguments.take("format");
    let [storage, vmid, name, size] = arguments.words.as_slice() else {
        return job.misused("not enough arguments", ALLOC);
    };
    let bytes = if size.ends_with(|letter: char| letter.is_ascii_digit()) {
        size.parse::<u64>().ok().and_then(|kib| kib.checked_mul(1024))
    } else {
        parse_size(size)
    };
    let (Some(bytes), Ok(number)) = (bytes, vmid.parse::<u32>()) else {
        return job.misused("Parameter verification failed.", ALLOC);
    };
    let node = &job.host.node;
    let made = if name.is_empty() {
        let default = {
            let state = job.host.world.state();
            state.storage_on(storage, node).map(|found| found.formats()[0].to_owned())
        };
        default.and_then(|default| {
            let place = Place { node, storage, vmid: number };
            job.host.world.allocate(&place, format.as_deref().unwrap_or(&default), bytes, None).map(|key| key.volid())
        })
    } else {
        let mut given = parameters([("vmid", vmid), ("filename", name), ("size", size)]);
        if let Some(format) = format {
            given.insert("format".to_owned(), vec![format]);
        }
        match job.call("POST", &format!("/nodes/{node}/storage/{storage}/content"), given) {
            Ok(volid) => Ok(volid.as_str().unwrap_or_default().to_owned()),
            Err(failure) => return job.died(&failure, ALLOC),
        }
    };
    match made {
        Ok(volid) => {
            let line = made_line(job, &volid);
            let said =
                job.streams.say(&line).and_then(|()| job.streams.say(&format!("successfully created '{volid}'")));
            job.written(&said)
        }
        Err(refusal) => refused(job, &refusal),
    }
}

/// What the storage's own tool says of a new volume.
fn made_line(job: &Job<'_>, volid: &str) -> String {
    let state = job.host.world.state();
    let Some(key) = state.volume_key(&job.host.node, volid) else { return String::new() };
    let files = state.storages.get(&key.storage).is_some_and(|storage| storage.family() == Family::Files);
    match state.volumes.get(&key) {
        Some(volume) if files => formatting(&state.path_of(&key), &volume.format, volume.size),
        _ => format!("  Logical volume \"{}\" created.", key.file_name()),
    }
}

fn path(job: &mut Job<'_>, arguments: &Arguments) -> u8 {
    let [volid] = arguments.words.as_slice() else {
        return job.misused("not enough arguments", "pvesm path <volume>");
    };
    let found = {
        let state = job.host.world.state();
        let Some((storage, name)) = VolumeKey::split(volid) else {
            drop(state);
            return refused(job, &Refusal::failed(format!("unable to parse volume ID '{volid}'")));
        };
        match state.storages.get(storage) {
            None => Err(Refusal::failed(format!("storage '{storage}' does not exist"))),
            Some(found) => {
                parse_name(found, name).map(|named| shown_path(storage, found, &named)).map_err(Refusal::Failed)
            }
        }
    };
    match found {
        Ok(path) => {
            let said = job.streams.say(&path);
            job.written(&said)
        }
        Err(refusal) => refused(job, &refusal),
    }
}

fn free(job: &mut Job<'_>, arguments: &Arguments) -> u8 {
    const FREE: &str = "pvesm free <volume> [OPTIONS]";
    let [volid] = arguments.words.as_slice() else { return job.misused("not enough arguments", FREE) };
    let Some((storage, _)) = VolumeKey::split(volid) else {
        return refused(job, &Refusal::failed(format!("unable to parse volume ID '{volid}'")));
    };
    let path = format!("/nodes/{}/storage/{storage}/content/{volid}", job.host.node);
    job.act("DELETE", &path, Parameters::new(), FREE)
}

fn status(job: &mut Job<'_>, arguments: Arguments) -> u8 {
    let path = format!("/nodes/{}/storage", job.host.node);
    let list = match job.call("GET", &path, arguments.options) {
        Ok(list) => list,
        Err(failure) => return job.died(&failure, "pvesm status [OPTIONS]"),
    };
    let mut rows = vec![["Name", "Type", "Status", "Total", "Used", "Available", "%"].map(str::to_owned)];
    let mut storages: Vec<&Value> = list.as_array().into_iter().flatten().collect();
    storages.sort_by_key(|storage| storage["storage"].as_str().unwrap_or_default().to_owned());
    for storage in storages {
        let text = |key: &str| storage[key].as_str().unwrap_or_default().to_owned();
        let kib = |key: &str| storage[key].as_u64().unwrap_or(0) / 1024;
        let state = match (storage["enabled"].as_u64(), storage["active"].as_u64()) {
            (Some(1), Some(1)) => "active",
            (Some(1), _) => "inactive",
            _ => "disabled",
        };
        #[expect(clippy::cast_precision_loss, reason = "a percentage for people")]
        let percent = if kib("total") == 0 { 0.0 } else { 100.0 * kib("used") as f64 / kib("total") as f64 };
        rows.push([
            text("storage"),
            text("type"),
            state.to_owned(),
            kib("total").to_string(),
            kib("used").to_string(),
            kib("avail").to_string(),
            format!("{percent:.2}%"),
        ]);
    }
    let mut widths = [0; 7];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.len());
        }
    }
    for row in &rows {
        let [name, kind, state, total, used, available, percent] = row;
        let line = format!(
            "{name:<0$} {kind:>1$} {state:>2$} {total:>3$} {used:>4$} {available:>5$} {percent:>6$}",
            widths[0], widths[1], widths[2], widths[3], widths[4], widths[5], widths[6]
        );
        if let Err(error) = job.streams.say(&line) {
            return job.written(&Err(error));
        }
    }
    0
}

fn list(job: &mut Job<'_>, arguments: Arguments) -> u8 {
    const LIST: &str = "pvesm list <storage> [OPTIONS]";
    let [storage] = arguments.words.as_slice() else { return job.misused("not enough arguments", LIST) };
    let path = format!("/nodes/{}/storage/{storage}/content", job.host.node);
    let found = match job.call("GET", &path, arguments.options) {
        Ok(found) => found,
        Err(failure) => return job.died(&failure, LIST),
    };
    let entries: Vec<&Value> = found.as_array().into_iter().flatten().collect();
    let text = |entry: &Value, key: &str| match &entry[key] {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    let width = entries.iter().map(|entry| text(entry, "volid").len()).max().unwrap_or(0).max("Volid".len());
    let mut lines = vec![format!("{:<width$} {:<7} {:<9} {:>14} VMID", "Volid", "Format", "Type", "Size")];
    for entry in entries {
        let line = format!(
            "{:<width$} {:<7} {:<9} {:>14} {}",
            text(entry, "volid"),
            text(entry, "format"),
            text(entry, "content"),
            text(entry, "size"),
            text(entry, "vmid")
        );
        lines.push(line.trim_end().to_owned());
    }
    let said = job.streams.say(&lines.join("\n"));
    job.written(&said)
}
