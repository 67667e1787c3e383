//! The facts: what changed in which Talos version, and what to write instead.
//!
//! From Talos' release notes and `pkg/machinery/config` (v1.5 to v1.14.0-rc.1). A rule that a user meets twice is one
//! rule with one text. Must not know: how they are told.

use super::Weight;
use crate::talos::config::yaml::Value;

/// What happens to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// A configuration of that contract says it in a document: a patch of the old key conflicts with it.
    Moved,
    /// A node refuses it.
    Refused,
    /// A node takes it and does nothing.
    Ignored,
    /// It works as before and will go.
    Deprecated,
    /// It means something else.
    Behaves,
    /// It works until the next change of the version, of any version.
    Risks,
}

impl Effect {
    pub(super) fn weight(self) -> Weight {
        match self {
            Self::Moved | Self::Refused => Weight::Breaks,
            Self::Ignored | Self::Behaves | Self::Risks => Weight::Changes,
            Self::Deprecated => Weight::Notice,
        }
    }
}

/// Which values a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    Set,
    False,
    /// A text that contains this.
    Has(&'static str),
    /// An installer of another platform than nocloud. Up to 1.9 installers had none in their name
    /// (`factory.talos.dev/installer/…`, `ghcr.io/siderolabs/installer`), and such a name means metal since.
    OtherPlatform,
}

impl When {
    pub(super) fn holds(self, value: &Value) -> bool {
        match self {
            Self::Set => match value {
                Value::Map(map) => !map.is_empty(),
                Value::List(list) => !list.is_empty(),
                _ => true,
            },
            Self::False => *value == Value::Bool(false),
            Self::Has(part) => value.as_text().is_some_and(|text| text.contains(part)),
            Self::OtherPlatform => {
                value.as_text().is_some_and(|text| text.contains("installer") && !text.contains("nocloud-installer"))
            }
        }
    }
}

/// A change of one key.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) name: &'static str,
    /// The minor version of Talos 1.
    pub(super) since: u32,
    pub(super) document: &'static str,
    pub(super) path: &'static str,
    pub(super) when: When,
    pub(super) effect: Effect,
    /// Only where machines boot the nocloud image.
    pub(super) nocloud: bool,
    pub(super) what: &'static str,
    pub(super) instead: &'static str,
}

const fn main(
    name: &'static str,
    since: u32,
    path: &'static str,
    effect: Effect,
    what: &'static str,
    instead: &'static str,
) -> Rule {
    Rule { name, since, document: "v1alpha1", path, when: When::Set, effect, nocloud: false, what, instead }
}

const fn moved(name: &'static str, since: u32, path: &'static str, instead: &'static str) -> Rule {
    main(name, since, path, Effect::Moved, "a document says this, and the old key conflicts with it", instead)
}

/// Rules about keys that Talos itself wrote into every configuration of its time: on a machine nobody misses them.
pub(super) const OF_TALOS: &[&str] = &["ext-key-usage", "psp"];

