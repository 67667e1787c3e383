//! URLs as Talos keeps them: read and written again by the rules of Go's `net/url` (1.26).
//!
//! Purpose: a configuration holds what Go writes of a URL, so that `HTTPS://h/a b` stands there as `https://h/a%20b`, and a
//! name beyond ASCII with its bytes escaped. What Go refuses is refused. Must not know: what a URL is for.

mod escape;

use std::fmt;
use std::net::IpAddr;

use escape::{Escaped, Part, pick};

/// A URL in its parts. May hold a password, so there is no `Debug`.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Url {
    scheme: String,
    /// What follows the scheme when no slash does.
    opaque: String,
    user: Option<(Vec<u8>, Option<Vec<u8>>)>,
    /// With brackets and port, unescaped.
    host: Vec<u8>,
    /// Never written with an empty authority before it when there was none.
    path: Escaped,
    authority: Authority,
    query: Option<String>,
    fragment: Escaped,
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Authority {
    #[default]
    Written,
    /// `https:/path`.
    LeftOut,
}

/// Why a text is no URL. Quotes nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// A control character.
    #[error("it has a control character")]
    Control,
    /// `://host`, or a colon before any slash.
    #[error("it has a colon where a scheme such as https:// is missing")]
    Scheme,
    /// `%` without two digits, or of a character that must not be hidden.
    #[error("it has a % that escapes nothing allowed there")]
    Escape,
    /// A character that no host has.
    #[error("its host has a character that no host has")]
    Host,
    /// Brackets without an IPv6 address.
    #[error("brackets are for an IPv6 address, as in [fd00::1]")]
    Brackets,
    /// A port that is no number, or colons without brackets.
    #[error("its port is no number; an IPv6 address stands in brackets, as in [fd00::1]:6443")]
    Port,
    /// A name or password with a character that must be escaped.
    #[error("its user has a character that must be escaped")]
    User,
    /// Two URLs that are merged both have one.
    #[error("both URLs have a user; leave it out of the patch")]
    Users,
}

