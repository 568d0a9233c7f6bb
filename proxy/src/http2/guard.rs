//! Frames that cost more than they carry (RFC 9113 section 10.5), counted before they reach the library.
//!
//! A [`Guard`] follows the frames of both directions as bytes pass, whatever they are cut into; it keeps some bytes of state,
//! has no clock, and decodes nothing. Of what comes it tells header blocks apart, which do not go on to the library. What a
//! peer sends to make us work is paid for with tokens: there are some at first, some come back with time, and some with work
//! that is of use (streams opened, data sent). Who has none left is told ENHANCE_YOUR_CALM.
//!
//! | what | at first | a second | besides | who comes closest |
//! | --- | --- | --- | --- | --- |
//! | PING | 500 | 50 | 1 for each DATA or HEADERS that we send | grpc measures the path with one per round trip while data flows |
//! | SETTINGS, GOAWAY | 50 | 1 | | grpc changes its window some ten times |
//! | PRIORITY, unknown types | 500 | 20 | 20 for each stream | Chrome and Firefox: some for each stream |
//! | WINDOW_UPDATE | 4,000 | 100 | 16 for each DATA and one for 5 bytes of it, 4 for each stream | Go: two for each 4 KiB of its reading |
//! | WINDOW_UPDATE below 256 bytes | 4,000 | 20 | one for 5 bytes of DATA, 4 for each stream | grpc: one for each message that it reads |
//! | RST_STREAM | 300 | 20 | 1 for each stream that we have ended, or opened | a browser that leaves a page: 100 at once |
//! | DATA without data that does not end a stream | 50 | 5 | | none |
//! | DATA below 16 bytes, of clients | 50,000 | 10,000 | | grpc with the smallest of messages |
//! | RST_STREAM by us, for what the peer did wrong | 100 | 5 | 1 for each stream that we have opened | none |
//! | HEADERS on a stream that nobody has | 300 | 10 | 4 for each that we have reset | a member that had begun to answer |
//!
//! A header block has at most [`MAX_BLOCK`] bytes (four times what we announce, so that who sends more than that is told so by a
//! 431) in at most [`MAX_CONTINUATIONS`] frames besides the first: clients fill frames, whose size is 16 KiB.
//!
//! The tokens of a second come only to an empty bucket, for the time since it was last given any: two at-firsts may so be spent
//! in a short time, and no clock is read for who stays within one.

mod follower;
mod outbound;
mod streams;
mod tokens;
mod uploads;
mod verdict;

use std::{ops::Range, time::Instant};

pub use self::verdict::{Excess, Fault, Verdict};
use self::{
    follower::{Follower, Frame, HEAD_LEN, flag, kind},
    streams::Streams,
    tokens::Bucket,
    uploads::Uploads,
};

/// What a connection of HTTP/2 begins with (RFC 9113 section 3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The most bytes of a header block, as they come.
pub const MAX_BLOCK: u32 = 64 * 1024;

/// The most CONTINUATION frames of a header block.
pub const MAX_CONTINUATIONS: u32 = 6;

/// The most bytes of a frame, as it is by default (RFC 9113 section 6.5.2).
const MAX_FRAME_SIZE: u32 = 16 * 1024;

/// The most bytes of a SETTINGS frame: 32 settings, as nghttp2 has it.
const MAX_SETTINGS: u32 = 32 * 6;

/// A WINDOW_UPDATE for less than this, and there is always some left, is of no use.
const SMALL_INCREMENT: u32 = 256;

/// The least that a message of gRPC takes. Its library opens the window for each as it is read; so does who wants to be sent
/// single bytes.
const SMALL_MESSAGE: u32 = 5;

/// The number of that setting.
const INITIAL_WINDOW_SIZE: u16 = 4;

/// DATA with less than this is counted.
const SMALL_DATA: u32 = 16;

/// How far bytes are used up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pass {
    /// So many of them. The head of a frame is used up as a whole: when it is none, and nothing else is said, it takes more.
    pub taken: usize,
    /// What they are.
    pub piece: Piece,
    /// What then.
    pub then: Then,
}

/// What bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// All of them are for the library.
    Onward,
    /// Those of the range are part of a header block, the others of the frame around it.
    Block(Range<usize>),
}

/// What comes behind the bytes that are used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Nothing: these were all.
    More,
    /// A header block is complete.
    Head(Opening),
    /// The peer has reset this stream.
    Reset(u32),
    /// Many small frames have gone on: their streams' tasks are to run before more does.
    Crowded,
    /// Nothing ever.
    Refuse(Verdict),
}