pub(super) const RULES: &[Rule] = &[
    moved(
        "hostname",
        12,
        "machine.network.hostname",
        "write the document\napiVersion: v1alpha1\nkind: HostnameConfig\nauto: off\nhostname: NAME",
    ),
    moved(
        "stable-hostname",
        12,
        "machine.features.stableHostname",
        "leave it out: HostnameConfig with auto: stable is the default (auto: off turns it off)",
    ),
    main(
        "kubespan",
        13,
        "machine.network.kubespan",
        Effect::Deprecated,
        "the key is deprecated",
        "write the document KubeSpanConfig with the same keys",
    ),
    main(
        "registries",
        12,
        "machine.registries.mirrors",
        Effect::Deprecated,
        "the key is deprecated",
        "write a document RegistryMirrorConfig for each host: name, endpoints: [{url: …}], skipFallback",
    ),
    main(
        "registry-auth",
        12,
        "machine.registries.config",
        Effect::Deprecated,
        "the key is deprecated",
        "write documents RegistryTLSConfig and RegistryAuthConfig for each host",
    ),
    moved(
        "nameservers",
        14,
        "machine.network.nameservers",
        "write the document ResolverConfig with nameservers: [{address: …}]",
    ),
    moved(
        "search-domains",
        14,
        "machine.network.searchDomains",
        "write the document ResolverConfig with searchDomains: {domains: […]}",
    ),
    moved(
        "disable-search-domain",
        14,
        "machine.network.disableSearchDomain",
        "write the document ResolverConfig with searchDomains: {disableDefault: true}",
    ),
    moved("host-dns", 14, "machine.features.hostDNS", "write the document ResolverConfig with hostDNS"),
    moved(
        "kubeprism",
        14,
        "machine.features.kubePrism",
        "write the document KubePrismConfig with port; delete that document ($patch: delete) to turn it off",
    ),
    moved(
        "install",
        14,
        "machine.install",
        "write the document UnattendedInstallConfig: installer.image, provisioning.diskSelector.match, provisioning.wipe",
    ),
    moved(
        "kubelet",
        14,
        "machine.kubelet",
        "write the document KubeletConfig: image, config, extraArgs, clusterDNS; and KubeNodeConfig: nodeIP, registerWithFQDN",
    ),
    moved("node-labels", 14, "machine.nodeLabels", "write the document KubeNodeConfig with labels"),
    moved("node-annotations", 14, "machine.nodeAnnotations", "write the document KubeNodeConfig with annotations"),
    moved("node-taints", 14, "machine.nodeTaints", "write the document KubeNodeConfig with taints"),
    moved(
        "scheduling",
        14,
        "cluster.allowSchedulingOnControlPlanes",
        "write the document KubeNodeConfig with taints: {node-role.kubernetes.io/control-plane: {$patch: delete}}",
    ),
    moved(
        "scheduling-masters",
        14,
        "cluster.allowSchedulingOnMasters",
        "write the document KubeNodeConfig with taints: {node-role.kubernetes.io/control-plane: {$patch: delete}}",
    ),
    moved(
        "controller-manager-off",
        14,
        "machine.controlPlane.controllerManager",
        "write the document KubeControllerManagerConfig (enabled: false turns it off)",
    ),
    moved(
        "scheduler-off",
        14,
        "machine.controlPlane.scheduler",
        "write the document KubeSchedulerConfig (enabled: false turns it off)",
    ),
    moved(
        "pod-subnets",
        14,
        "cluster.network",
        "write the document KubeNetworkConfig; for no CNI delete KubeFlannelCNIConfig ($patch: delete)",
    ),
    moved("proxy", 14, "cluster.proxy", "write the document KubeProxyConfig (enabled: false turns it off)"),
    moved(
        "api-server",
        14,
        "cluster.apiServer",
        "write the document KubeAPIServerConfig: extraArgs, certExtraSANs, env, resources; admission and audit have their own documents",
    ),
    moved("controller-manager", 14, "cluster.controllerManager", "write the document KubeControllerManagerConfig"),
    moved("scheduler", 14, "cluster.scheduler", "write the document KubeSchedulerConfig"),
    moved("coredns", 14, "cluster.coreDNS", "write the document KubeCoreDNSConfig (enabled: false turns it off)"),
    moved(
        "discovery",
        14,
        "cluster.discovery",
        "write the document DiscoveryServiceConfig, or delete it ($patch: delete)",
    ),
    moved("endpoint", 14, "cluster.controlPlane", "write the document KubeClusterConfig with endpoint"),
    moved("cluster-name", 14, "cluster.clusterName", "write the document KubeClusterConfig with clusterName"),
    Rule {
        when: When::False,
        ..main(
            "persist",
            6,
            "persist",
            Effect::Refused,
            "a configuration that is not kept is refused",
            "leave persist out",
        )
    },
    main(
        "install-extensions",
        10,
        "machine.install.extensions",
        Effect::Ignored,
        "the list of extensions is ignored",
        "put them into the Image Factory schematic: talos.factory.extensions of the profile",
    ),
    main(
        "extra-kernel-args",
        10,
        "machine.install.extraKernelArgs",
        Effect::Ignored,
        "machines that boot with UEFI take kernel arguments from their image only",
        "put them into the schematic (customization.extraKernelArgs)",
    ),
    Rule {
        when: When::OtherPlatform,
        nocloud: true,
        ..main(
            "metal-installer",
            10,
            "machine.install.image",
            Effect::Risks,
            "installers are of a platform, and this one would make a nocloud machine a metal one at its next upgrade",
            "name nocloud-installer instead, or leave it to talos.factory of the profile",
        )
    },
    Rule {
        when: When::Has("ghcr.io/siderolabs/installer"),
        ..main(
            "ghcr-installer",
            14,
            "machine.install.image",
            Effect::Behaves,
            "the installer on ghcr.io is no longer published",
            "name the Image Factory's: factory.talos.dev/nocloud-installer/<schematic>:<version>",
        )
    },
    Rule {
        document: "UnattendedInstallConfig",
        path: "installer.image",
        when: When::OtherPlatform,
        nocloud: true,
        ..main(
            "metal-installer",
            10,
            "",
            Effect::Risks,
            "installers are of a platform, and this one would make a nocloud machine a metal one at its next upgrade",
            "name nocloud-installer instead, or leave it to talos.factory of the profile",
        )
    },
    main(
        "interface-by-name",
        5,
        "machine.network.interfaces[].interface",
        Effect::Risks,
        "links have names that hang on the image and its extensions",
        "choose the link by its hardware address: deviceSelector: {hardwareAddr: …}",
    ),
    main(
        "device-selector",
        6,
        "machine.network.interfaces[].deviceSelector",
        Effect::Behaves,
        "a selector chooses all links that fit, not only the first",
        "make it fit one link: hardwareAddr, or physical: true beside the driver",
    ),
    main(
        "cidr",
        1,
        "machine.network.interfaces[].cidr",
        Effect::Deprecated,
        "cidr is deprecated",
        "write addresses: […]",
    ),
    main(
        "mirror-fallback",
        9,
        "machine.registries.mirrors",
        Effect::Behaves,
        "images come from the original registry when no mirror has them",
        "say skipFallback: true where that must not be",
    ),
    main(
        "disks",
        10,
        "machine.disks",
        Effect::Deprecated,
        "the key is deprecated",
        "write a document UserVolumeConfig; existing data is found again with ExistingVolumeConfig",
    ),
    main(
        "encryption",
        11,
        "machine.systemDiskEncryption",
        Effect::Deprecated,
        "the key is deprecated",
        "write documents VolumeConfig STATE and EPHEMERAL with encryption",
    ),
    main(
        "network-section",
        12,
        "machine.network.interfaces",
        Effect::Deprecated,
        "the key is deprecated",
        "write documents LinkConfig, VLANConfig, BondConfig, Layer2VIPConfig; with one of them the default DHCP of all links ends",
    ),
    main(
        "psp",
        12,
        "cluster.apiServer.disablePodSecurityPolicy",
        Effect::Ignored,
        "the key is ignored",
        "leave it out",
    ),
    Rule {
        when: When::False,
        ..main("rbac", 12, "machine.features.rbac", Effect::Ignored, "RBAC can't be turned off", "leave it out")
    },
    main(
        "ext-key-usage",
        12,
        "machine.features.apidCheckExtKeyUsage",
        Effect::Ignored,
        "the key is ignored",
        "leave it out",
    ),
    main(
        "env",
        13,
        "machine.env",
        Effect::Deprecated,
        "the key is deprecated",
        "write the document EnvironmentConfig with variables",
    ),
    main(
        "files",
        14,
        "machine.files",
        Effect::Deprecated,
        "the key warns",
        "write documents EtcFileConfig for files below /etc, or an extension",
    ),
    main(
        "authorization",
        9,
        "cluster.apiServer.extraArgs.authorization-mode",
        Effect::Behaves,
        "the API server has an authorization file, unless flags of old are in extraArgs",
        "write cluster.apiServer.authorizationConfig",
    ),
    main(
        "etcd-metrics",
        14,
        "cluster.etcd.extraArgs.listen-metrics-urls",
        Effect::Behaves,
        "etcd serves metrics and health on port 2383",
        "check what reads them",
    ),
    main(
        "inline-manifests",
        13,
        "cluster.inlineManifests",
        Effect::Behaves,
        "manifests are applied by the server, and what is taken out of the list is deleted from the cluster",
        "keep in the list what shall stay",
    ),
];

