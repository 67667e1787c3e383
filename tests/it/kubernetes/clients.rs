//! The real talosctl and recast, each on a double of the same cluster: both bring Kubernetes to the same state.
//!
//! `RECAST_TEST_CLIENTS` names the folder with the program; without it the tests say that they are skipped (and fail where
//! `RECAST_REQUIRE_REAL_PARTS` is set).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use mock_pve::serve::loopback::Loopback;
use recast::talos::access::talosconfig::{Context, merge};
use recast::talos::access::{AdminCertificate, Roles};
use recast::talos::config::Config;
use secrecy::ExposeSecret as _;
use serde_json::Value;

use super::{Lab, all_run, changed, heard, order, talos};

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

#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
fn program() -> Option<PathBuf> {
    let found = std::env::var_os("RECAST_TEST_CLIENTS").map(|folder| Path::new(&folder).join("talosctl"));
    let found = found.filter(|path| path.is_file());
    if found.is_none() {
        assert!(std::env::var_os("RECAST_REQUIRE_REAL_PARTS").is_none(), "talosctl is required and not here");
        eprintln!("skipped: RECAST_TEST_CLIENTS names no folder with talosctl");
    }
    found
}

impl Lab {
    /// Runs talosctl on the first control plane.
    async fn talosctl(&self, program: &Path, args: &[&str]) -> String {
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
        assert!(output.status.success(), "{told}");
        told
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
        for host in [11, 12, 13, 21, 22] {
            let text = self.machine(host).config().await.unwrap().unwrap();
            let config = Config::parse(text.expose_secret()).unwrap();
            for component in ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet"] {
                images.push(format!("{host} {component} {:?}", config.image_of(component)));
            }
        }
        images
    }
}

/// Both go from one version to the other.
async fn both(talos_version: &str, from: &str, to: &str) {
    let Some(program) = program() else { return };
    let start = std::process::id().wrapping_mul(31);
    let nets = [0, 1].map(|offset| Loopback::take(&std::env::temp_dir(), start.wrapping_add(offset)).unwrap());
    let bases = nets.each_ref().map(|net| net.net().network().to_string().trim_end_matches(".0").to_owned());
    let (ours, theirs) = tokio::join!(Lab::at(&bases[0], talos_version, from), Lab::at(&bases[1], talos_version, from));
    assert_eq!(changed(&ours.asked(), &theirs.asked()), [""; 0]);

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
