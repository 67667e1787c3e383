//! Profiles and sites: users' files load and expand as they always did, bad ones are refused with everything that is
//! wrong in them and where.

use std::fs;
use std::path::{Path, PathBuf};

use recast::profile::{self, Problems, SecretSource, Taken, expand, load};
use recast::types::VersionWish;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn fixture(name: &str) -> PathBuf {
    repository().join("tests/fixtures/profiles").join(name)
}

/// `line:column key: what (hint)` of each problem.
fn lines(problems: &Problems) -> Vec<String> {
    let line = |problem: &profile::Problem| {
        let hint = problem.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
        let key = if problem.key.is_empty() { String::new() } else { format!("{}: ", problem.key) };
        format!("{}:{} {key}{}{hint}", problem.line, problem.column, problem.what)
    };
    problems.0.iter().map(line).collect()
}

#[test]
fn profiles_of_users_load_unchanged_and_stand_for_the_same_vms() {
    let site = load::site_file(&fixture("site.yaml")).unwrap();
    for name in ["auto", "full", "generic", "minimal", "spread"] {
        let loaded =
            load::profile_file(&fixture(&format!("{name}.yaml"))).unwrap_or_else(|problems| panic!("{problems}"));
        let expected: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(fixture(&format!("{name}.expected.json"))).unwrap()).unwrap();
        let vms = expand(&loaded.value, &site.value, &Taken::default()).unwrap();
        assert_eq!(serde_json::to_value(&vms).unwrap(), expected["vms"], "{name}");
    }
}

#[test]
fn profiles_and_site_that_come_with_the_project_load_without_a_warning() {
    let site = load::site_file(&repository().join("profiles/site.yaml")).unwrap();
    let loaded = load::profile_file(&repository().join("profiles/single.yaml")).unwrap();
    assert!(loaded.warnings.is_empty() && site.warnings.is_empty());
    let vms = expand(&loaded.value, &site.value, &Taken::default()).unwrap();
    let [vm] = &vms[..] else { panic!("{vms:?}") };
    assert_eq!((vm.name.as_str(), vm.vmid.0, vm.node.as_str()), ("single-cp-01", 1100, "pve1"));
    assert_eq!(vm.address, Some("192.168.178.41".parse().unwrap()));
    let talos = loaded.value.talos.unwrap();
    let folder = Path::new("/etc/clusters");
    assert_eq!(talos.secrets_file_in(folder).as_deref(), Some(Path::new("/etc/clusters/single/secrets.yaml")));
    assert_eq!(loaded.value.network.api_endpoint.unwrap().url(), "https://192.168.178.41:6443");
}

#[test]
fn versions_are_read_as_written_also_where_yaml_sees_a_number() {
    let text = GOOD.replace("version: 1.12.4", "version: 1.10");
    let talos = load::profile("good.yaml", &text).unwrap().value.talos.unwrap();
    assert_eq!(talos.version, VersionWish::Minor(1, 10));
}

/// A profile with nothing wrong; cases below replace parts of it.
const GOOD: &str = "\
name: good
type: talos
talos:
  version: 1.12.4
  kubernetes_version: 1.34.1
  config_dir: good
  secrets_file: secrets.yaml
  factory: {extensions: [siderolabs/qemu-guest-agent]}
network:
  api_endpoint: 192.168.178.41
  gateway: 192.168.178.1
  prefix: 24
nodes:
  controlplane: {count: 1, name_prefix: good-cp-, cores: 2, memory: 4096, disk: 32G, start_vmid: 1100}
  workers:
    count: 2
    name_prefix: good-w-
    cores: 2
    memory: 4096
    disk: 32G
    start_vmid: 1110
    assignments:
      - {name: good-w-01, node: pve1, vmid: 1110, ip: 192.168.178.61}
template: 101
tags: [talos, good]
";

