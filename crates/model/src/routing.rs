//! Where requests go, as far as Octavia has no words for it: what stands in `amphora` of listeners and L7 policies.

use crate::PoolId;

/// What a listener's `amphora` says of where requests go. By default nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routing {
    /// `default_pools`, in place of `default_pool`; of listeners that do not forward datagrams.
    pub pools: Option<WeightedPools>,
}

/// `default_pools` or `redirect_pools`: what comes is shared among several pools.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightedPools {
    /// 2 to [`WeightedPools::MOST`], no pool twice, at least one of a weight above 0.
    pub shares: Vec<PoolShare>,
    /// `pool_persistence`; of HTTP alone.
    pub cookie: Option<PoolCookie>,
}

/// One of several pools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolShare {
    /// `pool_id`.
    pub pool: PoolId,
    /// `weight`, 0 to 256: its part of the sum of all weights. 0: those alone come whose cookie names it.
    pub weight: u16,
}

/// `pool_persistence`: clients stay with a pool by a cookie that the proxy sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolCookie {
    /// `cookie_name`, a token.
    pub name: String,
    /// `max_age` in seconds; `None`: the cookie goes when the client's session ends.
    pub max_age: Option<u32>,
}

impl WeightedPools {
    /// How many there may be.
    pub const MOST: usize = 16;

    /// The largest weight.
    pub const MAX_WEIGHT: u16 = 256;

    /// Their ids.
    pub fn ids(&self) -> impl Iterator<Item = PoolId> {
        self.shares.iter().map(|share| share.pool)
    }
}
