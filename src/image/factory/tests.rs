use http::Response;
use http::response::Builder;

use super::super::schematic::Schematic;
use super::super::server::{Asked, Reply, Server};
use super::*;
use crate::types::VersionWish;

const EMPTY: &str = "376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba";
const AGENT: &str = "ce4c980550dd2ab1b17bbf2b08801c7eb59418eafe8f279833297925d67c7515";

/// A factory that knows the empty schematic, two minors and one extension.
fn factory(asked: &Asked) -> Response<Reply> {
    let known = |path: &str| path.contains(EMPTY) && path.contains("/v1.13.9");
    let answer = |builder: Builder, text: String| builder.body(Reply::whole(text)).unwrap();
    let ok = || Response::builder().header("server", "Image Factory v1.5.0");
    let status = |status: u16, text: &str| {
        answer(Response::builder().status(status).header("x-request-id", "echoed"), format!("{text}\n"))
    };
    match (asked.method.as_str(), asked.path.as_str()) {
        ("GET", "/versions") => answer(ok(), r#"["v1.12.3","v1.12.4","v1.13.9","v1.14.0-rc.1","odd"]"#.to_owned()),
        ("GET", "/versions?broken=true") => answer(ok(), r#"["v1.13.8"]"#.to_owned()),
        ("GET", "/version/v1.13.9/extensions/official") => answer(
            ok(),
            r#"[{"name":"siderolabs/qemu-guest-agent","ref":"ghcr.io/x:1","digest":"sha256:0","author":"a","description":"d"}]"#
                .to_owned(),
        ),
        ("POST", "/schematics") => {
            let body = std::str::from_utf8(&asked.body).unwrap();
            let id = Schematic::from_yaml(body).unwrap().id().map_or_else(|_| "f".repeat(64), |id| id.to_string());
            answer(ok().status(201), serde_json::json!({ "id": id, "schematic": body }).to_string())
        }
        ("GET", path) if path == format!("/schematics/{EMPTY}") => answer(ok(), "customization: {}\n".to_owned()),
        ("GET", path) if path.starts_with("/schematics/") => status(404, "schematic not found"),
        (_, path) if path.contains("secureboot") => status(400, "Secure Boot is not enabled"),
        ("HEAD", path) if path.starts_with("/image/") && known(path) => answer(ok(), "image".repeat(10)),
        ("HEAD", path) if path.starts_with("/v2/nocloud-installer/") && known(path) => {
            status_to(307, &format!("/registry{path}"))
        }
        ("HEAD", path) if path.starts_with("/registry") => {
            assert!(asked.header("accept").unwrap().contains("application/vnd.oci.image.index.v1+json"));
            answer(ok().header("docker-content-digest", "sha256:abc"), "{}".to_owned())
        }
        _ => status(404, "not found"),
    }
}

fn status_to(status: u16, location: &str) -> Response<Reply> {
    Response::builder().status(status).header("location", location).body(Reply::whole("")).unwrap()
}

async fn start(reply: impl Fn(&Asked) -> Response<Reply> + Send + Sync + 'static) -> (Server, Factory) {
    let server = Server::start(reply).await;
    let factory = Factory::new(server.client.clone(), &format!("{}/", server.url), None).unwrap();
    (server, factory)
}

fn build(schematic: &str, version: Version) -> Build {
    Build { schematic: SchematicId::new(schematic), version, arch: Arch::Amd64, boot: Boot::Plain }
}

#[tokio::test]
async fn versions_are_resolved_or_the_served_ones_named() {
    let (_server, factory) = start(factory).await;
    let resolve = async |wish: &str| {
        let resolved = factory.resolve(&wish.parse::<VersionWish>().unwrap()).await;
        resolved.map_or_else(|error| error.to_string(), |version| version.tag())
    };
    assert_eq!(resolve("latest").await, "v1.13.9");
    assert_eq!(resolve("1.12").await, "v1.12.4");
    assert_eq!(resolve("v1.14.0-rc.1").await, "v1.14.0-rc.1");
    assert_eq!(resolve("1.99").await, "the image factory has no Talos 1.99; it has v1.13.9, v1.12.4");
    assert_eq!(
        resolve("1.13.8").await,
        "the image factory has no Talos 1.13.8 (it is marked as broken); it has v1.13.9, v1.12.4"
    );
}

#[tokio::test]
async fn a_schematic_is_submitted_and_its_id_compared() {
    let (server, factory) = start(factory).await;
    let schematic = Schematic::with_extensions(["siderolabs/qemu-guest-agent".to_owned()]);
    let submitted = factory.submit(&schematic).await.unwrap();
    assert_eq!((submitted.id.as_str(), submitted.local.as_ref()), (AGENT, Some(&submitted.id)));
    assert_eq!(submitted.canonical, schematic.canonical().ok());
    let asked = server.asked().pop().unwrap();
    assert_eq!(asked.header("content-type"), Some("application/yaml"));
    assert!(asked.header("x-request-id").unwrap().starts_with("recast-"));

    let mut quoted = schematic;
    quoted.customization.extra_kernel_args = vec!["-selinux".to_owned()];
    let submitted = factory.submit(&quoted).await.unwrap();
    assert_eq!((submitted.id.as_str(), submitted.local), ("f".repeat(64).as_str(), None));
}

#[tokio::test]
async fn image_and_installer_are_found() {
    let (server, factory) = start(factory).await;
    let build = build(EMPTY, Version::new(1, 13, 9));
    let head = factory.head_image(&build, Encoding::RawXz).await.unwrap();
    assert_eq!(head, ImageHead { bytes: 50, server: Some("Image Factory v1.5.0".to_owned()) });
    assert_eq!(
        factory.image_url(&build, Encoding::RawXz),
        format!("{}/image/{EMPTY}/v1.13.9/nocloud-amd64.raw.xz", server.url)
    );
    let installer = factory.head_installer(&build).await.unwrap();
    assert_eq!(installer.digest.as_deref(), Some("sha256:abc"));
    let host = server.url.strip_prefix("https://").unwrap();
    assert_eq!(factory.installer(&build), format!("{host}/nocloud-installer/{EMPTY}:v1.13.9"));
    assert_eq!(factory.extensions(&build.version).await.unwrap()[0].name, "siderolabs/qemu-guest-agent");
    assert_eq!(factory.schematic(&build.schematic).await.unwrap(), "customization: {}\n");

    let elsewhere = Factory::new(server.client.clone(), &server.url, Some("registry.example:5000")).unwrap();
    let secure = Build { boot: Boot::Secure, arch: Arch::Arm64, ..build };
    assert_eq!(
        elsewhere.installer(&secure),
        format!("registry.example:5000/nocloud-installer-secureboot/{EMPTY}:v1.13.9")
    );
    assert!(elsewhere.image_url(&secure, Encoding::RawXz).ends_with("/v1.13.9/nocloud-arm64-secureboot.raw.xz"));
}

#[tokio::test]
async fn a_refused_head_is_explained() {
    let (_server, factory) = start(factory).await;
    let unknown = factory.head_image(&build(AGENT, Version::new(1, 13, 9)), Encoding::RawXz).await.unwrap_err();
    assert!(matches!(unknown, FactoryError::UnknownSchematic { ref id } if id.as_str() == AGENT), "{unknown}");
    let unknown = factory.head_installer(&build(EMPTY, Version::new(1, 13, 8))).await.unwrap_err();
    assert!(matches!(unknown, FactoryError::UnknownVersion { broken: true, .. }), "{unknown}");
    let refused = factory
        .head_image(&Build { boot: Boot::Secure, ..build(EMPTY, Version::new(1, 13, 9)) }, Encoding::RawXz)
        .await;
    let refused = refused.unwrap_err();
    assert!(refused.to_string().ends_with("Secure Boot is not enabled (400, request echoed)"), "{refused}");
    assert!(!refused.is_transient());
}

#[tokio::test]
async fn statuses_become_errors_of_their_kind() {
    let failure = async |status: u16| {
        let (_server, factory) = start(move |_| {
            let reply = Response::builder().status(status).header("retry-after", "7");
            reply.body(Reply::whole("its words\n")).unwrap()
        })
        .await;
        factory.versions().await.unwrap_err()
    };
    assert!(matches!(failure(401).await, FactoryError::Credentials { status: 401, redirected: false, .. }));
    assert!(matches!(failure(402).await, FactoryError::Enterprise { .. }));
    assert!(matches!(failure(404).await, FactoryError::Refused { status: 404, .. }));
    let unavailable = failure(503).await;
    assert!(unavailable.is_transient());
    assert!(
        matches!(unavailable, FactoryError::Unavailable { retry_after: Some(7), ref text, .. } if text == "its words")
    );
    assert!(matches!(failure(200).await, FactoryError::Answer { .. }));
}

#[tokio::test]
async fn a_registry_that_wants_a_token_proves_that_the_factory_built_the_installer() {
    let (_server, factory) =
        start(|asked| if asked.path.starts_with("/v2") { status_to(307, "/registry") } else { status_to(401, "") })
            .await;
    let head = factory.head_installer(&build(EMPTY, Version::new(1, 13, 9))).await.unwrap();
    assert_eq!(head.digest, None);
}

#[tokio::test]
async fn only_https_addresses_are_factories() {
    let server = Server::start(factory).await;
    for url in ["http://factory.example", "factory.example", ""] {
        assert!(matches!(Factory::new(server.client.clone(), url, None), Err(FactoryError::Url { .. })), "{url}");
    }
}
