//! Where each option ends up in a configuration, for every contract, and that nothing else changes with it.
//!
//! The places are those of Talos' own generator; this table says them once more, by rule.

use std::fs;
use std::path::Path;

use recast::talos::config::yaml::{Value, document};
use recast::talos::config::{Cni, Config, Contract, Input, Switch, differences, generate};
use recast::talos::secrets::Secrets;
use recast::types::Role;

/// An option: what it is called here, how it is set, and what differs then from a configuration without it.
struct Choice {
    name: &'static str,
    set: fn(&mut Input),
    differs: fn(u32, Role) -> Vec<&'static str>,
}

const PLANE: Role = Role::ControlPlane;

const OPTIONS: &[Choice] = &[
    Choice {
        name: "extra names",
        set: |input| input.extra_sans = vec!["api.example.org".into(), "192.0.2.9".into()],
        differs: |minor, role| {
            let machine = "~ v1alpha1 machine.certSANs: [] -> [api.example.org, 192.0.2.9]";
            match (role, minor) {
                (Role::Worker, _) => vec![machine],
                (_, ..=11) => vec![
                    machine,
                    "~ v1alpha1 cluster.apiServer.certSANs: [192.0.2.1] -> [192.0.2.1, api.example.org, 192.0.2.9]",
                ],
                (_, 12 | 13) => vec![machine, "+ v1alpha1 cluster.apiServer.certSANs: [api.example.org, 192.0.2.9]"],
                _ => vec![machine, "+ KubeAPIServerConfig certExtraSANs: [api.example.org, 192.0.2.9]"],
            }
        },
    },
    Choice {
        name: "another disk",
        set: |input| input.install_disk = Some("/dev/vda".into()),
        differs: |minor, _| match minor {
            ..=13 => vec!["~ v1alpha1 machine.install.disk: /dev/sda -> /dev/vda"],
            _ => vec![
                "~ UnattendedInstallConfig provisioning.diskSelector.match: disk.dev_path == \"/dev/sda\" -> \
                 disk.dev_path == \"/dev/vda\"",
            ],
        },
    },
    Choice {
        name: "no disk",
        set: |input| input.install_disk = None,
        differs: |minor, _| match minor {
            ..=13 => vec!["- v1alpha1 machine.install.disk: /dev/sda"],
            _ => vec!["- UnattendedInstallConfig: the document"],
        },
    },
    Choice {
        name: "an installer",
        set: |input| input.install_image = Some("registry.example.org/installer:v1".into()),
        differs: |minor, _| match minor {
            ..=13 => vec!["+ v1alpha1 machine.install.image: registry.example.org/installer:v1"],
            _ => vec!["+ UnattendedInstallConfig installer: {image: registry.example.org/installer:v1}"],
        },
    },
    Choice {
        name: "kernel arguments",
        set: |input| input.extra_kernel_args = vec!["nosmt".into(), "quiet".into()],
        // Since 1.14 only the image has them: there is no key.
        differs: |minor, _| match minor {
            ..=13 => vec!["+ v1alpha1 machine.install.extraKernelArgs: [nosmt, quiet]"],
            _ => Vec::new(),
        },
    },
    Choice {
        name: "the DNS domain",
        set: |input| input.dns_domain = "k8s.example.org".into(),
        differs: |minor, _| match minor {
            ..=13 => vec!["~ v1alpha1 cluster.network.dnsDomain: cluster.local -> k8s.example.org"],
            _ => vec!["~ KubeNetworkConfig dnsDomain: cluster.local -> k8s.example.org"],
        },
    },
    Choice {
        name: "networks",
        set: |input| {
            input.pod_subnets = vec!["10.1.0.0/16".into(), "fd00:1::/56".into()];
            input.service_subnets = vec!["10.2.0.0/16".into()];
        },
        differs: |minor, _| match minor {
            ..=13 => vec![
                "~ v1alpha1 cluster.network.podSubnets: [10.244.0.0/16] -> [10.1.0.0/16, fd00:1::/56]",
                "~ v1alpha1 cluster.network.serviceSubnets: [10.96.0.0/12] -> [10.2.0.0/16]",
            ],
            _ => vec![
                "~ KubeNetworkConfig podSubnets: [10.244.0.0/16] -> [10.1.0.0/16, fd00:1::/56]",
                "~ KubeNetworkConfig serviceSubnets: [10.96.0.0/12] -> [10.2.0.0/16]",
            ],
        },
    },
    Choice {
        name: "no CNI",
        set: |input| input.cni = Cni::None,
        differs: |minor, role| match (minor, role) {
            (..=13, _) => vec!["+ v1alpha1 cluster.network.cni: {name: none}"],
            (_, PLANE) => vec!["- KubeFlannelCNIConfig: the document"],
            _ => Vec::new(),
        },
    },
    Choice {
        name: "a CNI of one's own",
        set: |input| input.cni = Cni::Custom(vec!["https://example.org/a.yaml".into()]),
        differs: |minor, role| match (minor, role) {
            (..=13, _) => vec!["+ v1alpha1 cluster.network.cni: {name: custom, urls: [https://example.org/a.yaml]}"],
            (_, PLANE) => {
                vec!["+ KubeExternalManifestConfig/custom-cni: the document", "- KubeFlannelCNIConfig: the document"]
            }
            _ => Vec::new(),
        },
    },
    Choice {
        name: "mirrors",
        set: |input| {
            for mirror in
                ["ghcr.io=https://c.example.org", "docker.io=https://a.example.org", "docker.io=https://b.example.org"]
            {
                input.add_mirror(mirror).unwrap();
            }
        },
        differs: |minor, _| match minor {
            ..=11 => vec![
                "+ v1alpha1 machine.registries: {mirrors: {docker.io: {endpoints: [https://a.example.org, \
                 https://b.example.org]}, ghcr.io: {endpoints: [https://c.example.org]}}}",
            ],
            _ => vec!["+ RegistryMirrorConfig/docker.io: the document", "+ RegistryMirrorConfig/ghcr.io: the document"],
        },
    },
    Choice {
        name: "kernel parameters",
        set: |input| {
            input.sysctls = vec![("vm.swappiness".into(), "1".into()), ("net.core.somaxconn".into(), "9".into())];
        },
        differs: |minor, _| match minor {
            ..=13 => vec!["+ v1alpha1 machine.sysctls: {net.core.somaxconn: 9, vm.swappiness: 1}"],
            _ => vec!["+ SysctlConfig: the document"],
        },
    },
    Choice {
        name: "pods on control planes",
        set: |input| input.schedule_on_control_planes = Switch::On,
        differs: |minor, role| match (minor, role) {
            (_, Role::Worker) => Vec::new(),
            (..=13, _) => vec!["+ v1alpha1 cluster.allowSchedulingOnControlPlanes: true"],
            _ => vec!["- KubeNodeConfig taints: {node-role.kubernetes.io/control-plane: NoSchedule}"],
        },
    },
    Choice {
        name: "no discovery",
        set: |input| input.discovery = Switch::Off,
        differs: |minor, _| match minor {
            ..=13 => vec!["~ v1alpha1 cluster.discovery.enabled: true -> false"],
            _ => vec!["- DiscoveryServiceConfig/default: the document"],
        },
    },
    Choice {
        name: "KubeSpan",
        set: |input| input.kubespan = Switch::On,
        differs: |minor, _| match minor {
            ..=12 => vec!["+ v1alpha1 machine.network.kubespan: {enabled: true}"],
            _ => vec!["+ KubeSpanConfig: the document"],
        },
    },
    Choice {
        name: "KubePrism's port",
        set: |input| input.kubeprism_port = 7446,
        differs: |minor, _| match minor {
            5 => Vec::new(),
            6..=13 => vec!["~ v1alpha1 machine.features.kubePrism.port: 7445 -> 7446"],
            _ => vec!["~ KubePrismConfig port: 7445 -> 7446"],
        },
    },
    Choice {
        name: "the API's port",
        set: |input| input.local_api_port = Some(7443),
        differs: |minor, role| match (minor, role) {
            (_, Role::Worker) => Vec::new(),
            (..=13, _) => vec!["+ v1alpha1 cluster.controlPlane.localAPIServerPort: 7443"],
            _ => vec!["+ KubeAPIServerConfig apiPort: 7443"],
        },
    },
    Choice {
        name: "not kept",
        set: |input| input.persist = Switch::Off,
        differs: |_, _| vec!["~ v1alpha1 persist: true -> false"],
    },
    Choice {
        name: "another name",
        set: |input| input.cluster_name = "other".into(),
        differs: |minor, role| match (minor, role) {
            // Workers know it since 1.8 only.
            (..=7, Role::Worker) => Vec::new(),
            (..=13, _) => vec!["~ v1alpha1 cluster.clusterName: lab -> other"],
            _ => vec!["~ KubeClusterConfig clusterName: lab -> other"],
        },
    },
    Choice {
        name: "another endpoint",
        set: |input| input.endpoint = "https://192.0.2.2:6443".into(),
        differs: |minor, role| {
            let legacy = "~ v1alpha1 cluster.controlPlane.endpoint: https://192.0.2.1:6443 -> https://192.0.2.2:6443";
            let own = "~ KubeClusterConfig endpoint: https://192.0.2.1:6443 -> https://192.0.2.2:6443";
            match (minor, role) {
                (..=11, PLANE) => {
                    vec![legacy, "~ v1alpha1 cluster.apiServer.certSANs: [192.0.2.1] -> [192.0.2.2]"]
                }
                (..=13, _) => vec![legacy],
                (_, PLANE) => vec![
                    own,
                    "~ KubeServiceAccountConfig issuer.issuerURL: https://192.0.2.1:6443 -> https://192.0.2.2:6443",
                ],
                _ => vec![own],
            }
        },
    },
    Choice {
        name: "another Kubernetes",
        set: |input| input.kubernetes = "1.28.3".into(),
        differs: |minor, role| match (minor, role) {
            (..=13, Role::Worker) => vec![LEGACY_IMAGES[0]],
            (..=13, _) => LEGACY_IMAGES.to_vec(),
            (_, Role::Worker) => vec![IMAGES[0]],
            _ => IMAGES.to_vec(),
        },
    },
];

