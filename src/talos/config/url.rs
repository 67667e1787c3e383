//! URLs as Talos keeps them: read and written again by the rules of Go's `net/url` (1.26).
//!
//! Purpose: a configuration holds what Go writes of a URL, so that `HTTPS://h/a b` stands there as `https://h/a%20b`, and a
//! name beyond ASCII with its bytes escaped. What Go refuses is refused. Must not know: what a URL is for.

use std::fmt;
use std::net::IpAddr;

/// A URL in its parts. May hold a password, so there is no `Debug`.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Url {
    scheme: String,
    /// What follows the scheme when no slash does.
    opaque: String,
    user: Option<(Vec<u8>, Option<Vec<u8>>)>,
    /// With brackets and port, unescaped.
    host: Vec<u8>,
    /// Escaped; never written with an empty authority before it when there was none.
    path: String,
    authority: Authority,
    query: Option<String>,
    fragment: String,
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
}

/// A part of a URL; each lets other characters stand as they are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Path,
    Host,
    Zone,
    User,
    Fragment,
}

impl Part {
    /// Whether a character of this part is written as it is.
    fn has(self, byte: u8) -> bool {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            return true;
        }
        match self {
            Self::Path => b"$&+,/:;=@".contains(&byte),
            Self::Host | Self::Zone => b"!$&'()*+,;=:[]<>\"".contains(&byte),
            Self::User => b"$&+,;=".contains(&byte),
            Self::Fragment => b"$&+,/:;=?@!()*".contains(&byte),
        }
    }

    fn escape(self, bytes: &[u8]) -> String {
        let mut text = String::with_capacity(bytes.len());
        for byte in bytes {
            if self.has(*byte) { text.push(char::from(*byte)) } else { text.push_str(&format!("%{byte:02X}")) }
        }
        text
    }

    fn unescape(self, text: &str) -> Result<Vec<u8>, UrlError> {
        let hosts = matches!(self, Self::Host | Self::Zone);
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.bytes();
        while let Some(byte) = rest.next() {
            if byte != b'%' {
                if hosts && byte.is_ascii() && !self.has(byte) {
                    return Err(UrlError::Host);
                }
                bytes.push(byte);
                continue;
            }
            let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
            let (Some(high), Some(low)) = (digit(rest.next()), digit(rest.next())) else {
                return Err(UrlError::Escape);
            };
            let value = u8::try_from(high * 16 + low).map_err(|_| UrlError::Escape)?;
            let hidden = match self {
                // Of ASCII a host may hide nothing but the mark itself.
                Self::Host => value.is_ascii() && value != b'%',
                Self::Zone => value != b'%' && value != b' ' && !Self::Host.has(value),
                _ => false,
            };
            if hidden {
                return Err(UrlError::Escape);
            }
            bytes.push(value);
        }
        Ok(bytes)
    }

    /// The text as it is written again: kept where each character may stand as it does, else escaped anew.
    fn normal(self, text: &str) -> Result<String, UrlError> {
        let bytes = self.unescape(text)?;
        let kept = text.bytes().all(|byte| self.has(byte) || b"!$&'()*+,;=:@[]%".contains(&byte));
        Ok(if kept { text.to_owned() } else { self.escape(&bytes) })
    }
}

impl Url {
    /// Reads a URL; nearly every text is one, if only a path.
    ///
    /// # Errors
    /// Where Go refuses it.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let (text, fragment) = text.split_once('#').unwrap_or((text, ""));
        let mut url = Self::without_fragment(text)?;
        url.fragment = Part::Fragment.normal(fragment)?;
        Ok(url)
    }

    fn without_fragment(text: &str) -> Result<Self, UrlError> {
        if text.bytes().any(|byte| byte.is_ascii_control()) {
            return Err(UrlError::Control);
        }
        if text == "*" {
            return Ok(Self { path: text.to_owned(), ..Self::default() });
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
        url.path = Part::Path.normal(path)?;
        Ok(url)
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
            let placed = !self.host.is_empty() || self.user.is_some();
            let slashes = placed || (!self.scheme.is_empty() && !self.path.is_empty());
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
            if text.is_empty() && first_segment(&self.path).contains(':') {
                text.push_str("./");
            }
            text.push_str(&self.path);
        } else {
            text.push_str(&self.opaque);
        }
        if let Some(query) = &self.query {
            text.extend(["?", query]);
        }
        if !self.fragment.is_empty() {
            text.extend(["#", &self.fragment]);
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
    fn host_and_port_are_told_apart() {
        let parts = |text: &str| Url::parse(text).map(|url| (url.hostname(), url.port())).unwrap();
        assert_eq!(parts("https://u@h.x:6443/p"), ("h.x".to_owned(), Some("6443".to_owned())));
        assert_eq!(parts("https://[fd00::1]:1"), ("fd00::1".to_owned(), Some("1".to_owned())));
        assert_eq!(parts("https://[fd00::1]"), ("fd00::1".to_owned(), None));
        assert_eq!(parts("https://h:"), ("h".to_owned(), None));
        assert_eq!(parts("https://h%C3%BC"), ("hü".to_owned(), None));
    }
}
