//! The VRRP configuration of this amphora: what is stored, what the daemon runs, and how the two are kept the same.
//!
//! A change is written first and applied second; when the daemon refuses it, what was written is taken back. The
//! daemon reads what is stored by itself when it starts; [`Vrrp::reconcile`] is for what goes wrong in between. As with
//! the load balancer, what is stored wins.

#![expect(clippy::disallowed_types, reason = "held to copy a line, never while something is awaited")]

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use amphora_ipc::vrrp::Status;
use bytes::Bytes;
use serde::Serialize;
use tokio::sync::{Mutex as AsyncMutex, watch};

use crate::{
    amphora::detached,
    change_error::ChangeError,
    keeper::Keeper,
    store::{Kept, Slot, Staged, Store},
    vrrp_client::{VrrpAction, VrrpClient},
};

/// How often the daemon is asked whether it runs what is stored.
const RECONCILE_INTERVAL: Duration = Duration::from_secs(5);

/// How often it is asked while it did not answer, or runs something else.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// The VRRP configuration of this amphora.
///
/// What changes something may be cancelled, as when whoever asked is gone: it goes on, as a task of its own. So may what only asks.
#[derive(Debug)]
pub struct Vrrp {
    keeper: Keeper,
    daemon: VrrpClient,
    state: AsyncMutex<State>,
    configured: watch::Sender<bool>,
    /// Whether a configuration was uploaded by Octavia, which alone changes it then.
    uploaded: watch::Sender<bool>,
    /// Why the daemon does not run what is stored.
    trouble: Mutex<Option<String>>,
}

#[derive(Debug)]
struct State {
    /// What the daemon answered that it runs when it was last given what is stored.
    running: Option<Bytes>,
    /// Whether what is stored is what was asked for last: false until the start is over, so that a daemon which runs
    /// on without a stored configuration is not stopped.
    authoritative: bool,
}

/// What a change has come to.
#[derive(Clone, Debug, Serialize)]
pub struct Changed {
    /// Whether something else was stored before.
    pub changed: bool,
    /// The daemon after it; none when no daemon ran.
    pub status: Option<Status>,
}

/// What an amphora is in VRRP, all its virtual routers together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Role {
    /// Every virtual router is master.
    Master,
    /// Every virtual router is backup.
    Backup,
    /// None takes part: stopped or unfit.
    Init,
    /// Some are this and some that.
    Mixed,
}

impl Role {
    /// The role by a status; none without virtual routers.
    pub fn of(status: &Status) -> Option<Self> {
        let roles = status.instances.iter().map(|instance| match instance.state.as_str() {
            "MASTER" => Self::Master,
            "BACKUP" => Self::Backup,
            _ => Self::Init,
        });
        roles.reduce(|all, one| if all == one { all } else { Self::Mixed })
    }
}

impl Vrrp {
    /// Takes up what is stored. Blocks on the disk.
    ///
    /// # Errors
    /// When it is there but cannot be read.
    pub fn open(store: Arc<Store>, daemon: VrrpClient) -> io::Result<Arc<Self>> {
        let configured = store.read(Kept::Vrrp, Slot::Current)?.is_some();
        let uploaded = store.read_vrrp_upload()?.is_some();
        Ok(Arc::new(Self {
            keeper: Keeper::new(store, Kept::Vrrp),
            daemon,
            state: AsyncMutex::new(State { running: None, authoritative: false }),
            configured: watch::Sender::new(configured),
            uploaded: watch::Sender::new(uploaded),
            trouble: Mutex::default(),
        }))
    }

    /// The daemon.
    pub fn daemon(&self) -> &VrrpClient {
        &self.daemon
    }

    /// Whether a configuration is stored.
    pub fn is_configured(&self) -> bool {
        *self.configured.borrow()
    }

    /// The configuration as it was stored.
    ///
    /// # Errors
    /// [`ChangeError::NoVrrp`] when there is none.
    pub async fn document(self: &Arc<Self>) -> Result<Bytes, ChangeError> {
        self.keeper.read(Slot::Current).await?.ok_or(ChangeError::NoVrrp)
    }

