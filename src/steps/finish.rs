//! The last steps: contexts in the user's files, git, Flux, and a word about the user's talosctl.

use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::ExposeSecret as _;

use super::World;
use super::classify::{by_kubernetes, refused, wrong};
use super::errands::by_command;
use super::files::read;
use crate::command::git::Repository;
use crate::command::{Command, CommandError};
use crate::engine::{Class, Seen, StepCx, StepError};
use crate::k8s::manifest;
use crate::plan::Output;
use crate::plan::step::Contexts;
use crate::talos::access::{self, kubeconfig, talosconfig};
use crate::types::Version;

/// How long Flux may take to come up.
const FLUX_WITHIN: Duration = Duration::from_mins(10);

/// How long decrypting may take: a hardware key may ask a person.
const SOPS_WITHIN: Duration = Duration::from_mins(2);

/// How long talosctl may think about its own version.
const VERSION_WITHIN: Duration = Duration::from_secs(10);

/// What is there when Flux is.
const FLUX_CONTROLLER: &str = "/apis/apps/v1/namespaces/flux-system/deployments/source-controller";

/// What recast needs to know of Flux' own namespace.
const FLUX_NAMESPACE: &str = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: flux-system\n";

/// What a flux step is about.
pub(super) struct Source<'a> {
    pub(super) repo: &'a str,
    pub(super) path: &'a str,
    pub(super) branch: Option<&'a str>,
    pub(super) secrets: &'a [PathBuf],
}

impl World {
    /// The kubeconfig without the contexts in question; none when it has none of them.
    fn cleaned_kubeconfig(&self, which: Contexts) -> Result<Option<String>, StepError> {
        let path = &self.files.kubeconfig;
        let failed = |error: access::AccessError| {
            StepError::new(Class::Permanent, format!("clean contexts in {}", path.display()), error)
        };
        let Some(mut text) = read(path)? else { return Ok(None) };
        let ca = self.secrets.kubernetes().certificate_pem();
        let stale = kubeconfig::contexts_of(&text, &self.plan.cluster, self.endpoint(), &ca).map_err(failed)?;
        let own = format!("admin@{}", self.plan.cluster);
        let mut changed = false;
        for name in stale.into_iter().filter(|name| which == Contexts::All || *name != own) {
            if let Some(less) = kubeconfig::remove(&text, &name).map_err(failed)? {
                less.expose_secret().clone_into(&mut text);
                changed = true;
            }
        }
        Ok(changed.then_some(text))
    }

    /// The talosconfig without the cluster's context; none when it has none.
    fn cleaned_talosconfig(&self, which: Contexts) -> Result<Option<String>, StepError> {
        let path = &self.files.talosconfig;
        let failed = |error: access::AccessError| {
            StepError::new(Class::Permanent, format!("clean contexts in {}", path.display()), error)
        };
        if which != Contexts::All {
            return Ok(None);
        }
        let Some(text) = read(path)? else { return Ok(None) };
        // Another cluster may have the name: only a context of this one's authority goes.
        let ours = talosconfig::find(&text, Some(&self.plan.cluster)).map_err(failed)?;
        let ca = self.secrets.talos().certificate_pem();
        if ours.is_none_or(|context| context.certificate.authority_pem().trim() != ca.trim()) {
            return Ok(None);
        }
        let less = talosconfig::remove(&text, &self.plan.cluster).map_err(failed)?;
        Ok(less.map(|text| text.expose_secret().to_owned()))
    }

    pub(super) fn probe_contexts(&self, which: Contexts) -> Result<Seen, StepError> {
        let left = self.cleaned_kubeconfig(which)?.is_some() || self.cleaned_talosconfig(which)?.is_some();
        Ok(if left { Seen::Missing } else { Seen::Done(Output::Nothing) })
    }

    pub(super) fn clean_contexts(&self, which: Contexts) -> Result<Output, StepError> {
        let failed =
            |error: access::AccessError| StepError::new(Class::Permanent, "write the client configurations", error);
        if let Some(text) = self.cleaned_kubeconfig(which)? {
            access::write_private(&self.files.kubeconfig, &text.into()).map_err(failed)?;
        }
        if let Some(text) = self.cleaned_talosconfig(which)? {
            access::write_private(&self.files.talosconfig, &text.into()).map_err(failed)?;
        }
        Ok(Output::Nothing)
    }

