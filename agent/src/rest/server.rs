//! The server: it accepts, shakes hands, and bounds in number, size and time what any peer can cost.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use super::api::{Api, HEAD_TIMEOUT};
use crate::{metrics::Metrics, tls::ServerTls};

/// How long a peer may take for the TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

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
    connections: Arc<Semaphore>,
}

#[derive(Debug)]
struct Shared {
    tls: Arc<ServerTls>,
    api: Arc<Api>,
    metrics: Arc<Metrics>,
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
            shared: Arc::new(Shared { tls, api, metrics }),
            connections: Arc::new(Semaphore::new(max_connections)),
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
        let accepting = async {
            loop {
                // Further connections wait in the backlog. Each one that is here ends within its bounds.
                let Ok(permit) = self.connections.clone().acquire_owned().await else { return };
                match self.listener.accept().await {
                    Ok((stream, peer)) => {
                        let connection = connection(self.shared.clone(), stream, peer, stop.clone(), permit);
                        tasks.spawn(connection);
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
    _permit: OwnedSemaphorePermit,
) {
    shared.metrics.connections.increment();
    let _open = Decrement(shared.metrics.clone());
    let _ = stream.set_nodelay(true);
    let _ = setsockopt(&stream, sockopt::TcpUserTimeout, &(SEND_TIMEOUT.as_millis() as u32));
    let handshake = timeout(HANDSHAKE_TIMEOUT, TlsAcceptor::from(shared.tls.current()).accept(stream));
    let stream = tokio::select! {
        handshake = handshake => match handshake {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                shared.metrics.handshakes_failed.increment();
                tracing::info!(%peer, %error, "TLS handshake failed");
                return;
            }
            Err(_) => {
                shared.metrics.handshakes_failed.increment();
                tracing::info!(%peer, "TLS handshake took too long");
                return;
            }
        },
        () = stopped(&mut stop) => return,
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
