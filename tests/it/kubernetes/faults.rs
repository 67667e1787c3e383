//! What goes wrong on the way: a component or a kubelet that does not get ready, an API that is away.

use std::time::{Duration, Instant};

use mock_pve::world::machine::Fault;

use super::{Lab, all_run, with_argument};

/// Waits shorter than in life for what will not come.
const IMPATIENT: &str = "timeouts:\n  health: 5s\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_component_that_never_gets_ready_stops_the_run_with_its_name() {
    let lab = Lab::new("1.12.4", "1.34.1", IMPATIENT).await;
    lab.double.world().machine_fault(1201, Fault::StaticPodFails);
    let ran = lab.upgrade("1.35.0", &[]).await;
    ran.must(
        5,
        &[
            "move kube-apiserver of lab-cp-02 to registry.k8s.io/kube-apiserver:v1.35.0",
            "its pod is not Ready",
            "look at the log of kube-apiserver on lab-cp-02 for a flag",
            "the other control planes still run the version before",
            "recast resume",
        ],
    );
    let runs = lab.runs();
    for (name, version) in [("lab-cp-01", "1.35.0"), ("lab-cp-03", "1.34.1")] {
        let pod = format!("kube-apiserver-{name} registry.k8s.io/kube-apiserver:v{version}");
        assert!(runs.contains(&pod), "{pod}: {runs:?}");
    }
    // Its flags are corrected, so that it is rendered anew; then it goes on.
    lab.reconfigure(12, |text| with_argument(&text, "apiServer", "v", "2")).await;
    lab.run(&["resume"]).await.must(0, &[]);
    assert_eq!(lab.runs(), all_run("1.35.0"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_kubelet_that_does_not_come_back_stops_the_run_with_its_name() {
    let lab = Lab::new("1.12.4", "1.34.1", IMPATIENT).await;
    lab.double.world().machine_fault(1210, Fault::KubeletFails);
    let ran = lab.upgrade("1.35.0", &[]).await;
    ran.must(
        5,
        &[
            "move the kubelet of lab-worker-01 to ghcr.io/siderolabs/kubelet:v1.35.0",
            "its service is Running: Health check failed",
            "look at the log of the service kubelet on lab-worker-01",
            "recast resume",
        ],
    );
    let runs = lab.runs();
    assert!(runs.contains("lab-worker-02 kubelet v1.34.1"), "{runs:?}");
    lab.reconfigure(21, |text| with_argument(&text, "kubelet", "v", "2")).await;
    lab.run(&["resume"]).await.must(0, &[]);
    assert_eq!(lab.runs(), all_run("1.35.0"));
    // A kubelet that lags behind all else, as after a run that nobody resumed, is seen and brought up.
    lab.reconfigure(21, |text| text.replace("kubelet:v1.35.0", "kubelet:v1.34.1")).await;
    let since = Instant::now();
    while !lab.runs().contains("lab-worker-01 kubelet v1.34.1") {
        assert!(since.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let again = lab.upgrade("1.35.0", &[]).await;
    again.must(0, &["some components or kubelets are older still"]);
    assert_eq!(lab.runs(), all_run("1.35.0"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_api_that_is_away_for_a_while_is_waited_for() {
    // Once the first scheduler is asked for, the API is away again and again; so are machines for a moment.
    let scenario = "faults:\n- {name: away, on: {kubernetes: 'get /api/v1/namespaces/kube-system/pods/kube-scheduler-*'}, nth: \
                    1, times: 3, then: {status: 503, reason: the server is currently unable to handle the request}}\n- {name: \
                    nodes, on: {kubernetes: 'list /api/v1/nodes'}, nth: 12, times: 3, then: reset-before}\n- {name: \
                    manifests, on: {kubernetes: 'update /apis/apps/v1/namespaces/kube-system/daemonsets/kube-proxy'}, nth: 1, \
                    times: 2, then: {status: 500, reason: 'etcdserver: leader changed'}}\n- {name: applying, on: {talos: \
                    ApplyConfiguration}, nth: 5, times: 1, then: reset-after}\n";
    let lab = Lab::scripted("1.12.4", "1.34.1", "", scenario).await;
    let ran = lab.upgrade("1.35.0", &[]).await;
    ran.must(0, &[]);
    assert_eq!(lab.runs(), all_run("1.35.0"), "{}", ran.err);
}
