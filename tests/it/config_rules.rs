//! What always holds for configurations: patches that may be applied twice, results that are the same every time, secrets
//! that are never shown; and the real tool reads what is written here.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use proptest::prelude::*;
use recast::talos::config::validate::{Mode, validate};
use recast::talos::config::{Config, Contract, Input, Patch, differences, generate};
use recast::talos::secrets::Secrets;
use recast::types::Role;
use secrecy::ExposeSecret as _;

use crate::site::program;

fn bundle(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/talos-configs/secrets").join(name);
    fs::read_to_string(path).unwrap()
}

/// A bundle read: once, its RSA key takes its time without optimisation.
fn secrets(name: &str) -> &'static Secrets {
    static BOTH: OnceLock<[Secrets; 2]> = OnceLock::new();
    let load = |name| Secrets::load(&bundle(name), "2026-12-01T00:00:00Z".parse().unwrap()).unwrap();
    let [rsa, ecdsa] = BOTH.get_or_init(|| [load("rsa.yaml"), load("ecdsa.yaml")]);
    if name == "rsa.yaml" { rsa } else { ecdsa }
}

fn config(bundle: &str, contract: &str, role: Role) -> Config {
    let contract: Contract = contract.parse().unwrap();
    let input = Input::new("lab", "https://10.20.0.10:6443", contract, "1.30.1").unwrap();
    generate(secrets(bundle), &input, role)
}

fn text(config: &Config) -> String {
    config.to_yaml().expose_secret().to_owned()
}

/// Parts of patches that say what something is, with room for a value. Lists are merged by a key, or replaced.
const IDEMPOTENT: &[&str] = &[
    "machine: {sysctls: {vm.swappiness: \"VALUE\", net.core.somaxconn: \"1\"}}\n",
    "machine: {nodeLabels: {rack: VALUE}}\n",
    "machine: {kubelet: {extraArgs: {v: VALUE, feature-gates: [A=true]}}}\n",
    "machine: {kubelet: {extraConfig: {serverTLSBootstrap: true, maxPods: 200}}}\n",
    "machine: {features: {kubePrism: {enabled: false}}}\n",
    "machine: {network: {interfaces: [{interface: VALUE, mtu: 1400, vlans: [{vlanId: 5, dhcp: true}]}]}}\n",
    "cluster: {network: {podSubnets: [10.1.0.0/16], serviceSubnets: [10.2.0.0/16]}}\n",
    "cluster: {proxy: {disabled: true}, apiServer: {extraArgs: {audit-log-path: /VALUE}}}\n",
    "cluster: {apiServer: {admissionControl: [{name: PodSecurity, configuration: {defaults: {enforce: VALUE}}}]}}\n",
    "apiVersion: v1alpha1\nkind: ExtensionServiceConfig\nname: VALUE\nconfigFiles: [{mountPath: /a, content: b}]\n",
    "apiVersion: v1alpha1\nkind: NetworkRuleConfig\nname: VALUE\nportSelector: {ports: [50000], protocol: tcp}\ningress: [{subnet: 10.0.0.0/8}]\n",
];

/// One that appends to a list: twice is twice.
const APPENDING: &str = "machine: {certSANs: [a.example.org]}\n";

fn patches(chosen: &[(usize, String)]) -> Vec<Patch> {
    let text = |(at, value): &(usize, String)| IDEMPOTENT[*at].replace("VALUE", value);
    chosen.iter().map(text).map(|text| Patch::parse(&text, "p.yaml").unwrap()).collect()
}

fn chosen() -> impl Strategy<Value = Vec<(usize, String)>> {
    prop::collection::vec((0..IDEMPOTENT.len(), "[a-z]{1,8}"), 1..6)
}

fn contract() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["1.5", "1.8", "1.11", "1.12", "1.13", "1.14"])
}

