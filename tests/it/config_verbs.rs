//! `recast config render|diff|check` on a cluster: files for their owner only, nothing to change after a rebuild, no secret
//! anywhere, and what old patches mean for the version that is asked for.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

use crate::site::{Cluster, Double, Folder, secrets};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A folder whose profile says all that configurations hang on, so that nothing has to be asked.
fn folder() -> Folder {
    let folder = Folder::new();
    let profile = fs::read_to_string(folder.profile()).unwrap();
    let profile = profile.replace("ip: 192.168.178.41}", "ip: 192.168.178.41, mac: \"bc:24:11:00:11:00\"}");
    let profile = profile.replacen("talos:\n", "talos:\n  patches_dir: patches\n", 1);
    fs::write(folder.profile(), profile).unwrap();
    fs::create_dir_all(folder.path("cluster/single/patches/all")).unwrap();
    folder
}

fn patch(folder: &Folder, name: &str, text: &str) -> PathBuf {
    let path = folder.path("cluster/single/patches").join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    path
}

/// recast without a site: the profile and its folder are all there is.
fn alone(folder: &Folder, args: &[&str]) -> Output {
    let mut command: Command = crate::site::program(&folder.path("home"));
    command.args(args).arg("--profile").arg(folder.profile());
    command.output().unwrap()
}

/// Every value in the secrets file that is one.
fn hidden() -> BTreeSet<String> {
    let words = secrets().split_whitespace().map(|word| word.trim_matches('"').to_owned());
    words.filter(|word| word.len() > 16 && !word.ends_with(':')).collect()
}

fn assert_nothing_secret(output: &Output) {
    for secret in hidden() {
        for side in [&output.stdout, &output.stderr] {
            assert!(!text(side).contains(&secret), "a secret is shown: {}", text(side));
        }
    }
}

