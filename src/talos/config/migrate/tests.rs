use super::*;
use crate::talos::config::schema::shapes;
use crate::talos::config::yaml::Map;

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

/// Something of this type that a patch can have.
fn sample(of: &shapes::Type) -> Value {
    use shapes::{Scalar, Type};
    match of {
        Type::Optional(inner) => sample(inner),
        Type::Shape(_) | Type::Map(..) | Type::Free => Map::new().into(),
        Type::List(..) => Vec::new().into(),
        Type::Scalar(Scalar::Bool) | Type::Unit(Scalar::Bool) => true.into(),
        _ => "x".into(),
    }
}

/// The shape and the type that a path of a document of a kind leads to; panics where there is no such key.
fn walk(kind: &str, path: &str) -> &'static shapes::Type {
    use shapes::{Type, field};
    let mut shape = shapes::document(kind).unwrap().shape;
    let mut last = None;
    for key in path.split('.').map(|key| key.trim_end_matches("[]").trim_end_matches("{}")) {
        let found = field(shape, key).unwrap_or_else(|| panic!("{key} of {kind} {path}"));
        last = Some(&found.of);
        let mut of = &found.of;
        while let Type::Optional(inner) | Type::List(inner, _) | Type::Map(inner, _) = of {
            of = inner;
        }
        if let Type::Shape(name) = of {
            shape = name;
        }
    }
    last.unwrap()
}

/// A document of a kind with only this key in it.
fn only(kind: &str, path: &str) -> Map {
    let mut value = sample(walk(kind, path));
    for key in path.split('.').rev() {
        value = match (key.strip_suffix("[]"), key.strip_suffix("{}")) {
            (Some(key), _) => Map::new().with(key, vec![value]).into(),
            (_, Some(key)) => Map::new().with(key, Map::new().with("example.org", value)).into(),
            _ => Map::new().with(key, value).into(),
        };
    }
    let Value::Map(map) = value else { panic!("{path} is no mapping") };
    map
}

#[test]
fn every_key_begins_with_its_version() {
    for (kind, path, since) in keys::KEYS {
        let part = Part::made(shapes::document(kind).unwrap(), None, Vec::new(), Some(only(kind, path)));
        let patch = Patch::parse("machine: {}\n", "p.yaml").unwrap().with_parts(vec![part]);
        let told = |minor: u32| {
            let subjects = Subjects { patches: &[&patch], nocloud: true, ..Subjects::default() };
            findings(None, &Contract::minor(minor).first(), &subjects)
                .into_iter()
                .any(|finding| finding.rule == "key-too-new" && finding.since.minor() == (1, (*since).into()))
        };
        assert!(told(since - 1), "{kind} {path} is refused before 1.{since}");
        for minor in *since..=14 {
            assert!(!told(minor), "{kind} {path} is read since 1.{since}");
        }
    }
}

#[test]
fn a_key_too_new_is_told_with_its_place() {
    let cases = [
        (
            "machine:\n  features:\n    imageCache: {localEnabled: true}\n",
            "1.6.0",
            "1.9",
            "machine.features.imageCache",
        ),
        ("machine:\n  features:\n    hostDNS: {enabled: true}\n", "1.6.0", "1.7", "machine.features.hostDNS"),
        (
            "machine:\n  registries:\n    mirrors: {docker.io: {endpoints: [a], skipFallback: true}}\n",
            "1.8.0",
            "1.9",
            "machine.registries.mirrors.docker.io.skipFallback",
        ),
        (
            "apiVersion: v1alpha1\nkind: VolumeConfig\nname: EPHEMERAL\nencryption: {provider: luks2, keys: [{slot: 0, nodeID: {}}]}\n",
            "1.10.0",
            "1.11",
            "VolumeConfig encryption",
        ),
    ];
    for (patch, target, since, path) in cases {
        let found = of_patch(target, target, patch);
        assert_eq!((found[0].rule, found[0].weight), ("key-too-new", Weight::Breaks), "{path}");
        let told = format!("{path}: since Talos {since} there is this key, and Talos ");
        assert!(found[0].to_string().contains(&told), "{}", found[0]);
        assert!(found[0].to_string().starts_with("p.yaml, line "), "{}", found[0]);
        assert_eq!(found.iter().filter(|finding| finding.rule == "key-too-new").count(), 1, "{found:?}");
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
    let changed = RULES.iter().map(|rule| (rule.document, rule.path));
    for (document, path) in changed.chain(keys::KEYS.iter().map(|(kind, path, _)| (*kind, *path))) {
        // The names of mappings that the user chooses lead nowhere.
        walk(document, path.split(".extraArgs.").next().unwrap_or(path));
    }
}
