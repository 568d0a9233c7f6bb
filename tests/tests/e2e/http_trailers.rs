//! Trailers of requests and of responses, between both versions of HTTP on both sides: beside HAProxy.

use amphora_tests::{
    Backend, Certificates, Client, Document, HaProxy, HaProxyConfig, Http2Member, Listener, Message, Pool,
    Proxy, Step,
    http2::{Answer, Http2Client, request},
};
use h2::server::Builder;
use http::{HeaderMap, HeaderName, HeaderValue};

/// A request whose body is in chunks, or of its length, with what is behind it.
struct Case {
    method: &'static str,
    body: &'static str,
    sized: bool,
    trailers: &'static [(&'static str, &'static str)],
}

const CASES: &[Case] = &[
    Case { method: "POST", body: "hello", sized: false, trailers: &[("x-sum", "7"), ("x-more", "a b")] },
    Case { method: "POST", body: "", sized: false, trailers: &[("x-sum", "7")] },
    Case { method: "GET", body: "", sized: false, trailers: &[("x-sum", "7")] },
    Case { method: "PUT", body: "hello", sized: false, trailers: &[("x-a", "1"), ("x-a", "2"), ("x-b", "")] },
    Case { method: "POST", body: "hello", sized: false, trailers: &[("grpc-status", "0")] },
    Case { method: "POST", body: "hello", sized: false, trailers: &[] },
    // Only a client of HTTP/2 can have both; towards HTTP/1.1 there is no room for trailers then.
    Case { method: "POST", body: "hello", sized: true, trailers: &[("x-sum", "7")] },
];

/// What came of a case: whether it was answered, what the client got behind the body, what the member got as the body and behind
/// it, and what announced that.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Outcome {
    status: Option<u16>,
    response: Vec<String>,
    body: String,
    request: Vec<String>,
    announced: Option<String>,
}

fn of_map(map: Option<&HeaderMap>) -> Vec<String> {
    let fields = map.into_iter().flatten();
    let mut all: Vec<_> =
        fields.map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
    all.sort();
    all
}

fn of_lines(lines: &str) -> Vec<String> {
    let mut all: Vec<_> = lines.lines().map(str::to_ascii_lowercase).collect();
    all.sort();
    all
}

/// A member that answers with trailers.
enum Member {
    Http1(Backend),
    Http2(Http2Member),
}

impl Member {
    async fn all(certificates: &Certificates) -> [Self; 2] {
        let plain = Backend::http("a", |_: &Message| {
            let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            vec![Step::ReadBody, Step::send(format!("{head}5\r\nhello\r\n0\r\nx-sum: 7\r\n\r\n"))]
        });
        let alpn = &["h2", "http/1.1"];
        let over_tls = Http2Member::start(certificates, "server", alpn, Builder::new());
        [Self::Http1(plain.await), Self::Http2(over_tls.await)]
    }

    fn backend(&self) -> &Backend {
        match self {
            Self::Http1(backend) => backend,
            Self::Http2(member) => &member.backend,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Http1(_) => "HTTP/1.1",
            Self::Http2(_) => "HTTP/2",
        }
    }

    /// The trailers of the last request that came as a whole: one that was broken off may be seen behind that.
    fn last_whole_trailers(&self) -> Vec<String> {
        match self {
            Self::Http1(backend) => {
                let whole = backend.requests().into_iter().rfind(|request| request.complete);
                of_lines(&whole.unwrap().trailers)
            }
            Self::Http2(member) => {
                let whole = member.requests().into_iter().rfind(|seen| seen.trailers.is_some());
                of_map(whole.unwrap().trailers.as_ref())
            }
        }
    }

    /// The last request: its body, its trailers, and what announced them.
    fn last(&self) -> (String, Vec<String>, Option<String>) {
        match self {
            Self::Http1(backend) => {
                let seen = backend.last_request();
                (seen.text(), of_lines(&seen.trailers), seen.field("trailer").map(str::to_owned))
            }
            Self::Http2(member) => {
                let seen = member.requests().pop().unwrap();
                let body = String::from_utf8(seen.body).unwrap();
                let announced = seen.fields.iter().find_map(|field| field.strip_prefix("trailer: "));
                (body, of_map(seen.trailers.as_ref()), announced.map(str::to_owned))
            }
        }
    }
}