#[test]
fn rendered_files_are_their_owners_only_and_always_the_same() {
    let folder = folder();
    patch(&folder, "all/10-labels.yaml", "machine: {nodeLabels: {rack: a}}\n");
    patch(&folder, "single-cp-01.yaml", "machine: {nodeLabels: {rack: b}}\n");
    let done = alone(&folder, &["config", "render"]);
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    assert_nothing_secret(&done);
    let out = folder.path("cluster/single/clusterconfig");
    let read = |name: &str| fs::read_to_string(out.join(name)).unwrap();
    for name in [".gitignore", "single-cp-01.yaml", "talosconfig"] {
        let mode = fs::metadata(out.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{name}");
    }
    assert!(read(".gitignore").lines().any(|line| line == "*"));
    let config = read("single-cp-01.yaml");
    assert!(config.contains("        rack: b\n"), "the machine's own patch comes last: {config}");
    for part in ["- 192.168.178.41/24", "hardwareAddr: bc:24:11:00:11:00", "nocloud-installer/ce4c", ":v1.12.4"] {
        assert!(config.contains(part), "no {part}");
    }
    let access = read("talosconfig");
    let again = alone(&folder, &["config", "render"]);
    assert_eq!(again.status.code(), Some(0), "{}", text(&again.stderr));
    assert_eq!((read("single-cp-01.yaml"), read("talosconfig")), (config, access), "nothing changes by itself");

    // Another version is another contract, where keys became documents.
    let newer = alone(&folder, &["config", "render", "--to", "1.14.0", "--kubernetes", "1.36.0", "--migrate"]);
    assert_eq!(newer.status.code(), Some(0), "{}", text(&newer.stderr));
    let config = read("single-cp-01.yaml");
    assert!(config.contains("kind: KubeNodeConfig\n") && config.contains("rack: b\n"), "{config}");

    // A folder with something else in it is not touched.
    let foreign = folder.path("foreign");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("notes.txt"), "mine").unwrap();
    let refused = alone(&folder, &["config", "render", "--out", foreign.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(4), "{}", text(&refused.stderr));
    assert_eq!(fs::read_dir(&foreign).unwrap().count(), 1);
}

#[test]
fn what_a_machine_would_refuse_is_told_with_its_place_and_its_replacement() {
    let cases = [
        (
            "machine:\n  network:\n    hostname: mine\n",
            "1.12.4",
            "line 3, column 5: machine.network.hostname",
            "kind: HostnameConfig",
        ),
        ("machine:\n  kubelet:\n    extraArgs: {v: \"4\"}\n", "1.14.0", "machine.kubelet", "KubeletConfig"),
        (
            "- {op: add, path: /machine/sysctls, value: {}}\n",
            "1.12.4",
            "line 1, column 13: /machine/sysctls",
            "strategic merge patch",
        ),
        (
            "- {op: remove, path: /machine/sysctls}\n",
            "1.11.0",
            "line 1, column 16: there is nothing at /machine/sysctls",
            "correct the path",
        ),
        (
            "machine:\n  install:\n    grubUseUKICmdline: false\n",
            "1.11.0",
            "line 3, column 5: machine.install.grubUseUKICmdline: since Talos 1.12",
            "leave it out until",
        ),
        (
            "apiVersion: v1alpha1\nkind: KubePrismConfig\nport: 7445\n",
            "1.12.4",
            "documents KubePrismConfig",
            "leave it out",
        ),
        (
            "machine:\n  kubelet:\n    extraArgz: {}\n",
            "1.12.4",
            "line 3, column 5: unknown key machine.kubelet.extraArgz",
            "did you mean 'extraArgs'?",
        ),
        (
            "machine: {}\n---\napiVersion: v1alpha1\nkind: VolumeConfig\nname: EPHEMERAL\nprovisionin: {}\n",
            "1.12.4",
            "line 6, column 1: VolumeConfig/EPHEMERAL: unknown key provisionin",
            "did you mean 'provisioning'?",
        ),
        (
            "apiVersion: v1alpha1\nkind: ResolverConfig\nnameservers: [{address: 192.0.2.1}]\n---\n\
             apiVersion: v1alpha1\nkind: ResolverConfig\nnameservers: [{address: 192.0.2.2}]\n",
            "1.12.4",
            "line 5, column 1: two documents ResolverConfig in the patch",
            "make them one",
        ),
        ("machine:\n  sysctls:\n    a: {$patch: delete}\n", "1.12.4", "line 3, column 5", "machine.sysctls.a is to be"),
        ("kind: HostConfigg\napiVersion: v1alpha1\n", "1.12.4", "line 1, column 1", "did you mean 'HostnameConfig'?"),
        ("machine: [\n", "1.12.4", "not readable as YAML", "line 1, column 10: unclosed bracket"),
    ];
    let folder = folder();
    for (content, version, place, instead) in cases {
        let path = patch(&folder, "all/10-old.yaml", content);
        let checked = alone(&folder, &["config", "check", "--to", version]);
        let told = text(&checked.stderr);
        assert_eq!(checked.status.code(), Some(3), "{content}: {told}");
        for part in [path.to_str().unwrap(), place, instead] {
            assert!(told.contains(part), "{part:?} is not in {told}");
        }
        let rendered = alone(&folder, &["config", "render", "--to", version]);
        assert_eq!(rendered.status.code(), Some(3), "{content}: {}", text(&rendered.stderr));
    }
    assert!(!folder.path("cluster/single/clusterconfig").exists(), "nothing was written");
}

#[test]
fn what_can_be_translated_is_and_what_can_t_is_named() {
    let folder = folder();
    patch(&folder, "all/10-old.yaml", "machine:\n  network:\n    hostname: mine\n");
    let migrated = alone(&folder, &["config", "render", "--migrate"]);
    assert_eq!(migrated.status.code(), Some(0), "{}", text(&migrated.stderr));
    let config = fs::read_to_string(folder.path("cluster/single/clusterconfig/single-cp-01.yaml")).unwrap();
    assert!(config.ends_with("kind: HostnameConfig\nauto: \"off\"\nhostname: mine\n"), "{config}");
    // Discovery is off in what is generated here, so that a patch which turned it on has to go on doing so.
    patch(&folder, "all/10-old.yaml", "cluster: {discovery: {enabled: true}}\n");
    let migrated = alone(&folder, &["config", "render", "--migrate", "--to", "1.14.0"]);
    assert_eq!(migrated.status.code(), Some(0), "{}", text(&migrated.stderr));
    let config = fs::read_to_string(folder.path("cluster/single/clusterconfig/single-cp-01.yaml")).unwrap();
    let service = "kind: DiscoveryServiceConfig\nname: default\nendpoint: https://discovery.talos.dev/\n";
    assert!(config.contains(service), "{config}");
    // What can't be translated is named.
    let mounts =
        "machine: {kubelet: {clusterDNS: [10.96.0.10], extraMounts: [{destination: /a, type: bind, source: /a}]}}\n";
    patch(&folder, "all/10-old.yaml", mounts);
    let refused = alone(&folder, &["config", "render", "--migrate", "--to", "1.14.0"]);
    assert_eq!(refused.status.code(), Some(3), "{}", text(&refused.stderr));
    let why = "--migrate has no document for machine.kubelet.extraMounts: ";
    assert!(text(&refused.stderr).contains(why), "{}", text(&refused.stderr));
    // KubeSpan finds its peers by it.
    let span = "apiVersion: v1alpha1\nkind: KubeSpanConfig\nenabled: true\n";
    patch(&folder, "all/10-old.yaml", span);
    let checked = alone(&folder, &["config", "check", "--to", "1.14.0"]);
    assert_eq!(checked.status.code(), Some(3), "{}", text(&checked.stderr));
    assert!(
        text(&checked.stderr).contains("KubeSpanConfig enabled: needs cluster discovery"),
        "{}",
        text(&checked.stderr)
    );
    patch(&folder, "all/10-old.yaml", &format!("{span}---\napiVersion: v1alpha1\n{service}"));
    let checked = alone(&folder, &["config", "check", "--to", "1.14.0"]);
    assert_eq!(checked.status.code(), Some(0), "{}", text(&checked.stderr));
}

#[test]
fn a_flag_that_kubernetes_no_longer_has_is_refused_before_an_api_server_gets_it() {
    let folder = folder();
    let content = "cluster:\n  apiServer:\n    extraArgs:\n      cloud-config: /etc/cloud\n";
    let path = patch(&folder, "all/10-flags.yaml", content);
    let before = alone(&folder, &["config", "check", "--kubernetes", "1.32.4"]);
    assert_eq!(before.status.code(), Some(0), "{}", text(&before.stderr));
    let place = format!("{}, line 4, column 7: cluster.apiServer.extraArgs.cloud-config: ", path.display());
    for verb in ["check", "render"] {
        let refused = alone(&folder, &["config", verb, "--kubernetes", "1.33.5"]);
        let told = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(3), "{told}");
        let why = "since Kubernetes 1.33 kube-apiserver has no flag --cloud-config, and does not start with it";
        assert!(told.contains(&format!("{place}{why}")) && told.contains("leave it out"), "{told}");
    }
    assert!(!folder.path("cluster/single/clusterconfig").exists(), "nothing was written");
}

