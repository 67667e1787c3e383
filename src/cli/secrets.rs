//! `recast secrets import`, `fingerprint` and `talosconfig`: a cluster's secrets brought to where the profile wants them,
//! and what opens its machines.
//!
//! Values are taken over as they are and never encoded again. Nothing that is there is overwritten. Must not know: what is
//! in a bundle.

mod talosconfig;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};

use super::args::{Global, Import, Secrets as Asked};
use super::dropin::{self, secrets::from_pki};
use super::session::{self, connector};
use super::stop::Stop;
use super::{Answer, Surroundings, sops};
use crate::exit::ExitCode;
use crate::profile::SecretsFile;
use crate::report::Document;
use crate::report::document::Ending;
use crate::talos::access::talosconfig::Context;
use crate::talos::access::write_private;
use crate::talos::client::{Access, Machine};
use crate::talos::config::Contract;
use crate::talos::secrets::Secrets;

/// How long a machine may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// `recast secrets`.
pub async fn secrets(global: &Global, asked: &Asked, surroundings: &Surroundings) -> Result<Answer, Stop> {
    let now = Timestamp::now();
    match asked {
        Asked::Import(asked) => import(global, asked, surroundings, now).await,
        Asked::Fingerprint { file } => fingerprint(global, file.as_deref(), surroundings, now),
        Asked::Talosconfig(asked) => talosconfig::talosconfig(global, asked, surroundings, now).await,
        Asked::Other(words) => Err(dropin::misplaced("secrets", words)),
    }
}

async fn import(global: &Global, asked: &Import, surroundings: &Surroundings, now: Timestamp) -> Result<Answer, Stop> {
    let out = match &asked.out {
        Some(out) => out.clone(),
        None => of_profile(global)?.unwrap_or_else(|| PathBuf::from("secrets.yaml")),
    };
    let (secrets, from) = match (&asked.node, &asked.from) {
        (Some(node), _) => (live(node, global, asked, surroundings, now).await?, format!("the machine {node}")),
        (None, Some(path)) => (stored(path, surroundings, now)?, path.display().to_string()),
        (None, None) => return Err(Stop::new(ExitCode::Invalid, "it is not said where the secrets are")),
    };
    let print = secrets.fingerprint();
    let told = if out.exists() {
        let there = load(&out, surroundings, now)?;
        let parts = there.differences(&secrets);
        if !parts.is_empty() {
            let parts = parts.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            return Err(Stop::new(
                ExitCode::Refused,
                format!("{} is there already and has another {parts}", out.display()),
            )
            .hinted("nothing was written; name another file with --out, or move that one away"));
        }
        format!("{} has the secrets of {from} already: {print}\n", out.display())
    } else {
        write_private(&out, &secrets.to_yaml())
            .map_err(|error| Stop::because(ExitCode::Failed, "the secrets can't be written", &error))?;
        format!("{} has the secrets of {from} now: {print}\n", out.display())
    };
    Ok(answer("secrets import", global, told, &secrets))
}

/// The file that the profile names, if there is a profile that names one.
fn of_profile(global: &Global) -> Result<Option<PathBuf>, Stop> {
    if global.profile.is_none() {
        return Ok(None);
    }
    let (path, profile) = session::profile(global)?;
    let folder = session::parent(&path);
    let talos = profile.value.talos.as_ref();
    match talos.map(|talos| &talos.secrets_file) {
        Some(SecretsFile::Command(_)) => {
            Err(Stop::new(ExitCode::Invalid, "the profile's secrets come from a command")
                .hinted("name a file with --out"))
        }
        Some(SecretsFile::Path(_)) => Ok(talos.and_then(|talos| talos.secrets_file_in(&folder))),
        None => Ok(None),
    }
}

fn fingerprint(
    global: &Global,
    file: Option<&Path>,
    surroundings: &Surroundings,
    now: Timestamp,
) -> Result<Answer, Stop> {
    let secrets = if let Some(file) = file {
        load(file, surroundings, now)?
    } else {
        let (path, profile) = session::profile(global)?;
        session::secrets_of(session::talos(&profile.value)?, &session::parent(&path), now)?
    };
    let mut text = format!("{:<15}{}\n", "bundle", secrets.fingerprint());
    for (part, pair) in secrets.authorities() {
        let print = pair.fingerprint().map(|print| print.to_string()).unwrap_or_default();
        let until = pair.not_after().map(|at| at.strftime("%Y-%m-%d").to_string()).unwrap_or_default();
        let _ = writeln!(text, "{part:<15}{print}  until {until}");
    }
    Ok(answer("secrets fingerprint", global, text, &secrets))
}

fn answer(verb: &str, global: &Global, text: String, secrets: &Secrets) -> Answer {
    let cluster = global.profile.as_deref().and_then(Path::file_stem).map(|stem| stem.to_string_lossy().into_owned());
    let mut document = Document::of_verb(verb, cluster.as_deref(), Ending::Done);
    document.extra.insert("fingerprint".to_owned(), secrets.fingerprint().to_string().into());
    Answer { code: ExitCode::Done, document, text }
}

