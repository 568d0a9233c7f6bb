//! What we send, as far as it earns the peer something, or is for what the peer has done wrong.

use std::time::Instant;

use super::{
    Excess, Guard, Role, SMALL_MESSAGE, Verdict,
    follower::{flag, kind},
};

impl Guard {
    /// Looks at bytes that we send, `now`.
    ///
    /// # Errors
    /// When the peer has made us send too much; the bytes may go all the same.
    pub fn outbound(&mut self, bytes: &[u8], now: Instant) -> Result<(), Verdict> {
        let mut rest = bytes;
        while let Some(frame) = self.outbound.next(&mut rest) {
            match frame.kind {
                kind::DATA | kind::HEADERS => {
                    self.frames.sent += 1;
                    self.pings.give(1);
                    if frame.kind == kind::DATA {
                        let messages = frame.length / SMALL_MESSAGE;
                        self.window_updates.give(16 + messages);
                        self.small_increments.give(messages);
                    }
                    // HEADERS behind a request's body are its trailers.
                    let opens = self.role == Role::Server && frame.stream > self.last_stream;
                    if opens {
                        self.last_stream = frame.stream;
                        self.frames.opened += 1;
                        // What is asked of a member is bounded already.
                        self.provoked.give(1);
                    }
                    if frame.has(flag::END_STREAM) {
                        self.uploads.end(frame.stream);
                    } else if opens {
                        self.uploads.begin(frame.stream);
                    }
                    if opens || frame.has(flag::END_STREAM) {
                        self.resets.give(1);
                    }
                }
                kind::CONTINUATION => {}
                kind::RST_STREAM => {
                    self.uploads.end(frame.stream);
                    self.frames.resets_sent += 1;
                    // Of an interim response, the response and its trailers some may be on their way.
                    self.stray.give(4);
                    if is_peers_fault(frame.number()) && !self.provoked.take(now) {
                        let verdict = Verdict::Calm(Excess::ProvokedResets);
                        self.refused.get_or_insert(verdict);
                    }
                }
                _ => self.frames.control_sent += 1,
            }
        }
        self.refused.map_or(Ok(()), Err)
    }
}

/// Whether a stream is reset with this code for what the peer has done. The others are for what a member or we have: NO_ERROR,
/// INTERNAL_ERROR, CANCEL, ENHANCE_YOUR_CALM, HTTP_1_1_REQUIRED; or nobody has: STREAM_CLOSED, for data that was on its way
/// when we reset its stream.
fn is_peers_fault(code: u32) -> bool {
    !matches!(code, 0x0 | 0x2 | 0x5 | 0x8 | 0xb | 0xd)
}