#[test]
fn a_kubernetes_that_the_talos_does_not_run_is_refused_as_the_machine_does() {
    let folder = folder();
    let check =
        |talos: &str, kubernetes: &str| alone(&folder, &["config", "check", "--to", talos, "--kubernetes", kubernetes]);
    let refused = check("1.12.4", "1.29.9");
    let told = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(3), "{told}");
    let why = "machine.kubelet.image is of Kubernetes 1.29.9, and Talos 1.12.4 runs 1.30 to 1.35";
    assert!(told.contains(why) && told.contains("talos.kubernetes_version"), "{told}");
    // Before 1.11 a machine takes what it is given.
    let untried = check("1.9.5", "1.25.3");
    assert_eq!(untried.status.code(), Some(0), "{}", text(&untried.stderr));
    assert!(text(&untried.stderr).contains("Talos 1.9.5 runs 1.27 to 1.32"), "{}", text(&untried.stderr));
    // A patch may name an image of its own.
    patch(&folder, "all/10-image.yaml", "machine: {kubelet: {image: \"ghcr.io/siderolabs/kubelet:v1.29.9\"}}\n");
    let refused = check("1.12.4", "1.34.1");
    assert_eq!(refused.status.code(), Some(3), "{}", text(&refused.stderr));
    assert!(text(&refused.stderr).contains(why), "{}", text(&refused.stderr));
}

