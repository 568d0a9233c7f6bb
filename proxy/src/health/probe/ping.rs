//! `PING`: one ICMP echo (RFC 792, RFC 4443 section 4), in place of Octavia's `ping-wrapper.sh`.
//!
//! A socket per probe, connected to the target: the kernel then delivers no other host's packets. Unprivileged ping
//! sockets come first (`net.ipv4.ping_group_range`, which governs IPv6, too), raw sockets (CAP_NET_RAW) second.

use std::{
    io,
    net::IpAddr,
    sync::atomic::{AtomicU32, Ordering},
};

use amphora_netlink::Checksum;
use socket2::{Domain, Protocol, Socket, Type};
/// Whether this process may send echoes to addresses of this family; what it lacks otherwise.
pub fn available(address: IpAddr) -> io::Result<()> {
    Echo::socket(address).map(drop)
}

/// One echo: what is sent, and what answers it.
#[derive(Debug)]
pub(super) struct Echo {
    v4: bool,
    /// The socket gets all ICMP of the target, with its IP header if it is IPv4, and has to be told its checksum.
    raw: bool,
    /// In the identifier and sequence number, of which a ping socket replaces the former, and in the payload.
    token: u32,
}

const PAYLOAD: &[u8; 16] = b"amphora health. ";

impl Echo {
    pub(super) fn new(address: IpAddr, raw: bool) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // Another process's echoes differ in the upper half, most likely; the kernel tells ping sockets apart.
        let token = NEXT.fetch_add(1, Ordering::Relaxed) & 0xffff | std::process::id() << 16;
        Self { v4: address.is_ipv4(), raw, token }
    }

    pub(super) fn socket(address: IpAddr) -> io::Result<(Socket, bool)> {
        let (domain, protocol) = match address {
            IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
            IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
        };
        let open = |kind: Type| Socket::new(domain, kind.nonblocking().cloexec(), Some(protocol));
        open(Type::DGRAM).map(|socket| (socket, false)).or_else(|_| {
            open(Type::RAW).map(|socket| (socket, true)).map_err(|error| match error.kind() {
                io::ErrorKind::PermissionDenied => io::Error::new(
                    error.kind(),
                    "no permission to send ICMP echoes: CAP_NET_RAW or net.ipv4.ping_group_range is needed",
                ),
                _ => error,
            })
        })
    }

    pub(super) fn request(&self) -> Vec<u8> {
        let mut packet = vec![if self.v4 { 8 } else { 128 }, 0, 0, 0];
        packet.extend(self.token.to_be_bytes());
        packet.extend(PAYLOAD);
        // For IPv6 the kernel does it, and for ping sockets.
        if self.v4 && self.raw {
            let sum = Checksum::default().over(&packet).finish();
            packet[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        packet
    }

    pub(super) fn is_reply(&self, packet: &[u8]) -> bool {
        let packet = match packet.first() {
            Some(first) if self.v4 && self.raw => {
                packet.get(usize::from(first & 15) * 4..).unwrap_or_default()
            }
            _ => packet,
        };
        let kind = if self.v4 { 0 } else { 129 };
        let token = self.token.to_be_bytes();
        match packet {
            [k, 0, _, _, id @ ..] if *k == kind && id.len() >= 4 => {
                let same = if self.raw { id[..4] == token } else { id[2..4] == token[2..] };
                same && &id[4..] == PAYLOAD
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_told_from_other_packets() {
        for (v4, raw) in [(true, true), (true, false), (false, true), (false, false)] {
            let echo = Echo { v4, raw, token: 0x1234_5678 };
            let ip = if v4 && raw { vec![0x45; 20] } else { vec![] };
            let mut reply = [ip.clone(), echo.request()].concat();
            assert!(!echo.is_reply(&reply), "a request is no reply");
            reply[ip.len()] = if v4 { 0 } else { 129 };
            assert!(echo.is_reply(&reply));
            for cut in 0..reply.len() {
                assert!(!echo.is_reply(&reply[..cut]));
            }
            reply[ip.len() + 7] ^= 1;
            assert!(!echo.is_reply(&reply), "of another probe");
        }
    }

    #[test]
    fn a_packet_with_its_checksum_sums_to_zero() {
        let echo = Echo { v4: true, raw: true, token: 0xfedc_ba98 };
        assert_eq!(Checksum::default().over(&echo.request()).finish(), 0);
    }
}
