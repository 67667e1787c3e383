//! Whether a machine that was told to reboot into another release has done so, and what happened if not.
//!
//! Purpose: success is another boot, the right version, the right schematic, and a machine that says it is ready. Whatever
//! else is there is a cause with a name. Pure, so that every bad end is a row of a table. Must not know: clients, clocks.

#[cfg(test)]
mod tests;

use crate::engine::Class;
use crate::plan::upgrade::{Member, Release, Way};
use crate::talos::client::upgrade::Refusal;
use crate::talos::client::{MachineStatus, Stage as Life};
use crate::types::{SchematicId, Version};

/// A machine as it was just seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Glimpse {
    pub(super) version: Version,
    pub(super) schematic: Option<SchematicId>,
    pub(super) boot: String,
    /// None before its first status.
    pub(super) status: Option<MachineStatus>,
}

impl Glimpse {
    pub(super) fn is_up(&self) -> bool {
        self.status.as_ref().is_some_and(MachineStatus::is_up)
    }

    /// Whether it is on its way down.
    pub(super) fn goes_down(&self) -> bool {
        let stage = self.status.as_ref().map(|status| status.stage);
        matches!(stage, Some(Life::Upgrading | Life::Rebooting | Life::ShuttingDown))
    }

    fn missing(&self) -> String {
        match &self.status {
            None => "it has said nothing yet".to_owned(),
            Some(status) if status.unmet.is_empty() => format!("it is {}", status.stage),
            Some(status) => {
                let unmet = status.unmet.iter().map(|unmet| format!("{}: {}", unmet.name, unmet.reason));
                format!("it is {}; {}", status.stage, unmet.collect::<Vec<_>>().join(", "))
            }
        }
    }
}

/// What the machine is to run.
#[derive(Clone, Copy, Debug)]
pub(super) enum Goal<'a> {
    /// This.
    Release(&'a Release),
    /// Anything but what it ran.
    Another,
}

/// What is asked about one machine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question<'a> {
    /// What it was before it was told.
    pub(super) before: &'a Glimpse,
    /// What it is to run.
    pub(super) goal: Goal<'a>,
    /// What the machine itself told of its trouble.
    pub(super) trouble: Option<&'a Told>,
    pub(super) time: Time,
}

/// Whether there is time left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Time {
    Left,
    Over,
}

/// What a machine told of its own trouble.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// A sequence failed: it goes back to what it ran.
    Failed(String),
    /// A sequence was not begun.
    Refused(String),
}

/// How it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Not there yet.
    Waiting(String),
    /// All of it is as it should be.
    Done,
    /// It won't be.
    Failed(Cause),
}

/// What went wrong, by its name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Cause {
    /// The other release did not come up, and the machine fell back.
    #[error(
        "it fell back: it rebooted and runs Talos {running} again{}{}",
        in_part(missing.as_deref()),
        because(reason.as_deref())
    )]
    FellBack {
        running: Version,
        /// What keeps it from being ready, where the time is over and it isn't.
        missing: Option<String>,
        reason: Option<String>,
    },
    /// It never rebooted.
    #[error("it did not reboot within {seconds} s{}", because(reason.as_deref()))]
    NotRebooted { seconds: u64, reason: Option<String> },
    /// It said no; it runs on as it was.
    #[error("it refused: {0}")]
    Refused(String),
    /// It answers nobody any more.
    #[error("it does not answer since it went down, for {seconds} s: {why}")]
    Unreachable { seconds: u64, why: String },
    /// The installer image is not there, or is none.
    #[error("the installer image can't be used: {0}")]
    Image(String),
    /// Something holds the disk.
    #[error("its disk is busy: {0}")]
    Busy(String),
    /// It runs what it should, and isn't ready.
    #[error("it runs Talos {running}, and is not ready within {seconds} s: {missing}")]
    NotReady { running: Version, seconds: u64, missing: String },
    /// It runs the version, made from something else.
    #[error("it runs Talos {running} made from schematic {}, not {wanted}", found.as_ref().map_or("none", SchematicId::as_str))]
    OtherSchematic { running: Version, found: Option<SchematicId>, wanted: SchematicId },
    /// It runs something that nobody asked for.
    #[error("it runs Talos {running}, not {wanted}")]
    OtherVersion { running: Version, wanted: Version },
    /// Its other slot held something newer.
    #[error("it went forward, from Talos {before} to {running}: that is what its other slot held")]
    Forward { running: Version, before: Version },
    /// There is nothing to go back to.
    #[error("it has no other release to go back to")]
    NothingBefore,
}

