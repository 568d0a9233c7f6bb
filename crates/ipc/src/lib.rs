//! What the processes of an amphora tell each other, over unix sockets.
//!
//! | module | what is inside |
//! | --- | --- |
//! | [`proxy`] | the documents on the proxy's control socket |
//! | [`vrrp`] | the documents on the VRRP daemon's control socket |
//! | [`client`] | the client's side of both |
//! | [`server`] | the server's side of both |
//! | [`places`] | who gives up his place when all connections of a server are taken; the agent's REST server has them, too |
//! | [`fitness`] | what the data plane and the VRRP daemon say on a socket of their own |
//! | [`threads`] | what the kernel says of a process that does not answer |
//! | [`usage`] | what a process has of the machine, for its metrics |
//! | `fuzz` | what the readers must hold for any bytes |
//! | [`PeersConfig`] | who the peer is that session persistence is kept alike with |

#![cfg_attr(test, allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests may block"))]

pub mod client;
pub mod fitness;
#[doc(hidden)]
pub mod fuzz;
mod peers;
pub mod places;
pub mod proxy;
pub mod server;
pub mod threads;
pub mod usage;
pub mod vrrp;

pub use self::peers::PeersConfig;
