//! `SCTP`: an association is asked for and not entered (RFC 9260), as by Octavia's `amphora-health-checker`.
//!
//! INIT goes out by a raw socket, connected to the target, which takes CAP_NET_RAW and no SCTP of the kernel's. INIT ACK says that
//! somebody listens; ABORT takes back what was asked. A target keeps nothing of an INIT (5.1.3), so that is a courtesy to those on
//! the way. ABORT in answer says that nobody listens, ICMP that there is no SCTP.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use aws_lc_rs::rand;
use socket2::{Domain, Protocol, Socket, Type};

use super::outcome::{CheckStatus, Found};
use crate::health::core::Target;

/// SCTP's number in IP.
const SCTP: i32 = 132;
/// Source and destination port, verification tag, checksum.
const HEADER: usize = 12;
/// What INIT has of its own, and of INIT ACK comes in front of parameters.
const INIT: usize = 20;
/// The ports that no service has (RFC 6335): the source's is one of them.
const EPHEMERAL: u16 = 49152;

/// Types of chunks.
const TYPE_INIT: u8 = 1;
const TYPE_INIT_ACK: u8 = 2;
const TYPE_ABORT: u8 = 6;

/// Whether this process may send INIT to addresses of this family; what it lacks otherwise.
pub fn available(address: IpAddr) -> io::Result<()> {
    Association::socket(address).map(drop)
}

/// An association that was asked for.
#[derive(Debug)]
pub(super) struct Association {
    /// IPv4's raw sockets give the IP header, too.
    v4: bool,
    /// Ports: ours, the target's.
    ports: [u16; 2],
    /// What answers have as their verification tag.
    tag: u32,
    sequence: u32,
}

/// What answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// Somebody listens: the verification tag of what is sent to it.
    InitAck(u32),
    /// Nobody does.
    Abort,
    /// A chunk of another type, which has no place here.
    Other(u8),
}

impl Association {
    /// Sends INIT.
    pub(super) fn ask(target: &Target) -> Result<(Socket, Self), Found> {
        let ours = |error: io::Error| Found::because(CheckStatus::SocketError, error.to_string());
        let failed = |error: io::Error| Found::error(CheckStatus::L4Connection, &error);
        let asked = Self::new(target.address, target.port).map_err(ours)?;
        let socket = Self::socket(target.address).map_err(ours)?;
        // Ports are none of the kernel's.
        socket.connect(&SocketAddr::new(target.address, 0).into()).map_err(failed)?;
        socket.send(&asked.init()).map_err(failed)?;
        Ok((socket, asked))
    }

    /// What it means that this came from the target; `None` when it answers something else.
    pub(super) fn take(&self, packet: &[u8], socket: &Socket) -> Option<Found> {
        let failed = |why: String| Found::because(CheckStatus::L4Connection, why);
        Some(match self.answer(packet)? {
            Answer::InitAck(tag) => {
                // Should it be lost the association ends all the same: it was not entered.
                let _ = socket.send(&self.abort(tag));
                Found::new(CheckStatus::L4Ok)
            }
            Answer::Abort => failed("INIT is answered by ABORT".to_owned()),
            Answer::Other(kind) => failed(format!("INIT is answered by a chunk of type {kind}")),
        })
    }

    fn new(address: IpAddr, port: u16) -> io::Result<Self> {
        let mut random = [0; 10];
        rand::fill(&mut random).map_err(|_| io::Error::other("no random numbers"))?;
        let [a, b, c, d, e, f, g, h, i, j] = random;
        Ok(Self {
            v4: address.is_ipv4(),
            ports: [u16::from_be_bytes([a, b]) | EPHEMERAL, port],
            // 0 is INIT's own.
            tag: u32::from_be_bytes([c, d, e, f]).max(1),
            sequence: u32::from_be_bytes([g, h, i, j]),
        })
    }