const LEGACY_IMAGES: [&str; 5] = [
    "~ v1alpha1 machine.kubelet.image: ghcr.io/siderolabs/kubelet:v1.28.0 -> ghcr.io/siderolabs/kubelet:v1.28.3",
    "~ v1alpha1 cluster.apiServer.image: registry.k8s.io/kube-apiserver:v1.28.0 -> registry.k8s.io/kube-apiserver:v1.28.3",
    "~ v1alpha1 cluster.controllerManager.image: registry.k8s.io/kube-controller-manager:v1.28.0 -> \
     registry.k8s.io/kube-controller-manager:v1.28.3",
    "~ v1alpha1 cluster.proxy.image: registry.k8s.io/kube-proxy:v1.28.0 -> registry.k8s.io/kube-proxy:v1.28.3",
    "~ v1alpha1 cluster.scheduler.image: registry.k8s.io/kube-scheduler:v1.28.0 -> registry.k8s.io/kube-scheduler:v1.28.3",
];

const IMAGES: [&str; 5] = [
    "~ KubeletConfig image: ghcr.io/siderolabs/kubelet:v1.28.0 -> ghcr.io/siderolabs/kubelet:v1.28.3",
    "~ KubeAPIServerConfig image: registry.k8s.io/kube-apiserver:v1.28.0 -> registry.k8s.io/kube-apiserver:v1.28.3",
    "~ KubeControllerManagerConfig image: registry.k8s.io/kube-controller-manager:v1.28.0 -> \
     registry.k8s.io/kube-controller-manager:v1.28.3",
    "~ KubeProxyConfig image: registry.k8s.io/kube-proxy:v1.28.0 -> registry.k8s.io/kube-proxy:v1.28.3",
    "~ KubeSchedulerConfig image: registry.k8s.io/kube-scheduler:v1.28.0 -> registry.k8s.io/kube-scheduler:v1.28.3",
];

