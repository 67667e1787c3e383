//! Tasks that somebody stops: what is left of their work.

use super::site::{Form, Site, VMS};

/// A site with VM 100, whose disk takes a moment to copy.
async fn site() -> Site {
    let site = Site::slowly(20.0).await;
    site.done("POST", VMS, &[("vmid", "100"), ("scsi0", "local-lvm:6")]).await;
    site
}

/// The volumes whose number says that they are a VM's.
fn volumes(site: &Site, vmid: u32) -> Vec<String> {
    let state = site.running.world().state();
    state.volumes.iter().filter(|(_, volume)| volume.vmid == Some(vmid)).map(|(key, _)| key.volid()).collect()
}

/// Stops the task of a request once its VM has that many volumes. Says how it ends, and its log.
async fn stopped(site: &Site, path: &str, form: Form<'_>, (vmid, made): (u32, usize)) -> (String, Vec<String>) {
    let upid = site.fine("POST", path, form).await;
    let upid = upid.as_str().unwrap();
    while volumes(site, vmid).len() < made {
        let ended = site.running.world().state().tasks.by_upid[upid].status.clone();
        assert_eq!(ended, None, "it ended before it was stopped");
        tokio::task::yield_now().await;
    }
    site.running.world().stop_task(upid);
    site.ended(upid).await
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_a_clone_that_is_stopped() {
    let site = site().await;
    let form = [("newid", "101"), ("full", "1")];
    let (end, log) = stopped(&site, &format!("{VMS}/100/clone"), &form, (101, 1)).await;
    assert!(
        end.starts_with("clone failed: copy failed: command '/usr/bin/qemu-img convert -p -n -f raw -O raw ")
            && end.ends_with(" failed: interrupted by signal"),
        "{log:?}"
    );
    assert!(volumes(&site, 101).is_empty(), "{log:?}");
    let (status, reason, _) = site.ask("GET", &format!("{VMS}/101/config"), &[]).await;
    assert_eq!((status, reason.as_str()), (500, "Configuration file 'nodes/pve1/qemu-server/101.conf' does not exist"));
    assert!(!site.config(100, false).await.as_object().unwrap().contains_key("lock"));
    site.done("POST", &format!("{VMS}/100/clone"), &form).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_a_new_vm_whose_making_is_stopped_or_fails() {
    let site = site().await;
    let disks =
        [("vmid", "200"), ("scsi0", "local-lvm:1"), ("scsi1", "local-lvm:0,import-from=local-lvm:vm-100-disk-0")];
    let (end, log) = stopped(&site, VMS, &disks, (200, 2)).await;
    assert!(
        end.starts_with("unable to create VM 200 - cannot import from 'local-lvm:vm-100-disk-0' - copy failed: ")
            && end.ends_with(" failed: received interrupt"),
        "{log:?}"
    );
    assert!(volumes(&site, 200).is_empty() && !site.running.world().state().vms.contains_key(&200), "{log:?}");
    // What is only seen when the disks are there frees them as well.
    let form = [("vmid", "200"), ("scsi0", "local-lvm:1"), ("machine", "pc,viommu=intel")];
    let (end, log) = site.task("POST", VMS, &form).await;
    assert!(end.starts_with("unable to create VM 200 - "), "{log:?}");
    assert!(volumes(&site, 200).is_empty() && !site.running.world().state().vms.contains_key(&200), "{log:?}");
    site.done("POST", VMS, &disks).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_is_stopped_leaves_a_config_without_lock_or_disks() {
    let site = site().await;
    let log = site.done("POST", "/nodes/pve1/vzdump", &[("vmid", "100"), ("storage", "local")]).await;
    let list = site.fine("GET", "/nodes/pve1/storage/local/content", &[("content", "backup")]).await;
    let archive = list[0]["volid"].as_str().unwrap_or_else(|| panic!("{log:?}")).to_owned();
    let form = [("vmid", "200"), ("archive", archive.as_str())];
    let (end, log) = stopped(&site, VMS, &form, (200, 1)).await;
    assert!(end.starts_with("command 'vma extract ") && end.ends_with(" failed: interrupted by signal"), "{log:?}");
    let gone = "temporary volume 'local-lvm:vm-200-disk-0' successfully removed".to_owned();
    assert!(log.contains(&gone) && log.iter().any(|line| line.contains("VM 200 state is NOT cleaned up.")), "{log:?}");
    assert!(volumes(&site, 200).is_empty());
    let config = site.config(200, false).await;
    assert_eq!(config.as_object().unwrap().keys().collect::<Vec<_>>(), ["digest", "memory"]);
    site.done("POST", VMS, &[&form[..], &[("force", "1")]].concat()).await;
    assert_eq!(volumes(&site, 200).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_stopped_gives_its_vm_back_and_ends_its_job() {
    let site = site().await;
    site.done("POST", VMS, &[("vmid", "101"), ("scsi0", "local-lvm:6")]).await;
    site.done("POST", &format!("{VMS}/100/status/start"), &[]).await;
    let world = site.running.world();
    for mode in ["snapshot", "suspend"] {
        let upid = site.fine("POST", "/nodes/pve1/vzdump", &[("vmid", "100,101"), ("mode", mode)]).await;
        let upid = upid.as_str().unwrap();
        let began = |line: &String| line.starts_with("INFO: resuming VM again");
        while !world.state().tasks.by_upid[upid].log.iter().any(began) {
            assert!(world.state().tasks.by_upid[upid].status.is_none(), "it ended before it was stopped");
            tokio::task::yield_now().await;
        }
        world.stop_task(upid);
        let (end, log) = site.ended(upid).await;
        assert_eq!(end, "interrupted by signal", "{log:?}");
        let told: Vec<&str> = log.iter().map(String::as_str).skip_while(|line| !line.starts_with("ERROR")).collect();
        let resumed = if mode == "suspend" { Some("INFO: resume vm") } else { None };
        let expected = ["ERROR: interrupted by signal", "INFO: aborting backup job", "INFO: resuming VM again"];
        let expected: Vec<&str> = expected
            .into_iter()
            .chain(resumed)
            .chain(["ERROR: Backup of VM 100 failed - interrupted by signal"])
            .collect();
        assert_eq!(told[..expected.len()], expected, "{log:?}");
        let last = ["ERROR: Backup job failed - interrupted by signal", "TASK ERROR: interrupted by signal"];
        assert_eq!(told[told.len() - 2..], last, "the other VM has no turn: {log:?}");
        let state = world.state();
        assert!(!state.vms[&100].config.contains_key("lock") && !state.vms[&100].running.as_ref().unwrap().paused);
        assert!(!state.volumes.values().any(|volume| volume.content == "backup"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_that_is_started_while_it_is_backed_up_runs_on() {
    let site = site().await;
    let world = site.running.world();
    // A lock that no backup holds is refused.
    site.fine("PUT", &format!("{VMS}/100/config"), &[("lock", "backup")]).await;
    let (end, _) = site.task("POST", &format!("{VMS}/100/status/start"), &[]).await;
    assert_eq!(end, "VM is locked (backup)");
    site.fine("PUT", &format!("{VMS}/100/config"), &[("delete", "lock"), ("skiplock", "1")]).await;
    let upid = site.fine("POST", "/nodes/pve1/vzdump", &[("vmid", "100")]).await;
    let upid = upid.as_str().unwrap();
    while !world.state().tasks.by_upid[upid].log.iter().any(|line| line.starts_with("INFO: started backup task")) {
        assert!(world.state().tasks.by_upid[upid].status.is_none(), "it ended before the start");
        tokio::task::yield_now().await;
    }
    site.done("POST", &format!("{VMS}/100/status/start"), &[]).await;
    let (end, log) = site.ended(upid).await;
    let kept = "INFO: kvm status changed after backup ('running') - keep VM running".to_owned();
    assert!(end == "OK" && log.contains(&kept), "{log:?}");
    assert!(world.pid_of(100).is_some());
}
