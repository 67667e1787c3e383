//! Certificates that somebody asked for and somebody else approved: the machine that leads has them signed, as the
//! controller manager does (Kubernetes, pkg/controller/certificates/signer).

use std::time::Duration;

use base64::Engine as _;
use serde_json::{Value, json};

use super::config::Authority;
use super::pki;
use crate::etcd::{Client, EtcdError};
use crate::world::cluster::{self, Entry, pods};

const REQUESTS: &str = "/registry/certificatesigningrequests/";
/// How long a certificate is good for when nothing is said (`--cluster-signing-duration`), in seconds.
const YEAR: u64 = 365 * 86_400;

/// Signs what is approved and isn't signed yet.
pub(super) async fn sign(client: &Client, authority: &Authority) -> Result<(), EtcdError> {
    for request in cluster::list(client, REQUESTS).0.iter().filter(|request| waits(&request.value)) {
        let mut value = request.value.clone();
        match signed(request, authority) {
            Some(Ok(certificate)) => {
                let certificate = base64::engine::general_purpose::STANDARD.encode(certificate);
                value["status"]["certificate"] = json!(certificate);
            }
            Some(Err(why)) => {
                pods::set_condition(&mut value, "Failed", "True", "SignerValidationFailure", &why);
            }
            None => continue,
        }
        match cluster::put(client, &request.key, &value, Some(request.modified)).await {
            Ok(_) | Err(EtcdError::Conflict(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn waits(request: &Value) -> bool {
    let has = |kind: &str| {
        let all = request["status"]["conditions"].as_array().into_iter().flatten();
        all.into_iter().any(|one| one["type"] == kind)
    };
    has("Approved") && !has("Denied") && !has("Failed") && pods::text(request, "/status/certificate").is_empty()
}

/// A certificate, or why there can't be one; `None` when it is for somebody else to sign.
fn signed(request: &Entry, authority: &Authority) -> Option<Result<String, String>> {
    let spec = &request.value["spec"];
    let (client_auth, server_auth) = ("client auth", "server auth");
    let usages: Vec<&str> = spec["usages"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let purpose = match pods::text(spec, "/signerName").strip_prefix("kubernetes.io/")? {
        "kube-apiserver-client" | "kube-apiserver-client-kubelet" => client_auth,
        "kubelet-serving" => server_auth,
        _ => return None,
    };
    let known = ["digital signature", "key encipherment", purpose];
    if !usages.contains(&purpose) || usages.iter().any(|usage| !known.contains(usage)) {
        return Some(Err(format!("invalid usages for client certificate: {usages:?}")));
    }
    let seconds = spec["expirationSeconds"].as_u64().unwrap_or(YEAR).clamp(600, YEAR);
    let pem = base64::engine::general_purpose::STANDARD.decode(pods::text(spec, "/request")).unwrap_or_default();
    let pem = String::from_utf8_lossy(&pem).into_owned();
    Some(pki::sign(authority, &pem, &usages, Duration::from_secs(seconds)).map_err(|error| error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(signer: &str, usages: &[&str]) -> Entry {
        let value = json!({ "spec": { "signerName": signer, "usages": usages, "request": "bm9uZQ==" } });
        Entry { key: String::new(), value, created: 1, modified: 1 }
    }

    #[test]
    fn only_its_own_signers_are_signed_for_and_only_what_they_are_for() {
        let nobody = Authority { certificate: String::new(), key: String::new() };
        assert!(signed(&request("example.com/mine", &["client auth"]), &nobody).is_none());
        let wrong = signed(&request("kubernetes.io/kube-apiserver-client", &["server auth"]), &nobody).unwrap();
        assert!(wrong.unwrap_err().starts_with("invalid usages"));
        assert!(signed(&request("kubernetes.io/kubelet-serving", &["server auth"]), &nobody).unwrap().is_err());
        let conditions = |all: Value| waits(&json!({ "status": { "conditions": all } }));
        assert!(conditions(json!([{ "type": "Approved" }])));
        assert!(!conditions(json!([{ "type": "Approved" }, { "type": "Denied" }])));
        assert!(!conditions(json!([])));
    }
}
