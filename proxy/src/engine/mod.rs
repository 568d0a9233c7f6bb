//! The control thread's core: applies load balancers to the workers. Either all of a change happens or none:
//! compile, bind what is new, swap, then let go of what is old.

mod addresses;
mod pulse;
mod report;
mod watch;

use std::{
    collections::BTreeMap,
    io,
    net::TcpListener,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use nix::sys::resource::{Resource, getrlimit};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

pub use self::pulse::Pulse;
use self::watch::Watch;
use crate::{
    control::api::{self, Applied, Fault, Info, ProcessStats, Refusal, Stats},
    health::{HealthEngine, Monitored, Target},
    metrics::{Exposition, Host, MetricsInput},
    model::{Binding, LoadBalancer, Pool, PoolId},
    net::{self, BindError, BoundListener},
    peers::{Peers, PeersConfig},
    persist::PersistState,
    snapshot::{self, ListenerPlan, Snapshot},
    state::{Counter, ListenerCounters, Registry},
    worker::{Command, MetricsRequest, WorkerHandle},
};

/// How long a worker may take to put a snapshot live before the change is reported as late. Workers never
/// block, so this passes only when the machine is starved.
const SWAP_PATIENCE: Duration = Duration::from_secs(10);

/// The workers, and what they run.
pub struct Engine {
    instance: Uuid,
    started: Instant,
    registry: Registry,
    workers: Vec<WorkerHandle>,
    health: HealthEngine,
    watch: Watch,
    peers: Peers,
    /// Where the workers' clock began.
    epoch: tokio::time::Instant,
    present: Arc<Snapshot>,
    /// Addresses that every worker has a socket for.
    bound: Vec<Binding>,
}

/// Why a change was not made.
#[derive(Debug)]
pub enum ApplyError {
    /// The document cannot be honoured; nothing changed.
    Refused(Refusal),
    /// Another process holds an address, or the system is out of resources; nothing changed.
    Unavailable(Refusal),
}

impl ApplyError {
    /// The faults.
    pub fn refusal(&self) -> &Refusal {
        match self {
            Self::Refused(refusal) | Self::Unavailable(refusal) => refusal,
        }
    }
}

impl std::fmt::Display for ApplyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, fault) in self.refusal().faults.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{}: {}", fault.path, fault.reason)?;
        }
        Ok(())
    }
}

impl std::error::Error for ApplyError {}

impl Engine {
    /// Starts the workers, without a load balancer. Requests for `/metrics` that workers receive arrive on the
    /// returned queue. To be called on the control thread's runtime.
    ///
    /// # Errors
    /// When threads cannot be started.
    pub fn start(workers: usize) -> io::Result<(Self, mpsc::UnboundedReceiver<MetricsRequest>)> {
        let (metrics, requests) = mpsc::unbounded_channel();
        let epoch = tokio::time::Instant::now();
        let handles = (0..workers)
            .map(|index| WorkerHandle::start(index, epoch, metrics.clone()))
            .collect::<io::Result<Vec<_>>>()?;
        let instance = Uuid::new_v4();
        let engine = Self {
            instance,
            started: Instant::now(),
            registry: Registry::new(workers),
            workers: handles,
            health: HealthEngine::start(u64::from(std::process::id()))?,
            watch: Watch::new(Instant::now()),
            peers: Peers::new(instance, epoch.into_std()),
            epoch,
            present: Arc::new(Snapshot::empty(0)),
            bound: Vec::new(),
        };
        Ok((engine, requests))
    }

    /// Makes `model` live, or refuses it and changes nothing. `None` takes everything down.
    ///
    /// # Errors
    /// See [`ApplyError`].
    pub async fn apply(&mut self, model: Option<LoadBalancer>) -> Result<Applied, ApplyError> {
        if self.present.model.as_deref() == model.as_ref() {
            return Ok(Applied { generation: self.present.generation, changed: false });
        }
        let generation = self.present.generation + 1;
        let snapshot = match model {
            None => Snapshot::empty(generation),
            Some(model) => {
                let faults = unsupported_monitors(&model);
                if !faults.is_empty() {
                    return Err(ApplyError::Refused(Refusal { faults }));
                }
                snapshot::compile(Arc::new(model), generation, &self.registry).map_err(ApplyError::Refused)?
            }
        };
        let sockets = self.bind_new(&snapshot).map_err(ApplyError::Unavailable)?;
        addresses::warn_of_missing(sockets.keys());
        self.swap(Arc::new(snapshot), sockets).await;
        Ok(Applied { generation, changed: true })
    }

