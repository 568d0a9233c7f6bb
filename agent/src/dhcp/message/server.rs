//! The other side of the format, for the servers of the tests.

#![allow(clippy::unwrap_used)]

use super::*;

pub(crate) fn write_answer(answer: &Answer) -> Vec<u8> {
    let mut message = vec![0; HEADER];
    message[..3].copy_from_slice(&[REPLY, ETHERNET, 6]);
    message[4..8].copy_from_slice(&answer.transaction.to_be_bytes());
    message[16..20].copy_from_slice(&answer.address.octets());
    message[28..34].copy_from_slice(&answer.mac.0);
    message[236..].copy_from_slice(&COOKIE);
    let mut add = |code: u8, content: &[u8]| {
        message.extend([code, content.len() as u8]);
        message.extend(content);
    };
    add(option::KIND, &[answer.kind.number()]);
    let addresses = [
        (option::SERVER, answer.server),
        (option::SUBNET_MASK, answer.mask),
        (option::ROUTER, answer.router),
    ];
    for (code, address) in addresses {
        if let Some(address) = address {
            add(code, &address.octets());
        }
    }
    let times = [
        (option::LEASE_TIME, answer.lease),
        (option::RENEWAL, answer.renewal),
        (option::REBINDING, answer.rebinding),
    ];
    for (code, time) in times {
        if let Some(time) = time {
            add(code, &time.to_be_bytes());
        }
    }
    if let Some(mtu) = answer.mtu {
        add(option::MTU, &mtu.to_be_bytes());
    }
    if let Some(routes) = &answer.classless_routes {
        let mut content = Vec::new();
        for (destination, next_hop) in routes {
            content.push(destination.prefix_len());
            content.extend(&destination.network().octets()[..destination.prefix_len().div_ceil(8).into()]);
            content.extend(next_hop.octets());
        }
        for part in content.chunks(255) {
            add(option::CLASSLESS_ROUTES, part);
        }
    }
    message.push(option::END);
    message
}

pub(crate) fn read_question(message: &[u8]) -> Question {
    let options = Options::read(&message[..HEADER], &message[HEADER..]).unwrap();
    let address = |code| options.exactly::<4>(code).unwrap().map(Ipv4Addr::from);
    let four = |at: usize| [message[at], message[at + 1], message[at + 2], message[at + 3]];
    let kinds = [Kind::Discover, Kind::Request, Kind::Decline, Kind::Release];
    let [kind] = options.exactly::<1>(option::KIND).unwrap().unwrap();
    Question {
        kind: kinds.into_iter().find(|known| known.number() == kind).unwrap(),
        transaction: u32::from_be_bytes(four(4)),
        seconds: u16::from_be_bytes([message[8], message[9]]),
        address: four(12).into(),
        mac: MacAddress(message[28..34].try_into().unwrap()),
        requested: address(option::REQUESTED_ADDRESS),
        server: address(option::SERVER),
        largest: options.exactly::<2>(option::LARGEST).unwrap().map_or(0, u16::from_be_bytes),
    }
}
