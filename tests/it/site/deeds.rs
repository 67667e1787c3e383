//! What a run may destroy: what its plan names, and what it made itself.

use mock_pve::world::deed::{Deed, Origin};
use recast::plan::{Plan, Step};

/// Nothing but what the plan names was destroyed or stopped: each old VM once, and VMs that the run itself made.
pub(crate) fn assert_deeds(deeds: &[Deed], plan: &Plan) {
    let ours: Vec<u32> = plan
        .steps()
        .filter_map(|planned| match &planned.step {
            Step::CreateTemplate { vm, .. } | Step::CloneVm { vm, .. } => Some(vm.vmid.0),
            _ => None,
        })
        .collect();
    let volumes: Vec<&str> = plan
        .steps()
        .filter_map(|planned| match &planned.step {
            Step::AllocateVolume { volume, .. } => Some(volume.volume.as_str()),
            _ => None,
        })
        .collect();
    for deed in deeds.iter().filter(|deed| deed.vmid.is_some()) {
        let allowed = match deed.origin {
            Origin::Seeded => plan.destroys.iter().any(|old| deed.vmid == Some(old.vmid.0)),
            Origin::Created => deed.vmid.is_some_and(|vmid| ours.contains(&vmid)),
            // A volume that was allocated before its VM was made.
            Origin::Unknown => {
                let made = deed.what == "free-volume" || deed.what == "overwrite";
                made && deed.object.as_deref().is_some_and(|id| volumes.contains(&id))
            }
        };
        assert!(allowed, "{deed:?}");
    }
    let retired = deeds.iter().filter(|deed| deed.what == "destroy" && deed.origin == Origin::Seeded);
    assert_eq!(retired.count(), plan.destroys.len(), "{deeds:#?}");
}
