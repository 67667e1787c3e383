//! `…/rrd`: statistics as a picture.
//!
//! Which sources there are, and what is refused, as in the original (pve-cluster 8, PVE/RRD.pm, `create_rrd_graph`); the
//! picture has its size and shows nothing.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use serde_json::json;

use crate::pve::call::{Call, Result};
use crate::world::PveVersion;
use crate::world::history::Subject;
use crate::world::refusal::Refusal;

const NODE: &[&str] = &[
    "loadavg",
    "maxcpu",
    "cpu",
    "iowait",
    "memtotal",
    "memused",
    "swaptotal",
    "swapused",
    "roottotal",
    "rootused",
    "netin",
    "netout",
];
const VM: &[&str] = &["maxcpu", "cpu", "maxmem", "mem", "maxdisk", "disk", "netin", "netout", "diskread", "diskwrite"];
const STORAGE: &[&str] = &["total", "used"];
/// Colours that lines can have: as many as there may be lines.
const COLOURS: usize = 2;
const WIDTH: u32 = 800;
const HEIGHT: u32 = 200;

/// `GET N/rrd`
pub(in crate::pve) fn of_node(call: &Call) -> Result {
    drawn(call, &Subject::Node(call.node()), ("node", NODE), &call.node())
}

/// `GET Q/rrd`
pub(in crate::pve) fn of_vm(call: &Call) -> Result {
    drawn(call, &Subject::Vm(call.vmid()), ("vm", VM), &call.vmid().to_string())
}

/// `GET N/storage/{storage}/rrd`
pub(in crate::pve) fn of_storage(call: &Call) -> Result {
    let (node, storage) = (call.node(), call.text("storage"));
    drawn(call, &Subject::Storage(node.clone(), storage.to_owned()), ("storage", STORAGE), &format!("{node}/{storage}"))
}

fn drawn(call: &Call, subject: &Subject, (kind, sources): (&str, &[&str]), name: &str) -> Result {
    let folder = match call.world.state().pve {
        PveVersion::V8 => format!("pve2-{kind}"),
        PveVersion::V9 => format!("pve-{kind}-9.0"),
    };
    let file = format!("/var/lib/rrdcached/db/{folder}/{name}");
    let wanted = call.params.list("ds");
    let failed = |text: String| Err(Refusal::failed(text));
    if wanted.len() > COLOURS {
        return failed("fixme: no color definition at /usr/share/perl5/PVE/RRD.pm line 118.\n".to_owned());
    }
    if !call.world.has_history(subject) {
        return failed(format!("RRD error: opening '{file}': No such file or directory\n"));
    }
    if let Some(unknown) = wanted.iter().find(|name| !sources.contains(&name.as_str())) {
        return failed(format!("RRD error: No DS called '{unknown}' in '{file}'\n"));
    }
    // A byte is a letter in what comes back.
    let image: String = picture().into_iter().map(char::from).collect();
    Ok(json!({"filename": format!("{file}_{}.png", wanted.join("_")), "image": image}).into())
}

/// One part of a picture: its length, name, content and sum.
fn part(name: &[u8], content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap_or(u32::MAX);
    let named = [name, content].concat();
    let mut sum = flate2::Crc::new();
    sum.update(&named);
    [&length.to_be_bytes()[..], &named, &sum.sum().to_be_bytes()].concat()
}

/// A white picture, one bit to a dot.
fn picture() -> Vec<u8> {
    let size = [WIDTH.to_be_bytes(), HEIGHT.to_be_bytes()].concat();
    let line = [&[0_u8][..], &[0xff; WIDTH as usize / 8]].concat();
    let mut packed = ZlibEncoder::new(Vec::new(), Compression::best());
    // Packing into memory can't fail.
    let _ = packed.write_all(&line.repeat(HEIGHT as usize));
    let content = packed.finish().unwrap_or_default();
    let head = [&size[..], &[1, 0, 0, 0, 0]].concat();
    [&b"\x89PNG\r\n\x1a\n"[..], &part(b"IHDR", &head), &part(b"IDAT", &content), &part(b"IEND", &[])].concat()
}
