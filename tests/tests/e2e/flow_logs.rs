//! Flow logs beside HAProxy's: the same traffic through both, line by line.

mod changes;
mod ends;
mod members;
mod pair;
mod websocket;

use std::{net::SocketAddr, process::Command, time::Duration};

use amphora_proxy::logs::format;
use amphora_tests::{
    Backend, Certificates, Client, L7Policy, L7Rule, Step, eventually, free_port, in_time, loopback,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use self::pair::{Backing, Front, PATIENT, Pair, Timeouts};

/// All that need not differ, by name. Times are compared by whether they are there.
const FIELDS: &str = "r=%{+Q}r|ST=%ST|B=%B|U=%U|f=%f|ft=%ft|b=%b|s=%s|si=%si|sp=%sp|ts=%ts|tsc=%tsc|rc=%rc\
    |T=%TR/%Tw/%Tc/%Tr/%Td/%Ta/%Tt/%Th/%Ti/%Tq/%Tu|HM=%HM|HU=%HU|HP=%HP|HPO=%HPO|HQ=%{+Q}HQ|HV=%HV\
    |v=%[ssl_c_verify]|dn=%{+Q}[ssl_c_s_dn]|q=%sq/%bq|CC=%CC|fp=%fp|ci=%{+X}ci|n=%ac/%fc/%bc/%sc|E=%{+Q,+E}r\
    |cm=%[capture.req.method]|cu=%{+Q,+E}[capture.req.uri]|cv=%[capture.req.ver]|be=%[be_name]";

/// The same of a connection.
const TCP_FIELDS: &str = "B=%B|U=%U|f=%f|ft=%ft|b=%b|s=%s|si=%si|sp=%sp|ts=%ts|tsc=%tsc|rc=%rc|T=%Tw/%Tc/%Td/%Tt/%Th\
    |v=%[ssl_c_verify]|dn=%{+Q}[ssl_c_s_dn]|q=%sq/%bq|fp=%fp|n=%ac/%fc/%bc/%sc";

/// A member that does what the path says.
async fn member() -> Backend {
    Backend::http("member", |request| match request.target().split('?').next().unwrap_or_default() {
        "/large" => vec![Step::ReadBody, Step::response("200 OK", "", &"x".repeat(200_000))],
        "/chunked" => vec![
            Step::ReadBody,
            Step::send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
        ],
        "/trailers" => vec![
            Step::ReadBody,
            Step::send(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: ab\r\n\r\n",
            ),
        ],
        "/none" => vec![Step::ReadBody, Step::send("HTTP/1.1 204 No Content\r\n\r\n")],
        "/missing" => vec![Step::ReadBody, Step::response("404 Not Found", "", "no")],
        "/until-close" => vec![Step::ReadBody, Step::send("HTTP/1.1 200 OK\r\n\r\nhello"), Step::Close],
        "/interim" => vec![
            Step::ReadBody,
            Step::send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"),
            Step::response("200 OK", "", "hello"),
        ],
        "/silent" => vec![Step::ReadBody, Step::Close],
        "/reset" => vec![Step::ReadBody, Step::Reset],
        "/garbage" => vec![Step::ReadBody, Step::send("this is no response\r\n\r\n"), Step::Close],
        "/half-head" => vec![Step::ReadBody, Step::send("HTTP/1.1 200 OK\r\nContent-"), Step::Close],
        "/cut" => vec![
            Step::ReadBody,
            Step::send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello"),
            Step::Close,
        ],
        "/bad-chunk" => vec![
            Step::ReadBody,
            Step::send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"),
            Step::Pause(Duration::from_millis(50)),
            Step::send("zz\r\n"),
            Step::Wait,
        ],
        "/never" => vec![Step::ReadBody, Step::Wait],
        "/stall" => vec![
            Step::ReadBody,
            Step::send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello"),
            Step::Wait,
        ],
        "/endless" => vec![
            Step::ReadBody,
            Step::send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n"),
            Step::SendPattern(1_000_000_000),
        ],
        "/early" => vec![Step::response("413 Content Too Large", "", "too much"), Step::ReadBody],
        "/upgrade" => vec![
            Step::send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n"),
            Step::Echo,
        ],
        "/cookie" => vec![Step::ReadBody, Step::response("200 OK", "Set-Cookie: SRV=mine\r\n", "hello")],
        _ => Step::ok("hello"),
    })
    .await
}

/// Nobody listens there.
fn closed() -> SocketAddr {
    let address = loopback();
    SocketAddr::new(address, free_port(address))
}

fn simple(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: example.org\r\n\r\n")
}

/// Sends, and reads until the connection ends.
async fn tell(address: SocketAddr, bytes: impl AsRef<[u8]>) {
    let mut client = Client::connect(address).await;
    client.send(bytes).await;
    client.end().await;
}

/// Sends, reads so many bytes at least, and goes without a word.
async fn leave(address: SocketAddr, bytes: impl AsRef<[u8]>, after: usize) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes.as_ref()).await.unwrap();
    let mut read = vec![0; after];
    if after > 0 {
        in_time("an answer", stream.read_exact(&mut read)).await.unwrap();
    }
    let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
}

