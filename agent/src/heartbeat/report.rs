//! Builds heartbeats from what the proxy says of itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use amphora_ipc::proxy::{ListenerSummary, MemberSummary, PoolSummary, Stats, Summary};
use amphora_model::{CheckState, ListenerId, ListenerProtocol, LoadBalancer, PoolId};

use crate::amphora::Unserved;

use super::{
    delta::{Counters, Deltas},
    message::{
        ListenerReport, ListenerStatus, MemberStatus, Message, PoolKey, PoolReport, PoolStatus, Traffic,
        VERSION,
    },
};

/// How many heartbeats may repeat the last statuses while the proxy does not answer in time. A proxy that is busy
/// for a moment must not look dead; of one that hangs the controller hears no more.
const PATIENCE: u32 = 2;

/// What is known of the proxy at the moment of a heartbeat.
#[derive(Clone, Copy, Debug)]
pub enum Observation<'a> {
    /// It answered.
    Answered {
        /// Its counters.
        stats: &'a Summary,
        /// The document that it was given.
        model: Option<&'a LoadBalancer>,
        /// What no document can have.
        unserved: &'a Unserved,
    },
    /// It did not answer in time.
    Late,
    /// It runs, and was given nothing.
    Idle {
        /// What no document can have.
        unserved: &'a Unserved,
    },
    /// It does not run.
    Absent,
}

/// Makes one heartbeat after another. No clock, no socket.
#[derive(Debug)]
pub struct Reporter {
    id: String,
    seq: u64,
    deltas: Deltas,
    pending: Option<Deltas>,
    last: Option<Message>,
    late: u32,
}

impl Reporter {
    /// A reporter for this amphora, going on from the counters that were reported before.
    pub fn new(id: String, deltas: Deltas) -> Self {
        Self { id, seq: 0, deltas, pending: None, last: None, late: 0 }
    }

    /// The next heartbeat. Its counters stay to be reported until [`sent`](Self::sent).
    ///
    /// `None` when nothing is known that could be said: the proxy runs, but has not answered for too long. A heartbeat
    /// without listeners would say that there are none, which is true of a proxy that does not run.
    ///
    /// `document` is what the proxy was known to run before it was asked: whatever it answered is of that, or of what came after.
    pub fn next(&mut self, observation: Observation<'_>, document: Option<&Arc<str>>) -> Option<Message> {
        self.pending = None;
        let mut message = match observation {
            Observation::Answered { stats, model, unserved } => {
                self.late = 0;
                let (mut message, next) = build(&self.deltas, stats, model);
                message.document = document.cloned();
                add(&mut message, unserved);
                add_idle(&mut message, stats, unserved);
                self.pending = Some(next);
                self.last = Some(without_traffic(&message));
                message
            }
            Observation::Late => {
                self.late += 1;
                self.last.clone().filter(|_| self.late <= PATIENCE)?
            }
            Observation::Idle { unserved } => {
                self.late = 0;
                let mut message = Message { document: document.cloned(), ..empty() };
                add(&mut message, unserved);
                self.last = Some(message.clone());
                message
            }
            Observation::Absent => {
                self.last = None;
                Message { document: document.cloned(), ..empty() }
            }
        };
        message.id.clone_from(&self.id);
        message.seq = self.seq;
        self.seq += 1;
        Some(message)
    }

    /// The heartbeat left: its counters are reported. True when that changed [`reported`](Self::reported).
    pub fn sent(&mut self) -> bool {
        match self.pending.take() {
            Some(pending) if pending != self.deltas => {
                self.deltas = pending;
                true
            }
            _ => false,
        }
    }

    /// The counters that were reported so far.
    pub fn reported(&self) -> &Deltas {
        &self.deltas
    }
}

/// The statuses as a heartbeat has them, without counters: what the status tree is made of.
pub fn statuses(stats: &Stats, model: Option<&LoadBalancer>, unserved: &Unserved) -> Message {
    let stats = stats.into();
    let (mut message, _) = build(&Deltas::default(), &stats, model);
    add_idle(&mut message, &stats, unserved);
    message
}

