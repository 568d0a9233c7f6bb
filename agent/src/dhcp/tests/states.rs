//! Each state, and each way out of it.

use super::*;

#[test]
fn an_address_is_asked_for_probed_and_bound() {
    let mut now = Instant::now();
    let began = now;
    let mut client = client(now);
    let discover = asked(&mut client);
    assert_eq!((discover.kind, discover.mac, discover.address), (Kind::Discover, MAC, Ipv4Addr::UNSPECIFIED));
    assert_eq!((discover.requested, discover.server, discover.largest), (None, None, 1500));
    assert!(client.poll_transmit().is_none() && client.listens());

    now += seconds(2);
    client.handle_answer(&answer(Kind::Offer, &discover), now);
    let request = asked(&mut client);
    assert_eq!(
        (request.kind, request.transaction, request.seconds),
        (Kind::Request, discover.transaction, 2)
    );
    assert_eq!((request.requested, request.server), (Some(ADDRESS), Some(SERVER)));

    client.handle_answer(&answer(Kind::Ack, &request), now);
    for _ in 0..2 {
        assert_eq!(client.poll_transmit(), Some(Transmit::Probe(ADDRESS)));
        assert!(client.poll_event().is_none());
        sleep(&mut client, &mut now);
    }
    let Some(Event::Bound { lease, expires }) = client.poll_event() else { panic!() };
    assert_eq!(lease.address.to_string(), "10.78.0.50/24");
    // It counts from the request.
    assert_eq!(expires, Some(began + seconds(2 + 3600)));
    assert_eq!(client.poll_timeout(), Some(began + seconds(2 + 1800)));
    assert!(!client.listens());
}

#[test]
fn silence_is_met_with_patience() {
    let mut now = Instant::now();
    let mut client = client(now);
    let transaction = asked(&mut client).transaction;
    for expected in [4, 8, 16, 32, 64, 64, 64] {
        let before = now;
        sleep(&mut client, &mut now);
        let waited = now - before;
        assert!(waited >= seconds(expected - 1) && waited <= seconds(expected + 1), "{waited:?}");
        let again = asked(&mut client);
        assert_eq!((again.kind, again.transaction), (Kind::Discover, transaction));
    }
    assert!(client.poll_event().is_none());
}

#[test]
fn a_server_that_offers_and_falls_silent_is_left() {
    let mut now = Instant::now();
    let mut client = client(now);
    let discover = asked(&mut client);
    client.handle_answer(&answer(Kind::Offer, &discover), now);
    for _ in 0..4 {
        assert_eq!(asked(&mut client).kind, Kind::Request);
        sleep(&mut client, &mut now);
    }
    assert!(client.poll_transmit().is_none());
    sleep(&mut client, &mut now);
    let again = asked(&mut client);
    assert_eq!(again.kind, Kind::Discover);
    assert_ne!(again.transaction, discover.transaction);
}

/// Which of two requests is answered is not said: the server may have got the first alone.
#[test]
fn a_lease_counts_from_the_first_request() {
    let mut now = Instant::now();
    let began = now;
    let mut client = client(now);
    let discover = asked(&mut client);
    client.handle_answer(&answer(Kind::Offer, &discover), now);
    let first = asked(&mut client);
    sleep(&mut client, &mut now);
    assert_eq!(asked(&mut client).transaction, first.transaction);
    client.handle_answer(&answer(Kind::Ack, &first), now);
    while client.poll_transmit().is_some() {
        sleep(&mut client, &mut now);
    }
    let Some(Event::Bound { expires, .. }) = client.poll_event() else { panic!() };
    assert_eq!(expires, Some(began + seconds(3600)));
}

