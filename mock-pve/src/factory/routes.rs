//! Paths, methods and status codes.

use std::fs;
use std::io::SeekFrom;
use std::path::Path;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::header::{self, HeaderName, HeaderValue};
use http::{Method, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;

use super::images::Packing;
use super::{Delivery, Factory, FactoryError};
use crate::disk::{NoInstaller, Recipe, Schematic, Signing, catalogue};
use crate::scenario::{Cut, Meeting, Met, Wire};
use crate::world::script::{Answered, Ask, Service, Step};

type Body = BoxBody<Bytes, std::io::Error>;
type Answer = Response<Body>;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Every installer is built for both.
const PLATFORMS: [&str; 2] = ["amd64", "arm64"];
const SERVER: &str = "Image Factory v1.5.0";
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

pub(super) async fn connection(stream: tokio_rustls::server::TlsStream<Wire>, factory: Factory, cut: Cut) {
    let service = service_fn(move |request| {
        let (factory, cut) = (factory.clone(), cut.clone());
        async move { Ok::<_, std::convert::Infallible>(answer(&factory, request, &cut).await) }
    });
    let mut builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    builder.http2().max_concurrent_streams(100);
    // As Go writes them.
    builder.http1().title_case_headers(true);
    if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a connection to the factory broke");
    }
}

async fn answer(factory: &Factory, request: http::Request<Incoming>, cut: &Cut) -> Answer {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let id = request.headers().get(&REQUEST_ID).cloned();
    let world = factory.0.options.world.as_ref();
    let mut meeting = Meeting::new(Answered::now(Service::Factory, ""));
    let mut met = match world {
        Some(world) => {
            let (service, step, verb) = (Service::Factory, Step::Request, method.as_str());
            Met::with(world, &Ask { service, step, verb, path: &path, who: "", node: "", vmid: None }).await
        }
        None => Met::default(),
    };
    if met.breaks_before() {
        return cut.instead_of_an_answer().await;
    }
    let mut response = match met.status.take() {
        Some((code, reason)) => {
            let code = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            Refusal(code, reason).into_response()
        }
        None => route(factory, request).await.unwrap_or_else(Refusal::into_response),
    };
    if met.breaks_after() {
        return cut.instead_of_an_answer().await;
    }
    let headers = response.headers_mut();
    headers.insert(header::SERVER, HeaderValue::from_static(SERVER));
    let made_up = || HeaderValue::from_str(&hex::encode(&Sha256::digest(&path)[..8])).ok();
    if let Some(id) = id.or_else(made_up) {
        headers.insert(REQUEST_ID, id);
    }
    if let Some(world) = world {
        (meeting.record.method, meeting.record.path) = (method.to_string(), path);
        let bytes = http_body::Body::size_hint(response.body()).lower();
        meeting.ends(world, response.status().as_u16(), bytes);
    }
    if met.corrupt > 0 {
        response = response.map(|body| body.map_frame(move |frame| frame.map_data(|piece| met.touch(piece))).boxed());
    }
    response
}

/// A refusal: status and text, as the factory writes its error chains.
struct Refusal(StatusCode, String);

impl Refusal {
    fn not_found(what: impl Into<String>) -> Self {
        Self(StatusCode::NOT_FOUND, what.into())
    }

    fn bad(what: impl Into<String>) -> Self {
        Self(StatusCode::BAD_REQUEST, what.into())
    }

    fn into_response(self) -> Answer {
        text(self.0, "text/plain; charset=utf-8", format!("{}\n", self.1))
    }
}

impl From<FactoryError> for Refusal {
    fn from(error: FactoryError) -> Self {
        match error {
            FactoryError::Extension(missing) => Self::bad(missing.to_string()),
            other => {
                tracing::warn!(error = &other as &dyn std::error::Error, "the factory failed");
                Self(StatusCode::INTERNAL_SERVER_ERROR, "internal server error".to_owned())
            }
        }
    }
}

