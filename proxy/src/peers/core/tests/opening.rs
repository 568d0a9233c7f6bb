//! Who may speak with whom, and which connection of two stays.

use super::*;
use crate::tls::TicketSecret;

#[test]
fn without_the_key_nothing_is_taken_and_both_are_told() {
    for seed in 0..2 {
        let mut pair = Pair::new(seed, 1);
        pair.sides[0].store(0, 1, 1, pair.now);
        pair.sides[1].store(0, 2, 1, pair.now);
        pair.sides[1].config.key = b"another key of some length".as_slice().into();
        pair.connect();
        let connects = pair.sides[0].session.as_ref().unwrap().connects;
        pair.settle();
        let [a, b] = pair.ends().map(Option::unwrap);
        let (accepting, connecting) = if connects { (b, a) } else { (a, b) };
        assert_eq!(accepting, End::Refuse(Refuse::Key));
        assert_eq!(connecting, End::Refused(Refuse::Key));
        assert!(connecting.to_string().contains("key") && accepting.to_string().contains("key"));
        assert!(pair.sides.iter().all(|side| side.totals == Counters::default()));
        assert!(pair.sides.iter().all(|side| side.content(0).len() == 1));
    }
}

#[test]
fn a_process_does_not_speak_with_itself_nor_in_a_version_that_is_not_there() {
    let mut pair = Pair::new(1, 1);
    pair.sides[1].config.instance = pair.sides[0].config.instance;
    pair.connect();
    pair.settle();
    let mut ends = pair.ends().map(Option::unwrap);
    ends.sort_by_key(|end| *end == End::Refuse(Refuse::Oneself));
    assert_eq!(ends, [End::Refused(Refuse::Oneself), End::Refuse(Refuse::Oneself)]);

    let side = &mut pair.sides[0];
    let mut session = Session::accept(side.config.clone(), [1; NONCE], pair.now);
    let hello = Hello { lowest: 3, highest: 9, instance: Uuid::from_u128(5), nonce: [2; NONCE] };
    let mut bytes = Vec::new();
    let first = Message::Hello(hello);
    write_frame(&mut bytes, |out| first.encode(out));
    assert_eq!(session.handle_input(pair.now, &bytes, &side.tables), Err(End::Refuse(Refuse::Version)));
    let mut later = Vec::new();
    let hello = Message::Hello(Hello { lowest: 1, ..hello });
    write_frame(&mut later, |out| hello.encode(out));
    let mut session = Session::accept(side.config.clone(), [1; NONCE], pair.now);
    session.handle_input(pair.now, &later, &side.tables).unwrap();
    assert_eq!((session.version(), session.parties()), (2, None));
    assert_eq!(session.handle_input(pair.now, &later, &side.tables), Err(End::Refuse(Refuse::Key)));
}

#[test]
fn nothing_but_a_proof_comes_first() {
    let pair = Pair::new(1, 1);
    let side = &pair.sides[0];
    for message in [Message::Alive, Message::Auth, Message::Again, Message::Whole] {
        let mut session = Session::accept(side.config.clone(), [1; NONCE], pair.now);
        let mut bytes = Vec::new();
        write_frame(&mut bytes, |out| message.encode(out));
        assert_eq!(session.handle_input(pair.now, &bytes, &side.tables), Err(End::Unexpected));
    }
}

#[test]
fn both_sides_keep_the_same_of_two_connections() {
    for [a, b] in [[1, 2], [2, 1]].map(|pair| pair.map(Uuid::from_u128)) {
        for first_by_a in [true, false] {
            let at_a = |by_a| Parties { own: a, peer: b, connects: by_a };
            let at_b = |by_a: bool| Parties { own: b, peer: a, connects: !by_a };
            let gives_up_the_first = at_a(first_by_a).yields_to(&at_a(!first_by_a));
            assert_eq!(gives_up_the_first, first_by_a != (a < b), "that of the lower one stays");
            assert_eq!(gives_up_the_first, at_b(first_by_a).yields_to(&at_b(!first_by_a)));
            // In the other order of events it is the same connection that stays.
            assert_ne!(gives_up_the_first, at_b(!first_by_a).yields_to(&at_b(first_by_a)));
        }
        let before = Parties { own: a, peer: b, connects: false };
        for peer in [0, 3].map(Uuid::from_u128) {
            for connects in [false, true] {
                assert!(before.yields_to(&Parties { peer, connects, ..before }), "another peer");
            }
        }
        assert!(before.yields_to(&before), "the peer has connected again");
    }
}

