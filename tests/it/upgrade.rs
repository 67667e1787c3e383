//! Upgrades in place, end to end: the program against a double of the site, whose machines the tests look into.
//!
//! [`Scene`] is a running cluster of any size and version. What must hold after every upgrade is in [`Scene::assert_runs`];
//! that quorum was never lost is the double's own word.

mod back;
mod cuts;
mod faults;
mod hop;
mod hops_back;
mod matrix;
mod original;
mod refused;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::Output;
use std::time::{Duration, Instant};

use mock_pve::scenario::Scenario;
use mock_pve::world::machine::Stage;
use mock_pve::world::seed::Seed;
use recast::k8s::apply::Applier;
use recast::k8s::{Client, manifest};
use recast::pve::vm::{VmRef, WaitingShutdown};
use recast::talos::client::Machine;
use recast::types::VmId;
use serde_json::Value;

use crate::site::{Cluster, Double, End, Folder};

/// How much faster than life the doubles are.
const TIME_SCALE: f64 = 100.0;

/// The extension's name is known to every factory; its schematic is the lab's.
const SCHEMATIC: &str = "ce4c980550dd2ab1b17bbf2b08801c7eb59418eafe8f279833297925d67c7515";

/// A cluster as it runs before.
#[derive(Clone, Copy, Debug)]
struct Shape {
    control: u32,
    workers: u32,
    talos: &'static str,
    kubernetes: &'static str,
    /// Keys of the profile beside the usual ones.
    more: &'static str,
}

/// The lab: what `profiles/lab.yaml` says.
const LAB: Shape = Shape { control: 3, workers: 2, talos: "1.12.4", kubernetes: "1.34.1", more: "" };

impl Shape {
    fn profile(self) -> String {
        let Self { control, workers, talos, kubernetes, more } = self;
        let group = |name: &str, prefix: &str, count: u32, vmid: u32, ip: u32| {
            let mut text = format!(
                "  {name}:\n    count: {count}\n    name_prefix: {prefix}\n    cores: 2\n    memory: 4096\n    disk: 32G\n    \
                 start_vmid: {vmid}\n    placement: spread\n    assignments:\n"
            );
            for number in 1..=count {
                let (node, vmid, ip) = ((number - 1) % 3 + 1, vmid + number - 1, ip + number - 1);
                writeln!(
                    text,
                    "      - {{name: {prefix}{number:02}, node: pve{node}, vmid: {vmid}, ip: 10.20.0.{ip}}}"
                )
                .unwrap();
            }
            text
        };
        let mut nodes = group("controlplane", "lab-cp-", control, 1200, 11);
        if workers > 0 {
            nodes += &group("workers", "lab-worker-", workers, 1210, 21);
        }
        format!(
            "name: lab\ntype: talos\ntalos:\n  version: \"{talos}\"  # kept up by recast\n  kubernetes_version: \
             \"{kubernetes}\"\n  config_dir: lab\n  secrets_file: secrets.yaml\n  vip:\n    ip: 10.20.0.10\n  factory:\n    \
             schematic_id: {SCHEMATIC}\n    extensions: [siderolabs/qemu-guest-agent]\nnetwork:\n  api_endpoint: \
             10.20.0.10:6443\n  gateway: 10.20.0.1\n  prefix: 24\n  pod_cidr: 10.244.0.0/16\n  service_cidr: \
             10.96.0.0/12\nnodes:\n{nodes}template: 102\ntags: [talos, lab]\nsteady: 1s\n{more}"
        )
    }
}

/// What a machine is, looked at from inside the double.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Inside {
    version: String,
    schematic: String,
    boot: String,
}

/// A VM's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plug {
    Out,
    In,
}

/// A running cluster.
struct Scene {
    folder: Folder,
    double: Double,
}

impl Scene {
    async fn begin(shape: Shape) -> Self {
        Self::begun(shape, None, None).await
    }

    /// The same, where things happen as in a scenario.
    async fn played(shape: Shape, scenario: &str) -> Self {
        Self::begun(shape, Some(Scenario::parse("scenario.yaml", scenario).unwrap()), None).await
    }

