//! Health monitors: which members are up.
//!
//! [`core`] decides when to probe what and what results mean, [`probe`] does the probing, and the
//! [`HealthEngine`] here connects the two on the control thread's runtime, and both to the
//! [`MemberState`]s that balancing reads.
//!
//! Members of weight 0 are probed; members and monitors that are administratively down are not. A member that is
//! not probed is [`CheckState::NoCheck`].

pub mod core;
pub mod probe;

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
    fmt,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use nix::sys::resource::{Resource, getrlimit};
use tokio::{
    sync::Notify,
    task::{self, AbortHandle, JoinSet},
    time::Instant,
};
use tracing::{debug, info, warn};

pub use self::core::Target;
use self::{
    core::{Scheduler, TargetId, Verdict},
    probe::{CheckStatus, Outcome},
};
use crate::{
    model::{HealthCheck, HealthMonitor, Member, Pool},
    state::{CheckState, MemberState},
};

/// Probes under way at once, unless files are scarcer. Never reached, and so no probe late, while the sum over
/// all targets of (time that a probe takes / `delay`) is below it.
const MAX_IN_FLIGHT: usize = 4096;

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
    pub fn of_member(pool: &Pool, member: &Member) -> Option<Self> {
        let monitor = pool.health_monitor.as_ref().filter(|monitor| monitor.admin_state_up)?;
        (pool.admin_state_up && member.admin_state_up).then(|| Self::new(monitor, member))
    }

    fn new(monitor: &HealthMonitor, member: &Member) -> Self {
        Self {
            address: member.monitor_address.unwrap_or(member.address),
            // An echo has no port: members that differ in it alone are one target.
            port: match monitor.check {
                HealthCheck::Ping => 0,
                _ => member.monitor_port.unwrap_or(member.port),
            },
            check: monitor.check.clone(),
            delay: monitor.delay,
            timeout: monitor.timeout,
            rise: monitor.max_retries,
            fall: monitor.max_retries_down,
        }
    }

    /// Why this process cannot probe the target whatever its state, so that a document that asks for it is to be
    /// refused: `PING` wants a permission. Asks the kernel; does not send anything.
    pub fn unsupported(&self) -> Option<String> {
        match self.check {
            HealthCheck::Ping => probe::ping_available(self.address).err().map(|error| error.to_string()),
            _ => None,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.check {
            HealthCheck::Http(_) => "HTTP",
            HealthCheck::Https(_) => "HTTPS",
            HealthCheck::Tcp => "TCP",
            HealthCheck::TlsHello => "TLS-HELLO",
            HealthCheck::Ping => return write!(f, "PING {}", self.address),
        };
        match self.address {
            IpAddr::V4(ip) => write!(f, "{kind} {ip}:{}", self.port),
            IpAddr::V6(ip) => write!(f, "{kind} [{ip}]:{}", self.port),
        }
    }
}

/// Probes members. Lives on the control thread; probing stops when it is dropped.
#[derive(Debug)]
pub struct HealthEngine {
    shared: Arc<Shared>,
    driver: AbortHandle,
}

impl HealthEngine {
    /// An engine without members. `seed` decides when probes start within their windows.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O and time.
    pub fn new(seed: u64) -> Self {
        let files = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
        // The rest is for traffic.
        let max_in_flight = usize::try_from(files / 4).unwrap_or(usize::MAX).clamp(16, MAX_IN_FLIGHT);
        let inner = Inner {
            core: Scheduler::new(seed, max_in_flight),
            members: HashMap::new(),
            targets: HashMap::new(),
            reports: HashMap::new(),
        };
        let shared = Arc::new(Shared { inner: Mutex::new(inner), changed: Notify::new() });
        let driver = task::spawn(drive(shared.clone())).abort_handle();
        Self { shared, driver }
    }

    /// Makes these the members that are probed. At once:
    /// - one that is new, or was not probed, is up on its last chance (`UP 1/fall`), as HAProxy's are;
    /// - one whose check changed keeps its state;
    /// - one that is no longer among them is [`CheckState::NoCheck`].
    ///
    /// Members with equal targets share one probe and its state. What did not change goes on undisturbed.
    pub fn update(&mut self, monitored: impl IntoIterator<Item = Monitored>) {
        let mut monitored: Vec<_> = monitored.into_iter().collect();
        // Where members with different pasts come to share a target, the best state is the one that it starts
        // with: a change of the configuration takes nobody down.
        monitored.sort_by_key(|m| match m.member.health.get() {
            CheckState::Up => (0, Reverse(0)),
            CheckState::UpFailing { passed, .. } => (1, Reverse(passed)),
            CheckState::DownRising { passed, .. } => (2, Reverse(passed)),
            CheckState::Down => (3, Reverse(0)),
            CheckState::NoCheck => (4, Reverse(0)),
        });
        self.shared.lock().update(Instant::now(), monitored);
        self.shared.changed.notify_one();
    }

