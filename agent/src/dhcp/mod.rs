//! A client of DHCP for IPv4 (RFC 2131), for ports that come without addresses.
//!
//! | module | what |
//! | --- | --- |
//! | [`message`] | the wire format: what a client writes, and what it reads; pure |
//! | [`lease`] | what of an answer is believed: a server in a tenant's network is anybody; pure |
//! | [`client`] | the states and timers of the protocol, without sockets and clocks |
//! | [`frame`] | IPv4 and UDP in Ethernet frames, and ARP; pure |
//! | [`socket`] | packets by an interface that has no address yet |
//!
//! What is around it, the interface that gets the address and the disk that remembers it, is
//! [`plumbing`](crate::plumbing)'s. The format is written here and not taken from a crate: it is a table of octets, and those
//! that know it bring a library for DNS and Unicode tables along, or read less of it (overloaded and split options, classless
//! routes).

pub mod client;
pub mod frame;
mod fuzz;
pub mod lease;
pub mod message;
pub mod socket;
#[cfg(test)]
mod tests;

pub use self::{
    client::{Client, Event, Transmit},
    fuzz::fuzz,
    lease::{Lease, LeaseRoute},
    socket::{Received, Sockets, Watched},
};
