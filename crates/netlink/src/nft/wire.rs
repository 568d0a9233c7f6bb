//! Messages of the kernel's netfilter subsystems, as bytes.

/// `struct nlmsghdr` and `struct nfgenmsg` together.
const HEADER: usize = 20;

/// Attributes, one after the other. Numbers of nfnetlink are in network order.
#[derive(Clone, Debug, Default)]
pub(super) struct Attributes(Vec<u8>);

impl Attributes {
    pub(super) fn bytes(mut self, kind: u16, bytes: &[u8]) -> Self {
        self.put(kind, bytes);
        self
    }

    pub(super) fn text(self, kind: u16, text: &str) -> Self {
        let mut bytes = Vec::with_capacity(text.len() + 1);
        bytes.extend(text.as_bytes());
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    pub(super) fn u32(self, kind: u16, number: u32) -> Self {
        self.bytes(kind, &number.to_be_bytes())
    }

    pub(super) fn u64(self, kind: u16, number: u64) -> Self {
        self.bytes(kind, &number.to_be_bytes())
    }

    pub(super) fn nested(self, kind: u16, inner: &Self) -> Self {
        self.bytes(kind | NESTED, &inner.0)
    }

    pub(super) fn put(&mut self, kind: u16, bytes: &[u8]) {
        // Who makes lists ends them before they grow to this.
        let length = u16::try_from(bytes.len() + 4).unwrap_or(u16::MAX);
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(bytes);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    /// What comes before the attributes, behind the family.
    pub(super) fn behind(header: &[u8]) -> Self {
        Self(header.to_vec())
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        &self.0
    }
}

/// `NLA_F_NESTED`.
const NESTED: u16 = 1 << 15;
/// `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER`.
const KIND: u16 = !(3 << 14);

/// Appends a message of a netfilter subsystem.
pub(super) fn message(
    to: &mut Vec<u8>,
    kind: u16,
    flags: u16,
    sequence: u32,
    family: u8,
    resource: u16,
    attributes: &[u8],
) {
    to.extend(((HEADER + attributes.len()) as u32).to_ne_bytes());
    to.extend(kind.to_ne_bytes());
    to.extend(flags.to_ne_bytes());
    to.extend(sequence.to_ne_bytes());
    to.extend([0; 4]);
    to.extend([family, 0]);
    to.extend(resource.to_be_bytes());
    to.extend(attributes);
    to.resize(to.len().next_multiple_of(4), 0);
}

/// A message of the kernel's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Received<'a> {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) sequence: u32,
    pub(super) body: &'a [u8],
}

impl<'a> Received<'a> {
    /// What comes behind `struct nfgenmsg`.
    pub(super) fn attributes(&self) -> AttributeIter<'a> {
        AttributeIter(self.body.get(4..).unwrap_or_default())
    }
}

/// The messages of one datagram; ends at what is no message.
pub(super) struct Messages<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Received<'a>;

    fn next(&mut self) -> Option<Received<'a>> {
        let (head, _) = self.0.split_first_chunk::<16>()?;
        let length = u32_ne(&head[..4])? as usize;
        let message = self.0.get(..length).filter(|message| message.len() >= 16)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Received {
            kind: u16::from_ne_bytes([head[4], head[5]]),
            flags: u16::from_ne_bytes([head[6], head[7]]),
            sequence: u32_ne(&head[8..12])?,
            body: &message[16..],
        })
    }
}

/// Attributes that came, each with its kind; ends at what is none.
#[derive(Clone, Copy, Debug)]
pub(super) struct AttributeIter<'a>(pub(super) &'a [u8]);

impl<'a> AttributeIter<'a> {
    /// The first of this kind.
    pub(super) fn find(mut self, kind: u16) -> Option<&'a [u8]> {
        self.by_ref().find(|(found, _)| *found == kind).map(|(_, value)| value)
    }

    /// What is inside the first of this kind.
    pub(super) fn inside(self, kind: u16) -> Option<Self> {
        self.find(kind).map(Self)
    }
}

impl<'a> Iterator for AttributeIter<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (head, _) = self.0.split_first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([head[2], head[3]]) & KIND, value))
    }
}

pub(super) fn u32_ne(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

pub(super) fn u32_be(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

pub(super) fn u64_be(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

/// A string of the kernel's, without what ends it.
pub(super) fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes.split(|byte| *byte == 0).next()?).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::{collection::vec, prelude::*};

    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let inner = Attributes::default().u32(1, 7).text(2, "name");
        let attributes = Attributes::default().bytes(3, &[1, 2, 3]).nested(4, &inner).u64(5, 1 << 40);
        let mut bytes = Vec::new();
        message(&mut bytes, 0xa06, 5, 9, 1, 10, attributes.as_slice());
        message(&mut bytes, 2, 0, 10, 0, 0, &[]);
        let messages: Vec<_> = Messages(&bytes).collect();
        assert_eq!(
            messages.iter().map(|m| (m.kind, m.flags, m.sequence)).collect::<Vec<_>>(),
            [(0xa06, 5, 9), (2, 0, 10)]
        );
        let read = messages[0].attributes();
        assert_eq!(read.find(3), Some(&[1, 2, 3][..]));
        assert_eq!(read.inside(4).unwrap().find(1).and_then(u32_be), Some(7));
        assert_eq!(read.inside(4).unwrap().find(2).and_then(text), Some("name"));
        assert_eq!(read.find(5).and_then(u64_be), Some(1 << 40));
        assert_eq!(read.find(6), None);
    }

    proptest! {
        #[test]
        fn whatever_comes_ends(bytes in vec(any::<u8>(), 0..200)) {
            for message in Messages(&bytes) {
                prop_assert!(message.attributes().count() <= bytes.len());
            }
        }
    }
}
