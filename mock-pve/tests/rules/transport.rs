//! What the web server does around a method: packed answers, and what it refuses first.

use std::io::Read as _;

use mock_pve::world::PveVersion;
use serde_json::Value;

use crate::site::{Site, VMS};

/// Headers and body of a `GET` from a client that says that it takes such codings.
async fn get(site: &Site, path: &str, takes: &str) -> (String, Vec<u8>) {
    let login = &site.login;
    let request = format!(
        "GET /api2/json{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{login}Accept-Encoding: {takes}\r\n\r\n"
    );
    let answer = site.bytes(request.as_bytes()).await;
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    (String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase(), answer[end + 4..].to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn long_answers_are_packed_for_who_takes_them() {
    let site = Site::begin_as_root(PveVersion::V8).await;
    let (head, plain) = get(&site, "/access/roles", "identity").await;
    assert!(plain.len() > 1024 && !head.contains("content-encoding"), "{head}");
    let expected: Value = serde_json::from_slice(&plain).unwrap();
    for (takes, coding) in [("gzip, deflate, br", "gzip"), ("deflate", "deflate")] {
        let (head, packed) = get(&site, "/access/roles", takes).await;
        assert!(head.contains(&format!("content-encoding: {coding}")) && packed.len() < plain.len(), "{head}");
        assert!(head.contains(&format!("content-length: {}", packed.len())), "{head}");
        assert!(head.contains("content-type: application/json;charset=utf-8"), "{head}");
        let mut text = String::new();
        if coding == "gzip" {
            flate2::read::GzDecoder::new(&packed[..]).read_to_string(&mut text).unwrap();
        } else {
            flate2::read::ZlibDecoder::new(&packed[..]).read_to_string(&mut text).unwrap();
        }
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), expected);
    }
    assert!(head.contains("connection: close"), "it was asked for: {head}");
    let (head, short) = get(&site, "/version", "gzip").await;
    assert!(short.starts_with(b"{") && !head.contains("content-encoding"), "{head}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_good_for_a_hundred_requests() {
    let site = Site::begin_as_root(PveVersion::V8).await;
    let request = format!("GET /api2/json/version HTTP/1.1\r\nHost: x\r\n{}\r\n", site.login);
    let said = site.raw(request.repeat(100).as_bytes()).await;
    for name in ["Server: pve-api-daemon/3.0", "Content-Type: application/json", "Content-Length: ", "Cache-Control: "]
    {
        assert_eq!(said.matches(&format!("\r\n{name}")).count(), 100, "{name}");
    }
    let said = said.to_ascii_lowercase();
    let answers = said.matches("http/1.1 200").count();
    let kept = said.matches("connection: keep-alive").count();
    assert_eq!((answers, kept, said.matches("connection: close").count()), (100, 99, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_format_is_looked_at_before_what_is_in_the_body() {
    let site = Site::begin_as_root(PveVersion::V8).await;
    site.done("POST", VMS, &[("vmid", "100")]).await;
    let json = "Content-Type: application/json\r\n";
    let rows = [
        ("nonsense", json, "{", "501 no formatter for uri /nodes/pve1/qemu/100/config, nonsense"),
        ("nonsense", "Content-Type: text/xml\r\n", "{", "506 upload 'Content-Type 'text/xml' not implemented"),
        ("json", json, "{", "500 '\"' expected, at character offset 1 (before \"(end of string)\")"),
    ];
    for (format, kind, body, expected) in rows {
        let path = format!("/api2/{format}/nodes/pve1/qemu/100/config");
        let (status, reason, _) = site.send("PUT", &path, kind, body.as_bytes()).await;
        let said = format!("{status} {reason}");
        assert!(said.starts_with(expected), "{format} {body}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_answers_an_upload_that_is_none() {
    let mut site = Site::begin_as_root(PveVersion::V8).await;
    site.fine("POST", "/access/users", &[("userid", "one@pve")]).await;
    let token = site.fine("POST", "/access/users/one@pve/token/t1", &[("privsep", "0")]).await;
    let upload = |site: &Site, body: &str| {
        let login = &site.login;
        format!(
            "POST /api2/json/nodes/pve1/storage/local/upload HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{login}\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    assert_eq!(site.raw(upload(&site, "{}").as_bytes()).await, "");
    // Without a body it is a request like any other; without the right it is refused in any case.
    let answer = site.raw(upload(&site, "").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 500 malformed JSON string"), "{answer}");
    site.with_token("one@pve!t1", token["value"].as_str().unwrap());
    let answer = site.raw(upload(&site, "{}").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 403 Permission check failed (/storage/local, "), "{answer}");
}