/// A change that no key says.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) name: &'static str,
    pub(super) since: u32,
    pub(super) what: &'static str,
    pub(super) instead: &'static str,
}

pub(super) const CHANGES: &[Change] = &[
    Change {
        name: "firmware",
        since: 6,
        what: "the image has no firmware",
        instead: "add the firmware extensions that the hardware needs",
    },
    Change {
        name: "iptables-nft",
        since: 7,
        what: "iptables is iptables-nft",
        instead: "check that CNI and firewall tools write nft rules",
    },
    Change {
        name: "lb-label",
        since: 8,
        what: "new configurations label control planes to stay out of load balancers",
        instead: "delete the label by a patch where load balancers must reach control planes: \
                  machine.nodeLabels.node.kubernetes.io/exclude-from-external-load-balancers",
    },
    Change { name: "tun", since: 8, what: "pods have no /dev/net/tun", instead: "mount it into those that need it" },
    Change {
        name: "gpu-drivers",
        since: 9,
        what: "i915 and amdgpu are extensions",
        instead: "add siderolabs/i915 or siderolabs/amdgpu to the schematic",
    },
    Change {
        name: "identity",
        since: 10,
        what: "iSCSI and NVMe names come from the machine's identity, which a rebuild makes new",
        instead: "let the storage accept the new names",
    },
    Change {
        name: "etcd-registry",
        since: 12,
        what: "etcd's image comes from registry.k8s.io",
        instead: "mirror it there, where images are mirrored",
    },
    Change {
        name: "pruning",
        since: 13,
        what: "bootstrap manifests have an inventory, and what leaves it is deleted",
        instead: "keep in the configuration what shall stay",
    },
    Change {
        name: "isolation",
        since: 14,
        what: "new configurations isolate workloads (SecurityProfileConfig), which in-tree iSCSI volumes don't survive",
        instead: "delete SecurityProfileConfig by a patch ($patch: delete) where such volumes are used",
    },
];
