//! `recast secrets`: a cluster's secrets from wherever they are, and certificates by them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use recast::talos::access::{Roles, talosconfig};
use recast::talos::config::Contract;
use recast::talos::secrets::{PKI_FILES, Secrets};
use secrecy::ExposeSecret as _;

use crate::init::Lab;
use crate::site::{program, repository, secrets};

fn recast(dir: &Path, args: &[&str]) -> Output {
    program(dir).args(args).current_dir(dir).output().unwrap()
}

fn told(output: &Output) -> String {
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// The bundle with the value of the nth line that begins with `key` changed; the line's number.
fn changed(text: &str, key: &str, nth: usize, value: impl Fn(&str) -> String) -> (String, usize) {
    let mut seen = 0;
    let mut at = 0;
    let lines = text.lines().enumerate().map(|(number, line)| {
        let bare = line.trim_start();
        let Some(old) = bare.strip_prefix(&format!("{key}: ")) else { return line.to_owned() };
        seen += 1;
        if seen != nth {
            return line.to_owned();
        }
        at = number + 1;
        format!("{}{key}: {}", &line[..line.len() - bare.len()], value(old))
    });
    let changed = lines.collect::<Vec<_>>().join("\n") + "\n";
    (changed, at)
}

fn pem_changed(change: impl Fn(String) -> String) -> impl Fn(&str) -> String {
    move |old| STANDARD.encode(change(String::from_utf8(STANDARD.decode(old).unwrap()).unwrap()))
}

#[test]
fn bad_input_is_told_with_file_line_place_and_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let whole = secrets();
    let other = fs::read_to_string(repository().join("profiles/single/secrets.yaml")).unwrap();
    let other_key = other.lines().find_map(|line| line.trim().strip_prefix("key: ")).unwrap().to_owned();
    let cut = pem_changed(|pem| pem[..pem.len() / 2].to_owned());
    let label = pem_changed(|pem| pem.replace("EC PRIVATE KEY", "CERTIFICATE REQUEST"));
    let old = {
        let past = "2001-01-01T00:00:00Z".parse().unwrap();
        let made = Secrets::generate("1.6".parse::<Contract>().unwrap(), past).unwrap();
        made.to_yaml().expose_secret().to_owned()
    };
    let line_of_etcd = old.lines().position(|line| line.trim().starts_with("crt: ")).unwrap() + 1;
    let cases: Vec<(&str, (String, usize), &str, &str)> = vec![
        (
            "truncated PEM",
            changed(whole, "key", 1, cut),
            "certs.etcd.key holds a PEM block that is cut off",
            "from the BEGIN line to the END line",
        ),
        (
            "wrong label",
            changed(whole, "key", 1, label),
            "certs.etcd.key is labelled 'CERTIFICATE REQUEST', a private key is needed",
            "look which is which",
        ),
        (
            "another pair's key",
            changed(whole, "key", 1, |_| other_key.clone()),
            "certs.etcd.key does not belong to the certificate beside it",
            "take both from the same cluster",
        ),
        (
            "expired",
            (old, line_of_etcd),
            "certs.etcd.crt expired on 2010-12-30",
            "renew it on the running cluster first",
        ),
        (
            "redacted",
            changed(whole, "key", 1, |_| "'******'".to_owned()),
            "certs.etcd.key is blanked out",
            "take the original",
        ),
        (
            "a value of SOPS",
            changed(whole, "secret", 1, |_| "ENC[AES256_GCM,data:x]".to_owned()),
            "cluster.secret is encrypted with SOPS",
            "sops --decrypt",
        ),
        (
            "not base64",
            changed(whole, "secret", 1, |_| "'%%%'".to_owned()),
            "cluster.secret is not base64",
            "copy it again",
        ),
        (
            "cut secret",
            changed(whole, "secret", 1, |_| "AAAA".to_owned()),
            "cluster.secret decodes to 3 bytes, 32 are needed",
            "copy it again",
        ),
        (
            "odd token",
            changed(whole, "bootstraptoken", 1, |_| "short".to_owned()),
            "secrets.bootstraptoken must look like",
            "copy it again",
        ),
    ];
    for (name, (text, line), problem, hint) in cases {
        let file = format!("{}.yaml", name.replace(' ', "-"));
        fs::write(dir.path().join(&file), text).unwrap();
        let output = recast(dir.path(), &["secrets", "import", &file, "--out", "out.yaml"]);
        let told = told(&output);
        assert_eq!(output.status.code(), Some(3), "{name}: {told}");
        for word in [&file, &format!("line {line}: {problem}"), hint] {
            assert!(told.contains(word), "{name}, {word}: {told}");
        }
        assert!(!told.contains("PRIVATE KEY") && !told.contains("LS0t"), "{name}: {told}");
        assert!(!dir.path().join("out.yaml").exists(), "{name}");
    }
    for (right, wrong) in
        [("k8saggregator:", "k8sagregator:"), ("secretboxencryptionsecret:", "secretboxEncryptionSecrt:")]
    {
        fs::write(dir.path().join("misspelt.yaml"), whole.replacen(right, wrong, 1)).unwrap();
        let output = recast(dir.path(), &["secrets", "import", "misspelt.yaml", "--out", "out.yaml"]);
        let told = told(&output);
        let key = wrong.trim_end_matches(':');
        assert_eq!(output.status.code(), Some(3), "{told}");
        assert!(told.contains(&format!(".{key}' is no key of a bundle")) && told.contains("call it as"), "{told}");
        assert!(told.contains("misspelt.yaml") && !dir.path().join("out.yaml").exists(), "{told}");
    }
    fs::write(dir.path().join("tabs.yaml"), "cluster:\n\tid: x\n").unwrap();
    let output = recast(dir.path(), &["secrets", "fingerprint", "tabs.yaml"]);
    assert!(output.status.code() == Some(3) && told(&output).contains("tabs.yaml"), "{}", told(&output));
}

