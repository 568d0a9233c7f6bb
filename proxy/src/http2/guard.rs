//! Frames that cost more than they carry (RFC 9113 section 10.5), counted before they reach the library.
//!
//! A [`Guard`] follows the frames of both directions as bytes pass, whatever they are cut into; it keeps some bytes of state,
//! has no clock, and decodes nothing. What a client sends to make us work is paid for with tokens: there are some at first,
//! some come back with time, and some with work that is of use (streams opened, data sent). Who has none left is told
//! ENHANCE_YOUR_CALM.
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
//! | RST_STREAM by us, for what the client did wrong | 100 | 5 | | none |
//!
//! A header block has at most [`MAX_BLOCK`] bytes (four times what we announce, so that who sends more than that is told so by a
//! 431) in at most [`MAX_CONTINUATIONS`] frames besides the first: clients fill frames, whose size is 16 KiB.
//!
//! The tokens of a second come only to an empty bucket, for the time since it was last given any: two at-firsts may so be spent
//! in a short time, and no clock is read for who stays within one.

mod follower;
mod streams;
mod tokens;
mod uploads;

use std::time::Instant;

use self::{
    follower::{Follower, Frame, Settings, flag, kind},
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

/// What there was too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Excess {
    /// PING.
    Pings,
    /// SETTINGS or GOAWAY, or settings in one frame.
    Settings,
    /// PRIORITY, or frames of types that are not known.
    Priorities,
    /// WINDOW_UPDATE.
    WindowUpdates,
    /// WINDOW_UPDATE for next to nothing.
    SmallIncrements,
    /// RST_STREAM (CVE-2023-44487).
    Resets,
    /// DATA without data.
    EmptyData,
    /// DATA with next to no data.
    SmallData,
    /// Errors of the client's that we had to answer with RST_STREAM (CVE-2025-8671).
    ProvokedResets,
    /// CONTINUATION in a header block, or the bytes of one (CVE-2024-27316).
    HeaderBlock,
    /// What the connection makes us hold: its budget.
    Memory,
    /// What the library counts by itself.
    Library,
}

impl Excess {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 12] = [
        Self::Pings,
        Self::Settings,
        Self::Priorities,
        Self::WindowUpdates,
        Self::SmallIncrements,
        Self::Resets,
        Self::EmptyData,
        Self::SmallData,
        Self::ProvokedResets,
        Self::HeaderBlock,
        Self::Memory,
        Self::Library,
    ];

    /// Its name in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pings => "pings",
            Self::Settings => "settings",
            Self::Priorities => "priorities",
            Self::WindowUpdates => "window_updates",
            Self::SmallIncrements => "small_increments",
            Self::Resets => "resets",
            Self::EmptyData => "empty_data",
            Self::SmallData => "small_data",
            Self::ProvokedResets => "provoked_resets",
            Self::HeaderBlock => "header_block",
            Self::Memory => "memory",
            Self::Library => "library",
        }
    }
}

/// Why a connection is not served on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// ENHANCE_YOUR_CALM.
    Calm(Excess),
    /// An error of the connection, for a reason that is for logs.
    Fault(Fault, &'static str),
}

/// Errors of a connection (RFC 9113 section 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Fault {
    /// PROTOCOL_ERROR.
    Protocol,
    /// FLOW_CONTROL_ERROR.
    FlowControl,
    /// STREAM_CLOSED.
    StreamClosed,
    /// FRAME_SIZE_ERROR.
    FrameSize,
}

impl Fault {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Protocol, Self::FlowControl, Self::StreamClosed, Self::FrameSize];
}

/// How far bytes may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pass {
    /// So many of them.
    pub length: usize,
    /// What then.
    pub then: Then,
}

