//! The journal on disk: what a crash leaves, what another process holds, and formats that must be read for ever.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use recast::event::{Class, Failure, How, Outcome};
use recast::journal::lock::Break;
use recast::journal::{Entry, Journal, JournalError, Opening, Record, RunDir, RunState, RunStatus, StateDir, read};
use recast::plan::{Output, Phase, Planned, Step, Undo};
use recast::types::{RunId, StepId};

const PLAN: &[u8] = br#"{"format":1}"#;

fn opening() -> Opening {
    Opening {
        run: RunId::from("2026-11-20T22-31-05"),
        tool: "0.1.0".to_owned(),
        at: "2026-11-20T22:31:05Z".parse().unwrap(),
    }
}

fn phases_of(ids: &[&str]) -> Vec<Phase> {
    let planned = |id: &&str| Planned {
        id: StepId::from(*id),
        step: Step::ConfirmFacts,
        after: Vec::new(),
        undo: Undo::By(Box::new(Step::ConfirmFacts)),
    };
    vec![Phase { name: "only".to_owned(), steps: ids.iter().map(planned).collect(), width: 4 }]
}

fn run_dir(root: &Path) -> RunDir {
    StateDir::new(root, "lab").run(&opening().run)
}

fn started(step: &str) -> Entry {
    Entry::Started { step: StepId::from(step), attempt: 1 }
}

fn succeeded(step: &str) -> Entry {
    Entry::Succeeded { step: StepId::from(step), output: Output::Nothing, how: How::Applied }
}

/// A run directory whose journal holds `opened`, and what `entries` say.
fn journaled(root: &Path, entries: Vec<Entry>) -> RunDir {
    let dir = run_dir(root);
    let mut journal = Journal::create(&dir, PLAN, &phases_of(&["a", "b"]), &opening()).unwrap();
    for entry in entries {
        journal.append(opening().at, entry).unwrap();
    }
    dir
}

/// Resumes a run that nobody holds. A program that another test is starting just then holds what this process held before,
/// until it is itself: that is waited for.
fn resume(dir: &RunDir) -> Result<Journal, JournalError> {
    let began = std::time::Instant::now();
    loop {
        match Journal::resume(dir, &dir.plan_bytes()?, &phases_of(&["a", "b"]), &opening()) {
            Err(JournalError::Locked { .. }) if began.elapsed().as_secs() < 10 => std::thread::yield_now(),
            other => return other,
        }
    }
}

#[test]
fn a_journal_torn_anywhere_in_its_last_line_is_resumed_without_it() {
    let root = tempfile::tempdir().unwrap();
    let dir = journaled(root.path(), vec![started("a"), succeeded("a")]);
    let whole = fs::read(dir.journal_file()).unwrap();
    let last = whole[..whole.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
    for cut in last..=whole.len() {
        fs::write(dir.journal_file(), &whole[..cut]).unwrap();
        let before = read(&dir.journal_file()).unwrap().len();
        drop(resume(&dir).unwrap());
        // A line that only misses its newline says what may have come true: it stays.
        let kept = if cut >= whole.len() - 1 { 3 } else { 2 };
        let records = dir.records().unwrap();
        assert_eq!((before, records.len()), (kept, kept + 1), "cut at byte {cut}");
        assert!(matches!(records.last().unwrap().entry, Entry::Resumed));
        assert!(fs::read(dir.journal_file()).unwrap().ends_with(b"\n"));
    }
}

#[test]
fn a_run_killed_before_its_first_record_begins_anew() {
    let root = tempfile::tempdir().unwrap();
    let dir = journaled(root.path(), Vec::new());
    for left in ["", "{\"seq\":0,\"at\":"] {
        fs::write(dir.journal_file(), left).unwrap();
        assert_eq!(dir.status().unwrap(), RunStatus::NotBegun);
        assert!(!resume(&dir).unwrap().is_resumed());
    }
    fs::remove_file(dir.journal_file()).unwrap();
    assert!(!resume(&dir).unwrap().is_resumed());
    assert!(matches!(dir.records().unwrap()[..], [Record { entry: Entry::Opened { .. }, .. }]));
}

#[test]
fn other_damage_names_line_and_file() {
    let root = tempfile::tempdir().unwrap();
    let dir = journaled(root.path(), vec![started("a"), succeeded("a")]);
    let whole = fs::read_to_string(dir.journal_file()).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    let damaged = [
        (format!("{}\n{{\"seq\":1\n{}\n", lines[0], lines[2]), "is damaged in line 2"),
        (format!("{}\n{}\n", lines[0], lines[2]), "is damaged in line 2: record 2 where 1 was due"),
        (format!("{}\n{}\n", lines[0], lines[2].replace("\"seq\":2", "\"seq\":1")), "makes no sense in line 2"),
        (whole.replace("\"step\":\"a\"", "\"step\":\"z\""), "makes no sense in line 2"),
    ];
    for (content, expected) in damaged {
        fs::write(dir.journal_file(), &content).unwrap();
        let error = resume(&dir).err().unwrap();
        assert!(error.to_string().contains(expected), "{error}");
        assert!(error.to_string().contains("journal.jsonl"), "{error}");
        assert!(!error.hints().is_empty());
        assert_eq!(fs::read_to_string(dir.journal_file()).unwrap(), content, "a damaged journal is left as it is");
    }
}

#[test]
fn a_newer_format_is_refused_with_both_versions() {
    let root = tempfile::tempdir().unwrap();
    let dir = journaled(root.path(), Vec::new());
    fs::write(dir.journal_file(), "{\"seq\":0,\"entry\":\"begun\",\"format\":7,\"zone\":\"later\"}\n").unwrap();
    let error = resume(&dir).err().unwrap();
    assert!(error.to_string().ends_with("has journal format 7, this program reads up to 2"), "{error}");
}

#[test]
fn a_plan_that_was_changed_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let dir = journaled(root.path(), Vec::new());
    fs::write(dir.plan_file(), b"{\"format\":1} ").unwrap();
    assert!(matches!(resume(&dir).err(), Some(JournalError::OtherPlan { .. })));
}

