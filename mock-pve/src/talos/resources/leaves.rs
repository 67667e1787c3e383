//! The certificates that a machine made for its own services, which only administrators see.

use base64::Engine as _;
use serde_json::{Value, json};

use super::secrets::{accepted, wire_accepted};
use super::wire::Proto;
use super::{Item, Maker, Type, addresses};
use crate::talos::archive::kubeconfig_text;
use crate::world::machine::pki::{Kind, PkiError, Subject};
use crate::world::machine::{API_DAYS, Authority, KUBERNETES_DAYS, Machine, MachineType, NodeConfig, Pem, State};

/// The types that are made here.
pub(super) const NAMES: [&str; 5] = [
    "ApiCertificates.secrets.talos.dev",
    "EtcdSecrets.secrets.talos.dev",
    "KubernetesDynamicCerts.secrets.talos.dev",
    "KubernetesSecrets.secrets.talos.dev",
    "TrustdCertificates.secrets.talos.dev",
];

/// Days that certificates of etcd last.
const ETCD: u64 = 3650;
const NEAR: &str = "https://localhost:6443";

pub(super) fn list(machine: &Machine, kind: &'static Type) -> Vec<Item> {
    let Some(config) = machine.see(|state| state.config.clone()) else { return Vec::new() };
    let of = config.machine_type();
    let mine = Mine { machine, config: &config, maker: Maker(kind), host: machine.see(State::hostname) };
    let made = match kind.name {
        "ApiCertificates.secrets.talos.dev" => mine.api(of),
        _ if of != MachineType::ControlPlane => return Vec::new(),
        "EtcdSecrets.secrets.talos.dev" => mine.etcd(),
        "KubernetesDynamicCerts.secrets.talos.dev" => mine.api_server(),
        "KubernetesSecrets.secrets.talos.dev" => mine.kubeconfigs(),
        _ => mine.trustd(),
    };
    // Without a usable authority there is nothing to show; the console says why its services don't start.
    made.into_iter().collect()
}

/// A machine that makes its certificates.
struct Mine<'a> {
    machine: &'a Machine,
    config: &'a NodeConfig,
    maker: Maker,
    host: String,
}

