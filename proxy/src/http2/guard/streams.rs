//! The streams that a client has opened last, and whether it has ended them.

use std::collections::VecDeque;

/// How many are known: of those before them the library says what is to be said.
const KNOWN: usize = 64;

/// The last of a client's streams, in order.
#[derive(Clone, Debug, Default)]
pub(super) struct Streams(VecDeque<Stream>);

#[derive(Clone, Copy, Debug)]
struct Stream {
    id: u32,
    ended: bool,
}

impl Streams {
    /// The client opens a stream.
    pub(super) fn open(&mut self, id: u32, ended: bool) {
        if self.0.len() == KNOWN {
            self.0.pop_front();
        }
        self.0.push_back(Stream { id, ended });
    }

    /// The client ends a stream.
    pub(super) fn end(&mut self, id: u32) {
        if let Some(stream) = self.find(id) {
            stream.ended = true;
        }
    }

    /// Whether the client has ended the stream, as far as is known.
    pub(super) fn has_ended(&mut self, id: u32) -> bool {
        self.find(id).is_some_and(|stream| stream.ended)
    }

    fn find(&mut self, id: u32) -> Option<&mut Stream> {
        let at = self.0.binary_search_by_key(&id, |stream| stream.id).ok()?;
        self.0.get_mut(at)
    }
}
