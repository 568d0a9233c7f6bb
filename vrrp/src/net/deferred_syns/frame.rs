//! What is read in frames, and the change that sends one on. Pure; Ethernet alone.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use amphora_netlink::{Checksum, MacAddress};

const ETHERNET: usize = 14;
const IPV6: usize = 40;
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const TCP: u8 = 6;
const ICMPV6: u8 = 58;
const NEIGHBOR_ADVERTISEMENT: u8 = 136;
/// Where TCP has its checksum.
const TCP_CHECKSUM: usize = 16;

/// A frame that matters while an address moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Somebody wants to connect to this address, and the frame is for this host.
    Connect {
        /// The address.
        to: IpAddr,
    },
    /// Another host says that the address is there.
    Announcement {
        /// The address.
        address: IpAddr,
        /// The other host.
        at: MacAddress,
    },
}

impl Frame {
    /// What a frame says to the host whose interface has the address `own`; `None` for all others.
    pub fn read(frame: &[u8], own: MacAddress) -> Option<Self> {
        let (header, payload) = frame.split_at_checked(ETHERNET)?;
        let source = MacAddress(octets(header, 6)?);
        match u16::from_be_bytes(octets(header, 12)?) {
            ETHERTYPE_ARP if source != own => {
                // Hardware and protocol type, their lengths: Ethernet and IPv4. In either operation the sender tells where it is.
                (payload.get(..6)? == [0, 1, 8, 0, 6, 4]).then_some(())?;
                let address = Ipv4Addr::from(octets::<4>(payload, 14)?);
                Some(Self::Announcement { address: address.into(), at: MacAddress(octets(payload, 8)?) })
            }
            ETHERTYPE_IPV6 if source != own && payload.get(6) == Some(&ICMPV6) => {
                let message = payload.get(IPV6..)?;
                (message.first()? == &NEIGHBOR_ADVERTISEMENT).then_some(())?;
                let address = Ipv6Addr::from(octets::<16>(message, 8)?);
                Some(Self::Announcement { address: address.into(), at: source })
            }
            _ => {
                let segment = Segment::find(frame)?;
                let flags = frame.get(segment.at + 13)?;
                // SYN without ACK.
                (MacAddress(octets(header, 0)?) == own && flags & 0x12 == 0x02)
                    .then_some(Self::Connect { to: segment.destination })
            }
        }
    }
}

/// Makes a frame with a TCP segment go from `own` to `to`. A checksum that was left to the interface, because the frame never
/// left this machine, is completed. False for a frame that is not right: it is not to be sent.
pub fn redirect(frame: &mut [u8], own: MacAddress, to: MacAddress) -> bool {
    let Some(segment) = Segment::find(frame) else { return false };
    let pseudo = segment.pseudo();
    let sum = pseudo.over(&frame[segment.at..segment.end]).finish();
    if sum != 0 {
        let Some(field) =
            frame[..segment.end].get_mut(segment.at + TCP_CHECKSUM..segment.at + TCP_CHECKSUM + 2)
        else {
            return false;
        };
        // What is left to the interface has the sum of the pseudo-header there.
        if field != (!pseudo.finish()).to_be_bytes() {
            return false;
        }
        field.fill(0);
        let whole = pseudo.over(&frame[segment.at..segment.end]).finish();
        frame[segment.at + TCP_CHECKSUM..][..2].copy_from_slice(&whole.to_be_bytes());
    }
    frame[..6].copy_from_slice(&to.0);
    frame[6..12].copy_from_slice(&own.0);
    true
}

/// Where a TCP segment is in a frame.
struct Segment {
    source: IpAddr,
    destination: IpAddr,
    at: usize,
    end: usize,
}

impl Segment {
    fn find(frame: &[u8]) -> Option<Self> {
        let packet = frame.get(ETHERNET..)?;
        let segment = match u16::from_be_bytes(octets(frame, 12)?) {
            ETHERTYPE_IPV4 => {
                let header = usize::from(packet.first()? & 0x0f) * 4;
                let fragment = u16::from_be_bytes(octets(packet, 6)?) & 0x3fff;
                (packet.first()? >> 4 == 4 && header >= 20 && packet.get(9)? == &TCP && fragment == 0)
                    .then_some(())?;
                Self {
                    source: Ipv4Addr::from(octets::<4>(packet, 12)?).into(),
                    destination: Ipv4Addr::from(octets::<4>(packet, 16)?).into(),
                    at: ETHERNET + header,
                    end: ETHERNET + usize::from(u16::from_be_bytes(octets(packet, 2)?)),
                }
            }
            ETHERTYPE_IPV6 => {
                (packet.first()? >> 4 == 6 && packet.get(6)? == &TCP).then_some(())?;
                Self {
                    source: Ipv6Addr::from(octets::<16>(packet, 8)?).into(),
                    destination: Ipv6Addr::from(octets::<16>(packet, 24)?).into(),
                    at: ETHERNET + IPV6,
                    end: ETHERNET + IPV6 + usize::from(u16::from_be_bytes(octets(packet, 4)?)),
                }
            }
            _ => return None,
        };
        // The shortest header of TCP has 20 octets; what is behind the end fills up a short frame.
        (segment.at + 20 <= segment.end && segment.end <= frame.len()).then_some(segment)
    }