    /// The same as at the beginning, with that etcd under every control plane's member.
    async fn over(shape: Shape, etcd: PathBuf) -> Self {
        Self::begun(shape, None, Some(etcd)).await
    }

    async fn begun(shape: Shape, scenario: Option<Scenario>, etcd: Option<PathBuf>) -> Self {
        let folder = Folder::of(Cluster::Lab);
        fs::write(folder.profile(), shape.profile()).unwrap();
        let newest = |seed: &mut Seed| seed.factory.talos_versions.push("1.14.0".to_owned());
        let double = Double::over(&folder, TIME_SCALE, newest, scenario, etcd).await;
        let scene = Self { folder, double };
        scene.settled(shape).await;
        scene
    }

    /// Until all machines are up, and somebody holds the shared address again: it stays nobody's for a while after its
    /// holder lost power.
    async fn settled(&self, shape: Shape) {
        self.until("all machines are up", || self.is_up(shape)).await;
        let answers = async || self.api().await.version().await.is_ok();
        self.until_async("the Kubernetes API answers", answers).await;
    }

    fn is_up(&self, shape: Shape) -> bool {
        let all = usize::try_from(shape.control + shape.workers).unwrap();
        let machines = self.double.room().machines();
        machines.len() == all
            && machines.iter().all(|machine| {
                machine.see(|state| {
                    state.stage == Stage::Running && state.status().ready && state.hostname().starts_with("lab-")
                })
            })
    }

