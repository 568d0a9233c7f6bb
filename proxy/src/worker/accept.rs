//! Accepting connections on one socket, within the listener's `connection_limit` and the process's bound on clients.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    io,
    net::SocketAddr,
    os::fd::AsFd,
    pin::pin,
    rc::{Rc, Weak},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
    time::Instant,
};

use super::limit;
use crate::{
    limits::{Clients, rate::Taken},
    local::{LocalListener, SessionGuard, Worker},
    net, session,
    state::ListenerState,
};

/// How long accepting pauses when the process or the system is out of descriptors or memory. Trying again at
/// once would only burn the core that has to close connections.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// How long a socket that is to be closed completes handshakes that are under way: a round trip to the client.
const HANDSHAKE_GRACE: Duration = Duration::from_millis(100);

/// How much longer such a socket lives while there is no place for those who have connected to it. Who then has none is
/// reset: until its socket is closed the address cannot be served by another.
const PLACE_GRACE: Duration = Duration::from_secs(1);

/// The task that accepts on one socket.
pub(crate) struct Acceptor(Rc<Shared>);

struct Shared {
    target: RefCell<Rc<LocalListener>>,
    /// The task owns it.
    socket: Weak<TcpListener>,
    /// Its filter drops who connects.
    filtered: Cell<bool>,
    stopping: Cell<bool>,
    /// The socket is closed without waiting for handshakes that are under way.
    hasty: Cell<bool>,
    /// The socket is about to be closed: nothing calls that back.
    closed: Cell<bool>,
    kept_out: Cell<bool>,
    changed: Notify,
}

impl Shared {
    /// Keeps new clients out of the socket, or lets them in, from this moment on.
    fn filter(&self, keep_out: bool) -> io::Result<()> {
        let Some(socket) = self.socket.upgrade().filter(|_| self.filtered.get() != keep_out) else {
            return Ok(());
        };
        if keep_out { net::let_nobody_in(&*socket) } else { net::let_in_again(&*socket) }?;
        self.filtered.set(keep_out);
        Ok(())
    }

    /// As [`filter`](Self::filter), while the socket serves. A failure is told.
    fn follow(&self) {
        if let Err(error) = self.filter(self.kept_out.get()) {
            tracing::warn!(%error, "clients that connect while the VIP moves may be reset");
        }
    }
}

