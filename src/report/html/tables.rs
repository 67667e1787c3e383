//! The page's tables: machines, proofs of backup, VMs made and gone.

use std::fmt::Write as _;

use super::super::document::{Backup, VmRef, Work};
use super::super::sheet::{Sheet, VmRow};
use super::super::text;
use super::escaped;
use crate::plan::PlannedVm;

/// A table with a caption, in a box that scrolls where the page is narrow.
struct Table<'a> {
    id: &'a str,
    title: &'a str,
    /// Column titles; those of numbers end with a `#`.
    heads: &'a [&'a str],
}

impl Table<'_> {
    /// `rows` are cells of HTML; the first cell names its row.
    fn write(&self, rows: &[Vec<String>], out: &mut String) {
        let Self { id, title, heads } = self;
        let _ = writeln!(
            out,
            "<section aria-labelledby=\"{id}\">\n<h2 id=\"{id}\">{title}</h2>\n\
             <div class=\"scroll\" role=\"region\" aria-labelledby=\"{id}\" tabindex=\"0\">\n<table>\n<thead><tr>"
        );
        let number = |index: usize| heads.get(index).is_some_and(|head| head.ends_with('#'));
        let class = |index: usize| if number(index) { " class=\"number\"" } else { "" };
        for (index, head) in heads.iter().enumerate() {
            let _ = write!(out, "<th scope=\"col\"{}>{}</th>", class(index), head.trim_end_matches('#'));
        }
        out.push_str("</tr></thead>\n<tbody>\n");
        for row in rows {
            out.push_str("<tr>");
            for (index, cell) in row.iter().enumerate() {
                let _ = match index {
                    0 => write!(out, "<th scope=\"row\">{cell}</th>"),
                    _ => write!(out, "<td{}>{cell}</td>", class(index)),
                };
            }
            out.push_str("</tr>\n");
        }
        out.push_str("</tbody>\n</table>\n</div>\n</section>\n");
    }
}

/// Old VMs and new ones.
pub(super) fn machines(sheet: &Sheet<'_>, out: &mut String) {
    if sheet.vms.is_empty() {
        return;
    }
    let heads = ["Name", "Role", "Address", "Old VM", "New VM", "Cores#", "Memory#", "Disk#", "MAC"];
    let rows: Vec<Vec<String>> = sheet.vms.iter().map(|row| machine(*row)).collect();
    Table { id: "machines", title: "Machines", heads: &heads }.write(&rows, out);
}

fn machine(row: VmRow<'_>) -> Vec<String> {
    let new = |of: fn(&PlannedVm) -> String| row.new.map_or_else(none, |vm| escaped(&of(vm)));
    let name = row.new.map(|vm| vm.name.as_str()).or_else(|| row.old.map(|vm| vm.name.as_str()));
    let on = |vmid: String, node: &str| format!("{vmid} <span class=\"on\">on {}</span>", escaped(node));
    vec![
        escaped(name.unwrap_or_default()),
        new(|vm| vm.role.to_string()),
        new(|vm| vm.address.map_or_else(|| "discovered".to_owned(), |address| address.to_string())),
        row.old.map_or_else(none, |vm| on(vm.vmid.to_string(), vm.node.as_str())),
        row.new.map_or_else(none, |vm| on(vm.vmid.to_string(), vm.node.as_str())),
        new(|vm| vm.cores.to_string()),
        new(|vm| text::bytes(vm.memory_mb << 20)),
        new(|vm| format!("{} GiB", vm.disk_gib)),
        row.new.and_then(|vm| vm.mac).map_or_else(none, |mac| format!("<code>{mac}</code>")),
    ]
}

/// The proofs of backup.
pub(super) fn backups(work: &Work, out: &mut String) {
    let mut rows: Vec<Vec<String>> = work
        .backups
        .iter()
        .map(|proven| {
            let taken = proven.taken.strftime("%Y-%m-%d %H:%M:%S UTC");
            let what =
                format!("{} <span class=\"on\">{taken}, from {}</span>", proven.purpose, escaped(&proven.machine));
            backup(what, Some(proven.bytes), &proven.backup)
        })
        .collect();
    if rows.is_empty() {
        rows.extend(work.backup.as_ref().map(|only| backup("snapshot".to_owned(), None, only)));
    }
    if rows.is_empty() {
        return;
    }
    let heads = ["Snapshot", "Revision#", "Keys#", "Size#", "SHA-256", "After it", "Lies in"];
    let title = if rows.len() == 1 { "Proof of backup" } else { "Proofs of backup" };
    Table { id: "backups", title, heads: &heads }.write(&rows, out);
}

fn backup(what: String, bytes: Option<u64>, backup: &Backup) -> Vec<String> {
    let copies: Vec<String> = backup.copies.iter().map(|copy| format!("<code>{}</code>", escaped(copy))).collect();
    let after = if backup.frozen { "nothing was written: quorum was gone" } else { "writes went on" };
    vec![
        what,
        backup.revision.to_string(),
        backup.keys.to_string(),
        bytes.map_or_else(none, text::bytes),
        format!("<code class=\"digest\">{}</code>", backup.sha256),
        after.to_owned(),
        copies.join("<br/>"),
    ]
}

fn none() -> String {
    "<span class=\"none\">–</span>".to_owned()
}

/// What was made and what is gone.
pub(super) fn guests(work: &Work, out: &mut String) {
    let lists = [("created", &work.created), ("destroyed", &work.destroyed), ("parked", &work.parked)];
    let rows: Vec<Vec<String>> =
        lists.iter().flat_map(|(what, vms)| vms.iter().map(move |vm| guest(what, vm))).collect();
    if rows.is_empty() {
        return;
    }
    let heads = ["VM", "Name", "Kind", "Node", "This run"];
    Table { id: "guests", title: "Made and gone", heads: &heads }.write(&rows, out);
}

fn guest(what: &str, vm: &VmRef) -> Vec<String> {
    vec![
        vm.vmid.to_string(),
        escaped(&vm.name),
        if vm.template { "template" } else { "VM" }.to_owned(),
        escaped(vm.node.as_str()),
        what.to_owned(),
    ]
}
