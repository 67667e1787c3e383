//! Somebody who keeps on writing while the cluster is rebuilt, and remembers what was acknowledged.
//!
//! Purpose: a rehearsal's proof that nothing is lost. ConfigMaps are written one after another through the Kubernetes
//! API, new ones and changed ones, before, during and after the rebuild; at the end every one that was acknowledged must
//! be there with the content that was acknowledged last. A write without an answer may or may not have happened: both
//! contents are right then.
//! Must not know: the double's inside, the rehearsed verb. Start reading at [`Writer::start`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, StatusCode, Uri};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::net::Connector;
use crate::net::http::{Body, Client, Request};
use crate::net::tls::{self, Identity, Trust, Versions};
use crate::talos::access::AdminCertificate;
use crate::talos::secrets::Secrets;
use crate::types::Sha256;

/// Where it writes.
const NAMESPACE: &str = "default";
/// What all its ConfigMaps are called, before a number.
const PREFIX: &str = "recast-rehearsal-";
/// How long an answer may take before the write counts as not acknowledged.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two writes.
const PACE: Duration = Duration::from_millis(10);
/// After a write that wasn't acknowledged.
const PAUSE: Duration = Duration::from_millis(100);
/// How long the final list is asked for.
const READ_MAY_TAKE: Duration = Duration::from_secs(30);
/// Every so many writes change an earlier ConfigMap instead of making a new one.
const CHANGES: u64 = 4;
/// Hours that its certificate is valid: longer than any rehearsal.
const CERTIFICATE_HOURS: i64 = 24;
/// Largest list of ConfigMaps.
const LIMIT: usize = 256 << 20;

/// Why nobody can write.
#[derive(Debug, thiserror::Error)]
pub enum WriterError {
    /// It has no credentials.
    #[error("the writer's certificate can't be made")]
    Access(#[from] crate::talos::access::AccessError),
    /// TLS can't be set up.
    #[error("the writer's TLS can't be set up")]
    Tls(#[from] tls::TlsError),
}

/// Why it can't be told whether everything is there.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// No answer.
    #[error("the Kubernetes API does not answer")]
    Http(#[from] crate::net::http::HttpError),
    /// Another answer than a list.
    #[error("the Kubernetes API answered with {0}")]
    Status(StatusCode),
    /// The list makes no sense.
    #[error("the list of ConfigMaps can't be understood")]
    Malformed(#[from] serde_json::Error),
}

/// What a ConfigMap may hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Allowed {
    /// What was acknowledged last.
    acknowledged: Option<Sha256>,
    /// What was sent since then and never answered.
    unanswered: BTreeSet<Sha256>,
}

/// What was written, by the ConfigMaps' names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Ledger {
    maps: BTreeMap<String, Allowed>,
    acknowledged: u64,
    unanswered: u64,
    longest_gap: Duration,
}

impl Ledger {
    fn acknowledge(&mut self, name: &str, content: Sha256) {
        let allowed = self.maps.entry(name.to_owned()).or_default();
        *allowed = Allowed { acknowledged: Some(content), unanswered: BTreeSet::new() };
        self.acknowledged += 1;
    }

    fn leave_open(&mut self, name: &str, content: Sha256) {
        self.maps.entry(name.to_owned()).or_default().unanswered.insert(content);
        self.unanswered += 1;
    }

    /// Names of the ConfigMaps that are not as they were acknowledged.
    fn missing(&self, found: &BTreeMap<String, Sha256>) -> Vec<String> {
        let lost = |(name, allowed): &(&String, &Allowed)| match (allowed.acknowledged, found.get(*name)) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(acknowledged), Some(found)) => *found != acknowledged && !allowed.unanswered.contains(found),
        };
        self.maps.iter().filter(lost).map(|(name, _)| name.clone()).collect()
    }
}

/// What was found at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Writes that were acknowledged.
    pub acknowledged: u64,
    /// Writes without an answer, or refused.
    pub unanswered: u64,
    /// ConfigMaps whose acknowledged content is not there.
    pub missing: Vec<String>,
    /// The longest time between two acknowledgements.
    pub longest_gap: Duration,
}

/// Somebody who writes until told to stop.
#[derive(Debug)]
pub struct Writer {
    stop: watch::Sender<bool>,
    writing: JoinHandle<Ledger>,
    api: Api,
}

impl Writer {
    /// Begins to write to the cluster behind `endpoint`, a URL, as its administrator.
    pub fn start(connector: &Connector, endpoint: &str, secrets: &Secrets) -> Result<Self, WriterError> {
        let certificate = AdminCertificate::for_kubernetes(secrets, Timestamp::now(), CERTIFICATE_HOURS)?;
        let key = secrecy::ExposeSecret::expose_secret(certificate.key_pem()).as_bytes();
        let identity = Identity::from_pem(certificate.certificate_pem().as_bytes(), key)?;
        let trust = Trust::authorities(certificate.authority_pem().as_bytes())?;
        let http = Client::new(connector, tls::client_config(&trust, Some(identity))?, Versions::Http1);
        let api = Api { http, base: format!("{endpoint}/api/v1/namespaces/{NAMESPACE}/configmaps") };
        let (stop, stopped) = watch::channel(false);
        let writing = tokio::spawn(api.clone().write(stopped));
        Ok(Self { stop, writing, api })
    }

    /// Stops writing, reads everything back and compares.
    pub async fn finish(self) -> Result<Verdict, ReadError> {
        self.stop.send_replace(true);
        let ledger = self.writing.await.unwrap_or_default();
        let found = self.api.read().await?;
        let missing = ledger.missing(&found);
        let Ledger { acknowledged, unanswered, longest_gap, .. } = ledger;
        Ok(Verdict { acknowledged, unanswered, missing, longest_gap })
    }