async fn proxy(certificates: &Certificates, member: &Member) -> Proxy {
    let pool = Pool::http().members([member.backend()]);
    let pool = match member {
        Member::Http1(_) => pool,
        Member::Http2(_) => pool.with("tls_enabled", true),
    };
    let options = ["--certificates", &certificates.option()];
    Proxy::start_with(Document::of(Listener::http(), pool), &options).await
}

async fn over_http2(client: &mut Http2Client, case: &Case) -> (Option<u16>, Vec<String>) {
    let mut request = request(case.method, "/trailers");
    let fields = request.headers_mut();
    fields.insert("trailer", HeaderValue::from_static("x-sum"));
    if case.sized {
        fields.insert("content-length", case.body.len().into());
    }
    let trailers: HeaderMap = case
        .trailers
        .iter()
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
        .fold(HeaderMap::new(), |mut map, (name, value)| {
            map.append(name, value);
            map
        });
    let body = (!case.body.is_empty()).then_some(case.body.as_bytes());
    let trailers = (!trailers.is_empty()).then_some(trailers);
    let Answer { status, trailers, .. } = client.ask(request, body, trailers).await;
    (status, of_map(trailers.as_ref()))
}

async fn over_http1(client: &mut Client, case: &Case) -> (Option<u16>, Vec<String>) {
    let head = format!(
        "{} /trailers HTTP/1.1\r\nHost: a\r\nTrailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n",
        case.method
    );
    let body = if case.body.is_empty() {
        String::new()
    } else {
        format!("{:x};a=b\r\n{}\r\n", case.body.len(), case.body)
    };
    let lines: String = case.trailers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    client.send(format!("{head}{body}0\r\n{lines}\r\n")).await;
    let response = client.response().await;
    (Some(response.status()), of_lines(&response.trailers))
}

#[tokio::test]
async fn trailers_pass_both_ways_between_all_versions_as_through_haproxy() {
    let certificates = Certificates::new();
    let mut compared = 0;
    for member in Member::all(&certificates).await {
        let proxy = proxy(&certificates, &member).await;
        let mut config = HaProxyConfig::http([member.backend().address]);
        if matches!(member, Member::Http2(_)) {
            config.servers[0].2 = "ssl verify none alpn h2,http/1.1".to_owned();
        }
        let haproxy = HaProxy::start(&config).await;
        for version in ["HTTP/2", "HTTP/1.1"] {
            for (number, case) in CASES.iter().enumerate() {
                if case.sized && version == "HTTP/1.1" {
                    continue;
                }
                let name = format!("{version} to {}, case {number}", member.name());
                let of = async |address| {
                    let (status, response) = if version == "HTTP/2" {
                        over_http2(&mut Http2Client::connect(address).await, case).await
                    } else {
                        over_http1(&mut Client::connect(address).await, case).await
                    };
                    let (body, request, announced) = member.last();
                    Outcome { status, response, body, request, announced }
                };
                let here = of(proxy.address()).await;
                let dropped = case.sized && matches!(member, Member::Http1(_));
                let sent = if dropped { &[][..] } else { case.trailers };
                let mut request: Vec<_> =
                    sent.iter().map(|(name, value)| format!("{name}: {value}")).collect();
                request.sort();
                let expected = Outcome {
                    status: Some(200),
                    response: vec!["x-sum: 7".to_owned()],
                    body: case.body.to_owned(),
                    request,
                    announced: Some("x-sum".to_owned()),
                };
                assert_eq!(here, expected, "{name}");
                if let Some(haproxy) = &haproxy {
                    assert_eq!(of(haproxy.address).await, expected, "HAProxy: {name}");
                    compared += 1;
                }
            }
        }
    }
    println!("{compared} beside HAProxy");
}

