//! What a Kubernetes version no longer knows: flags, feature gates, admission plugins and kinds of objects.
//!
//! Source: siderolabs/go-kubernetes v0.2.41, `kubernetes/upgrade`, which follows Kubernetes' own changelogs; the lists for
//! 1.35 and later are provisional there. An API server with a flag that it doesn't know does not start at all, so a finding
//! refuses the hop, and there is no way round it.

use std::collections::BTreeMap;

use super::{Component, SeenMachine};
use crate::types::Version;

use Component::{ApiServer, ControllerManager, Kubelet};

/// What goes with a minor version.
struct Removal {
    /// The minor version (of major 1) that no longer knows it.
    minor: u64,
    flags: &'static [(Component, &'static [&'static str])],
    gates: &'static [&'static str],
    plugins: &'static [&'static str],
    /// `resource.version.group`.
    kinds: &'static [&'static str],
}

const NOTHING: Removal = Removal { minor: 0, flags: &[], gates: &[], plugins: &[], kinds: &[] };

const REMOVALS: &[Removal] = &[
    Removal {
        minor: 25,
        flags: &[
            (ApiServer, &["service-account-api-audiences"]),
            (ControllerManager, &["deleting-pods-qps", "deleting-pods-burst", "register-retry-count"]),
        ],
        gates: &["CSIVolumeFSGroupPolicy", "ConfigurableFSGroupPolicy", "PodDisruptionBudget", "SelectorIndex"],
        plugins: &["PodSecurityPolicy"],
        kinds: &["podsecuritypolicies.v1beta1.policy"],
    },
    Removal {
        minor: 26,
        flags: &[(ApiServer, &["master-service-namespace"])],
        gates: &["DynamicKubeletConfig"],
        ..NOTHING
    },
    Removal {
        minor: 27,
        flags: &[
            (ControllerManager, &["enable-taint-manager", "pod-eviction-timeout"]),
            (Kubelet, &["container-runtime", "master-service-namespace"]),
        ],
        gates: &[
            "ExpandCSIVolumes",
            "ExpandInUsePersistentVolumes",
            "ExpandPersistentVolumes",
            "ControllerManagerLeaderMigration",
            "CSIMigration",
            "CSIInlineVolume",
            "EphemeralContainers",
            "LocalStorageCapacityIsolation",
            "NetworkPolicyEndPort",
            "StatefulSetMinReadySeconds",
            "IdentifyPodOS",
            "DaemonSetUpdateSurge",
        ],
        ..NOTHING
    },
    Removal {
        minor: 28,
        gates: &[
            "AdvancedAuditing",
            "DelegateFSGroupToCSIDriver",
            "DevicePlugins",
            "DisableAcceleratorUsageMetrics",
            "EndpointSliceTerminatingCondition",
            "CSIStorageCapacity",
            "CSIMigrationGCE",
            "KubeletCredentialProviders",
            "MixedProtocolLBService",
            "ServiceInternalTrafficPolicy",
            "ServiceIPStaticSubrange",
            "WindowsHostProcessContainers",
        ],
        ..NOTHING
    },
    Removal { minor: 29, kinds: &["clustercidrs.v1alpha1.networking.k8s.io"], ..NOTHING },
    Removal {
        minor: 30,
        gates: &[
            "ExpandedDNSConfig",
            "ExperimentalHostUserNamespaceDefaultingGate",
            "IPTablesOwnershipCleanup",
            "KubeletPodResources",
            "KubeletPodResourcesGetAllocatable",
            "MinimizeIPTablesRestore",
            "ProxyTerminatingEndpoints",
            "RemoveSelfLink",
        ],
        plugins: &["SecurityContextDeny"],
        ..NOTHING
    },
    Removal {
        minor: 31,
        flags: &[
            (
                ControllerManager,
                &[
                    "volume-host-cidr-denylist",
                    "volume-host-allow-local-loopback",
                    "horizontal-pod-autoscaler-upscale-delay",
                    "horizontal-pod-autoscaler-downscale-delay",
                ],
            ),
            (Kubelet, &["keep-terminated-pod-volumes", "iptables-masquerade-bit", "iptables-drop-bit"]),
        ],
        gates: &[
            "APIPriorityAndFairness",
            "CSINodeExpandSecret",
            "ConsistentHTTPGetHandlers",
            "DefaultHostNetworkHostPortsInPodTemplates",
            "ServiceNodePortStaticSubrange",
            "SkipReadOnlyValidationGCE",
        ],
        ..NOTHING
    },
    Removal {
        minor: 32,
        gates: &[
            "AllowServiceLBStatusOnNonLB",
            "CloudDualStackNodeIPs",
            "DRAControlPlaneController",
            "HPAContainerMetrics",
            "KMSv2",
            "KMSv2KDF",
            "LegacyServiceAccountTokenCleanUp",
            "MinDomainsInPodTopologySpread",
            "NewVolumeManagerReconstruction",
            "NodeOutOfServiceVolumeDetach",
            "ServerSideApply",
            "ServerSideFieldValidation",
            "StableLoadBalancerNodeSet",
            "ValidatingAdmissionPolicy",
            "ZeroLimitedNominalConcurrencyShares",
        ],
        kinds: &["podschedulingcontexts.v1alpha3.resource.k8s.io"],
        ..NOTHING
    },
    Removal {
        minor: 33,
        flags: &[(ApiServer, &["cloud-config"])],
        gates: &[
            "AppArmor",
            "AppArmorFields",
            "CPUManager",
            "DisableCloudProviders",
            "DisableKubeletCloudCredentialProviders",
            "JobPodFailurePolicy",
            "KubeProxyDrainingTerminatingNodes",
            "PDBUnhealthyPodEvictionPolicy",
            "PersistentVolumeLastPhaseTransitionTime",
            "VolumeCapacityPriority",
        ],
        ..NOTHING
    },
    Removal {
        minor: 34,
        flags: &[(Kubelet, &["cloud-config"])],
        gates: &["DevicePluginCDIDevices", "LegacySidecarContainers", "PodDisruptionConditions"],
        ..NOTHING
    },
    Removal {
        minor: 35,
        flags: &[(Kubelet, &["pod-infra-container-image"])],
        gates: &["SizeMemoryBackedVolumes", "UserNamespacesHostNetworkSupport"],
        ..NOTHING
    },
    Removal {
        minor: 36,
        gates: &[
            "CSIMigrationPortworx",
            "HonorPVReclaimPolicy",
            "InTreePluginPortworxUnregister",
            "WatchFromStorageWithoutResourceVersion",
        ],
        ..NOTHING
    },
    Removal {
        minor: 37,
        flags: &[(
            Kubelet,
            &[
                "application-metrics-count-limit",
                "boot-id-file",
                "container-hints",
                "containerd",
                "containerd-namespace",
                "enable-load-reader",
                "event-storage-age-limit",
                "event-storage-event-limit",
                "global-housekeeping-interval",
                "log-cadvisor-usage",
                "machine-id-file",
                "storage-driver-user",
                "storage-driver-password",
                "storage-driver-host",
                "storage-driver-db",
                "storage-driver-table",
                "storage-driver-secure",
                "storage-driver-buffer-duration",
            ],
        )],
        gates: &[
            "AnyVolumeDataSource",
            "DeclarativeValidationTakeover",
            "GangScheduling",
            "PreventStaticPodAPIReferences",
            "WorkloadAwarePreemption",
        ],
        kinds: &["workloads.v1alpha2.scheduling.k8s.io", "podgroups.v1alpha2.scheduling.k8s.io"],
        ..NOTHING
    },
];

