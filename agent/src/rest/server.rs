//! The server: it accepts, shakes hands, and bounds in number, size and time what any peer can cost.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use amphora_ipc::places::{Limits, Places, Seat, Watched};
use aws_lc_rs::digest::{SHA256, digest};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinSet, spawn_blocking},
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::api::{Api, HEAD_TIMEOUT};
use crate::{metrics::Metrics, tls::ServerTls};

/// How long a peer may take for the TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Handshakes at a time. With one more another is given up, one of the address with the most of them: a peer that
/// has a certificate is through in milliseconds, so that silent ones cannot keep it out, however many they are.
const MAX_HANDSHAKES: usize = 128;

/// Connections beyond the requests that may be carried out, so that there always is one whose place can be another's.
const LOBBY: usize = 8;

/// The share of the requests that may be carried out that is kept for peers with another certificate, and once more for
/// those with another address, than those who are being worked for.
const KEPT_SHARE: usize = 8;

/// How long a connection that gives up its place may take to say so.
const FAREWELL: Duration = Duration::from_secs(1);

/// Bytes of a request's head.
const MAX_HEAD: usize = 16 << 10;

/// Header fields of a request.
const MAX_HEADERS: usize = 64;

/// A peer that falls behind with reading its answer for so long is dropped.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);

/// A pause after the kernel refused a connection, for one because file descriptors are short.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The REST server.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    tls: Arc<ServerTls>,
    api: Arc<Api>,
    metrics: Arc<Metrics>,
    /// Places for peers that are through the handshake.
    places: Places<Mark>,
}

/// What tells peers from one another. Controllers may share a certificate, and certificates an address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Mark {
    Certificate(Vec<u8>),
    Address(IpAddr),
}

/// Who asks.
pub(super) type Caller = Seat<Mark>;

impl Server {
    /// Binds, so that an address that is taken is found out at once.
    ///
    /// # Errors
    /// When it is.
    pub async fn bind(
        address: SocketAddr,
        max_connections: usize,
        tls: Arc<ServerTls>,
        api: Arc<Api>,
        metrics: Arc<Metrics>,
    ) -> io::Result<Self> {
        let places = Places::new(Limits {
            connections: max_connections + LOBBY,
            at_work: max_connections,
            kept_for_others: max_connections / KEPT_SHARE,
        });
        Ok(Self {
            listener: TcpListener::bind(address).await?,
            shared: Arc::new(Shared { tls, api, metrics, places }),
        })
    }

    /// The address that was bound.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop` becomes true; then finishes the requests under way, for at most `drain`. Cancelled, it breaks
    /// them off.
    pub async fn run(self, stop: watch::Receiver<bool>, drain: Duration) {
        let mut tasks = JoinSet::new();
        let handshakes = Places::new(Limits { connections: MAX_HANDSHAKES, at_work: 0, kept_for_others: 0 });
        let accepting = async {
            loop {
                match self.listener.accept().await {
                    Ok((stream, peer)) => {
                        let handshake = handshakes.take(vec![peer.ip()]).await;
                        tasks.spawn(connection(self.shared.clone(), stream, peer, stop.clone(), handshake));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept");
                        sleep(ACCEPT_PAUSE).await;
                    }
                }
                while tasks.try_join_next().is_some() {}
            }
        };
        let mut stop = stop.clone();
        tokio::select! {
            () = accepting => {}
            () = stopped(&mut stop) => {}
        }
        drop(self.listener);
        let drained = timeout(drain, async { while tasks.join_next().await.is_some() {} }).await;
        if drained.is_err() {
            tracing::warn!(
                connections = tasks.len(),
                "requests were still under way at the end of drain_timeout"
            );
        }
    }
}

async fn connection(
    shared: Arc<Shared>,
    stream: TcpStream,
    peer: SocketAddr,
    mut stop: watch::Receiver<bool>,
    handshake: Seat<IpAddr>,
) {
    shared.metrics.connections.inc();
    let _open = Decrement(shared.metrics.clone());
    let shaken = tokio::select! {
        shaken = shake_hands(&shared, stream) => shaken,
        () = handshake.progress().let_go() => Err("given up for a newer one".to_owned()),
        () = stopped(&mut stop) => return,
    };
    let stream = match shaken {
        Ok(stream) => stream,
        Err(error) => {
            shared.metrics.handshakes_failed.inc();
            tracing::debug!(%peer, error, "TLS handshake failed");
            return;
        }
    };
    let caller = Arc::new(shared.places.take(marks(&stream, peer)).await);
    drop(handshake);
    let progress = caller.progress().clone();
    let api = &shared.api;
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_HEAD)
            .half_close(false)
            .serve_connection(
                TokioIo::new(Watched::new(stream, progress.clone())),
                service_fn(|request| api.clone().serve(request, caller.clone())),
            )
    );
    let mut stopping = false;
    let served = loop {
        let unread = progress.waited_for_reading();
        tokio::select! {
            served = &mut connection => break served,
            () = progress.let_go() => {
                tracing::debug!(%peer, "connection closed: another needs its place");
                if progress.is_idle() {
                    connection.as_mut().graceful_shutdown();
                    let _ = timeout(FAREWELL, connection).await;
                }
                return;
            }
            () = sleep_until(Instant::now() + SEND_TIMEOUT.saturating_sub(unread)) => {
                if progress.waited_for_reading() >= SEND_TIMEOUT {
                    return tracing::debug!(%peer, "connection closed: its answer is not read");
                }
            }
            () = stopped(&mut stop), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    };
    if let Err(error) = served {
        tracing::debug!(%peer, %error, "connection ended");
    }
}

fn marks(stream: &TlsStream<TcpStream>, peer: SocketAddr) -> Vec<Mark> {
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let digest = certificate.map(|own| Mark::Certificate(digest(&SHA256, own).as_ref().to_vec()));
    digest.into_iter().chain([Mark::Address(peer.ip())]).collect()
}

async fn shake_hands(shared: &Shared, stream: TcpStream) -> Result<TlsStream<TcpStream>, String> {
    let _ = stream.set_nodelay(true);
    let _ = setsockopt(&stream, sockopt::TcpUserTimeout, &(SEND_TIMEOUT.as_millis() as u32));
    let tls = Arc::clone(&shared.tls);
    let config = spawn_blocking(move || tls.current()).await.map_err(|error| error.to_string())?;
    let handshake = TlsAcceptor::from(config).accept(stream);
    match timeout(HANDSHAKE_TIMEOUT, handshake).await {
        Ok(shaken) => shaken.map_err(|error| error.to_string()),
        Err(_) => Err("took too long".to_owned()),
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Counts a connection off, however it ends.
struct Decrement(Arc<Metrics>);

impl Drop for Decrement {
    fn drop(&mut self) {
        self.0.connections.dec();
    }
}
