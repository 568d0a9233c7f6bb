//! What the limits would say of somebody, without counting him.

use std::{net::IpAddr, time::Duration};

use amphora_model::{RateLimitAction, RateLimitMetric, RateLimitPolicyId, RateLimitQueue};

use super::{ClientHash, Moment, Period, Policy, RateLimits, Rule, Turn, network};

/// Who would come, and with what.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Whose it is.
    pub client: IpAddr,
    /// Who has connected.
    pub peer: IpAddr,
    /// The path of a request, and how many bytes its head has; `None` of a connection that carries no requests.
    pub request: Option<(&'a [u8], u64)>,
    /// When.
    pub now: Moment,
}

/// What all of them would say.
#[derive(Clone, Debug)]
pub struct Look {
    /// Each policy.
    pub policies: Vec<Seen>,
    /// The one of them that would decide, if any is broken.
    pub decides: Option<usize>,
}

/// What a policy would say.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The policy's id.
    pub id: RateLimitPolicyId,
    /// Its rules, in their order.
    pub rules: Vec<Counted>,
    /// What would be done; `None` if it is not broken by this one.
    pub foreseen: Option<Foreseen>,
}

/// What a rule has counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Of which network.
    pub of: IpAddr,
    /// In this interval so far, in the unit of its metric; of a queue, turns that were taken in advance. `None` if this one would not
    /// be counted.
    pub count: Option<u64>,
    /// Whether this one would be too much.
    pub is_broken: bool,
}

/// What would be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Foreseen {
    /// 429: one more would pass after so long.
    Deny(Duration),
    /// The connection is closed.
    Reject,
    /// The client is not told.
    SilentDrop,
    /// It waits for so long.
    Wait(Duration),
    /// The session ends as soon as anything passes.
    Cut,
}

/// Where a policy is judged.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Connection,
    Request,
}

impl RateLimits {
    /// What they would say of a new connection, and of the request on it.
    pub fn look(&self, asked: &Asked<'_>) -> Look {
        let of = (self.client(asked.client), self.client(asked.peer));
        let connections =
            self.connections.iter().map(|policy| self.seen(policy, Stage::Connection, asked, of));
        let mut policies: Vec<_> = connections.collect();
        let first = self.decides(&self.connections, &policies);
        let begin = policies.len();
        policies.extend(self.requests.iter().map(|policy| self.seen(policy, Stage::Request, asked, of)));
        let then = self.decides(&self.requests, &policies[begin..]).map(|at| begin + at);
        // Who has waited for a connection may be refused at his request.
        let waits = first.is_some_and(|at| matches!(policies[at].foreseen, Some(Foreseen::Wait(_))));
        let decides = if waits { then.or(first) } else { first.or(then) };
        Look { policies, decides }
    }

    /// The first that refuses without a queue; or else the first queue that has no room, or that with the longest wait.
    fn decides(&self, policies: &[Policy], seen: &[Seen]) -> Option<usize> {
        let broken = || {
            let both = policies.iter().zip(seen).enumerate();
            both.filter_map(|(at, (policy, seen))| Some((at, policy, seen.foreseen?)))
        };
        let is_queue = |policy: &Policy| matches!(policy.action, RateLimitAction::Queue(_));
        let refuses = broken().find(|(_, policy, _)| !is_queue(policy));
        let full = || broken().find(|(_, _, foreseen)| !matches!(foreseen, Foreseen::Wait(_)));
        let longest = || {
            broken().max_by_key(|(at, _, foreseen)| match foreseen {
                Foreseen::Wait(wait) => (*wait, std::cmp::Reverse(*at)),
                _ => (Duration::ZERO, std::cmp::Reverse(*at)),
            })
        };
        refuses.or_else(full).or_else(longest).map(|(at, _, _)| at)
    }

