//! The task that owns what runs.

use std::{
    collections::{BTreeMap, HashSet},
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use amphora_ipc::proxy::{Applied, Checked, ProcessStats, Refusal, Remark};
use amphora_model::{Binding, PoolId};
use tokio::{
    net::UnixStream,
    sync::{mpsc, oneshot},
    task::{JoinHandle, spawn_blocking},
};
use uuid::Uuid;

use super::{
    Ask, Change, Observation, Pulse, addresses,
    change::{self, ApplyError, Wanted},
    differences::Differences,
    drains::{self, Drains},
    member_options, members,
    stage::{Bound, Compiled, Stage, Step},
    watch::{self, Watch},
};
use crate::{
    datagram::Datagrams,
    health::HealthEngine,
    limits::{Bounds, Clients},
    logs::{LogCounters, Syslog},
    memory,
    metrics::Scrapes,
    net::{self, NewListener},
    peers::{Peers, PeersConfig},
    persist::PersistState,
    snapshot::{Snapshot, TlsSource},
    state::{Alarm, CheckState, PerWorker, Registry},
    sys,
    worker::{Command, WorkerHandle},
};

/// How long a worker may take to put a snapshot live before the change is reported as late. Workers never
/// block, so this passes only when the machine is starved.
const SWAP_PATIENCE: Duration = Duration::from_secs(10);

/// Longer than workers need to let go of a socket whose address is given up.
const RELEASE: Duration = Duration::from_secs(2);

/// How many changes in a row may use the memory of those before them before it is given back. Each may leave as much behind as
/// its document took.
const MOST_KEPT: u32 = 8;

/// The workers, and what they run.
pub(super) struct Actor {
    instance: Uuid,
    started: Instant,
    /// Nobody else holds it but a change that is being compiled. It is away while one settles.
    registry: Arc<Registry>,
    /// Raised by workers.
    alarm: Arc<Alarm>,
    /// What wakes the task then.
    woken: Option<std::os::unix::net::UnixStream>,
    tls: TlsSource,
    workers: Vec<WorkerHandle>,
    bounds: Bounds,
    /// All that are connected, to listeners that are gone as well.
    clients: Arc<Clients>,
    /// What became of flow logs.
    logs: Arc<PerWorker<LogCounters>>,
    /// It was said that more clients come than there may be.
    crowded: bool,
    health: HealthEngine,
    datagrams: Datagrams,
    watch: Watch,
    peers: Peers,
    /// Where the workers' clock began.
    epoch: tokio::time::Instant,
    present: Arc<Snapshot>,
    /// The generation of `present`, for who only wants to know whether that is another.
    generation: Arc<AtomicU64>,
    /// Addresses that every worker has a socket for.
    bound: Vec<Binding>,
    /// Addresses that were given up a moment ago: workers may still have sockets there.
    released: Vec<(Binding, Instant)>,
    stage: Stage,
    /// Members that drain.
    drains: Drains,
    /// Changes whose memory is kept for those that follow.
    kept: u32,
    draining: bool,
}

impl Actor {
    /// Starts the workers, without a load balancer.
    pub(super) fn start(
        bounds: Bounds,
        tls: TlsSource,
        generation: Arc<AtomicU64>,
        scrapes: &Scrapes,
        syslog: Syslog,
        datagrams: Datagrams,
    ) -> io::Result<Self> {
        let epoch = tokio::time::Instant::now();
        let clients = Arc::new(Clients::new(bounds.clients));
        let logs = Arc::clone(&syslog.counters);
        let handles = (0..bounds.workers)
            .zip(syslog.shares())
            .map(|(index, syslog)| {
                WorkerHandle::start(index, &bounds, Arc::clone(&clients), epoch, scrapes.clone(), syslog)
            })
            .collect::<io::Result<Vec<_>>>()?;
        let (alarm, woken) = Alarm::new()?;
        let alarm = Arc::new(alarm);
        let instance = Uuid::new_v4();
        let peers = Peers::new(instance, epoch.into_std()).with_tickets(Arc::clone(&tls.keys));
        Ok(Self {
            instance,
            started: net::now(),
            registry: Arc::new(Registry::with_alarm(bounds.workers, Arc::clone(&alarm))),
            alarm,
            woken: Some(woken),
            tls,
            workers: handles,
            bounds,
            clients,
            logs,
            crowded: false,
            health: HealthEngine::start(u64::from(std::process::id()), bounds.probes)?,
            datagrams,
            watch: Watch::new(net::now()),
            peers,
            epoch,
            present: Arc::new(Snapshot::empty(0)),
            generation,
            bound: Vec::new(),
            released: Vec::new(),
            stage: Stage::Idle,
            drains: Drains::default(),
            kept: 0,
            draining: false,
        })
    }

    pub(super) fn pulse(&self) -> Pulse {
        let workers = self.workers.iter().map(|worker| (worker.pulse(), worker.commands()));
        Pulse::new(workers, net::now())
    }

    /// Takes changes one after the other, and answers what is asked meanwhile, until nobody can ask any more.
    pub(super) async fn run(
        mut self,
        mut changes: mpsc::Receiver<Change>,
        mut asks: mpsc::UnboundedReceiver<Ask>,
    ) {
        // Where that cannot be, looking once a second has to do.
        let woken = self.woken.take().and_then(|woken| UnixStream::from_std(woken).ok());
        loop {
            tokio::select! {
                step = self.stage.end() => self.advance(step),
                () = raised(woken.as_ref()) => self.judge(),
                ask = asks.recv(), if !matches!(self.stage, Stage::Settling { .. }) => match ask {
                    Some(ask) => self.answer(ask),
                    None => return,
                },
                Some(change) = changes.recv(), if matches!(self.stage, Stage::Idle) => self.begin(change),
            }
        }
    }

    fn begin(&mut self, change: Change) {
        if self.draining {
            // Whoever asked may be gone.
            match change {
                Change::Apply { reply, .. } => drop(reply.send(Err(ApplyError::stopping()))),
                Change::Check { reply, .. } => drop(reply.send(Err(ApplyError::stopping()))),
            }
            return;
        }
        memory::keep();
        self.kept += 1;
        self.stage = match change {
            Change::Apply { wanted, reply } => {
                let task = self.compile(wanted, |compiled, _| {
                    if !matches!(compiled, Ok(Some(_))) {
                        memory::give_back();
                    }
                    compiled
                });
                Stage::Compiling { task, reply }
            }
            Change::Check { document, reply } => {
                let task = self.compile(Wanted::Document(document), |compiled, present| {
                    let checked = compiled
                        .map(|new| Checked { remarks: new.as_ref().unwrap_or(present).remarks().to_vec() });
                    // What was compiled is gone by here. Of one that is good, the change follows mostly.
                    if checked.is_err() {
                        memory::give_back();
                    }
                    checked
                });
                Stage::Checking { task, reply }
            }
        };
    }

    /// Compiles on a blocking thread, and has there what `then` makes of it and of what runs.
    fn compile<T: Send + 'static>(
        &self,
        wanted: Wanted,
        then: impl FnOnce(Compiled, &Snapshot) -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let (present, registry) = (Arc::clone(&self.present), Arc::clone(&self.registry));
        let tls = self.tls.clone();
        spawn_blocking(move || {
            sys::stand_back();
            then(change::compile(wanted, &present, &registry, &tls), &present)
        })
    }

    fn advance(&mut self, step: Step) {
        match (std::mem::replace(&mut self.stage, Stage::Idle), step) {
            (Stage::Compiling { reply, .. }, Step::Compiled(compiled)) => match self.bind(*compiled) {
                Ok(Some(bound)) => {
                    member_options::begin(net::now(), &self.present, &bound.snapshot);
                    let forwarded = Box::pin(self.datagrams.apply(&bound.snapshot, self.epoch.into_std()));
                    self.stage = Stage::Forwarding { forwarded, bound, reply };
                }
                Ok(None) => {
                    let _ = reply.send(Ok(applied(&self.present, false)));
                }
                Err(error) => {
                    let _ = reply.send(Err(error));
                }
            },
            (Stage::Checking { reply, .. }, Step::Checked(verdict)) => drop(reply.send(verdict)),
            (Stage::Forwarding { bound, reply, .. }, Step::Forwarded(forwarded)) => match forwarded {
                Ok(()) => {
                    let Bound { snapshot, sockets } = bound;
                    snapshot.announce();
                    member_options::announce(&snapshot);
                    drains::resume(&snapshot);
                    let live = Box::pin(self.tell_workers(&snapshot, sockets));
                    self.stage = Stage::Swapping { live, snapshot, reply };
                }
                Err(reason) => {
                    let _ = reply.send(Err(change::not_forwarded(&bound.snapshot, &reason)));
                }
            },
            (Stage::Swapping { snapshot, reply, .. }, Step::Live) => {
                let before = self.went_live(snapshot);
                let _ = reply.send(Ok(applied(&self.present, true)));
                self.stage = Stage::Settling { task: self.settle(before) };
            }
            (Stage::Settling { .. }, Step::Settled(registry)) => self.registry = registry,
            (stage, _) => self.stage = stage,
        }
    }

    /// Binds what is new. Once datagrams are forwarded, too, the workers are told, for good: from there on nothing keeps the
    /// snapshot from going live.
    fn bind(&self, compiled: Compiled) -> Result<Option<Bound>, ApplyError> {
        let Some(snapshot) = compiled? else { return Ok(None) };
        change::may_be_transparent(&snapshot)?;
        if self.draining {
            return Err(ApplyError::stopping());
        }
        let sockets = change::bind_new(&snapshot, &self.bound, &self.released, &self.bounds);
        let sockets = sockets.map_err(ApplyError::Unavailable)?;
        addresses::warn_of_missing(sockets.keys());
        Ok(Some(Bound { snapshot: Arc::new(snapshot), sockets }))
    }

    /// Resolves when every worker runs the snapshot.
    fn tell_workers(
        &self,
        snapshot: &Arc<Snapshot>,
        mut sockets: BTreeMap<Binding, Vec<NewListener>>,
    ) -> impl Future<Output = ()> + use<> {
        let mut live = Vec::with_capacity(self.workers.len());
        for worker in &self.workers {
            let share = sockets
                .iter_mut()
                .filter_map(|(binding, sockets)| sockets.pop().map(|socket| (*binding, socket)))
                .collect();
            let (done, is_live) = oneshot::channel();
            worker.send(Command::Apply { snapshot: Arc::clone(snapshot), sockets: share, done });
            live.push(is_live);
        }
        let generation = snapshot.generation;
        async move {
            let all_live = async {
                for is_live in live {
                    if is_live.await.is_err() {
                        tracing::error!("a worker has died");
                    }
                }
            };
            if tokio::time::timeout(SWAP_PATIENCE, all_live).await.is_err() {
                tracing::error!(generation, "a worker is late to put a change live");
            }
        }
    }

    /// Returns what ran before.
    fn went_live(&mut self, snapshot: Arc<Snapshot>) -> Arc<Snapshot> {
        let now = net::now();
        let before = std::mem::take(&mut self.bound);
        self.bound = snapshot.bindings().map(|(binding, _)| binding).collect();
        self.released.retain(|(_, since)| now.duration_since(*since) < RELEASE);
        let gone = before.into_iter().filter(|binding| !self.bound.contains(binding));
        self.released.extend(gone.map(|binding| (binding, now)));
        let before = std::mem::replace(&mut self.present, snapshot);
        self.generation.store(self.present.generation, Ordering::Release);
        if !self.draining {
            members::revive(now, &before, &self.present);
        }
        self.peers.set_tables(persistence(&self.present));
        before.limits().release(self.present.limits());
        self.drains.follow(now, &before, &self.present);
        self.end_drains(now);
        before
    }

    /// Has workers close what members still have whose time is over.
    fn end_drains(&mut self, now: Instant) {
        if self.drains.handle_timeout(now) {
            for worker in &self.workers {
                worker.send(Command::EndDrains);
            }
        }
    }

    /// Lets checks, histories and the registry follow the configuration. That looks at every member, so it is done where it
    /// holds up neither the answer nor the workers.
    fn settle(&mut self, before: Arc<Snapshot>) -> JoinHandle<Arc<Registry>> {
        let present = Arc::clone(&self.present);
        let enough = self.kept >= MOST_KEPT;
        if enough {
            self.kept = 0;
        }
        let mut registry = std::mem::take(&mut self.registry);
        let checks = (!self.draining).then(|| self.health.assignments());
        let now = net::now();
        spawn_blocking(move || {
            sys::stand_back();
            tell_of(&before, &present);
            if let Some(checks) = checks {
                checks.update(members::monitored(&present));
                members::unchecked(&present).for_each(|member| member.set_health(CheckState::NoCheck));
            }
            member_options::settle(now, &present);
            watch::remember(now, &present);
            match Arc::get_mut(&mut registry) {
                Some(registry) => present.hand_over(registry),
                // What was compiled has been given back before this.
                None => unreachable!("no change is being compiled while one settles"),
            }
            drop(before);
            if enough {
                memory::give_back();
            }
            registry
        })
    }

    fn answer(&mut self, ask: Ask) {
        // Whoever asked may be gone.
        match ask {
            Ask::Observe(reply) => {
                let _ = reply.send(self.observe());
            }
            Ask::Look(reply) => {
                let _ = reply.send(self.look());
            }
            Ask::Peers(reply) => {
                let _ = reply.send(self.peers.report());
            }
            Ask::SetPeers { config, patient, reply } => {
                let _ = reply.send(self.set_peers(config, patient));
            }
            Ask::ClearPeers(reply) => {
                if self.peers.is_configured() {
                    tracing::info!("session persistence is kept alike with nobody any more");
                }
                self.peers.clear();
                let _ = reply.send(self.peers.report());
            }
            Ask::Drain(reply) => {
                self.draining = true;
                self.health.update(Vec::new());
                for worker in &self.workers {
                    worker.send(Command::Drain);
                }
                let _ = reply.send(self.workers.iter().map(WorkerHandle::commands).collect());
            }
        }
    }

    fn set_peers(
        &mut self,
        config: PeersConfig,
        patient: bool,
    ) -> Result<amphora_ipc::proxy::Peers, Refusal> {
        let listen = config.listen;
        let set = self.peers.set(config, patient);
        set.map_err(|error| Refusal::one("peers.listen", format!("{listen}: {error}")))?;
        self.peers.set_tables(persistence(&self.present));
        Ok(self.peers.report())
    }

    fn look(&mut self) -> bool {
        let now = net::now();
        self.watch.sample(now, &self.present);
        member_options::advance(now, &self.present);
        self.end_drains(now);
        self.judge();
        self.tell_of_crowds();
        self.give_back();
        !self.workers.iter().any(WorkerHandle::is_finished)
    }

    /// Looks at the members at which real traffic fails.
    fn judge(&self) {
        self.alarm.take();
        member_options::judge(net::now(), &self.present);
    }

    /// Gives back the memory that is kept for changes, when there is none under way.
    fn give_back(&mut self) {
        if self.kept > 0 && matches!(self.stage, Stage::Idle) {
            self.kept = 0;
            spawn_blocking(|| {
                sys::stand_back();
                memory::give_back();
            });
        }
    }

    /// Says once that clients wait, and again only after a good part of them has gone.
    fn tell_of_crowds(&mut self) {
        let (taken, limit) = (self.clients.places.taken(), self.clients.limit);
        if taken >= limit && !self.crowded {
            tracing::warn!(
                clients = taken,
                "no more clients are let in than descriptors and memory allow; others wait"
            );
        }
        self.crowded = taken >= limit || self.crowded && taken >= limit - limit / 8;
    }

    fn observe(&self) -> Observation {
        Observation {
            at: net::now(),
            snapshot: Arc::clone(&self.present),
            instance: self.instance,
            uptime: self.started.elapsed(),
            epoch: self.epoch.into_std(),
            bounds: self.bounds,
            departed: self.registry.departed(),
            departed_pools: self.registry.departed_pools(),
            rates: ProcessStats {
                connection_rate: self.watch.connections.per_second(),
                max_connection_rate: self.watch.connections.highest(),
                session_rate: self.watch.sessions.per_second(),
                max_session_rate: self.watch.sessions.highest(),
                tls_rate: self.watch.tls.per_second(),
                max_tls_rate: self.watch.tls.highest(),
                client_key_rate: self.watch.client_keys.per_second(),
                max_client_key_rate: self.watch.client_keys.highest(),
                member_key_rate: self.watch.member_keys.per_second(),
                max_member_key_rate: self.watch.member_keys.highest(),
                ..ProcessStats::default()
            },
            peers: self.peers.is_configured().then(|| self.peers.report()),
            logs: Arc::clone(&self.logs),
            drains: self.drains.all().cloned().collect(),
            health: self.health.assignments(),
        }
    }
}

