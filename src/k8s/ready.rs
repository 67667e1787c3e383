//! Ready, and staying so: a pure judgement over samples of the node list.
//!
//! A Node object outlives its machine: after a restore, or before a dead kubelet's lease runs out, the old object still
//! says Ready. So a node counts only with the boot id of the new machine, and only when it stays Ready without a break.

use std::time::Duration;

use super::client::Node;

/// A node that has to be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Its name.
    pub name: String,
    /// The boot id of its machine.
    pub boot_id: String,
    /// The version of its kubelet, with `v`.
    pub kubelet: String,
}

/// What the samples so far mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All were Ready for long enough.
    Steady,
    /// Not yet.
    Waiting {
        /// Why.
        why: String,
    },
}

/// Judges sample after sample.
#[derive(Clone, Debug)]
pub struct Steady {
    expected: Vec<Expected>,
    hold: Duration,
    since: Option<Duration>,
    last: String,
}

impl Steady {
    /// `expected` nodes have to be Ready for `steady`.
    pub fn new(expected: Vec<Expected>, steady: Duration) -> Self {
        Self { expected, hold: steady, since: None, last: "nothing was seen yet".to_owned() }
    }

    /// Takes the node list as it was at `now`, on a clock that only goes forward.
    pub fn sample(&mut self, now: Duration, nodes: &[Node]) -> Verdict {
        let wrong: Vec<String> = self.expected.iter().filter_map(|expected| judge(expected, nodes).err()).collect();
        if !wrong.is_empty() {
            return self.broken(wrong.join("; "));
        }
        let since = *self.since.get_or_insert(now);
        let held = now.saturating_sub(since);
        if held >= self.hold {
            return Verdict::Steady;
        }
        self.last = format!("all Ready for {} of {} s", held.as_secs(), self.hold.as_secs());
        Verdict::Waiting { why: self.last.clone() }
    }

    /// Takes a look that showed nothing: an API that doesn't answer breaks the steady time, too.
    pub fn blind(&mut self, why: String) -> Verdict {
        self.broken(why)
    }

    fn broken(&mut self, why: String) -> Verdict {
        self.since = None;
        self.last.clone_from(&why);
        Verdict::Waiting { why }
    }

    /// Where it stands.
    pub fn last(&self) -> &str {
        &self.last
    }
}

fn judge(expected: &Expected, nodes: &[Node]) -> Result<(), String> {
    let name = &expected.name;
    let node = nodes.iter().find(|node| node.name == *name).ok_or_else(|| format!("{name} has not joined"))?;
    if node.boot_id != expected.boot_id {
        return Err(format!("{name} still shows the machine that was there before"));
    }
    if node.kubelet != expected.kubelet {
        return Err(format!("{name} runs kubelet {}, not {}", node.kubelet, expected.kubelet));
    }
    node.ready.clone().map_err(|why| format!("{name} is not Ready: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(boot_id: &str, ready: bool) -> Node {
        Node {
            name: "a".to_owned(),
            ready: if ready { Ok(()) } else { Err("starting".to_owned()) },
            boot_id: boot_id.to_owned(),
            kubelet: "v1.35.0".to_owned(),
            unschedulable: false,
        }
    }

    fn watch() -> Steady {
        let expected = Expected { name: "a".into(), boot_id: "new".into(), kubelet: "v1.35.0".into() };
        Steady::new(vec![expected], Duration::from_secs(30))
    }

    fn is_steady(watch: &mut Steady, second: u64, node: Node) -> bool {
        watch.sample(Duration::from_secs(second), &[node]) == Verdict::Steady
    }

    #[test]
    fn a_break_starts_the_steady_time_again() {
        let mut watch = watch();
        assert!(!is_steady(&mut watch, 0, node("new", true)));
        assert!(!is_steady(&mut watch, 29, node("new", true)));
        assert!(!is_steady(&mut watch, 30, node("new", false)));
        assert!(!is_steady(&mut watch, 31, node("new", true)));
        assert!(!is_steady(&mut watch, 60, node("new", true)));
        assert!(is_steady(&mut watch, 61, node("new", true)));
    }

    #[test]
    fn an_api_that_does_not_answer_breaks_it_too() {
        let mut watch = watch();
        assert!(!is_steady(&mut watch, 0, node("new", true)));
        watch.blind("no answer".into());
        assert!(!is_steady(&mut watch, 31, node("new", true)));
    }

    #[test]
    fn the_object_of_the_old_machine_never_counts() {
        let mut watch = watch();
        assert!(!is_steady(&mut watch, 0, node("old", true)));
        assert!(!is_steady(&mut watch, 60, node("old", true)));
        assert!(watch.last().contains("machine that was there before"));
    }
}
