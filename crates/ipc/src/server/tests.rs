#![allow(clippy::unwrap_used)]

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::Notify,
    task::LocalSet,
    time::timeout,
};

use super::*;

/// Says what was asked; `/slow` waits until it is told to go on.
struct Echo {
    go_on: Rc<Notify>,
}

impl Service for Echo {
    const MAX_DOCUMENT: usize = 10;

    async fn answer(&self, method: &Method, path: &str, body: Bytes) -> Answer {
        if path == "/slow" {
            self.go_on.notified().await;
        }
        let text = format!("{method} {path} {}", body.len());
        Answer::whole(StatusCode::OK, "text/plain", text)
    }

    fn refuse(&self, status: StatusCode, reason: &str) -> Answer {
        Answer::whole(status, "text/plain", reason.to_owned())
    }
}

async fn serving(test: impl AsyncFnOnce(&Path, Rc<Notify>)) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control");
    let socket = ControlSocket::bind(&path, "test").unwrap();
    let go_on = Rc::new(Notify::new());
    let echo = Echo { go_on: Rc::clone(&go_on) };
    let all = LocalSet::new();
    all.run_until(async {
        tokio::select! {
            () = socket.serve(echo) => {}
            done = timeout(Duration::from_secs(20), test(&path, go_on)) => done.unwrap(),
        }
    })
    .await;
}

async fn ask(path: &Path, request: &str) -> String {
    let mut stream = UnixStream::connect(path).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn who_has_finished_sending_gets_every_answer() {
    serving(async |path, _| {
        let two =
            "GET /a HTTP/1.1\r\nhost: x\r\n\r\nPUT /b HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc";
        let answers = ask(path, two).await;
        assert!(answers.contains("GET /a 0") && answers.contains("PUT /b 3"), "{answers}");
        let large = ask(path, "PUT /b HTTP/1.1\r\nhost: x\r\ncontent-length: 11\r\n\r\n12345678901").await;
        assert!(large.starts_with("HTTP/1.1 413"), "{large}");
    })
    .await;
}

#[tokio::test]
async fn one_that_hangs_gives_its_place_to_the_next_and_one_that_is_worked_for_does_not() {
    serving(async |path, go_on| {
        let mut worked_for = UnixStream::connect(path).await.unwrap();
        worked_for.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut hanging = Vec::new();
        for half in ["", "GET /a HT", "PUT /b HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\na"] {
            for _ in 0..PLACES + 8 {
                let mut stream = UnixStream::connect(path).await.unwrap();
                stream.write_all(half.as_bytes()).await.unwrap();
                hanging.push(stream);
            }
            // Nobody waits for the patience with them to end.
            let answer =
                timeout(PATIENCE / 2, ask(path, "GET /a HTTP/1.1\r\nhost: x\r\n\r\n")).await.unwrap();
            assert!(answer.contains("GET /a 0"), "{answer}");
        }
        go_on.notify_one();
        let mut answer = String::new();
        worked_for.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains("GET /slow 0"), "{answer}");
    })
    .await;
}
