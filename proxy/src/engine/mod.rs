//! The control thread's core: an actor. One task owns what runs and takes messages; an [`Engine`] is the way to send them.
//! A change belongs to that task and not to whoever asked for it: once it is taken it goes on to its end, and the next
//! begins after it. Either all of it happens or none: parse, compile (both on a blocking thread), bind what is new, swap,
//! then let go of what is old. Whatever is asked meanwhile is answered at once, of what runs.
//!
//! | module | what is inside |
//! | --- | --- |
//! | `actor` | the task |
//! | `certificates` | the files of certificates and keys |
//! | `change` | what a change is made of |
//! | `differences` | what a change has changed, for the log |
//! | `drains` | members that drain, and when their time is over |
//! | `explain` | what a request would meet |
//! | `member_options` | what pools grant their members |
//! | `member_reports` | what there is to tell of members beyond counters |
//! | `members` | what a configuration says of the health of its members |
//! | `observation` | what runs at one moment, to be counted up on another thread |
//! | `report` | counters of all workers, summed |
//! | `watch` | what is found out by looking once a second |
//! | `pulse` | whether the workers serve |
//! | `stall` | what is made of one that does not turn |

mod actor;
mod addresses;
mod certificates;
mod change;
mod differences;
mod drains;
mod explain;
mod member_options;
mod member_reports;
mod members;
mod observation;
mod pulse;
mod report;
mod stage;
mod stall;
mod watch;

use std::{io, sync::Arc, time::Duration};

use amphora_ipc::proxy::{Applied, Checked, Peers, Refusal};
use amphora_model::LoadBalancer;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use self::actor::Actor;
pub use self::{
    certificates::CertificateDirectory,
    change::{ApplyError, Wanted},
    observation::Observation,
    pulse::{Pulse, Quiescing, Stalled},
    stall::Lateness,
};
use crate::{
    datagram::Datagrams, limits::Bounds, logs::Syslog, metrics::Scrapes, peers::PeersConfig,
    snapshot::TlsSource, worker::Command,
};

/// Changes that wait for the one under way, each with its document; who asks for more waits until one is taken.
const CHANGES: usize = 4;

/// The way to the task that owns what runs. Every copy reaches the same; when the last is gone, the task and the workers
/// end.
#[derive(Clone, Debug)]
pub struct Engine {
    changes: mpsc::Sender<Change>,
    asks: mpsc::UnboundedSender<Ask>,
    scrapes: Scrapes,
    pulse: Pulse,
}

/// A change of what runs, or what would come of it, and whom to tell.
enum Change {
    Apply { wanted: Wanted, reply: oneshot::Sender<Result<Applied, ApplyError>> },
    Check { document: Bytes, reply: oneshot::Sender<Result<Checked, ApplyError>> },
}

/// What is done at once. That nobody waits for the answer any more is no error.
enum Ask {
    Observe(oneshot::Sender<Observation>),
    Look(oneshot::Sender<bool>),
    Peers(oneshot::Sender<Peers>),
    SetPeers { config: PeersConfig, patient: bool, reply: oneshot::Sender<Result<Peers, Refusal>> },
    ClearPeers(oneshot::Sender<Peers>),
    Drain(oneshot::Sender<Vec<mpsc::UnboundedSender<Command>>>),
}

impl Engine {
    /// Starts the task and the workers, without a load balancer, within these bounds. Certificates are had from `tls`; flow logs
    /// go to `syslog`, which has a share for each worker; listeners of UDP are `datagrams`' business. To be called within a `LocalSet` on the control thread's runtime.
    ///
    /// # Errors
    /// When threads cannot be started.
    pub fn start(bounds: Bounds, tls: TlsSource, syslog: Syslog, datagrams: Datagrams) -> io::Result<Self> {
        let (changes, changes_queue) = mpsc::channel(CHANGES);
        let (asks, asks_queue) = mpsc::unbounded_channel();
        let observe = {
            // The thread that scrapes ends with the engine, and must not keep it.
            let asks = asks.downgrade();
            move || {
                let (reply, observation) = oneshot::channel();
                asks.upgrade()?.send(Ask::Observe(reply)).ok()?;
                observation.blocking_recv().ok()
            }
        };
        let (generation, scrapes) = Scrapes::start(observe)?;
        let actor = Actor::start(bounds, tls, generation, &scrapes, syslog, datagrams)?;
        let pulse = actor.pulse();
        tokio::task::spawn_local(actor.run(changes_queue, asks_queue));
        Ok(Self { changes, asks, scrapes, pulse })
    }

