//! The path of a health monitor, as it is sent.

use std::fmt::Write;

/// What a member is asked for when a tenant has said `path`, and whether it ends at a `#`: to HAProxy and keepalived a comment begins there,
/// and no fragment is ever sent (RFC 9110 section 7.1). Beyond ASCII both send the bytes as they are, which stand for the same path as their
/// percent-encoding, the form that RFC 3986 section 2.1 allows.
pub(super) fn sent(path: &str) -> (String, bool) {
    let (path, is_cut) = path.split_once('#').map_or((path, false), |(path, _)| (path, true));
    let mut sent = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte.is_ascii() {
            true => sent.push(char::from(byte)),
            false => {
                // Into a string, which takes whatever comes.
                let _ = write!(sent, "%{byte:02X}");
            }
        }
    }
    (sent, is_cut)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_ends_at_a_fragment_and_is_ascii() {
        for (said, asked, is_cut) in [
            ("/a?b=%20c", "/a?b=%20c", false),
            ("/a#b", "/a", true),
            ("/#", "/", true),
            ("/é?ü#é", "/%C3%A9?%C3%BC", true),
        ] {
            assert_eq!(sent(said), (asked.to_owned(), is_cut), "{said}");
        }
    }
}
