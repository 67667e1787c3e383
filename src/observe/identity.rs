//! What tells a VM from others, read from its configuration.

use crate::plan::step::VmIdentity;
use crate::pve::VmConfig;
use crate::pve::vm::VmRef;

/// The identity of the VM that has this configuration now.
pub fn identity(vm: &VmRef, config: &VmConfig) -> VmIdentity {
    VmIdentity {
        node: vm.node.clone(),
        vmid: vm.vmid,
        name: config.name().unwrap_or_default().to_owned(),
        uuid: config.smbios_uuid().unwrap_or_default(),
        vmgenid: config.vmgenid(),
        tags: config.tags().0.iter().map(|tag| tag.to_lowercase()).collect(),
        created: config.created(),
        disks: config.volumes(),
    }
}

/// Every way in which `now` differs from what was `planned`, in words; empty for the same VM.
pub fn differences(planned: &VmIdentity, now: &VmIdentity) -> Vec<String> {
    let mut found = Vec::new();
    let mut differ = |what: &str, planned: &dyn std::fmt::Display, now: &dyn std::fmt::Display| {
        found.push(format!("its {what} is {now}, and was {planned}"));
    };
    if planned.node != now.node {
        differ("node", &planned.node, &now.node);
    }
    if planned.name != now.name {
        differ("name", &planned.name, &now.name);
    }
    if planned.uuid != now.uuid {
        differ("SMBIOS UUID", &planned.uuid, &now.uuid);
    }
    if planned.vmgenid != now.vmgenid {
        differ("generation id", &or_none(planned.vmgenid.as_deref()), &or_none(now.vmgenid.as_deref()));
    }
    if planned.tags != now.tags {
        differ("list of tags", &planned.tags.join(";"), &now.tags.join(";"));
    }
    if planned.created != now.created {
        let text = |created: Option<u64>| created.map_or_else(|| "unknown".to_owned(), |created| created.to_string());
        differ("creation time", &text(planned.created), &text(now.created));
    }
    for (key, volume) in &now.disks {
        if planned.disks.get(key) != Some(volume) {
            found.push(format!("it has a disk that was not there: {key} = {volume}"));
        }
    }
    for (key, volume) in &planned.disks {
        if !now.disks.contains_key(key) {
            found.push(format!("its disk {key} = {volume} is gone"));
        }
    }
    found
}

fn or_none(text: Option<&str>) -> &str {
    text.unwrap_or("none")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::VmId;

    fn planned() -> VmIdentity {
        VmIdentity {
            node: "pve1".into(),
            vmid: VmId(1100),
            name: "single-cp-01".to_owned(),
            uuid: "5f3f1d0e-0000-4000-8000-000000001100".to_owned(),
            vmgenid: Some("a".to_owned()),
            tags: vec!["single".to_owned(), "talos".to_owned()],
            created: Some(1),
            disks: [("scsi0".to_owned(), "local-lvm:vm-1100-disk-0".into())].into(),
        }
    }

    #[test]
    fn every_part_of_an_identity_counts() {
        assert_eq!(differences(&planned(), &planned()), Vec::<String>::new());
        let changes: [fn(&mut VmIdentity); 8] = [
            |vm| vm.node = "pve2".into(),
            |vm| vm.name = "other".to_owned(),
            |vm| vm.uuid = "other".to_owned(),
            |vm| vm.vmgenid = None,
            |vm| vm.tags.push("prod".to_owned()),
            |vm| vm.created = Some(2),
            |vm| drop(vm.disks.insert("scsi1".to_owned(), "local-lvm:vm-1100-disk-1".into())),
            |vm| vm.disks.clear(),
        ];
        for change in changes {
            let mut now = planned();
            change(&mut now);
            assert_eq!(differences(&planned(), &now).len(), 1, "{now:?}");
        }
    }
}