impl Url {
    /// Reads a URL; nearly every text is one, if only a path.
    ///
    /// # Errors
    /// Where Go refuses it.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let (text, fragment) = text.split_once('#').unwrap_or((text, ""));
        let mut url = Self::without_fragment(text)?;
        url.fragment = Escaped::parse(Part::Fragment, fragment)?;
        Ok(url)
    }

    fn without_fragment(text: &str) -> Result<Self, UrlError> {
        if text.bytes().any(|byte| byte.is_ascii_control()) {
            return Err(UrlError::Control);
        }
        if text == "*" {
            return Ok(Self { path: Escaped::plain(text), ..Self::default() });
        }
        let (scheme, rest) = scheme(text)?;
        let (rest, query) = match rest.split_once('?') {
            Some((rest, query)) => (rest, Some(query.to_owned())),
            None => (rest, None),
        };
        let mut url = Self { scheme: scheme.to_ascii_lowercase(), query, ..Self::default() };
        let bare = url.scheme.is_empty();
        if !rest.starts_with('/') {
            if !bare {
                rest.clone_into(&mut url.opaque);
                return Ok(url);
            }
            if first_segment(rest).contains(':') {
                return Err(UrlError::Scheme);
            }
        }
        let path = match rest.strip_prefix("//") {
            Some(authority) if !bare || !authority.starts_with('/') => {
                let (authority, path) = authority.split_at(authority.find('/').unwrap_or(authority.len()));
                let (user, host) = match authority.rsplit_once('@') {
                    Some((user, host)) => (Some(user), host),
                    None => (None, authority),
                };
                url.host = parse_host(&url.scheme, host)?;
                url.user = user.map(parse_user).transpose()?;
                path
            }
            _ => {
                if !bare {
                    url.authority = Authority::LeftOut;
                }
                rest
            }
        };
        url.path = Escaped::parse(Part::Path, path)?;
        Ok(url)
    }

    /// Merges another one into this, part by part: what the other doesn't have stays.
    ///
    /// # Errors
    /// When both have a user: those of the real tool can't be changed.
    pub fn merge(&mut self, other: Self) -> Result<(), UrlError> {
        if self.user.is_some() && other.user.is_some() {
            return Err(UrlError::Users);
        }
        self.user = self.user.take().or(other.user);
        pick(&mut self.scheme, other.scheme);
        pick(&mut self.opaque, other.opaque);
        if !other.host.is_empty() {
            self.host = other.host;
        }
        self.path.merge(other.path);
        self.authority = other.authority;
        let asks = |query: &Option<String>| query.as_ref().is_some_and(|query| !query.is_empty());
        // A lonely `?` is not kept.
        if asks(&other.query) || !asks(&self.query) {
            self.query = other.query;
        }
        self.fragment.merge(other.fragment);
        Ok(())
    }

    /// The scheme, in lower case; none is an empty one.
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// The host without brackets and port.
    pub fn hostname(&self) -> String {
        let host = String::from_utf8_lossy(&self.host);
        let host = split_port(&host).0;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        bare.unwrap_or(host).to_owned()
    }

    /// The port, where one is written.
    pub fn port(&self) -> Option<String> {
        let host = String::from_utf8_lossy(&self.host);
        Some(split_port(&host).1).filter(|port| !port.is_empty()).map(ToOwned::to_owned)
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        if !self.scheme.is_empty() {
            text.extend([self.scheme.as_str(), ":"]);
        }
        if self.opaque.is_empty() {
            let path = self.path.text(Part::Path);
            let placed = !self.host.is_empty() || self.user.is_some();
            let slashes = placed || (!self.scheme.is_empty() && !path.is_empty());
            if slashes && (placed || self.authority == Authority::Written) {
                text.push_str("//");
            }
            if let Some((name, password)) = &self.user {
                text.push_str(&Part::User.escape(name));
                if let Some(password) = password {
                    text.extend([":", &Part::User.escape(password)]);
                }
                text.push('@');
            }
            text.push_str(&Part::Host.escape(&self.host));
            if !self.host.is_empty() && !path.is_empty() && !path.starts_with('/') {
                text.push('/');
            }
            if text.is_empty() && first_segment(&path).contains(':') {
                text.push_str("./");
            }
            text.push_str(&path);
        } else {
            text.push_str(&self.opaque);
        }
        if let Some(query) = &self.query {
            text.extend(["?", query]);
        }
        if !self.fragment.bytes.is_empty() {
            text.extend(["#", &self.fragment.text(Part::Fragment)]);
        }
        f.write_str(&text)
    }
}

fn first_segment(path: &str) -> &str {
    path.split('/').next().unwrap_or_default()
}

/// The scheme and what follows its colon; a text without one has an empty scheme.
fn scheme(text: &str) -> Result<(&str, &str), UrlError> {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && !"+-.".contains(c));
    let Some((at, ':')) = end.and_then(|at| Some((at, text[at..].chars().next()?))) else { return Ok(("", text)) };
    if at == 0 {
        return Err(UrlError::Scheme);
    }
    let named = text.starts_with(|c: char| c.is_ascii_alphabetic());
    Ok(if named { (&text[..at], &text[at + 1..]) } else { ("", text) })
}

fn parse_user(text: &str) -> Result<(Vec<u8>, Option<Vec<u8>>), UrlError> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:~!$&'()*+,;=%@".contains(&byte);
    if !text.bytes().all(fits) {
        return Err(UrlError::User);
    }
    let (name, password) = match text.split_once(':') {
        Some((name, password)) => (name, Some(password)),
        None => (text, None),
    };
    Ok((Part::User.unescape(name)?, password.map(|password| Part::User.unescape(password)).transpose()?))
}

