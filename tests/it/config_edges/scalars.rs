//! Patches with scalars at the edges of what their places take.

use super::Outcome::{self, Has, Refused};

/// Patches of a configuration of one document.
pub(super) const PATCHES: &[(&str, Outcome)] = &[
    // Texts keep how they were written.
    (
        "machine: {kubelet: {image: True}, certSANs: [TRUE, False, 0x10, 1_000, 1.50, .5, +1, 0o7, 1e3]}\n",
        Has(
            "    certSANs:\n        - \"TRUE\"\n        - \"False\"\n        - \"0x10\"\n        - \"1_000\"\n        - \"1.50\"\n        - \".5\"\n        - \"+1\"\n        - \"0o7\"\n        - \"1e3\"\n    kubelet:\n        image: \"True\"\n",
        ),
    ),
    (
        "machine: {sysctls: {a: !!bool \"True\", b: !!str TRUE, c: !custom False, d: on, e: 1:30}}\n",
        Has("        a: \"True\"\n        b: \"TRUE\"\n        c: \"False\"\n        d: \"on\"\n        e: \"1:30\"\n"),
    ),
    ("debug: TRUE\n", Has("debug: true\n")),
    ("debug: !!bool \"False\"\n", Has("debug: false\n")),
    ("debug: \"true\"\n", Refused),
    (
        "machine: {kubelet: {extraArgs: {a: on, b: No, c: 1:30, d: [yes, 190:20:30, True, 1.50], e: \"\\n\", f: \"<<\"}}}\n",
        Has(
            "            a: on\n            b: No\n            c: 1:30\n            d:\n                - yes\n                - 190:20:30\n                - \"True\"\n                - \"1.50\"\n            e: |+\n\n            f: \"<<\"\n",
        ),
    ),
    // Numbers at their ends.
    (
        "machine: {kubelet: {extraConfig: {k: False, l: +18446744073709551615, m: 18446744073709551615}}}\n",
        Has("            k: false\n            l: 1.8446744073709552e+19\n            m: 18446744073709551615\n"),
    ),
    ("machine: {kubelet: {extraConfig: {k: !!float 18446744073709551615}}}\n", Refused),
    (
        "machine: {network: {interfaces: [{interface: x, mtu: 9223372036854775807}]}}\n",
        Has("mtu: 9223372036854775807\n"),
    ),
    ("machine: {network: {interfaces: [{interface: x, mtu: 9223372036854775808.0}]}}\n", Refused),
    ("machine: {network: {interfaces: [{interface: x, mtu: 18446744073709551615}]}}\n", Refused),
    (
        "machine: {systemDiskEncryption: {state: {keys: [], blockSize: 0xFFFFFFFFFFFFFFFF}}}\n",
        Has("blockSize: 18446744073709551615\n"),
    ),
    ("machine: {systemDiskEncryption: {state: {keys: [], blockSize: +18446744073709551615}}}\n", Refused),
    ("machine: {time: {bootTimeout: 0.33333333333333333333h}}\n", Has("bootTimeout: 20m0s\n")),
    ("machine: {time: {bootTimeout: -9223372036854775808ns}}\n", Has("bootTimeout: -2562047h47m16.854775808s\n")),
    ("machine: {time: {bootTimeout: 9223372036854775808ns}}\n", Refused),
    (
        "machine: {disks: [{device: /dev/sdb, partitions: [{size: 18EB}, {size: 18446744073709549568}, {size: 0.5}]}]}\n",
        Has("            - size: 18 EB\n            - size: 18446744073709549568\n            - {}\n"),
    ),
    ("machine: {disks: [{device: /dev/sdb, partitions: [{size: 18446744073709551615}]}]}\n", Refused),
    ("machine: {disks: [{device: /dev/sdb, partitions: [{size: 0x10}]}]}\n", Refused),
    ("machine: {install: {diskSelector: {size: \" >= 4 GB \"}}}\n", Has("size: '>= 4 GB'\n")),
    ("machine: {install: {diskSelector: {size: \"\"}}}\n", Refused),
    (
        "apiVersion: v1alpha1\nkind: VolumeConfig\nname: EPHEMERAL\nprovisioning: {minSize: -10GiB, maxSize: 50.5%}\n",
        Has("    minSize: -10GiB\n    maxSize: 50.5%\n"),
    ),
    (
        "apiVersion: v1alpha1\nkind: VolumeConfig\nname: EPHEMERAL\nprovisioning: {minSize: 18446744073709551615}\n",
        Refused,
    ),
    ("apiVersion: v1alpha1\nkind: VolumeConfig\nname: EPHEMERAL\nprovisioning: {minSize: --10}\n", Refused),
    ("apiVersion: v1alpha1\nkind: VolumeConfig\nname: EPHEMERAL\nprovisioning: {maxSize: 101%}\n", Refused),
    (
        "apiVersion: v1alpha1\nkind: VolumeConfig\nname: EPHEMERAL\nprovisioning: {maxSize: 0x_1.8p+5%}\n",
        Has("    maxSize: 0x_1.8p+5%\n"),
    ),
    (
        "apiVersion: v1alpha1\nkind: VolumeConfig\nname: EPHEMERAL\nprovisioning: {maxSize: -0X64P0%}\n",
        Has("    maxSize: -0X64P0%\n"),
    ),
    ("apiVersion: v1alpha1\nkind: VolumeConfig\nname: EPHEMERAL\nprovisioning: {maxSize: 0x10%}\n", Refused),
    ("apiVersion: v1alpha1\nkind: VolumeConfig\nname: EPHEMERAL\nprovisioning: {maxSize: 0x65p0%}\n", Refused),
    ("machine: {ca: {crt: YR==, key: True}}\n", Has("        crt: YQ==\n        key: \"True\"\n")),
    // One out of a list.
    (
        "apiVersion: v1alpha1\nkind: VolumeConfig\nname: EPHEMERAL\nencryption: {provider: none, keys: [], cipher: a}\nmount: {secure: true}\n",
        Has("name: EPHEMERAL\nmount:\n    secure: true\n"),
    ),
    (
        "apiVersion: v1alpha1\nkind: VolumeConfig\nname: EPHEMERAL\nencryption: {keys: [{slot: 0, nodeID: {}}], cipher: a}\n",
        Has("encryption:\n    provider: none\n    keys:\n        - slot: 0\n          nodeID: {}\n    cipher: a\n"),
    ),
    (
        "apiVersion: v1alpha1\nkind: BondConfig\nname: b\nlinks: [x]\nbondMode: 802.3AD\nfailOverMac: 1\nadLACPActive: OFF\nxmitHashPolicy: Layer2+3\n",
        Has("bondMode: 802.3ad\nxmitHashPolicy: layer2+3\nfailOverMac: active\nadLACPActive: \"off\"\n"),
    ),
    ("apiVersion: v1alpha1\nkind: BondConfig\nname: b\nlinks: [x]\nfailOverMac: \"\"\n", Has("failOverMac: none\n")),
    ("apiVersion: v1alpha1\nkind: BondConfig\nname: b\nlinks: [x]\nfailOverMac: Active\n", Refused),
    ("apiVersion: v1alpha1\nkind: BondConfig\nname: b\nlinks: [x]\nbondMode: \"\"\n", Refused),
    ("apiVersion: v1alpha1\nkind: BondConfig\nname: b\nlinks: [x]\nbondMode: null\n", Has("    - x\n")),
    ("apiVersion: v1alpha1\nkind: HostnameConfig\nauto: OFF\nhostname: a\n", Has("auto: \"off\"\n")),
    ("apiVersion: v1alpha1\nkind: HostnameConfig\nauto: \"\"\nhostname: a\n", Refused),
    (
        "apiVersion: v1alpha1\nkind: LinkConfig\nname: x\nroutes: [{table: MAIN}, {table: 252}, {table: default}]\n",
        Has("    - table: main\n    - table: \"252\"\n    - table: default\n"),
    ),
    ("apiVersion: v1alpha1\nkind: LinkConfig\nname: x\nroutes: [{table: 254}]\n", Refused),
    // Addresses and ports.
    ("apiVersion: v1alpha1\nkind: LinkConfig\nname: x\naddresses: [{address: 10.0.0.1/+8}]\n", Refused),
    ("apiVersion: v1alpha1\nkind: LinkConfig\nname: x\nroutes: [{gateway: 10.0.0.1%x}]\n", Refused),
    (
        "apiVersion: v1alpha1\nkind: LinkConfig\nname: x\nroutes: [{gateway: \"fe80::1%x\"}]\n",
        Has("gateway: fe80::1%x\n"),
    ),
    (
        "apiVersion: v1alpha1\nkind: DummyLinkConfig\nname: d\nhardwareAddr: BC2411001201\n",
        Has("hardwareAddr: bc:24:11:00:12:01\n"),
    ),
    ("apiVersion: v1alpha1\nkind: DummyLinkConfig\nname: d\nhardwareAddr: BC-24-11-00-12-01\n", Refused),
    (
        "apiVersion: v1alpha1\nkind: NetworkRuleConfig\nname: r\nportSelector: {ports: [0x50, 1e3, 80-80, 90-080], protocol: TCP}\ningress: []\n",
        Has("    ports:\n        - 80\n        - 1000\n        - 80\n        - 90-80\n    protocol: tcp\n"),
    ),
    (
        "apiVersion: v1alpha1\nkind: NetworkRuleConfig\nname: r\nportSelector: {ports: [\"80\"], protocol: tcp}\ningress: []\n",
        Refused,
    ),
];

