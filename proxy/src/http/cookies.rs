//! Cookies as HAProxy reads them, which it does in two ways.
//!
//! Its samples `req.cook` and `res.cook` ([`sampled_cookies`], [`sampled_set_cookie_values`]; `http_extract_cookie_value` of
//! its sources) first cut a field at its commas, as any field that is a list. Its own persistence cookie
//! ([`cookie_values`], `sets_cookie`, `strip`; `http_manage_client_side_cookies`) is looked for in the field as a
//! whole. They differ where a quote is not around a value, and on an empty value at the end of a field.
//!
//! Both cut a field into pairs at `;` and `,` outside quoted values, compare names to the letter, drop spaces and tabs
//! around names and values, and keep quotes as part of the value.

use std::ops::Range;

use memchr::memchr3;

use super::values::{comma_values, delimiter, trim};

/// One `name=value`, as ranges into the field's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cookie {
    /// Trimmed.
    pub name: Range<usize>,
    /// Trimmed, quotes included; perhaps empty.
    pub value: Range<usize>,
}

/// Every cookie that `req.cook` finds, by its name, in the value of a `Cookie` field, in order.
///
/// Names with `$` in front are attributes of RFC 2965 and not cookies. A cookie whose `=` is the very last byte before
/// a comma or the end, with no space before the name, is not found.
pub fn sampled_cookies(field: &[u8]) -> impl Iterator<Item = Cookie> {
    comma_values(field).flat_map(|element| {
        let (offset, list) = (element.start, &field[element]);
        let mut at = 0;
        std::iter::from_fn(move || {
            while at < list.len() {
                let (start, pair) = (at, Pair::read(list, at, true));
                at = pair.next + 1;
                if let Some(cookie) = pair.sampled(list, start) {
                    return Some(cookie.shift(offset));
                }
            }
            None
        })
    })
}

/// The values, perhaps empty, that `res.cook(name)` finds in the value of a `Set-Cookie` field, in order.
///
/// In each element that commas separate it takes the first pair, and those behind that have the same name; another name
/// begins the attributes (`; Path=/`). Pairs without `=` are passed over.
pub fn sampled_set_cookie_values<'a, 'n>(
    field: &'a [u8],
    name: &'n [u8],
) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
    comma_values(field).flat_map(move |element| {
        let list = &field[element];
        let mut at = 0;
        std::iter::from_fn(move || {
            // As for requests, the name, `=` and one byte more must fit into the rest.
            while at + name.len() + 1 < list.len() {
                let pair = Pair::read(list, at, false);
                at = pair.next + 1;
                if pair.is_attribute(list) || pair.value.is_none() {
                    continue;
                }
                let value = pair.value_of(list, name);
                if value.is_none() {
                    at = list.len();
                }
                return value.map(|value| &list[value]);
            }
            None
        })
    })
}

/// The values, perhaps empty, in which HAProxy's `cookie NAME` looks for a server, in the value of a `Cookie` field.
pub fn cookie_values<'a, 'n>(
    field: &'a [u8],
    name: &'n [u8],
) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
    pairs(field).filter_map(move |pair| Some(&field[pair.value_of(field, name)?]))
}

/// Whether a `Set-Cookie` field of this value sets the cookie that HAProxy's `cookie NAME` owns.
pub(crate) fn sets_cookie(field: &[u8], name: &[u8]) -> bool {
    Pair::read(field, 0, false).value_of(field, name).is_some()
}

/// What stands between two delimiters.
#[derive(Clone)]
struct Pair {
    /// Trimmed.
    name: Range<usize>,
    /// Trimmed; `None` without `=`.
    value: Option<Range<usize>>,
    /// The delimiter behind the pair, or the length of the text.
    next: usize,
}

impl Pair {
    /// Reads the pair at `at`. A comma ends a name in a request only, and a value always; quotes hide delimiters only
    /// in a value.
    fn read(text: &[u8], at: usize, request: bool) -> Self {
        let ends_name = |byte: &u8| matches!(byte, b'=' | b';') || (request && *byte == b',');
        let end = text[at..].iter().position(ends_name).map_or(text.len(), |length| at + length);
        let name = trim(text, at..end);
        if text.get(end) != Some(&b'=') {
            return Self { name, value: None, next: end };
        }
        let start = end + 1;
        let next = delimiter(text, start, |rest| memchr3(b',', b';', b'"', rest));
        Self { name, value: Some(trim(text, start..next)), next }
    }

    fn is_attribute(&self, text: &[u8]) -> bool {
        text.get(self.name.start) == Some(&b'$')
    }

    /// The value, if this is the cookie `name`.
    fn value_of(self, text: &[u8], name: &[u8]) -> Option<Range<usize>> {
        self.value.filter(|_| &text[self.name] == name)
    }

