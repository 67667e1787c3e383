use jiff::Timestamp;
use secrecy::ExposeSecret as _;

use super::kubeconfig::Activate;
use super::talosconfig::Context;
use super::*;
use crate::talos::secrets::Secrets;

fn context(name: &str, nodes: &[&str]) -> Context {
    let bundle = include_str!("../../../tests/fixtures/talos-configs/secrets/rsa.yaml");
    let now: Timestamp = "2026-12-01T00:00:00Z".parse().unwrap();
    let secrets = Secrets::load(bundle, now).unwrap();
    let certificate = AdminCertificate::issue(&secrets, Roles::Admin, now, YEAR_HOURS).unwrap();
    Context {
        name: name.to_owned(),
        endpoints: vec!["10.20.0.11".into()],
        nodes: nodes.iter().map(|node| (*node).to_owned()).collect(),
        certificate,
    }
}

/// The lines of `text` that hold no certificate or key.
fn shown(text: &str) -> String {
    let lines: Vec<String> = text
        .lines()
        .map(|line| line.split_once(": LS0t").map_or(line.to_owned(), |(key, _)| format!("{key}: PEM")))
        .collect();
    lines.join("\n") + "\n"
}

const OTHERS: &str = "# my clusters
context: home
contexts:
    home: # keep me
        endpoints: [10.0.0.1]
        ca: Y2E=
        auth:
            siderov1: {identity: me@example.org}
    lab:
        endpoints:
            - 10.9.9.9
        ca: b2xk
        crt: b2xk
        key: b2xk
        proxy-url: http://proxy
    # the last one
    work:
        endpoints: []
";

#[test]
fn a_new_talosconfig_has_the_context_alone() {
    let text = talosconfig::merge(None, &context("lab", &["10.20.0.11", "10.20.0.21"])).unwrap();
    assert_eq!(
        shown(text.expose_secret()),
        "context: lab
contexts:
    lab:
        endpoints:
            - 10.20.0.11
        nodes:
            - 10.20.0.11
            - 10.20.0.21
        ca: PEM
        crt: PEM
        key: PEM
"
    );
    let found = talosconfig::find(text.expose_secret(), None).unwrap().unwrap();
    assert_eq!((found.name.as_str(), found.endpoints.len(), found.nodes.len()), ("lab", 1, 2));
    found.certificate.for_rustls().unwrap();
    assert!(talosconfig::find(text.expose_secret(), Some("other")).unwrap().is_none());
}

#[test]
fn a_talosconfigs_other_contexts_keep_their_text() {
    let merged = talosconfig::merge(Some(OTHERS), &context("lab", &[])).unwrap();
    assert_eq!(
        shown(merged.expose_secret()),
        "# my clusters
context: lab
contexts:
    home: # keep me
        endpoints: [10.0.0.1]
        ca: Y2E=
        auth:
            siderov1: {identity: me@example.org}
    lab:
        endpoints:
            - 10.20.0.11
        ca: PEM
        crt: PEM
        key: PEM
        proxy-url: http://proxy
    # the last one
    work:
        endpoints: []
"
    );
    let added = talosconfig::merge(Some(OTHERS), &context("new", &[])).unwrap();
    let rest = OTHERS.replace("context: home", "context: new");
    assert_eq!(
        shown(added.expose_secret()),
        format!(
            "{rest}    new:\n        endpoints:\n            - 10.20.0.11\n        ca: PEM\n        crt: PEM\n        key: PEM\n"
        )
    );
    let again = talosconfig::remove(added.expose_secret(), "new").unwrap().unwrap();
    assert_eq!(again.expose_secret(), &OTHERS.replace("context: home", "context: \"\""));
    assert!(talosconfig::remove(OTHERS, "missing").unwrap().is_none());
}

const KUBE: &str = "apiVersion: v1
kind: Config
# clusters at home
clusters:
- cluster:
    server: https://10.0.0.1:6443
  name: home
- cluster:
    server: https://old:6443
  name: lab
contexts:
- context: {cluster: home, user: me}
  name: home
- context:
    cluster: lab
    user: admin@lab
  name: admin@lab
current-context: home
preferences: {}
users:
- name: me # by hand
  user:
    token: hush
- name: admin@lab
  user:
    client-key-data: b2xk
";

const INCOMING: &str = "apiVersion: v1
kind: Config
clusters:
    - name: lab
      cluster:
        server: https://10.20.0.10:6443
users:
    - name: admin@lab
      user:
        client-key-data: bmV3
contexts:
    - context:
        cluster: lab
        namespace: default
        user: admin@lab
      name: admin@lab