/// The frame that a header block has begun with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    /// Its stream.
    pub stream: u32,
    /// The client opens the stream with it.
    pub opens: bool,
    /// Nothing follows it.
    pub ends: bool,
    /// The stream is to depend on itself, which is an error of its own (RFC 7540 section 5.3.1).
    pub on_itself: bool,
}

/// How many frames of each kind have passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Frames {
    /// Bytes that have come.
    pub bytes: u64,
    /// Streams that the client of the two has opened.
    pub opened: u64,
    /// DATA and HEADERS that the peer has sent.
    pub received: u64,
    /// RST_STREAM that the peer has sent.
    pub resets_received: u64,
    /// Other frames that the peer has sent.
    pub control_received: u64,
    /// DATA and HEADERS that we have sent.
    pub sent: u64,
    /// RST_STREAM that we have sent.
    pub resets_sent: u64,
    /// Other frames that we have sent.
    pub control_sent: u64,
}

/// After so many DATA frames below [`CROWD_SIZE`] in a row their tasks run: the library holds some 250 bytes for each, whatever
/// is in it.
const CROWD: u32 = 64;
const CROWD_SIZE: u32 = 256;

/// Counts what a connection's peer does; see [the module](self).
#[derive(Clone, Debug)]
pub struct Guard {
    role: Role,
    /// Bytes of a frame that is under way which are for the library.
    left: u32,
    /// The same of a frame with a part of a header block, and of the padding behind that.
    fragment: u32,
    padding: u32,
    outbound: Follower,
    /// Bytes of the preface that are to come.
    preface: u8,
    /// A frame has come.
    begun: bool,
    /// The stream whose header block is under way, and what has come of it.
    block: Option<Block>,
    /// What is to be said when the frame that is under way has passed.
    then: Option<Then>,
    /// DATA frames with little in them since tasks last ran.
    crowd: u32,
    last_stream: u32,
    streams: Streams,
    /// Of a member: streams on which a request is under way.
    uploads: Uploads,
    refused: Option<Verdict>,
    frames: Frames,
    pings: Bucket,
    settings: Bucket,
    priorities: Bucket,
    window_updates: Bucket,
    small_increments: Bucket,
    resets: Bucket,
    empty_data: Bucket,
    small_data: Bucket,
    provoked: Bucket,
    stray: Bucket,
}

/// Who the peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A client: what comes begins with the [preface](PREFACE).
    Client,
    /// A member: what goes out does.
    Server,
}

#[derive(Clone, Copy, Debug)]
struct Block {
    opening: Opening,
    bytes: u32,
    continuations: u32,
    /// The frame that is under way is its last.
    complete: bool,
}

impl Guard {
    /// For a connection whose first byte is to come, from a peer that is `role`.
    pub fn new(role: Role, now: Instant) -> Self {
        let bucket = |most, a_second| Bucket::new(most, a_second, now);
        let mut outbound = Follower::default();
        if role == Role::Server {
            // As the rest of a frame.
            outbound.left = PREFACE.len() as u32;
        }
        Self {
            role,
            left: 0,
            fragment: 0,
            padding: 0,
            outbound,
            preface: if role == Role::Client { PREFACE.len() as u8 } else { 0 },
            begun: false,
            block: None,
            then: None,
            crowd: 0,
            last_stream: 0,
            streams: Streams::default(),
            uploads: Uploads::default(),
            refused: None,
            frames: Frames::default(),
            pings: bucket(500, 50),
            settings: bucket(50, 1),
            priorities: bucket(500, 20),
            window_updates: bucket(4000, 100),
            small_increments: bucket(4000, 20),
            resets: bucket(300, 20),
            empty_data: bucket(50, 5),
            small_data: bucket(50_000, 10_000),
            provoked: bucket(100, 5),
            stray: bucket(300, 10),
        }
    }

    /// What has passed.
    pub fn frames(&self) -> &Frames {
        &self.frames
    }

    /// Whether a member has ended its response on this stream before it reset it with NO_ERROR; it says so of the last.
    pub fn was_whole(&self, stream: u32) -> bool {
        self.uploads.was_whole(stream)
    }

    /// Whether the peer has begun a header block and not ended it: until then nothing else may come.
    pub fn in_block(&self) -> bool {
        self.block.is_some()
    }