    /// The cookie that a sample finds: the search, at `start`, goes on only while the name, `=` and one byte more fit
    /// into the rest.
    fn sampled(self, list: &[u8], start: usize) -> Option<Cookie> {
        let fits = start + self.name.len() + 1 < list.len();
        if !fits || self.is_attribute(list) {
            return None;
        }
        Some(Cookie { name: self.name, value: self.value? })
    }
}

impl Cookie {
    fn shift(self, by: usize) -> Self {
        let shift = |range: Range<usize>| range.start + by..range.end + by;
        Self { name: shift(self.name), value: shift(self.value) }
    }
}

fn pairs(text: &[u8]) -> impl Iterator<Item = Pair> {
    let mut at = 0;
    std::iter::from_fn(move || {
        (at < text.len()).then(|| {
            let pair = Pair::read(text, at, true);
            at = pair.next + 1;
            pair
        })
    })
}

/// What is left of a `Cookie` value without one cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stripped {
    /// The cookie is not there.
    Unchanged,
    /// Nothing is left.
    Empty,
    /// The rest was written to the output.
    Rest,
}

/// Writes the `Cookie` value `text` without the cookies called `name` to `out`, as HAProxy does for `cookie NAME
/// indirect`; all other bytes stay what they are.
///
/// With a removed cookie go the delimiter before it and the blanks around that one; the delimiter behind it stays, with
/// one space, unless nothing is before it. Attributes (`$Path`) behind a removed cookie go too, and a field that has
/// nothing else but attributes goes whole. HAProxy also takes away blanks around the `=` of all other cookies, where
/// they are part of what the client sent: here they stay.
///
/// `out` has grown only after [`Stripped::Rest`].
pub(crate) fn strip(text: &[u8], name: &[u8], out: &mut Vec<u8>) -> Stripped {
    // Most requests have cookies but not this one.
    if memchr::memmem::find(text, name).is_none() {
        return Stripped::Unchanged;
    }
    let start = out.len();
    let mut copied = 0;
    // The delimiter before the cookies that are being removed.
    let mut from = None;
    let is_delimiter = |at: usize| matches!(text.get(at), Some(b';' | b','));
    let mut removed = false;
    // A delimiter at the very beginning has an empty cookie before it.
    let mut others = is_delimiter(0);
    let mut before = 0;
    while before < text.len() {
        let at = before + usize::from(is_delimiter(before));
        let pair = Pair::read(text, at, true);
        let next = pair.next;
        if pair.is_attribute(text) {
            // It shares what becomes of the cookie before it.
        } else if pair.value_of(text, name).is_some() {
            removed = true;
            from.get_or_insert(before);
        } else {
            others = true;
            if let Some(from) = from.take() {
                out.extend_from_slice(&text[copied..from]);
                if out.len() > start {
                    trim_end(out, start);
                    out.extend_from_slice(&[text[before], b' ']);
                }
                copied = trim(text, before + 1..text.len()).start;
            }
        }
        before = next;
    }
    if !removed {
        return Stripped::Unchanged;
    }
    if others {
        out.extend_from_slice(&text[copied..from.unwrap_or(text.len())]);
        trim_end(out, start);
    }
    if out.len() == start { Stripped::Empty } else { Stripped::Rest }
}

