//! `recast config diff`: what would be rendered, beside what the machines have.

use std::fmt::Write as _;
use std::time::Duration;

use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};

use super::address::addresses;
use super::ground::{Ground, OldKeys, Source, add};
use crate::cli::args::{DiffConfig, Global};
use crate::cli::carry_out::access;
use crate::cli::session::{Session, connector};
use crate::cli::stop::Stop;
use crate::cli::{Answer, Surroundings};
use crate::exit::ExitCode;
use crate::net::Connector;
use crate::report::Document;
use crate::report::document::Ending;
use crate::talos::client::{Access, Machine};
use crate::talos::config::{Config, Difference, differences};

/// How long a machine may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// `recast config diff`.
pub(super) async fn diff(global: &Global, asked: &DiffConfig, surroundings: &Surroundings) -> Result<Answer, Stop> {
    let now = Timestamp::now();
    let ground = Ground::read(global, &asked.target, now)?;
    let old = OldKeys::from(asked.migrate);
    let machines = ground.machines(global, surroundings).await?;
    let access = access(&ground.secrets, now)?;
    let connector = connector(&surroundings.place, &ground.site)?;
    let unplaced = machines.iter().any(|machine| machine.address.is_none());
    let session = unplaced.then(|| Session::open(&surroundings.place, global));
    let (mut text, mut stop, mut changed) = (String::new(), None, serde_json::Map::new());
    for source in &machines {
        let name = &source.spec.name;
        let rendered = match ground.render(source, old) {
            Ok(rendered) => rendered,
            Err(more) => {
                add(&mut stop, more);
                continue;
            }
        };
        let live = match live(&ground, source, session.as_ref(), (&connector, &access)).await {
            Ok(live) => live,
            Err(more) => {
                add(&mut stop, more);
                continue;
            }
        };
        let unreadable = |error: &(dyn std::error::Error + 'static)| {
            Stop::because(ExitCode::Failed, format!("the configuration of {name} can't be compared"), error)
        };
        let has = Config::parse(live.expose_secret()).map_err(|error| unreadable(&error))?;
        let wanted = Config::parse(rendered.text.expose_secret()).map_err(|error| unreadable(&error))?;
        let found = differences(&has, &wanted, |text| ground.secrets.is_in(text));
        if found.is_empty() {
            let _ = writeln!(text, "{name}: as rendered");
            continue;
        }
        let _ = writeln!(text, "{name}: {} difference(s)", found.len());
        for Difference { document, path, .. } in &found {
            changed.entry(name.to_string()).or_insert_with(|| Vec::<String>::new().into());
            if let Some(serde_json::Value::Array(list)) = changed.get_mut(name.as_str()) {
                list.push(format!("{document} {path}").trim_end().into());
            }
        }
        for difference in &found {
            let _ = writeln!(text, "  {difference}");
        }
    }
    if let Some(stop) = stop {
        surroundings.console.tell(&text);
        return Err(stop);
    }
    let name = &ground.profile.value.name;
    let (code, ending) =
        if changed.is_empty() { (ExitCode::Done, Ending::Done) } else { (ExitCode::Pending, Ending::Pending) };
    let mut document = Document::of_verb("config diff", Some(name), ending);
    document.extra.insert("differences".to_owned(), changed.into());
    Ok(Answer { code, document, text })
}

/// The configuration that a machine has, from the first of its addresses that answers.
async fn live(
    ground: &Ground,
    source: &Source,
    session: Option<&Result<Session, Stop>>,
    (connector, access): (&Connector, &Access),
) -> Result<SecretString, Stop> {
    let mut silent = Vec::new();
    for address in addresses(ground, source, session).await? {
        let asked = async {
            let machine = Machine::new(connector, &address.to_string(), access, PATIENCE).map_err(|e| e.to_string())?;
            let config = machine.config().await.map_err(|error| error.to_string())?;
            config.ok_or_else(|| "it has no configuration".to_owned())
        };
        match asked.await {
            Ok(config) => return Ok(config),
            Err(why) => silent.push(why),
        }
    }
    let what = format!("the configuration of {} can't be read: {}", source.spec.name, silent.join("; "));
    Err(Stop::new(ExitCode::Failed, what))
}
