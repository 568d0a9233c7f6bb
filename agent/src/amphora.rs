//! The load balancer of this amphora: what is stored, what runs, and how the two are kept the same.
//!
//! A change is written first and applied second; when the proxy refuses it, what was written is taken back. One
//! change at a time. A change goes on to its end even when the request that asked for it is gone.
//!
//! [`Amphora::reconcile`] is for everything that goes wrong in between: a proxy that restarted, one that was too
//! slow to say whether it took a document, an agent that was killed half-way. What is stored wins.

mod certificates;
mod octavia;
mod settle;

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use amphora_ipc::proxy::{Applied, Fault, Info, Refusal};
use amphora_model::{CertificateId, LoadBalancer, LoadBalancerId, MemberId, MemberUpdate, PoolId};
use bytes::Bytes;
use tokio::{
    sync::{Mutex, watch},
    task::spawn_blocking,
    time::Instant,
};
use zeroize::Zeroize;

use crate::{
    change_error::ChangeError,
    document,
    heartbeat::{mark, size},
    keeper::Keeper,
    proxy_client::ProxyClient,
    store::{Kept, Slot, Staged, Store},
};

use self::{certificates::Certificates, octavia::Text, settle::Verdict};
pub use self::{
    certificates::{CertificateChanged, CertificateStatus},
    octavia::{Listed, Started, Unserved},
};

/// Certificates that were staged, with what is left to do.
type Unsettled = BTreeMap<CertificateId, Verdict>;

/// How often the proxy is asked whether it is still the same process.
const RECONCILE_INTERVAL: Duration = Duration::from_secs(5);

/// How often it is asked while it did not answer, or runs something else than what is stored.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// How long a proxy may take to answer at the start of the agent, or after its own, before it is spoken of.
const START_PATIENCE: Duration = Duration::from_secs(3);

/// The load balancer as it was stored last.
#[derive(Clone, Debug, Default)]
pub struct Present {
    /// What it says.
    pub model: Option<Arc<LoadBalancer>>,
    /// What heartbeats call its document, where it is one that was put whole.
    pub mark: Option<Arc<str>>,
}

impl Present {
    /// A document that was put, and what it says.
    fn document(model: LoadBalancer, document: &[u8]) -> Self {
        Self { model: Some(Arc::new(model)), mark: Some(mark(document).into()) }
    }
}

/// The load balancer of this amphora.
///
/// What changes something may be cancelled, as when whoever asked is gone: it goes on, as a task of its own. So may what only asks.
#[derive(Debug)]
pub struct Amphora {
    store: Arc<Store>,
    proxy: ProxyClient,
    state: Mutex<State>,
    model: watch::Sender<Present>,
    /// Changed under the state's lock alone, and looked at without: whoever asks does not wait for a change.
    certificates: watch::Sender<Certificates>,
    /// What Octavia's controller has uploaded, likewise: the load balancer is its own while there is one.
    text: watch::Sender<Option<Text>>,
    keeper: Keeper,
    /// Whether a document whose heartbeats do not fit a datagram is refused.
    must_fit: AtomicBool,
}

#[derive(Debug)]
struct State {
    /// The proxy process, and the generation of its configuration in which it runs what is stored. Any other may be
    /// anybody's doing: that of a change which came about late, for one.
    converged: Option<Converged>,
    /// Whether what is stored is what was asked for last: false until the start is over, so that a proxy which
    /// runs on without a stored document is not stopped.
    authoritative: bool,
    unsettled: Unsettled,
}

#[derive(Debug)]
struct Converged {
    instance: String,
    generation: u64,
}

impl State {
    /// Whether this is known to be what is stored.
    fn is_converged(&self, info: &Info) -> bool {
        let converged = self.converged.as_ref();
        converged.is_some_and(|known| known.instance == info.instance && known.generation == info.generation)
    }
}

