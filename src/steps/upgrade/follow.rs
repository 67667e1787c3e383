//! Following a machine while it goes down and comes up: by what it says, and by looking.
//!
//! The events give words and progress; what counts is only what is seen (`judge`). A stream that breaks is opened again once
//! the machine answers; what it replays then is only believed where it is about our own call, or of another boot.

use std::time::Duration;

use tokio::io::AsyncWriteExt as _;

use super::judge::{Cause, Glimpse, Goal, Question, Standing, Time, Told, judge};
use crate::engine::StepCx;
use crate::plan::upgrade::{KernelLog, Member};
use crate::steps::World;
use crate::steps::freeze::in_short;
use crate::talos::client::events::{Edge, Events, Happening, Heard, Tail, Trouble};
use crate::talos::client::{Machine, TalosError};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);

/// How long a machine may take to answer one question.
pub(super) const SAY: Duration = Duration::from_secs(5);

/// What is followed.
pub(super) struct Chase<'a> {
    pub(super) member: &'a Member,
    pub(super) before: &'a Glimpse,
    pub(super) goal: Goal<'a>,
    /// The stream that was opened before anything was done.
    pub(super) events: Option<Events>,
    /// The id of the call that set it going, where it has one.
    pub(super) actor: Option<String>,
    /// How long all of it may take.
    pub(super) limit: Duration,
    pub(super) kernel_log: KernelLog,
}

/// One look at a machine.
pub(super) async fn glimpse(machine: &Machine) -> Result<Glimpse, TalosError> {
    let version = machine.release().await?.version;
    let boot = machine.boot_id().await?;
    let (schematic, status) = (machine.extensions().await?.schematic, machine.status().await?);
    Ok(Glimpse { version, schematic, boot, status })
}

impl World {
    /// Until the machine is what it should be, or the cause is known why it won't be. The glimpse of its new boot.
    pub(super) async fn chase(&self, machine: &Machine, chase: Chase<'_>, cx: &StepCx<'_>) -> Result<Glimpse, Cause> {
        let Chase { member, before, goal, mut events, actor, limit, kernel_log } = chase;
        let machine = machine.waiting(SAY);
        let kernel = self.keep_kernel_log(&machine, member, kernel_log);
        tokio::pin!(kernel);
        let since = cx.elapsed();
        let mut trouble: Option<Told> = None;
        let mut progress = String::new();
        // Whether what the stream says is all about now.
        let mut fresh = events.is_some();
        loop {
            let looked = glimpse(&machine).await;
            let gone = cx.elapsed().saturating_sub(since);
            let time = if gone < limit { Time::Left } else { Time::Over };
            let look = looked.map_err(|error| in_short(&error));
            let question = Question { before, goal, trouble: trouble.as_ref(), time };
            match judge(&question, &look, gone.as_secs()) {
                Standing::Done => {
                    // `Done` comes of a look that saw something.
                    if let Ok(now) = look {
                        return Ok(now);
                    }
                }
                Standing::Failed(cause) => return Err(cause),
                Standing::Waiting(why) => {
                    let last = if progress.is_empty() { why } else { format!("{why}; {progress}") };
                    cx.waiting(member.name.as_str(), Some(&last));
                }
            }
            if events.is_none()
                && let Ok(now) = &look
            {
                events = machine.events(Tail::All).await.ok();
                fresh = now.boot != before.boot;
            }
            let pause = cx.sleep(LOOK);
            tokio::pin!(pause);
            loop {
                tokio::select! {
                    biased;
                    heard = next(&mut events) => match heard {
                        Some(heard) => {
                            let ours = fresh || actor.as_ref().is_some_and(|actor| *actor == heard.actor);
                            if let Some(told) = told(&heard).filter(|_| ours) {
                                trouble = Some(told);
                            }
                            if let Some(step) = in_words(&heard).filter(|_| ours) {
                                progress = step;
                                cx.waiting(member.name.as_str(), Some(&progress));
                            }
                        }
                        None => events = None,
                    },
                    () = &mut kernel => {}
                    () = &mut pause => break,
                }
            }
        }
    }

    /// Writes the kernel's log into the run's folder for as long as the machine says something. Never ends: it is dropped
    /// with what it accompanies.
    async fn keep_kernel_log(&self, machine: &Machine, member: &Member, wanted: KernelLog) {
        if wanted == KernelLog::Kept {
            let dir = self.files.run.join("kernel");
            let path = dir.join(format!("{}.log", member.name));
            let opened = async {
                tokio::fs::create_dir_all(&dir).await?;
                tokio::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(&path).await
            };
            if let Ok(mut file) = opened.await {
                loop {
                    if let Ok(mut log) = machine.waiting(Duration::from_mins(10)).kernel_log().await {
                        while let Ok(Some(chunk)) = log.chunk().await {
                            // A log that can't be written is no reason to stop an upgrade.
                            let _ = file.write_all(&chunk).await;
                        }
                        let _ = file.flush().await;
                    }
                    tokio::time::sleep(LOOK).await;
                }
            }
        }
        std::future::pending::<()>().await;
    }
}

/// The next event; none when the stream is over. Waits for ever where there is none.
async fn next(events: &mut Option<Events>) -> Option<Heard> {
    match events {
        Some(stream) => stream.next().await.ok().flatten(),
        None => std::future::pending().await,
    }
}

/// What an event tells of trouble.
fn told(heard: &Heard) -> Option<Told> {
    let Happening::Sequence { trouble: Some(trouble), .. } = &heard.what else { return None };
    match trouble {
        Trouble::Failed(words) => Some(Told::Failed(words.clone())),
        Trouble::Refused(words) => Some(Told::Refused(words.clone())),
        // Something else took over, a reboot by a person for one: what comes of it is seen.
        Trouble::Replaced(_) => None,
    }
}

/// An event as progress, for people.
fn in_words(heard: &Heard) -> Option<String> {
    match &heard.what {
        Happening::Sequence { name, edge: Some(Edge::Begins), .. } => Some(format!("sequence {name} begins")),
        Happening::Sequence { name, edge: Some(Edge::Ends), .. } => Some(format!("sequence {name} is over")),
        Happening::Phase(name, Edge::Begins) => Some(format!("phase {name}")),
        Happening::Task(name, Edge::Begins) => Some(format!("task {name}")),
        Happening::Service { id, state, .. } => Some(format!("service {id} is {}", state.to_lowercase())),
        Happening::Restart => Some("the kernel restarts".to_owned()),
        _ => None,
    }
}
