//! Accepting connections on one socket, within the listener's `connection_limit`.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::pin,
    rc::{Rc, Weak},
    sync::{Arc, atomic::Ordering},
    task::Poll,
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
};

use crate::{
    local::{LocalListener, Worker},
    net, session,
    state::ListenerState,
};

/// How long accepting pauses when the process or the system is out of descriptors or memory. Trying again at
/// once would only burn the core that has to close connections.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// How long a socket that is to be closed completes handshakes that are under way: a round trip to the client.
const HANDSHAKE_GRACE: Duration = Duration::from_millis(100);

/// The task that accepts on one socket.
pub(crate) struct Acceptor(Rc<Shared>);

struct Shared {
    target: RefCell<Rc<LocalListener>>,
    stopping: Cell<bool>,
    /// The socket is about to be closed: nothing calls that back.
    closed: Cell<bool>,
    kept_out: Cell<bool>,
    changed: Notify,
}

impl Acceptor {
    pub(super) fn start(
        worker: &Rc<Worker>,
        listener: Rc<LocalListener>,
        socket: std::net::TcpListener,
    ) -> io::Result<Self> {
        let socket = TcpListener::from_std(socket)?;
        let shared = Rc::new(Shared {
            target: RefCell::new(listener),
            stopping: Cell::new(false),
            closed: Cell::new(false),
            kept_out: Cell::new(false),
            changed: Notify::new(),
        });
        // Counted like a session, so that a worker does not end before what was completed has been accepted.
        let guard = worker.session();
        let accepting = run(Rc::clone(worker), Rc::clone(&shared), socket);
        tokio::task::spawn_local(async move {
            accepting.await;
            drop(guard);
        });
        Ok(Self(shared))
    }

    /// New connections belong to this listener from now on.
    pub(super) fn retarget(&self, listener: Rc<LocalListener>) {
        *self.0.target.borrow_mut() = listener;
        // The limit may have been lifted while the task waits for a place.
        self.0.changed.notify_one();
    }

    /// Keeps new clients out of the socket, which stays, or lets them in again. Who connects while they are kept out hears
    /// nothing and asks again after a second.
    pub(super) fn keep_out(&self, keep_out: bool) {
        self.0.kept_out.set(keep_out);
        self.0.changed.notify_one();
    }

    /// Accepts what the kernel completes within [`HANDSHAKE_GRACE`], then closes the socket.
    pub(super) fn stop(self) -> Stopping {
        self.0.stopping.set(true);
        self.0.changed.notify_one();
        Stopping(Rc::downgrade(&self.0))
    }
}

/// An acceptor that was told to stop.
pub(crate) struct Stopping(Weak<Shared>);

impl Stopping {
    /// Whether its socket is not closed yet.
    pub(super) fn is_open(&self) -> bool {
        self.0.upgrade().is_some_and(|shared| !shared.closed.get())
    }

    /// Lets clients in again, for this listener, unless the socket is closed by now.
    pub(super) fn revive(self, listener: &Rc<LocalListener>) -> Option<Acceptor> {
        let shared = self.0.upgrade().filter(|shared| !shared.closed.get())?;
        *shared.target.borrow_mut() = Rc::clone(listener);
        shared.stopping.set(false);
        shared.changed.notify_one();
        Some(Acceptor(shared))
    }
}

async fn run(worker: Rc<Worker>, shared: Rc<Shared>, socket: TcpListener) {
    let mut kept_out = false;
    loop {
        serve(&worker, &shared, &socket, kept_out).await;
        kept_out = match net::let_nobody_in(&socket) {
            Ok(()) => true,
            Err(error) => {
                // When the process ends they find nobody in any case.
                if worker.is_ending() {
                    tracing::debug!(%error, "clients that connect now may be reset");
                } else {
                    tracing::warn!(%error, "clients that connect now may be reset");
                }
                false
            }
        };
        if !wind_down(&worker, &shared, &socket).await {
            break;
        }
    }
    shared.closed.set(true);
    let listener = shared.target.borrow().clone();
    if let Err(error) = empty(&worker, &listener, socket) {
        tracing::warn!(%error, "connections that waited may have been reset");
    }
}

/// Serves until told to stop. `kept_out` says whether new clients are, to begin with.
async fn serve(worker: &Rc<Worker>, shared: &Shared, socket: &TcpListener, mut kept_out: bool) {
    loop {
        if shared.stopping.get() {
            return;
        }
        if shared.kept_out.get() != kept_out {
            kept_out = !kept_out;
            let done = if kept_out { net::let_nobody_in(socket) } else { net::let_in_again(socket) };
            if let Err(error) = done {
                tracing::warn!(%error, "clients that connect while the VIP moves may be reset");
            }
        }
        let listener = shared.target.borrow().clone();
        let accepted = tokio::select! {
            biased;
            () = shared.changed.notified() => continue,
            accepted = accept_within_limit(socket, &listener) => accepted,
        };
        match accepted {
            Ok((stream, client, place)) => {
                // The listener may have been replaced while the task waited.
                let listener = shared.target.borrow().clone();
                admit(worker, listener, stream, client, place);
            }
            Err(error) if is_exhaustion(&error) => {
                tracing::warn!(%error, "accepting pauses");
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
            }
            // The client was gone before it was accepted.
            Err(_) => {}
        }
    }
}