fn secrets() -> Secrets {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/talos-configs/secrets/ecdsa.yaml");
    Secrets::load(&fs::read_to_string(path).unwrap(), "2026-12-01T00:00:00Z".parse().unwrap()).unwrap()
}

fn input(minor: u32) -> Input {
    Input::new("lab", "https://192.0.2.1:6443", Contract::minor(minor), "1.28.0").unwrap()
}

#[test]
fn every_option_is_where_its_contract_has_it_and_changes_nothing_else() {
    let secrets = secrets();
    for minor in 5..=14 {
        for role in [Role::ControlPlane, Role::Worker] {
            let without = generate(&secrets, &input(minor), role);
            for Choice { name, set, differs } in OPTIONS {
                let mut input = input(minor);
                set(&mut input);
                let with = generate(&secrets, &input, role);
                let found = differences(&without, &with, |text| secrets.is_in(text));
                let mut found: Vec<String> = found.iter().map(ToString::to_string).collect();
                let mut expected = differs(minor, role);
                found.sort();
                expected.sort_unstable();
                assert_eq!(found, expected, "{name}, contract 1.{minor}, {role}");
            }
        }
    }
}

/// A configuration with every option that makes a document.
fn documented(secrets: &Secrets, minor: u32) -> Config {
    let mut input = input(minor);
    for Choice { set, .. } in OPTIONS.iter().filter(|option| !["no CNI", "no disk"].contains(&option.name)) {
        set(&mut input);
    }
    generate(secrets, &input, Role::ControlPlane)
}

