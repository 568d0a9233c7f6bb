//! Request targets (RFC 9112 section 3.2) and the `Host` field that must agree with them.

use super::{fields::Span, method::Method, reject::Reject, scan};

/// Which form a request target has, and where its parts are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Target {
    /// The whole target.
    pub(crate) span: Span,
    /// The authority of an absolute or authority form; empty otherwise.
    pub(crate) authority: Span,
    /// From the path on; empty in asterisk and authority form, and in absolute form without a path.
    pub(crate) path_and_query: Span,
    /// The port that an absent port means: 80 for `http`, 443 for `https`, 0 where there is none.
    default_port: u16,
}

impl Target {
    /// Takes the target at `span` apart. The bytes are target bytes already.
    pub(crate) fn parse(method: Method, buf: &[u8], span: Span) -> Result<Self, Reject> {
        let text = span.of(buf);
        let start = usize::from(span.start);
        let end = usize::from(span.end);
        let none = Span::new(end, end);
        let whole = Self { span, authority: none, path_and_query: none, default_port: 0 };
        if method == Method::Connect {
            return match authority_port(text) {
                Some(port) if !port.is_empty() => Ok(Self { authority: span, ..whole }),
                _ => Err(Reject::BadRequest("target of CONNECT is not host:port")),
            };
        }
        match text {
            [] => Err(Reject::BadRequest("empty target")),
            [b'/', ..] => Ok(Self { path_and_query: span, ..whole }),
            [b'*'] if method == Method::Options => Ok(whole),
            _ => {
                let Some(scheme) = scheme(text) else {
                    return Err(Reject::BadRequest("target has none of the four forms"));
                };
                let authority = start + scheme + 3;
                let stop = text[scheme + 3..].iter().position(|&b| b == b'/' || b == b'?');
                let path = stop.map_or(end, |n| authority + n);
                if buf[path..end].first() == Some(&b'?') {
                    return Err(Reject::BadRequest("absolute target with a query but no path"));
                }
                let name = &buf[authority..path];
                if name.is_empty() || name[0] == b':' || authority_port(name).is_none() {
                    return Err(Reject::BadRequest("authority of the target is not host[:port]"));
                }
                Ok(Self {
                    authority: Span::new(authority, path),
                    path_and_query: Span::new(path, end),
                    default_port: default_port(&text[..scheme]),
                    ..whole
                })
            }
        }
    }

    /// Checks the value of `Host` and that it names what the target names.
    pub(crate) fn check_host(&self, method: Method, buf: &[u8], host: &[u8]) -> Result<(), Reject> {
        let either = method == Method::Connect;
        Named { authority: self.authority.of(buf), default_port: self.default_port, either }.check_host(host)
    }
}

/// What a target names, to be compared with `Host`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Named<'a> {
    /// Of a target without one, empty: any `Host` will do.
    pub(crate) authority: &'a [u8],
    /// The port that an absent port means: 80 for `http`, 443 for `https`, 0 where there is none.
    pub(crate) default_port: u16,
    /// An absent port may mean either of the two: in the target of CONNECT.
    pub(crate) either: bool,
}

impl Named<'_> {
    /// Checks the value of `Host` and that it names the same; the authority has been checked.
    pub(crate) fn check_host(&self, host: &[u8]) -> Result<(), Reject> {
        let authority = self.authority;
        let (name, port) = match split_authority(host) {
            Some(parts) => parts,
            None => return Err(Reject::BadRequest("Host is not host[:port]")),
        };
        if name.is_empty() && !port.is_empty() {
            return Err(Reject::BadRequest("Host is not host[:port]"));
        }
        if authority.is_empty() || authority.eq_ignore_ascii_case(host) {
            return Ok(());
        }
        let (target_name, target_port) =
            split_authority(authority).expect("the authority was checked when the target was parsed");
        let default = |port: &[u8]| match self.default_port {
            _ if port.is_empty() => true,
            80 => port == b"80",
            443 => port == b"443",
            _ => self.either && (port == b"80" || port == b"443"),
        };
        let same_port = target_port == port
            || default(target_port) && default(port) && (target_port.is_empty() || port.is_empty());
        if same_port && target_name.eq_ignore_ascii_case(name) {
            Ok(())
        } else {
            Err(Reject::BadRequest("Host differs from the authority of the target"))
        }
    }
}