async fn route(factory: &Factory, request: http::Request<Incoming>) -> Result<Answer, Refusal> {
    let path = request.uri().path().to_owned();
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    let read = request.method() == Method::GET || request.method() == Method::HEAD;
    let get = request.method() == Method::GET;
    match segments.as_slice() {
        ["schematics"] if request.method() == Method::POST => post_schematic(factory, request).await,
        ["schematics", id] if get => {
            let found = factory.schematic(id).ok_or_else(|| Refusal::not_found("schematic not found"))?;
            Ok(text(StatusCode::OK, "application/yaml", found.canonical()))
        }
        ["versions"] if get => {
            let broken = request.uri().query().is_some_and(|query| query.contains("broken=true"));
            let versions = if broken { &[] } else { factory.versions() };
            Ok(text(StatusCode::OK, "application/json", json!(versions).to_string()))
        }
        ["version", version, kind @ ("extensions" | "overlays"), "official"] if get => {
            let version = known_version(factory, version)?;
            let items = if *kind == "extensions" { extensions(&version) } else { json!([]) };
            Ok(text(StatusCode::OK, "application/json", items.to_string()))
        }
        ["healthz" | "readyz"] if read => Ok(text(StatusCode::OK, "text/plain", String::new())),
        ["image", id, version, file] if read => image(factory, [id, version, file], &request).await,
        ["store", id, version, file] if read => {
            let (recipe, packing) = wanted(factory, [id, version, file])?;
            let path = factory.0.images.get(recipe, packing).await?;
            stored(&path, &request).await
        }
        ["v2", ""] if read => Ok(text(StatusCode::OK, "application/json", "{}".to_owned())),
        ["v2", name, id, "manifests", tag] if read => manifest(factory, name, id, tag, &request),
        ["v2", name, id, "blobs", digest] if read => blob(factory, name, id, digest, &request),
        _ => Err(Refusal::not_found("404 page not found")),
    }
}

async fn post_schematic(factory: &Factory, request: http::Request<Incoming>) -> Result<Answer, Refusal> {
    let body = request.into_body().collect().await.map_err(|error| Refusal::bad(error.to_string()))?.to_bytes();
    let body = std::str::from_utf8(&body).map_err(|error| Refusal::bad(error.to_string()))?;
    let schematic = Schematic::parse(body).map_err(|error| Refusal::bad(error.to_string()))?;
    let answer = json!({ "id": schematic.id(), "schematic": schematic.canonical() });
    factory.add(schematic);
    Ok(text(StatusCode::CREATED, "application/json", answer.to_string()))
}

/// A version as the factory's routes take it; a malformed one is its well-known 500.
fn known_version(factory: &Factory, version: &str) -> Result<String, Refusal> {
    let plain = version.strip_prefix('v').unwrap_or(version);
    let numbers: Vec<&str> = plain.split('-').next().unwrap_or_default().split('.').collect();
    if numbers.len() != 3 || numbers.iter().any(|number| number.parse::<u32>().is_err()) {
        return Err(Refusal(StatusCode::INTERNAL_SERVER_ERROR, "internal server error".to_owned()));
    }
    let version = format!("v{plain}");
    if factory.knows(&version) {
        return Ok(version);
    }
    Err(Refusal::not_found(format!("error getting extensions: Talos version {version} is not available")))
}

fn extensions(version: &str) -> serde_json::Value {
    let items = catalogue::official(version).into_iter().map(|extension| {
        json!({
            "name": extension.name,
            "ref": format!("ghcr.io/{}:{}", extension.name, extension.version),
            "digest": catalogue::digest(&extension),
            "author": extension.author,
            "description": extension.description,
        })
    });
    items.collect()
}

/// The recipe behind `/image/<id>/<version>/<file>`.
fn wanted(factory: &Factory, [id, version, file]: [&str; 3]) -> Result<(Recipe, Packing), Refusal> {
    if [".sha256", ".sha512", ".sigstore.json"].iter().any(|suffix| file.ends_with(suffix)) {
        let why = "checksums and signatures are available in the Enterprise edition only";
        return Err(Refusal(StatusCode::PAYMENT_REQUIRED, why.to_owned()));
    }
    let schematic = factory.schematic(id).ok_or_else(|| Refusal::not_found("schematic not found"))?;
    let version = known_version(factory, version)?;
    let bad = || Refusal::bad(format!("invalid profile: {file}"));
    let (name, packing) = Packing::ALL
        .into_iter()
        .find_map(|packing| Some((file.strip_suffix(packing.suffix())?.strip_suffix('.')?, packing)))
        .ok_or_else(bad)?;
    let (name, signing) = match name.strip_suffix("-secureboot") {
        Some(name) => (name, Signing::SecureBoot),
        None => (name, Signing::Plain),
    };
    if name != "nocloud-amd64" {
        return Err(bad());
    }
    let recipe = schematic.recipe(&version, signing).map_err(FactoryError::from)?;
    Ok((recipe, packing))
}

