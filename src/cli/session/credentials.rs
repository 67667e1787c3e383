//! Secrets from where they are kept: variables, files, what a command prints.
//!
//! Must not know: what they open.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use secrecy::SecretString;

use super::Place;
use crate::cli::stop::Stop;
use crate::exit::ExitCode;
use crate::profile::{Credential, SecretSource};

/// The ecosystem's variables, where the site names no credentials.
pub(super) fn from_environment(place: &Place) -> Result<crate::pve::Auth, Stop> {
    let secret = |name: &str| place.env.get(name).map(SecretString::from);
    if let Some(token) = place.env.get("PROXMOX_VE_API_TOKEN")
        && let Some((id, secret)) = token.split_once('=')
    {
        return Ok(crate::pve::Auth::Token { id: id.to_owned(), secret: SecretString::from(secret) });
    }
    if let (Some(user), Some(password)) = (place.env.get("PROXMOX_VE_USERNAME"), secret("PROXMOX_VE_PASSWORD")) {
        return Ok(crate::pve::Auth::Password { user: user.to_owned(), password });
    }
    Err(Stop::new(ExitCode::Invalid, "the site names no credentials for PVE")
        .hinted("give it auth.token or auth.user, or set PROXMOX_VE_API_TOKEN"))
}

/// A name and its secret, both as the site says.
pub(super) fn of(
    place: &Place,
    folder: &Path,
    credential: &Credential,
    what: &str,
) -> Result<(String, SecretString), Stop> {
    let kept = kept(place, folder, &credential.secret, what)?;
    credential.parse(&kept).map_err(|error| Stop::because(ExitCode::Invalid, format!("{what} can't be read"), &error))
}

/// A secret from where it is kept.
pub(super) fn kept(place: &Place, folder: &Path, source: &SecretSource, what: &str) -> Result<SecretString, Stop> {
    Ok(match source {
        SecretSource::Env(name) => SecretString::from(place.env.get(name).ok_or_else(|| {
            Stop::new(ExitCode::Invalid, format!("the variable {name}, which the site takes {what} from, is not set"))
                .hinted("set it to the token as id=secret, or to the secret alone where the site names the id")
        })?),
        SecretSource::File(path) => {
            let path = folder.join(path);
            SecretString::from(fs::read_to_string(&path).map_err(|error| {
                Stop::because(
                    ExitCode::Invalid,
                    format!("the file {} with {what} can't be read", path.display()),
                    &error,
                )
            })?)
        }
        SecretSource::Command(command) => from_command(command, folder, what)?,
        SecretSource::Inline(secret) => secret.clone(),
    })
}

/// How long a password manager may take; it may have to ask a person.
const COMMAND_MAY_TAKE: Duration = Duration::from_mins(2);

/// `what` names what it should print.
pub(super) fn from_command(command: &str, folder: &Path, what: &str) -> Result<SecretString, Stop> {
    let failed = |why: String| {
        Stop::new(ExitCode::Invalid, format!("the command for {what} failed: {why}"))
            .hinted(format!("it is `{command}`, run in {}", folder.display()))
    };
    let mut child = Command::new("sh")
        .args(["-c", command])
        .current_dir(folder)
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    let since = std::time::Instant::now();
    while child.try_wait().map_err(|error| failed(error.to_string()))?.is_none() {
        if since.elapsed() > COMMAND_MAY_TAKE {
            // Nothing else can be done about a child that won't be killed.
            let _gone = child.kill();
            return Err(failed(format!("no answer within {} s", COMMAND_MAY_TAKE.as_secs())));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = child.wait_with_output().map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(output.status.to_string()));
    }
    String::from_utf8(output.stdout).map(SecretString::from).map_err(|_| failed("its output is not text".to_owned()))
}
