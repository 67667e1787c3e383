//! Which control plane stays, when the next one may go, and what makes a final snapshot valid.
//!
//! Purpose: the rules of design §3 as pure functions over one look at the old cluster, so that every bad moment is a row
//! of a table. Must not know: clients, clocks. Start reading at [`next`].
//!
//! Why it holds: a leader has every entry that was ever committed in its term. Quorum is taken away only while exactly a
//! majority runs and all of it follows the kept member in one term. From then on nobody can be elected but in a later
//! term with the kept member's vote, and nothing can be committed. So while the kept member's term stays what it was and
//! all others are off, what it has applied is everything that was ever acknowledged.

use std::collections::BTreeSet;

/// A member of etcd, as one of the machines lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::steps) struct Voter {
    pub(in crate::steps) id: u64,
    pub(in crate::steps) name: String,
    pub(in crate::steps) learner: bool,
}

/// What one member says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::steps) struct Said {
    pub(in crate::steps) id: u64,
    /// 0 for none.
    pub(in crate::steps) leader: u64,
    pub(in crate::steps) term: u64,
    /// The last entry that it knows to be committed.
    pub(in crate::steps) committed: u64,
    /// The last entry that it applied.
    pub(in crate::steps) applied: u64,
    pub(in crate::steps) learner: bool,
    pub(in crate::steps) errors: Vec<String>,
    /// What its list of members holds; none once quorum is gone and no list is asked for.
    pub(in crate::steps) members: Option<Vec<Voter>>,
}

/// A control plane, as it was just looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::steps) enum Voice {
    /// Its VM is positively stopped.
    Off,
    /// It runs and answers.
    Says(Said),
    /// Its VM runs, and its etcd does not answer.
    Silent(String),
}

/// A control plane's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::steps) struct Seat {
    pub(in crate::steps) name: String,
    pub(in crate::steps) voice: Voice,
}

/// What the kept member is held to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::steps) struct Promise {
    pub(in crate::steps) name: String,
    pub(in crate::steps) id: u64,
    pub(in crate::steps) term: u64,
    /// What it had applied when the promise was made.
    pub(in crate::steps) applied: u64,
}

/// What is known beside one look.
pub(in crate::steps) struct Known<'a> {
    /// Ids of the members when the backup was made.
    pub(in crate::steps) members: &'a BTreeSet<u64>,
    /// Alarms, in words.
    pub(in crate::steps) alarms: &'a [String],
    /// Those that this try shut down.
    pub(in crate::steps) stopped: &'a BTreeSet<String>,
    /// Made before quorum was taken away.
    pub(in crate::steps) promise: Option<&'a Promise>,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::steps) enum Move {
    /// Look again: it may pass.
    Wait(String),
    /// Shut this one down: quorum survives, or is gone already.
    Stop(String),
    /// Shut this one down, which takes quorum away, and hold the kept member to its promise.
    Break(String, Promise),
    /// Nothing can be committed any more, and this is the last index.
    Frozen(Promise, u64),
    /// There is one member only: it is kept as it is, and its writes go on until it goes down.
    Alone(Promise),
    /// Start what was shut down and choose again.
    StartAgain(String),
    /// It can't be done with this cluster.
    Refuse(String),
}

/// The next move of a freeze.
pub(in crate::steps) fn next(seats: &[Seat], known: &Known<'_>) -> Move {
    match known.promise {
        Some(promise) => after_the_break(seats, known, promise),
        None => before_the_break(seats, known),
    }
}

fn before_the_break(seats: &[Seat], known: &Known<'_>) -> Move {
    let back = seats.iter().find(|seat| known.stopped.contains(&seat.name) && seat.voice != Voice::Off);
    if let Some(back) = back {
        return Move::StartAgain(format!("{} was started again by someone", back.name));
    }
    let (majority, running) = (seats.len() / 2 + 1, seats.iter().filter(|seat| seat.voice != Voice::Off).count());
    if running < majority {
        return Move::StartAgain(format!("{running} of {} control planes run, which is no quorum", seats.len()));
    }
    let speaking = match voices(seats) {
        Ok(speaking) => speaking,
        Err(why) => return Move::Wait(why),
    };
    if let Some(why) = membership(seats, &speaking, known) {
        return Move::Refuse(why);
    }
    let (leader, term) = match leader(&speaking) {
        Ok(leader) => leader,
        Err(why) => return Move::Wait(why),
    };
    if let Some(why) = complaint(&speaking, known.alarms) {
        return Move::Refuse(why);
    }
    let promise = Promise { name: leader.0.name.clone(), id: leader.1.id, term, applied: leader.1.applied };
    // Those that lag most go first, so that as many as possible hold everything for as long as possible.
    let follower = speaking
        .iter()
        .filter(|(seat, _)| seat.name != promise.name)
        .min_by_key(|(seat, said)| (said.applied, std::cmp::Reverse(seat.name.clone())));
    match follower {
        None => Move::Alone(promise),
        Some((seat, _)) if running > majority => Move::Stop(seat.name.clone()),
        Some((seat, _)) => Move::Break(seat.name.clone(), promise),
    }
}

