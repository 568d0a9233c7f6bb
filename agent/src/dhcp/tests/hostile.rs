//! Who answers may be anybody in the tenant's network.

use proptest::prelude::*;

use super::{
    super::{frame, fuzz, fuzz::assert_sane},
    *,
};

fn any_address() -> impl Strategy<Value = Ipv4Addr> {
    prop_oneof![
        any::<u32>().prop_map(Ipv4Addr::from),
        (0..256u32).prop_map(|host| Ipv4Addr::from(0x0a4e_0000 + host)),
        Just(Ipv4Addr::UNSPECIFIED),
        Just(Ipv4Addr::BROADCAST),
        Just(Ipv4Addr::LOCALHOST),
    ]
}

fn any_mask() -> impl Strategy<Value = Ipv4Addr> {
    prop_oneof![
        any_address(),
        (0..=32u32).prop_map(|length| Ipv4Addr::from(u32::MAX.checked_shl(32 - length).unwrap_or(0))),
    ]
}

fn any_seconds() -> impl Strategy<Value = Option<u32>> {
    prop_oneof![Just(None), any::<u32>().prop_map(Some), (0..120u32).prop_map(Some), Just(Some(u32::MAX))]
}

fn any_answer() -> impl Strategy<Value = Answer> {
    let kind = prop_oneof![Just(Kind::Offer), Just(Kind::Ack), Just(Kind::Nak)];
    let destination = (any_address(), 0..=32u8)
        .prop_map(|(address, length)| ipnet::Ipv4Net::new(address, length).unwrap().trunc());
    let routes = proptest::option::of(prop::collection::vec((destination, any_address()), 0..20));
    let who = (kind, any_address(), proptest::option::of(any_address()), proptest::option::of(any_mask()));
    let times = (any_seconds(), any_seconds(), any_seconds());
    let what = (proptest::option::of(any_address()), routes, any::<Option<u16>>());
    (who, times, what).prop_map(|(who, times, what)| Answer {
        kind: who.0,
        transaction: 0,
        mac: MAC,
        address: who.1,
        server: who.2,
        mask: who.3,
        lease: times.0,
        renewal: times.1,
        rebinding: times.2,
        router: what.0,
        classless_routes: what.1,
        mtu: what.2,
    })
}

proptest! {
    #[test]
    fn octets_are_read_or_refused(octets in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = Answer::read(&octets);
        let _ = frame::from_server(&octets);
        let _ = frame::read_arp(&octets);
    }

    /// What the fuzzer looks for longer.
    #[test]
    fn whatever_comes_in_steps(
        steps in prop::collection::vec((0..6u8, any::<u8>(), any_answer(), prop::collection::vec(any::<u8>(), 0..60)), 0..12),
        held: bool,
    ) {
        let mut input = Vec::new();
        for (number, (kind, time, answer, octets)) in steps.into_iter().enumerate() {
            let message = write_answer(&answer);
            let content = match kind {
                1 => message,
                2 => [&message[16..20], &message[240..]].concat(),
                _ => octets,
            };
            input.extend([if held && number == 0 { kind + 0x84 } else { kind }, time]);
            if kind < 4 {
                input.extend((content.len() as u16).to_be_bytes());
                input.extend(content);
            }
        }
        fuzz::fuzz(&input);
    }

    #[test]
    fn a_damaged_answer_is_read_or_refused(
        answer in any_answer(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut message = write_answer(&answer);
        for (at, octet) in damage {
            let at = at.index(message.len());
            message[at] = octet;
        }
        if let Ok(answer) = Answer::read(&message)
            && let Ok(lease) = Lease::of(&answer)
        {
            assert_sane(&lease);
        }
        let _ = Answer::read(&message[..cut.index(message.len())]);
    }

    #[test]
    fn what_is_believed_makes_sense(answer in any_answer()) {
        if let Ok(lease) = Lease::of(&answer) {
            assert_sane(&lease);
        }
    }

    /// Each of a thousand answers a millisecond apart, right as to who and which question. What goes out stays little.
    #[test]
    fn a_storm_makes_no_storm(answers in prop::collection::vec(any_answer(), 1..20), seed: u64) {
        let mut now = Instant::now();
        let end = now + seconds(60);
        let mut client = Client::new(MAC, 1500, seed, now, None);
        let (mut transaction, mut sent, mut in_use) = (0, 0u32, false);
        let mut answers = answers.iter().cycle();
        while now < end {
            while let Some(transmit) = client.poll_transmit() {
                sent += 1;
                if let Transmit::Broadcast { message, .. } | Transmit::Unicast { message, .. } = transmit {
                    transaction = read_question(&message).transaction;
                }
            }
            while let Some(event) = client.poll_event() {
                if let Event::Bound { lease, .. } = &event {
                    assert_sane(lease);
                }
                let bound = event != Event::Lost;
                assert!(bound || in_use);
                in_use = bound;
            }
            let answer = answers.next().unwrap();
            client.handle_answer(&Answer { transaction, ..answer.clone() }, now);
            client.handle_arp((OTHER_MAC, answer.address), answer.address, now);
            if client.poll_timeout().is_some_and(|timeout| timeout <= now) {
                client.handle_timeout(now);
            }
            now += Duration::from_millis(1);
        }
        prop_assert!(sent < 120, "{} messages in a minute", sent);
    }
}
