//! Names that Kubernetes and DNS accept (k8s.io/apimachinery `pkg/util/validation`; RFC 1123).

/// A label's or taint's key: a name of up to 63 characters, with an optional DNS prefix before a slash.
pub(super) fn is_qualified_name(text: &str) -> bool {
    let (prefix, name) = match text.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    prefix.is_none_or(is_dns_name) && !name.is_empty() && is_name(name)
}

/// A label's value: empty, or a name.
pub(super) fn is_label_value(text: &str) -> bool {
    text.is_empty() || is_name(text)
}

fn is_name(text: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= 63 && edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(|byte| inside(*byte))
}

/// A DNS name: labels of letters, digits and hyphens.
pub(super) fn is_dns_name(text: &str) -> bool {
    let label = |label: &str| {
        let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
        let bytes = label.as_bytes();
        (1..=63).contains(&bytes.len())
            && edge(bytes.first())
            && edge(bytes.last())
            && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
    };
    !text.is_empty() && text.len() <= 253 && text.trim_end_matches('.').split('.').all(label)
}

/// A DNS domain as Talos takes it: underscores may be in it, a dot or an underscore at its end.
pub(super) fn is_domain(text: &str) -> bool {
    let text = text.strip_suffix(['.', '_']).unwrap_or(text);
    let inside = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    text.len() <= 255
        && text
            .split('.')
            .all(|label| (1..=63).contains(&label.len()) && !label.starts_with('-') && label.bytes().all(inside))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_from_what_is_none() {
        for name in ["a", "node.kubernetes.io/x", "A_b.c-1"] {
            assert!(is_qualified_name(name), "{name}");
        }
        for name in ["", "bad label", "/x", "x/", "-a", "a-", "a/b/c"] {
            assert!(!is_qualified_name(name), "{name}");
        }
        assert!(is_dns_name("cluster.local") && is_dns_name("a"));
        assert!(is_domain("cluster.local.") && is_domain("_a.b") && !is_domain("-a.b") && !is_domain("a b"));
        assert!(!is_dns_name("not a domain!") && !is_dns_name("") && !is_dns_name("a..b"));
    }
}