/// Configurations, and patches of what they say.
pub(super) const MERGES: &[(&str, &str, Outcome)] = &[
    ("machine: {acceptedCAs: [{crt: YQ==}]}\n", "machine: {acceptedCAs: [{crt: YQ==, $patch: delete}]}\n", Refused),
    (
        "apiVersion: v1alpha1\nkind: NetworkDefaultActionConfig\ningress: block\n",
        "apiVersion: v1alpha1\nkind: NetworkDefaultActionConfig\ningress: accept\n",
        Has("ingress: block\n"),
    ),
    (
        "apiVersion: v1alpha1\nkind: VRFConfig\nname: v\ntable: main\nlinks: [a]\n",
        "apiVersion: v1alpha1\nkind: VRFConfig\nname: v\ntable: unspec\n",
        Has("table: main\n"),
    ),
    (
        "apiVersion: v1alpha1\nkind: NetworkRuleConfig\nname: r\nportSelector: {ports: [1]}\n",
        "apiVersion: v1alpha1\nkind: NetworkRuleConfig\nname: r\nportSelector: {ports: [2]}\n",
        Has("    ports:\n        - 2\n    protocol: Protocol(0)\n"),
    ),
    (
        "apiVersion: v1alpha1\nkind: NetworkRuleConfig\nname: r\nportSelector: {ports: [1], protocol: tcp}\n",
        "apiVersion: v1alpha1\nkind: NetworkRuleConfig\nname: r\nportSelector: {protocol: icmp}\n",
        Has("    protocol: icmp\n"),
    ),
    (
        "apiVersion: v1alpha1\nkind: NetworkRuleConfig\nname: r\nportSelector: {ports: [1], protocol: Protocol(0)}\n",
        "debug: true\n",
        Refused,
    ),
    (
        "apiVersion: v1alpha1\nkind: BondConfig\nname: b\nlinks: [a]\nbondMode: 802.3ad\nmiimon: 5\n",
        "apiVersion: v1alpha1\nkind: BondConfig\nname: b\nbondMode: balance-rr\nmiimon: 0\n",
        Has("bondMode: balance-rr\nmiimon: 0\n"),
    ),
    (
        "apiVersion: v1alpha1\nkind: VolumeConfig\nname: EPHEMERAL\nprovisioning: {maxSize: 6GB}\n",
        "apiVersion: v1alpha1\nkind: VolumeConfig\nname: EPHEMERAL\nprovisioning: {maxSize: 50%}\n",
        Has("    maxSize: 6GB\n"),
    ),
    (
        "apiVersion: v1alpha1\nkind: VolumeConfig\nname: EPHEMERAL\nprovisioning: {maxSize: 60%}\n",
        "apiVersion: v1alpha1\nkind: VolumeConfig\nname: EPHEMERAL\nprovisioning: {maxSize: 5GB}\n",
        Has("    maxSize: 5GB\n"),
    ),
    (
        "apiVersion: v1alpha1\nkind: VolumeConfig\nname: EPHEMERAL\nprovisioning: {maxSize: 50%}\n",
        "apiVersion: v1alpha1\nkind: VolumeConfig\nname: EPHEMERAL\nprovisioning: {maxSize: \"\"}\n",
        Has("    maxSize: 50%\n"),
    ),
    (
        "apiVersion: v1alpha1\nkind: DummyLinkConfig\nname: d\nhardwareAddr: 00:11:22:33:44:55\nmtu: 5\n",
        "apiVersion: v1alpha1\nkind: DummyLinkConfig\nname: d\nhardwareAddr: \"\"\n",
        Has("name: d\nmtu: 5\n"),
    ),
    ("machine: {time: {bootTimeout: 1m}}\n", "machine: {time: {bootTimeout: 0s}}\n", Has("bootTimeout: 1m0s\n")),
    ("machine: {install: {diskSelector: {size: 5GB}}}\n", "machine: {install: {diskSelector: {size: 5GB}}}\n", Refused),
    (
        "machine: {install: {diskSelector: {size: 5GB}}}\n",
        "machine: {install: {diskSelector: {model: a}}}\n",
        Has("            size: 5GB\n            model: a\n"),
    ),
    (
        "machine: {registries: {config: {r: {tls: {ca: YQ==, insecureSkipVerify: true}}}}}\n",
        "machine: {registries: {config: {r: {tls: {ca: \"\"}}}}}\n",
        Has("                tls:\n                    insecureSkipVerify: true\n"),
    ),
    (
        "machine: {kubelet: {extraConfig: {e: 5}}}\n",
        "machine: {kubelet: {extraConfig: {e: 18446744073709551615}}}\n",
        Refused,
    ),
];
