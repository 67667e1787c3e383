//! Steps that bring the image straight into a volume on a node: allocate, stream, free.
//!
//! The volume's name holds the run's id (`vm-101-recast-<run>`; Proxmox VE only asks that it begins with `vm-101-`,
//! PVE/Storage/*Plugin.pm, `alloc_image`), so that whoever finds it knows whose it is, and nothing else is ever written to
//! or freed.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::World;
use super::classify::{by_pve, refused, wrong};
use super::shell::as_root;
use crate::engine::{Counter, Seen, StepCx, StepError};
use crate::image::{self, Content, Destination, ExtentStream, Settled, Stored, receiver};
use crate::net::Silent;
use crate::plan::check::size;
use crate::plan::step::{NodeVolume, Unwritten};
use crate::plan::{Output, Step};
use crate::pve::vm::VmRef;
use crate::ssh::{Collected, Done, Ssh, SshError, word};
use crate::types::StepId;

/// How often it is told how far the receiver is.
const TELL: Duration = Duration::from_millis(200);

/// `pvesm list` prints a heading, then id, format, content type, size in bytes and owner of each volume.
fn size_in(list: &str, volume: &NodeVolume) -> Option<u64> {
    let line = list.lines().find(|line| line.split_whitespace().next() == Some(volume.volume.as_str()))?;
    // A size that can't be read is none that fits.
    Some(line.split_whitespace().nth(3).and_then(|size| size.parse().ok()).unwrap_or(0))
}

/// A receiver's run with what is told of it.
struct Told<'a> {
    ship: Counter<'a>,
    write: Counter<'a>,
    content: &'a Content,
}

impl Told<'_> {
    /// Runs the receiver and returns how it ended and all that it said.
    async fn run(&self, ssh: &Ssh, command: &str, stream: ExtentStream) -> (Result<Done, SshError>, String) {
        let answer = Collected::default();
        for counter in [&self.ship, &self.write] {
            counter.total(self.content.data_bytes);
        }
        let gone = stream.gone();
        let (mut shipped, mut written) = (0, 0);
        let mut tell = |answer: &str| {
            let now = gone.load(Ordering::Relaxed);
            self.ship.add(now.saturating_sub(shipped));
            shipped = now.max(shipped);
            let now = Settled::parse(answer).bytes;
            self.write.add(now.saturating_sub(written));
            written = now.max(written);
        };
        let running = ssh.run(command, Some(Box::new(stream)), Some(Box::new(answer.clone())), &Silent);
        let mut running = std::pin::pin!(running);
        loop {
            tokio::select! {
                biased;
                ran = &mut running => {
                    let said = answer.text();
                    tell(&said);
                    if let Some(stored) = Stored::parse(&said) {
                        self.write.add(stored.bytes.saturating_sub(written));
                    }
                    return (ran, said);
                }
                () = tokio::time::sleep(TELL) => tell(&answer.text()),
            }
        }
    }
}

impl World {
    /// The size of the volume as it is on its node; none when there is no such volume.
    async fn volume_size(&self, doing: &str, volume: &NodeVolume) -> Result<Option<u64>, StepError> {
        // A plan that says otherwise is not carried out.
        if !volume.name().contains(&format!("recast-{}", self.plan.run)) {
            return Err(refused(doing, format!("the volume {} does not carry this run's id", volume.volume)));
        }
        let command = format!("pvesm list {} --vmid {}", word(volume.storage()), volume.vmid);
        let list = self.on_node(doing, &volume.node, &command).await?;
        Ok(size_in(&list, volume))
    }

    /// The disk's size in bytes, as the step that fetched the image found it.
    fn disk_bytes(doing: &str, fetched: &StepId, cx: &StepCx<'_>) -> Result<u64, StepError> {
        match cx.output_of(fetched) {
            Some(Output::Image { disk_bytes, .. }) => Ok(*disk_bytes),
            _ => Err(wrong(doing, format!("{fetched} has not been done"))),
        }
    }

    pub(super) async fn probe_allocated(
        &self,
        fetched: &StepId,
        volume: &NodeVolume,
        cx: &StepCx<'_>,
    ) -> Result<Seen, StepError> {
        let doing = format!("look for {} on {}", volume.volume, volume.node);
        let wanted = Self::disk_bytes(&doing, fetched, cx)?;
        match self.volume_size(&doing, volume).await? {
            None => Ok(Seen::Missing),
            Some(size) if size >= wanted => Ok(Seen::Done(Output::Nothing)),
            Some(size) => Err(refused(doing, format!("it has {size} bytes, and the disk has {wanted}"))
                .hinted(format!("free it on the node: pvesm free {}", volume.volume))),
        }
    }

    pub(super) async fn allocate(
        &self,
        fetched: &StepId,
        volume: &NodeVolume,
        cx: &StepCx<'_>,
    ) -> Result<Output, StepError> {
        let doing = format!("allocate {} on {}", volume.volume, volume.node);
        let wanted = Self::disk_bytes(&doing, fetched, cx)?;
        let command = format!(
            "pvesm alloc {} {} {} {} --format raw",
            word(volume.storage()),
            volume.vmid,
            word(volume.name()),
            wanted.div_ceil(1024)
        );
        self.on_node(&doing, &volume.node, &command).await?;
        match self.volume_size(&doing, volume).await? {
            Some(size) if size >= wanted => Ok(Output::Nothing),
            Some(size) => Err(wrong(doing, format!("it was made with {size} bytes instead of {wanted}"))),
            None => Err(wrong(doing, "the node allocated it, and does not list it")),
        }
    }