/// The port that `scheme` means where none is named; 0 when it is not known.
pub(crate) fn default_port(scheme: &[u8]) -> u16 {
    if scheme.eq_ignore_ascii_case(b"http") {
        80
    } else if scheme.eq_ignore_ascii_case(b"https") {
        443
    } else {
        0
    }
}

/// Whether `text` is a scheme (RFC 3986 section 3.1).
pub(crate) fn is_scheme(text: &[u8]) -> bool {
    text.len() <= MAX_SCHEME
        && text.first().is_some_and(u8::is_ascii_alphabetic)
        && text.iter().all(|&b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
}

/// The longest scheme, as hyper has it; the longest that is registered has 36 characters.
const MAX_SCHEME: usize = 64;

/// The length of the scheme when `text` begins with `scheme://` (RFC 3986 section 3.1).
fn scheme(text: &[u8]) -> Option<usize> {
    let end = text.iter().position(|&b| !(b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.')))?;
    (end <= MAX_SCHEME && text[0].is_ascii_alphabetic() && text[end..].starts_with(b"://")).then_some(end)
}

/// The port of `authority`, perhaps empty; `None` when it is not `host[:port]`.
pub(crate) fn authority_port(authority: &[u8]) -> Option<&[u8]> {
    let (name, port) = split_authority(authority)?;
    (!name.is_empty()).then_some(port)
}

/// Splits `host[:port]` (RFC 3986 section 3.2) into the host and the port, either perhaps empty.
///
/// User information is not accepted (RFC 9110 section 4.2.4), nor is a comma, which joins repeated fields.
pub(crate) fn split_authority(authority: &[u8]) -> Option<(&[u8], &[u8])> {
    let name_end = match authority {
        [b'[', rest @ ..] => {
            let close = rest.iter().position(|&b| b == b']')?;
            let literal = &rest[..close];
            if literal.is_empty()
                || !literal.iter().all(|&b| b.is_ascii_alphanumeric() || matches!(b, b':' | b'.'))
            {
                return None;
            }
            close + 2
        }
        _ => authority.iter().position(|&b| !scan::is_reg_name_byte(b)).unwrap_or(authority.len()),
    };
    let (name, rest) = authority.split_at(name_end);
    match rest {
        [] => Some((name, rest)),
        [b':', port @ ..] if port.len() <= 5 && port.iter().all(u8::is_ascii_digit) => Some((name, port)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{Reject, RequestHead};

    fn parse(line: &str, fields: &str) -> Result<(Option<String>, Option<String>), Reject> {
        let text = format!("{line}\r\n{fields}\r\n");
        let mut head = RequestHead::new();
        head.parse(text.as_bytes())?.unwrap();
        let view = head.view(text.as_bytes());
        let owned = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok((
            view.path().map(owned),
            view.path_and_query()
                .and_then(|whole| memchr::memchr(b'?', whole).map(|at| owned(&whole[at + 1..]))),
        ))
    }

    #[test]
    fn paths_are_those_of_haproxys_path_fetch() {
        for (line, path, query) in [
            ("GET / HTTP/1.1", Some("/"), None),
            ("GET /a?b HTTP/1.1", Some("/a"), Some("b")),
            ("GET /? HTTP/1.1", Some("/"), Some("")),
            ("GET //a HTTP/1.1", Some("//a"), None),
            ("GET http://h/a?b HTTP/1.1", Some("/a"), Some("b")),
            ("GET HTTP://H:80/ HTTP/1.1", Some("/"), None),
            ("GET ftp://h/a HTTP/1.1", Some("/a"), None),
            ("GET http://h HTTP/1.1", None, None),
            ("OPTIONS * HTTP/1.1", None, None),
            ("CONNECT h:80 HTTP/1.1", None, None),
        ] {
            let expected = (path.map(str::to_owned), query.map(str::to_owned));
            assert_eq!(parse(line, "Host: h\r\n"), Ok(expected), "{line}");
        }
    }

    #[test]
    fn targets_of_no_form_are_refused() {
        for line in [
            "GET * HTTP/1.1",
            "OPTIONS *a HTTP/1.1",
            "GET h HTTP/1.1",
            "GET h:80 HTTP/1.1",
            "GET ?a HTTP/1.1",
            "GET http:/a HTTP/1.1",
            "GET http:///a HTTP/1.1",
            "GET http://h?a HTTP/1.1",
            "GET http://u@h/ HTTP/1.1",
            "GET http://:80/ HTTP/1.1",
            "GET http://h:a/ HTTP/1.1",
            "GET http://%68/ HTTP/1.1",
            "GET http://[::1/ HTTP/1.1",
            "GET 1http://h/ HTTP/1.1",
            "CONNECT h HTTP/1.1",
            "CONNECT h: HTTP/1.1",
            "CONNECT / HTTP/1.1",
            "CONNECT http://h:80 HTTP/1.1",
            "CONNECT h:123456 HTTP/1.1",
        ] {
            assert_eq!(parse(line, "Host: h\r\n").map_err(Reject::status), Err(400), "{line}");
        }
    }

    #[test]
    fn host_is_one_valid_name() {
        for (fields, fine) in [
            ("Host: a\r\n", true),
            ("Host: a.b-c_d:8080\r\n", true),
            ("Host: a:\r\n", true),
            ("Host:\r\n", true),
            ("Host: [::1]:80\r\n", true),
            ("Host: [::1]\r\n", true),
            ("", false),
            ("Host: a\r\nHost: a\r\n", false),
            ("Host: a\r\nHost: b\r\n", false),
            ("Host: a b\r\n", false),
            ("Host: a/b\r\n", false),
            ("Host: a?b\r\n", false),
            ("Host: u@a\r\n", false),
            ("Host: a,b\r\n", false),
            ("Host: a%2eb\r\n", false),
            ("Host: a:b\r\n", false),
            ("Host: a:80:80\r\n", false),
            ("Host: :80\r\n", false),
            ("Host: ::1\r\n", false),
            ("Host: []\r\n", false),
            ("Host: [a]b\r\n", false),
            ("Host: \u{e9}\r\n", false),
        ] {
            assert_eq!(parse("GET / HTTP/1.1", fields).is_ok(), fine, "{fields:?}");
        }
        assert!(parse("GET / HTTP/1.0", "").is_ok());
        assert!(parse("GET http://a/ HTTP/1.0", "").is_ok());
    }

    #[test]
    fn host_and_authority_agree() {
        for (target, host, fine) in [
            ("GET http://a/", "a", true),
            ("GET http://A/", "a", true),
            ("GET http://a:80/", "a", true),
            ("GET http://a/", "a:80", true),
            ("GET http://a/", "a:", true),
            ("GET https://a:443/", "a", true),
            ("GET http://a:8080/", "a:8080", true),
            ("GET http://a/", "b", false),
            ("GET http://a/", "", false),
            ("GET http://a:8080/", "a", false),
            ("GET http://a:443/", "a", false),
            ("GET http://a:80/", "a:443", false),
            ("GET ftp://a:80/", "a", false),
            ("CONNECT a:80", "a:80", true),
            ("CONNECT a:443", "a", true),
            ("CONNECT a:80", "a:443", false),
            ("CONNECT a:8080", "a", false),
            ("CONNECT a:80", "b:80", false),
        ] {
            let result = parse(&format!("{target} HTTP/1.1"), &format!("Host: {host}\r\n"));
            assert_eq!(result.is_ok(), fine, "{target} {host}");
        }
    }
}
