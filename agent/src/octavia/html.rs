//! The escapes of HTML in what the templates put in.

use std::borrow::Cow;

/// The escape of HTML that a text begins with, and what it stands for.
pub(super) fn escape_of(text: &str) -> Option<(&'static str, char)> {
    [("&amp;", '&'), ("&lt;", '<'), ("&gt;", '>'), ("&#39;", '\''), ("&#34;", '"')]
        .into_iter()
        .find(|(escape, _)| text.starts_with(escape))
}

/// What a value stands for in which the templates have escaped `&`, `<`, `>`, `'` and `"`; `None` when `&` begins no such escape.
pub(crate) fn unescaped(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('&') {
        return Some(Cow::Borrowed(text));
    }
    let mut value = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        value.push_str(&rest[..at]);
        let (escape, plain) = escape_of(&rest[at..])?;
        value.push(plain);
        rest = &rest[at + escape.len()..];
    }
    value.push_str(rest);
    Some(Cow::Owned(value))
}
