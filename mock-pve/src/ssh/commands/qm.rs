//! `qm`: virtual machines on the command line.

use serde_json::Value;

use super::Job;
use super::arguments::Arguments;
use super::remote::{DIED, Parameters, parameters};
use crate::ssh::pipe::Input;

const USAGE: &str = "USAGE: qm <COMMAND> [ARGS] [OPTIONS]";

/// A command that is one method: its words, the method, and the parameters that its words are.
struct Plain {
    name: &'static str,
    verb: &'static str,
    path: &'static str,
    words: &'static [&'static str],
}

const PLAIN: &[Plain] = &[
    Plain { name: "create", verb: "POST", path: "", words: &["vmid"] },
    Plain { name: "set", verb: "POST", path: "/{vmid}/config", words: &["vmid"] },
    Plain { name: "template", verb: "POST", path: "/{vmid}/template", words: &["vmid"] },
    Plain { name: "clone", verb: "POST", path: "/{vmid}/clone", words: &["vmid", "newid"] },
    Plain { name: "start", verb: "POST", path: "/{vmid}/status/start", words: &["vmid"] },
    Plain { name: "stop", verb: "POST", path: "/{vmid}/status/stop", words: &["vmid"] },
    Plain { name: "shutdown", verb: "POST", path: "/{vmid}/status/shutdown", words: &["vmid"] },
    Plain { name: "reboot", verb: "POST", path: "/{vmid}/status/reboot", words: &["vmid"] },
    Plain { name: "reset", verb: "POST", path: "/{vmid}/status/reset", words: &["vmid"] },
    Plain { name: "suspend", verb: "POST", path: "/{vmid}/status/suspend", words: &["vmid"] },
    Plain { name: "resume", verb: "POST", path: "/{vmid}/status/resume", words: &["vmid"] },
    Plain { name: "destroy", verb: "DELETE", path: "/{vmid}", words: &["vmid"] },
    Plain { name: "resize", verb: "PUT", path: "/{vmid}/resize", words: &["vmid", "disk", "size"] },
    Plain { name: "disk resize", verb: "PUT", path: "/{vmid}/resize", words: &["vmid", "disk", "size"] },
    Plain { name: "move_disk", verb: "POST", path: "/{vmid}/move_disk", words: &["vmid", "disk", "storage"] },
    Plain { name: "move-disk", verb: "POST", path: "/{vmid}/move_disk", words: &["vmid", "disk", "storage"] },
    Plain { name: "disk move", verb: "POST", path: "/{vmid}/move_disk", words: &["vmid", "disk", "storage"] },
    Plain { name: "unlink", verb: "PUT", path: "/{vmid}/unlink", words: &["vmid"] },
    Plain { name: "disk unlink", verb: "PUT", path: "/{vmid}/unlink", words: &["vmid"] },
    Plain { name: "migrate", verb: "POST", path: "/{vmid}/migrate", words: &["vmid", "target"] },
    Plain { name: "snapshot", verb: "POST", path: "/{vmid}/snapshot", words: &["vmid", "snapname"] },
    Plain { name: "delsnapshot", verb: "DELETE", path: "/{vmid}/snapshot/{snapname}", words: &["vmid", "snapname"] },
    Plain {
        name: "rollback",
        verb: "POST",
        path: "/{vmid}/snapshot/{snapname}/rollback",
        words: &["vmid", "snapname"],
    },
];

pub(super) fn run(job: &mut Job<'_>) -> u8 {
    let Some((first, rest)) = job.arguments.split_first() else {
        job.streams.complain(&format!("ERROR: no command specified\n{USAGE}"));
        return DIED;
    };
    let (name, rest) = match (first.as_str(), rest.split_first()) {
        ("disk" | "guest", Some((second, rest))) => (format!("{first} {second}"), rest),
        _ => (first.clone(), rest),
    };
    let arguments = Arguments::parse(rest);
    if let Some(plain) = PLAIN.iter().find(|plain| plain.name == name) {
        return act(job, plain, arguments);
    }
    match name.as_str() {
        "list" => list(job),
        "config" => config(job, arguments),
        "status" => status(job, &arguments),
        "importdisk" | "disk import" => import(job, arguments),
        "unlock" => unlock(job, &arguments),
        other => {
            job.streams.complain(&format!("ERROR: unknown command 'qm {other}'\n{USAGE}"));
            DIED
        }
    }
}

