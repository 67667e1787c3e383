//! What the user hangs into a run: hooks, and what the new cluster needs before its nodes can be Ready.
//!
//! A hook can't be probed: one whose end was never heard is run again. It is told which run it is for, so that it can
//! tell a repetition.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use serde_json::{Value, json};

use super::World;
use super::classify::{by_kubernetes, refused, wrong};
use crate::command::{Command, CommandError, Done};
use crate::engine::{Class, StepCx, StepError};
use crate::k8s::apply::Applier;
use crate::k8s::{Client, manifest};
use crate::plan::step::{ManifestFile, Manifests, Moment};
use crate::plan::{Output, Plan};
use crate::types::Sha256;

/// How long a command of the user's may take: a hook may wait for a person, a chart for its pods.
const WITHIN: Duration = Duration::from_mins(30);

/// Between two looks at an API that isn't there yet.
const LOOK: Duration = Duration::from_millis(500);

/// The largest text of manifests: Cilium's with everything on is 1 MiB.
const LARGEST: usize = 32 << 20;

/// Redirects that a URL of manifests may go through, as GitHub's releases do.
const HOPS: usize = 5;

/// The run as hooks read it.
pub fn run_as_json(plan: &Plan, moment: Moment, outputs: &[(&str, Value)]) -> Value {
    let mut run = json!({
        "format": 1,
        "moment": moment,
        "run": plan.run,
        "verb": plan.verb,
        "cluster": plan.cluster,
        "versions": { "before": plan.before, "after": plan.after },
        "vms": plan.vms,
        "retires": plan.destroys.iter().map(|vm| json!({ "vmid": vm.vmid, "name": vm.name, "node": vm.node })).collect::<Vec<_>>(),
    });
    for (name, value) in outputs {
        run[*name] = value.clone();
    }
    run
}

impl World {
    /// A command of the user's, in the profile's folder, with the way into the new cluster in its environment.
    pub(super) fn users_command(&self, what: String, line: &str) -> Command {
        let parent = self.files.profile.parent().filter(|dir| !dir.as_os_str().is_empty());
        let folder = parent.map_or_else(|| PathBuf::from("."), PathBuf::from);
        Command::shell(what, line, WITHIN)
            .in_folder(&folder)
            .env("RECAST_RUN_DIR", self.run_dir())
            .env("RECAST_CLUSTER", &self.plan.cluster)
    }

    /// The run's directory, as it is known in any other directory too.
    pub(super) fn run_dir(&self) -> PathBuf {
        std::path::absolute(&self.files.run).unwrap_or_else(|_| self.files.run.clone())
    }

    /// The hook for a run that failed: the run has ended, so nothing hangs on how this ends.
    pub async fn run_failed_hook(&self, line: &str, told: &[(&str, Value)]) -> Result<Done, CommandError> {
        let run = run_as_json(&self.plan, Moment::Failed, told);
        let command = self.users_command(format!("the hook {}", Moment::Failed), line);
        let command = self.with_access(command).stdin(SecretString::from(run.to_string()));
        self.commands.run(&command, std::future::pending()).await
    }

    /// With the new cluster's access files.
    fn with_access(&self, command: Command) -> Command {
        command
            .env("KUBECONFIG", self.run_dir().join("kubeconfig"))
            .env("TALOSCONFIG", self.run_dir().join("talosconfig"))
    }

    /// Runs it, or tells that it was only recorded.
    pub(super) async fn run_command(&self, doing: &str, command: &Command, cx: &StepCx<'_>) -> Result<Done, StepError> {
        let done = self.commands.run(command, cx.cancelled()).await.map_err(|error| by_command(doing, error))?;
        if let Done::Recorded = done {
            cx.notice(format!("Not run in a rehearsal: {} ({})", command.program.shown(), command.what));
        }
        Ok(done)
    }

    pub(super) async fn run_hook(&self, moment: Moment, line: &str, cx: &StepCx<'_>) -> Result<Output, StepError> {
        let doing = format!("run the hook {moment}");
        let run = run_as_json(&self.plan, moment, &[]);
        let command = self.users_command(format!("the hook {moment}"), line).stdin(SecretString::from(run.to_string()));
        // Before the new cluster is there, the user's own files lead to the old one.
        let command = if moment == Moment::BeforeRetire { command } else { self.with_access(command) };
        self.run_command(&doing, &command, cx).await?;
        Ok(Output::Nothing)
    }

    pub(super) async fn run_on_new_cluster(&self, line: &str, cx: &StepCx<'_>) -> Result<Output, StepError> {
        let doing = format!("run `{line}` on the new cluster");
        if !self.commands.are_recorded() {
            self.await_api(&doing, &self.kube(&doing)?, cx).await?;
        }
        let command = self.with_access(self.users_command("the command of bootstrap.apply".to_owned(), line));
        self.run_command(&doing, &command, cx).await?;
        Ok(Output::Nothing)
    }

