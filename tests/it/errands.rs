//! What a run does with other people's programs once the cluster is there: keys for Flux, Flux itself, a commit that is
//! pushed. `flux` and `sops` are scripts that note how they are called; git is the real one.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use recast::k8s::Client;

use crate::site::{Cluster, Double, Folder};
use crate::verbs::git;

/// What the profile asks for beside the cluster.
const ERRANDS: &str = "finish:
  git: {commit: true, push: true}
  flux: true
flux:
  repo: ssh://git@192.0.2.9/fleet.git
  path: clusters/single
  branch: main
";

/// A secret as the script `sops` can open it.
const SEALED: &str = "SEALED apiVersion: v1
SEALED kind: Secret
SEALED metadata: {name: sops-age, namespace: flux-system}
SEALED type: Opaque
SEALED data: {age.agekey: dGhyb3ctYXdheQ==}
";

/// A program that notes its arguments in `log` beside it, and then does `more`.
fn script(bin: &Path, name: &str, more: &str) {
    let (file, log) = (bin.join(name), bin.join("log"));
    fs::write(&file, format!("#!/bin/sh\necho \"{name} $*\" >> '{}'\n{more}\n", log.display())).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flux_gets_its_keys_and_the_commit_is_pushed() {
    let folder = Folder::new();
    let double = Double::here(&folder, 100.0).await;
    let (cluster, bin) = (folder.path("cluster"), folder.path("bin"));
    let profile = fs::read_to_string(folder.profile()).unwrap();
    fs::write(folder.profile(), profile + ERRANDS).unwrap();
    let keys = cluster.join("single/flux/age.sops.yaml");
    fs::create_dir(cluster.join("single/flux")).unwrap();
    fs::write(&keys, SEALED).unwrap();
    fs::create_dir(&bin).unwrap();
    script(&bin, "flux", "");
    script(&bin, "sops", "sed 's/^SEALED //' \"$2\"");
    git(&cluster, &["init", "--quiet", "--initial-branch=main"]);
    for (key, value) in [("user.name", "A Person"), ("user.email", "a@example.org"), ("commit.gpgsign", "false")] {
        git(&cluster, &["config", key, value]);
    }
    git(&cluster, &["add", "single.yaml"]);
    git(&cluster, &["commit", "--quiet", "-m", "first"]);
    let upstream = folder.path("upstream.git");
    let url = upstream.display().to_string();
    git(&cluster, &["init", "--quiet", "--bare", &url]);
    git(&cluster, &["remote", "add", "origin", &url]);
    git(&cluster, &["push", "--quiet", "-u", "origin", "main"]);

    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let done = folder.recast(double.site(), &Cluster::Single.rebuild()).env("PATH", path).output().unwrap();
    assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stderr));

    let kubeconfig = folder.run().join("kubeconfig").display().to_string();
    let source = "--url=ssh://git@192.0.2.9/fleet.git --path=clusters/single --branch=main";
    let expected = [
        format!("sops --decrypt {}", keys.display()),
        format!("flux bootstrap git --silent {source} --kubeconfig={kubeconfig}"),
        format!("flux check --kubeconfig={kubeconfig}"),
    ];
    let log = fs::read_to_string(bin.join("log")).unwrap();
    assert_eq!(log.lines().collect::<Vec<_>>(), expected);
    let own = fs::read_to_string(&kubeconfig).unwrap();
    let client = Client::new(&folder.session(double.site()).connector, &own.into()).unwrap();
    assert!(client.exists("/api/v1/namespaces/flux-system/secrets/sops-age").await.unwrap());
    assert_eq!(git(&upstream, &["log", "--format=%s", "main"]), "feat(talos): upgrade to Talos v1.13.9\nfirst\n");
    assert_eq!(git(&upstream, &["rev-parse", "main"]), git(&cluster, &["rev-parse", "HEAD"]));
}