/// Accepts what is under way for [`HANDSHAKE_GRACE`]; true when the address is served again.
async fn wind_down(worker: &Rc<Worker>, shared: &Shared, socket: &TcpListener) -> bool {
    let over = tokio::time::sleep(HANDSHAKE_GRACE);
    let mut over = pin!(over);
    loop {
        if !shared.stopping.get() {
            return true;
        }
        tokio::select! {
            biased;
            () = shared.changed.notified() => {}
            () = &mut over => return false,
            accepted = socket.accept() => if let Ok((stream, client)) = accepted {
                let listener = shared.target.borrow().clone();
                let place = Place::take(&listener.present().plan().state);
                admit(worker, listener, stream, client, place);
            }
        }
    }
}

/// Accepts whatever the kernel has completed: a connection must not be reset for our change of configuration. The
/// runtime is not asked whether there is anything, because it would not know yet of what came since it last looked.
fn empty(worker: &Rc<Worker>, listener: &Rc<LocalListener>, socket: TcpListener) -> io::Result<()> {
    let socket = socket.into_std()?;
    loop {
        let (stream, client) = match socket.accept() {
            Ok(accepted) => accepted,
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => return Ok(()),
                io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => continue,
                _ => return Err(error),
            },
        };
        stream.set_nonblocking(true)?;
        let place = Place::take(&listener.present().plan().state);
        admit(worker, Rc::clone(listener), TcpStream::from_std(stream)?, client, place);
    }
}

/// Waits for a place within the limit and a connection, and takes the place only with the connection.
async fn accept_within_limit(
    socket: &TcpListener,
    listener: &LocalListener,
) -> io::Result<(TcpStream, SocketAddr, Place)> {
    let present = listener.present();
    let plan = present.plan();
    let state = &plan.state;
    loop {
        let accepted = poll_fn(|cx| match Place::within(state, plan.connection_limit) {
            Some(place) => socket.poll_accept(cx).map(|accepted| Some((accepted, place))),
            None => Poll::Ready(None),
        });
        if let Some((accepted, place)) = accepted.await {
            return accepted.map(|(stream, client)| (stream, client, place));
        }
        let waiting = Waiting::new(state);
        let mut freed = pin!(state.place_freed.notified());
        // Registered before the count is looked at once more, so that no place is freed unseen.
        freed.as_mut().enable();
        if Place::within(state, plan.connection_limit).is_none() {
            freed.await;
        }
        drop(waiting);
    }
}

/// A connection's place in the listener's count.
pub(crate) struct Place(Arc<ListenerState>);

impl Place {
    fn take(state: &Arc<ListenerState>) -> Self {
        state.connections.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(state))
    }

    fn within(state: &Arc<ListenerState>, limit: Option<u32>) -> Option<Self> {
        let Some(limit) = limit else { return Some(Self::take(state)) };
        let below = |count| (count < limit).then_some(count + 1);
        state.connections.fetch_update(Ordering::SeqCst, Ordering::SeqCst, below).ok()?;
        Some(Self(Arc::clone(state)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::SeqCst);
        // The notification takes a lock, so it is for listeners at their limit alone.
        if self.0.waiting.load(Ordering::SeqCst) > 0 {
            self.0.place_freed.notify_waiters();
        }
    }
}

/// An acceptor that found its listener at the limit.
struct Waiting<'a>(&'a ListenerState);

impl<'a> Waiting<'a> {
    fn new(state: &'a ListenerState) -> Self {
        state.waiting.fetch_add(1, Ordering::SeqCst);
        Self(state)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

fn admit(
    worker: &Rc<Worker>,
    listener: Rc<LocalListener>,
    stream: TcpStream,
    client: SocketAddr,
    place: Place,
) {
    let present = listener.present();
    let plan = present.plan();
    let counters = plan.state.counters.of(worker.index);
    if !plan.access.allows(client.ip()) {
        counters.connections_denied.add(1);
        return;
    }
    counters.connections_total.add(1);
    let guard = worker.session();
    let worker = Rc::clone(worker);
    tokio::task::spawn_local(async move {
        let _guard = guard;
        let open = Open::new(&listener, worker.index, place);
        session::run(&worker, listener, stream, client).await;
        drop(open);
    });
}

/// Keeps a connection in the gauges while it is open.
struct Open {
    state: Arc<ListenerState>,
    worker: usize,
    _place: Place,
}

impl Open {
    fn new(listener: &LocalListener, worker: usize, place: Place) -> Self {
        let state = Arc::clone(&listener.present().plan().state);
        let counters = state.counters.of(worker);
        counters.connections.add(1);
        counters.connections_max.max(u64::from(state.connections.load(Ordering::Relaxed)));
        Self { state, worker, _place: place }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.state.counters.of(self.worker).connections.sub(1);
    }
}

fn is_exhaustion(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}
