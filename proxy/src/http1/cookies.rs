//! Cookies as HAProxy reads them: `req.cook`, `res.cook`, and the removal that `cookie ... indirect` does.

use super::scan::is_blank;

/// One `name=value` of a `Cookie` value and the range it takes.
#[derive(Clone, Copy)]
struct Pair {
    name: (usize, usize),
    value: (usize, usize),
    /// The delimiter behind the pair, or the length of the text.
    next: usize,
    has_value: bool,
}

/// Reads the pair at `at`. In a request a comma separates as a semicolon does; a quoted value may hold either.
fn pair(text: &[u8], mut at: usize, request: bool) -> Pair {
    while at < text.len() && is_blank(text[at]) {
        at += 1;
    }
    let mut name_end = at;
    let mut equal = at;
    while equal < text.len() && !matches!(text[equal], b'=' | b';') && !(request && text[equal] == b',') {
        equal += 1;
        if !is_blank(text[equal - 1]) {
            name_end = equal;
        }
    }
    let mut pair = Pair { name: (at, name_end), value: (equal, equal), next: equal, has_value: false };
    if text.get(equal) == Some(&b'=') {
        let mut start = equal + 1;
        while start < text.len() && is_blank(text[start]) {
            start += 1;
        }
        pair.next = value_end(text, start);
        let mut end = pair.next;
        while end > start && is_blank(text[end - 1]) {
            end -= 1;
        }
        pair.value = (start, end);
        pair.has_value = true;
    }
    pair
}

/// The delimiter behind the value that begins at `at`, or the length; quotes hide delimiters.
fn value_end(text: &[u8], mut at: usize) -> usize {
    while let Some(n) = text.get(at..).and_then(|rest| memchr::memchr3(b'"', b',', b';', rest)) {
        at += n;
        if text[at] != b'"' {
            return at;
        }
        // Behind the closing quote, if there is one.
        at += 1;
        loop {
            match text.get(at) {
                None => return text.len(),
                Some(b'\\') => at += 2,
                Some(b'"') => break at += 1,
                Some(_) => at += 1,
            }
        }
    }
    text.len()
}

/// The values of the cookies called `name` (case-sensitive) in the value of a `Cookie` field.
///
/// As HAProxy's `req.cook(name)`: pairs are separated by `;` or `,`; names that begin with `$` are attributes; an
/// empty value counts unless it is the last thing in the field.
pub fn cookies<'a, 'n>(text: &'a [u8], name: &'n [u8]) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
    let mut at = 0;
    std::iter::from_fn(move || {
        while at + name.len() + 1 < text.len() {
            let pair = pair(text, at, true);
            at = pair.next + 1;
            if pair.has_value && &text[pair.name.0..pair.name.1] == name && !name.starts_with(b"$") {
                return Some(&text[pair.value.0..pair.value.1]);
            }
        }
        None
    })
}

/// The value that the `Set-Cookie` value `text` gives to the cookie `name`.
pub(super) fn set_cookie<'a>(text: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let pair = pair(text, 0, false);
    (pair.has_value && &text[pair.name.0..pair.name.1] == name).then(|| &text[pair.value.0..pair.value.1])
}

/// What is left of a `Cookie` value without one cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stripped {
    /// The cookie is not there.
    Unchanged,
    /// Nothing is left.
    Empty,
    /// The rest was written to the output.
    Rest,
}

