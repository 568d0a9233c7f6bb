//! Bytes that can be recognised at any offset, for bodies too large to keep.

use std::sync::LazyLock;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// A prime, so that no buffer size of anybody divides it: bytes that are lost, repeated or swapped show.
const PERIOD: usize = 65_521;

static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..PERIOD).map(next).collect()
});

/// A position in an endless, irregular sequence of bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pattern {
    offset: u64,
}

impl Pattern {
    /// How many bytes went by.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next bytes, at most `max`.
    pub fn next(&mut self, max: u64) -> &'static [u8] {
        let at = (self.offset % PERIOD as u64) as usize;
        let n = (PERIOD - at).min(usize::try_from(max).unwrap_or(usize::MAX));
        self.offset += n as u64;
        &BYTES[at..at + n]
    }

    /// Checks that `bytes` are the next.
    ///
    /// # Panics
    /// When they are not.
    pub fn expect(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let at = self.offset;
            let expected = self.next(bytes.len() as u64);
            let (now, rest) = bytes.split_at(expected.len());
            assert!(now == expected, "not the bytes that were sent, after {at}");
            bytes = rest;
        }
    }

    /// The first `length` bytes of the sequence.
    pub fn bytes(length: u64) -> Vec<u8> {
        let mut pattern = Self::default();
        let mut bytes = Vec::new();
        while pattern.offset < length {
            bytes.extend_from_slice(pattern.next(length - pattern.offset));
        }
        bytes
    }

    /// Writes `length` bytes.
    ///
    /// # Errors
    /// As the destination says.
    pub async fn send(
        &mut self,
        length: u64,
        destination: &mut (impl AsyncWrite + Unpin),
    ) -> std::io::Result<()> {
        let end = self.offset + length;
        while self.offset < end {
            let left = end - self.offset;
            destination.write_all(self.next(left)).await?;
        }
        Ok(())
    }

    /// Reads until the end of the stream, checking each byte.
    ///
    /// # Errors
    /// As the source says.
    pub async fn receive(&mut self, source: &mut (impl AsyncRead + Unpin)) -> std::io::Result<()> {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let n = source.read(&mut buffer).await?;
            if n == 0 {
                return Ok(());
            }
            self.expect(&buffer[..n]);
        }
    }
}
