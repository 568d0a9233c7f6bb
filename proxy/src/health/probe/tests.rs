#![allow(clippy::unwrap_used)]

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsFd as _,
    sync::Arc,
    time::Duration,
};

use amphora_model::{HealthCheck, HttpCheck, HttpMethod, HttpVersion};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::{
    dialogue::stream,
    prober::{Prober, once},
    *,
};
use crate::{
    conn::proxy_protocol::Version,
    health::core::{Target, TargetId},
};

fn http_check() -> HttpCheck {
    HttpCheck {
        method: HttpMethod::Get,
        url_path: "/".into(),
        version: HttpVersion::Http10,
        domain_name: None,
        expected_codes: vec![(200, 299)],
    }
}

fn target(address: SocketAddr, check: HealthCheck) -> Target {
    Target {
        address: address.ip(),
        port: address.port(),
        check: check.into(),
        delay: Duration::from_secs(5),
        proxy_protocol: None,
        tls: None,
        timeout: Duration::from_millis(300),
        rise: 1,
        fall: 1,
        first_check: false,
    }
}

/// What a server does with each connection.
#[derive(Clone)]
enum Serve {
    /// Reads something, sends these pieces 40 ms apart, and closes.
    Say(Vec<Vec<u8>>),
    /// Never says a word.
    Hang,
    /// Closes with a reset.
    Reset,
    /// Sends this again and again.
    Forever(Vec<u8>),
}

fn say(text: &[u8]) -> Serve {
    Serve::Say(vec![text.to_vec()])
}

async fn server(ip: IpAddr, serve: Serve) -> SocketAddr {
    let listener = TcpListener::bind((ip, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let serve = serve.clone();
            tokio::spawn(async move {
                let mut request = [0; 2048];
                let _ = stream.read(&mut request).await;
                match serve {
                    Serve::Say(pieces) => {
                        for (i, piece) in pieces.iter().enumerate() {
                            if i > 0 {
                                tokio::time::sleep(Duration::from_millis(40)).await;
                            }
                            let _ = stream.write_all(piece).await;
                        }
                    }
                    Serve::Hang => std::future::pending().await,
                    Serve::Reset => socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap(),
                    Serve::Forever(piece) => while stream.write_all(&piece).await.is_ok() {},
                }
            });
        }
    });
    address
}

async fn local(serve: Serve) -> SocketAddr {
    server(Ipv4Addr::LOCALHOST.into(), serve).await
}

/// A port that nobody listens on.
async fn closed() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap()
}

async fn run(target: &Target) -> Outcome {
    let target = target.clone();
    tokio::task::spawn_blocking(move || once(&target)).await.unwrap()
}

async fn probe(address: SocketAddr, check: HealthCheck) -> Outcome {
    let outcome = run(&target(address, check)).await;
    assert!(outcome.duration < Duration::from_millis(1500), "the deadline holds: {outcome}");
    outcome
}

async fn status(serve: Serve, check: &HealthCheck) -> CheckStatus {
    // Who answers is waited for, however busy the machine.
    let answers = match &serve {
        Serve::Say(pieces) => pieces.len() <= 5,
        Serve::Hang => false,
        Serve::Reset | Serve::Forever(_) => true,
    };
    let address = local(serve).await;
    if !answers {
        return probe(address, check.clone()).await.status;
    }
    let mut patient = target(address, check.clone());
    patient.timeout = Duration::from_secs(30);
    run(&patient).await.status
}

#[tokio::test]
async fn tcp() {
    for ip in [IpAddr::V4(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
        let address = server(ip, Serve::Hang).await;
        assert_eq!(probe(address, HealthCheck::Tcp).await.status, CheckStatus::L4Ok, "{ip}");
    }
    let refused = probe(closed().await, HealthCheck::Tcp).await;
    assert_eq!(refused.status, CheckStatus::L4Connection);
    assert!(refused.detail.contains("refused"), "{refused}");
}

#[tokio::test]
async fn a_connection_that_nobody_answers_times_out() {
    // A queue of one, which is full: the kernel drops further handshakes.
    let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let mut queued = Vec::new();
    while let Ok(Ok(stream)) =
        tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address)).await
    {
        queued.push(stream);
        assert!(queued.len() < 50);
    }
    assert_eq!(probe(address, HealthCheck::Tcp).await.status, CheckStatus::L4Timeout);
}

