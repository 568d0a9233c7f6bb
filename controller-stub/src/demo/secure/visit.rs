//! What a client of the HTTPS listener tries, and what it saw.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use h2::client::SendRequest;
use hyper::{
    HeaderMap, Response, StatusCode,
    header::{HeaderName, HeaderValue},
};
use rustls::{ClientConfig, HandshakeKind};
use rustls_pki_types::CertificateDer;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::client::TlsStream;

use super::{
    super::{
        HEADER_TLS,
        exchange::{Ask, Kind, Verdict},
        sender::{Failure, PATIENCE, Route, Secure, Sender, collect, open},
    },
    client::connect,
};

/// What a visit came to; what kept it from coming to anything, in words.
pub(super) type Seen<T> = Result<T, String>;

/// How many requests are on one connection at a time.
pub(super) const STREAMS: u64 = 64;

/// The certificate that a new client is shown who asks for `host` by SNI, or for none.
pub(super) async fn certificate(
    address: SocketAddr,
    config: Arc<ClientConfig>,
    host: Option<&'static str>,
) -> Seen<CertificateDer<'static>> {
    let stream = connect(address, &config, host).await.map_err(text)?;
    let shown = stream.get_ref().1.peer_certificates().and_then(|all| all.first());
    shown.map(|one| one.clone().into_owned()).ok_or_else(|| "no certificate".to_owned())
}

/// The protocol that ALPN came to.
pub(super) async fn alpn(
    address: SocketAddr,
    config: Arc<ClientConfig>,
    host: &'static str,
) -> Seen<Vec<u8>> {
    let stream = connect(address, &config, Some(host)).await.map_err(text)?;
    Ok(stream.get_ref().1.alpn_protocol().unwrap_or_default().to_vec())
}

/// Many requests at once on one connection: how many answers there are. ALPN has to come to HTTP/2.
pub(super) async fn multiplexed(route: Route) -> Seen<u64> {
    let (sender, host) = http2(&route).await?;
    let mut requests = JoinSet::new();
    for n in 0..STREAMS {
        let mut sender = Sender::Http2(sender.clone(), host);
        requests.spawn(async move {
            let kind = Kind::ALL[(n % Kind::ALL.len() as u64) as usize];
            asked(&mut sender, &Ask::new(kind, n, None)).await.map(drop)
        });
    }
    let mut answered = 0;
    while let Some(result) = requests.join_next().await {
        result.map_err(text)??;
        answered += 1;
    }
    Ok(answered)
}

/// What the member of a pool with TLS says that it was spoken to with.
pub(super) async fn reencrypted(route: Route) -> Seen<String> {
    let mut sender = route.connect().await.map_err(text)?;
    let head = asked(&mut sender, &Ask::new(Kind::Vault, 1, None)).await?;
    let said = head.headers().get(HEADER_TLS).and_then(|value| value.to_str().ok());
    Ok(said.unwrap_or_default().to_owned())
}

/// Whether each of `count` connections, one after the other, resumed a session; the first has none.
pub(super) async fn resumed(route: Route, count: usize) -> Seen<Vec<bool>> {
    let mut all = Vec::new();
    let Some(Secure { config, host }) = &route.secure else { return Err("no TLS".to_owned()) };
    for n in 0..=count {
        let mut stream = connect(route.address, config, Some(host)).await.map_err(text)?;
        all.push(stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed));
        // Tickets of TLS 1.3 come after the handshake: the whole answer is behind them.
        let ask = Ask::new(Kind::Page, n as u64, None);
        send(&mut stream, head(&ask, host).as_bytes()).await?;
        whole(stream, &ask).await?;
    }
    Ok(all)
}

/// Connections on which something is under way while a certificate is replaced: uploads of which the first half is
/// sent, by HTTP/1.1 and by HTTP/2, and a connection of each between two requests.
pub(super) struct UnderWay {
    /// How much of each body is sent at first, in bytes.
    half: usize,
    upload: (Ask, TlsStream<TcpStream>),
    stream: (Ask, h2::client::ResponseFuture, h2::SendStream<Bytes>),
    idle: Vec<Sender>,
}

