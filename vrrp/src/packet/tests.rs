//! Messages as keepalived and RFC 9568 have them, and every way to be wrong.

#![allow(clippy::unwrap_used)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::{Advertisement, Auth, Envelope, Interval, Pseudo, Refusal};
use crate::fixture::GROUP;

const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 101));
const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 102));
const SOURCE6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));
const GROUP6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12));

fn envelope(source: IpAddr, destination: IpAddr) -> Envelope {
    Envelope { source, destination, ttl: Some(255) }
}

fn v2() -> Advertisement {
    Advertisement {
        vrid: 1,
        priority: 100,
        interval: Interval::Seconds(1),
        addresses: vec![Ipv4Addr::new(10, 77, 0, 100).into(), Ipv4Addr::new(10, 79, 0, 100).into()],
        auth: Auth::Password(*b"79944cc\0"),
    }
}

fn v3() -> Advertisement {
    Advertisement { interval: Interval::Centiseconds(100), auth: Auth::None, ..v2() }
}

fn v3_of_ipv6() -> Advertisement {
    Advertisement { addresses: vec![SOURCE6, "fd77::100".parse().unwrap()], ..v3() }
}

#[test]
fn version_2_as_keepalived_sends_it() {
    let message = v2().encode(Pseudo { source: SOURCE, destination: PEER });
    assert_eq!(
        message,
        [
            0x21, 1, 100, 2, // version and type, VRID, priority, addresses
            1, 1, 0x5c, 0xc6, // authentication, interval, checksum
            10, 77, 0, 100, 10, 79, 0, 100, // addresses
            b'7', b'9', b'9', b'4', b'4', b'c', b'c', 0,
        ]
    );
    let decoded = Advertisement::decode(&message, &envelope(SOURCE, PEER), GROUP).unwrap();
    assert_eq!((decoded.advertisement, decoded.old_checksum), (v2(), false));
}

#[test]
fn version_2_without_authentication_has_its_data_all_the_same() {
    let plain = Advertisement { auth: Auth::None, addresses: vec![], ..v2() };
    let message = plain.encode(Pseudo { source: SOURCE, destination: GROUP });
    assert_eq!((message.len(), message[4]), (16, 0));
    assert_eq!(
        Advertisement::decode(&message, &envelope(SOURCE, GROUP), GROUP).unwrap().advertisement,
        plain
    );
}

#[test]
fn version_3_counts_the_addresses_of_its_packet_in() {
    let message = v3().encode(Pseudo { source: SOURCE, destination: PEER });
    assert_eq!(message.len(), 16);
    assert_eq!(&message[..6], [0x31, 1, 100, 2, 0, 100]);
    assert!(Advertisement::decode(&message, &envelope(SOURCE, PEER), GROUP).is_ok());
    let elsewhere = envelope(SOURCE, Ipv4Addr::new(10, 77, 0, 103).into());
    assert_eq!(Advertisement::decode(&message, &elsewhere, GROUP), Err(Refusal::Checksum));
}

#[test]
fn version_3_with_the_checksum_of_old_keepaliveds() {
    let message = v3().encode(Pseudo { source: SOURCE, destination: GROUP });
    let decoded = Advertisement::decode(&message, &envelope(SOURCE, PEER), GROUP).unwrap();
    assert_eq!((decoded.advertisement, decoded.old_checksum), (v3(), true));
}

#[test]
fn version_3_over_ipv6() {
    let message = v3_of_ipv6().encode(Pseudo { source: SOURCE6, destination: GROUP6 });
    assert_eq!(message.len(), 40);
    let decoded = Advertisement::decode(&message, &envelope(SOURCE6, GROUP6), GROUP6).unwrap();
    assert_eq!(decoded.advertisement, v3_of_ipv6());
}

