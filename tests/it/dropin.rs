//! `recast config generate` and `secrets generate` beside the real talosctl: the same words are taken or refused, and the same
//! files come of them. Where the two differ on purpose (src/cli/dropin/mod.rs lists it) is here as well.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::site::{program, repository};

const ENDPOINT: &str = "https://10.0.0.10:6443";

/// What every case begins with, so that both programs make the same.
const FIXED: [&str; 10] = [
    "--with-secrets",
    "s.yaml",
    "--with-docs=false",
    "--with-examples=false",
    "--install-image",
    "i:v1",
    "--kubernetes-version",
    "1.30.1",
    "--talos-version",
    "v1.13",
];

fn bundle(name: &str) -> String {
    fs::read_to_string(repository().join(format!("tests/fixtures/talos-configs/secrets/{name}.yaml"))).unwrap()
}

/// A place with the inputs that cases name.
fn place() -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("s.yaml"), bundle("rsa")).unwrap();
    fs::write(place.path().join("a.yaml"), bundle("aescbc")).unwrap();
    fs::write(place.path().join("p.yaml"), "debug: true\n").unwrap();
    place
}

/// Every file but the inputs, certificates of a talosconfig masked.
fn made(place: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![place.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            let name = path.strip_prefix(place).unwrap().display().to_string();
            if path.is_dir() {
                folders.push(path);
            } else if !["s.yaml", "a.yaml", "p.yaml"].contains(&name.as_str()) {
                found.insert(name, masked(&fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found
}

fn masked(text: &str) -> String {
    // Several outputs may be one text.
    let mut in_talosconfig = false;
    let mut masked = |line: &str| {
        in_talosconfig |= line.starts_with("context:");
        match line.trim_start().split_once(": ") {
            Some((key @ ("crt" | "key"), _)) if in_talosconfig => format!("{key}: X\n"),
            _ => format!("{line}\n"),
        }
    };
    text.lines().map(&mut masked).collect()
}

fn theirs(talosctl: &Path, place: &Path) -> Command {
    let mut command = Command::new(talosctl);
    command.env_clear().env("HOME", place).arg("gen");
    command
}

fn run(mut command: Command, place: &Path, words: &[&str]) -> Output {
    command.args(words).current_dir(place).output().unwrap()
}

/// Both programs on one case, each in a place that `prepare` has made: whether they end alike and leave the same.
fn differ(talosctl: &Path, group: &str, words: &[&str], prepare: impl Fn(&Path)) -> Option<String> {
    let (one, two) = (place(), place());
    prepare(one.path());
    prepare(two.path());
    let real = run(theirs(talosctl, one.path()), one.path(), &[&[group][..], words].concat());
    let ours = run(program(two.path()), two.path(), &[&[group, "generate"][..], words].concat());
    let told = String::from_utf8_lossy(&ours.stderr);
    if real.status.success() != ours.status.success() {
        let said = String::from_utf8_lossy(&real.stderr);
        return Some(format!("{words:?}: they end with {}, we with {}: {said} {told}", real.status, ours.status));
    }
    let out = |output: &Output| masked(&String::from_utf8_lossy(&output.stdout));
    // Each program has a help of its own.
    let help = words.iter().any(|word| word.starts_with("-h") || word.starts_with("--help") || *word == "-fh");
    if !help && out(&real) != out(&ours) {
        return Some(format!("{words:?}: stdout differs"));
    }
    (made(one.path()) != made(two.path())).then(|| format!("{words:?}: files differ: {told}"))
}

fn all_alike<'a>(cases: impl IntoIterator<Item = Vec<&'a str>>) {
    let Some(talosctl) = real_parts::client("talosctl") else { return };
    let wrong: Vec<String> =
        cases.into_iter().filter_map(|words| differ(&talosctl, "config", &words, |_| {})).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A name and an endpoint, what every case has, and more.
fn with<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["lab", ENDPOINT][..], &FIXED[..], more].concat()
}

#[test]
fn endpoints_and_names_are_taken_and_written_alike() {
    let endpoints = "https://10.0.0.10 HTTPS://H.x:6443/ https://u:p:w@h https://@h https://h?q#f https://h? https://h# \
                     https://h/a%2fb https://h/ü https://h/%zz https://ünï.org:6443 https://h%C3%BC https://h%41 https://[::1] \
                     https://[fe80::1%25eth0]:6443 https://[fe80::1%eth0] https://[10.0.0.1] https://[::1 https://::1 \
                     https://h:99999 https://h:0 https://h: https://:6443 https:///x https:/h https:h 10.0.0.10:6443 h h:6443 \
                     http://h //h:6443 https://h:x https://a\"b https://a<b>c https://a|b https://a@b@c * :";
    let spaced =
        ["", " https://h", "https://h ", "https://h/a b", "https://a b", "https://h\n", "https://h/?a=b c&d=ü"];
    let endpoints = endpoints.split_whitespace().chain(spaced);
    let given = |endpoint| [&["lab", endpoint][..], &FIXED[..], &["-t", "controlplane", "-o", "out.yaml"]].concat();
    let older = |endpoint| [given(endpoint), vec!["--talos-version", "1.11"]].concat();
    let names = ["", "A b", "läb", "1", "true", "~", "a: b", "o'n", " x", "-", "\u{1f600}"];
    let named = names.map(|name| [&[name, ENDPOINT][..], &FIXED[..], &["-o", "out"]].concat());
    all_alike(endpoints.flat_map(|endpoint| [given(endpoint), older(endpoint)]).chain(named));
}

#[test]
fn lists_are_split_alike() {
    let words = [
        "",
        ",",
        "a,,b",
        "a, b",
        "\"a,b\"",
        "\"a\"\"b\"",
        "a\"b",
        "\"a",
        "\"a\"b",
        "\"\"",
        "\"",
        "a\nb",
        "\"a\nb\"",
        "\n",
        "a\r\n",
        "'a,b'",
        "- a",
        "10.0.0.10,10.0.0.10",
        "true,null",
        "ü",
    ];
    let names =
        words.map(|word| with(&["--additional-sans", word, "--additional-sans=z", "-t", "worker", "-o", "out.yaml"]));
    let mirrors = [
        "docker.io",
        "docker.io=",
        "=https://x",
        "docker.io=https://",
        "a=https://1,b=https://2,a=https://3",
        "\"a=https://b,c\"",
        "a=127.0.0.1:5000",
        "a=h:x",
        "a=https://ü",
        "*=https://x",
        "a=//h",
        "",
        "a=",
    ];
    let mirrors = mirrors.into_iter().flat_map(|mirror| {
        ["1.11", "1.12"].map(|version| with(&["--registry-mirror", mirror, "--talos-version", version, "-o", "out"]))
    });
    let kinds = [
        "worker",
        "worker,controlplane",
        "worker,worker",
        "\"worker\"",
        "worker\ncontrolplane",
        "",
        "Worker",
        "all",
        "worker,",
        "talosconfig",
        "\"worker",
    ];
    let kinds = kinds.map(|kinds| with(&["-t", kinds, "-o", "out"]));
    all_alike(names.into_iter().chain(mirrors).chain(kinds));
}

#[test]
fn flags_and_versions_are_read_alike() {
    let lines = "--with-kubespan=T|--with-kubespan=yes|--with-kubespan=|--with-kubespan true|--with-kubespan --with-kubespan=0|\
                 --force=false|--force=2|-f=true|-f=|-ff|-ft worker|-tf|-tworker|-t=worker|-t=|--install-disk --force|\
                 --install-disk=|--install-disk==x|--dns-domain|--dns-domain a --dns-domain b|--nope|--talos 1.13|-x|-hx|-h -f=x|---x|--=x|extra|\
                 -- extra|--|-h|-h --nope|--nope -h|-fh|--help=false|--version v1beta1|--version=|--talos-version v1.13.x|\
                 --talos-version 1.13-alpha|--talos-version 1|--talos-version vv1.13|--talos-version junk|\
                 --kubernetes-version v1.31.0|--kubernetes-version=|--kubernetes-version junk|--install-image=|--with-secrets nofile|\
                 --config-patch p.yaml|--config-patch @p.yaml|--config-patch @nofile|--config-patch=|--config-patch {\"debug\":true}|\
                 --config-patch-worker p.yaml|--config-patch-worker nofile";
    let flags = lines.split('|').map(|line| with(&[line.split(' ').collect(), vec!["-o", "out"]].concat()));
    let bare = [vec![], vec!["lab"], vec!["-h"], vec!["--nope", "-h"]];
    let first =
        [[&["-f", "lab", ENDPOINT][..], &FIXED[..]].concat(), [&["--", "lab", ENDPOINT][..], &FIXED[..]].concat()];
    all_alike(flags.chain(bare).chain(first));
}

#[test]
fn talos_from_before_the_first_that_is_built_is_written_alike() {
    let versions = ["v0.8", "0.14.3", "v1.0", "1.1", "1.2.8", "1.3", "v1.4"];
    let more = [
        "",
        "--with-secrets a.yaml",
        "--with-kubespan --registry-mirror k8s.gcr.io=https://m --registry-mirror b=https://m",
    ];
    let given = |version, more: &'static str| {
        with(&[vec!["--talos-version", version, "-o", "out"], more.split_whitespace().collect()].concat())
    };
    all_alike(versions.into_iter().flat_map(|version| more.map(|more| given(version, more))));
}

/// A bundle's values are new each time, its keys are not.
#[test]
fn bundles_have_the_same_keys_for_each_talos() {
    let Some(talosctl) = real_parts::client("talosctl") else { return };
    for version in ["0.8", "1.2", "1.3", "1.4", "1.6"] {
        let (one, two) = (place(), place());
        let words = ["--talos-version", version, "-o", "-"];
        let real = run(theirs(&talosctl, one.path()), one.path(), &[&["secrets"][..], &words].concat());
        let ours = run(program(two.path()), two.path(), &[&["secrets", "generate"][..], &words].concat());
        let keys = |output: &Output| {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            text.lines().map(|line| line.split(": ").next().unwrap_or_default().to_owned()).collect::<Vec<_>>()
        };
        assert!(ours.status.success() && keys(&real) == keys(&ours), "{version}: {:?} {:?}", keys(&real), keys(&ours));
    }
}

/// Flags before the verb are the verb's, and where they take a value it is the next word.
#[test]
fn flags_may_stand_before_the_verb_as_there() {
    let Some(talosctl) = real_parts::client("talosctl") else { return };
    for (line, behind) in [
        ("-f", "-o out"),
        ("-o out", "-t worker"),
        ("-oout", "-t worker"),
        ("--output out -t worker", ""),
        ("--output=out", ""),
        ("--nope x", "-o out"),
        ("-o", ""),
    ] {
        let (one, two) = (place(), place());
        let before: Vec<&str> = line.split(' ').collect();
        let words = with(&behind.split_whitespace().collect::<Vec<_>>());
        let real = run(theirs(&talosctl, one.path()), one.path(), &[&before[..], &["config"], &words].concat());
        let ours = [&["config"][..], &before, &["generate"], &words].concat();
        let ours = run(program(two.path()), two.path(), &ours);
        let told = String::from_utf8_lossy(&ours.stderr);
        assert_eq!(real.status.success(), ours.status.success(), "{line}: {told}");
        assert!(made(one.path()) == made(two.path()), "{line}: {told}");
    }
}

/// What comes behind the fixed words, and what is in the folder before.
type Prepared = (&'static str, Box<dyn Fn(&Path)>);

#[test]
fn outputs_go_to_the_same_places() {
    let Some(talosctl) = real_parts::client("talosctl") else { return };
    let file = |name: &'static str| move |place: &Path| fs::write(place.join(name), "there\n").unwrap();
    let folder = |place: &Path| fs::create_dir(place.join("out")).unwrap();
    let link = |place: &Path| std::os::unix::fs::symlink("led", place.join("out")).unwrap();
    let nothing = |_: &Path| {};
    let cases: Vec<Prepared> = vec![
        ("", Box::new(nothing)),
        ("-o out", Box::new(nothing)),
        ("-o out", Box::new(folder)),
        ("-o out", Box::new(file("out"))),
        ("-o out/a/b", Box::new(nothing)),
        ("-o out/a", Box::new(file("out"))),
        ("-o out/../x", Box::new(nothing)),
        ("-t worker -o out/../x", Box::new(nothing)),
        ("-o -", Box::new(nothing)),
        ("-o -/", Box::new(nothing)),
        ("-t worker -o -/", Box::new(nothing)),
        ("-t worker -o -", Box::new(nothing)),
        ("-t worker -o=-", Box::new(nothing)),
        ("-t worker", Box::new(nothing)),
        ("-t worker -o out", Box::new(nothing)),
        ("-t worker -o out", Box::new(folder)),
        ("-t worker -o out -f", Box::new(folder)),
        ("-t worker -o out", Box::new(file("out"))),
        ("-t worker -o out -f", Box::new(file("out"))),
        ("-t worker -o out", Box::new(link)),
        ("-t worker -o out -f", Box::new(link)),
        ("-t worker -o out/a/b", Box::new(nothing)),
        ("-t worker,worker -o -", Box::new(nothing)),
        ("-f", Box::new(file("worker.yaml"))),
        ("-t controlplane,worker -o .", Box::new(file("talosconfig"))),
        ("--output-dir out", Box::new(nothing)),
        ("--output-dir out -t worker", Box::new(nothing)),
        ("--output-dir out -t worker", Box::new(file("out"))),
        ("--output-dir out -o out", Box::new(nothing)),
        ("--output-dir out -o=", Box::new(nothing)),
        ("--output-dir= -o out", Box::new(nothing)),
        ("--output-dir - -t worker", Box::new(nothing)),
        ("--output-dir -", Box::new(nothing)),
        ("--output-dir - -t worker,talosconfig", Box::new(nothing)),
    ];
    let mut wrong = Vec::new();
    for (line, prepare) in cases {
        let more: Vec<&str> = line.split_whitespace().collect();
        wrong.extend(differ(&talosctl, "config", &with(&more), prepare));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn patched_configurations_go_to_the_same_places() {
    let Some(talosctl) = real_parts::client("talosctl") else { return };
    let outputs: [&[&str]; 8] =
        [&[], &["-o="], &["-o", ""], &["-oout"], &["-o", "a/b"], &["-o", "a/../b"], &["-o", "a/"], &["-o", "-/"]];
    for more in outputs {
        let (one, two) = (place(), place());
        let words = [&["patch", "p.yaml", "-p", "@p.yaml"][..], more].concat();
        let mut real = Command::new(&talosctl);
        real.env_clear().env("HOME", one.path()).arg("machineconfig");
        let real = run(real, one.path(), &words);
        let ours = run(program(two.path()), two.path(), &[&["config"][..], &words].concat());
        assert_eq!(real.status.success(), ours.status.success(), "{more:?}: {}", String::from_utf8_lossy(&ours.stderr));
        assert!(real.stdout == ours.stdout && made(one.path()) == made(two.path()), "{more:?}");
    }
}

#[test]
fn validations_end_alike_and_errors_leave_the_warnings() {
    let place = place();
    let run_ours = |words: &[&str]| run(program(place.path()), place.path(), &[&["config"][..], words].concat());
    assert!(run_ours(&[&["generate"][..], &with(&["-t", "worker", "-o", "w.yaml"])].concat()).status.success());
    let worker = fs::read_to_string(place.path().join("w.yaml")).unwrap();
    let stable =
        |on: &str| worker.replacen("    features:\n", &format!("    features:\n        stableHostname: {on}\n"), 1);
    let rule = |rest: &str| format!("{worker}---\napiVersion: v1alpha1\nkind: RoutingRuleConfig\n{rest}\n");
    let old = worker.replacen("type: worker", "type: join", 1);
    for (text, mode, is_valid) in [
        (worker.clone(), "-m metal", true),
        (worker.clone(), "-m nocloud -m cloud", true),
        (worker.clone(), "-m Metal", false),
        (stable("false"), "-m metal", true),
        (stable("true"), "-m metal", false),
        (rule("name: '1000'\ntable: main"), "-m cloud", true),
        (rule("name: '1000'\naction: blackhole"), "-m cloud", true),
        (rule("name: '1000'"), "-m cloud", false),
        (rule("name: '1000'\naction: unicast"), "-m cloud", false),
        (rule("name: '32500'\ntable: main"), "-m cloud", false),
        (rule("name: x\ntable: main"), "-m cloud", false),
        (rule("name: '1000'\ntable: main\nfwMask: 1"), "-m cloud", false),
        (old.clone(), "-m metal", true),
        (old.clone(), "-m metal --strict", false),
    ] {
        fs::write(place.path().join("c.yaml"), text).unwrap();
        let words: Vec<&str> = ["validate", "-c", "c.yaml"].into_iter().chain(mode.split(' ')).collect();
        let ours = run_ours(&words);
        let told = String::from_utf8_lossy(&ours.stderr);
        assert_eq!(ours.status.success(), is_valid, "{mode}: {told}");
        if let Some(talosctl) = real_parts::client("talosctl") {
            let mut real = Command::new(talosctl);
            real.env_clear().env("HOME", place.path());
            assert_eq!(run(real, place.path(), &words).status.success(), is_valid, "{mode}: {told}");
        }
    }
    fs::write(place.path().join("c.yaml"), old.replacen("disk: /dev/sda", "disk: ''", 1)).unwrap();
    let both = run_ours(&["validate", "-c", "c.yaml", "-m", "metal"]);
    let told = String::from_utf8_lossy(&both.stderr);
    assert!(!both.status.success() && told.contains("not valid: 1 problem") && told.contains("warning: "), "{told}");
}

/// The first document of a secrets file is read, and what follows it is not.
#[test]
fn secrets_files_are_read_alike() {
    let Some(talosctl) = real_parts::client("talosctl") else { return };
    let text = bundle("rsa");
    let noted = |text: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix("        crt: ")).unwrap();
        let pem = [STANDARD.decode(line).unwrap(), b"\xfc\n".to_vec()].concat();
        text.replacen(line, &STANDARD.encode(pem), 1)
    };
    let files = [
        format!("{text}---\n{{broken\n"),
        format!("{text}...\nx: [\n"),
        format!("{text}---\n\tx\n"),
        format!("---\n---\n{text}"),
        format!("# x\n---\n{text}"),
        format!("null: 1\n{text}"),
        text.replacen("cluster:\n", "cluster:\n    ~: {}\n", 1),
        noted(&text),
    ];
    let wrong: Vec<String> = files
        .iter()
        .filter_map(|text| {
            let words = with(&["--with-secrets", "b.yaml", "-o", "out"]);
            differ(&talosctl, "config", &words, |place| fs::write(place.join("b.yaml"), text).unwrap())
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The secrets of a configuration come back as they are, and where nothing can be made both say so.
#[test]
fn bundles_are_made_of_the_same_inputs() {
    let Some(talosctl) = real_parts::client("talosctl") else { return };
    let inside = |place: &Path| {
        let words = with(&["-t", "controlplane", "-o", "cp.yaml"]);
        let done = run(program(place), place, &[&["config", "generate"][..], &words[..]].concat());
        assert!(done.status.success());
        let text = fs::read_to_string(place.join("cp.yaml")).unwrap();
        fs::write(place.join("twice.yaml"), format!("{text}---\n{text}")).unwrap();
        fs::write(place.join("odd.yaml"), text.replacen("machine:\n", "machine:\n    nope: 1\n", 1)).unwrap();
    };
    let lines = "--from-controlplane-config cp.yaml -o out|--from-controlplane-config cp.yaml -o -|--from-controlplane-config twice.yaml|\
                 --from-controlplane-config odd.yaml|--from-controlplane-config nofile|--from-controlplane-config .|-p nofile|-p cp.yaml|\
                 --from-controlplane-config cp.yaml -o out/a|--from-controlplane-config cp.yaml -o cp.yaml|--talos-version junk|extra|\
                 --from-controlplane-config cp.yaml -o cp.yaml --force=1|--from-controlplane-config cp.yaml -o=|--nope|-h|-o";
    let wrong: Vec<String> = lines
        .split('|')
        .filter_map(|line| differ(&talosctl, "secrets", &line.split(' ').collect::<Vec<_>>(), inside))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_refused_here_alone_writes_nothing_and_says_what_to_do() {
    let refused = |words: &[&str], told: &[&str]| {
        let place = place();
        fs::write(place.path().join("worker.yaml"), "there\n").unwrap();
        let output = run(program(place.path()), place.path(), &[&["config", "generate"][..], words].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{words:?}: {said}");
        for part in told {
            assert!(said.contains(part), "{words:?}: {part}: {said}");
        }
        assert_eq!(made(place.path()), BTreeMap::from([("worker.yaml".to_owned(), "there\n".to_owned())]), "{words:?}");
    };
    refused(&with(&[]), &["worker.yaml is there already", "--force replaces it"]);
    refused(&with(&["-o", "-"]), &["stdout takes one output only", "--output-types"]);
    refused(&with(&["--persist=false", "-o", "out"]), &["leave --persist out"]);
    refused(
        &with(&["--with-secrets", "p.yaml", "-o", "out"]),
        &["p.yaml", "no secrets bundle", "talosctl gen secrets"],
    );
    refused(&["lab", "https://fd00::1"], &["https://[fd00::1]:6443"]);
    refused(&with(&["-t", "worker", "-o", "."]), &["is there already", "a single output wants a file in it"]);
}

#[test]
fn files_are_their_owners_and_a_switch_may_stand_before_the_verb() {
    let place = place();
    fs::write(place.path().join("talosconfig"), "there\n").unwrap();
    let words = with(&["--talos-version", "1.99"]);
    let output =
        run(program(place.path()), place.path(), &[&["config", "--force", "generate"][..], &words[..]].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("Talos 1.99 is newer"), "{said}");
    let nameless = [&["config", "generate", "", ENDPOINT][..], &FIXED, &["-t", "talosconfig", "-o", "-"]].concat();
    let nameless = run(program(place.path()), place.path(), &nameless);
    assert!(nameless.status.success() && String::from_utf8_lossy(&nameless.stderr).contains("the cluster has no name"));
    for name in ["controlplane.yaml", "worker.yaml"] {
        let mode = fs::metadata(place.path().join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{name}");
    }
    assert!(fs::read_to_string(place.path().join("talosconfig")).unwrap().starts_with("context: lab\n"));
}
