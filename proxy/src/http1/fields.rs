//! The field section of a head or of trailers: a table of offsets into the bytes as they came.

use std::ops::Range;

use super::{
    MAX_FIELDS,
    names::{Known, KnownSet, is},
    reject::Reject,
    scan,
};

/// A range of bytes in the buffer that a head was parsed from.
///
/// Offsets fit 16 bits because a head is at most [`MAX_HEAD`](super::MAX_HEAD) bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    /// Offset of the first byte.
    pub(super) start: u16,
    /// Offset after the last byte.
    pub(super) end: u16,
}

impl Span {
    pub(super) fn new(start: usize, end: usize) -> Self {
        debug_assert!(start <= end && end <= super::MAX_HEAD);
        Self { start: start as u16, end: end as u16 }
    }

    /// The bytes of the span.
    #[inline]
    pub(super) fn of(self, buf: &[u8]) -> &[u8] {
        &buf[self.range()]
    }

    pub(super) fn range(self) -> Range<usize> {
        usize::from(self.start)..usize::from(self.end)
    }
}

/// One field line: `name: value`, the value without the white space around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Field {
    /// The name as it came.
    pub(super) name: Span,
    /// The value, trimmed.
    pub(super) value: Span,
    /// What the name is.
    pub(super) known: Known,
}

/// The fields of one head, in order.
#[derive(Clone, Debug, Default)]
pub(super) struct Fields {
    pub(super) list: Vec<Field>,
    pub(super) present: KnownSet,
    pub(super) repeated: KnownSet,
    pub(super) options: Options,
}

/// What the `Connection` fields say (RFC 9110 section 7.6.1).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Options {
    /// `close`.
    pub(super) close: bool,
    /// `keep-alive`.
    pub(super) keep_alive: bool,
    /// `upgrade`.
    pub(super) upgrade: bool,
}

impl Options {
    fn add(&mut self, value: &[u8]) {
        for option in scan::list(value) {
            match Known::of(option) {
                Known::KeepAlive => self.keep_alive = true,
                Known::Upgrade => self.upgrade = true,
                Known::Other if is(option, b"close") => self.close = true,
                _ => {}
            }
        }
    }
}

impl Fields {
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self { list: Vec::with_capacity(capacity), ..Self::default() }
    }

    pub(super) fn clear(&mut self) {
        self.list.clear();
        self.present = KnownSet::default();
        self.repeated = KnownSet::default();
        self.options = Options::default();
    }

    /// Parses field lines from `*at` on and moves `*at` behind each complete one.
    ///
    /// `Ok(true)`: `*at` is behind the empty line that ends the section. `Ok(false)`: the bytes end first; call again
    /// with more of them.
    #[inline]
    pub(super) fn parse(&mut self, bytes: &[u8], at: &mut usize) -> Result<bool, Reject> {
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
            if self.list.len() == MAX_FIELDS {
                return Err(Reject::TooManyFields);
            }
            if known != Known::Other {
                if self.present.contains(known) {
                    self.repeated.insert(known);
                }
                self.present.insert(known);
                if known == Known::Connection {
                    self.options.add(&bytes[value.clone()]);
                }
            }
            self.list.push(Field {
                name: Span::new(name.start, name.end),
                value: Span::new(value.start, value.end),
                known,
            });
            *at = next;
        }
    }

    /// The value of the first field that is `known`.
    #[inline]
    pub(super) fn first<'a>(&self, buf: &'a [u8], known: Known) -> Option<&'a [u8]> {
        if !self.present.contains(known) {
            return None;
        }
        self.list.iter().find(|field| field.known == known).map(|field| field.value.of(buf))
    }

    /// The values of the fields named `name` in any case.
    pub(super) fn named<'a, 'n>(
        &'a self,
        buf: &'a [u8],
        name: &'n [u8],
    ) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        let known = Known::of(name);
        let list: &[Field] =
            if known == Known::Other || self.present.contains(known) { &self.list } else { &[] };
        list.iter()
            .filter(move |field| {
                field.known == known
                    && (known != Known::Other || field.name.of(buf).eq_ignore_ascii_case(name))
            })
            .map(move |field| field.value.of(buf))
    }

    /// The elements of all comma-separated lists in fields that are `known`.
    pub(super) fn elements<'a>(&'a self, buf: &'a [u8], known: Known) -> impl Iterator<Item = &'a [u8]> {
        let list: &[Field] = if self.present.contains(known) { &self.list } else { &[] };
        list.iter()
            .filter(move |field| field.known == known)
            .flat_map(|field| scan::list(field.value.of(buf)))
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