#[tokio::test]
async fn http() {
    let check = HealthCheck::Http(http_check());
    let ok = probe(local(say(b"HTTP/1.0 204 No Content\r\n\r\n")).await, check.clone()).await;
    assert_eq!((ok.status, ok.code), (CheckStatus::L7Ok, Some(204)));
    let bad = probe(local(say(b"HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno")).await, check.clone()).await;
    assert_eq!((bad.status, bad.code), (CheckStatus::L7Status, Some(500)));

    let pieces = [&b"HTTP/1."[..], b"1 20", b"0 OK\r", b"\nA: b\r\n", b"\r\n"].map(<[u8]>::to_vec);
    assert_eq!(status(Serve::Say(pieces.to_vec()), &check).await, CheckStatus::L7Ok, "in pieces");
    let interim = b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n\r\n";
    assert_eq!(status(say(interim), &check).await, CheckStatus::L7Ok);

    assert_eq!(status(Serve::Hang, &check).await, CheckStatus::L7Timeout);
    assert_eq!(status(Serve::Reset, &check).await, CheckStatus::L7Response);
    assert_eq!(status(say(b""), &check).await, CheckStatus::L7Response);
    assert_eq!(status(say(b"SSH-2.0-OpenSSH\r\n"), &check).await, CheckStatus::L7Response);
    assert_eq!(status(say(b"HTTP/1.1 200 OK\r\nA:"), &check).await, CheckStatus::L7Response, "cut short");
    let drip = std::iter::repeat_n(b"HTTP/1.1 200 OK\r\nA: b".chunks(1), 5).flatten().map(<[u8]>::to_vec);
    assert_eq!(status(Serve::Say(drip.collect()), &check).await, CheckStatus::L7Timeout, "one deadline");
    let endless = Serve::Forever(vec![b'x'; 1000]);
    assert_eq!(status(endless, &check).await, CheckStatus::L7Response);
    let endless = Serve::Forever(b"HTTP/1.1 100 Continue\r\n\r\n".to_vec());
    assert_eq!(status(endless, &check).await, CheckStatus::L7Response);
    assert_eq!(probe(closed().await, check).await.status, CheckStatus::L4Connection);
}

#[tokio::test]
async fn https_and_tls_hello_against_what_is_no_tls_server() {
    for check in [HealthCheck::Https(http_check()), HealthCheck::TlsHello] {
        assert_eq!(status(Serve::Hang, &check).await, CheckStatus::L6Timeout);
        assert_eq!(status(Serve::Reset, &check).await, CheckStatus::L6Response);
        assert_eq!(status(say(b"HTTP/1.1 400 Bad Request\r\n\r\n"), &check).await, CheckStatus::L6Response);
        assert_eq!(status(say(b"\x16\x03"), &check).await, CheckStatus::L6Response, "cut short");
        assert_eq!(probe(closed().await, check).await.status, CheckStatus::L4Connection);
    }
    let alert = say(b"\x15\x03\x03\x00\x02\x02\x46");
    assert_eq!(status(alert.clone(), &HealthCheck::TlsHello).await, CheckStatus::L6Ok);
    assert_eq!(status(alert, &HealthCheck::Https(http_check())).await, CheckStatus::L6Response);
}

#[tokio::test]
async fn https_and_tls_hello_against_a_tls_server() {
    // Self-signed, expired, for another name: none of it matters.
    let mut params = rcgen::CertificateParams::new(vec!["elsewhere.example".into()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2001, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    let cert = params.self_signed(&key).unwrap();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = rustls_pki_types::PrivatePkcs8KeyDer::from(key.serialize_der());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key.into())
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                assert_eq!(stream.get_ref().1.server_name(), None);
                let mut request = [0; 100];
                let n = stream.read(&mut request).await.unwrap();
                assert_eq!(&request[..n], b"GET / HTTP/1.0\r\n\r\n");
                let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\n").await;
                let _ = stream.shutdown().await;
            }
        });
        let outcome = probe(address, HealthCheck::Https(http_check())).await;
        assert_eq!((outcome.status, outcome.code), (CheckStatus::L7Ok, Some(200)), "{outcome}");
        assert_eq!(probe(address, HealthCheck::TlsHello).await.status, CheckStatus::L6Ok);
    }
}

