//! Made-up load balancers: whatever a document can say, from a seed. For tests and benchmarks, of other crates too.
//!
//! The same seed gives the same load balancer in every run of one version. With proptest:
//! `any::<u64>().prop_map(arbitrary::load_balancer)`.

mod rate_limit;
mod routing;
mod tls;

pub use self::tls::{CERTIFICATES, crt_list};

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
    time::Duration,
};

use uuid::Uuid;

use super::{
    AlpnProtocol, CertificateId, ClientAuthentication, CompareType, FlowLog, HealthCheck, HealthMonitor,
    HealthMonitorId, Hsts, HttpCheck, HttpMethod, HttpVersion, InsertHeaders, L7Action, L7Policy, L7PolicyId,
    L7Rule, L7RuleId, L7Subject, LbAlgorithm, Listener, ListenerId, ListenerProtocol, ListenerTimeouts,
    ListenerTls, LoadBalancer, LoadBalancerId, Member, MemberId, MemberOptions, OutlierDetection, Pool,
    PoolId, PoolProtocol, PoolTls, RedirectCode, Routing, SessionPersistence, SourceNetwork, SslHeaders,
    TlsSettings, TlsVersion, Vip,
};

/// How many of each.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Listeners, at most 60,000.
    pub listeners: RangeInclusive<usize>,
    /// Pools.
    pub pools: RangeInclusive<usize>,
    /// Members of each pool.
    pub members: RangeInclusive<usize>,
    /// L7 policies of each HTTP listener.
    pub policies: RangeInclusive<usize>,
    /// Rules of each L7 policy, at most 50.
    pub rules: RangeInclusive<usize>,
    /// Whether there is TLS, and what comes with it: certificates `c0` to `c3`, authorities `ca`, revocations `crl`.
    pub tls: bool,
    /// Whether there are listeners and pools of UDP and SCTP.
    pub udp: bool,
    /// Whether there are flow logs.
    pub flow_logs: bool,
    /// Whether there are rate limits.
    pub rate_limits: bool,
    /// Whether requests are routed by what Octavia has no words for.
    pub routing: bool,
    /// Whether pools grant their members what Octavia has no words for.
    pub member_options: bool,
}

impl Default for Shape {
    /// A few of each, or none; plain, without logs.
    fn default() -> Self {
        Self {
            listeners: 0..=4,
            pools: 0..=4,
            members: 0..=5,
            policies: 0..=4,
            rules: 0..=3,
            tls: false,
            udp: false,
            flow_logs: false,
            rate_limits: false,
            routing: false,
            member_options: false,
        }
    }
}

/// A load balancer with a few of each.
pub fn load_balancer(seed: u64) -> LoadBalancer {
    Generator::new(seed).load_balancer(&Shape::default())
}

/// A stream of made-up objects.
#[derive(Clone, Debug)]
pub struct Generator {
    state: u64,
}

