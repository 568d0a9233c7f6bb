//! Redirects and `Strict-Transport-Security` over TLS, for requests as they are not usually made: beside HAProxy, with the lines that
//! Octavia writes.

use amphora_tests::{Client, L7Policy, L7Rule, in_time};
use rustls::version::TLS13;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::tls_hostile::Peer;

const LINES: &str = "\n redirect scheme https if !{ ssl_fc }\
    \n http-response set-header Strict-Transport-Security \"max-age=60; includeSubDomains; preload;\"\
    \n http-request redirect code 302 prefix https://m.example:8443 if { path -m beg /p }\
    \n http-request redirect code 308 location http://u.example/x?a=b if { path -m beg /u }\
    \n http-request deny if { path -m beg /r }";

async fn peers() -> Vec<Peer> {
    Peer::all_with(LINES, |listener| {
        listener
            .with("hsts_max_age", 60)
            .with("hsts_include_subdomains", true)
            .with("hsts_preload", true)
            .policy(
                L7Policy::new("REDIRECT_PREFIX", L7Rule::path("/p"))
                    .with("redirect_prefix", "https://m.example:8443"),
            )
            .policy(
                L7Policy::new("REDIRECT_TO_URL", L7Rule::path("/u"))
                    .with("redirect_url", "http://u.example/x?a=b")
                    .with("redirect_http_code", 308),
            )
            .policy(L7Policy::new("REJECT", L7Rule::path("/r")))
    })
    .await
}

/// What of an answer is compared.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    status: Option<u16>,
    location: Option<String>,
    security: Option<String>,
}

impl Told {
    fn read(answer: &str) -> Self {
        let head = answer.split("\r\n\r\n").next().unwrap_or_default();
        let field = |name: &str| {
            let lines = head.lines().skip(1).filter_map(|line| line.split_once(": "));
            let values: Vec<&str> =
                lines.filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect();
            (!values.is_empty()).then(|| values.join(", "))
        };
        Self {
            status: head.split(' ').nth(1).and_then(|status| status.parse().ok()),
            location: field("location"),
            security: field("strict-transport-security"),
        }
    }
}

#[tokio::test]
async fn odd_requests_are_redirected_as_by_haproxy() {
    let requests = [
        "GET / HTTP/1.1\r\nHost: a",
        "GET / HTTP/1.0",
        "GET /p HTTP/1.0",
        "GET /p HTTP/1.0\r\nHost: a",
        "HEAD /p HTTP/1.1\r\nHost: a",
        "POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 3",
        "DELETE /p HTTP/1.1\r\nHost: a",
        "GET /p HTTP/1.1\r\nHost: a:8443",
        "GET /p HTTP/1.1\r\nHost:",
        "GET //p HTTP/1.1\r\nHost: a",
        "GET /p//x//?q=1&r=//s HTTP/1.1\r\nHost: a",
        "GET /p/../x HTTP/1.1\r\nHost: a",
        "GET /p? HTTP/1.1\r\nHost: a",
        "GET /p?? HTTP/1.1\r\nHost: a",
        "GET /p%2F%0d%0aX:y HTTP/1.1\r\nHost: a",
        "GET /p#there HTTP/1.1\r\nHost: a",
        "GET /p?x#there HTTP/1.1\r\nHost: a",
        "GET http://other.example/p HTTP/1.1\r\nHost: other.example",
        "GET https://other.example:8443/p//x?y HTTP/1.1\r\nHost: other.example:8443",
        "GET http://other.example HTTP/1.1\r\nHost: other.example",
        "GET http://other.example?p HTTP/1.1\r\nHost: other.example",
        "GET http://other.example/p HTTP/1.0",
        "GET http://other.example/p HTTP/1.1\r\nHost: one.example",
        "OPTIONS * HTTP/1.1\r\nHost: a",
        "GET p HTTP/1.1\r\nHost: a",
        "GET /u?x HTTP/1.1\r\nHost: a",
        "GET /u/../p HTTP/1.0",
        "GET /r HTTP/1.1\r\nHost: a",
        "GET /r HTTP/1.0",
        "GET / HTTP/1.1\r\nHost: a\r\nStrict-Transport-Security: max-age=1",
    ];
    let mut all = Vec::new();
    for peer in peers().await {
        let mut told = Vec::new();
        for request in requests {
            let mut stream = peer.certificates.connect(peer.address).await.unwrap();
            stream.write_all(format!("{request}\r\nConnection: close\r\n\r\nabc").as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            let _ = in_time("an answer", stream.read_to_end(&mut answer)).await;
            told.push((request, Told::read(&String::from_utf8_lossy(&answer))));
        }
        // Nobody speaks without TLS there, to whom it could be said where else to go.
        for request in ["GET /p HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.0\r\n\r\n"] {
            let mut client = Client::connect(peer.address).await;
            client.send(request).await;
            let mut answer = Vec::new();
            let _ = in_time("an end", client.stream.read_to_end(&mut answer)).await;
            assert!(answer.is_empty(), "{}: {}", peer.name, String::from_utf8_lossy(&answer));
        }
        all.push((peer.name, told));
    }
    compare(&all);
}

#[tokio::test]
async fn odd_requests_of_http_2_are_redirected_as_by_haproxy() {
    let requests = [
        ("GET", "https://a/"),
        ("GET", "https://a/p"),
        ("GET", "https://a:8443/p//x?y=//z"),
        ("GET", "http://a/p?"),
        ("GET", "https://a//p"),
        ("GET", "https://a?p"),
        ("HEAD", "https://a/p"),
        ("PUT", "https://a/u?x"),
        ("GET", "https://a/r"),
    ];
    let mut all = Vec::new();
    for peer in peers().await {
        let config = peer.certificates.client(&[&TLS13], &["h2"]);
        let stream = peer.certificates.connect_with(config, peer.address).await.unwrap();
        let (send, connection) = h2::client::handshake(stream).await.unwrap();
        let connection = tokio::spawn(connection);
        let mut told = Vec::new();
        for (method, uri) in requests {
            let request = http::Request::builder().method(method).uri(uri).body(()).unwrap();
            let mut send = send.clone().ready().await.unwrap();
            let (response, _) = send.send_request(request, true).unwrap();
            // One that is reset has no status.
            let Ok(response) = in_time("an answer", response).await else {
                told.push((uri, Told { status: None, location: None, security: None }));
                continue;
            };
            let field = |name: &str| response.headers().get(name).map(|it| it.to_str().unwrap().to_owned());
            let status = Some(response.status().as_u16());
            let (location, security) = (field("location"), field("strict-transport-security"));
            told.push((uri, Told { status, location, security }));
        }
        drop(send);
        connection.abort();
        all.push((peer.name, told));
    }
    compare(&all);
}

fn compare(all: &[(&str, Vec<(&str, Told)>)]) {
    let [(_, theirs), (_, ours)] = all else { return };
    let mut differences = Vec::new();
    for ((request, theirs), (_, ours)) in theirs.iter().zip(ours) {
        println!("{request:?}: {theirs:?}");
        if theirs != ours {
            differences.push(format!("{request:?}:\n  HAProxy {theirs:?}\n  here    {ours:?}"));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