impl Mine<'_> {
    fn api(&self, of: MachineType) -> Result<Item, PkiError> {
        let server = self.machine.talos_leaf("api", self.config)?;
        let mut value = json!({ "acceptedCAs": accepted(self.config, "/machine"), "server": pair(&server),
            "client": null, "skipVerifyingClientCert": false });
        let mut proto = Proto::default();
        // A worker forwards nothing, so it has nothing to show elsewhere.
        if of == MachineType::ControlPlane {
            let subject = Subject::Client { name: Some(&self.host), organizations: &["os:impersonator"] };
            let authority = self.machine.issuing_authority(self.config);
            let client = self.machine.leaf("api-client", &authority, Kind::Ed25519, subject, API_DAYS)?;
            value["client"] = pair(&client);
            proto = proto.message(2, &wire(&client));
        }
        let proto = wire_accepted(proto.message(3, &wire(&server)), 4, &value);
        Ok(self.maker.typed("api", &value, proto))
    }

    fn trustd(&self) -> Result<Item, PkiError> {
        let server = self.machine.talos_leaf("trustd", self.config)?;
        let value = json!({ "acceptedCAs": accepted(self.config, "/machine"), "server": pair(&server) });
        let proto = wire_accepted(Proto::default().message(2, &wire(&server)), 3, &value);
        Ok(self.maker.typed("trustd", &value, proto))
    }

    fn etcd(&self) -> Result<Item, PkiError> {
        let authority = self.config.etcd_ca();
        let own: Vec<String> = self.machine.see(addresses);
        let make = |name, subject| self.machine.leaf(name, &authority, Kind::P256, subject, ETCD);
        let near = ["127.0.0.1", "::1", "localhost", &self.host].map(str::to_owned);
        let served = own.iter().cloned().chain(near).collect();
        let peers = own.into_iter().chain([self.host.clone()]).collect();
        let client = |name| Subject::Client { name: Some(name), organizations: &[] };
        let all = [
            ("etcd", make("etcd", Subject::Member { name: &self.host, names: served })?),
            ("etcdPeer", make("etcd-peer", Subject::Member { name: &self.host, names: peers })?),
            ("etcdAdmin", make("etcd-admin", client("talos"))?),
            ("etcdAPIServer", make("etcd-api-server", client("kube-apiserver"))?),
        ];
        Ok(self.pairs("etcd", &all))
    }

    fn api_server(&self) -> Result<Item, PkiError> {
        let authority = self.config.kubernetes_ca();
        let mut server = self.machine.api_server_leaf(self.config)?;
        // Who trusts an authority above it needs the one between.
        server.certificate = format!("{}\n{}", server.certificate, authority.certificate);
        let kubelet = Subject::Client { name: Some("apiserver-kubelet-client"), organizations: &["system:masters"] };
        let kubelet = self.kubernetes("api-server-kubelet-client", &authority, kubelet)?;
        let proxy = Subject::Client { name: Some("front-proxy-client"), organizations: &[] };
        let proxy = self.kubernetes("front-proxy", &self.config.aggregator_ca(), proxy)?;
        let all = [("apiServer", server), ("apiServerKubeletClient", kubelet), ("frontProxy", proxy)];
        Ok(self.pairs("k8s-dynamic-certs", &all))
    }

    fn kubernetes(&self, name: &'static str, authority: &Authority, subject: Subject<'_>) -> Result<Pem, PkiError> {
        self.machine.leaf(name, authority, Kind::P256, subject, KUBERNETES_DAYS)
    }

    fn kubeconfigs(&self) -> Result<Item, PkiError> {
        let authority = self.config.kubernetes_ca();
        let one = |leaf, who: &str, groups: &[&str], server: &str, names: (&str, &str)| -> Result<String, PkiError> {
            let pem = self.kubernetes(leaf, &authority, Subject::Client { name: Some(who), organizations: groups })?;
            Ok(kubeconfig_text(self.config, server, names, &pem))
        };
        let component = |leaf, who: &'static str| one(leaf, who, &[who], NEAR, (who, "default"));
        let admin = |leaf, server: &str| one(leaf, "talos:admin", &["system:masters"], server, ("admin", "admin"));
        let all: [(&str, Result<String, PkiError>); 4] = [
            ("schedulerKubeconfig", component("scheduler", "system:kube-scheduler")),
            ("controllerManagerKubeconfig", component("controller-manager", "system:kube-controller-manager")),
            ("localhostAdminKubeconfig", admin("localhost-admin", NEAR)),
            ("adminKubeconfig", admin("admin", self.config.endpoint())),
        ];
        let (mut value, mut proto) = (json!({}), Proto::default());
        for (field, (name, text)) in (4..).zip(all) {
            let text = text?;
            proto = proto.text(field, &text);
            value[name] = json!(text);
        }
        Ok(self.maker.typed("k8s-certs", &value, proto))
    }

    /// A resource of nothing but certificates, with the numbers of their fields in that order.
    fn pairs(&self, id: &str, all: &[(&str, Pem)]) -> Item {
        let (mut value, mut proto) = (json!({}), Proto::default());
        for (field, (name, pem)) in (1..).zip(all) {
            value[*name] = pair(pem);
            proto = proto.message(field, &wire(pem));
        }
        self.maker.typed(id, &value, proto)
    }
}

/// As YAML has it: base64 of the PEM.
fn pair(pem: &Pem) -> Value {
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    json!({ "crt": encode(&pem.certificate), "key": encode(&pem.key) })
}

fn wire(pem: &Pem) -> Proto {
    Proto::default().bytes(1, pem.certificate.as_bytes()).bytes(2, pem.key.as_bytes())
}
