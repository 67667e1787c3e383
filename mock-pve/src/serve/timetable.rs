//! Backups and replication by the calendar: the nodes are asked for what their jobs say, when it is time.

use std::time::Duration;

use crate::pve::Api;
use crate::world::World;
use crate::world::backups::schedule::{Due, Timetable};

/// Asks the nodes for the backups that are due and runs the replication jobs that are, for as long as it is polled. Between two turns it sleeps.
pub(super) async fn keep(world: World, apis: Vec<Api>) {
    let mut timetable = Timetable::default();
    loop {
        let now = world.clock().unix();
        let (due, next) = timetable.due(&mut world.state(), now);
        for Due { node, options } in due {
            let Some(api) = apis.iter().find(|api| api.node() == node) else { continue };
            let asked = api.as_root("POST", &format!("/nodes/{node}/vzdump"), options).await;
            if let Err(failure) = asked {
                tracing::warn!(%node, status = failure.status, text = failure.text, "a backup job can't be run");
            }
        }
        let next = next.into_iter().chain(world.replicate(now)).min();
        let turn = async {
            match next {
                Some(next) => tokio::time::sleep(Duration::from_secs(next.saturating_sub(world.clock().unix()))).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = turn => {}
            () = world.rescheduled() => {}
        }
    }
}