/// They are bounded, and nothing comes behind a body that frames, routes or authenticates a message.
#[tokio::test]
async fn trailers_that_may_not_be_there_reach_no_member() {
    let certificates = Certificates::new();
    let large = HeaderValue::from_str(&"y".repeat(20_000)).unwrap();
    for member in Member::all(&certificates).await {
        let proxy = proxy(&certificates, &member).await;
        for name in ["content-length", "host", "authorization", "cookie", "x-forwarded-for"] {
            let mut trailers = HeaderMap::new();
            trailers.insert("x-sum", HeaderValue::from_static("7"));
            trailers.insert(name, HeaderValue::from_static("3"));
            let mut client = Http2Client::connect(proxy.address()).await;
            let answer = client.ask(request("POST", "/trailers"), Some(b"hello"), Some(trailers)).await;
            assert_eq!(answer.status, Some(200), "{name} to {}", member.name());
            assert_eq!(member.last_whole_trailers(), ["x-sum: 7"], "{name} to {}", member.name());
            let mut client = proxy.client().await;
            let head = "POST /trailers HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
            client.send(format!("{head}5\r\nhello\r\n0\r\nx-late: 1\r\n{name}: 3\r\n\r\n")).await;
            assert_eq!(client.response().await.status(), 400, "{name} to {}", member.name());
        }
        let seen = match &member {
            Member::Http1(backend) => backend.requests().iter().filter(|request| request.complete).count(),
            Member::Http2(member) => member.requests().iter().filter(|seen| seen.trailers.is_some()).count(),
        };
        assert_eq!(seen, 5, "{}", member.name());
        // As many as there may be, one more; too large.
        let many = |count: usize| -> HeaderMap {
            let one = |n| (HeaderName::try_from(format!("x-{n}")).unwrap(), HeaderValue::from_static("1"));
            (0..count).map(one).collect()
        };
        let large = HeaderMap::from_iter([(HeaderName::from_static("x-sum"), large.clone())]);
        for (trailers, pass) in [(many(100), true), (many(101), false), (large, false)] {
            let name = format!("{} to {}", trailers.len(), member.name());
            let lines: String = trailers
                .iter()
                .map(|(name, value)| format!("{name}: {}\r\n", value.to_str().unwrap()))
                .collect();
            let mut client = Http2Client::connect(proxy.address()).await;
            let answer = client.ask(request("POST", "/trailers"), Some(b"hello"), Some(trailers)).await;
            // It is malformed in HTTP/2, on its stream alone.
            assert_eq!(answer.status, pass.then_some(200), "{name}: {answer:?}");
            assert_eq!(client.get("/trailers").await.status, Some(200), "{name}");
            let mut client = proxy.client().await;
            let head = "POST /trailers HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
            client.send(format!("{head}0\r\n{lines}\r\n")).await;
            assert_eq!(client.response().await.status(), if pass { 200 } else { 400 }, "{name}");
        }
        let mut client = Http2Client::connect(proxy.address()).await;
        assert_eq!(client.get("/trailers").await.status, Some(200));
    }
}

/// A member that does not know trailers takes them for the next request: nobody else's then comes behind it.
#[tokio::test]
async fn a_connection_on_which_trailers_went_is_not_used_again() {
    let member = Backend::named("a").await;
    let proxy = Proxy::start(Document::http([&member])).await;
    let mut client = proxy.client().await;
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n";
    for (trailers, connections) in
        [("", 1), ("", 1), ("x-sum:\r\n", 1), ("", 2), ("x-sum: 7\r\n", 2), ("", 3)]
    {
        client.send(format!("{head}{trailers}\r\n")).await;
        assert_eq!(client.response().await.text(), "a");
        assert_eq!(member.connections(), connections, "{trailers:?}");
    }
    let mut client = Http2Client::connect(proxy.address()).await;
    let trailers = HeaderMap::from_iter([(HeaderName::from_static("x-sum"), HeaderValue::from_static("7"))]);
    let connections = member.connections();
    for (trailers, more) in [(None, 1), (None, 1), (Some(trailers), 1), (None, 2)] {
        let answer = client.ask(request("POST", "/"), Some(b"hello"), trailers).await;
        assert_eq!(answer.text(), "a");
        assert_eq!(member.connections(), connections + more);
    }
}