impl Acceptor {
    pub(super) fn start(
        worker: &Rc<Worker>,
        listener: Rc<LocalListener>,
        socket: std::net::TcpListener,
    ) -> io::Result<Self> {
        let socket = Rc::new(TcpListener::from_std(socket)?);
        let shared = Rc::new(Shared {
            target: RefCell::new(listener),
            socket: Rc::downgrade(&socket),
            filtered: Cell::new(false),
            stopping: Cell::new(false),
            hasty: Cell::new(false),
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
        self.0.follow();
    }

    /// Accepts what the kernel has completed, for `listener`, and closes the socket: another serves its address as well, and
    /// gets who connects only then. As in a reload of HAProxy, handshakes that are under way are lost.
    pub(super) fn give_way(self, listener: &Rc<LocalListener>) {
        *self.0.target.borrow_mut() = Rc::clone(listener);
        self.0.hasty.set(true);
        self.0.stopping.set(true);
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

    /// Lets clients in again, for this listener, unless the socket is closed by now or they are kept out of all. At once:
    /// whoever asked for the change may connect before the task has its turn.
    pub(super) fn revive(self, listener: &Rc<LocalListener>, keep_out: bool) -> Option<Acceptor> {
        let shared = self.0.upgrade().filter(|shared| !shared.closed.get())?;
        *shared.target.borrow_mut() = Rc::clone(listener);
        shared.stopping.set(false);
        shared.kept_out.set(keep_out);
        shared.follow();
        shared.changed.notify_one();
        Some(Acceptor(shared))
    }

    /// As [`Acceptor::give_way`]: no handshakes are waited for any more, and whoever connects before the task has its turn is
    /// let in, unless clients are kept out of all.
    pub(super) fn give_way(self, listener: &Rc<LocalListener>, keep_out: bool) {
        if let Some(acceptor) = self.revive(listener, keep_out) {
            acceptor.give_way(listener);
        }
    }
}

async fn run(worker: Rc<Worker>, shared: Rc<Shared>, socket: Rc<TcpListener>) {
    loop {
        serve(&worker, &shared, &socket).await;
        if shared.hasty.get() {
            break;
        }
        if let Err(error) = shared.filter(true) {
            // When the process ends they find nobody in any case.
            if worker.is_ending() {
                tracing::debug!(%error, "clients that connect now may be reset");
            } else {
                tracing::warn!(%error, "clients that connect now may be reset");
            }
        }
        if !wind_down(&worker, &shared, &socket).await {
            break;
        }
    }
    shared.closed.set(true);
    // Nobody else keeps it for longer than a look.
    let Some(socket) = Rc::into_inner(socket) else { return };
    let listener = shared.target.borrow().clone();
    if let Err(error) = empty(&worker, &listener, socket) {
        tracing::warn!(%error, "connections that waited may have been reset");
    }
}

/// Serves until told to stop.
async fn serve(worker: &Rc<Worker>, shared: &Shared, socket: &TcpListener) {
    loop {
        if shared.stopping.get() {
            return;
        }
        let listener = shared.target.borrow().clone();
        let accepted = tokio::select! {
            biased;
            () = shared.changed.notified() => continue,
            accepted = accept_within_limit(worker, socket, &listener) => accepted,
        };
        match accepted {
            Ok((stream, client, place)) => {
                // The listener may have been replaced while the task waited.
                let listener = shared.target.borrow().clone();
                admit(worker, listener, stream, client, place);
                if worker.clients.places.are_awaited() {
                    // The clients of other listeners are next, however many have come to this one.
                    tokio::task::yield_now().await;
                }
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
    let mut patient = true;
    loop {
        if !shared.stopping.get() {
            return true;
        }
        if shared.hasty.get() {
            return false;
        }
        let listener = shared.target.borrow().clone();
        let state = Arc::clone(listener.state());
        tokio::select! {
            biased;
            () = shared.changed.notified() => {}
            () = &mut over => {
                if !(patient && worker.clients.is_full()) {
                    return false;
                }
                patient = false;
                over.as_mut().reset(Instant::now() + PLACE_GRACE);
            }
            // Those who are here already are not bound by the listener's limit, which is gone with the listener.
            accepted = accept_within(worker, socket, &state, None) => match accepted {
                Ok((stream, client, place)) => admit(worker, listener, stream, client, place),
                Err(error) if is_exhaustion(&error) => tokio::time::sleep(EXHAUSTED_PAUSE).await,
                Err(_) => {}
            },
        }
    }
}

/// Accepts whatever the kernel has completed: a connection must not be reset for our change of configuration. The
/// runtime is not asked whether there is anything, because it would not know yet of what came since it last looked.
fn empty(worker: &Rc<Worker>, listener: &Rc<LocalListener>, socket: TcpListener) -> io::Result<()> {
    let socket = socket.into_std()?;
    let state = Arc::clone(listener.state());
    loop {
        let Ok(place) = Place::within(worker, &state, None) else {
            let mut waits = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
            return match poll(&mut waits, PollTimeout::ZERO)? {
                0 => Ok(()),
                _ => Err(io::Error::other("as many clients are there as there may be")),
            };
        };
        let (stream, client) = match socket.accept() {
            Ok(accepted) => accepted,
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => return Ok(()),
                io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => continue,
                _ => return Err(error),
            },
        };
        stream.set_nonblocking(true)?;
        admit(worker, Rc::clone(listener), TcpStream::from_std(stream)?, client, place);
    }
}

/// As [`accept_within`], within the listener's `connection_limit`.
async fn accept_within_limit(
    worker: &Worker,
    socket: &TcpListener,
    listener: &LocalListener,
) -> io::Result<(TcpStream, SocketAddr, Place)> {
    let present = listener.present();
    let plan = present.plan();
    accept_within(worker, socket, &plan.state, plan.connection_limit).await
}

/// Waits for a place and a connection, and takes the place only with the connection. The process's bound on clients holds
/// in any case, and while all are there the backlog keeps who comes; `limit` is the listener's own.
async fn accept_within(
    worker: &Worker,
    socket: &TcpListener,
    state: &Arc<ListenerState>,
    limit: Option<u32>,
) -> io::Result<(TcpStream, SocketAddr, Place)> {
    loop {
        let accepted = poll_fn(|cx| match Place::within(worker, state, limit) {
            Ok(place) => socket.poll_accept(cx).map(|accepted| Ok((accepted, place))),
            Err(full) => Poll::Ready(Err(full)),
        });
        let places = match accepted.await {
            Ok((accepted, place)) => return accepted.map(|(stream, client)| (stream, client, place)),
            Err(Full::Listener) => &state.places,
            Err(Full::Process) => &worker.clients.places,
        };
        places.freed(|| Place::within(worker, state, limit).is_ok()).await;
    }
}

/// A connection's place in the listener's count and in the process's.
pub(crate) struct Place {
    listener: Arc<ListenerState>,
    clients: Arc<Clients>,
}

/// What has no place left.
enum Full {
    Listener,
    Process,
}

impl Place {
    fn within(worker: &Worker, state: &Arc<ListenerState>, limit: Option<u32>) -> Result<Self, Full> {
        let clients = &worker.clients;
        if !state.places.take(limit) {
            return Err(Full::Listener);
        }
        if !clients.places.take(Some(clients.limit)) {
            state.places.give_back();
            return Err(Full::Process);
        }
        Ok(Self { listener: Arc::clone(state), clients: Arc::clone(clients) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.listener.places.give_back();
        self.clients.places.give_back();
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
    let turn = match limit::judge(worker, plan, client) {
        Some(Taken::Queued(turn)) => Some(turn),
        Some(taken) => {
            counters.connections_denied.add(1);
            limit::turn_away(stream, taken);
            return;
        }
        None => None,
    };
    if plan.tls.is_none() {
        counters.connections_total.add(1);
    }
    if let Some(turn) = turn {
        let open = Open::new(worker, place);
        limit::wait(worker, Rc::clone(&listener), stream, client, turn, open);
        return;
    }
    session::start(worker, Rc::clone(&listener), stream, client, Open::new(worker, place));
}

/// Keeps a connection in the gauges while it is open.
struct Open {
    place: Place,
    session: SessionGuard,
}

impl Open {
    fn new(worker: &Rc<Worker>, place: Place) -> Self {
        let state = &place.listener;
        let counters = state.counters.of(worker.index);
        counters.connections.add(1);
        counters.connections_max.max(u64::from(state.places.taken()));
        Self { place, session: worker.session() }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.place.listener.counters.of(self.session.worker().index).connections.sub(1);
    }
}

fn is_exhaustion(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}
