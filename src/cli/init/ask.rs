//! Where Proxmox VE is, who asks it, and whether it is the one that is meant.
//!
//! Purpose: from flags, environment and, on a terminal, one question to a site that can be asked. No credential is sent
//! before the certificate is trusted. Must not know: clusters.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Uri;

use super::write::quoted;
use crate::cli::Surroundings;
use crate::cli::args::{Global, Init};
use crate::cli::session::{self, Grounds};
use crate::cli::stop::Stop;
use crate::exit::ExitCode;
use crate::net::Connector;
use crate::net::http::{Client, HttpError, Request};
use crate::net::tls::{self, Fingerprint, Recorder, Trust, Versions};
use crate::profile::Site;
use crate::profile::load;

/// How long Proxmox VE may take to show its certificate.
const PATIENCE: Duration = Duration::from_secs(10);

/// A site that can be asked.
pub(super) struct Asked {
    pub(super) grounds: Grounds,
    pub(super) site: Site,
    pub(super) from: From,
}

/// Where the site comes from.
pub(super) enum From {
    /// A file that is there already.
    File(PathBuf),
    /// It is to be written.
    New(Draft),
}

/// The part of a new site file that was there before anything was asked.
pub(super) struct Draft {
    /// `https://host:8006`.
    pub(super) endpoint: String,
    pub(super) trust: Shown,
    /// The lines of `auth`.
    pub(super) auth: String,
}

/// How Proxmox VE's certificate is trusted.
pub(super) enum Shown {
    /// By the authorities of this computer.
    System,
    /// By this file of authorities.
    Authority(PathBuf),
    /// By its fingerprint.
    Pinned(Fingerprint),
}

impl Draft {
    /// Host and port.
    pub(super) fn address(&self) -> &str {
        self.endpoint.trim_start_matches("https://")
    }

    /// The head of the site file.
    pub(super) fn head(&self) -> String {
        let mut text = format!("endpoints: [{}]\n", quoted(&self.endpoint));
        match &self.trust {
            Shown::System => {}
            Shown::Authority(path) => {
                let _ = write!(text, "\ntls:\n  ca: {}\n", quoted(&path.display().to_string()));
            }
            Shown::Pinned(fingerprint) => {
                let _ = write!(text, "\ntls:\n  fingerprint: \"{fingerprint}\"  # of the certificate it shows\n");
            }
        }
        let _ = write!(text, "\n{}", self.auth);
        text
    }
}

/// The site that is named, or one made from flags and environment.
pub(super) async fn site(global: &Global, asked: &Init, surroundings: &Surroundings) -> Result<Asked, Stop> {
    if let Some(path) = &global.site {
        let site = load::site_file(path)?.value;
        let grounds = Grounds::of(&surroundings.place, &site, &session::parent(path))?;
        return Ok(Asked { grounds, site, from: From::File(path.clone()) });
    }
    let env = &surroundings.place.env;
    let url = asked.url.as_deref().or_else(|| env.get("PROXMOX_VE_ENDPOINT")).ok_or_else(|| {
        Stop::new(ExitCode::Invalid, "it is not said where Proxmox VE is")
            .hinted("give --url https://host:8006, or PROXMOX_VE_ENDPOINT, or --site FILE with a site that is there")
    })?;
    let endpoint = endpoint(url)?;
    let auth = auth(asked, surroundings)?;
    let connector = session::connector(&surroundings.place, &session::bare_site())?;
    let trust = trust(asked, &endpoint, &connector, surroundings).await?;
    let draft = Draft { endpoint, trust, auth };
    // Its nodes are what will be asked for.
    let text = format!("{}nodes: [{{name: unknown}}]\n", draft.head());
    let site = load::site("what the flags say of the site", &text)?.value;
    let grounds = Grounds::of(&surroundings.place, &site, Path::new("."))?;
    Ok(Asked { grounds, site, from: From::New(draft) })
}

/// `https://host:port`, as a site file has it.
fn endpoint(url: &str) -> Result<String, Stop> {
    let wrong = || {
        Stop::new(ExitCode::Invalid, format!("'{url}' is not the URL of Proxmox VE"))
            .hinted("it is like https://pve1.example.org:8006")
    };
    let rest = match url.split_once("://") {
        Some(("https", rest)) => rest,
        Some(_) => return Err(wrong()),
        None => url,
    };
    // The Terraform providers' variable often ends so.
    let rest = rest.trim_end_matches('/').trim_end_matches("/api2/json");
    let bare = rest.is_empty() || rest.contains(['/', '@', ' ']);
    let has_port = rest.rsplit(']').next().is_some_and(|after| after.contains(':'));
    let address = if has_port { rest.to_owned() } else { format!("{rest}:8006") };
    let endpoint = format!("https://{address}");
    if bare || endpoint.parse::<Uri>().is_err() { Err(wrong()) } else { Ok(endpoint) }
}

