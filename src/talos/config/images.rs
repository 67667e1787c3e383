//! Images of Kubernetes' components in a machine's configuration: read, and changed where they stand.
//!
//! Purpose: change one value and leave every other document and key as it is, those that nobody here knows included.
//! A component's own document (since 1.14) wins over the `v1alpha1` document; the machine refuses a configuration that has
//! both. Must not know: versions, how a configuration is applied.

use super::yaml::{Map, Value};
use super::{Config, kind_of};

/// Where a component's part of the configuration is.
struct Place {
    name: &'static str,
    document: &'static str,
    legacy: [&'static str; 2],
    /// Where the legacy document switches it off.
    off: Option<[&'static str; 3]>,
}

const PLACES: [Place; 5] = [
    Place { name: "kube-apiserver", document: "KubeAPIServerConfig", legacy: ["cluster", "apiServer"], off: None },
    Place {
        name: "kube-controller-manager",
        document: "KubeControllerManagerConfig",
        legacy: ["cluster", "controllerManager"],
        off: Some(["machine", "controlPlane", "controllerManager"]),
    },
    Place {
        name: "kube-scheduler",
        document: "KubeSchedulerConfig",
        legacy: ["cluster", "scheduler"],
        off: Some(["machine", "controlPlane", "scheduler"]),
    },
    Place { name: "kube-proxy", document: "KubeProxyConfig", legacy: ["cluster", "proxy"], off: None },
    Place { name: "kubelet", document: "KubeletConfig", legacy: ["machine", "kubelet"], off: None },
];

fn place(component: &str) -> Option<&'static Place> {
    PLACES.iter().find(|place| place.name == component)
}

impl Config {
    fn own_document(&self, place: &Place) -> Option<usize> {
        self.documents.iter().position(|document| kind_of(document) == place.document)
    }

    fn main_document(&self) -> Option<usize> {
        self.documents.iter().position(|document| kind_of(document) == "v1alpha1")
    }

    /// The image of a component (`kube-apiserver`, `kubelet` …), where the configuration names one.
    pub fn image_of(&self, component: &str) -> Option<&str> {
        let place = place(component)?;
        let value = match self.own_document(place) {
            Some(at) => self.documents[at].at(&["image"]),
            None => self.documents[self.main_document()?].at(&[place.legacy[0], place.legacy[1], "image"]),
        };
        value.and_then(Value::as_text)
    }

    /// Whether the configuration switches a component off.
    pub fn is_off(&self, component: &str) -> bool {
        let Some(place) = place(component) else { return false };
        let flag = |document: usize, path: &[&str]| self.documents[document].at(path).cloned();
        if let Some(at) = self.own_document(place) {
            return flag(at, &["enabled"]) == Some(false.into());
        }
        let (Some(at), Some([first, second, third])) = (self.main_document(), place.off) else { return false };
        flag(at, &[first, second, third, "disabled"]) == Some(true.into())
    }

    /// Sets the image of a component in the style that the configuration has; whether there was a place for it.
    pub fn set_image(&mut self, component: &str, image: &str) -> bool {
        let Some(place) = place(component) else { return false };
        let own = self.own_document(place);
        let Some(at) = own.or_else(|| self.main_document()) else { return false };
        let Some(mut map) = self.documents[at].as_map_mut() else { return false };
        let path: &[&str] = if own.is_some() { &[] } else { &place.legacy };
        for key in path {
            if !matches!(map.get(key), Some(Value::Map(_))) {
                map.set(key, Map::new());
            }
            let Some(Value::Map(inner)) = map.get_mut(key) else { return false };
            map = inner;
        }
        map.set("image", image);
        true
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    const LEGACY: &str = "version: v1alpha1\nmachine:\n  type: controlplane\n  unheardOf: 7\n  kubelet: {}\n  \
                          controlPlane:\n    scheduler:\n      disabled: true\ncluster:\n  apiServer:\n    image: a/kube-apiserver:v1.34.1\n    \
                          certSANs: [x]\n---\napiVersion: v1alpha1\nkind: HostnameConfig\nhostname: cp-01\n---\napiVersion: v1alpha1\nkind: FutureConfig\nname: '0123'\n";

    #[test]
    fn an_image_is_changed_where_it_stands_and_all_else_stays() {
        let mut config = Config::parse(LEGACY).unwrap();
        let before = config.documents().to_vec();
        assert_eq!(config.image_of("kube-apiserver"), Some("a/kube-apiserver:v1.34.1"));
        assert_eq!(config.image_of("kubelet"), None);
        assert!(config.is_off("kube-scheduler") && !config.is_off("kube-controller-manager"));
        for component in ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet"] {
            assert!(config.set_image(component, "b:v2"));
            assert_eq!(config.image_of(component), Some("b:v2"));
        }
        let text = config.to_yaml();
        let again = Config::parse(text.expose_secret()).unwrap();
        assert_eq!(again.documents()[1..], before[1..], "other documents are not touched");
        assert_eq!(again.documents()[0].at(&["machine", "unheardOf"]), before[0].at(&["machine", "unheardOf"]));
        assert_eq!(
            again.documents()[0].at(&["cluster", "apiServer", "certSANs"]),
            before[0].at(&["cluster", "apiServer", "certSANs"])
        );
        assert!(!config.set_image("etcd", "b:v2"));
    }

    #[test]
    fn a_document_of_its_own_is_changed_rather_than_the_main_one() {
        let text = "version: v1alpha1\nmachine: {type: controlplane}\n---\napiVersion: v1alpha1\nkind: KubeSchedulerConfig\n\
                    enabled: false\nimage: a:v1\n";
        let mut config = Config::parse(text).unwrap();
        assert!(config.is_off("kube-scheduler") && config.set_image("kube-scheduler", "a:v2"));
        assert_eq!(config.documents()[1].at(&["image"]).and_then(Value::as_text), Some("a:v2"));
        assert_eq!(config.documents()[0].at(&["cluster"]), None);
    }
}
