//! The server: it accepts, shakes hands, and bounds in number, size and time what any peer can cost.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    sync::{Arc, Weak},
    time::Duration,
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::api::{Api, HEAD_TIMEOUT};
use crate::{metrics::Metrics, tls::ServerTls};

/// How long a peer may take for the TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Handshakes at a time. With one more the oldest is given up: a peer that has a certificate is through in
/// milliseconds, so that silent ones cannot keep it out, however many they are.
const MAX_HANDSHAKES: usize = 128;

/// How long a peer may wait for its turn after the handshake, when all connections are in use.
const TURN_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of a request's head.
const MAX_HEAD: usize = 16 << 10;

/// Header fields of a request.
const MAX_HEADERS: usize = 64;

/// A peer that takes nothing of an answer for so long is dropped.
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
    connections: Semaphore,
}

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
        Ok(Self {
            listener: TcpListener::bind(address).await?,
            shared: Arc::new(Shared { tls, api, metrics, connections: Semaphore::new(max_connections) }),
        })
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
        let mut handshakes = Handshakes::default();
        let accepting = async {
            loop {
                match self.listener.accept().await {
                    Ok((stream, peer)) => {
                        let handshake = handshakes.begin();
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

/// The handshakes under way, oldest first.
#[derive(Debug, Default)]
struct Handshakes(VecDeque<Weak<Notify>>);

impl Handshakes {
    /// One more. It is under way as long as what is returned exists, and given up when that is notified.
    fn begin(&mut self) -> Arc<Notify> {
        if self.0.len() >= MAX_HANDSHAKES {
            self.0.retain(|handshake| handshake.strong_count() > 0);
        }
        if self.0.len() >= MAX_HANDSHAKES
            && let Some(oldest) = self.0.pop_front().and_then(|oldest| oldest.upgrade())
        {
            oldest.notify_one();
        }
        let handshake = Arc::new(Notify::new());
        self.0.push_back(Arc::downgrade(&handshake));
        handshake
    }
}

async fn connection(
    shared: Arc<Shared>,
    stream: TcpStream,
    peer: SocketAddr,
    mut stop: watch::Receiver<bool>,
    handshake: Arc<Notify>,
) {
    shared.metrics.connections.increment();
    let _open = Decrement(shared.metrics.clone());
    let shaken = tokio::select! {
        shaken = shake_hands(&shared, stream) => shaken,
        () = handshake.notified() => Err("given up for a newer one".to_owned()),
        () = stopped(&mut stop) => return,
    };
    drop(handshake);
    let stream = match shaken {
        Ok(stream) => stream,
        Err(error) => {
            shared.metrics.handshakes_failed.increment();
            tracing::debug!(%peer, error, "TLS handshake failed");
            return;
        }
    };
    let Ok(Ok(_place)) = timeout(TURN_TIMEOUT, shared.connections.acquire()).await else {
        tracing::warn!(%peer, "max_connections are in use; a controller was turned away");
        return;
    };
    let api = &shared.api;
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD)
        .half_close(false)
        .serve_connection(TokioIo::new(stream), service_fn(|request| api.clone().serve(request)));
    tokio::pin!(connection);
    let served = tokio::select! {
        served = &mut connection => Some(served),
        () = stopped(&mut stop) => None,
    };
    let served = match served {
        Some(served) => served,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%peer, %error, "connection ended");
    }
}

async fn shake_hands(shared: &Shared, stream: TcpStream) -> Result<TlsStream<TcpStream>, String> {
    let _ = stream.set_nodelay(true);
    let _ = setsockopt(&stream, sockopt::TcpUserTimeout, &(SEND_TIMEOUT.as_millis() as u32));
    let handshake = TlsAcceptor::from(shared.tls.current()).accept(stream);
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
        self.0.connections.decrement();
    }
}
