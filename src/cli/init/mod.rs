//! `recast init`: the first profile and site, from what runs.
//!
//! Purpose: what a user would write himself, with the cluster's secrets taken over from a control plane, so that `check`
//! and `config diff` find nothing to change. It reads only; the files are made in a folder of their own, read back and
//! compared with what the machines have, and put in their places together, over nothing that is there.
//! Start reading at [`init`]: `ask` (where Proxmox VE is) → `look` (what runs) → `facts` (what a profile says of it) →
//! `keep` (what it doesn't, as patches) → `write` (the texts) → `place` (the files).

mod ask;
mod facts;
mod keep;
mod look;
mod place;
mod talosconfig;
mod view;
mod write;

#[cfg(test)]
mod testing;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};

use super::args::{Global, Init, Target};
use super::carry_out::unless_cancelled;
use super::config::ground::{Ground, OldKeys, Source};
use super::stop::Stop;
use super::{Answer, Surroundings};
use crate::event::Failure;
use crate::exit::ExitCode;
use crate::net::tls::Fingerprint;
use crate::report::document::Ending;
use crate::report::{Colour, Document, problem};
use crate::talos::config::migrate::Weight;
use crate::talos::config::{Config, Patch, differences};
use crate::talos::secrets::Secrets;
use crate::types::Role;
use ask::From;
use facts::{Facts, Read};
use keep::{Edit, Of, Whose};
use place::Stage;

/// `recast init`.
pub async fn init(global: &Global, asked: &Init, surroundings: &Surroundings) -> Result<Answer, Stop> {
    Box::pin(unless_cancelled(surroundings, begin(global, asked, surroundings))).await
}

async fn begin(global: &Global, asked: &Init, surroundings: &Surroundings) -> Result<Answer, Stop> {
    let now = Timestamp::now();
    let (context, access) = talosconfig::read(asked, &surroundings.place)?;
    let site = ask::site(global, asked, surroundings).await?;
    let entry = look::Entry { connector: &site.grounds.connector, context: &context, access: &access };
    let found = look::look(&site.grounds.pve, &asked.tags, &entry).await?;
    let mut problems = Vec::new();
    let read = facts::read(&found, &mut problems);
    let is_new = matches!(site.from, From::New(_));
    let defaults = if is_new { facts::defaults(&found) } else { site.site.defaults.clone() };
    let facts = facts::facts(&read, &found, &asked.tags, &defaults, &mut problems);
    let secrets = secrets(&read, now, &mut problems);
    let (Some(mut facts), Some(secrets), true) = (facts, secrets, problems.is_empty()) else {
        return Err(Stop { code: ExitCode::Refused, problems, files: Vec::new() });
    };
    // From here on there is a name, so the files are known that must not be there.
    let stage = Stage::new(&asked.out, &facts.name)?;
    stage.refuse_existing(is_new)?;
    let global = match site.from {
        From::File(path) => Global { site: Some(path), ..global.clone() },
        From::New(draft) => {
            let nodes = nodes(&site.grounds, &draft, &mut facts.notes).await?;
            let text = write::site(&draft.unpinned(&nodes), &nodes, &defaults, &write::ranges(&facts));
            stage.put("site.yaml", &text.into())?;
            Global { site: Some(stage.path("site.yaml")), ..global.clone() }
        }
    };
    let named =
        (!is_new).then(|| place::relative(global.site.as_deref().unwrap_or(Path::new("")), &asked.out)).flatten();
    let global = Global { profile: Some(stage.path(&stage.profile())), ..global };
    stage.put(&format!("{}/secrets.yaml", facts.name), &secrets.to_yaml())?;
    stage.put(&stage.profile(), &write::profile(&facts, named.as_deref(), false).into())?;
    let patches = patches(&global, &read, &secrets, surroundings, &mut facts.notes).await?;
    for (path, text) in &patches {
        stage.put(&format!("{}/patches/{path}", facts.name), text)?;
    }
    if !patches.is_empty() {
        stage.put(&stage.profile(), &write::profile(&facts, named.as_deref(), true).into())?;
    }
    let left = left(&global, &read, &secrets, surroundings).await?;
    let files = stage.publish()?;
    Ok(answer(&facts, &files, &left, surroundings))
}

