//! What CI and people get to read afterwards: the report's files, whatever the end, and the cluster's state.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use mock_pve::etcd::Client as Member;
use mock_pve::world::cluster;
use serde_json::Value;

use crate::site::{Cluster, Double, Folder, program, repository};

const FILES: [&str; 5] = ["junit.xml", "report.html", "report.json", "report.md", "report.txt"];

/// All five files are there and can be read by those who are to read them.
fn assert_whole(dir: &Path) -> Value {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, FILES);
    let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap();
    roxmltree::Document::parse(&read("junit.xml")).unwrap();
    let options = roxmltree::ParsingOptions { allow_dtd: true, ..roxmltree::ParsingOptions::default() };
    roxmltree::Document::parse_with_options(&read("report.html"), options).unwrap();
    let document: Value = serde_json::from_str(&read("report.json")).unwrap();
    let outcome = document["outcome"].as_str().unwrap();
    assert!(read("report.md").lines().next().unwrap().contains(outcome));
    assert!(!read("report.txt").is_empty());
    let schema = fs::read_to_string(repository().join("templates/document.schema.json")).unwrap();
    let validator = jsonschema::validator_for(&serde_json::from_str(&schema).unwrap()).unwrap();
    let problems: Vec<String> = validator.iter_errors(&document).map(|error| error.to_string()).collect();
    assert!(problems.is_empty(), "{problems:?}\n{document:#}");
    document
}

/// The objects that the double's cluster had from its begin: key → data.
fn seeded(double: &Double) -> BTreeMap<String, Value> {
    let etcd = double.world().etcds().remove(0);
    let id = etcd.leader().unwrap();
    let (objects, _) = cluster::list(&Member { etcd, id }, "/registry/configmaps/default/seeded-");
    objects.into_iter().map(|entry| (entry.key, entry.value["data"].clone())).collect()
}

/// What a real browser makes of a page; none where there is no browser.
fn browsed(page: &Path, home: &Path) -> Option<String> {
    if !real_parts::is_here("chromium", "--version") {
        return None;
    }
    let mut browser = Command::new("chromium");
    browser.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-proxy-server"]);
    browser.args(["--virtual-time-budget=5000", "--dump-dom"]).env("HOME", home);
    browser.arg(format!("--user-data-dir={}", home.join("browser").display()));
    let output = browser.arg(format!("file://{}", page.display())).output().unwrap();
    let dom = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(dom.contains("</html>"), "{dom}\n{}", String::from_utf8_lossy(&output.stderr));
    Some(dom)
}

#[test]
fn a_profile_that_is_wrong_is_reported_with_its_place() {
    let folder = Folder::new();
    let text = fs::read_to_string(folder.profile()).unwrap();
    fs::write(folder.profile(), text.replacen("name: single\n", "name: single\nnaem: x\n", 1)).unwrap();
    let mut command = program(&folder.path("home"));
    let report = folder.path("report");
    command.args(["check", "--profile"]).arg(folder.profile()).arg("--report-dir").arg(&report);
    assert_eq!(command.status().unwrap().code(), Some(3));
    let problem = &assert_whole(&report)["problems"][0];
    assert_eq!(problem["what"], "unknown key");
    let place = problem["where"].as_str().unwrap();
    assert!(place.contains("single.yaml:") && place.ends_with(": naem"), "{place}");
    // People see the place and the line together, as before.
    assert!(fs::read_to_string(report.join("report.txt")).unwrap().contains(": naem: unknown key\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_failures_and_the_end_are_reported_and_past_runs_again() {
    let folder = Folder::new();
    let double = Double::here(&folder, 100.0).await;
    let report = folder.path("report");
    let run = |args: &[&str]| {
        let output = folder.recast(double.site(), args).arg("--report-dir").arg(&report).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };

    let (code, text, errors) = run(&["status"]);
    assert_eq!(code, Some(0), "{errors}");
    assert!(text.contains("single-cp-01") && text.contains("running") && text.contains("1.12.4"), "{text}");
    let status = assert_whole(&report);
    assert_eq!((&status["unwell"], &status["drift"]), (&Value::Array(Vec::new()), &Value::Array(Vec::new())));
    assert_eq!(status["etcd"]["leader"], "single-cp-01");
    assert_eq!(status["kubernetes"]["nodes"][0]["ready"], true);
    let before = seeded(&double);
    assert!(before.len() >= 100, "{}", before.len());

    // Somebody else's VM with all tags: refused, and to be seen in the status.
    {
        let world = double.world();
        let mut state = world.state();
        let mut stranger = state.vms[&1100].clone();
        stranger.config.insert("name".to_owned(), "experiment".to_owned());
        state.vms.insert(1150, stranger);
    }
    let (code, _, errors) = run(&Cluster::Single.rebuild());
    assert_eq!(code, Some(4), "{errors}");
    let refused = assert_whole(&report);
    assert_eq!((&refused["outcome"], &refused["run"]), (&"refused".into(), &Value::Null));
    assert!(fs::read_to_string(report.join("junit.xml")).unwrap().contains("<failure"));
    run(&["status"]);
    assert_eq!(assert_whole(&report)["drift"][0]["about"], "experiment");
    double.world().state().vms.remove(&1150);

    let (code, _, errors) = run(&Cluster::Single.rebuild());
    assert_eq!(code, Some(0), "{errors}");
    let done = assert_whole(&report);
    assert_eq!(done["outcome"], "done");
    assert!(done["requests"].as_u64().unwrap() > 50);
    let page = fs::read_to_string(report.join("report.html")).unwrap();
    // The only control plane wrote on until it was shut down: how much that was is told.
    let window = done["window_revisions"].as_u64().unwrap_or_else(|| panic!("{done:#}"));
    let window = format!("etcd wrote at most {window} revisions");
    let shown = ["Kubernetes API down", "class=\"band\"", "1.13.9", "single-cp-01", window.as_str()];
    for told in shown {
        assert!(page.contains(told), "{told}");
    }
    if let Some(dom) = browsed(&report.join("report.html"), &folder.path("home")) {
        for told in shown {
            assert!(dom.contains(told), "{told}: {dom}");
        }
        assert!(!dom.contains("src=\"") && !dom.contains("<link"), "nothing comes from elsewhere");
    }
    assert_eq!(seeded(&double), before);

    // The same again, from plan and journal alone.
    let id = done["run"].as_str().unwrap();
    let (html, junit, markdown) = (folder.path("a.html"), folder.path("a.xml"), folder.path("a.md"));
    let path = |path: &Path| path.display().to_string();
    let files = [path(&html), path(&junit), path(&markdown)];
    let asked = ["runs", "report", id, "--html", &files[0], "--junit", &files[1], "--markdown", &files[2]];
    let (code, text, errors) = run(&asked);
    assert_eq!(code, Some(0), "{errors}");
    assert!(text.contains("Done: rebuild of single"), "{text}");
    let count = |text: &str| text.matches("<testcase").count();
    let kept = fs::read_to_string(report.join("junit.xml")).unwrap();
    assert_eq!(count(&fs::read_to_string(&junit).unwrap()), count(&kept));
    assert!(fs::read_to_string(&markdown).unwrap().contains("| finish | ✅ done |"));
    assert!(fs::read_to_string(&html).unwrap().contains("</html>"));
}