impl Generator {
    /// The stream of this seed.
    pub fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// Any number (SplitMix64).
    pub fn number(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in the range.
    pub fn within(&mut self, range: RangeInclusive<usize>) -> usize {
        let span = (range.end() - range.start()) as u64 + 1;
        range.start() + (self.number() % span) as usize
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.within(1..=n) == n
    }

    /// One of the list, which is not empty.
    pub fn pick<T: Clone>(&mut self, list: &[T]) -> T {
        list[self.within(0..=list.len() - 1)].clone()
    }

    /// A load balancer that differs from `lb` in one thing, as a tenant's change would: something comes, goes, moves or
    /// is set otherwise. What its shape leaves nothing to change of is returned as it is.
    pub fn changed(&mut self, lb: &LoadBalancer, shape: &Shape) -> LoadBalancer {
        let mut lb = lb.clone();
        let listener = self.index(lb.listeners.len());
        let pool = self.index(lb.pools.len());
        match (self.within(0..=9), listener, pool) {
            (0, ..) => lb.admin_state_up = !lb.admin_state_up,
            (1, ..) => lb.pools.push(self.pool(shape)),
            (2, Some(l), _) => drop(lb.listeners.remove(l)),
            (3, Some(l), _) => lb.listeners[l].admin_state_up ^= true,
            // Ports are given out below 65,001 (see `load_balancer`), one for each index.
            (4, Some(l), _) => {
                let top = lb.listeners.iter().map(|listener| listener.port).max().unwrap_or(1);
                lb.listeners[l].port = if top < u16::MAX { top + 1 } else { lb.listeners[l].port };
            }
            (5, Some(l), _) => {
                lb.listeners[l].l7policies.reverse();
                for (position, policy) in (1..).zip(&mut lb.listeners[l].l7policies) {
                    policy.position = position;
                }
            }
            (6, _, Some(p)) => lb.pools[p].lb_algorithm = self.pick(LbAlgorithm::ALL),
            (7, _, Some(p)) => {
                let new = self.member();
                let members = &mut lb.pools[p].members;
                let endpoint = |member: &Member| (member.address, member.port);
                if members.iter().all(|member| endpoint(member) != endpoint(&new)) {
                    members.push(new);
                }
            }
            (8, _, Some(p)) => {
                if let Some(m) = self.index(lb.pools[p].members.len()) {
                    lb.pools[p].members.remove(m);
                }
            }
            (_, _, Some(p)) => {
                if let Some(m) = self.index(lb.pools[p].members.len()) {
                    lb.pools[p].members[m].weight = self.within(0..=256) as u16;
                }
            }
            _ => lb.name = self.name(),
        }
        lb
    }

    fn index(&mut self, len: usize) -> Option<usize> {
        (len > 0).then(|| self.within(0..=len - 1))
    }

    fn some<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.one_in(2).then(|| make(self))
    }