/// Reads a bundle, a control plane's configuration or a PKI folder.
fn stored(path: &Path, surroundings: &Surroundings, now: Timestamp) -> Result<Secrets, Stop> {
    if path.is_dir() {
        return from_pki(path, None, Contract::NEWEST, now);
    }
    load(path, surroundings, now)
}

fn load(path: &Path, surroundings: &Surroundings, now: Timestamp) -> Result<Secrets, Stop> {
    let text = SecretString::from(dropin::output::read(path)?);
    let text = sops::opened(path, text, surroundings.place.commands)?;
    let is_config = text.expose_secret().lines().any(|line| line.starts_with("machine:"));
    let secrets = if is_config {
        Secrets::from_machine_config(text.expose_secret(), now)
    } else {
        Secrets::load(text.expose_secret(), now)
    };
    secrets.map_err(|error| {
        let stop = Stop::because(ExitCode::Invalid, format!("no secrets can be taken from {}", path.display()), &error);
        let stop = error.hints().into_iter().fold(stop, Stop::hinted);
        if is_config {
            stop.hinted("only a control plane's configuration has them all, and only when it is not redacted")
        } else {
            stop
        }
    })
}

/// The secrets in the configuration of a running control plane.
async fn live(
    node: &str,
    global: &Global,
    asked: &Import,
    surroundings: &Surroundings,
    now: Timestamp,
) -> Result<Secrets, Stop> {
    let path = asked.talosconfig.clone().unwrap_or_else(|| surroundings.place.env.talosconfig());
    let (_, context) = context(&path, asked.context.as_deref())?;
    let machine = machine(node, &context, global, surroundings)?;
    let unanswered = |error: &(dyn std::error::Error + 'static)| {
        Stop::because(ExitCode::Failed, format!("the configuration of {node} can't be read"), error)
            .hinted("it must be a control plane, and the certificate an administrator's (os:admin)")
    };
    let config = machine.config().await.map_err(|error| unanswered(&error))?;
    let config = config.ok_or_else(|| Stop::new(ExitCode::Failed, format!("{node} has no configuration")))?;
    Secrets::from_machine_config(config.expose_secret(), now).map_err(|error| {
        let stop = Stop::because(ExitCode::Invalid, format!("no secrets can be taken from {node}"), &error);
        let stop = error.hints().into_iter().fold(stop, Stop::hinted);
        stop.hinted("only a control plane's configuration has them all")
    })
}

/// A talosconfig's text, and the context that is named or the current one.
pub(super) fn context(path: &Path, name: Option<&str>) -> Result<(SecretString, Context), Stop> {
    use crate::talos::access::talosconfig::{find, names};
    let shown = path.display();
    let text = fs::read_to_string(path).map(SecretString::from).map_err(|error| {
        Stop::because(ExitCode::Invalid, format!("the talosconfig {shown} can't be read"), &error)
            .hinted("name it with --talosconfig FILE")
    })?;
    let unusable = |error: &(dyn std::error::Error + 'static)| {
        Stop::because(ExitCode::Invalid, format!("the talosconfig {shown} can't be used"), error)
    };
    let found = find(text.expose_secret(), name).map_err(|error| unusable(&error))?;
    let context = found.ok_or_else(|| {
        let which = name.map_or("current context".to_owned(), |name| format!("context '{name}'"));
        let names = names(text.expose_secret()).unwrap_or_default();
        let hint = if names.is_empty() { "it has none".to_owned() } else { format!("it has {}", names.join(", ")) };
        Stop::new(ExitCode::Invalid, format!("the talosconfig {shown} has no {which}")).hinted(hint)
    })?;
    Ok((text, context))
}

/// What a context's certificate opens.
pub(super) fn access(context: &Context) -> Result<Access, Stop> {
    let admin = &context.certificate;
    Access::from_pem(admin.authority_pem().as_bytes(), admin.certificate_pem().as_bytes(), admin.key_pem()).map_err(
        |error| {
            Stop::because(
                ExitCode::Invalid,
                format!("the certificates of context '{}' can't be used", context.name),
                &error,
            )
        },
    )
}

/// The machine at an address, over the site's map where there is a site.
fn machine(node: &str, context: &Context, global: &Global, surroundings: &Surroundings) -> Result<Machine, Stop> {
    let beside = global.profile.as_deref().map(|path| session::parent(path).join("site.yaml"));
    let site = match global.site.clone().or(beside.filter(|path| path.exists())) {
        Some(path) => crate::profile::load::site_file(&path)?.value,
        None => session::bare_site(),
    };
    let connector = connector(&surroundings.place, &site)?;
    Machine::new(&connector, node, &access(context)?, PATIENCE)
        .map_err(|error| Stop::because(ExitCode::Invalid, format!("{node} can't be asked"), &error))
}