/// What comes behind the bytes that may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Nothing: these were all.
    More,
    /// A stream has been opened: it is to be taken over before more goes on.
    Opened,
    /// Many small frames have gone on: their streams' tasks are to run before more does.
    Crowded,
    /// Nothing ever.
    Refuse(Verdict),
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
    inbound: Follower,
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
    /// The setting that is under way in a frame of them.
    setting: Option<Settings>,
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
    stream: u32,
    bytes: u32,
    continuations: u32,
    opens: bool,
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
            inbound: Follower::default(),
            outbound,
            preface: if role == Role::Client { PREFACE.len() as u8 } else { 0 },
            begun: false,
            block: None,
            then: None,
            crowd: 0,
            last_stream: 0,
            streams: Streams::default(),
            uploads: Uploads::default(),
            setting: None,
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

    /// Looks at bytes that have come, `now`, and says how many of them may go on. What may not is to be shown again, but for
    /// after [`Then::Refuse`], which says so ever after.
    pub fn inbound(&mut self, bytes: &[u8], now: Instant) -> Pass {
        let pass = self.follow(bytes, now);
        self.frames.bytes += pass.length as u64;
        pass
    }

    fn follow(&mut self, bytes: &[u8], now: Instant) -> Pass {
        let mut rest = bytes;
        let then = loop {
            if let Some(verdict) = self.refused {
                return Pass { length: 0, then: Then::Refuse(verdict) };
            }
            if rest.is_empty() {
                break Then::More;
            }
            if self.preface > 0 {
                let n = usize::from(self.preface).min(rest.len());
                let at = PREFACE.len() - usize::from(self.preface);
                if rest[..n] != PREFACE[at..at + n] {
                    self.refused = Some(Verdict::Fault(Fault::Protocol, "no preface"));
                    continue;
                }
                self.preface -= n as u8;
                rest = &rest[n..];
                continue;
            }
            if let Some(then) = self.then {
                if self.inbound.rest(&mut rest) {
                    self.then = None;
                    break then;
                }
                continue;
            }
            if let Some(settings) = &mut self.setting {
                match settings.next(&mut self.inbound, &mut rest) {
                    Some((INITIAL_WINDOW_SIZE, 0x8000_0000..)) => {
                        self.refused = Some(Verdict::Fault(Fault::FlowControl, "window beyond 2^31-1"));
                    }
                    _ if self.inbound.left == 0 => self.setting = None,
                    _ => {}
                }
                continue;
            }
            let before = rest;
            let Some(frame) = self.inbound.next(&mut rest) else { continue };
            match self.came(&frame, now) {
                Err(verdict) => {
                    self.refused = Some(verdict);
                    return Pass { length: bytes.len() - before.len(), then: Then::Refuse(verdict) };
                }
                Ok(Then::More) => {}
                Ok(then) if self.inbound.left == 0 => break then,
                Ok(then) => self.then = Some(then),
            }
        };
        Pass { length: bytes.len() - rest.len(), then }
    }

    fn came(&mut self, frame: &Frame, now: Instant) -> Result<Then, Verdict> {
        let calm = |within: bool, excess| if within { Ok(Then::More) } else { Err(Verdict::Calm(excess)) };
        if !std::mem::replace(&mut self.begun, true) && (frame.kind != kind::SETTINGS || frame.has(flag::ACK))
        {
            return Err(Verdict::Fault(Fault::Protocol, "the first frame is not SETTINGS"));
        }
        if let Some(block) = &mut self.block {
            if frame.kind != kind::CONTINUATION || frame.stream != block.stream {
                return Err(Verdict::Fault(Fault::Protocol, "frame within a header block"));
            }
            block.continuations += 1;
            block.bytes += frame.length;
            let opens = block.opens;
            if block.continuations > MAX_CONTINUATIONS || block.bytes > MAX_BLOCK {
                return Err(Verdict::Calm(Excess::HeaderBlock));
            }
            if frame.has(flag::END_HEADERS) {
                self.block = None;
                return Ok(if opens { Then::Opened } else { Then::More });
            }
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
                let padding = if frame.has(flag::PADDED) { u32::from(frame.start[0]) + 1 } else { 0 };
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
                if !frame.has(flag::END_HEADERS) {
                    self.block =
                        Some(Block { stream: frame.stream, bytes: frame.length, continuations: 0, opens });
                    return Ok(Then::More);
                }
                Ok(if opens { Then::Opened } else { Then::More })
            }
            kind::CONTINUATION => {
                Err(Verdict::Fault(Fault::Protocol, "CONTINUATION outside of a header block"))
            }
            kind::PUSH_PROMISE => Err(Verdict::Fault(Fault::Protocol, "PUSH_PROMISE")),
            kind::RST_STREAM => {
                self.streams.end(frame.stream);
                self.uploads.reset(frame.stream, frame.number());
                self.frames.resets_received += 1;
                calm(self.resets.take(now), Excess::Resets)
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
                        self.setting = (frame.length > 0).then(Settings::default);
                        calm(frame.length <= MAX_SETTINGS && self.settings.take(now), Excess::Settings)
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

#[cfg(test)]
mod tests;
