#![allow(clippy::unwrap_used)]
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![a, b, c, kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

fn settings() -> Vec<u8> {
    frame(kind::SETTINGS, 0, 0, &[])
}

const ROOM: usize = usize::MAX;

fn onward(taken: usize, then: Then) -> Pass {
    Pass { taken, piece: Piece::Onward, then }
}

fn begun(now: Instant) -> Guard {
    let mut guard = Guard::new(Role::Client, now);
    let bytes = [&PREFACE[..], &settings()].concat();
    assert_eq!(guard.inbound(&bytes, ROOM, now), onward(bytes.len(), Then::More));
    guard
}

/// How often `bytes` may come before they are refused, and why.
fn until_refused(guard: &mut Guard, bytes: &[u8], most: usize, now: Instant) -> (usize, Option<Verdict>) {
    for n in 0..most {
        let mut rest = bytes;
        while !rest.is_empty() {
            let pass = guard.inbound(rest, ROOM, now);
            if let Then::Refuse(verdict) = pass.then {
                return (n, Some(verdict));
            }
            assert!(pass.taken > 0, "frames are whole");
            rest = &rest[pass.taken..];
        }
    }
    (most, None)
}

fn calm(excess: Excess) -> Option<Verdict> {
    Some(Verdict::Calm(excess))
}

#[test]
fn floods_are_refused_and_patience_comes_back() {
    let update = |by: u32| frame(kind::WINDOW_UPDATE, 0, 0, &by.to_be_bytes());
    for (bytes, most, a_second, excess) in [
        (frame(kind::PING, 0, 0, &[0; 8]), 500, 50, Excess::Pings),
        (settings(), 49, 1, Excess::Settings),
        (frame(kind::SETTINGS, flag::ACK, 0, &[]), 49, 1, Excess::Settings),
        (frame(kind::GOAWAY, 0, 0, &[0; 8]), 49, 1, Excess::Settings),
        (frame(kind::PING, flag::ACK, 0, &[0; 8]), 49, 1, Excess::Settings),
        (frame(2, 0, 1, &[0; 5]), 500, 20, Excess::Priorities),
        (frame(0x10, 0, 0, b"u=1"), 500, 20, Excess::Priorities),
        (frame(0xff, 0, 0, b""), 500, 20, Excess::Priorities),
        (update(256), 4000, 100, Excess::WindowUpdates),
        (update(255), 4000, 20, Excess::SmallIncrements),
        (update(0), 4000, 20, Excess::SmallIncrements),
        (update(0x8000_0001), 4000, 20, Excess::SmallIncrements),
        (frame(kind::RST_STREAM, 0, 1, &[0; 4]), 300, 20, Excess::Resets),
        (frame(kind::DATA, 0, 1, &[]), 50, 5, Excess::EmptyData),
        (frame(kind::DATA, flag::PADDED, 1, &[9; 10]), 50, 5, Excess::EmptyData),
        (frame(kind::DATA, 0, 1, &[0; 15]), 50_000, 10_000, Excess::SmallData),
        (frame(kind::DATA, flag::PADDED, 1, &[9; 11]), 50_000, 10_000, Excess::SmallData),
    ] {
        let now = Instant::now();
        let mut guard = begun(now);
        assert_eq!(until_refused(&mut guard, &bytes, 1_000_000, now), (most, calm(excess)), "{excess:?}");
        // Once refused is refused.
        assert_eq!(until_refused(&mut guard, &bytes, 1, now + 9 * SECOND).1, calm(excess));

        // What comes with time is for who has nothing left, and never more than there was at first.
        let mut guard = begun(now);
        assert_eq!(until_refused(&mut guard, &bytes, most, now), (most, None));
        assert_eq!(until_refused(&mut guard, &bytes, a_second, now + SECOND), (a_second, None));
        let again = until_refused(&mut guard, &bytes, 1_000_000, now + 1_000_000 * SECOND);
        assert!((most..=most + 1).contains(&again.0), "{excess:?} {again:?}");
    }
}

#[test]
fn what_is_of_use_is_not_counted() {
    let now = Instant::now();
    let mut guard = begun(now);
    for bytes in [
        // Of streams that the guard does not know.
        frame(kind::DATA, flag::END_STREAM, 1, &[]),
        frame(kind::DATA, flag::END_STREAM, 1, &[1]),
        frame(kind::DATA, 0, 1, &[0; 16]),
        frame(kind::HEADERS, flag::END_HEADERS, 1, &[0x82]),
    ] {
        assert_eq!(until_refused(&mut guard, &bytes, 100_000, now).1, None);
    }
    // A client that opens streams may set priorities and windows, one whose streams end well may reset as many.
    for n in 0..20_000u32 {
        let head = frame(kind::HEADERS, flag::END_HEADERS, 3 + 2 * n, &[0x82]);
        let priority = frame(2, 0, 1, &[0; 5]).repeat(20);
        let window = frame(kind::WINDOW_UPDATE, 0, 3, &[0, 1, 0, 0]).repeat(4);
        let bytes = [head, priority, window, frame(kind::RST_STREAM, 0, 3, &[0; 4])].concat();
        assert_eq!(until_refused(&mut guard, &bytes, 1, now).1, None);
        guard.outbound(&frame(kind::HEADERS, flag::END_STREAM, 3, &[0x88]), now).unwrap();
    }
    // One that reads may say so, and measure.
    for _ in 0..20_000 {
        guard.outbound(&frame(kind::DATA, 0, 3, &[0; 4096]), now).unwrap();
        let window = frame(kind::WINDOW_UPDATE, 0, 0, &[0, 0, 1, 0]).repeat(16);
        let bytes = [window, frame(kind::PING, 0, 0, &[0; 8])].concat();
        assert_eq!(until_refused(&mut guard, &bytes, 1, now).1, None);
    }
}

#[test]
fn a_header_block_is_bounded_and_nothing_stands_within() {
    let now = Instant::now();
    let first = frame(kind::HEADERS, 0, 1, &[0x82]);
    let go_on = |flags, payload: &[u8]| frame(kind::CONTINUATION, flags, 1, payload);
    let verdict = |bytes: Vec<u8>| until_refused(&mut begun(now), &bytes, 1, now).1;
    let six = go_on(0, &[]).repeat(5);
    assert_eq!(verdict([&first[..], &six, &go_on(flag::END_HEADERS, &[])].concat()), None);
    assert_eq!(
        verdict([&first[..], &six, &go_on(0, &[]), &go_on(0, &[])].concat()),
        calm(Excess::HeaderBlock)
    );
    let large = go_on(0, &[0; 16 * 1024]);
    assert_eq!(verdict([&first[..], &large.repeat(3), &go_on(4, &[0; 16 * 1024 - 1])].concat()), None);
    assert_eq!(
        verdict([&first[..], &large.repeat(3), &go_on(4, &[0; 16 * 1024])].concat()),
        calm(Excess::HeaderBlock)
    );
    for within in [
        frame(kind::DATA, 0, 1, &[0]),
        settings(),
        frame(kind::PING, 0, 0, &[0; 8]),
        frame(kind::CONTINUATION, 0, 3, &[]),
        frame(0xff, 0, 0, &[]),
    ] {
        assert!(matches!(verdict([&first[..], &within].concat()), Some(Verdict::Fault(Fault::Protocol, _))));
    }
    assert!(matches!(verdict(go_on(4, &[])), Some(Verdict::Fault(Fault::Protocol, _))));
    assert!(matches!(
        verdict(frame(kind::PUSH_PROMISE, 4, 1, &[0; 4])),
        Some(Verdict::Fault(Fault::Protocol, _))
    ));
    assert_eq!(
        verdict(frame(kind::SETTINGS, 0, 0, &[0; MAX_SETTINGS as usize])),
        None,
        "as many settings as nghttp2 allows"
    );
    assert_eq!(verdict(frame(kind::SETTINGS, 0, 0, &[0; MAX_SETTINGS as usize + 6])), calm(Excess::Settings));
}

#[test]
fn a_connection_begins_with_the_preface_and_settings() {
    let now = Instant::now();
    let verdict = |bytes: &[u8]| until_refused(&mut Guard::new(Role::Client, now), bytes, 1, now).1;
    assert_eq!(verdict(&PREFACE[..]), None);
    assert!(matches!(verdict(b"GET / HTTP/1.1\r\n\r\n"), Some(Verdict::Fault(Fault::Protocol, _))));
    let ping = frame(kind::PING, 0, 0, &[0; 8]);
    assert!(matches!(verdict(&[&PREFACE[..], &ping].concat()), Some(Verdict::Fault(Fault::Protocol, _))));
    let ack = frame(kind::SETTINGS, flag::ACK, 0, &[]);
    assert!(matches!(verdict(&[&PREFACE[..], &ack].concat()), Some(Verdict::Fault(Fault::Protocol, _))));
    // A member's side has none; ours is passed over.
    let mut guard = Guard::new(Role::Server, now);
    assert_eq!(until_refused(&mut guard, &settings(), 1, now).1, None);
    guard.outbound(&[&PREFACE[..], &settings(), &frame(kind::HEADERS, 4, 1, &[0x82])].concat(), now).unwrap();
    assert_eq!((guard.frames().sent, guard.frames().control_sent), (1, 1));
}

#[test]
fn streams_are_taken_over_one_by_one_and_small_frames_in_crowds() {
    let now = Instant::now();
    let mut guard = begun(now);
    let one = frame(kind::HEADERS, flag::END_HEADERS, 1, &[0x82, 0x84]);
    let two = [frame(kind::HEADERS, 0, 3, &[0x82]), frame(kind::CONTINUATION, 4, 3, &[0x84])].concat();
    let trailers = frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 1, &[0x84]);
    let ping = frame(kind::PING, 0, 0, &[0; 8]);
    let bytes = [&ping[..], &one, &two, &trailers].concat();
    let mut rest = &bytes[..];
    let mut next = |of: usize| {
        let pass = guard.inbound(&rest[..of], ROOM, now);
        rest = &rest[pass.taken..];
        let block = match &pass.piece {
            Piece::Onward => None,
            Piece::Block(range) => Some((range.start, range.len())),
        };
        (pass.taken, block, pass.then, guard.in_block())
    };
    let head = |stream, opens, ends| Then::Head(Opening { stream, opens, ends, on_itself: false });
    assert_eq!(next(bytes.len()), (ping.len(), None, Then::More, false));
    assert_eq!(next(one.len()), (one.len(), Some((9, 2)), head(1, true, false), false));
    // A head is taken as a whole.
    assert_eq!(next(8), (0, None, Then::More, false));
    assert_eq!(next(two.len()), (10, Some((9, 1)), Then::More, true));
    assert_eq!(next(10), (10, Some((9, 1)), head(3, true, false), false));
    assert_eq!(next(9), (9, Some((9, 0)), Then::More, true));
    assert_eq!(next(1), (1, Some((0, 1)), head(1, false, true), false));
    assert_eq!((guard.frames().opened, guard.frames().received), (2, 3));

    let data = frame(kind::DATA, 0, 3, &[0; 100]);
    let crowd = CROWD as usize * data.len();
    assert_eq!(guard.inbound(&data.repeat(100), ROOM, now), onward(crowd, Then::Crowded));
    // No more than there is room for.
    assert_eq!(guard.inbound(&data.repeat(100), 150, now), onward(150, Then::More));
    assert_eq!(guard.inbound(&data.repeat(100)[150..], 0, now), onward(0, Then::More));
}

