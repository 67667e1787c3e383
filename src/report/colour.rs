//! Colour, where it is wanted.

use owo_colors::{OwoColorize as _, Style};

/// Whether text is coloured. The caller knows `--color`, `NO_COLOR` and whether anybody's terminal reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// ANSI escapes.
    On,
    /// Plain text.
    Off,
}

/// What a piece of text means; colours follow from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Good,
    Bad,
    Warn,
    Hint,
    Strong,
    Faint,
}

impl Colour {
    pub(super) fn paint(self, tone: Tone, text: &str) -> String {
        let style = match tone {
            Tone::Good => Style::new().green(),
            Tone::Bad => Style::new().red().bold(),
            Tone::Warn => Style::new().yellow(),
            Tone::Hint => Style::new().cyan(),
            Tone::Strong => Style::new().bold(),
            Tone::Faint => Style::new().dimmed(),
        };
        match self {
            Self::On => text.style(style).to_string(),
            Self::Off => text.to_owned(),
        }
    }
}
