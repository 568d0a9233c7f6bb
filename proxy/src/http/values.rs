//! How HAProxy cuts the value of a field at its commas (`req.hdr`; function `http_find_header` of its sources).
//!
//! Everything is a range into the field's value: nothing is copied.

use std::ops::Range;

use memchr::memchr2;

use super::scan::is_blank;

/// The range without the spaces and tabs at both of its ends.
pub(crate) fn trim(value: &[u8], mut range: Range<usize>) -> Range<usize> {
    while range.start < range.end && is_blank(value[range.start]) {
        range.start += 1;
    }
    while range.start < range.end && is_blank(value[range.end - 1]) {
        range.end -= 1;
    }
    range
}

/// The first delimiter at or after `from` that is not inside a quoted string; the value's length without one.
/// `search` finds the first delimiter or quote.
///
/// A backslash escapes only inside quotes; a quoted string that is never closed hides all delimiters after it.
pub(crate) fn delimiter(value: &[u8], from: usize, search: impl Fn(&[u8]) -> Option<usize>) -> usize {
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

/// The comma-separated values of one field, trimmed; commas in quoted strings do not separate.
///
/// An empty field has one value, the empty one; so have the places between and after commas.
pub fn comma_values(value: &[u8]) -> impl Iterator<Item = Range<usize>> {
    let mut next = Some(0);
    std::iter::from_fn(move || {
        let start = next?;
        let leading = value[start..].iter().take_while(|b| is_blank(**b)).count();
        let end = delimiter(value, start + leading, |rest| memchr2(b',', b'"', rest));
        next = (end < value.len()).then_some(end + 1);
        Some(trim(value, start..end))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values(text: &str) -> Vec<&str> {
        comma_values(text.as_bytes()).map(|range| &text[range]).collect()
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

    proptest! {
        #[test]
        fn ranges_stay_inside_and_in_order(text in "[ab=;,\"\\\\$ \t]{0,40}") {
            let mut last = 0;
            for range in comma_values(text.as_bytes()) {
                prop_assert!(range.start <= range.end && range.end <= text.len() && range.start >= last);
                last = range.end;
            }
        }

        #[test]
        fn without_quotes_it_is_a_split(text in "[ab ,]{0,30}") {
            let expected: Vec<&str> = text.split(',').map(|v| v.trim_matches(' ')).collect();
            prop_assert_eq!(values(&text), expected);
        }
    }
}
