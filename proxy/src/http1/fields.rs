//! Field lines (RFC 9112 section 5), of a head or of trailers.

use std::ops::Range;

use crate::http::{Fields, Known, Reject, scan};

/// Parses field lines from `*at` on and moves `*at` behind each complete one.
///
/// `Ok(true)`: `*at` is behind the empty line that ends the section. `Ok(false)`: the bytes end first; call again
/// with more of them.
#[inline]
pub(super) fn parse(fields: &mut Fields, bytes: &[u8], at: &mut usize) -> Result<bool, Reject> {
    loop {
        match bytes[*at..] {
            [] | [b'\r'] => return Ok(false),
            [b'\r', b'\n', ..] => {
                *at += 2;
                return Ok(true);
            }
            _ => {}
        }
        let Some((name, value, next, known)) = field_line(bytes, *at)? else { return Ok(false) };
        fields.add(bytes, name, value, known)?;
        *at = next;
    }
}

/// Name, value, the offset of the next line, and what the name is.
type Line = (Range<usize>, Range<usize>, usize, Known);

/// Parses the field line at `at`, which is not the empty line, as RFC 9112 section 5 has it and without its leniences;
/// `None` when it is not complete.
#[inline]
fn field_line(bytes: &[u8], at: usize) -> Result<Option<Line>, Reject> {
    // A name that is known need not be looked at byte by byte.
    let simple = scan::colon(bytes, at).and_then(|colon| {
        let name = &bytes[at..colon];
        let known = Known::of(name);
        (known != Known::Other || scan::is_token(name)).then_some((colon, known))
    });
    let (colon, known) = match simple {
        Some(simple) => simple,
        None => match name_end(bytes, at)? {
            Some(colon) => (colon, Known::of(&bytes[at..colon])),
            None => return Ok(None),
        },
    };
    let mut start = colon + 1;
    while start < bytes.len() && scan::is_blank(bytes[start]) {
        start += 1;
    }
    let stop = scan::value_end(bytes, start);
    match bytes[stop..] {
        [] | [b'\r'] => return Ok(None),
        [b'\r', b'\n', ..] => {}
        [b'\r', ..] => return Err(Reject::BadRequest("bare CR")),
        [b'\n', ..] => return Err(Reject::BadRequest("bare LF")),
        _ => return Err(Reject::BadRequest("control byte in a field value")),
    }
    let mut end = stop;
    while end > start && scan::is_blank(bytes[end - 1]) {
        end -= 1;
    }
    Ok(Some((at..colon, start..end, stop + 2, known)))
}

/// The colon behind the name at `at`; `None` when the line is not complete. For what [`scan::colon`] leaves open, names near
/// the end of the bytes, and for faults.
fn name_end(bytes: &[u8], at: usize) -> Result<Option<usize>, Reject> {
    let end = scan::token_end(bytes, at);
    let reason = match bytes[end..] {
        [] | [b'\r'] => return Ok(None),
        [b':', ..] if end > at => return Ok(Some(end)),
        [b':', ..] => "empty field name",
        [b'\r', b'\n', ..] => "field line without a colon",
        [b'\r', ..] => "bare CR",
        [b'\n', ..] => "bare LF",
        [b' ' | b'\t', ..] if end == at => "folded field line",
        [b' ' | b'\t', ..] => "white space in a field name",
        _ => "field name is not a token",
    };
    Err(Reject::BadRequest(reason))
}
