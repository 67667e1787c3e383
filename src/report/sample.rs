//! A small plan, its events and its records, for the renderers' tests.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::Now;
use crate::event::{CancelledBy, Class, Event, Failure, How, Outcome};
use crate::journal::{Entry, JournalFormat, Record};
use crate::plan::step::{Image, OurVm, VmIdentity};
use crate::plan::{
    ClusterConfig, Data, FORMAT, Facts, Limits, Output, Phase, Plan, Planned, PlannedVm, Step, Undo, Verb, Versions,
};
use crate::types::{Role, Sha256, StepId, VmId};

const SCHEMATIC: &str = "ce4c980550dd2ab1b17bbf2b08801c7eb59418eafe8f279833297925d67c7515";

/// Milliseconds after the run's begin.
pub(super) fn moment(millis: i64) -> Timestamp {
    "2026-11-20T22:31:05Z".parse::<Timestamp>().unwrap() + SignedDuration::from_millis(millis)
}

/// A clock that stands still.
pub(super) fn at(millis: i64) -> Now {
    Box::new(move || moment(millis))
}

fn ours(vmid: u32, name: &str) -> OurVm {
    OurVm { node: "pve1".into(), vmid: VmId(vmid), name: name.to_owned(), mark: "recast: run=r".to_owned() }
}

fn step(id: &str, step: Step, undo: Undo) -> Planned {
    Planned { id: id.into(), step, after: Vec::new(), undo }
}

fn phase(name: &str, steps: Vec<Planned>) -> Phase {
    Phase { name: name.to_owned(), steps, width: 1 }
}

/// Fetch, template, canary, retire, provision: of one control plane.
pub(super) fn plan() -> Plan {
    let old = VmIdentity {
        node: "pve1".into(),
        vmid: VmId(1100),
        name: "single-cp-01".to_owned(),
        uuid: "5f3f1d0e-0000-4000-8000-000000001100".to_owned(),
        vmgenid: None,
        tags: vec!["single".to_owned(), "talos".to_owned()],
        created: None,
        disks: BTreeMap::new(),
    };
    let image = Image {
        url: "https://factory.example/image.raw.xz".to_owned(),
        schematic: SCHEMATIC.into(),
        version: "1.13.9".parse().unwrap(),
        sha256: None,
        bytes: 100 << 20,
    };
    let clone =
        |vm: OurVm| Step::CloneVm { template: VmId(900), from: None, vm, storage: "local-lvm".into(), pool: None };
    let by = |vm: OurVm| Undo::By(Box::new(Step::DeleteOurVm { vm }));
    let (template, canary, new) = (ours(900, "talos-template"), ours(901, "canary"), ours(1101, "single-cp-01"));
    let create = Step::CreateTemplate { vm: template.clone(), hardware: BTreeMap::new() };
    Plan {
        format: FORMAT,
        verb: Verb::Rebuild,
        run: "2026-11-20T22-31-05".into(),
        cluster: "single".to_owned(),
        profile: Sha256::of(b"profile"),
        secrets: Sha256::of(b"secrets"),
        endpoint: Some("https://192.168.178.41:6443".to_owned()),
        cluster_config: Some(ClusterConfig {
            endpoint: "https://192.168.178.41:6443".to_owned(),
            pod_cidr: "10.244.0.0/16".to_owned(),
            service_cidr: "10.96.0.0/12".to_owned(),
            install_disk: "/dev/sda".to_owned(),
            schematic: SCHEMATIC.into(),
            installer: format!("factory.example/nocloud-installer/{SCHEMATIC}:v1.13.9"),
            mtu: None,
            vip: None,
        }),
        facts: Facts::default(),
        vms: vec![PlannedVm {
            name: "single-cp-01".to_owned(),
            role: Role::ControlPlane,
            vmid: VmId(1101),
            node: "pve1".into(),
            address: Some("192.168.178.41".parse().unwrap()),
            cores: 2,
            memory_mb: 4096,
            disk_gib: 32,
            mac: Some("BC:24:11:00:11:00".parse().unwrap()),
            replaces: Some(VmId(1100)),
        }],
        destroys: vec![old.clone()],
        fates: Vec::new(),
        changes: Vec::new(),
        ways: Vec::new(),
        hops: Vec::new(),
        keeps: Vec::new(),
        download_bytes: 100 << 20,
        before: Some(Versions { talos: "1.12.4".parse().unwrap(), kubernetes: "1.34.1".parse().unwrap() }),
        data: Data::Fresh,
        after: Some(Versions { talos: "1.13.9".parse().unwrap(), kubernetes: "1.35.0".parse().unwrap() }),
        limits: Limits { shutdown: 120, boot: 300, health: 600, task: 600, steady: 30, drain: 300 },
        phases: vec![
            phase("image", vec![step("image/fetch", Step::FetchImage { image }, Undo::Nothing)]),
            phase("template", vec![step("template/create", create, by(template))]),
            phase(
                "canary",
                vec![
                    step("canary/clone", clone(canary.clone()), by(canary.clone())),
                    step("canary/delete", Step::DeleteOurVm { vm: canary }, Undo::Nothing),
                ],
            ),
            phase(
                "retire",
                vec![step(
                    "retire/1100",
                    Step::RetireVm { vm: old, purge: false },
                    Undo::Irreversible { because: "it is gone".to_owned() },
                )],
            ),
            phase(
                "provision",
                vec![
                    step("provision/single-cp-01/clone", clone(new.clone()), Undo::Nothing),
                    step("provision/single-cp-01/start", Step::StartVm { vm: new }, Undo::Nothing),
                ],
            ),
        ],
    }
}

