//! Bad input: each ends in one clear refusal before anything is touched.
//!
//! A table of what is spoiled and what must be said. The program runs as people run it, against one double for all
//! cases; what a case spoils in its files is its own, what it spoils in the world is put back, and nobody else looks
//! meanwhile. Start reading at [`CASES`]; what only a rebuild that keeps its data can be refused for is in `keeping.rs`.

mod cases;
mod keeping;
mod stage;
mod untouched;
mod verdict;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::RwLock;

use jiff::Timestamp;
use mock_pve::world::World;
use mock_pve::world::state::Vm;
use secrecy::ExposeSecret as _;
use serde_json::Value;

use recast::cli::rehearse::{Contents, Order, start};
use recast::talos::config::Contract;
use recast::talos::secrets::Secrets;

use cases::CASES;
use stage::{Stage, mutating, recast};
use verdict::{flat, misplaced};

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
    /// What the stage asks for: these flags with another value, or without any, not at all.
    Asked(&'static [(&'static str, Option<&'static str>)]),
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

/// Changes the site, which is JSON in a rehearsal.
fn edit_site(scene: &Scene<'_>, change: impl FnOnce(&mut Value)) {
    let mut site: Value = serde_json::from_str(&fs::read_to_string(scene.site()).unwrap()).unwrap();
    change(&mut site);
    fs::write(scene.site(), site.to_string()).unwrap();
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