/// Writes the `Cookie` value `text` without the cookies called `name` to `out`, as HAProxy does for `cookie NAME
/// indirect`: the delimiter before a removed cookie goes with it, or the one behind it when it was the first; one
/// space follows the delimiter that stays. Attributes (`$Path`) of a removed cookie go too.
///
/// `out` has grown only after [`Stripped::Rest`].
pub(super) fn strip(text: &[u8], name: &[u8], out: &mut Vec<u8>) -> Stripped {
    // Most requests have cookies but not this one.
    if memchr::memmem::find(text, name).is_none() {
        return Stripped::Unchanged;
    }
    let start = out.len();
    let mut at = 0;
    let mut removing = false;
    let mut removed = false;
    let mut delimiter = None;
    while at < text.len() {
        let pair = pair(text, at, true);
        let attribute = text.get(pair.name.0) == Some(&b'$');
        removing =
            if attribute { removing } else { pair.has_value && &text[pair.name.0..pair.name.1] == name };
        if removing {
            removed = true;
        } else {
            if out.len() > start {
                out.push(delimiter.unwrap_or(b';'));
                out.push(b' ');
            }
            out.extend_from_slice(&text[pair.name.0..pair.name.1]);
            if pair.has_value {
                out.push(b'=');
                out.extend_from_slice(&text[pair.value.0..pair.value.1]);
            }
        }
        delimiter = text.get(pair.next).copied();
        at = pair.next + 1;
    }
    if !removed {
        out.truncate(start);
        return Stripped::Unchanged;
    }
    if out.len() == start { Stripped::Empty } else { Stripped::Rest }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stripped(text: &str) -> Option<String> {
        let mut out = Vec::new();
        match strip(text.as_bytes(), b"SRV", &mut out) {
            Stripped::Unchanged => Some(text.to_owned()),
            Stripped::Empty => None,
            Stripped::Rest => Some(String::from_utf8_lossy(&out).into_owned()),
        }
    }

    #[test]
    fn a_cookie_is_stripped_as_haproxy_strips_it() {
        // Each result is what HAProxy 2.6 sent to a server for `cookie SRV insert indirect`.
        for (before, after) in [
            ("SRV=m1", None),
            ("SRV=m1;", None),
            ("SRV=m1,SRV=m1", None),
            ("a=1; SRV=m1; b=2", Some("a=1; b=2")),
            ("SRV=m1; b=2", Some("b=2")),
            ("a=1; SRV=m1", Some("a=1")),
            ("a=1;SRV=m1;b=2", Some("a=1; b=2")),
            ("a=1 ; SRV=m1  ;  b=2", Some("a=1; b=2")),
            ("a=1, SRV=m1, b=2", Some("a=1, b=2")),
            ("a=1; SRV=m1,b=2", Some("a=1, b=2")),
            ("a=1; SRV=m1; SRV=m1; b=2", Some("a=1; b=2")),
            ("a=1; SRV=; b=2", Some("a=1; b=2")),
            ("a=1; SRV=\"m1\"; b=2", Some("a=1; b=2")),
            ("a=1; SRV = m1 ; b=2", Some("a=1; b=2")),
            ("a\t=1;\tSRV=m1;\tb=2", Some("a=1; b=2")),
            ("$Version=1; SRV=m1; $Path=/; b=2", Some("$Version=1; b=2")),
            ("a=1; $Path=/; SRV=m1; $Path=/q; b=2", Some("a=1; $Path=/; b=2")),
            ("a=1; srv=m1; b=2", Some("a=1; srv=m1; b=2")),
            ("a=1; SRV; b=2", Some("a=1; SRV; b=2")),
            ("a=\"x;SRV=m1\"; b=2", Some("a=\"x;SRV=m1\"; b=2")),
            ("a=\"x;SRV=m1; b=2", Some("a=\"x;SRV=m1; b=2")),
            ("XSRV=m1; a=SRV=m1", Some("XSRV=m1; a=SRV=m1")),
        ] {
            assert_eq!(stripped(before).as_deref(), after, "{before}");
        }
    }

    #[test]
    fn cookies_are_read_as_req_cook_reads_them() {
        let read = |text: &'static str, name: &str| -> Vec<String> {
            cookies(text.as_bytes(), name.as_bytes())
                .map(|v| String::from_utf8_lossy(v).into_owned())
                .collect()
        };
        assert_eq!(read("a=1; b=2; a=3", "a"), ["1", "3"]);
        assert_eq!(read("a=1,b=2", "b"), ["2"]);
        assert_eq!(read("a = 1 ; b=2", "a"), ["1"]);
        assert_eq!(read("a=\"x;b=9\"; b=2", "b"), ["2"]);
        assert_eq!(read("a=\"x\\\";b=9\"; b=2", "b"), ["2"]);
        assert_eq!(read("a=; b=2", "a"), [""]);
        assert!(read("b=2;a=", "a").is_empty());
        assert!(read("a; A=1", "a").is_empty());
        assert!(read("$a=1; b=1", "$a").is_empty());
        assert!(read("", "a").is_empty());
    }

    #[test]
    fn only_the_first_pair_of_set_cookie_is_the_cookie() {
        assert_eq!(set_cookie(b"SRV=a; path=/", b"SRV"), Some(b"a".as_slice()));
        assert_eq!(set_cookie(b"SRV = a", b"SRV"), Some(b"a".as_slice()));
        assert_eq!(set_cookie(b"a=b; SRV=a", b"SRV"), None);
        assert_eq!(set_cookie(b"a=b, SRV=a", b"SRV"), None);
        assert_eq!(set_cookie(b"SRV", b"SRV"), None);
        assert_eq!(set_cookie(b"srv=a", b"SRV"), None);
    }
}
