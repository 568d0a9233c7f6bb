//! Typed identifiers: an Octavia id is a UUID, and each kind of object has its own type so that
//! a pool's id can never be looked up among members.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self)
            }
        }
    };
}

id!(
    /// `loadbalancer.id`.
    LoadBalancerId
);
id!(
    /// `listener.id`; the frontend's name in a rendered haproxy.cfg.
    ListenerId
);
id!(
    /// `pool.id`.
    PoolId
);
id!(
    /// `member.id`; the server's name in a rendered haproxy.cfg and the value of its `SRV` cookie.
    MemberId
);
id!(
    /// `healthmonitor.id`.
    HealthMonitorId
);
id!(
    /// `rate_limit_policy.id`.
    RateLimitPolicyId
);
id!(
    /// `rate_limit_rule.id`.
    RateLimitRuleId
);
id!(
    /// `l7policy.id`.
    L7PolicyId
);
id!(
    /// `rule.id`; the ACL's name in a rendered haproxy.cfg.
    L7RuleId
);
