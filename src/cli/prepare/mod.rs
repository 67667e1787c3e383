//! From a session to a plan: what is asked for made definite, what is there looked at, both compared.
//!
//! Purpose: the order of questions. Reads only; whatever stands in the way comes out as a list.
//! Must not know: how any of it is asked, resolved or rendered. Start reading at [`prepare`].

mod data;
mod hardware;
mod look;
mod machines;
mod release;
mod rows;
mod schematic;
mod wanted;

use std::path::PathBuf;

use super::args::Wishes;
use super::carry_out::access;
use super::here;
use super::session::Session;
use super::stop::Stop;
use super::way_back::Before;
use crate::exit::ExitCode;
use crate::observe::{self, Ask};
use crate::plan::gates;
use crate::plan::make::inherit;
use crate::plan::observed::{Finding, Observed};
use crate::plan::{Plan, Verb, Wanted, check, lint, make};
use crate::talos::secrets::Secrets;
use crate::types::RunId;
use data::data_of;
use look::shells;
use release::{Release, release};
use wanted::wanted;

pub(super) use data::keep;
pub use look::{any_member, unreachable};
pub(super) use look::{ask, out_of_reach};
pub(super) use release::{arch, boot, no_image, own_server};
pub(super) use rows::{inheritance, planned_vms, rows};
pub(super) use schematic::schematic;
pub(super) use wanted::endpoint;

/// Everything that a verb about a rebuild shows or carries out.
pub struct Prepared {
    /// What was seen.
    pub seen: Observed,
    /// What stands in the way or should be known.
    pub findings: Vec<Finding>,
    /// The plan; none when something refuses the run.
    pub plan: Option<Plan>,
    /// The cluster's secrets.
    pub secrets: Secrets,
}

/// What a verb asks for.
#[derive(Clone, Debug)]
pub struct Order {
    /// What is done.
    pub verb: Verb,
    /// What the new cluster shall be.
    pub wishes: Wishes,
    /// What becomes of the data.
    pub data: DataWish,
    /// What was kept of the cluster that is to come back as it was.
    pub back: Option<Before>,
}

/// What becomes of the data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataWish {
    /// The running cluster's are kept.
    Keep,
    /// None are.
    Fresh,
    /// Those of this file are restored.
    Restore(PathBuf),
}

/// Looks at everything and plans what is asked for.
pub async fn prepare(session: &Session, order: &Order, run: RunId, now: jiff::Timestamp) -> Result<Prepared, Stop> {
    let talos = session.talos()?;
    let secrets = session.secrets(now)?;
    let errands = here::errands(session)?;
    let mut found = Vec::new();
    let guests = session.pve.guests().await.map_err(|error| unreachable(&error))?;
    let rows = rows(session, &guests)?;
    let half_made = order.back.as_ref().map(|before| before.half_made.clone()).unwrap_or_default();
    let ask = Ask { half_made, ..ask(session, &rows) };
    let mut seen = observe::pve::observe(&session.pve, &ask).await.map_err(|error| unreachable(&error))?;
    session.pve.caller().clone_into(&mut seen.caller);
    seen.missing_rights =
        observe::rights::missing(&session.pve, &ask, &seen).await.map_err(|error| unreachable(&error))?;
    let release = match order.verb {
        Verb::Teardown | Verb::Upgrade | Verb::GoBack => Some(Release::nothing(talos)),
        Verb::Rebuild | Verb::Create | Verb::TemplateBuild | Verb::Rollback => {
            release(session, talos, &order.wishes, &mut seen, &mut found).await?
        }
    };
    seen.may_migrate = observe::rights::may_migrate(&session.pve, &ask).await.map_err(|error| unreachable(&error))?;
    let planned_rows = planned_vms(&rows);
    let planned_rows = order.back.as_ref().map_or(planned_rows.clone(), |before| before.addressed(planned_rows));
    let vms = inherit(&planned_rows, &run, &seen, &inheritance(&rows));
    let access = access(&secrets, now)?;
    seen.cluster =
        observe::cluster::observe(&session.connector, &secrets, &access, &vms, &endpoint(session)?, now).await;
    if order.verb.makes_templates() {
        seen.shells = shells(session, &seen).await?;
    }
    let Some(release) = release else {
        let scope = check::Scope {
            verb: order.verb,
            vms: &vms,
            tags: &session.profile.value.tags,
            storage: &session.site.defaults.storage,
            max_destroy: session.profile.value.guards.max_destroy,
            destroy_disks: &order.wishes.destroy_disks.iter().cloned().collect(),
        };
        found.extend(check::around(&scope, &seen));
        return Ok(Prepared { seen, findings: found, plan: None, secrets });
    };
    if order.verb == Verb::TemplateBuild {
        let wanted = wanted(session, order, run, release, &rows, vms, &secrets)?;
        found.extend(check::findings(&wanted, &seen));
        found.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        let plan = if check::refuses(&found) { None } else { Some(planned(&wanted, &seen)?) };
        return Ok(Prepared { seen, findings: found, plan, secrets });
    }
    let mut here = here::look(session, &errands, Some(&release.installer)).await;
    here.out_of_reach = out_of_reach(session, &guests, &seen);
    let data;
    (data, here.data) = data_of(session, &order.data).await?;
    if order.data == DataWish::Keep {
        here.backup = Some(here::backup(session, seen.cluster.as_ref().and_then(|cluster| cluster.database_bytes)));
    }
    let destroy_disks = order.wishes.destroy_disks.iter().cloned().collect();
    let wanted = Wanted { data, errands, destroy_disks, ..wanted(session, order, run, release, &rows, vms, &secrets)? };
    let mut findings = check::findings(&wanted, &seen);
    findings.extend(order.back.as_ref().map(Before::warning));
    findings.extend(gates::findings(&wanted, &seen, &here));
    findings.extend(super::patches::migration(&wanted, &seen));
    findings.splice(0..0, found);
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    let plan = if check::refuses(&findings) { None } else { Some(planned(&wanted, &seen)?) };
    Ok(Prepared { seen, findings, plan, secrets })
}

fn planned(wanted: &Wanted, seen: &Observed) -> Result<Plan, Stop> {
    let plan =
        make::make(wanted, seen).map_err(|error| Stop::because(ExitCode::Refused, "no plan can be made", &error))?;
    planned_is_sane(plan)
}

/// A plan that breaks a rule is never shown, let alone carried out.
pub(super) fn planned_is_sane(plan: Plan) -> Result<Plan, Stop> {
    let notes = lint::lint(&plan);
    if notes.is_empty() {
        return Ok(plan);
    }
    let text = notes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    Err(Stop::new(ExitCode::Internal, format!("the plan breaks its own rules: {text}")).hinted("please report this"))
}

#[cfg(test)]
mod tests {
    use super::hardware::preset;
    use super::schematic::schematic_of;

    #[test]
    fn the_templates_of_the_program_are_sound() {
        assert_eq!(preset().get("scsihw").map(String::as_str), Some("virtio-scsi-single"));
        let empty = schematic_of(&[]).unwrap().id().unwrap();
        assert_eq!(empty.as_str(), "376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba");
        let one = schematic_of(&["siderolabs/qemu-guest-agent".to_owned()]).unwrap().id().unwrap();
        assert_eq!(one.as_str(), "ce4c980550dd2ab1b17bbf2b08801c7eb59418eafe8f279833297925d67c7515");
    }
}