type Speaking<'a> = Vec<(&'a Seat, &'a Said)>;

/// What all that run say; an error names one that says nothing.
fn voices(seats: &[Seat]) -> Result<Speaking<'_>, String> {
    let mut speaking = Vec::new();
    for seat in seats {
        match &seat.voice {
            Voice::Off => {}
            Voice::Says(said) => speaking.push((seat, said)),
            Voice::Silent(why) => return Err(format!("{} does not answer: {why}", seat.name)),
        }
    }
    Ok(speaking)
}

/// Why the members are not exactly the control planes: nobody outside may be left that could vote.
fn membership(seats: &[Seat], speaking: &Speaking<'_>, known: &Known<'_>) -> Option<String> {
    let machines: BTreeSet<&str> = seats.iter().map(|seat| seat.name.as_str()).collect();
    for (seat, said) in speaking {
        let members = said.members.as_deref().unwrap_or_default();
        if let Some(learner) = members.iter().find(|member| member.learner) {
            return Some(format!("etcd has a learner ({}): somebody is adding a member", name_of(learner)));
        }
        let names: BTreeSet<&str> = members.iter().map(|member| member.name.as_str()).collect();
        if let Some(stranger) = members.iter().find(|member| !machines.contains(member.name.as_str())) {
            return Some(format!("etcd has a member that is no machine of this cluster: {}", name_of(stranger)));
        }
        if let Some(missing) = machines.iter().find(|machine| !names.contains(**machine)) {
            return Some(format!("{missing} is not a member of etcd, says {}", seat.name));
        }
        let ids: BTreeSet<u64> = members.iter().map(|member| member.id).collect();
        if ids.len() != members.len() || members.len() != seats.len() {
            return Some(format!("etcd lists a member twice, says {}", seat.name));
        }
        if ids != *known.members {
            return Some("etcd's members are not those of the backup any more".to_owned());
        }
        if said.learner {
            return Some(format!("{} is a learner", seat.name));
        }
        if !members.iter().any(|member| member.id == said.id && member.name == seat.name) {
            return Some(format!("{} answers as another member than it is listed as", seat.name));
        }
    }
    None
}

fn name_of(member: &Voter) -> String {
    if member.name.is_empty() { format!("{:016x}, which never started", member.id) } else { member.name.clone() }
}

/// The one that all follow in one term.
fn leader<'a>(speaking: &Speaking<'a>) -> Result<((&'a Seat, &'a Said), u64), String> {
    let Some((_, first)) = speaking.first() else { return Err("no member answers".to_owned()) };
    for (seat, said) in speaking {
        if said.leader == 0 {
            return Err(format!("{} has no leader", seat.name));
        }
        if said.leader != first.leader || said.term != first.term {
            return Err(format!("the members don't agree about the leader: {}", opinions(speaking)));
        }
    }
    let found = speaking.iter().find(|(_, said)| said.id == first.leader);
    found.map(|leader| (*leader, first.term)).ok_or_else(|| "the leader is none of those that run".to_owned())
}

