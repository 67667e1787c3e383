use super::*;

fn version(text: &str) -> Version {
    text.parse().unwrap()
}

fn of_patch(running: &str, target: &str, patch: &str) -> Vec<Finding> {
    let patch = Patch::parse(patch, "p.yaml").unwrap();
    let subjects = Subjects { patches: &[&patch], nocloud: true, ..Subjects::default() };
    findings(Some(&version(running)), &version(target), &subjects)
        .into_iter()
        .filter(|finding| !finding.origin.is_empty())
        .collect()
}

#[test]
fn each_key_that_moved_is_named_with_its_line_and_what_to_write() {
    let patch = "machine:\n  network:\n    hostname: a\n  install:\n    extensions:\n      - image: x\n";
    let found = of_patch("1.9.0", "1.13.0", patch);
    let rules: Vec<(&str, usize, Weight)> = found.iter().map(|f| (f.rule, f.spot.line, f.weight)).collect();
    assert_eq!(rules, [("hostname", 3, Weight::Breaks), ("install-extensions", 5, Weight::Changes)]);
    assert_eq!(
        found[0].to_string(),
        "p.yaml, line 3, column 5: machine.network.hostname: since Talos 1.12 a document says this, and the old key conflicts \
         with it; write the document"
    );
    assert!(found[0].instead.contains("kind: HostnameConfig"));
}

#[test]
fn what_changed_before_is_no_news_and_what_breaks_stays() {
    assert_eq!(of_patch("1.12.0", "1.13.0", "machine: {disks: [{device: /dev/sdb}]}\n"), []);
    assert_eq!(of_patch("1.9.0", "1.13.0", "machine: {disks: [{device: /dev/sdb}]}\n").len(), 1);
    assert_eq!(of_patch("1.13.0", "1.13.9", "machine: {network: {hostname: a}}\n").len(), 1);
    assert_eq!(of_patch("1.10.0", "1.11.0", "machine: {network: {hostname: a}}\n"), []);
}

#[test]
fn json_patches_end_with_1_12_and_documents_begin_with_their_version() {
    let json = "[{op: add, path: /machine/sysctls, value: {}}]";
    let found = of_patch("1.11.0", "1.12.0", json);
    assert_eq!((found[0].rule, found[0].path.as_str()), ("json-patch", "/machine/sysctls"));
    assert_eq!(found[0].spot, Spot { line: 1, column: 12 });
    assert_eq!(of_patch("1.10.0", "1.11.0", json), []);
    let document = "apiVersion: v1alpha1\nkind: HostnameConfig\nhostname: a\nauto: off\n";
    assert_eq!(of_patch("1.10.0", "1.11.0", document)[0].rule, "document-too-new");
    assert_eq!(of_patch("1.11.0", "1.12.0", document), []);
}

#[test]
fn keys_begin_with_their_version() {
    let cases = [
        ("machine:\n  features:\n    hostDNS: {enabled: true}\n", "1.6.0", "1.7.0", "1.7", "machine.features.hostDNS"),
        (
            "cluster:\n  apiServer:\n    authorizationConfig: [{type: Node, name: node}]\n",
            "1.8.0",
            "1.9.0",
            "1.9",
            "cluster.apiServer.authorizationConfig",
        ),
        (
            "machine:\n  install:\n    grubUseUKICmdline: false\n",
            "1.11.0",
            "1.12.0",
            "1.12",
            "machine.install.grubUseUKICmdline",
        ),
    ];
    for (patch, before, first, since, path) in cases {
        let found = of_patch(before, before, patch);
        assert_eq!((found[0].rule, found[0].weight), ("key-too-new", Weight::Breaks), "{path}");
        let told = format!("p.yaml, line 3, column 5: {path}: since Talos {since} there is this key, and Talos ");
        assert!(found[0].to_string().starts_with(&told), "{}", found[0]);
        assert!(of_patch(first, first, patch).iter().all(|finding| finding.rule != "key-too-new"), "{path}");
    }
}