#[test]
fn a_bundle_is_taken_over_once_and_never_changed() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("talsecret.yaml"), secrets()).unwrap();
    let import = |out: &str| recast(dir.path(), &["secrets", "import", "talsecret.yaml", "--out", out]);
    let first = import("secrets.yaml");
    assert_eq!(first.status.code(), Some(0), "{}", told(&first));
    let out = dir.path().join("secrets.yaml");
    assert_eq!((fs::read_to_string(&out).unwrap().as_str(), mode(&out)), (secrets(), 0o600));
    let again = import("secrets.yaml");
    assert!(again.status.success() && told(&again).contains("already"), "{}", told(&again));
    fs::copy(repository().join("profiles/single/secrets.yaml"), dir.path().join("other.yaml")).unwrap();
    let refused = import("other.yaml");
    assert_eq!(refused.status.code(), Some(4), "{}", told(&refused));
    assert!(told(&refused).contains("has another Talos CA"), "{}", told(&refused));
    let prints: Vec<String> = ["secrets.yaml", "talsecret.yaml", "other.yaml"]
        .iter()
        .map(|file| told(&recast(dir.path(), &["secrets", "fingerprint", file])))
        .collect();
    assert!(prints[0] == prints[1] && prints[0] != prints[2], "{prints:?}");
}

