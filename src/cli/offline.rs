//! The verbs that need no cluster: `schematic` (which may ask a factory), `schema`, `completions`, `man`.

use clap::CommandFactory as _;

use super::args::{self, Cli, Global, SchemaOf, Schematic as Asked};
use super::session::factory;
use super::stop::Stop;
use super::{Answer, Surroundings};
use crate::exit::ExitCode;
use crate::image::{Bootloader, Schematic};
use crate::profile::schema;
use crate::report::document::{self, Ending};
use crate::report::{Document, problem};

fn answer(verb: &str, text: String) -> Answer {
    Answer { code: ExitCode::Done, document: Document::of_verb(verb, None, Ending::Done), text }
}

/// `recast schematic`: the ID, computed here, or as the factory says it.
pub async fn schematic(global: &Global, asked: &Asked, surroundings: &Surroundings) -> Result<Answer, Stop> {
    let named = asked
        .extensions
        .iter()
        .map(|name| if name.contains('/') { name.clone() } else { format!("siderolabs/{name}") });
    let mut schematic = Schematic::with_extensions(named);
    schematic.customization.bootloader = asked.bootloader.map(|loader| match loader {
        args::Bootloader::DualBoot => Bootloader::DualBoot,
        args::Bootloader::SdBoot => Bootloader::SdBoot,
        args::Bootloader::Grub => Bootloader::Grub,
    });
    let computed = schematic.id();
    let id = if asked.submit {
        let factory = factory(&surroundings.place, global)?;
        let submitted = factory.submit(&schematic).await.map_err(|error| {
            Stop::because(ExitCode::Failed, "the factory did not take the schematic", &error).hinted("try again later")
        })?;
        // The factory is right where the two differ: one that knows its users puts their names in.
        if submitted.local.as_ref().is_some_and(|local| *local != submitted.id) {
            let told = "the factory's ID differs from the one computed here; use the factory's";
            surroundings.console.tell(&problem::warning(told, surroundings.colour(global)));
        }
        submitted.id
    } else {
        computed.map_err(|error| {
            Stop::because(ExitCode::Failed, "the ID can't be computed here", &error)
                .hinted("add --submit: the factory says it")
        })?
    };
    let mut answer = answer("schematic", format!("{id}\n"));
    answer.document.extra.insert("schematic".to_owned(), id.as_str().into());
    if let Ok(canonical) = schematic.canonical() {
        answer.document.extra.insert("canonical".to_owned(), canonical.into());
    }
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
