//! What may come behind a body.

use super::names::Known;

/// Names, unknown to the proxy otherwise, that may not be trailers: request modifiers (RFC 9110 sections 10.1, 13.1 and 14.2;
/// RFC 9111 section 5.4) and what describes the content.
const NO_TRAILERS: &[&[u8]] = &[
    b"content-encoding",
    b"content-range",
    b"if-match",
    b"if-modified-since",
    b"if-none-match",
    b"if-range",
    b"if-unmodified-since",
    b"max-forwards",
    b"pragma",
    b"range",
];

/// Whether a field frames, routes, modifies, authenticates or describes a message, so that it may not come behind it (RFC 9110
/// section 6.5.1).
pub(crate) fn is_forbidden_trailer(name: &[u8]) -> bool {
    match Known::of(name) {
        Known::Other => NO_TRAILERS.iter().any(|other| name.eq_ignore_ascii_case(other)),
        Known::Date | Known::Server | Known::Referer | Known::UserAgent => false,
        _ => true,
    }
}
