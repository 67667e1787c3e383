//! The questions and their answers.

use std::time::Duration;

use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, RETRY_AFTER, SERVER};
use http::{HeaderValue, Method, Uri};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::super::schematic::Schematic;
use super::super::source::{self, Ask, FetchError, Followed, REQUEST_ID, content_length, follow, text_of};
use super::{Arch, Boot, Build, Encoding, Extension, FactoryError, ImageHead, InstallerHead, Submitted};
use crate::net::http::{Answer, Body, Client, HttpError, Request};
use crate::types::{SchematicId, Version, VersionWish};

/// The most a JSON answer may have: the list of extensions is some 100 KiB.
const ANSWER: usize = 8 << 20;

/// What an image reference must be to be an index or a manifest.
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// How long an answer may take that needs no build.
const AT_HAND: Duration = Duration::from_secs(30);

/// An Image Factory.
#[derive(Clone)]
pub struct Factory {
    client: Client,
    base: String,
    registry: String,
}

/// One question: what it is about, for errors, and where.
struct Question {
    what: String,
    method: Method,
    url: String,
    accept: HeaderValue,
    patience: Duration,
}

impl Question {
    /// A question whose answer is at hand.
    fn get(what: &str, url: String, accept: &'static str) -> Self {
        let accept = HeaderValue::from_static(accept);
        Self { what: what.to_owned(), method: Method::GET, url, accept, patience: AT_HAND }
    }

    /// A question that makes the factory build something first.
    fn head(what: &str, url: String, accept: &'static str) -> Self {
        Self { method: Method::HEAD, patience: source::BUILD, ..Self::get(what, url, accept) }
    }
}

impl Factory {
    /// The factory at `url`, `https://factory.talos.dev`. Nodes pull installers from `registry` (host and perhaps port);
    /// without one, from the host of `url`.
    pub fn new(client: Client, url: &str, registry: Option<&str>) -> Result<Self, FactoryError> {
        let base = url.trim_end_matches('/').to_owned();
        let host = source::https(&base).as_ref().and_then(Uri::authority).map(ToString::to_string);
        let host = host.ok_or_else(|| FactoryError::Url { url: source::without_query(url).to_owned() })?;
        Ok(Self { client, base, registry: registry.map_or(host, ToOwned::to_owned) })
    }

    /// Whether it is told who asks: then nobody gets an image by its address alone.
    pub fn wants_credentials(&self) -> bool {
        self.client.is_introduced()
    }

    /// All versions that are served, ascending.
    pub async fn versions(&self) -> Result<Vec<Version>, FactoryError> {
        self.version_list("the list of Talos versions", "/versions").await
    }

    /// The version that is wished for, if it is served.
    pub async fn resolve(&self, wish: &VersionWish) -> Result<Version, FactoryError> {
        let versions = self.versions().await?;
        if let Some(found) = wish.resolve(&versions) {
            return Ok(found);
        }
        // Old factories don't know the list of broken ones; then it is just not there.
        let broken = self.version_list("the list of broken Talos versions", "/versions?broken=true").await;
        let broken = wish.resolve(&broken.unwrap_or_default()).is_some();
        Err(FactoryError::UnknownVersion { wish: wish.to_string(), broken, served: newest_of_minors(&versions) })
    }

    /// The extensions that this version can have.
    pub async fn extensions(&self, version: &Version) -> Result<Vec<Extension>, FactoryError> {
        let what = format!("the extensions of Talos {version}");
        self.json(&what, &format!("/version/{}/extensions/official", version.tag())).await
    }

