//! Health monitors: which members are up.
//!
//! [`core`] decides when to probe what and what results mean, [`probe`] does the probing, and the
//! [`HealthEngine`] here connects the two on a thread of their own, and both to the [`MemberState`]s that balancing
//! reads.
//!
//! Members of weight 0 are probed; members and monitors that are administratively down are not. A member that is
//! probed no more keeps what was found last: sessions that began before may still ask for it. That a member of the
//! present configuration is used without checks, [`CheckState::NoCheck`], is for whoever knows the configuration to say.

#![expect(clippy::disallowed_types, reason = "between the control thread and the one that probes")]

pub mod core;
mod over_tls;
pub mod probe;

use std::{
    cmp::Reverse,
    collections::HashMap,
    fmt, io,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Instant, SystemTime},
};

use amphora_model::{HealthCheck, HealthMonitor, Member, Pool, PoolProtocol};
use nix::sys::eventfd::EventFd;
use tracing::{debug, info, warn};

pub use self::{core::Target, over_tls::TargetTls};
use self::{
    core::{Scheduler, TargetId, Verdict},
    probe::{CheckStatus, Outcome, prober::Prober},
};
use crate::{
    conn::proxy_protocol,
    logs::calendar::Wall,
    net,
    state::{CheckState, Failed, MemberState},
};

/// A member and how it is probed.
#[derive(Clone, Debug)]
pub struct Monitored {
    /// Told of every change.
    pub member: Arc<MemberState>,
    /// What is probed.
    pub target: Target,
}

/// The last result of a member's probes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What the probe found.
    pub outcome: Outcome,
    /// When it ended.
    pub at: SystemTime,
}

impl Target {
    /// How a member of this pool is probed; `None` when it is not: without an enabled monitor, or disabled.
    ///
    /// `tls` is that of a pool with `tls_enabled`.
    pub fn of_member(pool: &Pool, member: &Member, tls: Option<&TargetTls>) -> Option<Self> {
        let monitor = Self::monitor(pool).filter(|_| member.admin_state_up)?;
        Some(Self::new(pool, monitor, Arc::new(monitor.check.clone()), member, tls))
    }

    /// As [`of_member`](Self::of_member) for each member of the pool in turn; they share what they have in common.
    pub fn of_members(pool: &Pool, tls: Option<TargetTls>) -> impl Iterator<Item = Option<Self>> {
        let monitor = Self::monitor(pool).map(|monitor| (monitor, Arc::new(monitor.check.clone())));
        pool.members.iter().map(move |member| {
            let (monitor, check) = monitor.as_ref().filter(|_| member.admin_state_up)?;
            Some(Self::new(pool, monitor, Arc::clone(check), member, tls.as_ref()))
        })
    }

    /// What probes the members of the pool, unless it or the pool is disabled.
    pub fn monitor(pool: &Pool) -> Option<&HealthMonitor> {
        pool.health_monitor.as_ref().filter(|monitor| pool.admin_state_up && monitor.admin_state_up)
    }

    /// What a member is that this monitor is to look at before it gets anything.
    pub fn held_back(monitor: &HealthMonitor) -> CheckState {
        core::held_back(monitor.max_retries)
    }

    fn new(
        pool: &Pool,
        monitor: &HealthMonitor,
        check: Arc<HealthCheck>,
        member: &Member,
        tls: Option<&TargetTls>,
    ) -> Self {
        // As HAProxy's `check-send-proxy` and `check-ssl`, which are on where the check goes where traffic goes; an HTTPS monitor's
        // has TLS of its own.
        let elsewhere = member.monitor_address.is_some() || member.monitor_port.is_some();
        let proxy_protocol = match pool.protocol {
            _ if elsewhere || !probe::over_tcp(&monitor.check) => None,
            PoolProtocol::Proxy => Some(proxy_protocol::Version::V1),
            PoolProtocol::ProxyV2 => Some(proxy_protocol::Version::V2),
            _ => None,
        };
        let tls = match monitor.check {
            HealthCheck::Https(_) => tls.cloned(),
            HealthCheck::Http(_) | HealthCheck::Tcp if !elsewhere => tls.cloned(),
            _ => None,
        };
        Self {
            address: member.monitor_address.unwrap_or(member.address),
            // An echo has no port: members that differ in it alone are one target.
            port: match monitor.check {
                HealthCheck::Ping => 0,
                _ => member.monitor_port.unwrap_or(member.port),
            },
            check,
            delay: monitor.delay,
            proxy_protocol,
            tls,
            timeout: monitor.timeout,
            rise: monitor.max_retries,
            fall: monitor.max_retries_down,
            first_check: pool.member_options.first_check,
        }
    }