#[test]
fn a_disk_to_install_to_that_a_patch_takes_out_is_told() {
    let folder = folder();
    let whole = alone(&folder, &["config", "check", "--to", "1.12.4"]);
    assert!(!text(&whole.stderr).contains("machine.install"), "{}", text(&whole.stderr));
    patch(&folder, "all/10-disk.yaml", "machine: {install: {disk: {$patch: delete}}}\n");
    let checked = alone(&folder, &["config", "check", "--to", "1.12.4"]);
    assert_eq!(checked.status.code(), Some(0), "{}", text(&checked.stderr));
    assert!(text(&checked.stderr).contains("machine.install: needs a disk"), "{}", text(&checked.stderr));
}

#[test]
fn a_version_jump_is_told_with_what_to_write_instead() {
    let folder = folder();
    let path = patch(
        &folder,
        "all/10-old.yaml",
        "machine:\n  install:\n    extensions: [{image: ghcr.io/siderolabs/gvisor:x}]\n    image: factory.talos.dev/metal-installer/abc:v1.13.0\n  network:\n    interfaces: [{interface: eth0, dhcp: true}]\n",
    );
    let checked = alone(&folder, &["config", "check", "--from", "1.9.0", "--to", "1.13.9", "-o", "json"]);
    assert_eq!(checked.status.code(), Some(0), "{}", text(&checked.stderr));
    let document: Value = serde_json::from_slice(&checked.stdout).unwrap();
    let problems = document["problems"].to_string();
    for part in [
        &format!("{}, line 3, column 5: machine.install.extensions: since Talos 1.10", path.display()),
        "talos.factory.extensions",
        "name nocloud-installer instead",
        "machine.network.interfaces: since Talos 1.12",
    ] {
        assert!(problems.contains(part), "{part:?} is not in {problems}");
    }
}