fn usage(name: &str, words: &[&str]) -> String {
    let words: Vec<String> = words.iter().map(|word| format!("<{word}>")).collect();
    format!("qm {name} {} [OPTIONS]", words.join(" "))
}

fn base(job: &Job<'_>) -> String {
    format!("/nodes/{}/qemu", job.host.node)
}

fn act(job: &mut Job<'_>, plain: &Plain, arguments: Arguments) -> u8 {
    let usage = usage(plain.name, plain.words);
    if arguments.words.len() < plain.words.len() {
        return job.misused("not enough arguments", &usage);
    }
    if arguments.words.len() > plain.words.len() {
        return job.misused("too many arguments", &usage);
    }
    let mut path = format!("{}{}", base(job), plain.path);
    let mut given = arguments.options;
    for (name, value) in plain.words.iter().zip(arguments.words) {
        let hole = format!("{{{name}}}");
        if path.contains(&hole) {
            path = path.replace(&hole, &value);
        } else {
            given.insert((*name).to_owned(), vec![value]);
        }
    }
    if plain.name == "create" || plain.name == "set" {
        read_keys(job, &mut given);
    }
    let changed: Vec<String> = match plain.name {
        "set" => given.iter().map(|(key, values)| format!("-{key} {}", values.join(" "))).collect(),
        _ => Vec::new(),
    };
    match job.run(plain.verb, &path, given) {
        Ok(_) => {
            let said = if changed.is_empty() {
                Ok(())
            } else {
                let vmid = path.rsplit('/').nth(1).unwrap_or_default().to_owned();
                job.streams.say(&format!("update VM {vmid}: {}", changed.join(" ")))
            };
            job.written(&said)
        }
        Err(failure) => job.died(&failure, &usage),
    }
}

/// `--sshkeys FILE`: the command line takes a file where the API takes its encoded text.
fn read_keys(job: &Job<'_>, given: &mut Parameters) {
    let Some(path) = given.get("sshkeys").and_then(|paths| paths.last()).cloned() else { return };
    // A file that isn't text is refused where its text is checked.
    if let Some(text) = crate::ssh::shell::read(job.host, &path).ok().and_then(Input::whole) {
        let encoded = percent_encoding::utf8_percent_encode(&text, percent_encoding::NON_ALPHANUMERIC).to_string();
        given.insert("sshkeys".to_owned(), vec![encoded]);
    }
}

fn one_word<'a>(job: &mut Job<'_>, arguments: &'a Arguments, usage: &str) -> Result<&'a str, u8> {
    match arguments.words.as_slice() {
        [vmid] => Ok(vmid),
        [] => Err(job.misused("not enough arguments", usage)),
        _ => Err(job.misused("too many arguments", usage)),
    }
}

fn plain_text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn config(job: &mut Job<'_>, arguments: Arguments) -> u8 {
    let usage = usage("config", &["vmid"]);
    let vmid = match one_word(job, &arguments, &usage) {
        Ok(vmid) => vmid.to_owned(),
        Err(code) => return code,
    };
    let path = format!("{}/{vmid}/config", base(job));
    match job.call("GET", &path, arguments.options) {
        Ok(shown) => {
            let lines: Vec<String> = shown
                .as_object()
                .into_iter()
                .flatten()
                .filter(|(key, _)| *key != "digest")
                .map(|(key, value)| match key.as_str() {
                    // One line each: what would break it is escaped.
                    "description" => {
                        format!("description: {}", plain_text(value).replace('%', "%25").replace('\n', "%0A"))
                    }
                    _ => format!("{key}: {}", plain_text(value)),
                })
                .collect();
            let said = if lines.is_empty() { Ok(()) } else { job.streams.say(&lines.join("\n")) };
            job.written(&said)
        }
        Err(failure) => job.died(&failure, &usage),
    }
}

fn status(job: &mut Job<'_>, arguments: &Arguments) -> u8 {
    let usage = usage("status", &["vmid"]);
    let vmid = match one_word(job, arguments, &usage) {
        Ok(vmid) => vmid.to_owned(),
        Err(code) => return code,
    };
    let path = format!("{}/{vmid}/status/current", base(job));
    match job.call("GET", &path, Parameters::new()) {
        Ok(shown) if arguments.options.contains_key("verbose") => {
            let lines: Vec<String> = shown
                .as_object()
                .into_iter()
                .flatten()
                .filter(|(_, value)| !value.is_object())
                .map(|(key, value)| format!("{key}: {}", plain_text(value)))
                .collect();
            let said = job.streams.say(&lines.join("\n"));
            job.written(&said)
        }
        Ok(shown) => {
            let said = job.streams.say(&format!("status: {}", plain_text(&shown["status"])));
            job.written(&said)
        }
        Err(failure) => job.died(&failure, &usage),
    }
}