pub(super) fn failure() -> Failure {
    Failure {
        what: "could not start VM 1101 on node pve1".to_owned(),
        causes: vec!["task UPID:pve1:0001 ended: no space left".to_owned(), "no space left".to_owned()],
        hints: vec!["free some space on local-lvm".to_owned()],
    }
}

/// A sample as reports take it, with names and texts that mean something in every format a report has.
pub(super) struct Told {
    pub(super) plan: Plan,
    pub(super) progress: super::Progress,
    pub(super) document: super::Document,
}

/// Text that would break out of any format, if it could.
pub(super) const HOSTILE: &str =
    "</td></text>]]><script>alert('1')</script>\"&amp; | `x` *b* [l](https://e.example) @all $m$ \u{1b}[31m\u{0}";

impl Told {
    pub(super) fn new(journal: &Journal) -> Self {
        Self::of(plan(), journal)
    }

    pub(super) fn of(plan: Plan, journal: &Journal) -> Self {
        let progress = super::progress_of(&plan, &journal.0);
        let backup = super::document::Backup {
            revision: 1234,
            keys: 100,
            sha256: Sha256::of(b"snapshot"),
            copies: vec!["backups/etcd-rebuild.snapshot".to_owned(), "nas:/backups/etcd.snapshot".to_owned()],
            frozen: true,
        };
        let input = super::document::Input {
            requests: 42,
            backup: Some(backup),
            ..super::document::Input::new(&plan, &progress)
        };
        let document = super::Document::of_run(input);
        Self { plan, progress, document }
    }

    /// Everything that can be named by someone else is named [`HOSTILE`].
    pub(super) fn hostile() -> Self {
        let mut plan = plan();
        plan.cluster = HOSTILE.to_owned();
        plan.vms[0].name = HOSTILE.to_owned();
        plan.destroys[0].name = HOSTILE.to_owned();
        if let Step::StartVm { vm } = &mut plan.phases[4].steps[1].step {
            vm.name = HOSTILE.to_owned();
        }
        let mut told = Self::of(plan, &Journal::stopped());
        told.progress.notices.push(HOSTILE.to_owned());
        told.progress.failures[0].failure.what = HOSTILE.to_owned();
        let document = &mut told.document;
        for vm in document.work.iter_mut().flat_map(|work| work.destroyed.iter_mut().chain(&mut work.created)) {
            vm.name = HOSTILE.to_owned();
        }
        if let Some(work) = &mut document.work {
            work.regressions.push(HOSTILE.to_owned());
            work.backup.iter_mut().for_each(|backup| backup.copies.push(HOSTILE.to_owned()));
        }
        let text = HOSTILE.to_owned();
        let failure = Failure { what: text.clone(), causes: vec![format!("a{text}")], hints: vec![text.clone()] };
        document.problems.push(super::document::Problem::new(super::document::Kind::Failed, &failure).at(text));
        document.problems.push(super::document::Problem::new(super::document::Kind::Warning, &failure));
        told
    }

    pub(super) fn report(&self) -> super::Report<'_> {
        let run = super::Told { plan: &self.plan, progress: &self.progress };
        super::Report { document: &self.document, run: Some(run), resume: Some("recast resume 2026-11-20T22-31-05") }
    }
}

/// Compares with `tests/golden/reports/NAME.snap`.
pub(super) fn golden(name: &str, text: &str) {
    insta::with_settings!({
        snapshot_path => "../../tests/golden/reports", prepend_module_to_snapshot => false, omit_expression => true
    }, { insta::assert_snapshot!(name, text) });
}

/// A verb that a gate refused before there was a run.
pub(super) fn refusal() -> super::Document {
    use super::document::{Ending, Kind, Problem};
    let why = Failure {
        what: "VM 1100 is locked (backup)".to_owned(),
        causes: Vec::new(),
        hints: vec!["wait for the backup, or unlock it".to_owned()],
    };
    let other = Failure { what: "the storage is nearly full".to_owned(), causes: Vec::new(), hints: Vec::new() };
    super::Document::of_verb("rebuild", Some("single"), Ending::Refused)
        .with_problems([Problem::new(Kind::Refused, &why).at("pve1"), Problem::new(Kind::Warning, &other)])
}

/// A journal, one entry a second.
pub(super) struct Journal(pub(super) Vec<Record>);

