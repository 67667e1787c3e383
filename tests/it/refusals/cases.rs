//! The table: what is spoiled in the smallest cluster, and what must be said.

use std::fs;
use std::path::Path;

use serde_json::json;

use super::{Case, Spoil, edit_site, replace, set};

/// Replaces the value of a key wherever it stands.
fn replace_value(path: &Path, key: &str, change: impl Fn(&str) -> String) {
    let text = fs::read_to_string(path).unwrap();
    let mut found = false;
    let lines = text.lines().map(|line| match line.split_once(&format!("{key}: ")) {
        Some((before, value)) => {
            found = true;
            format!("{before}{key}: {}", change(value))
        }
        None => line.to_owned(),
    });
    let text = lines.collect::<Vec<_>>().join("\n") + "\n";
    assert!(found, "{} has no {key}", path.display());
    fs::write(path, text).unwrap();
}

pub(super) const CASES: &[Case] = &[
    Case {
        name: "unknown key",
        spoil: Spoil::Files(|scene| replace(&scene.profile(), "name: single\n", "name: single\nnaem: x\n")),
        phase: "check",
        code: 3,
        words: &["single.yaml:6:1: naem: unknown key", "did you mean `name`?"],
    },
    Case {
        name: "secrets missing",
        spoil: Spoil::Files(|scene| fs::remove_file(scene.secrets()).unwrap()),
        phase: "check",
        code: 3,
        words: &["secrets.yaml can't be read", "No such file", "the secrets.yaml the cluster was made with"],
    },
    Case {
        name: "secrets damaged",
        spoil: Spoil::Files(|scene| {
            replace_value(&scene.secrets(), "crt", |value| value[..value.len() / 8 * 4].to_owned());
        }),
        phase: "check",
        code: 3,
        words: &["secrets.yaml is not valid", "line 11: certs.etcd.crt holds a PEM block that is cut off or damaged"],
    },
    Case {
        name: "secrets of another cluster",
        spoil: Spoil::Files(|scene| fs::write(scene.secrets(), scene.other_secrets).unwrap()),
        phase: "check",
        code: 4,
        words: &["the secrets file is not this cluster's", "the Talos CA differs"],
    },
    Case {
        name: "one secret of another cluster",
        spoil: Spoil::Files(|scene| {
            let other = scene.other_secrets.lines().find_map(|line| line.split_once("secretboxencryptionsecret: "));
            let (_, other) = other.unwrap();
            replace_value(&scene.secrets(), "secretboxencryptionsecret", |_| other.to_owned());
        }),
        phase: "check",
        code: 4,
        words: &["the secrets file is not this cluster's", "encryption", "differs"],
    },
    Case {
        name: "wrong fingerprint",
        spoil: Spoil::Files(|scene| {
            edit_site(scene, |site| site["nodes"][0]["fingerprint"] = ["AB"; 32].join(":").into());
        }),
        phase: "check",
        code: 4,
        words: &["AB:AB:AB:AB", "expected was", "on its console"],
    },
    Case {
        name: "wrong CA",
        spoil: Spoil::Files(|scene| {
            edit_site(scene, |site| {
                site["nodes"][0].as_object_mut().unwrap().remove("fingerprint");
                site["tls"].as_object_mut().unwrap().remove("ca");
            });
        }),
        phase: "check",
        code: 4,
        words: &["the PVE API can't be trusted", "UnknownIssuer", "pve-root-ca.pem"],
    },
    Case {
        name: "token without a right",
        spoil: Spoil::World(|scene| {
            scene.world.state().access.roles.get_mut("RecastVMs").unwrap().privs.remove("VM.Clone");
        }),
        phase: "check",
        code: 4,
        words: &[
            "recast@pve!rehearsal lacks VM.Clone on /vms/100, /vms/1100",
            "cloning the template needs VM.Clone",
            "pveum role add RecastRights1 --privs VM.Allocate,VM.Audit,VM.Clone,",
            "pveum acl modify /vms/1100 --users recast@pve --tokens 'recast@pve!rehearsal' --roles RecastRights1",
        ],
    },
    Case {
        name: "wrong token secret",
        spoil: Spoil::Files(|scene| {
            let token = scene.folder.join("token");
            fs::write(&token, "recast@pve!rehearsal=00000000-0000-4000-8000-000000000000\n").unwrap();
            edit_site(scene, |site| site["auth"]["token"]["file"] = token.display().to_string().into());
        }),
        phase: "check",
        code: 4,
        words: &["the login was refused", "check the token's id and secret"],
    },
    Case {
        name: "no such Talos",
        spoil: Spoil::Asked(&[("--to", Some("1.13.99")), ("--kubernetes", None)]),
        phase: "check",
        code: 4,
        words: &["Talos 1.13.99 can't be had", "it has", "1.13.9"],
    },
    Case {
        name: "no such extension",
        spoil: Spoil::Asked(&[("--extensions", Some("siderolabs/qemu-guest-agnet"))]),
        phase: "check",
        code: 4,
        words: &[
            "Talos 1.13.9 has no extension siderolabs/qemu-guest-agnet",
            "did you mean siderolabs/qemu-guest-agent?",
        ],
    },
    Case {
        name: "Kubernetes out of range",
        spoil: Spoil::Asked(&[("--kubernetes", Some("1.37.0"))]),
        phase: "check",
        code: 4,
        words: &["Kubernetes 1.37.0 does not run on Talos 1.13.9", "1.31 to 1.36"],
    },
    Case {
        name: "taken number",
        spoil: Spoil::World(|scene| {
            scene.vm(1100, |vm| {
                set(vm, "name", "nextcloud");
                set(vm, "tags", "prod");
            });
        }),
        phase: "check",
        code: 4,
        words: &["number 1100 of single-cp-01 is taken", "nextcloud on pve1"],
    },
    Case {
        name: "taken name",
        spoil: Spoil::World(|scene| scene.stranger(500, "single-cp-01", "")),
        phase: "check",
        code: 4,
        words: &["VM 500 on pve1 already has the name single-cp-01"],
    },
    Case {
        name: "stranger with all tags",
        spoil: Spoil::World(|scene| scene.stranger(1150, "experiment", "single;talos")),
        phase: "check",
        code: 4,
        words: &[
            "VM 1150 (experiment) on pve1 carries all tags of the cluster (talos, single)",
            "nothing unknown is ever deleted",
        ],
    },
    Case {
        name: "extra disk",
        spoil: Spoil::World(|scene| scene.vm(1100, |vm| set(vm, "scsi1", "local-lvm:vm-1100-disk-2,size=8G"))),
        phase: "check",
        code: 4,
        words: &[
            "VM 1100 (single-cp-01) on pve1 has a disk beyond its system: scsi1 = local-lvm:vm-1100-disk-2",
            "--destroy-disk 1100:scsi1",
        ],
    },
    Case {
        name: "unused disk",
        spoil: Spoil::World(|scene| scene.vm(1100, |vm| set(vm, "unused0", "local-lvm:vm-1100-disk-3"))),
        phase: "check",
        code: 4,
        words: &["unused0 = local-lvm:vm-1100-disk-3"],
    },
    Case {
        name: "protected",
        spoil: Spoil::World(|scene| scene.vm(1100, |vm| set(vm, "protection", "1"))),
        phase: "check",
        code: 4,
        words: &["VM 1100 (single-cp-01) on pve1 is protected"],
    },
    Case {
        name: "locked",
        spoil: Spoil::World(|scene| scene.vm(1100, |vm| set(vm, "lock", "backup"))),
        phase: "check",
        code: 4,
        words: &["VM 1100 (single-cp-01) on pve1 is locked (lock: backup)"],
    },
    Case {
        name: "named disk that is not there",
        spoil: Spoil::Asked(&[("--destroy-disk", Some("1100:scsi7"))]),
        phase: "check",
        code: 4,
        words: &["--destroy-disk 1100:scsi7 names no disk of a VM that is replaced"],
    },
    Case {
        name: "storage full",
        spoil: Spoil::World(|scene| scene.world.state().storages.get_mut("local-lvm").unwrap().capacity = 64 << 20),
        phase: "check",
        code: 4,
        words: &["storage local-lvm on pve1 has ", " MiB free and the template and its canary need ", "make room"],
    },
    Case {
        name: "no storage for uploads",
        spoil: Spoil::World(|scene| scene.storage_option("local", "content", "backup,iso,snippets,vztmpl".into())),
        phase: "check",
        code: 4,
        words: &["no storage on pve1 takes content type `import`", "pvesm set local --content"],
    },
    Case {
        name: "storage off",
        spoil: Spoil::World(|scene| scene.storage_option("local-lvm", "disable", 1.into())),
        phase: "check",
        code: 4,
        words: &["storage local-lvm is not active on pve1"],
    },
    Case {
        name: "no such node",
        spoil: Spoil::Files(|scene| {
            replace(&scene.profile(), "node: pve1", "node: pve9");
            edit_site(scene, |site| site["nodes"].as_array_mut().unwrap().push(json!({"name": "pve9"})));
        }),
        phase: "check",
        code: 4,
        words: &["there is no PVE node named pve9", "the nodes are pve1"],
    },
    Case {
        name: "wrong confirmation",
        spoil: Spoil::Asked(&[("--confirm", Some("lab"))]),
        phase: "check",
        code: 4,
        words: &["--confirm names lab, and this is cluster single", "nothing was touched"],
    },
    Case {
        name: "no confirmation",
        spoil: Spoil::Asked(&[("--confirm", None)]),
        phase: "check",
        code: 4,
        words: &["nobody is there to confirm it", "add --confirm single"],
    },
    Case {
        name: "image truncated",
        spoil: Spoil::World(|scene| {
            let whole = fs::read(scene.image()).unwrap();
            fs::write(scene.image(), &whole[..whole.len() / 2]).unwrap();
        }),
        phase: "image",
        code: 4,
        words: &["no sound image", "the image is damaged after", "serves a damaged file"],
    },
    Case {
        name: "image altered",
        spoil: Spoil::World(|scene| {
            let mut whole = fs::read(scene.image()).unwrap();
            let middle = whole.len() / 2;
            whole[middle] ^= 1;
            fs::write(scene.image(), whole).unwrap();
        }),
        phase: "image",
        code: 4,
        words: &["no sound image", "the image is damaged after", "serves a damaged file"],
    },
    Case {
        name: "image is not the pinned one",
        spoil: Spoil::Files(|scene| {
            let bytes = fs::metadata(scene.image()).unwrap().len();
            let lock = json!({
                "format": 1,
                "images": [{
                    "schematic": "ce4c980550dd2ab1b17bbf2b08801c7eb59418eafe8f279833297925d67c7515",
                    "version": "1.13.9", "file": "nocloud-amd64.raw.xz", "bytes": bytes, "sha256": "ab".repeat(32),
                    "trust": "pinned",
                }],
            });
            fs::write(scene.folder.join("cluster/single.lock"), lock.to_string()).unwrap();
        }),
        phase: "image",
        code: 4,
        words: &["the file's SHA-256 is ", "pinned is abababab", "another file than the lock pins"],
    },
    Case {
        name: "lock damaged",
        spoil: Spoil::Files(|scene| fs::write(scene.folder.join("cluster/single.lock"), "{").unwrap()),
        phase: "check",
        code: 3,
        words: &["single.lock is not valid"],
    },
    Case {
        name: "site missing",
        spoil: Spoil::Files(|scene| fs::remove_file(scene.site()).unwrap()),
        phase: "check",
        code: 3,
        words: &["site.yaml", "No such file"],
    },
    Case {
        name: "secret's variable not set",
        spoil: Spoil::Files(|scene| {
            edit_site(scene, |site| site["auth"]["token"] = json!({"env": "PVE_TOKEN_OF_NOBODY"}));
        }),
        phase: "check",
        code: 3,
        words: &["PVE_TOKEN_OF_NOBODY", "is not set"],
    },
    Case {
        name: "several flaws at once",
        spoil: Spoil::World(|scene| {
            scene.stranger(1150, "experiment", "single;talos");
            scene.vm(1100, |vm| set(vm, "scsi1", "local-lvm:vm-1100-disk-2,size=8G"));
            scene.world.state().access.roles.get_mut("RecastStorage").unwrap().privs.remove("Datastore.AllocateSpace");
        }),
        phase: "check",
        code: 4,
        words: &[
            "VM 1150 (experiment)",
            "scsi1 = local-lvm:vm-1100-disk-2",
            "lacks Datastore.AllocateSpace on /storage/local-lvm",
        ],
    },
    Case {
        name: "generic profile",
        spoil: Spoil::Files(|scene| {
            let generic = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/profiles/generic.yaml");
            let text = fs::read_to_string(generic).unwrap().replacen("name: generic", "name: single", 1);
            fs::write(scene.profile(), text).unwrap();
        }),
        phase: "check",
        code: 3,
        words: &["single is a generic cluster, which can't be rebuilt"],
    },
    Case {
        name: "template among the tagged",
        spoil: Spoil::World(|scene| scene.vm(101, |vm| set(vm, "tags", "single;talos;template"))),
        phase: "check",
        code: 2,
        words: &["template 101 (talos-1-12-4) carries the cluster's tags and is kept"],
    },
];
