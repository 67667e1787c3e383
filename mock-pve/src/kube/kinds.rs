//! The kinds of objects that this API serves: Kubernetes' own, and those that definitions in the cluster add.

use std::sync::{Arc, LazyLock};

use serde_json::{Value, json};

use crate::etcd::Client;
use crate::world::cluster::{self, Entry};

/// A kind of objects.
#[derive(Debug, Default)]
#[expect(clippy::struct_field_names, reason = "`kind` is what Kubernetes calls it")]
pub(super) struct Kind {
    /// Empty for the core group.
    pub(super) group: String,
    pub(super) version: String,
    /// As in paths: `nodes`.
    pub(super) plural: String,
    pub(super) singular: String,
    pub(super) kind: String,
    pub(super) namespaced: bool,
    pub(super) short: Vec<String>,
    pub(super) categories: Vec<String>,
    /// As in etcd's keys, where nodes are `minions`; empty: nothing is stored, it is only asked.
    pub(super) stored: String,
    pub(super) subresources: Vec<String>,
    /// It counts changes of its specification.
    pub(super) generations: bool,
    /// Of a definition in the cluster: its version there.
    pub(super) custom: Option<Value>,
}

/// plural, kind, group/version, scope, short names, categories, etcd's prefix, subresources; `-` is nothing. A kind with a
/// `+` counts the changes of its specification.
const TABLE: &str = "
componentstatuses ComponentStatus v1 C cs - - -
configmaps ConfigMap v1 N cm - configmaps -
endpoints Endpoints v1 N ep - services/endpoints -
events Event v1 N ev - events -
limitranges LimitRange v1 N limits - limitranges -
namespaces Namespace v1 C ns - namespaces status,finalize
nodes Node v1 C no - minions status,proxy
persistentvolumeclaims PersistentVolumeClaim v1 N pvc - persistentvolumeclaims status
persistentvolumes PersistentVolume v1 C pv - persistentvolumes status
pods Pod v1 N po all pods status,eviction,log,binding,ephemeralcontainers,exec,attach,portforward,proxy
podtemplates PodTemplate v1 N - - podtemplates -
replicationcontrollers ReplicationController+ v1 N rc all controllers status,scale
resourcequotas ResourceQuota v1 N quota - resourcequotas status
secrets Secret v1 N - - secrets -
serviceaccounts ServiceAccount v1 N sa - serviceaccounts token
services Service v1 N svc all services/specs status,proxy
mutatingwebhookconfigurations MutatingWebhookConfiguration+ admissionregistration.k8s.io/v1 C - api-extensions mutatingwebhookconfigurations -
validatingwebhookconfigurations ValidatingWebhookConfiguration+ admissionregistration.k8s.io/v1 C - api-extensions validatingwebhookconfigurations -
customresourcedefinitions CustomResourceDefinition+ apiextensions.k8s.io/v1 C crd,crds api-extensions apiextensions.k8s.io/customresourcedefinitions status
apiservices APIService apiregistration.k8s.io/v1 C - api-extensions apiregistration.k8s.io/apiservices status
controllerrevisions ControllerRevision apps/v1 N - - controllerrevisions -
daemonsets DaemonSet+ apps/v1 N ds all daemonsets status
deployments Deployment+ apps/v1 N deploy all deployments status,scale
replicasets ReplicaSet+ apps/v1 N rs all replicasets status,scale
statefulsets StatefulSet+ apps/v1 N sts all statefulsets status,scale
selfsubjectreviews SelfSubjectReview authentication.k8s.io/v1 C - - - -
tokenreviews TokenReview authentication.k8s.io/v1 C - - - -
localsubjectaccessreviews LocalSubjectAccessReview authorization.k8s.io/v1 N - - - -
selfsubjectaccessreviews SelfSubjectAccessReview authorization.k8s.io/v1 C - - - -
selfsubjectrulesreviews SelfSubjectRulesReview authorization.k8s.io/v1 C - - - -
subjectaccessreviews SubjectAccessReview authorization.k8s.io/v1 C - - - -
horizontalpodautoscalers HorizontalPodAutoscaler autoscaling/v2 N hpa all horizontalpodautoscalers status
cronjobs CronJob+ batch/v1 N cj all cronjobs status
jobs Job+ batch/v1 N - all jobs status
certificatesigningrequests CertificateSigningRequest certificates.k8s.io/v1 C csr - certificatesigningrequests status,approval
leases Lease coordination.k8s.io/v1 N - - leases -
endpointslices EndpointSlice+ discovery.k8s.io/v1 N - - endpointslices -
events Event events.k8s.io/v1 N ev - events -
ingressclasses IngressClass+ networking.k8s.io/v1 C - - ingressclasses -
ingresses Ingress+ networking.k8s.io/v1 N ing - ingress status
networkpolicies NetworkPolicy+ networking.k8s.io/v1 N netpol - networkpolicies -
runtimeclasses RuntimeClass node.k8s.io/v1 C - - runtimeclasses -
poddisruptionbudgets PodDisruptionBudget+ policy/v1 N pdb - poddisruptionbudgets status
clusterrolebindings ClusterRoleBinding rbac.authorization.k8s.io/v1 C - - clusterrolebindings -
clusterroles ClusterRole rbac.authorization.k8s.io/v1 C - - clusterroles -
rolebindings RoleBinding rbac.authorization.k8s.io/v1 N - - rolebindings -
roles Role rbac.authorization.k8s.io/v1 N - - roles -
priorityclasses PriorityClass+ scheduling.k8s.io/v1 C pc - priorityclasses -
csidrivers CSIDriver storage.k8s.io/v1 C - - csidrivers -
csinodes CSINode storage.k8s.io/v1 C - - csinodes -
csistoragecapacities CSIStorageCapacity storage.k8s.io/v1 N - - csistoragecapacities -
storageclasses StorageClass storage.k8s.io/v1 C sc - storageclasses -
volumeattachments VolumeAttachment storage.k8s.io/v1 C - - volumeattachments status
";

