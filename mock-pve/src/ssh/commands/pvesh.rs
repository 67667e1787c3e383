//! `pvesh`: the API on the command line.

use serde_json::Value;

use super::Job;
use super::arguments::Arguments;
use super::remote::DIED;

const USAGE: &str = "USAGE: pvesh <COMMAND> [ARGS] [OPTIONS]\n\n       pvesh create <api_path> [OPTIONS] [FORMAT_OPTIONS]\n       \
                     pvesh delete <api_path> [OPTIONS] [FORMAT_OPTIONS]\n       pvesh get <api_path> [OPTIONS] \
                     [FORMAT_OPTIONS]\n       pvesh set <api_path> [OPTIONS] [FORMAT_OPTIONS]";

pub(super) fn run(job: &mut Job<'_>) -> u8 {
    let mut arguments = Arguments::parse(job.arguments);
    let mut words = arguments.words.into_iter();
    let (Some(command), Some(path)) = (words.next(), words.next()) else {
        return job.misused("not enough arguments", USAGE);
    };
    let verb = match command.as_str() {
        "get" => "GET",
        "create" => "POST",
        "set" => "PUT",
        "delete" => "DELETE",
        other => {
            job.streams.complain(&format!("ERROR: unknown command 'pvesh {other}'\n{USAGE}"));
            return DIED;
        }
    };
    let format = arguments.options.remove("output-format").and_then(|mut formats| formats.pop());
    for key in ["human-readable", "noborder", "noheader", "quiet", "noproxy"] {
        arguments.options.remove(key);
    }
    match job.run(verb, &path, arguments.options) {
        Ok(Value::Null) => 0,
        Ok(answer) => {
            let text = match (&answer, format.as_deref()) {
                (Value::String(text), None | Some("text")) => text.clone(),
                (answer, Some("json-pretty") | None) => serde_json::to_string_pretty(answer).unwrap_or_default(),
                (answer, _) => answer.to_string(),
            };
            let said = job.streams.say(&text);
            job.written(&said)
        }
        Err(failure) if failure.status == 501 => {
            job.streams.complain(&format!("No '{command}' handler defined for '{path}'"));
            DIED
        }
        Err(failure) => job.died(&failure, &format!("pvesh {command} {path} [OPTIONS]")),
    }
}