fn role() -> impl Strategy<Value = Role> {
    prop::sample::select(vec![Role::ControlPlane, Role::Worker])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn patches_without_growing_lists_may_be_applied_twice(chosen in chosen(), contract in contract(), role in role()) {
        for patch in patches(&chosen) {
            let mut once = config("rsa.yaml", contract, role);
            once.apply(&patch).unwrap();
            let mut twice = once.clone();
            twice.apply(&patch).unwrap();
            prop_assert!(text(&once) == text(&twice), "{chosen:?}");
        }
        let growing = Patch::parse(APPENDING, "p.yaml").unwrap();
        let mut grown = config("rsa.yaml", contract, role);
        grown.apply(&growing).unwrap();
        grown.apply(&growing).unwrap();
        prop_assert_eq!(text(&grown).matches("- a.example.org\n").count(), 2, "as the real tool does");
    }

    #[test]
    fn the_same_inputs_give_the_same_bytes(chosen in chosen(), contract in contract(), role in role()) {
        let made = || {
            let mut config = config("rsa.yaml", contract, role);
            for patch in patches(&chosen) {
                config.apply(&patch).unwrap();
            }
            text(&config)
        };
        let one = made();
        prop_assert!(one == made());
        let read = Config::read(&one).unwrap();
        prop_assert!(text(&read) == one, "what was written is written again as it was");
    }

    #[test]
    fn no_secret_is_in_a_diff_an_error_or_a_debug_text(
        contract in contract(),
        role in role(),
        at in 0..10_000_usize,
        noise in prop::sample::select(vec!["", "\n", "\n\n  - x", "\t", ": ", "{", "\"", "'", "*a", "\u{0}", "]: "]),
        cut in any::<bool>(),
    ) {
        let (one, two) = (config("rsa.yaml", contract, role), config("ecdsa.yaml", contract, role));
        for (has, wanted) in [(&one, &two), (&one, &Config::default()), (&Config::default(), &two)] {
            for difference in differences(has, wanted, |_| false) {
                assert_hides(&difference.to_string());
                assert_hides(&format!("{difference:?}"));
            }
        }
        assert_hides(&format!("{one:?} {:?}", one.documents()));
        // Damaged anywhere, by any mark of YAML, a configuration is no secret's way out.
        let text = text(&one);
        let place = text.len() * at / 10_000;
        let rest = if cut { "" } else { &text[place..] };
        let damaged = format!("{}{noise}{rest}", &text[..place]);
        if let Err(error) = Config::read(&damaged) {
            assert_tells_nothing(&error);
        }
        if let Err(error) = Patch::parse(&damaged, "p.yaml") {
            assert_tells_nothing(&error);
        }
        match validate(&damaged, Mode::Metal) {
            Ok(found) => found.errors.iter().chain(&found.warnings).for_each(|finding| assert_hides(&finding.to_string())),
            Err(error) => assert_tells_nothing(&error),
        }
        let damaged = format!("{}{noise}{rest}", &bundle("rsa.yaml")[..place.min(bundle("rsa.yaml").len())]);
        if let Err(error) = Secrets::load(&damaged, "2026-12-01T00:00:00Z".parse().unwrap()) {
            assert_tells_nothing(&error);
        }
    }
}