/// The `auth` section: where the credentials are kept, never themselves.
fn auth(asked: &Init, surroundings: &Surroundings) -> Result<String, Stop> {
    let env = &surroundings.place.env;
    let is_id = |id: &str| id.split_once('!').is_some_and(|(user, name)| user.contains('@') && !name.is_empty());
    if let Some(given) = asked.token.as_ref().filter(|id| id.contains('=') || !is_id(id)) {
        // It may be the secret: it isn't said again.
        let what = if given.contains('=') { "--token holds more than an id" } else { "--token is no id" };
        return Err(Stop::new(ExitCode::Invalid, what).hinted(
            "an id is user@realm!name; its secret has no place on a command line: name where it is kept with --token-env, \
             --token-file or --token-command",
        ));
    }
    let id = asked.token.as_ref().map_or_else(String::new, |id| format!("id: {}, ", quoted(id)));
    let token = |key: &str, value: &str| format!("auth:\n  token: {{{id}{key}: {}}}\n", quoted(value));
    if let Some(name) = &asked.token_env {
        return Ok(token("env", name));
    }
    if let Some(path) = &asked.token_file {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
        return Ok(token("file", &path.display().to_string()));
    }
    if let Some(command) = &asked.token_command {
        return Ok(token("command", command));
    }
    if env.get("PROXMOX_VE_API_TOKEN").is_some() {
        return Ok(token("env", "PROXMOX_VE_API_TOKEN"));
    }
    if let (None, Some(user), Some(_)) = (&asked.token, env.get("PROXMOX_VE_USERNAME"), env.get("PROXMOX_VE_PASSWORD"))
    {
        return Ok(format!("auth:\n  user: {{name: {}, env: PROXMOX_VE_PASSWORD}}\n", quoted(user)));
    }
    Err(Stop::new(ExitCode::Invalid, "it is not said who asks Proxmox VE").hinted(
        "name where the API token is kept with --token-env, --token-file or --token-command (one line id=secret, or two \
         lines), or set PROXMOX_VE_API_TOKEN, or PROXMOX_VE_USERNAME and PROXMOX_VE_PASSWORD",
    ))
}

/// Whom to believe. Without a word about it: this computer's authorities, else a person who looks at the fingerprint.
async fn trust(
    asked: &Init,
    endpoint: &str,
    connector: &Connector,
    surroundings: &Surroundings,
) -> Result<Shown, Stop> {
    if let Some(fingerprint) = asked.fingerprint {
        return Ok(Shown::Pinned(fingerprint));
    }
    if let Some(path) = &asked.ca {
        return Ok(Shown::Authority(std::path::absolute(path).unwrap_or_else(|_| path.clone())));
    }
    match look(connector, endpoint, &Trust::SystemRoots).await {
        Ok(()) => return Ok(Shown::System),
        Err(Look::Http(HttpError::Untrusted { .. }) | Look::NoRoots) => {}
        Err(Look::Http(error)) => {
            return Err(Stop::because(ExitCode::Failed, format!("{endpoint} does not answer"), &error));
        }
    }
    let recorder = Recorder::default();
    let looked = look(connector, endpoint, &Trust::Record(recorder.clone())).await;
    let Some(seen) = recorder.seen() else {
        let stop = Stop::new(ExitCode::Failed, format!("{endpoint} shows no certificate"));
        return Err(match looked {
            Err(Look::Http(error)) => {
                Stop::because(ExitCode::Failed, format!("{endpoint} shows no certificate"), &error)
            }
            _ => stop,
        });
    };
    let fingerprint = seen.fingerprint;
    let shown = format!("{endpoint} shows a certificate that no authority of this computer vouches for: {fingerprint}");
    let compare = "compare it with what `pvenode cert info` shows on that node";
    if !surroundings.console.asked {
        return Err(Stop::new(ExitCode::Refused, shown)
            .hinted(format!("{compare}, then add --fingerprint {fingerprint}; nothing secret was sent")));
    }
    let question = format!("{shown}\n{compare}.\nType yes to trust it from now on: ");
    match surroundings.console.ask(&question).as_deref() {
        Some("yes" | "y") => Ok(Shown::Pinned(fingerprint)),
        _ => Err(Stop::new(ExitCode::Refused, "the certificate was not confirmed").hinted("nothing secret was sent")),
    }
}

enum Look {
    /// This computer has no authorities.
    NoRoots,
    Http(HttpError),
}

/// One request without credentials: any answer will do.
async fn look(connector: &Connector, endpoint: &str, trust: &Trust) -> Result<(), Look> {
    let config = tls::client_config(trust, None).map_err(|_| Look::NoRoots)?;
    let client = Client::new(connector, config, Versions::Http1);
    let uri = format!("{endpoint}/").parse().unwrap_or_default();
    let request = Request { patience: PATIENCE, ..Request::get(uri) };
    client.send(request).await.map(drop).map_err(Look::Http)
}

/// Whether a node's own API answers at `address` with this certificate.
pub(super) async fn answers(connector: &Connector, address: &str, fingerprint: Fingerprint) -> bool {
    let (endpoint, trust) = (format!("https://{address}"), Trust::Fingerprint(fingerprint));
    let looked = look(connector, &endpoint, &trust);
    tokio::time::timeout(Duration::from_secs(3), looked).await.is_ok_and(|looked| looked.is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_taken_as_other_tools_spell_them() {
        for (given, expected) in [
            ("https://pve1:8006/", "https://pve1:8006"),
            ("pve1.example.org", "https://pve1.example.org:8006"),
            ("https://10.0.0.1:8006/api2/json", "https://10.0.0.1:8006"),
            ("https://[fd00::1]", "https://[fd00::1]:8006"),
        ] {
            assert_eq!(endpoint(given).unwrap(), expected);
        }
        for wrong in ["http://pve1:8006", "https://", "https://a b", "https://u@pve1"] {
            assert_eq!(endpoint(wrong).unwrap_err().code, ExitCode::Invalid, "{wrong}");
        }
    }
}
