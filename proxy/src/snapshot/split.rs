//! Several pools that share what comes by weight (`default_pools`, `redirect_pools`), compiled.

use std::{collections::HashMap, sync::Arc};

use amphora_model::{L7Action, L7PolicyId, Listener, PoolCookie, PoolId, PoolShare, WeightedPools};

use crate::{
    balance::{Turns, hash::HashKey},
    http::cookie_values,
    state::PerWorker,
};

/// Those of a listener.
#[derive(Debug)]
pub struct Splits {
    /// In place of `default_pool`.
    default: Option<Split>,
    /// In place of `redirect_pool` of policies, in order of their places among the listener's.
    policies: Vec<(usize, L7PolicyId, Split)>,
}

/// Enabled pools that share.
#[derive(Debug)]
pub struct Split {
    shares: Box<[Share]>,
    /// The name of the cookie that clients stay by.
    cookie: Option<Box<[u8]>>,
    /// Whose turn it is. Lives on while the pools and their weights are the same.
    turns: Arc<PerWorker<Turns>>,
}

#[derive(Debug)]
struct Share {
    id: PoolId,
    /// Index into [`Snapshot::pools`](super::Snapshot::pools).
    pool: usize,
    weight: u16,
    /// What clients that stay with it have in their cookie.
    value: [u8; 16],
    /// The value of `Set-Cookie` for them; empty without a cookie.
    set_cookie: Arc<[u8]>,
}

/// Where a request goes.
#[derive(Debug)]
pub struct Chosen {
    /// Index into [`Snapshot::pools`](super::Snapshot::pools).
    pub pool: usize,
    /// The value of `Set-Cookie` that the client is to get.
    pub set_cookie: Option<Arc<[u8]>>,
}

impl Splits {
    /// Of a listener, whose splits `before` were these. `None` when there are none.
    pub(super) fn compile(
        listener: &Listener,
        enabled: &HashMap<PoolId, usize>,
        workers: usize,
        before: Option<&Self>,
    ) -> Option<Box<Self>> {
        let old = |id: L7PolicyId| {
            let mut policies = before.into_iter().flat_map(|before| &before.policies);
            policies.find(|(_, policy, _)| *policy == id).map(|(.., split)| split)
        };
        let default = listener.routing.pools.as_ref();
        let default = default.and_then(|pools| {
            Split::compile(pools, enabled, workers, before.and_then(|before| before.default.as_ref()))
        });
        let policies: Vec<_> = listener
            .l7policies
            .iter()
            .enumerate()
            .filter_map(|(place, policy)| {
                let L7Action::RedirectToPools(pools) = &policy.action else { return None };
                Some((place, policy.id, Split::compile(pools, enabled, workers, old(policy.id))?))
            })
            .collect();
        (default.is_some() || !policies.is_empty()).then(|| Box::new(Self { default, policies }))
    }

    /// What goes where no policy says otherwise.
    pub fn default(&self) -> Option<&Split> {
        self.default.as_ref()
    }

    /// Of the policy that has this place among the listener's.
    pub fn of_policy(&self, place: usize) -> Option<&Split> {
        let at = self.policies.binary_search_by_key(&place, |(place, ..)| *place).ok()?;
        Some(&self.policies[at].2)
    }
}

impl Split {
    /// `None` when no enabled pool has a weight.
    fn compile(
        pools: &WeightedPools,
        enabled: &HashMap<PoolId, usize>,
        workers: usize,
        before: Option<&Self>,
    ) -> Option<Self> {
        let share = |share: &PoolShare| {
            let value = value(share.pool);
            let set_cookie = pools.cookie.as_ref().map(|cookie| set_cookie(cookie, &value));
            let (id, pool) = (share.pool, *enabled.get(&share.pool)?);
            Some(Share { id, pool, weight: share.weight, value, set_cookie: set_cookie.unwrap_or_default() })
        };
        let shares: Box<[Share]> = pools.shares.iter().filter_map(share).collect();
        if shares.iter().all(|share| share.weight == 0) {
            return None;
        }
        let weights =
            |shares: &[Share]| shares.iter().map(|share| (share.id, share.weight)).collect::<Vec<_>>();
        let turns = match before.filter(|before| weights(&before.shares) == weights(&shares)) {
            Some(before) => Arc::clone(&before.turns),
            None => Arc::new(PerWorker::with(workers, || Turns::new(shares.len()))),
        };
        let cookie = pools.cookie.as_ref().map(|cookie| cookie.name.as_bytes().into());
        Some(Self { shares, cookie, turns })
    }

    /// Any of the pools, by its index into [`Snapshot::pools`](super::Snapshot::pools).
    pub fn any_pool(&self) -> Option<usize> {
        self.shares.first().map(|share| share.pool)
    }

    /// Whether clients stay by a cookie.
    pub fn has_cookie(&self) -> bool {
        self.cookie.is_some()
    }

