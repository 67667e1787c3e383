//! Bad input: each ends in one clear refusal before anything is touched.
//!
//! A table of what is spoiled and what must be said. The program runs as people run it, against one double for all
//! cases; what a case spoils in its files is its own, what it spoils in the world is put back, and nobody else looks
//! meanwhile. Start reading at [`CASES`]; what only a rebuild that keeps its data can be refused for is in `keeping.rs`.

mod keeping;
mod untouched;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, RwLock};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use mock_pve::world::World;
use mock_pve::world::state::Vm;
use recast::cli::rehearse::{Contents, Order, Rehearsal, start};
use recast::talos::config::Contract;
use recast::talos::secrets::Secrets;

/// What every case asks for, unless it says otherwise.
const ASKED: &[&str] =
    &["rebuild", "--to", "1.13.9", "--kubernetes", "1.35.0", "--fresh", "--confirm", "single", "-o", "json"];

/// One bad input.
struct Case {
    name: &'static str,
    spoil: Spoil,
    /// Where it must be refused: the phase in which its run stops, `check` where none begins.
    phase: &'static str,
    code: i32,
    /// Words of the refusal: its text, causes and hints together.
    words: &'static [&'static str],
}

/// What is wrong.
enum Spoil {
    /// The case's own copy of the files.
    Files(fn(&Scene<'_>)),
    /// The world, for this case only.
    World(fn(&Scene<'_>)),
    /// The command line: these instead of what the stage asks for.
    Asked(&'static [&'static str]),
    /// The file that is restored.
    Restored(fn(&Scene<'_>) -> PathBuf),
}

/// What a case can spoil.
struct Scene<'a> {
    /// The folder with the case's copies.
    folder: PathBuf,
    world: &'a World,
    cluster: &'static str,
    /// Secrets of some other cluster.
    other_secrets: &'a str,
    /// A sound snapshot of the cluster, where the stage has one.
    snapshot: Option<&'a Path>,
}

impl Scene<'_> {
    fn profile(&self) -> PathBuf {
        self.folder.join("cluster").join(self.cluster).with_extension("yaml")
    }

    fn site(&self) -> PathBuf {
        self.folder.join("cluster/site.yaml")
    }

    fn secrets(&self) -> PathBuf {
        self.folder.join("cluster").join(self.cluster).join("secrets.yaml")
    }

    /// Changes a VM, or makes it from an empty one.
    fn vm(&self, vmid: u32, change: impl FnOnce(&mut Vm)) {
        let mut state = self.world.state();
        let vm = state.vms.entry(vmid).or_insert_with(|| Vm { node: "pve1".to_owned(), ..Vm::default() });
        change(vm);
    }

    /// A VM of somebody else.
    fn stranger(&self, vmid: u32, name: &str, tags: &str) {
        self.vm(vmid, |vm| {
            let config = [("name", name), ("tags", tags), ("cores", "1"), ("memory", "512")];
            vm.config = config.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        });
    }

    fn storage_option(&self, storage: &str, key: &str, value: Value) {
        self.world.state().storages.get_mut(storage).unwrap().options.insert(key.to_owned(), value);
    }

    /// The image as the factory keeps it, once somebody asked for it.
    fn image(&self) -> PathBuf {
        let files = fs::read_dir(self.world.dir().join("factory/images")).unwrap();
        let mut files = files.map(|file| file.unwrap().path());
        files.find(|path| path.to_string_lossy().ends_with("v1.13.9.raw.xz")).expect("the factory made the image")
    }
}

fn set(vm: &mut Vm, key: &str, value: &str) {
    vm.config.insert(key.to_owned(), value.to_owned());
}

fn replace(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{} has no {from}", path.display());
    fs::write(path, text.replacen(from, to, 1)).unwrap();
}

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

/// Changes the site, which is JSON in a rehearsal.
fn edit_site(scene: &Scene<'_>, change: impl FnOnce(&mut Value)) {
    let mut site: Value = serde_json::from_str(&fs::read_to_string(scene.site()).unwrap()).unwrap();
    change(&mut site);
    fs::write(scene.site(), site.to_string()).unwrap();
}

const CASES: &[Case] = &[
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
        spoil: Spoil::Asked(&["rebuild", "--to", "1.13.99", "--fresh", "--confirm", "single", "-o", "json"]),
        phase: "check",
        code: 4,
        words: &["Talos 1.13.99 can't be had", "it has", "1.13.9"],
    },
    Case {
        name: "no such extension",
        spoil: Spoil::Asked(&[
            "rebuild",
            "--to",
            "1.13.9",
            "--kubernetes",
            "1.35.0",
            "--extensions",
            "siderolabs/qemu-guest-agnet",
            "--fresh",
            "--confirm",
            "single",
            "-o",
            "json",
        ]),
        phase: "check",
        code: 4,
        words: &[
            "Talos 1.13.9 has no extension siderolabs/qemu-guest-agnet",
            "did you mean siderolabs/qemu-guest-agent?",
        ],
    },
    Case {
        name: "Kubernetes out of range",
        spoil: Spoil::Asked(&[
            "rebuild",
            "--to",
            "1.13.9",
            "--kubernetes",
            "1.37.0",
            "--fresh",
            "--confirm",
            "single",
            "-o",
            "json",
        ]),
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
        spoil: Spoil::Asked(&[
            "rebuild",
            "--to",
            "1.13.9",
            "--kubernetes",
            "1.35.0",
            "--fresh",
            "--destroy-disk",
            "1100:scsi7",
            "--confirm",
            "single",
            "-o",
            "json",
        ]),
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
        spoil: Spoil::Asked(&[
            "rebuild",
            "--to",
            "1.13.9",
            "--kubernetes",
            "1.35.0",
            "--fresh",
            "--confirm",
            "lab",
            "-o",
            "json",
        ]),
        phase: "check",
        code: 4,
        words: &["--confirm names lab, and this is cluster single", "nothing was touched"],
    },
    Case {
        name: "no confirmation",
        spoil: Spoil::Asked(&["rebuild", "--to", "1.13.9", "--kubernetes", "1.35.0", "--fresh", "-o", "json"]),
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

/// The double, and what all cases share.
struct Stage {
    rehearsal: Rehearsal,
    cluster: &'static str,
    /// What every case asks for, unless it says otherwise.
    asked: &'static [&'static str],
    snapshot: Option<PathBuf>,
    other_secrets: String,
    /// Cases that spoil the world have it for themselves.
    turn: RwLock<()>,
}

impl Stage {
    fn world(&self) -> &World {
        self.rehearsal.double().world()
    }

    /// Copies of the files for a case, in a folder of its own.
    fn scene(&self, folder: &Path) -> Scene<'_> {
        copy(self.rehearsal.profile().parent().unwrap(), &folder.join("cluster"));
        Scene {
            folder: folder.to_owned(),
            world: self.world(),
            cluster: self.cluster,
            other_secrets: &self.other_secrets,
            snapshot: self.snapshot.as_deref(),
        }
    }

    /// Plays all cases that are asked for; what was wrong with them.
    fn play_all(&self, cases: &'static [Case]) -> Vec<String> {
        // For whoever works on one case: a part of its name.
        let only = std::env::var("RECAST_TEST_CASE").unwrap_or_default();
        let left = Mutex::new(cases.iter().filter(|case| case.name.contains(&only)));
        let failed = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    loop {
                        let Some(case) = left.lock().unwrap().next() else { return };
                        if let Err(why) = self.play(case) {
                            failed.lock().unwrap().push(why);
                        }
                    }
                });
            }
        });
        failed.into_inner().unwrap()
    }

    /// Runs a case and answers with everything that was not as it must be.
    fn play(&self, case: &Case) -> Result<(), String> {
        let folder = tempfile::tempdir().unwrap();
        let scene = self.scene(folder.path());
        let (_alone, _together);
        let mut asked = self.asked;
        let mut restored = None;
        let mut spoiled = None;
        match case.spoil {
            Spoil::Files(spoil) => {
                _together = self.turn.read().unwrap();
                spoil(&scene);
            }
            Spoil::Asked(instead) => {
                _together = self.turn.read().unwrap();
                asked = instead;
            }
            Spoil::Restored(file) => {
                _together = self.turn.read().unwrap();
                restored = Some(file(&scene).display().to_string());
            }
            Spoil::World(spoil) => {
                _alone = self.turn.write().unwrap();
                let image = scene.image();
                spoiled =
                    Some((serde_json::to_value(&*self.world().state()).unwrap(), fs::read(&image).unwrap(), image));
                spoil(&scene);
            }
        }
        let before = picture(self.world());
        let mut words = asked.to_vec();
        words.extend(restored.iter().flat_map(|file| ["--restore", file.as_str()]));
        if case.code == 2 {
            words.push("--dry-run");
        }
        let output = recast(&scene, &words);
        let touched = before != picture(self.world());
        if let Some((state, image, path)) = spoiled {
            *self.world().state() = serde_json::from_value(state).unwrap();
            fs::write(path, image).unwrap();
        }
        judge(case, &output, touched)
    }
}

