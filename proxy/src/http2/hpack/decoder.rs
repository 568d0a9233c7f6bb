//! Blocks that come.

use super::{Bounds, Error, FieldList, STATIC, huffman, table::Table};

/// The size that the dynamic table has before anything is said of it (RFC 9113 section 6.5.2).
const DEFAULT_SIZE: usize = 4096;

/// An integer beyond this is an error. No block is as long.
const LARGEST: usize = 1 << 24;

/// Decodes the blocks of one direction of a connection, one after the other.
#[derive(Clone, Debug)]
pub struct Decoder {
    table: Table,
    /// What the peer may make of the table's size.
    most: usize,
}

/// How the name of a field is told.
enum Name {
    Index(usize),
    Literal,
}

impl Decoder {
    /// For a connection on which SETTINGS_HEADER_TABLE_SIZE is announced to be so many bytes. Less than what it is by default
    /// would hold only once the peer has said that it knows, so the default holds at least.
    pub fn new(table: usize) -> Self {
        Self { table: Table::new(DEFAULT_SIZE), most: table.max(DEFAULT_SIZE) }
    }

    /// Decodes a block, whose fields are appended to `list` as far as there is room for them.
    ///
    /// # Errors
    /// When it is none. What was decoded until then is in the list.
    pub fn decode(&mut self, block: &[u8], list: &mut FieldList, bounds: Bounds) -> Result<(), Error> {
        let mut rest = block;
        let mut first = true;
        while let Some(&byte) = rest.first() {
            match byte {
                0x80.. => {
                    let index = integer(&mut rest, 7)?;
                    let (name, value) = self.entry(index)?;
                    list.push(name, value, bounds);
                }
                0x40.. => self.literal(&mut rest, 6, true, list, bounds)?,
                0x20.. => {
                    let size = integer(&mut rest, 5)?;
                    if !first || size > self.most {
                        return Err(Error::Size);
                    }
                    self.table.resize(size);
                    // Another may follow.
                    continue;
                }
                _ => self.literal(&mut rest, 4, false, list, bounds)?,
            }
            first = false;
        }
        Ok(())
    }

    /// A field in letters, whose index has so many bits in the first byte.
    fn literal(
        &mut self,
        rest: &mut &[u8],
        prefix: u32,
        add: bool,
        list: &mut FieldList,
        bounds: Bounds,
    ) -> Result<(), Error> {
        let name = match integer(rest, prefix)? {
            0 => Name::Literal,
            index => Name::Index(index),
        };
        let begun = list.begin();
        let value_at = match self.texts(name, rest, list.buffer()) {
            Ok(value_at) => value_at,
            Err(error) => {
                list.give_up(begun);
                return Err(error);
            }
        };
        if add {
            let (name, value) = list.begun(begun, value_at);
            self.table.add(name, value);
        }
        list.end(begun, value_at, bounds);
        Ok(())
    }

    /// Appends a name and a value; where the value begins.
    #[inline]
    fn texts(&self, name: Name, rest: &mut &[u8], out: &mut Vec<u8>) -> Result<usize, Error> {
        match name {
            Name::Literal => string(rest, out)?,
            Name::Index(index) => out.extend_from_slice(self.entry(index)?.0),
        }
        let value_at = out.len();
        string(rest, out)?;
        Ok(value_at)
    }

    #[inline]
    fn entry(&self, index: usize) -> Result<(&[u8], &[u8]), Error> {
        let index = index.checked_sub(1).ok_or(Error::Index)?;
        match STATIC.get(index) {
            Some(&entry) => Ok(entry),
            None => self.table.get(index - STATIC.len()).ok_or(Error::Index),
        }
    }

    /// As RFC 7541 section 4.1 counts.
    #[cfg(test)]
    pub(super) fn table_size(&self) -> usize {
        self.table.size()
    }

    #[cfg(test)]
    pub(super) fn table_held(&self) -> usize {
        self.table.held()
    }

    #[cfg(test)]
    pub(super) fn table_entry(&self, n: usize) -> Option<(&[u8], &[u8])> {
        self.table.get(n)
    }
}

/// An integer of which so many bits are in the first byte (RFC 7541 section 5.1).
#[inline]
fn integer(rest: &mut &[u8], prefix: u32) -> Result<usize, Error> {
    let (&first, behind) = rest.split_first().ok_or(Error::Truncated)?;
    *rest = behind;
    let most = (1usize << prefix) - 1;
    let value = usize::from(first) & most;
    if value < most { Ok(value) } else { long_integer(rest, value) }
}

#[cold]
fn long_integer(rest: &mut &[u8], mut value: usize) -> Result<usize, Error> {
    for shift in [0, 7, 14, 21] {
        let (&byte, behind) = rest.split_first().ok_or(Error::Truncated)?;
        *rest = behind;
        value += usize::from(byte & 0x7f) << shift;
        if value > LARGEST {
            return Err(Error::Integer);
        }
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Error::Integer)
}

/// A string (RFC 7541 section 5.2), which is appended.
#[inline]
fn string(rest: &mut &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
    let coded = rest.first().is_some_and(|byte| byte & 0x80 != 0);
    let length = integer(rest, 7)?;
    let (text, behind) = rest.split_at_checked(length).ok_or(Error::Truncated)?;
    *rest = behind;
    if coded {
        huffman::decode(text, out)
    } else {
        out.extend_from_slice(text);
        Ok(())
    }
}
