//! The server's side of the control sockets: HTTP/1.1 on a unix socket, for a few trusted peers that may hang, crash or
//! be buggy. What a request asks for is done by the [`Service`], whatever becomes of the connection meanwhile.
//!
//! There are so many [places](crate::places) for connections. When all are taken, one more takes the place of one that keeps the
//! server waiting, and waits itself while the service works for all of them.

use std::{
    convert::Infallible,
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
use http_body_util::{BodyExt, LengthLimitError, Limited};
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
    io::{AsyncRead, AsyncWrite},
    net::UnixListener,
    sync::mpsc,
    time::Instant,
};

use crate::places::{Busy, Limits, Places, Progress, Seat, Watched};

/// Connections at once.
const PLACES: usize = 32;
/// A connection that keeps the server waiting for so long is closed.
const PATIENCE: Duration = Duration::from_secs(10);
/// A connection ends after the request that is under way when it is this old.
const LIFETIME: Duration = Duration::from_secs(60);
/// One that still reads its last answer is cut off when it is this old.
const LONGEST: Duration = Duration::from_secs(120);
/// How long accepting pauses when the system is out of resources.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Bytes of a body that means nothing, such as that of a GET.
pub(crate) const MEANINGLESS_BODY: usize = 16 * 1024;

/// What a daemon does for its peers.
pub trait Service: 'static {
    /// The largest document that may be PUT, in bytes.
    const MAX_DOCUMENT: usize;

    /// Does what is asked for. May be cancelled, because the peer is gone: a change must go on all the same.
    fn answer(&self, method: &Method, path: &str, body: Bytes) -> impl Future<Output = Answer>;

    /// The document that says why a request is refused.
    fn refuse(&self, status: StatusCode, reason: &str) -> Answer;
}

/// An answer to be sent.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// `Content-Type`.
    pub content_type: &'static str,
    /// What is in it.
    pub content: Content,
}

/// The content of an answer.
#[derive(Debug)]
pub enum Content {
    /// All of it.
    Whole(Bytes),
    /// Piece by piece, as the peer reads them. An error cuts the answer off.
    Pieces(mpsc::Receiver<io::Result<Bytes>>),
}

impl Answer {
    /// A document.
    pub fn json(status: StatusCode, document: &impl Serialize) -> Self {
        // The documents have string keys and finite numbers alone, so they always serialize.
        Self::whole(status, "application/json", serde_json::to_vec(document).unwrap_or_default())
    }

    /// Anything that is there as a whole.
    pub fn whole(status: StatusCode, content_type: &'static str, content: impl Into<Bytes>) -> Self {
        Self { status, content_type, content: Content::Whole(content.into()) }
    }
}

/// Removes the socket that a process which is gone has left.
///
/// # Errors
/// `AlreadyExists` when it is something else; else as the file system says.
#[expect(clippy::disallowed_methods, reason = "at the start, before anybody is served")]
pub fn remove_stale(path: &Path) -> io::Result<()> {
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
#[derive(Debug)]
pub struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
    _lock: fs::File,
}

impl ControlSocket {
    /// Descriptors that it takes at the most: for a moment there is one connection more than there are places.
    pub const DESCRIPTORS: usize = PLACES + 3;

