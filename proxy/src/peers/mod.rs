//! Tables of session persistence that are kept alike on both amphorae of a pair, so that clients keep their
//! member when the other one takes over: what HAProxy's `peers` section does. And the secrets of session tickets, so that clients
//! resume their TLS sessions there.
//!
//! | module | what is inside |
//! | --- | --- |
//! | [`core`] | one connection without I/O: what is told, what is taken, when it ends |
//! | [`wire`] | the messages, byte by byte |
//! | `auth` | keys and MACs |
//! | `link` | connections: who makes them, which one stays |
//!
//! All of it happens on the control thread. Workers set a mark beside an entry that they have written
//! ([`crate::persist::StickTable`]); they wait for nothing and send nothing.

mod auth;
pub mod core;
mod link;
pub mod wire;

use std::{
    cell::RefCell,
    io,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use amphora_ipc::proxy::{self, PeersState};
use amphora_model::PoolId;
use uuid::Uuid;

use self::{
    core::Tables,
    link::{Link, Totals},
};
use crate::{persist::PersistState, tls::TicketKeys};
pub use amphora_ipc::PeersConfig;

/// The peer of this process, if it has one.
pub struct Peers {
    instance: Uuid,
    epoch: Instant,
    tables: Rc<RefCell<Tables>>,
    tickets: Arc<TicketKeys>,
    totals: Rc<RefCell<Totals>>,
    link: Option<Link>,
}

impl Peers {
    /// Descriptors that it takes at the most.
    pub const DESCRIPTORS: usize = link::DESCRIPTORS;

    /// No peer. `instance` differs each time the process starts, `epoch` is where the workers' clock began.
    pub fn new(instance: Uuid, epoch: Instant) -> Self {
        let (tables, tickets, totals) = (Rc::default(), TicketKeys::new(), Rc::default());
        Self { instance, epoch, tables, tickets, totals, link: None }
    }

    /// Sessions that began here are resumed on the peer from then on, and its own here: the secrets of their tickets are exchanged.
    /// To be called before there is a peer.
    #[must_use]
    pub fn with_tickets(self, tickets: Arc<TicketKeys>) -> Self {
        Self { tickets, ..self }
    }

    /// Whether there is a peer.
    pub fn is_configured(&self) -> bool {
        self.link.is_some()
    }

    /// Sets the peer; what is as before goes on. To be called within a `LocalSet`; the tables have to be
    /// [given](Self::set_tables) afterwards.
    ///
    /// # Errors
    /// When the address cannot be listened on: then nothing has changed. With `patient` that is no error: it is tried
    /// again until it can be.
    pub fn set(&mut self, config: PeersConfig, patient: bool) -> io::Result<()> {
        let before = self.link.as_ref();
        if before.is_some_and(|link| *link.config() == config) {
            return Ok(());
        }
        let kept = before.and_then(|link| link.listener_on(config.listen));
        let mut trouble = None;
        let listener = match kept.map_or_else(|| link::listen(config.listen).map(Rc::new), Ok) {
            Ok(listener) => Some(listener),
            Err(error) if patient => {
                tracing::warn!(listen = %config.listen, %error, "cannot listen for the peer yet");
                trouble = Some(format!("{}: {error}", config.listen));
                None
            }
            Err(error) => return Err(error),
        };
        tracing::info!(listen = %config.listen, peer = %config.peer, "session persistence is kept alike with the peer");
        // What runs is ended first, so that its end is not taken for that of the new one.
        self.link = None;
        self.totals.borrow_mut().last_error = trouble;
        let core = core::Config { key: config.key.clone(), instance: self.instance, epoch: self.epoch };
        let (tables, totals) = (Rc::clone(&self.tables), Rc::clone(&self.totals));
        self.link = Some(Link::start(config, core, listener, tables, Arc::clone(&self.tickets), totals));
        Ok(())
    }

    /// There is no peer any more.
    pub fn clear(&mut self) {
        self.link = None;
        self.tables.borrow_mut().end();
        self.totals.borrow_mut().last_error = None;
    }

    /// Sets the tables; costs nothing while there is no peer.
    pub fn set_tables(&mut self, states: impl IntoIterator<Item = (PoolId, Arc<PersistState>)>) {
        if let Some(link) = &self.link {
            self.tables.borrow_mut().set(states);
            link.tables_changed();
        }
    }

    /// How it stands.
    pub fn report(&self) -> proxy::Peers {
        let totals = self.totals.borrow();
        let mut report = proxy::Peers {
            tables: self.tables.borrow().len(),
            connections: totals.connections,
            entries_sent: totals.counters.entries_sent,
            entries_received: totals.counters.entries_received,
            entries_taken: totals.counters.entries_taken,
            entries_unknown: totals.counters.entries_unknown,
            full_syncs_sent: totals.counters.full_syncs_sent,
            full_syncs_received: totals.counters.full_syncs_received,
            rejected: totals.rejected,
            last_error: totals.last_error.clone(),
            ..proxy::Peers::default()
        };
        if let Some(link) = &self.link {
            report.state = PeersState::Disconnected;
            report.listen = Some(link.config().listen);
            report.peer = Some(link.config().peer);
            if let Some((since, version)) = link.connected() {
                report.state = PeersState::Connected;
                report.connected_ms = Some(millis(since.elapsed()));
                report.version = Some(version);
            }
        }
        report
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
