//! The resource types that a machine has, as `ResourceDefinitions` describes them (siderolabs/talos,
//! pkg/machinery/resources).

/// A resource type.
pub(in crate::talos) struct Type {
    pub(in crate::talos) name: &'static str,
    pub(in crate::talos) namespace: &'static str,
    pub(super) display: &'static str,
    pub(super) aliases: &'static [&'static str],
    pub(super) columns: &'static [(&'static str, &'static str)],
    /// First minor of Talos whose readers don't see it; 99: they do.
    sensitive: u32,
    /// First minor of Talos that has it.
    pub(in crate::talos) since: u32,
}

impl Type {
    /// Whether only administrators see it.
    pub(in crate::talos) fn is_sensitive(&self, minor: u32) -> bool {
        minor >= self.sensitive
    }
}

pub(in crate::talos) const NAMESPACES: &[&str] = &[
    "cluster",
    "config",
    "controlplane",
    "cri",
    "etcd",
    "files",
    "hardware",
    "k8s",
    "meta",
    "network",
    "network-config",
    "perf",
    "runtime",
    "secrets",
];

type Columns = &'static [(&'static str, &'static str)];

const fn open(
    name: &'static str,
    namespace: &'static str,
    display: &'static str,
    aliases: &'static [&'static str],
    columns: Columns,
    since: u32,
) -> Type {
    Type { name, namespace, display, aliases, columns, sensitive: 99, since }
}

const fn secret(name: &'static str, namespace: &'static str, display: &'static str, sensitive: u32) -> Type {
    Type { name, namespace, display, aliases: &[], columns: &[], sensitive, since: 0 }
}

const READY: Columns = &[("Ready", "{.ready}"), ("Secrets Version", "{.version}")];