    /// Binds the socket, readable and writable by the owner and the group. A stale socket of a process that is
    /// gone is replaced; one of a live process is not. `program` is what that is called.
    ///
    /// # Errors
    /// `AddrInUse` when a live process serves this path; else as the file system says.
    #[expect(clippy::disallowed_methods, reason = "at the start, before anybody is served")]
    pub fn bind(path: &Path, program: &str) -> io::Result<Self> {
        // The lock's own error would name neither the directory nor what to do about it.
        if let Some(directory) = path.parent().filter(|d| !d.as_os_str().is_empty() && !d.is_dir()) {
            let reason = format!("the directory {} is not there", directory.display());
            return Err(io::Error::new(io::ErrorKind::NotFound, reason));
        }
        let lock =
            fs::File::options().create(true).truncate(false).write(true).open(path.with_extension("lock"))?;
        lock.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => {
                let reason = format!("another {program} serves this control socket");
                io::Error::new(io::ErrorKind::AddrInUse, reason)
            }
            fs::TryLockError::Error(error) => error,
        })?;
        remove_stale(path)?;
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
        Ok(Self { listener, path: path.to_owned(), _lock: lock })
    }

    /// Serves until cancelled; connections that are there then end by themselves. To be called within a `LocalSet`.
    pub async fn serve(&self, service: impl Service) {
        let service = Rc::new(service);
        let places = Places::new(Limits { connections: PLACES, at_work: PLACES, kept_for_others: 0 });
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    // Of many connections, one of the process that has most of them gives way.
                    let process = stream.peer_cred().ok().and_then(|peer| peer.pid());
                    let seat = places.take(process.into_iter().collect()).await;
                    tokio::task::spawn_local(serve(Rc::clone(&service), stream, seat));
                }
                Err(error) => {
                    tracing::warn!(%error, "control socket");
                    // Whoever keeps the server waiting keeps a descriptor, too.
                    places.let_go_one();
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

impl Drop for ControlSocket {
    #[expect(clippy::disallowed_methods, reason = "at the end")]
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Serves one connection to its end.
pub(crate) async fn serve<S: Service>(
    service: Rc<S>,
    stream: impl AsyncRead + AsyncWrite + Unpin,
    seat: Seat<i32>,
) {
    let seat = Rc::new(seat);
    let progress = Arc::clone(seat.progress());
    let watched = Watched::new(stream, Arc::clone(&progress));
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(PATIENCE)
            // Whoever has only finished sending waits for his answer.
            .half_close(true)
            .serve_connection(
                TokioIo::new(watched),
                service_fn(|request| {
                    let (service, seat) = (Rc::clone(&service), Rc::clone(&seat));
                    async move { Ok::<_, Infallible>(respond(&*service, &seat, request).await) }
                }),
            )
    );
    let begun = Instant::now();
    let mut ending = false;
    loop {
        let stuck = Instant::now() + PATIENCE.saturating_sub(progress.waited());
        let at = stuck.min(begun + if ending { LONGEST.max(begun.elapsed() + PATIENCE) } else { LIFETIME });
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "control connection");
                }
                return;
            }
            () = progress.let_go() => {
                return tracing::debug!("control connection closed: another needs its place");
            }
            () = tokio::time::sleep_until(at) => {
                if begun.elapsed() >= LIFETIME && !ending {
                    ending = true;
                    connection.as_mut().graceful_shutdown();
                } else if is_stuck(&progress, begun) {
                    return tracing::debug!("control connection closed: its peer does not read or write");
                }
            }
        }
    }
}

fn is_stuck(progress: &Progress, begun: Instant) -> bool {
    progress.waited() >= PATIENCE || (!progress.is_worked_for() && begun.elapsed() >= LONGEST)
}

async fn respond<S: Service>(service: &S, seat: &Seat<i32>, request: Request<Incoming>) -> Response<Reply> {
    seat.receives();
    let (parts, body) = request.into_parts();
    let limit = if parts.method == Method::PUT { S::MAX_DOCUMENT } else { MEANINGLESS_BODY };
    let answer = match Limited::new(body, limit).collect().await {
        Ok(body) => match seat.work() {
            Ok(()) => service.answer(&parts.method, parts.uri.path(), body.to_bytes()).await,
            Err(Busy) => service.refuse(StatusCode::SERVICE_UNAVAILABLE, "the server is busy"),
        },
        Err(error) => {
            let too_large = error.is::<LengthLimitError>();
            let status = if too_large { StatusCode::PAYLOAD_TOO_LARGE } else { StatusCode::BAD_REQUEST };
            service.refuse(status, &error.to_string())
        }
    };
    seat.answers();
    let reply = Reply { content: Some(answer.content), progress: Arc::clone(seat.progress()) };
    let mut response = Response::new(reply);
    *response.status_mut() = answer.status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(answer.content_type));
    response
}

/// The body of an answer.
struct Reply {
    content: Option<Content>,
    progress: Arc<Progress>,
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.progress.completes();
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        if let Some(Content::Pieces(pieces)) = &mut this.content {
            return pieces.poll_recv(cx).map(|piece| Some(piece?.map(Frame::data)));
        }
        match this.content.take() {
            Some(Content::Whole(bytes)) if !bytes.is_empty() => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            _ => Poll::Ready(None),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Some(Content::Whole(bytes)) => SizeHint::with_exact(bytes.len() as u64),
            Some(Content::Pieces(_)) => SizeHint::default(),
            None => SizeHint::with_exact(0),
        }
    }
}

#[cfg(test)]
mod tests;
