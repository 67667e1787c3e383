//! What a new configuration changes: whether it can count at once, and how the change reads.

use serde_json::Value;

use super::config::NodeConfig;
use super::versions::Version;

/// Parts of the configuration that count without a reboot (Talos, `CanApplyImmediate`); what isn't here needs one, up to
/// 1.13.
const AT_ONCE: &[&str] = &[
    "/debug",
    "/cluster",
    "/machine/acceptedCAs",
    "/machine/ca",
    "/machine/certSANs",
    "/machine/controlPlane",
    "/machine/features/hostDNS",
    "/machine/features/imageCache",
    "/machine/features/kubePrism",
    "/machine/features/kubernetesTalosAPIAccess",
    "/machine/features/nodeAddressSortAlgorithm",
    "/machine/install",
    "/machine/kernel",
    "/machine/kubelet",
    "/machine/logging",
    "/machine/network",
    "/machine/nodeAnnotations",
    "/machine/nodeLabels",
    "/machine/nodeTaints",
    "/machine/pods",
    "/machine/registries",
    "/machine/seccompProfiles",
    "/machine/sysctls",
    "/machine/sysfs",
    "/machine/time",
];

/// Since that minor of Talos, the machines' own authority can change while they run.
const ROTATES: u32 = 7;

/// Why a change needs a reboot; `None` when it doesn't.
pub fn reboot_needed(old: &NodeConfig, new: &NodeConfig, version: Version) -> Option<String> {
    if version.minor >= 14 {
        return None;
    }
    let (old, new) = (without(old.main(), version), without(new.main(), version));
    if old == new {
        return None;
    }
    let text = |value: &Value| serde_saphyr::to_string(value).unwrap_or_default();
    let changed = diff(&text(&old), &text(&new));
    Some(format!("this config change can't be applied in immediate mode\ndiff: {changed}"))
}

fn without(config: &Value, version: Version) -> Value {
    let mut rest = config.clone();
    let counts = |pointer: &&&str| version.minor >= ROTATES || **pointer != "/machine/ca";
    for pointer in AT_ONCE.iter().filter(counts) {
        if let Some((parent, key)) = pointer.rsplit_once('/')
            && let Some(map) = rest.pointer_mut(parent).and_then(Value::as_object_mut)
        {
            map.remove(key);
        }
    }
    rest
}

/// Both texts as a unified diff; empty when they are the same.
pub fn diff(old: &str, new: &str) -> String {
    const AROUND: usize = 3;
    if old == new {
        return String::new();
    }
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let lines = compare(&old, &new);
    let mut out = "--- a\n+++ b\n".to_owned();
    let changed: Vec<usize> = (0..lines.len()).filter(|at| lines[*at].0 != ' ').collect();
    let mut at = 0;
    while let Some(first) = changed.get(at) {
        let mut last = *first;
        while let Some(next) = changed.get(at + 1).filter(|next| **next - last <= 2 * AROUND) {
            last = *next;
            at += 1;
        }
        at += 1;
        let (from, to) = (first.saturating_sub(AROUND), (last + AROUND + 1).min(lines.len()));
        let count = |range: std::ops::Range<usize>, not: char| lines[range].iter().filter(|line| line.0 != not).count();
        let (left, right) = (count(0..from, '+'), count(0..from, '-'));
        out.push_str(&format!(
            "@@ -{},{} +{},{} @@\n",
            left + 1,
            count(from..to, '+'),
            right + 1,
            count(from..to, '-')
        ));
        for (sign, line) in &lines[from..to] {
            out.push(*sign);
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

/// Lines that stay, go and come, in order: by the longest common subsequence between what both begin and end with.
fn compare<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<(char, &'a str)> {
    let head = old.iter().zip(new).take_while(|(old, new)| old == new).count();
    let tail = old[head..].iter().rev().zip(new[head..].iter().rev()).take_while(|(old, new)| old == new).count();
    let (left, right) = (&old[head..old.len() - tail], &new[head..new.len() - tail]);
    let width = right.len() + 1;
    let mut longest = vec![0_u32; (left.len() + 1) * width];
    for i in (0..left.len()).rev() {
        for j in (0..right.len()).rev() {
            longest[i * width + j] = if left[i] == right[j] {
                longest[(i + 1) * width + j + 1] + 1
            } else {
                longest[(i + 1) * width + j].max(longest[i * width + j + 1])
            };
        }
    }
    let mut lines: Vec<(char, &str)> = old[..head].iter().map(|line| (' ', *line)).collect();
    let (mut i, mut j) = (0, 0);
    while i < left.len() || j < right.len() {
        if i < left.len() && j < right.len() && left[i] == right[j] {
            lines.push((' ', left[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == right.len() || i < left.len() && longest[(i + 1) * width + j] >= longest[i * width + j + 1] {
            lines.push(('-', left[i]));
            i += 1;
        } else {
            lines.push(('+', right[j]));
            j += 1;
        }
    }
    lines.extend(old[old.len() - tail..].iter().map(|line| (' ', *line)));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diff_shows_what_changed_and_three_lines_around() {
        let old: Vec<String> = (1..=20).map(|line| format!("line {line}")).collect();
        let mut new = old.clone();
        new[9] = "changed".to_owned();
        new.insert(15, "added".to_owned());
        let shown = diff(&old.join("\n"), &new.join("\n"));
        let expected = "--- a\n+++ b\n@@ -7,12 +7,13 @@\n line 7\n line 8\n line 9\n-line 10\n+changed\n line 11\n line 12\n \
                        line 13\n line 14\n line 15\n+added\n line 16\n line 17\n line 18\n";
        assert_eq!(shown, expected);
        assert_eq!(diff("same", "same"), "");
    }
}
