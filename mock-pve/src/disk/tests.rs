use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::PathBuf;

use super::*;

fn recipe(version: &str) -> Recipe {
    Recipe {
        version: version.to_owned(),
        schematic: "376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba".to_owned(),
        extensions: Vec::new(),
        kernel_args: vec!["console=ttyS0".to_owned()],
        signed: false,
    }
}

fn image(dir: &tempfile::TempDir, version: &str) -> (PathBuf, Marker) {
    let path = dir.path().join(format!("{version}.raw"));
    let marker = build(&recipe(version), &path).unwrap();
    (path, marker)
}

fn verdict(path: &std::path::Path) -> String {
    read(path).unwrap_err().to_string()
}

#[test]
fn an_image_is_sparse_deterministic_and_boots() {
    let dir = tempfile::tempdir().unwrap();
    let (path, marker) = image(&dir, "v1.13.9");
    let found = read(&path).unwrap();
    assert_eq!(found.marker, marker);
    assert_eq!(found.marker.recipe, recipe("v1.13.9"));
    assert!(fs::metadata(&path).unwrap().blocks() * 512 < 18 * MIB);
    assert_eq!(marker.extents.iter().map(|(_, length)| length).sum::<u64>(), 16 * MIB);
    let again = dir.path().join("again.raw");
    build(&recipe("v1.13.9"), &again).unwrap();
    assert!(fs::read(&path).unwrap() == fs::read(&again).unwrap());
    assert_ne!(image(&dir, "v1.13.8").1.sha256, marker.sha256);
}

#[test]
fn a_damaged_disk_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let (path, marker) = image(&dir, "v1.13.9");
    let damage = |at: u64, bytes: &[u8]| {
        let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let mut before = vec![0; bytes.len()];
        file.read_exact_at(&mut before, at).unwrap();
        file.write_all_at(bytes, at).unwrap();
        let why = verdict(&path);
        file.write_all_at(&before, at).unwrap();
        why
    };
    let boot = read(&path).unwrap().table.find("BOOT").unwrap().start;
    let (last, length) = *marker.extents.last().unwrap();
    assert!(damage(last + length - 3, b"abc").contains("the boot files are damaged"));
    assert!(damage(512 + 40, b"x").contains("the primary partition table is broken"));
    assert!(damage(2048, b"x").contains("entries"));
    assert!(damage(IMAGE_BYTES - 500, b"x").contains("the backup partition table is broken"));
    assert!(damage(boot, &vec![0; 65536]).contains("all zeros"));
    assert!(damage(boot + 60, b"!").contains("damaged"));
    assert!(damage(0, &[0; 512]).contains("all zeros"));
    read(&path).unwrap();

    OpenOptions::new().write(true).open(&path).unwrap().set_len(IMAGE_BYTES / 2).unwrap();
    assert!(verdict(&path).contains("it was cut off"));
}

#[test]
fn a_grown_disk_keeps_config_and_etcd_and_a_clone_carries_them() {
    let dir = tempfile::tempdir().unwrap();
    for version in ["v1.7.7", "v1.13.9"] {
        let (path, _) = image(&dir, version);
        assert!(matches!(provision(&path), Err(DiskError::NoRoom { .. })));
        OpenOptions::new().write(true).open(&path).unwrap().set_len(10 << 30).unwrap();
        read(&path).unwrap();
        assert_eq!(load(&path, Keep::Config).unwrap(), None);
        provision(&path).unwrap();
        provision(&path).unwrap();
        store(&path, Keep::Config, b"version: v1alpha1").unwrap();
        assert_eq!(load(&path, Keep::Identity).unwrap(), None);
        store(&path, Keep::Identity, b"who").unwrap();
        let kept = |region: Region| {
            let mut bytes = [0; 4];
            region.file.read_exact_at(&mut bytes, region.start + (1 << 30)).unwrap();
            bytes
        };
        let region = ephemeral(&path).unwrap().unwrap();
        region.file.write_all_at(b"etcd", region.start + (1 << 30)).unwrap();
        let found = read(&path).unwrap();
        assert!(found.table.find("EPHEMERAL").unwrap().bytes > 9 << 30);

        OpenOptions::new().write(true).open(&path).unwrap().set_len(12 << 30).unwrap();
        provision(&path).unwrap();
        assert_eq!(load(&path, Keep::Config).unwrap().unwrap(), b"version: v1alpha1");
        assert_eq!(kept(ephemeral(&path).unwrap().unwrap()), *b"etcd");
        wipe(&path, Keep::Config).unwrap();
        assert_eq!(load(&path, Keep::Config).unwrap(), None);
        assert_eq!(load(&path, Keep::Identity).unwrap().unwrap(), b"who");
        wipe(&path, Keep::Identity).unwrap();
        assert_eq!(load(&path, Keep::Identity).unwrap(), None);
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn what_a_machine_keeps_is_checked_too() {
    let dir = tempfile::tempdir().unwrap();
    let (path, _) = image(&dir, "v1.13.9");
    OpenOptions::new().write(true).open(&path).unwrap().set_len(10 << 30).unwrap();
    provision(&path).unwrap();
    store(&path, Keep::Config, b"version: v1alpha1").unwrap();
    let state = read(&path).unwrap().table.find("STATE").unwrap().start;
    OpenOptions::new().write(true).open(&path).unwrap().write_all_at(b"X", state + 50).unwrap();
    assert_eq!(
        load(&path, Keep::Config).unwrap_err().to_string(),
        "the STATE partition is damaged: its checksum doesn't match"
    );
}

#[test]
fn an_upgrade_fills_the_other_slot_and_the_image_stays() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.raw");
    let old = recipe("v1.12.4");
    let new = recipe("v1.13.9");
    build(&old, &path).unwrap();
    assert_eq!(slot(&path, Slot::B).unwrap(), None);
    assert_eq!(read(&path).unwrap().meta, Meta::default());

    install(&path, Slot::B, &new).unwrap();
    assert_eq!(read(&path).unwrap().marker.recipe, old, "what boots is META's choice");
    store_meta(&path, &Meta { boot: Slot::B, fallback: Some(Slot::A), ..Meta::default() }).unwrap();
    assert_eq!(read(&path).unwrap().marker.recipe, new);
    slot_boots(&path, Slot::A).unwrap();

    spoil(&path, Slot::B).unwrap();
    assert!(matches!(read(&path), Err(DiskError::Data { .. })), "boot files that are damaged don't boot");
    assert_eq!(meta(&path).unwrap().fallback, Some(Slot::A));
    // Back again, over the image's own files.
    install(&path, Slot::A, &new).unwrap();
    store_meta(&path, &Meta::default()).unwrap();
    assert_eq!(read(&path).unwrap().marker.recipe, new);
}
