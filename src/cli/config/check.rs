//! `recast config check`: what a machine would say to its configuration, and what the version means for the patches.

use jiff::Timestamp;
use secrecy::ExposeSecret as _;

use super::ground::{Ground, OldKeys, Source, add};
use super::image;
use super::moved::fill;
use super::range::{self, Fate};
use crate::cli::args::{CheckConfig, Global};
use crate::cli::stop::Stop;
use crate::cli::{Answer, Surroundings};
use crate::event::Failure;
use crate::exit::ExitCode;
use crate::profile::lock::Lock;
use crate::report::Document;
use crate::report::document::{Ending, Kind, Problem};
use crate::steps::files::read_lock;
use crate::talos::config::Config;
use crate::talos::config::migrate::{Finding, Weight};
use crate::talos::config::validate::{Mode, validate};
use crate::types::Version;

/// `recast config check`.
pub(super) async fn check(global: &Global, asked: &CheckConfig, surroundings: &Surroundings) -> Result<Answer, Stop> {
    let ground = Ground::read(global, &asked.target, Timestamp::now())?;
    let own = asked.target.to.as_ref().and_then(|_| ground.own_version());
    let lock = read_lock(&ground.path.with_extension("lock")).unwrap_or_default();
    let running = asked.from.clone().or(own).or_else(|| locked(&lock));
    let old = OldKeys::from(asked.migrate);
    let machines = ground.machines(global, surroundings).await?;
    let mut stop: Option<Stop> = None;
    let mut warnings: Vec<Failure> = Vec::new();
    let mut findings: Vec<Finding> = Vec::new();
    for machine in &machines {
        let name = &machine.spec.name;
        findings.extend(touched(&ground, machine, old, (running.as_ref(), &lock))?);
        let rendered = match ground.render(machine, old) {
            Ok(rendered) => rendered,
            Err(more) => {
                add(&mut stop, more);
                continue;
            }
        };
        let found = validate(rendered.text.expose_secret(), Mode::Cloud)
            .map_err(|error| Stop::because(ExitCode::Invalid, format!("{name} has no configuration"), &error))?;
        for error in &found.errors {
            add(&mut stop, Stop::new(ExitCode::Invalid, format!("{name} would be refused by its machine: {error}")));
        }
        warnings.extend(found.warnings.iter().map(|warning| failure(format!("{name}: {warning}"), None)));
        let config = Config::parse(rendered.text.expose_secret())
            .map_err(|error| Stop::because(ExitCode::Invalid, format!("{name} has no configuration"), &error))?;
        for beyond in range::beyond(&config, &ground.versions.talos) {
            let hint = "take a Kubernetes that this Talos runs: talos.kubernetes_version of the profile, --kubernetes, or the \
                        patch that names the image";
            match Fate::with(&ground.versions.talos) {
                Fate::Refused => {
                    let what = format!("{name} would be refused by its machine: {beyond}");
                    add(&mut stop, Stop::new(ExitCode::Invalid, what).hinted(hint));
                }
                Fate::Untried => warnings.push(failure(format!("{name}: {beyond}"), Some(hint.to_owned()))),
            }
        }
        // The image on Proxmox VE is installed already; only what boots without it asks for a disk.
        let metal = validate(rendered.text.expose_secret(), Mode::Metal)
            .map_err(|error| Stop::because(ExitCode::Invalid, format!("{name} has no configuration"), &error))?;
        for missing in metal.errors.iter().filter(|error| error.path == "machine.install") {
            let hint = "let no patch take out machine.install.disk: it is talos.install_disk of the profile".to_owned();
            warnings.push(failure(format!("{name} could not be installed from an ISO: {missing}"), Some(hint)));
        }
    }
    findings.sort_by(|a, b| b.weight.cmp(&a.weight).then_with(|| (&a.origin, a.spot).cmp(&(&b.origin, b.spot))));
    let mut seen: Vec<Finding> = Vec::new();
    for finding in findings {
        if finding.weight != Weight::Breaks && !seen.contains(&finding) {
            seen.push(finding);
        }
    }
    warnings.extend(seen.iter().map(|finding| failure(finding.to_string(), Some(finding.instead.clone()))));
    for warning in &warnings {
        surroundings.console.tell(&format!("warning: {}\n", warning.what));
    }
    if let Some(mut stop) = stop {
        let mut told = Vec::new();
        stop.problems.retain(|problem| {
            let new = !told.contains(problem);
            told.push(problem.clone());
            new
        });
        return Err(stop);
    }
    let (name, versions) = (&ground.profile.value.name, &ground.versions);
    let from = running.map_or_else(String::new, |running| format!(", coming from {running}"));
    let text = format!(
        "{name}: {} configuration(s) for Talos {}{from} and Kubernetes {} would be accepted, {} warning(s)\n",
        machines.len(),
        versions.talos,
        versions.kubernetes,
        warnings.len(),
    );
    let problems = warnings.iter().map(|warning| Problem::new(Kind::Warning, warning));
    let document = Document::of_verb("config check", Some(name), Ending::Done).with_problems(problems);
    Ok(Answer { code: ExitCode::Done, document, text })
}

fn failure(what: String, hint: Option<String>) -> Failure {
    Failure { what, causes: Vec::new(), hints: hint.into_iter().collect() }
}

/// What version and image mean for one machine's patches; what only its group's image brings is the group's.
fn touched(
    ground: &Ground,
    machine: &Source,
    old: OldKeys,
    (running, lock): (Option<&Version>, &Lock),
) -> Result<Vec<Finding>, Stop> {
    let role = machine.spec.role;
    let image = image::of(lock, running, &ground.schematic(role)?);
    let patches = ground.patches(machine, old)?;
    let mut found = ground.findings_with(running, &patches, image);
    for finding in &mut found {
        fill(finding, &patches, (ground.contract()?, &machine.spec), &ground.secrets);
    }
    let group = ground.profile.value.nodes.iter().find(|(of, ..)| *of == role).map(|(_, key, _)| key);
    for finding in found.iter_mut().filter(|finding| finding.rule == "nic-rename") {
        finding.origin = group.map_or_else(String::new, |key| format!("nodes.{key}"));
    }
    Ok(found)
}

/// The newest version among the templates of the lock: what the last rebuild installed.
fn locked(lock: &Lock) -> Option<Version> {
    lock.templates.values().flatten().map(|template| template.version.clone()).max()
}
