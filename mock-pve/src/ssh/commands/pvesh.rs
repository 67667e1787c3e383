//! `pvesh`: the API on the command line (pve-manager 8, PVE/CLI/pvesh.pm).

use serde_json::{Value, json};

use super::Job;
use super::arguments::Arguments;
use super::remote::{DIED, Parameters};
use super::shown::{Form, Part, Style};
use crate::pve::returns::{Column, Render};

const USAGE: &str = "USAGE: pvesh <COMMAND> [ARGS] [OPTIONS]

       pvesh create <api_path> [OPTIONS] [FORMAT_OPTIONS]
       pvesh delete <api_path> [OPTIONS] [FORMAT_OPTIONS]
       pvesh get <api_path> [OPTIONS] [FORMAT_OPTIONS]
       pvesh ls <api_path> [OPTIONS] [FORMAT_OPTIONS]
       pvesh set <api_path> [OPTIONS] [FORMAT_OPTIONS]

       pvesh help [<extra-args>] [OPTIONS]
       pvesh usage <api_path> [OPTIONS]";

/// Exit code where no method fits.
const NO_METHOD: u8 = 1;

pub(super) fn run(job: &mut Job<'_>) -> u8 {
    let mut arguments = Arguments::parse(job.arguments);
    let mut words = std::mem::take(&mut arguments.words).into_iter();
    let Some(command) = words.next() else {
        job.streams.complain(&format!("ERROR: no command specified\n{USAGE}"));
        return DIED;
    };
    let verb = match command.as_str() {
        "get" | "ls" => "GET",
        "create" => "POST",
        "set" => "PUT",
        "delete" => "DELETE",
        "help" => return job.print(&format!("{USAGE}\n")),
        "usage" => return job.fails("what may be asked of a path is not told here, only what it answers"),
        other => {
            job.streams.complain(&format!("ERROR: unknown command 'pvesh {other}'\n{USAGE}"));
            return DIED;
        }
    };
    let Some(path) = words.next() else { return job.misused("not enough arguments", USAGE) };
    let usual = if command == "ls" { Part::Hidden } else { Part::Shown };
    let style = match style(&mut arguments, usual) {
        Ok(style) => style,
        Err(name) => {
            let wrong =
                format!("value '{name}' does not have a value in the enumeration 'text, json, json-pretty, yaml'");
            job.streams.complain(&format!("400 Parameter verification failed.\noutput-format: {wrong}\n\n{USAGE}"));
            return DIED;
        }
    };
    let quiet = arguments.take("quiet").is_some_and(|flag| flag != "0");
    arguments.options.remove("noproxy");
    if command == "ls" {
        return list(job, &path, arguments.options, style);
    }
    match job.run(verb, &path, arguments.options) {
        Ok(_) if quiet => 0,
        Ok(answer) => {
            let shape = if verb == "GET" { job.host.api.shape(&path) } else { None };
            job.print(&style.show(&answer, shape))
        }
        Err(failure) if failure.status == 501 => {
            job.streams.complain(&format!("No '{command}' handler defined for '{path}'"));
            NO_METHOD
        }
        Err(failure) => job.died(&failure, &format!("pvesh {command} {path} [OPTIONS]")),
    }
}

/// How the answer is wanted, where border and header are usually shown or not; `Err`: a form that there isn't.
fn style(arguments: &mut Arguments, usual: Part) -> Result<Style, String> {
    let form = match arguments.take("output-format") {
        Some(name) => Form::named(&name).ok_or(name)?,
        None => Form::Text,
    };
    let mut part = |key: &str| match arguments.take(key).as_deref() {
        None => usual,
        Some("0") => Part::Shown,
        Some(_) => Part::Hidden,
    };
    let (border, header) = (part("noborder"), part("noheader"));
    let raw = arguments.take("human-readable").is_some_and(|flag| flag == "0");
    Ok(Style { form, border, header, rendering: if raw { Part::Hidden } else { Part::Shown } })
}

/// What lies below a path, and what may be done with it.
fn list(job: &mut Job<'_>, path: &str, options: Parameters, style: Style) -> u8 {
    let answer = match job.call("GET", path, options) {
        Ok(answer) => answer,
        Err(failure) if failure.status == 501 => {
            job.streams.complain(&format!("no such resource '{path}'"));
            return DIED;
        }
        Err(failure) => return job.died(&failure, &format!("pvesh ls {path} [OPTIONS]")),
    };
    let api = job.host.api.clone();
    let Some(children) = api.children(path, &answer) else {
        job.streams.complain(&format!("resource '{path}' does not define child links"));
        return DIED;
    };
    let row = |name: &String| json!({"name": name, "capabilities": api.capabilities(&format!("{path}/{name}"))});
    let rows: Vec<Value> = children.iter().map(row).collect();
    let column = |name: &str| Column { name: name.to_owned(), render: Render::Text };
    let text = match style.form {
        Form::Text => style.rows(&rows, &[column("capabilities"), column("name")]),
        _ => style.show(&json!(rows), None),
    };
    job.print(&text)
}