    fn repository(&self) -> Repository<'_> {
        let folder = self.files.profile.parent().filter(|dir| !dir.as_os_str().is_empty());
        Repository::of(&self.commands, folder.unwrap_or(Path::new(".")))
    }

    /// The profile and its lock, as git is to know them.
    fn committed(&self) -> Vec<PathBuf> {
        let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
        [&self.files.profile, &self.files.lock].into_iter().filter(|path| path.exists()).map(absolute).collect()
    }

    pub(super) async fn probe_commit(&self, push: bool) -> Result<Seen, StepError> {
        let doing = "look for this run's commit";
        if self.commands.are_recorded() {
            return Ok(Seen::Missing);
        }
        let failed = |error| by_command(doing, error);
        let repository = self.repository();
        let Some(commit) = repository.commit_of(self.plan.run.as_str()).await.map_err(failed)? else {
            let differ = repository.differ(&self.committed()).await.map_err(failed)?;
            return Ok(if differ { Seen::Missing } else { Seen::NotNeeded });
        };
        let done = !push || repository.is_pushed(&commit).await.map_err(failed)?;
        Ok(if done { Seen::Done(Output::Commit { id: commit }) } else { Seen::Missing })
    }

    pub(super) async fn commit_files(&self, message: &str, push: bool, cx: &StepCx<'_>) -> Result<Output, StepError> {
        let doing = "commit the profile and its lock";
        let failed = |error| by_command(doing, error);
        let (repository, run) = (self.repository(), self.plan.run.as_str());
        if self.commands.are_recorded() {
            repository.commit(&self.committed(), message, run, cx.cancelled()).await.map_err(failed)?;
            if push {
                repository.push(cx.cancelled()).await.map_err(failed)?;
            }
            cx.notice(format!("Not run in a rehearsal: git commit of profile and lock ({message})"));
            return Ok(Output::Nothing);
        }
        if repository.commit_of(run).await.map_err(failed)?.is_none() {
            if let Some(what) = repository.is_busy().await.map_err(failed)? {
                return Err(refused(doing, format!("{what} is going on in the repository"))
                    .hinted("the cluster is done: finish that, then resume commits"));
            }
            let committed = repository.commit(&self.committed(), message, run, cx.cancelled()).await;
            committed.map_err(failed)?;
        }
        let commit = repository.commit_of(run).await.map_err(failed)?;
        let id = commit.ok_or_else(|| wrong(doing, "git ended well, and there is no commit of this run"))?;
        if push && !repository.is_pushed(&id).await.map_err(failed)? {
            repository.push(cx.cancelled()).await.map_err(|error| {
                by_command("push the commit", error)
                    .hinted("the cluster is done and the commit is made: only the push is missing")
            })?;
        }
        Ok(Output::Commit { id })
    }

    pub(super) async fn probe_flux(&self, cx: &StepCx<'_>) -> Result<Seen, StepError> {
        let doing = "look whether Flux is there";
        if self.commands.are_recorded() {
            // With restored data it came back with them.
            return Ok(if self.restores() { Seen::NotNeeded } else { Seen::Missing });
        }
        let client = self.kube(doing)?;
        self.await_api(doing, &client, cx).await?;
        let there = client.exists(FLUX_CONTROLLER).await.map_err(|error| by_kubernetes(doing, error))?;
        Ok(if there { Seen::Done(Output::Nothing) } else { Seen::Missing })
    }

    pub(super) async fn install_flux(&self, source: Source<'_>, cx: &StepCx<'_>) -> Result<Output, StepError> {
        let doing = "bootstrap Flux";
        let kubeconfig = self.run_dir().join("kubeconfig");
        self.apply_sops(source.secrets, cx).await?;
        let mut words: Vec<std::ffi::OsString> =
            vec!["flux".into(), "bootstrap".into(), "git".into(), "--silent".into()];
        words.push(format!("--url={}", source.repo).into());
        words.push(format!("--path={}", source.path).into());
        if let Some(branch) = source.branch {
            words.push(format!("--branch={branch}").into());
        }
        let kubeconfig_flag = |mut words: Vec<std::ffi::OsString>| {
            let mut flag = std::ffi::OsString::from("--kubeconfig=");
            flag.push(&kubeconfig);
            words.push(flag);
            words
        };
        let install = Command::argv("flux bootstrap", kubeconfig_flag(words), FLUX_WITHIN);
        self.run_command(doing, &install, cx).await?;
        let check = kubeconfig_flag(vec!["flux".into(), "check".into()]);
        self.run_command(doing, &Command::argv("flux check", check, FLUX_WITHIN), cx).await?;
        Ok(Output::Nothing)
    }

    /// The keys that Flux decrypts with, and those that open its repository. They pass through memory only.
    async fn apply_sops(&self, secrets: &[PathBuf], cx: &StepCx<'_>) -> Result<(), StepError> {
        let doing = "apply the secrets that Flux needs";
        for file in secrets {
            let words = ["sops".into(), "--decrypt".into(), file.clone().into_os_string()];
            let command = Command::argv(format!("sops --decrypt {}", file.display()), words, SOPS_WITHIN);
            let done = self.run_command(doing, &command, cx).await?;
            if self.commands.are_recorded() {
                continue;
            }
            let unreadable =
                |error| StepError::new(Class::Permanent, format!("read what {} decrypts to", file.display()), error);
            let mut objects = manifest::parse(FLUX_NAMESPACE).map_err(unreadable)?;
            objects.extend(manifest::parse(done.stdout()).map_err(unreadable)?);
            let client = self.kube(doing)?;
            self.await_api(doing, &client, cx).await?;
            self.apply_all(&client, &objects, cx).await?;
        }
        Ok(())
    }

    /// An old talosctl misreads newer machines; nothing here needs one, so this never fails.
    pub(super) async fn compare_talosctl(&self, version: &Version, cx: &StepCx<'_>) -> Output {
        if self.commands.are_recorded() {
            return Output::Nothing;
        }
        let command = Command::argv("talosctl version", ["talosctl", "version", "--client", "--short"], VERSION_WITHIN);
        match self.commands.run(&command, cx.cancelled()).await {
            Ok(done) => {
                if let Some(own) = talosctl_version(done.stdout())
                    && own.minor() < version.minor()
                {
                    cx.notice(format!(
                        "This computer's talosctl is {own}, older than the cluster's Talos {version}: renew it."
                    ));
                }
            }
            Err(CommandError::Start { .. }) => {}
            Err(error) => tracing::debug!(%error, "talosctl does not tell its version"),
        }
        Output::Nothing
    }
}

/// `Client v1.12.4` (talosctl version --client --short), with or without the first word.
fn talosctl_version(text: &str) -> Option<Version> {
    text.split_whitespace().find_map(|word| word.strip_prefix('v')?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn talosctl_tells_its_version_in_its_own_words() {
        assert_eq!(talosctl_version("Client v1.12.4\n"), Some("1.12.4".parse().unwrap()));
        assert_eq!(talosctl_version("Talos v1.13.0-rc.1\n"), Some("1.13.0-rc.1".parse().unwrap()));
        assert_eq!(talosctl_version("Client: unknown\n"), None);
    }
}
