//! What the README says is so, and what it offers to copy can be read.

use recast::exit::ExitCode;

const README: &str = include_str!("../../README.md");

#[test]
fn the_exit_codes_are_the_programs() {
    for (code, meaning) in ExitCode::TABLE {
        let number = *code as u8;
        assert!(
            README.contains(&format!("| {number} | {meaning} |")),
            "the README lacks exit code {number}: {meaning}"
        );
    }
}

#[test]
fn workflows_are_yaml_with_jobs_that_do_something() {
    for text in [include_str!("../../.github/workflows/ci.yml"), include_str!("../../.github/workflows/nightly.yml")] {
        let workflow: serde_json::Value = serde_saphyr::from_str(text).unwrap();
        let jobs = workflow["jobs"].as_object().unwrap();
        assert!(!jobs.is_empty());
        for (name, job) in jobs {
            let steps = job["steps"].as_array().unwrap();
            assert!(steps.iter().any(|step| step["run"].is_string()), "{name} runs nothing");
            assert!(steps.iter().all(|step| step["run"].is_string() || step["uses"].is_string()), "{name}");
        }
    }
}