/// The secrets of the first control plane, which all others must have as well.
fn secrets(read: &[Read<'_>], now: Timestamp, problems: &mut Vec<Failure>) -> Option<Secrets> {
    let mut first: Option<(Secrets, String)> = None;
    for one in read.iter().filter(|one| one.view.role() == Role::ControlPlane) {
        let shown = one.seen.shown();
        match Secrets::from_machine_config(one.seen.machine.config.expose_secret(), now) {
            Err(error) => {
                let stop = Stop::because(ExitCode::Refused, format!("no secrets can be taken from {shown}"), &error)
                    .hinted("what is missing there must be brought in order on the running cluster first");
                problems.extend(stop.problems);
            }
            Ok(secrets) => match &first {
                None => first = Some((secrets, shown)),
                Some((known, other)) => {
                    let parts = known.differences(&secrets);
                    if !parts.is_empty() {
                        let parts = parts.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                        problems.push(look::problem(
                            format!("{shown} has another {parts} than {other}"),
                            "the control planes of a cluster share their secrets: finish the rotation that is under way",
                        ));
                    }
                }
            },
        }
    }
    first.map(|(secrets, _)| secrets)
}

/// The site's PVE nodes; their own APIs where they answer.
async fn nodes(
    grounds: &super::session::Grounds,
    draft: &ask::Draft,
    notes: &mut Vec<String>,
) -> Result<Vec<write::Node>, Stop> {
    let failed =
        |error: &crate::pve::PveError| Stop::because(ExitCode::Failed, "the nodes of Proxmox VE can't be read", error);
    let mut nodes = grounds.pve.nodes().await.map_err(|error| failed(&error))?;
    nodes.sort_by(|one, other| one.node.cmp(&other.node));
    // Addresses need a right that not everybody has.
    let members = grounds.pve.cluster_status().await.map(|status| status.members).unwrap_or_default();
    let mut found = Vec::new();
    for node in nodes {
        let fingerprint: Option<Fingerprint> = node.ssl_fingerprint.as_deref().and_then(|text| text.parse().ok());
        let member = members.iter().find(|member| member.name == node.node);
        let api = if member.is_some_and(|member| member.local) {
            let own = match (&draft.trust, fingerprint) {
                (ask::Shown::Pinned(pinned), _) => Some(*pinned),
                _ => None,
            };
            Some((draft.address().to_owned(), own))
        } else {
            let address = member
                .and_then(|member| member.ip.as_deref())
                .map(|ip| if ip.contains(':') { format!("[{ip}]:8006") } else { format!("{ip}:8006") });
            match (address, fingerprint) {
                (Some(address), Some(fingerprint)) => {
                    if ask::answers(&grounds.connector, &address, fingerprint).await {
                        Some((address, Some(fingerprint)))
                    } else {
                        notes.push(format!(
                            "the API of node {} doesn't answer at {address}: give its `api` in site.yaml, so that images go straight to it",
                            node.node
                        ));
                        None
                    }
                }
                _ => None,
            }
        };
        found.push(write::Node { name: node.node, api });
    }
    Ok(found)
}

/// What the machines have beyond what is rendered, as patch files by their paths in the patch folder.
async fn patches(
    global: &Global,
    read: &[Read<'_>],
    secrets: &Secrets,
    surroundings: &Surroundings,
    notes: &mut Vec<String>,
) -> Result<Vec<(String, SecretString)>, Stop> {
    let ground = Ground::read(global, &Target::default(), Timestamp::now())?;
    let machines = ground.machines(global, surroundings).await?;
    let mut all: Vec<Of> = Vec::new();
    for source in &machines {
        let Some(one) = of(read, source) else { continue };
        let mut edits = keep::edits(&rendered(&ground, source)?, &one.view.0);
        if edits.iter().any(Edit::is_of_links) {
            // Its links are not as they would be rendered: then none are rendered beside its own.
            let own = Patch::parse("machine: {network: {interfaces: []}}", "no links")
                .map_err(|error| Stop::because(ExitCode::Internal, "an empty patch can't be read", &error))?;
            let bare = Source { patches: vec![own], spec: source.spec.clone(), address: source.address };
            edits = keep::edits(&rendered(&ground, &bare)?, &one.view.0);
        }
        all.push(Of { name: source.spec.name.clone(), role: source.spec.role, edits });
    }
    let refused = refused(&ground, &all);
    for machine in &mut all {
        machine.edits.retain(|edit| !refused.iter().any(|(gone, _)| gone == edit));
    }
    notes.extend(refused.into_iter().map(|(edit, why)| format!("{} is not kept: {why}", edit.shown())));
    let mut files = Vec::new();
    for (whose, edits) in keep::shared(&all) {
        let texts = keep::texts(&edits);
        for (what, body) in &texts {
            if secrets.is_in(body) {
                let who = match &whose {
                    Whose::Machine(name) => name.to_string(),
                    _ => "a machine".to_owned(),
                };
                return Err(Stop::new(
                    ExitCode::Refused,
                    format!("the configuration of {who} has secrets of the cluster in another place than usual"),
                )
                .hinted("nothing was written: a patch would hold them in the open"));
            }
            files.push((write::patch_path(&whose, what, texts.len()), write::patch(&whose, what, body).into()));
        }
    }
    Ok(files)
}

/// Edits that patches of this Talos version can't make, with the reason.
fn refused(ground: &Ground, all: &[Of]) -> Vec<(Edit, String)> {
    let mut found: Vec<(Edit, String)> = Vec::new();
    for machine in all {
        let texts = keep::texts(&machine.edits);
        let patches: Vec<Patch> = texts.iter().filter_map(|(name, text)| Patch::parse(text, name).ok()).collect();
        let broken: Vec<_> =
            ground.findings(None, &patches).into_iter().filter(|finding| finding.weight == Weight::Breaks).collect();
        for edit in &machine.edits {
            let path = edit.path.join(".");
            let kind = edit.document.kind.as_deref().unwrap_or("v1alpha1");
            let hit = broken.iter().find(|finding| {
                finding.document == kind
                    && (finding.path == path
                        || finding.path.starts_with(&format!("{path}."))
                        || path.starts_with(&format!("{}.", finding.path)))
            });
            if let Some(finding) = hit
                && !found.iter().any(|(known, _)| known == edit)
            {
                found.push((edit.clone(), finding.to_string()));
            }
        }
    }
    found
}

fn of<'a>(read: &'a [Read<'a>], source: &Source) -> Option<&'a Read<'a>> {
    read.iter().find(|one| one.seen.machine.hostname == source.spec.name.as_str())
}

fn rendered(ground: &Ground, source: &Source) -> Result<Config, Stop> {
    let rendered = ground.render(source, OldKeys::Refuse)?;
    Config::parse(rendered.text.expose_secret())
        .map_err(|error| Stop::because(ExitCode::Internal, "what was rendered can't be read", &error))
}

/// What still differs between what the new profile renders and what the machines have.
async fn left(
    global: &Global,
    read: &[Read<'_>],
    secrets: &Secrets,
    surroundings: &Surroundings,
) -> Result<Vec<String>, Stop> {
    let ground = Ground::read(global, &Target::default(), Timestamp::now())?;
    let mut left = Vec::new();
    for source in ground.machines(global, surroundings).await? {
        let Some(one) = of(read, &source) else { continue };
        let wanted = rendered(&ground, &source)?;
        let found = differences(&one.view.0, &wanted, |text| secrets.is_in(text));
        left.extend(found.iter().map(|difference| format!("{}: {difference}", source.spec.name)));
    }
    Ok(left)
}

fn answer(facts: &Facts, files: &[PathBuf], left: &[String], surroundings: &Surroundings) -> Answer {
    let tell = |text: &str| surroundings.console.tell(&problem::warning(text, Colour::Off));
    facts.notes.iter().for_each(|note| tell(note));
    for difference in left {
        tell(&format!("config diff will show {difference}"));
    }
    let mut text = String::new();
    for file in files {
        let _ = writeln!(text, "{}", file.display());
    }
    let machines: usize = facts.groups.iter().map(|group| group.rows.len()).sum();
    let profile = files.first().map(|path| path.display().to_string()).unwrap_or_default();
    surroundings.console.tell(&format!(
        "{}: {machines} machine(s), Talos {}, Kubernetes {}\nnext: recast check --profile {profile}\n      recast config diff --profile {profile}\n",
        facts.name, facts.talos, facts.kubernetes
    ));
    let mut document = Document::of_verb("init", Some(&facts.name), Ending::Done);
    let shown: Vec<String> = files.iter().map(|path| path.display().to_string()).collect();
    document.extra.insert("files".to_owned(), shown.into());
    document.extra.insert("notes".to_owned(), facts.notes.clone().into());
    document.extra.insert("differences".to_owned(), left.to_vec().into());
    Answer { code: ExitCode::Done, document, text }
}
