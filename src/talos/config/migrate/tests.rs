use super::*;
use crate::talos::config::schema::shapes;
use crate::talos::config::yaml::Map;
use crate::talos::config::{Input, generate};
use crate::talos::secrets::Secrets;
use crate::types::Role;
use secrecy::ExposeSecret as _;

/// The taint and the label of control planes.
const CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane";

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
fn each_release_tells_what_it_changes_about_keys() {
    let cases: [(&str, &str, &str, &[&str]); 9] = [
        ("1.6.0", "1.7.0", "machine: {network: {kubespan: {enabled: true}}}\n", &["kubespan-endpoints"]),
        ("1.6.0", "1.7.0", "machine: {network: {kubespan: {enabled: false}}}\n", &[]),
        (
            "1.8.0",
            "1.9.0",
            "machine: {install: {bootloader: true, extraKernelArgs: [talos.unified_cgroup_hierarchy=0, a=b]}}\n",
            &["bootloader", "cgroups"],
        ),
        (
            "1.10.0",
            "1.11.0",
            "machine: {kubelet: {image: \"example.org/kubelet@sha256:0\"}}\ncluster: {scheduler: {image: \"s:v1.34.1@sha256:0\"}}\n",
            &["untagged-image"],
        ),
        (
            "1.11.0",
            "1.12.0",
            "machine:\n  time: {servers: [a]}\n  network:\n    extraHostEntries: [{ip: 192.0.2.1, aliases: [a]}]\n    \
             nameservers: [192.0.2.53]\n    searchDomains: [a]\n    disableSearchDomain: true\n",
            &["host-entries", "old-disable-search-domain", "old-nameservers", "old-search-domains", "time"],
        ),
        ("1.12.0", "1.13.0", "machine: {network: {nameservers: [192.0.2.53]}}\n", &["nameservers-replace"]),
        (
            "1.11.0",
            "1.14.0",
            "machine: {network: {nameservers: [192.0.2.53]}}\n",
            &["nameservers", "nameservers-replace"],
        ),
        (
            "1.13.0",
            "1.14.0",
            "machine:\n  sysctls: {a: b}\n  sysfs: {a: b}\n  kernel: {modules: [{name: a}]}\n  udev: {rules: [a]}\n  pods: [{a: \
             b}]\n  baseRuntimeSpecOverrides: {a: b}\n  features:\n    imageCache: {localEnabled: true}\n    \
             kubernetesTalosAPIAccess: {enabled: true}\n",
            &[
                "base-runtime-spec",
                "image-cache",
                "kernel-modules",
                "static-pods",
                "sysctls",
                "sysfs",
                "talos-api-access",
                "udev",
            ],
        ),
        (
            "1.13.0",
            "1.14.0",
            "cluster:\n  id: a\n  extraManifests: [https://example.org/a]\n  extraManifestHeaders: {a: b}\n  \
             inlineManifests: [{name: a, contents: b}]\n",
            &["extra-manifests", "identity", "manifest-headers", "old-inline-manifests"],
        ),
    ];
    for (running, target, patch, expected) in cases {
        let mut rules: Vec<&str> = of_patch(running, target, patch).iter().map(|finding| finding.rule).collect();
        rules.sort_unstable();
        assert_eq!(rules, expected, "{running} -> {target}: {patch}");
    }
}

#[test]
fn deleting_an_old_key_is_told_as_setting_it_is() {
    let patch = "cluster:\n  apiServer:\n    auditPolicy: {$patch: delete}\nmachine:\n  sysctls: {$patch: delete}\n";
    let found = of_patch("1.13.0", "1.14.0", patch);
    let told: Vec<String> = found.iter().map(Finding::to_string).collect();
    let expected = "p.yaml, line 3, column 5: cluster.apiServer.auditPolicy: since Talos 1.14 a document says this, and there \
                    is nothing to delete at the old key; leave the delete out, or write it into the document that says this now";
    assert_eq!(told, [expected]);
    assert_eq!(of_patch("1.12.0", "1.13.0", patch), []);
}

