//! The protocol without sockets, clock or threads.
//!
//! A [`Router`] is one virtual router. Methods come in four kinds:
//!
//! - `handle_packet`, `handle_timeout`: what happened;
//! - `start`, `stop`, `set_fit`, `hand_over`, `resume`: what is wanted;
//! - `poll_transmit`, `poll_event`, `poll_timeout`: what is to be done about it;
//! - the rest look and change nothing.
//!
//! After each call of the first two kinds the caller takes all of `poll_transmit`, then all of `poll_event`, then
//! asks `poll_timeout` when to call `handle_timeout`. The order is part of the protocol: a new master advertises before
//! it takes the addresses, and one that leaves says so before it gives them up. A caller that was late hands in all packets
//! that wait before it says that the time is up, or a backup that slept would take over from a master that is well.
//!
//! `now` never goes back; it is a monotonic clock's.

mod counters;
mod event;
mod fitness;
mod router;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
mod timing;

pub use self::{
    counters::Counters,
    event::{Event, Peer, Reason, State, Transmit},
    fitness::Fitness,
    router::Router,
    timing::Timing,
};
