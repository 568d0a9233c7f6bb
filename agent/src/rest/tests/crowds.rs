//! Many clients, and slow ones, beside another controller.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use hyper::StatusCode;
use rustls::ClientConfig;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::client::TlsStream;

use super::*;
use crate::testing::{Mood, TestAgent};

/// Requests that the agent of these tests may carry out at a time.
const AT_WORK: usize = 24;

/// More clients than it has places for.
const MANY: u8 = 64;

/// How long another controller may be kept waiting, less what a busy machine may need.
const SOON: Duration = Duration::from_secs(4);

/// What the clients of a crowd have in common.
#[derive(Clone, Copy, Debug)]
enum Crowd {
    /// Address and certificate.
    OneHost,
    /// The certificate.
    ManyHosts,
    /// The address.
    ManyCertificates,
}

impl Crowd {
    async fn member(self, agent: &TestAgent, client: &Arc<ClientConfig>, at: u8) -> TlsStream<TcpStream> {
        let own = &agent.certificates;
        let client = if matches!(self, Self::ManyCertificates) { own.client(own) } else { client.clone() };
        let host = if matches!(self, Self::ManyHosts) { at } else { 1 };
        agent.connect_from(Ipv4Addr::new(127, 0, 1, host), client).await.unwrap()
    }

    async fn gather(self, agent: &TestAgent, sends: &[u8], reads: bool) -> Vec<TlsStream<TcpStream>> {
        let client = agent.certificates.client(&agent.certificates);
        let mut crowd = Vec::new();
        for at in 1..=MANY {
            let mut stream = self.member(agent, &client, at).await;
            let _ = stream.write_all(sends).await;
            let _ = stream.flush().await;
            if reads {
                let _ = stream.read(&mut [0; 4096]).await;
            }
            crowd.push(stream);
        }
        crowd
    }
}

async fn small_agent() -> TestAgent {
    TestAgent::with(|config| config.max_connections = AT_WORK).await
}

/// Another controller, with a certificate and an address of its own.
async fn another(agent: &TestAgent) -> TlsStream<TcpStream> {
    let client = agent.certificates.client(&agent.certificates);
    agent.connect_from(Ipv4Addr::new(127, 0, 2, 1), client).await.unwrap()
}

