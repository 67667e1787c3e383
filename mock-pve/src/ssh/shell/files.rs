//! Files of a node, opened.
//!
//! Purpose: what a redirection or a command reads from and writes to: files, devices and the standard descriptors, with the
//! words of the system where it can't. Must not know: words, commands. Start at [`read`] and [`write`].

use std::fs::OpenOptions;
use std::io::{Seek as _, SeekFrom};
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::{Host, Streams};
use crate::ssh::pipe::{Input, Limited, Output, words};
use crate::world::node_files::NodeFile;

/// How a file is opened for writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ssh) enum Opened {
    /// Emptied, unless it is a device.
    Emptied,
    /// At its end.
    Append,
    /// As it is, at that offset.
    At(u64),
    /// Emptied but for the bytes before that offset.
    CutAt(u64),
}

/// Opens a path of the node for reading.
pub(in crate::ssh) fn read(host: &Host, path: &str) -> Result<Input, &'static str> {
    let open = |real: &Path| match std::fs::File::open(real) {
        Ok(file) if file.metadata().is_ok_and(|meta| meta.is_dir()) => Err("Is a directory"),
        Ok(file) => Ok(Input::File(Arc::new(file))),
        Err(error) => Err(words(&error)),
    };
    match host.world.node_file(&host.node, path) {
        None => Err("No such file or directory"),
        Some(NodeFile::Null | NodeFile::Stdin | NodeFile::Stdout | NodeFile::Stderr) => Ok(Input::Empty),
        Some(NodeFile::Zero) => Ok(Input::Zeros(host.visit.clone())),
        Some(NodeFile::Text(text)) => Ok(Input::text(text)),
        Some(NodeFile::Device { real, .. } | NodeFile::File { real, .. }) => open(&real),
    }
}

/// Opens a path of the node for writing.
pub(in crate::ssh) fn write(host: &Host, path: &str, how: Opened, streams: &Streams) -> Result<Output, &'static str> {
    let (real, left, device) = match host.world.node_file(&host.node, path) {
        None | Some(NodeFile::Text(_) | NodeFile::Stdin) => return Err("Permission denied"),
        Some(NodeFile::Null | NodeFile::Zero) => return Ok(Output::Null),
        Some(NodeFile::Stdout) => return Ok(streams.output.clone()),
        Some(NodeFile::Stderr) => return Ok(streams.error.clone()),
        Some(NodeFile::Device { real, size }) => (real, size, true),
        Some(NodeFile::File { real }) => (real, host.world.room_at(&host.node, path), false),
    };
    host.world.tell_of_file(&host.node, path, "overwrite");
    let opened = (|| {
        let mut file = OpenOptions::new().write(true).create(!device).truncate(false).open(&real)?;
        if !device {
            match how {
                Opened::Emptied => file.set_len(0)?,
                Opened::CutAt(at) => file.set_len(at)?,
                Opened::Append | Opened::At(_) => {}
            }
        }
        let at = match how {
            Opened::Emptied => 0,
            Opened::Append if device => 0,
            Opened::Append => file.seek(SeekFrom::End(0))?,
            Opened::At(at) | Opened::CutAt(at) => file.seek(SeekFrom::Start(at))?,
        };
        Ok((file, at))
    })();
    match opened {
        Ok((file, at)) => {
            let left = if device { left.saturating_sub(at) } else { left };
            Ok(Output::File(Arc::new(Mutex::new(Limited { file, left }))))
        }
        Err(error) => Err(words(&error)),
    }
}
