//! The field section of a head or of trailers: a table of offsets into its bytes.

use std::ops::Range;

use super::{
    MAX_FIELDS,
    names::{Known, KnownSet, is},
    reject::Reject,
    scan,
};

/// A range of bytes in the buffer that a head is in.
///
/// Offsets fit 16 bits because a head is at most [`MAX_HEAD`](super::MAX_HEAD) bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    /// Offset of the first byte.
    pub(crate) start: u16,
    /// Offset after the last byte.
    pub(crate) end: u16,
}

impl Span {
    pub(crate) fn new(start: usize, end: usize) -> Self {
        debug_assert!(start <= end && end <= super::MAX_HEAD);
        Self { start: start as u16, end: end as u16 }
    }

    /// The bytes of the span.
    #[inline]
    pub(crate) fn of(self, buf: &[u8]) -> &[u8] {
        &buf[self.range()]
    }

    pub(crate) fn range(self) -> Range<usize> {
        usize::from(self.start)..usize::from(self.end)
    }
}

/// One field line: `name: value`, the value without the white space around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    /// The name as it came.
    pub(crate) name: Span,
    /// The value, trimmed.
    pub(crate) value: Span,
    /// What the name is.
    pub(crate) known: Known,
}

/// The fields of one head, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fields {
    pub(crate) list: Vec<Field>,
    pub(crate) present: KnownSet,
    pub(crate) repeated: KnownSet,
    pub(crate) options: Options,
}

/// What the `Connection` fields say (RFC 9110 section 7.6.1).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Options {
    /// `close`.
    pub(crate) close: bool,
    /// `keep-alive`.
    pub(crate) keep_alive: bool,
    /// `upgrade`.
    pub(crate) upgrade: bool,
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
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self { list: Vec::with_capacity(capacity), ..Self::default() }
    }

    pub(crate) fn clear(&mut self) {
        self.list.clear();
        self.present = KnownSet::default();
        self.repeated = KnownSet::default();
        self.options = Options::default();
    }

    /// Adds a field, whose name and value are checked already.
    ///
    /// # Errors
    /// When there are as many as there may be.
    #[inline]
    pub(crate) fn add(
        &mut self,
        bytes: &[u8],
        name: Range<usize>,
        value: Range<usize>,
        known: Known,
    ) -> Result<(), Reject> {
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
        Ok(())
    }

    /// The value of the first field that is `known`.
    #[inline]
    pub(crate) fn first<'a>(&self, buf: &'a [u8], known: Known) -> Option<&'a [u8]> {
        if !self.present.contains(known) {
            return None;
        }
        self.list.iter().find(|field| field.known == known).map(|field| field.value.of(buf))
    }

    /// The values of the fields named `name` in any case.
    pub(crate) fn named<'a, 'n>(
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
    pub(crate) fn elements<'a>(&'a self, buf: &'a [u8], known: Known) -> impl Iterator<Item = &'a [u8]> {
        let list: &[Field] = if self.present.contains(known) { &self.list } else { &[] };
        list.iter()
            .filter(move |field| field.known == known)
            .flat_map(|field| scan::list(field.value.of(buf)))
    }
}