#[test]
fn what_a_client_makes_us_reset_is_counted_and_what_members_do_is_not() {
    let now = Instant::now();
    let mut guard = begun(now);
    for code in [0u32, 2, 5, 8, 0xb, 0xd] {
        for _ in 0..1000 {
            guard.outbound(&frame(kind::RST_STREAM, 0, 1, &code.to_be_bytes()), now).unwrap();
        }
    }
    let reset = frame(kind::RST_STREAM, 0, 1, &1u32.to_be_bytes());
    let (head, tail) = reset.split_at(11);
    for _ in 0..100 {
        guard.outbound(head, now).unwrap();
        guard.outbound(tail, now).unwrap();
    }
    assert_eq!(guard.outbound(&reset, now), Err(Verdict::Calm(Excess::ProvokedResets)));
    assert_eq!(
        guard.inbound(&settings(), ROOM, now),
        onward(0, Then::Refuse(Verdict::Calm(Excess::ProvokedResets)))
    );
}

/// What happened to bytes.
#[derive(Debug, Default, PartialEq)]
struct Story {
    /// What went on to the library.
    onward: Vec<u8>,
    /// Header blocks, one behind the other.
    blocks: Vec<u8>,
    /// Where blocks were complete and tasks were let run, and how it ended.
    events: Vec<(usize, Then)>,
    frames: Frames,
}