    fn seen(&self, policy: &Policy, stage: Stage, asked: &Asked<'_>, of: (ClientHash, ClientHash)) -> Seen {
        let id = policy.state.id;
        if let (RateLimitAction::Queue(queue), Some(rule)) = (policy.action, policy.rules.first()) {
            let (counted, foreseen) = self.queued(policy, rule, queue, stage, asked, of);
            return Seen { id, rules: vec![counted], foreseen };
        }
        let (rules, free): (Vec<_>, Vec<_>) =
            policy.rules.iter().map(|rule| self.counted(rule, asked, of)).unzip();
        let is_judged = match stage {
            Stage::Connection => !self.believes(asked.peer),
            // Where there are no requests bytes alone are judged.
            Stage::Request => {
                let by_bytes = |rule: &Rule| rule.metric == RateLimitMetric::Kbytes;
                asked.request.is_some() || policy.rules.iter().all(by_bytes)
            }
        };
        let is_broken = is_judged && rules.iter().all(|rule| rule.is_broken);
        let foreseen = is_broken.then(|| match policy.action {
            _ if stage == Stage::Request && asked.request.is_none() => Foreseen::Cut,
            RateLimitAction::Deny | RateLimitAction::Queue(_) => {
                // One rule that is not broken is enough.
                Foreseen::Deny(free.into_iter().min().unwrap_or_default())
            }
            RateLimitAction::Reject => Foreseen::Reject,
            RateLimitAction::SilentDrop => Foreseen::SilentDrop,
        });
        Seen { id, rules, foreseen }
    }

    /// Whether others are believed of who has connected.
    fn believes(&self, peer: IpAddr) -> bool {
        self.believed.as_ref().is_some_and(|believed| believed.includes(peer))
    }

    /// What a rule has counted, and whether this one would be too much; after how long one more would not be.
    fn counted(
        &self,
        rule: &Rule,
        asked: &Asked<'_>,
        (client, peer): (ClientHash, ClientHash),
    ) -> (Counted, Duration) {
        let url = match asked.request {
            Some((path, _)) => rule.url(&self.limiter, path),
            None => Some(0),
        };
        let (address, whose, more) = match rule.metric {
            // Those of who is believed are not counted, and he is judged by what was all the same.
            RateLimitMetric::Connections => (asked.peer, peer, u32::from(!self.believes(asked.peer))),
            RateLimitMetric::Kbytes => {
                let head = asked.request.map_or(0, |(_, head)| head);
                (asked.client, client, rule.bytes(head, asked.now))
            }
            _ => (asked.client, client, 1),
        };
        let of = network(address);
        let Some(url) = url.filter(|_| rule.metric != RateLimitMetric::Packets) else {
            return (Counted { of, count: None, is_broken: false }, Duration::MAX);
        };
        let period = Period::of(asked.now, rule.interval);
        let mut count = self.limiter.table.get(rule.key(&self.limiter, whose, url), period);
        let rate = period.rate(count);
        count.now = count.now.saturating_add(more);
        let is_broken = period.rate(count) > u64::from(rule.threshold);
        let free = period.free_after(count, rule.threshold);
        let count = match rule.metric {
            RateLimitMetric::Kbytes => (rate << rule.unit) / 1024,
            _ => rate,
        };
        (Counted { of, count: Some(count), is_broken }, free)
    }

    /// The same of a queue, and when the turn would come.
    fn queued(
        &self,
        policy: &Policy,
        rule: &Rule,
        queue: RateLimitQueue,
        stage: Stage,
        asked: &Asked<'_>,
        (client, peer): (ClientHash, ClientHash),
    ) -> (Counted, Option<Foreseen>) {
        let (address, whose) = match stage {
            Stage::Connection => (asked.peer, peer),
            Stage::Request => (asked.client, client),
        };
        let of = network(address);
        let url = match (stage, asked.request) {
            (Stage::Connection, _) => (!self.believes(asked.peer)).then_some(0),
            (Stage::Request, Some((path, _))) => rule.url(&self.limiter, path),
            (Stage::Request, None) => None,
        };
        let Some(url) = url else { return (Counted { of, count: None, is_broken: false }, None) };
        let (each, interval, patience) = policy.pace(rule, queue);
        let key = rule.key(&self.limiter, whose, url);
        let (gathered, turn) = self.limiter.table.look(key, asked.now, each, interval, patience);
        let foreseen = match turn {
            Turn::After(Moment(0)) => None,
            Turn::After(wait) if policy.state.waiting() < queue.size => Some(Foreseen::Wait(wait.span())),
            Turn::After(wait) => Some(Foreseen::Deny(wait.span())),
            Turn::TooLate(wait) => Some(Foreseen::Deny(Moment(wait.0 - patience).span())),
        };
        // A connection has nothing that could be answered.
        let foreseen = match foreseen {
            Some(Foreseen::Deny(_)) if stage == Stage::Connection => Some(Foreseen::Reject),
            foreseen => foreseen,
        };
        (Counted { of, count: Some(gathered.div_ceil(each)), is_broken: foreseen.is_some() }, foreseen)
    }
}
