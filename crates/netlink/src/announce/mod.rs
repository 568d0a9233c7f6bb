//! Telling a link where addresses are now: gratuitous ARP (RFC 5227, RFC 9568 section 8.1.2) and unsolicited
//! neighbour advertisements (RFC 4861 section 7.2.6, RFC 9568 section 8.2.2).

mod frame;

use std::{fs, net::IpAddr};

use socket2::{Domain, Protocol, Socket, Type};

pub use self::frame::{ArpForm, gratuitous_arp, neighbor_advertisement};
use crate::{Interface, MacAddress, NetError, packet_address};

/// Sends announcements by any interface of the namespace that it was opened in.
#[derive(Debug)]
pub struct Announcer {
    socket: Socket,
}

impl Announcer {
    /// Opens a socket, which receives nothing.
    ///
    /// # Errors
    /// Without `CAP_NET_RAW`.
    pub fn open() -> Result<Self, NetError> {
        // Protocol 0: packets of no type come in.
        let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking().cloexec(), Some(Protocol::from(0)))
            .map_err(NetError::socket("open a packet socket"))?;
        Ok(Self { socket })
    }

    /// Says once that `address` is at `interface`: by ARP or by a neighbour advertisement, whichever is for its family.
    /// Nothing is sent where an interface resolves no addresses.
    ///
    /// # Errors
    /// When the kernel does not take it: the interface is down, or its queue is full.
    pub fn announce(&self, interface: &Interface, address: IpAddr) -> Result<(), NetError> {
        let Some(mac) = announced(interface) else { return Ok(()) };
        let frame = match address {
            IpAddr::V4(address) => gratuitous_arp(mac, address, ArpForm::Request),
            IpAddr::V6(address) => neighbor_advertisement(mac, address, forwards(interface)),
        };
        self.send(interface, &frame)
    }

    /// Sends a frame as it is.
    ///
    /// # Errors
    /// As [`announce`](Self::announce).
    pub fn send(&self, interface: &Interface, frame: &[u8]) -> Result<(), NetError> {
        let protocol = frame.get(12..14).map_or(0, |octets| u16::from_be_bytes([octets[0], octets[1]]));
        let to = packet_address(interface.index, protocol);
        self.socket.send_to(frame, &to).map(|_| ()).map_err(NetError::socket("send an announcement"))
    }
}

fn announced(interface: &Interface) -> Option<MacAddress> {
    if interface.no_arp || interface.loopback { None } else { interface.mac }
}

/// Whether the interface forwards IPv6. Read anew each time, as it may be switched at any time; procfs answers from
/// memory.
#[expect(clippy::disallowed_methods, reason = "procfs answers from memory")]
fn forwards(interface: &Interface) -> bool {
    fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{}/forwarding", interface.name))
        .is_ok_and(|value| value.trim() != "0")
}