/// The story of bytes that come in these pieces, for a library that has so much room.
fn story(bytes: &[u8], cuts: &[usize], room: usize, now: Instant) -> Story {
    let mut guard = Guard::new(Role::Client, now);
    let mut story = Story::default();
    let mut at = 0;
    'all: for &cut in cuts.iter().chain([&bytes.len()]) {
        let end = cut.clamp(at, bytes.len());
        loop {
            let pass = guard.inbound(&bytes[at..end], room, now);
            match pass.piece {
                Piece::Onward => story.onward.extend_from_slice(&bytes[at..at + pass.taken]),
                Piece::Block(part) => story.blocks.extend_from_slice(&bytes[at..][part]),
            }
            at += pass.taken;
            match pass.then {
                Then::More if pass.taken == 0 => break,
                Then::More => {}
                Then::Refuse(_) => {
                    story.events.push((at, pass.then));
                    break 'all;
                }
                then => story.events.push((at, then)),
            }
        }
    }
    story.frames = *guard.frames();
    story
}

fn frames() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop_oneof![4 => 0..10u8, 1 => any::<u8>(), 3 => Just(kind::HEADERS)];
    let one = (kind, any::<u8>(), 0..9u32, proptest::collection::vec(any::<u8>(), 0..40), 1..120usize);
    proptest::collection::vec(one, 0..20).prop_map(|frames| {
        let mut bytes = [&PREFACE[..], &settings()].concat();
        for (kind, flags, stream, payload, times) in frames {
            bytes.extend(frame(kind, flags, stream, &payload).repeat(times));
        }
        bytes
    })
}

