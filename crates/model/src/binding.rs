//! What a listening socket is known by.

use std::{fmt, net::SocketAddr};

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// A transport and an address: no two sockets of a load balancer have both alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Binding {
    /// The transport.
    pub transport: Transport,
    /// The VIP and the listener's port.
    pub address: SocketAddr,
}

impl Binding {
    /// An address on TCP.
    pub fn tcp(address: SocketAddr) -> Self {
        Self { transport: Transport::Tcp, address }
    }
}

impl fmt::Display for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.transport {
            Transport::Tcp => write!(f, "tcp {}", self.address),
            Transport::Udp => write!(f, "udp {}", self.address),
            Transport::Sctp => write!(f, "sctp {}", self.address),
        }
    }
}
