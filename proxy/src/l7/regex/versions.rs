//! What versions of PCRE2 read in different ways.

use std::borrow::Cow;

/// The expression, with what newer versions of PCRE2 than 10.42 read in another way spelt out: `{,3}` and `{ 2 }` are no
/// quantifiers, and a `\x` without digits is NUL.
pub(super) fn as_before(expression: &str) -> Cow<'_, str> {
    let mut insertions = Vec::new();
    let (mut at, mut quoted) = (0, false);
    let bytes = expression.as_bytes();
    while at < bytes.len() {
        let rest = &bytes[at..];
        if rest.starts_with(br"\E") || (!quoted && rest.starts_with(br"\Q")) {
            quoted = rest[1] == b'Q';
            at += 2;
        } else if !quoted && rest[0] == b'\\' {
            if rest.starts_with(br"\x") && !rest.get(2).is_some_and(|b| b.is_ascii_hexdigit() || *b == b'{') {
                insertions.push((at + 2, "00"));
            }
            at += match rest {
                // The character that a control character is named by, whichever it is.
                [_, b'c', _, ..] => 3,
                // The brace of an argument, and no quantifier's.
                [_, b'g' | b'k' | b'N' | b'o' | b'p' | b'P' | b'x', b'{', ..] => 3,
                _ => 2,
            };
        } else {
            if !quoted && rest[0] == b'{' && is_newer_quantifier(&rest[1..]) {
                insertions.push((at, r"\"));
            }
            at += 1;
        }
    }
    if insertions.is_empty() {
        return Cow::Borrowed(expression);
    }
    let mut text = expression.to_owned();
    insertions.into_iter().rev().for_each(|(place, what)| text.insert_str(place, what));
    Cow::Owned(text)
}

/// Whether these bytes after a `{` make a quantifier only in newer versions.
fn is_newer_quantifier(rest: &[u8]) -> bool {
    let Some(end) = rest.iter().position(|b| *b == b'}') else { return false };
    let inside = &rest[..end];
    let numeric = inside.iter().all(|b| b.is_ascii_digit() || matches!(b, b',' | b' ' | b'\t'));
    let digits = inside.iter().any(u8::is_ascii_digit);
    numeric && digits && (inside[0] == b',' || inside.iter().any(|b| matches!(b, b' ' | b'\t')))
}