#[test]
fn the_reserved_bits_of_the_interval_are_ignored() {
    let mut message = v3().encode(Pseudo { source: SOURCE, destination: PEER });
    message[4] |= 0xf0;
    // The checksum takes them in.
    let sum = u16::from_be_bytes([message[6], message[7]]);
    let (sum, borrow) = sum.overflowing_sub(0xf000);
    message[6..8].copy_from_slice(&(sum - u16::from(borrow)).to_be_bytes());
    let decoded = Advertisement::decode(&message, &envelope(SOURCE, PEER), GROUP).unwrap();
    assert_eq!(decoded.advertisement, v3());
}

#[test]
fn every_refusal_that_needs_no_configuration() {
    let good = v2().encode(Pseudo { source: SOURCE, destination: PEER });
    let with = |at: usize, octet: u8| {
        let mut message = good.clone();
        message[at] = octet;
        Advertisement::decode(&message, &envelope(SOURCE, PEER), GROUP).map(|_| ())
    };
    assert_eq!(with(0, 0x11), Err(Refusal::Version));
    assert_eq!(with(0, 0x41), Err(Refusal::Version));
    assert_eq!(with(0, 0x22), Err(Refusal::Type));
    assert_eq!(with(3, 1), Err(Refusal::Length));
    assert_eq!(with(2, 99), Err(Refusal::Checksum));
    for length in 0..good.len() {
        let short = Advertisement::decode(&good[..length], &envelope(SOURCE, PEER), GROUP);
        assert_eq!(short, Err(Refusal::Length));
    }
    let mut long = good.clone();
    long.push(0);
    assert_eq!(Advertisement::decode(&long, &envelope(SOURCE, PEER), GROUP), Err(Refusal::Length));
    // IPSEC-AH, type 2, with a checksum that is right.
    let mut other = good;
    other[4] = 2;
    other[6] -= 1;
    assert_eq!(Advertisement::decode(&other, &envelope(SOURCE, PEER), GROUP), Err(Refusal::AuthType));
}

#[test]
fn a_password_is_not_shown() {
    assert_eq!(format!("{:?}", v2().auth), "Password(..)");
}

fn any_advertisement() -> impl Strategy<Value = (Advertisement, Pseudo)> {
    let interval =
        prop_oneof![any::<u8>().prop_map(Interval::Seconds), (0..4096u16).prop_map(Interval::Centiseconds)];
    let auth = prop_oneof![Just(Auth::None), any::<[u8; 8]>().prop_map(Auth::Password)];
    let v4 = proptest::collection::vec(any::<Ipv4Addr>().prop_map(IpAddr::from), 0..=255);
    let v6 = proptest::collection::vec(any::<Ipv6Addr>().prop_map(IpAddr::from), 0..=40);
    let of = prop_oneof![
        (v4, any::<[Ipv4Addr; 2]>()).prop_map(|(addresses, [a, b])| (addresses, a.into(), b.into())),
        (v6, any::<[Ipv6Addr; 2]>()).prop_map(|(addresses, [a, b])| (addresses, a.into(), b.into())),
    ];
    (any::<u8>(), any::<u8>(), interval, auth, of).prop_map(
        |(vrid, priority, interval, auth, (addresses, source, destination)): (_, _, _, _, (_, IpAddr, _))| {
            let has_auth = matches!(interval, Interval::Seconds(_)) && source.is_ipv4();
            let auth = if has_auth { auth } else { Auth::None };
            (Advertisement { vrid, priority, interval, addresses, auth }, Pseudo { source, destination })
        },
    )
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded((advertisement, pseudo) in any_advertisement()) {
        let message = advertisement.encode(pseudo);
        let envelope = envelope(pseudo.source, pseudo.destination);
        let decoded = Advertisement::decode(&message, &envelope, GROUP).unwrap();
        prop_assert_eq!(decoded.advertisement, advertisement);
        prop_assert!(!decoded.old_checksum);
    }

    #[test]
    fn garbage_is_refused_or_read_without_a_panic(message in proptest::collection::vec(any::<u8>(), 0..80)) {
        for (source, destination) in [(SOURCE, PEER), (SOURCE6, GROUP6)] {
            let _ = Advertisement::decode(&message, &envelope(source, destination), GROUP);
        }
    }
}
