//! Every adjacent minor of Talos from 1.5 to 1.14, and ways of several hops with Kubernetes between, on clusters of many
//! sizes. By default each minor once, and each size once; all of it with `RECAST_TEST_ALL_CUTS`.

use super::{LAB, Scene, Shape};
use crate::crash::each;

/// The last patch of each minor, with the newest Kubernetes that it and the next one run.
const MINORS: [(&str, &str); 10] = [
    ("1.5.5", "1.28.15"),
    ("1.6.8", "1.29.15"),
    ("1.7.7", "1.30.14"),
    ("1.8.4", "1.31.14"),
    ("1.9.6", "1.32.10"),
    ("1.10.9", "1.33.6"),
    ("1.11.6", "1.34.2"),
    ("1.12.11", "1.35.4"),
    ("1.13.9", "1.36.3"),
    ("1.14.0", "1.36.3"),
];

/// Control planes and workers.
const SIZES: [(u32, u32); 6] = [(1, 0), (3, 0), (1, 4), (3, 4), (5, 0), (5, 4)];

fn all() -> bool {
    std::env::var_os("RECAST_TEST_ALL_CUTS").is_some()
}

/// From one version to another; what runs afterwards.
async fn goes(shape: Shape, args: &[&str], (talos, kubernetes): (&str, &str)) {
    let scene = Scene::begin(shape).await;
    let asked = [&["upgrade", "--confirm", "lab", "--max-parallel", "50%"][..], args].concat();
    let (code, document, story) = scene.asked(&asked).await;
    assert_eq!(code, 0, "{shape:?}\n{document:#}\n{story}");
    scene.assert_runs(talos, kubernetes, &format!("{shape:?}\n{story}")).await;
}

#[test]
fn every_adjacent_minor_goes_up_on_every_size() {
    let mut cases = Vec::new();
    for (number, hop) in MINORS.windows(2).enumerate() {
        for (other, size) in SIZES.iter().enumerate() {
            // The big ones take their time: the small ones come twice.
            let due = number % SIZES.len() == other;
            if all() || due {
                cases.push((hop[0].0, hop[0].1, hop[1].0, *size));
            }
        }
    }
    each("adjacent minors", &cases, async |case| {
        let (talos, kubernetes, to, (control, workers)) = *case;
        let shape = Shape { control, workers, talos, kubernetes, ..LAB };
        goes(shape, &["--to", to, "--only", "os"], (to, kubernetes)).await;
    });
}

#[test]
fn ways_of_several_hops_take_kubernetes_along() {
    let ways = [
        (("1.5.5", "1.28.15"), ("1.8.4", "1.31.14"), (1, 0)),
        (("1.9.6", "1.31.14"), ("1.12.11", "1.34.2"), (3, 0)),
        (("1.12.4", "1.34.1"), ("1.14.0", "1.36.3"), (1, 1)),
    ];
    let mut cases = Vec::new();
    for (from, to, size) in ways {
        let sizes = if all() { &SIZES[..] } else { &[size][..] };
        cases.extend(sizes.iter().map(|size| (from, to, *size)));
    }
    each("several hops", &cases, async |way| {
        let ((talos, kubernetes), to, (control, workers)) = *way;
        let shape = Shape { control, workers, talos, kubernetes, ..LAB };
        goes(shape, &["--to", to.0, "--kubernetes", to.1], to).await;
    });
}
