//! Heads on their way to clients, however large, and beside what ends their streams.

use super::*;

/// A response with so many bytes of fields, one after the other.
fn large(status: u16, fields: usize, value: usize) -> head::ResponseBlock {
    let lines: String = (0..fields).map(|n| format!("X-{n}: {}\r\n", "v".repeat(value))).collect();
    let text = format!("HTTP/1.1 {status} Any\r\n{lines}\r\n");
    let mut parsed = ResponseHead::new();
    parsed.parse(text.as_bytes()).unwrap().unwrap();
    head::response(&parsed.view(text.as_bytes()), &ResponseEdits::default(), false)
}

#[test]
fn heads_are_sent_whole_however_large_beside_each_other() {
    async fn handle(mut incoming: Incoming, _: Control) {
        incoming.respond.send_interim(large(103, 1, 8000)).unwrap();
        let mut body = incoming.respond.send_head(large(200, 3, 5000), false).unwrap();
        send_all_but_end(&mut body, Bytes::from_static(&[7; 20_000])).await;
        let trailers = (0..4).map(|n| [&b"a"[..], b"b", b"c", b"d"][n]);
        let value = vec![b't'; 4000];
        body.send_trailers(&head::trailers(trailers.map(|name| (name, &value[..])))).unwrap();
    }
    let (report, ()) = serve(
        Limits::default(),
        handle,
        with_client(|send| async move {
            let tasks: Vec<_> = (0..50)
                .map(|_| {
                    let mut send = send.clone();
                    spawn_local(async move {
                        let (response, _) = send.send_request(post(), true).unwrap();
                        let response = response.await.unwrap();
                        assert_eq!(response.headers().len(), 3);
                        assert!(response.headers().values().all(|value| value.len() == 5000));
                        let mut body = response.into_body();
                        let mut got = 0;
                        while let Some(data) = body.data().await {
                            let data = data.unwrap();
                            got += data.len();
                            body.flow_control().release_capacity(data.len()).unwrap();
                        }
                        assert_eq!(got, 20_000);
                        let trailers = body.trailers().await.unwrap().unwrap();
                        assert_eq!((trailers.len(), trailers["d"].len()), (4, 4000));
                    })
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
        }),
    );
    assert_eq!((report.requests, report.left), (50, 0));
}

async fn send_all_but_end(body: &mut SendBody, mut bytes: Bytes) {
    while !bytes.is_empty() {
        let n = poll_fn(|cx| body.poll_capacity(cx, bytes.len())).await.unwrap();
        body.send(bytes.split_to(n), false).unwrap();
    }
}

/// A head that was on its way when its stream was reset, by us or by the client, is not kept, and those of others are not taken
/// for it.
#[test]
fn heads_of_streams_that_are_reset_do_not_go() {
    async fn handle(mut incoming: Incoming, _: Control) {
        let stream = incoming.respond.stream();
        match stream % 8 {
            1 => {
                incoming.respond.send_interim(response(103)).unwrap();
                incoming.respond.reset(h2::Reason::CANCEL);
            }
            3 => {
                let mut body = incoming.respond.send_head(response(200), false).unwrap();
                body.reset(h2::Reason::CANCEL);
            }
            5 => {
                // The client has gone meanwhile, or goes.
                tokio::task::yield_now().await;
                let _ = incoming.respond.send_head(response(204), false);
            }
            _ => drop(incoming.respond.send_head(response(404), true).unwrap()),
        }
    }
    let (report, frames) = serve(Limits::default(), handle, |address| {
        let mut raw = Raw::connect(address, &[]);
        // As many as there may be.
        for n in 0..96 {
            let stream = 1 + 2 * n;
            let mut bytes = request(stream, END_STREAM, &[GET]);
            if stream % 8 == 5 {
                bytes.extend(frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]));
            }
            raw.send(&bytes);
        }
        let mut frames = Vec::new();
        let mut left = 24 + 48;
        while left > 0 {
            let frame = raw.receive().unwrap();
            left -= usize::from(match frame.kind {
                HEADERS => frame.stream % 8 == 7,
                RST_STREAM => frame.stream % 8 < 4,
                _ => false,
            });
            frames.push(frame);
        }
        frames
    });
    assert_eq!((report.requests, report.left), (96, 0));
    let mut answered = 0;
    for frame in frames.iter().filter(|frame| frame.kind == HEADERS) {
        let block = frame.payload.strip_prefix(&[hpack::encode::NO_TABLE]).unwrap_or(&frame.payload);
        match frame.stream % 8 {
            1 => assert_eq!(block, [8, 3, b'1', b'0', b'3']),
            3 => assert_eq!(block, [0x88]),
            5 => assert_eq!(block, [0x89]),
            _ => {
                assert_eq!(block, [0x8d]);
                answered += 1;
            }
        }
    }
    assert_eq!(answered, 24);
}