    /// Why this process cannot probe the target whatever its state, so that a document that asks for it is to be
    /// refused: `PING` and `SCTP` want a permission. Asks the kernel; does not send anything.
    pub fn unsupported(&self) -> Option<String> {
        match *self.check {
            HealthCheck::Ping => probe::ping_available(self.address).err().map(|error| error.to_string()),
            HealthCheck::Sctp => probe::sctp_available(self.address).err().map(|error| error.to_string()),
            _ => None,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match *self.check {
            HealthCheck::Http(_) => "HTTP",
            HealthCheck::Https(_) => "HTTPS",
            HealthCheck::Tcp => "TCP",
            HealthCheck::TlsHello => "TLS-HELLO",
            HealthCheck::UdpConnect => "UDP-CONNECT",
            HealthCheck::Sctp => "SCTP",
            HealthCheck::Ping => return write!(f, "PING {}", self.address),
        };
        match self.address {
            IpAddr::V4(ip) => write!(f, "{kind} {ip}:{}", self.port),
            IpAddr::V6(ip) => write!(f, "{kind} [{ip}]:{}", self.port),
        }
    }
}

/// Says which members are probed; from any thread, also one that may be held up.
#[derive(Clone, Debug)]
pub struct Assignments {
    shared: Arc<Shared>,
    waker: Arc<EventFd>,
}

impl Assignments {
    /// See [`HealthEngine::report`].
    pub fn report(&self, member: &Arc<MemberState>) -> Option<Report> {
        self.shared.lock().report(member)
    }

    /// See [`HealthEngine::update`].
    pub fn update(&self, monitored: impl IntoIterator<Item = Monitored>) {
        let monitored = monitored.into_iter().collect();
        self.shared.lock().update(net::now(), monitored);
        wake(&self.waker);
    }
}

/// A full counter, the one way in which this fails, wakes as well.
fn wake(waker: &EventFd) {
    let _ = waker.write(1);
}

/// Probes members, on a thread of its own; probing stops when it is dropped.
#[derive(Debug)]
pub struct HealthEngine {
    shared: Arc<Shared>,
    waker: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl HealthEngine {
    /// An engine without members. `seed` decides when probes start within their windows; of probes at most `max_in_flight`
    /// are under way at once.
    ///
    /// # Errors
    /// When there is no thread or no descriptor to be had.
    pub fn start(seed: u64, max_in_flight: usize) -> io::Result<Self> {
        let inner = Inner {
            core: Scheduler::new(seed, max_in_flight),
            watched: HashMap::new(),
            targets: HashMap::new(),
        };
        let shared = Arc::new(Shared { inner: Mutex::new(inner), stop: AtomicBool::new(false) });
        let prober = Prober::new(max_in_flight)?;
        let waker = prober.waker();
        let driven = Arc::clone(&shared);
        let thread = thread::Builder::new().name("health".into()).spawn(move || drive(&driven, prober))?;
        Ok(Self { shared, waker, thread: Some(thread) })
    }

    /// Makes these the members that are probed. At once:
    /// - one that is new, or was not probed, is up on its last chance (`UP 1/fall`), as HAProxy's are, or down until its first good check
    ///   where its pool says so;
    /// - one whose check changed keeps its state;
    /// - one that is no longer among them stays as it is.
    ///
    /// Members with equal targets share one probe and its state. What did not change goes on undisturbed.
    pub fn update(&mut self, monitored: impl IntoIterator<Item = Monitored>) {
        self.assignments().update(monitored);
    }

    /// To call [`update`](Self::update) from elsewhere.
    pub fn assignments(&self) -> Assignments {
        Assignments { shared: Arc::clone(&self.shared), waker: Arc::clone(&self.waker) }
    }

    /// The last result for a member; `None` before the first, or when it is not probed.
    pub fn report(&self, member: &Arc<MemberState>) -> Option<Report> {
        self.shared.lock().report(member)
    }

    /// Targets that are probed: members with equal ones count once.
    pub fn targets(&self) -> usize {
        self.shared.lock().core.len()
    }
}

impl Drop for HealthEngine {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        wake(&self.waker);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[derive(Debug)]
struct Shared {
    /// Of whoever changes the configuration and of the thread that probes; never held across a system call of a probe.
    inner: Mutex<Inner>,
    stop: AtomicBool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct Inner {
    core: Scheduler,
    watched: HashMap<TargetId, Watched>,
    /// By [`key`].
    targets: HashMap<usize, TargetId>,
}

/// What a target is to the outside.
#[derive(Debug, Default)]
struct Watched {
    /// Whose health its state is.
    members: Vec<Arc<MemberState>>,
    /// The last result.
    report: Option<Report>,
}

/// What tells states apart: a member that moved has a new state under the same id.
fn key(member: &Arc<MemberState>) -> usize {
    Arc::as_ptr(member) as usize
}

impl Inner {
    fn report(&self, member: &Arc<MemberState>) -> Option<Report> {
        self.watched.get(self.targets.get(&key(member))?)?.report.clone()
    }

