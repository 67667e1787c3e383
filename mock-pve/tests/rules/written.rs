//! What is written down and how it is read back: configs of VMs, storages, sections; what named formats refuse.

use mock_pve::world::PveVersion;
use serde_json::{Value, json};

use crate::site::{Form, Site, VMS};

#[tokio::test(flavor = "multi_thread")]
async fn a_config_holds_what_its_file_gives_back() {
    let site = Site::begin(PveVersion::V8).await;
    site.done("POST", VMS, &[("vmid", "100"), ("memory", "64")]).await;
    let config = format!("{VMS}/100/config");
    for (key, value, kept) in [
        ("ciuser", "\"root\"", json!("root")),
        ("ciuser", "  two blanks ", json!("two blanks")),
        ("searchdomain", "", json!(" ")),
        ("cpulimit", "1.50", json!("1.50")),
        ("cores", "007", json!(7)),
    ] {
        site.fine("PUT", &config, &[(key, value)]).await;
        assert_eq!(site.config(100, false).await[key], kept, "{key}={value}");
    }
    for (key, value, text) in [
        ("ciuser", "a\nb", "property contains a line feed"),
        ("cpulimit", "1e1", "type check ('number') failed - got '1e1'"),
        ("cores", "+1", "type check ('integer') failed - got '+1'"),
    ] {
        let text = format!("unable to parse value of '{key}' - {text}");
        let (status, reason, _) = site.ask("PUT", &config, &[(key, value)]).await;
        assert_eq!((status, reason.as_str()), (500, text.as_str()), "{key}={value}");
        // What is wrong with a value shows when it is written: in the task, where there is one.
        assert_eq!(site.task("POST", &config, &[(key, value)]).await.0, text, "{key}={value}");
        let (end, _) = site.task("POST", VMS, &[("vmid", "101"), (key, value)]).await;
        assert_eq!(end, format!("unable to create VM 101 - {text}"), "{key}={value}");
    }
    for digest in ["", "0"] {
        site.fine("PUT", &config, &[("cores", "2"), ("digest", digest)]).await;
    }
    let (status, reason, _) = site.ask("PUT", &config, &[("cores", "2"), ("digest", "00")]).await;
    assert_eq!((status, reason.as_str()), (500, "checksum mismatch (file change by other user?)"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storage_says_only_what_says_something() {
    let site = Site::begin_as_root(PveVersion::V8).await;
    let (status, reason, _) =
        site.ask("POST", "/storage", &[("storage", "odd"), ("type", "dir"), ("path", "/srv/a b")]).await;
    assert_eq!((status, reason.as_str()), (500, "illegal path for directory storage: /srv/a b"));
    let made: Form<'_> =
        &[("storage", "files"), ("type", "dir"), ("path", "//srv/./a/"), ("nodes", "pve1"), ("disable", "0")];
    site.fine("POST", "/storage", made).await;
    let shown = site.fine("GET", "/storage/files", &[]).await;
    assert_eq!((&shown["path"], &shown["disable"], &shown["nodes"]), (&json!("/srv/a"), &Value::Null, &json!("pve1")));
    site.fine("PUT", "/storage/files", &[("nodes", ""), ("prune-backups", ""), ("digest", "")]).await;
    let shown = site.fine("GET", "/storage/files", &[]).await;
    assert_eq!((&shown["nodes"], &shown["prune-backups"]), (&Value::Null, &Value::Null));
    site.fine("POST", "/cluster/sdn/zones", &[("zone", "z1"), ("type", "simple"), ("dns", ""), ("ipam", "pve")]).await;
    let zone = site.fine("GET", "/cluster/sdn/zones/z1", &[]).await;
    assert_eq!((&zone["dns"], &zone["ipam"]), (&Value::Null, &json!("pve")));
}

#[tokio::test(flavor = "multi_thread")]
async fn formats_refuse_in_their_own_words() {
    let site = Site::begin_as_root(PveVersion::V8).await;
    let parts = |key: &str, text: &str| format!("invalid format - format error\n{key}.{text}\n");
    let vm = |key: &'static str, value: &'static str| ("POST", VMS, vec![("vmid", "100"), (key, value)], key);
    let storage = |key: &'static str, value: &'static str| {
        let form = vec![("storage", "s1"), ("type", "dir"), ("path", "/srv/a"), (key, value)];
        ("POST", "/storage", form, key)
    };
    let calendar = "unable to parse calendar event at";
    let rows = [
        (
            vm("amd-sev", "foo"),
            parts("amd-sev", "type: value 'foo' does not have a value in the enumeration 'std, es, snp'"),
        ),
        (vm("cdrom", "none,ssd=x"), parts("cdrom", "ssd: type check ('boolean') failed - got 'x'")),
        (storage("content-dirs", "x"), "invalid format - invalid override 'x'\n".to_owned()),
        (storage("content-dirs", "iso=../x"), "invalid format - invalid override 'iso=../x'\n".to_owned()),
        (
            storage("prune-backups", "keep-all=1,keep-last=1"),
            "invalid format - keep-all cannot be set together with other options.\n".to_owned(),
        ),
        (
            ("POST", "/pools", vec![("poolid", "a/b/c/")], "poolid"),
            "invalid format - pool name 'a/b/c/' contains invalid characters\n".to_owned(),
        ),
        (
            ("POST", "/access/users", vec![("userid", "a@pve"), ("email", "a%b@c.d")], "email"),
            "invalid format - value does not look like a valid email address\n".to_owned(),
        ),
        (
            ("POST", "/cluster/backup", vec![("vmid", "100"), ("schedule", "nonsense")], "schedule"),
            format!(
                "invalid format - invalid calendar event 'nonsense' - {calendar} 'nonsense' - Context(\"weekday\")\n\n"
            ),
        ),
        (
            ("PUT", "/nodes/pve1/config", vec![("acmedomain0", "x")], "acmedomain0"),
            parts("acmedomain0", "domain: invalid format - value 'x' does not look like a valid domain name!\n"),
        ),
        (
            (
                "POST",
                "/cluster/firewall/rules",
                vec![("type", "in"), ("action", "ACCEPT"), ("proto", "icmp"), ("icmp-type", "x")],
                "icmp-type",
            ),
            "invalid format - invalid icmp-type value 'x'\n".to_owned(),
        ),
        (
            ("PUT", "/access/domains/pam", vec![("tfa", "type=oath,digits=9")], "tfa"),
            parts("tfa", "digits: value must have a maximum value of 8"),
        ),
        (("PUT", "/nodes/pve1/time", vec![("timezone", "x")], "timezone"), "No such timezone".to_owned()),
    ];
    for ((method, path, form, key), expected) in rows {
        let (status, _, body) = site.ask(method, path, &form).await;
        assert_eq!((status, &body["errors"][key]), (400, &json!(expected)), "{method} {path} {form:?}: {body}");
    }
}
