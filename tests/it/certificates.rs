//! What this program issues, read by OpenSSL.

use std::fs;
use std::path::Path;
use std::process::Command;

use recast::talos::access::{AdminCertificate, Roles, YEAR_HOURS};
use recast::talos::config::{Contract, Feature};
use recast::talos::secrets::{KeyPair, Secrets};
use secrecy::ExposeSecret as _;

fn openssl(dir: &Path, args: &[&str]) -> String {
    let output = Command::new("openssl").args(args).current_dir(dir).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "openssl {}: {text}{}", args.join(" "), String::from_utf8_lossy(&output.stderr));
    text
}

fn write(dir: &Path, name: &str, pair: &KeyPair) {
    fs::write(dir.join(format!("{name}.crt")), pair.certificate_pem()).unwrap();
    fs::write(dir.join(format!("{name}.key")), pair.key_pem().expose_secret()).unwrap();
}

#[test]
fn authorities_and_the_administrators_certificate_hold_up_with_openssl() {
    if !real_parts::is_here("openssl", "version") {
        return;
    }
    for minor in 5..=14 {
        let dir = tempfile::tempdir().unwrap();
        hold_up(dir.path(), Contract::minor(minor));
    }
}

fn hold_up(dir: &Path, contract: Contract) {
    let now = jiff::Timestamp::now();
    let secrets = Secrets::generate(contract, now).unwrap();
    write(dir, "os", secrets.talos());
    write(dir, "etcd", secrets.etcd());
    write(dir, "k8s", secrets.kubernetes());
    write(dir, "aggregator", secrets.aggregator());
    fs::write(dir.join("sa.key"), secrets.service_account_pem().expose_secret()).unwrap();
    for (name, subject) in [("os", "O = talos"), ("etcd", "O = etcd"), ("k8s", "O = kubernetes"), ("aggregator", "")] {
        let crt = format!("{name}.crt");
        openssl(dir, &["verify", "-x509_strict", "-check_ss_sig", "-CAfile", &crt, &crt]);
        let text = openssl(dir, &["x509", "-in", &crt, "-noout", "-text", "-nameopt", "oneline"]);
        let subject = format!("Subject: {subject}");
        assert!(text.lines().any(|line| line.trim() == subject.trim()), "{name}: {text}");
        let extensions = ["X509v3 Key Usage", "Extended Key Usage", "Basic Constraints", "Subject Key Identifier"];
        let places: Vec<usize> = extensions.iter().map(|name| text.find(name).unwrap()).collect();
        assert!(places.is_sorted(), "{name}: extensions are in another order");
        assert!(text.contains("Digital Signature, Certificate Sign") && text.contains("CA:TRUE\n"));
    }
    for name in ["etcd", "k8s", "aggregator"] {
        let key = openssl(dir, &["ec", "-in", &format!("{name}.key"), "-pubout"]);
        let crt = openssl(dir, &["x509", "-in", &format!("{name}.crt"), "-noout", "-pubkey"]);
        assert_eq!(key, crt, "{name}");
    }
    let label = if contract.has(Feature::RsaServiceAccount) { "RSA PRIVATE KEY" } else { "EC PRIVATE KEY" };
    let account = fs::read_to_string(dir.join("sa.key")).unwrap();
    assert!(account.starts_with(&format!("-----BEGIN {label}-----\n")), "contract {contract}");
    openssl(dir, &["pkey", "-in", "sa.key", "-check", "-noout"]);

    let admin = AdminCertificate::issue(&secrets, Roles::Admin, now, YEAR_HOURS).unwrap();
    fs::write(dir.join("admin.crt"), admin.certificate_pem()).unwrap();
    // OpenSSL knows the standard label only.
    let key = admin.key_pem().expose_secret().replace("ED25519 PRIVATE KEY", "PRIVATE KEY");
    fs::write(dir.join("admin.key"), key).unwrap();
    openssl(dir, &["verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", "os.crt", "admin.crt"]);
    let text = openssl(dir, &["x509", "-in", "admin.crt", "-noout", "-text", "-nameopt", "oneline"]);
    assert!(text.contains("Subject: O = os:admin\n"), "{text}");
    assert!(text.contains("Extended Key Usage: \n                TLS Web Client Authentication\n"), "{text}");
    assert!(!text.contains("Basic Constraints") && !text.contains("Subject Key Identifier"), "{text}");
    let of_key = openssl(dir, &["pkey", "-in", "admin.key", "-pubout"]);
    assert_eq!(of_key, openssl(dir, &["x509", "-in", "admin.crt", "-noout", "-pubkey"]));
    let several = AdminCertificate::issue_all(&secrets, &[Roles::Reader, Roles::EtcdBackup], now, 1).unwrap();
    fs::write(dir.join("several.crt"), several.certificate_pem()).unwrap();
    openssl(dir, &["verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", "os.crt", "several.crt"]);
    let text = openssl(dir, &["x509", "-in", "several.crt", "-noout", "-subject", "-nameopt", "oneline"]);
    assert_eq!(text, "subject=O = os:reader + O = os:etcd:backup\n", "a set is in the order of its encoding");
    let server = Command::new("openssl")
        .args(["verify", "-purpose", "sslserver", "-CAfile", "os.crt", "admin.crt"])
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(!server.status.success(), "a client's certificate must not serve");
}