#[test]
fn an_address_that_somebody_has_is_declined() {
    // Who has it, and who probes for it, too.
    for (sender, target) in [(ADDRESS, SERVER), (Ipv4Addr::UNSPECIFIED, ADDRESS)] {
        let now = Instant::now();
        let mut client = client(now);
        let discover = asked(&mut client);
        client.handle_answer(&answer(Kind::Offer, &discover), now);
        let request = asked(&mut client);
        client.handle_answer(&answer(Kind::Ack, &request), now);
        assert_eq!(client.poll_transmit(), Some(Transmit::Probe(ADDRESS)));
        client.handle_arp((MAC, Ipv4Addr::UNSPECIFIED), ADDRESS, now);
        client.handle_arp((OTHER_MAC, SERVER), ADDRESS, now);
        assert!(client.poll_transmit().is_none(), "its own, and who looks for it, are not in its way");
        client.handle_arp((OTHER_MAC, sender), target, now);
        let decline = asked(&mut client);
        assert_eq!(
            (decline.kind, decline.requested, decline.server, decline.largest),
            (Kind::Decline, Some(ADDRESS), Some(SERVER), 0)
        );
        assert!(client.poll_event().is_none());
        assert_eq!(client.poll_timeout(), Some(now + seconds(10)));
    }
}

#[test]
fn what_cannot_be_used_is_declined_ever_more_slowly() {
    let mut now = Instant::now();
    let (mut client, _) = bound(&mut now, |_| {});
    client.refuse(now);
    assert_eq!(asked(&mut client).kind, Kind::Decline);
    assert_eq!(client.poll_event(), Some(Event::Lost));
    assert_eq!(client.poll_timeout(), Some(now + seconds(10)));
}

#[test]
fn a_lease_is_renewed_by_its_server_then_by_any_and_ends() {
    let mut now = Instant::now();
    let began = now;
    let (mut client, lease) = bound(&mut now, |_| {});
    sleep(&mut client, &mut now);
    assert_eq!(now, began + seconds(1800));
    let Some(Transmit::Unicast { to, message }) = client.poll_transmit() else { panic!() };
    let request = read_question(&message);
    assert_eq!((to, request.kind, request.address), (SERVER, Kind::Request, ADDRESS));
    assert_eq!((request.requested, request.server), (None, None));

    // Another server's word is nothing yet.
    let other = Ipv4Addr::new(10, 78, 0, 3);
    for kind in [Kind::Ack, Kind::Nak] {
        client.handle_answer(&Answer { server: Some(other), ..answer(kind, &request) }, now);
    }
    assert!(client.poll_event().is_none());
    client.handle_answer(&answer(Kind::Ack, &request), now);
    let Some(Event::Bound { lease: renewed, expires }) = client.poll_event() else { panic!() };
    assert_eq!((&renewed, expires), (&lease, Some(now + seconds(3600))));

    // Silence: half of what is left, a minute at least, then all are asked.
    let granted = now;
    sleep(&mut client, &mut now);
    let mut unicasts = 0;
    while let Some(Transmit::Unicast { .. }) = client.poll_transmit() {
        unicasts += 1;
        sleep(&mut client, &mut now);
    }
    assert!((4..8).contains(&unicasts), "{unicasts}");
    assert_eq!(now, granted + seconds(3150));
    let mut broadcasts = 0;
    while client.poll_event().is_none() {
        broadcasts += 1;
        sleep(&mut client, &mut now);
    }
    assert!((2..6).contains(&broadcasts), "{broadcasts}");
    assert_eq!(now, granted + seconds(3600));
}

#[test]
fn any_server_may_go_on_with_a_lease() {
    let mut now = Instant::now();
    let (mut client, _) = bound(&mut now, |_| {});
    let rebind = loop {
        sleep(&mut client, &mut now);
        if let Some(Transmit::Broadcast { from, message }) = client.poll_transmit() {
            assert_eq!(from, ADDRESS);
            break read_question(&message);
        }
    };
    let other = Ipv4Addr::new(10, 78, 0, 3);
    client.handle_answer(&Answer { server: Some(other), ..answer(Kind::Ack, &rebind) }, now);
    let Some(Event::Bound { lease, .. }) = client.poll_event() else { panic!() };
    assert_eq!(lease.server, other);
}

