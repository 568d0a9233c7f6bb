//! When a session speaks, looks and gives up, and how much it has to say at once.

use super::*;

/// What is in the output of one goes to the other, whole.
fn pass(now: Instant, from: &mut Session, to: &mut Session, side: &Side) -> Result<(), End> {
    let bytes = from.poll_output(now, &side.tables).to_vec();
    from.sent(now, bytes.len());
    to.handle_input(now, &bytes, &side.tables)
}

/// Two sessions that have exchanged their Hellos, so many milliseconds after they were made.
fn introduced(pair: &Pair, after: u64) -> (Session, Session) {
    let now = pair.now + Duration::from_millis(after);
    let [a, b] = &pair.sides;
    let mut connecting = Session::connect(a.config.clone(), [1; NONCE], pair.now);
    let mut accepting = Session::accept(b.config.clone(), [2; NONCE], pair.now);
    pass(now, &mut connecting, &mut accepting, b).unwrap();
    pass(now, &mut accepting, &mut connecting, a).unwrap();
    (connecting, accepting)
}

#[test]
fn proofs_have_their_time() {
    let pair = Pair::new(1, 1);
    let at = |ms| pair.now + Duration::from_millis(ms);
    for (after, [connecting_by, accepting_by]) in [(200, [1200, 5000]), (4500, [5000, 5000])] {
        let (mut connecting, mut accepting) = introduced(&pair, after);
        for (session, by) in [(&mut connecting, connecting_by), (&mut accepting, accepting_by)] {
            assert_eq!(session.poll_timeout(), at(by));
            assert_eq!(session.handle_timeout(at(by - 1)), Ok(()));
            assert_eq!(session.handle_timeout(at(by)), Err(End::Silent));
        }
        // The same for a proof that comes too late.
        let side = &pair.sides[1];
        let proof = connecting.poll_output(at(after), &side.tables).to_vec();
        let (_, mut late) = introduced(&pair, after);
        assert_eq!(late.handle_input(at(5000), &proof, &side.tables), Err(End::Silent));
        assert_eq!(accepting.handle_input(at(4999), &proof, &side.tables), Ok(()));
        assert!(accepting.parties().is_some() && late.parties().is_none());
    }
    let alone = Session::accept(pair.sides[0].config.clone(), [1; NONCE], pair.now);
    assert_eq!(alone.poll_timeout(), at(5000));
}

#[test]
fn an_open_session_looks_and_speaks_and_gives_up_when_it_says() {
    let pair = Pair::new(1, 1);
    let side = &pair.sides[1];
    let at = |ms| pair.now + Duration::from_millis(ms);
    let (mut connecting, mut session) = introduced(&pair, 100);
    pass(at(300), &mut connecting, &mut session, side).unwrap();
    session.tell_all(&side.tables);
    assert_eq!(session.poll_timeout(), at(5300), "the peer's next word; everything is being told");
    pass(at(310), &mut session, &mut connecting, side).unwrap();
    assert_eq!(session.poll_timeout(), at(300), "a look at the tables");
    session.handle_timeout(at(310)).unwrap();
    assert!(session.poll_output(at(310), &side.tables).is_empty());
    assert_eq!(session.poll_timeout(), at(330));
    session.handle_timeout(at(329)).unwrap();
    assert_eq!(session.poll_timeout(), at(330));
    session.handle_timeout(at(330)).unwrap();
    // The last word was Whole, at 310.
    assert_eq!(session.poll_timeout(), at(1310));
    session.handle_timeout(at(1309)).unwrap();
    assert!(session.output().is_empty());
    session.handle_timeout(at(1310)).unwrap();
    assert!(!session.output().is_empty());
    // It is not taken; the peer speaks on.
    let alive = session.output().len();
    session.handle_timeout(at(2400)).unwrap();
    assert_eq!(session.output().len(), alive, "one is enough");
    assert_eq!(session.poll_timeout(), at(5300));
    connecting.handle_timeout(at(2500)).unwrap();
    pass(at(2500), &mut connecting, &mut session, side).unwrap();
    assert_eq!(session.poll_timeout(), at(6310), "since the output began to wait");
    let mut other = introduced(&pair, 100).1;
    assert_eq!(session.handle_timeout(at(6309)), Ok(()));
    session.sent(at(6309), 1);
    assert_eq!(session.output().len(), alive - 1);
    assert_eq!(session.poll_timeout(), at(7500), "some has gone, and the peer was heard at 2500");
    assert_eq!(session.handle_timeout(at(7499)), Ok(()));
    assert_eq!(session.handle_timeout(at(7500)), Err(End::Silent));
    assert_eq!(other.handle_timeout(at(4999)), Ok(()));
}

#[test]
fn what_is_not_taken_is_given_up_even_if_the_peer_speaks() {
    let pair = Pair::new(1, 1);
    let side = &pair.sides[1];
    let at = |ms| pair.now + Duration::from_millis(ms);
    let (mut connecting, mut session) = introduced(&pair, 0);
    pass(at(0), &mut connecting, &mut session, side).unwrap();
    pass(at(0), &mut session, &mut connecting, side).unwrap();
    session.handle_timeout(at(1000)).unwrap();
    for ms in [2000, 4000, 5900] {
        connecting.handle_timeout(at(ms)).unwrap();
        pass(at(ms), &mut connecting, &mut session, side).unwrap();
        connecting.heard = at(ms);
        session.handle_timeout(at(ms)).unwrap();
    }
    assert_eq!(session.handle_timeout(at(5999)), Ok(()));
    assert_eq!(session.handle_timeout(at(6000)), Err(End::Silent));
}

#[test]
fn output_is_filled_to_64_kib_and_no_further() {
    let pair = Pair::new(1, 1);
    let side = &pair.sides[1];
    (0..9000).for_each(|key| side.store(0, key, 1, pair.now));
    let (mut connecting, mut session) = introduced(&pair, 0);
    pass(pair.now, &mut connecting, &mut session, side).unwrap();
    session.tell_all(&side.tables);
    let output = session.poll_output(pair.now, &side.tables).len();
    assert!((65_536..65_536 + wire::MAX_FRAME + 100).contains(&output), "{output}");
    let told = session.take_counters();
    assert!((1000..8900).contains(&told.entries_sent) && told.full_syncs_sent == 0, "{told:?}");
    assert_eq!(session.poll_output(pair.now, &side.tables).len(), output, "until some has gone");
    assert_eq!(session.take_counters(), Counters::default());
}
