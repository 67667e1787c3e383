//! The file transfer of a node: what `sftp`, `scp` and Terraform's providers speak over SSH.
//!
//! Purpose: version 3 of the protocol, on the node's files as its commands see them. Must not know: who is logged in. Start
//! at [`Transfer::serve`].

mod packet;

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use self::packet::{Attributes, LONGEST, Reader, Status, Writer};
use super::shell::{Host, Streams};
use crate::world::node_files::{NodeFile, normal};

/// How many files and folders a client holds open.
const MOST: usize = 100;
/// The most bytes of one answer.
const CHUNK: u32 = 64 * 1024;
/// Entries of a folder that one answer holds.
const ENTRIES: usize = 100;

/// What an open order says of a file.
const WRITES: u32 = 2;
const APPENDS: u32 = 4;
const CREATES: u32 = 8;
const EMPTIES: u32 = 16;
const EXCLUDES: u32 = 32;

/// Something open.
enum Open {
    File {
        file: File,
        /// How it is called on the node.
        path: String,
        /// The byte that nothing may be written at or behind.
        limit: u64,
        appends: bool,
        written: bool,
        device: bool,
    },
    /// A text that no file holds.
    Text(String),
    /// The entries that weren't listed yet.
    Folder(Vec<(String, Attributes)>),
}

/// One client.
pub(super) struct Transfer {
    host: Host,
    open: BTreeMap<u32, Open>,
    next: u32,
}

impl Transfer {
    /// Answers until the client leaves, and says the exit code.
    pub(super) fn serve(host: Host, mut streams: Streams) -> u8 {
        let mut transfer = Self { host, open: BTreeMap::new(), next: 0 };
        let mut ended = Ok(());
        while let Ok(Some(packet)) = next(&mut streams) {
            ended = streams.output.write_all(&transfer.answer(&packet).finish());
            if ended.is_err() {
                break;
            }
        }
        // A file that was left open is as good as closed.
        for one in std::mem::take(&mut transfer.open).into_values() {
            transfer.close(one);
        }
        u8::from(ended.is_err())
    }

    fn answer(&mut self, packet: &[u8]) -> Writer {
        let mut order = Reader(packet);
        match order.byte() {
            Ok(1) => Writer::version(),
            Ok(kind) => match order.number() {
                Ok(id) => self.done(kind, id, &mut order).unwrap_or_else(|status| Writer::status(id, status)),
                Err(status) => Writer::status(0, status),
            },
            Err(status) => Writer::status(0, status),
        }
    }

