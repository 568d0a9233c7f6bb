//! Members that agree on HTTP/2 and then require HTTP/1.1 (RFC 9113 section 7).

use std::sync::{Arc, Mutex};

use amphora_tests::{
    Backend, Certificates, Client, Document, HaProxy, HaProxyConfig, Listener, Pool, Proxy,
    http2::{Http2Client, request},
    http2_frames::{self, FrameConnection, kind},
};
use http::{HeaderMap, HeaderName, HeaderValue};

const HTTP_1_1_REQUIRED: u32 = 0xd;

/// How a member says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Says {
    /// Of a stream, when all of the request has come.
    Reset,
    /// Of a stream, when its head has come.
    ResetEarly,
    /// Of the connection: it has processed nothing.
    Goaway,
}

/// What it was asked over HTTP/1.1: method, body, trailers. What came over HTTP/2 counts as `None`.
type Seen = Arc<Mutex<Vec<Option<(String, String, String)>>>>;

async fn script(mut connection: FrameConnection, says: Says, seen: Seen) {
    if connection.is_http1() {
        while let Some(request) = connection.http1_request().await {
            let method = request.first_line().split(' ').next().unwrap().to_owned();
            seen.lock().unwrap().push(Some((method, request.text(), request.trailers.clone())));
            connection.say("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nHTTP/1.1").await;
        }
        return;
    }
    let mut last = 0;
    while let Some(frame) = connection.next().await {
        // What comes of one that was reset is of no matter any more.
        if frame.stream <= last {
            continue;
        }
        let ends = frame.flags & http2_frames::END_STREAM != 0;
        let wanted = match says {
            Says::Reset => ends,
            Says::ResetEarly | Says::Goaway => frame.is_request(),
        };
        if !wanted {
            continue;
        }
        last = frame.stream;
        seen.lock().unwrap().push(None);
        let code = HTTP_1_1_REQUIRED.to_be_bytes();
        if says == Says::Goaway {
            connection.send(kind::GOAWAY, 0, 0, &[&[0; 4][..], &code].concat()).await;
            connection.ends().await;
            return;
        }
        connection.send(kind::RST_STREAM, 0, frame.stream, &code).await;
    }
}

async fn member(certificates: &Certificates, alpn: &[&str], says: Says) -> (Backend, Seen) {
    let seen = Seen::default();
    let of_member = Arc::clone(&seen);
    let script = move |connection| script(connection, says, Arc::clone(&of_member));
    (http2_frames::member_of(certificates, alpn, script).await, seen)
}

async fn proxy(certificates: &Certificates, member: &Backend, alpn: &[&str]) -> Proxy {
    let pool = Pool::http().members([member]).with("tls_enabled", true).with("alpn_protocols", alpn.to_vec());
    let options = ["--workers", "1", "--certificates", &certificates.option()];
    Proxy::start_with(Document::of(Listener::http(), pool), &options).await
}

const BOTH: &[&str] = &["h2", "http/1.1"];

#[tokio::test]
async fn a_member_that_requires_http_1_1_is_asked_in_that() {
    let certificates = Certificates::new();
    let trailers = HeaderMap::from_iter([(HeaderName::from_static("x-sum"), HeaderValue::from_static("7"))]);
    for says in [Says::Reset, Says::ResetEarly, Says::Goaway] {
        for version in ["HTTP/2", "HTTP/1.1"] {
            // With a body that is there as a whole, or without one: nothing has come of the request.
            for method in ["GET", "POST"] {
                let (member, seen) = member(&certificates, BOTH, says).await;
                let proxy = proxy(&certificates, &member, BOTH).await;
                let case = format!("{says:?}, {version}, {method}");
                for _ in 0..3 {
                    if version == "HTTP/2" {
                        let mut client = Http2Client::connect(proxy.address()).await;
                        let (body, trailers) = match method {
                            "POST" => (Some(&b"hello"[..]), Some(trailers.clone())),
                            _ => (None, None),
                        };
                        let answer = client.ask(request(method, "/"), body, trailers).await;
                        assert_eq!(
                            (answer.status, answer.text().as_str()),
                            (Some(200), "HTTP/1.1"),
                            "{case}"
                        );
                    } else {
                        let mut client = Client::connect(proxy.address()).await;
                        let rest = match method {
                            "POST" => "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 7\r\n\r\n",
                            _ => "\r\n",
                        };
                        client.send(format!("{method} / HTTP/1.1\r\nHost: a\r\n{rest}")).await;
                        assert_eq!(client.response().await.text(), "HTTP/1.1", "{case}");
                    }
                }
                let (body, lines) = if method == "POST" { ("hello", "x-sum: 7\r\n") } else { ("", "") };
                let asked = Some((method.to_owned(), body.to_owned(), lines.to_owned()));
                let expected = [None, asked.clone(), asked.clone(), asked];
                assert_eq!(*seen.lock().unwrap(), expected, "{case}");
            }
        }
    }
}

#[tokio::test]
async fn what_cannot_be_asked_for_in_http_1_1_fails() {
    let certificates = Certificates::new();
    // HTTP/2 is all that may be offered: it is not asked on and on.
    let (member, seen) = member(&certificates, &["h2"], Says::Reset).await;
    let proxy = proxy(&certificates, &member, &["h2"]).await;
    let mut client = Http2Client::connect(proxy.address()).await;
    assert_eq!(client.ask(request("POST", "/"), Some(b"hello"), None).await.status, Some(502));
    assert_eq!(seen.lock().unwrap().len(), 1);
    // As HAProxy has it, which asks again in no version.
    let (other, _) = self::member(&certificates, BOTH, Says::Reset).await;
    let mut config = HaProxyConfig::http([other.address]);
    config.servers[0].2 = "ssl verify none alpn h2,http/1.1".to_owned();
    if let Some(haproxy) = HaProxy::start(&config).await {
        let status = haproxy.client().await.post("/", b"hello").await.status();
        assert_eq!(status, 502);
    }
    // So does one of which more was sent than is kept, or more is to come; the next is not asked for in HTTP/2.
    let (member, seen) = self::member(&certificates, BOTH, Says::ResetEarly).await;
    let proxy = self::proxy(&certificates, &member, BOTH).await;
    let mut client = Client::connect(proxy.address()).await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello").await;
    assert_eq!(client.response().await.status(), 502);
    let mut client = Client::connect(proxy.address()).await;
    assert_eq!(client.post("/", &vec![b'x'; 100_000]).await.text(), "HTTP/1.1");
    assert_eq!(seen.lock().unwrap().len(), 2);
}
