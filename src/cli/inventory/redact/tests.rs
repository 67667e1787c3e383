use super::*;

fn real() -> Seed {
    serde_json::from_value(json!({
        "nodes": [
            {"name": "zeus", "ip": "10.1.2.3", "network": [
                {"iface": "vmbr0", "type": "bridge", "cidr": "10.1.2.3/24", "gateway": "10.1.2.1", "comments": "rack 7"},
                {"iface": "customers", "type": "vnet"},
            ]},
            {"name": "hera", "ip": "10.1.2.4"},
        ],
        "cluster_name": "acme-prod",
        "ha_resources": [{"sid": "vm:100", "state": "started", "comment": "call Bob"}],
        "pools": [{"poolid": "acme", "comment": "for Bob", "vms": [100], "storages": ["nas-acme"]}],
        "storages": [
            {"storage": "local", "type": "dir", "path": "/var/lib/vz", "content": "iso"},
            {"storage": "nas-acme", "type": "nfs", "server": "nas.acme.example", "export": "/export/acme", "nodes": "zeus,hera",
             "content": "images", "username": "bob"},
        ],
        "volumes": [{"volid": "local:iso/acme-secret.iso", "node": "zeus", "content": "iso", "format": "iso", "virtual_size": 9}],
        "vms": [{"vmid": 100, "node": "hera", "status": "running", "config": {
            "name": "acme-db", "description": "Bob's", "cores": "4", "tags": "acme;talos", "args": "-acme",
            "net0": "virtio=DE:AD:BE:EF:00:01,bridge=customers,tag=7", "ipconfig0": "gw=10.1.2.1,ip=10.1.2.50/24",
            "scsi0": "nas-acme:100/vm-100-disk-0.qcow2,serial=ACME1,size=8G", "ide2": "local:iso/acme-secret.iso,media=cdrom",
            "smbios1": "uuid=11111111-2222-3333-4444-555555555555,serial=QUNNRQ==", "vmgenid":
            "11111111-2222-3333-4444-666666666666", "sshkeys": "ssh-ed25519 AAAA bob", "hostpci0": "mapping=acme,pcie=1",
        }}],
        "guest": {"100": {"hostname": "acme-db", "address": "10.1.2.50", "talos": "1.12.4", "role": "worker", "context": "acme"}},
    }))
    .unwrap()
}

#[test]
fn nothing_of_the_site_is_left_and_the_same_thing_is_the_same_everywhere() {
    let made = redact(real());
    let text = serde_json::to_string(&made).unwrap().to_lowercase();
    for word in ["acme", "bob", "zeus", "hera", "customers", "10.1.2", "dead", "de:ad", "1111-", "rack", "nas."] {
        assert!(!text.contains(word), "{word} is left: {text}");
    }
    let vm = &made.vms[0];
    assert_eq!((vm.node.as_deref(), vm.config["cores"].as_str()), (Some("node-2"), Some("4")));
    assert_eq!(vm.config["net0"], "virtio=BC:24:11:00:00:01,bridge=bridge-1,tag=7");
    assert_eq!(vm.config["scsi0"], "storage-1:100/vm-100-disk-0.qcow2,serial=serial-1,size=8G");
    assert_eq!(vm.config["ide2"], "local:iso/file-1.iso,media=cdrom");
    assert_eq!(made.volumes[0].volid, "local:iso/file-1.iso");
    assert_eq!(vm.config["ipconfig0"], "gw=198.18.1.1,ip=198.18.1.50/24");
    assert_eq!(vm.config["tags"], "tag-1;talos");
    assert_eq!(vm.config["hostpci0"], "pcie=1");
    assert_eq!(made.nodes[0].ip.unwrap().to_string(), "198.18.1.3");
    assert_eq!(made.nodes[0].network[1]["iface"], "bridge-1");
    assert_eq!(made.storages[1].options["nodes"], "node-1,node-2");
    assert_eq!(made.pools[0].storages, ["storage-1"]);
    assert_eq!(made.guest.unwrap()["100"]["address"], "198.18.1.50");
}
