//! Streams on which a member may answer before it has all of the request.

use std::collections::{BTreeMap, VecDeque};

/// How many that were reset are known: who waits for them looks soon.
const KNOWN: usize = 256;

/// Those of requests that are under way, and whether their response has ended; and those that were reset behind its end.
#[derive(Clone, Debug, Default)]
pub(super) struct Uploads {
    /// As many as there are streams.
    open: BTreeMap<u32, bool>,
    whole: VecDeque<u32>,
}

impl Uploads {
    /// The head of a request has been sent, and more follows.
    pub(super) fn begin(&mut self, stream: u32) {
        self.open.insert(stream, false);
    }

    /// All of it has been sent, or nothing more is.
    pub(super) fn end(&mut self, stream: u32) {
        if !self.open.is_empty() {
            self.open.remove(&stream);
        }
    }

    /// The response has ended.
    pub(super) fn answered(&mut self, stream: u32) {
        if !self.open.is_empty()
            && let Some(answered) = self.open.get_mut(&stream)
        {
            *answered = true;
        }
    }

    /// The member wants no more of the request.
    pub(super) fn reset(&mut self, stream: u32, reason: u32) {
        if self.open.remove(&stream) == Some(true) && reason == 0 {
            if self.whole.len() == KNOWN {
                self.whole.pop_front();
            }
            self.whole.push_back(stream);
        }
    }

    /// Whether the response had ended when the stream was reset with NO_ERROR.
    pub(super) fn was_whole(&self, stream: u32) -> bool {
        self.whole.contains(&stream)
    }
}
