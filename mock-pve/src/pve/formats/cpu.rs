//! CPUs of VMs: the models that come with the release, and what of one a VM may change.
//!
//! Must not know: other properties.

use std::collections::BTreeMap;

use super::refuse;
use crate::world::PveVersion;

/// CPU models that come with the release.
pub(in crate::pve) const CPU_MODELS: &[(&str, &str)] = &[
    ("486", "GenuineIntel"),
    ("Broadwell", "GenuineIntel"),
    ("Broadwell-IBRS", "GenuineIntel"),
    ("Broadwell-noTSX", "GenuineIntel"),
    ("Broadwell-noTSX-IBRS", "GenuineIntel"),
    ("Cascadelake-Server", "GenuineIntel"),
    ("Cascadelake-Server-noTSX", "GenuineIntel"),
    ("Cascadelake-Server-v2", "GenuineIntel"),
    ("Cascadelake-Server-v4", "GenuineIntel"),
    ("Cascadelake-Server-v5", "GenuineIntel"),
    ("Conroe", "GenuineIntel"),
    ("Cooperlake", "GenuineIntel"),
    ("Cooperlake-v2", "GenuineIntel"),
    ("EPYC", "AuthenticAMD"),
    ("EPYC-Genoa", "AuthenticAMD"),
    ("EPYC-IBPB", "AuthenticAMD"),
    ("EPYC-Milan", "AuthenticAMD"),
    ("EPYC-Milan-v2", "AuthenticAMD"),
    ("EPYC-Rome", "AuthenticAMD"),
    ("EPYC-Rome-v2", "AuthenticAMD"),
    ("EPYC-Rome-v3", "AuthenticAMD"),
    ("EPYC-Rome-v4", "AuthenticAMD"),
    ("EPYC-v3", "AuthenticAMD"),
    ("EPYC-v4", "AuthenticAMD"),
    ("GraniteRapids", "GenuineIntel"),
    ("Haswell", "GenuineIntel"),
    ("Haswell-IBRS", "GenuineIntel"),
    ("Haswell-noTSX", "GenuineIntel"),
    ("Haswell-noTSX-IBRS", "GenuineIntel"),
    ("Icelake-Client", "GenuineIntel"),
    ("Icelake-Client-noTSX", "GenuineIntel"),
    ("Icelake-Server", "GenuineIntel"),
    ("Icelake-Server-noTSX", "GenuineIntel"),
    ("Icelake-Server-v3", "GenuineIntel"),
    ("Icelake-Server-v4", "GenuineIntel"),
    ("Icelake-Server-v5", "GenuineIntel"),
    ("Icelake-Server-v6", "GenuineIntel"),
    ("IvyBridge", "GenuineIntel"),
    ("IvyBridge-IBRS", "GenuineIntel"),
    ("KnightsMill", "GenuineIntel"),
    ("Nehalem", "GenuineIntel"),
    ("Nehalem-IBRS", "GenuineIntel"),
    ("Opteron_G1", "AuthenticAMD"),
    ("Opteron_G2", "AuthenticAMD"),
    ("Opteron_G3", "AuthenticAMD"),
    ("Opteron_G4", "AuthenticAMD"),
    ("Opteron_G5", "AuthenticAMD"),
    ("Penryn", "GenuineIntel"),
    ("SandyBridge", "GenuineIntel"),
    ("SandyBridge-IBRS", "GenuineIntel"),
    ("SapphireRapids", "GenuineIntel"),
    ("SapphireRapids-v2", "GenuineIntel"),
    ("Skylake-Client", "GenuineIntel"),
    ("Skylake-Client-IBRS", "GenuineIntel"),
    ("Skylake-Client-noTSX-IBRS", "GenuineIntel"),
    ("Skylake-Client-v4", "GenuineIntel"),
    ("Skylake-Server", "GenuineIntel"),
    ("Skylake-Server-IBRS", "GenuineIntel"),
    ("Skylake-Server-noTSX-IBRS", "GenuineIntel"),
    ("Skylake-Server-v4", "GenuineIntel"),
    ("Skylake-Server-v5", "GenuineIntel"),
    ("Westmere", "GenuineIntel"),
    ("Westmere-IBRS", "GenuineIntel"),
    ("athlon", "AuthenticAMD"),
    ("core2duo", "GenuineIntel"),
    ("coreduo", "GenuineIntel"),
    ("host", "default"),
    ("kvm32", "default"),
    ("kvm64", "default"),
    ("max", "default"),
    ("pentium", "GenuineIntel"),
    ("pentium2", "GenuineIntel"),
    ("pentium3", "GenuineIntel"),
    ("phenom", "AuthenticAMD"),
    ("qemu32", "default"),
    ("qemu64", "default"),
    ("x86-64-v2", "default"),
    ("x86-64-v2-AES", "default"),
    ("x86-64-v3", "default"),
    ("x86-64-v4", "default"),
];

/// Flags of a CPU that a VM may switch.
const CPU_FLAGS: &[&str] = &[
    "pcid",
    "spec-ctrl",
    "ibpb",
    "ssbd",
    "virt-ssbd",
    "amd-ssbd",
    "amd-no-ssb",
    "pdpe1gb",
    "md-clear",
    "hv-tlbflush",
    "hv-evmcs",
    "aes",
];

/// Whether a VM's CPU exists and has only what a VM's may have; `Err` is the original's text (PVE/QemuServer/CPUConfig.pm,
/// `validate_vm_cpu_conf`).
pub(in crate::pve) fn check_cpu(pve: PveVersion, given: &BTreeMap<String, String>) -> Result<(), String> {
    let Some(model) = given.get("cputype") else { return Err("CPU is missing cputype\n".to_owned()) };
    if let Some(custom) = model.strip_prefix("custom-") {
        return Err(format!("Custom cputype '{custom}' not found\n"));
    }
    if !CPU_MODELS.iter().any(|(name, _)| name == model) {
        return Err(format!("Built-in cputype '{model}' is not defined (missing 'custom-' prefix?)\n"));
    }
    let known: Vec<&str> =
        if pve == PveVersion::V9 { [&["nested-virt"], CPU_FLAGS].concat() } else { CPU_FLAGS.to_vec() };
    let flags = given.get("flags").map_or("", String::as_str);
    let mut names = flags.split(';').filter(|flag| !flag.is_empty()).map(|flag| &flag[1..]);
    refuse(
        names.all(|name| known.contains(&name)),
        format!("VM-specific CPU flags must be a subset of: {}\n", known.join(", ")),
    )?;
    refuse(!given.contains_key("reported-model"), "Property 'reported-model' not allowed in VM-specific CPU config.\n")
}
