//! The connections: both sides listen and connect, the first that is agreed on stays, and when both have made one they
//! keep the same one.

use std::{
    cell::{Cell, RefCell},
    io,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use amphora_ipc::proxy::PeersRejected;
use aws_lc_rs::rand;
use tokio::{
    io::Interest,
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{Notify, Semaphore},
    task::JoinSet,
};

use super::{
    PeersConfig,
    core::{Config, Counters, End, Parties, Session, Tables},
    wire::{NONCE, Refuse},
};
use crate::{net, tls::TicketKeys};

/// Connections that the peer has made, those included that have not proved anything yet.
const ACCEPTED: usize = 4;

/// Theirs, the one that is being made, the listening socket, and for a moment one that is turned away.
pub(super) const DESCRIPTORS: usize = ACCEPTED + 3;

/// How long making a connection may take.
const CONNECT: Duration = Duration::from_secs(3);

/// The pause before the next attempt to connect: doubled after each one that failed, and between half and all of it at
/// random.
const PAUSE: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(5);

/// How long to wait before listening, or accepting, is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// Bytes that are read at a time.
const READ: usize = 16 * 1024;

/// What has happened since the process started.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) counters: Counters,
    /// Connections whose sides have proved themselves.
    pub(super) connections: u64,
    pub(super) rejected: PeersRejected,
    /// Why there is no connection.
    pub(super) last_error: Option<String>,
}

/// The tasks around one peer; they end when this is dropped.
pub(super) struct Link {
    shared: Rc<Shared>,
    _tasks: JoinSet<()>,
}

struct Shared {
    config: PeersConfig,
    core: Config,
    listener: RefCell<Option<Rc<TcpListener>>>,
    tables: Rc<RefCell<Tables>>,
    tickets: Arc<TicketKeys>,
    totals: Rc<RefCell<Totals>>,
    active: RefCell<Option<Rc<Active>>>,
    /// Told when there is no connection any more; awaited by the task that connects alone.
    lost: Notify,
}

/// The connection that is in use.
struct Active {
    parties: Parties,
    version: u8,
    since: Instant,
    superseded: Cell<bool>,
    tables_changed: Cell<bool>,
    wake: Notify,
}

/// How a connection ended.
enum Ended {
    Session(End),
    Io(io::Error),
    /// Another connection has taken its place.
    Superseded,
}

/// Binds a socket for the peer. To be called within the runtime.
///
/// # Errors
/// As the system says.
pub(super) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(address)?;
    // Connections of the process before may linger.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(ACCEPTED as u32)
}

fn socket(address: SocketAddr) -> io::Result<TcpSocket> {
    if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }
}

impl Link {
    /// Starts listening and connecting. Without a listener it is bound as soon as that is possible.
    pub(super) fn start(
        config: PeersConfig,
        core: Config,
        listener: Option<Rc<TcpListener>>,
        tables: Rc<RefCell<Tables>>,
        tickets: Arc<TicketKeys>,
        totals: Rc<RefCell<Totals>>,
    ) -> Self {
        let shared = Rc::new(Shared {
            config,
            core,
            listener: RefCell::new(listener),
            tables,
            tickets,
            totals,
            active: RefCell::default(),
            lost: Notify::new(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn_local(Rc::clone(&shared).accept());
        tasks.spawn_local(Rc::clone(&shared).connect());
        Self { shared, _tasks: tasks }
    }

    pub(super) fn config(&self) -> &PeersConfig {
        &self.shared.config
    }

    /// The listener, if it is on this address.
    pub(super) fn listener_on(&self, address: SocketAddr) -> Option<Rc<TcpListener>> {
        self.shared.listener.borrow().clone().filter(|_| self.shared.config.listen == address)
    }

    /// Since when there is a connection, and in which version of the protocol.
    pub(super) fn connected(&self) -> Option<(Instant, u8)> {
        self.shared.active.borrow().as_ref().map(|active| (active.since, active.version))
    }

    pub(super) fn tables_changed(&self) {
        if let Some(active) = &*self.shared.active.borrow() {
            active.tables_changed.set(true);
            active.wake.notify_one();
        }
    }
}

impl Shared {
    async fn accept(self: Rc<Self>) {
        let places = Arc::new(Semaphore::new(ACCEPTED));
        let mut connections = JoinSet::new();
        let listener = self.listener().await;
        loop {
            while connections.try_join_next().is_some() {}
            let (stream, from) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    self.note(&format!("cannot accept the peer: {error}"));
                    tokio::time::sleep(AGAIN).await;
                    continue;
                }
            };
            if from.ip().to_canonical() != self.config.peer.ip().to_canonical() {
                self.totals.borrow_mut().rejected.address += 1;
                tracing::debug!(%from, "not the peer");
                continue;
            }
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                self.totals.borrow_mut().rejected.too_many += 1;
                continue;
            };
            let shared = Rc::clone(&self);
            connections.spawn_local(async move {
                let session = Session::accept(shared.core.clone(), nonce(), net::now());
                shared.drive(stream, session).await;
                drop(place);
            });
        }
    }

