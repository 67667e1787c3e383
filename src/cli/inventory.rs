//! `recast inventory`: what runs on a site, as a file that `mock-pve serve --seed` and `recast rehearse --inventory` take.
//!
//! Reads only. What the credentials may not see is left out and told. Secrets are never asked for: the double gets users
//! of its own. Start reading at [`inventory`], then `gather.rs` (what is read) and `redact.rs` (what is put in its place).

mod gather;
mod inside;
mod redact;

use serde_json::Value;

use super::args::{Global, Inventory};
use super::carry_out::unless_cancelled;
use super::session::Grounds;
use super::stop::Stop;
use super::{Answer, Surroundings};
use crate::exit::ExitCode;
use crate::report::document::Ending;
use crate::report::{Colour, Document, problem};

pub use redact::redact;

/// `recast inventory`.
pub async fn inventory(global: &Global, asked: &Inventory, surroundings: &Surroundings) -> Result<Answer, Stop> {
    let grounds = Grounds::open(&surroundings.place, global)?;
    let access = inside::Talosconfig::named(asked, &surroundings.place)?;
    let mut notes = Vec::new();
    let mut seed = unless_cancelled(surroundings, async {
        let mut seed = gather::gather(&grounds.pve, &mut notes)
            .await
            .map_err(|error| Stop::because(ExitCode::Failed, "the site can't be read", &error))?;
        if let Some(access) = &access {
            seed.guest = Some(inside::guests(&grounds.connector, access, &seed, &mut notes).await);
        }
        Ok(seed)
    })
    .await?;
    if asked.redact {
        seed = redact(seed);
    }
    for note in &notes {
        surroundings.console.tell(&problem::warning(note, Colour::Off));
    }
    let value = serde_json::to_value(&seed).unwrap_or(Value::Null);
    let text = format!("{value:#}\n");
    let document = Document::of_verb("inventory", None, Ending::Done).with("inventory", value);
    Ok(Answer { code: ExitCode::Done, document, text })
}