/// What it is answered.
async fn asks(agent: &TestAgent, request: &str) -> String {
    let ask = async {
        let mut stream = another(agent).await;
        stream
            .write_all(format!("{request}\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes())
            .await
            .unwrap();
        stream.flush().await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    };
    timeout(SOON, ask).await.unwrap_or_else(|_| "nothing in time".to_owned())
}

fn half_of_a_document() -> String {
    let head = format!("PUT {} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", lb(), DOCUMENT.len());
    head + &DOCUMENT[..100]
}

#[tokio::test]
async fn no_kind_of_slow_client_keeps_another_controller_out() {
    let half = half_of_a_document();
    let many_answers = "GET /2.0/openapi.json HTTP/1.1\r\nhost: x\r\n\r\n".repeat(300);
    let kinds = [
        ("silent", "", false),
        ("half a head", "GET /2.0 HT", false),
        ("idle", "GET /2.0 HTTP/1.1\r\nhost: x\r\n\r\n", true),
        ("half a body", &half, false),
        ("a body that nobody wants", &half.replace("PUT", "POST"), false),
        ("answers that are not read", &many_answers, false),
    ];
    for crowd in [Crowd::OneHost, Crowd::ManyHosts, Crowd::ManyCertificates] {
        let agent = small_agent().await;
        for (kind, sends, reads) in kinds {
            let held = crowd.gather(&agent, sends.as_bytes(), reads).await;
            let answer = asks(&agent, "GET /2.0 HTTP/1.1").await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{kind}, {crowd:?}: {answer}");
            drop(held);
        }
    }
}

#[tokio::test]
async fn a_byte_now_and_then_is_no_progress_and_a_slow_upload_is_some() {
    for crowd in [Crowd::OneHost, Crowd::ManyHosts, Crowd::ManyCertificates] {
        let agent = small_agent().await;
        let (first, second) = DOCUMENT.split_at(DOCUMENT.len() / 2);
        let mut upload = another(&agent).await;
        let head = format!(
            "PUT {} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            lb(),
            DOCUMENT.len()
        );
        upload.write_all(format!("{head}{first}").as_bytes()).await.unwrap();
        upload.flush().await.unwrap();
        let head = format!("PUT {} HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n", lb());
        let mut tricklers = crowd.gather(&agent, head.as_bytes(), false).await;
        for _ in 0..3 {
            for trickler in &mut tricklers {
                let _ = trickler.write_all(b" ").await;
                let _ = trickler.flush().await;
            }
            let answer = asks(&agent, "GET /2.0 HTTP/1.1").await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{crowd:?}: {answer}");
        }
        upload.write_all(second.as_bytes()).await.unwrap();
        upload.flush().await.unwrap();
        let mut answer = Vec::new();
        let _ = upload.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 200"), "{crowd:?}: {answer}");
    }
}

#[tokio::test]
async fn handshakes_that_stall_keep_nobody_out() {
    let agent = TestAgent::new().await;
    let mut stalled = Vec::new();
    for at in 0..400_u16 {
        let from = Ipv4Addr::new(127, 0, 1, 1 + u8::try_from(at / 8).unwrap());
        let mut stream = agent.tcp_from(from).await.unwrap();
        if at % 2 == 0 {
            // The beginning of a ClientHello.
            stream.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
        }
        stalled.push(stream);
    }
    let answer = asks(&agent, "GET /2.0 HTTP/1.1").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn requests_that_are_carried_out_leave_another_controller_an_answer() {
    for crowd in [Crowd::OneHost, Crowd::ManyHosts, Crowd::ManyCertificates] {
        let agent = small_agent().await;
        assert_eq!(agent.put(&lb(), DOCUMENT).await.status, StatusCode::OK);
        agent.proxy.be(Mood::Hanging);
        for request in [format!("GET {}/stats", lb()), format!("DELETE {}", lb())] {
            let requests = format!("{request} HTTP/1.1\r\nhost: x\r\n\r\n").repeat(3);
            let _held = crowd.gather(&agent, requests.as_bytes(), false).await;
            let answer = asks(&agent, "GET /2.0 HTTP/1.1").await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{request}, {crowd:?}: {answer}");
        }
    }
}

#[tokio::test]
async fn a_request_that_is_carried_out_is_not_given_up_and_one_more_is_told_that_the_agent_is_busy() {
    let agent = TestAgent::with(|config| config.max_connections = 2).await;
    assert_eq!(agent.put(&lb(), DOCUMENT).await.status, StatusCode::OK);
    agent.proxy.be(Mood::Hanging);
    let mut carried_out = Vec::new();
    for _ in 0..2 {
        let mut stream = agent.connect().await;
        let head = format!("GET {}/stats HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", lb());
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        carried_out.push(stream);
    }
    let _held = Crowd::OneHost.gather(&agent, b"GET /2.0 HT", false).await;
    let answer = asks(&agent, "GET /2.0 HTTP/1.1").await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("\"busy\""), "{answer}");
    assert!(answer.to_ascii_lowercase().contains("\r\nretry-after: 1\r\n"), "{answer}");
    agent.proxy.be(Mood::Willing);
    for mut stream in carried_out {
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

#[tokio::test]
async fn another_controllers_change_does_not_wait_for_all_that_a_crowd_has_asked_for() {
    for crowd in [Crowd::OneHost, Crowd::ManyHosts, Crowd::ManyCertificates] {
        let agent = small_agent().await;
        agent.proxy.be(Mood::Hanging);
        let put = |name: &str| {
            let document = named(name);
            let length = document.len();
            format!("PUT {} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n{document}", lb())
        };
        let _held = crowd.gather(&agent, put("crowd").as_bytes(), false).await;
        let mut stream = another(&agent).await;
        stream.write_all(put("another").as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        // The server has one thread: what was asked before is under way once this is answered.
        assert!(asks(&agent, "GET /2.0 HTTP/1.1").await.starts_with("HTTP/1.1 "));
        agent.proxy.be(Mood::Willing);
        let mut answer = [0; 12];
        timeout(SOON, stream.read_exact(&mut answer)).await.unwrap().unwrap();
        assert_eq!(answer.as_slice(), b"HTTP/1.1 200", "{crowd:?}");
        let applied = agent.proxy.applied();
        let at = applied.iter().position(|document| *document == named("another"));
        assert!(at.is_some_and(|at| at <= 1), "{crowd:?}: {at:?} of {}", applied.len());
    }
}

#[tokio::test]
async fn a_change_that_waits_for_long_is_told_that_the_agent_is_busy() {
    let agent = small_agent().await;
    agent.proxy.be(Mood::Hanging);
    let mut first = agent.connect().await;
    let head = format!("PUT {} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", lb(), DOCUMENT.len());
    first.write_all(format!("{head}{DOCUMENT}").as_bytes()).await.unwrap();
    first.flush().await.unwrap();
    assert_eq!(agent.get("/2.0").await.status, StatusCode::OK);
    let answer = timeout(Duration::from_secs(6), agent.put(&lb(), &named("second"))).await.unwrap();
    assert_eq!(answer.code(), (503, "busy".to_owned()));
    agent.proxy.be(Mood::Willing);
    assert!(first.read(&mut [0; 100]).await.unwrap() > 0);
    assert_eq!(agent.proxy.document().unwrap(), DOCUMENT, "nothing of the second has happened");
}
