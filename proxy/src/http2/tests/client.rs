//! Clients that mean well.

mod heads;

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering},
    time::Instant,
};

use ::http::{HeaderMap, HeaderValue, Request};
use h2::client;

use super::{
    raw::{
        ACK, DATA, END_STREAM, GET, GOAWAY, HEADERS, PING, RST_STREAM, Raw, WINDOW_UPDATE, frame, request,
    },
    *,
};
use crate::{
    http::{ResponseEdits, ResponseHead},
    http2::guard::{Fault, Verdict},
};

/// Runs a client of the crate `h2`.
fn with_client<F, R>(
    use_it: impl FnOnce(client::SendRequest<Bytes>) -> F + Send + 'static,
) -> impl FnOnce(SocketAddr) -> R
where
    F: Future<Output = R>,
{
    move |address| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let (send, connection) =
                client::Builder::new().data_frame_budget(1 << 30).handshake(stream).await.unwrap();
            spawn_local(async {
                let _ = connection.await;
            });
            use_it(send.ready().await.unwrap()).await
        })
    }
}

/// Sends the body back as it comes, then its trailers.
async fn echo(mut incoming: Incoming, _: Control) {
    incoming.respond.send_interim(response(103)).unwrap();
    let mut body = incoming.respond.send_head(response(200), false).unwrap();
    while let Some(data) = poll_fn(|cx| incoming.body.poll_data(cx)).await {
        let mut data = data.unwrap();
        while !data.is_empty() {
            let n = poll_fn(|cx| {
                incoming.body.absorb(cx);
                body.poll_capacity(cx, data.len())
            })
            .await
            .unwrap();
            body.send(data.split_to(n), false).unwrap();
            incoming.body.release(n);
        }
    }
    match poll_fn(|cx| incoming.body.poll_trailers(cx)).await.unwrap() {
        Some(trailers) => body.send_trailers(&trailers).unwrap(),
        None => body.send(Bytes::new(), true).unwrap(),
    }
}

fn post() -> Request<()> {
    Request::post("http://a/").body(()).unwrap()
}

