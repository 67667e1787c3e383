//! How requests are read: addresses, formats, logins, forms and JSON, in the original's order of checks.

use mock_pve::world::PveVersion;
use serde_json::{Value, json};

use crate::site::{Site, VMS};

#[tokio::test(flavor = "multi_thread")]
async fn addresses_and_logins_are_checked_in_order() {
    let mut site = Site::begin(PveVersion::V8).await;
    let login = site.login.clone();
    let rows: &[(&str, &str, &str, &str, &str)] = &[
        ("GET", "/api2/json/version", "", "200 OK", "401 No ticket"),
        ("GET", "/api2/json/version", "x", "501 Unexpected content for method 'GET'", "401 No ticket"),
        ("GET", "/api2/nonsense/version", "", "501 no formatter for uri /version, nonsense", "401 No ticket"),
        ("GET", "/api2/json/nonsense", "", "501 Method 'GET /nonsense' not implemented", "401 No ticket"),
        ("GET", "/api2/json//non//sense/", "", "501 Method 'GET //non//sense/' not implemented", "401 No ticket"),
        ("GET", "/api2/Json/version", "", "501 no such uri", "501 no such uri"),
        ("GET", "/api2json/version", "", "501 no such uri", "501 no such uri"),
        ("GET", "/api2/j", "", "501 no such uri", "501 no such uri"),
        ("GET", "/api3/json/version", "", "500 no such file '/api3/json/version'", "500 no such file"),
        ("POST", "/nothing", "a=1", "500 no such file '/nothing'", "500 no such file '/nothing'"),
        ("DELETE", "/nothing", "a=1", "501 Unexpected content for method 'DELETE'", "501 Unexpected content"),
        ("GET", "/api2/json/access/domains", "", "200 OK", "200 OK"),
        ("GET", "/api2/extjs/version", "", "200 OK", "401 No ticket"),
        ("GET", "/api2/htmljs/version", "", "200 OK", "401 No ticket"),
        ("GET", "/api2/png/version", "", "200 OK", "401 No ticket"),
    ];
    for (method, path, body, known, unknown) in rows {
        for (login, expected) in [(login.as_str(), known), ("", unknown)] {
            login.clone_into(&mut site.login);
            let (status, reason, _) = site.send(method, path, "", body.as_bytes()).await;
            let answer = format!("{status} {reason}");
            assert!(answer.starts_with(expected), "{method} {path} {login}: {answer}, not {expected}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn encodings_of_the_transfer_are_refused_by_name() {
    let site = Site::begin(PveVersion::V8).await;
    for (encoding, line) in [
        ("chunked", "HTTP/1.1 501 chunked transfer encoding not supported"),
        ("Chunked", "HTTP/1.1 501 chunked transfer encoding not supported"),
        ("gzip, chunked", "HTTP/1.1 501 Unknown transfer encoding 'gzip, chunked'"),
    ] {
        let login = &site.login;
        let request = format!(
            "POST /api2/json/pools HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{login}Transfer-Encoding: {encoding}\r\n\r\n0\r\n\r\n"
        );
        assert_eq!(site.raw(request.as_bytes()).await.lines().next(), Some(line), "{encoding}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_counts_wherever_the_original_looks_for_it() {
    let mut site = Site::begin(PveVersion::V8).await;
    let (id, secret) =
        site.running.ready.tokens.iter().next().map(|(id, secret)| (id.clone(), secret.clone())).unwrap();
    let escaped = id.replace('!', "%21");
    for (header, expected) in [
        (format!("Authorization: PVEAPIToken={id}={secret}\r\n"), "200 OK"),
        (format!("Authorization: PVEAPIToken {id}={secret}\r\n"), "200 OK"),
        (format!("Authorization: PVEAPIToken={escaped}={secret};more\r\n"), "200 OK"),
        (format!("Authorization: Some PVEAPIToken={id}={secret}\r\n"), "200 OK"),
        (format!("Cookie: PVEAuthCookie=\r\nAuthorization: PVEAPIToken={id}={secret}\r\n"), "200 OK"),
        (format!("Authorization: PVEAPIToken={id}={secret}0\r\n"), "401 Authentication failed!"),
        (format!("Authorization: PVEAPIToken={id}\r\n"), "401 Authentication failed!"),
        ("Authorization: PVEAPIToken=\r\n".to_owned(), "401 No ticket"),
        (format!("Authorization: Bearer {secret}\r\n"), "401 No ticket"),
        ("Authorization: PVEAuthCookie=PVE:root@pam:00000000::AAAA\r\n".to_owned(), "401 Authentication failed!"),
    ] {
        site.login.clone_from(&header);
        let (status, reason, body) = site.send("GET", "/api2/json/version", "", b"").await;
        assert_eq!(format!("{status} {reason}"), expected, "{header}");
        assert_eq!(body.is_empty(), status == 401, "{header}: {body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn formats_wrap_the_same_answer_differently() {
    let site = Site::begin(PveVersion::V8).await;
    let get = |format: &'static str, path: &'static str| {
        let site = &site;
        async move {
            let (status, reason, body) = site.send("GET", &format!("/api2/{format}{path}"), "", b"").await;
            (status, reason, body)
        }
    };
    let (status, _, body) = get("extjs", "/nodes/pve1/qemu/100/config").await;
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &body["success"], &body["status"]), (200, &json!(0), &json!(500)));
    let (status, _, body) = get("extjs", "/nonsense").await;
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &body["success"], &body["status"]), (200, &json!(0), &json!(501)));
    assert_eq!(body["message"], "Method 'GET /nonsense' not implemented");
    let (status, _, body) = get("extjs", "/cluster/nextid?vmid=5").await;
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &body["status"]), (200, &json!("400")));
    let (status, _, body) = get("htmljs", "/nodes/pve1/qemu/100/config").await;
    assert!(status == 200 && body.contains("&quot;success&quot;:0") && !body.contains('"'), "{body}");
    let (status, reason, body) = get("html", "/nodes/pve1/qemu/100/config").await;
    assert!(status == 500 && reason.ends_with("does not exist") && body.contains("&quot;data&quot;:null"), "{body}");
    let (status, _, body) = get("spiceconfig", "/version").await;
    assert!(status == 200 && body.starts_with("[virt-viewer]\n") && body.contains("\nrelease=8.4\n"), "{body}");
    assert_eq!(get("png", "/version").await.2, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn forms_and_json_are_read_the_originals_way() {
    let site = Site::begin_as_root(PveVersion::V8).await;
    site.done("POST", VMS, &[("vmid", "100")]).await;
    let unknown = "property is not defined in schema and the schema does not allow additional properties";
    let missing = "property is missing and it is not optional";
    let at = "at /usr/share/perl5/PVE/APIServer/AnyEvent.pm line";
    let malformed = "malformed JSON string, neither tag, array, object, number, string or atom, at character offset 0";
    let (form, json) = ("application/x-www-form-urlencoded", "application/json");
    let config = "/api2/json/nodes/pve1/qemu/100/config";
    let rows: &[(&str, &str, &str, &str, String)] = &[
        // A key without a value is as good as not given.
        ("POST", "/api2/json/pools", form, "poolid", format!("400 poolid: {missing}")),
        ("POST", "/api2/json/pools", form, "poolid=", "400 poolid: invalid format - ".to_owned()),
        ("PUT", config, form, "nonsense", format!("400 nonsense: {unknown}")),
        ("PUT", config, form, "cores", "500 unable to parse value of 'cores' - got undefined value".to_owned()),
        ("PUT", config, form, "cores=", "400 cores: type check ('integer') failed - got ''".to_owned()),
        ("PUT", config, form, "description", "200 OK".to_owned()),
        // Nothing between two separators is a key as well; after the last one nothing comes.
        ("PUT", config, form, "cores=1&&memory=64", format!("400 _root: {unknown}")),
        ("PUT", config, form, "cores=1&", "200 OK".to_owned()),
        ("PUT", config, form, "cores=1&vmid=100&vmid=100", "400 vmid: duplicate parameter (already defined".to_owned()),
        ("PUT", config, json, r#"{"onboot":true,"cores":2.0}"#, "200 OK".to_owned()),
        (
            "PUT",
            config,
            json,
            r#"{"cores":true}"#,
            "400 cores: type check ('integer') failed - got JSON::PP::Boolean".to_owned(),
        ),
        (
            "PUT",
            config,
            json,
            r#"{"name":false}"#,
            "400 name: type check ('string') failed - got JSON::PP::Boolean".to_owned(),
        ),
        ("PUT", config, json, r#"{"cores":[1]}"#, "400 cores: type check ('integer') failed - got ARRAY".to_owned()),
        ("PUT", config, json, r#"{"cores":1.5}"#, "400 cores: type check ('integer') failed - got '1.5'".to_owned()),
        ("PUT", config, json, r#"{"cores":null,"memory":"64"}"#, "500 unable to parse value of 'cores'".to_owned()),
        ("PUT", config, json, "null", "500 no options specified".to_owned()),
        ("PUT", config, json, "", format!("500 {malformed} (before \"(end of string)\") {at}")),
        ("PUT", config, json, "cores=1", format!("500 {malformed} (before \"cores=1\") {at}")),
        ("PUT", config, json, "[]", format!("500 Not a HASH reference {at}")),
        ("PUT", config, json, "true", format!("500 Not a HASH reference {at}")),
        (
            "PUT",
            config,
            json,
            "7",
            format!("500 Can't use string (\"7\") as a HASH ref while \"strict refs\" in use {at}"),
        ),
        (
            "PUT",
            config,
            json,
            r#"{"cores":1,}"#,
            format!("500 '\"' expected, at character offset 11 (before \"}}\") {at}"),
        ),
        ("PUT", config, json, r#"{"cores":1"#, "500 , or } expected while parsing object/hash".to_owned()),
        ("PUT", config, json, "{} {}", "500 garbage after JSON object, at character offset 3".to_owned()),
        ("PUT", config, "text/plain", "", "500 no options specified".to_owned()),
        ("PUT", config, "text/plain", "x", "506 upload 'Content-Type 'text/plain' not implemented".to_owned()),
    ];
    for (method, path, kind, body, expected) in rows {
        let (status, reason, said) =
            site.send(method, path, &format!("Content-Type: {kind}\r\n"), body.as_bytes()).await;
        let said: Value = serde_json::from_str(&said).unwrap_or_default();
        let answer = match said["errors"].as_object().and_then(|errors| errors.iter().next()) {
            Some((key, text)) => format!("{status} {key}: {}", text.as_str().unwrap_or_default()),
            None => format!("{status} {reason}"),
        };
        assert!(answer.starts_with(expected.as_str()), "{method} {path} {kind} {body}: {answer}, not {expected}");
    }
    assert_eq!(site.config(100, false).await["cores"], 2, "what was refused changed nothing");
}

/// A multipart body with these fields in this order, `filename` being the file.
fn upload(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut body = String::new();
    for (name, value) in fields {
        let file = if *name == "filename" { format!("; filename=\"{value}\"") } else { String::new() };
        body.push_str(&format!("--B\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n"));
        body.push_str(if *name == "filename" { "DATA" } else { value });
        body.push_str("\r\n");
    }
    body.push_str("--B--");
    body.into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_of_an_upload_count_in_their_order() {
    let site = Site::begin(PveVersion::V8).await;
    let sum = "c97c29c7a71b392b437ee03fd17f09bb10b75e879466fc0eb757b2c4a78ac938";
    let file = ("filename", "x.iso");
    let rows: &[(&[(&str, &str)], &str)] = &[
        (&[("content", "iso"), file], "200"),
        (&[("content", " iso "), ("checksum-algorithm", "sha256"), ("checksum", sum), file], "200"),
        // What stands before the content spoils its disposition.
        (&[("checksum-algorithm", "sha256"), ("content", "iso"), ("checksum", sum), file], "400"),
        (&[("nonsense", "1"), ("content", "iso"), file], "400"),
        (&[("content", "iso"), ("nonsense", "1"), file], "400"),
        (&[file, ("content", "iso")], "400"),
        (&[("content", "iso")], "500"),
    ];
    for (fields, expected) in rows {
        let kind = "Content-Type: multipart/form-data; boundary=B\r\n";
        let path = "/api2/json/nodes/pve1/storage/local/upload";
        let (status, reason, body) = site.send("POST", path, kind, &upload(fields)).await;
        assert_eq!(status.to_string(), *expected, "{fields:?}: {reason} {body}");
    }
}
