//! Cookies in `Cookie` and `Set-Cookie` headers, read as HAProxy reads them: separated by `;` or `,` outside quoted
//! values, names compared to the letter, white space around names and values dropped, quotes kept as part
//! of the value.

use std::ops::Range;

/// One `name=value` of a header's value, as ranges into it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pair {
    /// From the first byte of the name to before the separator.
    whole: Range<usize>,
    name: Range<usize>,
    value: Option<Range<usize>>,
}

/// The value that `req.cook(name)` yields: that of the last cookie of this name in the request's `Cookie`
/// headers, in order. An empty one does not count.
pub fn request_cookie<'a>(headers: impl IntoIterator<Item = &'a [u8]>, name: &[u8]) -> Option<&'a [u8]> {
    headers.into_iter().filter_map(|header| values(header, name).last()).last()
}

/// The value that `res.cook(name)` yields: that of the last cookie of this name that the response's `Set-Cookie`
/// headers set. Attributes (`; Path=/`) are not cookies. An empty one does not count.
pub fn response_cookie<'a>(headers: impl IntoIterator<Item = &'a [u8]>, name: &[u8]) -> Option<&'a [u8]> {
    headers.into_iter().filter_map(|header| set_cookies(header, name).last()).last()
}

/// The non-empty values of the cookies of this name in a `Cookie` header, in order.
pub fn values<'a, 'n>(header: &'a [u8], name: &'n [u8]) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
    pairs(header).filter_map(move |pair| value_of(header, pair, name))
}

fn set_cookies<'a, 'n>(header: &'a [u8], name: &'n [u8]) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
    pairs(header)
        .filter(move |pair| is_first_of_list(header, pair))
        .filter_map(move |pair| value_of(header, pair, name))
}

/// In `Set-Cookie` only the first pair of each comma-separated element is a cookie.
fn is_first_of_list(header: &[u8], pair: &Pair) -> bool {
    let before = header[..pair.whole.start].trim_ascii_end();
    matches!(before.last(), None | Some(b','))
}

fn value_of<'a>(header: &'a [u8], pair: Pair, name: &[u8]) -> Option<&'a [u8]> {
    if &header[pair.name] != name {
        return None;
    }
    pair.value.map(|value| &header[value]).filter(|value| !value.is_empty())
}

fn pairs(header: &[u8]) -> impl Iterator<Item = Pair> {
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            while at < header.len() && (header[at].is_ascii_whitespace() || matches!(header[at], b';' | b','))
            {
                at += 1;
            }
            if at >= header.len() {
                return None;
            }
            let start = at;
            at = end_of_pair(header, start);
            let end = start + header[start..at].trim_ascii_end().len();
            if end == start {
                continue;
            }
            let whole = &header[start..end];
            let equals = memchr::memchr(b'=', whole);
            let name = whole[..equals.unwrap_or(whole.len())].trim_ascii_end().len();
            let value = equals.map(|equals| {
                let value = &whole[equals + 1..];
                let first = end - value.trim_ascii_start().len();
                first..end
            });
            return Some(Pair { whole: start..end, name: start..start + name, value });
        }
    })
}

/// The next `;` or `,` that is not in a quoted value; within quotes a backslash escapes. A quote in a name is only a
/// character.
fn end_of_pair(header: &[u8], start: usize) -> usize {
    let mut in_value = false;
    let mut quoted = false;
    let mut escaped = false;
    for (i, &byte) in header[start..].iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' if in_value => quoted = !quoted,
            b'=' => in_value = true,
            b';' | b',' if !quoted => return start + i,
            _ => {}
        }
    }
    header.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(headers: &[&'static str], name: &str) -> Option<&'static str> {
        let headers = headers.iter().map(|h| h.as_bytes());
        request_cookie(headers, name.as_bytes()).map(|v| std::str::from_utf8(v).expect("of a str"))
    }

    fn response(headers: &[&'static str], name: &str) -> Option<&'static str> {
        let headers = headers.iter().map(|h| h.as_bytes());
        response_cookie(headers, name.as_bytes()).map(|v| std::str::from_utf8(v).expect("of a str"))
    }

    // Each case was asked of HAProxy 2.6 first.
    #[test]
    fn the_last_request_cookie_counts() {
        assert_eq!(request(&["JS=one"], "JS"), Some("one"));
        assert_eq!(request(&["JS=one; JS=two"], "JS"), Some("two"));
        assert_eq!(request(&["JS=two,x=1"], "JS"), Some("two"));
        assert_eq!(request(&["x=1; JS=\"two\""], "JS"), Some("\"two\""));
        assert_eq!(request(&["q=1", "JS=b"], "JS"), Some("b"));
        assert_eq!(request(&["js=abc", "JSX=1", "XJS=1"], "JS"), None);
        assert_eq!(request(&["JS="], "JS"), None);
        assert_eq!(request(&["JS"], "JS"), None);
        assert_eq!(request(&["a=\"x; JS=no\"; JS = yes ;"], "JS"), Some("yes"));
        assert_eq!(request(&["x\"; JS=b; y\"=1"], "JS"), Some("b"));
        assert_eq!(request(&["x\"a=\"; JS=b"], "JS"), None);
    }

    #[test]
    fn the_last_cookie_that_is_set_counts() {
        assert_eq!(response(&["JS=abc; path=/"], "JS"), Some("abc"));
        assert_eq!(response(&["JS=one", "JS=two"], "JS"), Some("two"));
        assert_eq!(response(&["JS=one, JS=two"], "JS"), Some("two"));
        assert_eq!(response(&["JS=\"q v\"; Path"], "JS"), Some("\"q v\""));
        assert_eq!(response(&[" JS = sp ;"], "JS"), Some("sp"));
        assert_eq!(response(&["z=abc; JS=attr"], "JS"), None);
        assert_eq!(response(&["js=abc", "JS="], "JS"), None);
        assert_eq!(response(&["a=1; Expires=Thu, 01-Jan-1970 00:00:01 GMT; JS=attr"], "JS"), None);
    }

    proptest! {
        #[test]
        fn no_header_panics(header: Vec<u8>, name in "[A-Z]{1,2}") {
            let _ = request_cookie([&*header], name.as_bytes());
            let _ = response_cookie([&*header], name.as_bytes());
        }
    }
}
