//! `recast config render`: the configurations as files.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};

use super::ground::{Ground, OldKeys, Source, add};
use crate::cli::args::{Global, Render};
use crate::cli::stop::Stop;
use crate::cli::{Answer, Surroundings};
use crate::exit::ExitCode;
use crate::report::Document;
use crate::report::document::Ending;
use crate::talos::access::{AdminCertificate, Roles, YEAR_HOURS, talosconfig, write_private};
use crate::talos::secrets::Secrets;
use crate::types::Role;

/// What the folder's `.gitignore` holds: it is how the folder is known again, too.
const IGNORE: &str = "# written by recast config render: these files hold secrets\n*\n";

/// How long a talosconfig must last to be kept.
const KEPT_HOURS: i64 = 30 * 24;

/// `recast config render`.
pub(super) async fn render(global: &Global, asked: &Render, surroundings: &Surroundings) -> Result<Answer, Stop> {
    let now = Timestamp::now();
    let ground = Ground::read(global, &asked.target, now)?;
    let out = match &asked.out {
        Some(out) => out.clone(),
        None => ground.talos()?.config_dir_in(&crate::cli::session::parent(&ground.path)).join("clusterconfig"),
    };
    ours(&out)?;
    let old = OldKeys::from(asked.migrate);
    let machines = ground.machines(global, surroundings).await?;
    let mut files: Vec<(PathBuf, SecretString)> = Vec::new();
    let mut stop = None;
    for machine in &machines {
        match ground.render(machine, old) {
            Ok(rendered) => files.push((out.join(format!("{}.yaml", machine.spec.name)), rendered.text)),
            Err(more) => add(&mut stop, more),
        }
    }
    if let Some(stop) = stop {
        return Err(stop);
    }
    let path = out.join("talosconfig");
    let name = &ground.profile.value.name;
    files.push((path.clone(), access(name, &ground.secrets, &machines, &path, now)?));
    files.insert(0, (out.join(".gitignore"), SecretString::from(IGNORE)));
    let mut text = String::new();
    for (path, content) in &files {
        keep(path, content)?;
        let _ = writeln!(text, "{}", path.display());
    }
    let mut document = Document::of_verb("config render", Some(name), Ending::Done);
    let shown: Vec<String> = files.iter().map(|(path, _)| path.display().to_string()).collect();
    document.extra.insert("files".to_owned(), shown.into());
    Ok(Answer { code: ExitCode::Done, document, text })
}

/// Only a folder of our own, or an empty one, is written to.
fn ours(dir: &Path) -> Result<(), Stop> {
    let taken = fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some());
    let marked = fs::read_to_string(dir.join(".gitignore")).is_ok_and(|text| text == IGNORE);
    if taken && !marked {
        return Err(Stop::new(ExitCode::Refused, format!("{} holds other files than rendered ones", dir.display()))
            .hinted("nothing was written; name an empty folder with --out"));
    }
    Ok(())
}

/// Writes a file for its owner only; rendered files have no backup, they can be rendered again.
fn keep(path: &Path, content: &SecretString) -> Result<(), Stop> {
    let failed = |error: &(dyn std::error::Error + 'static)| {
        Stop::because(ExitCode::Failed, format!("{} can't be written", path.display()), error)
    };
    let same = fs::read(path).is_ok_and(|there| there == content.expose_secret().as_bytes());
    if !same && path.exists() {
        fs::remove_file(path).map_err(|error| failed(&error))?;
    }
    write_private(path, content).map(drop).map_err(|error| failed(&error))
}

/// The talosconfig that is there already, if it opens this cluster for a while, else one with a new certificate.
fn access(
    name: &str,
    secrets: &Secrets,
    machines: &[Source],
    path: &Path,
    now: Timestamp,
) -> Result<SecretString, Stop> {
    let addresses = |role: Option<Role>| -> Vec<String> {
        let of = |machine: &&Source| role.is_none_or(|role| machine.spec.role == role);
        machines.iter().filter(of).filter_map(|machine| machine.address).map(|address| address.to_string()).collect()
    };
    let failed = |error: &(dyn std::error::Error + 'static)| {
        Stop::because(ExitCode::Failed, "no talosconfig can be made", error)
    };
    let there = fs::read_to_string(path).ok().and_then(|text| talosconfig::find(&text, Some(name)).ok().flatten());
    let lasting = there.map(|context| context.certificate).filter(|certificate| {
        let until = now + jiff::SignedDuration::from_hours(KEPT_HOURS);
        certificate.authority_pem() == secrets.talos().certificate_pem()
            && certificate.not_after().is_some_and(|end| end > until)
    });
    let certificate = match lasting {
        Some(certificate) => certificate,
        None => AdminCertificate::issue(secrets, Roles::Admin, now, YEAR_HOURS).map_err(|error| failed(&error))?,
    };
    let (endpoints, nodes) = (addresses(Some(Role::ControlPlane)), addresses(None));
    let context = talosconfig::Context { name: name.to_owned(), endpoints, nodes, certificate };
    talosconfig::merge(None, &context).map_err(|error| failed(&error))
}
