//! Machines that become another version, and back; and configurations that change while they run.

use futures_util::StreamExt as _;

use super::proto::machine as api;
use super::tests::{ALL, Lab};
use super::{apply, life, resources};
use crate::etcd::{Change, Member};
use crate::world::cluster::{self, objects};
use crate::world::machine::{
    Api, Command, Fault, Machine, Namespace, Restart, ServiceState, Slot, Stage, Stopped, What,
};

const SCHEMATIC: &str = "376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba";

fn ask(version: &str) -> api::UpgradeRequest {
    let image = format!("factory.talos.dev/nocloud-installer/{SCHEMATIC}:{version}");
    api::UpgradeRequest { image, ..Default::default() }
}

impl Lab {
    async fn until_up(&self, vmid: u32, version: &str) {
        self.until(&format!("{vmid} runs {version}"), || {
            self.room.machine(vmid).is_some_and(|machine| {
                machine.see(|state| state.tag() == version && state.stage == Stage::Running && state.status().ready)
            })
        })
        .await;
    }
}

fn boot(machine: &Machine) -> String {
    machine.see(|state| state.boot_id.clone())
}

fn errors(machine: &Machine) -> Vec<(&'static str, Stopped, String)> {
    machine.see(|state| {
        let all = state.events.iter().filter_map(|event| match &event.what {
            What::SequenceError(name, stopped, why) => Some((*name, *stopped, why.clone())),
            _ => None,
        });
        all.collect()
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_boots_the_other_slot_and_a_rollback_the_first() {
    let lab = Lab::begin().await;
    let worker = lab.machine(1210);
    let none = life::rollback(&worker).unwrap_err();
    assert_eq!(none.message(), "cannot rollback to \"B\", label does not exist");
    let wrong = life::upgrade(worker.clone(), ask("v1.13.99")).await.unwrap_err();
    assert!(wrong.message().starts_with("error validating installer image \"factory"), "{wrong}");

    let before = boot(&worker);
    let actor = life::upgrade(worker.clone(), ask("v1.13.9")).await.unwrap().actor_id;
    lab.until("it says that it upgrades", || worker.see(|state| state.stage == Stage::Upgrading)).await;
    // Two at once are one too many.
    worker.command(Command::Reboot { actor: "somebody".to_owned(), restart: Restart::Kexec });
    lab.until("the second one is refused", || errors(&worker).iter().any(|error| error.1 == Stopped::Locked)).await;
    let phases = worker.see(|state| {
        let mine = state.events.iter().filter(|event| event.actor == actor);
        mine.filter(|event| matches!(event.what, What::Phase(..) | What::Task(..))).count()
    });
    assert!(phases > 0);
    lab.until_up(1210, "v1.13.9").await;
    assert_ne!(boot(&worker), before);
    assert_eq!(
        worker.see(|state| (state.slot, state.recipe.clone().unwrap().schematic)),
        (Slot::B, SCHEMATIC.to_owned())
    );
    lab.until("the way back by itself is gone", || !worker.see(|state| state.unproven)).await;
    let client = lab.client(1200).unwrap();
    let node = || cluster::get(&client, &objects::key("minions", None, "lab-worker-01")).unwrap().value;
    lab.until("the node says so, and is open", || {
        let node = node();
        node["status"]["nodeInfo"]["osImage"] == "Talos (v1.13.9)"
            && node["status"]["nodeInfo"]["bootID"] == boot(&worker)
            && node.pointer("/spec/unschedulable").is_none()
    })
    .await;
    life::rollback(&worker).unwrap();
    lab.until_up(1210, "v1.12.4").await;
    assert_eq!(worker.see(|state| state.slot), Slot::A);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_wrong_in_an_upgrade_ends_as_in_life() {
    let lab = Lab::begin().await;
    let worker = lab.machine(1210);
    let old = boot(&worker);
    lab.world.machine_fault(1210, Fault::BootFails);
    life::upgrade(worker.clone(), ask("v1.13.9")).await.unwrap();
    lab.until("it fell back", || boot(&worker) != old).await;
    lab.until_up(1210, "v1.12.4").await;

    lab.world.machine_fault(1210, Fault::DiskBusy);
    life::upgrade(worker.clone(), ask("v1.13.9")).await.unwrap();
    lab.until("the sequence failed", || {
        errors(&worker).iter().any(|error| error.1 == Stopped::Fatal && error.2.contains("device or resource busy"))
    })
    .await;
    lab.until_up(1210, "v1.12.4").await;
    // Nothing uses the disk at the beginning of a boot.
    lab.world.machine_fault(1210, Fault::DiskBusy);
    life::upgrade(worker.clone(), api::UpgradeRequest { stage: true, ..ask("v1.13.9") }).await.unwrap();
    lab.until_up(1210, "v1.13.9").await;

    let other = lab.machine(1211);
    lab.world.machine_fault(1211, Fault::NeverReady);
    life::upgrade(other.clone(), ask("v1.13.9")).await.unwrap();
    lab.until("it came up", || other.see(|state| state.tag() == "v1.13.9" && state.api == Api::Configured)).await;
    lab.until("its kubelet isn't healthy", || {
        other.see(|state| state.services.get("kubelet").is_some_and(|one| one.healthy == Some(false)))
    })
    .await;
    assert!(!other.see(|state| state.status().ready));
    life::rollback(&other).unwrap();
    lab.until_up(1211, "v1.12.4").await;
    lab.world.machine_fault(1211, Fault::NeverComesBack);
    other.command(Command::Reboot { actor: String::new(), restart: Restart::Force });
    lab.until("it is gone", || other.see(|state| state.api == Api::Silent)).await;
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert_eq!(other.see(|state| state.api), Api::Silent);
    // Too far down; the installer knows.
    let older = lab.world.registry().installer(&ask("v1.9.6").image).unwrap();
    let refused = lab.machine(1200).install(&older, |_| ()).await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "pre-flight checks failed: host version 1.12.4 is too new to downgrade to Talos 1.9.6"
    );
    assert_eq!(lab.world.machine_faults(), []);
    assert_eq!(lab.world.quorum_losses(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_budget_protects_stays_and_only_warns() {
    let lab = Lab::begin().await;
    lab.until("three members are healthy", || lab.healthy_members() == 3).await;
    let client = lab.client(1200).unwrap();
    let key = objects::key("poddisruptionbudgets", Some("default"), "web");
    let mut budget = cluster::get(&client, &key).unwrap();
    budget.value["spec"]["minAvailable"] = serde_json::json!(2);
    cluster::put(&client, &key, &budget.value, Some(budget.modified)).await.unwrap();
    let pods = || {
        let all = cluster::list(&client, "/registry/pods/default/web-").0;
        all.into_iter().map(|pod| (pod.name().to_owned(), pod.value["spec"]["nodeName"].clone())).collect::<Vec<_>>()
    };
    lab.until("both run", || pods().len() == 2 && pods().iter().all(|pod| pod.1.is_string())).await;
    let before = pods();
    let vmid = if before[0].1 == "lab-worker-01" { 1210 } else { 1211 };
    let worker = lab.machine(vmid);
    life::upgrade(worker.clone(), ask("v1.13.9")).await.unwrap();
    let said = |part: &str| worker.see(|state| state.dmesg.iter().any(|(_, line)| line.contains(part)));
    lab.until("it gives up on the pod", || said("WARNING: failed to evict web-")).await;
    assert_eq!(pods(), before, "nothing was evicted");
    lab.until_up(vmid, "v1.13.9").await;
    assert_eq!(lab.world.quorum_losses(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_is_asked_before_a_control_plane_upgrades() {
    let lab = Lab::begin().await;
    lab.until("three members are healthy", || lab.healthy_members() == 3).await;
    let first = lab.leader().unwrap();
    let mut others = super::tests::CONTROL_PLANES.into_iter().filter(|vmid| *vmid != first);
    let (second, third) = (others.next().unwrap(), others.next().unwrap());
    lab.shut_down(third).await;
    let refused = life::upgrade(lab.machine(first), ask("v1.13.9")).await.unwrap_err();
    assert!(
        refused.message().starts_with("error validating etcd for upgrade: failed to validate etcd member"),
        "{refused}"
    );
    let client = lab.client(first).unwrap();
    let gone = client
        .members()
        .into_iter()
        .find(|member| member.id != client.id && Some(member.id) != lab.client(second).map(|one| one.id));
    client.change(Change::Remove(gone.unwrap().id)).await.unwrap();
    let refused = life::upgrade(lab.machine(first), ask("v1.13.9")).await.unwrap_err();
    assert!(refused.message().contains("etcd member count(2) is insufficient to maintain quorum"), "{refused}");
    let learner = Member { id: 7, name: String::new(), address: "10.77.0.99".to_owned(), learner: true };
    client.change(Change::AddLearner(learner)).await.unwrap();
    let refused = life::upgrade(lab.machine(first), ask("v1.13.9")).await.unwrap_err();
    assert!(refused.message().contains("is not started"), "{refused}");
    // Force goes through, and the double notices what that costs.
    life::upgrade(lab.machine(first), api::UpgradeRequest { force: true, ..ask("v1.13.9") }).await.unwrap();
    lab.until("the majority is lost", || !lab.world.quorum_losses().is_empty()).await;
    assert_eq!(lab.world.quorum_losses()[0].vmid, first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_image_in_the_configuration_is_a_new_pod_and_a_new_kubelet() {
    let lab = Lab::begin().await;
    lab.until("three members are healthy", || lab.healthy_members() == 3).await;
    let machine = lab.machine(1201);
    let config = machine.see(|state| state.config.clone()).unwrap();
    let send = async |text: String| {
        let request = api::ApplyConfigurationRequest { data: text.into_bytes(), mode: 2, ..Default::default() };
        apply::configured(machine.clone(), request).await
    };
    let kind = resources::kind_of(&machine, "APIServerConfigs.kubernetes.talos.dev").unwrap();
    let version = || resources::list(&machine, kind)[0].version;
    assert_eq!(version(), Some(1));
    let text = config.text().replace("kube-apiserver:v1.34.1", "kube-apiserver:v1.35.0");
    let done = send(text.clone()).await.unwrap();
    assert_eq!((done.mode, done.mode_details.as_str()), (2, "Applied configuration without a reboot"));
    lab.until("it was rendered", || version() == Some(2)).await;
    lab.until("the API server is away", || !machine.see(|state| state.kubernetes)).await;
    lab.until("and back", || machine.see(|state| state.kubernetes && state.static_pods.values().all(|pod| pod.ready)))
        .await;
    let client = lab.client(1200).unwrap();
    let pod =
        || cluster::get(&client, &objects::key("pods", Some("kube-system"), "kube-apiserver-lab-cp-02")).unwrap().value;
    lab.until("its pod says so", || {
        let pod = pod();
        pod["metadata"]["annotations"]["talos.dev/config-version"] == "2"
            && pod["spec"]["containers"][0]["image"] == "registry.k8s.io/kube-apiserver:v1.35.0"
            && objects::is_ready(&pod)
    })
    .await;
    let boots = boot(&machine);
    let text = text.replace("kubelet:v1.34.1", "kubelet:v1.35.0");
    send(text.clone()).await.unwrap();
    let node = || cluster::get(&client, &objects::key("minions", None, "lab-cp-02")).unwrap().value;
    lab.until("the kubelet is new", || {
        node()["status"]["nodeInfo"]["kubeletVersion"] == "v1.35.0" && objects::is_ready(&node())
    })
    .await;
    assert_eq!(boot(&machine), boots, "nothing rebooted");
    let states: Vec<ServiceState> =
        machine.see(|state| state.services["kubelet"].events.iter().map(|one| one.0).collect());
    assert!(states.contains(&ServiceState::Finished), "{states:?}");

    // What can't be pulled isn't rendered ready; what is wrong isn't taken.
    send(text.replace("kube-scheduler:v1.34.1", "kube-scheduler:v1.34.99")).await.unwrap();
    lab.until("the scheduler waits", || machine.see(|state| !state.static_pods["kube-scheduler"].ready)).await;
    send(text.clone()).await.unwrap();
    lab.until("and runs again", || machine.see(|state| state.status().ready)).await;
    let wrong = send(text.replace("token:", "token: changed # ")).await.unwrap_err();
    assert!(wrong.message().contains("can't be applied in immediate mode"), "{wrong}");
    let wrong = send("machine: {}\n---\nkind: Toaster\n".to_owned()).await.unwrap_err();
    assert_eq!(wrong.code(), tonic::Code::InvalidArgument);
    assert_eq!(lab.ready(), ALL.len());
    assert!(machine.pulled(Namespace::System, "ghcr.io/siderolabs/kubelet:v1.35.0").is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_replayed_by_number_by_id_and_by_age() {
    let lab = Lab::begin().await;
    let machine = lab.machine(1210);
    let all: Vec<String> = machine.see(|state| state.events.iter().map(|event| event.id.clone()).collect());
    let count = async |request: api::EventsRequest| {
        let stream = life::events(&machine, &request).unwrap();
        let items: Vec<api::Event> = stream
            .take_until(tokio::time::sleep(std::time::Duration::from_millis(200)))
            .filter_map(async |item| item.ok())
            .collect()
            .await;
        assert!(items[0].data.as_ref().is_some_and(|data| data.type_url.is_empty()), "the hello comes first");
        items.len() - 1
    };
    assert_eq!(count(api::EventsRequest { tail_events: 3, ..Default::default() }).await, 3);
    assert!(count(api::EventsRequest { tail_events: -1, ..Default::default() }).await >= all.len());
    assert_eq!(count(api::EventsRequest::default()).await, 0);
    let from = all[all.len() - 3].clone();
    assert!(count(api::EventsRequest { tail_id: from, ..Default::default() }).await >= 2);
    assert!(count(api::EventsRequest { tail_seconds: 600, ..Default::default() }).await >= all.len());
    let twice = api::EventsRequest { tail_seconds: 1, tail_events: 1, ..Default::default() };
    let refused = life::events(&machine, &twice).err().unwrap();
    let why = "WithTailDuration can't be specified at the same time with WithTailEvents or WithTailID";
    assert_eq!((refused.code(), refused.message()), (tonic::Code::Unknown, why));
}
