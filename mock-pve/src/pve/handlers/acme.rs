//! `/cluster/acme`, but for plugins: accounts at an authority that signs certificates.
//!
//! Rules after Proxmox VE 8.4 (PVE/API2/ACMEAccount.pm). The two authorities that are listed take every account; whatever
//! else is asked of one can't be reached from here.

use serde_json::{Map, Value, json};

use crate::pve::call::{Call, Result};
use crate::pve::schema::Schema;
use crate::world::State;
use crate::world::refusal::{Refusal, Rule};
use crate::world::work::Work;

type Object = Map<String, Value>;

/// Where accounts are kept.
const FILE: &str = "acme/accounts";
const DIRECTORIES: [(&str, &str); 2] = [
    ("Let's Encrypt V2", "https://acme-v02.api.letsencrypt.org/directory"),
    ("Let's Encrypt V2 Staging", "https://acme-staging-v02.api.letsencrypt.org/directory"),
];
const TERMS: &str = "https://letsencrypt.org/documents/LE-SA-v1.5-February-24-2025.pdf";

/// `GET /cluster/acme/directories`
pub(in crate::pve) fn directories(_: &Call) -> Result {
    Ok(DIRECTORIES.iter().map(|(name, url)| json!({"name": name, "url": url})).collect::<Vec<_>>().into())
}

/// Where a request wants to be signed.
fn directory(call: &Call) -> String {
    call.params.owned("directory").unwrap_or_else(|| DIRECTORIES[0].1.to_owned())
}

/// That an authority doesn't answer.
pub(super) fn unreachable(directory: &str) -> Refusal {
    let (scheme, rest) = directory.split_once("://").unwrap_or(("https", directory));
    let host = rest.split('/').next().unwrap_or_default();
    let port = if scheme == "http" { 80 } else { 443 };
    let host = if host.contains(':') { host.to_owned() } else { format!("{host}:{port}") };
    Refusal::failed(format!("Error: GET to {directory}\n500 Can't connect to {host} (Connection refused)\n"))
}

/// Where an account was made; nothing: there is none.
pub(super) fn directory_of(state: &State, account: &str) -> Option<String> {
    state.sections.get(FILE)?.get(account)?.get("directory")?.as_str().map(str::to_owned)
}

fn listed(directory: &str) -> Rule<()> {
    let known = DIRECTORIES.iter().any(|(_, url)| *url == directory);
    if known { Ok(()) } else { Err(unreachable(directory)) }
}

/// `GET /cluster/acme/tos`
pub(in crate::pve) fn terms(call: &Call) -> Result {
    listed(&directory(call))?;
    Ok(TERMS.to_owned().into())
}

/// `GET /cluster/acme/meta`
pub(in crate::pve) fn meta(call: &Call) -> Result {
    listed(&directory(call))?;
    Ok(json!({
        "termsOfService": TERMS, "website": "https://letsencrypt.org", "caaIdentities": ["letsencrypt.org"],
    })
    .into())
}

/// `GET /cluster/acme/challenge-schema`
pub(in crate::pve) fn challenges(call: &Call) -> Result {
    let words = Schema::words(call.world.state().pve, ("POST", "/cluster/acme/plugins"), "api");
    let one = |id: &String| json!({"id": id, "name": id, "type": "dns", "schema": {}});
    let mut list =
        vec![json!({"id": "standalone", "name": "Standalone HTTP server", "type": "standalone", "schema": {}})];
    list.extend(words.iter().map(one));
    Ok(list.into())
}

fn name_of(call: &Call) -> String {
    call.params.owned("name").unwrap_or_else(|| "default".to_owned())
}

fn contacts(call: &Call) -> Vec<String> {
    call.params.list("contact").iter().map(|address| format!("mailto:{address}")).collect()
}

fn missing(name: &str) -> Refusal {
    Refusal::param("name", format!("ACME account config file '{name}' does not exist."))
}

/// `GET /cluster/acme/account`
pub(in crate::pve) fn accounts(call: &Call) -> Result {
    let state = call.world.state();
    // Files of accounts that are no more have names that no account can have.
    let names = state.sections.get(FILE).into_iter().flatten().filter(|(name, _)| !name.starts_with('_'));
    Ok(names.map(|(name, _)| json!({"name": name})).collect::<Vec<_>>().into())
}

