//! A member of raw HTTP/2 frames over TLS, for what the crate `h2` does not do.

use std::{future::Future, sync::Arc};

use rustls::{ServerConfig, crypto::aws_lc_rs};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{Backend, Certificates, Message, read_message};

/// Types of frames (RFC 9113 section 6).
pub mod kind {
    #![allow(missing_docs, reason = "they are the RFC's")]
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// Flag of SETTINGS and PING.
pub const ACK: u8 = 1;
/// Flag of DATA and HEADERS.
pub const END_STREAM: u8 = 1;
/// Flag of HEADERS and CONTINUATION.
pub const END_HEADERS: u8 = 4;
/// A header block: `:status: 200`.
pub const OK: &[u8] = &[0x88];

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its type.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Its stream.
    pub stream: u32,
    /// What is in it.
    pub payload: Vec<u8>,
}

impl Frame {
    /// Whether it opens a stream.
    pub fn is_request(&self) -> bool {
        self.kind == kind::HEADERS
    }

    /// The number that it begins with: of RST_STREAM an error code, of GOAWAY the last stream.
    pub fn number(&self) -> u32 {
        u32::from_be_bytes(self.payload[..4].try_into().unwrap())
    }
}

/// A field that is no part of a table, as a piece of a header block.
pub fn literal(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [name, value] {
        if text.len() < 0x7f {
            bytes.push(u8::try_from(text.len()).unwrap());
        } else {
            bytes.push(0x7f);
            let mut rest = text.len() - 0x7f;
            while rest >= 0x80 {
                bytes.push((rest & 0x7f) as u8 | 0x80);
                rest >>= 7;
            }
            bytes.push(u8::try_from(rest).unwrap());
        }
        bytes.extend(text.as_bytes());
    }
    bytes
}

/// A connection of such a member. What belongs to the connection (SETTINGS, PING) it answers by itself.
#[derive(Debug)]
pub struct FrameConnection {
    stream: TlsStream<TcpStream>,
    /// One more than this number of connections came before.
    pub number: usize,
    buffer: Vec<u8>,
}

impl FrameConnection {
    /// Sends a frame; false when the connection has ended.
    pub async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        let mut bytes = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
        bytes.extend([kind, flags]);
        bytes.extend(stream.to_be_bytes());
        bytes.extend(payload);
        self.stream.write_all(&bytes).await.is_ok() && self.stream.flush().await.is_ok()
    }

    /// Answers a request with 200 and nothing else.
    pub async fn answer(&mut self, stream: u32) -> bool {
        self.send(kind::HEADERS, END_HEADERS | END_STREAM, stream, OK).await
    }

    /// The next frame, whatever it is; `None` at the end.
    pub async fn receive(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).await.ok()?;
        let [a, b, c, kind, flags, s0, s1, s2, s3] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.stream.read_exact(&mut payload).await.ok()?;
        Some(Frame { kind, flags, stream: u32::from_be_bytes([s0, s1, s2, s3]), payload })
    }

    /// The next frame of a stream, or GOAWAY.
    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            let frame = self.receive().await?;
            match frame.kind {
                kind::SETTINGS | kind::PING if frame.flags & ACK == 0 => {
                    let payload = if frame.kind == kind::PING { &frame.payload[..] } else { &[] };
                    self.send(frame.kind, ACK, 0, payload).await;
                }
                kind::SETTINGS | kind::PING | kind::WINDOW_UPDATE => {}
                _ => return Some(frame),
            }
        }
    }

    /// The next request's stream.
    pub async fn request(&mut self) -> Option<u32> {
        loop {
            let frame = self.next().await?;
            if frame.is_request() {
                return Some(frame.stream);
            }
        }
    }

    /// Whether the connection ends with nothing but frames of no matter before it.
    pub async fn ends(&mut self) {
        while self.next().await.is_some() {}
    }

    /// Whether it has agreed on HTTP/1.1.
    pub fn is_http1(&self) -> bool {
        self.stream.get_ref().1.alpn_protocol() == Some(b"http/1.1")
    }

    /// The next request of HTTP/1.1; `None` at the end.
    pub async fn http1_request(&mut self) -> Option<Message> {
        read_message(&mut self.stream, &mut self.buffer, false).await.ok().flatten()
    }

    /// Sends what is HTTP/1.1; false when the connection has ended.
    pub async fn say(&mut self, text: &str) -> bool {
        self.stream.write_all(text.as_bytes()).await.is_ok() && self.stream.flush().await.is_ok()
    }

    /// Resets it.
    pub fn reset(self) {
        let _ = self.stream.get_ref().0.set_zero_linger();
    }
}

/// A member that does this with each connection, whose preface has come and whose SETTINGS are sent. It agrees on HTTP/2 alone.
pub async fn member<F>(
    certificates: &Certificates,
    script: impl Fn(FrameConnection) -> F + Send + Sync + 'static,
) -> Backend
where
    F: Future<Output = ()> + Send + 'static,
{
    member_of(certificates, &["h2"], script).await
}

/// The same of a member that agrees on these protocols. On HTTP/1.1 nothing was said.
pub async fn member_of<F>(
    certificates: &Certificates,
    alpn: &[&str],
    script: impl Fn(FrameConnection) -> F + Send + Sync + 'static,
) -> Backend
where
    F: Future<Output = ()> + Send + 'static,
{
    let builder = ServerConfig::builder_with_provider(aws_lc_rs::default_provider().into());
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let (chain, key) = certificates.read("server");
    let mut config = builder.with_single_cert(chain, key).unwrap();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let script = Arc::new(script);
    let connections = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    Backend::tcp("frames", move |stream| {
        let (acceptor, script) = (acceptor.clone(), Arc::clone(&script));
        let number = connections.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            if is_http2 && stream.read_exact(&mut [0; 24]).await.is_err() {
                return;
            }
            let mut connection = FrameConnection { stream, number, buffer: Vec::new() };
            if is_http2 {
                connection.send(kind::SETTINGS, 0, 0, &[]).await;
            }
            script(connection).await;
        }
    })
    .await
}