    /// The pool that a client stays with, by these `Cookie` fields, if it is `able`.
    pub fn by_cookie<'a>(
        &self,
        cookies: impl Iterator<Item = &'a [u8]>,
        able: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let name = self.cookie.as_deref()?;
        let values = cookies.flat_map(|field| cookie_values(field, name));
        let named = |value: &[u8]| self.shares.iter().find(|share| share.value == *value);
        values.filter_map(named).map(|share| share.pool).find(|pool| able(*pool))
    }

    /// What these `Cookie` fields say of pools, whether or not that is gone by: the cookie's name, and the first of these pools that it
    /// names. `None` without one.
    pub fn named<'a>(
        &self,
        cookies: impl Iterator<Item = &'a [u8]>,
        pools: impl Iterator<Item = PoolId> + Clone,
    ) -> Option<(&[u8], Option<PoolId>)> {
        let name = self.cookie.as_deref()?;
        let mut values = cookies.flat_map(|field| cookie_values(field, name)).peekable();
        values.peek()?;
        let named = |of: &'a [u8]| pools.clone().find(|pool| value(*pool) == *of);
        Some((name, values.find_map(named)))
    }

    /// Chooses a pool for what a client asks with these `Cookie` fields. One that is not `able` has nobody to serve it: its clients
    /// and its share go to the others, if there is one that is.
    pub fn choose<'a>(
        &self,
        worker: usize,
        cookies: impl Iterator<Item = &'a [u8]>,
        able: impl Fn(usize) -> bool,
    ) -> Option<Chosen> {
        if let Some(pool) = self.by_cookie(cookies, &able) {
            return Some(Chosen { pool, set_cookie: None });
        }
        let turns = self.turns.of(worker);
        let weight = |index: usize| self.shares[index].weight;
        let next = turns.next(weight, |index| able(self.shares[index].pool));
        let share = &self.shares[next.or_else(|| turns.next(weight, |_| true))?];
        let set_cookie = self.cookie.as_ref().map(|_| Arc::clone(&share.set_cookie));
        Some(Chosen { pool: share.pool, set_cookie })
    }
}

/// A name for a pool that says nothing of it to who does not know its id, and is the same on both amphorae of a pair.
fn value(pool: PoolId) -> [u8; 16] {
    let hash = HashKey::of(pool.0).hash(b"pool");
    let mut value = [0; 16];
    for (place, digit) in value.iter_mut().enumerate() {
        *digit = b"0123456789abcdef"[(hash >> (60 - 4 * place)) as usize & 15];
    }
    value
}

fn set_cookie(cookie: &PoolCookie, value: &[u8]) -> Arc<[u8]> {
    let mut text = [cookie.name.as_bytes(), b"=", value, b"; path=/"].concat();
    if let Some(max_age) = cookie.max_age {
        text.extend_from_slice(format!("; max-age={max_age}").as_bytes());
    }
    text.into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use uuid::Uuid;

    use super::*;

    fn pool(n: u128) -> PoolId {
        PoolId(Uuid::from_u128(n))
    }

    fn split(weights: &[u16], cookie: bool, before: Option<&Split>) -> Option<Split> {
        let shares = (1..).zip(weights).map(|(n, weight)| PoolShare { pool: pool(n), weight: *weight });
        let cookie = cookie.then(|| PoolCookie { name: "at".into(), max_age: Some(60) });
        // The last is disabled.
        let enabled = (1..weights.len()).map(|n| (pool(n as u128), n - 1)).collect();
        Split::compile(&WeightedPools { shares: shares.collect(), cookie }, &enabled, 2, before)
    }

    fn chosen(split: &Split, worker: usize, cookie: &[u8], able: impl Fn(usize) -> bool) -> (usize, bool) {
        let chosen = split.choose(worker, [cookie].into_iter(), able).unwrap();
        (chosen.pool, chosen.set_cookie.is_some())
    }

    #[test]
    fn disabled_pools_have_no_share() {
        let split = split(&[3, 1, 4], false, None).unwrap();
        let mut counts = [0; 2];
        for _ in 0..400 {
            let (pool, tells) = chosen(&split, 1, b"", |_| true);
            assert!(!tells);
            counts[pool] += 1;
        }
        assert_eq!(counts, [300, 100]);
        assert!(self::split(&[0, 4], false, None).is_none());
    }

    #[test]
    fn who_has_a_cookie_stays_while_somebody_is_there() {
        let split = split(&[1, 0, 1], true, None).unwrap();
        let told = split.choose(0, [].into_iter(), |_| true).unwrap();
        let text = String::from_utf8(told.set_cookie.unwrap().to_vec()).unwrap();
        let (cookie, attributes) = text.split_once(';').unwrap();
        assert_eq!((told.pool, attributes), (0, " path=/; max-age=60"));
        assert!(cookie.starts_with("at=") && cookie.len() == 3 + 16);
        assert_eq!(chosen(&split, 0, cookie.as_bytes(), |_| true), (0, false));
        // One that drains keeps its own.
        let other = [b"a=b; at=", &value(pool(2))[..]].concat();
        assert_eq!(chosen(&split, 0, &other, |_| true), (1, false));
        assert_eq!(chosen(&split, 0, &other, |pool| pool == 0), (0, true));
        // Of one that is disabled, or none of these.
        let gone = [b"at=", &value(pool(3))[..]].concat();
        for cookie in [&gone[..], b"at=", b"at=0123456789abcdef"] {
            assert_eq!(chosen(&split, 0, cookie, |_| true), (0, true));
        }
        // Nobody is there at all: somebody has to say so.
        assert_eq!(chosen(&split, 0, b"", |_| false), (0, true));
    }

    #[test]
    fn turns_go_on_where_they_were() {
        let first = split(&[1, 9, 1], false, None).unwrap();
        let mut counts = [0; 2];
        let mut split = Some(first);
        for _ in 0..100 {
            let now = split.take().unwrap();
            counts[chosen(&now, 0, b"", |_| true).0] += 1;
            split = self::split(&[1, 9, 1], false, Some(&now));
        }
        assert_eq!(counts, [10, 90]);
    }
}