#[test]
fn one_process_runs_a_run() {
    let root = tempfile::tempdir().unwrap();
    let dir = run_dir(root.path());
    let held = Journal::create(&dir, PLAN, &phases_of(&["a", "b"]), &opening()).unwrap();
    let error = resume(&dir).err().unwrap();
    assert!(error.to_string().contains("run 2026-11-20T22-31-05 is being run by another process"), "{error}");
    assert!(error.hints()[0].contains("recast resume 2026-11-20T22-31-05"));
    assert_eq!(dir.records().unwrap().len(), 1, "it can be looked at nevertheless");
    drop(held);
    resume(&dir).unwrap();
}

#[test]
fn the_newest_run_with_something_left_is_found() {
    let root = tempfile::tempdir().unwrap();
    let state = StateDir::new(root.path(), "lab");
    let _lock = state.lock("test", Break::No).unwrap();
    let mut opened = Vec::new();
    for second in ["2026-11-20T22:31:05Z", "2026-11-20T22:31:06Z", "2026-11-20T22:31:07Z"] {
        let at = second.parse().unwrap();
        let opening = Opening { run: state.new_run_id(at), at, ..opening() };
        let dir = state.run(&opening.run);
        opened.push((Journal::create(&dir, PLAN, &phases_of(&["a"]), &opening).unwrap(), dir));
    }
    for entry in [started("a"), succeeded("a"), Entry::Closed { outcome: Outcome::Done }] {
        opened[2].0.append(opening().at, entry).unwrap();
    }
    opened[1].0.append(opening().at, Entry::Closed { outcome: Outcome::Failed }).unwrap();
    assert_eq!(opened[2].1.status().unwrap(), RunStatus::Done);
    assert_eq!(opened[1].1.status().unwrap(), RunStatus::Unfinished { ended: Some(Outcome::Failed) });
    assert_eq!(opened[0].1.status().unwrap(), RunStatus::Unfinished { ended: None });
    assert_eq!(state.newest_unfinished(|_| false).unwrap().unwrap().id(), opened[1].1.id());
    assert!(state.newest_unfinished(|_| true).unwrap().is_none(), "what was done since has left it behind");
}