#[test]
fn links_by_name_are_told_where_a_groups_image_gets_other_extensions() {
    const AGENT: &str = "ce4c980550dd2ab1b17bbf2b08801c7eb59418eafe8f279833297925d67c7515";
    const EMPTY: &str = "376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba";
    let folder = folder();
    patch(&folder, "all/10-links.yaml", "machine: {network: {interfaces: [{interface: eth0, dhcp: true}]}}\n");
    let told = |schematic: &str| {
        let template = format!(
            "{{\"vmid\": 101, \"fingerprint\": \"{}\", \"version\": \"1.12.4\", \"schematic\": \"{schematic}\"}}",
            "0".repeat(64)
        );
        let lock = format!("{{\"format\": 1, \"templates\": {{\"pve1\": [{template}]}}}}\n");
        fs::write(folder.profile().with_extension("lock"), lock).unwrap();
        let checked = alone(&folder, &["config", "check", "--to", "1.13.9"]);
        assert_eq!(checked.status.code(), Some(0), "{}", text(&checked.stderr));
        text(&checked.stderr)
    };
    let same = told(AGENT);
    assert!(!same.contains("can change their names with the extensions"), "{same}");
    let other = told(EMPTY);
    let line = other.lines().find(|line| line.contains("can change their names with the extensions")).unwrap();
    assert!(line.starts_with("warning: nodes.controlplane: ") && line.contains("deviceSelector"), "{line}");
    // The group's own image is what counts for its machines.
    let profile = fs::read_to_string(folder.profile()).unwrap();
    let own = format!("    disk: 32G\n    factory: {{schematic_id: {EMPTY}}}\n");
    fs::write(folder.profile(), profile.replacen("    disk: 32G\n", &own, 1)).unwrap();
    let same = told(EMPTY);
    assert!(!same.contains("can change their names with the extensions"), "{same}");
    let other = told(AGENT);
    assert!(other.contains("nodes.controlplane: since Talos 1.5 network links can change their names"), "{other}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_rebuild_there_is_nothing_to_change_and_a_diff_shows_no_secret() {
    let folder = folder();
    let double = Double::program(&folder, 100.0);
    let run = |args: &[&str]| folder.recast(double.site(), args).output().unwrap();
    let before = run(&["config", "diff"]);
    assert_eq!(before.status.code(), Some(2), "{}", text(&before.stderr));
    assert!(text(&before.stdout).contains("single-cp-01: "), "{}", text(&before.stdout));
    assert_nothing_secret(&before);
    for verb in ["diff", "check"] {
        let traced = run(&["config", verb, "--log-level", "trace"]);
        assert!(matches!(traced.status.code(), Some(0 | 2)), "{}", text(&traced.stderr));
        assert_nothing_secret(&traced);
    }

    // A patch of old refuses the plan, too.
    let old = patch(&folder, "all/10-old.yaml", "machine: {network: {hostname: mine}}\n");
    let refused = run(&["rebuild", "--to", crate::site::TALOS, "--kubernetes", crate::site::KUBERNETES, "--dry-run"]);
    assert_eq!(refused.status.code(), Some(4), "{}", text(&refused.stderr));
    let told = text(&refused.stderr);
    assert!(
        told.contains("machine.network.hostname: since Talos 1.12") && told.contains("kind: HostnameConfig"),
        "{told}"
    );
    fs::remove_file(old).unwrap();

    let rebuilt = run(&Cluster::Single.rebuild());
    assert_eq!(rebuilt.status.code(), Some(0), "{}", text(&rebuilt.stderr));
    let same = run(&["config", "diff"]);
    assert_eq!((same.status.code(), text(&same.stdout)), (Some(0), "single-cp-01: as rendered\n".to_owned()));

    patch(&folder, "all/20-new.yaml", "machine: {sysctls: {vm.swappiness: \"1\"}}\n");
    let changed = run(&["config", "diff"]);
    assert_eq!(changed.status.code(), Some(2), "{}", text(&changed.stderr));
    let shown = text(&changed.stdout);
    assert!(shown.contains("single-cp-01: 1 difference(s)\n  + v1alpha1 machine.sysctls"), "{shown}");

    // Other secrets differ everywhere, and none of either is shown.
    let secrets = folder.path("cluster/single/secrets.yaml");
    fs::remove_file(&secrets).unwrap();
    let made = crate::site::program(&folder.path("home"))
        .args(["secrets", "generate", "--talos-version", "1.6", "-o"])
        .arg(&secrets)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", text(&made.stderr));
    let stranger = run(&["config", "diff"]);
    assert_ne!(stranger.status.code(), Some(0), "another cluster's secrets don't open this one");
    assert_nothing_secret(&stranger);
    for word in fs::read_to_string(&secrets).unwrap().split_whitespace().filter(|word| word.len() > 16) {
        assert!(!text(&stranger.stderr).contains(word) && !text(&stranger.stdout).contains(word));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_without_an_address_in_the_profile_is_found_by_its_guest_agent() {
    let folder = folder();
    // Asking an agent takes a right that a rebuild of machines with known addresses doesn't.
    let may = |seed: &mut mock_pve::world::seed::Seed| {
        seed.roles.get_mut("TalosRebuild").unwrap().push("VM.Monitor".to_owned());
    };
    let double = Double::seeded(&folder, 100.0, may).await;
    let profile = fs::read_to_string(folder.profile()).unwrap();
    fs::write(folder.profile(), profile.replacen("ip: 192.168.178.41, ", "", 1)).unwrap();
    let found = folder.recast(double.site(), &["config", "diff"]).output().unwrap();
    let told = text(&found.stderr);
    assert_eq!(found.status.code(), Some(2), "{told}");
    assert!(text(&found.stdout).contains("single-cp-01: "), "{}", text(&found.stdout));
    assert_nothing_secret(&found);

    // Without Proxmox VE nothing says where it is.
    let lost = alone(&folder, &["config", "diff"]);
    let told = text(&lost.stderr);
    assert_eq!(lost.status.code(), Some(1), "{told}");
    for part in ["the address of single-cp-01 is not in the profile", "nodes.<group>.assignments[].ip"] {
        assert!(told.contains(part), "{part:?} is not in {told}");
    }
}