    fn socket(address: IpAddr) -> io::Result<Socket> {
        let domain = if address.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
        let kind = Type::RAW.nonblocking().cloexec();
        Socket::new(domain, kind, Some(Protocol::from(SCTP))).map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => {
                io::Error::new(error.kind(), "no permission to send INIT of SCTP: CAP_NET_RAW is needed")
            }
            _ => error,
        })
    }

    /// INIT: one stream each way is asked for, and room for what nobody will send.
    fn init(&self) -> Vec<u8> {
        let mut chunk = vec![TYPE_INIT, 0];
        chunk.extend((INIT as u16).to_be_bytes());
        chunk.extend(self.tag.to_be_bytes());
        chunk.extend(65_536_u32.to_be_bytes());
        chunk.extend([0, 1, 0, 1]);
        chunk.extend(self.sequence.to_be_bytes());
        self.packet(0, &chunk)
    }

    /// ABORT, without a cause.
    fn abort(&self, tag: u32) -> Vec<u8> {
        self.packet(tag, &[TYPE_ABORT, 0, 0, 4])
    }

    fn packet(&self, tag: u32, chunk: &[u8]) -> Vec<u8> {
        let [ours, theirs] = self.ports.map(u16::to_be_bytes);
        let mut packet = [&ours[..], &theirs, &tag.to_be_bytes(), &[0; 4], chunk].concat();
        // Little end first, unlike all else.
        let sum = crc32c(&packet).to_le_bytes();
        packet[8..HEADER].copy_from_slice(&sum);
        packet
    }

    /// What a packet answers; `None` when it does not answer this. Its checksum is the kernel's business, or of nobody's: between
    /// two namespaces of a machine there is none. The tag says as much.
    fn answer(&self, packet: &[u8]) -> Option<Answer> {
        let ip = match packet.first() {
            Some(first) if self.v4 => usize::from(first & 15) * 4,
            _ => 0,
        };
        let packet = packet.get(ip..)?;
        let (header, chunk) = packet.split_at_checked(HEADER)?;
        let [ours, theirs] = self.ports.map(u16::to_be_bytes);
        if header[..8] != *[&theirs[..], &ours, &self.tag.to_be_bytes()].concat() {
            return None;
        }
        match *chunk.first()? {
            TYPE_INIT_ACK => {
                let tag = chunk.get(..INIT)?.get(4..8)?.try_into().map(u32::from_be_bytes);
                tag.ok().filter(|tag| *tag != 0).map(Answer::InitAck)
            }
            TYPE_ABORT => Some(Answer::Abort),
            other => Some(Answer::Other(other)),
        }
    }
}

/// CRC-32C (RFC 9260, appendix A), bit by bit: a probe has 32 bytes.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg()))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn checksums_are_those_of_rfc_3720() {
        // Its appendix B.4.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        let up: Vec<_> = (0..32).collect();
        assert_eq!(crc32c(&up), 0x46dd_794e);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn init_is_as_in_rfc_9260() {
        let asked = Association { v4: false, ports: [50_000, 3868], tag: 0x0102_0304, sequence: 0x0506_0708 };
        let packet = asked.init();
        assert_eq!(packet[..8], [0xc3, 0x50, 0x0f, 0x1c, 0, 0, 0, 0]);
        let chunk = [1, 0, 0, 20, 1, 2, 3, 4, 0, 1, 0, 0, 0, 1, 0, 1, 5, 6, 7, 8];
        assert_eq!(packet[12..], chunk);
        let mut zeroed = packet.clone();
        zeroed[8..12].fill(0);
        assert_eq!(packet[8..12], crc32c(&zeroed).to_le_bytes());
        assert_eq!(asked.abort(9)[4..8], [0, 0, 0, 9]);
        assert_eq!(asked.abort(9)[12..], [6, 0, 0, 4]);
    }

    #[test]
    fn answers_are_told_from_other_packets() {
        for v4 in [true, false] {
            let address: IpAddr = if v4 { "10.0.0.1" } else { "2001:db8::1" }.parse().unwrap();
            let asked = Association::new(address, 3868).unwrap();
            assert!(asked.ports[0] >= EPHEMERAL && asked.tag != 0);
            let ip = if v4 { vec![0x46; 24] } else { vec![] };
            let theirs = Association { ports: [asked.ports[1], asked.ports[0]], ..asked };
            let answer = |chunk: &[u8]| [ip.clone(), theirs.packet(asked.tag, chunk)].concat();
            let ack = answer(&[&[2, 0, 0, 24, 0, 0, 0, 7][..], &[0; 16]].concat());
            assert_eq!(asked.answer(&ack), Some(Answer::InitAck(7)));
            assert_eq!(asked.answer(&answer(&[6, 0, 0, 4])), Some(Answer::Abort));
            assert_eq!(asked.answer(&answer(&[0, 3, 0, 4])), Some(Answer::Other(0)));
            for cut in 0..ip.len() + HEADER + INIT {
                assert_eq!(asked.answer(&ack[..cut]), None, "{cut}");
            }
            for byte in 0..8 {
                let mut other = ack.clone();
                other[ip.len() + byte] ^= 1;
                assert_eq!(asked.answer(&other), None, "of another probe: {byte}");
            }
            let mut without = ack;
            without[ip.len() + HEADER + 7] = 0;
            assert_eq!(asked.answer(&without), None, "without a tag it is none");
        }
    }
}
