//! The control socket: HTTP/1.1 on a unix socket; see [`super::api`] for what is said on it.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body, Frame, Incoming, SizeHint},
    header::{CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::{
    net::UnixListener,
    sync::{Mutex, Semaphore},
};

use super::api::{Fault, Refusal};
use crate::{
    engine::{ApplyError, Engine},
    metrics::{self, Exposition},
    model::LoadBalancer,
    peers::PeersConfig,
};

/// The largest document; 5,000 members take about 2 MiB.
const MAX_DOCUMENT: usize = 16 * 1024 * 1024;
/// Connections served at once; more wait in the socket's queue.
const MAX_CONNECTIONS: usize = 32;
/// A request must be complete within this time, an idle connection is closed after it.
const READ_PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of metrics that are rendered at a time.
const PIECE: usize = 64 * 1024;
/// A connection ends after the request that is under way when it is this old, so that peers that do not read
/// cannot hold all places.
const LIFETIME: Duration = Duration::from_secs(60);
/// How long accepting pauses when the system is out of resources.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Removes the socket that a process which is gone has left.
///
/// # Errors
/// `AlreadyExists` when it is something else; else as the file system says.
pub(super) fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(there) if !there.file_type().is_socket() => {
            Err(io::Error::new(io::ErrorKind::AlreadyExists, "what is there is no socket"))
        }
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// The control socket of one process. Removed from the file system when dropped.
pub struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
    _lock: fs::File,
}

impl ControlSocket {
    /// Binds the socket, readable and writable by the owner and the group. A stale socket of a process that is
    /// gone is replaced; one of a live process is not.
    ///
    /// # Errors
    /// `AddrInUse` when a live process serves this path; else as the file system says.
    pub fn bind(path: &Path) -> io::Result<Self> {
        // The lock's own error would name neither the directory nor what to do about it.
        if let Some(directory) = path.parent().filter(|d| !d.as_os_str().is_empty() && !d.is_dir()) {
            let reason = format!("the directory {} is not there", directory.display());
            return Err(io::Error::new(io::ErrorKind::NotFound, reason));
        }
        let lock =
            fs::File::options().create(true).truncate(false).write(true).open(path.with_extension("lock"))?;
        lock.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => {
                io::Error::new(io::ErrorKind::AddrInUse, "another proxy serves this control socket")
            }
            fs::TryLockError::Error(error) => error,
        })?;
        remove_stale(path)?;
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
        Ok(Self { listener, path: path.to_owned(), _lock: lock })
    }

    /// Serves until dropped. To be called within a `LocalSet`.
    pub async fn serve(&self, engine: Rc<Mutex<Engine>>) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                unreachable!("the semaphore is never closed")
            };
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "control socket");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let engine = Rc::clone(&engine);
            tokio::task::spawn_local(async move {
                let service = service_fn(move |request| {
                    let engine = Rc::clone(&engine);
                    async move { Ok::<_, std::convert::Infallible>(answer(&engine, request).await) }
                });
                let mut connection = pin!(
                    http1::Builder::new()
                        .timer(TokioTimer::new())
                        .header_read_timeout(READ_PATIENCE)
                        .serve_connection(TokioIo::new(stream), service)
                );
                let ended = tokio::select! {
                    ended = connection.as_mut() => Some(ended),
                    () = tokio::time::sleep(LIFETIME) => {
                        connection.as_mut().graceful_shutdown();
                        tokio::time::timeout(READ_PATIENCE, connection).await.ok()
                    }
                };
                match ended {
                    Some(Ok(())) => {}
                    Some(Err(error)) => tracing::debug!(%error, "control connection"),
                    None => tracing::debug!("control connection closed: its peer does not read"),
                }
                drop(place);
            });
        }
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

