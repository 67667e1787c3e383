//! What must hold of every refusal: where it stopped, its code, its words, and a hint.

use std::process::Output;

use serde_json::Value;

use super::Case;

/// What is wrong with where a command stopped, and with what code, by its exit and its document.
pub(super) fn misplaced(output: &Output, phase: &str, code: i32) -> Vec<String> {
    let mut wrong = Vec::new();
    if output.status.code() != Some(code) {
        wrong.push(format!("the exit code is {:?}, not {code}", output.status.code()));
    }
    match serde_json::from_slice::<Value>(&output.stdout) {
        Ok(document) => {
            let last = document["phases"].as_array().and_then(|phases| phases.last());
            let stopped = last.and_then(|last| last["name"].as_str()).unwrap_or("check");
            if stopped != phase {
                wrong.push(format!("it stopped in phase {stopped}, not {phase}"));
            }
        }
        Err(error) => wrong.push(format!("there is no document: {error}")),
    }
    wrong
}

pub(super) fn judge(case: &Case, output: &Output, touched: bool) -> Result<(), String> {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let stdout = String::from_utf8_lossy(&output.stdout);
    let mut wrong = Vec::new();
    let mut must = |holds: bool, what: String| {
        if !holds {
            wrong.push(what);
        }
    };
    for what in misplaced(output, case.phase, case.code) {
        must(false, what);
    }
    must(!touched, "the world was changed".to_owned());
    let document: Value = serde_json::from_str(&stdout).unwrap_or_default();
    let outcome = match case.code {
        2 => "pending",
        3 => "invalid",
        _ => "refused",
    };
    must(document["outcome"] == outcome, format!("the outcome is {}, not {outcome}", document["outcome"]));
    let problems: Vec<&Value> = document["problems"].as_array().map(|all| all.iter().collect()).unwrap_or_default();
    let flaws = match case.name {
        "several flaws at once" => 3,
        // Besides living there, nothing answers there yet; and where `sops` is missing, so is `flux`.
        "registry in the cluster" | "no sops" => 2,
        // All that the double serves is at one address.
        "Proxmox VE in the cluster" => problems.len().max(1),
        _ => 1,
    };
    must(problems.len() == flaws, format!("there are {} problems, not {flaws}", problems.len()));
    let hints = problems.iter().all(|problem| problem["hints"].as_array().is_some_and(|hints| !hints.is_empty()));
    must(hints, "there is no hint".to_owned());
    let told: String = problems
        .iter()
        .map(|problem| {
            let texts = |key: &str| -> Vec<&str> {
                problem[key].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
            };
            let place = problem["where"].as_str().map(|place| format!("{place}: ")).unwrap_or_default();
            let what = format!("{place}{}", problem["what"].as_str().unwrap_or_default());
            [what, texts("causes").join("\n"), texts("hints").join("\n")].join("\n")
        })
        .collect::<Vec<_>>()
        .join("\n");
    for word in case.words {
        must(told.contains(word), format!("the document does not say “{word}”"));
        must(flat(&stderr).contains(&flat(word)), format!("stderr does not say “{word}”"));
    }
    if wrong.is_empty() {
        return Ok(());
    }
    Err(format!("== {}: {}\nstderr:\n{stderr}\nproblems:\n{:#}", case.name, wrong.join("; "), document["problems"]))
}

/// Text without its line breaks.
pub(super) fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
