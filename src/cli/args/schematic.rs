//! Image Factory schematics.
//!
//! Must not know: what a factory has.

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, ValueEnum};

use crate::types::SchematicId;

/// `recast schematic`.
#[derive(Debug, Args)]
pub struct Schematic {
    /// Official extensions; siderolabs/ may be left out
    #[arg(long, value_name = "A,B", value_delimiter = ',', value_parser = NonEmptyStringValueParser::new())]
    pub extensions: Vec<String>,
    /// The boot loader; without it the factory chooses. UEFI templates may take sd-boot, with half the bytes
    #[arg(long, value_name = "LOADER")]
    pub bootloader: Option<Bootloader>,
    /// Make it known to the profile's Image Factory, or to the public one, and print its ID from there
    #[arg(long)]
    pub submit: bool,
}

/// What images are made from, where that isn't what the profile says.
#[derive(Clone, Debug, Default, Args)]
pub struct SchematicWish {
    /// Image Factory schematic [default: the profile's]
    #[arg(long, value_name = "ID", env = "RECAST_SCHEMATIC", conflicts_with = "extensions", value_parser = schematic_id)]
    pub schematic: Option<SchematicId>,
    /// Official extensions instead of a schematic
    #[arg(
        long,
        value_name = "A,B",
        value_delimiter = ',',
        env = "RECAST_EXTENSIONS",
        value_parser = NonEmptyStringValueParser::new()
    )]
    pub extensions: Option<Vec<String>>,
}

impl SchematicWish {
    /// Whether all is left to the profile.
    pub fn says_nothing(&self) -> bool {
        self.schematic.is_none() && self.extensions.is_none()
    }
}

/// A boot loader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Bootloader {
    /// Both, for BIOS and UEFI.
    DualBoot,
    /// systemd-boot, for UEFI.
    SdBoot,
    /// GRUB.
    Grub,
}

/// An ID that no factory can know is a mistake in typing.
fn schematic_id(text: &str) -> Result<SchematicId, String> {
    let hex = text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if hex { Ok(SchematicId::new(text)) } else { Err("an ID has 64 lower-case hex digits".to_owned()) }
}