proptest! {
    #[test]
    fn any_cut_tells_the_same_story(bytes in frames(), mut cuts in proptest::collection::vec(0..9000usize, 0..60)) {
        cuts.sort_unstable();
        let now = Instant::now();
        let whole = story(&bytes, &[], ROOM, now);
        prop_assert_eq!(&story(&bytes, &cuts, ROOM, now), &whole);
        let every: Vec<_> = (0..bytes.len()).collect();
        prop_assert_eq!(&story(&bytes, &every, 1, now), &whole);
    }

    #[test]
    fn any_bytes_are_followed(bytes in proptest::collection::vec(any::<u8>(), 0..400), cut in 0..400usize) {
        let now = Instant::now();
        let bytes = [&PREFACE[..], &settings(), &bytes].concat();
        prop_assert_eq!(story(&bytes, &[cut], 100, now), story(&bytes, &[], ROOM, now));
    }
}

#[test]
fn lengths_and_streams_that_cannot_be_are_told_by_their_codes() {
    let now = Instant::now();
    for (kind, flags, lengths) in [
        (kind::PRIORITY, 0, &[4usize, 6][..]),
        (kind::RST_STREAM, 0, &[0, 3, 5]),
        (kind::SETTINGS, 0, &[1, 5, 7]),
        (kind::SETTINGS, flag::ACK, &[1, 6]),
        (kind::PING, 0, &[0, 7, 9]),
        (kind::WINDOW_UPDATE, 0, &[0, 3, 5]),
    ] {
        for &length in lengths {
            let bytes = frame(kind, flags, 0, &vec![0; length]);
            let verdict = until_refused(&mut begun(now), &bytes, 1, now).1;
            assert!(matches!(verdict, Some(Verdict::Fault(Fault::FrameSize, _))), "{kind} {length}");
        }
    }
    let head = |flags, stream| frame(kind::HEADERS, flag::END_HEADERS | flags, stream, &[0x82]);
    let end = flag::END_STREAM;
    let data = frame(kind::DATA, end, 1, &[]);
    let reset = frame(kind::RST_STREAM, 0, 1, &[0; 4]);
    for (bytes, closed) in [
        ([head(end, 1), head(end, 1)].concat(), true),
        ([head(0, 1), data.clone(), head(end, 1)].concat(), true),
        ([head(end, 1), data.clone()].concat(), true),
        ([head(0, 1), data.clone(), data.clone()].concat(), true),
        ([head(0, 1), reset.clone(), data].concat(), true),
        ([head(0, 1), reset, head(end, 1)].concat(), true),
        // For the library to say: it was never opened.
        ([head(end, 3), head(end, 1)].concat(), false),
        ([head(0, 1), head(0, 3), head(end, 1), head(end, 3)].concat(), false),
        ([head(0, 1), head(end, 1), head(end, 1)].concat(), true),
        // What has become too much to know of.
        ((0..300).flat_map(|n| head(end, 1 + 2 * n)).chain(head(end, 1)).collect(), false),
    ] {
        let verdict = until_refused(&mut begun(now), &bytes, 1, now).1;
        assert_eq!(matches!(verdict, Some(Verdict::Fault(Fault::StreamClosed, _))), closed, "{verdict:?}");
    }
}

