//! Where cases are played: the double, and what is the same before and after each.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, RwLock};
use std::time::{Duration, Instant};

use mock_pve::world::World;
use serde_json::Value;

use recast::cli::rehearse::Rehearsal;

use super::verdict::judge;
use super::{Case, Scene, Spoil};

/// The double, and what all cases share.
pub(super) struct Stage {
    pub(super) rehearsal: Rehearsal,
    pub(super) cluster: &'static str,
    /// What every case asks for, unless it says otherwise.
    pub(super) asked: &'static [&'static str],
    pub(super) snapshot: Option<PathBuf>,
    pub(super) other_secrets: String,
    /// Cases that spoil the world have it for themselves.
    pub(super) turn: RwLock<()>,
}

impl Stage {
    pub(super) fn world(&self) -> &World {
        self.rehearsal.double().world()
    }

    /// Copies of the files for a case, in a folder of its own.
    pub(super) fn scene(&self, folder: &Path) -> Scene<'_> {
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
    pub(super) fn play_all(&self, cases: &'static [Case]) -> Vec<String> {
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
        let mut restored = None;
        let mut words = self.asked.to_vec();
        let mut spoiled = None;
        match case.spoil {
            Spoil::Files(spoil) => {
                _together = self.turn.read().unwrap();
                spoil(&scene);
            }
            Spoil::Asked(flags) => {
                _together = self.turn.read().unwrap();
                for (flag, value) in flags {
                    ask(&mut words, flag, *value);
                }
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

/// Gives a flag that takes a value another one, or takes it away.
fn ask<'a>(words: &mut Vec<&'a str>, flag: &'a str, value: Option<&'a str>) {
    if let Some(at) = words.iter().position(|word| *word == flag) {
        words.drain(at..at + 2);
    }
    words.extend(value.iter().flat_map(|value| [flag, *value]));
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

/// The program with a home of its own, and nobody at the terminal.
pub(super) fn recast(scene: &Scene<'_>, words: &[&str]) -> Output {
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
pub(super) fn mutating(stage: &Stage) -> Vec<String> {
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