fn parse_host(scheme: &str, text: &str) -> Result<Vec<u8>, UrlError> {
    match text.rfind('[') {
        None => {
            let web = matches!(scheme, "http" | "https");
            let port = if web { text.find(':') } else { text.rfind(':') };
            if !is_optional_port(&text[port.unwrap_or(text.len())..]) {
                return Err(UrlError::Port);
            }
            Part::Host.unescape(text)
        }
        Some(0) => {
            let (inside, port) = text[1..].rsplit_once(']').ok_or(UrlError::Brackets)?;
            if !is_optional_port(port) {
                return Err(UrlError::Port);
            }
            let (address, zone) = inside.split_at(inside.find("%25").unwrap_or(inside.len()));
            let mut bytes = Part::Host.unescape(address)?;
            bytes.extend(Part::Zone.unescape(zone)?);
            let inside = String::from_utf8_lossy(&bytes);
            let (address, zone) =
                inside.split_once('%').map_or((&*inside, None), |(address, zone)| (address, Some(zone)));
            if !matches!(address.parse::<IpAddr>(), Ok(IpAddr::V6(_))) || zone == Some("") {
                return Err(UrlError::Brackets);
            }
            Ok([b"[", bytes.as_slice(), b"]", port.as_bytes()].concat())
        }
        Some(_) => Err(UrlError::Brackets),
    }
}

/// Nothing, or a colon and digits, which may be none.
fn is_optional_port(text: &str) -> bool {
    text.is_empty() || text.strip_prefix(':').is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
}