#[test]
fn a_server_that_takes_a_lease_back_is_obeyed() {
    let mut now = Instant::now();
    let (mut client, _) = bound(&mut now, |_| {});
    sleep(&mut client, &mut now);
    let Some(Transmit::Unicast { message, .. }) = client.poll_transmit() else { panic!() };
    client.handle_answer(&answer(Kind::Nak, &read_question(&message)), now);
    assert_eq!(client.poll_event(), Some(Event::Lost));
    // The first time at once.
    assert_eq!(client.poll_timeout(), Some(now));
    sleep(&mut client, &mut now);
    assert_eq!(asked(&mut client).kind, Kind::Discover);
}

#[test]
fn a_lease_without_an_end_is_never_asked_for_again() {
    let mut now = Instant::now();
    let (client, lease) = bound(&mut now, |answer| answer.lease = Some(u32::MAX));
    assert_eq!((lease.seconds, client.poll_timeout(), client.listens()), (u32::MAX, None, false));
}

#[test]
fn a_lease_of_before_is_asked_for_first() {
    let mut now = Instant::now();
    let (_, lease) = bound(&mut now, |_| {});
    let before = |left| Client::new(MAC, 1500, 9, now, Some((lease.clone(), Some(now + seconds(left)))));

    let mut client = before(1000);
    let request = asked(&mut client);
    assert_eq!((request.kind, request.requested, request.server), (Kind::Request, Some(ADDRESS), None));
    client.handle_answer(&answer(Kind::Ack, &request), now);
    let Some(Event::Bound { expires, .. }) = client.poll_event() else { panic!() };
    assert_eq!(expires, Some(now + seconds(3600)));
    // It is in use: nobody is asked who has it.
    assert!(client.poll_transmit().is_none());

    let mut client = before(1000);
    let request = asked(&mut client);
    client.handle_answer(&answer(Kind::Nak, &request), now);
    assert_eq!(client.poll_event(), Some(Event::Lost));

    // Silence: the rest of it.
    let (mut client, mut then) = (before(1000), now);
    for _ in 0..2 {
        assert_eq!(asked(&mut client).kind, Kind::Request);
        sleep(&mut client, &mut then);
    }
    assert!(client.poll_transmit().is_none() && client.poll_event().is_none() && !client.listens());
    // Past T1 by now, and so asked again at once.
    assert!(client.poll_timeout().unwrap() <= then);
    while client.poll_event().is_none() {
        sleep(&mut client, &mut then);
    }
    assert_eq!(then, now + seconds(1000));

    // One that ends before anybody answers.
    let (mut client, mut then) = (before(2), now);
    sleep(&mut client, &mut then);
    assert_eq!((client.poll_event(), then), (Some(Event::Lost), now + seconds(2)));
}

#[test]
fn an_address_is_given_back_to_its_server() {
    let mut now = Instant::now();
    let (_, lease) = bound(&mut now, |_| {});
    let Transmit::Unicast { to, message } = Client::release(MAC, &lease, 3) else { panic!() };
    let release = read_question(&message);
    assert_eq!((to, release.kind, release.address), (SERVER, Kind::Release, ADDRESS));
    assert_eq!((release.server, release.requested), (Some(SERVER), None));
}

#[test]
fn a_reason_why_nothing_is_taken_is_there() {
    let now = Instant::now();
    let mut client = client(now);
    let discover = asked(&mut client);
    client.handle_answer(&Answer { mask: None, ..answer(Kind::Offer, &discover) }, now);
    assert!(client.poll_transmit().is_none());
    assert!(client.refused().unwrap().to_string().contains("subnet mask"));
    client.handle_answer(&answer(Kind::Offer, &discover), now);
    assert_eq!(asked(&mut client).kind, Kind::Request);
}
