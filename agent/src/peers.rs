//! The other amphora of a pair, with which the proxy keeps session persistence alike: what is stored, and how the proxy
//! is kept at it.
//!
//! A change is written first and applied second; when the proxy refuses it, what was written is taken back. A
//! supervised proxy reads the file by itself when it starts (`--peers-file`); [`Peers::reconcile`] is for one that is
//! not supervised, and for what goes wrong in between. The key is in the file and nowhere else: it is never told.

#![expect(clippy::disallowed_types, reason = "held to copy a line, never while something is awaited")]

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use amphora_ipc::client::ControlError;
use amphora_ipc::{
    PeersConfig,
    proxy::{Peers as Status, Refusal},
};
use bytes::Bytes;
use serde::Serialize;
use tokio::sync::{Mutex as AsyncMutex, watch};

use crate::{
    amphora::detached,
    change_error::ChangeError,
    keeper::Keeper,
    proxy_client::ProxyClient,
    store::{Kept, Slot, Store},
};

/// How often the proxy is asked whether it is still the same process.
const RECONCILE_INTERVAL: Duration = Duration::from_secs(5);

/// How often what is stored is tried again while the proxy does not take it.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// What the proxy knows of the other amphora.
///
/// What changes something may be cancelled, as when whoever asked is gone: it goes on, as a task of its own. So may what only asks.
#[derive(Debug)]
pub struct Peers {
    keeper: Keeper,
    proxy: ProxyClient,
    /// `[amphora] peers_file` says who the other amphora is: it is not for a request to say.
    foreign: bool,
    state: AsyncMutex<State>,
    configured: watch::Sender<bool>,
    /// Why the proxy does not run what is stored.
    trouble: Mutex<Option<String>>,
}

#[derive(Debug)]
struct State {
    /// The proxy process that is known to have what is stored.
    converged: Option<String>,
    /// The proxy may have been told what is not stored, so it is told to forget it. Otherwise one that knows of another
    /// amphora while nothing is stored has it from its own command line, and is left alone.
    unsure: bool,
}

/// What a change has come to.
#[derive(Clone, Debug, Serialize)]
pub struct Changed {
    /// Whether something else was stored before.
    pub changed: bool,
    /// How it stands with the other amphora after it; none when no proxy ran.
    pub status: Option<Status>,
}

impl Peers {
    /// Takes up what is stored, unless a file of the operator's says who the other amphora is. Blocks on the disk.
    ///
    /// # Errors
    /// When it is there but cannot be read.
    pub fn open(store: Arc<Store>, proxy: ProxyClient, foreign: bool) -> io::Result<Arc<Self>> {
        let configured = !foreign && store.read(Kept::Peers, Slot::Current)?.is_some();
        Ok(Arc::new(Self {
            keeper: Keeper::new(store, Kept::Peers),
            proxy,
            foreign,
            state: AsyncMutex::new(State { converged: None, unsure: false }),
            configured: watch::Sender::new(configured),
            trouble: Mutex::default(),
        }))
    }

    /// How it stands with the other amphora, as the proxy says.
    ///
    /// # Errors
    /// When the proxy does not answer.
    pub async fn status(&self) -> Result<Status, ChangeError> {
        Ok(self.proxy.peers().await?)
    }

    /// Names the other amphora, and answers once the proxy listens for it.
    ///
    /// # Errors
    /// When what was before is as it was.
    pub async fn put(self: &Arc<Self>, document: Bytes) -> Result<Changed, ChangeError> {
        self.own()?;
        PeersConfig::from_json(&document).map_err(ChangeError::Invalid)?;
        let this = self.clone();
        detached(async move {
            let mut state = this.state.lock().await;
            match this.keeper.replace(document.clone(), this.proxy.set_peers(document)).await? {
                Ok((changed, status)) => {
                    this.configured.send_replace(true);
                    state.unsure = false;
                    Ok(Changed { changed, status: Some(status) })
                }
                Err(failed) => {
                    // One that did not run may have started meanwhile, and read the file.
                    if failed.has_diverged(ControlError::is_refused) {
                        this.diverged(&mut state);
                    }
                    Err(failed.into())
                }
            }
        })
        .await
    }