#[test]
fn ends_say_why_and_nothing_shows_the_key() {
    for (end, text) in [
        (End::Refused(Refuse::Version), "the peer speaks no version that is spoken here"),
        (End::Refused(Refuse::Key), "the peer has another key"),
        (End::Refused(Refuse::Oneself), "the peer is this process itself"),
        (End::Refuse(Refuse::Version), "no version that the peer speaks is spoken here"),
        (End::Refuse(Refuse::Key), "the peer does not have the key"),
        (End::Refuse(Refuse::Oneself), "the peer is this process itself"),
        (End::Forged, "a message was altered, repeated or left out"),
        (End::Unexpected, "a message that does not belong here"),
        (End::Silent, "the peer is silent"),
    ] {
        assert_eq!(end.to_string(), text);
    }
    let side = &Pair::new(1, 1).sides[0];
    let shown = format!("{:?}", side.config);
    assert!(shown.contains(&side.config.instance.to_string()), "{shown}");
    assert!(!shown.contains("sixteen") && !shown.contains(&format!("{KEY:?}")), "{shown}");
}

#[test]
fn what_the_connection_before_has_taken_is_told_by_the_one_in_its_place() {
    let pair = Pair::new(1, 1);
    let [a, b] = &pair.sides;
    (0..500).for_each(|key| a.store(0, key, 0, pair.now));
    let opened = || {
        let mut connecting = Session::connect(a.config.clone(), [1; NONCE], pair.now);
        let mut accepting = Session::accept(b.config.clone(), [2; NONCE], pair.now);
        for _ in 0..2 {
            pass(pair.now, (&mut connecting, a), (&mut accepting, b));
            pass(pair.now, (&mut accepting, b), (&mut connecting, a));
        }
        (connecting, accepting)
    };
    let (mut older, _) = opened();
    let (mut newer, mut peer) = opened();
    // Both are open; the older one is in use, takes what is marked, and comes to an end before that arrives.
    older.tell_all(&a.tables);
    assert!(!older.poll_output(pair.now, &a.tables).is_empty());
    newer.tell_all(&a.tables);
    pass(pair.now, (&mut newer, a), (&mut peer, b));
    assert_eq!(b.content(0), a.content(0));
    assert_eq!(b.content(0).len(), 500);
}

/// What one has to say goes to the other, whole.
fn pass(now: Instant, (from, own): (&mut Session, &Side), (to, other): (&mut Session, &Side)) {
    let bytes = from.poll_output(now, &own.tables).to_vec();
    from.sent(now, bytes.len());
    to.handle_input(now, &bytes, &other.tables).unwrap();
}

#[test]
fn secrets_of_tickets_are_told_when_they_are_others_and_taken_as_they_are() {
    let secret = |n: u8| TicketSecret { name: [n; 16], secret: [n + 100; 32], made: u64::from(n) };
    let mut pair = Pair::new(5, 1);
    pair.connect();
    pair.sides[0].session.as_mut().unwrap().tell_tickets(pair.now, vec![secret(0)]);
    pair.settle();
    let heard = |pair: &mut Pair| pair.sides[1].session.as_mut().unwrap().take_tickets();
    assert_eq!(heard(&mut pair), [], "there was no connection yet");
    for (told, expected) in
        [(vec![secret(1)], 1), (vec![secret(1)], 0), (vec![secret(1), secret(2)], 2), (vec![], 0)]
    {
        pair.sides[0].session.as_mut().unwrap().tell_tickets(pair.now, told.clone());
        pair.settle();
        assert_eq!(heard(&mut pair), told[..expected]);
    }
    // More than fit: the newest.
    let many: Vec<_> = (0..40).map(secret).collect();
    pair.sides[0].session.as_mut().unwrap().tell_tickets(pair.now, many.clone());
    pair.settle();
    assert_eq!(heard(&mut pair), many[8..]);
    assert_eq!(pair.ends(), [None, None]);
}
