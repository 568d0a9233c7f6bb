//! `httpwg` (crates.io: httpwg-cli), cases of RFC 9113 and RFC 7541 for servers, run by hand against a server that answers.

use std::process::Command;

use super::*;

/// What the suite asks servers for: an answer, and bodies.
async fn served(mut incoming: Incoming, _: Control) {
    let (mut head, mut text) = (crate::http::RequestHead::new(), Vec::new());
    let context = head::RequestContext {
        scheme: "http",
        websocket_key: b"dGhlIHNhbXBsZSBub25jZQ==",
        ended: incoming.body.is_empty(),
    };
    if let Err(reject) = head::read_request(&incoming.request, context, &mut head, &mut text) {
        match head::refusal(reject) {
            Ok(status) => drop(incoming.respond.send_head(response(status), true)),
            Err(reason) => incoming.respond.reset(reason),
        }
        return;
    }
    let path = incoming.request.uri().path().to_owned();
    let mut got = Vec::new();
    while let Some(data) = poll_fn(|cx| incoming.body.poll_data(cx)).await {
        let Ok(data) = data else { return };
        incoming.body.release(data.len());
        got.extend_from_slice(&data);
    }
    if poll_fn(|cx| incoming.body.poll_trailers(cx)).await.is_err() {
        return;
    }
    let bytes = match path.as_str() {
        "/echo-body" => Bytes::from(got),
        _ => Bytes::from_static(b"<p>It's alive!</p>"),
    };
    let length = bytes.len();
    let mut answer = response(200);
    answer.headers_mut().insert("content-length", length.into());
    let Ok(mut body) = incoming.respond.send_head(answer, length == 0) else { return };
    let _ = send_all(&mut body, bytes).await;
}

/// `AMPHORA_HTTPWG=.../httpwg cargo test -p amphora-proxy --lib http2::tests::suite -- --ignored --nocapture`
#[test]
#[ignore = "needs the program httpwg"]
fn httpwg() {
    let program = std::env::var("AMPHORA_HTTPWG").expect("AMPHORA_HTTPWG is where httpwg is");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            // One that goes wrong is to be seen as such by the suite.
            thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                let stream = stream.unwrap();
                LocalSet::new().block_on(&runtime, serve_one(stream, Limits::default(), served));
            });
        }
    });
    let arguments = std::env::var("AMPHORA_HTTPWG_ARGUMENTS").unwrap_or_default();
    let status = Command::new(program)
        .args(["--address", &address.to_string()])
        .args(arguments.split_whitespace())
        .status()
        .unwrap();
    println!("{status}");
}
