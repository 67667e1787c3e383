use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::backup::testing::{Kept, SNAPSHOT, kept, names};

fn way(local: &Local) -> Way<'_, Local, Local> {
    Way { devices: Devices::Compare, local, remote: None }
}

fn local(kept: &Kept) -> Local {
    Local::new(kept.folder.path()).of(&kept.path)
}

#[tokio::test]
async fn a_folder_gets_a_copy_that_counts_only_on_another_device() {
    let kept = kept(SNAPSHOT);
    let local = local(&kept);
    let folder = kept.folder.path().join("nas/etcd");
    let target = Target::Path(folder.clone());
    let copied = copy(&kept.path, &target, way(&local)).await.unwrap();
    let file = folder.join(kept.path.file_name().unwrap());
    assert_eq!((copied.counts, copied.bytes), (Counts::SameDevice, SNAPSHOT.len() as u64));
    assert_eq!((copied.sha256, copied.place), (Sha256::of(SNAPSHOT), file.display().to_string()));
    assert_eq!(fs::read(&file).unwrap(), SNAPSHOT);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let again = Way { devices: Devices::AllDiffer, ..way(&local) };
    assert_eq!(
        copy(&kept.path, &target, again).await.unwrap().counts,
        Counts::Yes,
        "again is fine, and told so it counts"
    );
    assert_eq!(names(&folder).len(), 1);

    // Memory is another device than any disk that a test may run on, or the test's own folder lies there too.
    if let Ok(shm) = tempfile::tempdir_in("/dev/shm") {
        use std::os::unix::fs::MetadataExt as _;
        let differ = fs::metadata(shm.path()).unwrap().dev() != fs::metadata(&kept.path).unwrap().dev();
        let copied = copy(&kept.path, &Target::Path(shm.path().to_owned()), way(&local)).await.unwrap();
        assert_eq!(copied.counts, if differ { Counts::Yes } else { Counts::SameDevice });
    }
}

#[tokio::test]
async fn another_file_of_that_name_is_neither_overwritten_nor_believed() {
    let kept = kept(SNAPSHOT);
    let local = local(&kept);
    let folder = kept.folder.path().join("other");
    let file = folder.join(kept.path.file_name().unwrap());
    fs::create_dir(&folder).unwrap();
    let mut changed = SNAPSHOT.to_vec();
    changed[4711] ^= 1;
    for there in [changed, SNAPSHOT[..4096].to_vec(), [SNAPSHOT, b"more"].concat()] {
        fs::write(&file, &there).unwrap();
        let error = copy(&kept.path, &Target::Path(folder.clone()), way(&local)).await.unwrap_err();
        assert!(matches!(error, CopyError::Differs { .. }), "{error}");
        assert_eq!(fs::read(&file).unwrap(), there);
    }
    fs::remove_file(&file).unwrap();
    assert!(verify(&kept.path, &Target::Path(folder.clone()), way(&local)).await.is_err(), "looking makes no copy");
    assert_eq!(names(&folder), [""; 0]);
}

#[tokio::test]
async fn commands_get_the_snapshot_and_its_name() {
    let kept = kept(SNAPSHOT);
    let local = local(&kept);
    let target =
        |save: &str, read: Option<&str>| Target::Command { save: save.to_owned(), read: read.map(str::to_owned) };
    let save = r#"mkdir -p vault && gzip > "vault/$RECAST_SNAPSHOT.gz""#;
    let good = target(save, Some(r#"gzip -dc "vault/$RECAST_SNAPSHOT.gz""#));
    let copied = copy(&kept.path, &good, way(&local)).await.unwrap();
    assert_eq!((copied.counts, copied.sha256), (Counts::Yes, Sha256::of(SNAPSHOT)));
    assert_eq!(verify(&kept.path, &good, way(&local)).await.unwrap(), copied);
    assert_eq!(copy(&kept.path, &target(save, None), way(&local)).await.unwrap().counts, Counts::NotReadBack);

    let refused = async |save: &str, read: &str| {
        copy(&kept.path, &target(save, Some(read)), way(&local)).await.unwrap_err().to_string()
    };
    let failed = refused("cat > /dev/null; echo the vault is locked >&2; exit 3", "true").await;
    assert_eq!(
        failed,
        "could not save the copy at `cat > /dev/null; echo the vault is locked >&2; exit 3`: the command ended with 3 and said: the vault is locked"
    );
    assert!(refused("cat > /dev/null", "exit 1").await.contains("could not read back"));
    assert!(refused("cat > /dev/null", "true").await.contains("it has 0 bytes"));
    assert!(refused("cat > /dev/null", "head -c 20000 vault/*.gz").await.contains("is not the snapshot"));
    assert!(refused("cat > /dev/null", "cat /dev/zero").await.contains("is not the snapshot"), "without end");
    assert!(refused("kill -9 $$", "true").await.contains("ended with 137"));
}

/// The commands for another machine, run by this one's shell.
#[tokio::test]
async fn another_machine_is_asked_in_plain_words() {
    let kept = kept(SNAPSHOT);
    let local = local(&kept);
    let home = kept.folder.path().join("home");
    fs::create_dir(&home).unwrap();
    let remote = Local::new(&home);
    let name = kept.path.file_name().unwrap().to_str().unwrap();
    let to = |path: &str| Target::Ssh { host: "backup@nas".to_owned(), path: path.to_owned() };
    let by = || Way { devices: Devices::Compare, local: &local, remote: Some(&remote) };
    for (path, folder) in [("~/etcd's copies", "etcd's copies"), ("a/b/", "a/b"), ("~", "."), ("-x;y", "-x;y")] {
        let copied = copy(&kept.path, &to(path), by()).await.unwrap();
        assert_eq!((copied.counts, copied.place), (Counts::Yes, format!("backup@nas:{folder}/{name}")));
        assert_eq!(fs::read(home.join(folder).join(name)).unwrap(), SNAPSHOT);
        assert_eq!(copy(&kept.path, &to(path), by()).await.unwrap().counts, Counts::Yes, "again is fine");
    }
    assert_eq!(names(&home.join("a/b")), [name], "no part is left");
    fs::write(home.join("a/b").join(name), b"else").unwrap();
    assert!(matches!(copy(&kept.path, &to("a/b"), by()).await, Err(CopyError::Differs { .. })));
    assert_eq!(fs::read(home.join("a/b").join(name)).unwrap(), b"else");
    assert!(matches!(copy(&kept.path, &to("a"), way(&local)).await, Err(CopyError::NoShell(_))));
}
