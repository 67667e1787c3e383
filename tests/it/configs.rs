//! What the real generator answered, case by case, against ours (tests/fixtures/talos-configs).

use std::fs;
use std::path::{Path, PathBuf};

use recast::talos::config::yaml::{Value, read};
use recast::talos::config::{Config, Contract, Input, LegacyEncryption, Patch, Switch, generate};
use recast::talos::secrets::Secrets;
use recast::types::Role;
use secrecy::{ExposeSecret as _, SecretString};

use crate::site::program;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/talos-configs")
}

/// A moment at which the committed bundles are valid, whatever the clock of this machine says.
fn then() -> jiff::Timestamp {
    "2026-12-01T00:00:00Z".parse().unwrap()
}

#[derive(serde::Deserialize)]
struct Case {
    id: String,
    command: String,
    args: Vec<String>,
    refused: bool,
    #[serde(default)]
    outputs: Option<Vec<String>>,
}

fn cases(command: &str) -> Vec<(PathBuf, Case)> {
    let mut found: Vec<(PathBuf, Case)> = fs::read_dir(fixtures().join("cases"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|dir| (dir.clone(), serde_json::from_str(&fs::read_to_string(dir.join("case.json")).unwrap()).unwrap()))
        .filter(|(_, case): &(_, Case)| case.command == command)
        .collect();
    found.sort_by(|a, b| a.1.id.cmp(&b.1.id));
    assert!(!found.is_empty(), "no cases of {command}");
    found
}

/// The arguments of `gen config`, as far as the cases use them.
#[derive(Default)]
struct Args {
    positional: Vec<String>,
    flags: Vec<(String, String)>,
}

impl Args {
    fn parse(args: &[String]) -> Self {
        let mut parsed = Self::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            if let Some((name, value)) = arg.strip_prefix("--").and_then(|flag| flag.split_once('=')) {
                parsed.flags.push((name.into(), value.into()));
            } else if arg == "--with-kubespan" {
                parsed.flags.push(("with-kubespan".into(), "true".into()));
            } else if let Some(name) = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-')) {
                parsed.flags.push((name.into(), args.next().unwrap().clone()));
            } else {
                parsed.positional.push(arg.clone());
            }
        }
        parsed
    }

    fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.flags.iter().filter(move |(flag, _)| flag == name).map(|(_, value)| value.as_str())
    }

    fn last(&self, name: &str) -> Option<&str> {
        self.all(name).last()
    }

    fn input(&self) -> Result<Input, String> {
        if self.last("version").is_some_and(|version| version != "v1alpha1") {
            return Err("unknown config version".into());
        }
        let contract = self.last("talos-version").map_or(Ok(Contract::NEWEST), str::parse::<Contract>);
        let kubernetes = self.last("kubernetes-version").unwrap_or("1.37.0");
        let mut input = Input::new(
            &self.positional[0],
            &self.positional[1],
            contract.map_err(|error| error.to_string())?,
            kubernetes,
        )
        .map_err(|error| error.to_string())?;
        input.legacy_encryption = LegacyEncryption::AsGenerator;
        input.install_image = self.last("install-image").map(str::to_owned);
        if let Some(disk) = self.last("install-disk") {
            input.install_disk = (!disk.is_empty()).then(|| disk.to_owned());
        }
        input.extra_sans = self.all("additional-sans").flat_map(|names| names.split(',')).map(str::to_owned).collect();
        if let Some(domain) = self.last("dns-domain") {
            domain.clone_into(&mut input.dns_domain);
        }
        let switch = |value: &str| if value == "true" { Switch::On } else { Switch::Off };
        if let Some(value) = self.last("with-cluster-discovery") {
            input.discovery = switch(value);
        }
        if let Some(value) = self.last("with-kubespan") {
            input.kubespan = switch(value);
        }
        for mirror in self.all("registry-mirror") {
            input.add_mirror(mirror).map_err(|error| error.to_string())?;
        }
        Ok(input)
    }
}

