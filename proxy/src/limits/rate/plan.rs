//! The policies of a listener, compiled, and what they say of somebody.

mod look;

use std::{net::IpAddr, sync::Arc, time::Duration};

use amphora_model::{
    Listener, RateLimitAction, RateLimitMetric, RateLimitPolicy, RateLimitQueue, RateLimitRule,
};

pub use self::look::{Asked, Counted, Foreseen, Look, Seen};
use super::{
    Believed, Limiter, PolicyState, Successor, Waiting,
    client::network,
    moment::{Moment, Period},
    state::{Lined, TurnRequest},
    table::{Key, Kind, Turn},
};

/// A listener's rate limits.
#[derive(Debug)]
pub struct RateLimits {
    limiter: Arc<Limiter>,
    /// Judged at each request.
    requests: Box<[Policy]>,
    /// Judged when a client has connected.
    connections: Box<[Policy]>,
    believed: Option<Believed>,
    counts_bytes: bool,
}

/// A policy.
#[derive(Debug)]
struct Policy {
    state: Arc<PolicyState>,
    action: RateLimitAction,
    rules: Box<[Rule]>,
    /// How many of one client may wait: half of those that may, and of the connections that the listener may have.
    share: u32,
}

/// A rule.
#[derive(Debug)]
struct Rule {
    metric: RateLimitMetric,
    /// What it counts, of which rule, in which periods: the same for as long as counts live on.
    name: u64,
    /// What tells its counts from those of others.
    seed: u64,
    /// In units of 2^`unit` of what is counted.
    threshold: u32,
    unit: u32,
    /// In seconds.
    interval: u32,
    kind: Kind,
    /// The paths that count, in order, each with its part of the key; none: all.
    urls: Box<[(Box<[u8]>, u64)]>,
}

/// A threshold of so many units is reckoned closely enough.
const FINE: u64 = 1 << 20;

/// A client, as counts know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientHash(u64);

/// What is done with somebody who has broken a policy.
#[derive(Debug)]
pub struct Broken<'a> {
    /// The policy.
    pub policy: &'a Arc<PolicyState>,
    /// What it does.
    pub done: Done,
}

/// What is done.
#[derive(Debug)]
pub enum Done {
    /// 429: one more would pass after so long.
    Deny(Duration),
    /// The connection is closed.
    Reject,
    /// The client is not told.
    SilentDrop,
    /// It waits for so long at most, for all of these turns.
    Wait(Duration, Vec<Waiting>),
}

impl RateLimits {
    /// Compiles a listener's, as they follow those `before`; `None` if nothing is limited.
    pub fn compile(
        listener: &Listener,
        before: Option<&Self>,
        after: &mut Successor<'_>,
        workers: usize,
    ) -> Option<Self> {
        let mut requests = Vec::new();
        let mut connections = Vec::new();
        let mut limiter = None;
        for policy in &listener.rate_limit_policies {
            let state = after.policy(listener.id, policy, workers);
            // The kernel counts packets.
            let by_kernel = policy.rules.iter().all(|rule| rule.metric == RateLimitMetric::Packets);
            if !policy.enabled || by_kernel {
                continue;
            }
            let limiter = limiter.get_or_insert_with(|| after.limiter());
            let rules =
                policy.rules.iter().map(|rule| Rule::compile(rule, policy, limiter, before)).collect();
            let size = match policy.action {
                RateLimitAction::Queue(queue) => {
                    queue.size.min(listener.connection_limit.unwrap_or(u32::MAX))
                }
                _ => 0,
            };
            let compiled = Policy { state, action: policy.action, rules, share: size.div_ceil(2).max(1) };
            if compiled.is_of_connections() { connections.push(compiled) } else { requests.push(compiled) }
        }
        let is_of_bytes = |rule: &Rule| rule.metric == RateLimitMetric::Kbytes;
        let counts_bytes = requests.iter().any(|policy: &Policy| policy.rules.iter().any(is_of_bytes));
        let (requests, connections) = (requests.into(), connections.into());
        let believed = listener.trusted_proxies.as_ref().map(Believed::new);
        limiter.map(|limiter| Self { limiter, requests, connections, believed, counts_bytes })
    }

    /// Whose requests these are, if others are believed.
    #[inline]
    pub fn believed(&self) -> Option<&Believed> {
        self.believed.as_ref()
    }