    /// `Err`: the status that is the answer, also that it went well.
    fn done(&mut self, kind: u8, id: u32, order: &mut Reader<'_>) -> Result<Writer, Status> {
        match kind {
            3 => {
                let (path, flags, attributes) = (order.text()?, order.number()?, order.attributes()?);
                self.open_file(&path, flags, attributes).and_then(|open| self.keep(id, open))
            }
            4 => {
                let open = self.open.remove(&handle(order)?).ok_or(Status::Failure)?;
                self.close(open);
                Err(Status::Fine)
            }
            5 => {
                let (handle, at, length) = (handle(order)?, order.long()?, order.number()?);
                Ok(Writer::answer(103, id).bytes(&self.read(handle, at, length)?))
            }
            6 => {
                let (handle, at, bytes) = (handle(order)?, order.long()?, order.bytes()?);
                self.write(handle, at, bytes)
            }
            7 | 17 => Ok(Writer::answer(105, id).attributes(self.look(&order.text()?)?)),
            8 => Ok(Writer::answer(105, id).attributes(self.look_at_open(handle(order)?)?)),
            9 => {
                let (path, attributes) = (order.text()?, order.attributes()?);
                let file = OpenOptions::new().read(true).write(attributes.size.is_some()).open(self.real(&path)?)?;
                let limit = file.metadata()?.len().saturating_add(self.host.world.room_at(&self.host.node, &path));
                self.set(&file, &path, limit, attributes)
            }
            10 => {
                let (handle, attributes) = (handle(order)?, order.attributes()?);
                match self.open.get(&handle) {
                    Some(Open::File { file, path, limit, device: false, .. }) => {
                        self.set(file, path, *limit, attributes)
                    }
                    _ => Err(Status::Failure),
                }
            }
            11 => {
                let entries = self.entries(&order.text()?)?;
                self.keep(id, Open::Folder(entries))
            }
            12 => self.list(id, handle(order)?),
            13 => {
                let path = order.text()?;
                self.remove(&path, std::fs::remove_file)
            }
            14 => {
                let (path, _) = (order.text()?, order.attributes()?);
                std::fs::create_dir(self.real(&path)?)?;
                Err(Status::Fine)
            }
            15 => {
                let path = order.text()?;
                self.remove(&path, std::fs::remove_dir)
            }
            16 => {
                let path = normal(&order.text()?);
                Ok(Writer::answer(104, id).number(1).text(&path).text(&path).attributes(Attributes::default()))
            }
            18 => {
                let (from, to) = (order.text()?, order.text()?);
                if self.look(&to).is_ok() {
                    return Err(Status::Failure);
                }
                self.rename(&from, &to)
            }
            200 => match order.text()?.as_str() {
                "posix-rename@openssh.com" => {
                    let (from, to) = (order.text()?, order.text()?);
                    self.rename(&from, &to)
                }
                "fsync@openssh.com" => match self.open.get(&handle(order)?) {
                    Some(Open::File { file, .. }) => Err(file.sync_all().map_or_else(Status::from, |()| Status::Fine)),
                    _ => Err(Status::Failure),
                },
                _ => Err(Status::Unsupported),
            },
            _ => Err(Status::Unsupported),
        }
    }

    fn keep(&mut self, id: u32, open: Open) -> Result<Writer, Status> {
        if self.open.len() >= MOST {
            return Err(Status::Failure);
        }
        self.next = self.next.wrapping_add(1);
        self.open.insert(self.next, open);
        Ok(Writer::answer(102, id).bytes(&self.next.to_be_bytes()))
    }

    /// The real file that a path means, where it is one that may be changed.
    fn real(&self, path: &str) -> Result<PathBuf, Status> {
        match self.host.world.node_file(&self.host.node, path) {
            Some(NodeFile::File { real, .. }) => Ok(real),
            Some(_) => Err(Status::Denied),
            None if self.is_above(path) => Err(Status::Failure),
            None => Err(Status::Missing),
        }
    }

    /// Folders that only lead to others: `/`, `/var`, `/var/lib`.
    fn is_above(&self, path: &str) -> bool {
        let path = normal(path);
        let below = format!("{}/", path.trim_end_matches('/'));
        self.host.world.folders(&self.host.node).iter().any(|folder| folder.starts_with(&below))
    }

    fn look(&self, path: &str) -> Result<Attributes, Status> {
        match self.host.world.node_file(&self.host.node, path) {
            Some(NodeFile::File { real, .. }) => Ok(described(&std::fs::metadata(real)?)),
            Some(NodeFile::Text(text)) => {
                Ok(Attributes { size: Some(text.len() as u64), mode: Some(0o100_640), times: None })
            }
            Some(NodeFile::Device { .. }) => Ok(Attributes { size: Some(0), mode: Some(0o060_660), times: None }),
            Some(_) => Ok(Attributes { size: Some(0), mode: Some(0o020_666), times: None }),
            None if self.is_above(path) => Ok(Attributes { size: Some(4096), mode: Some(0o040_755), times: None }),
            None => Err(Status::Missing),
        }
    }

    fn look_at_open(&self, handle: u32) -> Result<Attributes, Status> {
        match self.open.get(&handle) {
            Some(Open::File { file, .. }) => Ok(described(&file.metadata()?)),
            Some(Open::Text(text)) => {
                Ok(Attributes { size: Some(text.len() as u64), mode: Some(0o100_640), times: None })
            }
            _ => Err(Status::Failure),
        }
    }

