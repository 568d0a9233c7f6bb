//! Heads beside the library: what comes in header blocks is decoded and kept here, what is to go in them waits here, and the
//! library sees skeletons of them.
//!
//! The library has the states of streams and follows the lengths of bodies; for that it needs to know that a head has come, whether
//! it is interim, and what it announces. What else is in it, and whether that is well-formed, is the matter of who takes it: a
//! head that is none ends its stream then, and no other. A block that is to go takes the place of its skeleton when the
//! library writes that; it does not if the stream is reset before.

mod skeleton;

use std::{cell::RefCell, collections::VecDeque, fmt, rc::Rc};

pub(super) use self::skeleton::Skeleton;
use super::{
    budget::{Budget, Charge},
    few::Few,
    guard::{Guard, Opening, Role},
    hpack::{self, Bounds, Decoder, FieldList},
};
use crate::http::{MAX_FIELDS, fill};

/// The most fields of a head: some of them are pseudo-header fields.
const FIELDS: usize = MAX_FIELDS + 5;

/// So many times what is announced there may be in a head, of which nobody is told more than that it is too large.
const ABUSE: usize = 4;

/// Room for the fields that most heads have, however short their block is: with the tables one is a byte for each.
const ROOM: usize = 256;

/// Heads that have opened a stream which the library has not handed out. It does so one by one, and never hands out some.
const OPENED: usize = 4;

/// What is known of the frames of a connection, for as long as it or one of its streams is there.
#[derive(Debug)]
pub(super) struct Traffic {
    pub(super) guard: Guard,
    pub(super) heads: Heads,
}

/// What a header block was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Came {
    /// A head, or trailers, of a stream that somebody has.
    Head,
    /// One of a stream that nobody has.
    Stray,
    /// So many fields that none of them was meant.
    Flood,
}

/// The heads of one connection.
#[derive(Debug)]
pub(super) struct Heads {
    role: Role,
    decoder: Decoder,
    bounds: Bounds,
    budget: Budget,
    /// Parts of a block that is not complete.
    block: Vec<u8>,
    /// Of a client: heads of requests that the library has not handed out.
    opened: VecDeque<Opened>,
    /// Streams that somebody has, in order.
    streams: Vec<Stream>,
    /// Of these, those that nobody has.
    left: usize,
    /// Of what is written, the bytes that may have left.
    sent: u64,
}

/// The head of a request that has opened a stream.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) stream: u32,
    /// Nothing follows it.
    pub(super) ends: bool,
    pub(super) fields: FieldList,
}

/// A stream that somebody has.
#[derive(Debug)]
struct Stream {
    id: u32,
    /// What comes next are trailers.
    begun: bool,
    /// What has come and was not taken.
    heads: VecDeque<Head>,
    /// What is to go.
    blocks: Few<Block>,
    /// Somebody has it. It is known on until what is to go is gone.
    held: bool,
    /// Nothing goes any more.
    reset: bool,
    /// Where its first block begins in what is written, once that was given to be.
    opened: Option<u64>,
}

/// A header block that is to go.
#[derive(Debug)]
struct Block {
    bytes: Vec<u8>,
    _charge: Charge,
}

#[derive(Debug)]
struct Head {
    fields: FieldList,
    _charge: Option<Charge>,
}

impl Heads {
    /// For what a peer that is `role` sends. Heads that wait count against the budget.
    pub(super) fn new(role: Role, budget: Budget) -> Self {
        let limits = budget.limits();
        Self {
            role,
            decoder: Decoder::new(limits.header_table as usize),
            bounds: Bounds { fields: FIELDS, bytes: limits.header_list as usize },
            budget,
            block: Vec::new(),
            opened: VecDeque::new(),
            streams: Vec::new(),
            left: 0,
            sent: 0,
        }
    }

    /// A part of a header block that is not its last has come.
    pub(super) fn part(&mut self, part: &[u8]) {
        self.block.extend_from_slice(part);
    }

    /// The last part of a block has come. Makes what the library is to see of it; says what it was.
    ///
    /// # Errors
    /// When it is no block, and no block that follows can be decoded.
    pub(super) fn complete(
        &mut self,
        opening: Opening,
        last: &[u8],
        skeleton: &mut Skeleton,
    ) -> Result<Came, hpack::Error> {
        let mut whole = std::mem::take(&mut self.block);
        let block = if whole.is_empty() {
            last
        } else {
            whole.extend_from_slice(last);
            &whole
        };
        // Of what is in the Huffman code or in the tables there comes more than there is in the block.
        let mut fields = FieldList::with_capacity((2 * block.len()).max(ROOM).min(self.bounds.bytes));
        self.decoder.decode(block, &mut fields, self.bounds)?;
        if fields.exceeds() {
            if fields.size() > ABUSE * self.bounds.bytes {
                return Ok(Came::Flood);
            }
            fields = FieldList::beyond_bounds(block.len());
        }
        fields.fit();
        let Opening { stream: id, opens, ends, on_itself } = opening;
        let place = if opens { None } else { self.place(id).filter(|&place| self.streams[place].held) };
        if on_itself {
            skeleton.malformed(id, ends);
        } else if opens {
            skeleton.request(id, ends, &fields);
            if self.opened.len() == OPENED {
                self.opened.pop_front();
            }
            self.opened.push_back(Opened { stream: id, ends, fields });
        } else if let Some(place) = place {
            self.came(place, ends, fields, skeleton);
        } else {
            // The library knows what to say.
            skeleton.trailers(id, ends);
        }
        Ok(if opens || place.is_some() { Came::Head } else { Came::Stray })
    }