    /// Binds a socket per worker for each address that has none yet. Sockets that were bound are closed again
    /// when one cannot be.
    fn bind_new(&self, snapshot: &Snapshot) -> Result<BTreeMap<Binding, Vec<TcpListener>>, Refusal> {
        let mut bound = Vec::new();
        let mut faults = Vec::new();
        for (binding, index) in snapshot.bindings() {
            if self.bound.contains(&binding) {
                continue;
            }
            match net::bind_for_workers(binding.address, self.workers.len()) {
                Ok(sockets) => bound.push((binding, index, sockets)),
                Err(error) => faults.push(bind_fault(snapshot, index, &error)),
            }
        }
        if !faults.is_empty() {
            return Err(Refusal { faults });
        }
        // Only now that every address is ours may clients connect.
        let mut sockets = BTreeMap::new();
        for (binding, index, bound) in bound {
            let listening: Result<Vec<_>, _> = bound.into_iter().map(BoundListener::listen).collect();
            match listening {
                Ok(listening) => {
                    sockets.insert(binding, listening);
                }
                Err(error) => faults.push(bind_fault(snapshot, index, &error)),
            }
        }
        if faults.is_empty() { Ok(sockets) } else { Err(Refusal { faults }) }
    }

    async fn swap(&mut self, snapshot: Arc<Snapshot>, mut sockets: BTreeMap<Binding, Vec<TcpListener>>) {
        snapshot.announce();
        let mut live = Vec::with_capacity(self.workers.len());
        for worker in &self.workers {
            let share = sockets
                .iter_mut()
                .filter_map(|(binding, sockets)| sockets.pop().map(|socket| (*binding, socket)))
                .collect();
            let (done, is_live) = oneshot::channel();
            worker.send(Command::Apply { snapshot: Arc::clone(&snapshot), sockets: share, done });
            live.push(is_live);
        }
        let all_live = async {
            for is_live in live {
                if is_live.await.is_err() {
                    tracing::error!("a worker has died");
                }
            }
        };
        if tokio::time::timeout(SWAP_PATIENCE, all_live).await.is_err() {
            tracing::error!(generation = snapshot.generation, "a worker is late to put a change live");
        }
        self.bound = snapshot.bindings().map(|(binding, _)| binding).collect();
        self.present = snapshot;
        self.health.update(monitored(&self.present));
        watch::remember(Instant::now(), &self.present);
        self.present.hand_over(&mut self.registry);
        self.peers.set_tables(persistence(&self.present));
    }

    /// Sets the peer that session persistence is kept alike with. With `patient` an address that cannot be listened on
    /// is tried again until it can be. To be called within a `LocalSet`.
    ///
    /// # Errors
    /// When the address cannot be listened on; nothing changed.
    pub fn set_peers(&mut self, config: PeersConfig, patient: bool) -> Result<(), Refusal> {
        let listen = config.listen;
        let set = self.peers.set(config, patient);
        set.map_err(|error| Refusal::one("peers.listen", format!("{listen}: {error}")))?;
        self.peers.set_tables(persistence(&self.present));
        Ok(())
    }

    /// Session persistence is kept alike with nobody any more.
    pub fn clear_peers(&mut self) {
        if self.peers.is_configured() {
            tracing::info!("session persistence is kept alike with nobody any more");
        }
        self.peers.clear();
    }

    /// How it stands with the peer.
    pub fn peers(&self) -> api::Peers {
        self.peers.report()
    }

