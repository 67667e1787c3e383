use base64::engine::general_purpose::STANDARD;
use jiff::ToSpan as _;

use super::*;
use crate::talos::config::Contract;

const RSA: &str = include_str!("../../../tests/fixtures/talos-configs/secrets/rsa.yaml");
const ECDSA: &str = include_str!("../../../tests/fixtures/talos-configs/secrets/ecdsa.yaml");
const AESCBC: &str = include_str!("../../../tests/fixtures/talos-configs/secrets/aescbc.yaml");

/// A key made for this test.
const P521: &str = "-----BEGIN EC PRIVATE KEY-----\n\
    MIHcAgEBBEIAT6mn4Gl7iBYNLsmiyt+zpEctL1VJ/17lYi1plfSDedEEpYcsPp42\n\
    8+461Tiyf8Ulcin6w+yoxyxUEuBKUTLRwGmgBwYFK4EEACOhgYkDgYYABAHqoDAd\n\
    sXpxxZieCH5wkdOInuqofDvh+d0sx8xuF1y7ceAUqfcbfZ7jml0eGg2JIAluiPsq\n\
    ZSc5DyahBZaxsLskugERkR6sESwhyK6ekP4kHE70fGk1XevNjBWLTSaccfnX+TrQ\n\
    j0nbwgO6sJ2NWby+cIvz/0MzH6Y2Jplpu/oa95jikg==\n\
    -----END EC PRIVATE KEY-----\n";

/// A moment at which the committed bundles are valid, whatever the clock of this machine says.
fn then() -> Timestamp {
    "2026-12-01T00:00:00Z".parse().unwrap()
}

fn problems(text: &str) -> Vec<String> {
    match Secrets::load(text, then()) {
        Err(SecretsError::Invalid(problems)) => problems.iter().map(ToString::to_string).collect(),
        other => panic!("{other:?}"),
    }
}

/// `text` with what follows `from` on the nth line that starts with it replaced.
fn replaced(text: &str, prefix: &str, nth: usize, value: &str) -> String {
    let mut seen = 0;
    let mut lines = Vec::new();
    for line in text.lines() {
        seen += usize::from(line.trim_start().starts_with(prefix));
        let indent = &line[..line.len() - line.trim_start().len()];
        let hit = line.trim_start().starts_with(prefix) && seen == nth;
        lines.push(if hit { format!("{indent}{prefix} {value}") } else { line.to_owned() });
    }
    lines.join("\n") + "\n"
}

#[test]
fn real_bundles_survive_byte_for_byte() {
    for text in [RSA, ECDSA, AESCBC] {
        assert_eq!(Secrets::load(text, then()).unwrap().to_yaml().expose_secret(), text);
    }
}

#[test]
fn all_problems_are_told_at_once_with_their_lines() {
    let text = replaced(RSA, "bootstraptoken:", 1, "short");
    let text = replaced(&text, "key:", 1, &STANDARD.encode("-----BEGIN EC PRIVATE KEY-----\nMHc"));
    let text = replaced(&text, "id:", 1, "\"\"");
    let found = problems(&text);
    assert_eq!(
        found,
        [
            "cluster.id is required",
            "line 5: secrets.bootstraptoken must look like abcdef.0123456789abcdef (lower-case letters and digits)",
            "line 12: certs.etcd.key holds a PEM block that is cut off or damaged",
        ]
    );
}

