//! Which advertisements are taken.

use super::*;

#[test]
fn initialize_refuses_what_comes() {
    let mut bench = Bench::new(v3());
    assert_eq!(bench.hear(HIGHER_ADDRESS, 200), Err(Refusal::Inactive));
    assert_eq!(bench.router.counters().refused(Refusal::Inactive), 1);
    assert_eq!(bench.router.counters().received, 0);
}

#[test]
fn backup_refuses_another_interval_in_version_2() {
    let mut bench = Bench::backup(v2());
    let other = with(v2(), |instance| instance.interval = Interval::Seconds(2));
    assert_eq!(bench.hear_from(&other, HIGHER_ADDRESS, 200), Err(Refusal::Interval));
}

#[test]
fn an_interval_of_nothing_is_refused() {
    let mut bench = Bench::backup(v3());
    let none = with(v3(), |instance| instance.interval = Interval::Centiseconds(0));
    assert_eq!(bench.hear_from(&none, HIGHER_ADDRESS, 200), Err(Refusal::Interval));
}

#[test]
fn what_is_not_for_this_router_is_refused_and_counted_by_its_reason() {
    let cases: [(Refusal, Instance); 6] = [
        (Refusal::Version, with(v3(), |instance| instance.vrid = 7)),
        (Refusal::Vrid, with(v2(), |instance| instance.vrid = 8)),
        (Refusal::AuthMismatch, with(v2(), |instance| instance.auth = Auth::None)),
        (Refusal::AuthFailure, with(v2(), |instance| instance.auth = Auth::Password(*b"wrong\0\0\0"))),
        (Refusal::Addresses, with(v2(), |instance| instance.addresses.clear())),
        (Refusal::Destination, unicast(v2(), &[HIGHER_ADDRESS])),
    ];
    for (reason, sender) in cases {
        for state in [State::Backup, State::Master] {
            let mut bench = if state == State::Backup { Bench::backup(v2()) } else { Bench::master(v2()) };
            assert_eq!(bench.hear_from(&sender, HIGHER_ADDRESS, 200), Err(reason));
            assert_eq!(bench.router.state(), state);
            assert_eq!(bench.router.counters().refused(reason), 1);
            assert_eq!(bench.take(), (vec![], vec![]));
        }
    }
    let mut bench = Bench::backup(v2());
    assert_eq!(bench.hear(ME, 200), Err(Refusal::Own));
    let other = with(v2(), |instance| {
        instance.addresses[0].net = "192.0.2.78/32".parse().unwrap();
    });
    assert_eq!(bench.hear_from(&other, HIGHER_ADDRESS, 200), Err(Refusal::Addresses));
}

#[test]
fn a_ttl_below_255_is_refused_of_multicast_alone() {
    for (instance, outcome) in [(v2(), Err(Refusal::Ttl)), (unicast(v2(), &[HIGHER_ADDRESS]), Ok(()))] {
        let mut bench = Bench::backup(instance.clone());
        let destination = if instance.unicast.is_some() { ME } else { GROUP };
        let sender = Router::new(instance, HIGHER_ADDRESS, GROUP);
        let message = sender
            .advertisement(Transmit { priority: 200, old_checksum: false })
            .encode(Pseudo { source: HIGHER_ADDRESS, destination });
        let envelope = Envelope { source: HIGHER_ADDRESS, destination, ttl: Some(64) };
        assert_eq!(bench.router.handle_packet(bench.now, &envelope, &message), outcome);
    }
}

#[test]
fn a_stranger_is_refused_where_that_is_asked_for() {
    for (check, outcome) in [(true, Err(Refusal::Peer)), (false, Ok(()))] {
        let mut instance = unicast(v2(), &[HIGHER_ADDRESS]);
        if let Some(unicast) = &mut instance.unicast {
            unicast.check_source = check;
        }
        assert_eq!(Bench::backup(instance).hear(LOWER_ADDRESS, 200), outcome);
    }
}

#[test]
fn passwords_whose_differences_cancel_out_are_others() {
    for theirs in [*b"escret\0\0", *b"sdbret\0\0", *b"secret\x01\x01"] {
        let sender = with(v2(), |instance| instance.auth = Auth::Password(theirs));
        assert_eq!(Bench::backup(v2()).hear_from(&sender, HIGHER_ADDRESS, 200), Err(Refusal::AuthFailure));
    }
}
