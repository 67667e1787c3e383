//! Clusters of several machines, from their first boot to their recovery from a snapshot.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Status};

use super::gate::{self, Peer};
use super::proto::{common, machine as api};
use super::{Machines, apply, etcd, listener};
use crate::etcd::{Check, Client, EtcdError, restore};
use crate::serve::profile::Profiled;
use crate::world::cluster::{self, objects};
use crate::world::machine::{Api, Bootstrap, Command, Machine, Restart, Room, ServiceState, State, Wipe};
use crate::world::{PveVersion, Settings, World};

pub(super) const CONTROL_PLANES: [u32; 3] = [1200, 1201, 1202];
pub(super) const ALL: [u32; 5] = [1200, 1201, 1202, 1210, 1211];

const PROFILE: &str = r#"
name: lab
talos: {version: "1.12.4", kubernetes_version: "1.34.1", config_dir: single, secrets_file: secrets.yaml, vip: {ip: 10.77.0.10}}
network: {api_endpoint: "10.77.0.10:6443", gateway: 10.77.0.1, prefix: 24}
nodes:
  controlplane:
    {count: 3, name_prefix: lab-cp-, cores: 2, memory: 4096, disk: 10G, assignments: [
      {name: lab-cp-01, node: pve1, vmid: 1200, ip: 10.77.0.11}, {name: lab-cp-02, node: pve1, vmid: 1201, ip: 10.77.0.12},
      {name: lab-cp-03, node: pve1, vmid: 1202, ip: 10.77.0.13}]}
  workers:
    {count: 2, name_prefix: lab-worker-, cores: 2, memory: 4096, disk: 10G, assignments: [
      {name: lab-worker-01, node: pve1, vmid: 1210, ip: 10.77.0.21}, {name: lab-worker-02, node: pve1, vmid: 1211, ip: 10.77.0.22}]}
tags: [talos, lab]
"#;

/// A lab that runs, without sockets.
pub(super) struct Lab {
    pub(super) world: World,
    pub(super) room: Room,
    _running: tokio::task::JoinHandle<()>,
    _folder: tempfile::TempDir,
}