    /// The listener, bound by now.
    async fn listener(&self) -> Rc<TcpListener> {
        loop {
            if let Some(listener) = &*self.listener.borrow() {
                return Rc::clone(listener);
            }
            match listen(self.config.listen) {
                Ok(listener) => {
                    tracing::info!(listen = %self.config.listen, "listening for the peer");
                    *self.listener.borrow_mut() = Some(Rc::new(listener));
                }
                Err(error) => {
                    self.note(&format!("{}: {error}", self.config.listen));
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }

    async fn connect(self: Rc<Self>) {
        let mut pause = *PAUSE.start();
        loop {
            while self.active.borrow().is_some() {
                self.lost.notified().await;
                pause = *PAUSE.start();
            }
            // Both sides lose a connection at once, and would cross each time.
            let [byte] = random();
            tokio::time::sleep(pause / 2 + pause * u32::from(byte) / 512).await;
            if self.active.borrow().is_some() {
                continue;
            }
            pause = (2 * pause).min(*PAUSE.end());
            let attempt = tokio::time::timeout(CONNECT, self.open()).await;
            match attempt.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(stream) => {
                    let session = Session::connect(self.core.clone(), nonce(), net::now());
                    if self.drive(stream, session).await {
                        pause = *PAUSE.start();
                    }
                }
                Err(error) => self.note(&format!("{}: {error}", self.config.peer)),
            }
        }
    }

    async fn open(&self) -> io::Result<TcpStream> {
        let socket = socket(self.config.peer)?;
        if !self.config.listen.ip().is_unspecified() {
            // The peer takes connections from this address alone.
            socket.bind(SocketAddr::new(self.config.listen.ip(), 0))?;
        }
        socket.connect(self.config.peer).await
    }

    /// Carries a connection to its end; true when both sides had proved themselves.
    async fn drive(&self, stream: TcpStream, mut session: Session) -> bool {
        let mut active = None;
        let ended = self.exchange(&stream, &mut session, &mut active).await;
        if !session.output().is_empty() {
            // Why it is refused, if that fits: the peer is waited for no longer.
            let _ = stream.try_write(session.output());
        }
        self.count(&mut session);
        // Nothing is lost while there is another connection: of two that were made at once one is closed, and a stranger's
        // is refused.
        let lost = active.is_some() || self.active.borrow().is_none();
        match &ended {
            Ended::Superseded => tracing::debug!("a second connection to the peer is closed"),
            Ended::Session(end) => {
                self.reject(*end);
                if lost {
                    self.note(&end.to_string());
                }
            }
            Ended::Io(error) if lost => self.note(&format!("{}: {error}", self.config.peer)),
            Ended::Io(_) => {}
        }
        let Some(active) = active else { return false };
        let mut present = self.active.borrow_mut();
        if present.as_ref().is_some_and(|present| Rc::ptr_eq(present, &active)) {
            *present = None;
            self.lost.notify_one();
        }
        true
    }

    async fn exchange(
        &self,
        stream: &TcpStream,
        session: &mut Session,
        active: &mut Option<Rc<Active>>,
    ) -> Ended {
        let mut buffer = vec![0; READ];
        let mut exchange = async || -> Result<std::convert::Infallible, Ended> {
            stream.set_nodelay(true)?;
            let mut told = None;
            loop {
                if active.is_none() && session.parties().is_some() {
                    *active = Some(self.claim(session).ok_or(Ended::Superseded)?);
                    session.tell_all(&self.tables.borrow());
                }
                if active.is_some()
                    && let Some(secrets) = self.tickets.news(&mut told)
                {
                    session.tell_tickets(net::now(), secrets);
                }
                let waits = !session.poll_output(net::now(), &self.tables.borrow()).is_empty();
                self.count(session);
                let interest =
                    if waits { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
                let woken = async {
                    match &*active {
                        Some(active) => active.wake.notified().await,
                        None => std::future::pending().await,
                    }
                };
                // What has come is looked at before the time, in case this thread is late.
                tokio::select! {
                    biased;
                    ready = stream.ready(interest) => {
                        if ready?.is_writable() && waits && let Some(sent) = now(stream.try_write(session.output()))? {
                            session.sent(net::now(), sent);
                        }
                        match now(stream.try_read(&mut buffer))? {
                            Some(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                            Some(read) => {
                                session.handle_input(net::now(), &buffer[..read], &self.tables.borrow())?;
                                self.tickets.hear(&session.take_tickets());
                            }
                            None => {}
                        }
                        // A peer that sends without a pause does not keep this thread from its other work.
                        tokio::task::yield_now().await;
                    }
                    () = tokio::time::sleep_until(session.poll_timeout().into()) => {
                        session.handle_timeout(net::now())?;
                    }
                    () = woken => {}
                }
                if let Some(active) = &*active {
                    if active.superseded.get() {
                        return Err(Ended::Superseded);
                    }
                    if active.tables_changed.take() {
                        session.handle_tables(net::now());
                    }
                }
            }
        };
        let Err(ended) = exchange().await;
        ended
    }

    /// Puts a connection to use; `None` when the one that is in use stays.
    fn claim(&self, session: &Session) -> Option<Rc<Active>> {
        let parties = session.parties()?;
        let mut present = self.active.borrow_mut();
        if let Some(present) = &*present {
            if !present.parties.yields_to(&parties) {
                return None;
            }
            present.superseded.set(true);
            present.wake.notify_one();
        }
        let active = Rc::new(Active {
            parties,
            version: session.version(),
            since: net::now(),
            superseded: Cell::new(false),
            tables_changed: Cell::new(false),
            wake: Notify::new(),
        });
        *present = Some(Rc::clone(&active));
        let mut totals = self.totals.borrow_mut();
        totals.connections += 1;
        totals.last_error = None;
        tracing::info!(peer = %self.config.peer, instance = %parties.peer, "connected to the peer");
        Some(active)
    }

    fn count(&self, session: &mut Session) {
        let counters = session.take_counters();
        let totals = &mut self.totals.borrow_mut().counters;
        totals.entries_sent += counters.entries_sent;
        totals.entries_received += counters.entries_received;
        totals.entries_taken += counters.entries_taken;
        totals.entries_unknown += counters.entries_unknown;
        totals.full_syncs_sent += counters.full_syncs_sent;
        totals.full_syncs_received += counters.full_syncs_received;
    }

    fn reject(&self, end: End) {
        let rejected = &mut self.totals.borrow_mut().rejected;
        match end {
            End::Refused(Refuse::Key) | End::Refuse(Refuse::Key) => rejected.key += 1,
            End::Refused(Refuse::Version) | End::Refuse(Refuse::Version) => rejected.version += 1,
            End::Refused(Refuse::Oneself) | End::Refuse(Refuse::Oneself) => rejected.oneself += 1,
            End::Forged => rejected.forged += 1,
            End::Wire(_) | End::Unexpected => rejected.malformed += 1,
            End::Silent => rejected.silent += 1,
        }
    }

    /// Keeps the reason why there is no connection, and logs it once.
    fn note(&self, reason: &str) {
        let last = &mut self.totals.borrow_mut().last_error;
        if last.as_deref() != Some(reason) {
            tracing::warn!(peer = %self.config.peer, reason, "no connection to the peer");
            *last = Some(reason.to_owned());
        }
    }
}

impl From<End> for Ended {
    fn from(end: End) -> Self {
        Self::Session(end)
    }
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// What could be done at once; `None` when nothing could.
fn now<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

fn nonce() -> [u8; NONCE] {
    random()
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // aws-lc aborts the process rather than to give bytes that are not random.
    rand::fill(&mut bytes).expect("the system's random numbers");
    bytes
}
