//! What a peer cannot make the agent do.

use std::time::Duration;

use hyper::{Request, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::testing::TestAgent;

/// Sends bytes over one connection, and reads until the server closes it or stops.
async fn raw(agent: &TestAgent, bytes: &[u8]) -> String {
    let mut stream = agent.connect().await;
    let _ = stream.write_all(bytes).await;
    let _ = stream.flush().await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(8), stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn bodies_are_bounded_in_size_however_they_come() {
    let agent = TestAgent::with(|config| config.max_body_size = 2000).await;
    let large = "x".repeat(3000);
    assert_eq!(agent.put(&lb(), &large).await.code(), (413, "body_too_large".to_owned()));
    let chunked = format!(
        "PUT {} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\nbb8\r\n{large}\r\n0\r\n\r\n",
        lb()
    );
    let answer = raw(&agent, chunked.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("body_too_large"), "{answer}");
    assert_eq!(agent.put(&lb(), DOCUMENT).await.status, StatusCode::OK, "a document below the bound passes");
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_before_it_is_sent() {
    let agent = TestAgent::with(|config| config.max_body_size = 2000).await;
    let head = format!(
        "PUT {} HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 9999999\r\n\r\n",
        lb()
    );
    let answer = raw(&agent, head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

#[tokio::test]
async fn bodies_are_bounded_in_time() {
    let agent = TestAgent::with(|config| config.request_read_timeout = Duration::from_millis(200)).await;
    let head = format!("PUT {} HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{{", lb());
    let answer = raw(&agent, head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("request_timeout"), "{answer}");
}

#[tokio::test]
async fn heads_are_bounded() {
    let agent = TestAgent::new().await;
    let long = format!("GET /2.0 HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(64 << 10));
    assert!(raw(&agent, long.as_bytes()).await.starts_with("HTTP/1.1 431"));
    let many = format!("GET /2.0 HTTP/1.1\r\nhost: x\r\n{}\r\n", "x: y\r\n".repeat(200));
    assert!(raw(&agent, many.as_bytes()).await.starts_with("HTTP/1.1 431"));
    assert!(raw(&agent, b"NOT HTTP\r\n\r\n").await.starts_with("HTTP/1.1 400"));
}

#[tokio::test]
async fn connections_are_bounded_and_the_next_one_takes_the_place_of_an_idle_one() {
    let agent = TestAgent::with(|config| config.max_connections = 2).await;
    let mut idle = Vec::new();
    for _ in 0..30 {
        let mut stream = agent.connect().await;
        stream.write_all(b"GET /2.0 HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        stream.flush().await.unwrap();
        assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
        idle.push(stream);
    }
    let text = String::from_utf8(agent.get("/metrics").await.body.to_vec()).unwrap();
    let open = text.lines().find_map(|line| line.strip_prefix("amphora_agent_connections ")).unwrap();
    assert!(open.parse::<u32>().unwrap() <= 12, "{open}");
    // They are told, as TLS has it.
    assert_eq!(idle[0].read(&mut [0; 4096]).await.unwrap(), 0);
}

#[tokio::test]
async fn silent_peers_do_not_keep_a_controller_out() {
    let agent = TestAgent::with(|config| config.max_connections = 2).await;
    let mut silent = Vec::new();
    for _ in 0..400 {
        silent.push(tokio::net::TcpStream::connect(agent.address).await.unwrap());
    }
    let answer = tokio::time::timeout(Duration::from_secs(3), agent.get("/2.0")).await;
    assert_eq!(answer.expect("in time").status, StatusCode::OK);
    let text = String::from_utf8(agent.get("/metrics").await.body.to_vec()).unwrap();
    let open = text.lines().find_map(|line| line.strip_prefix("amphora_agent_connections ")).unwrap();
    assert!(open.parse::<u32>().unwrap() <= 130, "{open}");
}

#[tokio::test]
async fn errors_are_json_and_say_what_to_do() {
    let agent = TestAgent::new().await;
    for path in ["/2.0//", "/2.0/nope", "/2.0/loadbalancers", "/2.0/info/x"] {
        assert_eq!(agent.get(path).await.code(), (404, "not_found".to_owned()), "{path}");
    }
    assert_eq!(agent.get("/2.0/loadbalancers/x").await.code(), (400, "invalid_id".to_owned()));
    let answer = agent.put("/2.0/info", "{}").await;
    assert_eq!(answer.code(), (405, "method_not_allowed".to_owned()));
    assert_eq!(answer.headers["allow"], "GET, HEAD");
    let request = Request::put(lb()).header("host", "x").header("content-type", "application/yaml");
    let answer = agent.send(request.body(DOCUMENT.into()).unwrap()).await;
    assert_eq!(answer.code(), (415, "unsupported_media_type".to_owned()));
    let request =
        Request::put(lb()).header("host", "x").header("content-type", "Application/JSON; charset=utf-8");
    assert_eq!(agent.send(request.body(DOCUMENT.into()).unwrap()).await.status, StatusCode::OK);
}