    /// The client at an address.
    #[inline]
    pub fn client(&self, address: IpAddr) -> ClientHash {
        ClientHash(match network(address) {
            IpAddr::V4(address) => self.limiter.key.hash(&address.octets()),
            IpAddr::V6(address) => self.limiter.key.hash(&address.octets()),
        })
    }

    /// Whether requests are judged.
    #[inline]
    pub fn judges_requests(&self) -> bool {
        !self.requests.is_empty()
    }

    /// Whether connections are counted.
    pub fn counts_connections(&self) -> bool {
        !self.connections.is_empty() || self.rules_of_connections().next().is_some()
    }

    /// Counts a request for this path of a client that has connected as `peer`, and says which policy it has broken: the first, but
    /// that what would wait is refused by any other.
    #[inline]
    pub fn request(
        &self,
        client: ClientHash,
        peer: ClientHash,
        path: &[u8],
        now: Moment,
    ) -> Option<Broken<'_>> {
        let mut broken = None;
        for policy in &self.requests {
            let mut all = true;
            for rule in &policy.rules {
                all &= rule.count(&self.limiter, client, peer, path, now);
            }
            if all && broken.is_none() {
                broken = Some(policy);
            }
        }
        match broken {
            Some(policy) => Some(self.refuse(policy, client, peer, path, now)),
            None => self.wait(&self.requests, client, path, now),
        }
    }

    /// Counts a connection.
    pub fn connection(&self, peer: ClientHash, now: Moment) -> Option<Broken<'_>> {
        for rule in self.rules_of_connections() {
            rule.add(&self.limiter, rule.key(&self.limiter, peer, 0), 1, now);
        }
        let mut broken = None;
        for policy in &self.connections {
            let mut all = true;
            for rule in &policy.rules {
                all &= rule.is_broken_by(&self.limiter, rule.key(&self.limiter, peer, 0), 1, now);
            }
            if all && broken.is_none() {
                broken = Some(policy);
            }
        }
        match broken {
            Some(policy) => Some(self.refuse(policy, peer, peer, b"", now)),
            None => self.wait(&self.connections, peer, b"", now),
        }
    }

    /// Whether bytes are counted.
    #[inline]
    pub fn counts_bytes(&self) -> bool {
        self.counts_bytes
    }

    /// Counts bytes of a client, and says which policy it has broken by bytes alone.
    pub fn bytes(&self, client: ClientHash, bytes: u64, now: Moment) -> Option<Broken<'_>> {
        let is_of_bytes = |rule: &&Rule| rule.metric == RateLimitMetric::Kbytes;
        let mut broken = None;
        for policy in &self.requests {
            let mut all = true;
            for rule in &policy.rules {
                if is_of_bytes(&rule) {
                    let n = rule.bytes(bytes, now);
                    all &= rule.is_broken_by(&self.limiter, rule.key(&self.limiter, client, 0), n, now);
                } else {
                    all = false;
                }
            }
            if all && broken.is_none() {
                broken = Some(policy);
            }
        }
        broken.map(|policy| self.refuse(policy, client, client, b"", now))
    }

    /// The units that a rule of this name counts in.
    fn unit(&self, name: u64) -> Option<u32> {
        let mut rules = self.requests.iter().flat_map(|policy| &policy.rules);
        rules.find(|rule| rule.name == name).map(|rule| rule.unit)
    }

    /// Rules of connections in policies that are judged at requests.
    fn rules_of_connections(&self) -> impl Iterator<Item = &Rule> {
        let rules = self.requests.iter().flat_map(|policy| &policy.rules);
        rules.filter(|rule| rule.metric == RateLimitMetric::Connections)
    }

    #[cold]
    fn refuse<'a>(
        &self,
        policy: &'a Policy,
        client: ClientHash,
        peer: ClientHash,
        path: &[u8],
        now: Moment,
    ) -> Broken<'a> {
        let done = match policy.action {
            RateLimitAction::Deny | RateLimitAction::Queue(_) => {
                // One rule that is not broken is enough.
                let free =
                    policy.rules.iter().map(|rule| rule.free_after(&self.limiter, client, peer, path, now));
                Done::Deny(free.min().unwrap_or_default())
            }
            RateLimitAction::Reject => Done::Reject,
            RateLimitAction::SilentDrop => Done::SilentDrop,
        };
        Broken { policy: &policy.state, done }
    }

    /// Takes a turn at each that queues, and says how long that takes at most, by the one that takes longest.
    #[inline]
    fn wait<'a>(
        &self,
        policies: &'a [Policy],
        client: ClientHash,
        path: &[u8],
        now: Moment,
    ) -> Option<Broken<'a>> {
        let mut longest: Option<Broken<'a>> = None;
        for policy in policies {
            let RateLimitAction::Queue(queue) = policy.action else { continue };
            let Some(mut turn) = policy.turn(&self.limiter, queue, client, path, now) else { continue };
            match (&mut turn.done, longest.as_mut().map(|longest| &mut longest.done)) {
                (Done::Wait(wait, turns), Some(Done::Wait(longest_wait, others))) => {
                    others.append(turns);
                    if *wait > *longest_wait {
                        *longest_wait = *wait;
                        longest = longest.map(|longest| Broken { policy: turn.policy, ..longest });
                    }
                }
                (Done::Wait(..), _) => longest = Some(turn),
                // Those that it has had elsewhere are given back.
                _ => return Some(turn),
            }
        }
        longest
    }
}

