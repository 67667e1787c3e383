//! The resource types that a machine has, as `ResourceDefinitions` describes them; `schema/talos.txt` lists them.

use std::sync::LazyLock;

const TEXT: &str = include_str!("../../../schema/talos.txt");

/// Later than every minor of Talos.
const NEVER: u32 = 99;

/// A resource type, or what it was in some versions of Talos.
#[derive(Debug)]
pub(in crate::talos) struct Type {
    pub(in crate::talos) name: &'static str,
    pub(in crate::talos) namespace: &'static str,
    /// Other names that Talos' authors gave it.
    own_aliases: Vec<&'static str>,
    pub(super) columns: Vec<(&'static str, &'static str)>,
    /// Whether only administrators see it.
    pub(in crate::talos) is_sensitive: bool,
    /// First minor of Talos that has it.
    since: u32,
    /// Last minor of Talos that has it.
    until: u32,
}

/// All of them, by name.
pub(super) static TYPES: LazyLock<Vec<Type>> =
    LazyLock::new(|| TEXT.lines().filter(|line| !line.starts_with('#')).filter_map(Type::parse).collect());

/// A namespace: its name, what it is for, and the first minor of Talos that has it.
pub(super) const NAMESPACES: &[(&str, &str, u32)] = &[
    ("cluster", "Cluster configuration and discovery resources.", 0),
    ("cluster-raw", "Cluster unmerged raw resources.", 0),
    ("config", "Talos node configuration.", 0),
    ("containers", "Talos-managed container resources.", 14),
    ("controlplane", "Kubernetes control plane resources.", 0),
    ("cri", "CRI Seccomp resources.", 0),
    ("etcd", "etcd resources.", 0),
    ("files", "Files and file-like resources.", 0),
    ("hardware", "Hardware resources.", 0),
    ("k8s", "Kubernetes all node types resources.", 0),
    ("kubespan", "KubeSpan resources.", 0),
    ("meta", "Metadata namespace which contains resource and namespace definitions.", 0),
    ("network", "Networking resources.", 0),
    ("network-config", "Networking configuration resources.", 0),
    ("perf", "Stats resources.", 0),
    ("runtime", "Talos v1alpha1 subsystems glue resources.", 0),
    ("secrets", "Resources with secret material.", 0),
    ("security", "Security resources.", 13),
    ("storage", "Storage resources.", 14),
];

impl Type {
    fn parse(line: &'static str) -> Option<Self> {
        let mut parts = line.split('|').map(str::trim);
        let (name, namespace) = (parts.next()?, parts.next()?);
        let (since, until) = match parts.next()?.split_once("..") {
            Some((since, until)) => (since.parse().ok()?, until.parse().ok()?),
            None => (line.split('|').nth(2)?.trim().parse().ok()?, NEVER),
        };
        let is_sensitive = match parts.next()? {
            "open" => false,
            "secret" => true,
            _ => return None,
        };
        let own_aliases = parts.next()?.split_whitespace().collect();
        let columns = parts.next()?.split("; ").filter_map(|column| column.split_once('=')).collect();
        Some(Self { name, namespace, own_aliases, columns, is_sensitive, since, until })
    }

    /// Whether Talos of that minor has it.
    pub(super) fn is_in(&self, minor: u32) -> bool {
        (self.since..=self.until).contains(&minor)
    }

    /// What one of its resources is called.
    pub(super) fn display(&self) -> String {
        let plural = self.plural();
        for (many, one) in [("sses", "ss"), ("shes", "sh"), ("ches", "ch"), ("tuses", "tus"), ("ies", "y")] {
            if let Some(stem) = plural.strip_suffix(many) {
                return format!("{stem}{one}");
            }
        }
        plural.strip_suffix('s').unwrap_or(plural).to_owned()
    }

    fn plural(&self) -> &'static str {
        self.name.split('.').next().unwrap_or(self.name)
    }

    /// Its short names: those of its own, the singular, and its capitals.
    pub(super) fn aliases(&self) -> Vec<String> {
        let mut all: Vec<String> = self.own_aliases.iter().map(|alias| (*alias).to_owned()).collect();
        all.push(self.display().to_lowercase());
        let capitals: String = self.plural().chars().filter(char::is_ascii_uppercase).collect();
        if capitals.len() > 1 {
            all.push(capitals.to_lowercase());
            if !capitals.ends_with('S') {
                all.push(format!("{}s", capitals.to_lowercase()));
            }
        }
        all
    }

    /// All that finds it: the plural, every shorter form of the id (`members.cluster`, `members.cluster.talos`), and the
    /// short names.
    pub(super) fn all_aliases(&self) -> Vec<String> {
        let id = self.name.to_lowercase();
        let ends = id.match_indices('.').map(|(at, _)| id[..at].to_owned());
        ends.chain(self.aliases()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_a_type() {
        let lines = TEXT.lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(TYPES.len(), lines);
        for kind in TYPES.iter() {
            assert!(NAMESPACES.iter().any(|(name, ..)| *name == kind.namespace), "{kind:?}");
        }
    }

    #[test]
    fn a_version_has_one_form_of_a_type() {
        for minor in 5..=14 {
            let mut names: Vec<&str> = TYPES.iter().filter(|kind| kind.is_in(minor)).map(|kind| kind.name).collect();
            let count = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), count, "1.{minor}");
        }
        let columns = |name: &str, minor| {
            let kind = TYPES.iter().find(|kind| kind.name == name && kind.is_in(minor)).unwrap();
            kind.columns.iter().map(|(column, _)| *column).collect::<Vec<_>>()
        };
        assert_eq!(columns("VolumeStatuses.block.talos.dev", 9), ["Phase", "Location", "Size"]);
        assert_eq!(columns("VolumeStatuses.block.talos.dev", 10), ["Type", "Phase", "Location", "Size"]);
    }

    #[test]
    fn names_follow_from_the_type() {
        let named = |name: &str| TYPES.iter().find(|kind| kind.name.starts_with(name)).unwrap();
        let members = named("Members.");
        assert_eq!(members.display(), "Member");
        assert_eq!(members.all_aliases(), ["members", "members.cluster", "members.cluster.talos", "member"]);
        assert_eq!(named("DiscoveredVolumes.").aliases(), ["discoveredvolume", "dv", "dvs"]);
        assert_eq!(named("ResourceDefinitions.").aliases(), ["api-resources", "resourcedefinition", "rd", "rds"]);
        for (name, one) in [
            ("Identities.", "Identity"),
            ("LinkStatuses.", "LinkStatus"),
            ("NodeAddresses.", "NodeAddress"),
            ("BootedEntries.", "BootedEntry"),
            ("MachineResetSignals.", "MachineResetSignal"),
            ("ImageFactorySchematics.", "ImageFactorySchematic"),
            ("KubePrismEndpoints.", "KubePrismEndpoint"),
            ("DevicesStatuses.", "DevicesStatus"),
            ("LinkRefreshes.", "LinkRefresh"),
            // As the original's rules for English have it.
            ("DNSResolveCaches.", "DNSResolveCach"),
        ] {
            assert_eq!(named(name).display(), one);
        }
    }
}
