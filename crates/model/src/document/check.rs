//! The syntax of the strings in a document: URLs, paths, names, status codes. Each check yields its value or the
//! reason why there is none.
//!
//! Octavia's own rules are in `octavia.common.validate` and `octavia.common.constants`; where they let through what
//! HTTP cannot carry, these are narrower and say so.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use crate::is_token;

/// Octavia's `[networking] reserved_ips`: the metadata service, which no tenant may reach through a load balancer.
const RESERVED: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254));

/// `redirect_url` and `redirect_prefix`: an absolute http or https URL with a host, without white space or control
/// characters (a header field is made of it).
pub(super) fn url(text: &str) -> Result<(), String> {
    const SHAPE: &str = "must be an absolute http:// or https:// URL";
    if text.chars().any(|c| matches!(c, '\0'..=' ' | '\x7f'..='\u{9f}')) {
        return Err("must not contain white space or control characters".into());
    }
    let (scheme, rest) = text.split_once("://").ok_or(SHAPE)?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(SHAPE.into());
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host_port = authority.rsplit_once('@').map_or(authority, |(_, host_port)| host_port);
    let (host, port) = match host_port.strip_prefix('[') {
        Some(v6) => {
            let (address, rest) =
                v6.split_once(']').ok_or("has an IPv6 address without its closing bracket")?;
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return Err("has an invalid IPv6 address".into());
            }
            (address, rest)
        }
        None => host_port.split_at(host_port.find(':').unwrap_or(host_port.len())),
    };
    if host.is_empty() {
        return Err("must name a host".into());
    }
    if !host_port.starts_with('[') && !reg_name(host) {
        return Err("has an invalid host".into());
    }
    match port.strip_prefix(':') {
        None if port.is_empty() => Ok(()),
        Some("") => Ok(()),
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) && digits.parse::<u16>().is_ok() => Ok(()),
        _ => Err("has an invalid port".into()),
    }
}

/// What `Host` may say: a name or an address, perhaps with a port.
pub(super) fn host(text: &str) -> Result<(), String> {
    if !text.is_ascii() || text.contains(['@', '/', '?', '#', '%', ',']) {
        return Err("must be the name of a host, perhaps with a port".into());
    }
    url(&format!("http://{text}")).map_err(|_| "must be the name of a host, perhaps with a port".into())
}

/// RFC 3986 section 3.2.2, and characters beyond ASCII, which clients turn into an IDN.
fn reg_name(host: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || !b.is_ascii() || b"-._~!$&'()*+,;=".contains(&b);
    let mut parts = host.split('%');
    parts.next().is_some_and(|part| part.bytes().all(plain))
        && parts.all(|part| {
            let (hex, rest) = part.as_bytes().split_at(part.len().min(2));
            hex.len() == 2 && hex.iter().all(u8::is_ascii_hexdigit) && rest.iter().copied().all(plain)
        })
}

/// `url_path` of a health monitor: what stands in a request line, so path and query in visible ASCII, no fragment.
pub(super) fn url_path(text: &str) -> Result<(), String> {
    if !text.starts_with('/') || text.starts_with("//") {
        return Err("must be a path that starts with one /".into());
    }
    if !text.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
        return Err("must not contain white space, # or characters beyond ASCII; percent-encode them".into());
    }
    Ok(())
}

/// A token of RFC 9110 section 5.6.2: the name of a header field or of a cookie.
pub(super) fn token(text: &str) -> Result<(), String> {
    if !is_token(text.as_bytes()) {
        return Err("must be a token (RFC 9110): letters, digits and !#$%&'*+-.^_`|~".into());
    }
    Ok(())
}

/// What a rule compares a header, host name, path or file type with: what a field's value may have in it (RFC 9110 section 5.5), in ASCII.
/// Octavia's API takes white space between double quotes only; its amphora compares with whatever comes.
pub(super) fn header_value(text: &str) -> Result<(), String> {
    if text.bytes().all(|b| b.is_ascii_graphic() || b == b' ' || b == b'\t') {
        return Ok(());
    }
    Err("must be visible ASCII characters and white space, or use REGEX".into())
}

