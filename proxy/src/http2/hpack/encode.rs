//! Blocks that are sent: indices of the static table and literals, which are never to be indexed where they are secret.

use crate::http::Known;

/// What the first block of a connection begins with: the peer need keep no dynamic table, since none is used. Once that is said,
/// nothing is to be said when it announces a smaller one.
pub const NO_TABLE: u8 = 0x20;

/// What tells a literal that must never be indexed from one that is not.
const NEVER_INDEXED: u8 = 0x10;

/// Appends a field, its name in lower case.
pub fn field(out: &mut Vec<u8>, name: &[u8], value: &[u8], known: Known) {
    head(out, name, known);
    string(out, value);
}

/// The same of a value in parts.
pub fn field_of_parts(out: &mut Vec<u8>, name: &[u8], value: &[&[u8]]) {
    head(out, name, Known::of(name));
    integer(out, 0, 7, value.iter().map(|part| part.len()).sum());
    for part in value {
        out.extend_from_slice(part);
    }
}

fn head(out: &mut Vec<u8>, name: &[u8], known: Known) {
    let (index, secret) = place(known);
    let first = if secret { NEVER_INDEXED } else { 0 };
    integer(out, first, 4, index);
    if index == 0 {
        integer(out, 0, 7, name.len());
        let at = out.len();
        out.extend_from_slice(name);
        out[at..].make_ascii_lowercase();
    }
}

/// Appends `:status`.
pub fn status(out: &mut Vec<u8>, status: u16) {
    let index = match status {
        200 => 8,
        204 => 9,
        206 => 10,
        304 => 11,
        400 => 12,
        404 => 13,
        500 => 14,
        _ => {
            let digits = [status / 100, status / 10 % 10, status % 10].map(|digit| b'0' + digit as u8);
            out.extend_from_slice(&[8, 3]);
            out.extend_from_slice(&digits);
            return;
        }
    };
    out.push(0x80 | index);
}

/// Appends `:method`.
pub fn method(out: &mut Vec<u8>, method: &[u8]) {
    match method {
        b"GET" => out.push(0x82),
        b"POST" => out.push(0x83),
        _ => {
            out.push(2);
            string(out, method);
        }
    }
}

/// Appends `:scheme`.
pub fn scheme(out: &mut Vec<u8>, secure: bool) {
    out.push(if secure { 0x87 } else { 0x86 });
}

/// Appends `:path`.
pub fn path(out: &mut Vec<u8>, path: &[u8]) {
    if path == b"/" {
        out.push(0x84);
    } else {
        out.push(4);
        string(out, path);
    }
}

/// Appends `:authority`.
pub fn authority(out: &mut Vec<u8>, authority: &[u8]) {
    out.push(1);
    string(out, authority);
}

/// Appends `:protocol` (RFC 8441).
pub fn protocol(out: &mut Vec<u8>, protocol: &[u8]) {
    out.push(0);
    string(out, b":protocol");
    string(out, protocol);
}

/// The index of a name in the static table, 0 where it is not, and whether its values are secrets.
fn place(known: Known) -> (usize, bool) {
    match known {
        Known::Authorization => (23, true),
        Known::CacheControl => (24, false),
        Known::ContentLength => (28, false),
        Known::ContentType => (31, false),
        Known::Cookie => (32, true),
        Known::Date => (33, false),
        Known::Expect => (35, false),
        Known::Host => (38, false),
        Known::Location => (46, false),
        Known::ProxyAuthenticate => (48, false),
        Known::ProxyAuthorization => (49, true),
        Known::Referer => (51, false),
        Known::Server => (54, false),
        Known::SetCookie => (55, true),
        Known::StrictTransportSecurity => (56, false),
        Known::TransferEncoding => (57, false),
        Known::UserAgent => (58, false),
        Known::WwwAuthenticate => (61, false),
        _ => (0, false),
    }
}

#[inline]
fn string(out: &mut Vec<u8>, text: &[u8]) {
    integer(out, 0, 7, text.len());
    out.extend_from_slice(text);
}

/// An integer behind what else is in its first byte, of which it has so many bits (RFC 7541 section 5.1).
#[inline]
pub(super) fn integer(out: &mut Vec<u8>, first: u8, prefix: u32, value: usize) {
    let most = (1usize << prefix) - 1;
    if value < most {
        out.push(first | value as u8);
        return;
    }
    out.push(first | most as u8);
    let mut rest = value - most;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}