    fn open_file(&self, path: &str, flags: u32, attributes: Attributes) -> Result<Open, Status> {
        let writes = flags & WRITES > 0;
        let (real, room, device) = match self.host.world.node_file(&self.host.node, path) {
            Some(NodeFile::File { real }) => {
                let room = if writes { self.host.world.room_at(&self.host.node, path) } else { 0 };
                (real, room, false)
            }
            Some(NodeFile::Device { real, size }) => (real, size, true),
            Some(NodeFile::Text(text)) if !writes => return Ok(Open::Text(text)),
            Some(_) => return Err(Status::Denied),
            None if writes => return Err(Status::Denied),
            None => return Err(Status::Missing),
        };
        let empties = writes && !device && flags & EMPTIES > 0;
        if writes {
            self.host.world.tell_of_file(&self.host.node, path, "overwrite");
        }
        let existed = real.exists();
        let held = std::fs::metadata(&real).map_or(0, |meta| if empties { 0 } else { meta.len() });
        let file = OpenOptions::new()
            .read(!writes || flags & 1 > 0)
            .write(writes)
            .create(writes && !device && flags & CREATES > 0)
            .create_new(writes && !device && flags & EXCLUDES > 0)
            .truncate(empties)
            .open(&real)?;
        if !existed && let Some(mode) = attributes.mode {
            protect(&file, mode)?;
        }
        if file.metadata()?.is_dir() {
            return Err(Status::Failure);
        }
        let limit = if device { room } else { held.saturating_add(room) };
        Ok(Open::File { file, path: path.to_owned(), limit, appends: flags & APPENDS > 0, written: writes, device })
    }

    fn read(&self, handle: u32, at: u64, length: u32) -> Result<Vec<u8>, Status> {
        let mut bytes = vec![0; length.min(CHUNK) as usize];
        let read = match self.open.get(&handle) {
            Some(Open::File { file, .. }) => file.read_at(&mut bytes, at)?,
            Some(Open::Text(text)) => {
                let rest = usize::try_from(at).ok().and_then(|at| text.as_bytes().get(at..)).unwrap_or_default();
                let taken = rest.len().min(bytes.len());
                bytes[..taken].copy_from_slice(&rest[..taken]);
                taken
            }
            _ => return Err(Status::Failure),
        };
        if read == 0 && length > 0 {
            return Err(Status::End);
        }
        bytes.truncate(read);
        Ok(bytes)
    }

    fn write(&self, handle: u32, at: u64, bytes: &[u8]) -> Result<Writer, Status> {
        let Some(Open::File { file, limit, appends, written: true, .. }) = self.open.get(&handle) else {
            return Err(Status::Failure);
        };
        let at = if *appends { file.metadata()?.len() } else { at };
        if at.saturating_add(bytes.len() as u64) > *limit {
            return Err(Status::Failure);
        }
        file.write_all_at(bytes, at)?;
        Err(Status::Fine)
    }

    fn close(&self, open: Open) {
        if let Open::File { file, path, written: true, .. } = open {
            drop(file);
            self.host.world.notice_file(&self.host.node, &path);
        }
    }

    fn entries(&self, path: &str) -> Result<Vec<(String, Attributes)>, Status> {
        if !self.look(path)?.is_folder() {
            return Err(Status::Failure);
        }
        let place = normal(path);
        let base = place.trim_end_matches('/');
        let mut names: std::collections::BTreeSet<String> = std::collections::BTreeSet::new();
        if let Some(NodeFile::File { real, .. }) = self.host.world.node_file(&self.host.node, path) {
            for entry in std::fs::read_dir(real)?.flatten() {
                names.insert(entry.file_name().to_string_lossy().into_owned());
            }
        }
        for folder in self.host.world.folders(&self.host.node) {
            let next = folder.strip_prefix(&format!("{base}/")).and_then(|rest| rest.split('/').next());
            names.extend(next.map(str::to_owned));
        }
        let look = |name: String| self.look(&format!("{base}/{name}")).ok().map(|attributes| (name, attributes));
        let this = Attributes { size: Some(4096), mode: Some(0o040_755), times: None };
        let own = [".", ".."].map(|name| (name.to_owned(), this));
        Ok(own.into_iter().chain(names.into_iter().filter_map(look)).collect())
    }

