//! Figures of a machine: processors, memory, disks, network cards, processes. They follow from its hardware and
//! from how long it has been up.

use std::time::SystemTime;

use super::containers;
use super::proto::machine as api;
use crate::world::machine::Machine;

fn up(machine: &Machine) -> f64 {
    machine.see(|state| SystemTime::now().duration_since(state.booted).unwrap_or_default().as_secs_f64())
}

/// A count that grows with time.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a made-up count")]
fn count(seconds: f64, each_second: f64) -> u64 {
    (seconds * each_second) as u64
}

pub(super) fn memory(machine: &Machine) -> api::Memory {
    // Firmware and kernel keep some of it.
    let total = machine.hardware().memory_mib * 1024 * 97 / 100;
    let meminfo = api::MemInfo {
        memtotal: total,
        memfree: total / 2,
        memavailable: total * 2 / 3,
        buffers: total / 100,
        cached: total / 8,
        ..Default::default()
    };
    api::Memory { metadata: None, meminfo: Some(meminfo) }
}

pub(super) fn load(machine: &Machine) -> api::LoadAvg {
    let busy = f64::from(u32::try_from(machine.see(|state| state.services.len())).unwrap_or(u32::MAX)) / 40.0;
    api::LoadAvg { metadata: None, load1: busy, load5: busy * 0.9, load15: busy * 0.8 }
}

pub(super) fn system(machine: &Machine) -> api::SystemStat {
    let up = up(machine);
    let cores = machine.hardware().cores;
    let one =
        api::CpuStat { user: up * 0.04, system: up * 0.02, idle: up * 0.93, iowait: up * 0.01, ..Default::default() };
    let all = f64::from(cores);
    let total = api::CpuStat {
        user: one.user * all,
        system: one.system * all,
        idle: one.idle * all,
        iowait: one.iowait * all,
        ..Default::default()
    };
    let booted = machine.see(|state| state.booted.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
    api::SystemStat {
        boot_time: booted.as_secs(),
        cpu_total: Some(total),
        cpu: vec![one; usize::try_from(cores).unwrap_or(1)],
        irq_total: count(up, 400.0),
        context_switches: count(up, 2000.0),
        process_created: 200 + count(up, 2.0),
        process_running: 1,
        ..Default::default()
    }
}

pub(super) fn cpus(machine: &Machine) -> api::CpUsInfo {
    let hardware = machine.hardware();
    let one = |processor: u32| api::CpuInfo {
        processor,
        vendor_id: "GenuineIntel".to_owned(),
        model_name: format!("QEMU Virtual CPU ({})", hardware.cpu),
        cpu_mhz: 2400.0,
        physical_id: "0".to_owned(),
        siblings: hardware.cores,
        core_id: processor.to_string(),
        cpu_cores: hardware.cores,
    };
    api::CpUsInfo { metadata: None, cpu_info: (0..hardware.cores).map(one).collect() }
}

pub(super) fn disks(machine: &Machine) -> api::DiskStats {
    let up = up(machine);
    let name = super::storage::device(machine).trim_start_matches("/dev/").to_owned();
    let one = api::DiskStat {
        name,
        read_completed: 4000 + count(up, 1.0),
        read_sectors: 200_000 + count(up, 40.0),
        write_completed: 1000 + count(up, 20.0),
        write_sectors: 50_000 + count(up, 300.0),
    };
    api::DiskStats {
        metadata: None,
        total: Some(api::DiskStat { name: String::new(), ..one.clone() }),
        devices: vec![one],
    }
}

pub(super) fn network(machine: &Machine) -> api::NetworkDeviceStats {
    let up = up(machine);
    let names = machine.see(|state| state.links.iter().map(|link| link.name.clone()).collect::<Vec<_>>());
    let one = |name: &str, rate: f64| api::NetDev {
        name: name.to_owned(),
        rx_bytes: count(up, rate * 1000.0),
        rx_packets: count(up, rate),
        tx_bytes: count(up, rate * 900.0),
        tx_packets: count(up, rate),
    };
    let mut devices = vec![one("lo", 20.0)];
    devices.extend(names.iter().map(|name| one(name, 80.0)));
    let sum = |of: fn(&api::NetDev) -> u64| devices.iter().map(of).sum();
    let total = api::NetDev {
        name: String::new(),
        rx_bytes: sum(|one| one.rx_bytes),
        rx_packets: sum(|one| one.rx_packets),
        tx_bytes: sum(|one| one.tx_bytes),
        tx_packets: sum(|one| one.tx_packets),
    };
    api::NetworkDeviceStats { metadata: None, total: Some(total), devices }
}

pub(super) fn mounts(machine: &Machine) -> api::Mounts {
    let device = super::storage::device(machine);
    let (bytes, configured) = machine.see(|state| (state.disk_bytes, state.config.is_some()));
    let one = |filesystem: String, size: u64, mounted_on: &str| api::MountStat {
        filesystem,
        size,
        available: size * 8 / 10,
        mounted_on: mounted_on.to_owned(),
    };
    let mut stats = vec![
        one("/dev/loop0".to_owned(), 60 << 20, "/"),
        one("tmpfs".to_owned(), 64 << 20, "/run"),
        one("tmpfs".to_owned(), 64 << 20, "/system"),
    ];
    if configured {
        stats.push(one(format!("{device}5"), 100 << 20, "/system/state"));
        stats.push(one(format!("{device}6"), bytes.saturating_sub(300 << 20), "/var"));
    }
    api::Mounts { metadata: None, stats }
}

pub(super) fn processes(machine: &Machine) -> api::Process {
    let up = up(machine);
    let one = |pid: i32, ppid: i32, command: &str| api::ProcessInfo {
        pid,
        ppid,
        state: "S".to_owned(),
        threads: 12,
        cpu_time: up * 0.01,
        virtual_memory: 1_300_000_000,
        resident_memory: 60_000_000,
        command: command.to_owned(),
        executable: format!("/usr/bin/{command}"),
        args: format!("/usr/bin/{command}"),
    };
    let mut processes = vec![one(1, 0, "init"), one(900, 1, "containerd"), one(950, 1, "udevd")];
    let started = (1000..).step_by(7).zip(containers::running(machine));
    let named = started.map(|(pid, found)| (pid, if found.is_sandbox() { "pause".to_owned() } else { found.name }));
    processes.extend(named.map(|(pid, name)| one(pid, 900, &name)));
    api::Process { metadata: None, processes }
}