#[cfg(test)]
impl RateLimits {
    /// The state of a policy that is judged at requests.
    pub(super) fn requests_state(&self, policy: usize) -> Arc<PolicyState> {
        Arc::clone(&self.requests[policy].state)
    }
}

impl Policy {
    /// Whether it is judged when a client connects: it speaks of nothing else, and is not answered by a response.
    fn is_of_connections(&self) -> bool {
        self.action != RateLimitAction::Deny
            && self.rules.iter().all(|rule| rule.metric == RateLimitMetric::Connections)
    }

    /// `None`: at once.
    fn turn(
        &self,
        limiter: &Arc<Limiter>,
        queue: RateLimitQueue,
        client: ClientHash,
        path: &[u8],
        now: Moment,
    ) -> Option<Broken<'_>> {
        let rule = self.rules.first()?;
        let url = rule.url(limiter, path)?;
        let key = rule.key(limiter, client, url);
        let (each, interval, patience) = self.pace(rule, queue);
        // Who does not have to wait has nothing to do with those who do.
        let wait = match limiter.table.turn(key, now, each, interval, 0) {
            Turn::After(_) => return None,
            Turn::TooLate(wait) => wait,
        };
        let done = if wait.0 > patience {
            Done::Deny(Moment(wait.0 - patience).span())
        } else {
            let asked = TurnRequest { key, each, ahead: interval, patience };
            match Waiting::line_up(&self.state, limiter, asked, now, wait, queue.size)? {
                Lined::Waits(waiting, wait) => Done::Wait(wait.span(), vec![waiting]),
                Lined::Refused(wait) => Done::Deny(wait.span()),
            }
        };
        Some(Broken { policy: &self.state, done })
    }

    /// How far turns lie apart, how many of them may be taken at once, and how long may be waited for one: all in time.
    #[inline]
    fn pace(&self, rule: &Rule, queue: RateLimitQueue) -> (u64, u64, u64) {
        let interval = u64::from(rule.interval) << 32;
        let each = (interval / u64::from(rule.threshold)).max(1);
        let patience = Moment::after(queue.timeout).0.min(each.saturating_mul(self.share.into()));
        (each, interval, patience)
    }
}

/// So many of something in units of a power of two, few enough that twice as many can be counted. What was counted `before` in larger
/// ones goes on in these, as long as they are still small beside it.
fn units(threshold: u64, before: Option<u32>) -> (u32, u32) {
    let unit = (u64::BITS - threshold.leading_zeros()).saturating_sub(31);
    let unit = before.filter(|before| *before > unit && threshold >> *before >= FINE).unwrap_or(unit);
    (u32::try_from(threshold >> unit).unwrap_or(u32::MAX).max(1), unit)
}