fn assert_tells_nothing(error: &(dyn std::error::Error + 'static)) {
    assert_hides(&format!("{error:?}"));
    let mut next = Some(error);
    while let Some(error) = next {
        assert_hides(&error.to_string());
        next = error.source();
    }
}

/// No part of a secret of either bundle, as it stands or decoded, is in the text.
fn assert_hides(shown: &str) {
    for name in ["rsa.yaml", "ecdsa.yaml"] {
        for word in bundle(name).split_whitespace().filter(|word| word.len() > 20 && !word.ends_with(':')) {
            // The beginning of a PEM text is the same for all.
            for part in [&word[word.len() / 2..word.len() / 2 + 10], &word[word.len() - 12..]] {
                assert!(!shown.contains(part) || part.ends_with("LS0tLS0K"), "{shown}");
            }
        }
    }
    assert!(!shown.contains("PRIVATE KEY-----"), "{shown}");
}

#[test]
fn what_is_deleted_goes_first_and_documents_that_say_nothing_change_nothing() {
    let patched = |contract: &str, patch: &str| {
        let mut config = config("ecdsa.yaml", contract, Role::Worker);
        config.apply(&Patch::parse(patch, "p.yaml").unwrap()).unwrap();
        text(&config)
    };
    for contract in ["1.5", "1.13"] {
        let none = patched(contract, "");
        for nothing in ["# a comment\n", "{}\n", "---\n{}\n---\nnull\n", "kind: HostnameConfig\n", "machine: {}\n"] {
            assert!(patched(contract, nothing) == none, "{contract}: {nothing}");
        }
        let both = "machine: {network: {interfaces: [{interface: br0, dhcp: true}]}}\n---\n\
                    machine: {network: {$patch: delete}, install: {disk: {$patch: delete}}}\n";
        let config = patched(contract, both);
        assert!(config.contains("interface: br0") && !config.contains("/dev/sda"), "{contract}: {config}");
    }
}

#[test]
fn after_a_json_patch_modes_of_files_are_decimal() {
    let mut config = config("ecdsa.yaml", "1.8", Role::Worker);
    let file = "machine: {files: [{path: /var/a, op: create, content: a, permissions: 0o644}]}\n";
    config.apply(&Patch::parse(file, "p.yaml").unwrap()).unwrap();
    assert!(text(&config).contains("permissions: 0o644\n"));
    let label = "[{op: add, path: /machine/nodeLabels, value: {a: b}}]";
    config.apply(&Patch::parse(label, "p.yaml").unwrap()).unwrap();
    assert!(config.to_sorted_yaml().expose_secret().contains("permissions: 420\n"));
}

#[test]
fn a_resolver_without_host_dns_leaves_that_to_the_main_document() {
    let mut config = config("ecdsa.yaml", "1.13", Role::ControlPlane);
    let resolver = "apiVersion: v1alpha1\nkind: ResolverConfig\nnameservers: [{address: 192.0.2.53}]\n";
    config.apply(&Patch::parse(resolver, "p.yaml").unwrap()).unwrap();
    assert_eq!(validate(&text(&config), Mode::Cloud).unwrap().errors, []);
    let host = "apiVersion: v1alpha1\nkind: ResolverConfig\nhostDNS: {enabled: true}\n";
    config.apply(&Patch::parse(host, "p.yaml").unwrap()).unwrap();
    let errors = validate(&text(&config), Mode::Cloud).unwrap().errors;
    assert!(errors.iter().any(|error| error.path == "machine.features.hostDNS"), "{errors:?}");
}

#[test]
fn a_patch_on_the_command_line_may_begin_with_a_dash() {
    let place = tempfile::tempdir().unwrap();
    let patch = "- op: replace\n  path: /machine/install/disk\n  value: /dev/vdb\n";
    let run = |args: &[&str]| {
        let output = program(place.path()).current_dir(place.path()).args(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let generate = ["config", "generate", "lab", "https://192.0.2.1:6443", "--talos-version", "1.6", "-o", "out"];
    run(&[&generate[..], &["--config-patch", patch]].concat());
    let read = |name: &str| fs::read_to_string(place.path().join(name)).unwrap();
    for name in ["out/controlplane.yaml", "out/worker.yaml"] {
        assert!(read(name).contains("disk: /dev/vdb\n"), "{name}");
    }
    run(&["config", "patch", "out/worker.yaml", "-p", &patch.replace("vdb", "vdc"), "-o", "patched.yaml"]);
    assert!(read("patched.yaml").contains("disk: /dev/vdc\n"));
}

#[test]
fn flags_are_read_as_talosctl_reads_them() {
    let place = tempfile::tempdir().unwrap();
    let made = |more: &[&str], out: &str| {
        let start = ["config", "generate", "lab", "https://192.0.2.1:6443", "--with-secrets", "s.yaml"];
        let args = [&start[..], &["--talos-version", "1.13", "-t", "worker"], more, &["-o", out]].concat();
        let output = program(place.path()).current_dir(place.path()).args(&args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        fs::read_to_string(place.path().join(out)).unwrap()
    };
    fs::write(place.path().join("s.yaml"), bundle("rsa.yaml")).unwrap();
    let plain = made(&[], "plain.yaml");
    // The last of a flag counts, and an empty list has nothing in it.
    let last = ["--dns-domain", "a.example.org", "--dns-domain", "cluster.local", "--additional-sans", ""];
    assert!(made(&last, "last.yaml") == plain);
    let off = made(&["--with-cluster-discovery=0", "--with-kubespan=T"], "off.yaml");
    assert!(off == made(&["--with-cluster-discovery=FALSE", "--with-kubespan"], "same.yaml") && off != plain);
}

#[test]
fn the_real_tool_takes_what_is_made_here() {
    let Some(talosctl) = real_parts::client("talosctl") else { return };
    let place = tempfile::tempdir().unwrap();
    let run = |mut command: Command, args: &[&str]| {
        let output = command.args(args).current_dir(place.path()).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let theirs = || {
        let mut command = Command::new(&talosctl);
        command.env_clear().env("HOME", place.path());
        command
    };
    let ours = || program(place.path());
    for contract in ["1.5", "1.6", "1.7", "1.8", "1.9", "1.10", "1.11", "1.12", "1.13"] {
        let file = format!("secrets-{contract}.yaml");
        run(ours(), &["secrets", "generate", "--talos-version", contract, "-o", &file]);
        let flags = ["lab", "https://10.20.0.10:6443", "--talos-version", contract, "--with-secrets", &file];
        let fixed = [
            "--kubernetes-version",
            "1.30.1",
            "--install-image",
            "i:v1",
            "--with-docs=false",
            "--with-examples=false",
            "-o",
        ];
        let all = |start: [&'static str; 2], out: &'static str| {
            start.into_iter().chain(flags).chain(fixed).chain([out]).collect::<Vec<_>>()
        };
        run(theirs(), &all(["gen", "config"], "theirs"));
        run(ours(), &all(["config", "generate"], "ours"));
        for name in ["controlplane.yaml", "worker.yaml"] {
            let read = |dir: &str| fs::read_to_string(place.path().join(dir).join(name)).unwrap();
            assert!(read("theirs") == read("ours"), "{contract}: {name}");
            run(theirs(), &["validate", "--mode", "cloud", "--config", &format!("ours/{name}")]);
            run(ours(), &["config", "validate", "--mode", "cloud", "--config", &format!("theirs/{name}")]);
        }
        run(theirs(), &["--talosconfig", "ours/talosconfig", "config", "info"]);
        run(theirs(), &["gen", "secrets", "--from-controlplane-config", "ours/controlplane.yaml", "-o", "again.yaml"]);
        let read = |name: &str| fs::read_to_string(place.path().join(name)).unwrap();
        assert!(read("again.yaml") == read(&file), "{contract}: the secrets come back as they were");
        for dir in ["theirs", "ours"] {
            fs::remove_dir_all(place.path().join(dir)).unwrap();
        }
        fs::remove_file(place.path().join("again.yaml")).unwrap();
    }
}
