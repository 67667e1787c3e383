//! Talos' own health check of a cluster, run by a control plane.
//!
//! Purpose: follow its lines, say how it ended. Must not know: what is done about it.

use std::fmt;
use std::time::Duration;

use tokio::time::timeout;
use tonic::Code;

use super::{Machine, TalosError};
use crate::talos::proto::cluster::{ClusterInfo, HealthCheckRequest};

/// What the check is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Addresses of all control planes.
    pub control_planes: Vec<String>,
    /// Addresses of all workers.
    pub workers: Vec<String>,
    /// How long it may take until everything is well.
    pub within: Duration,
}

/// Where one check of the list stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Not looked at yet.
    Waiting,
    /// Not well, in Talos' words.
    Failing(String),
    /// Well.
    Ok,
    /// Doesn't apply here.
    Skipped,
}

/// One line of the check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// A check changed its standing.
    Check {
        /// `etcd to be healthy` …
        about: String,
        /// How it is now.
        standing: Standing,
    },
    /// Anything else, such as the list of nodes.
    Note(String),
}

impl Line {
    fn parse(text: &str) -> Self {
        let Some((about, standing)) = text.strip_prefix("waiting for ").and_then(|rest| rest.split_once(": ")) else {
            return Self::Note(text.to_owned());
        };
        let standing = match standing {
            "..." => Standing::Waiting,
            "OK" => Standing::Ok,
            "SKIP" => Standing::Skipped,
            failing => Standing::Failing(failing.to_owned()),
        };
        Self::Check { about: about.to_owned(), standing }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Note(text) => f.write_str(text),
            Self::Check { about, standing } => {
                write!(f, "{about}: ")?;
                match standing {
                    Standing::Waiting => f.write_str("…"),
                    Standing::Failing(why) => f.write_str(why),
                    Standing::Ok => f.write_str("OK"),
                    Standing::Skipped => f.write_str("skipped"),
                }
            }
        }
    }
}

/// Why a cluster didn't turn out healthy.
#[derive(Debug, thiserror::Error)]
pub enum HealthError {
    /// The check ran to the end of its time.
    #[error("the cluster is not healthy: {last}")]
    Unhealthy {
        /// The line it stood at.
        last: String,
    },
    /// The check itself didn't get through.
    #[error(transparent)]
    Talos(#[from] TalosError),
}

impl Machine {
    /// Has this control plane check the cluster; `heard` is told each line. Ends when all is well, or with the reason.
    pub async fn check_health(&self, question: &Question, mut heard: impl FnMut(&Line)) -> Result<(), HealthError> {
        let call = "HealthCheck";
        let seconds = i64::try_from(question.within.as_secs().max(1)).unwrap_or(i64::MAX);
        let request = HealthCheckRequest {
            // Zero would be over at once.
            wait_timeout: Some(prost_types::Duration { seconds, nanos: 0 }),
            cluster_info: Some(ClusterInfo {
                control_plane_nodes: question.control_planes.clone(),
                worker_nodes: question.workers.clone(),
                force_endpoint: String::new(),
            }),
        };
        let mut stream = self.link.answer(call, self.link.cluster().health_check(request)).await?;
        let mut last = "the check said nothing".to_owned();
        // Lines come only when something changes, so the whole check shares one deadline; a dead connection is noticed by
        // its pings.
        let deadline = question.within + self.link.patience;
        let follow = async {
            loop {
                match stream.message().await {
                    Ok(None) => return Ok(()),
                    Ok(Some(progress)) => {
                        if let Some(metadata) = progress.metadata.filter(|metadata| !metadata.error.is_empty()) {
                            return Err(HealthError::Unhealthy { last: metadata.error });
                        }
                        let line = Line::parse(&progress.message);
                        heard(&line);
                        last = line.to_string();
                    }
                    Err(status) if status.code() == Code::DeadlineExceeded => {
                        return Err(HealthError::Unhealthy { last: std::mem::take(&mut last) });
                    }
                    Err(status) => return Err(self.link.error(call, status).into()),
                }
            }
        };
        timeout(deadline, follow).await.unwrap_or_else(|_| Err(self.link.waiting(deadline).silence(call).into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_talos_writes_them() {
        let check = |about: &str, standing| Line::Check { about: about.to_owned(), standing };
        for (text, line) in [
            ("waiting for etcd to be healthy: ...", check("etcd to be healthy", Standing::Waiting)),
            ("waiting for etcd to be healthy: OK", check("etcd to be healthy", Standing::Ok)),
            ("waiting for kube-proxy to report ready: SKIP", check("kube-proxy to report ready", Standing::Skipped)),
            (
                "waiting for apid to be ready: 1 error occurred: refused",
                check("apid to be ready", Standing::Failing("1 error occurred: refused".to_owned())),
            ),
            ("discovered nodes: [\"10.0.0.11\"]", Line::Note("discovered nodes: [\"10.0.0.11\"]".to_owned())),
        ] {
            assert_eq!(Line::parse(text), line);
        }
    }
}
