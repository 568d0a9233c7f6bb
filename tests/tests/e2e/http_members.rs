//! What members make of connections: identities that they bind to them, and messages that they misunderstand. None of it
//! may reach another client.

use std::{net::SocketAddr, time::Duration};

use amphora_tests::{
    Backend, Client, Document, HaProxy, HaProxyConfig, Listener, Message, Pool, Proxy, Step, in_time,
    read_message,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::sleep,
};

/// How a member speaks of its credentials.
#[derive(Clone, Copy, Debug)]
struct Scheme {
    status: u16,
    /// The field that the client sends.
    credentials: &'static str,
    /// What it begins with.
    scheme: &'static str,
    /// The lines of a challenge.
    challenge: &'static str,
}

const SCHEMES: [Scheme; 8] = [
    Scheme {
        status: 401,
        credentials: "Authorization",
        scheme: "NTLM",
        challenge: "WWW-Authenticate: NTLM\r\n",
    },
    Scheme {
        status: 401,
        credentials: "authorization",
        scheme: "negotiate",
        challenge: "www-authenticate: negotiate abc=\r\n",
    },
    Scheme {
        status: 401,
        credentials: "Authorization",
        scheme: "Negotiate",
        challenge: "WWW-Authenticate: Basic realm=\"a, b\"\r\nWWW-Authenticate: Negotiate\r\n",
    },
    Scheme {
        status: 401,
        credentials: "AUTHORIZATION",
        scheme: "nTlM",
        challenge: "WWW-AUTHENTICATE: Digest realm=\"a\", qop=\"auth\",\tnTlM\r\n",
    },
    Scheme {
        status: 407,
        credentials: "Proxy-Authorization",
        scheme: "NTLM",
        challenge: "Proxy-Authenticate: Basic realm=\"a\", NTLM\r\n",
    },
    Scheme {
        status: 407,
        credentials: "Proxy-Authorization",
        scheme: "NEGOTIATE",
        challenge: "Proxy-Authenticate: NEGOTIATE\r\n",
    },
    // Only the client says what it is about.
    Scheme { status: 401, credentials: "Authorization", scheme: "Negotiate", challenge: "" },
    Scheme { status: 403, credentials: "Authorization", scheme: "NTLM", challenge: "" },
];