/// The files in `tests/golden/journals` were written by released versions. They are never edited, only added to.
#[test]
fn journals_of_earlier_versions_parse_for_ever() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/journals");
    let mut kinds = BTreeSet::new();
    for dir in ["v1", "v2"] {
        for file in fs::read_dir(root.join(dir)).unwrap() {
            let path = file.unwrap().path();
            let records = read(&path).unwrap();
            let mut ids: Vec<&str> = records.iter().filter_map(|r| r.entry.step()).map(StepId::as_str).collect();
            ids.sort_unstable();
            ids.dedup();
            let mut state = RunState::new(&phases_of(&ids));
            for record in &records {
                kinds.insert(record.entry.name());
                state.record(&record.entry).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            }
        }
    }
    let all = "api-probe cancelled closed failed handle opened reopened resumed started succeeded undo-failed \
               undo-finished undo-started";
    assert_eq!(kinds.into_iter().collect::<Vec<_>>().join(" "), all, "the samples hold every kind of record");
}

/// Two phases of one step that can be undone, then one of a step that can't.
fn three_phases() -> Vec<Phase> {
    let phase = |name: &str, undo| Phase {
        name: name.to_owned(),
        steps: vec![Planned { id: StepId::from(name), step: Step::ConfirmFacts, after: Vec::new(), undo }],
        width: 1,
    };
    let undone = || Undo::By(Box::new(Step::ConfirmFacts));
    let gone = Undo::Irreversible { because: "it is gone".to_owned() };
    vec![phase("backup", undone()), phase("freeze", undone()), phase("retire", gone)]
}

/// The state after these entries.
fn state_of(entries: &[Entry]) -> RunState {
    let mut state = RunState::new(&three_phases());
    let format = recast::journal::JournalFormat::CURRENT;
    let plan = recast::types::Sha256::of(PLAN);
    state.record(&Entry::Opened { format, tool: String::new(), plan, run: opening().run }).unwrap();
    for entry in entries {
        state.record(entry).unwrap();
    }
    state
}

fn reopened(phase: &str) -> Entry {
    Entry::Reopened { phase: phase.to_owned(), because: "someone started a VM".to_owned() }
}

#[test]
fn a_phase_that_is_opened_again_is_undone_first_and_forgets_what_it_found() {
    use recast::journal::Todo;
    let done = [started("backup"), succeeded("backup"), started("freeze"), succeeded("freeze"), started("retire")];
    let mut state = state_of(&done);
    state.record(&reopened("freeze")).unwrap();
    assert_eq!(state.next(), [Todo::Undo(StepId::from("freeze"))]);
    assert!(state.outputs().contains_key(&StepId::from("backup")));
    assert!(!state.outputs().contains_key(&StepId::from("freeze")), "an old snapshot is never taken as final");
    assert!(state.record(&started("freeze")).is_err(), "it is not begun before it is undone");
    state.record(&Entry::UndoStarted { step: "freeze".into() }).unwrap();
    state.record(&Entry::UndoFinished { step: "freeze".into() }).unwrap();
    assert_eq!(state.next(), [Todo::Start(StepId::from("freeze"))]);
    assert_eq!((state.reopenings("freeze"), state.reopenings("backup")), (1, 0));
    let mut state = state_of(&done);
    state.record(&reopened("backup")).unwrap();
    let undo: Vec<_> = ["freeze", "backup"].map(|id| Todo::Undo(StepId::from(id))).into();
    assert_eq!(state.next(), undo, "the later one first");
}

#[test]
fn nothing_is_opened_again_once_something_is_gone() {
    let mut state = state_of(&[
        started("backup"),
        succeeded("backup"),
        started("freeze"),
        succeeded("freeze"),
        started("retire"),
        succeeded("retire"),
    ]);
    for phase in ["backup", "freeze", "retire"] {
        assert!(state.record(&reopened(phase)).is_err(), "{phase}");
    }
    let mut early = state_of(&[started("backup")]);
    assert!(early.record(&reopened("freeze")).is_err(), "it was not begun");
    assert!(early.record(&reopened("elsewhere")).is_err(), "the plan hasn't got it");
}

// ------------------------------------------------------------------------------------- the transition table

