//! Who calls: API token, or a user's ticket that is renewed.
//!
//! Purpose: the headers that authenticate a call. Tickets live two hours and are valid on every member of the cluster, so
//! one login serves all clients made from one. Must not know: what the call is. No secret is ever logged or shown.

use std::time::Duration;

use ::http::Method;
use ::http::header::{AUTHORIZATION, COOKIE, HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::client::{Call, Effect, Pve, judge, open};
use super::encode::Form;
use super::error::PveError;

/// Tickets live two hours; an older one isn't worth a try when its renewal failed.
const TICKET_LIFE: Duration = Duration::from_mins(110);
const CSRF: HeaderName = HeaderName::from_static("csrfpreventiontoken");

/// Who calls.
#[derive(Clone, Debug)]
pub enum Auth {
    /// An API token.
    Token {
        /// `user@realm!tokenid`.
        id: String,
        /// Its secret, a UUID.
        secret: SecretString,
    },
    /// A user who logs in.
    Password {
        /// `user@realm`.
        user: String,
        /// The password.
        password: SecretString,
    },
}

struct Session {
    ticket: SecretString,
    csrf: SecretString,
    since: Instant,
}

/// Credentials and what became of them; shared by all clients of one cluster.
pub(super) struct Login {
    pub(super) auth: Auth,
    session: Mutex<Option<Session>>,
    renew_after: Duration,
}

impl Login {
    /// Nobody has logged in yet.
    pub(super) fn new(auth: Auth, renew_after: Duration) -> Self {
        Self { auth, session: Mutex::new(None), renew_after }
    }
}

#[derive(Deserialize)]
struct TicketData {
    ticket: Option<String>,
    #[serde(rename = "CSRFPreventionToken")]
    csrf: Option<String>,
    #[serde(rename = "NeedTFA", default)]
    need_tfa: Option<IgnoredAny>,
}

impl Pve {
    /// The headers that say who calls. `refused` is the cookie that PVE has just turned down.
    pub(super) async fn credentials(
        &self,
        method: &Method,
        refused: Option<&HeaderValue>,
    ) -> Result<HeaderMap, PveError> {
        let mut headers = HeaderMap::new();
        match &self.inner.login.auth {
            Auth::Token { id, secret } => {
                // The header is percent-decoded by PVE; a `%` is the only character in question.
                let value = format!("PVEAPIToken={}={}", id.replace('%', "%25"), secret.expose_secret());
                headers.insert(AUTHORIZATION, secret_header(&value)?);
            }
            Auth::Password { user, password } => {
                let mut session = self.inner.login.session.lock().await;
                self.refresh(&mut session, user, password, refused).await?;
                if let Some(Session { ticket, csrf, .. }) = &*session {
                    headers.insert(COOKIE, cookie(ticket)?);
                    if method != Method::GET {
                        headers.insert(CSRF, secret_header(csrf.expose_secret())?);
                    }
                }
            }
        }
        Ok(headers)
    }

    /// Leaves a usable session behind, or says why there is none.
    async fn refresh(
        &self,
        session: &mut Option<Session>,
        user: &str,
        password: &SecretString,
        refused: Option<&HeaderValue>,
    ) -> Result<(), PveError> {
        if let (Some(current), Some(refused)) = (&*session, refused)
            && cookie(&current.ticket)? == *refused
        {
            *session = None;
        }
        let Some(current) = &*session else {
            *session = Some(self.log_in(user, password).await?);
            return Ok(());
        };
        let age = current.since.elapsed();
        if age < self.inner.login.renew_after {
            return Ok(());
        }
        // A valid ticket is its own password.
        match self.log_in(user, &current.ticket).await {
            Ok(renewed) => *session = Some(renewed),
            Err(PveError::Unauthorized { .. }) => *session = Some(self.log_in(user, password).await?),
            Err(_) if age < TICKET_LIFE => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Logging in changes nothing, so it may go to any member like a read.
    async fn log_in(&self, user: &str, password: &SecretString) -> Result<Session, PveError> {
        let path = "/access/ticket";
        let form = Form::new().with("username", user).with("password", password.expose_secret());
        let call = Call { method: Method::POST, path, form: &form, effect: Effect::None };
        tracing::debug!(path, "PVE login");
        let received = self.read(&call, &HeaderMap::new()).await?;
        let TicketData { ticket, csrf, need_tfa } = open(path, &judge(&call, received)?)?;
        match (ticket, csrf) {
            _ if need_tfa.is_some() => Err(PveError::SecondFactor),
            (Some(ticket), Some(csrf)) => {
                Ok(Session { ticket: ticket.into(), csrf: csrf.into(), since: Instant::now() })
            }
            _ => Err(PveError::Unauthorized { reason: "the login gave no ticket".to_owned() }),
        }
    }
}

fn cookie(ticket: &SecretString) -> Result<HeaderValue, PveError> {
    secret_header(&format!("PVEAuthCookie={}", ticket.expose_secret()))
}

fn secret_header(text: &str) -> Result<HeaderValue, PveError> {
    let mut value = HeaderValue::from_str(text).map_err(|error| PveError::Setup {
        what: "the credentials hold characters that can't be sent".to_owned(),
        source: Some(Box::new(error)),
    })?;
    value.set_sensitive(true);
    Ok(value)
}