static BUILTIN: LazyLock<Vec<Arc<Kind>>> = LazyLock::new(|| {
    let list = |text: &str| -> Vec<String> {
        text.split(',').filter(|one| !["-", ""].contains(one)).map(str::to_owned).collect()
    };
    let kind = |line: &str| {
        let mut words = line.split_whitespace();
        let mut next = || words.next().unwrap_or("-");
        let (plural, kind, version, scope) = (next(), next(), next(), next());
        let (short, categories, stored, subresources) = (next(), next(), next(), next());
        let (group, version) = version.rsplit_once('/').unwrap_or(("", version));
        let name = kind.trim_end_matches('+');
        Arc::new(Kind {
            group: group.to_owned(),
            version: version.to_owned(),
            plural: plural.to_owned(),
            singular: name.to_lowercase(),
            kind: name.to_owned(),
            namespaced: scope == "N",
            short: list(short),
            categories: list(categories),
            stored: stored.trim_matches('-').to_owned(),
            subresources: list(subresources),
            generations: kind.ends_with('+'),
            custom: None,
        })
    };
    TABLE.lines().filter(|line| !line.is_empty()).map(kind).collect()
});

/// Kubernetes' own kinds.
pub(super) fn builtin() -> &'static [Arc<Kind>] {
    &BUILTIN
}

/// Where definitions of other kinds are kept.
const DEFINITIONS: &str = "/registry/apiextensions.k8s.io/customresourcedefinitions/";

/// The kinds that a definition adds: one for each version that it serves.
fn defined(definition: &Entry) -> Vec<Arc<Kind>> {
    let spec = &definition.value["spec"];
    let text = |pointer: &str| spec.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let list = |pointer: &str| -> Vec<String> {
        let found = spec.pointer(pointer).and_then(Value::as_array).into_iter().flatten();
        found.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let (group, plural) = (text("/group"), text("/names/plural"));
    let served = spec["versions"].as_array().into_iter().flatten().filter(|version| version["served"] == true);
    served
        .filter(|_| !definition.value["metadata"]["deletionTimestamp"].is_string())
        .map(|version| {
            let kind = text("/names/kind");
            let singular = text("/names/singular");
            let below = version["subresources"].as_object().into_iter().flatten();
            Arc::new(Kind {
                group: group.clone(),
                version: version["name"].as_str().unwrap_or_default().to_owned(),
                plural: plural.clone(),
                singular: if singular.is_empty() { kind.to_lowercase() } else { singular },
                kind,
                namespaced: text("/scope") == "Namespaced",
                short: list("/names/shortNames"),
                categories: list("/names/categories"),
                stored: format!("{group}/{plural}"),
                subresources: below.map(|(name, _)| name.clone()).collect(),
                generations: true,
                custom: Some(version.clone()),
            })
        })
        .collect()
}

/// All kinds that a cluster has.
pub(super) fn all(client: &Client) -> Vec<Arc<Kind>> {
    let added = cluster::list(client, DEFINITIONS).0;
    builtin().iter().cloned().chain(added.iter().flat_map(defined)).collect()
}

/// A kind of a cluster.
pub(super) fn find(client: &Client, group: &str, version: &str, plural: &str) -> Option<Arc<Kind>> {
    let same = |kind: &&Arc<Kind>| kind.group == group && kind.version == version && kind.plural == plural;
    if let Some(found) = builtin().iter().find(same) {
        return Some(found.clone());
    }
    let definition = cluster::get(client, &format!("{DEFINITIONS}{plural}.{group}"))?;
    defined(&definition).iter().find(same).cloned()
}

impl Kind {
    /// `apps/v1`, `v1`.
    pub(super) fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `nodes`, `deployments.apps`: as messages name an object's kind.
    pub(super) fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// Whether its objects are kept.
    pub(super) fn is_stored(&self) -> bool {
        !self.stored.is_empty()
    }

    pub(super) fn has(&self, subresource: &str) -> bool {
        self.subresources.iter().any(|one| one == subresource)
    }

    /// A Status object's details about one object.
    pub(super) fn details(&self, name: &str) -> Value {
        let mut details = json!({ "name": name, "kind": self.plural });
        if !self.group.is_empty() {
            details["group"] = json!(self.group);
        }
        details
    }

    /// What can be done with its objects.
    pub(super) fn verbs(&self) -> &'static [&'static str] {
        if self.is_stored() {
            &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
        } else if self.kind == "ComponentStatus" {
            &["get", "list"]
        } else {
            &["create"]
        }
    }
}