/// Sends, and finishes; reads until the connection ends.
async fn finish(address: SocketAddr, bytes: impl AsRef<[u8]>) {
    let mut client = Client::connect(address).await;
    client.send(bytes).await;
    client.finish().await;
    client.end().await;
}

/// A listener with policies that lead to each of the pools.
async fn with_policies(timeouts: Timeouts) -> Option<(Pair, Vec<Backend>, String)> {
    let (first, second) = (member().await, member().await);
    let pools = [
        Backing::new("HTTP", &[first.address]),
        Backing::new("HTTP", &[second.address]),
        Backing::new("HTTP", &[closed()]),
        Backing::new("HTTP", &[]),
        Backing::new("HTTP", &[closed(), first.address]),
        Backing::new("HTTP", &[first.address]).with_cookie(),
    ];
    let member = pools[5].pool.members[0].id.to_string();
    let to = |backing: &Backing, path: &str| {
        let policy = L7Policy::to_pool(&backing.pool, L7Rule::path(path));
        (policy, format!(" use_backend {}:LISTENER if {{ path_beg {path} }}\n", backing.pool.id))
    };
    let policies = vec![
        (
            L7Policy::new("REJECT", L7Rule::path("/denied")),
            " http-request deny if { path_beg /denied }\n".into(),
        ),
        (
            L7Policy::new("REDIRECT_TO_URL", L7Rule::path("/moved"))
                .with("redirect_url", "http://example.org/there"),
            " http-request redirect code 302 location http://example.org/there if { path_beg /moved }\n"
                .into(),
        ),
        to(&pools[1], "/other"),
        to(&pools[2], "/dead"),
        to(&pools[3], "/empty"),
        to(&pools[4], "/either"),
        to(&pools[5], "/sticky"),
        to(&pools[5], "/cookie"),
    ];
    let pair = Pair::start(false, FIELDS, timeouts, &pools, policies).await?;
    Some((pair, vec![first, second], member))
}