async fn image(
    factory: &Factory,
    [id, version, file]: [&str; 3],
    request: &http::Request<Incoming>,
) -> Result<Answer, Refusal> {
    let (recipe, packing) = wanted(factory, [id, version, file])?;
    let path = factory.0.images.get(recipe, packing).await?;
    let host = request
        .uri()
        .authority()
        .map(ToString::to_string)
        .or_else(|| request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).map(str::to_owned));
    if let (true, Delivery::Redirect, Some(host)) = (request.method() == Method::GET, factory.0.options.delivery, host)
    {
        let to = format!("https://{host}/store/{id}/{version}/{file}?X-Amz-Expires=3600&X-Amz-SignedHeaders=host");
        let mut response = text(StatusCode::FOUND, "text/html; charset=utf-8", String::new());
        response.headers_mut().insert(header::LOCATION, value(&to)?);
        return Ok(response);
    }
    let length = size(&path)?;
    let builder = Response::builder()
        .header(header::CONTENT_TYPE, content_type(packing))
        .header(header::CONTENT_LENGTH, length)
        .header(header::CONTENT_DISPOSITION, value(&format!("attachment; filename=\"{file}\""))?);
    let body = if request.method() == Method::HEAD { empty() } else { from_file(&path, 0, length).await? };
    builder.body(body).map_err(|error| Refusal::bad(error.to_string()))
}

/// A file as an object store serves it: ranges, `ETag`.
async fn stored(path: &Path, request: &http::Request<Incoming>) -> Result<Answer, Refusal> {
    let total = size(path)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let etag = format!("\"{}\"", hex::encode(&Sha256::digest(format!("{name} {total}"))[..16]));
    let builder = Response::builder()
        .header(header::ACCEPT_RANGES, "bytes")
        .header(header::CONTENT_TYPE, "application/octet-stream")
        .header(header::ETAG, &etag);
    let headers = request.headers();
    let unchanged = headers.get(header::IF_RANGE).is_none_or(|wanted| wanted.as_bytes() == etag.as_bytes());
    let range = headers.get(header::RANGE).filter(|_| unchanged).and_then(|range| range.to_str().ok());
    let (status, start, length) = match range.map(|range| parse_range(range, total)) {
        None => (StatusCode::OK, 0, total),
        Some(Some((start, end))) => (StatusCode::PARTIAL_CONTENT, start, end + 1 - start),
        Some(None) => {
            let refused = builder
                .status(StatusCode::RANGE_NOT_SATISFIABLE)
                .header(header::CONTENT_RANGE, format!("bytes */{total}"));
            return refused.body(empty()).map_err(|error| Refusal::bad(error.to_string()));
        }
    };
    let mut builder = builder.status(status).header(header::CONTENT_LENGTH, length);
    if status == StatusCode::PARTIAL_CONTENT {
        builder = builder.header(header::CONTENT_RANGE, format!("bytes {start}-{}/{total}", start + length - 1));
    }
    let body = if request.method() == Method::HEAD { empty() } else { from_file(path, start, length).await? };
    builder.body(body).map_err(|error| Refusal::bad(error.to_string()))
}

/// First and last byte of a single range; `None` when it lies outside.
fn parse_range(range: &str, total: u64) -> Option<(u64, u64)> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let last_byte = total.checked_sub(1)?;
    let (start, end) = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(start), Ok(end)) => (start, end.min(last_byte)),
        (Ok(start), Err(_)) => (start, last_byte),
        (Err(_), Ok(suffix)) => (total.saturating_sub(suffix), last_byte),
        (Err(_), Err(_)) => return None,
    };
    (start <= end).then_some((start, end))
}

/// An installer image: the index behind its tag, or one of the manifests that the index names, by digest.
fn manifest(
    factory: &Factory,
    name: &str,
    id: &str,
    tag: &str,
    request: &http::Request<Incoming>,
) -> Result<Answer, Refusal> {
    if let Some(wanted) = tag.strip_prefix("sha256:") {
        let found = factory.versions().iter().find_map(|version| {
            let recipe = factory.registry().factory_installer(name, id, version).ok()?;
            let index = index(name, &recipe);
            let manifests = PLATFORMS.map(|architecture| platform_manifest(name, &recipe, architecture));
            manifests
                .into_iter()
                .map(|text| (MANIFEST, text))
                .chain([(INDEX, index)])
                .find(|(_, text)| digest(text) == wanted)
        });
        let (kind, body) = found.ok_or_else(|| unknown_manifest(tag))?;
        return oci(kind, body, request);
    }
    let recipe = factory.registry().factory_installer(name, id, tag).map_err(|why| match why {
        NoInstaller::Name(_) | NoInstaller::Tag(_) | NoInstaller::Extension(_) => Refusal::bad(why.to_string()),
        NoInstaller::Schematic | NoInstaller::Version(_) => Refusal::not_found(why.to_string()),
    })?;
    oci(INDEX, index(name, &recipe), request)
}