/// What a rule compares a cookie with: as a header, without the semicolon at which a cookie ends.
pub(super) fn cookie_value(text: &str) -> Result<(), String> {
    if text.contains(';') {
        return Err("must not contain semicolons, at which a cookie ends, or use REGEX".into());
    }
    header_value(text)
}

/// `value` of an SSL_VERIFY_RESULT rule: what HAProxy compares integers with.
pub(super) fn verify_result(text: &str) -> Result<(), String> {
    if text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<i64>().is_ok() {
        return Ok(());
    }
    Err("must be a decimal number with type SSL_VERIFY_RESULT".into())
}

/// `key` of an SSL_DN_FIELD rule: Octavia's `DISTINGUISHED_NAME_FIELD_REGEX`.
pub(super) fn dn_field(text: &str) -> Result<(), String> {
    let first = text.as_bytes().first().is_some_and(u8::is_ascii_alphabetic);
    if first && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Ok(());
    }
    Err("must be the name of a field such as CN: a letter, then letters, digits and hyphens".into())
}

/// `domain_name` of a health monitor: Octavia's `DOMAIN_NAME_REGEX`.
pub(super) fn domain_name(text: &str) -> Result<(), String> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        let bytes = label.as_bytes();
        (1..=63).contains(&bytes.len())
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-' || *b == b'_')
            && bytes.first() != Some(&b'-')
            && bytes.last() != Some(&b'-')
            && !label.strip_prefix('_').unwrap_or(label).contains('_')
    };
    if name.len() > 253 || !name.split('.').all(label) {
        return Err("must be a domain name: labels of at most 63 letters, digits and inner hyphens".into());
    }
    Ok(())
}

/// `expected_codes`: status codes and ranges of them, separated by commas. Octavia allows either a list or one range.
pub(super) fn expected_codes(text: &str) -> Result<Vec<(u16, u16)>, String> {
    const SHAPE: &str = "must be status codes and ranges such as 200 or 200,202 or 200-204";
    let code = |text: &str| {
        let digits = text.len() == 3 && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u16>().ok().filter(|code| digits && *code >= 100).ok_or(SHAPE)
    };
    text.split(',')
        .map(|item| {
            let item = item.trim_ascii();
            let (low, high) = item.split_once('-').unwrap_or((item, item));
            let (low, high) = (code(low)?, code(high)?);
            if low > high {
                return Err(format!("has a range that ends before it starts: {low}-{high}"));
            }
            Ok((low, high))
        })
        .collect()
}

/// An element of `allowed_cidrs`. As in Octavia host bits are cleared, and a bare address is a network of one.
pub(super) fn cidr(text: &str) -> Result<IpNet, String> {
    let network = match text.parse::<IpNet>() {
        Ok(network) => network,
        Err(_) => {
            text.parse::<IpAddr>().map_err(|_| "must be a CIDR such as 192.0.2.0/24 or 2001:db8::/32")?.into()
        }
    };
    Ok(network.trunc())
}

/// An address that a connection can be made to.
pub(super) fn reachable(address: IpAddr) -> Result<(), String> {
    if address.to_canonical() == RESERVED {
        return Err("is the reserved address of the metadata service".into());
    }
    let address = address.to_canonical();
    if address.is_unspecified() || address.is_multicast() || address == IpAddr::V4(Ipv4Addr::BROADCAST) {
        return Err("must be the address of one host".into());
    }
    Ok(())
}

/// `persistence_granularity`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Granularity {
    /// The length of the prefix of IPv4 clients.
    V4(u8),
    /// The same of IPv6.
    V6(u8),
}

/// What it has to be.
pub(super) const GRANULARITY: &str =
    "must be a string: an IPv4 netmask such as 255.255.255.0, or the length of an IPv6 prefix, 1 to 128";

