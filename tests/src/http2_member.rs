//! A member that speaks HTTP/2 over TLS, on the crate `h2`.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use h2::{
    Reason, RecvStream, SendStream,
    server::{self, SendResponse},
};
use http::{HeaderMap, Request, Response};
use rustls::{ServerConfig, crypto::aws_lc_rs};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{Backend, Certificates, http2::send_all};

/// A member whose answers are named by the path:
///
/// | path | answer |
/// | --- | --- |
/// | `/stream` | data of no announced length |
/// | `/trailers`, `/alone` | trailers behind data; a head with nothing behind it |
/// | `/hints` | 103 before it |
/// | `/none`, `/unchanged` | 204, 304 |
/// | `/short` | less data than announced |
/// | `/cut`, `/cut-stream` | some data, of an announced length or not, and RST_STREAM |
/// | `/reset` | RST_STREAM |
/// | `/early` | an answer before the end of the request, then RST_STREAM with NO_ERROR |
/// | `/echo` | what it is sent, as it comes, trailers too |
/// | `/busy/N` | RST_STREAM with REFUSED_STREAM, but to the Nth |
/// | `/leave` | an answer, and GOAWAY |
/// | `/bytes/N` | so many |
/// | `/wait` | nothing |
///
/// With another protocol than HTTP/2 it answers everything with `HTTP/1.1`, and is a WebSocket that says what it is told.
#[derive(Debug)]
pub struct Http2Member {
    /// Counts connections.
    pub backend: Backend,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    requests: Mutex<Vec<Seen>>,
    refused: AtomicUsize,
}

/// What a member was asked over HTTP/2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Method and target.
    pub line: String,
    /// Fields in alphabetical order, `:authority` as `host`.
    pub fields: Vec<String>,
    /// The data, if it was read.
    pub body: Vec<u8>,
    /// Behind it.
    pub trailers: Option<HeaderMap>,
}

impl Http2Member {
    /// With the certificate of this id; it agrees on these protocols.
    pub async fn start(
        certificates: &Certificates,
        id: &str,
        alpn: &[&str],
        settings: server::Builder,
    ) -> Self {
        let builder = ServerConfig::builder_with_provider(aws_lc_rs::default_provider().into());
        let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let (chain, key) = certificates.read(id);
        let mut config = builder.with_single_cert(chain, key).unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let shared = Arc::<Shared>::default();
        let of_member = Arc::clone(&shared);
        let backend = Backend::tcp("h2", move |stream| {
            let (acceptor, shared, settings) = (acceptor.clone(), Arc::clone(&of_member), settings.clone());
            async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                    serve(stream, &settings, shared).await;
                } else {
                    let _ = serve_http1(stream).await;
                }
            }
        });
        Self { backend: backend.await, shared }
    }

    /// What it was asked over HTTP/2, without what it has not read to its end.
    pub fn requests(&self) -> Vec<Seen> {
        self.shared.requests.lock().unwrap().clone()
    }
}

async fn serve(stream: TlsStream<TcpStream>, settings: &server::Builder, shared: Arc<Shared>) {
    let Ok(mut connection) = settings.handshake::<_, Bytes>(stream).await else { return };
    let mut leaving = false;
    while let Some(Ok((request, respond))) = connection.accept().await {
        if request.uri().path() == "/leave" && !std::mem::replace(&mut leaving, true) {
            connection.graceful_shutdown();
        }
        // They end with their connection.
        tokio::spawn(answer(request, respond, Arc::clone(&shared)));
    }
}