    /// Makes a configuration run, and answers once it does.
    ///
    /// # Errors
    /// When what ran before runs on; [`ChangeError::OtherVrrpApi`] when that, or what waits for [`take_up`](Self::take_up), was
    /// uploaded.
    pub async fn put(self: &Arc<Self>, document: Bytes) -> Result<Changed, ChangeError> {
        let this = self.clone();
        detached(async move {
            let mut state = this.state.lock().await;
            if *this.uploaded.borrow() {
                return Err(ChangeError::OtherVrrpApi { path: "/1.0" });
            }
            this.replace(&mut state, document).await
        })
        .await
    }

    async fn replace(self: &Arc<Self>, state: &mut State, document: Bytes) -> Result<Changed, ChangeError> {
        match self.keeper.replace(document.clone(), self.daemon.apply(document)).await? {
            Ok((changed, status)) => {
                state.authoritative = true;
                self.configured.send_replace(true);
                self.converged(state).await;
                Ok(Changed { changed, status: Some(status) })
            }
            Err(failed) => {
                if failed.has_diverged(|error| error.is_faulty() || error.is_not_running()) {
                    self.diverged(state);
                }
                Err(failed.into())
            }
        }
    }

    /// Keeps a configuration for the next [`take_up`](Self::take_up), instead of one that was kept before.
    ///
    /// # Errors
    /// When the disk does not take it; [`ChangeError::OtherVrrpApi`] when one was [put](Self::put).
    pub async fn upload(self: &Arc<Self>, text: Bytes) -> Result<(), ChangeError> {
        let this = self.clone();
        detached(async move {
            let _state = this.state.lock().await;
            if this.is_configured() && !*this.uploaded.borrow() {
                return Err(ChangeError::OtherVrrpApi { path: "/2.0" });
            }
            this.keep_upload(Some(text)).await
        })
        .await
    }

    async fn keep_upload(&self, text: Option<Bytes>) -> Result<(), ChangeError> {
        let uploaded = text.is_some();
        self.keeper.blocking(move |store| store.write_vrrp_upload(text.as_deref())).await?;
        self.uploaded.send_replace(uploaded);
        Ok(())
    }

    /// Makes run what was [uploaded](Self::upload) last, unless it does.
    ///
    /// # Errors
    /// When what ran before runs on; [`ChangeError::NoVrrp`] when nothing was uploaded, and nothing ran.
    pub async fn take_up(self: &Arc<Self>) -> Result<(), ChangeError> {
        let this = self.clone();
        detached(async move {
            let mut state = this.state.lock().await;
            let stored = this.keeper.read(Slot::Current).await?;
            match this.keeper.blocking(Store::read_vrrp_upload).await? {
                Some(text) if stored.as_deref() != Some(&text) => {
                    this.replace(&mut state, text.into()).await.map(drop)
                }
                None if stored.is_none() => Err(ChangeError::NoVrrp),
                Some(_) | None => Ok(()),
            }
        })
        .await
    }

    /// Stops every virtual router and forgets the configuration. When no daemon runs there is nothing to stop.
    ///
    /// # Errors
    /// When it runs on.
    pub async fn delete(self: &Arc<Self>) -> Result<Changed, ChangeError> {
        let this = self.clone();
        detached(async move {
            let mut state = this.state.lock().await;
            if !this.is_configured() {
                if !*this.uploaded.borrow() {
                    return Err(ChangeError::NoVrrp);
                }
                this.keep_upload(None).await?;
                return Ok(Changed { changed: true, status: None });
            }
            let status = match this.daemon.delete().await {
                Ok(status) => Some(status),
                Err(error) if error.is_not_running() => None,
                Err(error) => {
                    this.diverged(&mut state);
                    return Err(error.into());
                }
            };
            let removed = match this.keep_upload(None).await {
                Ok(()) => this.keeper.remove().await,
                Err(error) => Err(error),
            };
            if removed.is_ok() {
                this.configured.send_replace(false);
            }
            this.diverged(&mut state);
            removed.map(|()| Changed { changed: true, status })
        })
        .await
    }

    /// Tells the daemon what to do. It is done by this process of the daemon; nothing is stored.
    /// Cancelled, it is done all the same if the daemon has got it.
    ///
    /// # Errors
    /// When it is not done.
    pub async fn act(&self, action: VrrpAction) -> Result<Status, ChangeError> {
        if !self.is_configured() {
            return Err(ChangeError::NoVrrp);
        }
        Ok(self.daemon.act(action).await?)
    }

