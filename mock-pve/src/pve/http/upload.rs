//! Files that come up.
//!
//! Purpose: who may send one, what a request with one has to look like, and where it is kept until the method takes it.
//! Must not know: storages. Start at [`Api::upload`].

use std::path::Path;
use std::sync::atomic::Ordering;

use hyper::body::Incoming;

use super::super::auth::Means;
use super::super::body::{drain, media_type};
use super::super::multipart::{Upload, UploadError, boundary, target_name};
use super::super::params::{Value as Given, decode_form};
use super::super::permission;
use super::super::reply::{Format, Reply, run};
use super::super::route::Found;
use super::coming::Coming;
use super::refusals::no_formatter;
use super::{Api, IDLE};
use crate::world::rights::Caller;

impl Api {
    /// Rights come first here: before anything of a file is read.
    pub(super) fn may_upload(&self, coming: &Coming, found: &Found, caller: &Caller) -> Result<(), Reply> {
        let Some(method) = self.0.schema.method("POST", &found.pattern) else { return Err(Reply::empty(501, "")) };
        let mut params = decode_form(&coming.query);
        for (name, value) in &found.captured {
            params.0.insert(name.clone(), Given::Text(value.clone()));
        }
        let allowed = permission::check(&self.0.world.state(), caller, &method.perm, &params);
        allowed.map_err(|refusal| Reply::empty(403, &refusal.to_string()))
    }

    /// Takes a file in, then runs the method with it.
    pub(super) async fn upload(
        &self,
        coming: &mut Coming,
        (path, known, format): (&str, Option<Format>, &str),
        found: Found,
        who: (Caller, Means),
        mut body: Incoming,
    ) -> Reply {
        coming.goes_on = false;
        let mut params = decode_form(&coming.query);
        let content_type = coming.content_type();
        let is_form = media_type(&content_type) == "multipart/form-data";
        let Some(boundary) = boundary(&content_type).filter(|_| is_form && !params.0.contains_key("tmpfilename"))
        else {
            // The original gives up on such a request without a word, and the connection ends when nothing happens on
            // it.
            drain(body).await;
            self.0.world.clock().sleep(IDLE.as_secs_f64()).await;
            return Reply::nothing();
        };
        let number = self.0.uploads.fetch_add(1, Ordering::Relaxed);
        let folder = self.0.world.dir().join("uploads");
        // Every node has a counter of its own, and all share the folder.
        let file = folder.join(format!("pveupload-{}-{}-{number}", self.0.local, std::process::id()));
        if let Err(error) = std::fs::create_dir_all(&folder) {
            return Reply::text(500, &format!("{error}\n"));
        }
        let upload = match take_in(&mut body, boundary, &file).await {
            Ok(upload) => upload,
            Err(reply) => {
                // What came so far is of no use.
                let _ = std::fs::remove_file(&file);
                if !reply.is_nothing() {
                    drain(body).await;
                }
                return reply;
            }
        };
        let changed = std::mem::take(&mut coming.corrupt);
        if changed > 0
            && let Err(error) = spoil(&file, upload.size, changed)
        {
            tracing::warn!(%error, "an upload can't be changed on its way");
        }
        // What is in the body counts more than the same in the query string.
        params.0.extend(upload.fields.iter().map(|(name, value)| (name.clone(), Given::Text(value.clone()))));
        if known.is_none() {
            // Nobody will come for it.
            let _ = std::fs::remove_file(&file);
            return no_formatter(path, format);
        }
        let random = u128::from(number) | u128::from(std::process::id()) << 64;
        params.0.insert("filename".to_owned(), Given::Text(target_name(&upload.filename)));
        params.0.insert("tmpfilename".to_owned(), Given::Text(format!("/var/tmp/pveupload-{random:032x}")));
        coming.keys = params.0.keys().cloned().collect();
        let (mut call, handler) = match self.admit("POST", path, found, params, who) {
            Ok(admitted) => admitted,
            Err(reply) => {
                // Nobody will come for it.
                let _ = std::fs::remove_file(&file);
                return reply;
            }
        };
        call.upload = Some(upload);
        run(handler, call).await
    }
}

/// Reads the body of an upload.
async fn take_in(body: &mut Incoming, boundary: &str, file: &Path) -> Result<Upload, Reply> {
    Upload::read(body, boundary, file).await.map_err(|error| match error {
        UploadError::Silent => Reply::nothing(),
        UploadError::Broken(text) => Reply::text(500, &text),
        UploadError::Field => Reply::empty(400, "Bad Request"),
        UploadError::Io(error) => Reply::text(500, &format!("{error}\n")),
    })
}

/// Changes bytes in the middle of a file that came.
fn spoil(path: &Path, size: u64, bytes: u64) -> std::io::Result<()> {
    use std::os::unix::fs::FileExt as _;
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path)?;
    let count = usize::try_from(bytes.min(size)).unwrap_or_default();
    let at = (size - count as u64) / 2;
    let mut piece = vec![0; count];
    file.read_exact_at(&mut piece, at)?;
    for byte in &mut piece {
        *byte ^= 0xA5;
    }
    file.write_all_at(&piece, at)
}
