//! A copy of a snapshot elsewhere, read back from there.

use std::path::Path;
use std::time::Duration;

use crate::backup::Target;
use crate::backup::copy::{self, CopyError, Counts, Local};
use crate::command::{Command, Program};
use crate::engine::{Class, StepCx, StepError};
use crate::plan::data::CopyTo;
use crate::plan::{Data, Output};
use crate::steps::World;
use crate::steps::classify::{by_ssh, refused, wrong};
use crate::types::StepId;

impl World {
    pub(in crate::steps) async fn copy_snapshot(
        &self,
        snapshot: &StepId,
        to: &CopyTo,
        cx: &StepCx<'_>,
    ) -> Result<Output, StepError> {
        let doing = format!("copy the snapshot to {to}");
        let Some(Output::Snapshot { file, .. }) = cx.output_of(snapshot) else {
            return Err(wrong(doing, format!("{snapshot} has saved nothing")));
        };
        if self.commands.are_recorded() && !matches!(to, CopyTo::Path(_)) {
            return self.record_copy(&doing, to, cx).await;
        }
        let target = match to.clone() {
            CopyTo::Path(path) => Target::Path(path),
            CopyTo::Ssh { host, path } => Target::Ssh { host, path },
            CopyTo::Command { save, read } => Target::Command { save, read },
        };
        let folder = self.files.profile.parent().filter(|folder| !folder.as_os_str().is_empty());
        let local = Local::new(folder.unwrap_or(Path::new("."))).of(file);
        let remote = match &target {
            Target::Ssh { host, .. } => {
                let opened = self.shells.host(&self.connector, host).await;
                Some(opened.map_err(|error| by_ssh(&doing, error))?)
            }
            _ => None,
        };
        let way = copy::Way { devices: self.devices, local: &local, remote: remote.as_ref() };
        let copied = copy::copy(file, &target, way).await.map_err(|error| by_copy(&doing, error))?;
        let required = matches!(&self.plan.data, Data::Keep(keep) if keep.require_copy);
        match copied.counts {
            Counts::Yes => {}
            Counts::SameDevice => {
                return Err(refused(doing, format!("{} lies on the same device as the snapshot", copied.place))
                    .hinted("one disk fails once: name a folder on another disk in backup.copies"));
            }
            Counts::NotReadBack if required => {
                return Err(refused(doing, "it can't be read back, and guards.require_copy wants a copy that was")
                    .hinted("give the copy a `read` command"));
            }
            Counts::NotReadBack => cx.notice(format!("{to} can't be read back: it doesn't count as a second copy")),
        }
        Ok(Output::Copy { place: copied.place })
    }

    /// A rehearsal reaches nobody's shell: what would be run is written down.
    async fn record_copy(&self, doing: &str, to: &CopyTo, cx: &StepCx<'_>) -> Result<Output, StepError> {
        let command = Command {
            what: doing.to_owned(),
            program: Program::Shell(to.to_string()),
            folder: None,
            env: Vec::new(),
            stdin: None,
            within: Duration::from_secs(1),
        };
        let recorded = self.commands.run(&command, cx.cancelled()).await;
        recorded.map_err(|error| StepError::new(Class::Permanent, doing, error))?;
        Ok(Output::Copy { place: format!("{to} (recorded, not made)") })
    }
}

fn by_copy(doing: &str, error: CopyError) -> StepError {
    let class = match &error {
        // The proof of backup includes its second copy: without it nothing goes on.
        CopyError::Differs { .. } | CopyError::Failed { .. } => Class::Refused,
        CopyError::Shell { .. } => Class::Transient,
        _ => Class::Permanent,
    };
    let hints = error.hints();
    hints.into_iter().fold(StepError::new(class, doing, error), StepError::hinted)
}