#[rustfmt::skip]
pub(super) const TYPES: &[Type] = &[
    open("AddressStatuses.net.talos.dev", "network", "AddressStatus", &["address", "addresses"],
        &[("Address", "{.address}"), ("Link", "{.linkName}")], 0),
    open("Affiliates.cluster.talos.dev", "cluster", "Affiliate", &[],
        &[("Hostname", "{.hostname}"), ("Machine Type", "{.machineType}"), ("Addresses", "{.addresses}")], 0),
    secret("APIServerConfigs.kubernetes.talos.dev", "controlplane", "APIServerConfig", 13),
    open("BootedEntries.talos.dev", "runtime", "BootedEntry", &[], &[("Booted Entry", "{.bootedEntry}")], 11),
    open("BootIDs.runtime.talos.dev", "runtime", "BootID", &[], &[("Boot ID", "{.bootID}")], 14),
    open("BootstrapManifestsConfigs.kubernetes.talos.dev", "controlplane", "BootstrapManifestsConfig", &[], &[], 0),
    open("ConfigStatuses.kubernetes.talos.dev", "controlplane", "ConfigStatus", &[], READY, 0),
    open("ControllerManagerConfigs.kubernetes.talos.dev", "controlplane", "ControllerManagerConfig", &[], &[], 0),
    open("CPUStats.perf.talos.dev", "perf", "CPUStat", &[],
        &[("User", "{.cpuTotal.user}"), ("System", "{.cpuTotal.system}")], 0),
    open("Diagnostics.runtime.talos.dev", "runtime", "Diagnostic", &[], &[("Message", "{.message}")], 8),
    open("DiscoveredVolumes.block.talos.dev", "runtime", "DiscoveredVolume", &["dv"],
        &[("Type", "{.type}"), ("Size", "{.pretty_size}"), ("Discovered", "{.name}"), ("Label", "{.label}"),
            ("PartitionLabel", "{.partition_label}")], 7),
    open("Disks.block.talos.dev", "runtime", "Disk", &[],
        &[("Size", "{.pretty_size}"), ("Read Only", "{.readonly}"), ("Transport", "{.transport}"),
            ("Rotational", "{.rotational}"), ("WWID", "{.wwid}"), ("Model", "{.model}"), ("Serial", "{.serial}")], 8),
    open("Endpoints.kubernetes.talos.dev", "controlplane", "Endpoint", &["kubernetesendpoint", "kubernetesendpoints"],
        &[("Addresses", "{.addresses}"), ("Hosts", "{.hosts}")], 0),
    open("EtcdConfigs.etcd.talos.dev", "etcd", "EtcdConfig", &[], &[("Image", "{.image}")], 0),
    open("EtcdMembers.etcd.talos.dev", "etcd", "EtcdMember", &[], &[("Member ID", "{.memberID}")], 0),
    open("EtcdSpecs.etcd.talos.dev", "etcd", "EtcdSpec", &[],
        &[("Name", "{.name}"), ("AdvertisedAddresses", "{.advertisedAddresses}"),
            ("ListenPeerAddresses", "{.listenPeerAddresses}"), ("ListenClientAddresses", "{.listenClientAddresses}")], 0),
    open("ExtensionStatuses.runtime.talos.dev", "runtime", "ExtensionStatus", &["extensions"],
        &[("Name", "{.metadata.name}"), ("Version", "{.metadata.version}")], 0),
    open("HardwareAddresses.net.talos.dev", "network", "HardwareAddress", &[], &[], 0),
    open("HostnameStatuses.net.talos.dev", "network", "HostnameStatus", &["hostname"],
        &[("Hostname", "{.hostname}"), ("Domainname", "{.domainname}")], 0),
    open("Identities.cluster.talos.dev", "cluster", "Identity", &[], &[("ID", "{.nodeId}")], 0),
    open("ImageFactorySchematics.runtime.talos.dev", "runtime", "ImageFactorySchematic", &["schematic"],
        &[("Schematic ID", "{.schematicId}"), ("Flavor", "{.flavor}"), ("API URL", "{.apiUrl}")], 14),
    open("Infos.cluster.talos.dev", "cluster", "Info", &[],
        &[("Cluster ID", "{.clusterId}"), ("Cluster Name", "{.clusterName}")], 0),
    open("KernelCmdlines.runtime.talos.dev", "runtime", "KernelCmdline", &["cmdline"], &[("Cmdline", "{.cmdline}")], 11),
    secret("KubeletConfigs.kubernetes.talos.dev", "k8s", "KubeletConfig", 12),
    secret("KubeletSpecs.kubernetes.talos.dev", "k8s", "KubeletSpec", 12),
    open("KubePrismStatuses.kubernetes.talos.dev", "k8s", "KubePrismStatus", &[],
        &[("HOST", "{.host}"), ("HEALTHY", "{.healthy}")], 5),
    open("LinkStatuses.net.talos.dev", "network", "LinkStatus", &["link", "links"],
        &[("Alias", "{.alias}"), ("Type", "{.type}"), ("Kind", "{.kind}"), ("Hw Addr", "{.hardwareAddr}"),
            ("Oper State", "{.operationalState}"), ("Link State", "{.linkState}")], 0),
    Type { name: "MachineConfigs.config.talos.dev", namespace: "config", display: "MachineConfig", aliases: &["mc"],
        columns: &[], sensitive: 0, since: 0 },
    open("MachineStatuses.runtime.talos.dev", "runtime", "MachineStatus", &[],
        &[("Stage", "{.stage}"), ("Ready", "{.status.ready}")], 0),
    open("MachineTypes.config.talos.dev", "config", "MachineType", &[], &[("Type", "{}")], 0),
    open("Manifests.kubernetes.talos.dev", "controlplane", "Manifest", &[], &[], 0),
    open("ManifestStatuses.kubernetes.talos.dev", "controlplane", "ManifestStatus", &[], &[], 0),
    open("Members.cluster.talos.dev", "cluster", "Member", &[],
        &[("Hostname", "{.hostname}"), ("Machine Type", "{.machineType}"), ("OS", "{.operatingSystem}"),
            ("Addresses", "{.addresses}")], 0),
    open("MemoryModules.hardware.talos.dev", "hardware", "MemoryModule", &["ram"],
        &[("Manufacturer", "{.manufacturer}"), ("Model", "{.productName}"), ("SizeMiB", "{.sizeMiB}")], 0),
    open("MemoryStats.perf.talos.dev", "perf", "MemoryStat", &[], &[("Used", "{.used}"), ("Total", "{.total}")], 0),
    open("MetaKeys.runtime.talos.dev", "runtime", "MetaKey", &["meta"], &[("Value", "{.value}")], 5),
    open("MountStatuses.runtime.talos.dev", "runtime", "MountStatus", &["mounts"],
        &[("Source", "{.source}"), ("Target", "{.target}"), ("Filesystem Type", "{.filesystemType}")], 0),
    open("Namespaces.meta.cosi.dev", "meta", "Namespace", &["ns"], &[], 0),
    open("NetworkStatuses.net.talos.dev", "network", "NetworkStatus", &["netstatus", "netstatuses"],
        &[("Address", "{.addressReady}"), ("Connectivity", "{.connectivityReady}"), ("Hostname", "{.hostnameReady}"),
            ("Etc", "{.etcFilesReady}")], 0),
    open("NodeAddresses.net.talos.dev", "network", "NodeAddress", &[],
        &[("Addresses", "{.addresses}"), ("SortAlgorithm", "{.sortAlgorithm}")], 0),
    open("NodeIPs.kubernetes.talos.dev", "k8s", "NodeIP", &[], &[], 0),
    open("Nodenames.kubernetes.talos.dev", "k8s", "Nodename", &[], &[("Nodename", "{.nodename}")], 0),
    open("NodeStatuses.kubernetes.talos.dev", "k8s", "NodeStatus", &["nodes"],
        &[("Ready", "{.nodeReady}"), ("Unschedulable", "{.unschedulable}")], 0),
    open("PlatformMetadatas.talos.dev", "runtime", "PlatformMetadata", &[],
        &[("Platform", "{.platform}"), ("Type", "{.instanceType}"), ("Region", "{.region}"), ("Zone", "{.zone}")], 0),
    open("Processors.hardware.talos.dev", "hardware", "Processor", &["cpus", "cpu"],
        &[("Manufacturer", "{.manufacturer}"), ("Model", "{.productName}"), ("Cores", "{.coreCount}"),
            ("Threads", "{.threadCount}")], 0),
    open("ResolverStatuses.net.talos.dev", "network", "ResolverStatus", &["resolvers"],
        &[("Resolvers", "{.dnsServers}"), ("Search Domains", "{.searchDomains}")], 0),
    open("ResourceDefinitions.meta.cosi.dev", "meta", "ResourceDefinition", &["rd", "rds", "api-resources"],
        &[("Aliases", "{.aliases[:]}")], 0),
    open("RouteStatuses.net.talos.dev", "network", "RouteStatus", &["route", "routes"],
        &[("Destination", "{.dst}"), ("Gateway", "{.gateway}"), ("Link", "{.outLinkName}"), ("Metric", "{.priority}")], 0),
    open("SchedulerConfigs.kubernetes.talos.dev", "controlplane", "SchedulerConfig", &[], &[], 0),
    open("SecretStatuses.kubernetes.talos.dev", "controlplane", "SecretStatus", &[], READY, 0),
    open("SecurityStates.talos.dev", "runtime", "SecurityState", &[],
        &[("SecureBoot", "{.secureBoot}"), ("UKISigningKeyFingerprint", "{.ukiSigningKeyFingerprint}"),
            ("PCRSigningKeyFingerprint", "{.pcrSigningKeyFingerprint}"), ("SELinuxState", "{.selinuxState}")], 0),
    open("Services.v1alpha1.talos.dev", "runtime", "Service", &["svc"],
        &[("Running", "{.running}"), ("Healthy", "{.healthy}"), ("Health Unknown", "{.unknown}")], 0),
    open("StaticPods.kubernetes.talos.dev", "k8s", "StaticPod", &[], &[], 0),
    open("StaticPodStatuses.kubernetes.talos.dev", "k8s", "StaticPodStatus", &["podstatus"],
        &[("Ready", r#"{.conditions[?(@.type=="Ready")].status}"#)], 0),
    open("SystemDisks.block.talos.dev", "runtime", "SystemDisk", &[], &[("Disk", "{.diskID}")], 8),
    open("SystemInformations.hardware.talos.dev", "hardware", "SystemInformation", &[],
        &[("Manufacturer", "{.manufacturer}"), ("ProductName", "{.productName}"), ("Version", "{.version}"),
            ("SerialNumber", "{.serialnumber}"), ("UUID", "{.uuid}"), ("WakeUpType", "{.wakeUpType}"),
            ("SKUNumber", "{.skuNumber}")], 0),
    open("TimeServerStatuses.net.talos.dev", "network", "TimeServerStatus", &["timeserver", "timeservers"],
        &[("Timeservers", "{.timeServers}")], 0),
    open("TimeStatuses.v1alpha1.talos.dev", "runtime", "TimeStatus", &[], &[("Synced", "{.synced}")], 0),
    open("Versions.runtime.talos.dev", "runtime", "Version", &[], &[("Name", "{.name}"), ("Version", "{.version}")], 10),
    open("VolumeStatuses.block.talos.dev", "runtime", "VolumeStatus", &[],
        &[("Type", "{.type}"), ("Phase", "{.phase}"), ("Location", "{.location}"), ("Size", "{.prettySize}")], 8),
];
