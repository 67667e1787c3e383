//! Requests that make no sense, and callers whom nobody knows.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::lab::{Lab, assert_has};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::too_many_lines, reason = "a list of requests")]
async fn requests_that_make_no_sense_get_an_answer_that_says_so() {
    let lab = Lab::begin("").await;
    let json = "application/json";
    let maps = "/api/v1/namespaces/default/configmaps";
    for (method, path, kind, body, status, part) in [
        ("GET", "/apis/apps/v1/things", json, "", 404, "the server could not find the requested resource"),
        ("GET", "/api/v1/unicorns", json, "", 404, "the server could not find the requested resource"),
        ("GET", "/api/v1/nodes/a/b/c/d", json, "", 404, "the server could not find the requested resource"),
        ("POST", maps, json, "{", 400, "json parse error"),
        ("POST", maps, json, "[1]", 400, "the body is no object"),
        (
            "POST",
            maps,
            json,
            r#"{"metadata":7}"#,
            400,
            "cannot unmarshal number into Go struct field ConfigMap.metadata",
        ),
        ("POST", maps, json, r#"{"kind":"Pod","apiVersion":"v1"}"#, 400, "cannot be handled as a ConfigMap"),
        ("POST", maps, json, r#"{"metadata":{"name":"a","namespace":"b"}}"#, 400, "does not match the namespace sent"),
        (
            "POST",
            maps,
            json,
            r#"{"metadata":{}}"#,
            422,
            "metadata.name: Required value: name or generateName is required",
        ),
        ("POST", maps, "text/plain", "a", 415, "the body of the request was in an unknown format"),
        (
            "POST",
            "/api/v1/namespaces/none/configmaps",
            json,
            r#"{"metadata":{"name":"a"}}"#,
            404,
            "namespaces \"none\" not found",
        ),
        (
            "POST",
            "/api/v1/configmaps",
            json,
            r#"{"metadata":{"name":"a"}}"#,
            405,
            "the server does not allow this method",
        ),
        ("PATCH", "/api/v1/nodes/cp-01", json, "{}", 415, "accepted media types include: application/json-patch+json"),
        (
            "PATCH",
            "/api/v1/nodes/cp-01",
            "application/json-patch+json",
            r#"[{"op":"fly"}]"#,
            422,
            "the server rejected our request due to an error in our request",
        ),
        ("PATCH", "/api/v1/nodes/cp-01", "application/apply-patch+yaml", "a: b", 422, "fieldManager: Required value"),
        (
            "PATCH",
            "/api/v1/nodes/cp-01?fieldManager=x",
            "application/apply-patch+yaml",
            "a: [",
            400,
            "error decoding YAML",
        ),
        (
            "PATCH",
            "/api/v1/nodes/cp-01",
            "application/merge-patch+json",
            r#"{"spec":[1]}"#,
            400,
            "cannot unmarshal array",
        ),
        (
            "PUT",
            "/api/v1/nodes/cp-01",
            json,
            r#"{"metadata":{"name":"other"}}"#,
            400,
            "does not match the name on the URL",
        ),
        (
            "DELETE",
            "/api/v1/nodes/cp-01",
            json,
            r#"{"propagationPolicy":"Maybe"}"#,
            422,
            "supported values: \"Background\"",
        ),
        (
            "DELETE",
            "/api/v1/nodes/cp-01",
            json,
            r#"{"preconditions":{"uid":"x"}}"#,
            409,
            "Precondition failed: UID in precondition: x",
        ),
        ("DELETE", "/api/v1/namespaces/kube-system", json, "", 403, "this namespace may not be deleted"),
        ("GET", "/api/v1/pods?limit=many", json, "", 400, "strconv.ParseInt"),
        ("GET", "/api/v1/pods?continue=!!", json, "", 400, "continue key is not valid"),
        ("GET", "/api/v1/pods?labelSelector=a%20in%20(", json, "", 400, "unable to parse requirement"),
        ("GET", "/api/v1/pods?resourceVersion=x", json, "", 400, "invalid resource version"),
        ("GET", "/api/v1/pods?resourceVersion=999999999", json, "", 504, "Too large resource version"),
        ("GET", "/api/v1/nodes/cp-01?resourceVersion=999999999", json, "", 504, "Too large resource version"),
        (
            "GET",
            "/api/v1/pods?resourceVersionMatch=Exact",
            json,
            "",
            422,
            "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
        ),
        (
            "GET",
            "/api/v1/pods?resourceVersion=1&resourceVersionMatch=Some",
            json,
            "",
            422,
            "Unsupported value: \"Some\": supported values: \"Exact\", \"NotOlderThan\", \"\"",
        ),
        (
            "GET",
            "/api/v1/pods?watch=1&sendInitialEvents=true",
            json,
            "",
            422,
            "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        ),
        (
            "GET",
            "/api/v1/pods?continue=abc&resourceVersion=4",
            json,
            "",
            400,
            "specifying resource version is not allowed when using continue",
        ),
        (
            "POST",
            "/api/v1/namespaces/default/pods/store-0/eviction",
            json,
            r#"{"apiVersion":"policy/v0","kind":"Eviction"}"#,
            400,
            "no kind \"Eviction\" is registered for version \"policy/v0\"",
        ),
        (
            "POST",
            "/api/v1/namespaces/default/pods/store-0/binding",
            json,
            r#"{"target":{"kind":"Node","name":"cp-01"}}"#,
            409,
            "Operation cannot be fulfilled on pods/binding \"store-0\": pod store-0 is already assigned to node",
        ),
        (
            "GET",
            "/api/v1/namespaces/default/pods/store-0/exec?command=ls",
            json,
            "",
            500,
            ":10250: connect: connection refused",
        ),
        (
            "GET",
            "/api/v1/nodes/worker-01/proxy/metrics",
            json,
            "",
            503,
            "error trying to reach service: dial tcp 10.78.0.21:10250: connect: connection refused",
        ),
        ("GET", "/api/v1/pods?watch=1&resourceVersion=x", json, "", 400, "invalid resource version"),
        ("POST", "/api/v1/namespaces/default/pods/none/eviction", json, "{}", 404, "pods \"none\" not found"),
        ("BREW", "/api/v1/pods", json, "", 405, "the server does not allow this method"),
    ] {
        let (found, answer) = lab.ask(method, path, kind, body).await;
        assert_eq!(found, status, "{method} {path} {body}: {answer}");
        assert_eq!(
            (&answer["kind"], &answer["status"], &answer["code"]),
            (&json!("Status"), &json!("Failure"), &json!(status))
        );
        assert_has(answer["message"].as_str().unwrap(), &[part]);
    }
    // What no group has isn't even worth an object.
    for path in ["/apis/none/v1/things", "/%ff%fe", "/nothing"] {
        assert_eq!(lab.ask("GET", path, json, "").await, (404, json!("404 page not found\n")));
    }
    let big = format!(r#"{{"metadata":{{"name":"a"}},"data":{{"a":"{}"}}}}"#, "x".repeat(4 << 20));
    let (found, _) = lab.ask("POST", maps, json, &big).await;
    assert!([0, 413].contains(&found), "{found}");
    // Who isn't known sees how it is, and nothing else; a certificate that isn't valid any more is as good as a wrong one.
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert_eq!(lab.raw(None, get("/readyz").as_bytes()).await.unwrap(), (200, json!("ok")));
    let (code, answer) = lab.raw(None, get("/api/v1/nodes").as_bytes()).await.unwrap();
    let wanted = "nodes is forbidden: User \"system:anonymous\" cannot list resource \"nodes\" in API group \"\" at the cluster scope";
    assert_eq!((code, answer["message"].as_str()), (403, Some(wanted)));
    let (short, began) = (lab.admin(0), Instant::now());
    loop {
        let (code, answer) = lab.raw(Some(&short), get("/api/v1/nodes").as_bytes()).await.unwrap();
        if code == 401 {
            assert_eq!(answer["message"], "Unauthorized");
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(10), "{answer}");
    }
    let token = "GET /api/v1/nodes HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer a.b.c\r\n\r\n";
    assert_eq!(lab.raw(None, token.as_bytes()).await.unwrap().0, 401);
    lab.raw(Some(&lab.admin(1)), b"\x00\x01nonsense\r\n\r\n").await;
    // Pages of a list are of one moment.
    let first = lab.get("/api/v1/namespaces?limit=2").await;
    let next = first["metadata"]["continue"].as_str().unwrap().to_owned();
    assert_eq!(first["metadata"]["remainingItemCount"], 2);
    let made = r#"{"metadata":{"name":"aaa-later"}}"#;
    assert_eq!(lab.ask("POST", "/api/v1/namespaces", json, made).await.0, 201);
    let second = lab.get(&format!("/api/v1/namespaces?limit=10&continue={next}")).await;
    assert_eq!(second["items"].as_array().map(Vec::len), Some(2));
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    lab.end().await;
}

/// What comes back on a fresh connection to a machine's port before it ends.
async fn said(address: &str, port: u16, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect((address, port)).await.unwrap();
    let _ = stream.write_all(bytes).await;
    // Half a handshake is one that nobody goes on with.
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "{port} hangs on {bytes:?}");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_handshake_ends_and_hurts_nobody() {
    let lab = Lab::begin("").await;
    let plain = said(&lab.address, 6443, b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(plain, "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n");
    let mut state = 1_u64;
    let mut chance = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u8::try_from(state >> 56).unwrap()
    };
    for port in [6443, 50_000] {
        for bytes in [
            Vec::new(),
            vec![0x16],
            vec![0x16, 3, 1, 0x40, 0],
            vec![0x16, 3, 1, 0, 4, 1, 0, 0, 0],
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            b"SSH-2.0-OpenSSH_9.6\r\n".to_vec(),
            vec![0xff; 100_000],
        ] {
            said(&lab.address, port, &bytes).await;
        }
        for _ in 0..30 {
            let bytes: Vec<u8> = (0..=usize::from(chance())).map(|_| chance()).collect();
            said(&lab.address, port, &bytes).await;
        }
    }
    // After the handshake too.
    for _ in 0..30 {
        let mut bytes: Vec<u8> = (0..200).map(|_| chance()).collect();
        bytes.extend(b"\r\n\r\n");
        lab.raw(Some(&lab.admin(1)), &bytes).await;
    }
    assert_eq!(lab.get("/api/v1/nodes").await["items"].as_array().map(Vec::len), Some(3));
    lab.end().await;
}
