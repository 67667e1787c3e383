//! Steps that the user's own wishes add to phases: hooks, what is applied at bootstrap, git, Flux.

use crate::plan::errands::{Apply, Git};
use crate::plan::make::{Draft, planned};
use crate::plan::step::{Contexts, Moment};
use crate::plan::{Phase, Planned, Step, Verb};
use crate::types::StepId;

/// Puts a step behind all others of a phase.
fn last(phase: &mut Phase, id: String, step: Step) {
    let after: Vec<StepId> = phase.steps.iter().map(|planned| planned.id.clone()).collect();
    let step: Planned = planned(id, step, &after.iter().collect::<Vec<_>>());
    phase.steps.push(step);
}

fn hook(draft: &Draft<'_>, moment: Moment, phase: &mut Phase) {
    if let Some(command) = draft.wanted.errands.hooks.get(&moment) {
        let id = format!("{}/hook", phase.name);
        last(phase, id, Step::RunHook { moment, command: command.clone() });
    }
}

/// The hook before anything is destroyed ends the freeze: when it fails, the old cluster is started again.
pub(in crate::plan) fn after_freeze(draft: &Draft<'_>, phase: &mut Phase) {
    hook(draft, Moment::BeforeRetire, phase);
}

/// What the new cluster needs before its nodes can be Ready: a CNI and the like.
pub(in crate::plan) fn after_bootstrap(draft: &Draft<'_>, phase: &mut Phase) {
    for (number, apply) in draft.wanted.errands.apply.iter().enumerate() {
        let step = match apply {
            Apply::Manifests(from) => Step::ApplyManifests { from: from.clone() },
            Apply::Command(command) => Step::RunCommand { command: command.clone() },
        };
        last(phase, format!("bootstrap/apply-{}", number + 1), step);
    }
    hook(draft, Moment::AfterBootstrap, phase);
}

/// Contexts, git, Flux, a word about talosctl, and the user's own last word.
pub(in crate::plan) fn finish(draft: &Draft<'_>, phase: &mut Phase) {
    let wanted = draft.wanted;
    let which = if wanted.verb == Verb::Teardown { Contexts::All } else { Contexts::Superseded };
    last(phase, "finish/contexts".to_owned(), Step::CleanContexts { which });
    if wanted.verb != Verb::Teardown {
        if let Some(git) = wanted.errands.git {
            let tag = wanted.talos.tag();
            let message = match wanted.verb {
                Verb::Rollback => format!("revert(talos): go back to Talos {tag}"),
                _ => format!("feat(talos): upgrade to Talos {tag}"),
            };
            last(phase, "finish/commit".to_owned(), Step::CommitFiles { message, push: git == Git::Push });
        }
        if let Some(flux) = &wanted.errands.flux {
            let (repo, path, branch) = (flux.repo.clone(), flux.path.clone(), flux.branch.clone());
            let step = Step::InstallFlux { repo, path, branch, secrets: flux.secrets.clone() };
            last(phase, "finish/flux".to_owned(), step);
        }
        let version = wanted.talos.clone();
        last(phase, "finish/talosctl".to_owned(), Step::CompareTalosctl { version });
    }
    hook(draft, Moment::Finished, phase);
}