fn list(job: &mut Job<'_>) -> u8 {
    let path = base(job);
    let found = match job.call("GET", &path, Parameters::new()) {
        Ok(found) => found,
        Err(failure) => return job.died(&failure, "qm list [OPTIONS]"),
    };
    let entries = found.as_array().cloned().unwrap_or_default();
    if entries.is_empty() {
        return 0;
    }
    let mut lines = vec![format!(
        "{:>10} {:<20} {:<10} {:<10} {:>12} {:<10}",
        "VMID", "NAME", "STATUS", "MEM(MB)", "BOOTDISK(GB)", "PID"
    )];
    for entry in entries {
        #[expect(clippy::cast_precision_loss, reason = "a size for people")]
        let disk = entry["maxdisk"].as_u64().unwrap_or(0) as f64 / 1_073_741_824.0;
        lines.push(format!(
            "{:>10} {:<20} {:<10} {:<10} {:>12.2} {:<10}",
            entry["vmid"].as_u64().unwrap_or(0),
            plain_text(&entry["name"]),
            plain_text(&entry["status"]),
            entry["maxmem"].as_u64().unwrap_or(0) >> 20,
            disk,
            entry["pid"].as_u64().unwrap_or(0)
        ));
    }
    let said = job.streams.say(&lines.join("\n"));
    job.written(&said)
}

/// The API has no method for it: the original's tool allocates and copies by itself.
fn import(job: &mut Job<'_>, mut arguments: Arguments) -> u8 {
    let usage = usage("disk import", &["vmid", "source", "storage"]);
    let [vmid, source, storage] = arguments.words.clone().try_into().unwrap_or_default();
    if storage.is_empty() {
        return job.misused("not enough arguments", &usage);
    }
    let source = if source.contains(':') && !source.starts_with('/') {
        source
    } else {
        crate::world::node_files::normal(&source)
    };
    let shown = job.call("GET", &format!("{}/{vmid}/config", base(job)), Parameters::new());
    let config = match shown {
        Ok(config) => config,
        Err(failure) => return job.died(&failure, &usage),
    };
    let target = arguments.take("target-disk");
    let free = (0..256).map(|number| format!("unused{number}")).find(|key| config.get(key).is_none());
    let holder = target.clone().unwrap_or_else(|| {
        // A bus position that nobody has takes the disk in, and lets it go again as an unused one.
        (0..31).map(|number| format!("scsi{number}")).rev().find(|key| config.get(key).is_none()).unwrap_or_default()
    });
    let said = job.streams.say(&format!("importing disk '{source}' to VM {vmid} ..."));
    if said.is_err() {
        return job.written(&said);
    }
    let format = arguments.take("format").map(|format| format!(",format={format}")).unwrap_or_default();
    let value = format!("{storage}:0,import-from={source}{format}");
    let path = format!("{}/{vmid}/config", base(job));
    if let Err(failure) = job.run("POST", &path, parameters([(holder.as_str(), value.as_str())])) {
        return job.died(&failure, &usage);
    }
    let volid = job
        .call("GET", &path, Parameters::new())
        .ok()
        .and_then(|config| crate::world::config::volid(config[&holder].as_str()?))
        .unwrap_or_default();
    let key = if target.is_some() {
        holder
    } else {
        if let Err(failure) = job.run("POST", &path, parameters([("delete", holder.as_str())])) {
            return job.died(&failure, &usage);
        }
        free.unwrap_or_default()
    };
    let said = job.streams.say(&format!("{key}: successfully imported disk '{volid}'"));
    job.written(&said)
}

fn unlock(job: &mut Job<'_>, arguments: &Arguments) -> u8 {
    let usage = usage("unlock", &["vmid"]);
    let vmid = match one_word(job, arguments, &usage) {
        Ok(vmid) => vmid.to_owned(),
        Err(code) => return code,
    };
    let path = format!("{}/{vmid}/config", base(job));
    job.act("POST", &path, parameters([("delete", "lock"), ("skiplock", "1")]), &usage)
}
