//! `recast secrets talosconfig`: a new client certificate, beside what else is in the file.
//!
//! The profile's secrets sign it, or a control plane that runs does: for those who have no secrets. Must not know:
//! certificates.

use std::fs;
use std::net::IpAddr;

use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};

use crate::cli::args::{Global, Talosconfig};
use crate::cli::session;
use crate::cli::stop::Stop;
use crate::cli::{Answer, Surroundings};
use crate::exit::ExitCode;
use crate::profile::Profile;
use crate::report::Document;
use crate::report::document::Ending;
use crate::talos::access::talosconfig::{Context, merge};
use crate::talos::access::{AdminCertificate, Written, write_private};
use crate::types::Role;

pub(super) async fn talosconfig(
    global: &Global,
    asked: &Talosconfig,
    surroundings: &Surroundings,
    now: Timestamp,
) -> Result<Answer, Stop> {
    let path = asked.talosconfig.clone().unwrap_or_else(|| surroundings.place.env.talosconfig());
    let context = match &asked.node {
        Some(node) => {
            let (_, there) = super::context(&path, asked.context.as_deref())?;
            let machine = super::machine(node, &there, global, surroundings)?;
            let certificate = machine.sign_client(&asked.roles, asked.valid).await.map_err(|error| {
                Stop::because(ExitCode::Failed, format!("{node} signs no certificate"), &error)
                    .hinted("it must be a control plane, and the certificate that is there an administrator's and not expired")
                    .hinted("with the cluster's secrets no machine is needed: leave out --node and name the --profile")
            })?;
            Context { certificate, ..there }
        }
        None => signed(global, asked, now)?,
    };
    let failed = |error: &(dyn std::error::Error + 'static)| {
        Stop::because(ExitCode::Failed, format!("the talosconfig {} can't be written", path.display()), error)
    };
    let previous = match fs::read_to_string(&path) {
        Ok(text) => Some(SecretString::from(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed(&error)),
    };
    let merged = merge(previous.as_ref().map(ExposeSecret::expose_secret), &context);
    let written = merged.and_then(|text| write_private(&path, &text)).map_err(|error| failed(&error))?;
    let until = context.certificate.not_after().map(|at| at.strftime("%Y-%m-%d %H:%M UTC").to_string());
    let until = until.unwrap_or_default();
    let backup = match &written {
        Written::Replaced { backup } => Some(backup.display().to_string()),
        Written::New | Written::Unchanged => None,
    };
    let kept = backup.as_ref().map_or_else(String::new, |backup| format!("; the previous file is {backup}"));
    let roles: Vec<&str> = asked.roles.iter().map(|role| role.name()).collect();
    let text =
        format!("{}: context {} opens as {} until {until}{kept}\n", path.display(), context.name, roles.join(", "));
    let mut document = Document::of_verb("secrets talosconfig", Some(&context.name), Ending::Done);
    document.extra.insert("file".to_owned(), path.display().to_string().into());
    document.extra.insert("backup".to_owned(), backup.into());
    document.extra.insert("until".to_owned(), until.into());
    Ok(Answer { code: ExitCode::Done, document, text })
}

/// A certificate by the profile's secrets, for the profile's machines.
fn signed(global: &Global, asked: &Talosconfig, now: Timestamp) -> Result<Context, Stop> {
    let (path, profile) = session::profile(global)?;
    let profile = &profile.value;
    let secrets = session::secrets_of(session::talos(profile)?, &session::parent(&path), now)?;
    let hours = i64::try_from(asked.valid.as_secs().div_ceil(3600)).unwrap_or(i64::MAX);
    let certificate = AdminCertificate::issue_all(&secrets, &asked.roles, now, hours)
        .map_err(|error| Stop::because(ExitCode::Failed, "no certificate can be made from the secrets", &error))?;
    let until = now.checked_add(jiff::SignedDuration::try_from(asked.valid).unwrap_or_default()).ok();
    let authority = secrets.talos().not_after();
    if let (Some(until), Some(authority)) = (until, authority)
        && until > authority
    {
        return Err(Stop::new(ExitCode::Invalid, format!("--valid goes beyond the authority, which ends {authority}"))
            .hinted("ask for less"));
    }
    Ok(Context {
        name: asked.context.clone().unwrap_or_else(|| profile.name.clone()),
        endpoints: addresses(profile, Some(Role::ControlPlane)),
        nodes: addresses(profile, None),
        certificate,
    })
}

/// The static addresses of a role's machines, or of all.
fn addresses(profile: &Profile, of: Option<Role>) -> Vec<String> {
    let groups = profile.nodes.iter().filter(|(role, ..)| of.is_none_or(|of| of == *role));
    let assigned = groups.flat_map(|(_, _, group)| group.assignments.iter().filter_map(|one| one.ip));
    assigned.map(|address: IpAddr| address.to_string()).collect()
}
