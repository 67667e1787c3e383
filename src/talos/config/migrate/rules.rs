//! The facts: what changed in which Talos version, and what to write instead.
//!
//! From Talos' release notes and `pkg/machinery/config` (v1.5 to v1.14.0-rc.1). A rule that a user meets twice is one
//! rule with one text. Must not know: how they are told.

mod changed;
mod cluster;
mod moved;

use super::Weight;
use crate::talos::config::yaml::Value;
use changed::CHANGED;
pub(super) use cluster::CHANGES;
use moved::MOVED;

/// What happens to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// A configuration of that contract says it in a document: a patch of the old key conflicts with it.
    Moved,
    /// A node refuses it.
    Refused,
    /// A node takes it and does nothing.
    Ignored,
    /// It works as before and will go.
    Deprecated,
    /// It means something else.
    Behaves,
    /// It means something else in few places.
    Seldom,
    /// It works until the next change of the version, of any version.
    Risks,
}

impl Effect {
    pub(super) fn weight(self) -> Weight {
        match self {
            Self::Moved | Self::Refused => Weight::Breaks,
            Self::Ignored | Self::Behaves | Self::Risks => Weight::Changes,
            Self::Deprecated | Self::Seldom => Weight::Notice,
        }
    }
}

/// Which values a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    Set,
    True,
    False,
    /// A text that contains this.
    Has(&'static str),
    /// An installer of another platform than nocloud. Up to 1.9 installers had none in their name
    /// (`factory.talos.dev/installer/…`, `ghcr.io/siderolabs/installer`), and such a name means metal since.
    OtherPlatform,
    /// An image whose name doesn't say its version.
    Untagged,
}

impl When {
    pub(super) fn holds(self, value: &Value) -> bool {
        match self {
            Self::Set => match value {
                Value::Map(map) => !map.is_empty(),
                Value::List(list) => !list.is_empty(),
                _ => true,
            },
            Self::True => *value == Value::from(true),
            Self::False => *value == Value::from(false),
            Self::Has(part) => value.as_text().is_some_and(|text| text.contains(part)),
            Self::OtherPlatform => {
                value.as_text().is_some_and(|text| text.contains("installer") && !text.contains("nocloud-installer"))
            }
            Self::Untagged => value.as_text().is_some_and(|text| !text.is_empty() && !text.contains(":v")),
        }
    }
}

/// A change of one key.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) name: &'static str,
    /// The minor version of Talos 1.
    pub(super) since: u32,
    pub(super) document: &'static str,
    pub(super) path: &'static str,
    pub(super) when: When,
    pub(super) effect: Effect,
    /// Only where machines boot the nocloud image.
    pub(super) nocloud: bool,
    pub(super) what: &'static str,
    pub(super) instead: &'static str,
}

const fn main(
    name: &'static str,
    since: u32,
    path: &'static str,
    effect: Effect,
    what: &'static str,
    instead: &'static str,
) -> Rule {
    Rule { name, since, document: "v1alpha1", path, when: When::Set, effect, nocloud: false, what, instead }
}

impl Rule {
    /// About these values only.
    const fn when(self, when: When) -> Self {
        Self { when, ..self }
    }

    /// About documents of this kind.
    const fn of(self, document: &'static str) -> Self {
        Self { document, ..self }
    }

    /// Only where machines boot the nocloud image.
    const fn on_nocloud(self) -> Self {
        Self { nocloud: true, ..self }
    }
}

const fn deprecated(name: &'static str, since: u32, path: &'static str, instead: &'static str) -> Rule {
    main(name, since, path, Effect::Deprecated, "the key is deprecated", instead)
}

const fn untagged(document: &'static str, path: &'static str) -> Rule {
    main(
        "untagged-image",
        11,
        path,
        Effect::Refused,
        "an image has to name its Kubernetes version in its tag, also beside a digest",
        "write the tag: …:v1.34.1 or …:v1.34.1@sha256:…",
    )
    .of(document)
    .when(When::Untagged)
}

const fn moved(name: &'static str, since: u32, path: &'static str, instead: &'static str) -> Rule {
    main(name, since, path, Effect::Moved, "a document says this, and the old key conflicts with it", instead)
}

/// Rules about keys that Talos itself wrote into every configuration of its time: on a machine nobody misses them.
pub(super) const OF_TALOS: &[&str] = &["ext-key-usage", "psp"];

/// Everything that changed about keys.
pub(super) fn all() -> impl Iterator<Item = &'static Rule> {
    MOVED.iter().chain(CHANGED)
}

/// A change that no key says.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) name: &'static str,
    pub(super) since: u32,
    pub(super) what: &'static str,
    pub(super) instead: &'static str,
    /// The first minor version that has it no more.
    pub(super) until: Option<u32>,
}
