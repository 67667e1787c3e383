//! What a machine does to its filesystems from time to time, how its container runtime is configured beside the usual, and
//! whether its node is closed (Talos 1.14, controllers/block, `VolumeTrimScheduleController`, `FSScrubScheduleController`;
//! controllers/cri; controllers/k8s, `NodeCordonedSpecController`).

use std::time::SystemTime;

use serde_json::{Value, json};

use super::{Item, Maker, Type};
use crate::world::machine::{Identity, Machine, NodeConfig, Stage};

/// The types that are made here.
pub(super) const NAMES: [&str; 5] = [
    "BaseRuntimeSpecConfigs.cri.talos.dev",
    "CustomizationConfigs.cri.talos.dev",
    "FSScrubSchedules.block.talos.dev",
    "NodeCordonedSpecs.k8s.talos.dev",
    "VolumeTrimSchedules.block.talos.dev",
];

/// Where a file of old customizes the runtime, and what that is called now.
const LEGACY: (&str, &str) = ("/etc/cri/conf.d/20-customization.part", "customization");
/// The partitions that hold filesystems.
const VOLUMES: [&str; 2] = ["EPHEMERAL", "STATE"];
const WEEK: u64 = 7 * 24 * 3600;
const NANO: u128 = 1_000_000_000;

/// What is done to a filesystem.
struct Deed {
    /// The document that is for all volumes.
    document: &'static str,
    /// The part of a volume's own document.
    part: &'static str,
    /// Seconds between two turns, where a volume asks for it and nobody says how often; `None`: then it isn't done.
    usual: Option<u64>,
    next: &'static str,
}

const TRIM: Deed = Deed { document: "FilesystemTrimConfig", part: "/trim", usual: None, next: "nextTrim" };
const SCRUB: Deed = Deed { document: "FilesystemScrubConfig", part: "/scrub", usual: Some(WEEK), next: "nextScrub" };

pub(super) fn list(machine: &Machine, kind: &'static Type) -> Vec<Item> {
    let maker = Maker(kind);
    let (config, identity, stage) = machine.see(|state| (state.config.clone(), state.identity, state.stage));
    if kind.name.starts_with("NodeCordonedSpecs") {
        let closed = matches!(stage, Stage::ShuttingDown | Stage::Upgrading | Stage::Resetting);
        return if closed { vec![maker.item("cordoned", &json!({}))] } else { Vec::new() };
    }
    let Some(config) = config else { return Vec::new() };
    match kind.name {
        "BaseRuntimeSpecConfigs.cri.talos.dev" => {
            let overrides = config.document("CRIBaseRuntimeSpecConfig").and_then(|one| one.get("overrides"));
            overrides.map(|spec| maker.item("overrides", spec)).into_iter().collect()
        }
        "CustomizationConfigs.cri.talos.dev" => {
            customizations(&config).iter().map(|(name, text)| maker.item(name, &json!({ "content": text }))).collect()
        }
        "FSScrubSchedules.block.talos.dev" => schedules(&maker, &config, identity, &SCRUB),
        _ => schedules(&maker, &config, identity, &TRIM),
    }
}

/// Fragments of the runtime's configuration by name.
fn customizations(config: &NodeConfig) -> Vec<(String, String)> {
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let files = config.main().pointer("/machine/files").and_then(Value::as_array);
    let old = files.into_iter().flatten().find(|file| text(file, "path") == LEGACY.0);
    let old = old.map(|file| (LEGACY.1.to_owned(), text(file, "content")));
    let of_kind = config.documents().iter().filter(|one| text(one, "kind") == "CRICustomizationConfig");
    of_kind.map(|one| (text(one, "name"), text(one, "content"))).chain(old).collect()
}

/// When each volume has its next turn, if it has any.
fn schedules(maker: &Maker, config: &NodeConfig, identity: Option<Identity>, deed: &Deed) -> Vec<Item> {
    let Some(identity) = identity else { return Vec::new() };
    let one = |volume: &&str| {
        let seconds = interval(config, volume, deed)?;
        let next = next(&format!("{}/{volume}", identity.node_id()), seconds, SystemTime::now());
        let shown = crate::talos::apply::go_duration(std::time::Duration::from_secs(seconds));
        Some(maker.item(volume, &json!({ "filesystem": "xfs", "interval": shown, deed.next: next })))
    };
    VOLUMES.iter().filter_map(one).collect()
}

/// Seconds between two turns of a volume: its own document says more than the one for all.
fn interval(config: &NodeConfig, volume: &str, deed: &Deed) -> Option<u64> {
    let read = |value: &Value| value.get("interval").and_then(Value::as_str).and_then(seconds);
    let general = config.document(deed.document).and_then(read);
    let is_its = |one: &&Value| one["kind"] == "VolumeConfig" && one["name"] == volume;
    let own = config.documents().iter().find(is_its).and_then(|one| one.pointer(deed.part));
    let Some(own) = own else { return general };
    if own.get("enabled") == Some(&json!(false)) {
        return None;
    }
    read(own).or(general).or(deed.usual)
}

/// A duration as Go writes it, in whole seconds: `168h0m0s`.
fn seconds(text: &str) -> Option<u64> {
    let (mut sum, mut digits) = (0_u64, String::new());
    for letter in text.chars() {
        let unit = match letter {
            '0'..='9' => {
                digits.push(letter);
                continue;
            }
            'h' => 3600,
            'm' => 60,
            's' => 1,
            _ => return None,
        };
        sum = sum.checked_add(digits.parse::<u64>().ok()?.checked_mul(unit)?)?;
        digits.clear();
    }
    (digits.is_empty() && sum > 0).then_some(sum)
}

/// The next turn after a moment: turns stand in a row since 1970, moved by a digest of who has them (Talos,
/// resources/block, `NextScheduledTime`).
fn next(seed: &str, seconds: u64, after: SystemTime) -> String {
    let step = u128::from(seconds) * NANO;
    let digest = seed
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let first = u128::from(digest) % step;
    let now = after.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
    let turns = if now < first { 0 } else { (now - first) / step + 1 };
    let moment = i128::try_from(first + turns * step).unwrap_or_default();
    jiff::Timestamp::from_nanosecond(moment).map(|moment| moment.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn turns_stand_in_a_row() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let first: jiff::Timestamp = next("id/STATE", WEEK, at(0)).parse().unwrap();
        assert!(first.as_second() >= 0 && first.as_second() < 7 * 24 * 3600);
        let second = next("id/STATE", WEEK, SystemTime::from(first));
        assert_eq!(second.parse::<jiff::Timestamp>().unwrap().duration_since(first).as_secs(), 7 * 24 * 3600);
        assert_ne!(next("id/EPHEMERAL", WEEK, at(0)), first.to_string());
    }

    #[test]
    fn durations_are_read() {
        let all = ["168h0m0s", "1h30m", "45s", "", "5", "1.5h", "0s"].map(seconds);
        assert_eq!(all, [Some(WEEK), Some(5400), Some(45), None, None, None, None]);
    }
}
