//! The roles that every cluster has (Kubernetes, plugin/pkg/auth/authorizer/rbac/bootstrappolicy).

use serde_json::{Value, json};

use super::objects::{self, Keyed, key};

/// Name of a role, then its rules: verbs, groups, resources; or verbs and paths. Groups: `core` is the empty one.
const ROLES: &[(&str, &[&str])] = &[
    ("cluster-admin", &["* * *", "* /*"]),
    (
        "system:discovery",
        &["get /api,/api/*,/apis,/apis/*,/healthz,/livez,/openapi,/openapi/*,/readyz,/version,/version/"],
    ),
    ("system:public-info-viewer", &["get /healthz,/livez,/readyz,/version,/version/"]),
    ("system:monitoring", &["get /healthz,/healthz/*,/livez,/livez/*,/metrics,/metrics/slis,/readyz,/readyz/*"]),
    (
        "system:basic-user",
        &[
            "create authorization.k8s.io selfsubjectaccessreviews,selfsubjectrulesreviews",
            "create authentication.k8s.io selfsubjectreviews",
        ],
    ),
    (
        "system:node",
        &[
            "create authentication.k8s.io tokenreviews",
            "create authorization.k8s.io subjectaccessreviews,localsubjectaccessreviews",
            "get,list,watch core services,configmaps,secrets,persistentvolumeclaims,persistentvolumes",
            "create,get,list,watch,update,patch core nodes,nodes/status",
            "create,delete,get,list,watch core pods",
            "update,patch core pods/status",
            "create core pods/eviction,serviceaccounts/token",
            "create,patch,update core,events.k8s.io events",
            "create,get,list,watch certificates.k8s.io certificatesigningrequests",
            "create,delete,get,patch,update coordination.k8s.io leases",
            "get storage.k8s.io volumeattachments",
            "create,delete,get,patch,update storage.k8s.io csinodes",
            "get,list,watch storage.k8s.io csidrivers",
            "get,list,watch node.k8s.io runtimeclasses",
        ],
    ),
    ("system:node-bootstrapper", &["create,get,list,watch certificates.k8s.io certificatesigningrequests"]),
    (
        "system:node-proxier",
        &[
            "list,watch core services,endpoints",
            "get,list,watch core nodes",
            "create,patch,update core,events.k8s.io events",
            "list,watch discovery.k8s.io endpointslices",
        ],
    ),
    (
        "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
        &["create certificates.k8s.io certificatesigningrequests/nodeclient"],
    ),
    (
        "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
        &["create certificates.k8s.io certificatesigningrequests/selfnodeclient"],
    ),
    ("system:kube-controller-manager", &["* * *"]),
    (
        "system:kube-scheduler",
        &[
            "get,list,watch core,apps,policy,storage.k8s.io,resource.k8s.io *",
            "create core pods/binding",
            "patch,update core pods/status",
            "create,patch,update core,events.k8s.io events",
            "create,get,list,update,watch coordination.k8s.io leases",
        ],
    ),
    (
        "view",
        &[
            "get,list,watch core configmaps,endpoints,persistentvolumeclaims,persistentvolumeclaims/status,pods,pods/log,\
             pods/status,replicationcontrollers,replicationcontrollers/scale,serviceaccounts,services,services/status,\
             bindings,events,limitranges,namespaces,namespaces/status,resourcequotas,resourcequotas/status",
            "get,list,watch apps controllerrevisions,daemonsets,daemonsets/status,deployments,deployments/scale,\
             deployments/status,replicasets,replicasets/scale,replicasets/status,statefulsets,statefulsets/scale,\
             statefulsets/status",
            "get,list,watch batch cronjobs,cronjobs/status,jobs,jobs/status",
            "get,list,watch autoscaling horizontalpodautoscalers,horizontalpodautoscalers/status",
            "get,list,watch discovery.k8s.io endpointslices",
            "get,list,watch networking.k8s.io ingresses,ingresses/status,networkpolicies",
            "get,list,watch policy poddisruptionbudgets,poddisruptionbudgets/status",
        ],
    ),
    (
        "edit",
        &[
            "* core configmaps,endpoints,persistentvolumeclaims,pods,pods/log,pods/attach,pods/exec,pods/eviction,\
             pods/portforward,pods/proxy,replicationcontrollers,replicationcontrollers/scale,secrets,serviceaccounts,\
             serviceaccounts/token,services,services/proxy,events",
            "get,list,watch core namespaces,limitranges,resourcequotas,pods/status,services/status",
            "* apps daemonsets,deployments,deployments/rollback,deployments/scale,replicasets,replicasets/scale,\
             statefulsets,statefulsets/scale",
            "get,list,watch apps controllerrevisions,daemonsets/status,deployments/status,replicasets/status,\
             statefulsets/status",
            "* batch cronjobs,jobs",
            "* autoscaling horizontalpodautoscalers",
            "* networking.k8s.io ingresses,networkpolicies",
            "* policy poddisruptionbudgets",
            "* coordination.k8s.io leases",
            "get,list,watch discovery.k8s.io endpointslices",
        ],
    ),
];