#[test]
fn what_no_key_says_is_told_for_the_releases_on_the_way_that_still_have_it() {
    let told = |running: &str, target: &str| -> Vec<&'static str> {
        let found = findings(Some(&version(running)), &version(target), &Subjects::default());
        assert!(found.iter().all(|finding| !finding.instead.is_empty()), "{found:?}");
        found.into_iter().map(|finding| finding.rule).collect()
    };
    let whole = told("1.5.5", "1.14.0");
    let lasting = rules::CHANGES.iter().filter(|change| change.until.is_none());
    assert_eq!(whole.len(), lasting.clone().count(), "{whole:?}");
    assert!(lasting.clone().all(|change| whole.contains(&change.name)), "{whole:?}");
    assert!(told("1.7.7", "1.9.5").contains(&"meta-data-hostname"));
    assert!(!told("1.7.7", "1.10.9").contains(&"meta-data-hostname"), "it was mended");
    assert_eq!(told("1.13.0", "1.13.9"), Vec::<&str>::new());
}

/// Something of this type that a patch can have.
fn sample(of: &shapes::Type) -> Value {
    use shapes::{Scalar, Type, fields};
    match of {
        Type::Optional(inner) => sample(inner),
        Type::Shape(name) => {
            let first = fields(name).iter().find(|field| !matches!(field.key, "apiVersion" | "kind" | "name"));
            first.map_or_else(Map::new, |field| Map::new().with(field.key, sample(&field.of))).into()
        }
        Type::Map(inner, _) => Map::new().with("a", sample(inner)).into(),
        Type::Free => Map::new().with("a", "b").into(),
        Type::List(inner, _) => vec![sample(inner)].into(),
        Type::Scalar(scalar) | Type::Unit(scalar) => match scalar {
            Scalar::Bool => true.into(),
            Scalar::Integer { .. } => 7_u32.into(),
            Scalar::Prefix => "192.0.2.0/24".into(),
            Scalar::Address => "192.0.2.1".into(),
            Scalar::Url => "https://example.org:6443".into(),
            _ => "x".into(),
        },
        Type::Argument | Type::Pem(_) => "x".into(),
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
    let subjects = Subjects { patches: &[&patch], image: Image::Other, ..Subjects::default() };
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
    let changed = rules::all().map(|rule| (rule.document, rule.path));
    for (document, path) in changed.chain(keys::KEYS.iter().map(|(kind, path, _)| (*kind, *path))) {
        // The names of mappings that the user chooses lead nowhere.
        walk(document, path.split(".extraArgs.").next().unwrap_or(path));
    }
}

/// What is translated in a way of its own: since which minor, which key, and a patch with a value that says something.
const OWN_WAY: &[(u32, &str, &str)] = &[
    (12, "machine.network.hostname", "machine: {network: {hostname: node}}"),
    (12, "machine.features.stableHostname", "machine: {features: {stableHostname: false}}"),
    (
        12,
        "machine.registries.mirrors",
        "machine: {registries: {mirrors: {docker.io: {endpoints: [https://m.example.org], skipFallback: true}}}}",
    ),
    (14, "machine.network.nameservers", "machine: {network: {nameservers: [192.0.2.53]}}"),
    (14, "machine.features.kubePrism", "machine: {features: {kubePrism: {enabled: false, port: 7445}}}"),
    (14, "machine.features.kubePrism", "machine: {features: {kubePrism: {enabled: true, port: 7446}}}"),
    (14, "cluster.allowSchedulingOnControlPlanes", "cluster: {allowSchedulingOnControlPlanes: true}"),
    (14, "cluster.allowSchedulingOnMasters", "cluster: {allowSchedulingOnMasters: true}"),
    (14, "cluster.proxy", "cluster: {proxy: {disabled: true}}"),
    (14, "cluster.coreDNS", "cluster: {coreDNS: {disabled: true}}"),
    (14, "machine.controlPlane.controllerManager", "machine: {controlPlane: {controllerManager: {disabled: true}}}"),
    (14, "machine.controlPlane.scheduler", "machine: {controlPlane: {scheduler: {disabled: true}}}"),
    (14, "cluster.discovery", "cluster: {discovery: {enabled: false}}"),
    (14, "cluster.discovery", "cluster: {discovery: {enabled: true}}"),
    (
        14,
        "cluster.discovery",
        "cluster: {discovery: {enabled: true, registries: {service: {endpoint: https://d.example.org/}}}}",
    ),
    (
        14,
        "cluster.apiServer.admissionControl",
        "cluster: {apiServer: {admissionControl: [{name: PodSecurity, configuration: {exemptions: {namespaces: [a]}}}]}}",
    ),
    (14, "machine.install", "machine: {install: {disk: /dev/vda, wipe: true}}"),
    (14, "cluster.network", "cluster: {network: {cni: {name: none}}}"),
    (14, "cluster.network", "cluster: {network: {cni: {name: custom, urls: [https://example.org/cni.yaml]}}}"),
];

fn by_itself(patch: &Patch, contract: Contract, role: Role) -> Patch {
    translate(std::slice::from_ref(patch), contract, role).remove(0)
}

/// A part as what it does: an empty document only says which one it is.
fn deeds_of(part: &Part) -> (&str, Option<&str>, &[crate::talos::config::delete::Delete], Option<Map>) {
    let says = |map: &&Map| map.keys().any(|key| !matches!(key, "apiVersion" | "kind" | "name"));
    (part.kind.name, part.name(), part.deletes(), part.content().filter(says).cloned())
}

#[test]
fn each_key_that_moved_is_told_with_the_documents_that_a_translation_writes() {
    let of_table = translate::MOVES.iter().map(|(since, from, kind, to)| {
        let value = if to.is_empty() { sample(walk("v1alpha1", from)) } else { sample(walk(kind, to)) };
        let inner = from.split('.').rev().fold(value, |value, key| Map::new().with(key, value).into());
        (*since, (*from).to_owned(), crate::talos::config::yaml::document(&inner))
    });
    let own = OWN_WAY.iter().map(|(since, path, patch)| (*since, (*path).to_owned(), format!("{patch}\n")));
    for (since, path, text) in of_table.chain(own) {
        let patch = Patch::parse(&text, "p.yaml").unwrap_or_else(|error| panic!("{path}: {error}"));
        let contract = Contract::minor(since);
        let subjects = Subjects { patches: &[&patch], nocloud: true, ..Subjects::default() };
        let found = findings(None, &contract.first(), &subjects);
        let covers = |finding: &&Finding| {
            path == finding.path || path.strip_prefix(&finding.path).is_some_and(|rest| rest.starts_with('.'))
        };
        let finding = found.iter().find(covers).unwrap_or_else(|| panic!("nothing tells {path}: {found:?}"));
        for role in [Role::ControlPlane, Role::Worker] {
            let told = replacement(&patch, finding, (contract, role), &|_| false).unwrap();
            assert_eq!(told.rest, Rest::Nothing, "{path}, {role}: {}", told.documents);
            let translated = by_itself(&patch, contract, role);
            let made = &translated.parts()[1..];
            if role == Role::ControlPlane {
                assert!(!made.is_empty(), "{path} is translated");
            }
            if made.is_empty() {
                assert_eq!(told.documents, "", "{path}");
                continue;
            }
            // A variable's value may be a secret; the sample's is x.
            let documents = told.documents.replace("(masked)", "x");
            let shown = Patch::parse(&documents, "shown").unwrap_or_else(|error| panic!("{path}: {error}"));
            let (shown, made): (Vec<_>, Vec<_>) =
                (shown.parts().iter().map(deeds_of).collect(), made.iter().map(deeds_of).collect());
            assert!(shown == made, "{path}, {role}: what is shown is not what is written: {}", told.documents);
        }
    }
}

#[test]
fn what_is_shown_instead_has_no_secret() {
    let text = "machine: {kubelet: {extraArgs: {v: hush, w: fine}}}\ncluster: {apiServer: {env: {PROXY: whoever}}}\n";
    let patch = Patch::parse(text, "p.yaml").unwrap();
    let subjects = Subjects { patches: &[&patch], ..Subjects::default() };
    let found = findings(None, &version("1.14.0"), &subjects);
    let target = (Contract::minor(14), Role::ControlPlane);
    let told = |path: &str| {
        let finding = found.iter().find(|finding| finding.path == path).unwrap();
        replacement(&patch, finding, target, &|text| text == "hush").unwrap().documents
    };
    let kubelet = "apiVersion: v1alpha1\nkind: KubeletConfig\nextraArgs:\n    v: (masked)\n    w: fine\n";
    assert_eq!(told("machine.kubelet"), kubelet);
    assert!(told("cluster.apiServer").ends_with("env:\n    PROXY: (masked)\n"), "{}", told("cluster.apiServer"));
}

#[test]
fn a_translation_says_each_document_once_and_keeps_what_it_can_t_translate() {
    let text = "machine: {network: {hostname: a}, features: {stableHostname: false}}\n";
    let translated = by_itself(&Patch::parse(text, "p.yaml").unwrap(), Contract::minor(12), Role::Worker);
    let kinds: Vec<&str> = translated.parts()[1..].iter().map(|part| part.kind.name).collect();
    assert_eq!(kinds, ["HostnameConfig"]);
    let text =
        "machine: {kubelet: {clusterDNS: [10.0.0.10], extraMounts: [{destination: /a, type: bind, source: /a}]}}\n";
    let patch = Patch::parse(text, "p.yaml").unwrap();
    let subjects = Subjects { patches: &[&patch], ..Subjects::default() };
    let found = findings(None, &version("1.14.0"), &subjects);
    let finding = found.iter().find(|finding| finding.path == "machine.kubelet").unwrap();
    let told = replacement(&patch, finding, (Contract::minor(14), Role::Worker), &|_| false).unwrap();
    assert_eq!(told.rest, Rest::Stays);
    assert!(told.documents.contains("clusterDNS") && !told.documents.contains("extraMounts"), "{}", told.documents);
}

/// What a patch takes out at an old key is taken out of its document, and goes where it was to go.
#[test]
fn what_is_deleted_at_an_old_key_is_deleted_in_its_document() {
    const CASES: &[(&str, &str)] = &[
        ("machine: {features: {stableHostname: {$patch: delete}}}", "HostnameConfig: auto off"),
        ("machine: {features: {kubePrism: {$patch: delete}}}", "KubePrismConfig"),
        ("cluster: {discovery: {$patch: delete}}", "DiscoveryServiceConfig default"),
        ("machine: {features: {hostDNS: {enabled: {$patch: delete}}}}", "ResolverConfig hostDNS.enabled"),
        ("machine: {install: {wipe: {$patch: delete}}}", "UnattendedInstallConfig provisioning.wipe"),
        (
            "machine: {kubelet: {defaultRuntimeSeccompProfileEnabled: {$patch: delete}}}",
            "KubeletConfig defaultRuntimeSeccompProfileEnabled",
        ),
        (
            "machine: {nodeLabels: {node.kubernetes.io/exclude-from-external-load-balancers: {$patch: delete}}}",
            "KubeNodeConfig labels.node.kubernetes.io/exclude-from-external-load-balancers",
        ),
        ("cluster: {apiServer: {auditPolicy: {$patch: delete}}}", "KubeAuditPolicyConfig"),
        (
            "cluster: {apiServer: {admissionControl: [{name: PodSecurity, $patch: delete}]}}",
            "KubeAdmissionControlConfig PodSecurity",
        ),
        ("cluster: {apiServer: {disablePodSecurityPolicy: {$patch: delete}}}", ""),
        ("machine: {kubelet: {credentialProviderConfig: {$patch: delete}}}", "KubeCredentialProviderConfig"),
        ("machine: {features: {kubePrism: {enabled: {$patch: delete}, port: 7446}}}", "KubePrismConfig"),
        ("cluster: {allowSchedulingOnControlPlanes: true, allowSchedulingOnMasters: true}", TAINT),
        ("cluster: {allowSchedulingOnControlPlanes: false, allowSchedulingOnMasters: true}", ""),
    ];
    const TAINT: &str = "KubeNodeConfig taints.node-role.kubernetes.io/control-plane";
    let input = Input::new("lab", "https://192.0.2.10:6443", Contract::minor(14), "1.37.0").unwrap();
    let bundle = include_str!("../../../../tests/fixtures/talos-configs/secrets/rsa.yaml");
    let secrets = Secrets::load(bundle, "2026-12-01T00:00:00Z".parse().unwrap()).unwrap();
    for (text, wanted) in CASES {
        let patch = Patch::parse(text, "p.yaml").unwrap();
        let translated = by_itself(&patch, Contract::minor(14), Role::ControlPlane);
        let told: Vec<String> = translated.parts()[1..]
            .iter()
            .map(|part| {
                let deletes = part.deletes().iter().map(|delete| delete.path().join("."));
                let sets =
                    part.content().and_then(|map| map.get("auto")?.as_text()).map(|auto| format!(": auto {auto}"));
                let name = part.name().map(str::to_owned);
                let words = name.into_iter().chain(deletes).filter(|word| !word.is_empty());
                [vec![part.kind.name.to_owned()], words.collect()].concat().join(" ") + &sets.unwrap_or_default()
            })
            .collect();
        assert_eq!(told.join(", "), *wanted, "{text}");
        let (left, _) = translated.parts().split_first().unwrap();
        assert!(left.content().is_none() && left.deletes().is_empty(), "{text} stays");
        let mut config = generate(&secrets, &input, Role::ControlPlane);
        config.apply(&translated).unwrap_or_else(|error| panic!("{text}: {error}"));
    }
    // What Talos itself says of control planes stood in no configuration before, and stays.
    for key in ["nodeLabels", "nodeTaints"] {
        let patch = Patch::parse(&format!("machine: {{{key}: {{$patch: delete}}}}"), "p.yaml").unwrap();
        let mut config = generate(&secrets, &input, Role::ControlPlane);
        config.apply(&by_itself(&patch, Contract::minor(14), Role::ControlPlane)).unwrap();
        let text = config.to_yaml();
        let node = text.expose_secret().split("---\n").find(|text| text.contains("kind: KubeNodeConfig")).unwrap();
        let of_role = node.lines().filter(|line| line.contains(CONTROL_PLANE)).count();
        assert_eq!((of_role, node.contains("load-balancers")), (2, key == "nodeTaints"), "{node}");
    }
    // What is nowhere, or may be there without what leads to it, stays and is told; and an image that is needed.
    let stays = Patch::parse("machine: {network: {searchDomains: {$patch: delete}}}", "p.yaml").unwrap();
    let translated = by_itself(&stays, Contract::minor(14), Role::ControlPlane);
    assert_eq!((translated.parts().len(), translated.parts()[0].deletes().len()), (1, 1));
    for (text, path) in [
        ("cluster: {apiServer: {image: {$patch: delete}}}", "cluster.apiServer.image"),
        ("machine: {features: {$patch: delete}}", "machine.features"),
    ] {
        let patch = Patch::parse(text, "p.yaml").unwrap();
        let translated = by_itself(&patch, Contract::minor(14), Role::ControlPlane);
        let subjects = Subjects { patches: &[&translated], ..Subjects::default() };
        let found = findings(None, &version("1.14.0"), &subjects);
        assert_eq!(found.iter().map(|finding| finding.path.as_str()).collect::<Vec<_>>(), [path]);
    }
}

/// Where a later patch turns back what an earlier one said, and a document would not, neither is translated.
#[test]
fn what_patches_say_against_each_other_stays_in_all_of_them() {
    const CASES: &[(u32, &str, &str)] = &[
        (14, "cluster: {allowSchedulingOnControlPlanes: true}", "cluster: {allowSchedulingOnControlPlanes: false}"),
        (14, "cluster: {allowSchedulingOnMasters: true}", "cluster: {allowSchedulingOnControlPlanes: false}"),
        (14, "machine: {features: {kubePrism: {enabled: false}}}", "machine: {features: {kubePrism: {port: 7446}}}"),
        (14, "cluster: {network: {cni: {name: none}}}", "cluster: {network: {cni: {name: flannel}}}"),
        (12, "machine: {features: {stableHostname: false}}", "machine: {features: {stableHostname: true}}"),
        (
            12,
            "machine: {registries: {mirrors: {docker.io: {endpoints: [https://m.example.org]}}}}",
            "machine: {registries: {mirrors: {$patch: delete}}}",
        ),
        (13, "machine: {network: {kubespan: {enabled: true}}}", "machine: {network: {kubespan: {$patch: delete}}}"),
        (
            14,
            "cluster: {apiServer: {admissionControl: [{name: EventRateLimit}]}}",
            "cluster: {apiServer: {admissionControl: {$patch: delete}}}",
        ),
    ];
    for (since, one, other) in CASES {
        let patches = [one, other].map(|text| Patch::parse(text, "p.yaml").unwrap());
        for (before, after) in patches.iter().zip(translate(&patches, Contract::minor(*since), Role::ControlPlane)) {
            assert_eq!(
                before.parts().iter().map(deeds_of).collect::<Vec<_>>(),
                after.parts().iter().map(deeds_of).collect::<Vec<_>>(),
                "{one}"
            );
        }
    }
    // What only sets the same is.
    let patches =
        ["a", "b"].map(|name| Patch::parse(&format!("machine: {{network: {{hostname: {name}}}}}"), name).unwrap());
    let translated = translate(&patches, Contract::minor(12), Role::Worker);
    assert!(translated.iter().all(|patch| patch.parts()[1].kind.name == "HostnameConfig"));
}