#[test]
fn what_is_around_a_block_is_told_apart_or_refused() {
    let now = Instant::now();
    let flags = flag::END_HEADERS | flag::PADDED | flag::PRIORITY;
    for (flags, payload, expected) in [
        (flags, &[2, 0, 0, 0, 0, 9, 0x82, 0x84, 0, 0][..], Ok((15..17, false))),
        (flags, &[0, 0x80, 0, 0, 1, 9, 0x82], Ok((15..16, true))),
        (flags, &[0, 0, 0, 0, 3, 9], Ok((15..15, false))),
        (flags, &[0, 0, 0, 0, 3], Err(Fault::FrameSize)),
        (flags, &[1, 0, 0, 0, 3, 9], Err(Fault::Protocol)),
        (flag::END_HEADERS | flag::PADDED, &[3, 0x82, 0, 0, 0], Ok((10..11, false))),
        (flag::END_HEADERS | flag::PADDED, &[4, 0, 0, 0, 0], Ok((10..10, false))),
        (flag::END_HEADERS | flag::PADDED, &[5, 0, 0, 0, 0], Err(Fault::Protocol)),
        (flag::END_HEADERS | flag::PADDED, &[], Err(Fault::FrameSize)),
        (flag::END_HEADERS, &[], Ok((9..9, false))),
    ] {
        let bytes = frame(kind::HEADERS, flags, 1, payload);
        let pass = begun(now).inbound(&bytes, ROOM, now);
        match expected {
            Ok((range, on_itself)) => {
                let opening = Opening { stream: 1, opens: true, ends: false, on_itself };
                assert_eq!(
                    pass,
                    Pass { taken: bytes.len(), piece: Piece::Block(range), then: Then::Head(opening) }
                );
            }
            Err(fault) => {
                assert!(matches!(pass.then, Then::Refuse(Verdict::Fault(is, _)) if is == fault), "{pass:?}");
            }
        }
    }
    for bytes in
        [frame(kind::HEADERS, flag::END_HEADERS, 1, &[0; 16 * 1024 + 1]), frame(kind::HEADERS, 4, 0, &[])]
    {
        assert!(matches!(begun(now).inbound(&bytes, ROOM, now).then, Then::Refuse(Verdict::Fault(..))));
    }
}

#[test]
fn heads_on_streams_that_nobody_has_are_bounded() {
    let now = Instant::now();
    let mut guard = Guard::new(Role::Server, now);
    assert_eq!(until_refused(&mut guard, &settings(), 1, now).1, None);
    for _ in 0..300 {
        guard.stray(now);
    }
    // Who was reset may have said something meanwhile.
    guard
        .outbound(&[&PREFACE[..], &frame(kind::RST_STREAM, 0, 1, &8u32.to_be_bytes())].concat(), now)
        .unwrap();
    for _ in 0..4 {
        guard.stray(now);
    }
    assert_eq!(until_refused(&mut guard, &settings(), 1, now).1, None);
    guard.stray(now);
    assert_eq!(until_refused(&mut guard, &settings(), 1, now).1, calm(Excess::StrayHeads));
}

#[test]
fn a_member_that_answers_malformed_is_asked_on() {
    let now = Instant::now();
    let mut guard = Guard::new(Role::Server, now);
    guard.outbound(&PREFACE[..], now).unwrap();
    for n in 0..10_000u32 {
        let stream = 1 + 2 * n;
        let reset = frame(kind::RST_STREAM, 0, stream, &1u32.to_be_bytes());
        guard.outbound(&[frame(kind::HEADERS, 5, stream, &[0x82]), reset].concat(), now).unwrap();
    }
}

#[test]
fn a_window_that_cannot_be_is_an_error_of_flow_control() {
    let now = Instant::now();
    let window = |value: u32| [&[0, 3, 0, 0, 0, 1, 0, 4][..], &value.to_be_bytes()].concat();
    let verdict =
        |value| until_refused(&mut begun(now), &frame(kind::SETTINGS, 0, 0, &window(value)), 2, now).1;
    assert_eq!(verdict(0x7fff_ffff), None);
    for value in [0x8000_0000, u32::MAX] {
        assert!(matches!(verdict(value), Some(Verdict::Fault(Fault::FlowControl, _))));
    }
}
