//! HTTP/2 (RFC 9113) on the crate `h2`, to clients and to members.
//!
//! The library does framing, the states of streams and their windows. Around it: what comes passes the [guard], in which
//! frames that cost more than they carry are counted, before it reaches the library; header blocks are decoded and encoded
//! [here](hpack), and the library sees skeletons of them, so that what is wrong with one head is the matter of its stream, and
//! what is in one is what was meant; what a connection makes us hold counts against a [budget](Budget); windows are released by whoever has written data onwards, and not before.
//!
//! | module | what is inside |
//! | --- | --- |
//! | [`guard`] | floods, without I/O |
//! | `budget` | [`Limits`], [`Budget`] |
//! | [`hpack`] | header compression, without I/O |
//! | `heads` | what header blocks say, beside the library |
//! | `few` | a queue that mostly holds one |
//! | `outgoing` | what the library writes, with heads in place of their skeletons |
//! | `transport` | the connection under the library: reads through the guard, writes put together |
//! | `server` | [`ServerConnection`]: a client's |
//! | `member` | [`MemberStreams`]: connections to a member, shared |
//! | `body` | [`RecvBody`], [`SendBody`], [`Responder`] |
//! | [`head`] | heads between the library's types and the proxy's |
//! | `counters` | what passes, to [`Http2Counters`](crate::state::Http2Counters) |

mod body;
mod budget;
mod counters;
mod few;
pub mod guard;
pub mod head;
mod heads;
pub mod hpack;
mod member;
mod outgoing;
mod server;
mod transport;

pub use self::{
    body::{Broken, Chunk, RecvBody, Responder, SendBody},
    budget::{Budget, Charge, Limits},
    counters::Counted,
    member::{
        Answer, Answered, Backlog, Connecting, Failure, Idle, Joined, Keep, MemberStreams, NotOpened, Place,
        Versions, Watch,
    },
    server::{Ended, Incoming, Patience, ServerConnection},
};

#[cfg(test)]
mod tests;
