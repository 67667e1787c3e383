//! Whether machines run the Kubernetes that their configurations name.
//!
//! Since 1.11 a machine refuses a configuration with any other, by the tags of its images. Must not know: how
//! configurations are made.

use crate::plan::compatibility::{kubernetes_range, runs_on};
use crate::plan::kubernetes::image::version_of;
use crate::talos::config::Config;
use crate::talos::config::yaml::Value;
use crate::types::Version;

/// The images that a machine looks at: kind of the document, path in it.
const IMAGES: [(&str, &[&str]); 9] = [
    ("v1alpha1", &["machine", "kubelet", "image"]),
    ("v1alpha1", &["cluster", "apiServer", "image"]),
    ("v1alpha1", &["cluster", "controllerManager", "image"]),
    ("v1alpha1", &["cluster", "scheduler", "image"]),
    ("KubeletConfig", &["image"]),
    ("KubeAPIServerConfig", &["image"]),
    ("KubeControllerManagerConfig", &["image"]),
    ("KubeSchedulerConfig", &["image"]),
    ("KubeProxyConfig", &["image"]),
];

/// What becomes of a configuration whose Kubernetes the machine's Talos doesn't run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// The machine takes it, and nobody has tried whether it works.
    Untried,
    /// The machine refuses it.
    Refused,
}

impl Fate {
    /// With this Talos.
    pub(super) fn with(talos: &Version) -> Self {
        if talos.minor() < (1, 11) { Self::Untried } else { Self::Refused }
    }
}

/// Each image of a Kubernetes that this Talos doesn't run.
pub(super) fn beyond(config: &Config, talos: &Version) -> Vec<String> {
    let Some(((_, first), (_, last))) = kubernetes_range(talos) else { return Vec::new() };
    let mut found = Vec::new();
    for document in config.documents() {
        let kind = document.at(&["kind"]).and_then(Value::as_text).unwrap_or("v1alpha1");
        // What is off is not looked at.
        if document.at(&["enabled"]) == Some(&false.into()) {
            continue;
        }
        for (_, path) in IMAGES.iter().filter(|(of, _)| *of == kind) {
            let version = document.at(path).and_then(Value::as_text).and_then(version_of);
            if let Some(version) = version.filter(|version| !runs_on(version, talos)) {
                let (path, range) = (path.join("."), format!("1.{first} to 1.{last}"));
                found.push(format!("{kind} {path} is of Kubernetes {version}, and Talos {talos} runs {range}"));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_held_against_the_talos_that_reads_them() {
        let config = Config::parse(
            "machine: {kubelet: {image: \"example.org:5000/kubelet:v1.28.3-fat\"}}\ncluster: {apiServer: {image: \
             \"a:v1.34.1\"}}\n---\napiVersion: v1alpha1\nkind: KubeSchedulerConfig\nimage: s:v1.36.0\n",
        )
        .unwrap();
        let told = |talos: &str| beyond(&config, &talos.parse().unwrap());
        let kubelet = "v1alpha1 machine.kubelet.image is of Kubernetes 1.28.3, and Talos 1.12.4 runs 1.30 to 1.35";
        let scheduler = "KubeSchedulerConfig image is of Kubernetes 1.36.0, and Talos 1.12.4 runs 1.30 to 1.35";
        assert_eq!(told("1.12.4"), [kubelet, scheduler]);
        assert_eq!(told("1.99.0"), Vec::<String>::new(), "what is not known is the machine's to say");
        let fate = |talos: &str| Fate::with(&talos.parse().unwrap());
        assert_eq!((fate("1.10.9"), fate("1.11.0")), (Fate::Untried, Fate::Refused));
    }
}