/// Every pair of a step's state and an entry about it: legal ones with the state they lead to, all others illegal.
#[test]
fn the_table_of_step_transitions() {
    let step = || StepId::from("a");
    let failure = || Failure { what: "could not".to_owned(), causes: Vec::new(), hints: Vec::new() };
    let failed = |class| Entry::Failed { step: step(), failure: failure(), class };
    let undo_started = || Entry::UndoStarted { step: step() };
    let undo_failed = || Entry::UndoFailed { step: step(), failure: failure() };
    let ways: [(&str, Vec<Entry>); 7] = [
        ("pending", vec![]),
        ("started", vec![started("a")]),
        ("succeeded", vec![started("a"), succeeded("a")]),
        ("failed", vec![started("a"), failed(Class::Transient)]),
        ("being undone", vec![started("a"), succeeded("a"), undo_started()]),
        ("stuck in its undo", vec![started("a"), undo_started(), undo_failed()]),
        ("undone", vec![started("a"), undo_started(), Entry::UndoFinished { step: step() }]),
    ];
    let entries = [
        started("a"),
        Entry::Handle { step: step(), upid: "UPID:1".to_owned() },
        succeeded("a"),
        failed(Class::Permanent),
        undo_started(),
        Entry::UndoFinished { step: step() },
        undo_failed(),
    ];
    let mut table = String::new();
    for (state, way) in &ways {
        for entry in &entries {
            let mut run = RunState::new(&phases_of(&["a"]));
            let format = recast::journal::JournalFormat::CURRENT;
            let plan = recast::types::Sha256::of(PLAN);
            run.record(&Entry::Opened { format, tool: String::new(), plan, run: opening().run }).unwrap();
            for entry in way {
                run.record(entry).unwrap();
            }
            assert_eq!(run.step(&step()).unwrap().name(), *state);
            let to = match run.record(entry) {
                Ok(()) => run.step(&step()).unwrap().name(),
                Err(error) => {
                    assert_eq!(run.step(&step()).unwrap().name(), *state, "an illegal entry changes nothing: {error}");
                    continue;
                }
            };
            writeln!(table, "{state} + {} = {to}", entry.name()).unwrap();
        }
    }
    insta::assert_snapshot!(table, @r"
    pending + started = started
    started + started = started
    started + handle = started
    started + succeeded = succeeded
    started + failed = failed
    started + undo-started = being undone
    succeeded + undo-started = being undone
    failed + started = started
    failed + undo-started = being undone
    being undone + handle = being undone
    being undone + undo-started = being undone
    being undone + undo-finished = undone
    being undone + undo-failed = stuck in its undo
    stuck in its undo + undo-started = being undone
    undone + started = started
    ");
}

#[test]
fn the_table_of_run_transitions() {
    let entries = [
        Entry::Opened {
            format: recast::journal::JournalFormat::CURRENT,
            tool: String::new(),
            plan: recast::types::Sha256::of(PLAN),
            run: opening().run,
        },
        started("a"),
        Entry::ApiProbe { up: true },
        Entry::Cancelled { by: recast::event::CancelledBy::Interrupt },
        Entry::Resumed,
        Entry::Closed { outcome: Outcome::Cancelled },
        Entry::Closed { outcome: Outcome::Failed },
        Entry::Closed { outcome: Outcome::Done },
    ];
    let [opened, start, _, cancelled, _, parked, failed, done] = entries.clone();
    let ways = [
        ("new", vec![]),
        ("open", vec![opened.clone()]),
        ("complete", vec![opened.clone(), start.clone(), succeeded("a")]),
        ("cancelled", vec![opened.clone(), cancelled.clone()]),
        ("parked", vec![opened.clone(), cancelled, parked]),
        ("failed", vec![opened.clone(), failed]),
        ("done", vec![opened, start, succeeded("a"), done]),
    ];
    let mut table = String::new();
    for (state, way) in ways {
        let legal = entries.iter().filter(|entry| {
            let mut run = RunState::new(&phases_of(&["a"]));
            for entry in &way {
                run.record(entry).unwrap();
            }
            run.record(entry).is_ok()
        });
        let legal = legal.map(|entry| match entry {
            Entry::Closed { outcome } => format!("closed({outcome})"),
            other => other.name().to_owned(),
        });
        table += format!("{state}: {}", legal.collect::<Vec<_>>().join(" ")).trim_end();
        table += "\n";
    }
    insta::assert_snapshot!(table, @r"
    new: opened
    open: started api-probe cancelled resumed closed(failed)
    complete: api-probe cancelled resumed closed(failed) closed(done)
    cancelled: resumed closed(cancelled)
    parked: resumed
    failed: resumed
    done:
    ");
}
