//! Secrets files that SOPS has encrypted: the program `sops` reads them.

use std::path::Path;
use std::process::Command;

use secrecy::{ExposeSecret as _, SecretString};

use super::stop::Stop;
use crate::command::Mode;
use crate::exit::ExitCode;
use crate::talos::config::yaml::{self, Value};

/// The text of a file, decrypted where SOPS has encrypted it.
pub(super) fn opened(path: &Path, text: SecretString, commands: Mode) -> Result<SecretString, Stop> {
    if is_encrypted(&text) { decrypted(path, commands) } else { Ok(text) }
}

/// Whether SOPS has encrypted a file: it then keeps its own section in it.
fn is_encrypted(text: &SecretString) -> bool {
    yaml::one(text.expose_secret())
        .is_ok_and(|document| document.root.at(&["sops", "mac"]).is_some_and(|mac| *mac != Value::Null))
}

fn decrypted(path: &Path, commands: Mode) -> Result<SecretString, Stop> {
    let failed = |why: String| {
        Stop::new(ExitCode::Invalid, format!("{} is encrypted with SOPS and can't be read: {why}", path.display()))
    };
    if commands == Mode::Record {
        return Err(failed("a rehearsal runs no programs".to_owned()));
    }
    let output = Command::new("sops").arg("--decrypt").arg(path).output().map_err(|error| {
        failed(format!("the program sops can't be run ({error})"))
            .hinted("install it (getsops/sops), or decrypt the file yourself and name the result")
    })?;
    if !output.status.success() {
        // What it says names keys and files, never values.
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("it says nothing");
        return Err(failed(format!("sops ends with {}: {said}", output.status))
            .hinted("give it the key, as in SOPS_AGE_KEY_FILE=…"));
    }
    String::from_utf8(output.stdout)
        .map(SecretString::from)
        .map_err(|_| failed("what it prints is not text".to_owned()))
}
