//! `recast upgrade --kubernetes` on a running lab: three control planes and two workers go up a minor of Kubernetes, and
//! whatever goes wrong on the way is told by name.

mod clients;
mod cuts;
mod drain;
mod faults;
mod hop;
mod refused;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, Instant};

use mock_pve::etcd::Client as Member;
use mock_pve::world::cluster;
use mock_pve::world::script::{Answered, Service};
use secrecy::ExposeSecret as _;
use serde_json::Value;

use recast::cli::carry_out::access;
use recast::k8s::apply::Applier;
use recast::k8s::{Client, manifest};
use recast::talos::client::Machine;
use recast::talos::config::Config;

use crate::site::{Cluster, Double, Folder};

/// How much faster than life the doubles are.
const TIME_SCALE: f64 = 50.0;

/// Control planes, then workers, in the order in which they are moved: VMs and names.
const CONTROL_PLANES: [(&str, &str); 3] = [("1200", "lab-cp-01"), ("1201", "lab-cp-02"), ("1202", "lab-cp-03")];
const WORKERS: [(&str, &str); 2] = [("1210", "lab-worker-01"), ("1211", "lab-worker-02")];

/// What the double's machines answer without being changed.
const READS: [&str; 13] = [
    "Version",
    "Get",
    "List",
    "Watch",
    "Kubeconfig",
    "Read",
    "ServiceList",
    "EtcdStatus",
    "EtcdMemberList",
    "EtcdAlarmList",
    "Hostname",
    "Containers",
    "HealthCheck",
];

/// A run of recast that ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    fn document(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }

    /// It ended with that code, and told all of this.
    pub(crate) fn must(&self, code: i32, words: &[&str]) {
        let flat = self.err.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(self.code, Some(code), "{}", self.err);
        for word in words {
            assert!(flat.contains(word), "{word}: {}", self.err);
        }
    }
}

/// A running lab.
pub(crate) struct Lab {
    pub(crate) double: Double,
    pub(crate) folder: Folder,
    /// The first three numbers of its addresses.
    base: String,
}

impl Lab {
    /// With these versions, and more in its profile.
    pub(crate) async fn new(talos: &str, kubernetes: &str, more: &str) -> Self {
        Self::scripted(talos, kubernetes, more, "").await
    }

    /// The same, with a scenario.
    async fn scripted(talos: &str, kubernetes: &str, more: &str, scenario: &str) -> Self {
        let folder = Folder::of(Cluster::Lab);
        let text = fs::read_to_string(folder.profile()).unwrap();
        let text =
            text.replace("\"1.12.4\"", &format!("\"{talos}\"")).replace("\"1.34.1\"", &format!("\"{kubernetes}\""));
        fs::write(folder.profile(), text + more).unwrap();
        Self::of(folder, "10.20.0", TIME_SCALE, scenario).await
    }

    /// At loopback addresses, which other clients can dial.
    pub(crate) async fn at(base: &str, talos: &str, kubernetes: &str) -> Self {
        let folder = Folder::of(Cluster::Lab);
        let text = fs::read_to_string(folder.profile()).unwrap();
        let text =
            text.replace("\"1.12.4\"", &format!("\"{talos}\"")).replace("\"1.34.1\"", &format!("\"{kubernetes}\""));
        fs::write(folder.profile(), text.replace("10.20.0.", &format!("{base}."))).unwrap();
        // talosctl waits for events, and the double tells of what is there when somebody looks. And it looks once a second,
        // in which a machine that reboots must not have come back.
        Self::of(folder, base, 15.0, "").await
    }

    async fn of(folder: Folder, base: &str, time_scale: f64, scenario: &str) -> Self {
        let double = match scenario {
            "" => Double::here(&folder, time_scale).await,
            scenario => Double::troubled(&folder, time_scale, scenario).await,
        };
        let lab = Self { double, folder, base: base.to_owned() };
        lab.api().await;
        lab.quiet().await;
        lab
    }

    /// Waits until its controllers have nothing left to do: a while passes, many rounds of theirs, in which no object changes.
    pub(crate) async fn quiet(&self) {
        let since = Instant::now();
        let mut before = self.objects();
        loop {
            tokio::time::sleep(Duration::from_millis(400)).await;
            let now = self.objects();
            let changed = changed(&before, &now);
            if changed.is_empty() {
                return;
            }
            assert!(since.elapsed() < Duration::from_secs(30), "{changed:?}");
            before = now;
        }
    }

    /// The address of a host.
    pub(crate) fn address(&self, host: u8) -> String {
        format!("{}.{host}", self.base)
    }

