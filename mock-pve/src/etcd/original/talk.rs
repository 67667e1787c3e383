//! One member's API, by the JSON gateway that etcd has since 3.4.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::{CLIENTS, PEERS, url};

/// How long an answer may take; etcd itself gives up after seven seconds.
const PATIENCE: Duration = Duration::from_secs(8);

/// Why there is no answer, or no good one.
#[derive(Debug, thiserror::Error)]
pub enum TalkError {
    /// Nobody answers in time, or the connection broke. What was asked may have been done.
    #[error("no answer from etcd at {address}: {why}")]
    Silent {
        /// Where.
        address: SocketAddr,
        /// Why.
        why: String,
    },
    /// It said no.
    #[error("{0}")]
    Refused(String),
}

/// What a member says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// Its id.
    pub id: u64,
    /// Whom it follows; 0: nobody.
    pub leader: u64,
    /// raft term.
    pub term: u64,
    /// Index of the last entry that it knows to be committed.
    pub index: u64,
    /// Index of the last entry that it applied.
    pub applied: u64,
    /// It has no vote.
    pub learner: bool,
    /// What it complains about.
    pub errors: Vec<String>,
}

/// A member, as another one lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its id.
    pub id: u64,
    /// Its name; empty until it started for the first time.
    pub name: String,
    /// Where it listens for the others.
    pub address: Option<IpAddr>,
    /// It has no vote.
    pub learner: bool,
}

/// The way to one member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Talk {
    address: SocketAddr,
}

/// What came back from the gateway.
enum Answer {
    /// What was asked for.
    Good(Bytes),
    /// Why not.
    Bad(Bytes),
}

/// The gateway writes 64 bits as text, and leaves out what is 0.
fn number(value: &Value) -> u64 {
    value.as_u64().or_else(|| value.as_str()?.parse().ok()).unwrap_or_default()
}

fn texts(value: &Value) -> impl Iterator<Item = &str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn listed(member: &Value) -> Listed {
    let address = texts(&member["peerURLs"]).find_map(|url| url.strip_prefix("http://")?.parse::<SocketAddr>().ok());
    Listed {
        id: number(&member["ID"]),
        name: member["name"].as_str().unwrap_or_default().to_owned(),
        address: address.map(|address| address.ip()),
        learner: member["isLearner"] == true,
    }
}

impl Talk {
    /// To the member that listens at an address.
    pub fn at(address: IpAddr) -> Self {
        Self { address: SocketAddr::new(address, CLIENTS) }
    }

    /// Writes a key; answers once a majority has it.
    pub async fn put(self, key: &str, value: &str) -> Result<(), TalkError> {
        let body = json!({ "key": STANDARD.encode(key), "value": STANDARD.encode(value) });
        self.call("/v3/kv/put", &body).await.map(drop)
    }

    /// A key's value, as all that was acknowledged before left it: a linearizable read.
    pub async fn get(self, key: &str) -> Result<Option<String>, TalkError> {
        let found = self.call("/v3/kv/range", &json!({ "key": STANDARD.encode(key) })).await?;
        let value = found["kvs"][0]["value"].as_str();
        Ok(value.and_then(|value| String::from_utf8(STANDARD.decode(value).ok()?).ok()))
    }

    /// What it says of itself.
    pub async fn status(self) -> Result<Said, TalkError> {
        let said = self.call("/v3/maintenance/status", &json!({})).await?;
        Ok(Said {
            id: number(&said["header"]["member_id"]),
            leader: number(&said["leader"]),
            term: number(&said["raftTerm"]),
            index: number(&said["raftIndex"]),
            applied: number(&said["raftAppliedIndex"]),
            learner: said["isLearner"] == true,
            errors: texts(&said["errors"]).map(str::to_owned).collect(),
        })
    }

    /// The members of its cluster.
    pub async fn members(self) -> Result<Vec<Listed>, TalkError> {
        let found = self.call("/v3/cluster/member/list", &json!({})).await?;
        Ok(found["members"].as_array().into_iter().flatten().map(listed).collect())
    }

    /// A member that is about to start at that address joins, without a vote; all members since.
    pub(super) async fn add(self, address: IpAddr) -> Result<Vec<Listed>, TalkError> {
        let body = json!({ "peerURLs": [url(address, PEERS)], "isLearner": true });
        let added = self.call("/v3/cluster/member/add", &body).await?;
        Ok(added["members"].as_array().into_iter().flatten().map(listed).collect())
    }

    /// A learner gets a vote, once it has what the leader has.
    pub(super) async fn promote(self, id: u64) -> Result<(), TalkError> {
        self.call("/v3/cluster/member/promote", &json!({ "ID": id.to_string() })).await.map(drop)
    }

    /// A member goes, for ever.
    pub async fn remove(self, id: u64) -> Result<(), TalkError> {
        self.call("/v3/cluster/member/remove", &json!({ "ID": id.to_string() })).await.map(drop)
    }

    /// This member, which leads, makes that one the leader.
    pub(super) async fn hand_over(self, to: u64) -> Result<(), TalkError> {
        self.call("/v3/maintenance/transfer-leadership", &json!({ "targetID": to.to_string() })).await.map(drop)
    }

    async fn call(self, path: &str, body: &Value) -> Result<Value, TalkError> {
        let address = self.address;
        let silent = |why: String| TalkError::Silent { address, why };
        let answer = match tokio::time::timeout(PATIENCE, self.send(path, body)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(why)) => return Err(silent(why.to_string())),
            Err(_) => return Err(silent(format!("nothing within {} s", PATIENCE.as_secs()))),
        };
        let read = |bytes: &Bytes| serde_json::from_slice::<Value>(bytes).unwrap_or_default();
        let bytes = match answer {
            Answer::Good(bytes) => match read(&bytes) {
                answer @ Value::Object(_) => return Ok(answer),
                _ => bytes,
            },
            Answer::Bad(bytes) => bytes,
        };
        let complaint = read(&bytes);
        let said = complaint["error"].as_str().or_else(|| complaint["message"].as_str()).map(str::to_owned);
        Err(TalkError::Refused(said.unwrap_or_else(|| String::from_utf8_lossy(&bytes).trim().to_owned())))
    }

    /// One request on a connection of its own.
    async fn send(self, path: &str, body: &Value) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // It ends with the answer's body.
        tokio::spawn(connection);
        let request = http::Request::post(path)
            .header("host", self.address.to_string())
            .header("content-type", "application/json")
            .header("connection", "close")
            .body(Full::new(Bytes::from(body.to_string())))?;
        let response = sender.send_request(request).await?;
        let good = response.status().is_success();
        let bytes = response.into_body().collect().await?.to_bytes();
        Ok(if good { Answer::Good(bytes) } else { Answer::Bad(bytes) })
    }
}