    /// Looks at bytes that have come, `now`, and says how many of them are used up, when the library has room for as many. What
    /// is not is to be shown again, with more behind it, but for after [`Then::Refuse`], which says so ever after.
    pub fn inbound(&mut self, bytes: &[u8], room: usize, now: Instant) -> Pass {
        let pass = self.follow(bytes, room, now);
        self.frames.bytes += pass.taken as u64;
        pass
    }

    fn follow(&mut self, bytes: &[u8], room: usize, now: Instant) -> Pass {
        let most = bytes.len().min(room);
        let mut at = 0;
        let then = loop {
            if let Some(verdict) = self.refused {
                break Then::Refuse(verdict);
            }
            if self.preface > 0 {
                let n = usize::from(self.preface).min(most - at);
                if n == 0 {
                    break Then::More;
                }
                let from = PREFACE.len() - usize::from(self.preface);
                if bytes[at..at + n] == PREFACE[from..from + n] {
                    self.preface -= n as u8;
                    at += n;
                } else {
                    self.refused = Some(Verdict::Fault(Fault::Protocol, "no preface"));
                }
                continue;
            }
            if self.left > 0 {
                let n = (self.left as usize).min(most - at);
                self.left -= n as u32;
                at += n;
                if self.left > 0 {
                    break Then::More;
                }
            }
            if let Some(then) = self.then.take() {
                break then;
            }
            let in_fragment = self.fragment + self.padding > 0;
            let frame = if in_fragment { None } else { Frame::first_of(&bytes[at..]) };
            let of_block = in_fragment || frame.as_ref().is_some_and(Frame::is_of_block);
            if of_block && at > 0 {
                // What is in front of it goes on first.
                break Then::More;
            }
            if in_fragment {
                return self.pass_fragment(bytes, 0);
            }
            let Some(frame) = frame else { break Then::More };
            match self.came(&frame, now) {
                Err(verdict) => self.refused = Some(verdict),
                Ok(_) if of_block => return self.pass_fragment(bytes, HEAD_LEN + frame.start.len()),
                Ok(then) => {
                    self.left = HEAD_LEN as u32 + frame.length;
                    self.then = (then != Then::More).then_some(then);
                }
            }
        };
        Pass { taken: at, piece: Piece::Onward, then }
    }

    /// Takes what there is of a part of a header block, `from` on.
    fn pass_fragment(&mut self, bytes: &[u8], from: usize) -> Pass {
        let end = bytes.len().min(from + self.fragment as usize);
        self.fragment -= (end - from) as u32;
        let taken = bytes.len().min(end + self.padding as usize);
        self.padding -= (taken - end) as u32;
        let ended = self.fragment + self.padding == 0;
        let whole = self.block.take_if(|block| ended && block.complete);
        let then = whole.map_or(Then::More, |block| Then::Head(block.opening));
        Pass { taken, piece: Piece::Block(from..end), then }
    }

    /// A header block has come on a stream that nobody has, `now`.
    pub fn stray(&mut self, now: Instant) {
        if !self.stray.take(now) {
            self.refuse(Verdict::Calm(Excess::StrayHeads));
        }
    }

    /// Lets nothing more pass.
    pub fn refuse(&mut self, verdict: Verdict) {
        self.refused.get_or_insert(verdict);
    }

