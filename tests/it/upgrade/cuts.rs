//! An upgrade, or the way back from one, whose process dies at any record of its journal goes on at the right machine, and
//! reboots none twice.

use std::sync::Mutex;

use recast::cli::args::Wishes;
use recast::cli::upgrade::back::prepare_run;
use recast::cli::upgrade::prepare::{Order, prepare};
use recast::journal::{Record, StateDir};
use recast::plan::compatibility::Table;
use recast::plan::path::Hops;
use recast::plan::upgrade::{KernelLog, Only, Parallel, Reboot, Stage};

use super::{LAB, Scene, Shape};
use crate::crash::{Case, Cut, CutLog, Death, Ending, Mortal, cuts, each, sample};
use recast::engine::Outcome;

/// How many journal cuts are tried, unless `RECAST_TEST_ALL_CUTS` is set.
const SAMPLE: usize = 10;

/// One control plane and one worker, by the old call; and by the services since 1.13, with a hop of Kubernetes.
const OLD: Shape = Shape { control: 1, workers: 1, ..LAB };
const NEW: Shape = Shape { talos: "1.13.5", ..OLD };

/// Two hops, taken back: the last one by what lies on the disks, the first one by the installer.
const HOPS: Shape = Shape { talos: "1.11.6", ..OLD };

/// Which way a case goes.
#[derive(Clone, Copy, Debug)]
enum Goes {
    /// From this to 1.13.9.
    Up(Shape),
    /// Back to this, by two hops, from 1.13.9.
    Back(Shape),
}

impl Goes {
    /// What runs in the end, and how often each machine was booted then: once at the beginning, and once for every hop.
    fn end(self) -> (&'static str, usize) {
        match self {
            Self::Up(_) => ("1.13.9", 2),
            Self::Back(shape) => (shape.talos, 5),
        }
    }

    async fn case(self) -> Case {
        match self {
            Self::Up(shape) => up(shape).await,
            Self::Back(shape) => back(shape).await,
        }
    }
}

async fn back(shape: Shape) -> Case {
    let scene = Scene::begin(shape).await;
    let (document, _) = scene.done(&["upgrade", "--to", "1.13.9", "--only", "os"]).await;
    let Scene { folder, double } = scene;
    let session = folder.session(double.site());
    let dir = StateDir::new(&folder.state(), "lab").run(&document["run"].as_str().unwrap().into());
    let plan = crate::site::plan(dir.path());
    let prepared = prepare_run(&session, &dir, &plan).await.unwrap_or_else(|stop| panic!("{stop:?}"));
    Case::of(folder, double, prepared.plan)
}

async fn up(shape: Shape) -> Case {
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
async fn assert_done(goes: Goes, case: Case, what: &str) {
    let story = format!("{what}: {}", case.story());
    let Case { folder, double, .. } = case;
    let scene = Scene { folder, double };
    let (talos, boots) = goes.end();
    scene.assert_runs(talos, "1.34.1", &story).await;
    for vmid in [1200, 1210] {
        let console = std::fs::read_to_string(scene.double.world().console_path(vmid)).unwrap();
        assert_eq!(console.matches("Booting from").count(), boots, "{vmid} booted too often\n{console}\n{story}");
    }
}

fn undisturbed(goes: Goes) -> Vec<Record> {
    let records = Mutex::new(Vec::new());
    each("undisturbed", &[()], async |()| {
        let case = goes.case().await;
        assert_eq!(case.resume().await, Ending::Outcome(Outcome::Done), "{}", case.story());
        *records.lock().unwrap() = case.log.records();
        assert_done(goes, case, "undisturbed").await;
    });
    records.into_inner().unwrap()
}

fn killed_everywhere(goes: Goes) {
    let cuts = sample(cuts(&undisturbed(goes)), SAMPLE);
    each("journal cuts", &cuts, async |cut: &Cut| {
        let case = goes.case().await;
        let death = Death::default();
        let log = CutLog { kept: case.log.clone(), cut: *cut, death: death.clone() };
        let world = Mortal { world: case.world(), death: death.clone() };
        let first = case.live(&world, Box::new(log), &death).await;
        drop(world);
        assert!(first == Ending::Death || first == Ending::Outcome(Outcome::Done), "{first:?}: {}", case.story());
        assert_eq!(case.resume().await, Ending::Outcome(Outcome::Done), "{cut:?}: {}", case.story());
        assert_done(goes, case, &format!("{cut:?}")).await;
    });
}

#[test]
fn killed_at_any_record_an_upgrade_by_the_old_call_goes_on() {
    killed_everywhere(Goes::Up(OLD));
}

#[test]
fn killed_at_any_record_an_upgrade_by_the_new_services_goes_on() {
    killed_everywhere(Goes::Up(NEW));
}

#[test]
fn killed_at_any_record_a_way_back_of_two_hops_goes_on() {
    killed_everywhere(Goes::Back(HOPS));
}