/// What `gen config` gives for a case: by output name.
fn answer(dir: &Path, case: &Case) -> Result<Vec<(&'static str, SecretString)>, String> {
    let args = Args::parse(&case.args);
    let input = args.input()?;
    let bundle = fs::read_to_string(dir.join(args.last("with-secrets").unwrap())).unwrap();
    let secrets = Secrets::load(&bundle, then()).map_err(|error| error.to_string())?;
    let mut patches = Vec::new();
    for (flag, only) in [
        ("config-patch", None),
        ("config-patch-control-plane", Some(Role::ControlPlane)),
        ("config-patch-worker", Some(Role::Worker)),
    ] {
        for given in args.all(flag) {
            let text = match given.strip_prefix('@') {
                Some(file) => fs::read_to_string(dir.join(file)).unwrap(),
                None => given.to_owned(),
            };
            patches.push((only, Patch::parse(&text, given).map_err(|error| words(&error))?));
        }
    }
    [("controlplane", Role::ControlPlane), ("worker", Role::Worker)]
        .into_iter()
        .map(|(name, role)| {
            let mut config = generate(&secrets, &input, role);
            for (_, patch) in patches.iter().filter(|(only, _)| only.is_none_or(|only| only == role)) {
                config.apply(patch).map_err(|error| words(&error))?;
            }
            Ok((name, config.settled().map_err(|error| words(&error))?))
        })
        .collect()
}

