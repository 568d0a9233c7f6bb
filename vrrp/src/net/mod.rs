//! The kernel's side: what a virtual router needs of the network that its thread is in.
//!
//! | module | what is inside |
//! | --- | --- |
//! | [`netlink`] | interfaces, addresses, routes and rules; handshakes of TCP under way |
//! | [`announce`] | gratuitous ARP and unsolicited neighbour advertisements |
//! | [`socket`] | raw sockets for advertisements |
//! | [`deferred_syns`] | clients that connect while the VIP moves |
//!
//! Sockets belong to the network namespace of the thread that opens them, and stay in it. All of it is for one
//! current-thread tokio runtime, and opened inside it.

pub mod announce;
pub mod deferred_syns;
mod error;
mod mac;
pub mod netlink;
pub mod socket;

pub use self::{
    announce::Announcer,
    deferred_syns::DeferredSyns,
    error::NetError,
    mac::{MacAddress, NotAMacAddress},
    netlink::{
        Address, ConfigurationChanges, Interface, InterfaceIndex, LinkChange, LinkChanges, Netlink, Outcome,
        Route, RouteProtocol, Rule, handshakes,
    },
    socket::{AdvertisementSocket, SocketOptions},
};
