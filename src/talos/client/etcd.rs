//! etcd through the machine that runs it: members, state, snapshots, the bootstrap.
//!
//! Purpose: the calls that may lose or save a cluster, each with its rule beside it. Must not know: files, quorum
//! arithmetic, what a snapshot holds. Start reading at [`Machine::bootstrap`].

use std::future::{Future, ready};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;

use super::{Download, Machine, TalosError};
use crate::net::Meter;
use crate::talos::proto::common::Data;
use crate::talos::proto::machine::{
    BootstrapRequest, EtcdForfeitLeadershipRequest, EtcdMemberListRequest, EtcdRemoveMemberByIdRequest,
    EtcdSnapshotRequest, etcd_member_alarm::AlarmType,
};

/// What Talos' own client sends per message.
const UPLOAD_CHUNK: usize = 4096;

/// How long one bootstrap call may take; it answers at once, or after up to 5 s when it waits for the clock to be set.
const BOOTSTRAP_WITHIN: Duration = Duration::from_secs(8);

/// Between two bootstrap calls.
const BOOTSTRAP_PAUSE: Duration = Duration::from_millis(500);

/// A member of an etcd cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its id; people see it as 16 hex digits.
    pub id: u64,
    /// Its host name; empty while it hasn't started.
    pub name: String,
    /// Where the others reach it.
    pub peer_urls: Vec<String>,
    /// Whether it doesn't vote (yet).
    pub is_learner: bool,
}

/// Whose list of members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// What the machine's own member has stored: answers without quorum.
    Itself,
    /// What the cluster agrees on.
    Cluster,
}

/// What one member knows of itself and its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberStatus {
    /// Its id.
    pub id: u64,
    /// The leader's id as it sees it; 0 for none.
    pub leader: u64,
    /// The raft term.
    pub term: u64,
    /// The last entry in its log.
    pub index: u64,
    /// The last entry it applied.
    pub applied: u64,
    /// Its etcd version.
    pub version: String,
    /// Bytes of its database file.
    pub db_bytes: u64,
    /// Whether it doesn't vote (yet).
    pub is_learner: bool,
    /// What it complains about.
    pub errors: Vec<String>,
}

/// What is wrong with a member's storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alarm {
    /// Its quota is used up; it takes no writes.
    NoSpace,
    /// Its data differ from the others'.
    Corrupt,
}

/// What etcd starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// Nothing: a new cluster.
    Fresh,
    /// The snapshot uploaded before, its SHA-256 trailer checked.
    Snapshot,
    /// The snapshot uploaded before, which has no trailer (a copy of the db file).
    Database,
}

/// Whether this run asked for the bootstrap before. Talos can't tell its own earlier success from somebody else's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// Nobody asked: data that are there already are somebody else's.
    First,
    /// This run asked and never heard the answer: data that are there already are its own.
    Repeated,
}

/// How a bootstrap came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bootstrapped {
    /// By this call.
    Now,
    /// By an earlier attempt of ours whose answer was lost.
    Before,
}

/// What an upload consists of.
enum Part {
    Data(Vec<u8>),
    End,
}

impl Part {
    fn data(self) -> Option<Data> {
        match self {
            Self::Data(bytes) => Some(Data { metadata: None, bytes }),
            Self::End => None,
        }
    }
}

impl Machine {
    /// The members of its etcd. Control planes only.
    pub async fn etcd_members(&self, ask: Ask) -> Result<Vec<Member>, TalosError> {
        let call = "EtcdMemberList";
        let request = EtcdMemberListRequest { query_local: ask == Ask::Itself };
        let answer = self.link.answer(call, self.link.machine().etcd_member_list(request)).await?;
        let members = self.link.only(call, answer.messages)?.members;
        let to_member = |member: crate::talos::proto::machine::EtcdMember| Member {
            id: member.id,
            name: member.hostname,
            peer_urls: member.peer_urls,
            is_learner: member.is_learner,
        };
        Ok(members.into_iter().map(to_member).collect())
    }

    /// What its member knows.
    pub async fn etcd_status(&self) -> Result<MemberStatus, TalosError> {
        let call = "EtcdStatus";
        let answer = self.link.answer(call, self.link.machine().etcd_status(())).await?;
        let status = self.link.only(call, answer.messages)?.member_status;
        let status = status.ok_or_else(|| self.link.answer_is(call, "no status"))?;
        Ok(MemberStatus {
            id: status.member_id,
            leader: status.leader,
            term: status.raft_term,
            index: status.raft_index,
            applied: status.raft_applied_index,
            version: status.protocol_version,
            db_bytes: u64::try_from(status.db_size).unwrap_or_default(),
            is_learner: status.is_learner,
            errors: status.errors,
        })
    }

    /// Alarms by member id.
    pub async fn etcd_alarms(&self) -> Result<Vec<(u64, Alarm)>, TalosError> {
        let call = "EtcdAlarmList";
        let answer = self.link.answer(call, self.link.machine().etcd_alarm_list(())).await?;
        // One message per answer, none when there is nothing to tell.
        let alarms = answer.messages.into_iter().flat_map(|message| message.member_alarms);
        Ok(alarms
            .filter_map(|alarm| match alarm.alarm() {
                AlarmType::None => None,
                AlarmType::Nospace => Some((alarm.member_id, Alarm::NoSpace)),
                AlarmType::Corrupt => Some((alarm.member_id, Alarm::Corrupt)),
            })
            .collect())
    }

