use std::fs;
use std::path::Path;

use super::*;
use crate::report::fold::progress_of;
use crate::report::sample::{self, Journal};
use crate::types::Sha256;

fn of(journal: &Journal) -> Document {
    let plan = sample::plan();
    let progress = progress_of(&plan, &journal.0);
    let backup = Backup {
        revision: 1234,
        keys: 100,
        sha256: Sha256::of(b"snapshot"),
        copies: vec!["backups/etcd-rebuild.snapshot".to_owned()],
        frozen: true,
    };
    Document::of_run(Input { requests: 42, backup: Some(backup), ..Input::new(&plan, &progress) })
}

fn dry() -> Document {
    let (plan, progress) = (sample::plan(), Progress::default());
    Document::of_run(Input { ending: Some(Ending::Pending), ..Input::new(&plan, &progress) })
}

#[test]
fn a_finished_run() {
    sample::golden("document-complete", &of(&Journal::complete()).to_json());
}

#[test]
fn a_failed_run_is_resumable_and_says_where_it_stands() {
    let failed = serde_json::to_value(of(&Journal::stopped())).unwrap();
    assert_eq!((&failed["outcome"], &failed["resumable"]), (&"failed".into(), &true.into()));
    insta::assert_snapshot!(serde_json::to_string_pretty(&failed["problems"]).unwrap(), @r#"
    [
      {
        "causes": [
          "task UPID:pve1:0001 ended: no space left",
          "no space left"
        ],
        "hints": [
          "free some space on local-lvm"
        ],
        "kind": "failed",
        "what": "could not start VM 1101 on node pve1",
        "where": "provision/single-cp-01/start"
      }
    ]
    "#);
    assert_eq!(failed["destroyed"][0]["vmid"], 1100);
}

#[test]
fn a_dry_run_has_vms_and_changed_nothing() {
    let dry = serde_json::to_value(dry()).unwrap();
    assert_eq!((&dry["outcome"], &dry["resumable"]), (&"pending".into(), &false.into()));
    assert_eq!(dry["vms"][0]["name"], "single-cp-01");
    assert_eq!(dry["destroyed"].as_array().map(Vec::len), Some(0));
    assert!(dry["backup"].is_null());
}

#[test]
fn a_refusal_before_any_run_carries_problems_only() {
    let failure = Failure { what: "VM 1100 is locked".to_owned(), causes: Vec::new(), hints: Vec::new() };
    let document = Document::of_verb("check", Some("single"), Ending::Refused)
        .with_problems([Problem::new(Kind::Refused, &failure).at("pve1")])
        .with("rights", serde_json::json!({ "missing": ["VM.Clone"] }));
    insta::assert_snapshot!(document.to_json(), @r#"
    {
      "format": 1,
      "verb": "check",
      "cluster": "single",
      "run": null,
      "outcome": "refused",
      "resumable": false,
      "problems": [
        {
          "kind": "refused",
          "what": "VM 1100 is locked",
          "causes": [],
          "hints": [],
          "where": "pve1"
        }
      ],
      "rights": {
        "missing": [
          "VM.Clone"
        ]
      }
    }
    "#);
}

#[test]
fn a_killed_run_says_so() {
    let killed = of(&Journal::opened().done("image/fetch").started("template/create"));
    assert_eq!((killed.outcome, killed.resumable), (Ending::Failed, true));
    assert_eq!(killed.problems.len(), 1);
}

#[test]
fn documents_fit_their_schema() {
    let validator = jsonschema::validator_for(&schema()).unwrap();
    let without_work = Document::of_verb("status", None, Ending::Invalid).with("members", Value::Null);
    let status = Document::of_verb("status", Some("single"), Ending::Done).with_status(Status::default());
    let documents =
        [of(&Journal::complete()), of(&Journal::stopped()), of(&Journal::cancelled()), dry(), without_work, status];
    for document in documents {
        let value = serde_json::to_value(&document).unwrap();
        let errors: Vec<String> = validator.iter_errors(&value).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{}: {errors:?}", document.to_json());
    }
    let mut wrong = serde_json::to_value(dry()).unwrap();
    wrong["outcome"] = "fine".into();
    assert!(!validator.is_valid(&wrong));
    let mut wrong = serde_json::to_value(dry()).unwrap();
    wrong["format"] = 2.into();
    assert!(!validator.is_valid(&wrong));
}

#[test]
fn the_committed_schema_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("templates/document.schema.json");
    let current = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
    if std::env::var_os("UPDATE_SCHEMAS").is_some() {
        fs::write(&path, &current).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == current, "{} is stale: run this test with UPDATE_SCHEMAS=1", path.display());
}
