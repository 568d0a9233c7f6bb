//! A thousand clients at a time: idle, slow, half-closed, pipelined, greedy.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    thread,
    time::Duration,
};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::Value;

use crate::{MEMBER, api, ground::Serve};

const MANY: usize = 1000;

fn connect(serve: &Serve, count: usize) -> Vec<TcpStream> {
    serve.host.inside(|| {
        (0..count)
            .map(|_| {
                let stream = TcpStream::connect("127.0.0.1:9876").unwrap();
                stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
                stream.set_write_timeout(Some(Duration::from_secs(60))).unwrap();
                stream
            })
            .collect()
    })
}

/// A request for something that is not there, whose answer tells what was asked for.
fn question(client: usize, n: usize) -> String {
    let last = if n == 4 { "Connection: close\r\n" } else { "" };
    format!("GET /v2/lbaas/listeners/{client}-{n} HTTP/1.1\r\nHost: serve\r\n{last}\r\n")
}

fn answer(mut stream: &TcpStream) -> String {
    let mut text = Vec::new();
    // Who is refused in the middle of what he sends may find the connection reset.
    let _ = stream.read_to_end(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}

#[test]
fn a_thousand_clients_are_answered_whatever_the_others_do() {
    let Some(mut serve) = Serve::start() else { return };
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    if hard < 4096 {
        eprintln!("SKIPPED: too few descriptors");
        return;
    }
    serve.member("10.250.0.1:8081", "one");
    // Those that are no use to anybody: who asks for nothing, who never ends his head, or his body.
    let mut nuisances = connect(&serve, MANY);
    for (n, stream) in nuisances.iter_mut().enumerate() {
        match n % 3 {
            0 => {}
            1 => stream.write_all(b"GET /v2/lbaas/loadbala").unwrap(),
            _ => {
                let head = "POST /v2/lbaas/loadbalancers HTTP/1.1\r\nHost: serve\r\nContent-Type: application/json\r\n\
                    Content-Length: 8000000\r\n\r\n";
                stream.write_all(head.as_bytes()).unwrap();
                stream.write_all(&[b' '; 4096]).unwrap();
            }
        }
    }
    // Five requests at once from each; some say that they will say no more.
    let clients = connect(&serve, MANY);
    for (client, mut stream) in clients.iter().enumerate() {
        let all: String = (0..5).map(|n| question(client, n)).collect();
        stream.write_all(all.as_bytes()).unwrap();
        if client % 2 == 0 {
            stream.shutdown(Shutdown::Write).unwrap();
        }
    }
    for (client, stream) in clients.iter().enumerate() {
        let text = answer(stream);
        let mut rest = text.as_str();
        for n in 0..5 {
            let found = rest.find(&format!("Listener {client}-{n} not found"));
            let at =
                found.unwrap_or_else(|| panic!("client {client} has no answer {n} in its place: {text}"));
            rest = &rest[at + 1..];
        }
        assert_eq!(text.matches("HTTP/1.1 404").count(), 5);
    }
    let id = api::create(&serve, "beside them", MEMBER)["id"].as_str().unwrap().to_owned();
    serve.eventually("ACTIVE", |serve| (api::status(serve, &id).as_deref() == Some("ACTIVE")).then_some(()));
    let memory = serve.most_memory() >> 20;
    eprintln!("{MANY} that are no use and {MANY} clients: at most {memory} MiB");
    assert!(memory < 160, "{memory} MiB");
    drop(nuisances);
    drop(clients);

    // 600 MiB at once, of which nobody says the last byte.
    let greedy = connect(&serve, 80);
    let sent: Vec<_> = thread::scope(|scope| {
        let send = |mut stream: &TcpStream| {
            let head = "POST /v2/lbaas/pools HTTP/1.1\r\nHost: serve\r\nContent-Type: application/json\r\nContent-Length: 8000000\r\n\r\n";
            stream.write_all(head.as_bytes()).unwrap();
            (0..122).all(|_| stream.write_all(&[b' '; 65_536]).is_ok())
        };
        let all: Vec<_> = greedy.iter().map(|stream| scope.spawn(move || send(stream))).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let memory = serve.most_memory() >> 20;
    let refused = sent.iter().filter(|whole| !**whole).count();
    eprintln!("80 bodies of 8 MB that do not end: {refused} refused meanwhile, at most {memory} MiB");
    assert!(refused > 60, "{sent:?}");
    assert!(memory < 320, "{memory} MiB");
    drop(greedy);
    serve.eventually("room again", |serve| {
        let body = Value::String(" ".repeat(1 << 20));
        let (status, _) = api::request(serve, "POST", "pools", &body);
        (status == 400).then_some(())
    });
    assert_eq!(api::status(&serve, &id).as_deref(), Some("ACTIVE"));
    serve.stop();
}