    /// Makes the schematic known to the factory. Doing so again changes nothing.
    pub async fn submit(&self, schematic: &Schematic) -> Result<Submitted, FactoryError> {
        #[derive(Deserialize)]
        struct Reply {
            id: String,
            schematic: Option<String>,
        }
        let what = "to take a schematic";
        let uri = source::https(&format!("{}/schematics", self.base));
        let uri = uri.ok_or_else(|| FactoryError::Url { url: self.base.clone() })?;
        let request = new_request_id();
        let mut headers = headers(&request, HeaderValue::from_static("application/json"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/yaml"));
        let body = Body::Exact(schematic.body().into());
        let sent = self.client.send(Request { headers, body, ..Request::new(Method::POST, uri) }).await;
        let answer = sent.map_err(|source| {
            let url = format!("{}/schematics", self.base);
            FactoryError::Fetch { what: what.to_owned(), source: Box::new(FetchError::Http { url, source }) }
        })?;
        let answer = accepted(answer, what, request).await?;
        let Reply { id, schematic: canonical } = read_json(answer, what).await?;
        if id.len() != 64 || !id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            let text = format!("'{}' is no schematic ID", id.escape_debug());
            return Err(FactoryError::Answer { what: what.to_owned(), text, request: String::new() });
        }
        Ok(Submitted { id: SchematicId::new(id), canonical, local: schematic.id().ok() })
    }

    /// The canonical YAML of a schematic that the factory knows.
    pub async fn schematic(&self, id: &SchematicId) -> Result<String, FactoryError> {
        let what = format!("the schematic {id}");
        let url = format!("{}/schematics/{id}", self.base);
        let answered = match self.ask(Question::get(&what, url, "application/yaml, */*")).await {
            // Its own words: a 404 of something that isn't a factory says nothing about schematics.
            Err(FactoryError::Refused { status: 404, text, .. }) if text.contains("schematic not found") => {
                return Err(FactoryError::UnknownSchematic { id: id.clone() });
            }
            answered => answered?,
        };
        let request = answered.request.clone();
        let body = answered.answer.bytes(ANSWER).await.map_err(|source| unread(&what, &self.base, source))?;
        String::from_utf8(body.to_vec()).map_err(|_| FactoryError::Answer {
            what,
            text: "not text".to_owned(),
            request,
        })
    }

    /// Where the disk image is.
    pub fn image_url(&self, build: &Build, encoding: Encoding) -> String {
        let arch = match build.arch {
            Arch::Amd64 => "amd64",
            Arch::Arm64 => "arm64",
        };
        let secure = secure_suffix(build);
        let suffix = match encoding {
            Encoding::RawXz => "raw.xz",
            Encoding::Qcow2 => "qcow2",
        };
        format!("{}/image/{}/{}/nocloud-{arch}{secure}.{suffix}", self.base, build.schematic, build.version.tag())
    }

    /// Has the disk image built, if need be, and asks for its size. Can take many minutes.
    pub async fn head_image(&self, build: &Build, encoding: Encoding) -> Result<ImageHead, FactoryError> {
        let what = format!("the image of Talos {} with schematic {}", build.version, build.schematic);
        let url = self.image_url(build, encoding);
        let answered = match self.ask(Question::head(&what, url.clone(), "*/*")).await {
            Err(error) => return Err(self.explain(build, error, url, "*/*").await),
            Ok(answered) => answered,
        };
        let server = answered.answer.headers.get(SERVER).and_then(|server| server.to_str().ok()).map(ToOwned::to_owned);
        match content_length(&answered.answer.headers) {
            Some(bytes) if bytes > 0 => Ok(ImageHead { bytes, server }),
            _ => {
                let text = "it has no length".to_owned();
                Err(FactoryError::Answer { what, text, request: answered.request })
            }
        }
    }

    /// The installer that nodes pull: `factory.talos.dev/nocloud-installer/<schematic>:v1.13.9`. It must be the one of
    /// the platform: from Talos 1.10 on it carries the kernel's command line, so another would change the platform.
    pub fn installer(&self, build: &Build) -> String {
        let (name, tag) = (installer_name(build), build.version.tag());
        format!("{}/{name}:{tag}", self.registry)
    }

    /// Has the installer built, if need be, and makes sure that it can be pulled. Can take many minutes.
    pub async fn head_installer(&self, build: &Build) -> Result<InstallerHead, FactoryError> {
        let what = format!("the installer {}", self.installer(build));
        let tag = build.version.tag();
        let url = format!("https://{}/v2/{}/manifests/{tag}", self.registry, installer_name(build));
        let answered = match self.ask(Question::head(&what, url.clone(), MANIFESTS)).await {
            // The factory redirects only once the installer is built. The registry behind it may want the anonymous token
            // that container runtimes fetch.
            Err(FactoryError::Credentials { redirected: true, .. }) => return Ok(InstallerHead { digest: None }),
            Err(error) => return Err(self.explain(build, error, url, MANIFESTS).await),
            Ok(answered) => answered,
        };
        let digest = answered.answer.headers.get("docker-content-digest");
        let digest = digest.and_then(|digest| digest.to_str().ok()).map(ToOwned::to_owned);
        Ok(InstallerHead { digest })
    }

    /// A HEAD says no reason: finds out whether it is the schematic or the version, and else asks for the words.
    async fn explain(&self, build: &Build, error: FactoryError, url: String, accept: &'static str) -> FactoryError {
        let FactoryError::Refused { what, .. } = &error else { return error };
        if let Err(unknown @ FactoryError::UnknownSchematic { .. }) = self.schematic(&build.schematic).await {
            return unknown;
        }
        let wish = VersionWish::Exact(build.version.clone());
        if let Err(unknown @ FactoryError::UnknownVersion { .. }) = self.resolve(&wish).await {
            return unknown;
        }
        match self.ask(Question::get(what, url, accept)).await {
            Err(worded @ FactoryError::Refused { .. }) => worded,
            _ => error,
        }
    }

    async fn version_list(&self, what: &str, path: &str) -> Result<Vec<Version>, FactoryError> {
        let listed: Vec<String> = self.json(what, path).await?;
        // A tag of an unknown shape is no reason not to see the others.
        let mut versions: Vec<Version> = listed.iter().filter_map(|version| version.parse().ok()).collect();
        versions.sort();
        Ok(versions)
    }

    async fn json<T: DeserializeOwned>(&self, what: &str, path: &str) -> Result<T, FactoryError> {
        let url = format!("{}{path}", self.base);
        read_json(self.ask(Question::get(what, url, "application/json")).await?, what).await
    }

    async fn ask(&self, question: Question) -> Result<Answered, FactoryError> {
        let Question { what, method, url, accept, patience } = question;
        let request = new_request_id();
        let ask = Ask { method, url: &url, headers: headers(&request, accept), patience };
        match follow(&self.client, ask).await {
            Ok(Followed { answer, redirected }) => {
                accepted(answer, &what, request).await.map_err(|error| match error {
                    FactoryError::Credentials { what, status, request, .. } => {
                        FactoryError::Credentials { what, status, request, redirected }
                    }
                    error => error,
                })
            }
            Err(source) => Err(FactoryError::Fetch { what, source: Box::new(source) }),
        }
    }
}

struct Answered {
    answer: Answer,
    request: String,
}

fn headers(request: &str, accept: HeaderValue) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, accept);
    if let Ok(request) = HeaderValue::from_str(request) {
        headers.insert(REQUEST_ID, request);
    }
    headers
}