    /// The last result for a member; `None` before the first, or when it is not probed.
    pub fn report(&self, member: &Arc<MemberState>) -> Option<Report> {
        let inner = self.shared.lock();
        inner.reports.get(inner.targets.get(&key(member))?).cloned()
    }

    /// Targets that are probed: members with equal ones count once.
    pub fn targets(&self) -> usize {
        self.shared.lock().core.len()
    }
}

impl Drop for HealthEngine {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

#[derive(Debug)]
struct Shared {
    /// The control thread's alone, and never held across an await.
    inner: Mutex<Inner>,
    changed: Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct Inner {
    core: Scheduler,
    members: HashMap<TargetId, Vec<Arc<MemberState>>>,
    /// By [`key`].
    targets: HashMap<usize, TargetId>,
    reports: HashMap<TargetId, Report>,
}

/// What tells states apart: a member that moved has a new state under the same id.
fn key(member: &Arc<MemberState>) -> usize {
    Arc::as_ptr(member) as usize
}

impl Inner {
    fn update(&mut self, now: Instant, monitored: Vec<Monitored>) {
        let (members, targets): (Vec<_>, Vec<_>) = monitored
            .into_iter()
            .map(|m| {
                let state = m.member.health.get();
                (m.member, (m.target, state))
            })
            .unzip();
        let ids = self.core.update(now.into_std(), targets);
        let before = std::mem::take(&mut self.members);
        self.targets.clear();
        for (member, id) in members.into_iter().zip(ids) {
            member.set_health(self.core.state(id));
            self.targets.insert(key(&member), id);
            self.members.entry(id).or_default().push(member);
        }
        for member in before.into_values().flatten() {
            if !self.targets.contains_key(&key(&member)) {
                member.set_health(CheckState::NoCheck);
            }
        }
        let live: HashSet<_> = self.members.keys().collect();
        self.reports.retain(|id, _| live.contains(id));
    }

    fn result(&mut self, now: Instant, id: TargetId, outcome: Outcome) {
        let (before, verdict) = (self.core.state(id), outcome.status.verdict());
        self.core.handle_result(now.into_std(), id, verdict);
        if !self.members.contains_key(&id) {
            return;
        }
        if outcome.status == CheckStatus::SocketError {
            warn!(%outcome, "a health probe could not be made");
        }
        if verdict == Verdict::Failed {
            for member in self.members.get(&id).into_iter().flatten() {
                member.history().check_failed(before);
            }
        }
        while let Some(event) = self.core.poll_event() {
            for member in self.members.get(&event.target).into_iter().flatten() {
                let (pool, before) = (member.pool.id, member.health.get());
                member.checked(now.into_std(), event.state);
                if before.is_up() != event.state.is_up() {
                    info!(%pool, member = %member.id, state = %event.state, %outcome, "health changed");
                } else {
                    debug!(%pool, member = %member.id, state = %event.state, %outcome, "health changed");
                }
            }
        }
        self.reports.insert(id, Report { outcome, at: SystemTime::now() });
    }
}

async fn drive(shared: Arc<Shared>) {
    let mut probes = JoinSet::new();
    let mut under_way = HashMap::new();
    loop {
        let timeout = {
            let mut inner = shared.lock();
            let now = std::time::Instant::now();
            inner.core.handle_timeout(now);
            while let Some((id, target)) = inner.core.poll_probe(now) {
                let task = probes.spawn(async move { probe::run(&target).await });
                under_way.insert(task.id(), id);
            }
            inner.core.poll_timeout()
        };
        let timeout = async {
            match timeout {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        let finished = tokio::select! {
            Some(finished) = probes.join_next_with_id() => Some(finished),
            () = timeout => None,
            () = shared.changed.notified() => None,
        };
        match finished {
            Some(Ok((task, outcome))) => {
                if let Some(id) = under_way.remove(&task) {
                    shared.lock().result(Instant::now(), id, outcome);
                }
            }
            Some(Err(error)) => {
                warn!(%error, "a health probe died");
                if let Some(id) = under_way.remove(&error.id()) {
                    let now = std::time::Instant::now();
                    shared.lock().core.handle_result(now, id, Verdict::Unknown);
                }
            }
            None => {}
        }
    }
}

#[cfg(test)]
mod tests;
