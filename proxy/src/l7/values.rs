//! How HAProxy cuts header values and cookies into the samples that a rule compares
//! (`req.hdr`, `req.cook`; functions `http_find_header` and `http_extract_cookie_value` of its sources).
//!
//! Everything is a range into the header's value: nothing is copied.

use std::ops::Range;

use memchr::{memchr2, memchr3};

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// The range without the spaces and tabs at both of its ends.
fn trim(value: &[u8], mut range: Range<usize>) -> Range<usize> {
    while range.start < range.end && is_space(value[range.start]) {
        range.start += 1;
    }
    while range.start < range.end && is_space(value[range.end - 1]) {
        range.end -= 1;
    }
    range
}

/// The first delimiter at or after `from` that is not inside a quoted string; the value's length without one.
/// `search` finds the first delimiter or quote.
///
/// A backslash escapes only inside quotes; a quoted string that is never closed hides all delimiters after it.
fn delimiter(value: &[u8], from: usize, search: impl Fn(&[u8]) -> Option<usize>) -> usize {
    let mut at = from;
    while let Some(length) = search(&value[at..]) {
        at += length;
        if value[at] != b'"' {
            return at;
        }
        at += 1;
        loop {
            match memchr2(b'"', b'\\', &value[at..]) {
                None => return value.len(),
                Some(length) if value[at + length] == b'"' => {
                    at += length + 1;
                    break;
                }
                Some(length) => at = value.len().min(at + length + 2),
            }
        }
    }
    value.len()
}

/// The comma-separated values of one header field, trimmed.
///
/// An empty field has one value, the empty one; so have the places between and after commas.
pub(super) fn comma_values(value: &[u8]) -> impl Iterator<Item = Range<usize>> {
    let mut next = Some(0);
    std::iter::from_fn(move || {
        let start = next?;
        let leading = value[start..].iter().take_while(|b| is_space(**b)).count();
        let end = delimiter(value, start + leading, |rest| memchr2(b',', b'"', rest));
        next = (end < value.len()).then_some(end + 1);
        Some(trim(value, start..end))
    })
}

/// One `name=value` of a `Cookie` field, as ranges into the field's value.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cookie {
    pub(super) name: Range<usize>,
    /// Quotes included.
    pub(super) value: Range<usize>,
}

/// Every cookie of one `Cookie` field that HAProxy would find by its name.
///
/// Commas separate as semicolons do; names are trimmed and keep their case; names with `$` in front are attributes
/// of RFC 2965 and not cookies; a cookie whose `=` is the very last byte of a field, with no space before the
/// name, is not found.
pub(super) fn cookies(field: &[u8]) -> impl Iterator<Item = Cookie> {
    comma_values(field).flat_map(|piece| {
        let offset = piece.start;
        let list = &field[piece];
        let mut next = Some(0);
        std::iter::from_fn(move || {
            loop {
                let start = next?;
                if start > list.len() {
                    return None;
                }
                let name_end = list[start..]
                    .iter()
                    .position(|b| matches!(b, b'=' | b';' | b','))
                    .map_or(list.len(), |length| start + length);
                if list.get(name_end) != Some(&b'=') {
                    next = Some(name_end + 1);
                    continue;
                }
                let value_start = name_end + 1;
                let spaces = list[value_start..].iter().take_while(|b| is_space(**b)).count();
                let value_end = delimiter(list, value_start + spaces, |rest| memchr3(b',', b';', b'"', rest));
                next = Some(value_end + 1);

                let name = trim(list, start..name_end);
                // The search for a name goes on only while the name, `=` and one byte more fit into the rest.
                let fits = start + name.len() + 1 < list.len();
                if !fits || list.get(name.start) == Some(&b'$') {
                    continue;
                }
                let value = trim(list, value_start..value_end);
                return Some(Cookie {
                    name: offset + name.start..offset + name.end,
                    value: offset + value.start..offset + value.end,
                });
            }
        })
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn values(text: &str) -> Vec<&str> {
        comma_values(text.as_bytes()).map(|range| &text[range]).collect()
    }

    fn pairs(text: &str) -> Vec<(&str, &str)> {
        cookies(text.as_bytes()).map(|c| (&text[c.name], &text[c.value])).collect()
    }

    #[test]
    fn commas_separate_and_blanks_do_not_count() {
        assert_eq!(values("a"), ["a"]);
        assert_eq!(values(" a , b\t"), ["a", "b"]);
        assert_eq!(values("a,,b"), ["a", "", "b"]);
        assert_eq!(values("a,"), ["a", ""]);
        assert_eq!(values(","), ["", ""]);
        assert_eq!(values(""), [""]);
        assert_eq!(values("  "), [""]);
    }

    #[test]
    fn quotes_hide_commas() {
        assert_eq!(values(r#""a,b",c"#), [r#""a,b""#, "c"]);
        assert_eq!(values(r#"x="a\",b",c"#), [r#"x="a\",b""#, "c"]);
        assert_eq!(values(r#""a,b"#), [r#""a,b"#]);
        assert_eq!(values(r"a\,b"), [r"a\", "b"]);
        assert_eq!(values(r#""a\"#), [r#""a\"#]);
    }

    #[test]
    fn cookies_are_separated_by_semicolons_and_commas() {
        assert_eq!(pairs("a=1; b=2;c=3"), [("a", "1"), ("b", "2"), ("c", "3")]);
        assert_eq!(pairs("a=1, b=2"), [("a", "1"), ("b", "2")]);
        assert_eq!(pairs("a = 1 ;b= 2"), [("a", "1"), ("b", "2")]);
        assert_eq!(pairs("a=1=2"), [("a", "1=2")]);
        assert_eq!(pairs("lone; a=1; lone"), [("a", "1")]);
        assert_eq!(pairs(r#"a="1;2"; b=3"#), [("a", r#""1;2""#), ("b", "3")]);
        assert_eq!(pairs("$Version=1; a=b; $Path=/"), [("a", "b")]);
    }

    #[test]
    fn an_empty_cookie_is_found_unless_it_ends_the_field() {
        assert_eq!(pairs("a=; b=1"), [("a", ""), ("b", "1")]);
        assert_eq!(pairs("a="), []);
        assert_eq!(pairs("b=1; a="), [("b", "1"), ("a", "")]);
        assert_eq!(pairs("b=1;a="), [("b", "1")]);
        assert_eq!(pairs(""), []);
        assert_eq!(pairs("="), []);
        assert_eq!(pairs(";;;"), []);
    }

    proptest! {
        #[test]
        fn ranges_stay_inside_and_in_order(text in "[ab=;,\"\\\\$ \t]{0,40}") {
            let mut last = 0;
            for range in comma_values(text.as_bytes()) {
                prop_assert!(range.start <= range.end && range.end <= text.len() && range.start >= last);
                last = range.end;
            }
            let mut last = 0;
            for cookie in cookies(text.as_bytes()) {
                prop_assert!(last <= cookie.name.start && cookie.name.end <= cookie.value.start);
                prop_assert!(cookie.value.end <= text.len());
                last = cookie.value.end;
            }
        }

        #[test]
        fn without_quotes_it_is_a_split(text in "[ab ,]{0,30}") {
            let expected: Vec<&str> = text.split(',').map(|v| v.trim_matches(' ')).collect();
            prop_assert_eq!(values(&text), expected);
        }
    }
}