#[test]
fn what_sops_encrypted_is_read_through_sops() {
    let dir = tempfile::tempdir().unwrap();
    let bin = dir.path().join("bin");
    fs::create_dir(&bin).unwrap();
    fs::write(dir.path().join("plain.yaml"), secrets()).unwrap();
    let hidden: String = secrets()
        .lines()
        .map(|line| match line.split_once(": ") {
            Some((key, _)) => format!("{key}: ENC[AES256_GCM,data:abc=,iv:x,tag:y,type:str]\n"),
            None => format!("{line}\n"),
        })
        .collect();
    fs::write(dir.path().join("secrets.sops.yaml"), hidden + "sops:\n    mac: ENC[x]\n    version: 3.9.0\n").unwrap();
    let import = || {
        let mut command = program(dir.path());
        command.args(["secrets", "import", "secrets.sops.yaml", "--out", "out.yaml"]).current_dir(dir.path());
        command.env("PATH", format!("{}:/usr/bin:/bin", bin.display())).output().unwrap()
    };
    let sops = |script: &str| {
        let path = bin.join("sops");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    if Command::new("sops").arg("--version").output().is_err() {
        let absent = import();
        assert_eq!(absent.status.code(), Some(3), "{}", told(&absent));
        assert!(told(&absent).contains("the program sops can't be run") && told(&absent).contains("install it"));
    }
    sops("echo 'Failed to get the data key required to decrypt the SOPS file.' >&2; exit 128");
    let locked = import();
    assert_eq!(locked.status.code(), Some(3), "{}", told(&locked));
    assert!(told(&locked).contains("Failed to get the data key") && told(&locked).contains("SOPS_AGE_KEY_FILE"));
    sops("[ \"$1\" = --decrypt ] && cat plain.yaml");
    let read = import();
    assert_eq!(read.status.code(), Some(0), "{}", told(&read));
    assert_eq!(fs::read_to_string(dir.path().join("out.yaml")).unwrap(), secrets());
}

#[test]
fn a_kubernetes_pki_folder_becomes_a_bundle_and_its_flaws_are_told_by_file() {
    let dir = tempfile::tempdir().unwrap();
    let loaded = Secrets::load(secrets(), jiff::Timestamp::now()).unwrap();
    let pem = |place: &str| match place {
        "certs.etcd.crt" => loaded.etcd().certificate_pem(),
        "certs.etcd.key" => loaded.etcd().key_pem().expose_secret().to_owned(),
        "certs.k8s.crt" => loaded.kubernetes().certificate_pem(),
        "certs.k8s.key" => loaded.kubernetes().key_pem().expose_secret().to_owned(),
        "certs.k8saggregator.crt" => loaded.aggregator().certificate_pem(),
        "certs.k8saggregator.key" => loaded.aggregator().key_pem().expose_secret().to_owned(),
        _ => loaded.service_account_pem().expose_secret().to_owned(),
    };
    let pki = dir.path().join("pki");
    fs::create_dir_all(pki.join("etcd")).unwrap();
    for (file, place) in PKI_FILES {
        fs::write(pki.join(file), pem(place)).unwrap();
    }
    let import = |out: &str| recast(dir.path(), &["secrets", "import", "pki", "--out", out]);
    let made = import("made.yaml");
    assert_eq!(made.status.code(), Some(0), "{}", told(&made));
    let text = fs::read_to_string(dir.path().join("made.yaml")).unwrap();
    let taken = Secrets::load(&text, jiff::Timestamp::now()).unwrap();
    assert_eq!(taken.kubernetes().certificate(), loaded.kubernetes().certificate());
    assert_ne!(taken.talos().certificate(), loaded.talos().certificate(), "what kubeadm doesn't have is new");

    let noted = [loaded.kubernetes().certificate_pem().as_bytes(), b"in Latin-1: \xfc\n"].concat();
    fs::write(pki.join("ca.crt"), &noted).unwrap();
    assert_eq!(import("noted.yaml").status.code(), Some(0));
    let text = fs::read_to_string(dir.path().join("noted.yaml")).unwrap();
    let taken = Secrets::load(&text, jiff::Timestamp::now()).unwrap();
    assert_eq!(taken.kubernetes().certificate(), STANDARD.encode(noted), "a file is taken over as it is");

    fs::copy(pki.join("etcd/ca.key"), pki.join("ca.key")).unwrap();
    fs::write(pki.join("sa.key"), "nothing").unwrap();
    let bad = import("bad.yaml");
    assert_eq!(bad.status.code(), Some(3), "{}", told(&bad));
    assert!(told(&bad).contains("pki/ca.key does not belong to the certificate"), "{}", told(&bad));
    assert!(told(&bad).contains("pki/sa.key holds no PEM block"), "{}", told(&bad));
    fs::remove_file(pki.join("ca.crt")).unwrap();
    fs::remove_file(pki.join("front-proxy-ca.crt")).unwrap();
    let lacking = told(&import("bad.yaml"));
    assert!(lacking.contains("pki/ca.crt") && lacking.contains("front-proxy-ca.crt"), "{lacking}");
    assert!(!dir.path().join("bad.yaml").exists());
}

#[test]
fn whatever_is_imported_its_flaw_is_told_with_file_key_and_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &[u8]| fs::write(dir.path().join(name), text).unwrap();
    write("good.yaml", secrets().as_bytes());
    for (contract, out) in [("1.12", "old"), ("1.14", "new")] {
        let flags = ["--with-secrets", "good.yaml", "--talos-version", contract, "-o", out];
        let made = recast(dir.path(), &[&["config", "generate", "lab", "https://h"][..], &flags[..]].concat());
        assert!(made.status.success(), "{}", told(&made));
    }
    let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
    let plane = read("old/controlplane.yaml");
    write("cut.yaml", &plane.as_bytes()[..plane.find("certSANs").unwrap()]);
    write("token.yaml", plane.replacen("    token: ", "    tokem: ", 1).as_bytes());
    write("number.yaml", changed(&plane, "key", 1, |_| "[1]".to_owned()).0.as_bytes());
    write("blanked.yaml", changed(&plane, "key", 1, |_| "'******'".to_owned()).0.as_bytes());
    let new = read("new/controlplane.yaml");
    write("pem.yaml", new.replacen("-----BEGIN RSA PRIVATE KEY-----", "-----BEGIN PRIVATE KEYS-----", 1).as_bytes());
    write("empty.yaml", b"");
    write("other.yaml", b"apiVersion: v1\nkind: Config\nclusters: []\n");
    write("half.yaml", &secrets().as_bytes()[..secrets().find("certs:").unwrap()]);
    write("open.yaml", b"cluster: {id: x\n");
    write("binary.yaml", &[0x30, 0x82, 0xff, 0xfe]);
    for folder in ["pki/etcd", "hollow/etcd", "bare"] {
        fs::create_dir_all(dir.path().join(folder)).unwrap();
    }
    for (file, _) in PKI_FILES {
        write(&format!("hollow/{file}"), b"");
        write(&format!("pki/{file}"), if file == "ca.crt" { &[0x30, 0x82, 0xff][..] } else { b"" });
    }
    let again = "copy it again";
    let cases: [(&str, &[&str]); 16] = [
        ("old/worker.yaml", &["cluster.etcd.ca.key is required", "only a control plane's configuration"]),
        ("new/worker.yaml", &["KubeAPIServerCAConfig: issuingCA.key is required", "only a control plane's"]),
        ("cut.yaml", &["cluster.serviceAccount.key is required", "secrets import --node"]),
        ("token.yaml", &["machine.token is required", "secrets import --node"]),
        ("number.yaml", &["machine.ca.key must be a string", again]),
        ("blanked.yaml", &["machine.ca.key is blanked out", "take the original"]),
        ("pem.yaml", &["KubeServiceAccountConfig: issuer.privateKey", again]),
        ("empty.yaml", &["it holds no secrets bundle", "talosctl gen secrets"]),
        ("other.yaml", &["it holds no secrets bundle", "talosctl gen secrets"]),
        ("half.yaml", &["certs.etcd.crt is required", "certs.os.key is required", "secrets import --node"]),
        ("open.yaml", &["not readable as YAML", "take the original"]),
        ("binary.yaml", &["can't be read", "it must be text"]),
        ("nowhere.yaml", &["can't be read", "No such file"]),
        ("pki", &["pki/ca.crt can't be read", "it must be text", "/etc/kubernetes/pki"]),
        ("hollow", &["hollow/ca.crt holds no PEM block", "hollow/sa.key holds no PEM block", again]),
        ("bare", &["bare/etcd/ca.crt can't be read", "bare/sa.key can't be read", "/etc/kubernetes/pki"]),
    ];
    for (file, parts) in cases {
        let output = recast(dir.path(), &["secrets", "import", file, "--out", "out.yaml"]);
        let told = told(&output);
        assert_eq!(output.status.code(), Some(3), "{file}: {told}");
        for part in parts.iter().chain([&file]) {
            assert!(told.contains(part), "{file}, {part}: {told}");
        }
        assert!(!told.contains("LS0t") && !dir.path().join("out.yaml").exists(), "{file}: {told}");
    }
}

