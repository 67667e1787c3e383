//! What must hold at the end of each phase, in words.
//!
//! Must not know: how it is checked. A phase's steps do that; its gate holds when all of them are done.

/// The gate of a phase; a phase without one of its own needs just its steps done.
pub(super) fn gate(phase: &str) -> &'static str {
    match phase {
        "check" => "nothing changed since the plan was made, and nothing stands in the way",
        "image" => "the image's digest, size and compression are right",
        "template" => "the template reads back as it was planned",
        "canary" => "a VM from the template boots what the configurations expect, and is gone again",
        "backup" => "a snapshot of etcd is proven, and so are its copies",
        "freeze" => "the old cluster stands still, and what it held is kept as planned",
        "retire" => "every old VM was the one that was planned, and is gone on all nodes",
        "provision" => "the new VMs read back as they were planned, and run",
        "configure" => "every machine answers with the cluster's CA and the right version",
        "bootstrap" => "etcd's members are the control planes, with the data they are to have",
        "verify" => "the cluster is healthy, and its nodes are Ready and steady",
        "finish" => "the profile and the lock say what runs now",
        _ => "all its steps are done",
    }
}
