//! Whether the firmware of the VMs can boot what the images hold.
//!
//! Purpose: an image with systemd-boot alone has half the bytes of the usual one, and a BIOS finds nothing in it: known
//! before anything is fetched rather than when the canary doesn't answer. Must not know: clients.

use std::collections::BTreeSet;

use crate::plan::observed::{Finding, Observed};
use crate::plan::sources::spots;
use crate::plan::wanted::Wanted;
use crate::types::SchematicId;

/// Refuses images that need UEFI where VMs have a BIOS, which is what they have when nothing is said.
pub(super) fn firmware(wanted: &Wanted, seen: &Observed, found: &mut Vec<Finding>) {
    let used: BTreeSet<SchematicId> = spots(wanted).into_iter().map(|spot| spot.schematic).collect();
    for schematic in used.intersection(&seen.uefi_only) {
        let bios = wanted.hardware_of(schematic).get("bios").map_or("seabios", String::as_str);
        if bios != "ovmf" {
            found.push(Finding::refusal(
                format!("images of schematic {schematic} boot by UEFI alone, and the VMs have bios {bios}"),
                "say `bios: ovmf` in the group's `vm:` or in the site's defaults, or take a schematic with another boot loader",
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::sample::{seen, wanted};

    #[test]
    fn an_image_for_uefi_is_refused_where_the_vms_have_none() {
        let (mut wanted, mut seen) = (wanted(), seen());
        let count = |wanted: &Wanted, seen: &Observed| {
            let mut found = Vec::new();
            firmware(wanted, seen, &mut found);
            found.len()
        };
        wanted.hardware.remove("bios");
        assert_eq!(count(&wanted, &seen), 0);
        seen.uefi_only.insert(wanted.schematic.clone());
        assert_eq!(count(&wanted, &seen), 1);
        wanted.hardware.insert("bios".to_owned(), "ovmf".to_owned());
        assert_eq!(count(&wanted, &seen), 0);
    }
}
