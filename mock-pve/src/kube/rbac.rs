//! Who may do what: roles and their bindings, as they are in the cluster (Kubernetes, plugin/pkg/auth/authorizer/rbac).

use serde_json::Value;

use crate::etcd::Client;
use crate::world::cluster::{self, objects};

/// Who called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) groups: Vec<String>,
    pub(super) uid: String,
    /// What he proved himself by, if that has a name.
    pub(super) credential: String,
}

impl User {
    /// Nobody in particular.
    pub(super) fn anonymous() -> Self {
        Self {
            name: "system:anonymous".to_owned(),
            groups: vec!["system:unauthenticated".to_owned()],
            ..Self::default()
        }
    }

    /// Somebody who is known, who is also anybody who is.
    pub(super) fn known(name: String, mut groups: Vec<String>) -> Self {
        groups.push("system:authenticated".to_owned());
        Self { name, groups, ..Self::default() }
    }

    /// The account of a service.
    pub(super) fn service(namespace: &str, name: &str, uid: &str) -> Self {
        let groups = vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
        Self { uid: uid.to_owned(), ..Self::known(format!("system:serviceaccount:{namespace}:{name}"), groups) }
    }
}

/// What is to be done.
#[derive(Clone, Debug, Default)]
pub(super) struct Deed {
    pub(super) verb: String,
    pub(super) group: String,
    /// With its subresource: `pods/log`.
    pub(super) resource: String,
    pub(super) namespace: Option<String>,
    pub(super) name: String,
    /// A path that leads to no object; the rest is empty then.
    pub(super) path: Option<String>,
}

impl Deed {
    /// `User "x" cannot list resource "pods" in API group "" in the namespace "default"`.
    pub(super) fn shown(&self, user: &User) -> String {
        if let Some(path) = &self.path {
            return format!("User \"{}\" cannot {} path \"{path}\"", user.name, self.verb);
        }
        let scope = match &self.namespace {
            Some(namespace) => format!("in the namespace \"{namespace}\""),
            None => "at the cluster scope".to_owned(),
        };
        format!(
            "User \"{}\" cannot {} resource \"{}\" in API group \"{}\" {scope}",
            user.name, self.verb, self.resource, self.group
        )
    }
}

/// All rules that hold for a user: those for the whole cluster, and those for a namespace.
pub(super) fn rules(client: &Client, user: &User, namespace: Option<&str>) -> Vec<Value> {
    let mut rules = Vec::new();
    let bound = |binding: &Value, own: Option<&str>| {
        binding["subjects"].as_array().into_iter().flatten().any(|subject| {
            let name = subject["name"].as_str().unwrap_or_default();
            match subject["kind"].as_str() {
                Some("User") => name == user.name,
                Some("Group") => user.groups.iter().any(|group| group == name),
                Some("ServiceAccount") => {
                    let namespace = subject["namespace"].as_str().or(own).unwrap_or_default();
                    user.name == format!("system:serviceaccount:{namespace}:{name}")
                }
                _ => false,
            }
        })
    };
    let role = |binding: &Value, namespace: Option<&str>| -> Vec<Value> {
        let name = binding["roleRef"]["name"].as_str().unwrap_or_default();
        let key = if binding["roleRef"]["kind"] == "Role" {
            objects::key("roles", namespace, name)
        } else {
            objects::key("clusterroles", None, name)
        };
        let found = cluster::get(client, &key);
        found.and_then(|role| role.value["rules"].as_array().cloned()).unwrap_or_default()
    };
    for binding in cluster::list(client, "/registry/clusterrolebindings/").0 {
        if bound(&binding.value, None) {
            rules.extend(role(&binding.value, None));
        }
    }
    if let Some(namespace) = namespace {
        for binding in cluster::list(client, &format!("/registry/rolebindings/{namespace}/")).0 {
            if bound(&binding.value, Some(namespace)) {
                rules.extend(role(&binding.value, Some(namespace)));
            }
        }
    }
    rules
}

/// Whether a user may do something.
pub(super) fn may(client: &Client, user: &User, deed: &Deed) -> bool {
    if user.groups.iter().any(|group| group == "system:masters") {
        return true;
    }
    rules(client, user, deed.namespace.as_deref()).iter().any(|rule| covers(rule, deed))
}

fn covers(rule: &Value, deed: &Deed) -> bool {
    let has = |field: &str, wanted: &dyn Fn(&str) -> bool| {
        rule[field].as_array().into_iter().flatten().filter_map(Value::as_str).any(|one| one == "*" || wanted(one))
    };
    if !has("verbs", &|one| one == deed.verb) {
        return false;
    }
    if let Some(path) = &deed.path {
        return has("nonResourceURLs", &|one| {
            one == path || one.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix))
        });
    }
    let below = deed.resource.split_once('/').map(|(_, subresource)| format!("*/{subresource}"));
    let names = rule["resourceNames"].as_array().filter(|names| !names.is_empty());
    has("apiGroups", &|one| one == deed.group)
        && has("resources", &|one| one == deed.resource || below.as_deref() == Some(one))
        && names.is_none_or(|names| names.iter().any(|one| *one == *deed.name))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rules_cover_what_they_name_and_refusals_say_what_was_wanted() {
        let deed = |verb: &str, resource: &str| Deed {
            verb: verb.to_owned(),
            resource: resource.to_owned(),
            namespace: Some("default".to_owned()),
            name: "a".to_owned(),
            ..Deed::default()
        };
        let rule = json!({ "verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "*/log"] });
        assert!(covers(&rule, &deed("get", "pods")) && covers(&rule, &deed("get", "pods/log")));
        assert!(!covers(&rule, &deed("delete", "pods")) && !covers(&rule, &deed("get", "pods/status")));
        let named = json!({ "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "resourceNames": ["b"] });
        assert!(!covers(&named, &deed("get", "pods")));
        let paths = json!({ "verbs": ["get"], "nonResourceURLs": ["/healthz/*"] });
        assert!(covers(
            &paths,
            &Deed { verb: "get".to_owned(), path: Some("/healthz/etcd".to_owned()), ..Deed::default() }
        ));
        let user = User::known("jane".to_owned(), Vec::new());
        assert_eq!(
            deed("list", "pods").shown(&user),
            "User \"jane\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\""
        );
    }
}