impl Lab {
    pub(super) async fn begin() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let secrets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../profiles/single/secrets.yaml");
        std::fs::create_dir(path("single")).unwrap();
        std::fs::copy(secrets, path("single/secrets.yaml")).unwrap();
        std::fs::write(path("lab.yaml"), PROFILE).unwrap();
        let seed = Profiled::load(&path("lab.yaml"), folder.path()).unwrap().seed;
        let settings = Settings { dir: path("state"), time_scale: 40.0, rng_seed: 1, pve: PveVersion::V8 };
        let world = World::new(seed, settings).unwrap();
        let machines = Machines::new(world.clone());
        machines.seed().unwrap();
        let room = machines.room().clone();
        let running = tokio::spawn(room.clone().run());
        let lab = Self { world, room, _running: running, _folder: folder };
        lab.until("all nodes are ready", || lab.ready() == ALL.len()).await;
        lab
    }

    pub(super) async fn until(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let began = Instant::now();
        while !is_so() {
            assert!(began.elapsed() < Duration::from_mins(1), "never: {what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(super) fn ready(&self) -> usize {
        self.room.machines().iter().filter(|machine| machine.see(|state| state.node_ready)).count()
    }

    pub(super) fn machine(&self, vmid: u32) -> Machine {
        self.room.machine(vmid).unwrap()
    }

    pub(super) fn client(&self, vmid: u32) -> Option<Client> {
        self.room.machine(vmid)?.see(|state| state.membership.clone())
    }

    pub(super) fn leader(&self) -> Option<u32> {
        CONTROL_PLANES.into_iter().find(|vmid| {
            self.client(*vmid).is_some_and(|client| client.is_healthy() && client.etcd.leader() == Some(client.id))
        })
    }

    pub(super) fn healthy_members(&self) -> usize {
        let healthy = |vmid: &u32| {
            self.client(*vmid).is_some_and(|client| {
                let voters = client.members().iter().filter(|member| !member.learner).count();
                client.is_healthy() && voters == CONTROL_PLANES.len()
            })
        };
        CONTROL_PLANES.iter().filter(|vmid| healthy(vmid)).count()
    }

    fn service(&self, vmid: u32) -> Option<(ServiceState, String)> {
        self.machine(vmid).see(|state| {
            let etcd = state.services.get("etcd")?;
            Some((etcd.state, etcd.events.last()?.1.clone()))
        })
    }

    async fn write(&self, vmid: u32, name: &str) -> Result<u64, EtcdError> {
        let client = self.client(vmid).ok_or(EtcdError::Stopped)?;
        let object = objects::config_map("default", name, json!({ "written": name }), "test");
        cluster::put(&client, &key(name), &object, Some(0)).await
    }

    pub(super) async fn shut_down(&self, vmid: u32) {
        self.machine(vmid).command(Command::Shutdown { actor: String::new(), force: true });
        self.until("a machine is off", || self.room.machine(vmid).is_none()).await;
    }

    /// All control planes forget etcd and boot again, as if they were new machines of the same cluster.
    async fn forget(&self) {
        for vmid in CONTROL_PLANES {
            if self.room.machine(vmid).is_none() {
                self.world.switch_on(vmid);
            }
        }
        for vmid in CONTROL_PLANES {
            self.until("a machine is up", || {
                self.room.machine(vmid).is_some_and(|machine| machine.see(|state| state.api == Api::Configured))
            })
            .await;
            let wipe = Wipe::Partitions(vec!["EPHEMERAL".to_owned()]);
            self.machine(vmid).command(Command::Reset { actor: String::new(), graceful: false, wipe, reboot: true });
        }
        self.until("etcd is empty and waits everywhere", || {
            CONTROL_PLANES.iter().all(|vmid| {
                let waits = self.service(*vmid).is_some_and(|(state, _)| state == ServiceState::Preparing);
                waits
                    && self.client(*vmid).is_none()
                    && self.machine(*vmid).see(|state| {
                        state.services.get("kubelet").is_some_and(|kubelet| kubelet.state == ServiceState::Running)
                    })
            })
        })
        .await;
    }
}

fn key(name: &str) -> String {
    objects::key("configmaps", Some("default"), name)
}

fn disk(machine: &Machine) -> PathBuf {
    machine.hardware().disk.clone().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_control_planes_are_frozen_recovered_from_their_snapshot_and_whole_again() {
    let lab = Lab::begin().await;
    lab.until("three members are healthy", || lab.healthy_members() == 3).await;
    let holder = || ALL.iter().copied().find(|vmid| !lab.room.shared(*vmid).is_empty());
    lab.until("somebody holds the shared address", || holder().is_some()).await;
    let namespace = cluster::get(&lab.client(1200).unwrap(), &objects::key("namespaces", None, "kube-system")).unwrap();

    for (at, vmid) in CONTROL_PLANES.iter().enumerate() {
        lab.write(*vmid, &format!("before-{at}")).await.unwrap();
        assert_eq!(
            lab.write(*vmid, &format!("before-{at}")).await,
            Err(EtcdError::Conflict(
                cluster::get(&lab.client(*vmid).unwrap(), &key(&format!("before-{at}"))).unwrap().modified
            ))
        );
    }
    let kept = lab.leader().unwrap();
    let followers: Vec<u32> = CONTROL_PLANES.into_iter().filter(|vmid| *vmid != kept).collect();
    lab.shut_down(followers[0]).await;
    let last = lab.write(kept, "between").await.unwrap();
    assert_eq!(lab.client(kept).unwrap().members().len(), 3, "a member that was shut down stays a member");
    let before = etcd::status(lab.machine(kept)).await.unwrap().member_status.unwrap();
    lab.shut_down(followers[1]).await;
    assert_eq!(lab.write(kept, "too-late").await, Err(EtcdError::Timeout));
    let after = etcd::status(lab.machine(kept)).await.unwrap().member_status.unwrap();
    assert_eq!((after.leader, after.raft_term, after.raft_index), (0, before.raft_term, after.raft_applied_index));

    let snapshot = etcd::snapshot(&lab.machine(kept)).unwrap();
    let database = etcd::database(&lab.machine(kept)).unwrap();
    assert_eq!(snapshot[..snapshot.len() - 32], database);
    let store = restore(&snapshot, Check::Hash).unwrap();
    assert!(store.revision() >= last && store.get(key("too-late").as_bytes()).is_none());

    lab.forget().await;
    let fresh = lab.machine(1201);
    let ask = |recover_etcd| api::BootstrapRequest { recover_etcd, recover_skip_hash_check: false };
    recovered(&fresh, &snapshot).unwrap();
    etcd::bootstrap(&fresh, ask(true)).unwrap();
    assert_eq!(etcd::bootstrap(&fresh, ask(true)).unwrap_err().code(), tonic::Code::AlreadyExists);
    lab.until("three members are healthy again", || lab.healthy_members() == 3).await;
    lab.until("all nodes are ready again", || lab.ready() == ALL.len()).await;
    let client = lab.client(1200).unwrap();
    client.catch_up().await.unwrap();
    let (maps, revision) = cluster::list(&client, "/registry/configmaps/default/");
    let names: Vec<&str> = maps.iter().map(cluster::Entry::name).filter(|name| !name.starts_with("seeded")).collect();
    assert_eq!(names, ["before-0", "before-1", "before-2", "between", "kube-root-ca.crt"]);
    assert_eq!(maps.len(), 105);
    assert!(revision > store.revision());
    let found = cluster::get(&client, &objects::key("namespaces", None, "kube-system")).unwrap();
    assert_eq!((found.value, found.modified), (namespace.value, namespace.modified));
    let boots: Vec<String> = ALL.iter().map(|vmid| lab.machine(*vmid).see(|state| state.boot_id.clone())).collect();
    lab.until("the node objects are those of the new boots", || {
        let nodes = cluster::list(&client, "/registry/minions/").0;
        nodes.len() == 5
            && nodes.iter().all(|node| {
                let boot = node.value["status"]["nodeInfo"]["bootID"].as_str().unwrap();
                objects::is_ready(&node.value) && boots.iter().any(|known| known == boot)
            })
    })
    .await;
    lab.until("pods run", || {
        let pods = cluster::list(&client, "/registry/pods/").0;
        pods.len() >= 9 + 10 + 5 && pods.iter().all(|pod| objects::is_ready(&pod.value))
    })
    .await;

    // The shared address moves with its holder's end.
    lab.until("somebody holds the shared address again", || holder().is_some()).await;
    let old = holder().unwrap();
    lab.shut_down(old).await;
    lab.until("somebody else holds it", || holder().is_some_and(|now| now != old)).await;
    // Without power, it goes unheard, and a machine that comes back isn't the holder because it was.
    let last = holder().unwrap();
    lab.world.switch_off(last);
    lab.until("the holder is off", || lab.room.machine(last).is_none()).await;
    assert_eq!(holder(), None);
    lab.world.switch_on(last);
    lab.world.switch_on(old);
    lab.until("three members are healthy in the end", || lab.healthy_members() == 3).await;
    lab.until("somebody holds the shared address in the end", || holder().is_some()).await;
    let client = lab.client(last).unwrap();
    lab.until("nodes that were called unknown are ready in the end", || {
        let nodes = cluster::list(&client, "/registry/minions/").0;
        nodes.len() == 5 && nodes.iter().all(|node| objects::is_ready(&node.value))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_hand_over_leave_and_are_removed() {
    let lab = Lab::begin().await;
    lab.until("three members are healthy", || lab.healthy_members() == 3).await;
    let first = lab.leader().unwrap();
    let term = async |vmid| etcd::status(lab.machine(vmid)).await.unwrap().member_status.unwrap().raft_term;
    let before = term(first).await;
    let next = etcd::forfeit(lab.machine(first)).await.unwrap().member;
    let second = CONTROL_PLANES.into_iter().find(|vmid| lab.machine(*vmid).see(State::hostname) == next).unwrap();
    lab.until("the other one leads", || lab.leader() == Some(second)).await;
    assert!(second != first && term(second).await == before + 1);
    assert_eq!(etcd::forfeit(lab.machine(first)).await.unwrap().member, "");
    etcd::leave(lab.machine(first)).await.unwrap();
    lab.until("it left", || lab.service(first).is_some_and(|(state, _)| state == ServiceState::Finished)).await;
    assert!(crate::etcd::read(&disk(&lab.machine(first))).unwrap().is_none());
    let third = CONTROL_PLANES.into_iter().find(|vmid| ![first, second].contains(vmid)).unwrap();
    let id = lab.client(third).unwrap().id;
    etcd::remove(lab.machine(second), id).await.unwrap();
    assert_eq!(etcd::remove(lab.machine(second), id).await.unwrap_err().code(), tonic::Code::NotFound);
    lab.until("the removed one notices", || {
        lab.service(third)
            .is_some_and(|(state, said)| state == ServiceState::Failed && said.contains("permanently removed"))
    })
    .await;
    assert_eq!(etcd::members(&lab.machine(second), etcd::Source::Own).unwrap().members.len(), 1);
    lab.write(second, "alone").await.unwrap();
    // A machine that left joins again with its next boot.
    lab.machine(first).command(Command::Reboot { actor: String::new(), restart: Restart::Kexec });
    lab.until("it is a member again", || {
        lab.client(second).unwrap().members().iter().filter(|one| !one.learner).count() == 2
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_is_not_whole_is_refused_as_talos_does_after_the_bootstrap() {
    let lab = Lab::begin().await;
    let snapshot = etcd::snapshot(&lab.machine(1200)).unwrap();
    lab.forget().await;
    let worker = etcd::bootstrap(&lab.machine(1210), api::BootstrapRequest::default()).unwrap_err();
    assert_eq!(worker.message(), "bootstrap can only be performed on a control plane node");
    let recover = |skip| api::BootstrapRequest { recover_etcd: true, recover_skip_hash_check: skip };
    let mut altered = snapshot.clone();
    altered[9_000] ^= 1;
    let without = &snapshot[..snapshot.len() - 32];
    for (vmid, upload, skip, why) in [
        (1200, None, false, "no such file"),
        (1201, Some(&altered[..]), false, "expected sha256"),
        (1202, Some(without), false, "snapshot missing hash"),
    ] {
        let machine = lab.machine(vmid);
        if let Some(upload) = upload {
            recovered(&machine, upload).unwrap();
        }
        etcd::bootstrap(&machine, recover(skip)).unwrap();
        lab.until("etcd failed", || {
            lab.service(vmid).is_some_and(|(state, said)| state == ServiceState::Failed && said.contains(why))
        })
        .await;
        assert_eq!(etcd::bootstrap(&machine, recover(skip)).unwrap_err().message(), "etcd data directory is not empty");
    }
    // Emptied again, the same file without its hash is taken when that was asked for.
    lab.forget().await;
    let machine = lab.machine(1202);
    recovered(&machine, without).unwrap();
    etcd::bootstrap(&machine, recover(true)).unwrap();
    lab.until("three members are healthy", || lab.healthy_members() == 3).await;
    assert!(crate::etcd::kept_upload(&disk(&machine)).unwrap().is_none());
    assert_eq!(machine.see(|state| state.bootstrapping), Some(Bootstrap::Recover(Check::Skip)));
    assert_eq!(machine.see(State::hostname), "lab-cp-03");
}

/// A snapshot is uploaded as a whole.
fn recovered(machine: &Machine, snapshot: &[u8]) -> Result<(), tonic::Status> {
    etcd::begin_upload(machine)?;
    etcd::end_upload(machine, snapshot).map(drop)
}

/// How an upload ends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Ends {
    Well,
    /// The caller's source failed, after the upload had begun.
    Failed,
    /// The caller went away.
    Cancelled,
}

/// Uploads bytes to a machine over HTTP/2, and says how the call ended.
async fn upload(machine: &Machine, bytes: &[u8], ends: Ends) -> Option<String> {
    use bytes::{BufMut as _, Bytes, BytesMut};
    use futures_util::StreamExt as _;
    use http_body_util::{BodyExt as _, StreamBody};
    use hyper::body::Frame;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use prost::Message as _;

    let (here, there) = tokio::io::duplex(1 << 16);
    let (served, peer) = (machine.clone(), Peer::with_role("os:admin"));
    tokio::spawn(async move {
        listener::answer(there, &served, peer, crate::scenario::Cut::default(), CancellationToken::new()).await;
    });
    let io = TokioIo::new(here);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    let frames = bytes.chunks(4096).map(|part| {
        let message = common::Data { bytes: part.to_vec(), ..Default::default() }.encode_to_vec();
        let mut framed = BytesMut::new();
        framed.put_u8(0);
        framed.put_u32(u32::try_from(message.len()).unwrap());
        framed.put_slice(&message);
        Ok(Frame::data(framed.freeze()))
    });
    let frames: Vec<Result<Frame<Bytes>, std::io::Error>> = frames.collect();
    let path = disk(machine);
    let last = futures_util::stream::iter((ends != Ends::Well).then_some(ends)).then(move |ends| {
        let path = path.clone();
        async move {
            while ends == Ends::Cancelled || crate::etcd::kept_upload(&path).unwrap().is_some() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Err(std::io::Error::other("the source is gone"))
        }
    });
    let request = http::Request::post("http://machine/machine.MachineService/EtcdRecover")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(StreamBody::new(futures_util::stream::iter(frames).chain(Box::pin(last))))
        .unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(2), sender.send_request(request)).await.ok()?.ok()?;
    let in_head = answer.headers().get("grpc-status").cloned();
    let body = answer.into_body().collect().await.ok()?;
    let in_trailers = body.trailers().and_then(|trailers| trailers.get("grpc-status").cloned());
    Some(in_head.or(in_trailers)?.to_str().unwrap().to_owned())
}

/// Sends these bytes to a method, and says how the call ended.
async fn call(machine: &Machine, path: &str, body: Vec<u8>) -> Option<String> {
    use http_body_util::{BodyExt as _, Full};
    use hyper_util::rt::{TokioExecutor, TokioIo};

    let (here, there) = tokio::io::duplex(1 << 16);
    let (served, peer) = (machine.clone(), Peer::with_role("os:admin"));
    tokio::spawn(async move {
        listener::answer(there, &served, peer, crate::scenario::Cut::default(), CancellationToken::new()).await;
    });
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(here)).await;
    let (mut sender, connection) = handshake.unwrap();
    tokio::spawn(connection);
    let request = http::Request::post(format!("http://machine/{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(bytes::Bytes::from(body)))
        .unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(5), sender.send_request(request)).await.ok()?.ok()?;
    let in_head = answer.headers().get("grpc-status").cloned();
    let body = tokio::time::timeout(Duration::from_secs(5), answer.into_body().collect()).await.ok()?.ok()?;
    let in_trailers = body.trailers().and_then(|trailers| trailers.get("grpc-status").cloned());
    Some(in_head.or(in_trailers)?.to_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_makes_no_sense_gets_an_error_and_hurts_nobody() {
    let lab = Lab::begin().await;
    let machine = lab.machine(1200);
    let framed = |payload: &[u8], says: u32| {
        let mut body = vec![0];
        body.extend(says.to_be_bytes());
        body.extend(payload);
        body
    };
    let length = |payload: &[u8]| u32::try_from(payload.len()).unwrap();
    // A field of a type that doesn't exist, a field that never ends, text that isn't UTF-8, nothing, half a frame, too much.
    let garbage: [&[u8]; 3] = [&[0xff; 40], &[0x0a, 0x7f, 1, 2], &[0x0a, 2, 0xff, 0xfe]];
    for path in [
        "machine.MachineService/ApplyConfiguration",
        "machine.MachineService/Upgrade",
        "machine.MachineService/Reset",
        "machine.MachineService/Events",
        "machine.MachineService/Logs",
        "machine.MachineService/List",
        "machine.MachineService/EtcdRecover",
        "machine.MachineService/GenerateClientConfiguration",
        "machine.ImageService/Pull",
        "machine.LifecycleService/Upgrade",
        "cosi.resource.State/Watch",
        "cosi.resource.State/List",
        "cluster.ClusterService/HealthCheck",
        "storage.StorageService/BlockDeviceWipe",
    ] {
        for payload in garbage {
            let status = call(&machine, path, framed(payload, length(payload))).await;
            assert!(status.as_deref().is_some_and(|status| status != "0"), "{path}: {status:?}");
        }
        for body in [Vec::new(), vec![0, 0], framed(&[1; 8], 4000), framed(&[1; 8], u32::MAX)] {
            if body.is_empty() && path.ends_with("Recover") {
                // An empty file is a file.
                continue;
            }
            let status = call(&machine, path, body).await;
            assert_ne!(status.as_deref(), Some("0"), "{path}");
        }
    }
    // What answers for one machine takes no `nodes`, unless they are the machine that forwards nothing.
    for (vmid, nodes, code) in [
        (1210, &["10.77.0.21"][..], None),
        (1210, &["10.77.0.22"][..], Some(Code::InvalidArgument)),
        (1210, &["10.77.0.21", "10.77.0.22"][..], Some(Code::InvalidArgument)),
        (1200, &["10.77.0.11"][..], Some(Code::InvalidArgument)),
        (1200, &[][..], None),
    ] {
        let mut request = Request::new(());
        request.extensions_mut().insert(Peer::with_role("os:reader"));
        for node in nodes {
            request.metadata_mut().append("nodes", node.parse().unwrap());
        }
        let found = gate::only(&lab.machine(vmid), &request);
        assert_eq!(found.as_ref().err().map(Status::code), code, "{vmid} {nodes:?}");
        assert!(found.is_err() || found.is_ok_and(|found| found.vmid() == vmid));
    }
    // A configuration that is only tried is one in maintenance mode, too.
    let worker = lab.machine(1211);
    worker.update(|state| {
        if let Some(recipe) = &mut state.recipe {
            "v1.13.8".clone_into(&mut recipe.version);
        }
    });
    let data = worker.see(|state| state.config.as_ref().map(|config| config.text().as_bytes().to_vec())).unwrap();
    let mode = api::apply_configuration_request::Mode::Try.into();
    let answer = apply::in_maintenance(&worker, &api::ApplyConfigurationRequest { data, mode, ..Default::default() });
    let answer = answer.unwrap();
    assert_eq!(answer.mode, mode);
    assert!(answer.mode_details.ends_with("reverted back in 1m0s"), "{}", answer.mode_details);
    assert_eq!(call(&machine, "machine.MachineService/Toast", framed(&[], 0)).await.as_deref(), Some("12"));
    assert_eq!(call(&machine, "machine.MachineService/Version", framed(&[], 0)).await.as_deref(), Some("0"));
    assert_eq!(lab.ready(), ALL.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_was_broken_off_is_not_half_a_snapshot() {
    let lab = Lab::begin().await;
    let machine = lab.machine(1200);
    let kept = || crate::etcd::kept_upload(&disk(&machine)).unwrap();
    for ends in [Ends::Failed, Ends::Cancelled] {
        assert_eq!(upload(&machine, &vec![7; 100_000], Ends::Well).await.as_deref(), Some("0"));
        assert_eq!(kept(), Some(vec![7; 100_000]));
        assert_ne!(upload(&machine, &vec![8; 50_000], ends).await.as_deref(), Some("0"), "{ends:?}");
        lab.until("nothing is left of it", || kept().is_none()).await;
    }
}