    /// Writes the image. Extents may be written again, so this needs no look first.
    pub(super) async fn stream_image(
        &self,
        fetched: &StepId,
        volume: &NodeVolume,
        unwritten: Unwritten,
        cx: &StepCx<'_>,
    ) -> Result<Output, StepError> {
        let doing = format!("write the image to {} on {}", volume.volume, volume.node);
        if self.volume_size(&doing, volume).await?.is_none() {
            return Err(wrong(doing, "the volume is gone"));
        }
        let path = self.on_node(&doing, &volume.node, &format!("pvesm path {}", word(volume.volume.as_str()))).await?;
        let path = path.trim_end_matches('\n').to_owned();
        // Ceph and iSCSI volumes have addresses instead of paths; those have to be imported.
        if !path.starts_with('/') || path.contains('\n') {
            return Err(wrong(doing, format!("it is at {path}, which is neither a file nor a device on the node"))
                .hinted("use `transport: upload`"));
        }
        let image = self.fetched(fetched, cx).await?;
        let content = &image.1.content;
        // Those who take the same image at the same time: the other nodes that don't have it yet.
        let takers = self.plan.steps().filter(|planned| match &planned.step {
            Step::StreamImage { fetched: other, .. } => other == fetched && cx.output_of(&planned.id).is_none(),
            _ => false,
        });
        let fanout = self.image.extents(&image, takers.count()).await;
        let from = self.image.settled(cx.step());
        if from > 0 {
            cx.notice(format!("{} has the first {} of the disk and goes on there", volume.node, size(from)));
        }
        let ssh = self.shell(&doing, &volume.node).await?;
        let unwritten = match unwritten {
            Unwritten::Zeros => image::Unwritten::Zeros,
            Unwritten::Garbage => image::Unwritten::Garbage,
        };
        let to = Destination { path: &word(&path), name: volume.name(), unwritten, from };
        let command = as_root(ssh.login(), &receiver(to, content));
        let stream = ExtentStream::of(&fanout, from).map_err(|error| wrong(&doing, error.to_string()))?;
        let told = Told { ship: cx.counter("ship"), write: cx.counter("write"), content };
        let (ran, said) = told.run(&ssh, &command, stream).await;
        // What is on the disk stays there whatever became of the connection; what was refused begins anew.
        let refused = matches!(&ran, Ok(done) if !done.is_ok() && done.status != 3);
        self.image.settle(cx.step(), if refused { 0 } else { Settled::parse(&said).offset.max(from) });
        let done = self.outcome(&doing, &volume.node, ran)?;
        if !done.is_ok() {
            return Err(wrong(doing, format!("the receiver on {}: {}", volume.node, done.why())));
        }
        let stored = Stored::parse(&said);
        let stored =
            stored.ok_or_else(|| wrong(&doing, format!("the receiver's answer is not one: {}", said.trim())))?;
        self.image.settle(cx.step(), 0);
        if stored.is(content) {
            return Ok(Output::Nothing);
        }
        Err(wrong(
            doing,
            format!(
                "read back were {} bytes with digest {}, not {} with {}",
                stored.bytes, stored.sha256, content.data_bytes, content.sha256
            ),
        )
        .hinted("the node's disk or memory does not keep what it is given; look into its log"))
    }

    pub(super) async fn probe_freed(&self, volume: &NodeVolume) -> Result<Seen, StepError> {
        let doing = format!("look for {} on {}", volume.volume, volume.node);
        let size = self.volume_size(&doing, volume).await?;
        Ok(if size.is_some() { Seen::Missing } else { Seen::Done(Output::Nothing) })
    }

    /// Frees the volume, unless a VM has it.
    pub(super) async fn free_volume(&self, volume: &NodeVolume) -> Result<Output, StepError> {
        let doing = format!("free {} on {}", volume.volume, volume.node);
        match self.pve.vm_config(&VmRef::new(volume.node.clone(), volume.vmid)).await {
            Ok(config) if config.volumes().values().any(|held| *held == volume.volume) => {
                return Err(refused(doing, format!("VM {} has it as a disk", volume.vmid)));
            }
            Ok(_) => {}
            Err(error) if error.is_missing_vm(volume.vmid) => {}
            Err(error) => return Err(by_pve(doing, error)),
        }
        self.on_node(&doing, &volume.node, &format!("pvesm free {}", word(volume.volume.as_str()))).await?;
        match self.volume_size(&doing, volume).await? {
            None => Ok(Output::Nothing),
            Some(_) => Err(wrong(doing, "the node freed it, and still lists it")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_found_in_the_list_by_its_whole_id() {
        let list = "Volid                          Format  Type            Size VMID\n\
                    local-lvm:vm-101-disk-0        raw     images    4194304 101\n\
                    local-lvm:vm-101-recast-r1     raw     images 1306525696 101\n";
        let volume = |name: &str| NodeVolume {
            node: "pve1".into(),
            vmid: crate::types::VmId(101),
            volume: format!("local-lvm:{name}").as_str().into(),
        };
        assert_eq!(size_in(list, &volume("vm-101-recast-r1")), Some(1_306_525_696));
        assert_eq!(size_in(list, &volume("vm-101-recast-r")), None);
        assert_eq!(size_in("", &volume("vm-101-disk-0")), None);
    }
}
