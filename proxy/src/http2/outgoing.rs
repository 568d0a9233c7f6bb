//! What the library writes, on its way out: the skeletons of heads are told from what goes as it is, and header blocks become
//! frames.

use super::{
    guard::{PREFACE, Role},
    hpack::encode::NO_TABLE,
};

/// The length of a frame's head.
const HEAD_LEN: usize = 9;

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

/// What every peer takes in a frame (RFC 9113 section 4.2).
const MAX_PAYLOAD: usize = 16 * 1024;

/// Follows what is written to a connection.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// So many bytes go as they are, of frames that were looked at.
    left: usize,
    /// The peer was told that there is no table.
    told: bool,
}

/// A skeleton.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bones {
    pub(super) stream: u32,
    /// Bytes of all the frame.
    pub(super) length: usize,
    ends: bool,
}

impl Outgoing {
    /// For a connection to a peer that is `role`, on which nothing was written.
    pub(super) fn new(role: Role) -> Self {
        Self { left: if role == Role::Server { PREFACE.len() } else { 0 }, told: false }
    }

    /// How many bytes, of which these are the first, go as they are. Tells of streams that are reset among them.
    pub(super) fn run(&mut self, bytes: &[u8], mut is_reset: impl FnMut(u32)) -> usize {
        while let Some((&[a, b, c, kind, _, s0, s1, s2, s3], _)) =
            bytes.get(self.left..).and_then(<[u8]>::split_first_chunk::<HEAD_LEN>)
        {
            match kind {
                HEADERS => break,
                RST_STREAM => is_reset(u32::from_be_bytes([s0, s1, s2, s3])),
                _ => {}
            }
            self.left += HEAD_LEN + u32::from_be_bytes([0, a, b, c]) as usize;
        }
        self.left
    }

    /// So many of them have gone.
    pub(super) fn passed(&mut self, n: usize) {
        self.left -= n;
    }

    /// The skeleton that bytes begin with which do not go as they are. The library writes one as a whole.
    pub(super) fn skeleton(bytes: &[u8]) -> Option<Bones> {
        let &[a, b, c, HEADERS, flags, s0, s1, s2, s3] = bytes.first_chunk::<HEAD_LEN>()? else {
            return None;
        };
        let length = HEAD_LEN + u32::from_be_bytes([0, a, b, c]) as usize;
        let stream = u32::from_be_bytes([s0, s1, s2, s3]);
        (length <= bytes.len()).then_some(Bones { stream, length, ends: flags & END_STREAM != 0 })
    }

    /// The frames of a block that takes the place of a skeleton, one part after the other.
    pub(super) fn frames(&mut self, bones: Bones, block: &[u8], mut put: impl FnMut(&[u8])) {
        let mut first: &[u8] = if std::mem::replace(&mut self.told, true) { &[] } else { &[NO_TABLE] };
        let mut rest = block;
        let mut kind = HEADERS;
        loop {
            let (part, behind) = rest.split_at(rest.len().min(MAX_PAYLOAD - first.len()));
            let [_, a, b, c] = ((first.len() + part.len()) as u32).to_be_bytes();
            let [s0, s1, s2, s3] = bones.stream.to_be_bytes();
            let ends = if kind == HEADERS && bones.ends { END_STREAM } else { 0 };
            let complete = if behind.is_empty() { END_HEADERS } else { 0 };
            put(&[a, b, c, kind, ends | complete, s0, s1, s2, s3]);
            put(first);
            put(part);
            if behind.is_empty() {
                return;
            }
            (first, rest, kind) = (&[], behind, CONTINUATION);
        }
    }

    /// How long these are, at most.
    pub(super) fn length(block: &[u8]) -> usize {
        let length = 1 + block.len();
        length + HEAD_LEN * length.div_ceil(MAX_PAYLOAD)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        let [_, a, b, c] = (payload.len() as u32).to_be_bytes();
        [&[a, b, c, kind, flags, 0, 0, 0, stream], payload].concat()
    }

    #[test]
    fn what_is_no_head_goes_as_it_is() {
        let mut outgoing = Outgoing::new(Role::Server);
        let begin = [&PREFACE[..], &frame(4, 0, 0, &[0; 6]), &frame(RST_STREAM, 0, 3, &[0; 4])].concat();
        let head = frame(HEADERS, END_STREAM | END_HEADERS, 5, &[0x88]);
        let data = frame(0, 0, 5, &[0; 100]);
        let bytes = [&begin[..], &head, &data].concat();
        let mut reset = Vec::new();
        assert_eq!(outgoing.run(&bytes, |stream| reset.push(stream)), begin.len());
        assert_eq!(reset, [3]);
        // It may be taken in pieces.
        outgoing.passed(30);
        assert_eq!(outgoing.run(&bytes[30..], |_| unreachable!("it is known")), begin.len() - 30);
        outgoing.passed(begin.len() - 30);
        let rest = &bytes[begin.len()..];
        assert_eq!(outgoing.run(rest, |_| {}), 0);
        let bones = Outgoing::skeleton(rest).unwrap();
        assert_eq!(bones, Bones { stream: 5, length: 10, ends: true });
        let rest = &rest[10..];
        // The payload may stand elsewhere.
        assert_eq!(outgoing.run(&rest[..20], |_| {}), data.len());
        outgoing.passed(20);
        assert_eq!(outgoing.run(&rest[20..], |_| {}), data.len() - 20);
        assert_eq!(Outgoing::skeleton(&head[..9]), None);
        assert_eq!(Outgoing::skeleton(&data), None);
    }

    #[test]
    fn blocks_become_frames_that_every_peer_takes() {
        let mut outgoing = Outgoing::new(Role::Client);
        for (length, ends, told) in [(0, true, 1), (5, false, 0), (16 * 1024, false, 0), (40_000, true, 0)] {
            let block = vec![b'b'; length];
            let mut out = Vec::new();
            let bones = Bones { stream: 7, length: 9, ends };
            outgoing.frames(bones, &block, |part| out.extend_from_slice(part));
            assert!(out.len() <= Outgoing::length(&block));
            let (mut rest, mut whole, mut kinds) = (&out[..], Vec::new(), Vec::new());
            while let [a, b, c, kind, flags, 0, 0, 0, 7, behind @ ..] = rest {
                let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
                assert!(length <= MAX_PAYLOAD);
                whole.extend_from_slice(&behind[..length]);
                kinds.push((*kind, *flags));
                rest = &behind[length..];
            }
            assert!(rest.is_empty());
            assert_eq!(whole, [&vec![NO_TABLE; told][..], &block].concat());
            let end = u8::from(ends);
            let expected: &[_] = match length {
                40_000 => &[(HEADERS, end), (CONTINUATION, 0), (CONTINUATION, END_HEADERS)],
                _ => &[(HEADERS, end | END_HEADERS)],
            };
            assert_eq!(kinds, expected);
        }
    }
}