#[test]
fn the_documents_of_options_say_what_was_asked_for_and_stand_in_the_generators_order() {
    let secrets = secrets();
    let kinds = |config: &Config| -> Vec<String> {
        let kind = |document: &Value| document.at(&["kind"]).and_then(Value::as_text).unwrap_or("v1alpha1").to_owned();
        config.documents().iter().map(kind).collect()
    };
    let mirrors = ["RegistryMirrorConfig", "RegistryMirrorConfig"];
    for minor in 5..=11 {
        assert_eq!(kinds(&documented(&secrets, minor)), ["v1alpha1"], "1.{minor}");
    }
    let of_1_12 = kinds(&documented(&secrets, 12));
    assert_eq!(of_1_12, ["v1alpha1", mirrors[0], mirrors[1], "HostnameConfig"]);
    let of_1_13 = kinds(&documented(&secrets, 13));
    assert_eq!(of_1_13, ["v1alpha1", mirrors[0], mirrors[1], "HostnameConfig", "KubeSpanConfig"]);
    let config = documented(&secrets, 14);
    let of_1_14 = kinds(&config);
    let at = |kind: &str| of_1_14.iter().position(|other| other == kind).unwrap_or_else(|| panic!("no {kind}"));
    let order = [
        "v1alpha1",
        "DiscoveryIdentityConfig",
        "UnattendedInstallConfig",
        "ResolverConfig",
        "SysctlConfig",
        "VolumeConfig",
        "FilesystemTrimConfig",
        "SecurityProfileConfig",
        "RegistryMirrorConfig",
        "HostnameConfig",
        "KubeSpanConfig",
        "KubeClusterConfig",
        "KubeNodeConfig",
        "KubeletConfig",
        "KubeNetworkConfig",
        "KubeAPIServerCAConfig",
        "KubePrismConfig",
        "KubeAggregatorCAConfig",
        "KubeAPIServerConfig",
        "KubeProxyConfig",
        "KubeCoreDNSConfig",
        "KubeExternalManifestConfig",
    ];
    assert!(order.is_sorted_by_key(|kind| at(kind)), "{of_1_14:?}");
    let of = |kind: &str| document(&config.documents()[at(kind)]);
    let cases = [
        (
            "RegistryMirrorConfig",
            "name: docker.io\nendpoints:\n    - url: https://a.example.org\n    - url: https://b.example.org\n",
        ),
        ("SysctlConfig", "params:\n    net.core.somaxconn: \"9\"\n    vm.swappiness: \"1\"\n"),
        ("KubeSpanConfig", "enabled: true\n"),
        ("KubeExternalManifestConfig", "name: custom-cni\nurl: https://example.org/a.yaml\n"),
        (
            "UnattendedInstallConfig",
            "installer:\n    image: registry.example.org/installer:v1\nprovisioning:\n    diskSelector:\n        match: disk.dev_path == \"/dev/vda\"\n    wipe: false\n",
        ),
    ];
    for (kind, content) in cases {
        assert_eq!(of(kind), format!("apiVersion: v1alpha1\nkind: {kind}\n{content}"));
    }
}