async fn answer(engine: &Mutex<Engine>, request: Request<Incoming>) -> Response<Reply> {
    let (parts, body) = request.into_parts();
    match (&parts.method, parts.uri.path()) {
        (&Method::PUT, "/loadbalancer") => match read_document(body).await {
            Ok(model) => apply(engine, Some(model)).await,
            Err((status, refusal)) => json(status, &refusal),
        },
        (&Method::PUT, "/peers") => match read(body).await {
            Ok(bytes) => set_peers(engine, &bytes).await,
            Err((status, refusal)) => json(status, &refusal),
        },
        (&Method::GET, "/peers") => json(StatusCode::OK, &engine.lock().await.peers()),
        (&Method::DELETE, "/peers") => {
            let mut engine = engine.lock().await;
            engine.clear_peers();
            json(StatusCode::OK, &engine.peers())
        }
        (&Method::DELETE, "/loadbalancer") => apply(engine, None).await,
        (&Method::GET, "/loadbalancer") => match engine.lock().await.model() {
            Some(model) => json(StatusCode::OK, &model.to_json()),
            None => json(StatusCode::NOT_FOUND, &refusal("", "there is no load balancer")),
        },
        (&Method::GET, "/stats") => json(StatusCode::OK, &engine.lock().await.stats()),
        (&Method::GET, "/info") => json(StatusCode::OK, &engine.lock().await.info()),
        (&Method::GET, "/metrics") => text(engine.lock().await.exposition()),
        (_, "/loadbalancer" | "/peers" | "/stats" | "/info" | "/metrics") => {
            json(StatusCode::METHOD_NOT_ALLOWED, &refusal("", "the method does not apply here"))
        }
        (_, path) => json(StatusCode::NOT_FOUND, &refusal("", &format!("no such resource: {path}"))),
    }
}

async fn apply(engine: &Mutex<Engine>, model: Option<LoadBalancer>) -> Response<Reply> {
    match engine.lock().await.apply(model).await {
        Ok(applied) => json(StatusCode::OK, &applied),
        Err(ApplyError::Refused(refusal)) => json(StatusCode::BAD_REQUEST, &refusal),
        Err(ApplyError::Unavailable(refusal)) => json(StatusCode::CONFLICT, &refusal),
    }
}

async fn set_peers(engine: &Mutex<Engine>, bytes: &[u8]) -> Response<Reply> {
    let config = match PeersConfig::from_json(bytes) {
        Ok(config) => config,
        Err(refusal) => return json(StatusCode::BAD_REQUEST, &refusal),
    };
    let mut engine = engine.lock().await;
    match engine.set_peers(config, false) {
        Ok(()) => json(StatusCode::OK, &engine.peers()),
        Err(refusal) => json(StatusCode::CONFLICT, &refusal),
    }
}

async fn read_document(body: Incoming) -> Result<LoadBalancer, (StatusCode, Refusal)> {
    LoadBalancer::from_json(&read(body).await?).map_err(|refusal| (StatusCode::BAD_REQUEST, refusal))
}

async fn read(body: Incoming) -> Result<Bytes, (StatusCode, Refusal)> {
    let collected = tokio::time::timeout(READ_PATIENCE, Limited::new(body, MAX_DOCUMENT).collect())
        .await
        .map_err(|_| (StatusCode::REQUEST_TIMEOUT, refusal("", "the document did not arrive in time")))?
        .map_err(|error| {
            let status = if error.is::<http_body_util::LengthLimitError>() {
                StatusCode::PAYLOAD_TOO_LARGE
            } else {
                StatusCode::BAD_REQUEST
            };
            (status, refusal("", &error.to_string()))
        })?;
    Ok(collected.to_bytes())
}

fn refusal(path: &str, reason: &str) -> Refusal {
    Refusal { faults: vec![Fault { path: path.to_owned(), reason: reason.to_owned() }] }
}

fn json(status: StatusCode, body: &impl Serialize) -> Response<Reply> {
    // The documents have string keys and finite numbers alone, so they always serialize.
    let bytes = serde_json::to_vec(body).unwrap_or_default();
    respond(status, "application/json", Reply::Whole(Some(Bytes::from(bytes))))
}

fn text(exposition: Exposition) -> Response<Reply> {
    respond(StatusCode::OK, metrics::CONTENT_TYPE, Reply::Pieces(Box::new(exposition)))
}

fn respond(status: StatusCode, kind: &'static str, body: Reply) -> Response<Reply> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// The body of an answer.
enum Reply {
    Whole(Option<Bytes>),
    Pieces(Box<Exposition>),
    Done,
}

impl Body for Reply {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        let data = match this {
            Self::Whole(bytes) => bytes.take(),
            Self::Pieces(exposition) => {
                let mut text = String::new();
                if !exposition.write_piece(&mut text, PIECE) {
                    *this = Self::Done;
                }
                Some(Bytes::from(text)).filter(|text| !text.is_empty())
            }
            Self::Done => None,
        };
        Poll::Ready(data.map(|data| Ok(Frame::data(data))))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Self::Pieces(_) => SizeHint::default(),
            Self::Done => SizeHint::with_exact(0),
        }
    }
}
