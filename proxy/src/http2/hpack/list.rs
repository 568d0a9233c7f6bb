//! Fields as they were decoded.

use super::OVERHEAD;
use crate::http::scan;

/// What a [`FieldList`] may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Fields, pseudo-header fields among them.
    pub fields: usize,
    /// Bytes, counted as SETTINGS_MAX_HEADER_LIST_SIZE is: names, values, and 32 for each field.
    pub bytes: usize,
}

impl Bounds {
    /// Of what is bounded by who has made it.
    pub const NONE: Self = Self { fields: usize::MAX, bytes: usize::MAX };
}

/// How a field begins: the lengths of its name and its value.
const PREFIX: usize = 4;

/// Fields in the order in which they came, in one piece of memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldList {
    /// Of each field [`PREFIX`] bytes, the name, and the value.
    bytes: Vec<u8>,
    count: u32,
    /// As [`Bounds::bytes`] has it; of what is beyond the bounds, too.
    size: usize,
    exceeds: bool,
}

impl FieldList {
    /// An empty one, with room for as many bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), ..Self::default() }
    }

    /// One that stands for what was not kept, of so many bytes.
    pub fn beyond_bounds(size: usize) -> Self {
        Self { exceeds: true, size, ..Self::default() }
    }

    /// How long it is as a head of HTTP/1.1; of what was not kept, as it came.
    pub fn came(&self) -> usize {
        if self.exceeds {
            return self.size;
        }
        self.iter().map(|(name, value)| name.len() + value.len() + 4).sum()
    }

    /// What `:status` says, if that is three digits.
    pub fn status(&self) -> Option<u16> {
        let (_, value) = self.iter().find(|(name, _)| *name == b":status")?;
        match value {
            [b'1'..=b'9', b'0'..=b'9', b'0'..=b'9'] => {
                Some(value.iter().fold(0, |number, digit| number * 10 + u16::from(digit - b'0')))
            }
            _ => None,
        }
    }

    /// What `content-length` says; `None` where it is not there, or says more than one thing or none.
    pub fn content_length(&self) -> Option<u64> {
        self.length().ok().flatten()
    }

    /// Whether `content-length` is there and says more than one thing, or none.
    pub fn has_bad_length(&self) -> bool {
        self.length().is_err()
    }

    fn length(&self) -> Result<Option<u64>, ()> {
        let mut length = None;
        for (_, value) in self.iter().filter(|(name, _)| *name == b"content-length") {
            let digits = std::str::from_utf8(scan::trim(value)).map_err(|_| ())?;
            if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(());
            }
            let this: u64 = digits.parse().map_err(|_| ())?;
            if length.is_some_and(|length| length != this) {
                return Err(());
            }
            length = Some(this);
        }
        Ok(length)
    }

    /// The fields, names and values.
    pub fn iter(&self) -> Fields<'_> {
        Fields(&self.bytes)
    }

    /// How many fields there are.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether there were more than may be held: those that there are mean nothing then.
    pub fn exceeds(&self) -> bool {
        self.exceeds
    }

    /// As [`Bounds::bytes`] counts; of what is beyond the bounds, too.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Bytes of memory.
    pub fn held(&self) -> usize {
        self.bytes.capacity() + size_of::<Self>()
    }

    /// Gives back the memory that is not needed, if that is much.
    pub fn fit(&mut self) {
        if self.bytes.capacity() > 2 * self.bytes.len() + 256 {
            self.bytes.shrink_to_fit();
        }
    }

    /// Appends a field.
    pub fn push(&mut self, name: &[u8], value: &[u8], bounds: Bounds) {
        let Some(prefix) = self.admit(name.len(), value.len(), bounds) else { return };
        self.bytes.reserve(PREFIX + name.len() + value.len());
        self.bytes.extend_from_slice(&prefix);
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(value);
    }

    /// Counts a field; what it begins with, if it is within the bounds, as all before it were.
    #[inline]
    fn admit(&mut self, name: usize, value: usize, bounds: Bounds) -> Option<[u8; PREFIX]> {
        // One byte of a block may stand for all of the table.
        self.size += name + value + OVERHEAD;
        let within = !self.exceeds && self.size <= bounds.bytes && self.len() < bounds.fields;
        match (u16::try_from(name), u16::try_from(value)) {
            (Ok(name), Ok(value)) if within => {
                self.count += 1;
                let [n0, n1] = name.to_ne_bytes();
                let [v0, v1] = value.to_ne_bytes();
                Some([n0, n1, v0, v1])
            }
            _ => {
                self.exceeds = true;
                None
            }
        }
    }

    /// Begins a field: its name and its value are to be appended to [`buffer`](Self::buffer).
    #[inline]
    pub(super) fn begin(&mut self) -> usize {
        let begun = self.bytes.len();
        self.bytes.extend_from_slice(&[0; PREFIX]);
        begun
    }

    #[inline]
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Name and value of the field that has `begun` and is complete, whose value begins at `value_at`.
    #[inline]
    pub(super) fn begun(&self, begun: usize, value_at: usize) -> (&[u8], &[u8]) {
        (&self.bytes[begun + PREFIX..value_at], &self.bytes[value_at..])
    }

    /// Takes back a field that has `begun` and does not end.
    #[cold]
    pub(super) fn give_up(&mut self, begun: usize) {
        self.bytes.truncate(begun);
    }

    /// Ends the field that has `begun`, whose value begins at `value_at`: beyond the bounds it is dropped.
    #[inline]
    pub(super) fn end(&mut self, begun: usize, value_at: usize, bounds: Bounds) {
        let (name, value) = (value_at - begun - PREFIX, self.bytes.len() - value_at);
        match self.admit(name, value, bounds) {
            Some(prefix) => self.bytes[begun..begun + PREFIX].copy_from_slice(&prefix),
            None => self.bytes.truncate(begun),
        }
    }
}

/// The fields of a [`FieldList`].
#[derive(Clone, Debug)]
pub struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = (&'a [u8], &'a [u8]);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let (&[n0, n1, v0, v1], rest) = self.0.split_first_chunk::<PREFIX>()?;
        let (name, rest) = rest.split_at_checked(usize::from(u16::from_ne_bytes([n0, n1])))?;
        let (value, rest) = rest.split_at_checked(usize::from(u16::from_ne_bytes([v0, v1])))?;
        self.0 = rest;
        Some((name, value))
    }
}

impl<'a> IntoIterator for &'a FieldList {
    type Item = (&'a [u8], &'a [u8]);
    type IntoIter = Fields<'a>;

    fn into_iter(self) -> Fields<'a> {
        self.iter()
    }
}
