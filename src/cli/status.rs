//! `recast status`: how the cluster stands, beside how its profile wants it. Reads only, and exits 0 whatever it sees.

use super::args::Global;
use super::carry_out::{access, unless_cancelled};
use super::rebuild::tell_warnings;
use super::session::Session;
use super::stop::Stop;
use super::{Answer, Surroundings};
use crate::exit::ExitCode;
use crate::image::Schematic;
use crate::observe::status::{Inside, Known, look};
use crate::plan::status::{Wanted, WantedMachine};
use crate::profile::expand::{Taken, WantedVm, expand};
use crate::profile::{Group, StartVmId};
use crate::report::document::Ending;
use crate::report::{Document, status as shown};

/// `recast status`.
pub async fn status(global: &Global, surroundings: &Surroundings) -> Result<Answer, Stop> {
    let session = Session::open_any(&surroundings.place, global)?;
    tell_warnings(&session, surroundings);
    let rows = expand(&session.profile.value, &session.site, &Taken::default())?;
    let known: Vec<Known> = rows.iter().map(|row| known(&session, row)).collect();
    let wanted = wanted(&session, &rows);
    let tags = &session.profile.value.tags;
    let seen = unless_cancelled(surroundings, async {
        let mut notes = Vec::new();
        let mut status = match inside(&session, &mut notes) {
            Some((access, endpoint)) => {
                let inside = Inside { connector: &session.connector, access: &access, endpoint: &endpoint };
                look(&session.pve, tags, &known, Some(&inside)).await
            }
            None => look(&session.pve, tags, &known, None).await,
        };
        status.unwell.extend(notes);
        Ok(status)
    })
    .await?;
    let status = seen.judge(&wanted);
    let name = &session.profile.value.name;
    let text = shown::text(name, &status);
    let document = Document::of_verb("status", Some(name), Ending::Done).with_status(status);
    Ok(Answer { code: ExitCode::Done, document, text })
}

/// What opens the cluster from inside; a cluster whose secrets can't be had is looked at from outside.
fn inside(session: &Session, notes: &mut Vec<String>) -> Option<(crate::talos::client::Access, String)> {
    let profile = &session.profile.value;
    profile.talos.as_ref()?;
    let endpoint = profile.network.api_endpoint.as_ref()?.url();
    let now = jiff::Timestamp::now();
    match session.secrets(now).and_then(|secrets| access(&secrets, now)) {
        Ok(access) => Some((access, endpoint)),
        Err(stop) => {
            let why: Vec<String> = stop.problems.iter().map(|problem| problem.what.clone()).collect();
            notes.push(format!("the machines can't be asked: {}", why.join("; ")));
            None
        }
    }
}

/// The group that a row comes from.
fn group<'a>(session: &'a Session, row: &WantedVm) -> Option<&'a Group> {
    let groups = session.profile.value.nodes.iter();
    groups.into_iter().find(|(role, _, _)| *role == row.role).map(|(_, _, group)| group)
}

fn known(session: &Session, row: &WantedVm) -> Known {
    Known { name: row.name.clone(), role: row.role, vmid: fixed_vmid(session, row), address: row.address }
}

/// The number, unless the next rebuild is free to choose it.
fn fixed_vmid(session: &Session, row: &WantedVm) -> Option<crate::types::VmId> {
    let group = group(session, row)?;
    let assigned = group.assignment(&row.name).and_then(|assignment| assignment.vmid);
    assigned.or((group.start_vmid != StartVmId::Auto).then_some(row.vmid))
}

fn wanted(session: &Session, rows: &[WantedVm]) -> Wanted {
    let talos = session.profile.value.talos.as_ref();
    let machine = |row: &WantedVm| WantedMachine {
        name: row.name.to_string(),
        role: row.role,
        vmid: fixed_vmid(session, row),
        node: group(session, row)
            .and_then(|group| group.assignment(&row.name))
            .and_then(|assignment| assignment.node.clone()),
        cores: row.cores.into(),
        memory_mb: row.memory_mb,
        disk_gib: row.disk_gib,
        schematic: talos.and_then(|talos| {
            let own = group(session, row).and_then(|group| group.factory.as_ref()).unwrap_or(&talos.factory);
            let computed = || Schematic::with_extensions(own.extensions.iter().cloned()).id().ok();
            own.schematic_id.clone().or_else(|| (!own.extensions.is_empty()).then(computed).flatten())
        }),
    };
    Wanted {
        machines: rows.iter().map(machine).collect(),
        talos: talos.map(|talos| talos.version.clone()),
        kubernetes: talos.map(|talos| talos.kubernetes_version.clone()),
    }
}