    /// Stops writing; what became of the writes doesn't matter any more.
    pub fn abandon(self) {
        self.writing.abort();
    }
}

#[derive(Clone)]
struct Api {
    http: Client,
    base: String,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").field("base", &self.base).finish_non_exhaustive()
    }
}

impl Api {
    async fn write(self, mut stopped: watch::Receiver<bool>) -> Ledger {
        let mut ledger = Ledger::default();
        let mut last = Instant::now();
        for number in 0_u64.. {
            if *stopped.borrow() {
                break;
            }
            let (name, method) = target(number, &ledger);
            let text = format!("write {number}");
            let pause = if self.put(&name, &method, &text).await {
                ledger.acknowledge(&name, Sha256::of(text.as_bytes()));
                // The first acknowledgement ends no gap: the API may have been coming up.
                if ledger.acknowledged > 1 {
                    ledger.longest_gap = ledger.longest_gap.max(last.elapsed());
                }
                last = Instant::now();
                PACE
            } else {
                ledger.leave_open(&name, Sha256::of(text.as_bytes()));
                PAUSE
            };
            // Also after a stop in the middle of a pause nothing is left half-written.
            let _stopped_or_not = tokio::time::timeout(pause, stopped.changed()).await;
        }
        ledger
    }

    /// Writes one ConfigMap; whether that was acknowledged.
    async fn put(&self, name: &str, method: &Method, text: &str) -> bool {
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": NAMESPACE},
            "data": {"text": text}});
        let path = if *method == Method::POST { self.base.clone() } else { format!("{}/{name}", self.base) };
        let Ok(uri) = path.parse::<Uri>() else { return false };
        let mut request = Request { patience: PATIENCE, ..Request::new(method.clone(), uri) };
        request.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        request.body = Body::Exact(object.to_string().into());
        let Ok(answer) = self.http.send(request).await else { return false };
        let success = answer.status.is_success();
        // The acknowledgement is the whole answer: one that breaks off is none.
        answer.bytes(LIMIT).await.is_ok() && success
    }

    /// The digests of what is there, by name. The API may still be moving to another control plane.
    async fn read(&self) -> Result<BTreeMap<String, Sha256>, ReadError> {
        let since = Instant::now();
        loop {
            match self.read_once().await {
                Ok(found) => return Ok(found),
                Err(error) if since.elapsed() > READ_MAY_TAKE => return Err(error),
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    async fn read_once(&self) -> Result<BTreeMap<String, Sha256>, ReadError> {
        let uri: Uri = self.base.parse().map_err(|_| ReadError::Status(StatusCode::BAD_REQUEST))?;
        let answer = self.http.send(Request { patience: PATIENCE, ..Request::get(uri) }).await?;
        if answer.status != StatusCode::OK {
            return Err(ReadError::Status(answer.status));
        }
        let list: Value = serde_json::from_slice(&answer.bytes(LIMIT).await?)?;
        let items = list["items"].as_array().cloned().unwrap_or_default();
        let one = |item: &Value| {
            let name = item["metadata"]["name"].as_str()?.to_owned();
            let text = item["data"]["text"].as_str()?;
            name.starts_with(PREFIX).then(|| (name, Sha256::of(text.as_bytes())))
        };
        Ok(items.iter().filter_map(one).collect())
    }
}

/// What the write with this number is about: now and then an earlier ConfigMap that is known to be there.
fn target(number: u64, ledger: &Ledger) -> (String, Method) {
    let earlier = format!("{PREFIX}{}", number / 2);
    let there = ledger.maps.get(&earlier).is_some_and(|allowed| allowed.acknowledged.is_some());
    if number % CHANGES == CHANGES - 1 && there {
        return (earlier, Method::PUT);
    }
    (format!("{PREFIX}{number}"), Method::POST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(text: &str) -> Sha256 {
        Sha256::of(text.as_bytes())
    }

    #[test]
    fn what_was_acknowledged_must_be_there_and_what_was_not_answered_may_be() {
        let mut ledger = Ledger::default();
        ledger.acknowledge("a", digest("1"));
        ledger.acknowledge("b", digest("1"));
        ledger.leave_open("b", digest("2"));
        ledger.leave_open("c", digest("1"));
        let found = |maps: &[(&str, &str)]| {
            let found = maps.iter().map(|(name, text)| ((*name).to_owned(), digest(text))).collect();
            ledger.missing(&found)
        };
        assert_eq!(found(&[("a", "1"), ("b", "1")]), [""; 0], "c was never acknowledged");
        assert_eq!(found(&[("a", "1"), ("b", "2"), ("c", "1")]), [""; 0], "b's second write went through");
        assert_eq!(found(&[("a", "0"), ("b", "1")]), ["a"], "an older content is a lost write");
        assert_eq!(found(&[("b", "3")]), ["a", "b"]);
    }

    #[test]
    fn an_acknowledgement_settles_what_was_open() {
        let mut ledger = Ledger::default();
        ledger.leave_open("a", digest("1"));
        ledger.acknowledge("a", digest("2"));
        let found = BTreeMap::from([("a".to_owned(), digest("1"))]);
        assert_eq!(ledger.missing(&found), ["a"]);
        assert_eq!((ledger.acknowledged, ledger.unanswered), (1, 1));
    }

    #[test]
    fn only_what_is_known_to_be_there_is_changed() {
        let mut ledger = Ledger::default();
        assert_eq!(target(3, &ledger), (format!("{PREFIX}3"), Method::POST));
        ledger.acknowledge(&format!("{PREFIX}1"), digest("1"));
        assert_eq!(target(3, &ledger), (format!("{PREFIX}1"), Method::PUT));
    }
}