#[test]
fn a_running_control_plane_gives_its_secrets_and_signs_certificates() {
    let lab = Lab::new(|_| ());
    let (plane, worker) = (lab.address("lab-cp-02"), lab.address("lab-worker-01"));
    let taken = lab.recast(&["secrets", "import", "--node", &plane, "--out", "taken.yaml"]);
    assert_eq!(taken.code, Some(0), "{}", taken.told);
    assert_eq!(fs::read_to_string(lab.path("taken.yaml")).unwrap(), secrets());
    let lacking = lab.recast(&["secrets", "import", "--node", &worker, "--out", "no.yaml"]);
    assert_eq!(lacking.code, Some(3), "{}", lacking.told);
    assert!(lacking.problems().contains("only a control plane's configuration has them all"), "{}", lacking.told);
    assert!(!lab.path("no.yaml").exists());

    // By the secrets, into a file that others' contexts are in.
    let shared = lab.path("shared");
    let home = "context: home\ncontexts:\n    home: # keep me\n        endpoints: [10.0.0.1]\n        ca: Y2E=\n";
    fs::write(&shared, home).unwrap();
    let profile = lab.path("source/lab.yaml");
    let (profile, file) = (profile.to_str().unwrap(), shared.to_str().unwrap());
    let args = ["secrets", "talosconfig", "--profile", profile, "--talosconfig", file, "--valid", "2h"];
    let made = lab.recast(&args);
    assert_eq!(made.code, Some(0), "{}", made.told);
    let text = fs::read_to_string(&shared).unwrap();
    assert!(text.contains("    home: # keep me\n        endpoints: [10.0.0.1]\n        ca: Y2E=\n"), "{text}");
    let backup = made.document["backup"].as_str().unwrap();
    assert_eq!(
        (fs::read_to_string(backup).unwrap().as_str(), mode(Path::new(backup)), mode(&shared)),
        (home, 0o600, 0o600)
    );
    let own = talosconfig::find(&text, Some("lab")).unwrap().unwrap();
    assert_eq!((own.endpoints.len(), own.nodes.len()), (3, 5));
    let left = own.certificate.not_after().unwrap().duration_since(jiff::Timestamp::now()).as_secs();
    assert!((7000..=7200).contains(&left), "{left}");

    // By a machine, with the certificate that is there; the machine says what it may.
    let args = ["secrets", "talosconfig", "--node", &plane, "--talosconfig", file, "--context", "lab", "--valid", "3h"];
    let renewed = lab.recast(&args);
    assert_eq!(renewed.code, Some(0), "{}", renewed.told);
    let again = talosconfig::find(&fs::read_to_string(&shared).unwrap(), Some("lab")).unwrap().unwrap();
    assert!(again.certificate.not_after() > own.certificate.not_after());
    assert_eq!((again.endpoints, again.nodes), (own.endpoints, own.nodes));
    let reader = lab.talosconfig("reader", Roles::Reader, &["lab-cp-01"]);
    let args = ["secrets", "talosconfig", "--node", &plane, "--talosconfig", reader.to_str().unwrap()];
    let refused = lab.recast(&args);
    assert_eq!(refused.code, Some(1), "{}", refused.told);
    assert!(refused.problems().contains("signs no certificate"), "{}", refused.told);

    let Some(talosctl) = real_parts::client("talosctl") else { return };
    let output = Command::new(talosctl)
        .args(["--talosconfig", file, "--context", "lab", "-n", &worker, "-e", &plane, "version"])
        .env("HOME", lab.path("home"))
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("v1.12.4"), "{said}");
}