/// The answer, if its status says that it is one.
async fn accepted(answer: Answer, what: &str, request: String) -> Result<Answered, FactoryError> {
    let what = what.to_owned();
    let echoed = answer.headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).map(ToOwned::to_owned);
    let request = echoed.unwrap_or(request);
    let status = answer.status.as_u16();
    if answer.status.is_success() {
        return Ok(Answered { answer, request });
    }
    let retry_after = answer.headers.get(RETRY_AFTER).and_then(|after| after.to_str().ok()?.parse().ok());
    let text = text_of(answer).await;
    Err(match status {
        401 | 403 => FactoryError::Credentials { what, status, request, redirected: false },
        402 => FactoryError::Enterprise { what, request },
        429 | 500.. => FactoryError::Unavailable { what, status, text, request, retry_after },
        _ => FactoryError::Refused { what, status, text, request },
    })
}

async fn read_json<T: DeserializeOwned>(answered: Answered, what: &str) -> Result<T, FactoryError> {
    let Answered { answer, request } = answered;
    let body = answer.bytes(ANSWER).await.map_err(|source| unread(what, "the factory", source))?;
    serde_json::from_slice(&body).map_err(|error| FactoryError::Answer {
        what: what.to_owned(),
        text: error.to_string(),
        request,
    })
}

fn unread(what: &str, url: &str, source: HttpError) -> FactoryError {
    let source = Box::new(FetchError::Http { url: url.to_owned(), source });
    FactoryError::Fetch { what: what.to_owned(), source }
}

fn new_request_id() -> String {
    let mut bytes = [0; 12];
    // Without randomness the requests just share a name in the log.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    format!("recast-{}", hex::encode(bytes))
}

fn secure_suffix(build: &Build) -> &'static str {
    match build.boot {
        Boot::Plain => "",
        Boot::Secure => "-secureboot",
    }
}

/// The name of the installer of a build, without registry and tag; before Talos 1.10 there was one for all platforms.
pub fn installer_name(build: &Build) -> String {
    let platform = if build.version.minor() < (1, 10) { "" } else { "nocloud-" };
    format!("{platform}installer{}/{}", secure_suffix(build), build.schematic)
}

/// The newest release of every minor, newest first, at most six.
fn newest_of_minors(versions: &[Version]) -> Vec<Version> {
    let mut newest: Vec<Version> = versions.iter().filter(|version| !version.is_prerelease()).cloned().collect();
    newest.sort_by(|one, other| other.cmp(one));
    newest.dedup_by_key(|version| version.minor());
    newest.truncate(6);
    newest
}