    /// The new cluster's API, by the run's own kubeconfig.
    pub(super) fn kube(&self, doing: &str) -> Result<Client, StepError> {
        let text = super::files::read(&self.files.run.join("kubeconfig"))?;
        let text = text.ok_or_else(|| wrong(doing, "the run has no kubeconfig"))?;
        Client::new(&self.connector, &text.into()).map_err(|error| StepError::new(Class::Permanent, doing, error))
    }

    /// Waits until the API answers.
    pub(super) async fn await_api(&self, doing: &str, client: &Client, cx: &StepCx<'_>) -> Result<(), StepError> {
        let limit = Duration::from_secs(self.plan.limits.health);
        let since = cx.elapsed();
        loop {
            let Err(error) = client.revision().await else { return Ok(()) };
            if !error.is_transient() || cx.elapsed().saturating_sub(since) >= limit {
                return Err(by_kubernetes(doing, error));
            }
            cx.waiting("the Kubernetes API", Some(&error.to_string()));
            cx.sleep(LOOK).await;
        }
    }

    pub(super) async fn apply_manifests(&self, from: &Manifests, cx: &StepCx<'_>) -> Result<Output, StepError> {
        let doing = "apply manifests to the new cluster";
        if self.commands.are_recorded() {
            let shown = match from {
                Manifests::Url(url) => url.clone(),
                Manifests::Files(files) => {
                    files.iter().map(|file| file.path.display().to_string()).collect::<Vec<_>>().join(" ")
                }
            };
            let command = Command::argv("manifests of bootstrap.apply", ["apply", &shown], WITHIN);
            self.run_command(doing, &command, cx).await?;
            return Ok(Output::Nothing);
        }
        let texts = match from {
            Manifests::Files(files) => files.iter().map(planned_text).collect::<Result<Vec<_>, _>>()?,
            Manifests::Url(url) => vec![(url.clone(), self.fetch_text(url).await?)],
        };
        let client = self.kube(doing)?;
        self.await_api(doing, &client, cx).await?;
        for (name, text) in texts {
            let objects = manifest::parse(&text)
                .map_err(|error| StepError::new(Class::Permanent, format!("read the manifests in {name}"), error))?;
            self.apply_all(&client, &objects, cx).await?;
        }
        Ok(Output::Nothing)
    }

    /// Applies objects in their order. A kind whose definition was just applied takes a moment to be served, and a
    /// webhook or namespace to be there.
    pub(super) async fn apply_all(
        &self,
        client: &Client,
        objects: &[manifest::Manifest],
        cx: &StepCx<'_>,
    ) -> Result<(), StepError> {
        let mut applier = Applier::new(client);
        let limit = Duration::from_secs(self.plan.limits.health);
        let since = cx.elapsed();
        for object in objects {
            let doing = format!("apply {object}");
            loop {
                let Err(error) = applier.apply(object).await else { break };
                let may_come = error.is_transient() || error.is_not_found();
                if !may_come || cx.elapsed().saturating_sub(since) >= limit {
                    return Err(by_kubernetes(doing, error));
                }
                cx.waiting(&object.to_string(), Some(&error.to_string()));
                cx.sleep(LOOK).await;
            }
        }
        Ok(())
    }

    async fn fetch_text(&self, url: &str) -> Result<String, StepError> {
        let doing = format!("fetch {url}");
        let uri: http::Uri = url.parse().map_err(|error| StepError::new(Class::Permanent, &doing, error))?;
        let answer = self.http.get_following(uri, http::HeaderMap::new(), HOPS).await;
        let answer = answer.map_err(|error| StepError::new(Class::Transient, &doing, error))?;
        let status = answer.status;
        let body = answer.bytes(LARGEST).await.map_err(|error| StepError::new(Class::Transient, &doing, error))?;
        if !status.is_success() {
            let class = if status.is_server_error() { Class::Transient } else { Class::Permanent };
            return Err(StepError::new(class, doing, format!("the server answered {status}")));
        }
        String::from_utf8(body.to_vec()).map_err(|error| StepError::new(Class::Permanent, doing, error))
    }
}

/// The text of a file, if it is the one that was planned.
fn planned_text(file: &ManifestFile) -> Result<(String, String), StepError> {
    let name = file.path.display().to_string();
    let doing = format!("read {name}");
    let text = std::fs::read_to_string(&file.path).map_err(|error| StepError::new(Class::Permanent, &doing, error))?;
    if Sha256::of(text.as_bytes()) != file.sha256 {
        return Err(refused(doing, "it was edited since the plan was made").hinted("put it back, then resume"));
    }
    Ok((name, text))
}

/// A program that failed. What it did until then isn't known, and it is the user's to say whether it may be repeated:
/// nothing is tried again without being asked.
pub(super) fn by_command(doing: &str, error: CommandError) -> StepError {
    let hint = match &error {
        CommandError::Start { .. } => "install it, then resume",
        CommandError::Failed { .. } | CommandError::TooLong { .. } => "once it can succeed, resume runs it again",
        CommandError::Cancelled { .. } | CommandError::Pipe { .. } | CommandError::Record { .. } => {
            return StepError::new(Class::Permanent, doing, error);
        }
    };
    StepError::new(Class::Permanent, doing, error).hinted(hint)
}
