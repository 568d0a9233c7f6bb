//! Frames in bytes.

use super::{Fault, MAX_SETTINGS, Verdict};

/// The length of a frame's head (RFC 9113 section 4.1).
pub(super) const HEAD_LEN: usize = 9;

/// Types of frames (RFC 9113 section 6).
pub(super) mod kind {
    pub(in crate::http2::guard) const DATA: u8 = 0;
    pub(in crate::http2::guard) const HEADERS: u8 = 1;
    pub(in crate::http2::guard) const PRIORITY: u8 = 2;
    pub(in crate::http2::guard) const RST_STREAM: u8 = 3;
    pub(in crate::http2::guard) const SETTINGS: u8 = 4;
    pub(in crate::http2::guard) const PUSH_PROMISE: u8 = 5;
    pub(in crate::http2::guard) const PING: u8 = 6;
    pub(in crate::http2::guard) const GOAWAY: u8 = 7;
    pub(in crate::http2::guard) const WINDOW_UPDATE: u8 = 8;
    pub(in crate::http2::guard) const CONTINUATION: u8 = 9;
}

/// Flags of frames.
pub(super) mod flag {
    pub(in crate::http2::guard) const ACK: u8 = 0x1;
    pub(in crate::http2::guard) const END_STREAM: u8 = 0x1;
    pub(in crate::http2::guard) const END_HEADERS: u8 = 0x4;
    pub(in crate::http2::guard) const PADDED: u8 = 0x8;
    pub(in crate::http2::guard) const PRIORITY: u8 = 0x20;
}

/// A frame that comes, of which enough is there to decide on it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame<'a> {
    pub(super) length: u32,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    /// The first bytes of the payload, as far as they say what it is.
    pub(super) start: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The frame that `bytes` begin with, if enough of it is there.
    #[inline]
    pub(super) fn first_of(bytes: &'a [u8]) -> Option<Self> {
        let (&[a, b, c, kind, flags, s0, s1, s2, s3], behind) = bytes.split_first_chunk::<HEAD_LEN>()?;
        let length = u32::from_be_bytes([0, a, b, c]);
        let padded = u32::from(flags & flag::PADDED != 0);
        let want = match kind {
            kind::WINDOW_UPDATE | kind::RST_STREAM => 4,
            kind::DATA => padded,
            kind::HEADERS if flags & flag::PRIORITY != 0 => padded + 5,
            kind::HEADERS => padded,
            // One that is too long is none.
            kind::SETTINGS => MAX_SETTINGS,
            _ => 0,
        };
        let start = behind.get(..want.min(length) as usize)?;
        Some(Self { length, kind, flags, stream: u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]), start })
    }

    #[inline]
    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Whether it has a part of a header block.
    #[inline]
    pub(super) fn is_of_block(&self) -> bool {
        matches!(self.kind, kind::HEADERS | kind::CONTINUATION)
    }

    /// What a payload of four bytes says.
    pub(super) fn number(&self) -> u32 {
        self.start.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes))
    }

    /// The first byte of the payload.
    pub(super) fn octet(&self) -> u8 {
        self.start.first().copied().unwrap_or(0)
    }

    /// Of HEADERS: the bytes of padding, and whether the stream is to depend on itself.
    pub(super) fn around_block(&self) -> Result<(u32, bool), Verdict> {
        let padded = usize::from(self.has(flag::PADDED));
        let prioritized = if self.has(flag::PRIORITY) { 5 } else { 0 };
        if self.start.len() < padded + prioritized {
            return Err(Verdict::Fault(Fault::FrameSize, "HEADERS that end before their block"));
        }
        let padding = if padded > 0 { u32::from(self.octet()) } else { 0 };
        if padding + self.start.len() as u32 > self.length {
            return Err(Verdict::Fault(Fault::Protocol, "more padding than there is room for"));
        }
        let on = self.start[padded..].first_chunk().map(|bytes| u32::from_be_bytes(*bytes) & 0x7fff_ffff);
        Ok((padding, on == Some(self.stream)))
    }

    /// Of SETTINGS: numbers and values.
    pub(super) fn settings(&self) -> impl Iterator<Item = (u16, u32)> {
        let (settings, _) = self.start.as_chunks::<6>();
        settings.iter().map(|&[a, b, value @ ..]| (u16::from_be_bytes([a, b]), u32::from_be_bytes(value)))
    }
}

/// Finds frames in bytes that are sent in any pieces: the head, and the first bytes behind it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Follower {
    head: [u8; HEAD_LEN],
    /// Bytes of the head that are there.
    have: u8,
    /// Bytes of the payload that are to come.
    pub(super) left: u32,
    /// The first bytes of the payload.
    start: [u8; 4],
    /// How many of them are there.
    start_have: u8,
    /// How many are waited for.
    start_want: u8,
}

/// A frame that is sent, of which enough is there to decide on it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) length: u32,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    start: [u8; 4],
}

impl Sent {
    #[inline]
    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// What a payload of four bytes says.
    pub(super) fn number(&self) -> u32 {
        u32::from_be_bytes(self.start)
    }
}

impl Follower {
    /// Takes bytes from the front of `bytes` until there is a frame to decide on, or they are used up. The bytes taken do not
    /// complete a frame of which that is the last part.
    #[inline]
    pub(super) fn next(&mut self, bytes: &mut &[u8]) -> Option<Sent> {
        while !bytes.is_empty() {
            if usize::from(self.have) < HEAD_LEN {
                // The payload of the frame before, then the head of the next.
                if self.left > 0 {
                    let n = (self.left as usize).min(bytes.len());
                    self.left -= n as u32;
                    *bytes = &bytes[n..];
                    continue;
                }
                let have = usize::from(self.have);
                let n = (HEAD_LEN - have).min(bytes.len());
                self.head[have..have + n].copy_from_slice(&bytes[..n]);
                self.have += n as u8;
                *bytes = &bytes[n..];
                if usize::from(self.have) < HEAD_LEN {
                    return None;
                }
                let [a, b, c, kind, ..] = self.head;
                self.left = u32::from_be_bytes([0, a, b, c]);
                let want = match kind {
                    kind::RST_STREAM => 4,
                    _ => 0,
                };
                self.start = [0; 4];
                self.start_have = 0;
                self.start_want = want.min(self.left) as u8;
            } else {
                let have = usize::from(self.start_have);
                let n = (usize::from(self.start_want) - have).min(bytes.len());
                self.start[have..have + n].copy_from_slice(&bytes[..n]);
                self.start_have += n as u8;
                self.left -= n as u32;
                *bytes = &bytes[n..];
            }
            if self.start_have == self.start_want {
                self.have = 0;
                let [a, b, c, kind, flags, s0, s1, s2, s3] = self.head;
                return Some(Sent {
                    length: u32::from_be_bytes([0, a, b, c]),
                    kind,
                    flags,
                    stream: u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]),
                    start: self.start,
                });
            }
        }
        None
    }
}