    /// What is wrong, in words: with a configuration stored, a daemon that does not answer or does not run it, and what
    /// its virtual routers could not do.
    pub async fn troubles(&self) -> Vec<String> {
        if !self.is_configured() {
            return Vec::new();
        }
        let status = match self.daemon.status().await {
            Ok(status) => status,
            Err(error) => return vec![error.to_string()],
        };
        let errors = status.instances.iter().filter_map(|instance| {
            instance.error.as_ref().map(|error| format!("{}: {error}", instance.name))
        });
        self.trouble().clone().into_iter().chain(errors).collect()
    }

    /// Keeps the daemon at what is stored, for ever. To be woken by [`wake`](Self::wake) when a daemon was started.
    pub async fn run(self: Arc<Self>) {
        let mut told = false;
        loop {
            let error = self.reconcile().await.err().map(|error| error.to_string());
            let pause = if error.is_none() { RECONCILE_INTERVAL } else { RETRY_INTERVAL };
            let before = std::mem::replace(&mut *self.trouble(), error.clone());
            // The first time it may be a daemon that was started a moment ago.
            let lasting = error.is_some() && error == before;
            if lasting && !told {
                tracing::warn!(error, "the VRRP daemon does not run what is stored");
            }
            told = lasting;
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

    /// Brings the daemon to what is stored, unless it says that it runs that.
    ///
    /// # Errors
    /// When it is worth another try later.
    pub async fn reconcile(self: &Arc<Self>) -> Result<(), ChangeError> {
        let this = self.clone();
        detached(async move {
            let mut state = this.state.lock().await;
            let running = match this.daemon.configuration().await {
                Ok(running) => Some(running),
                Err(error) if error.is_not_found() => None,
                // On an amphora without VRRP there is no daemon.
                Err(error) if error.is_not_running() && !this.is_configured() => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            match (this.is_configured(), running) {
                (true, Some(running)) if state.running.as_ref() == Some(&running) => {}
                (true, _) => {
                    this.restore().await?;
                    this.converged(&mut state).await;
                }
                (false, Some(_)) if state.authoritative => {
                    this.daemon.delete().await?;
                }
                (false, Some(running)) => {
                    this.adopt(running.clone()).await?;
                    state.running = Some(running);
                }
                (false, None) => {}
            }
            state.authoritative = true;
            Ok(())
        })
        .await
    }

    /// Gives the daemon what is stored; what it calls faulty gives way to what was stored before.
    async fn restore(self: &Arc<Self>) -> Result<(), ChangeError> {
        let refused = match self.daemon.apply(self.document().await?).await {
            Ok(status) => {
                tracing::info!(instances = status.instances.len(), "the stored VRRP configuration runs");
                return Ok(());
            }
            Err(error) if error.is_faulty() => error,
            Err(error) => return Err(error.into()),
        };
        let previous = self.keeper.read(Slot::Previous).await?;
        let Some(previous) = previous else { return Err(refused.into()) };
        tracing::error!(%refused, "falling back to the VRRP configuration before");
        self.daemon.apply(previous).await?;
        self.keeper.unstage(Staged::Replaced).await
    }

    /// Nothing is stored, but the daemon runs a configuration: the file was lost. The address must not be.
    async fn adopt(self: &Arc<Self>, running: Bytes) -> Result<(), ChangeError> {
        let text = running.clone();
        let staged = self.keeper.stage(running).await?;
        tracing::warn!(?staged, "took over the configuration that the VRRP daemon runs: none was stored");
        self.configured.send_replace(true);
        if !is_native(&text) {
            // Nobody knows who brought it; Octavia, which brings nothing else, must be able to change it.
            self.keep_upload(Some(text)).await?;
        }
        Ok(())
    }

    /// The daemon was given what is stored: from now on another answer means that it runs something else.
    async fn converged(&self, state: &mut State) {
        state.running = self.daemon.configuration().await.ok();
    }

    /// The daemon may run something else than what is stored.
    fn diverged(&self, state: &mut State) {
        state.running = None;
        state.authoritative = true;
        self.wake();
    }

    fn trouble(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        // Whole whenever another thread panics.
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a stored configuration is the native document: keepalived.conf never begins with a brace.
pub fn is_native(document: &[u8]) -> bool {
    document.trim_ascii_start().first() == Some(&b'{')
}
