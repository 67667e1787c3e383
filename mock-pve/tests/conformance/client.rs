//! A client that sends exactly what it is told to, one request to a connection.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Percent-encodes all but letters, digits and `-_.~`.
pub(crate) fn quote(text: &str) -> String {
    utf8_percent_encode(text, PLAIN).to_string()
}

/// A form, with `+` for blanks.
pub(crate) fn form(pairs: &[(String, String)]) -> String {
    let encode = |text: &str| quote(text).replace("%20", "+");
    pairs.iter().map(|(key, value)| format!("{}={}", encode(key), encode(value))).collect::<Vec<_>>().join("&")
}

/// What is sent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Option<Vec<u8>>,
}

/// What came back.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) reason: String,
    pub(crate) text: String,
}

/// The double, and the secrets to be let in.
pub(crate) struct Server {
    address: String,
    connector: TlsConnector,
    secrets: BTreeMap<String, String>,
    tickets: Mutex<BTreeMap<String, (String, String)>>,
}

/// Who an identity is: `ticket` or `token`, the name, and the variable that holds the secret.
fn who(identity: &str) -> Option<(&'static str, &'static str, &'static str)> {
    Some(match identity {
        "root" => ("ticket", "root@pam", "PVE_PASSWORD"),
        "ci" => ("ticket", "ci@pve", "PVE_PASSWORD"),
        "limited-user" => ("ticket", "limited@pve", "PVE_PASSWORD"),
        "full" => ("token", "ci@pve!full", "PVE_TOKEN_FULL"),
        "sep" => ("token", "ci@pve!sep", "PVE_TOKEN_SEP"),
        "limited" => ("token", "limited@pve!lim", "PVE_TOKEN_LIMITED"),
        "nobody" => ("token", "nobody@pve!none", "PVE_TOKEN_NOBODY"),
        "root-token" => ("token", "root@pam!rt", "PVE_TOKEN_ROOT"),
        _ => return None,
    })
}

impl Server {
    pub(crate) fn new(url: &str, ca: &Path, secrets: BTreeMap<String, String>) -> Self {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&std::fs::read(ca).unwrap()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self {
            address: url.trim_start_matches("https://").to_owned(),
            connector: TlsConnector::from(Arc::new(config)),
            secrets,
            tickets: Mutex::default(),
        }
    }

    /// Sends one request; `Err` says why there is no answer.
    pub(crate) async fn send(&self, asked: &Asked) -> Result<Answer, String> {
        let exchange = async {
            let stream = TcpStream::connect(&self.address).await?;
            let name = ServerName::try_from("localhost").map_err(std::io::Error::other)?;
            let mut stream = self.connector.connect(name, stream).await?;
            let mut head = format!("{} {} HTTP/1.1\r\nHost: localhost\r\n", asked.method, asked.target);
            let mut headers = asked.headers.clone();
            if asked.body.is_some() || matches!(asked.method.as_str(), "POST" | "PUT") {
                let length = asked.body.as_ref().map_or(0, Vec::len);
                headers.entry("content-length".to_owned()).or_insert(length.to_string());
            }
            headers.entry("connection".to_owned()).or_insert("close".to_owned());
            for (name, value) in headers {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
            head.push_str("\r\n");
            let mut request = head.into_bytes();
            request.extend_from_slice(asked.body.as_deref().unwrap_or_default());
            // The server may answer, and close, before it has read everything.
            let _ = stream.write_all(&request).await;
            let _ = stream.flush().await;
            let mut answer = Vec::new();
            let read = stream.read_to_end(&mut answer).await;
            if answer.is_empty() {
                read?;
            }
            Ok::<_, std::io::Error>(answer)
        };
        let answer = match tokio::time::timeout(Duration::from_secs(90), exchange).await {
            Ok(Ok(answer)) => String::from_utf8_lossy(&answer).into_owned(),
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_) => return Err("no answer".to_owned()),
        };
        let (head, text) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let mut words = head.lines().next().unwrap_or_default().splitn(3, ' ').skip(1);
        let status = words.next().and_then(|word| word.parse().ok()).ok_or("no status line")?;
        let reason = words.next().unwrap_or_default().trim().to_owned();
        Ok(Answer { status, reason, text: text.to_owned() })
    }

    /// The secret of an identity.
    pub(crate) fn secret(&self, identity: &str) -> String {
        who(identity).and_then(|(_, _, variable)| self.secrets.get(variable)).cloned().unwrap_or_default()
    }

    /// Ticket and CSRF token of an identity.
    pub(crate) async fn ticket(&self, identity: &str) -> (String, String) {
        if let Some(known) = self.tickets.lock().unwrap().get(identity) {
            return known.clone();
        }
        let name = who(identity).map_or("", |(_, name, _)| name).to_owned();
        let pairs = [("username".to_owned(), name), ("password".to_owned(), self.secret(identity))];
        let asked = Asked {
            method: "POST".to_owned(),
            target: "/api2/json/access/ticket".to_owned(),
            headers: BTreeMap::from([("content-type".to_owned(), "application/x-www-form-urlencoded".to_owned())]),
            body: Some(form(&pairs).into_bytes()),
        };
        let text = self.send(&asked).await.map(|answer| answer.text).unwrap_or_default();
        let answer: Value = serde_json::from_str(&text).unwrap_or_default();
        let part = |key: &str| answer["data"][key].as_str().unwrap_or_default().to_owned();
        let got = (part("ticket"), part("CSRFPreventionToken"));
        self.tickets.lock().unwrap().insert(identity.to_owned(), got.clone());
        got
    }

    /// The headers that let an identity in.
    pub(crate) async fn credentials(&self, identity: &str, method: &str) -> BTreeMap<String, String> {
        match who(identity) {
            None => BTreeMap::new(),
            Some(("token", name, _)) => {
                let value = format!("PVEAPIToken={name}={}", self.secret(identity));
                BTreeMap::from([("authorization".to_owned(), value)])
            }
            Some(_) => {
                let (ticket, csrf) = self.ticket(identity).await;
                let mut headers = BTreeMap::from([("cookie".to_owned(), format!("PVEAuthCookie={}", quote(&ticket)))]);
                if method != "GET" {
                    headers.insert("csrfpreventiontoken".to_owned(), csrf);
                }
                headers
            }
        }
    }
}
