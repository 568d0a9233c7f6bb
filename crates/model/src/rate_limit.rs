//! Rate limits of a listener: Octavia's `rate_limit_policies` (its specification "Support for traffic rate limiting", version
//! 15), and by whose address clients are known.

use std::time::Duration;

use ipnet::IpNet;

use crate::{ListenerProtocol, RateLimitPolicyId, RateLimitRuleId, enums::octavia_enum};

octavia_enum!(
    /// `rate_limit_policy.action`, by its name.
    RateLimitActionName {
        /// 429.
        Deny = "DENY",
        /// The connection is closed without an answer.
        Reject = "REJECT",
        /// The same, and the client is not told.
        SilentDrop = "SILENT_DROP",
        /// What is too much waits for its turn.
        Queue = "QUEUE",
    }
);

octavia_enum!(
    /// `rate_limit_rule.metric`.
    RateLimitMetric {
        /// Requests of HTTP.
        Requests = "REQUESTS",
        /// The same, for each path of its own.
        RequestsPerUrl = "REQUESTS_PER_URL",
        /// Units of 1024 bytes, in both directions together.
        Kbytes = "KBYTES",
        /// Datagrams that clients send.
        Packets = "PACKETS",
        /// Connections that clients open. Not Octavia's.
        Connections = "CONNECTIONS",
    }
);

/// Octavia's rate limit policy: what is done with a client that has broken all of its rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimitPolicy {
    /// `id`.
    pub id: RateLimitPolicyId,
    /// `name`.
    pub name: String,
    /// `enabled`; one that is not limits nobody, and nothing is counted for it.
    pub enabled: bool,
    /// `action`.
    pub action: RateLimitAction,
    /// `rules`, 1 to [`MAX_RULES`](Self::MAX_RULES).
    pub rules: Vec<RateLimitRule>,
}

impl RateLimitPolicy {
    /// The most policies of a listener.
    pub const MAX_POLICIES: usize = 16;
    /// The most rules of a policy.
    pub const MAX_RULES: usize = 8;
}

/// What is done with what is too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateLimitAction {
    /// `DENY`.
    Deny,
    /// `REJECT`.
    Reject,
    /// `SILENT_DROP`.
    SilentDrop,
    /// `QUEUE`.
    Queue(RateLimitQueue),
}

impl RateLimitAction {
    /// Its name.
    pub fn name(self) -> RateLimitActionName {
        match self {
            Self::Deny => RateLimitActionName::Deny,
            Self::Reject => RateLimitActionName::Reject,
            Self::SilentDrop => RateLimitActionName::SilentDrop,
            Self::Queue(_) => RateLimitActionName::Queue,
        }
    }
}

/// The bounds of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimitQueue {
    /// `amphora.queue_timeout`: who would have to wait for longer is turned away at once.
    pub timeout: Duration,
    /// `amphora.queue_size`: how many wait at once.
    pub size: u32,
}

impl RateLimitQueue {
    /// The longest [`timeout`](Self::timeout), in seconds.
    pub const MAX_TIMEOUT: u64 = 60;
    /// The highest [`size`](Self::size).
    pub const MAX_SIZE: u32 = 100_000;
}

impl Default for RateLimitQueue {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(10), size: 1000 }
    }
}

/// Octavia's rate limit rule: broken while more than [`threshold`](Self::threshold) has come of a client within
/// [`interval`](Self::interval).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimitRule {
    /// `id`.
    pub id: RateLimitRuleId,
    /// `name`.
    pub name: String,
    /// `metric`.
    pub metric: RateLimitMetric,
    /// `threshold`, 1 to 2147483647.
    pub threshold: u32,
    /// `interval`, whole seconds, 1 to [`MAX_INTERVAL`](Self::MAX_INTERVAL).
    pub interval: Duration,
    /// `urls`: of [`RateLimitMetric::RequestsPerUrl`] the paths that count, at least one.
    pub urls: Vec<String>,
}

impl RateLimitRule {
    /// Octavia's default of [`interval`](Self::interval), in seconds.
    pub const DEFAULT_INTERVAL: u64 = 30;
    /// The longest [`interval`](Self::interval), in seconds: a day.
    pub const MAX_INTERVAL: u64 = 86_400;
    /// The most paths of a rule.
    pub const MAX_URLS: usize = 64;
}

/// Whose word is taken for a client's address: `amphora.trusted_proxies` and `amphora.client_address_header` of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedProxies {
    /// Who is believed.
    pub networks: Vec<IpNet>,
    /// The field that names clients, with what has come last at the end.
    pub header: String,
}

impl TrustedProxies {
    /// The default of [`header`](Self::header).
    pub const DEFAULT_HEADER: &'static str = "X-Forwarded-For";
    /// The most networks.
    pub const MAX_NETWORKS: usize = 256;
}

impl RateLimitMetric {
    /// Whether a rule of it can be kept on a listener of this protocol.
    pub fn is_of(self, protocol: ListenerProtocol) -> bool {
        match self {
            Self::Requests | Self::RequestsPerUrl => protocol.is_http(),
            Self::Kbytes | Self::Connections => {
                protocol.is_http() || matches!(protocol, ListenerProtocol::Tcp | ListenerProtocol::Https)
            }
            Self::Packets => protocol.is_forwarded(),
        }
    }
}

impl RateLimitActionName {
    /// Whether a listener of this protocol can do that.
    pub fn is_of(self, protocol: ListenerProtocol) -> bool {
        match self {
            Self::Deny => protocol.is_http(),
            Self::Reject | Self::Queue => {
                protocol.is_http() || matches!(protocol, ListenerProtocol::Tcp | ListenerProtocol::Https)
            }
            Self::SilentDrop => protocol != ListenerProtocol::Prometheus,
        }
    }
}
