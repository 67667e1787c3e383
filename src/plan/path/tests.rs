//! Every upgrade is a row.

use super::*;

const RELEASED: &[&str] = &[
    "1.5.5",
    "1.6.7",
    "1.6.8",
    "1.7.7",
    "1.8.4",
    "1.9.6",
    "1.10.8",
    "1.10.9",
    "1.11.6",
    "1.12.4",
    "1.12.11",
    "1.13.0",
    "1.13.9",
    "1.14.0-rc.1",
    "1.14.0",
];

fn version(text: &str) -> Version {
    text.parse().unwrap()
}

fn versions((talos, kubernetes): (&str, &str)) -> Versions {
    Versions { talos: version(talos), kubernetes: version(kubernetes) }
}

fn released() -> Vec<Version> {
    RELEASED.iter().map(|text| version(text)).collect()
}

/// The hops, as `os 1.13.9` and `k8s 1.35.0`.
fn path(now: (&str, &str), wanted: (&str, &str)) -> Result<Vec<String>, NoPath> {
    let (released, table) = (released(), Table::built_in());
    let (now, wanted) = (versions(now), versions(wanted));
    let hops = find(&Question { table, released: &released, now, wanted, hops: Hops::Any })?;
    let short = |hop: &Hop| {
        let what = if hop.what == What::Os { "os" } else { "k8s" };
        assert!(!hop.because.is_empty());
        format!("{what} {}", hop.to)
    };
    Ok(hops.iter().map(short).collect())
}

/// Talos and Kubernetes.
type Pair = (&'static str, &'static str);

#[test]
fn every_adjacent_minor_is_one_hop_of_each_and_kubernetes_goes_first_where_it_can() {
    for minor in 5..14_u64 {
        let table = Table::built_in();
        let range = |minor: u64| table.talos[&Minor(1, minor)].kubernetes;
        let last = |minor: u64| {
            released()
                .into_iter()
                .filter(|version| version.minor() == (1, minor) && !version.is_prerelease())
                .max()
                .unwrap()
        };
        let (now, next) = (last(minor).to_string(), last(minor + 1).to_string());
        // From the newest Kubernetes of the old Talos to the newest of the new: only the new one runs that.
        let (old, new) = (range(minor).1, range(minor + 1).1);
        let (old, new) = (format!("{old}.0"), format!("{new}.0"));
        assert_eq!(
            path((&now, &old), (&next, &new)).unwrap(),
            [format!("os {next}"), format!("k8s {new}")],
            "1.{minor}"
        );
        // One minor below the newest: both take it, so Kubernetes goes first.
        let below = Minor(1, range(minor).1.1 - 1);
        assert_eq!(
            path((&now, &format!("{below}.0")), (&next, &old)).unwrap(),
            [format!("k8s {old}"), format!("os {next}")],
            "1.{minor}"
        );
        // Talos alone.
        assert_eq!(path((&now, &old), (&next, &old)).unwrap(), [format!("os {next}")], "1.{minor}");
    }
}

#[test]
fn several_minors_go_through_the_last_patch_of_each_between_and_stay_in_every_range() {
    let cases: &[(Pair, Pair, &[&str])] = &[
        (("1.12.4", "1.34.1"), ("1.13.9", "1.35.0"), &["k8s 1.35.0", "os 1.13.9"]),
        (("1.12.4", "1.34.1"), ("1.13.9", "1.36.3"), &["k8s 1.35.4", "os 1.13.9", "k8s 1.36.3"]),
        (("1.11.6", "1.34.1"), ("1.13.9", "1.34.1"), &["os 1.12.11", "os 1.13.9"]),
        (
            ("1.9.6", "1.29.4"),
            ("1.12.11", "1.34.1"),
            &[
                "k8s 1.30.14",
                "k8s 1.31.14",
                "k8s 1.32.10",
                "os 1.10.9",
                "k8s 1.33.6",
                "os 1.11.6",
                "k8s 1.34.1",
                "os 1.12.11",
            ],
        ),
        (("1.13.0", "1.35.0"), ("1.13.9", "1.35.0"), &["os 1.13.9"]),
        (("1.13.9", "1.35.0"), ("1.13.9", "1.35.4"), &["k8s 1.35.4"]),
        (("1.13.9", "1.35.0"), ("1.13.9", "1.35.0"), &[]),
        (("1.12.4", "1.35.0"), ("1.12.11", "1.35.4"), &["k8s 1.35.4", "os 1.12.11"]),
    ];
    for (now, wanted, expected) in cases {
        assert_eq!(path(*now, *wanted).unwrap(), *expected, "{now:?} -> {wanted:?}");
    }
    let far = path(("1.5.5", "1.28.0"), ("1.14.0", "1.36.3")).unwrap();
    assert_eq!(far.iter().filter(|hop| hop.starts_with("os")).count(), 9, "{far:?}");
    assert_eq!(far.iter().filter(|hop| hop.starts_with("k8s")).count(), 8, "{far:?}");
    assert!(far.contains(&"os 1.10.9".to_owned()) && !far.contains(&"os 1.14.0-rc.1".to_owned()));
}