/// What whoever asked for a change is told.
fn applied(present: &Snapshot, changed: bool) -> Applied {
    Applied { generation: present.generation, changed, remarks: present.remarks().to_vec() }
}

/// One line for the operator, who sees when a change has gone live and how much of it there was.
fn tell_of(before: &Snapshot, present: &Snapshot) {
    let generation = present.generation;
    let Some(model) = present.model.as_deref() else {
        return tracing::info!(generation, "the load balancer was removed");
    };
    let Differences { listeners, pools, members } =
        Differences::between(before.model.as_deref(), Some(model));
    let loadbalancer = model.id;
    tracing::info!(generation, %loadbalancer, %listeners, %pools, %members, "applied");
    // Those that are there for longer were told of when they came.
    let known: HashSet<&Remark> = before.remarks().iter().collect();
    for remark in present.remarks().iter().filter(|remark| !known.contains(remark)) {
        let Remark { path, text } = remark;
        tracing::warn!(target: amphora_logging::EACH, %path, %text, "honoured in part");
    }
}

/// What the pools remember of their clients.
fn persistence(snapshot: &Snapshot) -> impl Iterator<Item = (PoolId, Arc<PersistState>)> {
    snapshot.pools.iter().filter_map(|pool| Some((pool.id(), pool.persist_state.clone()?)))
}

/// Waits until the alarm is raised.
async fn raised(woken: Option<&UnixStream>) {
    let Some(woken) = woken else { return std::future::pending().await };
    let readable = woken.readable().await;
    match readable.and_then(|()| woken.try_read(&mut [0; 16])) {
        Ok(1..) => {}
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        Ok(_) | Err(_) => std::future::pending().await,
    }
}
