use std::path::Path;

use super::*;
use crate::world::script::{Ask, Script as _};

fn problems(text: &str) -> Vec<String> {
    match Scenario::parse("x.yaml", text) {
        Err(ScenarioError::Wrong { problems, .. }) => problems.iter().map(ToString::to_string).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_slip_is_named_at_once_with_its_place_and_the_nearest_key() {
    let text = "latncy: {boot: 25s}\nlatency: {boot: 25, jiter: 1s}\nstorages: {local: 5}\nfaults:\n  - on: {pve: GET}\n    \
                then: reset-befor\n  - on: {task: qmclone, pve: \"GET /x\"}\n    nth: 0\n    then: {stall: 5x}\n  - then: \
                {}\nevents:\n  - at: 5s\n    wait: 2s\n    do: {node-dis: pve1}\n  - do: {vm-starts: 100}\n";
    let found = problems(text);
    let expected = [
        "line 1, column 1: there is no key `latncy` in the scenario (did you mean `latency`?)",
        "line 2, column 17: `boot` is `25`, and must be a duration such as 250ms, 5s or 2m",
        "line 2, column 21: there is no key `jiter` in `latency` (did you mean `jitter`?)",
        "line 3, column 19: `local` is `5`, and must be a size such as 512MiB or 20GiB",
        "line 5, column 15: `GET` is not METHOD PATH (such as `GET /version`)",
        "line 6, column 11: `then` is `reset-befor`, and must be one of refuse, reset-before, reset-after (did you mean \
         `reset-before`?)",
        "line 7, column 9: pve and task are there, and only one can be (exactly one of pve, task, talos, kubernetes, \
         factory, ssh, connect)",
        "line 8, column 10: `nth` is 0, and must be at least 1",
        "line 9, column 19: `stall` is `5x`, and must be a duration such as 5s, or forever",
        "line 10, column 5: `faults` needs `on`",
        "line 10, column 11: `then` says nothing",
        "line 13, column 11: `wait` needs `after`",
        "line 14, column 10: there is no key `node-dis` in `do` (did you mean `node-dies`?)",
        "line 15, column 5: an event needs either `at` or `after`",
    ];
    assert_eq!(found, expected);
}

#[test]
fn what_a_schema_cannot_say_is_refused_too() {
    for (text, said) in [
        ("a: [", "not valid YAML"),
        ("latency: {}\nlatency: {}", "`latency` is there twice"),
        ("faults: [{on: {task: x}, then: reset-before}]", "a task can only fail or be stalled"),
        ("faults: [{on: {pve: 'GET /x'}, then: refuse}]", "a request that has come can't be refused any more"),
        ("faults: [{on: {talos: Reboot}, then: {status: 503}}]", "`status` is 503, and must be 1 to 16 there"),
        ("faults: [{on: {connect: pve}, then: {corrupt: 1}}]", "a connection can only be"),
        ("faults: [{on: {factory: 'GET /x'}, then: {lacks: 1}}]", "only streams of machines lack messages"),
        ("faults: [{on: {pve: 'FETCH /x'}, then: reset-after}]", "`FETCH` is no method of pve"),
        ("faults: [{on: {ssh: 'qm *'}, then: {status: 1, stall: 1s}}]", "`then` says several things"),
        ("faults: [{on: {ssh: 'qm *'}, then: {reason: x, stall: 1s}}]", "`reason` needs `status`"),
        ("events: [{at: 1s, do: {request: {call: nodes}}}]", "`call` is not METHOD PATH"),
        ("events: [{at: 1s, do: {vm-starts: 1, vm-stops: 2}}]", "`do` says several things, and must say one"),
        ("--- {}\n--- {}", "a second document"),
    ] {
        let found = problems(text);
        assert!(found.iter().any(|problem| problem.contains(said)), "{text}\n{found:?}");
    }
    assert_eq!(Scenario::parse("x", "").unwrap(), Scenario::default());
}

/// Every mapping that the schema knows: the way to it (`*` is the first of a list), and its keys.
fn mappings(
    schema: &serde_json::Value,
    rules: &serde_json::Value,
    way: &[String],
    found: &mut Vec<(Vec<String>, Vec<String>)>,
) {
    let rules = match rules["$ref"].as_str() {
        Some(path) => schema.pointer(path.trim_start_matches('#')).unwrap(),
        None => rules,
    };
    let further = |step: &str| [way, &[step.to_owned()]].concat();
    if rules["items"].is_object() {
        mappings(schema, &rules["items"], &further("*"), found);
    }
    if let Some(properties) = rules["properties"].as_object() {
        found.push((way.to_vec(), properties.keys().cloned().collect()));
        for (key, inner) in properties {
            mappings(schema, inner, &further(key), found);
        }
    }
}

#[test]
fn a_slip_in_any_key_is_named_with_its_place_and_the_key_that_was_meant() {
    let schema: serde_json::Value = serde_json::from_str(SCHEMA).unwrap();
    let mut found = Vec::new();
    mappings(&schema, &schema, &[], &mut found);
    let mut count = 0;
    for (way, keys) in found {
        for key in keys {
            let slip = format!("{key}{}", &key[key.len() - 1..]);
            let mut line = format!("{slip}: 1");
            for step in way.iter().rev() {
                line = if step == "*" { format!("[{{{line}}}]") } else { format!("{step}: {}", flow(&line)) };
            }
            let column = line.find(&format!("{slip}:")).unwrap() + 1;
            let said = problems(&format!("description: x\n{line}\n"));
            let begin = format!("line 2, column {column}: there is no key `{slip}` in ");
            let end = format!("(did you mean `{key}`?)");
            let named = said.iter().any(|problem| problem.starts_with(&begin) && problem.ends_with(&end));
            assert!(named, "{line}: {said:?}");
            count += 1;
        }
    }
    assert!(count > 50, "{count} keys only");
}

/// An entry as a value: a list stays one.
fn flow(line: &str) -> String {
    if line.starts_with('[') { line.to_owned() } else { format!("{{{line}}}") }
}

/// The help's example, and every scenario in the README: each part is shown, and all of it is right.
#[test]
fn what_is_explained_can_be_written_so() {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let blocks = readme.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let mut shown: Vec<&str> = blocks.filter(|block| block.contains("faults:")).collect();
    assert!(!shown.is_empty(), "the README has no scenario");
    shown.push(EXAMPLE);
    for text in shown {
        Scenario::parse("x.yaml", text).unwrap_or_else(|error| panic!("{error}"));
        let root = tree::parse(text).unwrap();
        let tree::Data::Map(entries) = &root.data else { panic!("{text}") };
        for part in ["latency", "storages", "faults", "events"] {
            assert!(entries.iter().any(|(key, ..)| key == part), "{part} isn't explained: {text}");
        }
    }
}

/// A document as editors see it: plain scalars are what JSON makes of them.
fn json(node: &tree::Node) -> serde_json::Value {
    match &node.data {
        tree::Data::Text(text, quoted) => match node.integer() {
            Some(number) => number.into(),
            None if !quoted && node.is_null() => serde_json::Value::Null,
            None => text.clone().into(),
        },
        tree::Data::List(items) => items.iter().map(json).collect(),
        tree::Data::Map(entries) => entries.iter().map(|(key, _, value)| (key.clone(), json(value))).collect(),
    }
}

#[test]
fn editors_and_the_program_agree_about_the_committed_schema() {
    let schema: serde_json::Value = serde_json::from_str(SCHEMA).unwrap();
    jsonschema::meta::validate(&schema).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    for (text, fits) in [
        ("latency: {boot: 2m, upload: 1.5MiB/s}", true),
        ("latency: {boot: 2 m}", false),
        ("latency: {boot: 0}", false),
        ("latency: {boot: 0s}", true),
        ("storages: {a: 1GiB, b: 2TB}", false),
        ("faults: [{on: {task: qmclone, vm: 100}, nth: 2, then: {task-error: x}}]", true),
        ("faults: [{on: {task: qmclone, vm: 1.5}, then: {task-error: x}}]", true),
        ("faults: [{on: {task: qmclone}, then: {corrupt: 0}}]", false),
        ("faults: [{on: {task: qmclone}}]", false),
        ("events: [{at: 1s, do: {}}]", false),
        ("events: [{at: 1s, do: {etcd-lags: {member: a, apply: 1s}}}]", true),
        ("events: {}", false),
    ] {
        let root = tree::parse(text).unwrap();
        assert_eq!(check::check(&schema, &root).is_empty(), fits, "the program about {text}");
        // `vm: 1.5` is text for us and a number elsewhere: no editor would be asked.
        if !text.contains("1.5}") {
            assert_eq!(validator.is_valid(&json(&root)), fits, "the schema about {text}");
        }
    }
}

#[test]
fn all_samples_load() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let scenario = Scenario::load(&entry.unwrap().path()).unwrap_or_else(|error| panic!("{error}"));
        assert_ne!(scenario, Scenario::default());
        count += 1;
    }
    assert_eq!(count, 9);
}