impl Amphora {
    /// Takes up what is stored. Blocks on the disk.
    ///
    /// # Errors
    /// When a document is there but cannot be read.
    pub fn open(store: Arc<Store>, proxy: ProxyClient) -> io::Result<Arc<Self>> {
        let (certificates, text) = (Certificates::read(&store)?, Text::read(&store)?);
        let mut model = Present::default();
        for slot in [Slot::Current, Slot::Previous] {
            let Some(document) = store.read(Kept::LoadBalancer, slot)? else { continue };
            match document::parse(&document) {
                Ok(parsed) => {
                    if slot == Slot::Previous {
                        store.unstage(Kept::LoadBalancer, Staged::Replaced)?;
                    }
                    if octavia::is_of_parts(&parsed) {
                        octavia::reserve(&store, document.len());
                    }
                    model = Present::document(parsed, &document);
                    model.mark = model.mark.filter(|_| text.is_none());
                    break;
                }
                Err(refusal) => {
                    tracing::error!(?slot, faults = ?refusal.faults, "a stored document is not usable");
                }
            }
        }
        let (certificates, text) = (watch::Sender::new(certificates), watch::Sender::new(text));
        let state = State { converged: None, authoritative: false, unsettled: Self::left_open(&store)? };
        let model = watch::Sender::new(model);
        let keeper = Keeper::new(store.clone(), Kept::LoadBalancer);
        let must_fit = AtomicBool::new(false);
        let state = Mutex::new(state);
        Ok(Arc::new(Self { store, proxy, state, model, certificates, text, keeper, must_fit }))
    }

    /// Says whether heartbeats are sent, so that what they could not tell of is refused from now on.
    pub fn must_fit_heartbeats(&self, must: bool) {
        self.must_fit.store(must, Ordering::Relaxed);
    }

    /// The proxy.
    pub fn proxy(&self) -> &ProxyClient {
        &self.proxy
    }

    /// The load balancer as it was stored last.
    pub fn model(&self) -> Option<Arc<LoadBalancer>> {
        self.model.borrow().model.clone()
    }

    /// The load balancer as it was stored last, and each one after it, once the proxy runs it.
    pub fn models(&self) -> watch::Receiver<Present> {
        self.model.subscribe()
    }

    /// The document as it was stored.
    ///
    /// # Errors
    /// [`ChangeError::NoLoadBalancer`] when it is not this one that is stored.
    pub async fn document(self: &Arc<Self>, id: LoadBalancerId) -> Result<Bytes, ChangeError> {
        self.expect(id)?;
        self.keeper.read(Slot::Current).await?.ok_or(ChangeError::NoLoadBalancer)
    }

    /// What is wrong with the disk, in words.
    pub async fn disk_troubles(self: &Arc<Self>) -> Vec<String> {
        let this = self.clone();
        spawn_blocking(move || this.store.troubles()).await.unwrap_or_else(|error| vec![error.to_string()])
    }

    /// Makes a document run, and answers once it does.
    ///
    /// # Errors
    /// When what ran before runs on.
    pub async fn put(self: &Arc<Self>, id: LoadBalancerId, document: Bytes) -> Result<Applied, ChangeError> {
        let text = document.clone();
        let must_fit = self.must_fit.load(Ordering::Relaxed);
        let parse = move || {
            let model = document::parse(&text)?;
            if must_fit && let Err(reason) = size::fits(&model, &[]) {
                let path = "loadbalancer.pools".to_owned();
                return Err(Refusal { faults: vec![Fault { path, reason }] });
            }
            Ok(model)
        };
        let model = spawn_blocking(parse).await.map_err(internal)?.map_err(ChangeError::Invalid)?;
        if model.id != id {
            let fault = Fault {
                path: "loadbalancer.id".to_owned(),
                reason: format!("is {} but the request is for {id}", model.id),
            };
            return Err(ChangeError::Invalid(Refusal { faults: vec![fault] }));
        }
        let this = self.clone();
        detached(async move {
            let mut state = this.state.lock().await;
            this.expect_not_octavias()?;
            if let Some(present) = this.model().filter(|present| present.id != id) {
                return Err(ChangeError::OtherLoadBalancer(present.id));
            }
            this.certificates.borrow().missing(&model).map_err(ChangeError::Invalid)?;
            this.replace(&mut state, model, document).await
        })
        .await
    }