#[test]
fn each_flaw_is_recognised() {
    let etcd_crt = Secrets::load(ECDSA, then()).unwrap().etcd.crt;
    let other_key = Secrets::load(ECDSA, then()).unwrap().etcd.key.expose_secret().to_owned();
    let cases = [
        (replaced(RSA, "key:", 1, &other_key), "certs.etcd.key does not belong to the certificate beside it"),
        (replaced(RSA, "key:", 1, "'******'"), "certs.etcd.key is blanked out"),
        (replaced(RSA, "key:", 1, "'%%%'"), "certs.etcd.key is not base64"),
        (replaced(RSA, "key:", 1, &etcd_crt), "certs.etcd.key is labelled 'CERTIFICATE', a private key is needed"),
        (replaced(RSA, "secret:", 1, "AAAA"), "cluster.secret decodes to 3 bytes, 32 are needed"),
        (RSA.replace("secretboxencryptionsecret", "nothing"), "secrets.secretboxencryptionsecret is required"),
        (RSA.replace("    os:", "    oz:"), "certs.os.crt is required"),
        (replaced(RSA, "secretboxencryptionsecret:", 1, "[1]"), "secrets.secretboxencryptionsecret must be a string"),
    ];
    for (text, expected) in cases {
        let found = problems(&text);
        assert!(found.iter().any(|problem| problem.contains(expected)), "{expected}: {found:?}");
    }
}

#[test]
fn what_the_real_tool_reads_is_read_and_what_it_does_not_is_not() {
    let loaded = Secrets::load(RSA, then()).unwrap();
    let (crt, key) = (loaded.etcd().certificate_pem(), loaded.etcd().key_pem());
    let key = key.expose_secret();
    let with = |prefix: &str, pem: &str| replaced(RSA, prefix, 1, &STANDARD.encode(pem));
    let in_lines =
        replaced(RSA, "crt:", 1, &format!("\"{}\\n{}\"", &loaded.etcd().crt[..40], &loaded.etcd().crt[40..]));
    for text in [
        with("crt:", &format!("junk\n{crt}junk")),
        with("crt:", &crt.replace('\n', "\r\n")),
        with("crt:", crt.trim_end()),
        with("crt:", &crt.replacen("-----\n", "-----\nComment: x\n\n", 1)),
        replaced(RSA, "token:", 1, "any-word"),
        replaced(RSA, "id:", 1, "true"),
        replaced(RSA, "secret:", 1, "\"vj5no104VjNMsT6i4QMVIjMjCZYYZE5TGQ04foxkYAE=\\n\""),
        replaced(RSA, "secret:", 1, "vj5no104VjNMsT6i4QMVIjMjCZYYZE5TGQ04foxkYAF="),
        format!("{RSA}---\nanother: document\n"),
        format!("{RSA}---\n{{broken\n"),
        RSA.replacen("cluster:\n", "cluster:\n    ~: 1\n", 1),
        in_lines,
    ] {
        assert!(Secrets::load(&text, then()).is_ok(), "{:?}", problems(&text));
    }
    for text in [
        with("crt:", &format!(" {crt}")),
        with("crt:", &crt.replace('\n', "")),
        with("crt:", &crt.replace(&crt.lines().nth(2).unwrap()[..8], "AAAAAAAA")),
        with("key:", &key.replace("EC PRIVATE KEY", "PRIVATE KEY")),
    ] {
        assert_eq!(problems(&text).len(), 1);
    }
}

#[test]
fn a_key_on_the_largest_curve_is_read() {
    let key = PrivateKey::from_pem(P521).unwrap();
    assert!(matches!(key, PrivateKey::P521(_)) && key.public().len() == 133);
    let text = replaced(RSA, "key:", 4, &STANDARD.encode(P521));
    assert!(Secrets::load(&text, then()).is_ok(), "{:?}", problems(&text));
}