fn in_part(missing: Option<&str>) -> String {
    missing.map_or_else(String::new, |missing| format!(", and is not ready in time: {missing}"))
}

fn because(reason: Option<&str>) -> String {
    reason.map_or_else(String::new, |reason| format!("; it said: {reason}"))
}

impl Cause {
    /// The cause behind a machine's words.
    pub(super) fn of(words: &str, meaning: Option<Refusal>) -> Self {
        match meaning {
            Some(Refusal::Image) => Self::Image(words.to_owned()),
            Some(Refusal::Busy) => Self::Busy(words.to_owned()),
            Some(Refusal::NothingBefore) => Self::NothingBefore,
            Some(Refusal::Etcd | Refusal::Version | Refusal::Underway) | None => Self::Refused(words.to_owned()),
        }
    }

    /// How the step ended, whichever call the machine was asked by: with a machine's own no, which is a gate's, or as a
    /// step that failed, as one does that found no usable image or no free disk, and that resume tries once more.
    pub(super) fn class(&self) -> Class {
        match self {
            Self::Refused(_) | Self::NothingBefore => Class::Refused,
            _ => Class::Permanent,
        }
    }

    /// Whether the machine is there to take pods again.
    pub(super) fn leaves_it_up(&self) -> bool {
        !matches!(self, Self::Unreachable { .. } | Self::NotReady { .. } | Self::FellBack { missing: Some(_), .. })
    }

    /// What to do next.
    pub(super) fn hint(&self, machine: &Member, way: Way) -> String {
        let name = &machine.name;
        match self {
            Self::FellBack { missing: Some(_), .. } => format!(
                "{name} is back with its old release: see to what is missing there, and look at its console or at \
                 `talosctl -n {} dmesg` for why the new one did not come up; then resume, which tries it once more; no \
                 other machine goes down meanwhile",
                machine.address
            ),
            Self::FellBack { missing: None, .. } => format!(
                "nothing is lost: {name} serves with its old release; look at its console or at `talosctl -n {} dmesg` for \
                 why the new one did not come up, then resume, which tries it once more",
                machine.address
            ),
            Self::NotRebooted { .. } => {
                format!("look at {name}'s console; once it is free again, resume tries it once more")
            }
            Self::Refused(_) => format!("{name} was not changed: settle what it says, then resume"),
            Self::Unreachable { .. } => format!(
                "look at {name}'s console in Proxmox VE; when it is back, resume finds out what it runs and goes on from \
                 there; no other machine goes down meanwhile"
            ),
            Self::Image(_) => format!(
                "{name} was not changed: look whether it reaches the registry, and whether the image is there; then resume"
            ),
            Self::Busy(_) if matches!(way, Way::Whole { staged: true, .. }) => {
                format!("look what holds {name}'s disk, then resume")
            }
            Self::Busy(_) => {
                "`recast upgrade --stage` writes it early in the next boot, when nothing holds the disk".to_owned()
            }
            Self::NotReady { .. } => {
                format!("{name} is up: see to what is missing, then resume; no other machine goes down meanwhile")
            }
            Self::OtherSchematic { .. } | Self::OtherVersion { .. } | Self::Forward { .. } => {
                format!("somebody else may be at work on {name}; find out, then make a new plan")
            }
            Self::NothingBefore => format!(
                "{name} was not changed; no run of recast knows which release it ran before: `recast rebuild --to` makes \
                 machines of any, or upgrade it with talosctl and the installer that is meant"
            ),
        }
    }
}