    fn list<T>(&mut self, range: &RangeInclusive<usize>, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.within(range.clone())).map(|_| make(self)).collect()
    }

    fn uuid(&mut self) -> Uuid {
        Uuid::from_u64_pair(self.number(), self.number())
    }

    fn name(&mut self) -> String {
        self.pick(&["", "web", "api-1", "ünïcode name", "with \"quotes\" \\ and {braces}"]).to_owned()
    }

    fn millis(&mut self) -> Duration {
        Duration::from_millis(self.within(1..=2_073_600_000) as u64)
    }

    fn address(&mut self) -> IpAddr {
        let bits = self.number();
        match bits % 3 {
            0 => Ipv6Addr::from_bits((0x2001_0db8_u128 << 96) | u128::from(bits >> 2)).into(),
            _ => Ipv4Addr::from_bits((10 << 24) | ((bits >> 32) & 0xff_ffff) as u32).into(),
        }
    }

    fn port(&mut self) -> u16 {
        self.within(1..=65_535) as u16
    }

    /// A load balancer of this shape.
    pub fn load_balancer(&mut self, shape: &Shape) -> LoadBalancer {
        let pools = self.list(&shape.pools, |g| g.pool(shape));
        let mut vips: Vec<Vip> = Vec::new();
        for _ in 0..self.within(1..=3) {
            let address = self.address();
            if vips.iter().all(|vip| vip.address != address) {
                vips.push(Vip { address });
            }
        }
        let base = self.within(1..=5_000);
        let mut listeners = self.list(&shape.listeners, |g| g.listener(shape, &pools, &vips));
        for (i, listener) in listeners.iter_mut().enumerate() {
            listener.port = (base + i) as u16;
        }
        LoadBalancer {
            id: LoadBalancerId(self.uuid()),
            name: self.name(),
            admin_state_up: !self.one_in(8),
            vips,
            listeners,
            pools,
        }
    }

    fn listener(&mut self, shape: &Shape, pools: &[Pool], vips: &[Vip]) -> Listener {
        let protocol = match self.one_in(3) {
            true => self.pick(ListenerProtocol::ALL),
            false => ListenerProtocol::Http,
        };
        let protocol = match protocol {
            ListenerProtocol::Http if shape.tls && self.one_in(2) => ListenerProtocol::TerminatedHttps,
            ListenerProtocol::TerminatedHttps if !shape.tls => ListenerProtocol::Http,
            ListenerProtocol::Udp | ListenerProtocol::Sctp if !shape.udp => ListenerProtocol::Http,
            protocol => protocol,
        };
        let http = protocol.is_http();
        let terminated = protocol == ListenerProtocol::TerminatedHttps;
        let reachable: Vec<PoolId> = pools
            .iter()
            .filter(|pool| protocol.carries(pool.protocol))
            .filter(|pool| {
                http || pool.protocol == PoolProtocol::Http
                    || matches!(
                        pool.session_persistence,
                        None | Some(SessionPersistence::SourceIp | SessionPersistence::SourceNetwork(_))
                    )
            })
            .map(|pool| pool.id)
            .collect();
        let policies = if http { shape.policies.clone() } else { 0..=0 };
        let mut l7policies = self.list(&policies, |g| g.l7policy(shape, &reachable));
        for (position, policy) in (1..).zip(&mut l7policies) {
            policy.position = position;
        }
        let mut allowed_cidrs = Vec::new();
        for _ in 0..self.within(0..=2) {
            let address = self.address();
            let prefix = self.within(0..=32) as u8;
            let cidr = ipnet::IpNet::new_assert(address, prefix).trunc();
            let family = vips.iter().any(|vip| vip.address.is_ipv4() == address.is_ipv4());
            if family && !allowed_cidrs.contains(&cidr) {
                allowed_cidrs.push(cidr);
            }
        }
        let mut default_pool = (!reachable.is_empty() && !self.one_in(5)).then(|| self.pick(&reachable));
        let mut routing = Routing::default();
        if shape.routing && !protocol.is_forwarded() && protocol != ListenerProtocol::Prometheus {
            routing = self.routing(http, &reachable, pools);
            default_pool = default_pool.filter(|_| routing.pools.is_none());
        }
        let rate_limit_policies = self.rate_limit_policies(shape, protocol);
        Listener {
            id: ListenerId(self.uuid()),
            name: self.name(),
            admin_state_up: !self.one_in(6),
            protocol,
            port: self.port(),
            connection_limit: self.some(|g| g.within(1..=i32::MAX as usize) as u32),
            member_connection_limit: match protocol {
                ListenerProtocol::Udp | ListenerProtocol::Sctp => {
                    self.some(|g| g.within(1..=i32::MAX as usize) as u32)
                }
                _ => None,
            },
            tls: match protocol {
                ListenerProtocol::TerminatedHttps => Some(self.listener_tls(true)),
                ListenerProtocol::Prometheus if shape.tls => self.some(|g| g.listener_tls(false)),
                _ => None,
            },
            default_pool,
            insert_headers: match http {
                true => InsertHeaders {
                    x_forwarded_for: self.one_in(2),
                    x_forwarded_port: self.one_in(2),
                    x_forwarded_proto: self.one_in(2),
                    ssl: match terminated {
                        true => self.ssl_headers(),
                        false => SslHeaders::default(),
                    },
                },
                false => InsertHeaders::default(),
            },
            l7policies,
            timeouts: match self.one_in(2) {
                true => ListenerTimeouts::default(),
                false => ListenerTimeouts {
                    client_data: self.millis(),
                    member_connect: self.millis(),
                    member_data: self.millis(),
                    tcp_inspect: self.some(Self::millis).unwrap_or_default(),
                },
            },
            allowed_cidrs,
            flow_log: match shape.flow_logs
                && protocol != ListenerProtocol::Prometheus
                && !protocol.is_forwarded()
                && !self.one_in(3)
            {
                true => Some(FlowLog {
                    format: self.pick(&["%ci:%cp %f", "%ci [%t] \"é\" %b/%s", "-"]).into(),
                    facility: self.within(0..=7) as u8,
                }),
                false => None,
            },
            trusted_proxies: match http && !rate_limit_policies.is_empty() && self.one_in(4) {
                true => Some(self.trusted_proxies()),
                false => None,
            },
            rate_limit_policies,
            routing,
        }
    }

    fn l7policy(&mut self, shape: &Shape, pools: &[PoolId]) -> L7Policy {
        let codes = [301, 302, 303, 307, 308].map(RedirectCode::from_code).map(Option::unwrap_or_default);
        let code = self.pick(&codes);
        let action = match self.within(0..=if shape.routing { 5 } else { 3 }) {
            4 => L7Action::Edit,
            5 => L7Action::Answer(Box::new(self.answer())),
            0 => L7Action::Reject,
            1 => L7Action::RedirectToUrl { url: "https://example.com/a?b=c#d".into(), code },
            2 => L7Action::RedirectPrefix { prefix: "https://example.com:8443/prefix".into(), code },
            _ if pools.is_empty() => L7Action::Reject,
            _ if shape.routing && self.one_in(2) => match self.weighted_pools(true, pools) {
                Some(several) => L7Action::RedirectToPools(several),
                None => L7Action::RedirectToPool(self.pick(pools)),
            },
            _ => L7Action::RedirectToPool(self.pick(pools)),
        };
        let edits = match &action {
            L7Action::Edit => Some(Box::new(self.edits())),
            L7Action::RedirectToPool(_) | L7Action::RedirectToPools(_) if shape.routing => {
                self.some(|g| Box::new(g.edits()))
            }
            _ => None,
        };
        L7Policy {
            id: L7PolicyId(self.uuid()),
            name: self.name(),
            admin_state_up: !self.one_in(6),
            position: 0,
            action,
            edits,
            rules: self.list(&shape.rules, |g| g.l7rule(shape)),
        }
    }

    fn l7rule(&mut self, shape: &Shape) -> L7Rule {
        let subject = match self.within(0..=if shape.tls { 7 } else { 4 }) {
            0 => L7Subject::HostName,
            1 => L7Subject::Path,
            2 => L7Subject::FileType,
            5 => L7Subject::SslConnHasCert,
            6 => L7Subject::SslVerifyResult,
            7 => L7Subject::SslDnField(self.pick(&["CN", "O", "emailAddress"]).to_owned()),
            3 => L7Subject::Header(self.pick(&["X-Test", "accept", "X_Odd.Name"]).to_owned()),
            _ => L7Subject::Cookie(self.pick(&["session", "SRV"]).to_owned()),
        };
        let compare = match subject {
            L7Subject::FileType => self.pick(&[CompareType::Regex, CompareType::EqualTo]),
            L7Subject::SslConnHasCert | L7Subject::SslVerifyResult => CompareType::EqualTo,
            _ => self.pick(CompareType::ALL),
        };
        let value = match (compare, &subject) {
            (CompareType::Regex, _) => self.pick(&["^/a(b|c)+$", "[0-9]{2,3}", "a.*b c", "\\.jpg$"]),
            (_, L7Subject::SslConnHasCert) => self.pick(&["True", "true"]),
            (_, L7Subject::SslVerifyResult) => self.pick(&["0", "10", "23"]),
            (_, L7Subject::SslDnField(_)) => self.pick(&["client", "Example, Inc.", "ünïcode"]),
            (_, L7Subject::FileType) => self.pick(&["jpg", ".png", "tar.gz"]),
            (_, L7Subject::HostName) => self.pick(&["www.example.com", "example", "EXAMPLE.com:8080"]),
            (_, L7Subject::Path) => self.pick(&["/", "/api/v1", "/a%20b"]),
            _ => self.pick(&["abc", "a=b&c", "1"]),
        };
        L7Rule {
            id: L7RuleId(self.uuid()),
            admin_state_up: !self.one_in(6),
            invert: self.one_in(4),
            subject,
            compare,
            value: value.to_owned(),
        }
    }

    fn pool(&mut self, shape: &Shape) -> Pool {
        let protocol = match self.one_in(2) {
            true => self.pick(PoolProtocol::ALL),
            false => PoolProtocol::Http,
        };
        let protocol = match protocol {
            PoolProtocol::Udp | PoolProtocol::Sctp if !shape.udp => PoolProtocol::Http,
            protocol => protocol,
        };
        let datagrams = protocol.is_forwarded();
        let cookies = !datagrams && !matches!(protocol, PoolProtocol::Tcp | PoolProtocol::Https);
        let session_persistence = match self.within(0..=5) {
            0 if datagrams => Some(SessionPersistence::SourceNetwork(self.source_network())),
            0 => Some(SessionPersistence::SourceIp),
            1 if cookies => Some(SessionPersistence::HttpCookie),
            2 if cookies => Some(SessionPersistence::AppCookie { cookie_name: "JSESSIONID".into() }),
            _ => None,
        };
        let mut members = self.list(&shape.members, Self::member);
        // Two members of a pool never share address and port.
        let mut seen = std::collections::HashSet::new();
        members.retain(|member| seen.insert((member.address, member.port)));
        let mut pool = Pool {
            id: PoolId(self.uuid()),
            name: self.name(),
            admin_state_up: !self.one_in(6),
            protocol,
            lb_algorithm: match datagrams {
                true => self.pick(&LbAlgorithm::ALL[..3]),
                false => self.pick(LbAlgorithm::ALL),
            },
            tls: match shape.tls && !datagrams {
                true => self.some(Self::pool_tls),
                false => None,
            },
            session_persistence,
            health_monitor: self.some(|g| g.health_monitor(datagrams)),
            member_options: if shape.member_options && self.one_in(3) {
                self.member_options(datagrams)
            } else {
                MemberOptions::default()
            },
            members,
        };
        // There is nobody to wait for.
        pool.member_options.first_check &= pool.health_monitor.is_some();
        pool
    }

    /// All of it is of pools with a health monitor: see [`Self::pool`].
    fn member_options(&mut self, datagrams: bool) -> MemberOptions {
        let seconds = |g: &mut Self, most: usize| Duration::from_secs(g.within(1..=most) as u64);
        MemberOptions {
            slow_start: Duration::from_secs(self.within(0..=3600) as u64),
            // To be transparent takes privileges that not every test has.
            transparent: false,
            first_check: self.one_in(2),
            drain_timeout: if datagrams {
                None
            } else {
                self.some(|g| Duration::from_secs(g.within(0..=86_400) as u64))
            },
            outliers: if datagrams || self.one_in(2) {
                None
            } else {
                let ejection_time = seconds(self, 100);
                Some(OutlierDetection {
                    consecutive_failures: self.within(1..=100) as u8,
                    ejection_time,
                    max_ejection_time: ejection_time + seconds(self, 1000),
                    max_ejected_percent: self.within(1..=99) as u8,
                })
            },
        }
    }

    fn source_network(&mut self) -> SourceNetwork {
        let network = SourceNetwork {
            timeout: Duration::from_secs(self.within(1..=3600) as u64),
            ..SourceNetwork::default()
        };
        // A document has one granularity.
        match self.one_in(2) {
            true => SourceNetwork { v4_prefix: self.within(1..=32) as u8, ..network },
            false => SourceNetwork { v6_prefix: self.within(1..=128) as u8, ..network },
        }
    }

    /// A member.
    pub fn member(&mut self) -> Member {
        Member {
            id: MemberId(self.uuid()),
            name: self.name(),
            admin_state_up: !self.one_in(6),
            address: self.address(),
            port: self.port(),
            weight: self.within(0..=256) as u16,
            backup: self.one_in(4),
            monitor_address: if self.one_in(4) { Some(self.address()) } else { None },
            monitor_port: if self.one_in(4) { Some(self.port()) } else { None },
        }
    }

    fn health_monitor(&mut self, datagrams: bool) -> HealthMonitor {
        let check = match self.within(0..=4) {
            0 => HealthCheck::Http(self.http_check()),
            1 if datagrams => self.pick(&[HealthCheck::UdpConnect, HealthCheck::Sctp]),
            1 => HealthCheck::Https(self.http_check()),
            2 => HealthCheck::Tcp,
            3 if !datagrams => HealthCheck::TlsHello,
            _ => HealthCheck::Ping,
        };
        HealthMonitor {
            id: HealthMonitorId(self.uuid()),
            name: self.name(),
            admin_state_up: !self.one_in(6),
            delay: Duration::from_secs(self.within(1..=60) as u64),
            timeout: Duration::from_secs(self.within(1..=60) as u64),
            max_retries: self.within(1..=10) as u8,
            max_retries_down: self.within(1..=10) as u8,
            check,
        }
    }

    fn http_check(&mut self) -> HttpCheck {
        let version = self.pick(HttpVersion::ALL);
        HttpCheck {
            method: self.pick(HttpMethod::ALL),
            url_path: self.pick(&["/", "/health?deep=1", "/%41"]).to_owned(),
            version,
            domain_name: match version {
                HttpVersion::Http11 => self.some(|_| "health.example.com".to_owned()),
                HttpVersion::Http10 => None,
            },
            expected_codes: self.pick(&[
                vec![(200, 200)],
                vec![(200, 204)],
                vec![(200, 200), (301, 302), (404, 404)],
            ]),
        }
    }
}