impl Journal {
    pub(super) fn opened() -> Self {
        Self(Vec::new()).and(Entry::Opened {
            format: JournalFormat::CURRENT,
            tool: "0.1.0".to_owned(),
            plan: Sha256::of(b"plan"),
            run: plan().run,
        })
    }

    pub(super) fn and(mut self, entry: Entry) -> Self {
        let seq = self.0.len() as u64;
        let at = moment(1000 * i64::try_from(seq).unwrap());
        self.0.push(Record { seq, at, entry });
        self
    }

    pub(super) fn started(self, step: &str) -> Self {
        self.and(Entry::Started { step: step.into(), attempt: 1 })
    }

    pub(super) fn done(self, step: &str) -> Self {
        let entry = Entry::Succeeded { step: step.into(), output: Output::Nothing, how: How::Applied };
        self.started(step).and(entry)
    }

    pub(super) fn failed(self, step: &str, class: Class) -> Self {
        self.and(Entry::Failed { step: step.into(), failure: failure(), class })
    }

    pub(super) fn closed(self, outcome: Outcome) -> Self {
        self.and(Entry::Closed { outcome })
    }

    /// Until the old VM is gone.
    pub(super) fn retired() -> Self {
        ["image/fetch", "template/create", "canary/clone", "canary/delete"]
            .into_iter()
            .fold(Self::opened(), Self::done)
            .and(Entry::ApiProbe { up: true })
            .and(Entry::ApiProbe { up: false })
            .done("retire/1100")
    }

    /// The new VM does not start.
    pub(super) fn stopped() -> Self {
        Self::retired()
            .done("provision/single-cp-01/clone")
            .started("provision/single-cp-01/start")
            .failed("provision/single-cp-01/start", Class::Permanent)
            .closed(Outcome::Failed)
    }

    /// And after a resume it does.
    pub(super) fn complete() -> Self {
        Self::stopped()
            .and(Entry::Resumed)
            .done("provision/single-cp-01/start")
            .and(Entry::ApiProbe { up: true })
            .closed(Outcome::Done)
    }

    /// Parked while the template is made.
    pub(super) fn cancelled() -> Self {
        Self::opened()
            .done("image/fetch")
            .started("template/create")
            .and(Entry::Cancelled { by: CancelledBy::Interrupt })
            .closed(Outcome::Cancelled)
    }
}

/// A run that fails, as it is told while it goes on, with milliseconds.
pub(super) fn failed_events() -> Vec<(i64, Event)> {
    let step = |id: &str| StepId::new(id);
    let fetch = step("image/fetch");
    let bytes = |done: u64| Event::Bytes {
        step: step("image/fetch"),
        what: "download".to_owned(),
        done: done << 20,
        total: Some(100 << 20),
        cached: 0,
    };
    let start = step("provision/single-cp-01/start");
    vec![
        (
            0,
            Event::RunOpened {
                run: plan().run,
                cluster: "single".to_owned(),
                verb: "rebuild".to_owned(),
                resumed: false,
            },
        ),
        (0, Event::PhaseStarted { phase: "image".to_owned(), steps: 1 }),
        (0, Event::StepStarted { step: fetch.clone(), title: "fetch Talos v1.13.9 (ce4c9805)".to_owned() }),
        (100, bytes(0)),
        (2100, bytes(40)),
        (4200, bytes(100)),
        (4300, Event::Notice { text: "The lock has no digest for this image: it is pinned now.".to_owned() }),
        (4300, Event::StepFinished { step: fetch, how: How::Applied, seconds: 4.3 }),
        (4300, Event::PhaseFinished { phase: "image".to_owned(), seconds: 4.3 }),
        (4300, Event::PhaseStarted { phase: "template".to_owned(), steps: 1 }),
        (4300, Event::StepStarted { step: step("template/create"), title: "create VM 900".to_owned() }),
        (4400, Event::StepFinished { step: step("template/create"), how: How::AlreadyDone, seconds: 0.1 }),
        (4400, Event::PhaseFinished { phase: "template".to_owned(), seconds: 0.1 }),
        (5000, Event::ApiProbe { up: false }),
        (5000, Event::StepStarted { step: start.clone(), title: "start VM 1101 (single-cp-01)".to_owned() }),
        (5100, Event::Waiting { step: start.clone(), on: "task qmstart".to_owned(), last: None }),
        (
            6000,
            Event::Retrying {
                step: start.clone(),
                attempt: 2,
                in_seconds: 1.5,
                because: "connection reset".to_owned(),
            },
        ),
        (9000, Event::StepFailed { step: start, class: Class::Permanent, failure: failure() }),
        (9000, Event::Undoing { step: step("template/create"), title: "delete VM 900".to_owned() }),
        (9500, Event::Undone { step: step("template/create"), seconds: 0.5 }),
        (9500, Event::RunClosed { outcome: Outcome::Failed, api_downtime_seconds: Some(4.5) }),
    ]
}
