//! The log of requests: JSON lines, as they are answered.
//!
//! Must not know: what was asked. Start at [`keep`].

use std::path::PathBuf;

use tokio::fs::File;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;

use crate::world::script::Answered;

/// Appends every record to all files, until nobody answers any more.
pub(super) async fn keep(paths: Vec<PathBuf>, mut coming: mpsc::UnboundedReceiver<Answered>) {
    let mut files: Vec<File> = Vec::new();
    for path in paths {
        let mut options = tokio::fs::OpenOptions::new();
        match options.create(true).append(true).mode(0o600).open(&path).await {
            Ok(file) => files.push(file),
            Err(error) => tracing::warn!(path = %path.display(), %error, "the request log can't be written"),
        }
    }
    let mut records = Vec::new();
    while coming.recv_many(&mut records, 256).await > 0 {
        let mut lines = String::new();
        for record in records.drain(..) {
            lines.push_str(&serde_json::to_string(&record).unwrap_or_default());
            lines.push('\n');
        }
        for file in &mut files {
            // A full disk must not stop the answers.
            let _ = file.write_all(lines.as_bytes()).await;
            let _ = file.flush().await;
        }
    }
}