    /// Makes `model` live, or refuses it and changes nothing. `None` takes everything down.
    ///
    /// May be cancelled: a change that was taken goes on all the same.
    ///
    /// # Errors
    /// See [`ApplyError`].
    pub async fn apply(&self, model: Option<LoadBalancer>) -> Result<Applied, ApplyError> {
        self.change(model.map_or(Wanted::Nothing, |model| Wanted::Model(Box::new(model)))).await
    }

    /// The same with the text of a document, which is parsed where it is compiled.
    ///
    /// # Errors
    /// See [`ApplyError`].
    pub async fn apply_document(&self, document: Bytes) -> Result<Applied, ApplyError> {
        self.change(Wanted::Document(document)).await
    }

    /// What [`apply_document`](Self::apply_document) would say of a document, but for what depends on the moment, such as addresses
    /// that others hold. Nothing changes. Takes its turn among changes, for it takes as much to find out.
    ///
    /// # Errors
    /// When it would be refused.
    pub async fn check_document(&self, document: Bytes) -> Result<Checked, ApplyError> {
        self.ask_for_change(|reply| Change::Check { document, reply }).await
    }

    async fn change(&self, wanted: Wanted) -> Result<Applied, ApplyError> {
        self.ask_for_change(|reply| Change::Apply { wanted, reply }).await
    }

    async fn ask_for_change<T>(
        &self,
        change: impl FnOnce(oneshot::Sender<Result<T, ApplyError>>) -> Change,
    ) -> Result<T, ApplyError> {
        let (reply, replied) = oneshot::channel();
        self.changes.send(change(reply)).await.map_err(|_| ApplyError::stopping())?;
        replied.await.unwrap_or_else(|_| Err(ApplyError::stopping()))
    }

    async fn ask<T>(&self, ask: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Option<T> {
        let (reply, replied) = oneshot::channel();
        self.asks.send(ask(reply)).ok()?;
        replied.await.ok()
    }

    /// What runs at this moment; `None` when the engine has ended. May be cancelled.
    pub async fn observe(&self) -> Option<Observation> {
        self.ask(Ask::Observe).await
    }

    /// The load balancer that runs. May be cancelled.
    pub async fn model(&self) -> Option<Arc<LoadBalancer>> {
        self.observe().await?.model().cloned()
    }

    /// Looks at the counters, from which rates come, and says whether every worker's thread lives; to be called about once
    /// a second. `None` when the engine has ended.
    /// May be cancelled.
    pub async fn look(&self) -> Option<bool> {
        self.ask(Ask::Look).await
    }

    /// Sets the peer that session persistence is kept alike with. With `patient` an address that cannot be listened on
    /// is tried again until it can be. May be cancelled: it is done all the same.
    ///
    /// # Errors
    /// When the address cannot be listened on; nothing changed.
    pub async fn set_peers(&self, config: PeersConfig, patient: bool) -> Result<Peers, Refusal> {
        let set = self.ask(|reply| Ask::SetPeers { config, patient, reply }).await;
        set.unwrap_or_else(|| Err(ApplyError::stopping().into_refusal()))
    }

    /// Session persistence is kept alike with nobody any more. `None` when the engine has ended. May be
    /// cancelled: it is done all the same.
    pub async fn clear_peers(&self) -> Option<Peers> {
        self.ask(Ask::ClearPeers).await
    }

    /// How it stands with the peer. `None` when the engine has ended. May be cancelled.
    pub async fn peers(&self) -> Option<Peers> {
        self.ask(Ask::Peers).await
    }

    /// The text of `/metrics`, shared by all who want it within a second.
    pub fn scrapes(&self) -> &Scrapes {
        &self.scrapes
    }

    /// To look whether the workers serve without holding on to the engine.
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// Stops accepting and waits, at most `patience`, until every session has ended. True when they all did. A change that
    /// workers have been told of is live before; any other is refused from now on.
    /// May be cancelled, and called again: the workers end as they were told.
    pub async fn drain(&self, patience: Duration) -> bool {
        let ended = async {
            for worker in self.ask(Ask::Drain).await.unwrap_or_default() {
                worker.closed().await;
            }
        };
        tokio::time::timeout(patience, ended).await.is_ok()
    }
}
