//! Profiles of the cluster `single` with other machines than the sample's.

use std::fmt::Write as _;

/// Where a machine is: its VM's node and number, and its address.
pub(crate) type Spot = (&'static str, u32, &'static str);

const HEAD: &str = "
name: single
type: talos
talos:
  version: '1.12.4'
  kubernetes_version: '1.34.1'
  config_dir: single
  secrets_file: secrets.yaml
  factory:
    schematic_id: ce4c980550dd2ab1b17bbf2b08801c7eb59418eafe8f279833297925d67c7515
    extensions: [siderolabs/qemu-guest-agent]
network:
  api_endpoint: 192.168.178.41:6443
  gateway: 192.168.178.1
  prefix: 24
  nameservers: [192.168.178.1]
  pod_cidr: 10.244.0.0/16
  service_cidr: 10.96.0.0/12
template: 101
tags: [talos, single]
steady: 1s
nodes:
";

/// A profile of these control planes and workers. Keys of its own may follow.
pub(crate) fn profile_of(controlplanes: &[Spot], workers: &[Spot]) -> String {
    let mut text = HEAD.to_owned();
    for (group, short, places) in [("controlplane", "cp", controlplanes), ("workers", "worker", workers)] {
        let _ = write!(
            text,
            "  {group}:\n    count: {}\n    name_prefix: single-{short}-\n    cores: 2\n    memory: 4096\n    disk: 32G\n    \
             assignments:\n",
            places.len()
        );
        for (number, (node, vmid, ip)) in (1..).zip(places) {
            let _ =
                writeln!(text, "      - {{name: single-{short}-{number:02}, node: {node}, vmid: {vmid}, ip: {ip}}}");
        }
    }
    text
}