async fn serve_http1(mut stream: TlsStream<TcpStream>) -> std::io::Result<()> {
    let mut buffer = Vec::new();
    while let Some(request) = crate::read_message(&mut stream, &mut buffer, false).await? {
        if request.has("upgrade") {
            stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n").await?;
            let mut bytes = [0; 1024];
            loop {
                let n = stream.read(&mut bytes).await?;
                if n == 0 {
                    return stream.shutdown().await;
                }
                stream.write_all(&bytes[..n]).await?;
                stream.flush().await?;
            }
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nHTTP/1.1").await?;
        stream.flush().await?;
    }
    stream.shutdown().await
}

fn head(status: u16, length: Option<u64>) -> Response<()> {
    let mut response = Response::builder().status(status).header("x-member", "h2");
    if let Some(length) = length {
        response = response.header("content-length", length);
    }
    response.body(()).unwrap()
}

fn trailers(name: &'static str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert(name, "7".parse().unwrap());
    trailers
}

async fn answer(request: Request<RecvStream>, mut respond: SendResponse<Bytes>, shared: Arc<Shared>) {
    let (parts, mut body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let mut fields: Vec<String> =
        parts.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
    // The host is named in one of two ways, and the scheme may be the client's or the connection's.
    let authority = parts.uri.authority().map(|authority| format!("host: {authority}"));
    fields.extend(authority);
    fields.sort();
    let line = format!("{} {}", parts.method, parts.uri.path_and_query().unwrap());
    let seen = |body, trailers| {
        let seen = Seen { line: line.clone(), fields: fields.clone(), body, trailers };
        shared.requests.lock().unwrap().push(seen);
    };
    if parts.method == "CONNECT" || path == "/echo" {
        let length = parts.headers.get("content-length").and_then(|value| value.to_str().ok()?.parse().ok());
        let Ok(mut send) = respond.send_response(head(200, length), false) else { return };
        while let Some(Ok(data)) = body.data().await {
            let _ = body.flow_control().release_capacity(data.len());
            send_all(&mut send, &data, false).await;
        }
        let trailers = body.trailers().await.ok().flatten();
        seen(Vec::new(), trailers.clone());
        match trailers {
            Some(trailers) => drop(send.send_trailers(trailers)),
            None => drop(send.send_data(Bytes::new(), true)),
        }
        return;
    }
    if path == "/early" {
        let Ok(mut send) = respond.send_response(head(200, Some(5)), false) else { return };
        let _ = send.send_data("early".into(), true);
        return;
    }
    if let Some(nth) = path.strip_prefix("/busy/") {
        let nth: usize = nth.parse().unwrap();
        if shared.refused.fetch_add(1, Ordering::SeqCst) % nth != nth - 1 {
            // Some of the body has come, or will have.
            let _ = body.data().await;
            respond.send_reset(Reason::REFUSED_STREAM);
            return;
        }
    }
    let mut all = Vec::new();
    while let Some(Ok(data)) = body.data().await {
        let _ = body.flow_control().release_capacity(data.len());
        all.extend_from_slice(&data);
    }
    let got = body.trailers().await.ok().flatten();
    seen(all, got);
    let head_only = parts.method == "HEAD";
    let send = |respond: &mut SendResponse<Bytes>, response, end| respond.send_response(response, end).ok();
    let said: Option<(SendStream<Bytes>, Vec<u8>)> = match path.as_str() {
        "/none" => send(&mut respond, head(204, None), true).and(None),
        "/unchanged" => send(&mut respond, head(304, None), true).and(None),
        "/alone" => send(&mut respond, head(200, None), true).and(None),
        "/reset" => {
            respond.send_reset(Reason::INTERNAL_ERROR);
            None
        }
        "/wait" => std::future::pending().await,
        _ if head_only => send(&mut respond, head(200, Some(77)), true).and(None),
        "/short" | "/cut" | "/cut-stream" => {
            let length = (path != "/cut-stream").then_some(10);
            if let Some(mut stream) = send(&mut respond, head(200, length), false) {
                let _ = stream.send_data("abc".into(), path == "/short");
                if path != "/short" {
                    // A reset takes back what waits.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    stream.send_reset(Reason::INTERNAL_ERROR);
                }
            }
            None
        }
        "/trailers" => {
            if let Some(mut stream) = send(&mut respond, head(200, None), false) {
                let _ = stream.send_data("hello".into(), false);
                let _ = stream.send_trailers(trailers("x-sum"));
            }
            None
        }
        "/stream" => {
            send(&mut respond, head(200, None), false).map(|stream| (stream, b"hello world".to_vec()))
        }
        _ => {
            if path == "/hints" {
                let hints = Response::builder().status(103).header("link", "</a.css>").body(()).unwrap();
                let _ = respond.send_informational(hints);
            }
            let data = match path.strip_prefix("/bytes/") {
                Some(length) => vec![b'x'; length.parse().unwrap()],
                None => path.into_bytes(),
            };
            send(&mut respond, head(200, Some(data.len() as u64)), false).map(|stream| (stream, data))
        }
    };
    if let Some((mut stream, data)) = said {
        send_all(&mut stream, &data, true).await;
    }
}