fn split_port(host: &str) -> (&str, &str) {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (name, port),
        _ => (host, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_written_as_go_writes_it() {
        let cases = [
            ("HTTPS://H:6443/", "https://H:6443/"),
            ("https://h", "https://h"),
            ("https://", "https:"),
            ("https:///x", "https:///x"),
            ("https:/x", "https:/x"),
            ("https:x", "https:x"),
            ("https://h/a b", "https://h/a%20b"),
            ("https://h/a%2fb", "https://h/a%2fb"),
            ("https://h/a%2fb c", "https://h/a/b%20c"),
            ("https://h/(x)[y]", "https://h/(x)[y]"),
            ("https://h/ü", "https://h/%C3%BC"),
            ("https://ü.org:6443", "https://%C3%BC.org:6443"),
            ("https://h%C3%BC", "https://h%C3%BC"),
            ("https://h:", "https://h:"),
            ("https://h?", "https://h?"),
            ("https://h??", "https://h??"),
            ("https://h/?a=b c", "https://h/?a=b c"),
            ("https://h#", "https://h"),
            ("https://h#a b", "https://h#a%20b"),
            ("https://u:p:w@h", "https://u:p%3Aw@h"),
            ("https://a@b@c", "https://a%40b@c"),
            ("https://:@h", "https://:@h"),
            ("https://[fe80::1%25eth0]:6443", "https://[fe80::1%25eth0]:6443"),
            ("https://[fe80::1%25a%20b]", "https://[fe80::1%25a%20b]"),
            ("tcp://a:b:1", "tcp://a:b:1"),
            ("//h/p", "//h/p"),
            ("///p", "///p"),
            ("localhost:5000", "localhost:5000"),
            ("a/b:c", "a/b:c"),
            ("./a:b", "./a:b"),
            ("*", "*"),
            ("", ""),
        ];
        for (given, written) in cases {
            assert_eq!(Url::parse(given).map(|url| url.to_string()), Ok(written.to_owned()), "{given}");
        }
    }

    #[test]
    fn what_go_refuses_is_refused_with_the_reason() {
        let cases = [
            ("https://h\n", UrlError::Control),
            ("://h", UrlError::Scheme),
            ("1https://h", UrlError::Scheme),
            ("127.0.0.1:5000", UrlError::Scheme),
            (" https://h", UrlError::Scheme),
            ("https://h/%zz", UrlError::Escape),
            ("https://h#%z", UrlError::Escape),
            ("https://h%41", UrlError::Escape),
            ("https://[fe80::1%eth0]", UrlError::Escape),
            ("https://a b", UrlError::Host),
            ("https://a|b", UrlError::Host),
            ("https://[10.0.0.1]", UrlError::Brackets),
            ("https://[::1", UrlError::Brackets),
            ("https://x[::1]", UrlError::Brackets),
            ("https://[fe80::1%25]", UrlError::Brackets),
            ("https://h:x", UrlError::Port),
            ("https://fd00::1:6443", UrlError::Port),
            ("https://[::1]x", UrlError::Port),
            ("https://u s@h", UrlError::User),
        ];
        for (given, wanted) in cases {
            assert_eq!(Url::parse(given).map(|url| url.to_string()), Err(wanted), "{given}");
        }
    }

    #[test]
    fn urls_merge_by_their_parts_as_go_keeps_them() {
        let cases = [
            ("https://h/a%2fb", "https://h/a/b", "https://h/a%2fb"),
            ("https://h/a%2fb", "https://i/c", "https://i/c"),
            ("https://h/a/b", "https://i/a%2Fb", "https://i/a%2Fb"),
            ("https://h/a!b", "https://i/a%21b", "https://i/a!b"),
            ("https://h/ü", "https://i", "https://i/%C3%BC"),
            ("https://h/%e4", "https://i", "https://i/%e4"),
            ("https://h/x?a=%zz#%41", "https://i", "https://i/x?a=%zz#%41"),
            ("https://h?x=1", "https://i", "https://i?x=1"),
            ("https://h?", "https://i", "https://i"),
            ("https://h", "https://i?", "https://i?"),
            ("https://h?x", "https://i?", "https://i?x"),
            ("https://h#a%2fb", "https://i#a/b", "https://i#a%2fb"),
            ("https://h", "https://i#x y", "https://i#x%20y"),
            ("https://u:p@h", "https://i", "https://u:p@i"),
            ("https://h", "https://u:p@i", "https://u:p@i"),
            ("https:/x", "https://h", "https://h/x"),
            ("https://h/x", "https:/y", "https://h/y"),
            ("https://h/x", "https:z", "https:z"),
            ("https:z", "/p", "https:z"),
            ("https://h/p", "q", "https://h/q"),
            ("https://h", "//i/x", "https://i/x"),
            ("/x", "//i", "//i/x"),
            ("https://[fe80::1%25eth0]:6443", "https://[fe80::2%25eth1]", "https://[fe80::2%25eth1]"),
            ("https://[::1]:6443", "https:///p", "https://[::1]:6443/p"),
            ("https://h", "https://%e4", "https://%E4"),
            ("https://h", "*", "https://h/*"),
            ("*", "https://h", "https://h/*"),
            ("https://h:1", "https://:2", "https://:2"),
            ("https://h", "./b:c", "https://h/./b:c"),
            ("https://h", "", "https://h"),
        ];
        for (old, new, wanted) in cases {
            let mut url = Url::parse(old).unwrap();
            assert_eq!(url.merge(Url::parse(new).unwrap()), Ok(()), "{old} {new}");
            assert_eq!(url.to_string(), wanted, "{old} {new}");
        }
        let mut url = Url::parse("https://u@h").unwrap();
        assert_eq!(url.merge(Url::parse("https://u@h").unwrap()), Err(UrlError::Users));
    }

    #[test]
    fn host_and_port_are_told_apart() {
        let parts = |text: &str| Url::parse(text).map(|url| (url.hostname(), url.port())).unwrap();
        assert_eq!(parts("https://u@h.x:6443/p"), ("h.x".to_owned(), Some("6443".to_owned())));
        assert_eq!(parts("https://[fd00::1]:1"), ("fd00::1".to_owned(), Some("1".to_owned())));
        assert_eq!(parts("https://[fd00::1]"), ("fd00::1".to_owned(), None));
        assert_eq!(parts("https://h:"), ("h".to_owned(), None));
        assert_eq!(parts("https://h%C3%BC"), ("hü".to_owned(), None));
    }
}
