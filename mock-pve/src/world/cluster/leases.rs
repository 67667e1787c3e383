//! The leases of a cluster: by which nodes and API servers say that they live, and components who of them works.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::objects::{Keyed, key, namespaced};

const NODES: &str = "kube-node-lease";
const SYSTEM: &str = "kube-system";
/// The components of a control plane of which only one works at a time.
pub const ELECTED: [&str; 2] = ["kube-controller-manager", "kube-scheduler"];

/// The lease of a kubelet.
pub fn node(old: Option<Value>, name: &str, seed: &str) -> Keyed {
    held(old, (NODES, name), name, 40, seed)
}

/// The key of a component's election.
pub fn election_key(component: &str) -> String {
    key("leases", Some(SYSTEM), component)
}

/// The election that a component on `host` won, whose processes began with that boot.
pub fn election(old: Option<Value>, component: &str, host: &str, boot_id: &str, seed: &str) -> Keyed {
    let who = format!("{host}_{boot_id}");
    let before = |name: &str| old.as_ref().and_then(|old| old["spec"].get(name)).cloned();
    let (holder, since) = (before("holderIdentity"), before("acquireTime"));
    let changes = before("leaseTransitions").and_then(|count| count.as_u64()).unwrap_or(0);
    let stays = holder.as_ref().and_then(Value::as_str) == Some(&who);
    let (key, mut lease) = held(old, (SYSTEM, component), &who, 15, seed);
    let renewed = lease["spec"]["renewTime"].clone();
    lease["spec"]["acquireTime"] = since.filter(|_| stays).unwrap_or(renewed);
    lease["spec"]["leaseTransitions"] = json!(changes + u64::from(holder.is_some() && !stays));
    (key, lease)
}

/// The key of the lease of the API server on `host`.
pub fn server_key(host: &str) -> String {
    key("leases", Some(SYSTEM), &server_name(host))
}

/// The lease of an API server on `host`.
pub fn server(old: Option<Value>, host: &str, boot_id: &str, seed: &str) -> Keyed {
    let name = server_name(host);
    let (key, mut lease) = held(old, (SYSTEM, &name), &format!("{name}_{boot_id}"), 3600, seed);
    lease["metadata"]["labels"] =
        json!({ "apiserver.kubernetes.io/identity": "kube-apiserver", "kubernetes.io/hostname": host });
    (key, lease)
}

/// `apiserver-` and 26 characters that follow from the host.
fn server_name(host: &str) -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let digest = Sha256::digest(host);
    let letters = digest.iter().take(26).map(|byte| char::from(LETTERS[usize::from(byte % 32)]));
    format!("apiserver-{}", letters.collect::<String>())
}

fn held(old: Option<Value>, (namespace, name): (&str, &str), who: &str, seconds: u32, seed: &str) -> Keyed {
    let mut lease = old.unwrap_or_else(|| namespaced("coordination.k8s.io/v1", "Lease", Some(namespace), name, seed));
    let renewed = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
    lease["spec"] = json!({ "holderIdentity": who, "leaseDurationSeconds": seconds, "renewTime": renewed });
    (key("leases", Some(namespace), name), lease)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_election_counts_those_who_won_it() {
        let (key, first) = election(None, "kube-scheduler", "cp-01", "b1", "seed");
        assert_eq!(key, "/registry/leases/kube-system/kube-scheduler");
        let again = election(Some(first.clone()), "kube-scheduler", "cp-01", "b1", "seed").1;
        assert_eq!(
            (&again["spec"]["leaseTransitions"], &again["metadata"]["uid"]),
            (&json!(0), &first["metadata"]["uid"])
        );
        assert_eq!(again["spec"]["acquireTime"], first["spec"]["acquireTime"]);
        let other = election(Some(again), "kube-scheduler", "cp-02", "b2", "seed").1;
        assert_eq!(
            (&other["spec"]["leaseTransitions"], &other["spec"]["holderIdentity"]),
            (&json!(1), &json!("cp-02_b2"))
        );
        assert_ne!(other["spec"]["acquireTime"], first["spec"]["acquireTime"]);
    }
}