    /// Hands leadership over; the new leader's name, `None` when it wasn't the leader.
    pub async fn etcd_forfeit_leadership(&self) -> Result<Option<String>, TalosError> {
        let call = "EtcdForfeitLeadership";
        let request = EtcdForfeitLeadershipRequest {};
        let answer = self.link.answer(call, self.link.machine().etcd_forfeit_leadership(request)).await?;
        Ok(Some(self.link.only(call, answer.messages)?.member).filter(|member| !member.is_empty()))
    }

    /// Removes another member. [`TalosError::NotFound`] when it is none.
    pub async fn etcd_remove_member(&self, member_id: u64) -> Result<(), TalosError> {
        let request = EtcdRemoveMemberByIdRequest { member_id };
        self.link.answer("EtcdRemoveMemberByID", self.link.machine().etcd_remove_member_by_id(request)).await.map(drop)
    }

    /// A snapshot, as a stream that may be cut off and still end well: only its own trailer proves it whole.
    pub async fn etcd_snapshot(&self) -> Result<Download, TalosError> {
        self.link.download("EtcdSnapshot", self.link.machine().etcd_snapshot(EtcdSnapshotRequest {})).await
    }

    /// Uploads a snapshot for the bootstrap that follows; an earlier upload is replaced. An upload that isn't finished is
    /// thrown away by the machine.
    pub async fn etcd_recover(
        &self,
        mut snapshot: impl AsyncRead + Unpin,
        meter: &dyn Meter,
    ) -> Result<(), TalosError> {
        let call = "EtcdRecover";
        let (chunks, upload) = mpsc::channel(64);
        // The end must be said: a channel that just closes (a failed read, a cancelled run) leaves the request unfinished, to
        // be reset, instead of handing the machine half a snapshot that looks whole.
        let upload = ReceiverStream::new(upload)
            .chain(stream::pending())
            .take_while(|part: &Part| ready(matches!(part, Part::Data(_))))
            .filter_map(|part| ready(part.data()));
        let mut client = self.link.machine();
        let answer = client.etcd_recover(upload);
        let feed = async {
            let mut buffer = vec![0; UPLOAD_CHUNK];
            loop {
                let got = snapshot.read(&mut buffer).await.map_err(|source| TalosError::Source { call, source })?;
                let part = if got == 0 { Part::End } else { Part::Data(buffer[..got].to_vec()) };
                match timeout(self.link.patience, chunks.send(part)).await {
                    Err(_) => return Err(self.link.silence(call)),
                    // Nobody takes it any more: the call is over, and its answer says why.
                    Ok(Err(_)) => return Ok(()),
                    Ok(Ok(())) if got == 0 => return Ok(()),
                    Ok(Ok(())) => meter.add(got as u64),
                }
            }
        };
        self.finish_upload(call, answer, feed).await
    }

    /// Waits for the answer once everything is fed; a feed that fails drops the call.
    async fn finish_upload<T>(
        &self,
        call: &'static str,
        answer: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
        feed: impl Future<Output = Result<(), TalosError>>,
    ) -> Result<(), TalosError> {
        tokio::pin!(answer, feed);
        tokio::select! {
            done = &mut feed => done?,
            early = &mut answer => return early.map(drop).map_err(|status| self.link.error(call, status)),
        }
        self.link.answer(call, answer).await.map(drop)
    }

    /// Bootstraps etcd on this control plane: once in a cluster's life, on one machine. Repeats the call for `within` while
    /// the machine isn't ready or isn't heard. Success says only that etcd was told to start: whether it could (a bad
    /// snapshot doesn't fail this call) shows in its service.
    ///
    /// [`TalosError::AlreadyExists`] counts as done only when an attempt of ours may have arrived, in this call or before.
    pub async fn bootstrap(
        &self,
        from: Recovery,
        attempt: Attempt,
        within: Duration,
    ) -> Result<Bootstrapped, TalosError> {
        let call = "Bootstrap";
        let request = BootstrapRequest {
            recover_etcd: from != Recovery::Fresh,
            recover_skip_hash_check: from == Recovery::Database,
        };
        let until = Instant::now() + within;
        let link = self.link.waiting(BOOTSTRAP_WITHIN.min(within));
        let mut maybe_ours = attempt == Attempt::Repeated;
        loop {
            let error = match link.answer(call, link.machine().bootstrap(request)).await {
                Ok(_) => return Ok(Bootstrapped::Now),
                Err(TalosError::AlreadyExists { .. }) if maybe_ours => return Ok(Bootstrapped::Before),
                Err(error) => error,
            };
            maybe_ours |= error.may_have_arrived();
            if !error.is_transient() || Instant::now() + BOOTSTRAP_PAUSE >= until {
                return Err(error);
            }
            tracing::debug!(address = %link.address, %error, "bootstrap isn't possible yet");
            sleep(BOOTSTRAP_PAUSE).await;
        }
    }
}
