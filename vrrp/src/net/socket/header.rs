//! The IPv4 header, which raw sockets deliver with what it carries.

use std::{
    net::{IpAddr, Ipv4Addr},
    ops::Range,
};

use crate::packet::{Envelope, PROTOCOL};

/// Octets of a header without options.
const LEAST: usize = 20;

/// What the header at the beginning of `packet` says, and where what it carries is. `None` for what is not a whole
/// packet of VRRP; the kernel delivers none such.
pub(super) fn read(packet: &[u8]) -> Option<(Envelope, Range<usize>)> {
    // RFC 791 section 3.1:
    //  0                   1                   2                   3
    //  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    // +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    // |Version|  IHL  |Type of Service|          Total Length         |
    // |         Identification        |Flags|      Fragment Offset    |
    // |  Time to Live |    Protocol   |         Header Checksum       |
    // |                       Source Address                          |
    // |                    Destination Address                        |
    // |                    Options                    |    Padding    |
    // +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    let header: &[u8; LEAST] = packet.first_chunk()?;
    let length = usize::from(header[0] & 0x0f) * 4;
    let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if header[0] >> 4 != 4
        || header[9] != PROTOCOL
        || length < LEAST
        || total < length
        || total > packet.len()
    {
        return None;
    }
    let address =
        |at: usize| IpAddr::V4(Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]));
    let envelope = Envelope { source: address(12), destination: address(16), ttl: Some(header[8]) };
    Some((envelope, length..total))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From 192.0.2.1 to 224.0.0.18, with `options` words of options, carrying 8 octets.
    fn packet(options: u8) -> Vec<u8> {
        let length = 20 + usize::from(options) * 4;
        let total = u8::try_from(length + 8).expect("it is short");
        let mut packet =
            vec![0x45 + options, 0xc0, 0, total, 0, 0, 0, 0, 255, 112, 0, 0, 192, 0, 2, 1, 224, 0, 0, 18];
        packet.resize(length, 1);
        packet.extend([7; 8]);
        packet
    }

    #[test]
    fn options_are_skipped() {
        for options in 0..=10 {
            let packet = packet(options);
            let (envelope, message) = read(&packet).expect("it is right");
            assert_eq!(envelope.source, IpAddr::from([192, 0, 2, 1]));
            assert_eq!(envelope.destination, IpAddr::from([224, 0, 0, 18]));
            assert_eq!(envelope.ttl, Some(255));
            assert_eq!(packet[message], [7; 8]);
        }
    }

    #[test]
    fn what_is_behind_the_packet_does_not_belong_to_it() {
        let mut padded = packet(0);
        padded.extend([0; 18]);
        let (_, message) = read(&padded).expect("it is right");
        assert_eq!(message, 20..28);
    }

    #[test]
    fn nothing_is_read_of_a_part() {
        let whole = packet(2);
        for length in 0..whole.len() {
            assert_eq!(read(&whole[..length]), None, "{length}");
        }
        let mut short = packet(0);
        short[0] = 0x44;
        assert_eq!(read(&short), None);
    }
}