/// What of the world nobody may have changed.
fn picture(world: &World) -> Value {
    let mut state = serde_json::to_value(&*world.state()).unwrap();
    state.as_object_mut().unwrap().remove("rng");
    for vm in state["vms"].as_object_mut().unwrap().values_mut() {
        vm.as_object_mut().unwrap().remove("seen");
    }
    state
}

/// What is wrong with where a command stopped, and with what code, by its exit and its document.
fn misplaced(output: &Output, phase: &str, code: i32) -> Vec<String> {
    let mut wrong = Vec::new();
    if output.status.code() != Some(code) {
        wrong.push(format!("the exit code is {:?}, not {code}", output.status.code()));
    }
    match serde_json::from_slice::<Value>(&output.stdout) {
        Ok(document) => {
            let last = document["phases"].as_array().and_then(|phases| phases.last());
            let stopped = last.and_then(|last| last["name"].as_str()).unwrap_or("check");
            if stopped != phase {
                wrong.push(format!("it stopped in phase {stopped}, not {phase}"));
            }
        }
        Err(error) => wrong.push(format!("there is no document: {error}")),
    }
    wrong
}

fn judge(case: &Case, output: &Output, touched: bool) -> Result<(), String> {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let stdout = String::from_utf8_lossy(&output.stdout);
    let mut wrong = Vec::new();
    let mut must = |holds: bool, what: String| {
        if !holds {
            wrong.push(what);
        }
    };
    for what in misplaced(output, case.phase, case.code) {
        must(false, what);
    }
    must(!touched, "the world was changed".to_owned());
    let document: Value = serde_json::from_str(&stdout).unwrap_or_default();
    let outcome = match case.code {
        2 => "pending",
        3 => "invalid",
        _ => "refused",
    };
    must(document["outcome"] == outcome, format!("the outcome is {}, not {outcome}", document["outcome"]));
    let problems: Vec<&Value> = document["problems"].as_array().map(|all| all.iter().collect()).unwrap_or_default();
    let flaws = match case.name {
        "several flaws at once" => 3,
        // Besides living there, nothing answers there yet; and where `sops` is missing, so is `flux`.
        "registry in the cluster" | "no sops" => 2,
        // All that the double serves is at one address.
        "Proxmox VE in the cluster" => problems.len().max(1),
        _ => 1,
    };
    must(problems.len() == flaws, format!("there are {} problems, not {flaws}", problems.len()));
    let hints = problems.iter().all(|problem| problem["hints"].as_array().is_some_and(|hints| !hints.is_empty()));
    must(hints, "there is no hint".to_owned());
    let told: String = problems
        .iter()
        .map(|problem| {
            let texts = |key: &str| -> Vec<&str> {
                problem[key].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
            };
            let place = problem["where"].as_str().map(|place| format!("{place}: ")).unwrap_or_default();
            let what = format!("{place}{}", problem["what"].as_str().unwrap_or_default());
            [what, texts("causes").join("\n"), texts("hints").join("\n")].join("\n")
        })
        .collect::<Vec<_>>()
        .join("\n");
    for word in case.words {
        must(told.contains(word), format!("the document does not say “{word}”"));
        must(flat(&stderr).contains(&flat(word)), format!("stderr does not say “{word}”"));
    }
    if wrong.is_empty() {
        return Ok(());
    }
    Err(format!("== {}: {}\nstderr:\n{stderr}\nproblems:\n{:#}", case.name, wrong.join("; "), document["problems"]))
}

