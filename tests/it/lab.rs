//! The whole rebuild: three control planes and two workers on three PVE nodes, with a writer that keeps on writing, and
//! etcd restored. Nothing that was acknowledged may be missing, nothing outside the plan touched.

use std::fs;

use recast::cli::rehearse::{Verdict, Writer};
use recast::net::Connector;

use crate::kill::{Random, Recast, told};
use crate::site::{Cluster, Double, End, Folder, assert_deeds, plan};

/// How much faster than life the doubles are.
const TIME_SCALE: f64 = 50.0;

/// How often the program is killed.
const KILLS: u32 = 20;

/// Writes to the folder's cluster from now on.
pub(crate) fn writer(folder: &Folder, double: &Double) -> Writer {
    let session = folder.session(double.site());
    let connector: &Connector = &session.connector;
    let secrets = session.secrets(jiff::Timestamp::now()).unwrap();
    let endpoint = session.profile.value.network.api_endpoint.as_ref().unwrap().url();
    Writer::start(connector, &endpoint, &secrets).unwrap()
}

pub(crate) fn assert_nothing_lost(verdict: &Verdict, story: &str) {
    assert!(verdict.missing.is_empty(), "{verdict:?}\n{story}");
    assert!(verdict.acknowledged > 50, "{verdict:?}\n{story}");
}

/// A rebuild of the lab, while somebody writes; the images travel like this.
async fn comes_back(transport: &str) {
    let folder = Folder::of(Cluster::Lab);
    let profile = fs::read_to_string(folder.profile()).unwrap();
    fs::write(folder.profile(), format!("{profile}transport: {transport}\n")).unwrap();
    let double = Double::program(&folder, TIME_SCALE);
    let writer = writer(&folder, &double);
    let code = Recast::start(folder.recast(double.site(), &Cluster::Lab.rebuild()), &folder).end();
    let story = told(&folder);
    assert_eq!(code, Some(0), "{story}");
    assert_nothing_lost(&writer.finish().await.unwrap(), &story);
    assert_eq!(End::of(&folder, double.site()).await, End::rebuilt(Cluster::Lab), "{story}");
    assert_deeds(&double.deeds(), &plan(&folder.run()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_control_planes_and_two_workers_come_back_with_everything_that_was_acknowledged() {
    comes_back("upload").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_images_that_go_over_ssh_they_come_back_too() {
    comes_back("ssh").await;
}

/// One run after the other is killed and gone on with, until there were enough kills. The first run goes to the new
/// versions, the others rebuild the cluster as it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_twenty_times_at_random_moments_it_loses_nothing() {
    let folder = Folder::of(Cluster::Lab);
    let double = Double::program(&folder, TIME_SCALE);
    let mut random = Random::new();
    let seed = random.0;
    let writer = writer(&folder, &double);
    let mut moments = Vec::new();
    let mut kills = 0;
    let first = Cluster::Lab.rebuild();
    let again = ["rebuild", "--confirm", "lab"];
    let mut args: &[&str] = &first;
    loop {
        let mut recast = Recast::start(folder.recast(double.site(), args), &folder);
        let moment = if kills < KILLS { recast.wait_for(random.below(25)) } else { None };
        if let Some(moment) = moment {
            recast.kill();
            assert_eq!(recast.end(), None);
            moments.push(moment);
            kills += 1;
            // Killed before its journal was there, a run is not resumed but begun.
            let journaled = fs::read_dir(folder.runs())
                .is_ok_and(|runs| runs.flatten().any(|run| run.path().join("journal.jsonl").exists()));
            if journaled {
                args = &["resume"];
            }
            continue;
        }
        let code = recast.end();
        let story = || format!("RECAST_TEST_SEED={seed}, killed after {moments:#?}\n{}", told(&folder));
        // Nothing is left to resume when the kill came after the last record.
        assert!(code == Some(0) || (args == ["resume"] && code == Some(3)), "{code:?} {}", story());
        if kills == KILLS {
            break;
        }
        args = &again;
    }
    let story = format!("RECAST_TEST_SEED={seed}, killed after {moments:#?}\n{}", told(&folder));
    assert_nothing_lost(&writer.finish().await.unwrap(), &story);
    let (end, expected) = (End::of(&folder, double.site()).await, End::rebuilt(Cluster::Lab));
    assert_eq!((end.vms, end.versions, end.members), (expected.vms, expected.versions, expected.members), "{story}");
    assert_eq!((end.disks, end.uploads), (expected.disks, expected.uploads), "{story}");
    let plans = fs::read_dir(folder.runs()).unwrap().map(|run| plan(&run.unwrap().path()));
    let deeds = double.deeds();
    let planned: Vec<u32> = plans.flat_map(|plan| plan.destroys).map(|old| old.vmid.0).collect();
    let touched = deeds.iter().filter(|deed| deed.origin == mock_pve::world::deed::Origin::Seeded);
    assert!(touched.clone().all(|deed| deed.vmid.is_some_and(|vmid| planned.contains(&vmid))), "{deeds:#?}");
}