/// Rules that `admin` has besides those of `edit`.
const ADMIN: &[&str] =
    &["* rbac.authorization.k8s.io rolebindings,roles", "create authorization.k8s.io localsubjectaccessreviews"];

/// Binding, role, subjects: `g` is a group, `u` a user.
const BINDINGS: &[(&str, &str, &[&str])] = &[
    ("cluster-admin", "cluster-admin", &["g system:masters"]),
    ("system:basic-user", "system:basic-user", &["g system:authenticated"]),
    ("system:discovery", "system:discovery", &["g system:authenticated"]),
    ("system:public-info-viewer", "system:public-info-viewer", &["g system:authenticated", "g system:unauthenticated"]),
    ("system:monitoring", "system:monitoring", &["g system:monitoring"]),
    ("system:node", "system:node", &["g system:nodes"]),
    ("system:node-proxier", "system:node-proxier", &["u system:kube-proxy"]),
    ("system:kube-controller-manager", "system:kube-controller-manager", &["u system:kube-controller-manager"]),
    ("system:kube-scheduler", "system:kube-scheduler", &["u system:kube-scheduler"]),
];

/// A rule as a role holds it.
pub(super) fn rule(text: &str) -> Value {
    let list = |text: &str| -> Vec<String> {
        text.split(',').map(|one| if one == "core" { String::new() } else { one.to_owned() }).collect()
    };
    let words: Vec<&str> = text.split_whitespace().collect();
    match words.as_slice() {
        [verbs, groups, resources] => {
            json!({ "verbs": list(verbs), "apiGroups": list(groups), "resources": list(resources) })
        }
        [verbs, paths] => json!({ "verbs": list(verbs), "nonResourceURLs": list(paths) }),
        _ => json!({ "verbs": [] }),
    }
}

/// A role for the whole cluster.
pub(super) fn role(name: &str, rules: &[&str], seed: &str) -> Keyed {
    let mut object = objects::namespaced("rbac.authorization.k8s.io/v1", "ClusterRole", None, name, seed);
    object["rules"] = rules.iter().map(|text| rule(text)).collect();
    (key("clusterroles", None, name), object)
}

/// A binding of such a role.
pub(super) fn binding(name: &str, role: &str, subjects: &[Value], seed: &str) -> Keyed {
    let mut object = objects::namespaced("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", None, name, seed);
    object["roleRef"] = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role });
    object["subjects"] = json!(subjects);
    (key("clusterrolebindings", None, name), object)
}

/// A subject of a binding, written as above.
pub(super) fn subject(text: &str) -> Value {
    let (kind, name) = text.split_once(' ').unwrap_or(("u", text));
    let kind = if kind == "g" { "Group" } else { "User" };
    json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name })
}

/// All of them.
pub(super) fn all(seed: &str) -> Vec<Keyed> {
    let defaults = |(key, mut object): Keyed| {
        object["metadata"]["labels"] = json!({ "kubernetes.io/bootstrapping": "rbac-defaults" });
        object["metadata"]["annotations"] = json!({ "rbac.authorization.kubernetes.io/autoupdate": "true" });
        (key, object)
    };
    let mut all: Vec<Keyed> = ROLES.iter().map(|(name, rules)| defaults(role(name, rules, seed))).collect();
    let edit = ROLES.iter().find(|(name, _)| *name == "edit").map_or(&[][..], |(_, rules)| rules);
    all.push(defaults(role("admin", &[edit, ADMIN].concat(), seed)));
    all.extend(BINDINGS.iter().map(|(name, role, subjects)| {
        let subjects: Vec<Value> = subjects.iter().map(|text| subject(text)).collect();
        defaults(binding(name, role, &subjects, seed))
    }));
    all
}