    /// Stops accepting and waits, at most `patience`, until every session has ended. True when they all did.
    pub async fn drain(&mut self, patience: Duration) -> bool {
        self.health.update(Vec::new());
        for worker in &self.workers {
            worker.send(Command::Drain);
        }
        let deadline = tokio::time::Instant::now() + patience;
        while !self.workers.iter().all(WorkerHandle::is_finished) {
            if tokio::time::Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        true
    }

    /// To feel whether the workers live without holding on to the engine.
    pub fn pulse(&self) -> Pulse {
        Pulse::new(self.workers.iter().map(WorkerHandle::commands).collect())
    }

    /// True while every worker's thread lives.
    pub fn is_fit(&self) -> bool {
        !self.workers.iter().any(WorkerHandle::is_finished)
    }

    /// Clients' connections that are open.
    pub fn connections(&self) -> u64 {
        let open = |plan: &ListenerPlan| u64::from(plan.state.connections.load(Ordering::Relaxed));
        self.present.listeners.iter().map(open).sum()
    }

    /// The load balancer that runs.
    pub fn model(&self) -> Option<&LoadBalancer> {
        self.present.model.as_deref()
    }

    /// Looks at the counters, from which rates come; to be called about once a second.
    pub fn sample(&mut self, now: Instant) {
        self.watch.sample(now, &self.present);
    }

    /// Every counter, as of now.
    pub fn stats(&self) -> Stats {
        let stats = report::Moment { now: Instant::now(), epoch: self.epoch.into_std() };
        let mut stats = stats.of(&self.present, &self.instance.to_string());
        let departed = self.registry.departed();
        let total = |counter: fn(&ListenerCounters) -> &Counter| {
            let present = self.present.listener_states().iter().map(|state| state.counters.sum(counter));
            present.sum::<u64>() + departed.sum(counter)
        };
        stats.process = ProcessStats {
            total_connections: total(|c| &c.connections_total),
            requests: total(|c| &c.requests),
            connection_rate: self.watch.connections.per_second(),
            max_connection_rate: self.watch.connections.highest(),
            session_rate: self.watch.sessions.per_second(),
            max_session_rate: self.watch.sessions.highest(),
            max_connections: max_connections(&self.present),
        };
        stats
    }

    /// The process.
    pub fn info(&self) -> Info {
        Info {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            instance: self.instance.to_string(),
            pid: std::process::id(),
            workers: self.workers.len(),
            uptime_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            loadbalancer: self.present.model.as_deref().map(|model| model.id),
            generation: self.present.generation,
        }
    }

    /// The text of `/metrics`, as of now, to be written piece by piece.
    pub fn exposition(&self) -> Exposition {
        Exposition::new(&MetricsInput {
            info: &self.info(),
            stats: &self.stats(),
            loadbalancer: self.present.model.as_deref(),
            peers: self.peers.is_configured().then(|| self.peers.report()).as_ref(),
            host: Host::read().ok(),
        })
    }
}

/// More connections than this there cannot be: the sum of all `connection_limit`s, or the limit of descriptors, each
/// connection taking one at the least.
fn max_connections(snapshot: &Snapshot) -> u64 {
    // Sockets of clients share this limit with everything else, so it is never quite reached.
    let descriptors = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft);
    let limits = snapshot.listeners.iter().map(|listener| listener.connection_limit.map(u64::from));
    limits
        .sum::<Option<u64>>()
        .filter(|_| !snapshot.listeners.is_empty())
        .unwrap_or(u64::MAX)
        .min(descriptors)
}

/// The members that are probed, and how.
fn monitored(snapshot: &Snapshot) -> Vec<Monitored> {
    let Some(model) = &snapshot.model else { return Vec::new() };
    let pools = model.pools.iter().zip(&snapshot.pools);
    pools
        .flat_map(|(pool, plan)| {
            pool.members.iter().zip(&plan.members).filter_map(move |(member, plan)| {
                let target = Target::of_member(pool, member)?;
                Some(Monitored { member: Arc::clone(&plan.state), target })
            })
        })
        .collect()
}

/// What the pools remember of their clients.
fn persistence(snapshot: &Snapshot) -> impl Iterator<Item = (PoolId, Arc<PersistState>)> {
    snapshot.pools.iter().filter_map(|pool| Some((pool.id(), pool.persist_state.clone()?)))
}

/// Faults of health monitors that this process cannot carry out.
fn unsupported_monitors(model: &LoadBalancer) -> Vec<Fault> {
    let fault = |(index, pool): (usize, &Pool)| {
        let target = pool.members.iter().find_map(|member| Target::of_member(pool, member))?;
        let reason = target.unsupported()?;
        Some(Fault { path: format!("loadbalancer.pools[{index}].healthmonitor.type"), reason })
    };
    model.pools.iter().enumerate().filter_map(fault).collect()
}

fn bind_fault(snapshot: &Snapshot, index: usize, error: &BindError) -> Fault {
    let id = snapshot.listeners[index].state.id;
    let position = snapshot.model.as_ref().and_then(|m| m.listeners.iter().position(|l| l.id == id));
    let path = match position {
        Some(index) => format!("loadbalancer.listeners[{index}].protocol_port"),
        None => "loadbalancer.listeners".to_owned(),
    };
    Fault { path, reason: error.to_string() }
}