/// Takes the blanks from the end of `out`, down to `start`.
fn trim_end(out: &mut Vec<u8>, start: usize) {
    let end = trim(out, start..out.len()).end;
    out.truncate(end);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
        // Each result is what HAProxy 2.6 sent to a server for `cookie SRV insert indirect`, without blanks at its end.
        for (before, after) in [
            ("SRV=m1", None),
            ("SRV=m1;", None),
            ("SRV=m1,SRV=m1", None),
            ("$Version=1; SRV=m1", None),
            ("SRV=m1; $Version=1", None),
            ("$a=1;SRV=m1;$b=2", None),
            ("; SRV=m1", None),
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
            ("$Version=1; SRV=m1; $Path=/; b=2", Some("$Version=1; b=2")),
            ("a=1; $Path=/; SRV=m1; $Path=/q; b=2", Some("a=1; $Path=/; b=2")),
            ("a=1; srv=m1; b=2", Some("a=1; srv=m1; b=2")),
            ("a=1; SRV; b=2", Some("a=1; SRV; b=2")),
            ("a=\"x;SRV=m1\"; b=2", Some("a=\"x;SRV=m1\"; b=2")),
            ("a=\"x;SRV=m1; b=2", Some("a=\"x;SRV=m1; b=2")),
            ("XSRV=m1; a=SRV=m1", Some("XSRV=m1; a=SRV=m1")),
            ("x\"; SRV=m1; y\"", Some("x\"; y\"")),
            ("\"x,SRV=m1", Some("\"x")),
            ("x=1; SRV|=m1", Some("x=1; SRV|=m1")),
        ] {
            assert_eq!(stripped(before).as_deref(), after, "{before}");
        }
    }

    #[test]
    fn what_is_no_cookie_of_ours_passes_byte_for_byte() {
        // As above.
        for (before, after) in [
            ("p={\"a\":1,\"b\":2}; SRV=m1", "p={\"a\":1,\"b\":2}"),
            ("p={\"a\":1,\"b\":2}; SRV=m1; q=1", "p={\"a\":1,\"b\":2}; q=1"),
            ("SRV=m1; p={\"a\":1,\"b\":2}", "p={\"a\":1,\"b\":2}"),
            ("a=1 ,  b=2;SRV=m1", "a=1 ,  b=2"),
            ("a=1;SRV=m1;b=2;c=3;  d=4", "a=1; b=2;c=3;  d=4"),
            ("a=1;b=2,SRV=m1,c=3;d=4", "a=1;b=2, c=3;d=4"),
            ("SRV=m1 ; b=2;SRV=m1;c=3", "b=2; c=3"),
            ("a=\"x,y\" ; SRV=m1 ;c=\"p;q\"", "a=\"x,y\"; c=\"p;q\""),
            ("a=1;\tb=2;SRV=m1", "a=1;\tb=2"),
            ("a=1 \t; \tSRV=m1\t \t;\t b=2 ;c", "a=1; b=2 ;c"),
            ("a=1;; SRV=m1;; b=2", "a=1;; ; b=2"),
            ("a=1; ;SRV=m1; ; b=2", "a=1;; ; b=2"),
            ("a=1; SRV=m1;", "a=1;"),
            ("a ;SRV=m1;$p;$q ; ", "a;"),
            ("SRV=m1;;b=2", ";b=2"),
            ("SRV=m1;;SRV=m1;b", "b"),
            ("SRV=m1;;;", ";;"),
            ("SRV=m1, ;b", ";b"),
            ("SRV=m1;$p;$q;;$r", ";$r"),
            (";SRV=m1;b=2", "b=2"),
            (";;SRV=m1;b=2", ";; b=2"),
            ("; ;SRV=m1;b=2", ";; b=2"),
            (",,SRV=m1", ","),
            (";x;SRV=m1", ";x"),
            ("$v=1;;SRV=m1", "$v=1;"),
            ("=x; SRV=m1", "=x"),
            ("\"SRV\"=m1;SRV=m1", "\"SRV\"=m1"),
        ] {
            assert_eq!(stripped(before).as_deref(), Some(after), "{before}");
        }
        // HAProxy sends `a=1; b=2` here.
        assert_eq!(stripped("a\t=1;\tSRV=m1;\tb= 2").as_deref(), Some("a\t=1; b= 2"));
    }

    fn sampled(text: &str) -> Vec<(&str, &str)> {
        sampled_cookies(text.as_bytes()).map(|c| (&text[c.name], &text[c.value])).collect()
    }

    #[test]
    fn cookies_are_separated_by_semicolons_and_commas() {
        assert_eq!(sampled("a=1; b=2;c=3"), [("a", "1"), ("b", "2"), ("c", "3")]);
        assert_eq!(sampled("a=1, b=2"), [("a", "1"), ("b", "2")]);
        assert_eq!(sampled("a = 1 ;b= 2"), [("a", "1"), ("b", "2")]);
        assert_eq!(sampled("a=1=2"), [("a", "1=2")]);
        assert_eq!(sampled("lone; a=1; lone"), [("a", "1")]);
        assert_eq!(sampled("$Version=1; a=b; $Path=/"), [("a", "b")]);
    }

    #[test]
    fn quotes_hide_delimiters() {
        assert_eq!(sampled(r#"a="1;2"; b=3"#), [("a", r#""1;2""#), ("b", "3")]);
        assert_eq!(sampled(r#"a="x\";b=9"; b=2"#), [("a", r#""x\";b=9""#), ("b", "2")]);
        // In a name they hide commas from the list, and no semicolon.
        assert_eq!(sampled(r#"x"=1; a=2"#), [(r#"x""#, "1"), ("a", "2")]);
        assert_eq!(sampled(r#""x,a=2"#), [("a", "2")]);
    }

    #[test]
    fn an_empty_cookie_is_found_unless_it_ends_the_element() {
        assert_eq!(sampled("a=; b=1"), [("a", ""), ("b", "1")]);
        assert_eq!(sampled("b=1; a="), [("b", "1"), ("a", "")]);
        for none in ["a=", "a=,x", "", "=", ";;;", "a; b", "$a=1"] {
            assert_eq!(sampled(none), [], "{none}");
        }
        assert_eq!(sampled("b=1;a="), [("b", "1")]);
    }

    #[test]
    fn servers_are_looked_for_in_the_whole_field() {
        let read = |text: &'static str| -> Vec<&str> {
            cookie_values(text.as_bytes(), b"a").map(|v| std::str::from_utf8(v).expect("of a str")).collect()
        };
        assert_eq!(read("a=1; b=2; a=3"), ["1", "3"]);
        assert_eq!(read("b=2,a = 1 "), ["1"]);
        assert_eq!(read(r#"b="x;a=9"; a=2"#), ["2"]);
        assert_eq!(read(r#"x"=1; a=2"#), ["2"]);
        assert_eq!(read("a=; b=2;a="), ["", ""]);
        assert_eq!(read("a; A=1; aa=1; $a=1"), [""; 0]);
        // Neither is a blank.
        assert_eq!(read("a=\x0c1; \x0ba=2"), ["\x0c1"]);
    }

    #[test]
    fn each_element_of_set_cookie_sets_a_sampled_cookie() {
        let set = |text: &'static str| -> Vec<&str> {
            sampled_set_cookie_values(text.as_bytes(), b"JS")
                .map(|v| std::str::from_utf8(v).expect("of a str"))
                .collect()
        };
        assert_eq!(set("JS=abc; path=/"), ["abc"]);
        assert_eq!(set("JS=one, JS=two"), ["one", "two"]);
        assert_eq!(set(r#"JS="q v"; Path"#), [r#""q v""#]);
        assert_eq!(set(" JS = sp ;"), ["sp"]);
        assert_eq!(set("z=abc; JS=attr"), [""; 0]);
        // Odd, and so in HAProxy 2.6.
        assert_eq!(set("JS=one; JS=two; Path=/; JS=attr"), ["one", "two"]);
        assert_eq!(set("Secure; JS=one"), ["one"]);
        assert_eq!(set("JS="), [""; 0]);
        assert_eq!(set("JS=;"), [""]);
        assert_eq!(set("a=1; Expires=Thu, 01-Jan-1970 00:00:01 GMT; JS=attr"), ["attr"]);
    }

    #[test]
    fn only_the_first_pair_of_set_cookie_is_the_cookie() {
        assert!(sets_cookie(b"SRV=a; path=/", b"SRV"));
        assert!(sets_cookie(b"SRV = a", b"SRV"));
        assert!(!sets_cookie(b"a=b; SRV=a", b"SRV"));
        assert!(!sets_cookie(b"a=b, SRV=a", b"SRV"));
        assert!(!sets_cookie(b"SRV", b"SRV"));
        assert!(!sets_cookie(b"srv=a", b"SRV"));
    }

    proptest! {
        #[test]
        fn ranges_stay_inside_and_in_order(text in "[ab=;,\"\\\\$ \t]{0,40}") {
            let mut last = 0;
            for cookie in sampled_cookies(text.as_bytes()) {
                prop_assert!(last <= cookie.name.start && cookie.name.end <= cookie.value.start);
                prop_assert!(cookie.value.end <= text.len());
                last = cookie.value.end;
            }
        }

        #[test]
        fn nothing_panics_and_nothing_is_left(field: Vec<u8>, name in "[A-Z]{1,2}") {
            let name = name.as_bytes();
            let _ = sampled_cookies(&field).count() + sampled_set_cookie_values(&field, name).count();
            let mut rest = Vec::new();
            match strip(&field, name, &mut rest) {
                Stripped::Rest => prop_assert_eq!(cookie_values(&rest, name).count(), 0),
                Stripped::Unchanged => prop_assert_eq!(cookie_values(&field, name).count(), 0),
                Stripped::Empty => prop_assert!(rest.is_empty()),
            }
        }

        #[test]
        fn removing_one_cookie_changes_no_other_byte(
            segments in prop::collection::vec(
                (r#"SRV=[a-z0-9]{0,4}|[a-zS]{1,3}[ \t]{0,2}=[ \t]{0,2}([a-z0-9=:{}]{0,5}|"[ ;,a-z=]{0,6}")|[a-z"]{1,4}"#, "[ \t]{0,2}[;,][ \t]{0,2}"),
                1..8,
            ),
        ) {
            let (mut text, mut want, mut cut) = (String::new(), String::new(), false);
            for (i, (segment, _)) in segments.iter().enumerate() {
                let delimiter = i.checked_sub(1).map_or("", |before| segments[before].1.as_str());
                text.push_str(delimiter);
                text.push_str(segment);
                if segment.starts_with("SRV=") {
                    cut = true;
                    continue;
                }
                if cut && !want.is_empty() {
                    want.truncate(want.trim_ascii_end().len());
                    want.push_str(delimiter.trim_ascii());
                    want.push(' ');
                } else if !want.is_empty() {
                    want.push_str(delimiter);
                }
                want.push_str(segment);
                cut = false;
            }
            prop_assert_eq!(stripped(text.trim_ascii()).unwrap_or_default(), want.trim_ascii());
        }
    }
}