    fn pseudo(&self) -> Checksum {
        let sum = match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                Checksum::default().over(&source.octets()).over(&destination.octets())
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                Checksum::default().over(&source.octets()).over(&destination.octets())
            }
            _ => Checksum::default(),
        };
        let length = u32::try_from(self.end - self.at).unwrap_or(u32::MAX);
        sum.over(&[0, TCP]).over(&length.to_be_bytes())
    }
}

fn octets<const N: usize>(from: &[u8], at: usize) -> Option<[u8; N]> {
    from.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;
    use crate::net::announce::{ArpForm, gratuitous_arp, neighbor_advertisement};

    const OWN: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
    const OTHER: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);
    const CLIENT: MacAddress = MacAddress([2, 0, 0, 0, 0, 3]);

    /// A segment of `flags` to the VIP, its checksum left to the interface.
    fn segment(v6: bool, flags: u8) -> Vec<u8> {
        let mut frame = [OWN.0, CLIENT.0].concat();
        if v6 {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, TCP, 64]);
            frame.extend("fd77::10".parse::<Ipv6Addr>().unwrap().octets());
            frame.extend("fd77::100".parse::<Ipv6Addr>().unwrap().octets());
        } else {
            frame.extend([0x08, 0x00, 0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, TCP, 0, 0]);
            frame.extend([10, 77, 0, 10, 10, 77, 0, 100]);
        }
        let at = frame.len();
        frame.extend([0xc0, 0x01, 0, 80, 0, 0, 0, 9, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        let pseudo = Segment::find(&frame).unwrap().pseudo();
        frame[at + TCP_CHECKSUM..][..2].copy_from_slice(&(!pseudo.finish()).to_be_bytes());
        // Short frames are filled up.
        frame.resize(frame.len().max(60), 0);
        frame
    }

    fn sum(frame: &[u8]) -> u16 {
        let segment = Segment::find(frame).unwrap();
        segment.pseudo().over(&frame[segment.at..segment.end]).finish()
    }

    #[test]
    fn who_wants_to_connect_is_seen_and_others_are_not() {
        for (v6, vip) in [(false, "10.77.0.100"), (true, "fd77::100")] {
            let to = vip.parse().unwrap();
            assert_eq!(Frame::read(&segment(v6, 0x02), OWN), Some(Frame::Connect { to }));
            assert_eq!(Frame::read(&segment(v6, 0xc2), OWN), Some(Frame::Connect { to }), "with ECN");
            for flags in [0x12, 0x10, 0x18, 0x11, 0x04] {
                assert_eq!(Frame::read(&segment(v6, flags), OWN), None);
            }
            assert_eq!(Frame::read(&segment(v6, 0x02), OTHER), None, "for another host");
        }
        let mut fragment = segment(false, 0x02);
        fragment[ETHERNET + 6] = 0x20;
        assert_eq!(Frame::read(&fragment, OWN), None);
    }

    #[test]
    fn others_are_heard_to_have_an_address_and_this_host_is_not() {
        let v4: Ipv4Addr = "10.77.0.100".parse().unwrap();
        let v6: Ipv6Addr = "fd77::100".parse().unwrap();
        for (frame, address) in [
            (gratuitous_arp(OTHER, v4, ArpForm::Request), IpAddr::from(v4)),
            (gratuitous_arp(OTHER, v4, ArpForm::Reply), v4.into()),
            (neighbor_advertisement(OTHER, v6, false), v6.into()),
        ] {
            assert_eq!(Frame::read(&frame, OWN), Some(Frame::Announcement { address, at: OTHER }));
            assert_eq!(Frame::read(&frame, OTHER), None);
        }
    }

    #[test]
    fn a_frame_is_sent_on_with_a_whole_checksum() {
        for v6 in [false, true] {
            let mut frame = segment(v6, 0x02);
            assert!(redirect(&mut frame, OWN, OTHER));
            assert_eq!((&frame[..6], &frame[6..12]), (&OTHER.0[..], &OWN.0[..]));
            assert_eq!(sum(&frame), 0);
            let whole = frame.clone();
            assert!(redirect(&mut frame, OWN, OTHER), "one that was whole stays as it is");
            assert_eq!(frame, whole);
            frame[ETHERNET + 60 - 40] ^= 0x40;
            assert!(!redirect(&mut frame, OWN, OTHER), "what was damaged stays here");
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(mut frame in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..120),
            (any::<bool>(), any::<u8>(), 0usize..80, any::<u8>(), 0usize..90).prop_map(|(v6, flags, at, octet, length)| {
                let mut frame = segment(v6, flags);
                let at = at % frame.len();
                frame[at] = octet;
                frame.truncate(length);
                frame
            }),
        ]) {
            let _ = Frame::read(&frame, OWN);
            if redirect(&mut frame, OWN, OTHER) {
                prop_assert_eq!(sum(&frame), 0);
            }
        }
    }
}
