//! Patches and configurations at the edges of YAML: `config patch` takes and refuses what talosctl 1.13.9 does, and writes
//! the same bytes; where it does otherwise on purpose, that is said here.
//!
//! The table is run twice: by itself, and against the real tool where that is here.

mod json;

use std::fs;
use std::process::Command;

use recast::talos::config::{Config, Patch};
use secrecy::ExposeSecret as _;

use crate::site::program;

mod scalars;

/// What becomes of a patch.
#[derive(Clone, Copy)]
enum Outcome {
    /// It is refused.
    Refused,
    /// These lines are in the result.
    Has(&'static str),
    /// These lines are in the result, and the real tool writes what it can't read.
    Better(&'static str),
    /// It is refused, and the real tool takes it: `src/talos/config/patch.rs` says why.
    OursRefuses,
    /// These lines are in the result, and the real tool refuses it: the same file says why.
    OursTakes(&'static str),
}

use Outcome::{Better, Has, OursRefuses, OursTakes, Refused};

/// One document.
const ONE: &str = "machine:\n  type: worker\ncluster:\n  controlPlane:\n    endpoint: https://192.0.2.1:6443\n";

/// Two documents.
const TWO: &str = "machine:\n  type: worker\n---\napiVersion: v1alpha1\nkind: HostnameConfig\nauto: stable\n";

/// Patches of a configuration of one document.
const PATCHES: &[(&str, Outcome)] = &[
    // What is nothing is a JSON patch without operations: the result is sorted.
    ("", Has("cluster:\n  controlPlane:\n    endpoint: https://192.0.2.1:6443\nmachine:\n  type: worker\n")),
    ("# only a comment\n", Has("machine:\n  type: worker\n")),
    ("---\n...\n", Has("machine:\n  type: worker\n")),
    ("null\n---\n~\n", Has("machine:\n  type: worker\n")),
    // Documents that say nothing are no patch.
    ("{}\n", Refused),
    ("version: v1alpha1\n", Refused),
    ("kind: HostnameConfig\n", Refused),
    ("machine: null\ncluster: null\n", Has("machine:\n    type: worker\n")),
    ("machine:\n", Has("machine:\n    type: worker\n")),
    // Directives and marks.
    ("%YAML 1.1\n---\ndebug: true\n", Has("debug: true\n")),
    ("%YAML 1.2\n---\ndebug: true\n", Refused),
    ("%OTHER x\n---\ndebug: true\n", Refused),
    ("%TAG !y! tag:yaml.org,2002:\n---\nmachine: {sysctls: {a: !y!str 1}}\n", Has("        a: \"1\"\n")),
    ("debug: true\n...\n", Has("debug: true\n")),
    ("debug: true\n...\npersist: true\n", Refused),
    ("...\n", Refused),
    ("--- {debug: true}\n", Has("debug: true\n")),
    ("debug: true\n---\n---\n# nothing\n---\nnull\n", Has("debug: true\n")),
    ("debug: true\n---\n[]\n", Refused),
    ("debug: true\n---\ntext\n", Refused),
    // Characters.
    ("\u{feff}debug: true\n", Has("debug: true\n")),
    (
        "machine:\r\n  sysctls:\r\n    a: b\r\n    c: |\r\n      d\r\n      e\r\n",
        Has("        c: |\n            d\n            e\n"),
    ),
    ("machine:\r  sysctls:\r    a: b\r", Has("        a: b\n")),
    ("machine: {sysctls: {a: \"b\u{1}c\"}}\n", Refused),
    ("debug: true\n\0", Refused),
    ("machine: {sysctls: {a: \"\\q\"}}\n", Refused),
    ("machine: {sysctls: {a: \"b\\/c\"}}\n", Refused),
    ("machine: {sysctls: {a: \"\\ud83d\\ude00\"}}\n", Refused),
    ("machine: {sysctls: {a: \"\\e\\x41\\u00e9\\N\"}}\n", Has("        a: \"\\eAé\\N\"\n")),
    // Tabs.
    ("machine:\n\tsysctls: {}\n", Refused),
    ("machine:\n\t\n  sysctls: {a: b}\n", Refused),
    ("machine:\n  certSANs:\n    -\ta\n", Refused),
    ("machine:\n  sysctls:\n    a:\tb\t# c\n", Has("        a: b\n")),
    ("machine: {\n\tsysctls: {\n\ta: b}}\n", Has("        a: b\n")),
    ("machine:\n  sysctls:\n    a: |\n      \tb\n", Refused),
    // Blocks.
    (
        "machine:\n  sysctls:\n    k: |4\n          a\n        b\n",
        Has("        k: |4\n              a\n            b\n"),
    ),
    ("machine:\n  sysctls:\n    k: |1\n      a\n      b\n", Has("        k: |4\n             a\n             b\n")),
    ("machine:\n  sysctls:\n    k: |\n\n      a\n", Has("        k: |\n\n            a\n")),
    ("machine:\n  sysctls:\n    k: |\n      a", Has("        k: a\n")),
    ("machine:\n  sysctls:\n    k: |+\n\n\n", Has("        k: \"\\n\\n\"\n")),
    (
        "machine:\n  sysctls:\n    k: >-\n      a\n      b\n\n      c\n",
        Has("        k: |-\n            a b\n            c\n"),
    ),
    ("machine:\n  sysctls:\n    k: |0\n      a\n", Refused),
    ("machine:\n  sysctls:\n    k: |+-\n      a\n", Refused),
    ("machine:\n  sysctls:\n    k: |# comment\n      a\n", Has("        k: |\n            a\n")),
    // Keys.
    ("machine:\n  sysctls:\n    ? a\n    : b\n", Has("        a: b\n")),
    ("machine:\n  sysctls:\n    ? a\n", Has("        a: \"\"\n")),
    ("machine:\n  sysctls:\n    \"a\\nb\": c\n", Has("        ? |-\n            a\n            b\n        : c\n")),
    (
        "machine: {kubelet: {extraConfig: {\"a\\n\": {b: c}, \"d\\ne\": [1]}}}\n",
        Has(
            "            ? |\n                a\n            :   b: c\n            ? |-\n                d\n                e\n            :   - 1\n",
        ),
    ),
    ("machine:\n  sysctls:\n    \"a\n     b\": c\n", Refused),
    ("machine:\n  sysctls: {a\n    b: c}\n", Refused),
    ("machine:\n  sysctls:\n    : c\n", Refused),
    ("machine:\n  sysctls:\n    [a]: c\n", Refused),
    ("machine: {sysctls: {a: b, a: c}}\n", Refused),
    ("machine: {sysctls: {1: b, \"1\": c}}\n", Refused),
    (
        "machine: {sysctls: {0x10: b, yes: c, 1.50: d}}\n",
        Has("        \"0x10\": b\n        \"1.50\": d\n        \"yes\": c\n"),
    ),
    (
        "machine: {sysctls: {a10: 1, a9: 1, a-b: 1, ab: 1, B: 1, 10: 1, 9: 1, _x: 1}}\n",
        Has(
            "        _x: \"1\"\n        \"9\": \"1\"\n        \"10\": \"1\"\n        B: \"1\"\n        a-b: \"1\"\n        a9: \"1\"\n        a10: \"1\"\n        ab: \"1\"\n",
        ),
    ),
    // Anchors, aliases, merges.
    (
        "machine:\n  certSANs: &s [a]\ncluster:\n  apiServer:\n    certSANs: *s\n",
        Has("        certSANs:\n            - a\n"),
    ),
    ("machine:\n  sysctls: {a: &x b, c: *x}\n", Has("        c: b\n")),
    ("machine: {type: *x}\n", Refused),
    ("machine: {kubelet: {extraConfig: &x {a: *x}}}\n", Refused),
    (
        "machine:\n  sysctls: &x {a: b}\n  sysfs:\n    <<: *x\n    c: d\n",
        Has("    sysfs:\n        a: b\n        c: d\n"),
    ),
    ("machine:\n  sysctls: {<<: {a: b}, c: d}\n", Refused),
    ("machine:\n  install: {<<: {wipe: true}, disk: /dev/sda}\n", Refused),
    ("<<: {debug: true}\nmachine: {}\n", Refused),
    ("machine: {kubelet: {extraConfig: {x: {<<: {a: b}, a: c}}}}\n", Has("                a: c\n")),
    ("machine:\n  sysctls:\n    a: &k b\n    *k : c\n", Refused),
    // Plain scalars, where anything may stand.
    ("machine: {kubelet: {extraConfig: {k: 0o17}}}\n", Has("            k: 15\n")),
    ("machine: {kubelet: {extraConfig: {k: 017}}}\n", Has("            k: 15\n")),
    ("machine: {kubelet: {extraConfig: {k: 08}}}\n", Has("            k: 8\n")),
    ("machine: {kubelet: {extraConfig: {k: 1_000}}}\n", Has("            k: 1000\n")),
    ("machine: {kubelet: {extraConfig: {k: 1e6}}}\n", Has("            k: 1e+06\n")),
    ("machine: {kubelet: {extraConfig: {k: 1e400}}}\n", Has("            k: 1e400\n")),
    ("machine: {kubelet: {extraConfig: {k: 12345678901234567890}}}\n", Has("            k: 12345678901234567890\n")),
    ("machine: {kubelet: {extraConfig: {k: 18446744073709551616}}}\n", Has("            k: 1.8446744073709552e+19\n")),
    (
        "machine: {kubelet: {extraConfig: {k: -.INF, l: .nan, m: NaN}}}\n",
        Has("            k: -.inf\n            l: .nan\n            m: NaN\n"),
    ),
    (
        "machine: {kubelet: {extraConfig: {k: yes, l: on, m: TRUE}}}\n",
        Has("            k: \"yes\"\n            l: \"on\"\n            m: true\n"),
    ),
    ("machine: {kubelet: {extraConfig: {k: 2001-02-30}}}\n", Has("            k: 2001-02-30\n")),
    ("machine: {sysctls: {k: 2001-01-01, l: 2001-1-1}}\n", Has("        k: \"2001-01-01\"\n        l: \"2001-1-1\"\n")),
    (
        "machine: {features: {kubePrism: {enabled: yes, port: 0x1f}}}\n",
        Has("            enabled: true\n            port: 31\n"),
    ),
    ("machine: {features: {kubePrism: {enabled: yep}}}\n", Refused),
    ("machine: {features: {kubePrism: {port: 7445.0}}}\n", Has("            port: 7445\n")),
    ("machine: {features: {kubePrism: {port: 1e3}}}\n", Has("            port: 1000\n")),
    ("machine: {features: {kubePrism: {port: \"7445\"}}}\n", Refused),
    ("machine: {certSANs: [a, null, b]}\n", Has("    certSANs:\n        - a\n        - b\n")),
    ("machine: {pods: [null, {a: 1}, null]}\n", Has("    pods:\n        - a: 1\n")),
    // Deletes.
    ("machine: {registries: {mirrors: {$patch: delete}}}\n", Has("  type: worker\n")),
    ("machine: {registries: {mirrors: {a: {$patch: delete}}}}\n", Refused),
    ("machine: {features: {kubePrism: {$patch: delete}}}\n", Refused),
    // Documents that a tag makes nothing.
    ("!!null x\n", Refused),
    ("debug: true\n--- !!null x\n", Has("debug: true\n")),
    ("--- !!null \"x\"\n---\ndebug: true\n", Has("debug: true\n")),
    ("null\n--- !!null x\n", Has("  type: worker\n")),
    ("--- !!null x\n--- null\n", Refused),
    ("--- !!null x\n---\n[]\n", Refused),
    ("--- !!null [a]\n", Refused),
    ("machine: !!null x\n", Refused),
    // File modes.
    ("machine: {files: [{path: /a, permissions: 0o600}]}\n", Has("permissions: 0o600\n")),
    ("machine: {files: [{path: /a, permissions: 0600}]}\n", Has("permissions: 0o600\n")),
    ("machine: {files: [{path: /a, permissions: 384}]}\n", Has("permissions: 0o600\n")),
    ("machine: {files: [{path: /a, permissions: \"0o600\"}]}\n", Refused),
    ("machine: {files: [{path: /a, permissions: \"0600\"}]}\n", Refused),
    // Tags.
    (
        "machine: {kubelet: {extraConfig: {k: !!str 1, l: !!int \"1\", m: !!float 1, o: !custom 1}}}\n",
        Has("            k: \"1\"\n            l: 1\n            m: 1\n            o: \"1\"\n"),
    ),
    ("machine: {kubelet: {extraConfig: {k: !!binary aGVsbG8=}}}\n", Has("            k: hello\n")),
    ("machine: {kubelet: {extraConfig: {k: !!binary \"not base64\"}}}\n", Refused),
    ("machine: {kubelet: {extraConfig: {k: !!int abc}}}\n", Refused),
    ("machine: {kubelet: {extraConfig: {k: !!bool yes}}}\n", Refused),
    ("machine: {kubelet: {extraConfig: {k: !foo!bar 5}}}\n", Refused),
    // Brackets and comments.
    ("machine: {sysctls: {a: b,},}\n", Has("        a: b\n")),
    ("machine: {sysctls: {a: b,, c: d}}\n", Refused),
    ("machine: {certSANs: [a,,b]}\n", Refused),
    ("machine: {certSANs: [-]}\n", Has("        - '-'\n")),
    ("machine: {\"sysctls\":{\"a\":b}}\n", Has("        a: b\n")),
    ("machine:\n  sysctls:\n    a: \"b\"# comment\n", Has("        a: b\n")),
    ("machine:\n  sysctls:\n    a: \"b\nc\"\n", Has("        a: b c\n")),
    ("machine:\n  sysctls:\n    a: b: c\n", Refused),
    ("machine:\n  sysctls:\n    a: @b\n", Refused),
    ("machine:\n  sysctls:\n    a: {{ .Values.x }}\n", Refused),
    // A node takes values for keys.
    ("apiVersion: v1alpha1\nkind: HostnameConfig\nhostname: kind\nauto: \"off\"\n", Refused),
    ("hostname: kind\nauto: \"off\"\napiVersion: v1alpha1\nkind: HostnameConfig\n", Has("hostname: kind\n")),
    // JSON patches.
    ("[{op: add, path: /machine/x}]\n", Has("  x: null\n")),
    ("[{op: replace, path: /machine/type}]\n", Has("  type: null\n")),
    ("[{op: add, path: \"\", value: {a: b}}]\n", Refused),
    ("[{op: replace, path: \"\", value: {a: b}}]\n", Has("a: b\n")),
    ("[{op: test, path: /machine/type, value: worker}]\n", Has("  type: worker\n")),
    ("[{op: test, path: /machine/type}]\n", Refused),
    (
        "[{\"op\":\"add\",\"path\":\"/x\",\"value\":{\"a\":1,\"b\":2}},{\"op\":\"test\",\"path\":\"/x\",\"value\":{\"b\":2,\"a\":1}}]",
        Has("x:\n  a: 1\n  b: 2\n"),
    ),
    ("[{\"op\":\"add\",\"path\":\"/x\",\"value\":1},{\"op\":\"test\",\"path\":\"/x\",\"value\":1.0}]", Refused),
    ("[{op: add, path: /x, value: 2001-01-01}]\n", Has("x: \"2001-01-01T00:00:00Z\"\n")),
    ("[{op: add, path: /x, value: 1e6}]\n", Has("x: 1000000\n")),
    (
        "[{op: add, path: /x, value: [True, {a: FALSE}]}, {op: test, path: /x/0, value: true}]\n",
        Has("x:\n- true\n- a: false\n"),
    ),
    ("[{op: add, path: True, value: 1}]\n", Refused),
    ("[{\"op\":\"add\",\"path\":\"/x\",\"value\":1e6}]", Has("x: 1e+06\n")),
    ("[{op: add, path: /x, value: .inf}]\n", Refused),
    ("[{op: add, path: /x, value: {1: a}}]\n", Refused),
    ("[{}]\n", Refused),
    ("[{op: add, path: /x, value: \"a\\tb\\nc\"}]\n", Has("x: \"a\\tb\\nc\"\n")),
    (
        "[{op: add, path: /x, value: {k: 'a b c d e f g h i j k l m n o p q r s t u v w x y z a b c d e f g h i j k l m n o p q r s t u v w x y z'}}]\n",
        Has(
            "x:\n  k: a b c d e f g h i j k l m n o p q r s t u v w x y z a b c d e f g h i j k l m\n    n o p q r s t u v w x y z\n",
        ),
    ),
    // On purpose.
    ("machine: {sysctls: {a: \"\\tb\\nc\\n\"}}\n", Better("        a: \"\\tb\\nc\\n\"\n")),
    ("machine: {sysctls: {a: \"\\n b\\nc\"}}\n", Better("        a: \"\\n b\\nc\"\n")),
    ("machine: {certSANs: [\" a\\nb\"]}\n", Better("        - |2-\n           a\n          b\n")),
    ("machine: {kubelet: {extraConfig: {k: 2001-01-01}}}\n", OursRefuses),
    ("machine: {kubelet: {extraConfig: {k: {1: a}}}}\n", OursRefuses),
    ("machine: {sysctls: {null: a}}\n", OursRefuses),
    ("machine: {sysctls: {a: !!binary /w==}}\n", OursRefuses),
    ("machine: {sysctls: {$patch: x}}\n", OursRefuses),
    ("apiVersion: v1alpha1\nkind: HostnameConfig\n$patch: delete\n", OursRefuses),
    ("kind: HostnameConfig\nhostname: debug\nauto: \"off\"\n", OursRefuses),
    ("[{op: add, path: machine/x, value: 1}]\n", OursRefuses),
    ("[{op: replace, path: \"\", value: [1]}]\n", OursRefuses),
    ("[{\"op\":\"add\",\"op\":\"remove\",\"path\":\"/machine/type\"}]", OursRefuses),
    ("[]\n---\n[]\n", OursRefuses),
    ("[{op: add, path: /x, value: 1}]\n---\nnull\n", Has("x: 1\n")),
    ("[{op: add, path: /x, value: 1}]\n---\n{broken\n", OursRefuses),
    ("null\n---\n{broken\n", OursRefuses),
    ("null\n---\nbogus: 1\n", OursRefuses),
    ("null\n---\n[{op: add, path: /x, value: 1}]\n", OursRefuses),
];

/// Patches of a configuration of two documents.
const OF_TWO: &[(&str, Outcome)] = &[
    ("", Refused),
    ("# only a comment\n", Refused),
    ("[]\n", Refused),
    ("machine: null\n", Has("auto: stable\n")),
    ("apiVersion: v1alpha1\nkind: HostnameConfig\n$patch: delete\n", Has("machine:\n    type: worker\n")),
    ("apiVersion: v1alpha1\nkind: KubeSpanConfig\n$patch: delete\n", OursRefuses),
    ("apiVersion: v1alpha1\nkind: KubeSpanConfig\nmtu: {$patch: delete}\n", OursRefuses),
];

/// Configurations, each patched with [`PLAIN`].
const CONFIGURATIONS: &[(&str, Outcome)] = &[
    ("machine: null\n", Has("    token: t\n")),
    ("machine:\n  type: worker\ncluster: {}\n", Has("cluster:\n    controlPlane: null\n")),
    ("apiVersion: v1alpha1\nkind: HostnameConfig\nauto: stable\n", Has("cluster: null\n---\napiVersion: v1alpha1\n")),
    ("%YAML 1.2\n---\nmachine: {}\n", Refused),
    ("machine: {}\n---\n---\n", Has("    token: t\n")),
    ("", Refused),
    ("# nothing\n", Refused),
    ("machine: {kubelet: {extraConfig: {k: 2001-01-01}}}\n", Refused),
    ("machine: {kubelet: {extraConfig: {k: {1: a}}}}\n", Refused),
];

const PLAIN: &str = "machine: {token: t}\n";

/// A URL, the one that is merged into it, and what becomes of them.
const URLS: &[(&str, &str, Outcome)] = &[
    ("https://h/a%2fb", "https://h/a/b", Has("endpoint: https://h/a%2fb\n")),
    ("https://h/a%2fb", "https://i/c", Has("endpoint: https://i/c\n")),
    ("https://h/a/b", "https://i/a%2Fb", Has("endpoint: https://i/a%2Fb\n")),
    ("https://h/a!b", "https://i/a%21b", Has("endpoint: https://i/a!b\n")),
    ("https://h/a%20b", "https://h/a b", Has("endpoint: https://h/a%20b\n")),
    ("https://h/%e4", "https://i", Has("endpoint: https://i/%e4\n")),
    ("https://h", "https://%e4", Has("endpoint: https://%E4\n")),
    ("https://h/x?a=%zz#%41", "https://i", Has("endpoint: https://i/x?a=%zz#%41\n")),
    ("https://h#a%2fb", "https://i#a/b", Has("endpoint: https://i#a%2fb\n")),
    ("https://h", "https://i#x y", Has("endpoint: https://i#x%20y\n")),
    ("https://h?", "https://i", Has("endpoint: https://i\n")),
    ("https://h", "https://i?", Has("endpoint: https://i?\n")),
    ("https://h?x", "https://i?", Has("endpoint: https://i?x\n")),
    ("https://u:p@h", "https://i", Has("endpoint: https://u:p@i\n")),
    ("https://h", "https://u:p@i", Has("endpoint: https://u:p@i\n")),
    ("https://u:p@h", "https://v@i", Refused),
    ("https://u@h", "https://u@h", Refused),
    ("https:/x", "https://h", Has("endpoint: https://h/x\n")),
    ("https://h/x", "https:/y", Has("endpoint: https://h/y\n")),
    ("https://h/x", "https:z", Has("endpoint: https:z\n")),
    ("https:z", "https://h", Has("endpoint: https:z\n")),
    ("https://h/p", "q", Has("endpoint: https://h/q\n")),
    ("https://h", "//i/x", Has("endpoint: https://i/x\n")),
    ("/x", "//i", Has("endpoint: //i/x\n")),
    ("https://[fe80::1%25eth0]:6443", "https://[fe80::2%25eth1]", Has("endpoint: https://[fe80::2%25eth1]\n")),
    ("https://[::1]:6443", "https:///p", Has("endpoint: https://[::1]:6443/p\n")),
    ("https://h", "*", Has("endpoint: https://h/*\n")),
    ("*", "https://h", Has("endpoint: https://h/*\n")),
    ("https://h:1", "https://:2", Has("endpoint: https://:2\n")),
    ("https://h", "./b:c", Has("endpoint: https://h/./b:c\n")),
    ("./b:c", "d", Has("endpoint: d\n")),
    ("https://h/a%zz", "https://i", Refused),
];

/// Texts with Unicode's line separators and marks, as entries of a mapping, and what is written of them.
const SEPARATORS: &[(&str, &str)] = &[
    (r"a\Lb", "        k: 'a\u{2028}            b'\n"),
    (r"a\Pb", "        k: 'a\u{2029}            b'\n"),
    (r"it's\L\Lx", "        k: 'it''s\u{2028}\u{2028}            x'\n"),
    (r"a\nb\Lc", "        k: |-\n            a\n            b\u{2028}            c\n"),
    (r"a\nb\L", "        k: |\n            a\n            b\u{2028}        l: m\n"),
    (r"a\n\L", "        k: |+\n            a\n\u{2028}        l: m\n"),
    (r"a\L\n", "        k: |+\n            a\u{2028}\n        l: m\n"),
    (r"\La\nb", "        k: |-\n\u{2028}            a\n            b\n"),
    (r"\u00a0\t", "        k: \"\u{a0}\\t\"\n"),
    (r"\uFEFFa b", "        k: \"\\uFEFF\\x61\\x20\\x62\"\n"),
    (r"\L\n", "        k: \"\\L\\n\"\n"),
];

fn table() -> Vec<(String, String, Outcome)> {
    let endpoint = |url: &str| format!("cluster: {{controlPlane: {{endpoint: '{url}'}}}}\n");
    let urls = URLS.iter().map(|(old, new, outcome)| (endpoint(old), endpoint(new), *outcome));
    let separators = SEPARATORS
        .iter()
        .map(|(text, lines)| (ONE.to_owned(), format!("machine: {{sysctls: {{k: \"{text}\", l: m}}}}\n"), Has(lines)));
    let owned = |(base, patch, outcome): (&str, &str, Outcome)| (base.to_owned(), patch.to_owned(), outcome);
    let through = json::THROUGH_JSON.iter().copied().map(owned);
    written().into_iter().map(owned).chain(urls).chain(separators).chain(through).chain(json::long()).collect()
}

fn written() -> Vec<(&'static str, &'static str, Outcome)> {
    let of = |base: &'static str, cases: &'static [(&'static str, Outcome)]| {
        cases.iter().map(move |(patch, outcome)| (base, *patch, *outcome))
    };
    let configurations = CONFIGURATIONS.iter().map(|(base, outcome)| (*base, PLAIN, *outcome));
    let json = [
        ("machine: {sysctls: {10: a, 2001-01-01: b}}\nx: 2001-01-01\n", "[]", Has("    \"10\": a\n")),
        ("machine: {}\n---\n", "[]", Refused),
    ];
    let merges = scalars::MERGES.iter().copied();
    of(ONE, PATCHES)
        .chain(of(ONE, scalars::PATCHES))
        .chain(of(TWO, OF_TWO))
        .chain(configurations)
        .chain(json)
        .chain(merges)
        .collect()
}

/// What `config patch` makes of it.
fn patched(base: &str, patch: &str) -> Result<String, String> {
    let told = |error: &dyn std::error::Error| error.to_string();
    let patch = Patch::parse_strictly(patch, "p.yaml").map_err(|error| told(&error))?;
    let config = if patch.is_json() {
        Config::parse_whole(base).map_err(|error| told(&error))
    } else {
        Config::read(base).map_err(|error| told(&error))
    };
    let mut config = config?;
    config.apply(&patch).map_err(|error| told(&error))?;
    let text = if patch.is_json() { config.to_sorted_yaml() } else { config.to_yaml() };
    Ok(text.expose_secret().to_owned())
}

#[test]
fn edges_of_yaml_are_taken_or_refused_as_nodes_do() {
    for (base, patch, outcome) in table() {
        match (patched(&base, &patch), outcome) {
            (Ok(text), Has(lines) | Better(lines) | OursTakes(lines)) => {
                assert!(text.contains(lines), "{base:?} {patch:?}\n{text}");
            }
            (Err(_), Refused | OursRefuses) => {}
            (Ok(text), Refused | OursRefuses) => panic!("{base:?} {patch:?} was taken:\n{text}"),
            (Err(error), Has(_) | Better(_) | OursTakes(_)) => panic!("{base:?} {patch:?} was refused: {error}"),
        }
    }
}

#[test]
fn the_real_tool_takes_and_writes_the_same() {
    let Some(talosctl) = real_parts::client("talosctl") else { return };
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name);
    let run = |mut command: Command, verb: [&str; 2], out: &str| {
        let _ = fs::remove_file(path(out));
        command.args(verb).args(["c.yaml", "-p", "@p.yaml", "-o", out]).current_dir(place.path());
        let done = command.output().unwrap();
        done.status.success().then(|| fs::read_to_string(path(out)).unwrap())
    };
    for (base, patch, outcome) in table() {
        fs::write(path("c.yaml"), &base).unwrap();
        fs::write(path("p.yaml"), &patch).unwrap();
        let mut real = Command::new(&talosctl);
        real.env_clear().env("HOME", place.path());
        let theirs = run(real, ["machineconfig", "patch"], "theirs.yaml");
        let ours = run(program(place.path()), ["config", "patch"], "ours.yaml");
        match outcome {
            OursRefuses => assert!(theirs.is_some() && ours.is_none(), "{base:?} {patch:?}: {theirs:?} {ours:?}"),
            OursTakes(_) => assert!(theirs.is_none() && ours.is_some(), "{base:?} {patch:?}: {theirs:?} {ours:?}"),
            Better(_) => assert!(theirs.is_some() && ours.is_some() && theirs != ours, "{patch:?}: {theirs:?}"),
            Has(_) | Refused => assert!(theirs == ours, "{base:?} {patch:?}\n{theirs:?}\n{ours:?}"),
        }
    }
}

#[test]
fn texts_of_windows_are_read_as_the_real_tool_reads_them() {
    let place = tempfile::tempdir().unwrap();
    let units = |text: &str, unit: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(unit).collect::<Vec<u8>>();
    let little = [vec![0xff, 0xfe], units(ONE, u16::to_le_bytes)].concat();
    let big = [vec![0xfe, 0xff], units(PLAIN, u16::to_be_bytes)].concat();
    let broken = [big.as_slice(), b"x"].concat();
    let patched = |mut command: Command, verb: [&str; 2]| {
        command.args(verb).args(["c.yaml", "-p", "@p.yaml"]).current_dir(place.path());
        let done = command.output().unwrap();
        done.status.success().then_some(done.stdout)
    };
    for (config, patch, fits) in [
        (ONE.as_bytes(), big.as_slice(), true),
        (little.as_slice(), PLAIN.as_bytes(), true),
        (little.as_slice(), big.as_slice(), true),
        (ONE.as_bytes(), broken.as_slice(), false),
        (ONE.as_bytes(), b"machine: {token: \xff}\n".as_slice(), false),
    ] {
        fs::write(place.path().join("c.yaml"), config).unwrap();
        fs::write(place.path().join("p.yaml"), patch).unwrap();
        let ours = patched(program(place.path()), ["config", "patch"]);
        assert_eq!(
            ours.as_ref().map(|text| String::from_utf8_lossy(text).contains("    token: t\n")),
            fits.then_some(true)
        );
        if let Some(talosctl) = real_parts::client("talosctl") {
            let mut real = Command::new(&talosctl);
            real.env_clear().env("HOME", place.path());
            assert_eq!(patched(real, ["machineconfig", "patch"]), ours);
        }
    }
}

#[test]
fn names_too_long_for_a_line_are_read_by_the_real_tool() {
    let Some(talosctl) = real_parts::client("talosctl") else { return };
    let place = tempfile::tempdir().unwrap();
    let real = |file: &str, args: &[&str]| {
        let mut command = Command::new(&talosctl);
        command.env_clear().env("HOME", place.path()).current_dir(place.path());
        let done = command.args(["--talosconfig", file, "config"]).args(args).output().unwrap();
        assert!(done.status.success(), "{done:?}");
        String::from_utf8(done.stdout).unwrap()
    };
    let names = ["a".repeat(150), "b".repeat(1500)];
    for (name, file) in names.iter().zip(["a.yaml", "b.yaml"]) {
        let mut ours = program(place.path());
        ours.current_dir(place.path()).args(["config", "generate", name, "https://192.0.2.1:6443"]);
        assert!(ours.args(["-t", "talosconfig", "-o", file]).status().unwrap().success());
        assert!(real(file, &["contexts"]).contains(name.as_str()));
    }
    // What the real tool makes of both is read by this program.
    real("a.yaml", &["merge", "b.yaml"]);
    let merged = fs::read_to_string(place.path().join("a.yaml")).unwrap();
    assert_eq!(recast::talos::access::talosconfig::names(&merged).unwrap(), names);
}