/// `persistence_granularity`: keepalived takes a netmask for IPv4, a length for IPv6.
pub(super) fn granularity(text: &str) -> Result<Granularity, String> {
    if let Ok(mask) = text.parse::<std::net::Ipv4Addr>() {
        let bits = mask.to_bits();
        let prefix = bits.leading_ones();
        if prefix == 0 || bits.count_ones() != prefix {
            return Err(format!("{text} is no netmask of IPv4"));
        }
        return Ok(Granularity::V4(prefix as u8));
    }
    match text.parse::<u8>() {
        Ok(prefix @ 1..=128) if text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(Granularity::V6(prefix)),
        _ => Err(GRANULARITY.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn holds<T>(check: impl Fn(&str) -> Result<T, String>, good: &[&str], bad: &[&str]) {
        for text in good {
            assert!(check(text).is_ok(), "{text:?}: {:?}", check(text).err());
        }
        for text in bad {
            assert!(check(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn urls() {
        holds(
            url,
            &[
                "http://example.com",
                "HTTPS://user@example.com:8443/a?b=%20#c",
                "https://[2001:db8::1]:443/",
                "http://example.com:/",
                "http://example.com/é",
                "http://a_b%41/",
                "http://exämple.com/",
            ],
            &[
                "",
                "/relative",
                "//example.com/",
                "ftp://example.com/",
                "http://",
                "http:///path",
                "http://:80/",
                "http://a b/",
                "http://a/\nX: y",
                "http://a/\u{85}",
                "http://[::1/",
                "http://[zz]/",
                "http://a:99999/",
                "http://a:8o/",
                "http://a:+8/",
                "http://a\"b/",
                "http://a|b/",
                "http://%zz/",
                "http://%4/",
            ],
        );
    }

    #[test]
    fn url_paths() {
        holds(
            url_path,
            &["/", "/a/b?c=d&e", "/%C3%A9", "/a//b"],
            &["", "a", "http://a/", "//a/", "/a b", "/é", "/#a"],
        );
    }

    #[test]
    fn tokens_and_values() {
        holds(token, &["X-Forwarded-For", "a", "!#$%&'*+-.^_`|~"], &["", "a b", "a:b", "a,b", "é", "a\n"]);
        holds(
            header_value,
            &["a", "\"", "\"a\tb c\"", "\"\"", "a\\b,\"c", "a b"],
            &["é", "\"a\nb\"", "a\x7f"],
        );
        holds(cookie_value, &["abc=d", "a,b", "a b", "\"a\"", "a\\b"], &["a;b", "é", "a\n"]);
    }

    #[test]
    fn domain_names() {
        let (long, longer) = ("a".repeat(63), "a".repeat(64));
        holds(
            domain_name,
            &["example.com", "example.com.", "_dmarc.example.com", "a-b", "1", &long],
            &["", ".", "a..b", "-a", "a-", "a_b", "__a", "a b", "é", &longer, &["abcdefg"; 32].join(".")],
        );
    }

    #[test]
    fn status_codes() {
        assert_eq!(expected_codes("200").unwrap(), [(200, 200)]);
        assert_eq!(expected_codes("200 , 202,301-307").unwrap(), [(200, 200), (202, 202), (301, 307)]);
        holds(
            expected_codes,
            &["999", "100-999"],
            &["", ",", "200,", "20", "2000", "099", "204-200", "200-", "2xx", "+20"],
        );
    }

    #[test]
    fn cidrs() {
        assert_eq!(cidr("192.0.2.77/24").unwrap().to_string(), "192.0.2.0/24");
        assert_eq!(cidr("192.0.2.77").unwrap().to_string(), "192.0.2.77/32");
        assert_eq!(cidr("2001:db8::1").unwrap().to_string(), "2001:db8::1/128");
        holds(cidr, &["0.0.0.0/0", "::/0"], &["", "10.0.0.0/33", "10.0.0/8", "any"]);
    }

    #[test]
    fn addresses_of_members() {
        let parse = |text: &str| reachable(text.parse().unwrap());
        holds(
            parse,
            &["192.0.2.1", "127.0.0.1", "2001:db8::1", "fe80::1"],
            &[
                "0.0.0.0",
                "::",
                "224.0.0.1",
                "ff02::1",
                "255.255.255.255",
                "169.254.169.254",
                "::ffff:169.254.169.254",
            ],
        );
    }
}
