//! `recast template`: templates without a rebuild.

use std::fmt::Write as _;

use super::args::{Global, Template as Asked, TemplateBuild};
use super::prepare::{DataWish, Order};
use super::rebuild::{After, plan_and_do};
use super::session::Session;
use super::stop::Stop;
use super::{Answer, Surroundings};
use crate::exit::ExitCode;
use crate::observe::templates::{Template, templates};
use crate::plan::Verb;
use crate::plan::check::size;
use crate::report::Document;
use crate::report::document::Ending;

/// `recast template`.
pub async fn template(global: &Global, asked: &Asked, surroundings: &Surroundings) -> Result<Answer, Stop> {
    match asked {
        Asked::Build(asked) => Box::pin(build(global, asked, surroundings)).await,
        Asked::List => list(global, surroundings).await,
    }
}

/// The phases of a rebuild that come before the old cluster is touched, without its data.
async fn build(global: &Global, asked: &TemplateBuild, surroundings: &Surroundings) -> Result<Answer, Stop> {
    let order = Order { verb: Verb::TemplateBuild, wishes: asked.wishes.clone(), data: DataWish::Fresh, back: None };
    let after = After { dry_run: asked.dry_run, plan_out: asked.plan_out.as_deref() };
    Box::pin(plan_and_do(global, &order, after, surroundings)).await
}

async fn list(global: &Global, surroundings: &Surroundings) -> Result<Answer, Stop> {
    let session = Session::open(&surroundings.place, global)?;
    let found = templates(&session.pve).await.map_err(|error| super::prepare::unreachable(&error))?;
    let cluster = &session.profile.value.name;
    let mut document = Document::of_verb("template", Some(cluster), Ending::Done);
    document.extra.insert("templates".to_owned(), serde_json::to_value(&found).unwrap_or_default());
    Ok(Answer { code: ExitCode::Done, document, text: table(&found, jiff::Timestamp::now()) })
}

/// One line for each, under a heading; nothing where there is none.
fn table(found: &[Template], now: jiff::Timestamp) -> String {
    let heading = ["NODE", "VMID", "NAME", "TALOS", "SCHEMATIC", "AGE", "SIZE", "CLONES", "CANARY"].map(str::to_owned);
    let row = |template: &Template| {
        let unknown = || "?".to_owned();
        [
            template.node.to_string(),
            template.vmid.to_string(),
            template.name.clone(),
            template.talos.clone(),
            template.schematic.chars().take(8).collect(),
            template.created.and_then(|created| age(created, now)).unwrap_or_else(unknown),
            template.bytes.map_or_else(unknown, size),
            template.linked_clones.map_or_else(unknown, |clones| clones.to_string()),
            if template.proved { "passed" } else { "none" }.to_owned(),
        ]
    };
    if found.is_empty() {
        return String::new();
    }
    let rows: Vec<_> = std::iter::once(heading).chain(found.iter().map(row)).collect();
    let mut widths = [0; 9];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        let _ = writeln!(text, "{}", cells.join("  ").trim_end());
    }
    text
}

/// `3d`, `5h`, `12m`.
fn age(created: u64, now: jiff::Timestamp) -> Option<String> {
    let seconds = now.as_second().checked_sub(i64::try_from(created).ok()?)?.max(0);
    Some(match seconds {
        0..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::VmId;

    #[test]
    fn templates_are_a_table_and_what_is_not_known_a_question_mark() {
        let template = Template {
            node: "pve1".into(),
            vmid: VmId(101),
            name: "talos-1-13-9".to_owned(),
            talos: "1.13.9".to_owned(),
            schematic: "376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba".to_owned(),
            cluster: "lab".to_owned(),
            run: "2026-11-20T22-31-05".to_owned(),
            proved: true,
            created: Some(1_700_000_000),
            bytes: Some(4_453_302_272),
            linked_clones: None,
        };
        let other =
            Template { node: "pve2".into(), proved: false, created: None, linked_clones: Some(2), ..template.clone() };
        let now = jiff::Timestamp::from_second(1_700_000_000 + 3 * 86_400).unwrap();
        let expected = "\
NODE  VMID  NAME          TALOS   SCHEMATIC  AGE  SIZE     CLONES  CANARY
pve1  101   talos-1-13-9  1.13.9  37656798   3d   4.1 GiB  ?       passed
pve2  101   talos-1-13-9  1.13.9  37656798   ?    4.1 GiB  2       none
";
        assert_eq!(table(&[template, other], now), expected);
        assert_eq!(table(&[], now), "");
    }
}
