//! Where requests go beyond Octavia's words.

use super::Generator;
use crate::{Pool, PoolCookie, PoolId, PoolProtocol, PoolShare, Routing, WeightedPools};

impl Generator {
    /// Of a listener, which is of `http` or not, and can send to these pools.
    pub(super) fn routing(&mut self, http: bool, reachable: &[PoolId], pools: &[Pool]) -> Routing {
        let speaks_http =
            |id: &PoolId| pools.iter().any(|pool| pool.id == *id && pool.protocol == PoolProtocol::Http);
        let alike: Vec<PoolId> = match reachable.first() {
            Some(first) if !http => {
                let first = speaks_http(first);
                reachable.iter().copied().filter(|id| speaks_http(id) == first).collect()
            }
            _ => reachable.to_vec(),
        };
        Routing { pools: if self.one_in(2) { self.weighted_pools(http, &alike) } else { None } }
    }

    /// Some of these pools, if there are two.
    pub(super) fn weighted_pools(&mut self, http: bool, pools: &[PoolId]) -> Option<WeightedPools> {
        let mut shares: Vec<PoolShare> = Vec::new();
        for pool in pools.iter().take(WeightedPools::MOST) {
            let weight = self.within(0..=usize::from(WeightedPools::MAX_WEIGHT)) as u16;
            shares.push(PoolShare { pool: *pool, weight });
        }
        let first = shares.first_mut()?;
        first.weight = first.weight.max(1);
        let cookie = |g: &mut Self| PoolCookie {
            name: g.pick(&["pool", "x-pool"]).to_owned(),
            max_age: g.some(|g| g.within(1..=86_400) as u32),
        };
        let cookie = if http { self.some(cookie) } else { None };
        (shares.len() > 1).then_some(WeightedPools { shares, cookie })
    }
}