/// A member that binds a client to its connection once that has said `<scheme> three-<name>` behind `<scheme> one` on the
/// same connection, or at once for `<scheme> only-<name>`.
async fn binding(scheme: Scheme) -> Backend {
    Backend::tcp("binding", move |mut stream| async move {
        let mut buffer = Vec::new();
        let mut begun = false;
        let mut who: Option<String> = None;
        while let Ok(Some(request)) = read_message(&mut stream, &mut buffer, false).await {
            let given = request.field(scheme.credentials).and_then(|value| value.split_once(' '));
            match given.map(|(_, text)| text) {
                Some("one") => begun = true,
                Some(text) => {
                    let name = text.strip_prefix("three-").filter(|_| begun);
                    who = name.or(text.strip_prefix("only-")).map(str::to_owned);
                }
                None => {}
            }
            let answer = match &who {
                Some(who) => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{who}", who.len()),
                None => {
                    format!("HTTP/1.1 {} No\r\nContent-Length: 0\r\n{}\r\n", scheme.status, scheme.challenge)
                }
            };
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    })
    .await
}

/// The handshake of a client, and what it and others get afterwards.
async fn identities_stay_apart(address: SocketAddr, scheme: Scheme, preemptive: bool) {
    let Scheme { status, credentials, scheme: name, .. } = scheme;
    let mut alice = Client::connect(address).await;
    if preemptive {
        let line = format!("{credentials}: {name} only-alice\r\n");
        assert_eq!(alice.get_with("/", &line).await.text(), "alice", "{scheme:?}");
    } else {
        if !scheme.challenge.is_empty() {
            assert_eq!(alice.get("/").await.status(), status, "{scheme:?}");
        }
        assert_eq!(alice.get_with("/", &format!("{credentials}: {name} one\r\n")).await.status(), status);
        let line = format!("{credentials}: {name} three-alice\r\n");
        assert_eq!(alice.get_with("/", &line).await.text(), "alice", "{scheme:?}");
    }
    let mut others = Vec::new();
    for round in 0..8 {
        // It is known from here on, whatever the method.
        assert_eq!(alice.get("/").await.text(), "alice", "{scheme:?}");
        assert_eq!(alice.post("/", b"hello").await.text(), "alice", "{scheme:?}");
        let mut other = Client::connect(address).await;
        for client in others.iter_mut().chain([&mut other]) {
            let answer: Message = client.get("/").await;
            assert_eq!((answer.status(), answer.text()), (status, String::new()), "{scheme:?} {round}");
        }
        others.push(other);
    }
    // What is left of it serves nobody either.
    drop(alice);
    for _ in 0..4 {
        assert_eq!(Client::connect(address).await.get("/").await.status(), status, "{scheme:?}");
    }
}

#[tokio::test]
async fn a_connection_that_carries_an_identity_serves_its_client_alone() {
    for scheme in SCHEMES {
        let members = [binding(scheme).await, binding(scheme).await, binding(scheme).await];
        let proxy = Proxy::start_with(Document::http(&members), &["--workers", "1"]).await;
        // HAProxy knows a handshake by the member's challenge alone.
        for preemptive in [false, true] {
            identities_stay_apart(proxy.address(), scheme, preemptive).await;
        }
        // Connections of clients that are gone are closed, and those that are kept carry no name.
        let all: usize = members.iter().map(Backend::open).sum();
        assert!(all <= 3 * 12, "{all} connections");
        if matches!(scheme.challenge, "WWW-Authenticate: NTLM\r\n" | "Proxy-Authenticate: NEGOTIATE\r\n") {
            let config = HaProxyConfig::http(members.iter().map(|member| member.address));
            let Some(haproxy) = HaProxy::start(&config).await else { continue };
            identities_stay_apart(haproxy.address, scheme, false).await;
        }
    }
}

#[tokio::test]
async fn a_handshake_with_a_member_goes_on_behind_policies_and_persistence() {
    let scheme = SCHEMES[0];
    let (one, two) = ([binding(scheme).await, binding(scheme).await], binding(scheme).await);
    let cookie = serde_json::json!({ "type": "HTTP_COOKIE" });
    let (pool, other) = (
        Pool::http().members(&one).with("session_persistence", cookie),
        Pool::http().members([&two]).balanced_by("LEAST_CONNECTIONS"),
    );
    let policy = amphora_tests::L7Policy::to_pool(&other, amphora_tests::L7Rule::path("/other"));
    let listener = Listener::http().to(&pool).policy(policy.with("position", 1));
    let proxy = Proxy::start(Document::new().listener(listener).pool(&pool).pool(&other)).await;
    let mut client = proxy.client().await;
    for path in ["/other", "/"] {
        assert_eq!(client.get(path).await.status(), 401);
        assert_eq!(client.get_with(path, "Authorization: NTLM one\r\n").await.status(), 401);
        let name = format!("Authorization: NTLM three-{}\r\n", path.len());
        assert_eq!(client.get_with(path, &name).await.text(), path.len().to_string());
    }
    for _ in 0..3 {
        assert_eq!(client.get("/other").await.text(), "6");
        assert_eq!(client.get("/").await.text(), "1");
    }
    // A member that closes the connection is asked anew.
    let stats = proxy.stats().await;
    let reuses: u64 = stats.pools.values().flat_map(|pool| pool.members.values()).map(|m| m.reuses).sum();
    assert_eq!(reuses, 10, "all but the first request to each pool");
}

#[tokio::test]
async fn a_handshake_works_behind_the_proxy_protocol() {
    let scheme = SCHEMES[0];
    let member = Backend::tcp("binding", move |mut stream| async move {
        let mut buffer = Vec::new();
        while !buffer.ends_with(b"\r\n") {
            buffer.push(stream.read_u8().await.unwrap());
        }
        assert!(buffer.starts_with(b"PROXY TCP4 "), "{}", buffer.escape_ascii());
        buffer.clear();
        let mut legs = 0;
        while let Ok(Some(request)) = read_message(&mut stream, &mut buffer, false).await {
            legs += usize::from(request.has("authorization"));
            let answer: &[u8] = match legs {
                0 | 1 => b"HTTP/1.1 401 No\r\nContent-Length: 0\r\nWWW-Authenticate: NTLM\r\n\r\n",
                _ => b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nalice",
            };
            stream.write_all(answer).await.unwrap();
        }
    })
    .await;
    let proxy = Proxy::start(Document::of(Listener::http(), Pool::new("PROXY").members([&member]))).await;
    let mut client = proxy.client().await;
    assert_eq!(client.get("/").await.status(), 401);
    for status in [401, 200] {
        let line = format!("{}: NTLM abc\r\n", scheme.credentials);
        assert_eq!(client.get_with("/", &line).await.status(), status);
    }
    assert_eq!(client.get("/").await.text(), "alice");
    assert_eq!(proxy.client().await.get("/").await.status(), 401);
    assert_eq!(member.connections(), 2);
}

#[tokio::test]
async fn an_identity_whose_connection_is_closed_is_asked_for_again() {
    let member = Backend::tcp("a", |mut stream| async move {
        let mut buffer = Vec::new();
        for answer in ["401 No\r\nWWW-Authenticate: Negotiate", "200 OK"] {
            let request = read_message(&mut stream, &mut buffer, false).await;
            if !request.is_ok_and(|request| request.is_some()) {
                return;
            }
            let answer = format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    })
    .await;
    let proxy = Proxy::start(Document::http([&member])).await;
    let mut client = proxy.client().await;
    for _ in 0..5 {
        assert_eq!(client.get("/").await.status(), 401);
        assert_eq!(client.get("/").await.status(), 200);
        // The member has closed, and so does the proxy, though the client says nothing.
        amphora_tests::eventually("the connection is closed", async || (member.open() == 0).then_some(()))
            .await;
        assert_eq!(client.post("/", b"hello").await.status(), 401);
        assert_eq!(client.post("/", b"hello").await.status(), 200);
        amphora_tests::eventually("the connection is closed", async || (member.open() == 0).then_some(()))
            .await;
    }
}

/// A member that knows no bodies of requests, takes each for the next request, and answers that `late`.
async fn knows_no_bodies(late: Duration) -> Backend {
    Backend::tcp("a", move |mut stream| async move {
        let mut buffer = Vec::new();
        loop {
            // What is no head is an error for those who know heads, and nothing for this one.
            let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") else {
                match stream.read_buf(&mut buffer).await {
                    Ok(n) if n > 0 => continue,
                    _ => return,
                }
            };
            let head: Vec<u8> = buffer.drain(..end + 4).collect();
            let head = String::from_utf8_lossy(&head).into_owned();
            let smuggled = head.contains("/smuggled");
            if smuggled {
                sleep(late).await;
            }
            let body = if smuggled { "smuggled" } else { "right" };
            let length = body.len();
            let body = if head.starts_with("HEAD") { "" } else { body };
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    })
    .await
}

/// Asks as `clients` others and as one that stays, while `spoil` is done before each; says how many got what was not theirs.
async fn wrong_answers(
    address: SocketAddr,
    clients: usize,
    mut spoil: impl AsyncFnMut(&mut Client),
) -> usize {
    let mut wrong = 0;
    let mut staying = Client::connect(address).await;
    for _ in 0..clients {
        let mut attacker = Client::connect(address).await;
        spoil(&mut attacker).await;
        for client in [&mut Client::connect(address).await, &mut staying] {
            match client.try_get("/", "").await {
                Ok(answer) if answer.text() == "right" => {}
                // What is in the way may also be no answer at all.
                _ => {
                    wrong += 1;
                    *client = Client::connect(address).await;
                }
            }
        }
    }
    wrong
}

#[tokio::test]
async fn a_body_that_a_member_takes_for_a_request_reaches_nobody_else() {
    const INSIDE: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    for (methods, late) in [
        (&["GET", "HEAD", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "POST", "PUT", "PATCH"][..], 0),
        (&["GET", "HEAD", "DELETE", "OPTIONS", "TRACE", "PROPFIND"], 30),
    ] {
        let member = knows_no_bodies(Duration::from_millis(late)).await;
        let proxy = Proxy::start_with(Document::http([&member]), &["--workers", "1"]).await;
        for method in methods {
            for framing in ["length", "chunks", "late"] {
                let body = match framing {
                    "chunks" => format!(
                        "Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{INSIDE}\r\n0\r\n\r\n",
                        INSIDE.len()
                    ),
                    _ => format!("Content-Length: {}\r\n\r\n{INSIDE}", INSIDE.len()),
                };
                let request = format!("{method} / HTTP/1.1\r\nHost: a\r\n{body}");
                let wrong = wrong_answers(proxy.address(), 10, async |attacker| {
                    if framing == "late" {
                        let (head, body) = request.split_at(request.len() - INSIDE.len());
                        attacker.send(head).await;
                        sleep(Duration::from_millis(2)).await;
                        attacker.send(body).await;
                    } else {
                        attacker.send(&request).await;
                    }
                    let to_head = *method == "HEAD";
                    let _ = in_time("an answer", attacker.try_response(to_head)).await;
                });
                let wrong = wrong.await;
                assert_eq!(wrong, 0, "{method} {framing} {late} ms: of 20 others");
            }
        }
    }
}

/// A member that sends a body where there is none, behind the head or `late`.
async fn sends_bodies(late: Duration) -> Backend {
    Backend::tcp("a", move |mut stream: TcpStream| async move {
        let mut buffer = Vec::new();
        while let Ok(Some(request)) = read_message(&mut stream, &mut buffer, false).await {
            let status = if request.has("if-none-match") { "304 Not Modified" } else { "200 OK" };
            let body = if request.has("x-attack") {
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong"
            } else {
                "right"
            };
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len());
            if stream.write_all(head.as_bytes()).await.is_err() {
                return;
            }
            if request.has("x-attack") {
                sleep(late).await;
            }
            if stream.write_all(body.as_bytes()).await.is_err() {
                return;
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_body_behind_a_response_that_has_none_reaches_nobody_else() {
    for late in [0, 1, 5, 40] {
        let member = sends_bodies(Duration::from_millis(late)).await;
        let proxy = Proxy::start_with(Document::http([&member]), &["--workers", "1"]).await;
        for request in [
            "HEAD / HTTP/1.1\r\nHost: a\r\nX-Attack: 1\r\n\r\n",
            "HEAD / HTTP/1.1\r\nHost: a\r\nX-Attack: 1\r\nIf-None-Match: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX-Attack: 1\r\nIf-None-Match: a\r\n\r\n",
        ] {
            let wrong = wrong_answers(proxy.address(), 20, async |attacker| {
                attacker.send(request).await;
                in_time("an answer", attacker.try_response(true)).await.unwrap();
            });
            assert_eq!(wrong.await, 0, "{request:?} {late} ms: of 40 others");
        }
    }
}

#[tokio::test]
async fn connections_in_doubt_are_used_again_once_they_have_been_quiet() {
    let member = Backend::http("a", |request| match request.first_line().split(' ').next() {
        Some("HEAD") => vec![Step::send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n")],
        _ => Step::ok("a"),
    })
    .await;
    let proxy = Proxy::start_with(Document::http([&member]), &["--workers", "1"]).await;
    let mut client = proxy.client().await;
    // Its own connection after a body, at once.
    for _ in 0..10 {
        assert_eq!(client.post("/", b"hello").await.status(), 200);
        assert_eq!(client.get("/").await.status(), 200);
    }
    // Another one only where the test was held up for longer than a request like POST trusts a connection.
    let connections = member.connections();
    assert!(connections <= 2, "{connections}");
    // Others later, and so after HEAD.
    for _ in 0..3 {
        sleep(Duration::from_millis(150)).await;
        assert_eq!(proxy.client().await.get("/").await.status(), 200);
        client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(client.response_to_head().await.status(), 200);
    }
    assert_eq!(member.connections(), connections);
}