/// `GET /cluster/acme/account/{name}`
pub(in crate::pve) fn account(call: &Call) -> Result {
    let name = name_of(call);
    let state = call.world.state();
    let found = state.sections.get(FILE).and_then(|accounts| accounts.get(&name));
    Ok(found.cloned().ok_or_else(|| missing(&name))?.into())
}

/// `POST /cluster/acme/account`
pub(in crate::pve) fn register(call: &Call) -> Result {
    let name = name_of(call);
    if call.world.state().sections.get(FILE).is_some_and(|accounts| accounts.contains_key(&name)) {
        return Err(Refusal::param("name", format!("ACME account config file '{name}' already exists.")));
    }
    let (directory, contact) = (directory(call), contacts(call));
    let terms = call.params.owned("tos_url");
    let work = |work: Work| async move {
        work.log("Generating ACME account key..");
        work.log("Registering ACME account..");
        listed(&directory).map_err(|refusal| Refusal::failed(format!("Registration failed: {}\n", refusal.text())))?;
        let world = work.world();
        let created = jiff::Timestamp::now().strftime("%FT%TZ").to_string();
        let location = {
            let mut state = world.state();
            let number = state.rng.draw() % 1_000_000_000;
            let location = directory.replace("/directory", &format!("/acme/acct/{number}"));
            let mut kept = json!({
                "account": {"contact": contact, "status": "valid", "createdAt": created}, "directory": directory,
                "location": location,
            });
            if let Some(terms) = terms {
                kept["tos"] = json!(terms);
            }
            let kept: Object = kept.as_object().cloned().unwrap_or_default();
            state.sections.entry(FILE.to_owned()).or_default().insert(name, kept);
            location
        };
        work.log(format!("Registration successful, account URL: '{location}'"));
        Ok(())
    };
    Ok(call.world.start_task(&call.caller, &call.local, "acmeregister", "", work).into())
}

/// What becomes of an account.
enum Change {
    Contact(Vec<String>),
    Refresh,
    Deactivate,
}

fn change(call: &Call, kind: &str, change: Change) -> Result {
    let name = name_of(call);
    if !call.world.state().sections.get(FILE).is_some_and(|accounts| accounts.contains_key(&name)) {
        return Err(missing(&name));
    }
    let work = |work: Work| async move {
        let renamed = {
            let mut state = work.world().state();
            let accounts = state.sections.entry(FILE.to_owned()).or_default();
            match change {
                Change::Refresh => None,
                Change::Contact(contact) => {
                    if let Some(account) = accounts.get_mut(&name).and_then(|kept| kept.get_mut("account")) {
                        account["contact"] = json!(contact);
                    }
                    None
                }
                Change::Deactivate => {
                    let mut names = (0..=100).map(|number| format!("_deactivated_{name}_{number}"));
                    let free = names.find(|candidate| !accounts.contains_key(candidate));
                    free.zip(accounts.remove(&name)).map(|(to, mut kept)| {
                        if let Some(account) = kept.get_mut("account") {
                            account["status"] = json!("deactivated");
                        }
                        accounts.insert(to.clone(), kept);
                        to
                    })
                }
            }
        };
        if let Some(to) = renamed {
            let folder = "/etc/pve/priv/acme";
            work.log(format!("Renaming account file from '{folder}/{name}' to '{folder}/{to}'"));
        }
        Ok(())
    };
    Ok(call.world.start_task(&call.caller, &call.local, kind, "", work).into())
}

/// `PUT /cluster/acme/account/{name}`
pub(in crate::pve) fn update(call: &Call) -> Result {
    match contacts(call) {
        contact if contact.is_empty() => change(call, "acmerefresh", Change::Refresh),
        contact => change(call, "acmeupdate", Change::Contact(contact)),
    }
}

/// `DELETE /cluster/acme/account/{name}`
pub(in crate::pve) fn deactivate(call: &Call) -> Result {
    change(call, "acmedeactivate", Change::Deactivate)
}
