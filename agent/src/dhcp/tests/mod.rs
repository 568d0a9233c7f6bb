//! The client against servers of the tests' own, in simulated time.

#![allow(clippy::unwrap_used)]

mod format;
mod hostile;
mod simulation;
mod states;

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use amphora_netlink::MacAddress;

use super::{
    Client, Event, Lease, Transmit,
    message::{
        Answer, Kind, Question,
        server::{read_question, write_answer},
    },
};

const MAC: MacAddress = MacAddress([0xfa, 0x16, 0x3e, 0, 0x21, 2]);
const OTHER_MAC: MacAddress = MacAddress([0xfa, 0x16, 0x3e, 0, 0x21, 99]);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 2);
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 50);

/// What a good server says to a question.
fn answer(kind: Kind, question: &Question) -> Answer {
    Answer {
        kind,
        transaction: question.transaction,
        mac: question.mac,
        address: ADDRESS,
        server: Some(SERVER),
        mask: Some(Ipv4Addr::new(255, 255, 255, 0)),
        lease: Some(3600),
        renewal: None,
        rebinding: None,
        router: Some(Ipv4Addr::new(10, 78, 0, 1)),
        classless_routes: None,
        mtu: None,
    }
}

fn client(now: Instant) -> Client {
    Client::new(MAC, 1500, 7, now, None)
}

/// The next question, which goes to all.
fn asked(client: &mut Client) -> Question {
    match client.poll_transmit() {
        Some(Transmit::Broadcast { message, .. }) => read_question(&message),
        other => panic!("{other:?} is not a question to all"),
    }
}

/// Lets the time come that a client waits for.
fn sleep(client: &mut Client, now: &mut Instant) {
    *now = client.poll_timeout().unwrap();
    client.handle_timeout(*now);
}

/// A client that has an address.
fn bound(now: &mut Instant, adapt: impl Fn(&mut Answer)) -> (Client, Lease) {
    let mut client = client(*now);
    let tell = |client: &mut Client, kind, now| {
        let mut answer = answer(kind, &asked(client));
        adapt(&mut answer);
        client.handle_answer(&answer, now);
    };
    tell(&mut client, Kind::Offer, *now);
    tell(&mut client, Kind::Ack, *now);
    while client.poll_transmit().is_some() {
        sleep(&mut client, now);
    }
    match client.poll_event() {
        Some(Event::Bound { lease, .. }) => (client, lease),
        other => panic!("{other:?}"),
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
