//! The VRRP configuration of this amphora: what is stored, what the daemon runs, and how the two are kept the same.
//!
//! A change is written first and applied second; when the daemon refuses it, what was written is taken back. The
//! daemon reads what is stored by itself when it starts; [`Vrrp::reconcile`] is for what goes wrong in between. As with
//! the load balancer, what is stored wins.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use amphora_vrrp::control::api::Status;
use bytes::Bytes;
use serde::Serialize;
use tokio::{
    sync::{Mutex as AsyncMutex, Notify, watch},
    time::{sleep, timeout},
};

use crate::{
    amphora::{ChangeError, blocking, detached},
    store::{Kept, Slot, Staged, Store},
    vrrp_client::{VrrpAction, VrrpClient, VrrpError},
};

/// How often the daemon is asked whether it runs what is stored.
const RECONCILE_INTERVAL: Duration = Duration::from_secs(5);

/// How often it is asked while it did not answer, or runs something else.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// The VRRP configuration of this amphora.
#[derive(Debug)]
pub struct Vrrp {
    store: Arc<Store>,
    daemon: VrrpClient,
    state: AsyncMutex<State>,
    configured: watch::Sender<bool>,
    /// Why the daemon does not run what is stored.
    trouble: Mutex<Option<String>>,
    wake: Notify,
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
        Ok(Arc::new(Self {
            store,
            daemon,
            state: AsyncMutex::new(State { running: None, authoritative: false }),
            configured: watch::Sender::new(configured),
            trouble: Mutex::default(),
            wake: Notify::new(),
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
        let this = self.clone();
        let document = blocking(move || this.store.read(Kept::Vrrp, Slot::Current)).await?;
        document.map(Bytes::from).ok_or(ChangeError::NoVrrp)
    }

    /// Makes a configuration run, and answers once it does.
    ///
    /// # Errors
    /// When what ran before runs on.
    pub async fn put(self: &Arc<Self>, document: Bytes) -> Result<Changed, ChangeError> {
        let this = self.clone();
        detached(async move {
            let mut state = this.state.lock().await;
            let (store, text) = (this.clone(), document.clone());
            let staged = blocking(move || store.store.stage(Kept::Vrrp, &text)).await?;
            match this.daemon.apply(document).await {
                Ok(status) => {
                    state.authoritative = true;
                    this.configured.send_replace(true);
                    this.converged(&mut state).await;
                    Ok(Changed { changed: staged != Staged::Unchanged, status: Some(status) })
                }
                Err(error) => {
                    let store = this.clone();
                    let unstaged = blocking(move || store.store.unstage(Kept::Vrrp, staged)).await;
                    let untouched = matches!(error, VrrpError::Invalid(_) | VrrpError::NotRunning(_));
                    if !untouched || unstaged.is_err() {
                        this.diverged(&mut state);
                    }
                    unstaged?;
                    Err(error.into())
                }
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
                return Err(ChangeError::NoVrrp);
            }
            let status = match this.daemon.delete().await {
                Ok(status) => Some(status),
                Err(VrrpError::NotRunning(_)) => None,
                Err(error) => {
                    this.diverged(&mut state);
                    return Err(error.into());
                }
            };
            let store = this.clone();
            let removed = blocking(move || store.store.remove(Kept::Vrrp)).await;
            if removed.is_ok() {
                this.configured.send_replace(false);
            }
            this.diverged(&mut state);
            removed.map(|()| Changed { changed: true, status })
        })
        .await
    }

    /// Tells the daemon what to do. It is done by this process of the daemon; nothing is stored.
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
            tokio::select! {
                () = sleep(pause) => {}
                () = self.wake.notified() => {}
            }
        }
    }

    /// Asks for a [`reconcile`](Self::reconcile) soon.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Waits until no change is under way, at most so long.
    pub async fn quiesce(&self, at_most: Duration) {
        if timeout(at_most, self.state.lock()).await.is_err() {
            tracing::warn!("a change of VRRP was still under way at the end of drain_timeout");
        }
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
                Err(VrrpError::NotFound) => None,
                // On an amphora without VRRP there is no daemon.
                Err(VrrpError::NotRunning(_)) if !this.is_configured() => return Ok(()),
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
            Err(error @ VrrpError::Invalid(_)) => error,
            Err(error) => return Err(error.into()),
        };
        let this = self.clone();
        let previous = blocking(move || this.store.read(Kept::Vrrp, Slot::Previous)).await?;
        let Some(previous) = previous else { return Err(refused.into()) };
        tracing::error!(%refused, "falling back to the VRRP configuration before");
        self.daemon.apply(previous.into()).await?;
        let this = self.clone();
        blocking(move || this.store.unstage(Kept::Vrrp, Staged::Replaced)).await
    }

    /// Nothing is stored, but the daemon runs a configuration: the file was lost. The address must not be.
    async fn adopt(self: &Arc<Self>, running: Bytes) -> Result<(), ChangeError> {
        let this = self.clone();
        let staged = blocking(move || this.store.stage(Kept::Vrrp, &running)).await?;
        tracing::warn!(?staged, "took over the configuration that the VRRP daemon runs: none was stored");
        self.configured.send_replace(true);
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
