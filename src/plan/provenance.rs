//! Marks: how recast recognises what it made.
//!
//! Purpose: one place that writes and reads the lines in a VM's description. Every VM that a run creates carries
//! `recast: run=… step=… cluster=…`; a template carries a second line with what it was made from and its fingerprint.
//! Names and numbers prove nothing: someone may have reused them.

use super::step::Hardware;
use crate::types::{RunId, SchematicId, Sha256, StepId, Version};

/// The line that proves that `step` of `run` made a VM.
pub fn mark(run: &RunId, step: &StepId, cluster: &str) -> String {
    format!("recast: run={run} step={step} cluster={cluster}")
}

/// The mark in a description, if there is one.
pub fn find_mark(description: &str) -> Option<&str> {
    description.lines().map(str::trim).find(|line| line.starts_with("recast: run="))
}

/// The value of one field of a mark or provenance line.
pub fn field<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
}

/// The second line of a template's description.
pub fn template_line(schematic: &SchematicId, version: &Version, fingerprint: Sha256) -> String {
    format!("recast-template: talos={version} schematic={schematic} fingerprint={fingerprint}")
}

/// The second line of a template's description, if it has one.
pub fn find_template_line(description: &str) -> Option<&str> {
    description.lines().map(str::trim).find(|line| line.starts_with("recast-template: "))
}

/// The third line, once a canary cloned from it was found right. A template without it is used by the run that made it
/// and by no other: what a canary refused is never chosen again.
pub fn proved_line(run: &RunId) -> String {
    format!("recast-proved: run={run}")
}

/// Whether a template's description says that a canary was found right.
pub fn is_proved(description: &str) -> bool {
    description.lines().any(|line| line.trim().starts_with("recast-proved: run="))
}

/// The fingerprint in a template's description, if it has one.
pub fn find_fingerprint(description: &str) -> Option<Sha256> {
    field(find_template_line(description)?, "fingerprint")?.parse().ok()
}

/// What makes two templates interchangeable: the image in them and the hardware around it. Numbers, names,
/// descriptions and MACs are left out, since clones get their own.
pub fn fingerprint(schematic: &SchematicId, version: &Version, hardware: &Hardware) -> Sha256 {
    let mut text = format!("talos={version}\nschematic={schematic}\n");
    for (key, value) in hardware {
        if !matches!(key.as_str(), "description" | "name" | "scsi0") {
            text.push_str(key);
            text.push('=');
            text.push_str(value);
            text.push('\n');
        }
    }
    Sha256::of(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_found_among_other_notes() {
        let line = mark(&"2026-11-20T22-31-05".into(), &"template/pve1/create".into(), "lab");
        let description = format!("my notes\n{line}\nrecast-template: talos=1.13.9 schematic=ab fingerprint=zz\n");
        assert_eq!(find_mark(&description), Some(line.as_str()));
        assert_eq!(field(&line, "cluster"), Some("lab"));
        assert_eq!(field(&line, "step"), Some("template/pve1/create"));
        assert_eq!(find_fingerprint(&description), None, "a damaged fingerprint is none");
        assert_eq!(find_mark("recast is nice"), None);
    }

    #[test]
    fn a_fingerprint_changes_with_image_and_hardware_but_not_with_the_name() {
        let hardware: Hardware = [("bios".to_owned(), "ovmf".to_owned())].into();
        let print = |version: &str, hardware: &Hardware| fingerprint(&"ab".into(), &version.parse().unwrap(), hardware);
        let mut renamed = hardware.clone();
        renamed.insert("name".into(), "other".into());
        let mut seabios = hardware.clone();
        seabios.insert("bios".into(), "seabios".into());
        assert_eq!(print("1.13.9", &hardware), print("1.13.9", &renamed));
        assert_ne!(print("1.13.9", &hardware), print("1.13.9", &seabios));
        assert_ne!(print("1.13.9", &hardware), print("1.12.4", &hardware));
    }
}