#[tokio::test]
async fn requests_leave_haproxys_lines() {
    let Some((mut pair, _members, member)) = with_policies(PATIENT).await else { return };
    for path in [
        "/",
        "/a/b?c=d&e",
        "/large",
        "/chunked",
        "/trailers",
        "/none",
        "/missing",
        "/until-close",
        "/interim",
        "/other",
        "/denied?x",
        "/moved",
        "/empty",
        "/dead",
        "/either",
        "/either",
        "/garbage",
        "/half-head",
        "/sticky",
        "/cookie",
        "/early",
        "/q%22%20~x?%00",
        "http://example.org/x?y",
        "http://example.org?y",
    ] {
        pair.compare(path, 1, async |address| {
            Client::connect(address).await.get(path).await;
        })
        .await;
    }
    for (what, value) in [
        ("its cookie", format!("SRV={member}")),
        ("a cookie of nobody", "SRV=nobody".to_owned()),
        ("another cookie", "a=b; c".to_owned()),
    ] {
        for path in ["/sticky", "/cookie", "/"] {
            pair.compare(&format!("{what} {path}"), 1, async |address| {
                Client::connect(address).await.get_with(path, &format!("Cookie: {value}\r\n")).await;
            })
            .await;
        }
    }
    pair.compare("keep-alive", 4, async |address| {
        let mut client = Client::connect(address).await;
        for path in ["/1", "/2", "/denied", "/3"] {
            client.get(path).await;
        }
    })
    .await;
    pair.compare("pipelined", 2, async |address| {
        let mut client = Client::connect(address).await;
        client.send(simple("/1") + &simple("/2")).await;
        client.response().await;
        client.response().await;
    })
    .await;
    pair.compare("a body", 1, async |address| {
        Client::connect(address).await.post("/post", &[b'x'; 100_000]).await;
    })
    .await;
    for (what, request) in [
        (
            "chunks",
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\n\r\n",
        ),
        ("HEAD", "HEAD /large HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("HTTP/1.0", "GET / HTTP/1.0\r\n\r\n"),
        ("white space", "GET /x HTTP/1.1\r\nHost:   a  \r\nX:\r\nY:  b c\t\r\n\r\n"),
        (
            "many fields",
            "GET /x HTTP/1.1\r\nHost: a\r\nAccept: */*\r\nUser-Agent: x y\r\naccept: b\r\nCookie: a=b\r\nCookie: c=d\r\n\r\n",
        ),
        ("asterisk", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("own method", "PURGE /x HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("close", "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
    ] {
        pair.compare(what, 1, async |address| finish(address, request).await).await;
    }
    for (what, request) in [
        ("no request", "this is no request\r\n\r\n"),
        ("no method", " / HTTP/1.1\r\n\r\n"),
        ("bad field", "GET / HTTP/1.1\r\nHost: a\r\nb c: d\r\n\r\n"),
        ("two lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"),
        ("half a head", "GET / HTTP/1.1\r\nHost: a\r\n"),
        ("half a line", "GE"),
    ] {
        pair.compare(what, 1, async |address| finish(address, request).await).await;
    }
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(2000));
    pair.compare("a long target", 1, async |address| finish(address, &long).await).await;
    pair.end();
}

#[tokio::test]
async fn requests_that_fail_leave_haproxys_lines() {
    let Some((mut pair, members, _)) = with_policies(PATIENT).await else { return };
    let post = |path: &str, body: &str| {
        format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n{body}")
    };
    for (what, request) in [
        ("silent", post("/silent", "0123456789")),
        ("reset", post("/reset", "0123456789")),
        ("cut", simple("/cut")),
        ("bad chunk", simple("/bad-chunk")),
    ] {
        pair.compare(what, 1, async |address| finish(address, &request).await).await;
    }
    // How much has passed until then differs.
    pair.compare("left in the middle of a body", 1, async |address| {
        leave(address, simple("/endless"), 10_000).await;
    })
    .await;
    pair.compare("a bad chunk behind a good one", 1, async |address| {
        let before = members[0].started();
        let mut client = Client::connect(address).await;
        client.send("POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n").await;
        eventually("the member has it", async || (members[0].started() > before).then_some(())).await;
        client.send("zz\r\n").await;
        client.end().await;
    })
    .await;
    // HAProxy does not look, and waits for the member.
    for (request, status, ended) in
        [(simple("/never"), -1, "CD"), (post("/never", "012"), -1, "CD"), (simple("/stall"), 200, "CD")]
    {
        let before = members[0].started();
        let mut client = Client::connect(pair.address).await;
        client.send(&request).await;
        eventually("the member has it", async || (members[0].started() > before).then_some(())).await;
        if status == 200 {
            client.response_head().await;
        }
        client.reset();
        let line = pair.ours.line("one that left").await;
        assert!(
            line.contains(&format!("|ST={status}|")) && line.contains(&format!("|ts={ended}|")),
            "{line}"
        );
    }
    pair.compare("nothing said", 1, async |address| finish(address, "").await).await;
    pair.compare("a tunnel", 1, async |address| {
        let mut client = Client::connect(address).await;
        client.send("GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n").await;
        client.response_head().await;
        client.send("hello").await;
        client.expect("hello").await;
        client.finish().await;
        client.end().await;
    })
    .await;
    pair.end();
}

#[tokio::test]
async fn late_requests_leave_haproxys_lines() {
    let hasty = Timeouts { client: 400, connect: 200, server: 200 };
    let Some((mut pair, _members, _)) = with_policies(hasty).await else { return };
    for (what, request) in [
        ("no answer", simple("/never")),
        ("a stalled answer", simple("/stall")),
        ("half a request", "GET / HTTP/1.1\r\nHost".to_owned()),
        ("nothing said", String::new()),
    ] {
        pair.compare(what, 1, async |address| tell(address, &request).await).await;
    }
    pair.end();
}

#[tokio::test]
async fn connections_leave_haproxys_lines() {
    let echo = Backend::tcp("echo", async |mut stream: TcpStream| {
        let mut bytes = [0; 1024];
        while let Ok(n @ 1..) = stream.read(&mut bytes).await {
            if bytes.starts_with(b"reset") {
                let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
                return;
            }
            if bytes.starts_with(b"close") {
                return;
            }
            let _ = stream.write_all(&bytes[..n]).await;
        }
    })
    .await;
    let pools = [Backing::new("TCP", &[echo.address])];
    let Some(mut pair) = Pair::start(true, TCP_FIELDS, PATIENT, &pools, Vec::new()).await else { return };
    for (what, said) in [("echo", "hello"), ("reset", "reset"), ("close", "close")] {
        pair.compare(what, 1, async |address| finish(address, said).await).await;
    }
    pair.compare("nothing said", 1, async |address| finish(address, "").await).await;
    pair.compare("left", 1, async |address| leave(address, "hello", 5).await).await;
    pair.end();
    let hasty = Timeouts { client: 200, connect: 200, server: 1000 };
    let Some(mut pair) = Pair::start(true, TCP_FIELDS, hasty, &pools, Vec::new()).await else { return };
    pair.compare("late client", 1, async |address| tell(address, "hello").await).await;
    pair.end();
    let hasty = Timeouts { client: 1000, connect: 200, server: 200 };
    let Some(mut pair) = Pair::start(true, TCP_FIELDS, hasty, &pools, Vec::new()).await else { return };
    pair.compare("late member", 1, async |address| tell(address, "hello").await).await;
    pair.end();
    // Without a word where HAProxy may close before it has heard it.
    for (what, said, pools) in [
        ("nobody there", "close", vec![Backing::new("TCP", &[closed()])]),
        ("one of two there", "close", vec![Backing::new("TCP", &[closed(), echo.address])]),
        ("nobody at all", "", vec![Backing::new("TCP", &[])]),
    ] {
        let Some(mut pair) = Pair::start(true, TCP_FIELDS, PATIENT, &pools, Vec::new()).await else { return };
        // A client that finishes meanwhile lets HAProxy give up.
        pair.compare(what, 1, async |address| tell(address, said).await).await;
        pair.end();
    }
}

/// Octavia's default, and what HAProxy calls `option httplog` and `option tcplog`.
#[tokio::test]
async fn the_usual_formats_are_haproxys() {
    let members = member().await;
    let octavia = amphora_model::FlowLog::DEFAULT_FORMAT;
    let octavia = octavia.replace("{{ project_id }}", "project").replace("{{ lb_id }}", "load-balancer");
    // As Octavia renders it for what is not HTTP.
    let octavias_tcp = octavia.replace("%{+Q}r", "-").replace("%ST", "-");
    let of = |format: &str| format!("log-format \"{}\"", format.replace('"', "\\\""));
    let (http, clf, tcp) = (format::HTTPLOG, format::HTTPLOG_CLF, format::TCPLOG);
    for (is_tcp, ours, haproxys) in [
        (false, octavia.as_str(), of(&octavia)),
        (true, octavia.as_str(), of(&octavias_tcp)),
        (false, http, "option httplog".to_owned()),
        (false, clf, "option httplog clf".to_owned()),
        (true, tcp, "option tcplog".to_owned()),
    ] {
        let pools = [Backing::new(if is_tcp { "TCP" } else { "HTTP" }, &[members.address])];
        let started = Pair::start_with(is_tcp, ours, &haproxys, PATIENT, &pools, Vec::new()).await;
        let Some(mut pair) = started else { return };
        for path in ["/", "/missing?x", "/until-close"] {
            pair.compare(&format!("{haproxys} {path}"), 1, async |address| {
                finish(address, simple(path)).await
            })
            .await;
        }
        if !is_tcp {
            pair.compare("no request", 1, async |address| finish(address, "\"no\" request\r\n\r\n").await)
                .await;
        }
        pair.end();
    }
}

/// Clients of HTTP/2 with prior knowledge, which both take on any listener.
#[tokio::test]
async fn requests_of_http2_leave_haproxys_lines() {
    let version = Command::new("curl").arg("-V").output();
    if !version.is_ok_and(|said| String::from_utf8_lossy(&said.stdout).contains("HTTP2")) {
        eprintln!("SKIPPED: there is no curl that speaks HTTP/2");
        return;
    }
    let Some((mut pair, _members, member)) = with_policies(PATIENT).await else { return };
    let cookie = format!("Cookie: SRV={member}");
    for (what, path, options) in [
        ("h2", "/", &[][..]),
        ("h2", "/a/b?c=d", &["-H", "Accept:"]),
        ("h2", "/large", &[]),
        ("h2", "/chunked", &[]),
        ("h2", "/trailers", &[]),
        ("h2 of all", "/", &["-X", "OPTIONS", "--request-target", "*"]),
        ("h2", "/none", &[]),
        ("h2", "/missing", &[]),
        ("h2", "/until-close", &[]),
        ("h2 HEAD", "/", &["-I"]),
        ("h2", "/denied?x", &[]),
        ("h2", "/moved", &[]),
        ("h2", "/empty", &[]),
        ("h2", "/dead", &[]),
        ("h2", "/either", &[]),
        ("h2", "/garbage", &[]),
        ("h2", "/sticky", &[]),
        ("h2 with a cookie", "/sticky", &["-H", &cookie]),
        ("h2 with a cookie", "/cookie", &["-H", &cookie]),
        ("h2 POST", "/", &["-d", "0123456789"]),
    ] {
        pair.compare(&format!("{what} {path}"), 1, async |address| {
            let url = format!("http://{address}{path}");
            let mut curl = tokio::process::Command::new("curl");
            curl.args(["-s", "-o", "/dev/null", "--http2-prior-knowledge", "-H", "Host: example.org"]);
            in_time("curl", curl.args(options).arg(url).status()).await.unwrap();
        })
        .await;
    }
    pair.end();
}

/// Clients with whom TLS does not come about.
#[tokio::test]
async fn handshakes_that_fail_leave_haproxys_lines() {
    let member = member().await;
    let certificates = Certificates::new();
    let hasty = Timeouts { client: 400, connect: 200, server: 400 };
    let pools = [Backing::new("HTTP", &[member.address])];
    let directive = "log-format \"%r|%ST\"";
    let front = Front::Https(&certificates);
    let started = Pair::start_on(front, "%r|%ST", directive, hasty, &pools, Vec::new()).await;
    let Some(mut pair) = started else { return };
    // A record with the beginning of a hello, the rest of which never comes.
    let hello = [b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03".as_slice(), &[b'a'; 40]].concat();
    pair.compare_unborn("nothing said", async |address| finish(address, "").await).await;
    pair.compare_unborn("half a hello", async |address| finish(address, &hello).await).await;
    pair.compare_unborn("plain text", async |address| tell(address, simple("/")).await).await;
    pair.compare_unborn("an empty record", async |address| tell(address, b"\x16\x03\x01\x00\x05hello").await)
        .await;
    pair.compare_unborn("too late", async |address| tell(address, "").await).await;
    pair.compare_unborn("half a hello, too late", async |address| tell(address, &hello).await).await;
    pair.end();
}