impl UnderWay {
    /// Begins all of it.
    pub(super) async fn begin(http11: Route, http2_route: Route) -> Seen<Self> {
        let Some(Secure { config, host }) = &http11.secure else { return Err("no TLS".to_owned()) };
        // Long enough to be two halves.
        let ask = Ask::new(Kind::Upload, 499, None);
        let mut upload = connect(http11.address, config, Some(host)).await.map_err(text)?;
        let half = ask.body.len() / 2;
        send(&mut upload, head(&ask, host).as_bytes()).await?;
        send(&mut upload, &ask.body[..half]).await?;

        let streamed = Ask::new(Kind::Upload, 999, None);
        let (mut sender, host) = http2(&http2_route).await?;
        let (response, mut sending) = open(&mut sender, host, &streamed, false).map_err(failed)?;
        sending.send_data(streamed.body.slice(..half), false).map_err(text)?;

        let mut idle = Vec::new();
        for route in [&http11, &http2_route] {
            let mut sender = route.connect().await.map_err(text)?;
            asked(&mut sender, &Ask::new(Kind::Page, 1, None)).await?;
            idle.push(sender);
        }
        Ok(Self { half, upload: (ask, upload), stream: (streamed, response, sending), idle })
    }

    /// Ends it, and counts the right answers: one for each.
    async fn end(self) -> Seen<usize> {
        let Self { half, upload: (ask, mut upload), stream: (streamed, response, mut sending), mut idle } =
            self;
        send(&mut upload, &ask.body[half..]).await?;
        whole(upload, &ask).await.map_err(|e| format!("upload by HTTP/1.1: {e}"))?;
        sending.send_data(streamed.body.slice(half..), true).map_err(text)?;
        let answer = timeout(PATIENCE, collect(response)).await.map_err(text)?;
        let answer = answer.map_err(failed);
        answer.and_then(|answer| right(&streamed, answer)).map_err(|e| format!("upload by HTTP/2: {e}"))?;
        for sender in &mut idle {
            asked(sender, &Ask::new(Kind::Page, 2, None))
                .await
                .map_err(|e| format!("kept connection: {e}"))?;
        }
        Ok(2 + idle.len())
    }
}

/// Begins what is under way, says so, and ends it when it is told to.
pub(super) async fn through(
    http11: Route,
    http2: Route,
    begun: oneshot::Sender<()>,
    end: oneshot::Receiver<()>,
) -> Seen<usize> {
    let under_way = UnderWay::begin(http11, http2).await?;
    let _ = begun.send(());
    let _ = end.await;
    under_way.end().await
}

async fn http2(route: &Route) -> Seen<(SendRequest<Bytes>, &'static str)> {
    match route.connect().await.map_err(text)? {
        Sender::Http2(sender, host) => Ok((sender, host)),
        Sender::Http1(..) => Err("ALPN did not come to HTTP/2".to_owned()),
    }
}

/// The head of a right answer.
async fn asked(sender: &mut Sender, ask: &Ask) -> Seen<Response<()>> {
    let exchange =
        async { if sender.ready().await { sender.exchange(ask, false).await } else { Err(Failure::Unsent) } };
    let answer = timeout(PATIENCE, exchange).await.map_err(text)?.map_err(failed)?;
    right(ask, answer).map_err(|e| format!("{}: {e}", ask.kind))
}

fn right(ask: &Ask, (head, body): (Response<()>, Bytes)) -> Seen<Response<()>> {
    match ask.judge(head.status(), head.headers(), &body) {
        Verdict::Right { .. } => Ok(head),
        Verdict::Wrong(what) | Verdict::Lost(what) => Err(what),
    }
}

/// A request of HTTP/1.1 after which the connection ends.
fn head(ask: &Ask, host: &str) -> String {
    let Ask { method, target, body, .. } = ask;
    let length = body.len();
    format!(
        "{method} {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    )
}

async fn send(stream: &mut TlsStream<TcpStream>, bytes: &[u8]) -> Seen<()> {
    stream.write_all(bytes).await.map_err(text)?;
    stream.flush().await.map_err(text)
}

/// Reads the answer, which has to end with the connection, and that with `close_notify`.
async fn whole(mut stream: TlsStream<TcpStream>, ask: &Ask) -> Seen<()> {
    let mut bytes = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.map_err(text)?.map_err(text)?;
    let at = bytes.windows(4).position(|end| end == b"\r\n\r\n").ok_or("no whole answer")?;
    let (head, body) = (String::from_utf8_lossy(&bytes[..at]).into_owned(), &bytes[at + 4..]);
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse::<StatusCode>().ok());
    let mut headers = HeaderMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value.trim())) {
            headers.append(name, value);
        }
    }
    match ask.judge(status.ok_or("no status")?, &headers, body) {
        Verdict::Right { .. } => Ok(()),
        Verdict::Wrong(what) | Verdict::Lost(what) => Err(what),
    }
}

fn failed(failure: Failure) -> String {
    match failure {
        Failure::Unsent => "the connection was closed before the request".to_owned(),
        Failure::Broken(what) => what,
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
