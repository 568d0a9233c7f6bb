//! The control socket; see [`super::api`] for what is said on it.

use std::{
    convert::Infallible,
    fs, io,
    os::unix::fs::{FileTypeExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::{
    net::UnixListener,
    sync::{Semaphore, mpsc, oneshot},
};

use super::{
    api::{Fault, Refusal, Status},
    metrics,
};
use crate::config::{self, Config};

/// The largest configuration.
const MAX_CONFIG: usize = 1024 * 1024;
/// Connections served at once; more wait in the socket's queue.
const MAX_CONNECTIONS: usize = 16;
/// A request must be complete within this time, an idle connection is closed after it.
const READ_PATIENCE: Duration = Duration::from_secs(10);
/// How long a connection lives.
const LIFETIME: Duration = Duration::from_secs(60);
/// How long accepting pauses when the system is out of resources.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the daemon is asked for over the socket.
#[derive(Debug)]
pub(crate) enum Command {
    /// How it stands.
    Status,
    /// What it runs.
    Config,
    /// Run this from now on; nothing if `None`.
    Configure(Option<Config>),
    /// Take part, or not.
    Start(bool),
    /// Let the peer take over.
    HandOver,
    /// Take places by priority again.
    Resume,
}

/// What the daemon says to a [`Command`].
#[derive(Debug)]
pub(crate) enum Reply {
    Status(Box<Status>),
    Config(Option<Config>),
    Refused(Refusal),
}

/// A command and where its reply goes.
pub(crate) type Asked = (Command, oneshot::Sender<Reply>);

/// The control socket of one process. Removed from the file system when dropped.
pub(crate) struct ControlSocket {
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
    pub(crate) fn bind(path: &Path) -> io::Result<Self> {
        let lock =
            fs::File::options().create(true).truncate(false).write(true).open(path.with_extension("lock"))?;
        lock.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => {
                io::Error::new(io::ErrorKind::AddrInUse, "another daemon serves this control socket")
            }
            fs::TryLockError::Error(error) => error,
        })?;
        match fs::symlink_metadata(path) {
            // Whatever else is there was not left by a daemon.
            Ok(there) if !there.file_type().is_socket() => {
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, "what is there is no socket"));
            }
            Ok(_) => fs::remove_file(path)?,
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Err(_) => {}
        }
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
        Ok(Self { listener, path: path.to_owned(), _lock: lock })
    }

    /// Serves until dropped. To be called within a `LocalSet`.
    pub(crate) async fn serve(&self, commands: mpsc::Sender<Asked>) {
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
            let commands = commands.clone();
            tokio::task::spawn_local(async move {
                let service = service_fn(move |request| {
                    let commands = commands.clone();
                    async move { Ok::<_, Infallible>(answer(&commands, request).await) }
                });
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(READ_PATIENCE)
                    .serve_connection(TokioIo::new(stream), service);
                match tokio::time::timeout(LIFETIME, connection).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::debug!(%error, "control connection"),
                    Err(_) => tracing::debug!("control connection closed: it is too old"),
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

async fn answer(commands: &mpsc::Sender<Asked>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (parts, body) = request.into_parts();
    let command = match (&parts.method, parts.uri.path()) {
        (&Method::GET, "/status" | "/metrics") => Command::Status,
        (&Method::GET, "/config") => Command::Config,
        (&Method::PUT, "/config") => match read_config(body).await {
            Ok(config) => Command::Configure(Some(config)),
            Err((status, refusal)) => return json(status, &refusal),
        },
        (&Method::DELETE, "/config") => Command::Configure(None),
        (&Method::POST, "/start") => Command::Start(true),
        (&Method::POST, "/stop") => Command::Start(false),
        (&Method::POST, "/hand-over") => Command::HandOver,
        (&Method::POST, "/resume") => Command::Resume,
        (_, "/status" | "/metrics" | "/config" | "/start" | "/stop" | "/hand-over" | "/resume") => {
            return json(StatusCode::METHOD_NOT_ALLOWED, &Refusal::of("the method does not apply here"));
        }
        (_, path) => {
            return json(StatusCode::NOT_FOUND, &Refusal::of(format!("no such resource: {path}")));
        }
    };
    let (reply, replied) = oneshot::channel();
    let replied = match commands.send((command, reply)).await {
        Ok(()) => replied.await.ok(),
        Err(_) => None,
    };
    match replied {
        Some(Reply::Status(status)) if parts.uri.path() == "/metrics" => {
            respond(StatusCode::OK, metrics::CONTENT_TYPE, metrics::text(&status))
        }
        Some(Reply::Status(status)) => json(StatusCode::OK, &status),
        Some(Reply::Config(Some(config))) => {
            respond(StatusCode::OK, "application/json", config::native::to_json(&config))
        }
        Some(Reply::Config(None)) => json(StatusCode::NOT_FOUND, &Refusal::of("there is no configuration")),
        Some(Reply::Refused(refusal)) => json(StatusCode::CONFLICT, &refusal),
        None => json(StatusCode::SERVICE_UNAVAILABLE, &Refusal::of("the daemon stops")),
    }
}

async fn read_config(body: Incoming) -> Result<Config, (StatusCode, Refusal)> {
    let bytes = tokio::time::timeout(READ_PATIENCE, Limited::new(body, MAX_CONFIG).collect())
        .await
        .map_err(|_| (StatusCode::REQUEST_TIMEOUT, Refusal::of("the document did not arrive in time")))?
        .map_err(|error| {
            let too_large = error.is::<http_body_util::LengthLimitError>();
            let status = if too_large { StatusCode::PAYLOAD_TOO_LARGE } else { StatusCode::BAD_REQUEST };
            (status, Refusal::of(error.to_string()))
        })?
        .to_bytes();
    let bad = |refusal| (StatusCode::BAD_REQUEST, refusal);
    let text = std::str::from_utf8(&bytes).map_err(|_| bad(Refusal::of("the document is not UTF-8")))?;
    config::parse(text).map_err(|faults| bad(refusal(faults)))
}

fn refusal(faults: Vec<config::Invalid>) -> Refusal {
    let faults = faults.into_iter().map(|fault| Fault { place: fault.place, reason: fault.reason });
    Refusal { faults: faults.collect() }
}

fn json(status: StatusCode, body: &impl Serialize) -> Response<Full<Bytes>> {
    // The documents have string keys and finite numbers alone, so they always serialize.
    respond(status, "application/json", serde_json::to_vec(body).unwrap_or_default())
}

fn respond(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
