//! Whether a node can fetch an image from the factory itself: the right to, and the way there.

use crate::pve::Pve;
use crate::types::NodeName;

/// What speaks against it; none when nothing does. The node itself asks for the file's head.
pub async fn look(pve: &Pve, node: &NodeName, url: &str) -> Option<String> {
    match may_fetch(pve, node).await {
        Ok(true) => {}
        Ok(false) => return Some(format!("the credentials lack Sys.AccessNetwork on /nodes/{node}")),
        Err(error) => return Some(why(&error)),
    }
    pve.url_metadata(node, url).await.err().map(|error| why(&error))
}

/// Since Proxmox VE 8.2 a privilege of its own; before, and still, those of an administrator
/// (PVE/API2/Storage/Status.pm, `download_url`).
async fn may_fetch(pve: &Pve, node: &NodeName) -> Result<bool, crate::pve::PveError> {
    if pve.rights(&format!("/nodes/{node}")).await?.has("Sys.AccessNetwork") {
        return Ok(true);
    }
    let root = pve.rights("/").await?;
    Ok(root.has("Sys.Audit") && root.has("Sys.Modify"))
}

fn why(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