#[test]
#[expect(clippy::too_many_lines, reason = "one table")]
fn each_fault_of_a_profile_is_named_with_its_place() {
    let id = "b".repeat(64);
    assert_eq!(load::profile("good.yaml", GOOD).map(|loaded| loaded.warnings.len()), Ok(0));
    let cases: &[(&str, &str, &[&str])] = &[
        // Keys.
        ("template: 101", "templat: 101", &["24:1 templat: unknown key (did you mean `template`?)"]),
        (
            "  prefix: 24",
            "  prefix: 24\n  colour: red",
            &["13:3 network.colour: unknown key (known here: api_endpoint, pod_cidr, service_cidr, gateway, prefix, \
             nameservers, bridge, vlan, mtu)"],
        ),
        (
            "ip: 192.168.178.61}",
            "ipp: 192.168.178.61}",
            &["23:51 nodes.workers.assignments[0].ipp: unknown key (did you mean `ip`?)"],
        ),
        (
            "template: 101",
            "template: 101\nhooks: {finished: [x]}\nbackup: {copies: [{path: a, ssh: {host: b}}], keep: 0}\ndata_disks: []",
            &[
                "25:19 hooks.finished: expected text, found a list",
                "26:19 backup.copies[0]: expected one of `path`, `ssh` or `command`",
                "26:34 backup.copies[0].ssh.path: this key is missing",
                "26:53 backup.keep: 0 would keep nothing (leave it out to keep all)",
                "27:1 data_disks: this key is not supported by this version of recast (remove it, or use a version that \
             supports it)",
            ],
        ),
        (
            "    count: 2",
            "    count: 2\n    vm: {inherit: [mac, disk], cores: 3, numa: 1}",
            &[
                "17:25 nodes.workers.vm.inherit[1]: 'disk' is not one of mac, nics, startup, onboot, pool, firewall, ha, \
             tags, description",
                "17:39 nodes.workers.vm.cores: this is set by `cores`",
            ],
        ),
        (
            "template: 101",
            "strategy: park\ntransport: push\nguards: {require_copy: true}\nfinish: {git: {commit: false, push: true}, flux: true}",
            &[
                "24:11 strategy: `park` is not supported by this version of recast",
                "25:12 transport: 'push' is not one of auto, pull, upload, ssh",
                "26:24 guards.require_copy: no copy is configured (say where in `backup.copies`)",
                "27:37 finish.git.push: there is nothing to push without `commit`",
                "27:50 finish.flux: needs `flux` to say which repository",
            ],
        ),
        (
            "secrets_file: secrets.yaml",
            "secrets_file: {comand: pass x}\n  config_patches: [{for: all}, {file: a, inline: b}, {for: x, file: a}]",
            &[
                "7:17 talos.secrets_file.command: this key is missing",
                "7:18 talos.secrets_file.comand: unknown key (did you mean `command`?)",
                "8:20 talos.config_patches[0]: expected either `file` or `inline`",
                "8:32 talos.config_patches[1]: expected either `file` or `inline`",
                "8:60 talos.config_patches[2].for: 'x' is not one of all, controlplane, worker",
            ],
        ),
        (
            "template: 101",
            "address_discovery: {mode: cloud-init}",
            &[
                "24:27 address_discovery.mode: cloud-init can't give good-cp-01, good-w-02 an address (give each machine an \
             `ip` in its assignment)",
            ],
        ),
        ("tags: [talos, good]\n", "", &["1:1 tags: this key is missing"]),
        ("  secrets_file: secrets.yaml\n", "", &["4:3 talos.secrets_file: this key is missing"]),
        ("  prefix: 24", "  prefix: 24\n  prefix: 23", &["13:3 prefix: this key occurs twice in one mapping"]),
        // Values.
        (
            "version: 1.12.4",
            "version: 1.x",
            &["4:12 talos.version: '1.x' is not a version such as 1.13.9, 1.13 or latest"],
        ),
        ("type: talos", "type: k3s", &["2:7 type: 'k3s' is not one of talos, generic"]),
        (
            "    memory: 4096",
            "    memory: 4G",
            &["19:13 nodes.workers.memory: '4G' is not a number of MB such as 8192"],
        ),
        (
            "    disk: 32G",
            "    disk: 32",
            &["20:11 nodes.workers.disk: '32' is not a disk size in whole GiB such as 100G or 2T"],
        ),
        (
            "extensions: [siderolabs/qemu-guest-agent]",
            "schematic_id: abc",
            &["8:27 talos.factory.schematic_id: 'abc' is not a schematic ID (64 hex digits)"],
        ),
        (
            "[siderolabs/qemu-guest-agent]",
            "[qemu-guest-agent]",
            &[
                "8:26 talos.factory.extensions[0]: 'qemu-guest-agent' is not an extension such as siderolabs/qemu-guest-agent",
            ],
        ),
        ("tags: [talos, good]", "tags: talos", &["25:7 tags: expected a list, found a single value"]),
        (
            "template: 101",
            "template: 101\nsteady: 30",
            &["25:9 steady: '30' is not a duration such as 30s, 5m or 1h30m"],
        ),
        (
            "api_endpoint: 192.168.178.41",
            "api_endpoint: https://x:6443",
            &["10:17 network.api_endpoint: 'https://x:6443' is not an address, a host or host:port, without a scheme"],
        ),
        (
            "ip: 192.168.178.61",
            "ip: 192.168.178.261, mac: BC:24:11:00:12",
            &[
                "23:55 nodes.workers.assignments[0].ip: '192.168.178.261' is not an IP address",
                "23:77 nodes.workers.assignments[0].mac: 'BC:24:11:00:12' is not a MAC address such as BC:24:11:00:12:01",
            ],
        ),
        // Rules.
        (
            "name: good\n",
            "name: other\n",
            &["1:7 name: 'other' is not the file's name (name it `good`, or the file `other.yaml`)"],
        ),
        ("{count: 1,", "{count: 0,", &["14:25 nodes.controlplane.count: a cluster needs at least one control plane"]),
        (
            "tags: [talos, good]",
            "tags: [talos]",
            &["25:7 tags: none of these is the cluster's own (add one that no other cluster has, such as `good`)"],
        ),
        (
            "tags: [talos, good]",
            "tags: []",
            &["25:7 tags: there must be at least one: tags say which VMs belong to the cluster"],
        ),
        ("tags: [talos, good]", "tags: [talos, 'a b']", &["25:15 tags[1]: 'a b' is not a tag that PVE takes"]),
        (
            "start_vmid: 1100}",
            "start_vmid: 1110}",
            &[
                "21:17 nodes.workers.start_vmid: VMIDs 1110 to 1110 overlap the control planes' 1110 to 1110 (start at 1111 or \
             above)",
            ],
        ),
        (
            "vmid: 1110, ip",
            "vmid: 101, ip",
            &["23:45 nodes.workers.assignments[0].vmid: VMID 101 is also that of template"],
        ),
        (
            "name: good-w-01",
            "name: good-w-07",
            &[
                "23:16 nodes.workers.assignments[0].name: 'good-w-07' is not a name of this group (the group's names are \
             good-w-01 to good-w-02)",
            ],
        ),
        (
            "ip: 192.168.178.61",
            "ip: 192.168.178.1",
            &["23:55 nodes.workers.assignments[0].ip: address 192.168.178.1 is also that of network.gateway"],
        ),
        (
            "ip: 192.168.178.61",
            "ip: 192.168.179.61",
            &[
                "23:55 nodes.workers.assignments[0].ip: 192.168.179.61 is not in 192.168.178.0/24 (the network is that of \
             `network.gateway` and `network.prefix`)",
            ],
        ),
        (
            "  prefix: 24",
            "  prefix: 24\n  pod_cidr: 10.96.4.0/16\n  service_cidr: 10.96.0.0/12",
            &[
                "13:13 network.pod_cidr: 10.96.4.0/16 has host bits set (the network is 10.96.0.0/16)",
                "14:17 network.service_cidr: 10.96.0.0/12 overlaps 10.96.4.0/16 of network.pod_cidr",
            ],
        ),
        (
            "  prefix: 24\n",
            "",
            &["11:12 network.gateway: needs `network.prefix` beside it (`prefix: 24` for 255.255.255.0)"],
        ),
        ("template: 101", "template: 42", &["24:11 template: 42 is not a VMID: they go from 100 to 999999999"]),
        // Everything at once, in the order of lines; a rule about what could not be read stays silent.
        (
            "  version: 1.12.4\n  kubernetes_version: 1.34.1",
            &format!("  verson: 1.12.4\n  kubernetes_version: {id}"),
            &[
                "4:3 talos.verson: unknown key (did you mean `version`?)",
                "4:3 talos.version: this key is missing",
                &format!("5:23 talos.kubernetes_version: '{id}' is not a version such as 1.13.9, 1.13 or latest"),
            ],
        ),
    ];
    let mut wrong = Vec::new();
    for (part, replacement, expected) in cases {
        assert!(GOOD.contains(part), "{part}");
        let found = match load::profile("good.yaml", &GOOD.replacen(part, replacement, 1)) {
            Ok(_) => Vec::new(),
            Err(problems) => lines(&problems),
        };
        let mut sorted: Vec<&str> = expected.to_vec();
        sorted.sort_unstable();
        let mut got: Vec<&str> = found.iter().map(String::as_str).collect();
        got.sort_unstable();
        if got != sorted {
            wrong.push(format!("{replacement}\n  expected {expected:#?}\n  found {found:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_fault_of_a_site_is_named_with_its_place() {
    let good = "endpoints: [https://a:8006]\nnodes: [{name: a}]\n";
    assert!(load::site("site.yaml", good).is_ok());
    let cases: &[(&str, &[&str])] = &[
        (
            "endpoints: [http://a:8006]\nnodes: []\n",
            &[
                "1:13 endpoints[0]: 'http://a:8006' is not a URL such as https://pve1.example.org:8006",
                "2:8 nodes: there must be at least one",
            ],
        ),
        (
            &format!("{good}tls: {{fingerprint: aa:bb}}\n"),
            &["3:20 tls.fingerprint: 'aa:bb' is not the SHA-256 of a certificate (32 pairs of hex digits)"],
        ),
        (
            &format!("{good}auth: {{token: {{env: A, file: b}}}}\n"),
            &["3:15 auth.token: expected one of `env`, `file`, `command` or `secret`"],
        ),
        (&format!("{good}auth: {{}}\n"), &["3:7 auth: expected either `token` or `user`"]),
        (
            &format!("{good}vmid_ranges: {{templates: 100-1000, vms: 1000-1999}}\n"),
            &["3:41 vmid_ranges.vms: overlaps `vmid_ranges.templates`"],
        ),
        (
            &format!("{good}dial: [{{from: 10.0.0.0/24, to: 127.1.0.0/16}}]\n"),
            &["3:8 dial[0]: `from` and `to` must be networks of one size and family"],
        ),
        (&format!("{good}default: {{}}\n"), &["3:1 default: unknown key (did you mean `defaults`?)"]),
    ];
    for (text, expected) in cases {
        assert_eq!(lines(&load::site("site.yaml", text).unwrap_err()), *expected, "{text}");
    }
}

#[test]
fn a_secret_in_the_site_file_warns_and_is_never_shown() {
    let text = "endpoints: [a]\nnodes: [{name: a}]\nauth: {token: recast@pve!ci=s3cret}\n";
    let loaded = load::site("site.yaml", text).unwrap();
    let [warning] = &loaded.warnings[..] else { panic!("{:?}", loaded.warnings) };
    assert_eq!((warning.line, warning.column), (3, 15));
    assert!(!format!("{loaded:?}{warning}").contains("s3cret"));
    let Some(profile::Auth::Token(credential)) = &loaded.value.auth else { panic!() };
    let SecretSource::Inline(kept) = &credential.secret else { panic!() };
    assert_eq!(credential.parse(kept).unwrap().0, "recast@pve!ci");
    let broken = load::site("site.yaml", &format!("{text}oops: 1\nauth: {{token: {{secret: s3cret, x: 1}}}}\n"));
    let broken = broken.unwrap_err().to_string();
    assert!(broken.contains("auth: this key occurs twice") && broken.contains("oops: unknown key"), "{broken}");
    assert!(!broken.contains("s3cret"), "{broken}");
    let in_url =
        load::site("site.yaml", "endpoints: ['https://root:s3cret@a:8006']\nnodes: [{name: a}]\n").unwrap_err();
    assert!(!in_url.to_string().contains("s3cret"), "{in_url}");
}

#[test]
fn what_is_no_yaml_is_refused_with_its_place() {
    let cases = [
        ("", "1:1 the file is empty"),
        ("# only a comment\n", "1:1 the file is empty"),
        ("- a\n", "1:1 expected a mapping, found a list"),
        ("name: a\n---\nname: b\n", "2:1 a second document: one file holds one profile"),
    ];
    for (text, expected) in cases {
        assert_eq!(lines(&load::profile("a.yaml", text).unwrap_err()), [expected], "{text:?}");
    }
    let problems = load::profile("a.yaml", "name: a\ntags: [a, b\nnodes: {}\n").unwrap_err();
    assert!(problems.0[0].what.starts_with("not valid YAML: "), "{problems}");
    assert!(problems.0[0].line > 0);
    let missing = load::profile_file(Path::new("/nonexistent/a.yaml")).unwrap_err();
    assert!(missing.to_string().starts_with("/nonexistent/a.yaml: could not be read: "), "{missing}");
}

#[test]
fn a_problem_shows_the_line_and_a_caret() {
    let shown = load::profile("good.yaml", &GOOD.replace("prefix: 24", "prefx: 24")).unwrap_err().to_string();
    assert!(
        shown.contains(
            "good.yaml:12:3: network.prefx: unknown key\n    |\n 12 |   prefx: 24\n    |   ^\n  hint: did you mean `prefix`?"
        ),
        "{shown}"
    );
}

#[test]
fn siblings_are_held_apart() {
    let profile = load::profile("good.yaml", GOOD).unwrap().value;
    let other = load::profile("next.yaml", &GOOD.replace("good", "next")).unwrap().value;
    let found = profile::siblings::compare(&profile, &[("next.yaml".to_owned(), other)]);
    let shown: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert!(shown[0].starts_with("nodes: VMIDs 1100, 1110, 1111 are those of next.yaml as well"), "{shown:?}");
    assert!(shown.iter().any(|line| line.contains("warning: network.pod_cidr: 10.244.0.0/16 overlaps")), "{shown:?}");
    assert!(shown.iter().any(|line| line.contains("address 192.168.178.61 is used in next.yaml")), "{shown:?}");
    let near = load::profile(
        "near.yaml",
        &GOOD.replace("name: good\n", "name: near\n").replace("[talos, good]", "[talos, good, near]"),
    );
    let found = profile::siblings::compare(&profile, &[("near.yaml".to_owned(), near.unwrap().value)]);
    assert!(found.iter().any(|problem| problem.key == "tags"), "{found:?}");
}