    async fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let since = Instant::now();
        while !holds() {
            assert!(since.elapsed() < Duration::from_secs(30), "{what}: not within 30 s");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn until_async(&self, what: &str, mut holds: impl AsyncFnMut() -> bool) {
        let since = Instant::now();
        while !holds().await {
            assert!(since.elapsed() < Duration::from_secs(30), "{what}: not within 30 s");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// What a person does in Proxmox VE: pulls a VM's plug, and starts it again.
    async fn plug(&self, vmid: u32, plug: Plug) {
        let session = self.folder.session(self.double.site());
        let node = session.pve.guests().await.unwrap().into_iter().find(|guest| guest.vmid.0 == vmid).unwrap().node;
        let vm = VmRef::new(node, VmId(vmid));
        match plug {
            Plug::Out => session.pve.stop_vm(&vm, WaitingShutdown::Overrule).await.unwrap(),
            Plug::In => session.pve.start_vm(&vm).await.unwrap(),
        };
        let is_there = || self.double.room().machine(vmid).is_some();
        self.until("the plug", || is_there() == (plug == Plug::In)).await;
    }

    /// Makes Kubernetes objects.
    async fn apply(&self, manifests: &[&str]) {
        let client = self.api().await;
        for text in manifests {
            let object = manifest::parse(text).unwrap().remove(0);
            Applier::new(&client).apply(&object).await.unwrap();
        }
    }

    /// Runs recast, in a process of its own.
    async fn run(&self, args: &[&str]) -> Output {
        let mut command = self.folder.recast(self.double.site(), args);
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    /// Runs recast; its exit code, the document that it prints, and what it tells.
    async fn asked(&self, args: &[&str]) -> (i32, Value, String) {
        let output = self.run(&[args, &["-o", "json"]].concat()).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let document = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}\n{said}", String::from_utf8_lossy(&output.stdout)));
        (output.status.code().unwrap(), document, said)
    }

    /// Runs recast with the cluster's name; it must end well. The document, and what it tells.
    async fn done(&self, args: &[&str]) -> (Value, String) {
        let (code, document, story) = self.asked(&[args, &["--confirm", "lab"]].concat()).await;
        assert_eq!(code, 0, "{args:?}\n{document:#}\n{story}");
        (document, story)
    }

    /// Runs recast with the cluster's name; a gate must refuse it with these words, and every machine stay as it is, taking
    /// pods.
    async fn refused(&self, args: &[&str], words: &[&str]) -> String {
        let before = self.inside();
        let (code, document, story) = self.asked(&[args, &["--confirm", "lab"]].concat()).await;
        assert_eq!(code, 4, "{args:?}\n{document:#}\n{story}");
        let told = document["problems"].to_string();
        for words in words {
            assert!(told.contains(words), "{words}\n{document:#}");
        }
        assert_eq!(self.inside(), before, "{story}");
        told
    }

    fn profile(&self) -> String {
        fs::read_to_string(self.folder.profile()).unwrap()
    }

    /// That no node keeps pods off.
    async fn assert_open(&self, story: &str) {
        let nodes = self.api().await.nodes().await.unwrap();
        assert!(nodes.iter().all(|node| !node.unschedulable), "{nodes:?}\n{story}");
    }

    fn inside(&self) -> BTreeMap<String, Inside> {
        let all = self.double.room().machines();
        let look = |machine: &mock_pve::world::machine::Machine| {
            machine.see(|state| {
                let inside = Inside {
                    version: state.tag().trim_start_matches('v').to_owned(),
                    schematic: state.recipe.as_ref().map(|recipe| recipe.schematic.clone()).unwrap_or_default(),
                    boot: state.boot_id.clone(),
                };
                (state.hostname(), inside)
            })
        };
        all.iter().map(look).collect()
    }

    fn boots(&self) -> BTreeMap<String, String> {
        self.inside().into_iter().map(|(name, inside)| (name, inside.boot)).collect()
    }

    /// The Kubernetes API, by the first control plane that answers.
    async fn api(&self) -> Client {
        let session = self.folder.session(self.double.site());
        let kubeconfig = self.machine("10.20.0.11").kubeconfig().await.unwrap();
        Client::new(&session.connector, &kubeconfig).unwrap()
    }

    /// The API of the machine at an address, as recast speaks to it.
    fn machine(&self, address: &str) -> Machine {
        let session = self.folder.session(self.double.site());
        let now = jiff::Timestamp::now();
        let access = recast::cli::carry_out::access(&session.secrets(now).unwrap(), now).unwrap();
        Machine::new(&session.connector, address, &access, Duration::from_secs(10)).unwrap()
    }

    /// What must hold after an upgrade: every machine up with the release and schematic, its node Ready with the boot
    /// that it is in and open to pods, etcd whole, the profile right, and quorum never lost.
    async fn assert_runs(&self, talos: &str, kubernetes: &str, story: &str) {
        let inside = self.inside();
        for (name, machine) in &inside {
            assert_eq!((machine.version.as_str(), machine.schematic.as_str()), (talos, SCHEMATIC), "{name}\n{story}");
        }
        for machine in self.double.room().machines() {
            let (stage, status) = machine.see(|state| (state.stage, state.status()));
            assert_eq!((stage, status.ready), (Stage::Running, true), "{status:?}\n{story}");
        }
        let nodes = self.api().await.nodes().await.unwrap();
        assert_eq!(nodes.len(), inside.len(), "{story}");
        for node in nodes {
            assert!(node.ready.is_ok() && !node.unschedulable, "{node:?}\n{story}");
            assert_eq!(node.boot_id, inside[&node.name].boot, "{node:?}\n{story}");
            assert_eq!(node.kubelet, format!("v{kubernetes}"), "{node:?}\n{story}");
        }
        let end = End::of(&self.folder, self.double.site()).await;
        let control: Vec<&String> = inside.keys().filter(|name| name.starts_with("lab-cp-")).collect();
        assert_eq!(end.members.iter().collect::<Vec<_>>(), control, "{story}");
        assert_eq!(end.versions.last(), Some(&format!("kubernetes {kubernetes}")), "{story}");
        assert_eq!(
            end.profile[..2],
            [format!("version: \"{talos}\""), format!("kubernetes_version: \"{kubernetes}\"")],
            "{story}"
        );
        self.assert_quorum(story);
    }

    fn assert_quorum(&self, story: &str) {
        assert_eq!(self.double.world().quorum_losses(), [], "{story}");
    }
}
