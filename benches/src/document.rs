//! Load-balancer documents as Octavia's fully populated create call has them, with ids, in the parts that the
//! benchmarks vary. Field names are Octavia's.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use serde::Serialize;
use uuid::Uuid;

/// The document around a load balancer.
#[derive(Clone, Debug, Serialize)]
pub struct Document {
    /// The load balancer.
    pub loadbalancer: LoadBalancer,
}

/// `loadbalancer`.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "Octavia's names")]
pub struct LoadBalancer {
    pub id: Uuid,
    pub name: String,
    pub vip_address: IpAddr,
    pub listeners: Vec<Listener>,
    pub pools: Vec<Pool>,
}

/// `listener`.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "Octavia's names")]
pub struct Listener {
    pub id: Uuid,
    pub protocol: &'static str,
    pub protocol_port: u16,
    #[serde(skip_serializing_if = "Uuid::is_nil")]
    pub default_pool_id: Uuid,
    pub timeout_client_data: u32,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub insert_headers: BTreeMap<&'static str, &'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub l7policies: Vec<L7Policy>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_tls_container_ref: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub amphora: Option<Amphora>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rate_limit_policies: Vec<RateLimitPolicy>,
}

/// `rate_limit_policy`.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "Octavia's names")]
pub struct RateLimitPolicy {
    pub id: Uuid,
    pub action: &'static str,
    pub rules: Vec<RateLimitRule>,
}

/// `rate_limit_rule`.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "Octavia's names")]
pub struct RateLimitRule {
    pub id: Uuid,
    pub metric: &'static str,
    pub threshold: u32,
    pub interval: u32,
}

/// `amphora`, an object of this project's own.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "Octavia's names")]
pub struct Amphora {
    pub connection_logging: bool,
}

/// `amphora` of a pool: what it grants its members.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "names of docs/members.md")]
pub struct MemberOptions {
    pub slow_start: u32,
    pub first_check: bool,
    pub drain_timeout: u32,
    pub outlier_detection: OutlierDetection,
}

/// `outlier_detection`.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "names of docs/members.md")]
pub struct OutlierDetection {
    pub consecutive_failures: u32,
    pub ejection_time: u32,
}

/// `l7policy`.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "Octavia's names")]
pub struct L7Policy {
    pub id: Uuid,
    pub action: &'static str,
    pub position: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redirect_pool_id: Option<Uuid>,
    pub rules: Vec<L7Rule>,
}

/// `rule`.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "Octavia's names")]
pub struct L7Rule {
    pub id: Uuid,
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub compare_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    pub value: String,
}

/// `pool`.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "Octavia's names")]
pub struct Pool {
    pub id: Uuid,
    pub protocol: &'static str,
    pub lb_algorithm: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthmonitor: Option<HealthMonitor>,
    pub members: Vec<Member>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tls_enabled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_tls_container_ref: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub amphora: Option<MemberOptions>,
}

/// `healthmonitor`.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "Octavia's names")]
pub struct HealthMonitor {
    pub id: Uuid,
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub delay: u32,
    pub timeout: u32,
    pub max_retries: u32,
}

/// `member`.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs, reason = "Octavia's names")]
pub struct Member {
    pub id: Uuid,
    pub address: IpAddr,
    pub protocol_port: u16,
    pub weight: u16,
    pub admin_state_up: bool,
}

/// A UUID that says what it is for: the same two numbers give the same one.
pub fn id(kind: u16, number: u64) -> Uuid {
    // Version 4, variant 1: some readers look.
    Uuid::from_u128(
        (u128::from(kind) << 112) | (0x4 << 76) | (0x8 << 60) | u128::from(number & ((1 << 60) - 1)),
    )
}

/// Kinds for [`id`].
pub mod kind {
    #![allow(missing_docs, reason = "the names say it")]
    pub const LOAD_BALANCER: u16 = 1;
    pub const LISTENER: u16 = 2;
    pub const POOL: u16 = 3;
    pub const MEMBER: u16 = 4;
    pub const HEALTH_MONITOR: u16 = 5;
    pub const L7POLICY: u16 = 6;
    pub const L7RULE: u16 = 7;
}

