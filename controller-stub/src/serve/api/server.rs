//! The server: it accepts, and bounds in number, size and time what a client can cost.

use std::{convert::Infallible, io, net::IpAddr, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use amphora_ipc::places::{Limits, Places, Seat, Watched};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::{
    Request, Response,
    body::{Body, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::resource::{Resource, getrlimit};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    Api,
    fault::Fault,
    reply::Sent,
    room::Held,
    router,
    socket::{Peer, Socket},
    tls::Tls,
};
use crate::serve::metrics::metrics;

/// Connections at a time, of which each takes a descriptor, and at most half of the descriptors that there may be: the other half is
/// for amphorae. With one more, one that asks for nothing is closed.
const MAX_CONNECTIONS: u64 = 2048;

/// Bytes of a request's head.
const MAX_HEAD: usize = 64 << 10;

/// Header fields of a request.
const MAX_HEADERS: usize = 100;

/// Bytes of a body.
const MAX_BODY: usize = 8 << 20;

/// How long a client may take for the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a client may take for a body.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// A client that falls behind with reading its answer for so long is dropped.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a connection that gives up its place may take to say so.
const FAREWELL: Duration = Duration::from_secs(1);

/// A pause after the kernel refused a connection, for one because file descriptors are short.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The server of the API.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    api: Arc<Api>,
    tls: Option<Arc<Tls>>,
}

impl Server {
    /// Binds, so that an address that is taken is found out at once.
    ///
    /// # Errors
    /// When it is.
    pub async fn bind(address: SocketAddr, api: Arc<Api>) -> io::Result<Self> {
        Ok(Self { listener: TcpListener::bind(address).await?, api, tls: None })
    }

    /// Speaks TLS.
    #[must_use]
    pub fn with_tls(self, tls: Option<Tls>) -> Self {
        Self { tls: tls.map(Arc::new), ..self }
    }

    /// The address that was bound.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop` becomes true; then finishes the requests under way, for at most `drain`.
    pub async fn run(self, stop: watch::Receiver<bool>, drain: Duration) {
        let mut tasks = JoinSet::new();
        let descriptors = getrlimit(Resource::RLIMIT_NOFILE).map_or(MAX_CONNECTIONS, |(soft, _)| soft);
        let connections = usize::try_from(MAX_CONNECTIONS.min(descriptors / 2)).unwrap_or(1).max(1);
        let at_work = connections - connections.div_ceil(128).min(connections - 1);
        let places = Places::new(Limits { connections, at_work, kept_for_others: 0 });
        let accepting = async {
            loop {
                match self.listener.accept().await {
                    Ok((stream, peer)) => {
                        let seat = places.take(vec![peer.ip()]).await;
                        tasks.spawn(secured(self.tls.clone(), self.api.clone(), stream, seat, stop.clone()));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept");
                        places.let_go_one();
                        sleep(ACCEPT_PAUSE).await;
                    }
                }
                while tasks.try_join_next().is_some() {}
            }
        };
        let mut stop = stop.clone();
        let following = self.api.follow();
        tokio::select! {
            () = accepting => {}
            () = following => {}
            () = stopped(&mut stop) => {}
        }
        drop(self.listener);
        if timeout(drain, async { while tasks.join_next().await.is_some() {} }).await.is_err() {
            tracing::warn!(connections = tasks.len(), "requests were still under way");
        }
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn secured(
    tls: Option<Arc<Tls>>,
    api: Arc<Api>,
    stream: TcpStream,
    seat: Seat<IpAddr>,
    mut stop: watch::Receiver<bool>,
) {
    let _ = stream.set_nodelay(true);
    let stream = Socket::new(stream);
    let peer = stream.peer();
    let progress = seat.progress().clone();
    let Some(tls) = tls else {
        return connection(api, Watched::new(stream, progress), peer, seat, stop).await;
    };
    let shaken = tokio::select! {
        shaken = tls.accept(stream, progress) => shaken,
        () = stopped(&mut stop) => None,
    };
    if let Some(stream) = shaken {
        connection(api, stream, peer, seat, stop).await;
    }
}

async fn connection(
    api: Arc<Api>,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Peer,
    seat: Seat<IpAddr>,
    stop: watch::Receiver<bool>,
) {
    let seat = Arc::new(seat);
    let progress = seat.progress().clone();
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_HEAD)
            // Who has said all that he wants to say is answered all the same.
            .half_close(true)
            .serve_connection(
                TokioIo::new(stream),
                service_fn(|request| serve(api.clone(), request, peer.clone(), seat.clone(), stop.clone())),
            )
    );
    let (mut stopping, mut stop) = (false, stop.clone());
    let served = loop {
        let unread = progress.waited_for_reading();
        tokio::select! {
            served = &mut connection => break served,
            () = progress.let_go() => {
                if progress.is_idle() {
                    connection.as_mut().graceful_shutdown();
                    let _ = timeout(FAREWELL, connection).await;
                }
                return;
            }
            () = sleep_until(Instant::now() + SEND_TIMEOUT.saturating_sub(unread)) => {
                if progress.waited_for_reading() >= SEND_TIMEOUT {
                    return;
                }
            }
            () = stopped(&mut stop), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "connection ended");
    }
}

async fn serve(
    api: Arc<Api>,
    request: Request<Incoming>,
    peer: Peer,
    seat: Arc<Seat<IpAddr>>,
    stop: watch::Receiver<bool>,
) -> Result<Response<Sent>, Infallible> {
    seat.receives();
    let (head, body) = request.into_parts();
    let mut begin = Instant::now();
    let mut held = Held::default();
    let reply = match timeout(BODY_TIMEOUT, collect(body, &mut held)).await {
        Err(_) => Fault::new(408, "The body of the request took too long.").into(),
        Ok(Err(fault)) => fault.into(),
        Ok(Ok(_)) if seat.work().is_err() => {
            Fault::new(503, "Too many requests are carried out. Please try again.").into()
        }
        Ok(Ok(body)) => {
            begin = Instant::now();
            api.reply(&head, body).await
        }
    };
    let resource = router::word(&head.method, head.uri.path());
    metrics().answered(head.method.as_str(), resource, reply.status(), begin.elapsed());
    tracing::debug!(method = %head.method, path = head.uri.path(), status = reply.status(), "answered");
    let is_whole = reply.is_whole();
    let response = reply.into_response(&seat, peer, stop);
    seat.answers();
    if is_whole {
        seat.progress().completes();
    }
    Ok(response)
}

async fn collect(mut body: Incoming, held: &mut Held) -> Result<Bytes, Fault> {
    let too_large = || Fault::new(413, format!("Request is too large. It may have {MAX_BODY} bytes."));
    if body.size_hint().lower() > MAX_BODY as u64 {
        return Err(too_large());
    }
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Fault::new(400, error.to_string()))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > MAX_BODY {
            return Err(too_large());
        }
        held.grow(bytes.len() + data.len())?;
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.freeze())
}