/// The last minor version whose removals are known: none is upgraded to a later one.
pub const NEWEST_MINOR: u64 = 37;

/// Kinds of objects that a hop's target no longer serves, as `resource.version.group`.
pub fn kinds(from: &Version, to: &Version) -> Vec<&'static str> {
    passed(from, to).flat_map(|removal| removal.kinds).copied().collect()
}

/// All kinds that any known version stops serving, to be counted once.
pub fn all_kinds() -> impl Iterator<Item = &'static str> {
    REMOVALS.iter().flat_map(|removal| removal.kinds).copied()
}

/// What a component is given and no version from this minor one on knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gone {
    /// What: `flag --cloud-config`, `feature gate AppArmor`.
    pub what: String,
    /// The first minor version (of major 1) without it.
    pub since: u64,
}

/// What of a component's flag `kubernetes` no longer knows: the flag, or names among its values.
pub fn of_flag(component: Component, flag: &str, values: &[String], kubernetes: &Version) -> Vec<Gone> {
    let mut found = Vec::new();
    for removal in REMOVALS.iter().filter(|removal| removal.minor <= kubernetes.minor().1) {
        let mut gone = |what: String| found.push(Gone { what, since: removal.minor });
        if removal.flags.iter().any(|(of, flags)| *of == component && flags.contains(&flag)) {
            gone(format!("flag --{flag}"));
        }
        for name in values.iter().flat_map(|values| values.split(',')).map(str::trim) {
            let gate = name.split('=').next().unwrap_or_default();
            // As for what runs: the kubelet forgives gates.
            if flag == "feature-gates" && component != Kubelet && removal.gates.contains(&gate) {
                gone(format!("feature gate {gate}"));
            }
            if flag == "enable-admission-plugins" && component == ApiServer && removal.plugins.contains(&name) {
                gone(format!("admission plugin {name}"));
            }
        }
    }
    found
}

