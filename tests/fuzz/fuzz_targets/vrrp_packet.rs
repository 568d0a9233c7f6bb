#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use amphora_vrrp::packet::{Advertisement, Envelope, Pseudo};
use libfuzzer_sys::fuzz_target;

// The first octet chooses the family, and whether the packet is unicast; the rest is the message.
fuzz_target!(|data: &[u8]| {
    let Some((mode, message)) = data.split_first() else { return };
    let v4 = |last| IpAddr::from(Ipv4Addr::new(192, 0, 2, last));
    let v6 = |last| IpAddr::from(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, last));
    let (source, peer, multicast) = if mode & 1 == 0 {
        (v4(1), v4(2), Ipv4Addr::new(224, 0, 0, 18).into())
    } else {
        (v6(1), v6(2), Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12).into())
    };
    let destination = if mode & 2 == 0 { multicast } else { peer };
    let read = |message: &[u8]| {
        let envelope = Envelope { source, destination, ttl: Some(255) };
        Advertisement::decode(message, &envelope, multicast)
    };
    let mut message = message.to_vec();
    let found = read(&message).or_else(|_| {
        // Hardly any made-up message has the right checksum.
        let field = message.get_mut(6..8).ok_or(amphora_vrrp::packet::Refusal::Length)?;
        field.fill(0);
        let pseudo = message[0] >> 4 == 3 || mode & 1 == 1;
        let sum = checksum(pseudo.then_some((source, destination)), &message);
        message[6..8].copy_from_slice(&sum.to_be_bytes());
        read(&message)
    });
    let Ok(found) = found else { return };
    let again = found.advertisement.encode(Pseudo { source, destination });
    assert_eq!(again.len(), message.len());
    let reread = read(&again).expect("what is written is read");
    assert_eq!(reread.advertisement, found.advertisement);
});

/// RFC 1071, written another way than the crate's.
fn checksum(pseudo: Option<(IpAddr, IpAddr)>, message: &[u8]) -> u16 {
    let mut octets = Vec::new();
    if let Some((source, destination)) = pseudo {
        for address in [source, destination] {
            match address {
                IpAddr::V4(address) => octets.extend(address.octets()),
                IpAddr::V6(address) => octets.extend(address.octets()),
            }
        }
        octets.extend([0, 112]);
        octets.extend((message.len() as u32).to_be_bytes());
    }
    octets.extend(message);
    let mut sum = 0u32;
    for (at, octet) in octets.iter().enumerate() {
        sum += u32::from(*octet) << if at % 2 == 0 { 8 } else { 0 };
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
