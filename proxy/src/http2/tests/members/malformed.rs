//! Members of raw frames, whose heads are none.

use super::*;

/// Runs a member of raw frames, which does this with its first connection.
fn with_raw_member<U: Future<Output = ()>>(
    member: impl FnOnce(Raw) + Send + 'static,
    use_it: impl FnOnce(Worker) -> U,
) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let member = thread::spawn(move || member(Raw::accept(&listener)));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let backlog = Rc::new(Backlog::new(usize::MAX));
        let streams = MemberStreams::new(Limits::default(), KEEP, Arc::default(), Rc::clone(&backlog));
        use_it(Worker { streams, backlog, pool: BufferPool::new(4), address }).await;
    });
    drop(runtime);
    member.join().unwrap();
}

#[test]
fn a_malformed_head_is_the_matter_of_its_own_stream() {
    let field = |name: &str, value: &str| literal(false, name.as_bytes(), value.as_bytes());
    let heads = [
        vec![],
        field(":status", "99"),
        field(":status", "1000"),
        field(":status", "101"),
        field(":path", "/"),
        [&[0x88][..], &[0x88]].concat(),
        [field("x", "1"), vec![0x88]].concat(),
        [vec![0x88], field("x", "a\r\nb: c")].concat(),
        [vec![0x88], field("X", "1")].concat(),
        [vec![0x88], field("connection", "close")].concat(),
        [vec![0x88], field("content-length", "x")].concat(),
        [vec![0x88], field("x", &"x".repeat(17_000))].concat(),
        // Interim, and the end.
        field(":status", "103"),
    ];
    let trailers = [field(":status", "200"), field("X", "1"), field("x", "\0"), field("connection", "close")];
    // More than a bucket of what a peer has done wrong holds.
    let rounds = 12;
    let asked = rounds * heads.len();
    let bad_trailers = trailers.len();
    let last_ends = heads.len() - 1;
    with_raw_member(
        move |mut raw| {
            let first = raw.receive_kind(HEADERS).unwrap().stream;
            let mut seen = VecDeque::new();
            let opened = |raw: &mut Raw, seen: &mut VecDeque<Frame>| {
                let mut frames = std::iter::from_fn(|| seen.pop_front().or_else(|| raw.receive()));
                frames.find(|frame| frame.kind == HEADERS).unwrap().stream
            };
            let part = |raw: &mut Raw, bytes: &[u8]| assert!(raw.send(bytes));
            part(&mut raw, &frame(HEADERS, 4, first, &[0x88]));
            for n in 0..asked {
                let stream = opened(&mut raw, &mut seen);
                let head = &heads[n % heads.len()];
                let end = if n % heads.len() == last_ends { END_STREAM } else { 0 };
                for (n, piece) in head.chunks(16_000).enumerate() {
                    let last = (n + 1) * 16_000 >= head.len();
                    let (kind, flags) = if n == 0 { (HEADERS, end) } else { (CONTINUATION, 0) };
                    part(&mut raw, &frame(kind, flags | if last { 4 } else { 0 }, stream, piece));
                }
                if head.is_empty() {
                    part(&mut raw, &frame(HEADERS, 4, stream, &[]));
                }
                let reset = loop {
                    let frame = raw.receive().unwrap();
                    // What has come behind a reset may be answered by STREAM_CLOSED, and the next may be faster.
                    if frame.kind == RST_STREAM && frame.payload != [0, 0, 0, 5] {
                        break frame;
                    }
                    seen.push_back(frame);
                };
                assert_eq!((reset.stream, &reset.payload[..]), (stream, &[0, 0, 0, 1][..]), "{head:?}");
                // What comes behind is nobody's.
                part(&mut raw, &frame(HEADERS, 4, stream, &[0x88]));
                part(&mut raw, &frame(DATA, 0, first, b"x"));
            }
            for trailers in &trailers {
                let stream = opened(&mut raw, &mut seen);
                part(&mut raw, &frame(HEADERS, 4, stream, &[0x88]));
                part(&mut raw, &frame(HEADERS, 5, stream, trailers));
            }
            part(&mut raw, &frame(DATA, END_STREAM, first, b"!"));
            assert_eq!(raw.receive_kind(DATA), None);
        },
        move |worker| async move {
            // It goes on beside all of them.
            let (mut answer, _) = worker.place().await.send(get(), true).unwrap();
            let (_, mut whole) = final_head(&mut answer).await.unwrap();
            let send = || async { worker.place().await.send(get(), true).unwrap() };
            for _ in 0..asked {
                let (mut answer, mut body) = send().await;
                match final_head(&mut answer).await {
                    Err(failure) => assert_eq!(failure, Failure::Malformed),
                    Ok((fields, response)) => {
                        let (mut head, mut text) = (ResponseHead::new(), Vec::new());
                        let read = head::read_response(
                            &fields,
                            Method::Get,
                            response.is_empty(),
                            &mut head,
                            &mut text,
                        );
                        let framed = read.map(|_| response_framing(Method::Get, false, &head.view(&text)));
                        assert!(!matches!(framed, Ok(Ok(_))), "{fields:?}");
                        body.reset(Reason::PROTOCOL_ERROR);
                    }
                }
            }
            for _ in 0..bad_trailers {
                let (mut answer, _) = send().await;
                let (_, mut body) = final_head(&mut answer).await.unwrap();
                let broken = poll_fn(|cx| body.poll_data(cx)).await.unwrap().unwrap_err();
                assert_eq!(broken, Broken::Reset(Reason::PROTOCOL_ERROR));
            }
            let mut got = Vec::new();
            while let Some(data) = poll_fn(|cx| whole.poll_data(cx)).await {
                got.extend_from_slice(&data.unwrap());
            }
            assert_eq!(got.len(), asked + 1);
            assert_eq!(worker.streams.connections(), 1);
        },
    );
}

#[test]
fn a_member_that_sends_heads_to_nobody_on_and_on_is_left() {
    with_raw_member(
        |mut raw| {
            let stream = raw.receive_kind(HEADERS).unwrap().stream;
            raw.receive_kind(RST_STREAM).unwrap();
            while raw.send(&frame(HEADERS, 4, stream, &[0x88])) {}
        },
        |worker| async move {
            drop(worker.place().await.send(get(), true).unwrap());
            while worker.streams.connections() > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        },
    );
}