#[test]
fn after_every_hop_the_kubernetes_that_runs_is_one_that_the_talos_takes() {
    let table = Table::built_in();
    let released = released();
    for from in 5..14_u64 {
        for to in from + 1..=14 {
            let lowest = table.talos[&Minor(1, from)].kubernetes.0;
            let newest = table.talos[&Minor(1, to)].kubernetes.1;
            let now = Versions { talos: Version::new(1, from, 0), kubernetes: Version::new(1, lowest.1, 1) };
            let last = Minor(1, newest.1.min(36));
            let wanted = Versions { talos: Version::new(1, to, 0), kubernetes: Version::new(1, last.1, 3) };
            let question = Question { table, released: &released, now: now.clone(), wanted, hops: Hops::Any };
            let hops = find(&question).unwrap_or_else(|no| panic!("1.{from} -> 1.{to}: {no}"));
            let mut at = now;
            for hop in hops {
                let (before, after) = match hop.what {
                    What::Os => (at.talos.clone(), &mut at.talos),
                    What::Kubernetes => (at.kubernetes.clone(), &mut at.kubernetes),
                };
                assert!(hop.to.minor().1 - before.minor().1 <= 1, "{hop:?}");
                *after = hop.to;
                assert_eq!(table.runs(&at.kubernetes, &at.talos), Some(true), "{at:?}");
            }
        }
    }
}

#[test]
fn what_blocks_is_named_with_a_way_round() {
    let cases: &[(Pair, Pair, &str)] = &[
        (("1.13.9", "1.35.0"), ("1.12.11", "1.35.0"), "Talos 1.13.9 runs, and 1.12.11 is older"),
        (
            ("1.13.9", "1.35.0"),
            ("1.13.9", "1.34.1"),
            "Kubernetes 1.35.0 runs, and 1.34.1 is older: its data never go back",
        ),
        (
            ("1.13.9", "1.35.0"),
            ("1.15.0", "1.35.0"),
            "the compatibility table does not know Talos 1.15.0: it goes up to 1.14",
        ),
        (
            ("1.13.9", "1.35.0"),
            ("1.13.9", "1.37.0"),
            "Talos 1.13.9 runs Kubernetes 1.31 to 1.36, and 1.37.0 would run on it",
        ),
        (
            ("1.12.4", "1.30.2"),
            ("1.13.9", "1.30.2"),
            "Talos 1.13.9 runs Kubernetes 1.31 to 1.36, and 1.30.2 would run on it",
        ),
        (
            ("1.14.0", "1.36.0"),
            ("1.14.0", "1.39.0"),
            "no release of Kubernetes 1.37 is known, which lies on the way to 1.39.0, and no minor is skipped",
        ),
    ];
    for (now, wanted, expected) in cases {
        let no = path(*now, *wanted).unwrap_err();
        assert_eq!(no.to_string(), *expected);
        assert!(!no.hint().is_empty());
    }
}

#[test]
fn a_minor_without_a_release_is_not_jumped_over() {
    let mut released = released();
    released.retain(|version| version.minor() != (1, 12));
    let (now, wanted) = (versions(("1.11.6", "1.34.1")), versions(("1.13.9", "1.34.1")));
    let question = Question { table: Table::built_in(), released: &released, now, wanted, hops: Hops::Any };
    let no = find(&question).unwrap_err();
    assert_eq!(no, NoPath::Gap { minor: Minor(1, 12), wanted: version("1.13.9") });
}

#[test]
fn where_no_hops_are_wanted_a_skipped_minor_is_refused() {
    let released = released();
    let ask = |now, wanted| {
        let (now, wanted) = (versions(now), versions(wanted));
        find(&Question { table: Table::built_in(), released: &released, now, wanted, hops: Hops::OneOfEach })
    };
    let no = ask(("1.11.6", "1.34.1"), ("1.13.9", "1.34.1")).unwrap_err();
    assert_eq!(no.to_string(), "Talos would skip a minor: from 1.11.6 to 1.13.9 it takes 2 hops");
    assert_eq!(ask(("1.12.4", "1.34.1"), ("1.13.9", "1.35.0")).unwrap().len(), 2);
}

#[test]
fn each_hop_says_why() {
    let (released, table) = (released(), Table::built_in());
    let (now, wanted) = (versions(("1.12.4", "1.34.1")), versions(("1.13.9", "1.36.3")));
    let hops = find(&Question { table, released: &released, now, wanted, hops: Hops::Any }).unwrap();
    let why: Vec<&str> = hops.iter().map(|hop| hop.because.as_str()).collect();
    assert_eq!(
        why,
        [
            "on the way to 1.36.3: Kubernetes goes up one minor at a time; Talos 1.12 takes it, and Kubernetes goes first \
             where it can",
            "as asked for; Talos 1.12 runs Kubernetes up to 1.35 only",
            "as asked for",
        ]
    );
}
