//! What runs at one moment.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use amphora_ipc::{
    proxy::{Explanation, Info, Members, Peers, ProcessStats, Question, Refusal, Stats, Summary},
    usage::Usage,
};
use amphora_model::LoadBalancer;
use uuid::Uuid;

use super::{drains::Drain, explain::Explainer, member_reports, report};
use crate::{
    health::Assignments,
    limits::Bounds,
    logs::{LogCounters, calendar::Wall},
    metrics::{Exposition, Host, MetricsInput},
    snapshot::Snapshot,
    state::{Counter, HandshakeCounters, ListenerCounters, PerWorker, PoolCounters},
};

/// What runs at one moment, and where its counters are. Cheap to make; adding the counters up takes longer with every
/// member and is for another thread than the control thread.
#[derive(Debug)]
pub struct Observation {
    pub(super) at: Instant,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) instance: Uuid,
    pub(super) uptime: Duration,
    /// Where the workers' clock began.
    pub(super) epoch: Instant,
    pub(super) bounds: Bounds,
    /// What listeners counted that are known no more.
    pub(super) departed: PerWorker<ListenerCounters>,
    /// What pools counted that are known no more.
    pub(super) departed_pools: PerWorker<PoolCounters>,
    /// The rates; nothing else is filled in.
    pub(super) rates: ProcessStats,
    pub(super) peers: Option<Peers>,
    pub(super) logs: Arc<PerWorker<LogCounters>>,
    pub(super) drains: Vec<Drain>,
    pub(super) health: Assignments,
}

impl Observation {
    /// The load balancer that runs.
    pub fn model(&self) -> Option<&Arc<LoadBalancer>> {
        self.snapshot.model.as_ref()
    }

    /// The process.
    pub fn info(&self) -> Info {
        Info {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            instance: self.instance.to_string(),
            pid: std::process::id(),
            workers: self.bounds.workers,
            uptime_ms: u64::try_from(self.uptime.as_millis()).unwrap_or(u64::MAX),
            loadbalancer: self.snapshot.model.as_deref().map(|model| model.id),
            remarks: self.snapshot.remarks().to_vec(),
            generation: self.snapshot.generation,
        }
    }

    /// Every counter.
    pub fn stats(&self) -> Stats {
        let stats = report::Moment { now: self.at, epoch: self.epoch, idle: self.bounds.idle };
        let mut stats = stats.of(&self.snapshot, &self.instance.to_string());
        let total = |counter: fn(&ListenerCounters) -> &Counter| {
            let present = self.snapshot.listener_states().iter().map(|state| state.counters.sum(counter));
            present.sum::<u64>() + self.departed.sum(counter)
        };
        let over_tls = self.snapshot.listeners.iter().filter(|plan| plan.tls.is_some());
        let with_clients = over_tls.map(|plan| plan.state.counters.sum(|c| &c.connections)).sum::<u64>();
        let pools = || self.snapshot.pools.iter().map(|plan| &plan.state.counters);
        let with_members = pools().map(|counters| counters.sum(|c| &c.tls_connections)).sum::<u64>();
        let listeners = self.snapshot.listener_states().iter().map(|state| &state.counters);
        let of_listeners = listeners.chain([&self.departed]).flat_map(PerWorker::iter).map(|c| &c.handshakes);
        let of_pools = pools().chain([&self.departed_pools]).flat_map(PerWorker::iter).map(|c| &c.handshakes);
        stats.process = ProcessStats {
            total_connections: total(|c| &c.connections_total),
            requests: total(|c| &c.requests),
            tls_connections: with_clients + with_members,
            total_tls_connections: of_listeners.chain(of_pools).map(HandshakeCounters::ended).sum(),
            max_connections: max_connections(&self.snapshot, self.bounds.clients),
            flow_log_lines: self.logs.sum(|c| &c.sent),
            flow_log_lines_dropped: self.logs.sum(|c| &c.dropped),
            ..self.rates
        };
        stats
    }

    /// What there is to tell of members beyond counters.
    pub fn members(&self) -> Members {
        self.moment().of(&self.snapshot)
    }

    /// What a request would meet.
    ///
    /// # Errors
    /// When there is no such listener, or the request is none.
    pub fn explain(&self, question: &Question) -> Result<Explanation, Refusal> {
        Explainer { snapshot: &self.snapshot, moment: self.moment(), epoch: self.epoch }.explain(question)
    }

    fn moment(&self) -> member_reports::Moment<'_> {
        member_reports::Moment::new(self.at, Wall::now(), &self.drains, &self.health)
    }

    /// What a heartbeat tells of.
    pub fn summary(&self) -> Summary {
        report::summary(&self.snapshot, &self.instance.to_string())
    }

    /// The text of `/metrics`, to be written piece by piece. Asks the kernel how busy the machine is, and what
    /// the process has of it.
    pub fn exposition(&self) -> Exposition {
        Exposition::new(&MetricsInput {
            info: &self.info(),
            stats: &self.stats(),
            loadbalancer: self.snapshot.model.as_deref(),
            expiry: &self.snapshot.expiry(),
            peers: self.peers.as_ref(),
            host: Host::read().ok(),
            usage: Usage::read(),
        })
    }
}

/// More connections than this there cannot be: the sum of all `connection_limit`s, or the process's bound on clients.
fn max_connections(snapshot: &Snapshot, clients: u32) -> u64 {
    let limits = snapshot.listeners.iter().map(|listener| listener.connection_limit.map(u64::from));
    limits
        .sum::<Option<u64>>()
        .filter(|_| !snapshot.listeners.is_empty())
        .unwrap_or(u64::MAX)
        .min(clients.into())
}
