//! Events, which two groups write in two ways; they are kept as the core group has them.

use serde_json::Value;

/// Core name, name in `events.k8s.io`.
const NAMES: [(&str, &str); 5] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
];
const MORE: [(&str, &str); 2] = [("source", "deprecatedSource"), ("count", "deprecatedCount")];

/// An event as a group has it, whichever way it is written.
pub(super) fn convert(event: &mut Value, group: &str) {
    let Some(map) = event.as_object_mut() else { return };
    for (core, new) in NAMES.into_iter().chain(MORE) {
        let (from, to) = if group.is_empty() { (new, core) } else { (core, new) };
        if let Some(value) = map.remove(from) {
            map.entry(to).or_insert(value);
        }
    }
}
