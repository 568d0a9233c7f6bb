//! Carrying bytes between two connections.
//!
//! - [`relay`]: both ways until both ends have finished: TCP and HTTPS listeners, and HTTP connections after an
//!   upgrade.
//! - [`Direction`]: one way; the state machine below, for whoever has more to watch: message bodies, of known length or
//!   not.
//!
//! A direction copies through a pooled buffer while bursts are small and splices through a pooled pipe once
//! one has carried [`BUFFER_SIZE`](crate::conn::BUFFER_SIZE) bytes. It holds a buffer or a pipe only while bytes wait in it for the destination,
//! so an idle session holds neither.

mod direction;
mod session;
#[cfg(test)]
mod tests;

use std::{io, time::Duration};

pub use self::{
    direction::{Direction, Ended, Fault, Meter, Waiting},
    session::relay,
};
use crate::{
    conn::Buffer,
    limits::rate::Farewell,
    local::{Charging, DrainWatch},
};

/// One end of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    /// Who connected to the listener.
    Client,
    /// Whom the proxy connected to.
    Member,
}

/// What [`relay`] is told of a session.
#[derive(Debug, Default)]
pub struct RelayOptions {
    /// How long the client's connection may be inactive (Octavia `timeout_client_data`, HAProxy `timeout client`);
    /// zero is for ever.
    pub client_timeout: Duration,
    /// How long the member's connection may be inactive (Octavia `timeout_member_data`, HAProxy `timeout server`);
    /// zero is for ever.
    pub member_timeout: Duration,
    /// Bytes that were read from the client already; they go first, and are not counted as received again.
    pub from_client: Option<Buffer>,
    /// Bytes that were read from the member already; they go first, and are not counted as received again.
    pub from_member: Option<Buffer>,
    /// Whose the bytes are.
    pub(crate) charging: Option<Charging>,
    /// Ends the session when the time of its member is over.
    pub(crate) drain: Option<DrainWatch>,
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayEnd {
    /// Why; the first cause, when there were several.
    pub reason: EndReason,
    /// Bytes delivered to the member.
    pub client_to_member: u64,
    /// Bytes delivered to the client.
    pub member_to_client: u64,
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// Both ends closed their side and everything was delivered.
    Finished,
    /// The connection to this end broke.
    Aborted(Peer, io::ErrorKind),
    /// This end was inactive for longer than it may be.
    TimedOut(Peer),
    /// More has passed than may.
    Limited(Farewell),
    /// The member drains, and its time is over.
    Drained,
}
