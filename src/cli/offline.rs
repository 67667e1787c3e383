//! The verbs that need no cluster: `schematic`, `schema`, `completions`, `man`.

use clap::CommandFactory as _;

use super::Answer;
use super::args::{Cli, SchemaOf, Schematic as Asked};
use super::stop::Stop;
use crate::exit::ExitCode;
use crate::image::Schematic;
use crate::profile::schema;
use crate::report::Document;
use crate::report::document::{self, Ending};

fn answer(verb: &str, text: String) -> Answer {
    Answer { code: ExitCode::Done, document: Document::of_verb(verb, None, Ending::Done), text }
}

/// `recast schematic`: the ID, computed here.
pub fn schematic(asked: &Asked) -> Result<Answer, Stop> {
    let named = asked
        .extensions
        .iter()
        .map(|name| if name.contains('/') { name.clone() } else { format!("siderolabs/{name}") });
    let id = Schematic::with_extensions(named)
        .id()
        .map_err(|error| Stop::because(ExitCode::Failed, "the ID can't be computed here", &error))?;
    let mut answer = answer("schematic", format!("{id}\n"));
    answer.document.extra.insert("schematic".to_owned(), id.as_str().into());
    Ok(answer)
}

/// `recast schema`.
pub fn schema(of: SchemaOf) -> Answer {
    let schema = match of {
        SchemaOf::Profile => schema::profile(),
        SchemaOf::Site => schema::site(),
        SchemaOf::Document => document::schema(),
    };
    let text = serde_json::to_string_pretty(&schema).unwrap_or_default();
    let mut answer = answer("schema", text + "\n");
    answer.document.extra.insert("schema".to_owned(), schema);
    answer
}

/// `recast completions`.
pub fn completions(shell: clap_complete::Shell) -> Answer {
    let mut out = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "recast", &mut out);
    answer("completions", String::from_utf8_lossy(&out).into_owned())
}

/// `recast man`.
pub fn man() -> Result<Answer, Stop> {
    let mut out = Vec::new();
    clap_mangen::Man::new(Cli::command())
        .render(&mut out)
        .map_err(|error| Stop::because(ExitCode::Internal, "the manual page can't be rendered", &error))?;
    Ok(answer("man", String::from_utf8_lossy(&out).into_owned()))
}
