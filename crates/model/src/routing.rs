//! Where requests go, as far as Octavia has no words for it: what stands in `amphora` of listeners and L7 policies.

use crate::PoolId;

/// What a listener's `amphora` says of where requests go. By default nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routing {
    /// `default_pools`, in place of `default_pool`; of listeners that do not forward datagrams.
    pub pools: Option<WeightedPools>,
    /// `request_id`; of HTTP alone, as is the next.
    pub request_id: Option<RequestIdField>,
    /// `traceparent`.
    pub traceparent: Traceparent,
}

/// `request_id`: requests have an id, which members are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestIdField {
    /// `field`, the name of the field; a token.
    pub field: String,
    /// `keep`: what the client says it is stays, if it may be one.
    pub keep: bool,
}

impl RequestIdField {
    /// The field's name where none is given.
    pub const DEFAULT: &str = "X-Request-ID";
}

/// `traceparent` (W3C Trace Context).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Traceparent {
    /// `PASS`: it is a field as any.
    #[default]
    Pass,
    /// `BEGIN`: a request without a good one begins a trace.
    Begin,
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