#[test]
fn matches_are_counted_and_hit_in_turn() {
    let text = "faults:\n- {on: {pve: 'POST /nodes/*/qemu/*/clone', node: pve2, user: 'ci@pve!*'}, nth: 2, times: 2, then: \
                reset-after}\n- {on: {kubernetes: 'GET /api/v1/**'}, nth: 1, then: {status: 503}}\n- {on: {talos: \
                machine.MachineService/Reboot, vm: 7}, then: {stall: forever}}\n";
    let engine = Engine::new(Scenario::parse("x", text).unwrap(), 1);
    let ask = |service, verb, path, who, node, vmid| Ask { service, step: Step::Request, verb, path, who, node, vmid };
    let clone = ask(Service::Pve, "POST", "/nodes/pve1/qemu/100/clone", "ci@pve!a", "pve2", None);
    let hits: Vec<usize> = (0..4).map(|_| engine.meet(&clone).len()).collect();
    assert_eq!(hits, [0, 1, 1, 0]);
    assert!(
        engine.meet(&Ask { node: "pve1", ..clone }).is_empty() && engine.meet(&Ask { who: "x", ..clone }).is_empty()
    );
    let list = ask(Service::Kubernetes, "list", "/api/v1/nodes", "admin", "", Some(7));
    assert!(engine.meet(&Ask { verb: "create", ..list }).is_empty());
    assert_eq!(engine.meet(&list), [Fault::Status { code: 503, reason: String::new() }]);
    assert!(engine.meet(&list).is_empty(), "nth alone means once");
    let reboot = ask(Service::Talos, "Reboot", "Reboot", "os:admin", "", Some(7));
    assert_eq!((engine.meet(&reboot).len(), engine.meet(&reboot)), (1, vec![Fault::Stall(None)]));
    assert!(engine.meet(&Ask { vmid: Some(8), ..reboot }).is_empty());
    let tally: Vec<(u64, u64)> = engine.tally().iter().map(|one| (one.matched, one.happened)).collect();
    assert_eq!(tally, [(4, 2), (2, 1), (2, 2)]);
}

#[test]
fn jitter_is_the_same_for_the_same_seed() {
    let draws = |seed| {
        let scenario = Scenario::parse("x", "latency: {pve: 10ms, jitter: 20ms}").unwrap();
        let engine = Engine::new(scenario, seed);
        (0..50).map(|_| engine.latency(Service::Pve)).collect::<Vec<_>>()
    };
    let first = draws(1);
    assert!(first.iter().all(|seconds| (0.010..0.030).contains(seconds)));
    assert!(first.iter().any(|seconds| *seconds > 0.022) && first.iter().any(|seconds| *seconds < 0.018));
    assert_eq!(first, draws(1));
    assert_ne!(first, draws(2));
}