fn empty() -> Message {
    Message {
        id: String::new(),
        seq: 0,
        listeners: BTreeMap::new(),
        pools: BTreeMap::new(),
        ver: VERSION,
        document: None,
    }
}

fn without_traffic(message: &Message) -> Message {
    let mut message = message.clone();
    for listener in message.listeners.values_mut() {
        listener.stats = Traffic { conns: listener.stats.conns, ..Traffic::default() };
    }
    message
}

fn build(deltas: &Deltas, stats: &Summary, model: Option<&LoadBalancer>) -> (Message, Deltas) {
    let known = Known::new(model);
    let (added, next) =
        deltas.advance(&stats.instance, stats.listeners.iter().map(|(id, stats)| (*id, stats)));
    let mut message = empty();
    for (id, now) in &stats.listeners {
        message
            .listeners
            .insert(*id, listener(now, added[id], known.limits.get(id), known.prometheus.contains(id)));
    }
    for (id, pool) in stats.pools.iter().filter(|(id, _)| !known.disabled.contains(id)) {
        let report = report_pool(pool, false);
        for listener in pool.listeners.iter().filter(|listener| stats.listeners.contains_key(listener)) {
            if known.datagrams.contains(listener) {
                message.pools.insert(PoolKey { pool: *id, listener: None }, report_pool(pool, true));
                continue;
            }
            message.pools.insert(PoolKey { pool: *id, listener: Some(*listener) }, report.clone());
        }
    }
    (message, next)
}

/// Listeners and members that the proxy does not know of, as Octavia's own agent tells of them. The controller counts listeners.
fn add(message: &mut Message, unserved: &Unserved) {
    for id in &unserved.listeners {
        let silent = ListenerReport { status: ListenerStatus::Open, stats: Traffic::default() };
        message.listeners.entry(*id).or_insert(silent);
    }
    for (pool, member) in &unserved.members {
        if let Some(pool) = message.pools.get_mut(&PoolKey { pool: *pool, listener: None }) {
            pool.members.entry(*member).or_insert(MemberStatus::Maint);
        }
    }
}

/// Pools that nothing leads to, as HAProxy tells of each backend of its text.
fn add_idle(message: &mut Message, stats: &Summary, unserved: &Unserved) {
    for (id, listener) in &unserved.backends {
        let Some(pool) = stats.pools.get(id).filter(|_| message.listeners.contains_key(listener)) else {
            continue;
        };
        let key = PoolKey { pool: *id, listener: Some(*listener) };
        message.pools.entry(key).or_insert_with(|| report_pool(pool, false));
    }
}

/// What the counters do not tell.
#[derive(Default)]
struct Known {
    limits: BTreeMap<ListenerId, u32>,
    prometheus: BTreeSet<ListenerId>,
    datagrams: BTreeSet<ListenerId>,
    disabled: BTreeSet<PoolId>,
}

impl Known {
    fn new(model: Option<&LoadBalancer>) -> Self {
        let Some(model) = model else { return Self::default() };
        let listeners = &model.listeners;
        Self {
            limits: listeners.iter().filter_map(|l| l.connection_limit.map(|limit| (l.id, limit))).collect(),
            prometheus: listeners
                .iter()
                .filter(|l| l.protocol == ListenerProtocol::Prometheus)
                .map(|l| l.id)
                .collect(),
            datagrams: listeners.iter().filter(|l| l.protocol.is_forwarded()).map(|l| l.id).collect(),
            disabled: model.pools.iter().filter(|pool| !pool.admin_state_up).map(|pool| pool.id).collect(),
        }
    }
}