impl Document {
    /// A load balancer on 127.0.0.1.
    pub fn new(listeners: Vec<Listener>, pools: Vec<Pool>) -> Self {
        Self {
            loadbalancer: LoadBalancer {
                id: id(kind::LOAD_BALANCER, 1),
                name: "bench".into(),
                vip_address: Ipv4Addr::LOCALHOST.into(),
                listeners,
                pools,
            },
        }
    }

    /// One HTTP listener whose pool has `members` members, with two policies that do not match what is sent.
    pub fn http_with_members(members: u64) -> Self {
        let addresses = (0..members).map(|n| SocketAddr::new(member_address(n), 80)).collect::<Vec<_>>();
        let listener = Listener::new(1, "HTTP", 8080, 1).with_l7policies(two_policies(1, 2));
        Self::new(vec![listener], vec![Pool::new(1, "HTTP", &addresses), Pool::new(2, "HTTP", &[])])
    }

    /// One HTTP listener with `policies` policies of one rule each.
    pub fn http_with_policies(policies: u64) -> Self {
        let member = [SocketAddr::new(member_address(0), 80)];
        let policies = (1..=policies)
            .map(|n| {
                L7Policy::to_pool(
                    n,
                    2,
                    L7Rule::new(n, "PATH", "STARTS_WITH", None, &format!("/application/{n}/")),
                )
            })
            .collect();
        let listener = Listener::new(1, "HTTP", 8080, 1).with_l7policies(policies);
        Self::new(vec![listener], vec![Pool::new(1, "HTTP", &member), Pool::new(2, "HTTP", &member)])
    }

    /// As JSON text.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("maps have string keys")
    }
}

/// A loopback address for member `number`, of 127.1.0.0/16 and those that follow it.
pub fn member_address(number: u64) -> IpAddr {
    let n = u32::try_from(number).expect("not that many members");
    Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 1, 0, 1)) + n).into()
}

/// The two policies of the comparison, `first` and the next by their numbers: 403 for paths under `/reject`, and `pool` for `X-Pool: second`.
pub fn two_policies(first: u64, pool: u64) -> Vec<L7Policy> {
    let (reject, second) = (first, first + 1);
    vec![
        L7Policy::reject(reject, L7Rule::new(reject, "PATH", "STARTS_WITH", None, "/reject")),
        L7Policy::to_pool(second, pool, L7Rule::new(second, "HEADER", "EQUAL_TO", Some("X-Pool"), "second")),
    ]
}

impl Listener {
    /// A listener with Octavia's default timeout.
    pub fn new(number: u64, protocol: &'static str, port: u16, default_pool: u64) -> Self {
        Self {
            id: id(kind::LISTENER, number),
            protocol,
            protocol_port: port,
            default_pool_id: id(kind::POOL, default_pool),
            timeout_client_data: 50_000,
            insert_headers: BTreeMap::new(),
            l7policies: Vec::new(),
            default_tls_container_ref: None,
            amphora: None,
            rate_limit_policies: Vec::new(),
        }
    }

    /// With the certificate of this id.
    pub fn with_certificate(mut self, id: &str) -> Self {
        self.default_tls_container_ref = Some(id.to_owned());
        self
    }

    /// With a line for each request, or connection.
    pub fn with_flow_log(mut self) -> Self {
        self.amphora = Some(Amphora { connection_logging: true });
        self
    }

    /// With so many requests of a client within so many seconds, and 429 beyond.
    pub fn with_rate_limit(mut self, threshold: u32, interval: u32) -> Self {
        let rule = RateLimitRule { id: Uuid::from_u128(1), metric: "REQUESTS", threshold, interval };
        let policy = RateLimitPolicy { id: Uuid::from_u128(1), action: "DENY", rules: vec![rule] };
        self.rate_limit_policies.push(policy);
        self
    }

