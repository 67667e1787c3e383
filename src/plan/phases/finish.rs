//! Phase `finish`: profile and lock say what now runs.

use std::collections::BTreeMap;

use crate::plan::make::{Draft, FETCH, planned};
use crate::plan::{Phase, Step};

pub(in crate::plan) fn finish(draft: &Draft<'_>) -> Phase {
    let wanted = draft.wanted;
    let mut set = BTreeMap::new();
    set.insert("talos.version".to_owned(), wanted.talos.to_string());
    set.insert("talos.kubernetes_version".to_owned(), wanted.kubernetes.to_string());
    // The profile has room for one number: the template of the first machine's node. The lock has them all.
    if let Some(template) = draft.vms.first().and_then(|vm| draft.templates.get(&vm.node)) {
        set.insert("template".to_owned(), template.vm.vmid.to_string());
    }
    let edit = planned("finish/profile", Step::EditProfile { set }, &[]);
    let mut steps = vec![edit];
    if let Some(first) = draft.templates.values().next()
        && draft.image.is_some()
    {
        let templates = draft.templates.iter().map(|(node, template)| (node.clone(), template.vm.vmid)).collect();
        let lock = Step::WriteLock { fetched: FETCH.into(), templates, fingerprint: first.fingerprint };
        steps.push(planned("finish/lock", lock, &[]));
    }
    Phase { name: "finish".to_owned(), steps, width: 1 }
}
