//! Which schematic an image is made from: the one that is named, or that of the extensions.
//!
//! Must not know: which images there are of it.

use std::collections::BTreeSet;

use super::boot;
use crate::cli::args::SchematicWish;
use crate::cli::stop::Stop;
use crate::exit::ExitCode;
use crate::image::{self, Boot, Bootloader, Schematic};
use crate::plan::observed::{Finding, Observed};
use crate::profile;
use crate::types::{SchematicId, Version};

/// The schematic of a profile that names none.
const SCHEMATIC: &str = include_str!("../../../templates/schematic.yaml");

pub(in crate::cli) async fn schematic(
    factory: &image::Factory,
    own: &profile::Factory,
    asked: &SchematicWish,
    version: &Version,
    seen: &mut Observed,
    found: &mut Vec<Finding>,
) -> Result<(Option<SchematicId>, Vec<String>), Stop> {
    let names = asked
        .extensions
        .clone()
        .unwrap_or_else(|| if asked.schematic.is_some() { Vec::new() } else { own.extensions.clone() });
    if !names.is_empty() {
        match factory.extensions(version).await {
            Ok(available) => {
                let unknown = crate::image::check_extensions(&names, version, &available);
                let none_missing = unknown.is_empty();
                for unknown in unknown {
                    let hint = unknown.nearest.as_ref().map_or_else(
                        || "the factory lists them at /version/…/extensions/official".to_owned(),
                        |nearest| format!("did you mean {nearest}?"),
                    );
                    seen.problems
                        .push(Finding::refusal(format!("Talos {version} has no extension {}", unknown.name), hint));
                }
                if !none_missing {
                    // No factory has an image with it: asking for one says the same in other words.
                    return Ok((None, names));
                }
            }
            Err(error) => seen.problems.push(
                Finding::refusal("the factory's extensions could not be read", "try again, or name a schematic")
                    .because(&error),
            ),
        }
    }
    let chosen_id = asked.schematic.clone().or_else(|| own.schematic_id.clone().filter(|_| asked.extensions.is_none()));
    let was_named = chosen_id.is_some();
    let chosen = match chosen_id {
        Some(id) => id,
        None => match factory.submit(&schematic_of(&names)?).await {
            Ok(submitted) => submitted.id,
            Err(error) => {
                seen.problems.push(
                    Finding::refusal("the factory did not take the schematic", "try again later").because(&error),
                );
                return Ok((None, names));
            }
        },
    };
    // Not every factory hands schematics out again; what the image really holds is shown by the canary.
    let told = factory.schematic(&chosen).await.ok();
    let held = told.as_deref().and_then(|yaml| Schematic::from_yaml(yaml).ok());
    if was_named && !names.is_empty() && !makes(&names, &chosen, held.as_ref()) {
        found.push(Finding::warning(
            format!("the extensions listed in the profile are not those of schematic {chosen}"),
            "the schematic_id counts; correct the list or the id",
        ));
    }
    let Some((held, recipe)) = held.zip(told) else { return Ok((Some(chosen), names)) };
    seen.recipes.insert(chosen.clone(), recipe);
    if held.customization.bootloader == Some(Bootloader::SdBoot) || boot(own) == Boot::Secure {
        seen.uefi_only.insert(chosen.clone());
    }
    Ok((Some(chosen), held.customization.system_extensions.official_extensions))
}

/// Whether a schematic has these extensions, whatever else is in it; by its ID where the factory does not show it.
fn makes(names: &[String], chosen: &SchematicId, held: Option<&Schematic>) -> bool {
    let sorted = |names: &[String]| names.iter().cloned().collect::<BTreeSet<_>>();
    match held {
        Some(held) => sorted(&held.customization.system_extensions.official_extensions) == sorted(names),
        None => Schematic::with_extensions(names.to_vec()).id().is_ok_and(|computed| computed == *chosen),
    }
}

/// The schematic of these extensions; without any, the one of a profile that names nothing.
pub(super) fn schematic_of(extensions: &[String]) -> Result<Schematic, Stop> {
    if !extensions.is_empty() {
        return Ok(Schematic::with_extensions(extensions.iter().cloned()));
    }
    Schematic::from_yaml(SCHEMATIC).map_err(|error| {
        Stop::because(ExitCode::Internal, "the schematic of profiles that name none is damaged", &error)
    })
}