    fn came(&mut self, place: usize, ends: bool, mut fields: FieldList, skeleton: &mut Skeleton) {
        let stream = &mut self.streams[place];
        let charge = self.budget.head(fields.held());
        if stream.begun {
            if charge.is_none() || !are_trailers(&fields) {
                skeleton.malformed(stream.id, ends);
                return;
            }
            skeleton.trailers(stream.id, ends);
        } else {
            if charge.is_none() {
                fields = FieldList::beyond_bounds(fields.size());
            }
            // HTTP/2 does not have 101, and the library does not know.
            let status = fields.status().filter(|&status| status != 101);
            let interim = status.is_some_and(|status| status < 200);
            if interim && ends {
                skeleton.malformed(stream.id, ends);
                return;
            }
            stream.begun = !interim;
            skeleton.response(stream.id, ends, status, &fields);
        }
        stream.heads.push_back(Head { fields, _charge: charge });
    }

    /// The block that goes in place of the skeleton that the library writes, behind so many bytes; `None` when nothing does.
    pub(super) fn take_block(&mut self, id: u32, behind: u64) -> Option<Vec<u8>> {
        if self.left > 0 && self.role == Role::Server {
            // Streams are opened in order: those before it that were not will not be.
            self.streams.retain(|stream| stream.id >= id || stream.held || stream.opened.is_some());
            self.left = self.streams.iter().filter(|stream| !stream.held).count();
        }
        let place = self.place(id)?;
        let stream = &mut self.streams[place];
        stream.opened.get_or_insert(behind);
        let block = stream.blocks.pop();
        self.forget(place);
        block.map(|block| block.bytes)
    }

    /// So many bytes of what is written may have left.
    pub(super) fn set_sent(&mut self, bytes: u64) {
        self.sent = self.sent.max(bytes);
    }

    /// The stream is reset, by whomever: what has not gone does not go.
    pub(super) fn reset(&mut self, id: u32) {
        if let Some(place) = self.place(id) {
            let stream = &mut self.streams[place];
            stream.reset = true;
            stream.blocks.clear();
            self.forget(place);
        }
    }

    /// Forgets a stream that is of no use any more.
    fn forget(&mut self, place: usize) {
        let stream = &self.streams[place];
        if !stream.held && stream.blocks.is_empty() {
            self.streams.remove(place);
            self.left -= 1;
        }
    }

    #[cfg(test)]
    pub(super) fn known_streams(&self) -> usize {
        self.streams.len() + self.opened.len()
    }

    fn place(&self, id: u32) -> Option<usize> {
        self.streams.binary_search_by_key(&id, |stream| stream.id).ok()
    }

    /// The head of the request that has opened this stream. Those of streams before it are nobody's.
    pub(super) fn take_opened(&mut self, stream: u32) -> Option<Opened> {
        while let Some(opened) = self.opened.pop_front() {
            if opened.stream == stream {
                return Some(opened);
            }
        }
        None
    }

    /// The next head of a stream, which the library has told of.
    fn take(&mut self, stream: u32) -> Option<FieldList> {
        let place = self.place(stream)?;
        self.streams[place].heads.pop_front().map(|head| head.fields)
    }
}

/// There is no pseudo-header field among them, so that they are as many as there may be in HTTP/1.1.
fn are_trailers(fields: &FieldList) -> bool {
    !fields.exceeds()
        && fields.len() <= MAX_FIELDS
        && fields.iter().all(|(name, value)| fill::check_field(name, value).is_ok())
}

/// A stream that somebody has. What comes on it beside the library is kept for as long as this lives.
pub(super) struct StreamHeads {
    traffic: Rc<RefCell<Traffic>>,
    id: u32,
}

impl StreamHeads {
    /// A stream of the connection that is new.
    pub(super) fn new(traffic: &Rc<RefCell<Traffic>>, id: u32) -> Rc<Self> {
        {
            let heads = &mut traffic.borrow_mut().heads;
            let stream = Stream {
                id,
                begun: heads.role == Role::Client,
                heads: VecDeque::new(),
                blocks: Few::new(),
                held: true,
                reset: false,
                opened: None,
            };
            let at = heads.streams.partition_point(|other| other.id < id);
            heads.streams.insert(at, stream);
        }
        Rc::new(Self { traffic: Rc::clone(traffic), id })
    }

    /// The next head.
    pub(super) fn take(&self) -> Option<FieldList> {
        self.traffic.borrow_mut().heads.take(self.id)
    }

    /// The library has taken a skeleton that this is to go in place of.
    pub(super) fn put(&self, block: Vec<u8>) {
        let heads = &mut self.traffic.borrow_mut().heads;
        if let Some(place) = heads.place(self.id)
            && !heads.streams[place].reset
        {
            let charge = heads.budget.queue(block.capacity() + size_of::<Block>());
            heads.streams[place].blocks.push(Block { bytes: block, _charge: charge });
        }
    }

    /// Whether any of what was [put](Self::put) may have left.
    pub(super) fn has_left(&self) -> bool {
        let heads = &self.traffic.borrow().heads;
        let stream = heads.place(self.id).map(|place| &heads.streams[place]);
        stream.is_none_or(|stream| stream.opened.is_some_and(|begins| begins < heads.sent))
    }

    /// Whether a member had ended its response before it has reset the stream with NO_ERROR.
    pub(super) fn was_whole(&self) -> bool {
        self.traffic.borrow().guard.was_whole(self.id)
    }
}

impl Drop for StreamHeads {
    fn drop(&mut self) {
        let heads = &mut self.traffic.borrow_mut().heads;
        if let Some(place) = heads.place(self.id) {
            let stream = &mut heads.streams[place];
            stream.held = false;
            stream.heads.clear();
            heads.left += 1;
            heads.forget(place);
        }
    }
}

impl fmt::Debug for StreamHeads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamHeads").field("id", &self.id).finish_non_exhaustive()
    }
}