    /// Changes one member, and answers once that is live.
    ///
    /// # Errors
    /// When what ran before runs on.
    pub async fn set_member(
        self: &Arc<Self>,
        id: LoadBalancerId,
        pool: PoolId,
        member: MemberId,
        update: MemberUpdate,
    ) -> Result<Applied, ChangeError> {
        let this = self.clone();
        detached(async move {
            let mut state = this.state.lock().await;
            let before = this.document(id).await?;
            this.expect_not_octavias()?;
            let changed = spawn_blocking(move || document::set_member(&before, pool, member, &update));
            let changed = changed.await.map_err(internal)?.map_err(ChangeError::Invalid)?;
            let (model, document) = changed.ok_or(ChangeError::NoMember)?;
            this.replace(&mut state, model, document).await
        })
        .await
    }

    /// Stops the load balancer and forgets it. When no proxy runs there is nothing to stop, and generation 0 is
    /// answered.
    ///
    /// # Errors
    /// When it runs on.
    pub async fn delete(self: &Arc<Self>, id: LoadBalancerId) -> Result<Applied, ChangeError> {
        let this = self.clone();
        detached(async move {
            let mut state = this.state.lock().await;
            this.expect(id)?;
            this.expect_not_octavias()?;
            this.forget(&mut state).await
        })
        .await
    }