/// Text without its line breaks.
fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The program with a home of its own, and nobody at the terminal.
fn recast(scene: &Scene<'_>, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_recast"))
        .args(words)
        .args(["--profile".as_ref(), scene.profile().as_os_str()])
        .env_clear()
        .env("HOME", scene.folder.join("home"))
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// Every request that could have changed anything, once the double has written down all that it answered.
fn mutating(stage: &Stage) -> Vec<String> {
    let answered = usize::try_from(stage.rehearsal.double().requests()).unwrap();
    let since = Instant::now();
    loop {
        let text = fs::read_to_string(stage.world().dir().join("requests.jsonl")).unwrap();
        let requests = text.lines().filter_map(|line| serde_json::from_str(line).ok());
        let requests: Vec<Value> = requests.filter(|request: &Value| request["service"] == "pve").collect();
        if requests.len() >= answered {
            let changing = requests.iter().filter(|request| request["method"] != "GET");
            return changing.map(|request| format!("{} {}", request["method"], request["path"])).collect();
        }
        assert!(since.elapsed() < Duration::from_secs(10), "{} of {answered} requests are logged", requests.len());
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn bad_input_is_refused_before_anything_is_touched() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let order = Order {
        profile: Path::new(env!("CARGO_MANIFEST_DIR")).join("profiles/single.yaml"),
        site: None,
        contents: Contents::Running,
        asked: vec!["1.13.9".parse().unwrap()],
        time_scale: 20.0,
        rng_seed: 31,
        scenario: None,
        inventory: None,
    };
    let now = Timestamp::now();
    let contract = Contract::of(&"1.12.4".parse().unwrap()).unwrap();
    let other = std::thread::spawn(move || Secrets::generate(contract, now).unwrap().to_yaml());
    let rehearsal = runtime.block_on(start(order)).unwrap();
    let other_secrets = other.join().unwrap().expose_secret().to_owned();
    let turn = RwLock::new(());
    let stage = Stage { rehearsal, cluster: "single", asked: ASKED, snapshot: None, other_secrets, turn };

    // Nothing is spoiled: the same request would be carried out, so whatever is refused below is refused for its flaw.
    let folder = tempfile::tempdir().unwrap();
    let scene = stage.scene(folder.path());
    let output = recast(&scene, &[ASKED, &["--dry-run"]].concat());
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));

    let failed = stage.play_all(CASES);
    assert_eq!(mutating(&stage), Vec::<String>::new());
    assert!(stage.rehearsal.double().audit().deeds().is_empty(), "{:?}", stage.rehearsal.double().audit().deeds());
    runtime.block_on(stage.rehearsal.stop());
    assert!(failed.is_empty(), "{} of {} cases:\n{}", failed.len(), CASES.len(), failed.join("\n"));
}
