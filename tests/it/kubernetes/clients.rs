//! The real talosctl and recast, each on a double of the same cluster: both bring Kubernetes, and Talos, to the same state.
//!
//! `RECAST_TEST_CLIENTS` names the folder with the program; without it the tests say that they are skipped (and fail where
//! `RECAST_REQUIRE_REAL_PARTS` is set).

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use mock_pve::serve::loopback::Loopback;
use mock_pve::world::machine::Slot;
use recast::talos::access::talosconfig::{Context, merge};
use recast::talos::access::{AdminCertificate, Roles};
use recast::talos::config::Config;
use secrecy::ExposeSecret as _;
use serde_json::Value;

use super::{Lab, all_run, changed, heard, order, talos};
use crate::site::TALOS;

/// The hosts of a lab's machines, in the order in which they are moved.
const HOSTS: [u8; 5] = [11, 12, 13, 21, 22];

/// The machine that goes back, and its host.
const BACK: (&str, u8) = ("lab-worker-01", 21);

/// What changes by itself, or is named by chance; pods are compared by what they run.
const FLEETING: [&str; 9] = [
    "/registry/pods/",
    "/registry/minions/",
    "/registry/replicasets/",
    "/registry/controllerrevisions/",
    "/registry/endpointslices/",
    "/registry/services/endpoints/",
    "/registry/masterleases/",
    "/registry/secrets/",
    "/registry/ranges/",
];

impl Lab {
    /// Runs talosctl on the first control plane.
    async fn talosctl(&self, program: &Path, args: &[&str]) -> String {
        let (succeeded, told) = self.talosctl_tries(program, args).await;
        assert!(succeeded, "{args:?}: {told}");
        told
    }

    /// The same; whether it succeeded, and what it told.
    async fn talosctl_tries(&self, program: &Path, args: &[&str]) -> (bool, String) {
        let session = self.folder.session(self.double.site());
        let now = jiff::Timestamp::now();
        let certificate = AdminCertificate::issue(&session.secrets(now).unwrap(), Roles::Admin, now, 24).unwrap();
        let at = vec![self.address(11)];
        let context = Context { name: "lab".to_owned(), endpoints: at.clone(), nodes: at, certificate };
        let path = self.folder.path("talosconfig-of-talosctl");
        std::fs::write(&path, merge(None, &context).unwrap().expose_secret()).unwrap();
        let mut command = Command::new(program);
        command.env_clear().env("HOME", self.folder.path("home")).arg("--talosconfig").arg(&path).args(args);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let told = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.success(), told)
    }

    /// Runs talosctl on a machine, by way of another one, which stays up.
    async fn talosctl_on(&self, program: &Path, host: u8, args: &[&str]) -> String {
        let (by, node) = (self.address(if host == 11 { 12 } else { 11 }), self.address(host));
        self.talosctl(program, &[&["-e", &by, "-n", &node][..], args].concat()).await
    }

    /// Waits until talosctl finds the cluster healthy: every node is Ready and open to pods.
    async fn until_healthy(&self, program: &Path) {
        let since = Instant::now();
        loop {
            let (healthy, told) = self.talosctl_tries(program, &["health", "--wait-timeout", "30s"]).await;
            if healthy {
                return;
            }
            assert!(since.elapsed() < Duration::from_mins(1), "{told}");
        }
    }

    /// Upgrades machine by machine, as people do who have talosctl alone.
    async fn upgraded_by_hand(&self, program: &Path, image: &str) -> String {
        let mut told = String::new();
        for host in HOSTS {
            told += &self.talosctl_on(program, host, &["upgrade", "-i", image, "--timeout", "2m"]).await;
            self.until_healthy(program).await;
        }
        told
    }

    /// Takes a machine back, and waits for it, which talosctl doesn't.
    async fn taken_back_by_hand(&self, program: &Path, (name, host): (&str, u8), version: &str) -> String {
        let told = self.talosctl_on(program, host, &["rollback"]).await;
        let since = Instant::now();
        while self.boots().get(name).is_none_or(|(runs, ..)| runs != version) {
            assert!(since.elapsed() < Duration::from_mins(1), "{:?}\n{told}", self.boots());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.until_healthy(program).await;
        told
    }

    /// What each machine booted: its release, its schematic, and the half of its disk that they are on.
    fn boots(&self) -> BTreeMap<String, (String, String, Slot)> {
        let machines = self.double.room().machines();
        let look = machines.iter().map(|machine| {
            machine.see(|state| {
                let schematic = state.recipe.as_ref().map(|recipe| recipe.schematic.clone()).unwrap_or_default();
                (state.hostname(), (state.tag().to_owned(), schematic, state.slot))
            })
        });
        look.collect()
    }

    /// Objects as they are asked to be, without addresses of this lab and without marks of time and identity.
    fn asked(&self) -> BTreeMap<String, Value> {
        let objects = self.objects().into_iter().filter(|(key, _)| !FLEETING.iter().any(|kind| key.starts_with(kind)));
        let plain = objects.map(|(key, (_, mut object))| {
            if let Some(fields) = object.as_object_mut() {
                fields.remove("status");
            }
            if let Some(metadata) = object["metadata"].as_object_mut() {
                metadata.retain(|field, _| {
                    ["name", "namespace", "labels", "annotations", "generation"].contains(&field.as_str())
                });
            }
            let text = object.to_string().replace(self.address(0).trim_end_matches('0'), "127.0.0.");
            (key, serde_json::from_str(&text).unwrap())
        });
        plain.collect()
    }

    /// The images that each machine's configuration names.
    async fn images(&self) -> Vec<String> {
        let mut images = Vec::new();
        for host in HOSTS {
            let text = self.machine(host).config().await.unwrap().unwrap();
            let config = Config::parse(text.expose_secret()).unwrap();
            for component in ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet"] {
                images.push(format!("{host} {component} {:?}", config.image_of(component)));
            }
        }
        images
    }
}