current-context: admin@lab
";

#[test]
fn contexts_with_names_too_long_for_a_line_are_put_and_taken_out_like_others() {
    let (long, longer) = ("l".repeat(150), "m".repeat(1500));
    let put = |text: &str, context: Context| talosconfig::merge(Some(text), &context).unwrap();
    let text = put(OTHERS, context(&long, &[]));
    let text = put(text.expose_secret(), context(&longer, &[]));
    let text = put(text.expose_secret(), context(&long, &["10.20.0.31"]));
    let all = ["home", "lab", "work", &long, &longer];
    assert_eq!(talosconfig::names(text.expose_secret()).unwrap(), all);
    let found = talosconfig::find(text.expose_secret(), None).unwrap().unwrap();
    assert_eq!((found.name, found.nodes), (long.clone(), vec!["10.20.0.31".to_owned()]));
    let without = talosconfig::remove(text.expose_secret(), &long).unwrap().unwrap();
    assert_eq!(talosconfig::names(without.expose_secret()).unwrap(), ["home", "lab", "work", &longer]);
    for text in [text, without] {
        assert!(
            ["# my clusters", "# keep me", "# the last one"].iter().all(|kept| text.expose_secret().contains(kept))
        );
    }
}

#[test]
fn a_kubeconfigs_other_entries_keep_their_text() {
    let merged = kubeconfig::merge(Some(KUBE), INCOMING, Activate::IfNone).unwrap();
    assert_eq!(
        merged.expose_secret(),
        "apiVersion: v1
kind: Config
# clusters at home
clusters:
- cluster:
    server: https://10.0.0.1:6443
  name: home
- name: lab
  cluster:
    server: https://10.20.0.10:6443
contexts:
- context: {cluster: home, user: me}
  name: home
- context:
    cluster: lab
    namespace: default
    user: admin@lab
  name: admin@lab
current-context: home
preferences: {}
users:
- name: me # by hand
  user:
    token: hush
- name: admin@lab
  user:
    client-key-data: bmV3
"
    );
    let twice = kubeconfig::merge(Some(merged.expose_secret()), INCOMING, Activate::IfNone).unwrap();
    assert_eq!(twice.expose_secret(), merged.expose_secret());
    let active = kubeconfig::merge(Some(KUBE), INCOMING, Activate::Always).unwrap();
    assert!(active.expose_secret().contains("\ncurrent-context: admin@lab\npreferences"));
}

#[test]
fn a_context_goes_with_what_only_it_uses() {
    let without = kubeconfig::remove(KUBE, "admin@lab").unwrap().unwrap();
    assert_eq!(kubeconfig::contexts(without.expose_secret()).unwrap(), ["home"]);
    assert!(without.expose_secret().contains("# clusters at home") && without.expose_secret().contains("# by hand"));
    assert!(!without.expose_secret().contains("lab"));
    let back = kubeconfig::merge(Some(without.expose_secret()), INCOMING, Activate::IfNone).unwrap();
    assert_eq!(kubeconfig::contexts(back.expose_secret()).unwrap(), ["home", "admin@lab"]);
    assert!(back.expose_secret().contains("- name: me # by hand\n"));
    let shared = KUBE.replace("{cluster: home, user: me}", "{cluster: lab, user: me}");
    let kept = kubeconfig::remove(&shared, "admin@lab").unwrap().unwrap();
    assert!(kept.expose_secret().contains("https://old:6443"), "the cluster is still used");
}

#[test]
fn other_spellings_of_a_kubeconfig_are_merged_too() {
    let json = r#"{"apiVersion":"v1","kind":"Config","clusters":[{"name":"home","cluster":{"server":"https://a"}}],
        "contexts":[],"users":[],"current-context":""}"#;
    for previous in [json, "apiVersion: v1\nkind: Config\nclusters: []\ncontexts: null\nusers:\n", "", "{}"] {
        let merged = kubeconfig::merge(Some(previous), INCOMING, Activate::IfNone).unwrap();
        assert_eq!(kubeconfig::contexts(merged.expose_secret()).unwrap(), ["admin@lab"], "{previous}");
        assert!(merged.expose_secret().contains("current-context: admin@lab"));
    }
    assert!(matches!(
        kubeconfig::merge(Some("clusters: 1\n"), INCOMING, Activate::IfNone),
        Err(AccessError::Shape { .. })
    ));
}

#[test]
fn debug_shows_no_key() {
    let shown = format!("{:?}", context("lab", &[]));
    assert!(!shown.contains("PRIVATE") && !shown.contains("CERTIFICATE"), "{shown}");
}
