//! Heartbeats: what tells Octavia's health manager that the amphora lives, and how its members are.
//!
//! [`message`] is the document and its envelope, [`delta`] turns counters into what was added since the last
//! heartbeat, [`report`] builds the document, [`size`] tells whether it fits a datagram, `pulse` tells when the VRRP daemon is dead; none of them has a socket or a
//! clock. [`sender`] is the loop around them.

pub mod delta;
pub mod message;
mod pulse;
pub mod report;
pub mod sender;
pub mod size;

pub use self::{
    delta::Deltas,
    message::{EnvelopeError, ListenerReport, MemberStatus, Message, PoolKey, PoolReport, mark, open, seal},
    report::{Observation, Reporter},
    sender::{Sender, Vitals},
};

#[cfg(test)]
mod tests;
