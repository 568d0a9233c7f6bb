//! Clients that mean harm: what they make us hold and spend, and how it ends.

use super::{
    raw::{
        ACK, CONTINUATION, DATA, END_STREAM, GET, HEADERS, PING, POST, PRIORITY, RST_STREAM, Raw, SETTINGS,
        WINDOW_UPDATE, farewells, frame, literal, request,
    },
    *,
};
use crate::http2::guard::{Excess, Verdict};

const ENHANCE_YOUR_CALM: u32 = 0xb;

/// What an attack came to.
struct Outcome {
    report: Report,
    farewells: Vec<u32>,
}

/// Lets `attack` send until it has no more, or can no more.
fn attack<H: Future<Output = ()> + 'static>(
    name: &str,
    handle: impl Fn(Incoming, Control) -> H + 'static,
    settings: &'static [u8],
    attack: impl FnOnce(&mut Raw) + Send + 'static,
) -> Outcome {
    let (report, (sent, frames)) = serve(Limits::default(), handle, move |address| {
        let mut raw = Raw::connect(address, settings);
        raw.send(&frame(SETTINGS, ACK, 0, &[]));
        let reader = raw.reader();
        attack(&mut raw);
        let sent = raw.sent;
        let _ = raw.stream.shutdown(std::net::Shutdown::Write);
        (sent, reader.join().unwrap())
    });
    let farewells = farewells(&frames);
    println!(
        "{name}: sent {sent}, held {} at most ({} counted, amplification {:.2}), {} requests, {:?} of processor, {:?} {farewells:?}",
        report.grown,
        report.counted,
        report.amplification.max(0.0),
        report.requests,
        report.spent,
        report.ended
    );
    Outcome { report, farewells }
}

impl Outcome {
    fn refused_for(&self, excess: Excess) {
        assert_eq!(self.report.ended, Ended::Refused(Verdict::Calm(excess)));
        assert_eq!(self.farewells, [ENHANCE_YOUR_CALM]);
        assert_eq!(self.report.counters.excesses[excess as usize].get(), 1);
    }

    fn holds_little(&self) {
        assert!(self.report.amplification <= 4.0, "{}", self.report.amplification);
    }
}

fn repeat(raw: &mut Raw, bytes: &[u8], times: usize) {
    // In pieces of what a socket takes.
    let piece = bytes.repeat((16 * 1024 / bytes.len()).max(1));
    let mut left = times * bytes.len();
    while left > 0 {
        let n = left.min(piece.len());
        if !raw.send(&piece[..n]) {
            return;
        }
        left -= n;
    }
}