    fn list(&mut self, id: u32, handle: u32) -> Result<Writer, Status> {
        let Some(Open::Folder(left)) = self.open.get_mut(&handle) else { return Err(Status::Failure) };
        if left.is_empty() {
            return Err(Status::End);
        }
        let some: Vec<_> = left.drain(..left.len().min(ENTRIES)).collect();
        let answer = Writer::answer(104, id).number(u32::try_from(some.len()).unwrap_or(0));
        Ok(some.into_iter().fold(answer, |answer, (name, attributes)| {
            let kind = if attributes.is_folder() { "drwxr-xr-x" } else { "-rw-r--r--" };
            let long = format!("{kind}    1 root     root     {:>8} {name}", attributes.size.unwrap_or(0));
            answer.text(&name).text(&long).attributes(attributes)
        }))
    }

    fn remove(&self, path: &str, how: fn(PathBuf) -> io::Result<()>) -> Result<Writer, Status> {
        let real = self.real(path)?;
        self.host.world.tell_of_file(&self.host.node, path, "remove-file");
        how(real)?;
        self.host.world.notice_file(&self.host.node, path);
        Err(Status::Fine)
    }

    fn rename(&self, from: &str, to: &str) -> Result<Writer, Status> {
        std::fs::rename(self.real(from)?, self.real(to)?)?;
        self.host.world.moved_file(&self.host.node, from, to);
        Err(Status::Fine)
    }

    /// Sets what an order names; a file gets no longer than its limit.
    fn set(&self, file: &File, path: &str, limit: u64, attributes: Attributes) -> Result<Writer, Status> {
        if let Some(size) = attributes.size {
            if size > limit {
                return Err(Status::Failure);
            }
            self.host.world.tell_of_file(&self.host.node, path, "overwrite");
            file.set_len(size)?;
            self.host.world.notice_file(&self.host.node, path);
        }
        if let Some(mode) = attributes.mode {
            protect(file, mode)?;
        }
        if let Some((_, written)) = attributes.times {
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(written.into()))?;
        }
        Err(Status::Fine)
    }
}

/// The next packet without its length; `None`: there is none any more.
fn next(streams: &mut Streams) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    if streams.input.read(&mut length[..1])? == 0 {
        return Ok(None);
    }
    streams.input.read_exact(&mut length[1..])?;
    let length = u32::from_be_bytes(length) as usize;
    if length > LONGEST {
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    }
    let mut packet = vec![0; length];
    streams.input.read_exact(&mut packet)?;
    Ok(Some(packet))
}

fn handle(order: &mut Reader<'_>) -> Result<u32, Status> {
    order.bytes()?.try_into().map(u32::from_be_bytes).map_err(|_| Status::Failure)
}

fn described(meta: &std::fs::Metadata) -> Attributes {
    let seconds = |time: i64| u32::try_from(time).unwrap_or(0);
    let times = Some((seconds(meta.atime()), seconds(meta.mtime())));
    Attributes { size: Some(meta.len()), mode: Some(meta.mode()), times }
}

/// Sets the permissions that an order names. Whoever runs this has to get at the file again.
fn protect(file: &File, mode: u32) -> io::Result<()> {
    let owner = if file.metadata()?.is_dir() { 0o700 } else { 0o600 };
    file.set_permissions(std::fs::Permissions::from_mode((mode & 0o777) | owner))
}
