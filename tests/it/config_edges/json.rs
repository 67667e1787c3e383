//! Cases of JSON patches: the configuration goes through JSON and back, which can't carry everything; and cases that are
//! too long to be written out.

use super::Outcome::{self, Better, Has, OursRefuses, OursTakes, Refused};
use super::{ONE, PLAIN};

/// Configurations and patches of them.
pub(super) const THROUGH_JSON: &[(&str, &str, Outcome)] = &[
    // Control characters.
    (r#"machine: {sysctls: {a: "\x7f"}}"#, "[]", Refused),
    ("machine: {sysctls: {a: \"\u{80}\"}}\n", "[]", Refused),
    (r#"machine: {sysctls: {"a\x9fb": c}}"#, "[]", Refused),
    (r#"machine: {sysctls: {"a\Nb": c}}"#, "[]", Refused),
    (r#"machine: {sysctls: {a: "\uffff"}}"#, "[]", Refused),
    (r#"machine: {sysctls: {a: "\x7f"}}"#, "[{op: remove, path: /machine/sysctls/a}]", Has("  sysctls: {}\n")),
    ("machine: {}\n", r#"[{op: add, path: /x, value: "\x7f"}]"#, Refused),
    ("machine: {}\n", r#"[{op: add, path: "/\x7f", value: 1}]"#, Refused),
    ("machine: {}\n", "[{\"op\":\"add\",\"path\":\"/x\",\"value\":\"\u{7f}\"}]", Refused),
    ("machine: {}\n", r#"[{"op":"add","path":"/x","value":{"\u007f":"\u0080"}}]"#, Has("x:\n  \"\\x7F\": \"\\x80\"\n")),
    ("machine: {}\n", r#"[{"op":"add","path":"/x","value":{"a\u0085b":1}}]"#, Has("  ? \"a\\Nb\"\n  : 1\n")),
    ("machine: {}\n", r#"[{op: add, path: /x, value: "\x7f"}, {op: remove, path: /x}]"#, Has("machine: {}\n")),
    ("machine: {}\n", r#"[{op: add, path: "/\x7f", value: 1}, {op: move, from: "/\x7f", path: /x}]"#, Has("x: 1\n")),
    ("machine: {}\n", r#"[{op: add, path: /x, value: "\x9f"}, {op: copy, from: /x, path: /y}]"#, Refused),
    ("machine: {}\n", r#"[{"op":"add","path":"/\u007f","value":1}]"#, Refused),
    // Characters that are two escapes.
    ("machine: {}\n", r#"[{"op":"add","path":"/x","value":"\ud83d\ude00"}]"#, Refused),
    ("machine: {}\n", r#"[{"op":"add","path":"/x","value":{"path":"\ud83d\ude00"}}]"#, Refused),
    ("machine: {}\n", r#"[{"op":"add","path":"/a\ud83d\ude00","value":1}]"#, Has("\"a\\U0001F600\": 1\n")),
    (
        "machine: {}\n",
        r#"[{"op":"add","path":"/\u00e9\ud83d\ude00","value":1},{"op":"move","from" : "/\u00E9\uD83D\uDE00","path":"/x"}]"#,
        Has("x: 1\n"),
    ),
    ("machine: {}\n", r#"[{"op":"add","path":"/a\ud83d","value":1}]"#, OursRefuses),
    (r#"machine: {sysctls: {a: "\0\x01\uFEFF"}}"#, "[]", Has("    a: \"\\0\\x01\\uFEFF\"\n")),
    // Line separators and marks.
    (
        "machine: {}\n",
        "[{\"op\":\"add\",\"path\":\"/x\",\"value\":{\"a\u{2028}\":\"b \u{2029}\"}}]",
        Has("  ? 'a\u{2028}'\n  : \"b \\P\"\n"),
    ),
    ("machine: {}\n", r#"[{op: add, path: /x, value: "\uFEFFa"}]"#, Has("x: \"\\uFEFF\\x61\"\n")),
    ("machine: {}\n", r#"[{op: add, path: /x, value: "a\Lb"}]"#, Has("x: 'a\u{2028}  b'\n")),
    ("machine: {}\n", r#"[{op: add, path: /x, value: {"a\Pb": 1}}]"#, Has("x:\n  ? 'a\u{2029}    b'\n  : 1\n")),
    (r#"machine: {sysctls: {"a\Lb": c}}"#, "[]", Has("    ? 'a\u{2028}      b'\n    : c\n")),
    ("machine: {}\n", r#"[{op: add, path: /x, value: ["a\nb\L", c]}]"#, Has("x:\n- |\n  a\n  b\u{2028}- c\n")),
    ("machine: {}\n", r#"[{op: add, path: /x, value: "\L\n"}]"#, Has("x: |2+\n\u{2028}\n")),
    // Keys and numbers.
    ("3.14159265358979: x\n", "[]", Has("\"3.1415927\": x\n")),
    ("123456789.5: x\n", "[]", Has("\"1.2345679e+08\": x\n")),
    ("1e40: x\n", "[]", Has("\".inf\": x\n")),
    ("-0: x\n0x10: z\n", "[]", Has("\"0\": x\n\"16\": z\n")),
    ("12345678901234567890: x\n", "[]", Refused),
    ("x: -9223372036854775809\n", "[]", Has("x: -9.223372036854776e+18\n")),
    ("x: -0.0\n", "[]", Has("x: 0\n")),
    ("machine: {}\n", "[{op: add, path: /x, value: -9223372036854775809}]", Has("x: -9.223372036854776e+18\n")),
    // What no path leads into.
    ("a: b\nc: null\n", r#"[{"op":"copy","from":"/a/x","path":"/d"}]"#, Refused),
    ("a: b\nc: null\n", r#"[{"op":"test","path":"/c/x"}]"#, Refused),
    ("a: b\nc: null\n", r#"[{"op":"copy","from":"/c","path":"/d"}]"#, Has("d: null\n")),
    ("text\n", "[]", Refused),
    ("1\n", "[]", Refused),
    // JSON that is no YAML.
    ("machine: {}\n", "\n\t[{\"op\":\"add\",\"path\":\"/x\",\"value\":1}]", Has("x: 1\n")),
    ("machine: {}\n", "[{\"op\"\n:\"add\",\"path\"\r\n\t:\"/x\",\"value\":{\"a\"\n : 1}}]", Has("x:\n  a: 1\n")),
    ("machine: {}\n", "[\n\t{\n\t\t\"op\": \"add\",\n\t\t\"path\": \"/x\",\n\t\t\"value\": 1\n\t}\n]\n", Has("x: 1\n")),
    // On purpose.
    (r#"machine: {sysctls: {a: "b\Nc"}}"#, "[]", Better("    a: \"b\\Nc\"\n")),
    ("machine: {sysctls: {yes: on}}\n", "[]", Better("    \"yes\": \"on\"\n")),
    ("a: b\na: c\n", "[]", OursRefuses),
    ("machine: {}\n", r#"[{"op":"add","path":"/x","value":1}] x"#, OursRefuses),
    ("a: &x.y b\nc: *x.y\n", "[]", OursTakes("c: b\n")),
    ("x: <\n", r#"[{"op":"test","path":"/x","value":"<"}]"#, OursTakes("x: <\n")),
    ("x: é\n", r#"[{"op":"test","path":"/x","value":"\u00e9"}]"#, OursTakes("x: é\n")),
];

/// Cases that are too long to be written out.
pub(super) fn long() -> Vec<(String, String, Outcome)> {
    let keyed = |length: usize| format!("machine:\n  sysctls:\n    ? {}\n    : a\n", "k".repeat(length));
    let added = |length: usize| format!("[{{op: add, path: /x, value: {{{}: 1}}}}]\n", "<".repeat(length));
    let nested = |width: usize| {
        let of = |element: &str| vec![element; width].join(", ");
        let lists = format!("a: &a [{}], b: &b [{}], c: [{}]", of("x"), of("*a"), of("*b"));
        format!("machine: {{kubelet: {{extraConfig: {{{lists}}}}}}}\n")
    };
    vec![
        (keyed(1022), "[]".to_owned(), Has("    : a\n")),
        (keyed(1023), "[]".to_owned(), Refused),
        (keyed(1023), "[{op: remove, path: /machine/sysctls}]".to_owned(), Has("machine: {}\n")),
        (keyed(2000), PLAIN.to_owned(), Has("        : a\n")),
        ("machine: {}\n".to_owned(), added(170), Has("  : 1\n")),
        ("machine: {}\n".to_owned(), added(171), Refused),
        (ONE.to_owned(), nested(12), Has("extraConfig:\n")),
        (ONE.to_owned(), nested(20), Refused),
    ]
}