#[test]
fn rapid_reset() {
    let outcome = attack("rapid reset", hang, &[], |raw| {
        for n in 0..100_000 {
            let stream = 1 + 2 * n;
            let bytes =
                [request(stream, END_STREAM, &[GET]), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat();
            if !raw.send(&bytes) {
                break;
            }
        }
    });
    outcome.refused_for(Excess::Resets);
    outcome.holds_little();
    assert!(outcome.report.requests <= 400, "{}", outcome.report.requests);
}

#[test]
fn made_you_reset() {
    // A stream is opened and then made to be reset by us, in as many ways as there are.
    type Way = fn(u32) -> Vec<u8>;
    let ways: [(&str, Way); 5] = [
        ("window update of 0", |stream| frame(WINDOW_UPDATE, 0, stream, &[0; 4])),
        ("window beyond its end", |stream| frame(WINDOW_UPDATE, 0, stream, &0x7fff_ffffu32.to_be_bytes())),
        ("priority on itself", |stream| {
            frame(PRIORITY, 0, stream, &[&stream.to_be_bytes()[..], &[1]].concat())
        }),
        ("headers once more", |stream| request(stream, 0, &[GET])),
        ("data beyond its length", |stream| frame(DATA, 0, stream, &[0; 100])),
    ];
    for (name, way) in ways {
        let outcome = attack(name, hang, &[], move |raw| {
            let length = literal(false, b"content-length", b"10");
            for n in 0..100_000 {
                let stream = 1 + 2 * n;
                if !raw.send(&[request(stream, 0, &[POST, &length]), way(stream)].concat()) {
                    break;
                }
            }
        });
        assert!(
            matches!(outcome.report.ended, Ended::Refused(_)),
            "{name}: {:?}, {:?}",
            outcome.report.ended,
            outcome.farewells
        );
        outcome.holds_little();
        assert!(outcome.report.requests <= 400, "{name}: {}", outcome.report.requests);
    }
}

#[test]
fn continuation_flood() {
    for (name, piece) in [("empty", 0), ("one byte", 1), ("full", 16 * 1024)] {
        let outcome = attack(&format!("continuation flood, {name}"), hang, &[], move |raw| {
            raw.send(&frame(HEADERS, END_STREAM, 1, GET));
            // Literals whose end does not come.
            let block = literal(false, b"a", &vec![b'a'; 1024 * 1024]);
            for n in 0..100_000 {
                let from = (n * piece).min(512 * 1024);
                if !raw.send(&frame(CONTINUATION, 0, 1, &block[from..from + piece])) {
                    break;
                }
            }
        });
        assert!(matches!(outcome.report.ended, Ended::Refused(_)), "{:?}", outcome.report.ended);
        assert_eq!(outcome.report.requests, 0);
        outcome.holds_little();
        assert!(outcome.report.grown < 256 * 1024);
    }
}

#[test]
fn hpack_bombs() {
    // One large field in the table, asked for by one byte each.
    let outcome = attack("table references", hang, &[], |raw| {
        let field = literal(true, b"x", &[b'x'; 4000]);
        raw.send(&request(1, END_STREAM, &[GET, &field]));
        for n in 1..2000 {
            if !raw.send(&request(1 + 2 * n, END_STREAM, &[GET, &[0xbe; 15_000]])) {
                break;
            }
        }
    });
    assert!(matches!(outcome.report.ended, Ended::Refused(_)), "{:?}", outcome.report.ended);
    outcome.holds_little();

    // As many as the list may have, in as many streams as there may be.
    let outcome = attack("table references within the list", hang, &[], |raw| {
        let field = literal(true, b"x", &[b'x'; 4000]);
        raw.send(&request(1, END_STREAM, &[GET, &field]));
        for n in 1..2000 {
            if !raw.send(&request(1 + 2 * n, END_STREAM, &[GET, &[0xbe; 3]])) {
                break;
            }
        }
    });
    outcome.refused_for(Excess::Memory);
    assert!(outcome.report.grown < 384 * 1024, "{}", outcome.report.grown);

    // As many as there may be, and more.
    for crumbs in [99, 400] {
        let outcome = attack("cookie crumbs", hang, &[], move |raw| {
            let crumb = [0x40 | 32, 1, b'a'];
            raw.send(&request(1, END_STREAM, &[GET, &crumb]));
            for n in 1..2000 {
                if !raw.send(&request(1 + 2 * n, END_STREAM, &[GET, &vec![0xbe; crumbs]])) {
                    break;
                }
            }
        });
        assert!(matches!(outcome.report.ended, Ended::Refused(_)), "{:?}", outcome.report.ended);
        assert!(outcome.report.grown < 384 * 1024, "{}", outcome.report.grown);
    }

    // A table of 4 GiB, to be filled by our answers or by theirs.
    let outcome = attack("huge dynamic table", answer, &[0, 1, 0xff, 0xff, 0xff, 0xff], |raw| {
        // A size update beyond what was announced.
        raw.send(&request(1, END_STREAM, &[&[0x3f, 0xe1, 0xff, 0xff, 0x07], GET]));
    });
    assert!(matches!(outcome.report.ended, Ended::Refused(Verdict::Fault(..))), "{:?}", outcome.report.ended);
    let outcome = attack("entries of the table that keep what they came in", answer, &[], |raw| {
        for n in 0..1000 {
            let field = literal(true, format!("{n}").as_bytes(), b"");
            let filler = literal(false, b"filler", &[b'x'; 8000]);
            if !raw.send(&request(1 + 2 * n, END_STREAM, &[GET, &field, &filler])) {
                break;
            }
        }
    });
    outcome.holds_little();
    println!("kept: {}", outcome.report.grown);
}

#[test]
fn empty_and_small_data() {
    let open = |raw: &mut Raw| assert!(raw.send(&request(1, 0, &[POST])));
    let outcome = attack("empty data", hang, &[], move |raw| {
        open(raw);
        repeat(raw, &frame(DATA, 0, 1, &[]), 1_000_000);
    });
    outcome.refused_for(Excess::EmptyData);
    let outcome = attack("padding alone", hang, &[], move |raw| {
        open(raw);
        repeat(raw, &frame(DATA, 8, 1, &[255; 256]), 100_000);
    });
    outcome.refused_for(Excess::EmptyData);
    // As much as the windows hold, in the smallest of frames, and nobody reads on.
    let outcome = attack("data of one byte", hang, &[], move |raw| {
        open(raw);
        repeat(raw, &frame(DATA, 0, 1, &[1]), 65_535);
    });
    outcome.holds_little();
    assert!(outcome.report.grown < 256 * 1024, "{}", outcome.report.grown);
    // Beside data that passes, of which each would keep a buffer.
    let outcome = attack("data of one byte beside others", hang, &[], move |raw| {
        raw.send(&request(1, 0, &[POST]));
        for n in 0..200 {
            let stream = 3 + 2 * n;
            let bytes = [
                frame(DATA, 0, 1, &[1]),
                request(stream, 0, &[POST]),
                frame(DATA, 0, stream, &[0; 1200]),
                frame(RST_STREAM, 0, stream, &[0; 4]),
            ];
            if !raw.send(&bytes.concat()) {
                break;
            }
        }
    });
    outcome.holds_little();
}

#[test]
fn floods_of_control_frames() {
    for (name, bytes, excess) in [
        ("ping", frame(PING, 0, 0, &[0; 8]), Excess::Pings),
        ("settings", frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff]), Excess::Settings),
        ("priority", frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1]), Excess::Priorities),
        ("unknown frames", frame(0xbb, 0, 0, &[0; 100]), Excess::Priorities),
        ("window update", frame(WINDOW_UPDATE, 0, 0, &[0, 0, 1, 0]), Excess::WindowUpdates),
    ] {
        let outcome = attack(name, hang, &[], move |raw| repeat(raw, &bytes, 1_000_000));
        outcome.refused_for(excess);
        outcome.holds_little();
        assert!(outcome.report.spent < Duration::from_millis(500), "{:?}", outcome.report.spent);
    }
    // Answers that nobody reads.
    let (report, ()) = serve(Limits::default(), hang, |address| {
        let mut raw = Raw::connect(address, &[]);
        repeat(&mut raw, &frame(PING, 0, 0, &[0; 8]), 1_000_000);
    });
    assert!(matches!(report.ended, Ended::Refused(_) | Ended::Gone), "{:?}", report.ended);
    assert!(report.grown < 64 * 1024, "{}", report.grown);
}

async fn large(mut incoming: Incoming, _: Control) {
    let Ok(mut body) = incoming.respond.send_head(response(200), false) else { return };
    let _ = send_all(&mut body, Bytes::from_static(&[0; 64 * 1024])).await;
}

#[test]
fn windows_that_stay_shut_or_open_by_one_byte() {
    // Windows of 0: nothing is taken from the member.
    let outcome = attack("window stall", large, &[0, 4, 0, 0, 0, 0], |raw| {
        for n in 0..100 {
            raw.send(&request(1 + 2 * n, END_STREAM, &[GET]));
        }
        thread::sleep(Duration::from_millis(300));
    });
    assert_eq!(outcome.report.requests, 100);
    outcome.holds_little();

    let outcome = attack("windows of one byte", large, &[0, 4, 0, 0, 0, 0], |raw| {
        raw.send(&request(1, END_STREAM, &[GET]));
        repeat(raw, &frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]), 100_000);
    });
    outcome.refused_for(Excess::SmallIncrements);
    outcome.holds_little();
}