/// An error with its causes.
fn words(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Where two documents first differ. Never the values: they may be secrets.
fn difference(expected: &Value, given: &Value, path: &str) -> Option<String> {
    match (expected, given) {
        (Value::Map(expected), Value::Map(given)) => {
            for (key, value) in expected.iter() {
                let path = format!("{path}/{key}");
                match given.get(key) {
                    None => return Some(format!("{path} is missing")),
                    Some(other) => {
                        if let Some(found) = difference(value, other, &path) {
                            return Some(found);
                        }
                    }
                }
            }
            given.keys().find(|key| expected.get(key).is_none()).map(|key| format!("{path}/{key} is too much"))
        }
        (Value::List(expected), Value::List(given)) if expected.len() == given.len() => expected
            .iter()
            .zip(given)
            .enumerate()
            .find_map(|(at, (expected, given))| difference(expected, given, &format!("{path}[{at}]"))),
        _ if expected == given => None,
        _ => Some(format!("{path}: {} differs from {}", given.kind(), expected.kind())),
    }
}

fn compare(expected: &str, given: &str) -> Option<String> {
    let documents = |text: &str| -> Value {
        Value::List(read(text).unwrap().iter().map(|document| document.root.without_nulls()).collect())
    };
    difference(&documents(expected), &documents(given), "")
}

#[derive(Default)]
struct Tally {
    total: usize,
    files: usize,
    same: usize,
    /// Files that differ in form only.
    other: Vec<String>,
    wrong: Vec<String>,
}

fn run(wanted: impl Fn(&Case) -> bool) -> Tally {
    let mut tally = Tally::default();
    for (dir, case) in cases("generate") {
        if wanted(&case) {
            tally.total += 1;
            if let Err(why) = run_one(&dir, &case, &mut tally) {
                tally.wrong.push(format!("{}: {why}", case.id));
            }
        }
    }
    tally
}

fn run_one(dir: &Path, case: &Case, tally: &mut Tally) -> Result<(), String> {
    let answer = answer(dir, case);
    if case.refused {
        return if answer.is_err() { Ok(()) } else { Err("accepted".into()) };
    }
    let configs = answer?;
    let mut found = None;
    for output in case.outputs.iter().flatten() {
        let name = if output == "out" { "controlplane" } else { output.trim_end_matches(".yaml") };
        let config = &configs.iter().find(|(role, _)| *role == name).unwrap().1;
        let expected = fs::read_to_string(dir.join("expected").join(output)).unwrap();
        let given = config;
        tally.files += 1;
        if given.expose_secret() == expected {
            tally.same += 1;
        } else {
            tally.other.push(format!("{}/{output}", case.id));
        }
        found = found.or(compare(&expected, given.expose_secret()).map(|found| format!("{output}: {found}")));
    }
    found.map_or(Ok(()), Err)
}

fn is_patched(case: &Case) -> bool {
    case.args.iter().any(|arg| arg.starts_with("--config-patch"))
}

#[test]
fn generated_configs_equal_those_of_the_real_generator() {
    let Tally { total, files, same, other, wrong } = run(|case| !is_patched(case));
    println!("generate: {} of {total} equal; {same} of {files} files byte for byte", total - wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(other.is_empty(), "files that differ in form only: {other:?}");
}

#[test]
fn patched_configs_equal_those_of_the_real_generator() {
    let Tally { total, files, same, other, wrong } = run(is_patched);
    println!("patched: {} of {total} equal; {same} of {files} files byte for byte", total - wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(other.is_empty(), "files that differ in form only: {other:?}");
}

#[test]
fn patched_files_equal_those_of_the_real_tool() {
    let mut total = 0;
    for (dir, case) in cases("patch") {
        let args = Args::parse(&case.args);
        let mut config = Config::parse(&fs::read_to_string(dir.join(&args.positional[0])).unwrap()).unwrap();
        let mut sorted = false;
        for given in args.all("p") {
            let text = fs::read_to_string(dir.join(given.strip_prefix('@').unwrap())).unwrap();
            let patch = Patch::parse(&text, given).unwrap();
            sorted = patch.is_json();
            config.apply(&patch).unwrap();
        }
        let expected = fs::read_to_string(dir.join("expected").join(args.last("o").unwrap())).unwrap();
        let given = if sorted { config.to_sorted_yaml() } else { config.to_yaml() };
        assert_eq!(compare(&expected, given.expose_secret()), None, "{}", case.id);
        assert!(given.expose_secret() == expected, "{}: not byte for byte", case.id);
        total += 1;
    }
    println!("patch: {total} of {total} equal, byte for byte");
}

#[test]
fn secrets_from_control_planes_equal_those_of_the_real_generator() {
    let mut total = 0;
    for (dir, case) in cases("secrets") {
        total += 1;
        let config = fs::read_to_string(dir.join("in.yaml")).unwrap();
        let secrets = Secrets::from_machine_config(&config, then()).unwrap();
        let expected = fs::read_to_string(dir.join("expected/out.yaml")).unwrap();
        assert_eq!(compare(&expected, secrets.to_yaml().expose_secret()), None, "{}", case.id);
        assert!(secrets.to_yaml().expose_secret() == expected, "{}: not byte for byte", case.id);
    }
    println!("secrets: {total} of {total} equal");
}

/// The program itself, with talosctl's arguments, on every case: the files it writes, and what it refuses.
#[test]
fn the_program_takes_talosctls_place_in_every_case() {
    let place = tempfile::tempdir().unwrap();
    let secrets = place.path().join("secrets");
    fs::create_dir_all(&secrets).unwrap();
    for bundle in fs::read_dir(fixtures().join("secrets")).unwrap().map(|entry| entry.unwrap().path()) {
        fs::copy(&bundle, secrets.join(bundle.file_name().unwrap())).unwrap();
    }
    let (mut total, mut wrong) = (0, Vec::new());
    for (words, command) in [
        (["config", "generate"], "generate"),
        (["config", "patch"], "patch"),
        (["config", "validate"], "validate"),
        (["secrets", "generate"], "secrets"),
    ] {
        for (dir, case) in cases(command) {
            total += 1;
            let work = place.path().join("cases").join(&case.id);
            fs::create_dir_all(&work).unwrap();
            for input in fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()) {
                fs::copy(&input, work.join(input.file_name().unwrap())).unwrap();
            }
            let output = program(place.path()).current_dir(&work).args(words).args(&case.args).output().unwrap();
            let told = String::from_utf8_lossy(&output.stderr);
            let as_expected = if case.refused {
                output.status.code() == Some(3) && !told.is_empty() && !told.contains("unexpected argument")
            } else {
                let single = |name: &str| {
                    if command == "generate" && name != "out" { work.join("out").join(name) } else { work.join(name) }
                };
                output.status.success()
                    && case
                        .outputs
                        .iter()
                        .flatten()
                        .all(|name| fs::read(single(name)).ok() == fs::read(dir.join("expected").join(name)).ok())
            };
            if !as_expected {
                wrong.push(format!("{}: {:?} {told}", case.id, output.status.code()));
            }
        }
    }
    println!("program: {} of {total} equal, byte for byte", total - wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