#[test]
fn a_key_that_is_whole_and_not_taken_is_told_as_that() {
    const P224: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x21];
    const EC: &[u8] = &[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
    let sec1 = der::sequence(&[&der::integer(&[1]), &der::octets(&[1; 28]), &der::element(0xa0, P224)]);
    let pkcs1 = der::sequence(&[&der::integer(&[0]), &der::integer(&[0xff; 128])]);
    let wrapped = |algorithm: &[u8], key: &[u8]| {
        der::sequence(&[&der::integer(&[0]), &der::sequence(&[algorithm]), &der::octets(key)])
    };
    let rsa = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
    for (label, key, wanted) in [
        ("EC PRIVATE KEY", sec1.clone(), "is an ECDSA key on the curve P-224; "),
        ("RSA PRIVATE KEY", pkcs1.clone(), "is an RSA key of 1024 bits; "),
        ("PRIVATE KEY", wrapped(&[EC, P224].concat(), &sec1), "is an ECDSA key on the curve P-224; "),
        ("PRIVATE KEY", wrapped(rsa, &pkcs1), "is an RSA key of 1024 bits; "),
        ("PRIVATE KEY", wrapped(&[0x06, 0x03, 0x2b, 0x65, 0x71], &[]), "is a key of another algorithm"),
        ("RSA PRIVATE KEY", wrapped(rsa, &pkcs1), "is labelled 'RSA PRIVATE KEY', 'PRIVATE KEY' is needed"),
        ("RSA PRIVATE KEY", pkcs1[..40].to_vec(), "is no private key that can be read"),
    ] {
        let flaw = PrivateKey::from_pem(&pem::encode(label, &key)).err().unwrap();
        assert!(flaw.to_string().starts_with(wanted), "{label}: {flaw}");
        assert_eq!(flaw.remedy().contains("cut or damaged"), flaw == Flaw::GarbledKey, "{flaw}");
    }
}

#[test]
fn a_file_of_another_kind_is_not_told_value_by_value() {
    let second = format!("---\n---\n{RSA}");
    for text in [
        second.as_str(),
        "",
        "# nothing\n",
        "null\n",
        "text\n",
        "apiVersion: v1\nkind: Config\n",
        "machine: {type: worker}\n",
    ] {
        let error = Secrets::load(text, then()).unwrap_err();
        assert!(matches!(error, SecretsError::Foreign { .. }) && error.hints().len() == 1, "{text}: {error}");
    }
    for text in ["", "text\n", "cluster: {id: x}\nsecrets: {}\n"] {
        let error = Secrets::from_machine_config(text, then()).unwrap_err();
        assert!(matches!(error, SecretsError::Foreign { .. }), "{text}: {error}");
    }
}

#[test]
fn an_expired_authority_is_told_with_its_date() {
    let later = then().checked_add((20 * 365 * 24).hours()).unwrap();
    let Err(SecretsError::Invalid(problems)) = Secrets::load(RSA, later) else { panic!("accepted") };
    assert_eq!(problems.iter().filter(|problem| matches!(problem.flaw, Flaw::Expired { .. })).count(), 4);
}

#[test]
fn what_is_made_can_be_read() {
    for (contract, label) in [("1.2", "EC PRIVATE KEY"), ("1.6", "EC PRIVATE KEY"), ("1.13", "RSA PRIVATE KEY")] {
        let made = Secrets::generate(Contract::nearest(contract).unwrap(), then()).unwrap();
        assert_eq!(matches!(made.encryption(), Encryption::AesCbc(_)), contract == "1.2");
        let read = Secrets::load(made.to_yaml().expose_secret(), then()).unwrap();
        assert_eq!(made.differences(&read), []);
        assert_eq!(made.fingerprint(), read.fingerprint());
        assert!(made.service_account_pem().expose_secret().contains(label));
        assert!(made.talos.key_pem().expose_secret().starts_with("-----BEGIN ED25519 PRIVATE KEY-----\n"));
        assert_eq!(made.talos.key_pem().expose_secret().len(), 135);
    }
}

#[test]
fn bundles_differ_by_part() {
    let (one, two) = (Secrets::load(RSA, then()).unwrap(), Secrets::load(ECDSA, then()).unwrap());
    assert_ne!(one.fingerprint(), two.fingerprint());
    assert!(one.differences(&two).contains(&Part::EncryptionSecret));
    let changed = replaced(RSA, "token:", 1, "abcdef.0123456789abcdef");
    assert_eq!(one.differences(&Secrets::load(&changed, then()).unwrap()), [Part::Tokens]);
}

#[test]
fn no_value_shows_in_debug_output_or_errors() {
    let secrets = Secrets::load(RSA, then()).unwrap();
    assert_eq!(format!("{secrets:?}"), "Secrets { .. }");
    let broken = replaced(&replaced(RSA, "key:", 1, "hush-hush"), "token:", 1, "hush-hush");
    let error = Secrets::load(&broken, then()).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hush"));
}