fn listener(now: &ListenerSummary, added: Counters, limit: Option<&u32>, prometheus: bool) -> ListenerReport {
    let full = limit.is_some_and(|&limit| now.active_connections >= u64::from(limit));
    let stats = Traffic {
        tx: added.bout,
        rx: added.bin,
        conns: now.active_connections,
        totconns: added.stot,
        ereq: added.ereq,
    };
    ListenerReport {
        status: if full { ListenerStatus::Full } else { ListenerStatus::Open },
        // Scraping is the operator's traffic, not the tenant's: it must not be billed.
        stats: if prometheus { Traffic::default() } else { stats },
    }
}

/// A pool of datagrams is as Octavia's agent makes it of IPVS, where a member of weight 0 is as good as another.
fn report_pool(pool: &PoolSummary, datagrams: bool) -> PoolReport {
    let usable = |m: &MemberSummary| m.admin_state_up && (datagrams || m.weight > 0) && m.check.is_up();
    let mut enabled = pool.members.values().filter(|m| !datagrams || m.admin_state_up).peekable();
    let up = enabled.peek().is_none() || enabled.any(usable);
    PoolReport {
        status: if up { PoolStatus::Up } else { PoolStatus::Down },
        members: pool.members.iter().map(|(id, stats)| (*id, member(stats, datagrams))).collect(),
    }
}