    /// Session persistence is kept alike with nobody any more. The same again changes nothing.
    ///
    /// # Errors
    /// When what was before is as it was.
    pub async fn delete(self: &Arc<Self>) -> Result<Changed, ChangeError> {
        self.own()?;
        let this = self.clone();
        detached(async move {
            let mut state = this.state.lock().await;
            let changed = this.is_configured();
            let status = match this.proxy.clear_peers().await {
                Ok(status) => Some(status),
                Err(error) if error.is_not_running() => None,
                Err(error) => {
                    this.diverged(&mut state);
                    return Err(error.into());
                }
            };
            let removed = this.keeper.remove().await;
            if removed.is_ok() {
                this.configured.send_replace(false);
            }
            this.diverged(&mut state);
            removed.map(|()| Changed { changed, status })
        })
        .await
    }

    /// What is wrong, in words: the proxy does not run what is stored. That the other amphora is not there is none of
    /// this one's faults.
    pub fn trouble(&self) -> Option<String> {
        self.lock_trouble().clone().filter(|_| self.is_configured())
    }

    /// Keeps the proxy at what is stored, for ever. To be woken by [`wake`](Self::wake) when a proxy was started.
    pub async fn run(self: Arc<Self>) {
        loop {
            let (trouble, pause) = match self.reconcile().await {
                Ok(()) => (None, RECONCILE_INTERVAL),
                // That is a fault of its own.
                Err(ChangeError::ProxyDown(_)) => (None, RETRY_INTERVAL),
                Err(error) => (Some(error.to_string()), RETRY_INTERVAL),
            };
            let before = std::mem::replace(&mut *self.lock_trouble(), trouble.clone());
            if trouble.is_some() && trouble != before {
                tracing::warn!(
                    error = trouble,
                    "the proxy does not keep session persistence alike as stored"
                );
            }
            self.keeper.pause(pause).await;
        }
    }

    /// Asks for a [`reconcile`](Self::reconcile) soon.
    pub fn wake(&self) {
        self.keeper.wake();
    }

    /// Waits until no change is under way, at most so long.
    pub async fn quiesce(&self, at_most: Duration) {
        self.keeper.quiesce(&self.state, at_most).await;
    }

    /// Brings the proxy to what is stored, unless this process of it is known to have that.
    ///
    /// # Errors
    /// When it is worth another try later.
    pub async fn reconcile(self: &Arc<Self>) -> Result<(), ChangeError> {
        let this = self.clone();
        detached(async move {
            let mut state = this.state.lock().await;
            if this.foreign || (!this.is_configured() && !state.unsure) {
                return Ok(());
            }
            let instance = this.proxy.info().await?.instance;
            if state.converged.as_ref() == Some(&instance) && !state.unsure {
                return Ok(());
            }
            let stored = this.keeper.read(Slot::Current).await?;
            match stored.filter(|_| this.is_configured()) {
                // What it has already stays as it is.
                Some(document) => {
                    let status = this.proxy.set_peers(document).await?;
                    tracing::info!(listen = ?status.listen, peer = ?status.peer, "the proxy has the stored peers");
                }
                None => {
                    this.proxy.clear_peers().await?;
                }
            }
            state.converged = Some(instance);
            state.unsure = false;
            Ok(())
        })
        .await
    }

    fn is_configured(&self) -> bool {
        *self.configured.borrow()
    }

    fn own(&self) -> Result<(), ChangeError> {
        if self.foreign {
            let reason = "[amphora] peers_file of this amphora's agent says which the other amphora is";
            return Err(ChangeError::Conflict(Refusal::one("peers", reason)));
        }
        Ok(())
    }

    /// The proxy may have something else than what is stored.
    fn diverged(&self, state: &mut State) {
        state.converged = None;
        state.unsure = true;
        self.wake();
    }

    fn lock_trouble(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        // Whole whenever another thread panics.
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
