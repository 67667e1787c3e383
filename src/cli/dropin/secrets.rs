//! `recast secrets generate`, in the place of `talosctl gen secrets`.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretSlice, SecretString};

use super::output::{Existing, Parents, read, write};
use super::{Done, contract};
use crate::cli::stop::Stop;
use crate::exit::ExitCode;
use crate::talos::config::{Config, Contract};
use crate::talos::secrets::{PKI_FILES, Secrets, SecretsError};

/// How a PEM block begins.
const PEM: &[u8] = b"-----BEGIN ";

/// Flags of `recast secrets generate`.
#[derive(Debug, Args)]
pub struct Generate {
    /// Take them from a control plane's machine configuration
    #[arg(long, value_name = "FILE")]
    from_controlplane_config: Option<OsString>,
    /// Take the authorities from a Kubernetes PKI folder such as /etc/kubernetes/pki
    #[arg(short = 'p', long, value_name = "DIR")]
    from_kubernetes_pki: Option<OsString>,
    /// The bootstrap token to go on with, beside --from-kubernetes-pki
    #[arg(short = 't', long, value_name = "TOKEN")]
    kubernetes_bootstrap_token: Option<SecretString>,
    /// Where they go, or - for stdout
    #[arg(short, long, value_name = "FILE", default_value = "secrets.yaml")]
    output_file: OsString,
    /// Talos version that they are for [default: the newest known]
    #[arg(long)]
    talos_version: Option<String>,
    /// Replace a file that is there
    #[arg(short, long)]
    force: bool,
}

impl Generate {
    pub(super) fn run(self) -> Result<Done, Stop> {
        let now = Timestamp::now();
        let (contract, newer) = contract(self.talos_version.as_deref())?;
        let said = |path: Option<&OsString>| path.filter(|path| !path.is_empty()).map(PathBuf::from);
        let token = self.kubernetes_bootstrap_token.as_ref().filter(|token| !token.expose_secret().is_empty());
        let secrets = match (said(self.from_kubernetes_pki.as_ref()), said(self.from_controlplane_config.as_ref())) {
            (Some(dir), _) => from_pki(&dir, token, contract, now)?,
            (None, Some(path)) => from_config(&path, now)?,
            (None, None) => Secrets::generate(contract, now)
                .map_err(|error| Stop::because(ExitCode::Failed, "no secrets can be made", &error))?,
        };
        let text = secrets.to_yaml();
        if self.output_file == "-" {
            return Ok(Done { data: text.expose_secret().to_owned(), told: newer.unwrap_or_default() });
        }
        let path = Path::new(&self.output_file);
        write(path, &text, Existing::by(self.force), Parents::Expect)?;
        Ok(Done { data: String::new(), told: format!("{}Created {}\n", newer.unwrap_or_default(), path.display()) })
    }
}

/// The bundle in a control plane's configuration, which must be one that a machine reads.
fn from_config(path: &Path, now: Timestamp) -> Result<Secrets, Stop> {
    let text = read(path)?;
    Config::read(&text).map_err(|error| {
        Stop::because(ExitCode::Invalid, format!("{} is no configuration", path.display()), &error)
            .hinted("recast secrets import takes the secrets even so, where they can be told")
    })?;
    Secrets::from_machine_config(&text, now).map_err(|error| {
        let what = format!("no secrets can be taken from {}", path.display());
        let stop = error.hints().into_iter().fold(Stop::because(ExitCode::Invalid, what, &error), Stop::hinted);
        stop.hinted("only a control plane's configuration has them all, and only when it is not redacted")
    })
}

/// What a file of PEM holds. Around its block there may be bytes in any encoding; one without a block must be text.
fn pem_of(path: &Path) -> Result<Vec<u8>, Stop> {
    match fs::read(path) {
        Ok(bytes) if bytes.windows(PEM.len()).any(|window| window == PEM) => Ok(bytes),
        // UTF-16 is text, but no PEM.
        Ok(bytes) => read(path).map(|_| bytes),
        Err(_) => read(path).map(String::into_bytes),
    }
}

/// A bundle around the authorities in a folder such as `/etc/kubernetes/pki`.
pub(in crate::cli) fn from_pki(
    dir: &Path,
    token: Option<&SecretString>,
    contract: Contract,
    now: Timestamp,
) -> Result<Secrets, Stop> {
    const KEPT: &str = "they are what kubeadm keeps in /etc/kubernetes/pki of a control plane";
    if !dir.is_dir() {
        return Err(Stop::new(ExitCode::Invalid, format!("{} is no folder", dir.display()))
            .hinted(format!("name one with {}: {KEPT}", PKI_FILES.map(|(file, _)| file).join(", "))));
    }
    let mut texts = Vec::new();
    let mut unread: Option<Stop> = None;
    for (file, _) in PKI_FILES {
        match pem_of(&dir.join(file)) {
            Ok(text) => texts.push(SecretSlice::from(text)),
            Err(stop) => match &mut unread {
                Some(all) => all.problems.extend(stop.problems),
                None => unread = Some(stop),
            },
        }
    }
    if let Some(stop) = unread {
        return Err(stop.hinted(KEPT));
    }
    Secrets::from_kubernetes_pki(&texts, token, contract, now).map_err(|error| {
        let SecretsError::Invalid(problems) = &error else {
            return Stop::because(ExitCode::Failed, format!("no secrets can be made around {}", dir.display()), &error);
        };
        // People look for files, not for places in a bundle.
        let mut stop = Stop { code: ExitCode::Invalid, problems: Vec::new(), files: Vec::new() };
        for problem in problems {
            let file = PKI_FILES.iter().find(|(_, place)| *place == problem.path).map(|(file, _)| dir.join(file));
            let given = if problem.path == "secrets.bootstraptoken" { "the bootstrap token" } else { problem.path };
            let place = file.map_or_else(|| given.to_owned(), |file| file.display().to_string());
            stop.problems.extend(Stop::new(ExitCode::Invalid, format!("{place} {}", problem.flaw)).problems);
            stop = stop.hinted(problem.flaw.remedy());
        }
        stop
    })
}
