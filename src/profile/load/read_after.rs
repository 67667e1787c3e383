//! The keys of a profile that are about more than its VMs: backups, hooks, what follows bootstrap.

use super::fields::{Fields, Value};
use crate::profile::{Apply, Backup, Bootstrap, CopyTarget, Finish, Flux, Git, Hooks};

pub(super) fn backup(mut keys: Fields<'_>) -> Backup {
    let backup = Backup {
        dir: keys.optional("dir", Value::text).map(Into::into),
        copies: keys.optional("copies", |value| value.list(copy)).unwrap_or_default(),
        keep: keys.optional("keep", Value::number),
    };
    keys.finish();
    backup
}

fn copy(value: &Value<'_>) -> Option<CopyTarget> {
    let mut keys = value.fields();
    let path = keys.get("path").map(|value| Way(value.text().map(|path| CopyTarget::Path(path.into()))));
    let ssh = keys.get("ssh").map(|value| {
        let mut keys = value.fields();
        let (host, path) = (keys.required("host", Value::text), keys.required("path", Value::text));
        keys.finish();
        Way(host.zip(path).map(|(host, path)| CopyTarget::Ssh { host, path }))
    });
    let command = keys.get("command").map(|value| {
        let mut keys = value.fields();
        let (save, read) = (keys.required("save", Value::text), keys.optional("read", Value::text));
        keys.finish();
        Way(save.map(|save| CopyTarget::Command { save, read }))
    });
    keys.finish();
    one_of(value, [path, ssh, command], "expected one of `path`, `ssh` or `command`")
}

/// One of several ways to say something, as it was written; nothing where that could not be read.
struct Way<T>(Option<T>);

/// The one of several ways that was written; a problem where it isn't exactly one.
fn one_of<T, const N: usize>(value: &Value<'_>, ways: [Option<Way<T>>; N], expected: &str) -> Option<T> {
    let mut written: Vec<Way<T>> = ways.into_iter().flatten().collect();
    if written.len() != 1 {
        value.problem(expected);
        return None;
    }
    written.pop().and_then(|Way(read)| read)
}

pub(super) fn bootstrap(mut keys: Fields<'_>) -> Bootstrap {
    let bootstrap = Bootstrap { apply: keys.optional("apply", |value| value.list(apply)).unwrap_or_default() };
    keys.finish();
    bootstrap
}

fn apply(value: &Value<'_>) -> Option<Apply> {
    let mut keys = value.fields();
    let manifests = keys.get("manifests").map(|value| Way(value.text().map(Apply::Manifests)));
    let command = keys.get("command").map(|value| Way(value.text().map(Apply::Command)));
    keys.finish();
    one_of(value, [manifests, command], "expected either `manifests` or `command`")
}

pub(super) fn hooks(mut keys: Fields<'_>) -> Hooks {
    let hooks = Hooks {
        before_retire: keys.optional("before_retire", Value::text),
        after_bootstrap: keys.optional("after_bootstrap", Value::text),
        finished: keys.optional("finished", Value::text),
        failed: keys.optional("failed", Value::text),
    };
    keys.finish();
    hooks
}

pub(super) fn finish(mut keys: Fields<'_>) -> Finish {
    let git = keys.get("git").map(|value| {
        let mut keys = value.fields();
        let git = Git {
            commit: keys.optional("commit", Value::flag).unwrap_or(true),
            push: keys.optional("push", Value::flag).unwrap_or_default(),
        };
        keys.finish();
        git
    });
    let finish = Finish { git, flux: keys.optional("flux", Value::flag).unwrap_or_default() };
    keys.finish();
    finish
}

pub(super) fn flux(mut keys: Fields<'_>) -> Flux {
    let flux = Flux {
        repo: keys.required("repo", Value::text).unwrap_or_default(),
        path: keys.required("path", Value::text).unwrap_or_default(),
        branch: keys.optional("branch", Value::text),
    };
    keys.finish();
    flux
}