#[tokio::test]
async fn ping() {
    for ip in [IpAddr::V4(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
        let outcome = probe(SocketAddr::new(ip, 0), HealthCheck::Ping).await;
        match ping_available(ip) {
            Ok(()) => assert_eq!(outcome.status, CheckStatus::L4Ok, "{ip}: {outcome}"),
            Err(error) => {
                eprintln!("NOT TESTED: {ip}: {error}");
                assert_eq!(outcome.status, CheckStatus::SocketError);
                assert!(outcome.detail.contains("CAP_NET_RAW"), "{outcome}");
            }
        }
    }
}

#[tokio::test]
async fn a_datagram_passes_unless_it_is_refused() {
    for ip in [IpAddr::V4(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
        let socket = tokio::net::UdpSocket::bind((ip, 0)).await.unwrap();
        let address = socket.local_addr().unwrap();
        let silent = probe(address, HealthCheck::UdpConnect).await;
        assert_eq!(silent.status, CheckStatus::L4Ok, "{silent}");
        assert!(silent.duration >= Duration::from_millis(300), "an error has so long to come: {silent}");
        let mut byte = [0; 2];
        assert_eq!(socket.recv(&mut byte).await.unwrap(), 1);
        drop(socket);
        let refused = probe(address, HealthCheck::UdpConnect).await;
        assert_eq!(refused.status, CheckStatus::L4Connection, "{refused}");
    }
}

/// What a client would be answered with 502 for, whoever asks.
#[tokio::test]
async fn an_answer_that_no_client_would_get_is_no_pass() {
    let check = HealthCheck::Http(http_check());
    let ok = b"HTTP/1.1 200 OK\r\n".as_slice();
    let big = format!("A: {}\r\n", "x".repeat(40 * 1024));
    let many = "A: b\r\n".repeat(101);
    for fields in [
        "Content-Length: 2\r\nContent-Length: 2\r\n",
        "Content-Length: 2\r\nContent-Length: 3\r\n",
        "Content-Length: 2, 2\r\n",
        "Content-Length: two\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: +2\r\n",
        "Content-Length:\r\n",
        "Content-Length: 18446744073709551616\r\n",
        "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "A: b\r\n folded\r\n",
        " A: b\r\n",
        "A : b\r\n",
        "A\r\n",
        ": b\r\n",
        "A: b\0c\r\n",
        "A: b\rc\r\n",
        "A: b\n",
        &big,
        &many,
    ] {
        let answer = [ok, fields.as_bytes(), b"\r\n"].concat();
        let found = status(say(&answer), &check).await;
        let shown = &fields[..fields.len().min(40)];
        assert_eq!(found, CheckStatus::L7Response, "{shown:?}");
    }
    for answer in [
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        "HTTP/1.0 100 Continue\r\n\r\nHTTP/1.0 200 OK\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 O\0K\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 099 OK\r\n\r\n",
        "HTTP/1.1\t200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\n\n",
        "\r\nHTTP/1.1 200 OK\r\n\r\n",
        "HTTP/2 200 OK\r\n\r\n",
        "HTTP/1.1 100 Continue\r\nContent-Length: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        "<html>fine</html>",
    ] {
        assert_eq!(status(say(answer.as_bytes()), &check).await, CheckStatus::L7Response, "{answer:?}");
    }
    for answer in [
        "HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.0 200\r\nContent-Length: 100\r\n\r\nshort",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
    ] {
        assert_eq!(status(say(answer.as_bytes()), &check).await, CheckStatus::L7Ok, "{answer:?}");
    }
}

/// As captured from HAProxy 2.6.12 with `send-proxy` and `send-proxy-v2` in the same place.
#[tokio::test]
async fn the_proxy_header_comes_before_all_else() {
    for ip in [IpAddr::V4(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
        for version in [Version::V1, Version::V2] {
            for check in [
                HealthCheck::Tcp,
                HealthCheck::Http(http_check()),
                HealthCheck::TlsHello,
                HealthCheck::Https(http_check()),
            ] {
                let listener = TcpListener::bind((ip, 0)).await.unwrap();
                let address = listener.local_addr().unwrap();
                let mut target = target(address, check.clone());
                target.proxy_protocol = Some(version);
                let (outcome, read) = tokio::join!(run(&target), async {
                    let (mut stream, client) = listener.accept().await.unwrap();
                    let family = if ip.is_ipv4() { "TCP4" } else { "TCP6" };
                    let expected = match version {
                        Version::V1 => {
                            format!("PROXY {family} {ip} {ip} {} {}\r\n", client.port(), address.port())
                                .into_bytes()
                        }
                        Version::V2 => b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0".to_vec(),
                    };
                    let mut got = vec![0; expected.len()];
                    // A TCP monitor says no more than this, and resets.
                    if check == HealthCheck::Tcp {
                        let read = stream.read_exact(&mut got).await;
                        return read.is_err() || got == expected;
                    }
                    stream.read_exact(&mut got).await.unwrap();
                    assert_eq!(got, expected);
                    let mut next = [0; 4];
                    stream.read_exact(&mut next).await.unwrap();
                    let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\n").await;
                    match check {
                        HealthCheck::Http(_) => &next == b"GET ",
                        _ => next[..2] == [22, 3],
                    }
                });
                assert!(read, "{version:?} {check:?}");
                let passed = matches!(outcome.status, CheckStatus::L4Ok | CheckStatus::L7Ok);
                assert_eq!(passed, matches!(check, HealthCheck::Tcp | HealthCheck::Http(_)), "{outcome}");
            }
        }
    }
}

mod openssl;

/// Probes all of these at once.
fn at_once(prober: &mut Prober, targets: &[Target]) -> Vec<Outcome> {
    for target in targets {
        prober.start(TargetId::default(), Arc::new(target.clone()));
    }
    let mut outcomes = Vec::new();
    while outcomes.len() < targets.len() {
        prober.turn(None);
        outcomes.extend(prober.done().map(|(_, outcome)| outcome));
    }
    outcomes
}

#[tokio::test]
async fn nothing_of_a_probe_is_left_to_the_next_on_its_socket() {
    let ok = b"HTTP/1.0 200 OK\r\n\r\n";
    let http = HealthCheck::Http(http_check());
    let mut all = Vec::new();
    for ip in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
        let closed = TcpListener::bind((ip, 0)).await.unwrap().local_addr().unwrap();
        let pass = (server(ip, say(ok)).await, http.clone(), CheckStatus::L7Ok);
        let (hang, reset) = (server(ip, Serve::Hang).await, server(ip, Serve::Reset).await);
        let large = server(ip, Serve::Forever(vec![b'x'; 100_000])).await;
        for other in [
            (closed, http.clone(), CheckStatus::L4Connection),
            (hang, http.clone(), CheckStatus::L7Timeout),
            (hang, HealthCheck::Tcp, CheckStatus::L4Ok),
            (hang, HealthCheck::TlsHello, CheckStatus::L6Timeout),
            (reset, http.clone(), CheckStatus::L7Response),
            (large, http.clone(), CheckStatus::L7Response),
            (server(ip, say(b"HTTP/1.0 500 No\r\n\r\n")).await, http.clone(), CheckStatus::L7Status),
        ] {
            all.extend([other, pass.clone()]);
        }
    }
    let sockets = tokio::task::spawn_blocking(move || {
        let mut prober = Prober::new(1000).unwrap();
        for (address, check, expected) in all {
            let mut target = target(address, check.clone());
            if !matches!(expected, CheckStatus::L6Timeout | CheckStatus::L7Timeout) {
                target.timeout = Duration::from_secs(30);
            }
            let outcome = at_once(&mut prober, &[target]).remove(0);
            assert_eq!(outcome.status, expected, "{address} {check:?}: {outcome}");
        }
        prober.kept()
    });
    assert_eq!(sockets.await.unwrap(), 2, "one for all of a family");
}

#[test]
fn a_handshake_ends_with_the_question_in_each_connection_of_a_socket() {
    use std::{
        io::{ErrorKind, Write as _},
        net::TcpListener,
    };

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap().into();
    let socket = stream(socket2::Domain::IPV4).unwrap();
    for nth in 0..3 {
        // Who is held up here for 200 ms finds the ACK sent without the question.
        let held_back = (0..50).any(|_| {
            let _ = socket.connect(&address);
            let mut writable = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
            poll(&mut writable, PollTimeout::NONE).unwrap();
            let before = listener.accept();
            (&socket).write_all(b"?").unwrap();
            let accepted = before.as_ref().err().map(|_| listener.accept().unwrap());
            crate::sys::disconnect(&socket).unwrap();
            drop(accepted);
            matches!(before, Err(error) if error.kind() == ErrorKind::WouldBlock)
        });
        assert!(held_back, "connection {nth}");
    }
}

#[tokio::test]
async fn sockets_are_kept_within_bounds() {
    let http = HealthCheck::Http(http_check());
    let mut quick = target(local(Serve::Hang).await, http.clone());
    quick.timeout = Duration::from_millis(100);
    let mapped = local(say(b"HTTP/1.0 200 OK\r\n\r\n")).await;
    let mapped = SocketAddr::new(Ipv4Addr::LOCALHOST.to_ipv6_mapped().into(), mapped.port());
    let sockets = tokio::task::spawn_blocking(move || {
        let mut prober = Prober::new(100).unwrap();
        let outcomes = at_once(&mut prober, &vec![quick.clone(); 100]);
        assert!(outcomes.iter().all(|outcome| outcome.status == CheckStatus::L7Timeout), "{outcomes:?}");
        let many = prober.kept();
        let mut mapped = target(mapped, http);
        mapped.timeout = Duration::from_secs(30);
        let outcomes = at_once(&mut prober, &[mapped]);
        assert_eq!(outcomes[0].status, CheckStatus::L7Ok, "{outcomes:?}");
        let mapped = prober.kept();
        // As many of the other family: those that are kept make room.
        quick.address = Ipv6Addr::LOCALHOST.into();
        for target in vec![quick; 60] {
            prober.start(TargetId::default(), Arc::new(target));
        }
        (many, mapped, prober.kept())
    });
    assert_eq!(sockets.await.unwrap(), (64, 64, 40));
}