    pub(crate) async fn run(&self, args: &[&str]) -> Ran {
        let mut command = self.folder.recast(self.double.site(), args);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ran { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// Brings Kubernetes to that version.
    pub(crate) async fn upgrade(&self, kubernetes: &str, more: &[&str]) -> Ran {
        let args = ["upgrade", "--kubernetes", kubernetes, "--confirm", "lab", "-o", "json"];
        self.run(&[&args[..], more].concat()).await
    }

    pub(crate) fn machine(&self, host: u8) -> Machine {
        let session = self.folder.session(self.double.site());
        let now = jiff::Timestamp::now();
        let access = access(&session.secrets(now).unwrap(), now).unwrap();
        Machine::new(&session.connector, &self.address(host), &access, Duration::from_secs(10)).unwrap()
    }

    /// The Kubernetes API, once it answers.
    pub(crate) async fn api(&self) -> Client {
        let session = self.folder.session(self.double.site());
        let since = Instant::now();
        loop {
            let kubeconfig = self.machine(11).kubeconfig().await;
            let client = kubeconfig.map(|kubeconfig| Client::new(&session.connector, &kubeconfig).unwrap());
            match client {
                Ok(client) if client.version().await.is_ok() => return client,
                client => assert!(since.elapsed() < Duration::from_secs(20), "{client:?}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Applies objects.
    pub(crate) async fn apply(&self, text: &str) {
        let client = self.api().await;
        for object in manifest::parse(text).unwrap() {
            Applier::new(&client).apply(&object).await.unwrap();
        }
    }

    async fn exists(&self, path: &str) -> bool {
        self.api().await.exists(path).await.unwrap()
    }

    /// Changes a machine's configuration as text, behind recast's back.
    async fn reconfigure(&self, host: u8, change: impl FnOnce(String) -> String) {
        let machine = self.machine(host);
        let text = machine.config().await.unwrap().unwrap();
        let changed = Config::parse(&change(text.expose_secret().to_owned())).unwrap();
        machine.apply_without_reboot(&changed.to_yaml()).await.unwrap();
    }

    /// All objects with the revision of their last change, without what beats by itself.
    pub(crate) fn objects(&self) -> BTreeMap<String, (u64, Value)> {
        let etcd = self.double.world().etcds().remove(0);
        let id = etcd.leader().unwrap();
        let (objects, _) = cluster::list(&Member { etcd, id }, "/registry/");
        let still =
            objects.into_iter().filter(|entry| !["/leases/", "/events/"].iter().any(|kind| entry.key.contains(kind)));
        still.map(|entry| (entry.key, (entry.modified, entry.value))).collect()
    }

    /// Images by object: of the control plane's and kube-proxy's pods, and what the nodes report.
    pub(crate) fn runs(&self) -> BTreeSet<String> {
        let mut runs = BTreeSet::new();
        for (key, (_, object)) in self.objects() {
            if let Some(pod) = key
                .strip_prefix("/registry/pods/kube-system/")
                .filter(|name| name.starts_with("kube-") && !name.starts_with("kube-flannel"))
            {
                let image = object.pointer("/spec/containers/0/image").and_then(Value::as_str).unwrap();
                // Those of kube-proxy have names that are made up.
                let name =
                    if pod.starts_with("kube-proxy-") { object["spec"]["nodeName"].as_str().unwrap() } else { pod };
                runs.insert(format!("{name} {image}"));
            } else if let Some(node) = key.strip_prefix("/registry/minions/") {
                let version = object.pointer("/status/nodeInfo/kubeletVersion").and_then(Value::as_str).unwrap();
                runs.insert(format!("{node} kubelet {version}"));
            }
        }
        runs
    }
}

/// Objects that came, went or changed.
pub(crate) fn changed<T: PartialEq>(before: &BTreeMap<String, T>, after: &BTreeMap<String, T>) -> Vec<String> {
    let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    keys.into_iter().filter(|key| before.get(*key) != after.get(*key)).cloned().collect()
}

/// A configuration with one more argument for a part of it.
fn with_argument(text: &str, part: &str, name: &str, value: &str) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let at = lines.iter().position(|line| line.trim() == format!("{part}:")).unwrap();
    let indent = |line: &str| " ".repeat(line.len() - line.trim_start().len());
    let (own, inner) = (indent(&lines[at]), indent(&lines[at + 1]));
    let more = &inner[own.len()..];
    lines.insert(at + 1, format!("{inner}extraArgs:\n{inner}{more}{name}: \"{value}\""));
    lines.join("\n")
}

/// What a lab runs whose Kubernetes is all of one version.
pub(crate) fn all_run(version: &str) -> BTreeSet<String> {
    let mut runs = BTreeSet::new();
    for (_, name) in CONTROL_PLANES {
        for component in ["kube-apiserver", "kube-controller-manager", "kube-scheduler"] {
            runs.insert(format!("{component}-{name} registry.k8s.io/{component}:v{version}"));
        }
    }
    for (_, name) in CONTROL_PLANES.into_iter().chain(WORKERS) {
        runs.insert(format!("{name} registry.k8s.io/kube-proxy:v{version}"));
        runs.insert(format!("{name} kubelet v{version}"));
    }
    runs
}

/// VMs in the order in which their configurations change: component after component, and within each the machines.
pub(crate) fn order() -> Vec<&'static str> {
    let control = CONTROL_PLANES.map(|(vm, _)| vm);
    let each = std::iter::repeat_n(control, 4).flatten();
    each.chain(control).chain(WORKERS.map(|(vm, _)| vm)).collect()
}

pub(crate) fn talos<'a>(answers: &'a [Answered], call: &'a str) -> impl Iterator<Item = &'a Answered> {
    answers.iter().filter(move |answer| answer.service == Service::Talos && answer.path == call)
}

/// Requests that change, or may change, something; what recast only tries on the API server has no effect, and is not
/// told apart by its path.
fn changing(answers: &[Answered]) -> Vec<String> {
    let changes = |answer: &&Answered| match answer.service {
        Service::Talos => !READS.contains(&answer.path.as_str()),
        Service::Pve | Service::Factory => !["GET", "HEAD"].contains(&answer.method.as_str()),
        Service::Ssh | Service::Kubernetes => false,
    };
    answers.iter().filter(changes).map(|answer| format!("{} {} {}", answer.at, answer.method, answer.path)).collect()
}

/// All that came so far.
pub(crate) fn heard(answers: &mut tokio::sync::mpsc::UnboundedReceiver<Answered>) -> Vec<Answered> {
    std::iter::from_fn(|| answers.try_recv().ok()).collect()
}
