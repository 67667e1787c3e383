//! The sockets of a machine, which follow from what runs on it and from whom that talks to.

use std::net::{IpAddr, Ipv4Addr};

use tonic::Status;

use super::containers;
use super::proto::machine as api;
use super::proto::machine::connect_record::{Process, State as SocketState};
use super::proto::machine::netstat_request::Filter;
use crate::world::machine::{Machine, MachineType, ServiceState, State};

/// A socket before it is told.
struct Socket {
    protocol: &'static str,
    local: (IpAddr, u32),
    remote: (IpAddr, u32),
    state: SocketState,
    program: &'static str,
}

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const ANY_6: IpAddr = IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED);
/// Where Talos answers names.
const NAMES: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53));

/// What waits for callers.
fn listens(protocol: &'static str, address: IpAddr, port: u32, program: &'static str) -> Socket {
    let nobody = if protocol.ends_with('6') { ANY_6 } else { ANY };
    let state = if protocol.starts_with("udp") { SocketState::Close } else { SocketState::Listen };
    Socket { protocol, local: (address, port), remote: (nobody, 0), state, program }
}

/// A connection; the caller's port stays the same as long as both do.
fn calls(from: IpAddr, to: IpAddr, port: u32, program: &'static str) -> Socket {
    let mark = crc32fast::hash(format!("{program} {from} {to} {port}").as_bytes());
    let local = (from, 32_768 + mark % 28_000);
    Socket { protocol: "tcp", local, remote: (to, port), state: SocketState::Established, program }
}

/// The other end of a connection of `calls`.
fn called(call: &Socket, program: &'static str) -> Socket {
    Socket { protocol: "tcp", local: call.remote, remote: call.local, state: call.state, program }
}

fn sockets(machine: &Machine) -> Vec<Socket> {
    let (config, own, up) = machine.see(|state| {
        let runs: Vec<String> = state
            .services
            .iter()
            .filter(|(_, service)| service.state == ServiceState::Running)
            .map(|(id, _)| id.clone())
            .collect();
        (state.config.clone(), state.address(), runs)
    });
    let runs = |id: &str| up.iter().any(|one| one == id);
    let mut all = vec![listens("tcp6", ANY_6, 50_000, "apid")];
    let (Some(config), Some(own)) = (config, own) else { return all };
    let control_plane = config.machine_type() == MachineType::ControlPlane;
    let on = |pointer: &str| config.main().pointer(pointer).and_then(serde_json::Value::as_bool) == Some(true);
    if on("/machine/features/hostDNS/enabled") {
        all.extend([listens("tcp", NAMES, 53, "init"), listens("udp", NAMES, 53, "init")]);
    }
    if on("/machine/features/kubePrism/enabled") {
        all.push(listens("tcp", LOCAL, 7445, "init"));
    }
    if runs("trustd") {
        all.push(listens("tcp6", ANY_6, 50_001, "trustd"));
    }
    if runs("kubelet") {
        all.extend([listens("tcp", LOCAL, 10_248, "kubelet"), listens("tcp6", ANY_6, 10_250, "kubelet")]);
        all.push(calls(LOCAL, LOCAL, 7445, "kubelet"));
    }
    let peers = machine.room().api_servers(&config.cluster_mark());
    if control_plane && runs("etcd") {
        all.extend([listens("tcp6", ANY_6, 2379, "etcd"), listens("tcp6", ANY_6, 2380, "etcd")]);
        // Every member calls every other.
        for peer in peers.iter().filter_map(|peer| peer.see(State::address)).filter(|peer| *peer != own) {
            let theirs = calls(peer, own, 2380, "etcd");
            all.extend([calls(own, peer, 2380, "etcd"), called(&theirs, "etcd")]);
        }
    }
    if machine.see(|state| state.kubernetes) {
        let call = calls(LOCAL, LOCAL, 2379, "kube-apiserver");
        all.push(called(&call, "etcd"));
        all.push(call);
        all.push(listens("tcp6", ANY_6, 6443, "kube-apiserver"));
        all.push(listens("tcp", LOCAL, 10_257, "kube-controller-manager"));
        all.push(listens("tcp", LOCAL, 10_259, "kube-scheduler"));
    }
    all
}

/// The sockets that a caller asked for. All are in the machine's own network.
pub(super) fn netstat(machine: &Machine, request: &api::NetstatRequest) -> Result<api::Netstat, Status> {
    let filter = Filter::try_from(request.filter)
        .map_err(|_| Status::invalid_argument(format!("invalid filter: {}", request.filter)))?;
    let protocols = request.l4proto.unwrap_or_default();
    let wanted = |socket: &Socket| match socket.protocol {
        "tcp" => protocols.tcp,
        "tcp6" => protocols.tcp6,
        "udp" => protocols.udp,
        _ => protocols.udp6,
    };
    let connected = |socket: &Socket| !socket.remote.0.is_unspecified() && socket.remote.1 != 0;
    let fits = |socket: &Socket| match filter {
        Filter::All => true,
        Filter::Listening => !connected(socket),
        Filter::Connected => connected(socket),
    };
    let host = request.netns.as_ref().is_some_and(|place| place.hostnetwork);
    let asks = request.feature.is_some_and(|feature| feature.pid);
    let running: Vec<(u32, String)> =
        (1000..).step_by(7).zip(containers::running(machine)).map(|(pid, one)| (pid, one.name)).collect();
    let process = |program: &str| {
        let pid = match program {
            "init" => Some(1),
            _ => running.iter().find(|(_, name)| name == program).map(|(pid, _)| *pid),
        };
        pid.filter(|_| asks).map(|pid| Process { pid, name: program.to_owned() }).unwrap_or_default()
    };
    let all = if host { sockets(machine) } else { Vec::new() };
    let connectrecord = all
        .iter()
        .filter(|socket| wanted(socket) && fits(socket))
        .map(|socket| api::ConnectRecord {
            l4proto: socket.protocol.to_owned(),
            localip: socket.local.0.to_string(),
            localport: socket.local.1,
            remoteip: socket.remote.0.to_string(),
            remoteport: socket.remote.1,
            state: socket.state.into(),
            inode: 20_000 + u64::from(socket.local.1),
            process: Some(process(socket.program)),
            ..Default::default()
        })
        .collect();
    Ok(api::Netstat { metadata: None, connectrecord })
}