/// The removals between two versions.
fn passed(from: &Version, to: &Version) -> impl Iterator<Item = &'static Removal> {
    let minors = from.minor().1 + 1..=to.minor().1;
    REMOVALS.iter().filter(move |removal| minors.contains(&removal.minor))
}

/// Everything in use that the target no longer knows, a line each, for all machines at once.
pub fn in_use(from: &Version, to: &Version, machines: &[SeenMachine], objects: &BTreeMap<String, u64>) -> Vec<String> {
    let mut found = Vec::new();
    for removal in passed(from, to) {
        for seen in machines {
            for (component, args) in &seen.args {
                of_component(removal, seen, *component, args, &mut found);
            }
        }
        for kind in removal.kinds {
            if let Some(count) = objects.get(*kind).filter(|count| **count > 0) {
                found.push(format!("{count} object(s) of {kind}"));
            }
        }
    }
    found
}

fn of_component(removal: &Removal, seen: &SeenMachine, component: Component, args: &[String], found: &mut Vec<String>) {
    let name = &seen.machine.name;
    let gone = removal.flags.iter().filter(|(of, _)| *of == component).flat_map(|(_, flags)| *flags);
    for flag in gone {
        if value(args, flag).is_some() {
            found.push(format!("flag --{flag} of {component} on {name}"));
        }
    }
    // The kubelet's gates stand in its configuration, which forgives names that it doesn't know less and less; Talos
    // writes none there itself.
    if component != Kubelet {
        let gates = value(args, "feature-gates").unwrap_or_default();
        for gate in gates.split(',').filter_map(|gate| gate.split('=').next()) {
            if removal.gates.contains(&gate.trim()) {
                found.push(format!("feature gate {} of {component} on {name}", gate.trim()));
            }
        }
    }
    if component == ApiServer {
        let plugins = value(args, "enable-admission-plugins").unwrap_or_default();
        for plugin in plugins.split(',').filter(|plugin| removal.plugins.contains(&plugin.trim())) {
            found.push(format!("admission plugin {} on {name}", plugin.trim()));
        }
    }
}