    fn update(&mut self, now: Instant, monitored: Vec<Monitored>) {
        let mut monitored: Vec<_> = monitored
            .into_iter()
            .map(|m| {
                // What was found before a time without probes says nothing of now.
                let probed = self.targets.contains_key(&key(&m.member));
                let state = if probed { m.member.health.get() } else { CheckState::NoCheck };
                (m.member, (m.target, state))
            })
            .collect();
        // Where members with different pasts come to share a target, the best state is the one that it starts
        // with: a change of the configuration takes nobody down.
        monitored.sort_by_key(|(_, (_, state))| match *state {
            CheckState::Up => (0, Reverse(0)),
            CheckState::UpFailing { passed, .. } => (1, Reverse(passed)),
            CheckState::DownRising { passed, .. } => (2, Reverse(passed)),
            CheckState::Down => (3, Reverse(0)),
            CheckState::NoCheck => (4, Reverse(0)),
        });
        let (members, targets): (Vec<_>, Vec<_>) = monitored.into_iter().unzip();
        let ids = self.core.update(now, targets);
        for watched in self.watched.values_mut() {
            watched.members.clear();
        }
        self.targets.clear();
        for (member, id) in members.into_iter().zip(ids) {
            member.set_health(self.core.state(id));
            self.targets.insert(key(&member), id);
            self.watched.entry(id).or_default().members.push(member);
        }
        self.watched.retain(|_, watched| !watched.members.is_empty());
    }

    /// What a probe found, with what clients have been told: hosts send few ICMP errors to one address, which is that of clients, too,
    /// so that the probe may have been the one that got none. An error alone takes nobody down, since anyone may send one.
    fn with_refusals(&self, now: Instant, id: TargetId, outcome: Outcome) -> Outcome {
        let target = self.core.target(id).filter(|_| outcome.silent);
        let Some((target, watched)) = target.zip(self.watched.get(&id)) else { return outcome };
        let own = |member: &&Arc<MemberState>| (member.address, member.port) == (target.address, target.port);
        if watched.members.iter().filter(own).any(|member| member.is_refused(now)) {
            let detail = "no answer, and clients are told by ICMP that nobody listens on the port".into();
            return Outcome { status: CheckStatus::L4Connection, detail, silent: false, ..outcome };
        }
        outcome
    }

    fn result(&mut self, now: Instant, id: TargetId, outcome: Outcome) {
        let outcome = self.with_refusals(now, id, outcome);
        let (before, verdict) = (self.core.state(id), outcome.status.verdict());
        self.core.handle_result(now, id, verdict);
        // Each event is of this target: results are taken one by one, and an update makes none.
        let Some(Watched { members, report }) = self.watched.get_mut(&id) else { return };
        let known = report.as_ref().is_some_and(|last| last.outcome.status == outcome.status);
        if outcome.status == CheckStatus::SocketError && !known {
            warn!(%outcome, "a health probe could not be made");
        }
        if verdict == Verdict::Failed {
            let (at, what) = (Wall::now(), Failed::check(outcome.status.as_str(), outcome.code));
            for member in &*members {
                member.history().check_failed(before);
                what.into_iter().for_each(|what| member.record.failures.add(at, what));
            }
        }
        while let Some(event) = self.core.poll_event() {
            for member in &*members {
                let (pool, before) = (member.pool.id, member.health.get());
                member.checked(now, event.state);
                if before.is_up() != event.state.is_up() {
                    info!(target: amphora_logging::EACH, %pool, member = %member.id, state = %event.state, %outcome, "health changed");
                } else {
                    debug!(%pool, member = %member.id, state = %event.state, %outcome, "health changed");
                }
            }
        }
        #[expect(clippy::disallowed_methods, reason = "when it was, for a human")]
        let at = SystemTime::now();
        *report = Some(Report { outcome, at });
    }
}

/// Probes until told to stop.
fn drive(shared: &Shared, mut prober: Prober) {
    let mut starts = Vec::new();
    while !shared.stop.load(Ordering::Acquire) {
        let until = {
            let mut inner = shared.lock();
            let now = net::now();
            for (id, outcome) in prober.done() {
                inner.result(now, id, outcome);
            }
            inner.core.handle_timeout(now);
            while let Some(start) = inner.core.poll_probe(now) {
                starts.push(start);
            }
            inner.core.poll_timeout()
        };
        for (id, target) in starts.drain(..) {
            prober.start(id, target);
        }
        prober.turn(until);
    }
}

#[cfg(test)]
mod tests;