/// The configuration of one of an installer's manifests: what a client reads to learn about an image before it pulls it.
fn blob(
    factory: &Factory,
    name: &str,
    id: &str,
    wanted: &str,
    request: &http::Request<Incoming>,
) -> Result<Answer, Refusal> {
    let found = factory.versions().iter().find_map(|version| {
        let recipe = factory.registry().factory_installer(name, id, version).ok()?;
        PLATFORMS
            .map(|architecture| image_config(&recipe, architecture))
            .into_iter()
            .find(|text| wanted.strip_prefix("sha256:") == Some(&digest(text)))
    });
    oci("application/octet-stream", found.ok_or_else(|| unknown_manifest(wanted))?, request)
}

fn unknown_manifest(wanted: &str) -> Refusal {
    Refusal::not_found(
        json!({ "errors": [{ "code": "MANIFEST_UNKNOWN", "message": "manifest unknown", "detail": wanted }] })
            .to_string(),
    )
}

fn index(name: &str, recipe: &Recipe) -> String {
    let manifests = PLATFORMS.map(|architecture| {
        let manifest = platform_manifest(name, recipe, architecture);
        json!({
            "mediaType": MANIFEST,
            "size": manifest.len(),
            "digest": format!("sha256:{}", digest(&manifest)),
            "platform": { "architecture": architecture, "os": "linux" },
        })
    });
    json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests }).to_string()
}

fn platform_manifest(name: &str, recipe: &Recipe, architecture: &str) -> String {
    let config = image_config(recipe, architecture);
    let layer = digest(&format!("{name} {recipe:?} {architecture} layer"));
    json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "size": config.len(),
            "digest": format!("sha256:{}", digest(&config)) },
        "layers": [{ "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "size": 104_857_600,
            "digest": format!("sha256:{layer}") }],
    })
    .to_string()
}

fn image_config(recipe: &Recipe, architecture: &str) -> String {
    json!({
        "architecture": architecture,
        "os": "linux",
        "config": { "Entrypoint": ["/bin/installer"], "Labels": {
            "org.opencontainers.image.source": "https://github.com/siderolabs/talos",
            "org.opencontainers.image.version": recipe.version } },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", digest(&format!("{recipe:?} {architecture}")))] },
    })
    .to_string()
}

fn digest(text: &str) -> String {
    hex::encode(Sha256::digest(text))
}

fn oci(kind: &'static str, body: String, request: &http::Request<Incoming>) -> Result<Answer, Refusal> {
    let builder = Response::builder()
        .header(header::CONTENT_TYPE, kind)
        .header(header::CONTENT_LENGTH, body.len())
        .header("docker-distribution-api-version", "registry/2.0")
        .header("docker-content-digest", format!("sha256:{}", digest(&body)));
    let body = if request.method() == Method::HEAD { empty() } else { full(body) };
    builder.body(body).map_err(|error| Refusal::bad(error.to_string()))
}

fn content_type(packing: Packing) -> &'static str {
    match packing {
        Packing::Raw => "application/octet-stream",
        Packing::Xz => "application/x-xz",
        Packing::Zstd => "application/zstd",
        Packing::Gzip => "application/gzip",
        Packing::Qcow2 => "application/x-qemu-disk",
    }
}

fn size(path: &Path) -> Result<u64, Refusal> {
    let failed = |source| FactoryError::Folder { path: path.to_owned(), source };
    Ok(fs::metadata(path).map_err(failed)?.len())
}

async fn from_file(path: &Path, start: u64, length: u64) -> Result<Body, Refusal> {
    let failed = |source| FactoryError::Folder { path: path.to_owned(), source };
    let mut file = tokio::fs::File::open(path).await.map_err(failed)?;
    file.seek(SeekFrom::Start(start)).await.map_err(failed)?;
    let frames = ReaderStream::with_capacity(file.take(length), 256 << 10).map(|piece| piece.map(Frame::data));
    Ok(BoxBody::new(StreamBody::new(frames)))
}

fn text(status: StatusCode, kind: &'static str, body: String) -> Answer {
    let mut response = Response::new(full(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn value(text: &str) -> Result<HeaderValue, Refusal> {
    HeaderValue::from_str(text).map_err(|error| Refusal::bad(error.to_string()))
}

fn full(body: String) -> Body {
    Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed()
}

fn empty() -> Body {
    full(String::new())
}
