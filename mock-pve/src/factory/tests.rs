use std::io::Read as _;

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;

use super::*;

/// A factory on a socket, and a client that trusts it.
struct Stand {
    address: std::net::SocketAddr,
    client: Arc<rustls::ClientConfig>,
    _dir: tempfile::TempDir,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Stand {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn stand(delivery: Delivery) -> Stand {
    let dir = tempfile::tempdir().unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let cert = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
    let provider = || Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let private = rustls_pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let tls = rustls::ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], private)
        .unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let client = rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let options = Options {
        dir: dir.path().to_owned(),
        versions: vec!["1.12.4".to_owned(), "1.13.9".to_owned(), "1.13.10".to_owned()],
        schematics: Vec::new(),
        delivery,
        world: None,
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(serve(listener, Arc::new(tls), Factory::new(options).unwrap()));
    Stand { address, client: Arc::new(client), _dir: dir, server }
}

impl Stand {
    async fn ask(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Response<Bytes> {
        let stream = tokio::net::TcpStream::connect(self.address).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(self.client.clone());
        let name = rustls_pki_types::ServerName::try_from("127.0.0.1").unwrap();
        let stream = connector.connect(name, stream).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let mut request = http::Request::builder().method(method).uri(path).header("host", self.address.to_string());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from(body.to_owned()))).unwrap();
        let (head, body) = sender.send_request(request).await.unwrap().into_parts();
        Response::from_parts(head, body.collect().await.unwrap().to_bytes())
    }

    async fn get(&self, path: &str) -> Response<Bytes> {
        self.ask(Method::GET, path, &[], "").await
    }
}

fn header<'a>(response: &'a Response<Bytes>, name: &str) -> &'a str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

const EMPTY: &str = "376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba";

#[tokio::test]
async fn versions_and_schematics_are_answered_as_the_real_one_does() {
    let stand = stand(Delivery::Redirect).await;
    assert_eq!(stand.get("/versions").await.body(), r#"["v1.12.4","v1.13.9","v1.13.10"]"#);
    let posted =
        stand.ask(Method::POST, "/schematics", &[], "customization: {extraKernelArgs: [noapic, nolapic]}").await;
    assert_eq!(posted.status(), StatusCode::CREATED);
    let answer: serde_json::Value = serde_json::from_slice(posted.body()).unwrap();
    assert_eq!(answer["id"], "9cba8e32753f91a16c1837ab8abf356af021706ef284aef07380780177d9a06c");
    let path = format!("/schematics/{}", answer["id"].as_str().unwrap());
    assert_eq!(stand.get(&path).await.body(), answer["schematic"].as_str().unwrap());
    assert_eq!(
        stand.ask(Method::POST, "/schematics", &[], "customisation: {}").await.status(),
        StatusCode::BAD_REQUEST
    );
    for (path, status, text) in [
        (format!("/schematics/{}", "0".repeat(64)), 404, "schematic not found\n"),
        (format!("/image/{}/v1.13.9/nocloud-amd64.raw.xz", "0".repeat(64)), 404, "schematic not found\n"),
        (format!("/image/{EMPTY}/v1.13/nocloud-amd64.raw.xz"), 500, "internal server error\n"),
        (format!("/image/{EMPTY}/v1.13.77/nocloud-amd64.raw.xz"), 404, "not available"),
        (format!("/image/{EMPTY}/v1.13.9/nocloud-amd64.raw.xz.sha256"), 402, "Enterprise"),
        (format!("/image/{EMPTY}/v1.13.9/metal-mips.raw.xz"), 400, "invalid profile"),
        (format!("/v2/nocloud-installer/{EMPTY}/manifests/v1.13.77"), 404, "not available"),
        ("/nothing".to_owned(), 404, ""),
    ] {
        let answer = stand.get(&path).await;
        assert_eq!(answer.status().as_u16(), status, "{path}");
        assert!(String::from_utf8_lossy(answer.body()).contains(text), "{path}: {answer:?}");
    }
    let installer = format!("/v2/nocloud-installer/{EMPTY}/manifests/v1.13.9");
    let head = stand.ask(Method::HEAD, &installer, &[], "").await;
    assert!(head.status() == 200 && header(&head, "docker-content-digest").starts_with("sha256:"));
}

#[tokio::test]
async fn an_extension_of_another_version_fails_at_the_image() {
    let stand = stand(Delivery::Direct).await;
    let body = "customization: {systemExtensions: {officialExtensions: [siderolabs/nothing]}}";
    let posted = stand.ask(Method::POST, "/schematics", &[], body).await;
    let answer: serde_json::Value = serde_json::from_slice(posted.body()).unwrap();
    let path = format!("/image/{}/v1.13.9/nocloud-amd64.raw.xz", answer["id"].as_str().unwrap());
    let refused = stand.ask(Method::GET, &path, &[], "").await;
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    assert_eq!(
        refused.body(),
        "official extension \"siderolabs/nothing\" is not available for Talos version v1.13.9\n"
    );
}

#[tokio::test]
async fn an_image_comes_whole_or_in_ranges_and_unpacks_to_a_disk_that_boots() {
    let stand = stand(Delivery::Redirect).await;
    let path = format!("/image/{EMPTY}/v1.13.9/nocloud-amd64.raw.xz");
    let head = stand.ask(Method::HEAD, &path, &[], "").await;
    assert_eq!((head.status(), header(&head, "content-type")), (StatusCode::OK, "application/x-xz"));
    let length: usize = header(&head, "content-length").parse().unwrap();

    let moved = stand.get(&path).await;
    assert_eq!(moved.status(), StatusCode::FOUND);
    let store = header(&moved, "location").split_once(&self_host(&stand)).unwrap().1.to_owned();
    let whole = stand.get(&store).await;
    assert_eq!(whole.body().len(), length);
    let range = format!("bytes={}-", length - 1000);
    let etag = header(&whole, "etag").to_owned();
    let tail = stand.ask(Method::GET, &store, &[("range", &range), ("if-range", &etag)], "").await;
    assert_eq!(tail.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(header(&tail, "content-range"), format!("bytes {}-{}/{length}", length - 1000, length - 1));
    assert!(tail.body()[..] == whole.body()[length - 1000..]);
    let beyond = format!("bytes={length}-");
    assert_eq!(stand.ask(Method::GET, &store, &[("range", &beyond)], "").await.status(), 416);

    for (suffix, kind) in [("raw.gz", "application/gzip"), ("raw.zst", "application/zstd")] {
        let path = path.replace("raw.xz", suffix);
        let head = stand.ask(Method::HEAD, &path, &[], "").await;
        assert_eq!((head.status(), header(&head, "content-type")), (StatusCode::OK, kind));
    }

    let mut raw = Vec::new();
    xz2::read::XzDecoder::new(&whole.body()[..]).read_to_end(&mut raw).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk.raw");
    std::fs::write(&disk, &raw).unwrap();
    assert_eq!(crate::disk::read(&disk).unwrap().marker.recipe.version, "v1.13.9");
}

fn self_host(stand: &Stand) -> String {
    stand.address.to_string()
}
