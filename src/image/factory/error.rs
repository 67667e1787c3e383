//! Why the factory didn't give what was asked for, and whether to ask again.

use super::super::source::FetchError;
use crate::net::http::HttpError;
use crate::types::{SchematicId, Version};

/// Why the factory didn't give what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum FactoryError {
    /// The factory's address isn't one.
    #[error("'{url}' is not the https address of an image factory")]
    Url {
        /// What was given.
        url: String,
    },
    /// No answer.
    #[error("could not ask the image factory for {what}")]
    Fetch {
        /// What was asked for.
        what: String,
        /// Why.
        #[source]
        source: Box<FetchError>,
    },
    /// The factory doesn't serve this version.
    #[error("the image factory has no Talos {wish}{}; it has {}", if *broken { " (it is marked as broken)" } else { "" }, join(served))]
    UnknownVersion {
        /// What was wanted.
        wish: String,
        /// Whether the factory's operator marked it as broken.
        broken: bool,
        /// The newest release of every minor that is served, newest first, at most six.
        served: Vec<Version>,
    },
    /// The factory doesn't know this schematic: it has to be submitted there.
    #[error("the image factory does not know the schematic {id}")]
    UnknownSchematic {
        /// Its ID.
        id: SchematicId,
    },
    /// The factory asks for credentials, or they aren't enough.
    #[error("the image factory wants other credentials for {what} ({status}, request {request})")]
    Credentials {
        /// What was asked for.
        what: String,
        /// 401 or 403.
        status: u16,
        /// The request's ID in the factory's log.
        request: String,
        /// Whether it was another server that said so, to which the factory had redirected.
        redirected: bool,
    },
    /// Only the Enterprise edition has this.
    #[error("the image factory has {what} only in its Enterprise edition (402, request {request})")]
    Enterprise {
        /// What was asked for.
        what: String,
        /// The request's ID in the factory's log.
        request: String,
    },
    /// It can't or won't, and asking again changes nothing.
    #[error("the image factory refused {what}: {text} ({status}, request {request})")]
    Refused {
        /// What was asked for.
        what: String,
        /// The status.
        status: u16,
        /// Its words.
        text: String,
        /// The request's ID in the factory's log.
        request: String,
    },
    /// It can't now.
    #[error("the image factory could not give {what}: {text} ({status}, request {request})")]
    Unavailable {
        /// What was asked for.
        what: String,
        /// The status.
        status: u16,
        /// Its words.
        text: String,
        /// The request's ID in the factory's log.
        request: String,
        /// Seconds it asks to wait.
        retry_after: Option<u64>,
    },
    /// It answered something else than what was asked for.
    #[error("the image factory's answer to {what} is not what was expected: {text} (request {request})")]
    Answer {
        /// What was asked for.
        what: String,
        /// What is wrong with it.
        text: String,
        /// The request's ID in the factory's log.
        request: String,
    },
}

impl FactoryError {
    /// Whether the same question may well be answered later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Fetch { source, .. } => source.is_transient(),
            Self::Unavailable { .. } => true,
            _ => false,
        }
    }

    /// Whether no answer came in time: the factory goes on building, so asking again joins that build.
    pub fn is_building(&self) -> bool {
        let Self::Fetch { source, .. } = self else { return false };
        matches!(**source, FetchError::Http { source: HttpError::TimedOut { .. }, .. })
    }
}

fn join(versions: &[Version]) -> String {
    if versions.is_empty() {
        return "none".to_owned();
    }
    versions.iter().map(Version::tag).collect::<Vec<_>>().join(", ")
}
