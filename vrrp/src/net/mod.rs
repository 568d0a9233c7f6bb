//! The kernel's side: what a virtual router needs of the network that its thread is in, beyond the
//! crate `amphora-netlink`, which is re-exported.
//!
//! | module | what is inside |
//! | --- | --- |
//! | [`socket`] | raw sockets for advertisements |
//! | [`deferred_syns`] | clients that connect while the VIP moves |
//!
//! Sockets belong to the network namespace of the thread that opens them, and stay in it. All of it is for one
//! current-thread tokio runtime, and opened inside it.

pub mod deferred_syns;
pub mod socket;

pub use amphora_netlink::{
    Address, Announcer, ConfigurationChanges, Interface, InterfaceIndex, LinkChange, LinkChanges, MacAddress,
    NetError, Netlink, NotAMacAddress, Outcome, Route, RouteProtocol, Rule, announce, handshakes,
};

pub use self::{
    deferred_syns::DeferredSyns,
    socket::{AdvertisementSocket, SocketOptions},
};
