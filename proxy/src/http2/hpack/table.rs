//! The dynamic table (RFC 7541 sections 2.3.2 and 4).

use std::collections::VecDeque;

use super::OVERHEAD;

/// The fields that were added last, within a size.
#[derive(Clone, Debug)]
pub(super) struct Table {
    /// The first is the oldest.
    entries: VecDeque<Place>,
    /// What they are places in: oldest first, behind what is not needed any more.
    bytes: Vec<u8>,
    size: usize,
    most: usize,
}

/// Where an entry is.
#[derive(Clone, Copy, Debug)]
struct Place {
    start: u32,
    name: u32,
    value: u32,
}

impl Place {
    fn size(self) -> usize {
        (self.name + self.value) as usize + OVERHEAD
    }
}

impl Table {
    /// An empty one, which takes no memory until something is added.
    pub(super) fn new(most: usize) -> Self {
        Self { entries: VecDeque::new(), bytes: Vec::new(), size: 0, most }
    }

    /// The entry that was added last but `n`, name and value.
    #[inline]
    pub(super) fn get(&self, n: usize) -> Option<(&[u8], &[u8])> {
        let index = self.entries.len().checked_sub(n + 1)?;
        let place = self.entries.get(index)?;
        let value = (place.start + place.name) as usize;
        Some((&self.bytes[place.start as usize..value], &self.bytes[value..value + place.value as usize]))
    }

    /// Keeps at most so many bytes from now on.
    pub(super) fn resize(&mut self, most: usize) {
        self.most = most;
        self.evict(most);
        if most == 0 {
            *self = Self::new(0);
        }
    }

    /// Adds an entry. One that is larger than the table empties it.
    pub(super) fn add(&mut self, name: &[u8], value: &[u8]) {
        let size = name.len() + value.len() + OVERHEAD;
        if size > self.most {
            self.evict(0);
            return;
        }
        self.evict(self.most - size);
        self.forget();
        self.entries.push_back(Place {
            start: self.bytes.len() as u32,
            name: name.len() as u32,
            value: value.len() as u32,
        });
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(value);
        self.size += size;
    }

    /// Drops the oldest entries until there are at most so many bytes.
    fn evict(&mut self, most: usize) {
        while self.size > most
            && let Some(place) = self.entries.pop_front()
        {
            self.size -= place.size();
        }
    }

    /// Gives up the bytes in front of the first entry once they are as many as a table may have.
    fn forget(&mut self) {
        let Some(first) = self.entries.front().map(|place| place.start) else {
            self.bytes.clear();
            return;
        };
        if first as usize > self.most {
            self.bytes.drain(..first as usize);
            for place in &mut self.entries {
                place.start -= first;
            }
        }
    }

    /// As RFC 7541 section 4.1 counts.
    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Bytes of memory.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.bytes.capacity() + self.entries.capacity() * size_of::<Place>()
    }
}