    /// Without a pool, as PROMETHEUS listeners are.
    pub fn without_pool(mut self) -> Self {
        self.default_pool_id = Uuid::nil();
        self
    }

    /// With these policies, their positions counted from 1.
    pub fn with_l7policies(mut self, l7policies: Vec<L7Policy>) -> Self {
        self.l7policies = l7policies;
        for (policy, position) in self.l7policies.iter_mut().zip(1..) {
            policy.position = position;
        }
        self
    }

    /// With `X-Forwarded-For` for the members.
    pub fn with_forwarded_for(mut self) -> Self {
        self.insert_headers.insert("X-Forwarded-For", "true");
        self
    }
}

impl L7Policy {
    /// 403 when `rule` matches.
    pub fn reject(number: u64, rule: L7Rule) -> Self {
        let id = id(kind::L7POLICY, number);
        Self { id, action: "REJECT", position: 1, redirect_pool_id: None, rules: vec![rule] }
    }

    /// Another pool when `rule` matches.
    pub fn to_pool(number: u64, pool: u64, rule: L7Rule) -> Self {
        Self {
            id: id(kind::L7POLICY, number),
            action: "REDIRECT_TO_POOL",
            position: 1,
            redirect_pool_id: Some(self::id(kind::POOL, pool)),
            rules: vec![rule],
        }
    }
}

impl L7Rule {
    /// A rule.
    pub fn new(
        number: u64,
        kind: &'static str,
        compare_type: &'static str,
        key: Option<&str>,
        value: &str,
    ) -> Self {
        Self {
            id: id(self::kind::L7RULE, number),
            kind,
            compare_type,
            key: key.map(str::to_owned),
            value: value.to_owned(),
        }
    }
}

impl Pool {
    /// A pool with members of weight 1 and no health monitor.
    pub fn new(number: u64, protocol: &'static str, members: &[SocketAddr]) -> Self {
        Self {
            id: id(kind::POOL, number),
            protocol,
            lb_algorithm: "ROUND_ROBIN",
            healthmonitor: None,
            members: members.iter().zip(0..).map(|(a, n)| Member::new(number << 32 | n, *a)).collect(),
            tls_enabled: false,
            ca_tls_container_ref: None,
            amphora: None,
        }
    }

    /// Over TLS, verified by the authority of this id.
    pub fn with_tls(mut self, authority: &str) -> Self {
        (self.tls_enabled, self.ca_tls_container_ref) = (true, Some(authority.to_owned()));
        self
    }

    /// With every option that members may have, but that they wait for a first check.
    pub fn with_member_options(mut self) -> Self {
        self.amphora = Some(MemberOptions {
            slow_start: 30,
            first_check: false,
            drain_timeout: 60,
            outlier_detection: OutlierDetection { consecutive_failures: 5, ejection_time: 30 },
        });
        self
    }

    /// With a TCP health monitor, every 5 seconds.
    pub fn with_monitor(mut self, number: u64) -> Self {
        let id = id(kind::HEALTH_MONITOR, number);
        self.healthmonitor = Some(HealthMonitor { id, kind: "TCP", delay: 5, timeout: 3, max_retries: 1 });
        self
    }
}

impl Member {
    /// A member of weight 1.
    pub fn new(number: u64, address: SocketAddr) -> Self {
        Self {
            id: id(kind::MEMBER, number),
            address: address.ip(),
            protocol_port: address.port(),
            weight: 1,
            admin_state_up: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use amphora_model::LoadBalancer;

    use super::*;

    #[test]
    fn documents_are_accepted() {
        let mut options = Document::http_with_members(1);
        options.loadbalancer.pools =
            options.loadbalancer.pools.into_iter().map(Pool::with_member_options).collect();
        for document in [Document::http_with_members(300), Document::http_with_policies(100), options] {
            assert_eq!(LoadBalancer::from_json(&document.to_json()).map(drop), Ok(()));
        }
    }
}
