//! How a cluster looks that has lived for a while, without waiting for it.

use super::controllers::{Circumstances, Controllers};
use super::kubelet::{Kubelet, Place};
use super::objects::Keyed;
use super::values;
use super::view::{Round, Time, Write};
use crate::etcd::Store;

/// Lets controllers and kubelets work on a store until nothing changes.
pub fn live(store: &mut Store, nodes: &[Place], seed: &str) {
    let mut controllers = Controllers::default();
    let mut kubelets: Vec<Kubelet> = nodes.iter().map(|place| Kubelet::new(&place.node)).collect();
    let now = Circumstances { time: Time::Over, seed, authority: "" };
    // Every round is a step of a few; a cluster that never comes to rest is left as it is.
    for _ in 0..1000 {
        let mut busy = perform(store, controllers.look_at(store, now));
        for (kubelet, place) in kubelets.iter_mut().zip(nodes) {
            busy |= perform(store, kubelet.look_at(store, place, &[], Time::Over));
        }
        if !busy {
            return;
        }
    }
}

fn perform(store: &mut Store, round: Round) -> bool {
    let mut busy = false;
    for Write { key, value, expected, .. } in round.writes {
        let key = bytes::Bytes::from(key);
        if store.get(&key).map_or(0, |kv| kv.modified) != expected {
            continue;
        }
        busy = true;
        match value {
            Some(value) => {
                store.put(key, values::encode(&value));
            }
            None => {
                store.delete(&key);
            }
        }
    }
    busy
}

/// Puts objects into a store.
pub fn fill(store: &mut Store, objects: impl IntoIterator<Item = Keyed>) {
    for (key, value) in objects {
        store.put(bytes::Bytes::from(key), values::encode(&value));
    }
}
