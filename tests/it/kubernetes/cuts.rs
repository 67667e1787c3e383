//! A run that is killed at the beginning and the end of its steps goes on where it was.

use std::fs;

use super::{CONTROL_PLANES, Lab, WORKERS, all_run, heard, order, talos};
use crate::crash::each;
use crate::kill::{Recast, told};

/// How many moments of a run are tried, unless `RECAST_TEST_ALL_CUTS` is set.
const SAMPLE: usize = 4;

/// Kills the run at a moment of one of its steps, resumes it, and looks.
async fn killed_and_resumed(step: &str, moment: &'static str) {
    let lab = Lab::new("1.12.4", "1.34.1", "").await;
    let mut answers = lab.double.world().subscribe_answers();
    let args = ["upgrade", "--kubernetes", "1.35.0", "--confirm", "lab"];
    let mut recast = Recast::start(lab.folder.recast(lab.double.site(), &args), &lab.folder);
    let (step_key, event) = (format!("\"step\":\"{step}\""), format!("\"event\":\"{moment}\""));
    let dies = move || {
        let reached =
            std::iter::from_fn(|| recast.wait_for(0)).any(|line| line.contains(&step_key) && line.contains(&event));
        recast.kill();
        recast.end();
        reached
    };
    let reached = tokio::task::spawn_blocking(dies).await.unwrap();
    assert!(reached, "{step} is never {moment}\n{}", told(&lab.folder));
    let resumed = lab.run(&["resume"]).await;
    let story = format!("killed when {step} was {moment}\n{}\n{}", told(&lab.folder), resumed.err);
    assert_eq!(resumed.code, Some(0), "{story}");
    assert_eq!(lab.runs(), all_run("1.35.0"), "{story}");
    // It went on at the very machine and component: nothing that was done is done again, and only what was in flight
    // may have been sent twice.
    let answers = heard(&mut answers);
    let mut applied: Vec<&str> = talos(&answers, "ApplyConfiguration").map(|answer| answer.at.as_str()).collect();
    assert!(applied.len() <= order().len() + 1, "{applied:?}\n{story}");
    applied.dedup();
    assert_eq!(applied, order(), "{story}");
    assert!(fs::read_to_string(lab.folder.profile()).unwrap().contains("kubernetes_version: \"1.35.0\""));
}

#[test]
fn wherever_it_dies_it_goes_on_with_the_right_component_on_the_right_machine() {
    let mut steps: Vec<String> = Vec::new();
    let control = CONTROL_PLANES.map(|(_, name)| name);
    for component in ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy"] {
        steps.extend(control.map(|name| format!("{component}/{name}")));
    }
    steps.extend(control.into_iter().chain(WORKERS.map(|(_, name)| name)).map(|name| format!("kubelet/{name}")));
    steps.extend(["manifests", "ready"].map(str::to_owned));
    let moments = ["step-started", "step-finished"];
    let cuts: Vec<_> = moments.into_iter().flat_map(|moment| steps.iter().map(move |step| (step, moment))).collect();
    let every = if std::env::var_os("RECAST_TEST_ALL_CUTS").is_some() { 1 } else { cuts.len().div_ceil(SAMPLE) };
    let cuts: Vec<_> = cuts.into_iter().step_by(every).collect();
    each("cuts of a hop of Kubernetes", &cuts, async |(step, moment)| {
        killed_and_resumed(&format!("kubernetes-1.35.0/{step}"), moment).await;
    });
}
