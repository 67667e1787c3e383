//! An upgrade whose process dies at any record of its journal goes on at the right machine, and reboots none twice.

use std::sync::Mutex;

use recast::cli::args::Wishes;
use recast::cli::upgrade::prepare::{Order, prepare};
use recast::journal::{Record, StateDir};
use recast::plan::compatibility::Table;
use recast::plan::path::Hops;
use recast::plan::upgrade::{KernelLog, Only, Parallel, Reboot, Stage};

use super::{LAB, Scene, Shape};
use crate::crash::{Case, Cut, CutLog, Death, Ending, Mortal, cuts, each};
use crate::kill::Random;
use recast::engine::Outcome;

/// How many journal cuts are tried, unless `RECAST_TEST_ALL_CUTS` is set.
const SAMPLE: usize = 10;

/// One control plane and one worker, by the old call; and by the services since 1.13, with a hop of Kubernetes.
const OLD: Shape = Shape { control: 1, workers: 1, ..LAB };
const NEW: Shape = Shape { talos: "1.13.5", ..OLD };

async fn case(shape: Shape) -> Case {
    let Scene { folder, double } = Scene::begin(shape).await;
    let session = folder.session(double.site());
    let state = StateDir::new(&folder.state(), "lab");
    let order = Order {
        wishes: Wishes { to: Some("1.13.9".parse().unwrap()), ..Wishes::default() },
        only: Only::Os,
        nodes: None,
        parallel: Parallel::default(),
        stage: Stage::Now,
        reboot: Reboot::Default,
        kernel_log: KernelLog::Unheard,
        hops: Hops::Any,
        table: Table::built_in().clone(),
    };
    let run = state.new_run_id(jiff::Timestamp::now());
    let prepared = prepare(&session, &order, run).await.unwrap_or_else(|stop| panic!("{stop:?}"));
    let plan = prepared.plan.unwrap_or_else(|| panic!("{:#?}", prepared.findings));
    Case::of(folder, double, plan)
}

/// Ends as it should, with as many boots of each machine as there are hops.
async fn assert_done(case: Case, what: &str) {
    let story = format!("{what}: {}", case.story());
    let Case { folder, double, .. } = case;
    let scene = Scene { folder, double };
    scene.assert_runs("1.13.9", "1.34.1", &story).await;
    for vmid in [1200, 1210] {
        let console = std::fs::read_to_string(scene.double.world().console_path(vmid)).unwrap();
        assert_eq!(console.matches("Booting from").count(), 2, "{vmid} booted too often\n{console}\n{story}");
    }
}

fn undisturbed(shape: Shape) -> Vec<Record> {
    let records = Mutex::new(Vec::new());
    each("undisturbed", &[()], async |()| {
        let case = case(shape).await;
        assert_eq!(case.resume().await, Ending::Outcome(Outcome::Done), "{}", case.story());
        *records.lock().unwrap() = case.log.records();
        assert_done(case, "undisturbed").await;
    });
    records.into_inner().unwrap()
}

fn killed_everywhere(shape: Shape) {
    let mut cuts = cuts(&undisturbed(shape));
    if std::env::var_os("RECAST_TEST_ALL_CUTS").is_none() {
        // Evenly spread, and others with every seed.
        let stride = cuts.len().div_ceil(SAMPLE);
        let first = usize::try_from(Random::new().below(stride as u64)).unwrap();
        cuts = cuts.into_iter().skip(first).step_by(stride).collect();
    }
    each("journal cuts", &cuts, async |cut: &Cut| {
        let case = case(shape).await;
        let death = Death::default();
        let log = CutLog { kept: case.log.clone(), cut: *cut, death: death.clone() };
        let world = Mortal { world: case.world(), death: death.clone() };
        let first = case.live(&world, Box::new(log), &death).await;
        drop(world);
        assert!(first == Ending::Death || first == Ending::Outcome(Outcome::Done), "{first:?}: {}", case.story());
        assert_eq!(case.resume().await, Ending::Outcome(Outcome::Done), "{cut:?}: {}", case.story());
        assert_done(case, &format!("{cut:?}")).await;
    });
}

#[test]
fn killed_at_any_record_an_upgrade_by_the_old_call_goes_on() {
    killed_everywhere(OLD);
}

#[test]
fn killed_at_any_record_an_upgrade_by_the_new_services_goes_on() {
    killed_everywhere(NEW);
}