/// As Octavia's agent makes it of HAProxy's words: only a member that is wholly up can be `DRAIN`, so one that
/// nobody checks stays `no check` with weight 0. Of IPVS's words it makes `DRAIN` of each that gets nothing.
fn member(stats: &MemberSummary, datagrams: bool) -> MemberStatus {
    match stats.check {
        _ if !stats.admin_state_up => MemberStatus::Maint,
        CheckState::Up if stats.weight == 0 => MemberStatus::Drain,
        check if datagrams && stats.weight == 0 && check.is_up() => MemberStatus::Drain,
        check => MemberStatus::Check(check),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use amphora_model::MemberId;
    use uuid::Uuid;

    use super::*;
    use crate::fixture;

    fn next(reporter: &mut Reporter, stats: &Stats, model: &LoadBalancer) -> Message {
        reporter
            .next(
                Observation::Answered {
                    stats: &stats.into(),
                    model: Some(model),
                    unserved: &Unserved::default(),
                },
                Some(&"a1".into()),
            )
            .unwrap()
    }

    #[test]
    fn each_member_has_octavias_word() {
        let member_of = |admin_state_up, weight, check| {
            member(&MemberSummary { admin_state_up, weight, check }, false).to_string()
        };
        assert_eq!(member_of(false, 1, CheckState::Up), "MAINT");
        assert_eq!(member_of(false, 0, CheckState::Down), "MAINT");
        assert_eq!(member_of(true, 0, CheckState::Up), "DRAIN");
        assert_eq!(member_of(true, 0, CheckState::NoCheck), "no check");
        assert_eq!(member_of(true, 0, CheckState::UpFailing { passed: 1, of: 2 }), "UP 1/2");
        assert_eq!(member_of(true, 0, CheckState::Down), "DOWN");
        assert_eq!(member_of(true, 1, CheckState::DownRising { passed: 1, of: 2 }), "DOWN 1/2");
    }

    #[test]
    fn a_pool_is_up_while_a_member_is_usable_or_it_has_none() {
        let pool = |members: &[(u16, CheckState)]| {
            let members = members.iter().enumerate().map(|(i, &(weight, check))| {
                (MemberId(Uuid::from_u128(i as u128)), MemberSummary { weight, check, admin_state_up: true })
            });
            report_pool(&PoolSummary { listeners: Vec::new(), members: members.collect() }, false).status
        };
        assert_eq!(pool(&[]), PoolStatus::Up);
        assert_eq!(pool(&[(0, CheckState::NoCheck)]), PoolStatus::Down);
        assert_eq!(pool(&[(0, CheckState::Up), (1, CheckState::Down)]), PoolStatus::Down);
        assert_eq!(
            pool(&[(1, CheckState::Down), (1, CheckState::UpFailing { passed: 1, of: 2 })]),
            PoolStatus::Up
        );
    }

    #[test]
    fn datagrams_are_told_as_of_ipvs() {
        let pool = |members: &[(bool, u16, CheckState)]| {
            let members = members.iter().enumerate().map(|(i, &(admin_state_up, weight, check))| {
                (MemberId(Uuid::from_u128(i as u128)), MemberSummary { weight, check, admin_state_up })
            });
            let report =
                report_pool(&PoolSummary { listeners: Vec::new(), members: members.collect() }, true);
            let members: Vec<_> = report.members.values().map(ToString::to_string).collect();
            (report.status, members.join(", "))
        };
        assert_eq!(pool(&[(true, 0, CheckState::NoCheck)]), (PoolStatus::Up, "DRAIN".into()));
        assert_eq!(pool(&[(false, 1, CheckState::NoCheck)]), (PoolStatus::Up, "MAINT".into()));
        assert_eq!(
            pool(&[(true, 0, CheckState::Up), (true, 1, CheckState::Down)]),
            (PoolStatus::Up, "DRAIN, DOWN".into())
        );
        assert_eq!(
            pool(&[(false, 1, CheckState::NoCheck), (true, 1, CheckState::Down)]),
            (PoolStatus::Down, "MAINT, DOWN".into())
        );
    }

    #[test]
    fn what_no_document_has_is_told_all_the_same() {
        let (mut model, stats) = (fixture::load_balancer(), fixture::stats());
        model.listeners[0].protocol = ListenerProtocol::Udp;
        let pool = model.listeners[0].default_pool.unwrap();
        let (silent, off) = (ListenerId(Uuid::from_u128(7)), MemberId(Uuid::from_u128(8)));
        let unserved = Unserved {
            listeners: vec![silent, model.listeners[0].id],
            members: vec![(pool, off), (PoolId(Uuid::from_u128(9)), off)],
            backends: Vec::new(),
        };
        let mut reporter = Reporter::new("a".to_owned(), Deltas::default());
        let idle = reporter.next(Observation::Idle { unserved: &unserved }, None).unwrap();
        assert_eq!((idle.listeners.len(), idle.pools.len()), (2, 0));
        assert_eq!(reporter.next(Observation::Late, None).unwrap().listeners, idle.listeners);
        let (before, summary) = (next(&mut reporter, &stats, &model), Summary::from(&stats));
        let answered = Observation::Answered { stats: &summary, model: Some(&model), unserved: &unserved };
        let message = reporter.next(answered, None).unwrap();
        assert_eq!(message.listeners.len(), before.listeners.len() + 1);
        assert_eq!(message.listeners[&silent].status, ListenerStatus::Open);
        assert_eq!(message.pools.len(), before.pools.len());
        let members = &message.pools[&PoolKey { pool, listener: None }].members;
        assert_eq!(members[&off], MemberStatus::Maint);
    }

    #[test]
    fn a_backend_that_nothing_leads_to_is_told_of() {
        let (model, mut stats) = (fixture::load_balancer(), fixture::stats());
        let (listener, pool) = (model.listeners[0].id, model.pools[0].id);
        let idle = PoolId(Uuid::from_u128(7));
        let mut lonely = stats.pools[&pool].clone();
        lonely.listeners.clear();
        stats.pools.insert(idle, lonely);
        let absent = (ListenerId(Uuid::from_u128(8)), PoolId(Uuid::from_u128(9)));
        let backends = vec![(pool, listener), (idle, listener), (idle, absent.0), (absent.1, listener)];
        let unserved = Unserved { backends, ..Unserved::default() };
        let (before, message) =
            (statuses(&stats, Some(&model), &Unserved::default()), statuses(&stats, Some(&model), &unserved));
        let key = PoolKey { pool: idle, listener: Some(listener) };
        let mut expected = before.pools.clone();
        expected.insert(key, before.pools[&PoolKey { pool, listener: Some(listener) }].clone());
        assert_eq!(message.pools, expected);
        let answered =
            Observation::Answered { stats: &Summary::from(&stats), model: Some(&model), unserved: &unserved };
        let told = Reporter::new("a".to_owned(), Deltas::default()).next(answered, None);
        assert_eq!(told.unwrap().pools, expected);
    }

    #[test]
    fn counters_are_reported_until_a_heartbeat_leaves() {
        let (model, mut stats) = (fixture::load_balancer(), fixture::stats());
        let id = model.listeners[0].id;
        let mut reporter = Reporter::new("a".to_owned(), Deltas::default());
        stats.listeners.get_mut(&id).unwrap().bytes_in = 10;
        assert_eq!(next(&mut reporter, &stats, &model).listeners[&id].stats.rx, 10);
        let again = next(&mut reporter, &stats, &model);
        assert_eq!((again.seq, again.listeners[&id].stats.rx), (1, 10));
        assert!(reporter.sent());
        assert_eq!(next(&mut reporter, &stats, &model).listeners[&id].stats.rx, 0);
        assert!(!reporter.sent(), "nothing changed, nothing to write");
    }

    #[test]
    fn a_late_proxy_is_forgiven_twice_and_then_nothing_is_said() {
        let (model, mut stats) = (fixture::load_balancer(), fixture::stats());
        let id = model.listeners[0].id;
        stats.listeners.get_mut(&id).unwrap().bytes_in = 10;
        let mut reporter = Reporter::new("a".to_owned(), Deltas::default());
        assert_eq!(reporter.next(Observation::Late, None), None, "nothing is known yet");
        let first = next(&mut reporter, &stats, &model);
        reporter.sent();
        for _ in 0..PATIENCE {
            let late = reporter.next(Observation::Late, None).unwrap();
            assert_eq!((&late.pools, late.document.as_deref()), (&first.pools, Some("a1")));
            assert_eq!(late.listeners[&id].stats.rx, 0);
            assert!(!reporter.sent());
        }
        for _ in 0..10 {
            assert_eq!(reporter.next(Observation::Late, None), None);
        }
        assert_eq!(next(&mut reporter, &stats, &model).seq, first.seq + u64::from(PATIENCE) + 1);
        assert!(reporter.next(Observation::Absent, None).unwrap().listeners.is_empty());
        assert_eq!(reporter.next(Observation::Late, None), None);
    }

    #[test]
    fn prometheus_is_counted_as_a_listener_but_not_as_traffic() {
        let (mut model, mut stats) = (fixture::load_balancer(), fixture::stats());
        model.listeners[0].protocol = ListenerProtocol::Prometheus;
        let id = model.listeners[0].id;
        stats.listeners.get_mut(&id).unwrap().bytes_in = 10;
        let message = statuses(&stats, Some(&model), &Unserved::default());
        assert_eq!(message.listeners[&id].stats, Traffic::default());
    }

    #[test]
    fn a_listener_at_its_limit_is_full() {
        let (mut model, mut stats) = (fixture::load_balancer(), fixture::stats());
        let id = model.listeners[0].id;
        model.listeners[0].connection_limit = Some(2);
        stats.listeners.get_mut(&id).unwrap().active_connections = 2;
        assert_eq!(
            statuses(&stats, Some(&model), &Unserved::default()).listeners[&id].status,
            ListenerStatus::Full
        );
    }

    #[test]
    fn pools_are_keyed_by_listener_and_disabled_ones_left_out() {
        let (mut model, stats) = (fixture::load_balancer(), fixture::stats());
        let message = statuses(&stats, Some(&model), &Unserved::default());
        assert_eq!(message.pools.len(), 1);
        model.pools[0].admin_state_up = false;
        assert!(statuses(&stats, Some(&model), &Unserved::default()).pools.is_empty());
    }
}
