//! The HA manager's resources: what it is told to do with a VM. Changes need `Sys.Console` on `/`.
//!
//! The manager acts in rounds of about ten seconds (Proxmox VE 8.4, PVE/HA/Manager.pm): an answer here means "told".

use serde::de::IgnoredAny;

use super::client::Pve;
use super::encode::{Form, path};
use super::error::PveError;
use super::node::HaResource;
use crate::types::VmId;

/// What the manager shall do with a VM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HaOrder {
    /// Requested state: `started`, `stopped`, `disabled`, `ignored`.
    pub state: String,
    /// Its group, before PVE 9.
    pub group: Option<String>,
    /// Restarts on a node before it is moved.
    pub max_restart: Option<u64>,
    /// Moves before it is given up.
    pub max_relocate: Option<u64>,
    /// A person's note.
    pub comment: Option<String>,
}

impl Pve {
    /// The resource of one VM, if it has one. Needs `Sys.Audit` on `/`.
    pub async fn ha_resource(&self, vmid: VmId) -> Result<Option<HaResource>, PveError> {
        Ok(self.ha_resources().await?.into_iter().find(|resource| resource.vmid() == Some(vmid)))
    }

    /// Puts a VM under the manager's care. Refused when it is already.
    pub async fn add_ha(&self, vmid: VmId, order: &HaOrder) -> Result<(), PveError> {
        let form = Form::new()
            .with("sid", format!("vm:{vmid}"))
            .with("state", &order.state)
            .with_some("group", order.group.as_deref())
            .with_some("max_restart", order.max_restart)
            .with_some("max_relocate", order.max_relocate)
            .with_some("comment", order.comment.as_deref());
        self.post::<Option<IgnoredAny>>("/cluster/ha/resources", &form).await.map(drop)
    }

    /// Changes what is requested of a VM: `started`, `stopped`, `disabled`, `ignored`. Needs `Sys.Console` on `/`.
    pub async fn set_ha_state(&self, vmid: VmId, state: &str) -> Result<(), PveError> {
        self.put(&resource(vmid), &Form::new().with("state", state)).await
    }

    /// Takes a VM out of the manager's care; it goes on running, or not, as it is.
    pub async fn remove_ha(&self, vmid: VmId) -> Result<(), PveError> {
        self.delete::<Option<IgnoredAny>>(&resource(vmid), &Form::new()).await.map(drop)
    }
}

fn resource(vmid: VmId) -> String {
    path(&["cluster", "ha", "resources", &format!("vm:{vmid}")])
}