    /// Keeps the proxy at what is stored, for ever. To be woken by [`wake`](Self::wake) when a proxy was started.
    pub async fn run(self: Arc<Self>) {
        let mut complaint = String::new();
        let mut woken = Instant::now();
        loop {
            let pause = match self.reconcile().await {
                Ok(()) => {
                    complaint.clear();
                    RECONCILE_INTERVAL
                }
                Err(ChangeError::ProxyDown(_))
                    if complaint.is_empty() && woken.elapsed() < START_PATIENCE =>
                {
                    RETRY_INTERVAL
                }
                Err(error) => {
                    let error = error.to_string();
                    if error != complaint {
                        tracing::warn!(%error, "the proxy does not run what is stored");
                        complaint = error;
                    }
                    RETRY_INTERVAL
                }
            };
            if self.keeper.pause(pause).await {
                woken = Instant::now();
            }
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

    /// Looks at what the proxy runs, and brings it to what is stored unless that is known to be the same.
    ///
    /// # Errors
    /// When it is worth another try later.
    pub async fn reconcile(self: &Arc<Self>) -> Result<(), ChangeError> {
        let info = self.proxy.info().await?;
        let nothing_to_do = |state: &State| state.is_converged(&info) && state.unsettled.is_empty();
        if nothing_to_do(&*self.state.lock().await) {
            return Ok(());
        }
        let this = self.clone();
        detached(async move {
            let mut state = this.state.lock().await;
            this.settle(&mut state).await?;
            // A change of our own may have come about meanwhile.
            let info = this.proxy.info().await?;
            if state.is_converged(&info) {
                return Ok(());
            }
            if let Some(known) = state.converged.take().filter(|known| known.instance == info.instance) {
                tracing::warn!(
                    known.generation,
                    info.generation,
                    "somebody else has changed what the proxy runs"
                );
            }
            let generation = match (this.model(), info.loadbalancer) {
                (Some(model), _) => {
                    // The document is not at fault: it does not give way to the one before.
                    this.certificates.borrow().missing(&model).map_err(ChangeError::Conflict)?;
                    this.restore().await?.unwrap_or(info.generation)
                }
                (None, Some(_)) if state.authoritative => this.proxy.delete().await?.generation,
                (None, Some(_)) => {
                    this.adopt().await?;
                    info.generation
                }
                (None, None) => info.generation,
            };
            state.authoritative = true;
            state.converged = Some(Converged { instance: info.instance, generation });
            Ok(())
        })
        .await
    }

    /// Gives the proxy what is stored. A document that it calls faulty gives way to the one before; one that merely
    /// cannot be honoured now (an address that is not there yet) is tried again. In which generation it runs; `None` when
    /// nothing is stored.
    async fn restore(self: &Arc<Self>) -> Result<Option<u64>, ChangeError> {
        let (current, previous) =
            (self.keeper.read(Slot::Current).await?, self.keeper.read(Slot::Previous).await?);
        let Some(current) = current else { return Ok(None) };
        let refused = match self.proxy.apply(current).await {
            Ok(applied) => {
                tracing::info!(applied.generation, applied.changed, "the stored document runs");
                return Ok(Some(applied.generation));
            }
            Err(error) if error.is_faulty() => error,
            Err(error) => return Err(error.into()),
        };
        let fallback =
            previous.and_then(|document| document::parse(&document).ok().map(|model| (model, document)));
        let Some((model, document)) = fallback else { return Err(refused.into()) };
        tracing::error!(%refused, "falling back to the document before");
        let stored = Present::document(model, &document);
        let applied = self.proxy.apply(document).await?;
        self.keeper.unstage(Staged::Replaced).await?;
        self.model.send_replace(stored);
        Ok(Some(applied.generation))
    }

    /// Nothing is stored, but the proxy runs a document: the files were lost. Traffic must not be.
    async fn adopt(self: &Arc<Self>) -> Result<(), ChangeError> {
        let document = self.proxy.document().await?;
        let model = document::parse(&document).map_err(ChangeError::Invalid)?;
        let (id, stored) = (model.id, Present::document(model, &document));
        let staged = self.keeper.stage(document).await?;
        tracing::warn!(%id, ?staged, "took over the document that the proxy runs: none was stored");
        self.model.send_replace(stored);
        Ok(())
    }

    /// Stores and applies. The state's lock is held.
    async fn replace(
        self: &Arc<Self>,
        state: &mut State,
        model: LoadBalancer,
        document: Bytes,
    ) -> Result<Applied, ChangeError> {
        self.settle(state).await?;
        let mark = mark(&document);
        match self.store_and(&model, document.clone(), self.proxy.apply(document)).await? {
            Ok(applied) => {
                state.authoritative = true;
                if let Some(converged) = &mut state.converged {
                    // Of another process by now, at worst: its instance says so.
                    converged.generation = applied.generation;
                }
                self.model.send_replace(Present { model: Some(Arc::new(model)), mark: Some(mark.into()) });
                Ok(applied)
            }
            Err(failed) => {
                if failed.has_diverged(|error| error.is_refused() || error.is_not_running()) {
                    self.diverged(state);
                }
                Err(failed.into())
            }
        }
    }

    /// The proxy may run something else than what is stored.
    fn diverged(&self, state: &mut State) {
        state.converged = None;
        state.authoritative = true;
        self.wake();
    }

    fn expect(&self, id: LoadBalancerId) -> Result<(), ChangeError> {
        match self.model() {
            Some(present) if present.id == id => Ok(()),
            _ => Err(ChangeError::NoLoadBalancer),
        }
    }
}

/// Runs a change in a task of its own: dropping the request does not stop it half-way.
pub(crate) async fn detached<T: Send + 'static>(
    change: impl Future<Output = Result<T, ChangeError>> + Send + 'static,
) -> Result<T, ChangeError> {
    tokio::spawn(change).await.map_err(internal)?
}

/// Leaves nothing behind of a body that may have a key in it, once it is of no use any more, but for what the HTTP server has read it
/// into. What somebody else still has stays.
pub(crate) fn wipe(content: Bytes) {
    if let Ok(mut content) = content.try_into_mut() {
        content.zeroize();
    }
}

fn internal(error: tokio::task::JoinError) -> ChangeError {
    ChangeError::Internal(error.to_string())
}
