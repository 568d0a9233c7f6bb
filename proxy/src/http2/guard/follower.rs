//! Frames in bytes that come in any pieces.

const HEAD_LEN: usize = 9;

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
}

/// Finds frames in bytes that come in any pieces: the head, and the first bytes behind it.
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

/// A frame of which enough is there to decide on it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub(super) length: u32,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) start: [u8; 4],
}

impl Frame {
    #[inline]
    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    pub(super) fn number(&self) -> u32 {
        u32::from_be_bytes(self.start)
    }
}

impl Follower {
    /// Takes bytes from the front of `bytes` until there is a frame to decide on, or they are used up. The bytes taken do not
    /// complete a frame of which that is the last part.
    #[inline]
    pub(super) fn next(&mut self, bytes: &mut &[u8]) -> Option<Frame> {
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
                let [a, b, c, kind, flags, ..] = self.head;
                self.left = u32::from_be_bytes([0, a, b, c]);
                let want = match kind {
                    kind::WINDOW_UPDATE | kind::RST_STREAM => 4,
                    kind::DATA if flags & flag::PADDED != 0 => 1,
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
                return Some(Frame {
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

    /// The rest of the frame that was found last.
    #[inline]
    pub(super) fn rest(&mut self, bytes: &mut &[u8]) -> bool {
        let n = (self.left as usize).min(bytes.len());
        self.left -= n as u32;
        *bytes = &bytes[n..];
        self.left == 0
    }
}

/// Finds the settings in the payload of SETTINGS.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Settings {
    bytes: [u8; 6],
    have: u8,
}

impl Settings {
    /// The next setting, its number and its value, of the frame that was found last.
    pub(super) fn next(&mut self, follower: &mut Follower, bytes: &mut &[u8]) -> Option<(u16, u32)> {
        let have = usize::from(self.have);
        let n = (6 - have).min(bytes.len()).min(follower.left as usize);
        self.bytes[have..have + n].copy_from_slice(&bytes[..n]);
        self.have += n as u8;
        follower.left -= n as u32;
        *bytes = &bytes[n..];
        if usize::from(self.have) < 6 {
            return None;
        }
        self.have = 0;
        let [a, b, value @ ..] = self.bytes;
        Some((u16::from_be_bytes([a, b]), u32::from_be_bytes(value)))
    }
}