/// Judges one look; an error says why nobody answered.
pub(super) fn judge(question: &Question<'_>, look: &Result<Glimpse, String>, seconds: u64) -> Standing {
    let Question { before, goal, trouble, time } = question;
    let now = match look {
        Ok(now) => now,
        Err(why) if *time == Time::Over => {
            return Standing::Failed(Cause::Unreachable { seconds, why: why.clone() });
        }
        Err(why) => return Standing::Waiting(format!("it is down ({why})")),
    };
    let said = trouble.map(|told| match told {
        Told::Failed(words) | Told::Refused(words) => words.clone(),
    });
    if now.boot == before.boot {
        return match trouble {
            Some(Told::Refused(words)) => Standing::Failed(Cause::of(words, None)),
            _ if *time == Time::Over => Standing::Failed(Cause::NotRebooted { seconds, reason: said }),
            Some(Told::Failed(words)) => Standing::Waiting(format!("it failed and goes back: {words}")),
            None => Standing::Waiting(
                now.status
                    .as_ref()
                    .map_or_else(|| "it has said nothing yet".to_owned(), |status| format!("it is {}", status.stage)),
            ),
        };
    }
    if !now.is_up() {
        if *time == Time::Left {
            return Standing::Waiting(format!("Talos {}: {}", now.version, now.missing()));
        }
        let (running, missing) = (now.version.clone(), now.missing());
        return Standing::Failed(if is_old(before, *goal, now) {
            Cause::FellBack { running, missing: Some(missing), reason: said }
        } else {
            Cause::NotReady { running, seconds, missing }
        });
    }
    arrived(before, *goal, now, said)
}

/// Whether it runs what it ran before, though it was to run something else.
fn is_old(before: &Glimpse, goal: Goal<'_>, now: &Glimpse) -> bool {
    let runs = |version: &Version, schematic: Option<&SchematicId>| {
        (&now.version, now.schematic.as_ref()) == (version, schematic)
    };
    match goal {
        Goal::Another => false,
        Goal::Release(release) => {
            runs(&before.version, before.schematic.as_ref()) && !runs(&release.version, Some(&release.schematic))
        }
    }
}

/// It is up in another boot: with what?
fn arrived(before: &Glimpse, goal: Goal<'_>, now: &Glimpse, said: Option<String>) -> Standing {
    let same = (&now.version, &now.schematic) == (&before.version, &before.schematic);
    let fell_back = |reason: String| match crate::talos::client::upgrade::refusal(&reason) {
        Some(Refusal::Busy) => Cause::Busy(reason),
        _ => Cause::FellBack { running: now.version.clone(), missing: None, reason: Some(reason) },
    };
    match goal {
        Goal::Another if same => Standing::Failed(Cause::NothingBefore),
        Goal::Another if now.version > before.version => {
            Standing::Failed(Cause::Forward { running: now.version.clone(), before: before.version.clone() })
        }
        Goal::Another => Standing::Done,
        Goal::Release(release)
            if now.version == release.version && now.schematic.as_ref() == Some(&release.schematic) =>
        {
            Standing::Done
        }
        Goal::Release(_) if same => Standing::Failed(match said {
            Some(reason) => fell_back(reason),
            None => Cause::FellBack { running: now.version.clone(), missing: None, reason: None },
        }),
        Goal::Release(release) if now.version == release.version => Standing::Failed(Cause::OtherSchematic {
            running: now.version.clone(),
            found: now.schematic.clone(),
            wanted: release.schematic.clone(),
        }),
        Goal::Release(release) => {
            Standing::Failed(Cause::OtherVersion { running: now.version.clone(), wanted: release.version.clone() })
        }
    }
}
