//! A client's connection: plain or over TLS, HTTP/1.1 or HTTP/2.

use std::{future::poll_fn, io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, Response, Uri, Version, body::Incoming, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};

use super::{
    exchange::Ask,
    secure::client::{self, H2},
};

/// A request without an answer for this long is lost.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);

/// No answer of the demo is longer.
const MAX_ANSWER: usize = 1 << 20;

/// Where a client goes, and how.
#[derive(Clone, Debug)]
pub(super) struct Route {
    pub(super) address: SocketAddr,
    /// Over TLS.
    pub(super) secure: Option<Secure>,
}

/// How a client shakes hands. What ALPN comes to decides what is spoken.
#[derive(Clone, Debug)]
pub(super) struct Secure {
    pub(super) config: Arc<ClientConfig>,
    /// The host that it asks for, by SNI and in the request.
    pub(super) host: &'static str,
}

/// A connection on which requests are sent.
pub(super) enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>, String),
    Http2(h2::client::SendRequest<Bytes>, &'static str),
}

/// Why a request has no answer.
pub(super) enum Failure {
    /// It never left.
    Unsent,
    /// It left, or half of it.
    Broken(String),
}

impl From<SocketAddr> for Route {
    fn from(address: SocketAddr) -> Self {
        Self { address, secure: None }
    }
}

impl Route {
    /// A new connection.
    ///
    /// # Errors
    /// Whatever the connection or its handshake fails for.
    pub(super) async fn connect(&self) -> io::Result<Sender> {
        let Some(Secure { config, host }) = &self.secure else {
            let stream = timeout(PATIENCE, TcpStream::connect(self.address)).await??;
            stream.set_nodelay(true)?;
            return http1(stream, self.address.to_string()).await;
        };
        let stream = client::connect(self.address, config, Some(host)).await?;
        if stream.get_ref().1.alpn_protocol() != Some(H2) {
            return http1(stream, (*host).to_owned()).await;
        }
        let (sender, connection) = h2::client::handshake(stream).await.map_err(io::Error::other)?;
        tokio::spawn(connection);
        Ok(Sender::Http2(sender, host))
    }
}

async fn http1(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    host: String,
) -> io::Result<Sender> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    tokio::spawn(connection);
    Ok(Sender::Http1(sender, host))
}

impl Sender {
    /// Waits until it takes a request; false when it takes no more.
    pub(super) async fn ready(&mut self) -> bool {
        match self {
            Self::Http1(sender, _) => sender.ready().await.is_ok(),
            Self::Http2(sender, _) => poll_fn(|cx| sender.poll_ready(cx)).await.is_ok(),
        }
    }

    /// One request and its whole answer; with `one_shot` the connection is not used again.
    ///
    /// # Errors
    /// [`Failure`]: there is none, or half of one.
    pub(super) async fn exchange(
        &mut self,
        ask: &Ask,
        one_shot: bool,
    ) -> Result<(Response<()>, Bytes), Failure> {
        match self {
            Self::Http1(sender, host) => exchange_http1(sender, host, ask, one_shot).await,
            Self::Http2(sender, host) => exchange_http2(sender, host, ask).await,
        }
    }
}

async fn exchange_http1(
    sender: &mut http1::SendRequest<Full<Bytes>>,
    host: &str,
    ask: &Ask,
    one_shot: bool,
) -> Result<(Response<()>, Bytes), Failure> {
    let mut request = request(ask, &ask.target).header(header::HOST, host);
    if one_shot {
        request = request.header(header::CONNECTION, "close");
    }
    let request = request.body(Full::new(ask.body.clone())).map_err(|e| Failure::Broken(e.to_string()))?;
    let response: Response<Incoming> = sender
        .send_request(request)
        .await
        .map_err(|e| if e.is_canceled() { Failure::Unsent } else { Failure::Broken(e.to_string()) })?;
    let (head, body) = response.into_parts();
    let body =
        Limited::new(body, MAX_ANSWER).collect().await.map_err(|e| Failure::Broken(format!("body: {e}")))?;
    Ok((Response::from_parts(head, ()), body.to_bytes()))
}

async fn exchange_http2(
    sender: &mut h2::client::SendRequest<Bytes>,
    host: &str,
    ask: &Ask,
) -> Result<(Response<()>, Bytes), Failure> {
    let (response, mut sending) = open(sender, host, ask, ask.body.is_empty())?;
    if !ask.body.is_empty() {
        sending.send_data(ask.body.clone(), true).map_err(broken)?;
    }
    collect(response).await
}

/// Begins a request of HTTP/2; with `whole` it has no body.
///
/// # Errors
/// [`Failure`]: it cannot be sent.
pub(super) fn open(
    sender: &mut h2::client::SendRequest<Bytes>,
    host: &str,
    ask: &Ask,
    whole: bool,
) -> Result<(h2::client::ResponseFuture, h2::SendStream<Bytes>), Failure> {
    let uri = Uri::builder().scheme("https").authority(host).path_and_query(&*ask.target).build();
    let uri = uri.map_err(|e| Failure::Broken(e.to_string()))?;
    let request = request(ask, uri).version(Version::HTTP_2).body(());
    let request = request.map_err(|e| Failure::Broken(e.to_string()))?;
    sender.send_request(request, whole).map_err(broken)
}

/// The whole answer of HTTP/2.
///
/// # Errors
/// [`Failure`]: there is none, or half of one.
pub(super) async fn collect(response: h2::client::ResponseFuture) -> Result<(Response<()>, Bytes), Failure> {
    let (head, mut body) = response.await.map_err(broken)?.into_parts();
    let mut whole = BytesMut::new();
    while let Some(part) = body.data().await {
        let part = part.map_err(broken)?;
        body.flow_control().release_capacity(part.len()).map_err(broken)?;
        whole.extend_from_slice(&part);
        if whole.len() > MAX_ANSWER {
            return Err(Failure::Broken("body: too long".to_owned()));
        }
    }
    Ok((Response::from_parts(head, ()), whole.freeze()))
}

/// What the server says that it has not begun with may be sent again (RFC 9113, section 8.7).
fn broken(error: h2::Error) -> Failure {
    if error.is_remote() && error.reason() == Some(h2::Reason::REFUSED_STREAM) {
        return Failure::Unsent;
    }
    Failure::Broken(error.to_string())
}

fn request<T>(ask: &Ask, uri: T) -> hyper::http::request::Builder
where
    T: TryInto<Uri>,
    <T as TryInto<Uri>>::Error: Into<hyper::http::Error>,
{
    let mut request = Request::builder().method(ask.method.clone()).uri(uri);
    if let Some(session) = &ask.session {
        request = request.header(header::COOKIE, &session.cookie);
    }
    request
}
