//! What a hop of Kubernetes will change in the bootstrap manifests, asked of the server without changing anything.

use crate::cli::carry_out::access;
use crate::cli::session::Session;
use crate::cli::stop::Stop;
use crate::observe::components;
use crate::plan::kubernetes;
use crate::plan::observed::Finding;
use crate::plan::path::{Hop, What};
use crate::plan::upgrade::SeenCluster;
use crate::talos::secrets::Secrets;

/// Notes what the first hop would change, where it is one of Kubernetes: after a hop of Talos the machines will render
/// other manifests than they do now.
pub async fn preview(
    session: &Session,
    secrets: &Secrets,
    hops: &[Hop],
    running: &mut SeenCluster,
) -> Result<Option<Finding>, Stop> {
    let Some(Hop { from, to, .. }) = hops.first().filter(|hop| hop.what == What::Kubernetes) else { return Ok(None) };
    let Some(talos) = running.members.iter().map(|seen| &seen.version).min() else { return Ok(None) };
    let access = access(secrets, jiff::Timestamp::now())?;
    let live: Vec<_> = running.members.iter().map(|seen| seen.member.clone()).collect();
    let found = match components::client(&session.connector, &access, &live).await {
        Some(Ok(client)) => {
            let hop = kubernetes::Hop { seen: &running.components, from, to, talos, steady: 0, runs: None };
            components::preview(&session.connector, &access, &hop, &client).await
        }
        Some(Err(error)) => Err(error),
        // That nothing answers is told with the cluster's health.
        None => return Ok(None),
    };
    match found {
        Ok(lines) => {
            running.components.manifest_changes.insert(to.clone(), lines);
            Ok(None)
        }
        Err(error) => Ok(Some(
            Finding::warning(
                format!("what Kubernetes {to} will change in the bootstrap manifests can't be shown"),
                "the run tries each object before it changes it, and says what changed",
            )
            .because(&*error),
        )),
    }
}