/// The value of a flag; empty for one without a value.
fn value<'a>(args: &'a [String], flag: &str) -> Option<&'a str> {
    args.iter().find_map(|arg| {
        let (name, value) = arg.split_once('=').unwrap_or((arg, ""));
        (name.trim_start_matches('-') == flag && name.starts_with('-')).then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::plan::kubernetes::LiveMachine;
    use crate::types::Role;

    fn machine(name: &str, component: Component, args: &[&str]) -> SeenMachine {
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        SeenMachine {
            machine: LiveMachine { name: name.into(), role: Role::ControlPlane, address: [10, 0, 0, 1].into() },
            talos: Version::new(1, 12, 0),
            node: name.to_owned(),
            kubelet: None,
            images: BTreeMap::new(),
            args: BTreeMap::from([(component, args)]),
            disabled: BTreeSet::new(),
            staged: false,
        }
    }

    #[test]
    fn whatever_the_target_no_longer_knows_is_named_with_its_machine() {
        let args = ["/usr/local/bin/kube-apiserver", "--cloud-config=/x", "--feature-gates=AppArmor=true,Other=true"];
        let machines = [
            machine("cp-01", ApiServer, &args),
            machine("cp-02", Kubelet, &["--cloud-config=/x", "--feature-gates=AppArmor=true"]),
            machine("cp-03", ControllerManager, &["--cloud-config-like=1"]),
        ];
        let in_use = |from: u64, to: u64| {
            super::in_use(&Version::new(1, from, 0), &Version::new(1, to, 0), &machines, &BTreeMap::new())
        };
        assert_eq!(
            in_use(32, 33),
            ["flag --cloud-config of kube-apiserver on cp-01", "feature gate AppArmor of kube-apiserver on cp-01"]
        );
        assert_eq!(in_use(33, 34), ["flag --cloud-config of kubelet on cp-02"]);
        assert_eq!(in_use(34, 35), Vec::<String>::new());
        assert_eq!(in_use(33, 33), Vec::<String>::new(), "a patch release removes nothing");
    }

    #[test]
    fn what_a_configuration_says_is_held_against_one_version_alone() {
        let told = |component, flag: &str, value: &str, minor: u64| -> Vec<String> {
            let found = of_flag(component, flag, &[value.to_owned()], &Version::new(1, minor, 3));
            found.into_iter().map(|gone| format!("{} 1.{}", gone.what, gone.since)).collect()
        };
        assert_eq!(told(ApiServer, "cloud-config", "/x", 35), ["flag --cloud-config 1.33"]);
        assert_eq!(told(ApiServer, "cloud-config", "/x", 32), Vec::<String>::new());
        assert_eq!(told(Kubelet, "cloud-config", "/x", 33), Vec::<String>::new());
        let gates = "Other=true, AppArmor=true,DevicePlugins=false";
        let expected = ["feature gate DevicePlugins 1.28", "feature gate AppArmor 1.33"];
        assert_eq!(told(ControllerManager, "feature-gates", gates, 33), expected);
        assert_eq!(told(Kubelet, "feature-gates", gates, 33), Vec::<String>::new());
        assert_eq!(
            told(ApiServer, "enable-admission-plugins", "NodeRestriction,SecurityContextDeny", 30),
            ["admission plugin SecurityContextDeny 1.30"]
        );
    }

    #[test]
    fn admission_plugins_and_kinds_count_too() {
        let machines =
            [machine("cp-01", ApiServer, &["--enable-admission-plugins=NodeRestriction,SecurityContextDeny"])];
        let objects = BTreeMap::from([
            ("podschedulingcontexts.v1alpha3.resource.k8s.io".to_owned(), 3),
            ("clustercidrs.v1alpha1.networking.k8s.io".to_owned(), 0),
        ]);
        let in_use =
            |from: u64, to: u64| super::in_use(&Version::new(1, from, 0), &Version::new(1, to, 0), &machines, &objects);
        assert_eq!(in_use(29, 30), ["admission plugin SecurityContextDeny on cp-01"]);
        assert_eq!(in_use(31, 32), ["3 object(s) of podschedulingcontexts.v1alpha3.resource.k8s.io"]);
        assert_eq!(in_use(28, 29), Vec::<String>::new());
    }

    #[test]
    fn the_table_ends_where_it_says() {
        assert_eq!(REMOVALS.last().unwrap().minor, NEWEST_MINOR);
        assert!(REMOVALS.windows(2).all(|pair| pair[0].minor < pair[1].minor));
    }
}