#[test]
fn bodies_of_many_streams_come_back_whole_with_their_trailers() {
    const SIZE: usize = 300 * 1024;
    let (report, ()) = serve(
        Limits::default(),
        echo,
        with_client(|send| async move {
            let tasks: Vec<_> = (0..20u8)
                .map(|n| {
                    let mut send = send.clone();
                    spawn_local(async move {
                        let (response, mut up) = send.send_request(post(), false).unwrap();
                        let sending = async {
                            let mut sent = 0;
                            while sent < SIZE {
                                // Sizes of all kinds.
                                let want = (1 + sent % 3000 * usize::from(n + 1)).min(SIZE - sent);
                                up.reserve_capacity(want);
                                let room =
                                    poll_fn(|cx| up.poll_capacity(cx)).await.unwrap().unwrap().min(want);
                                up.send_data(vec![n; room].into(), false).unwrap();
                                sent += room;
                            }
                            let trailers = HeaderMap::from_iter([(
                                ::http::HeaderName::from_static("n"),
                                HeaderValue::from(u16::from(n)),
                            )]);
                            up.send_trailers(trailers).unwrap();
                        };
                        let receiving = async {
                            let mut down = response.await.unwrap().into_body();
                            let mut got = 0;
                            while let Some(data) = down.data().await {
                                let data = data.unwrap();
                                assert!(data.iter().all(|byte| *byte == n));
                                got += data.len();
                                down.flow_control().release_capacity(data.len()).unwrap();
                            }
                            assert_eq!(got, SIZE);
                            let trailers = down.trailers().await.unwrap().unwrap();
                            assert_eq!(trailers["n"], n.to_string());
                        };
                        tokio::join!(sending, receiving);
                    })
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
        }),
    );
    assert_eq!((report.ended, report.requests), (Ended::Gone, 20));
    assert!(report.counted <= Limits::default().budget, "{}", report.counted);
    assert!(report.grown < 1024 * 1024, "{}", report.grown);
    assert_eq!(report.counters.streams.get(), 20);
}

#[test]
fn a_connection_without_streams_takes_less_than_40_kib() {
    let (report, ()) = serve(
        Limits::default(),
        answer,
        with_client(|mut send| async move {
            send.send_request(Request::get("http://a/").body(()).unwrap(), true).unwrap().0.await.unwrap();
        }),
    );
    println!("idle: {} bytes; with one stream {} more", report.idle, report.grown);
    assert!(report.idle < 40 * 1024, "{}", report.idle);
}

#[test]
fn a_client_that_does_not_read_makes_us_hold_no_more_than_the_queue() {
    static TAKEN: AtomicUsize = AtomicUsize::new(0);
    async fn large(mut incoming: Incoming, _: Control) {
        let mut body = incoming.respond.send_head(response(200), false).unwrap();
        let piece = &[0; 16 * 1024];
        loop {
            let Ok(n) = poll_fn(|cx| body.poll_capacity(cx, piece.len())).await else { return };
            TAKEN.fetch_add(n, Ordering::Relaxed);
            if body.send(Bytes::copy_from_slice(&piece[..n]), false).is_err() {
                return;
            }
        }
    }
    let (report, ()) = serve(Limits::default(), large, |address| {
        // Windows of 2 GiB, and all of it is refused by not reading.
        let huge = 0x7fff_ffffu32.to_be_bytes();
        let mut raw = Raw::connect(address, &[&[0, 4][..], &huge].concat());
        raw.send(&frame(WINDOW_UPDATE, 0, 0, &0x7f00_0000u32.to_be_bytes()));
        for stream in 0..100 {
            raw.send(&request(1 + 2 * stream, END_STREAM, &[GET]));
        }
        // Until no more is taken.
        let mut before = usize::MAX;
        while before != TAKEN.load(Ordering::Relaxed) || before == 0 {
            before = TAKEN.load(Ordering::Relaxed);
            thread::sleep(Duration::from_millis(300));
        }
    });
    let limits = Limits::default();
    println!("{report:?}");
    assert_eq!(report.requests, 100);
    assert!(report.counted <= limits.budget, "{}", report.counted);
    assert!(report.grown < 500 * 1024, "{}", report.grown);
}

#[test]
fn a_body_that_is_not_taken_stops_at_the_window_and_goes_on_as_it_is_released() {
    async fn slow(mut incoming: Incoming, _: Control) {
        let mut got = 0;
        while let Some(data) = poll_fn(|cx| incoming.body.poll_data(cx)).await {
            got += data.unwrap().len();
            if got == 64 * 1024 {
                // All that the window allows.
                incoming.body.release(got);
                got = 0;
            }
        }
        incoming.respond.send_head(response(200), true).unwrap();
    }
    let (report, ()) = serve(
        Limits::default(),
        slow,
        with_client(|mut send| async move {
            let (response, mut up) = send.send_request(post(), false).unwrap();
            for _ in 0..8 * 64 {
                up.send_data(vec![1; 1024].into(), false).unwrap();
            }
            up.send_data(Bytes::new(), true).unwrap();
            assert_eq!(response.await.unwrap().status(), 200);
        }),
    );
    assert!(report.grown < 200 * 1024, "{}", report.grown);
}

#[test]
fn a_drained_connection_says_so_twice_and_ends_with_its_last_stream() {
    async fn drain(mut incoming: Incoming, control: Control) {
        control.drain(Duration::from_secs(30));
        // The connection notices when it is polled.
        let mut body = incoming.respond.send_head(response(200), false).unwrap();
        while poll_fn(|cx| incoming.body.poll_data(cx)).await.is_some() {}
        body.send(Bytes::from_static(b"last"), true).unwrap();
    }
    let (report, ()) = serve(Limits::default(), drain, |address| {
        let mut raw = Raw::connect(address, &[]);
        raw.send(&request(1, 0, &[GET]));
        let last = |frame: super::raw::Frame| u32::from_be_bytes(frame.payload[..4].try_into().unwrap());
        assert_eq!(last(raw.receive_kind(GOAWAY).unwrap()), 0x7fff_ffff);
        let ping = raw.receive_kind(PING).unwrap();
        // On its way before the client could know.
        raw.send(&request(3, END_STREAM, &[GET]));
        raw.send(&frame(PING, ACK, 0, &ping.payload));
        assert_eq!(last(raw.receive_kind(GOAWAY).unwrap()), 3);
        // Too late.
        raw.send(&request(5, END_STREAM, &[GET]));
        raw.send(&frame(DATA, END_STREAM, 1, &[]));
        let frames: Vec<_> = std::iter::from_fn(|| raw.receive()).collect();
        assert!(frames.iter().any(|f| f.stream == 1 && f.kind == DATA && f.payload == b"last"), "{frames:?}");
        assert!(frames.iter().all(|f| f.stream != 5), "{frames:?}");
    });
    assert_eq!((report.ended, report.requests), (Ended::Drained, 2));
}

#[test]
fn a_client_that_does_not_say_that_it_knows_of_a_drain_is_told_the_end_all_the_same() {
    async fn drain(mut incoming: Incoming, control: Control) {
        control.drain(Duration::from_secs(60));
        incoming.respond.send_head(response(200), true).unwrap();
    }
    let begun = Instant::now();
    let (report, frames) = serve(Limits::default(), drain, |address| {
        let mut raw = Raw::connect(address, &[]);
        raw.send(&request(1, END_STREAM, &[GET]));
        // No answer to the ping, and nothing else.
        raw.reader().join().unwrap()
    });
    assert_eq!((report.ended, report.requests), (Ended::Drained, 1));
    assert!(begun.elapsed() < PATIENCE.idle, "nobody waited for it to have been idle");
    let last: Vec<_> =
        frames.iter().filter(|frame| frame.kind == GOAWAY).map(|frame| frame.payload[..4].to_vec()).collect();
    assert_eq!(last, [0x7fff_ffff_u32.to_be_bytes(), 1_u32.to_be_bytes()]);
}

#[test]
fn a_drain_that_takes_too_long_is_ended() {
    async fn drain(incoming: Incoming, control: Control) {
        control.drain(Duration::from_millis(200));
        hang(incoming, control).await;
    }
    let (report, frames) = serve(Limits::default(), drain, |address| {
        let mut raw = Raw::connect(address, &[]);
        raw.send(&request(1, END_STREAM, &[GET]));
        // No answer to the ping, and no patience.
        raw.reader().join().unwrap()
    });
    assert_eq!(report.ended, Ended::Drained);
    assert_eq!(super::raw::farewells(&frames), [0, 0]);
}

#[test]
fn what_is_wrong_with_one_stream_leaves_the_others() {
    let (report, ()) = serve(Limits::default(), answer, |address| {
        let mut raw = Raw::connect(address, &[]);
        let field = |name: &str, value: &str| super::raw::literal(false, name.as_bytes(), value.as_bytes());
        let host = field("host", "a");
        let mut stream = 1;
        for bad in [
            field("connection", "x"),
            field("X", "1"),
            field("x", "a\0"),
            field("x y", "1"),
            field(":path", "/"),
            field(":other", ""),
            [field("x", "1"), field(":path", "/")].concat(),
        ] {
            raw.send(&request(stream, END_STREAM, &[GET, &bad, &host]));
            let reset = raw.receive_kind(RST_STREAM).unwrap();
            assert_eq!((reset.stream, &reset.payload[..]), (stream, &[0, 0, 0, 1][..]), "{bad:?}");
            raw.send(&request(stream + 2, END_STREAM, &[GET, &host]));
            assert_eq!(raw.receive_kind(HEADERS).unwrap().stream, stream + 2);
            stream += 4;
        }
        // Of one that depends on itself the library makes nothing.
        let on_itself = [&stream.to_be_bytes()[..], &[9], GET, &host].concat();
        raw.send(&frame(HEADERS, 0x25, stream, &on_itself));
        assert_eq!(raw.receive_kind(RST_STREAM).unwrap().stream, stream);
        // What cannot be decoded ends the connection.
        raw.send(&request(stream + 2, END_STREAM, &[GET, &[0xff, 0xff]]));
        assert_eq!(raw.receive_kind(GOAWAY).unwrap().payload[4..8], [0, 0, 0, 9]);
    });
    assert!(
        matches!(report.ended, Ended::Refused(Verdict::Fault(Fault::Compression, _))),
        "{:?}",
        report.ended
    );
    assert_eq!(report.requests, 14);
}

#[test]
fn what_was_read_before_is_given_back() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let server = listener.accept().await.unwrap().0;
        let pool = BufferPool::new(1);
        let mut begun = pool.get();
        begun.put(&super::super::guard::PREFACE[..]);
        begun.put(&frame(super::raw::SETTINGS, 0, 0, &[]));
        begun.put(&request(1, END_STREAM, &[GET]));
        let mut connection =
            ServerConnection::new(Conn::from(server), Some(begun), &pool, Limits::default(), PATIENCE);
        let incoming = poll_fn(|cx| connection.poll_accept(cx)).await.unwrap();
        assert!(incoming.head.iter().any(|field| field == (b":path", b"/")));
        assert!(incoming.body.is_empty());
        drop(client);
        assert_eq!(poll_fn(|cx| connection.poll_accept(cx)).await.unwrap_err(), Ended::Gone);
    });
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_and_half_a_head_are_waited_for_in_bounds() {
    for bytes in [
        [&super::super::guard::PREFACE[..], &frame(super::raw::SETTINGS, 0, 0, &[])].concat(),
        super::super::guard::PREFACE[..7].to_vec(),
        Vec::new(),
        [
            &super::super::guard::PREFACE[..],
            &frame(super::raw::SETTINGS, 0, 0, &[]),
            &frame(HEADERS, END_STREAM, 1, GET),
        ]
        .concat(),
    ] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let server = listener.accept().await.unwrap().0;
        let pool = BufferPool::new(1);
        client.writable().await.unwrap();
        assert_eq!(client.try_write(&bytes).unwrap_or(0), bytes.len());
        let patience = Patience { idle: Duration::from_secs(60), progress: Duration::from_secs(5) };
        let mut connection =
            ServerConnection::new(Conn::from(server), None, &pool, Limits::default(), patience);
        let start = tokio::time::Instant::now();
        assert_eq!(poll_fn(|cx| connection.poll_accept(cx)).await.unwrap_err(), Ended::Late);
        let waited = (tokio::time::Instant::now() - start).as_secs();
        // And two seconds for the client to hear of it.
        let in_block = bytes.len() > 40;
        assert!(if in_block { (5..=8).contains(&waited) } else { (60..=63).contains(&waited) }, "{waited}");
    }
}

#[test]
fn uploads_that_are_answered_early_and_reset_leave_the_connection() {
    // As many as there may be at once, over and over, each with all that the window holds on its way.
    async fn early(mut incoming: Incoming, _: Control) {
        let mut body = incoming.respond.send_head(response(503), false).unwrap();
        body.send(Bytes::from_static(b"no"), true).unwrap();
    }
    let (report, answered) = serve(
        Limits::default(),
        early,
        with_client(|send| async move {
            let mut answered = 0;
            for _ in 0..5 {
                let tasks: Vec<_> = (0..100)
                    .map(|_| {
                        let mut send = send.clone();
                        spawn_local(async move {
                            let (response, mut up) = send.send_request(post(), false).unwrap();
                            for _ in 0..60 {
                                let _ = up.send_data(vec![1; 1024].into(), false);
                            }
                            response.await.is_ok_and(|response| response.status() == 503)
                        })
                    })
                    .collect();
                for task in tasks {
                    answered += usize::from(task.await.unwrap());
                }
            }
            answered
        }),
    );
    assert_eq!((report.ended, answered), (Ended::Gone, 500));
}
