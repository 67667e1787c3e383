//! Jobs: pods that end.

use serde_json::{Value, json};

use super::quotas::Made;
use super::{Desk, Entry, News, objects, pods};

/// Who tells of jobs.
const JOBS: &str = "job-controller";

impl Desk<'_> {
    pub(super) fn jobs(&mut self) {
        for job in self.all("/registry/jobs/") {
            if !pods::is_going(&job.value) && !is_done(&job.value) {
                self.job(&job);
            }
        }
    }

    fn job(&mut self, job: &Entry) {
        let mine = self.owned(&format!("/registry/pods/{}/", pods::namespace(job)), job);
        let phase =
            |wanted: &str| mine.iter().filter(|pod| pods::text(&pod.value, "/status/phase") == wanted).count() as u64;
        let (succeeded, failed) = (phase("Succeeded"), phase("Failed"));
        let active = mine.iter().filter(|pod| pods::is_active(&pod.value)).count() as u64;
        let spec = &job.value["spec"];
        let most = spec["parallelism"].as_u64().unwrap_or(1);
        let wanted = spec["completions"].as_u64().unwrap_or(most);
        let limit = spec["backoffLimit"].as_u64().unwrap_or(6);
        let suspended = spec["suspend"] == true;
        let mut value = job.value.clone();
        let status = &mut value["status"];
        if !status.is_object() {
            *status = json!({ "startTime": objects::now() });
        }
        for (name, number) in [("active", active), ("succeeded", succeeded), ("failed", failed)] {
            if number > 0 {
                status[name] = json!(number);
            } else if let Some(map) = status.as_object_mut() {
                map.remove(name);
            }
        }
        let ready = mine.iter().filter(|pod| pods::is_active(&pod.value) && pods::is_ready(&pod.value)).count();
        status["ready"] = json!(ready);
        if succeeded >= wanted {
            status["completionTime"] = json!(objects::now());
            pods::set_condition(
                &mut value,
                "SuccessCriteriaMet",
                "True",
                "CompletionsReached",
                "Reached expected number of succeeded pods",
            );
            pods::set_condition(
                &mut value,
                "Complete",
                "True",
                "CompletionsReached",
                "Reached expected number of succeeded pods",
            );
        } else if failed > limit {
            let why = "Job has reached the specified backoff limit";
            pods::set_condition(&mut value, "Failed", "True", "BackoffLimitExceeded", why);
        } else if !suspended {
            let template = job.value["spec"]["template"].clone();
            for number in 0..most.min(wanted - succeeded).saturating_sub(active).min(100) {
                let number = usize::try_from(number).unwrap_or_default();
                let pod = self.make_pod(job, &template, number);
                if self.make(job, JOBS, pod) == Made::Refused {
                    break;
                }
            }
        }
        if value != job.value {
            let done = is_done(&value);
            self.round.update(job, value);
            if done && succeeded >= wanted {
                self.round.tell(News::of(&job.value, JOBS, "Completed", "Job completed"));
            } else if done {
                let why = "Job has reached the specified backoff limit";
                self.round.tell(News::of(&job.value, JOBS, "BackoffLimitExceeded", why).warns());
            }
        }
    }
}

fn is_done(job: &Value) -> bool {
    let conditions = job["status"]["conditions"].as_array().into_iter().flatten();
    conditions
        .into_iter()
        .any(|one| matches!(one["type"].as_str(), Some("Complete" | "Failed")) && one["status"] == "True")
}