impl Rule {
    fn compile(
        rule: &RateLimitRule,
        policy: &RateLimitPolicy,
        limiter: &Limiter,
        before: Option<&RateLimits>,
    ) -> Self {
        let interval = u32::try_from(rule.interval.as_secs()).unwrap_or(u32::MAX).max(1);
        let mut text = [0; 22];
        text[..16].copy_from_slice(rule.id.0.as_bytes());
        text[16..20].copy_from_slice(&interval.to_le_bytes());
        text[20] = rule.metric as u8;
        let name = limiter.key.hash(&text);
        let (threshold, unit) = match rule.metric {
            RateLimitMetric::Kbytes => {
                let before = before.and_then(|before| before.unit(name));
                units(u64::from(rule.threshold) * 1024, before)
            }
            _ => (rule.threshold.max(1), 0),
        };
        // What was counted in other units is none of these.
        text[21] = unit as u8;
        let mut urls: Vec<_> =
            rule.urls.iter().map(|url| (url.as_bytes().into(), limiter.key.hash(url.as_bytes()))).collect();
        urls.sort();
        let kind = match policy.action {
            RateLimitAction::Queue(_) => Kind::Turn { interval },
            _ => Kind::Count { threshold },
        };
        Self {
            metric: rule.metric,
            name,
            seed: limiter.key.hash(&text),
            threshold,
            unit,
            interval,
            kind,
            urls: urls.into(),
        }
    }

    /// The path's part of the key; `None` when it does not count.
    #[inline]
    fn url(&self, limiter: &Limiter, path: &[u8]) -> Option<u64> {
        if self.metric != RateLimitMetric::RequestsPerUrl {
            return Some(0);
        }
        if self.urls.is_empty() {
            return Some(limiter.key.hash(path));
        }
        let found = self.urls.binary_search_by(|(url, _)| (**url).cmp(path)).ok()?;
        Some(self.urls[found].1)
    }

    #[inline]
    fn key(&self, limiter: &Limiter, client: ClientHash, url: u64) -> Key {
        // A bijection of the one under the other, so that what cannot be foreseen stays so (MurmurHash3's last step).
        let mix = |hash: u64| {
            let hash = (hash ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
            let hash = (hash ^ hash >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
            hash ^ hash >> 33
        };
        let hash = mix(client.0 ^ self.seed);
        limiter.table.key(if url == 0 { hash } else { mix(hash ^ url) }, self.kind)
    }

    /// Counts a request, and whether that is too much.
    #[inline]
    fn count(
        &self,
        limiter: &Limiter,
        client: ClientHash,
        peer: ClientHash,
        path: &[u8],
        now: Moment,
    ) -> bool {
        match (self.metric, self.kind) {
            (_, Kind::Turn { .. }) => false,
            (RateLimitMetric::Requests | RateLimitMetric::RequestsPerUrl, _) => self
                .url(limiter, path)
                .is_some_and(|url| self.is_broken_by(limiter, self.key(limiter, client, url), 1, now)),
            (RateLimitMetric::Connections, _) => self.is_broken(limiter, self.key(limiter, peer, 0), now),
            (RateLimitMetric::Kbytes, _) => self.is_broken(limiter, self.key(limiter, client, 0), now),
            // The kernel counts them.
            (RateLimitMetric::Packets, _) => false,
        }
    }

    #[inline]
    fn is_broken_by(&self, limiter: &Limiter, key: Key, n: u32, now: Moment) -> bool {
        if matches!(self.kind, Kind::Turn { .. }) {
            return false;
        }
        let period = Period::of(now, self.interval);
        period.rate(limiter.table.add(key, n, now, period)) > u64::from(self.threshold)
    }

    /// Whether what was counted so far is too much.
    #[inline]
    fn is_broken(&self, limiter: &Limiter, key: Key, now: Moment) -> bool {
        let period = Period::of(now, self.interval);
        period.rate(limiter.table.get(key, period)) > u64::from(self.threshold)
    }

    /// So many bytes in units: what is left is a unit as often as it is large, by the moment's last bits, which nobody chooses.
    fn bytes(&self, bytes: u64, now: Moment) -> u32 {
        let mask = (1_u64 << self.unit) - 1;
        u32::try_from((bytes + (now.0 & mask)) >> self.unit).unwrap_or(u32::MAX)
    }

    fn add(&self, limiter: &Limiter, key: Key, n: u32, now: Moment) {
        limiter.table.add(key, n, now, Period::of(now, self.interval));
    }

    fn free_after(
        &self,
        limiter: &Limiter,
        client: ClientHash,
        peer: ClientHash,
        path: &[u8],
        now: Moment,
    ) -> Duration {
        let whose = if self.metric == RateLimitMetric::Connections { peer } else { client };
        let url = self.url(limiter, path).unwrap_or(0);
        let period = Period::of(now, self.interval);
        let count = limiter.table.get(self.key(limiter, whose, url), period);
        period.free_after(count, self.threshold)
    }
}