/// Two labs that are alike, and the networks that they are in.
async fn two(talos: &str, kubernetes: &str) -> ([Loopback; 2], Lab, Lab) {
    let start = std::process::id().wrapping_mul(31);
    let nets = [0, 1].map(|offset| Loopback::take(&std::env::temp_dir(), start.wrapping_add(offset)).unwrap());
    let bases = nets.each_ref().map(Loopback::base);
    let (ours, theirs) = tokio::join!(Lab::at(&bases[0], talos, kubernetes), Lab::at(&bases[1], talos, kubernetes));
    assert_eq!(changed(&ours.asked(), &theirs.asked()), [""; 0]);
    (nets, ours, theirs)
}

/// Both go from one version to the other.
async fn both(talos_version: &str, from: &str, to: &str) {
    let Some(program) = real_parts::client("talosctl") else { return };
    let (_nets, ours, theirs) = two(talos_version, from).await;

    // What talosctl only shows, it doesn't do; and it shows what recast shows.
    let before = theirs.objects();
    let shown = theirs.talosctl(&program, &["upgrade-k8s", "--to", to, "--dry-run"]).await;
    for component in ["kube-apiserver: v", "kube-controller-manager: v", "kube-scheduler: v", "kubelet: "] {
        assert!(shown.contains(&format!("{component}{from} -> {to}")), "{component}: {shown}");
    }
    assert_eq!(changed(&before, &theirs.objects()), [""; 0], "{shown}");
    let plan = ours.run(&["upgrade", "--kubernetes", to, "--dry-run"]).await;
    plan.must(2, &[]);
    for component in ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet"] {
        assert!(plan.out.contains(&format!("/{component}:v{to}")), "{component}: {}", plan.out);
    }

    let asked = ["upgrade-k8s", "--to", to];
    let mut answers = [&ours, &theirs].map(|lab| lab.double.world().subscribe_answers());
    let (ran, told) = tokio::join!(ours.upgrade(to, &[]), theirs.talosctl(&program, &asked));
    ran.must(0, &[]);
    assert_eq!([ours.runs(), theirs.runs()], [all_run(to), all_run(to)], "{told}\n{}", ran.err);
    let answers = answers.each_mut().map(heard);
    let applied =
        answers.each_ref().map(|answers| talos(answers, "ApplyConfiguration").map(|answer| answer.at.as_str()));
    let [ours_applied, theirs_applied] = applied;
    assert_eq!(ours_applied.collect::<Vec<_>>(), order(), "{}", ran.err);
    // talosctl asks one machine, which forwards.
    assert_eq!(theirs_applied.count(), order().len(), "{told}");
    tokio::join!(ours.quiet(), theirs.quiet());
    assert_eq!(ours.images().await, theirs.images().await);
    assert_eq!(changed(&ours.asked(), &theirs.asked()), [""; 0], "{told}\n{}", ran.err);
    // Neither finds anything to do in what the other did.
    let before = [ours.asked(), theirs.asked()];
    ours.talosctl(&program, &["upgrade-k8s", "--from", from, "--to", to]).await;
    theirs.upgrade(to, &[]).await.must(0, &[]);
    for (lab, before) in [&ours, &theirs].into_iter().zip(&before) {
        assert_eq!(changed(before, &lab.asked()), [""; 0]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn talosctl_and_recast_replace_whole_manifests_alike() {
    both("1.12.4", "1.34.1", "1.35.0").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn talosctl_and_recast_apply_manifests_alike() {
    both("1.13.9", "1.35.0", "1.36.0").await;
}

/// Both labs are well, and the same: what was booted, the nodes, the objects. Neither ever lost etcd's quorum.
async fn assert_alike(ours: &Lab, theirs: &Lab, story: &str) {
    for lab in [ours, theirs] {
        let nodes = lab.api().await.nodes().await.unwrap();
        assert_eq!(nodes.len(), HOSTS.len(), "{nodes:?}\n{story}");
        for node in nodes {
            assert!(node.ready.is_ok() && !node.unschedulable, "{node:?}\n{story}");
        }
        assert_eq!(lab.double.world().quorum_losses(), [], "{story}");
    }
    tokio::join!(ours.quiet(), theirs.quiet());
    assert_eq!(ours.boots(), theirs.boots(), "{story}");
    assert_eq!(ours.images().await, theirs.images().await, "{story}");
    assert_eq!(changed(&ours.asked(), &theirs.asked()), [""; 0], "{story}");
}

/// Talos goes up on all machines, and then back on one.
async fn up_and_back(from: &str) {
    let Some(program) = real_parts::client("talosctl") else { return };
    let (_nets, ours, theirs) = two(from, "1.34.1").await;
    let before = theirs.boots();
    let (release, schematic, _) = &before[BACK.0];
    assert_eq!(ours.boots(), before);

    let image = format!("factory.talos.dev/nocloud-installer/{schematic}:v{TALOS}");
    let asked = ["upgrade", "--to", TALOS, "--only", "os", "--confirm", "lab"];
    let (ran, told) = tokio::join!(ours.run(&asked), theirs.upgraded_by_hand(&program, &image));
    ran.must(0, &[]);
    let story = format!("{}\n{told}", ran.err);
    assert_alike(&ours, &theirs, &story).await;
    let upgraded = ours.boots();
    for (name, (runs, made_from, slot)) in &upgraded {
        assert_eq!((runs, made_from), (&format!("v{TALOS}"), schematic), "{name}\n{story}");
        assert_ne!(*slot, before[name].2, "{name}\n{story}");
    }

    let asked = ["rollback", "--nodes", BACK.0, "--confirm", "lab"];
    let (ran, told) = tokio::join!(ours.run(&asked), theirs.taken_back_by_hand(&program, BACK, release));
    ran.must(0, &[]);
    let story = format!("{}\n{told}", ran.err);
    assert_alike(&ours, &theirs, &story).await;
    for (name, boot) in &ours.boots() {
        let expected = if name == BACK.0 { &before[name] } else { &upgraded[name] };
        assert_eq!(boot, expected, "{name}\n{story}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn talosctl_and_recast_upgrade_by_the_old_call_alike() {
    up_and_back("1.12.4").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn talosctl_and_recast_upgrade_by_the_new_services_alike() {
    up_and_back("1.13.5").await;
}
