//! Killed at any record, a run goes on to the same end.

use tempfile::TempDir;

use recast::cli::prepare::DataWish;
use recast::engine::Outcome;
use recast::journal::{Entry, Record};
use recast::types::StepId;

use super::{Case, Cut, CutLog, Death, Ending, Mortal, each, is_keeping, sample, spread, undisturbed};
use crate::site::Cluster;

/// How many journal cuts are tried on the lab, whose rebuild has several hundred.
const SAMPLE: usize = 20;

/// How many journal cuts are tried where the data are kept, unless `RECAST_TEST_ALL_CUTS` is set.
const KEPT_CUTS: usize = 16;

/// Every record as the last one; and every record that tells of something done, lost.
///
/// Where nothing happens between two records, a cut behind the first is one behind the second to the world: those are
/// left out, unless `RECAST_TEST_ALL_CUTS` is set.
pub(crate) fn cuts(records: &[Record]) -> Vec<Cut> {
    let all = std::env::var_os("RECAST_TEST_ALL_CUTS").is_some();
    let mut cuts = Vec::new();
    for (index, record) in records.iter().enumerate() {
        let told = matches!(record.entry, Entry::Handle { .. } | Entry::Succeeded { .. });
        if told {
            cuts.push(Cut::InsteadOf(index));
        }
        if all || matches!(record.entry, Entry::Started { .. } | Entry::Handle { .. } | Entry::Closed { .. }) {
            cuts.push(Cut::After(index + 1));
        }
    }
    cuts
}

/// Whether such a step is what the last record before a cut, or the first one behind it, is about.
fn is_near(records: &[Record], cut: Cut, wanted: impl Fn(&StepId) -> bool) -> bool {
    let (Cut::After(next) | Cut::InsteadOf(next)) = cut;
    let near = [next.checked_sub(1), Some(next)].into_iter().flatten();
    let steps = near.filter_map(|index| records.get(index)?.entry.step());
    steps.into_iter().any(wanted)
}

#[test]
fn killed_at_any_record_a_rebuild_goes_on_to_the_same_end() {
    let images = tempfile::tempdir().unwrap();
    let records = undisturbed(&images, Cluster::Single, &DataWish::Fresh);
    let cuts = cuts(&records);
    println!("{} records", records.len());
    cut_at_each(&images, Cluster::Single, &DataWish::Fresh, &cuts);
}

/// The rest of the plan is the same, and killed above.
#[test]
fn killed_while_the_data_are_kept_a_rebuild_goes_on_to_the_same_end() {
    let images = tempfile::tempdir().unwrap();
    let records = undisturbed(&images, Cluster::Single, &DataWish::Keep);
    let mut cuts = cuts(&records);
    cuts.retain(|cut| is_near(&records, *cut, is_keeping));
    println!("{} records, {} cuts where data are kept", records.len(), cuts.len());
    assert!(cuts.len() > KEPT_CUTS, "{cuts:?}");
    cut_at_each(&images, Cluster::Single, &DataWish::Keep, &sample(cuts, KEPT_CUTS));
}

#[test]
fn killed_at_a_sample_of_records_the_labs_rebuild_goes_on_to_the_same_end() {
    let images = tempfile::tempdir().unwrap();
    let records = undisturbed(&images, Cluster::Lab, &DataWish::Keep);
    let cuts = cuts(&records);
    println!("{} records", records.len());
    cut_at_each(&images, Cluster::Lab, &DataWish::Keep, &spread(cuts, SAMPLE));
}

/// The rest of the plan is the same, and killed above.
#[test]
fn killed_at_any_record_an_image_over_ssh_gets_to_the_same_end() {
    let images = tempfile::tempdir().unwrap();
    let records = undisturbed(&images, Cluster::SingleOverSsh, &DataWish::Fresh);
    let mut cuts = cuts(&records);
    cuts.retain(|cut| is_near(&records, *cut, |step| step.as_str().starts_with("template/")));
    assert!(cuts.len() > 8, "{cuts:?}");
    cut_at_each(&images, Cluster::SingleOverSsh, &DataWish::Fresh, &cuts);
}

fn cut_at_each(images: &TempDir, cluster: Cluster, data: &DataWish, cuts: &[Cut]) {
    each("journal cuts", cuts, async |cut| {
        let case = Case::new(images.path(), cluster, data).await;
        let death = Death::default();
        let log = CutLog { kept: case.log.clone(), cut: *cut, death: death.clone() };
        let world = Mortal { world: case.world(), death: death.clone() };
        let first = case.live(&world, Box::new(log), &death).await;
        drop(world);
        // How often the Kubernetes API is seen to come and go is a matter of moments: the last cuts may come too late.
        let ended = first == Ending::Outcome(Outcome::Done) || case.is_given_back(&first);
        assert!(first == Ending::Death || ended, "{first:?}: {}", case.story());
        case.go_on(&format!("{cut:?}")).await;
    });
}
