//! What machines are called, by their configuration, their address or who they are.

use serde_json::Value;
use tonic::Code;

use super::apply;
use super::proto::machine::ApplyConfigurationRequest;
use super::proto::machine::apply_configuration_request::Mode;
use super::tests::Lab;
use crate::world::cluster::{self, objects};
use crate::world::machine::{Api, Command, Layer, Machine, Stage, State, Wipe};

const WORKER: u32 = 1211;

/// A machine's configuration without the name in it.
fn nameless(machine: &Machine) -> String {
    let text = machine.see(|state| state.config.as_ref().map(|config| config.text().to_owned())).unwrap();
    let mut main: Value = serde_saphyr::from_str(&text).unwrap();
    main["machine"]["network"].as_object_mut().unwrap().remove("hostname");
    serde_saphyr::to_string(&main).unwrap()
}

fn named(say: &str) -> String {
    format!("---\napiVersion: v1alpha1\nkind: HostnameConfig\n{say}\n")
}

fn request(text: &str) -> ApplyConfigurationRequest {
    let mode = Mode::Auto.into();
    ApplyConfigurationRequest { data: text.as_bytes().to_vec(), mode, ..Default::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_is_called_what_its_configuration_says() {
    let lab = Lab::begin().await;
    let worker = lab.machine(WORKER);
    let main = nameless(&worker);
    let give = async |more: &str| apply::configured(worker.clone(), request(&format!("{main}{more}"))).await;
    give("").await.unwrap();
    lab.until("its address names it", || worker.see(State::hostname) == "talos-10-77-0-22").await;
    give(&named("auto: stable")).await.unwrap();
    lab.until("what it is names it", || worker.see(|state| state.hostname() != "talos-10-77-0-22")).await;
    let stable = worker.see(State::named).unwrap();
    assert_eq!((stable.name.len(), stable.layer), ("talos-abc-def".len(), Layer::Default));
    // Its node is called so, too, and is another one.
    let client = lab.client(1200).unwrap();
    let node = |name: &str| cluster::get(&client, &objects::key("minions", None, name));
    lab.until("its node is ready", || node(&stable.name).is_some_and(|node| objects::is_ready(&node.value))).await;
    assert!(node("lab-worker-02").is_some());
    give(&named("hostname: One_1.example.org")).await.unwrap();
    lab.until("it has a static name", || worker.see(State::full_hostname) == "One_1.example.org").await;
    assert_eq!(worker.see(|state| (state.hostname(), state.nodename())), ("One_1".to_owned(), "one-1".to_owned()));
    for (say, why) in [
        ("auto: stable\nhostname: a", "'auto' and 'hostname' cannot be set at the same time"),
        ("hostname: ''", "either 'auto' or 'hostname' must be set"),
        ("auto: talos-addr", "invalid value for 'auto': talos-addr"),
    ] {
        let refused = give(&named(say)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains(why), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_of_a_configuration_keeps_a_machine_in_maintenance_mode() {
    let lab = Lab::begin().await;
    let worker = lab.machine(WORKER);
    let (main, before) = (nameless(&worker), worker.see(|state| state.identity).unwrap());
    let part = named("hostname: early.example.org");
    let refused = apply::configured(worker.clone(), request(&part)).await.unwrap_err();
    assert!(refused.message().starts_with("the applied machine configuration doesn't contain v1alpha1 config"));
    let wipe = Wipe::Partitions(["STATE", "EPHEMERAL"].map(str::to_owned).into());
    worker.command(Command::Reset { actor: String::new(), graceful: false, wipe, reboot: true });
    lab.until("it waits for a configuration", || worker.see(|state| state.api == Api::Maintenance)).await;
    assert_eq!(worker.see(|state| (state.hostname(), state.identity)), ("(none)".to_owned(), None));
    // Before 1.13 a part names nobody.
    worker.update(|state| "v1.13.9".clone_into(&mut state.recipe.as_mut().unwrap().version));
    apply::in_maintenance(&worker, &request(&part)).unwrap();
    lab.until("it is named", || worker.see(State::full_hostname) == "early.example.org").await;
    assert_eq!(worker.see(|state| (state.stage, state.config.is_none())), (Stage::Maintenance, true));
    apply::in_maintenance(&worker, &request(&main)).unwrap();
    lab.until("it has a configuration", || worker.see(|state| state.api == Api::Configured)).await;
    assert_eq!(worker.see(State::hostname), "talos-10-77-0-22");
    let after = worker.see(|state| state.identity).unwrap();
    assert_ne!(after, before, "who it was lay in STATE");
}