#[test]
fn a_metal_installer_on_nocloud_and_links_by_name_are_found() {
    let patch = "machine: {install: {image: factory.talos.dev/metal-installer/abc:v1.13.0}}\n";
    assert_eq!(of_patch("1.12.0", "1.13.0", patch)[0].rule, "metal-installer");
    assert_eq!(of_patch("1.9.0", "1.13.0", patch)[0].rule, "metal-installer");
    for other in ["factory.talos.dev/installer/abc:v1.13.0", "ghcr.io/siderolabs/installer:v1.13.0"] {
        let patch = format!("machine: {{install: {{image: {other}}}}}\n");
        assert_eq!(of_patch("1.12.0", "1.13.0", &patch)[0].rule, "metal-installer", "{other}");
        assert_eq!(of_patch("1.8.0", "1.9.0", &patch), [], "{other}");
    }
    for right in ["nocloud-installer", "nocloud-installer-secureboot"] {
        let patch = format!("machine: {{install: {{image: factory.talos.dev/{right}/abc:v1.13.0}}}}\n");
        assert_eq!(of_patch("1.12.0", "1.13.0", &patch), [], "{right}");
    }
    let by_name = "machine: {network: {interfaces: [{interface: eth0}]}}\n";
    assert_eq!(of_patch("1.12.0", "1.13.0", by_name)[0].rule, "interface-by-name");
    assert_eq!(of_patch("1.13.0", "1.13.9", by_name), []);
    let patch = Patch::parse("machine: {network: {interfaces: [{interface: eth0}]}}\n", "p.yaml").unwrap();
    let subjects = Subjects { patches: &[&patch], extensions_change: true, ..Subjects::default() };
    let found = findings(Some(&version("1.12.0")), &version("1.13.0"), &subjects);
    assert!(found.iter().any(|finding| finding.rule == "nic-rename"), "{found:?}");
    let same = findings(Some(&version("1.13.0")), &version("1.13.0"), &subjects);
    assert!(same.iter().any(|finding| finding.rule == "nic-rename"), "{same:?}");
}

#[test]
fn of_what_a_machine_runs_only_news_are_told() {
    let text = "machine: {features: {rbac: false, apidCheckExtKeyUsage: true}, network: {hostname: a}}\n";
    let config = Config::parse(text).unwrap();
    let rules = |running: &str, target: &str| -> Vec<&'static str> {
        let subjects = Subjects { configs: &[("cp-01", &config)], nocloud: true, ..Subjects::default() };
        let found = findings(Some(&version(running)), &version(target), &subjects);
        found.into_iter().filter(|finding| finding.origin == "cp-01").map(|finding| finding.rule).collect()
    };
    assert_eq!(rules("1.11.6", "1.12.4"), ["rbac"]);
    assert_eq!(rules("1.12.4", "1.13.9"), Vec::<&str>::new());
}

#[test]
fn every_rule_is_about_a_key_that_there_is() {
    let changed = RULES.iter().map(|rule| (rule.name, rule.document, rule.path));
    let newer = rules::KEYS.iter().map(|(path, _)| ("key-too-new", "v1alpha1", *path));
    for (name, document, path) in changed.chain(newer) {
        let mut shape = crate::talos::config::schema::shapes::document(document).unwrap().shape;
        let keys: Vec<&str> = path.split('.').map(|key| key.trim_end_matches("[]")).collect();
        for key in keys {
            use crate::talos::config::schema::shapes::{Type, field};
            let Some(found) = field(shape, key) else { panic!("{name}: {key} of {path}") };
            let mut of = &found.of;
            while let Type::Optional(inner) | Type::List(inner, _) = of {
                of = inner;
            }
            match of {
                Type::Shape(name) => shape = name,
                _ => break,
            }
        }
    }
}