    fn came(&mut self, frame: &Frame, now: Instant) -> Result<Then, Verdict> {
        let calm = |within: bool, excess| if within { Ok(Then::More) } else { Err(Verdict::Calm(excess)) };
        if !std::mem::replace(&mut self.begun, true) && (frame.kind != kind::SETTINGS || frame.has(flag::ACK))
        {
            return Err(Verdict::Fault(Fault::Protocol, "the first frame is not SETTINGS"));
        }
        if frame.is_of_block() && frame.length > MAX_FRAME_SIZE {
            return Err(Verdict::Fault(Fault::FrameSize, "frame that is too long"));
        }
        if let Some(block) = &mut self.block {
            if frame.kind != kind::CONTINUATION || frame.stream != block.opening.stream {
                return Err(Verdict::Fault(Fault::Protocol, "frame within a header block"));
            }
            block.continuations += 1;
            block.bytes += frame.length;
            if block.continuations > MAX_CONTINUATIONS || block.bytes > MAX_BLOCK {
                return Err(Verdict::Calm(Excess::HeaderBlock));
            }
            block.complete = frame.has(flag::END_HEADERS);
            self.fragment = frame.length;
            return Ok(Then::More);
        }
        let length = match frame.kind {
            kind::PRIORITY => frame.length == 5,
            kind::RST_STREAM | kind::WINDOW_UPDATE => frame.length == 4,
            kind::PING => frame.length == 8,
            kind::SETTINGS if frame.has(flag::ACK) => frame.length == 0,
            kind::SETTINGS => frame.length.is_multiple_of(6),
            _ => true,
        };
        if !length {
            return Err(Verdict::Fault(Fault::FrameSize, "length that is not the frame's"));
        }
        match frame.kind {
            kind::DATA => {
                if self.streams.has_ended(frame.stream) {
                    return Err(Verdict::Fault(Fault::StreamClosed, "DATA on a stream that has ended"));
                }
                if frame.has(flag::END_STREAM) {
                    self.streams.end(frame.stream);
                    self.uploads.answered(frame.stream);
                }
                self.frames.received += 1;
                let padding = if frame.has(flag::PADDED) { u32::from(frame.octet()) + 1 } else { 0 };
                let data = frame.length.saturating_sub(padding);
                if !frame.has(flag::END_STREAM) {
                    if data == 0 {
                        calm(self.empty_data.take(now), Excess::EmptyData)?;
                    } else if data < SMALL_DATA && self.role == Role::Client {
                        calm(self.small_data.take(now), Excess::SmallData)?;
                    }
                }
                if data < CROWD_SIZE {
                    self.crowd += 1;
                    if self.crowd == CROWD {
                        self.crowd = 0;
                        return Ok(Then::Crowded);
                    }
                }
                Ok(Then::More)
            }
            kind::HEADERS => {
                if frame.stream == 0 {
                    return Err(Verdict::Fault(Fault::Protocol, "HEADERS without a stream"));
                }
                let (padding, on_itself) = frame.around_block()?;
                self.frames.received += 1;
                let opens = self.role == Role::Client && frame.stream > self.last_stream;
                if opens {
                    self.last_stream = frame.stream;
                    self.frames.opened += 1;
                    self.priorities.give(20);
                    self.window_updates.give(4);
                    self.small_increments.give(4);
                    self.streams.open(frame.stream, frame.has(flag::END_STREAM));
                } else if self.streams.has_ended(frame.stream) {
                    return Err(Verdict::Fault(Fault::StreamClosed, "HEADERS on a stream that has ended"));
                }
                if frame.has(flag::END_STREAM) {
                    self.streams.end(frame.stream);
                    self.uploads.answered(frame.stream);
                }
                let ends = frame.has(flag::END_STREAM);
                let opening = Opening { stream: frame.stream, opens, ends, on_itself };
                let complete = frame.has(flag::END_HEADERS);
                self.block = Some(Block { opening, bytes: frame.length, continuations: 0, complete });
                self.fragment = frame.length - frame.start.len() as u32 - padding;
                self.padding = padding;
                Ok(Then::More)
            }
            kind::CONTINUATION => {
                Err(Verdict::Fault(Fault::Protocol, "CONTINUATION outside of a header block"))
            }
            kind::PUSH_PROMISE => Err(Verdict::Fault(Fault::Protocol, "PUSH_PROMISE")),
            kind::RST_STREAM => {
                self.streams.end(frame.stream);
                self.uploads.reset(frame.stream, frame.number());
                self.frames.resets_received += 1;
                calm(self.resets.take(now), Excess::Resets)?;
                Ok(Then::Reset(frame.stream))
            }
            other => {
                self.frames.control_received += 1;
                match other {
                    // What answers ours is as much as that.
                    kind::PING | kind::SETTINGS if frame.has(flag::ACK) => {
                        calm(self.settings.take(now), Excess::Settings)
                    }
                    kind::PING => calm(self.pings.take(now), Excess::Pings),
                    kind::SETTINGS => {
                        calm(frame.length <= MAX_SETTINGS && self.settings.take(now), Excess::Settings)?;
                        if frame
                            .settings()
                            .any(|setting| matches!(setting, (INITIAL_WINDOW_SIZE, 0x8000_0000..)))
                        {
                            return Err(Verdict::Fault(Fault::FlowControl, "window beyond 2^31-1"));
                        }
                        Ok(Then::More)
                    }
                    kind::GOAWAY => calm(self.settings.take(now), Excess::Settings),
                    kind::WINDOW_UPDATE => {
                        if frame.number() & 0x7fff_ffff < SMALL_INCREMENT {
                            calm(self.small_increments.take(now), Excess::SmallIncrements)?;
                        }
                        calm(self.window_updates.take(now), Excess::WindowUpdates)
                    }
                    _ => calm(self.priorities.take(now), Excess::Priorities),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