fn opinions(speaking: &Speaking<'_>) -> String {
    let one = |(seat, said): &(&Seat, &Said)| format!("{} says {:016x} in term {}", seat.name, said.leader, said.term);
    speaking.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn complaint(speaking: &Speaking<'_>, alarms: &[String]) -> Option<String> {
    if let Some(alarm) = alarms.first() {
        return Some(format!("etcd has an alarm: {alarm}"));
    }
    speaking.iter().find_map(|(seat, said)| Some(format!("{}: {}", seat.name, serious(said)?)))
}

/// A complaint that isn't just the want of a leader.
fn serious(said: &Said) -> Option<&String> {
    said.errors.iter().find(|error| !error.contains("no leader"))
}

fn after_the_break(seats: &[Seat], known: &Known<'_>, promise: &Promise) -> Move {
    if let Some(seat) = seats.iter().find(|seat| seat.name != promise.name && seat.voice != Voice::Off) {
        if known.stopped.contains(&seat.name) {
            return Move::StartAgain(format!("{} was started again by someone", seat.name));
        }
        return Move::Stop(seat.name.clone());
    }
    let Some(seat) = seats.iter().find(|seat| seat.name == promise.name) else {
        return Move::Refuse(format!("{} is no control plane", promise.name));
    };
    let said = match &seat.voice {
        Voice::Off => return Move::StartAgain(format!("{}, which was kept, is stopped", seat.name)),
        Voice::Silent(why) => return Move::Wait(format!("{} does not answer: {why}", seat.name)),
        Voice::Says(said) => said,
    };
    if let Some(why) = broken(promise, said) {
        return Move::StartAgain(why);
    }
    if let Some(error) = serious(said) {
        return Move::Refuse(format!("{}: {error}", seat.name));
    }
    if said.applied != said.committed {
        return Move::Wait(format!("{} has applied {} of {} entries", seat.name, said.applied, said.committed));
    }
    Move::Frozen(promise.clone(), said.applied)
}

/// How a kept member is not any more what it was kept for.
pub(in crate::steps) fn broken(promise: &Promise, said: &Said) -> Option<String> {
    let Promise { name, id, term, applied } = promise;
    if said.id != *id {
        return Some(format!("{name} is another member than the one that was kept"));
    }
    if said.term != *term {
        return Some(format!("the term went from {term} to {} while quorum was taken away", said.term));
    }
    if said.leader != 0 && said.leader != *id {
        return Some(format!("{name} follows another leader"));
    }
    if said.applied < *applied {
        return Some(format!("{name} has applied {} entries, and had {applied}", said.applied));
    }
    None
}

/// What a proof found in a snapshot, and what is known about the member it came from.
pub(in crate::steps) struct Evidence<'a> {
    /// The kept member, with the last index where quorum is gone.
    pub(in crate::steps) promise: &'a Promise,
    /// The last index that was ever committed; none where the only member goes on.
    pub(in crate::steps) last: Option<u64>,
    /// What the member says after the snapshot was taken.
    pub(in crate::steps) after: &'a Said,
    /// How the file came here.
    pub(in crate::steps) way: Way,
    /// The index and the term of the last entry in it.
    pub(in crate::steps) ends_at: Option<(u64, Option<u64>)>,
    /// Etcd's revision in it.
    pub(in crate::steps) revision: u64,
    /// Revision of the snapshot from before.
    pub(in crate::steps) revision_before: u64,
    /// The cluster's id in both, the one from before first.
    pub(in crate::steps) cluster: (Option<&'a str>, Option<&'a str>),
}

/// How a snapshot was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::steps) enum Way {
    /// By etcd's own snapshot call.
    Api,
    /// As a file of the machine.
    File,
}

/// What a snapshot is worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::steps) enum Worth {
    /// It is the last word.
    Final,
    /// Not yet: take another one.
    TooEarly(String),
    /// Not from a member that was kept as promised.
    Broken(String),
    /// Not of this cluster, or older than what was there before.
    Refused(String),
}

/// Whether a snapshot holds every write that was ever acknowledged.
pub(in crate::steps) fn judge(evidence: &Evidence<'_>) -> Worth {
    let Evidence { promise, last, after, way, ends_at, revision, revision_before, cluster } = evidence;
    match cluster {
        (_, None) => return Worth::Refused("it holds no Kubernetes cluster (no namespace kube-system)".to_owned()),
        (Some(before), Some(now)) if before != now => {
            return Worth::Refused(format!("it is of another cluster: kube-system is {now}, and was {before}"));
        }
        _ => {}
    }
    if revision < revision_before {
        return Worth::Refused(format!("its revision {revision} is older than {revision_before} of the backup"));
    }
    if let Some(why) = broken(promise, after) {
        return Worth::Broken(why);
    }
    if let Some(last) = last
        && (after.applied, after.committed) != (*last, *last)
    {
        let (applied, committed) = (after.applied, after.committed);
        return Worth::Broken(format!("etcd went on: {applied} applied and {committed} committed, after {last}"));
    }
    let Some((index, term)) = *ends_at else {
        return match way {
            Way::Api => Worth::Final,
            Way::File => Worth::Refused("it doesn't say which entry it ends with".to_owned()),
        };
    };
    if let Some(term) = term.filter(|term| *term > promise.term) {
        return Worth::Broken(format!("it ends in term {term}, after {}", promise.term));
    }
    let expected = last.unwrap_or(promise.applied);
    if index < expected {
        return Worth::TooEarly(format!("it ends with entry {index}, and {expected} was applied"));
    }
    if last.is_some_and(|last| index > last) {
        return Worth::Broken(format!("it ends with entry {index}, after {expected}"));
    }
    Worth::Final
}

#[cfg(test)]
mod tests;
