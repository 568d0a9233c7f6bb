//! What a load balancer is when it has been rendered by Octavia and read again: the rest is lost on the way.

use std::{collections::HashSet, time::Duration};

use amphora_model::{
    FlowLog, HealthCheck, HealthMonitorId, HttpVersion, InsertHeaders, L7Action, L7PolicyId, LbAlgorithm,
    Listener, ListenerProtocol, ListenerTimeouts, LoadBalancer, Pool, PoolId, PoolProtocol,
    SessionPersistence, TlsSettings, TlsVersion,
};

use crate::octavia::path::sent;

/// Octavia's `default_connection_limit`.
const UNLIMITED: u32 = 50_000;

/// A release of Octavia, by its first number: 12 to 19.
///
/// Tests run with the one that is installed, 19; with an older one by `AMPHORA_OCTAVIA_PYTHON` and `AMPHORA_OCTAVIA_RELEASE`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Release(u8);

impl Release {
    /// The one that is installed.
    pub(super) fn installed() -> Self {
        Self(std::env::var("AMPHORA_OCTAVIA_RELEASE").map_or(19, |release| release.parse().unwrap()))
    }
}

/// The load balancer that the text of `lb` means. `log` is the format and the facility of the controller's configuration.
pub(super) fn rendered(lb: &LoadBalancer, log: Option<(&str, u8)>, release: Release) -> LoadBalancer {
    let enabled: HashSet<PoolId> =
        lb.pools.iter().filter(|pool| pool.admin_state_up).map(|pool| pool.id).collect();
    let given: Vec<&Listener> =
        lb.listeners.iter().filter(|listener| lb.admin_state_up && listener.admin_state_up).collect();
    // In the order in which listeners name them, those of disabled policies as well.
    let mut pools: Vec<Pool> = Vec::new();
    for id in given.iter().flat_map(|listener| named(listener)).filter(|id| enabled.contains(id)) {
        if pools.iter().all(|pool| pool.id != id) {
            let pool = lb.pools.iter().find(|pool| pool.id == id).unwrap();
            let users = given.iter().filter(|listener| named(listener).contains(&id));
            pools.push(pool_of(pool, &users.map(|user| user.protocol).collect::<Vec<_>>(), release));
        }
    }
    let listeners =
        given.into_iter().map(|listener| listener_of(lb, listener, &enabled, log, release)).collect();
    LoadBalancer {
        id: lb.id,
        name: String::new(),
        admin_state_up: true,
        vips: lb.vips.clone(),
        listeners,
        pools,
    }
}

/// The pools that a listener names.
fn named(listener: &Listener) -> Vec<PoolId> {
    let redirects = listener.l7policies.iter().filter_map(|policy| match policy.action {
        L7Action::RedirectToPool(pool) => Some(pool),
        _ => None,
    });
    listener.default_pool.into_iter().chain(redirects).collect()
}

fn listener_of(
    lb: &LoadBalancer,
    listener: &Listener,
    enabled: &HashSet<PoolId>,
    log: Option<(&str, u8)>,
    release: Release,
) -> Listener {
    let mut new = listener.clone();
    new.name = String::new();
    new.allowed_cidrs = Vec::new();
    if new.protocol == ListenerProtocol::Https {
        new.protocol = ListenerProtocol::Tcp;
    }
    new.connection_limit = Some(new.connection_limit.unwrap_or(UNLIMITED));
    new.default_pool = new.default_pool.filter(|pool| enabled.contains(pool));
    new.l7policies.retain_mut(|policy| {
        policy.name = String::new();
        policy.rules.retain(|rule| rule.admin_state_up);
        for rule in &mut policy.rules {
            if rule.subject == amphora_model::L7Subject::SslConnHasCert {
                rule.value = "True".into();
            }
        }
        let Some(id) = policy.rules.iter().map(|rule| rule.id).min() else { return false };
        policy.id = L7PolicyId(id.0);
        let sends = match policy.action {
            L7Action::RedirectToPool(pool) => enabled.contains(&pool),
            _ => true,
        };
        policy.admin_state_up && sends
    });
    for (position, policy) in (1..).zip(&mut new.l7policies) {
        policy.position = position;
    }
    let pools: Vec<&Pool> =
        lb.pools.iter().filter(|pool| pool.admin_state_up && named(listener).contains(&pool.id)).collect();
    let http = pools.iter().any(|pool| pool.protocol == PoolProtocol::Http);
    new.insert_headers.x_forwarded_for &= http;
    new.insert_headers.x_forwarded_port &= http;
    if pools.is_empty() {
        let default = ListenerTimeouts::default();
        new.insert_headers = InsertHeaders::default();
        new.timeouts.member_connect = default.member_connect;
        new.timeouts.member_data = default.member_data;
    }
    if let Some(tls) = &mut new.tls {
        tls.settings = settings(&tls.settings, release);
        tls.hsts = tls.hsts.filter(|_| release.0 >= 13);
    }
    new.flow_log = log.filter(|_| new.protocol != ListenerProtocol::Prometheus).map(|(format, facility)| {
        let mut format =
            format.replace("{{ project_id }}", "project").replace("{{ lb_id }}", &lb.id.to_string());
        if !new.protocol.is_http() {
            for name in ["%{+Q}r", "%r", "%{+Q}ST", "%ST"] {
                format = format.replace(name, "-");
            }
        }
        FlowLog { format: format.into(), facility }
    });
    new
}

fn pool_of(pool: &Pool, users: &[ListenerProtocol], release: Release) -> Pool {
    let mut new = pool.clone();
    new.name = String::new();
    new.protocol = match pool.protocol {
        PoolProtocol::Https => PoolProtocol::Tcp,
        PoolProtocol::Proxy | PoolProtocol::ProxyV2 if pool.members.is_empty() => {
            let (http, tcp) =
                (users.iter().any(|user| user.is_http()), users.iter().any(|user| !user.is_http()));
            match (http, tcp) {
                (true, true) => PoolProtocol::Proxy,
                (true, false) => PoolProtocol::Http,
                _ => PoolProtocol::Tcp,
            }
        }
        protocol => protocol,
    };
    if new.lb_algorithm == LbAlgorithm::SourceIpPort {
        new.lb_algorithm = LbAlgorithm::RoundRobin;
    }
    new.session_persistence = new.session_persistence.filter(
        |kind| !matches!(kind, SessionPersistence::AppCookie { cookie_name } if !cookie_name.is_ascii()),
    );
    if let Some(tls) = &mut new.tls {
        tls.settings = settings(&tls.settings, release);
    }
    if new.members.is_empty() {
        (new.tls, new.health_monitor) = (None, None);
    }
    new.health_monitor = new.health_monitor.filter(|monitor| monitor.admin_state_up);
    if let Some(monitor) = &mut new.health_monitor {
        monitor.id = HealthMonitorId(new.id.0);
        monitor.name = String::new();
        match &mut monitor.check {
            HealthCheck::TlsHello if release.0 >= 14 => monitor.check = HealthCheck::Tcp,
            HealthCheck::Http(http) | HealthCheck::Https(http) => {
                http.expected_codes.sort_unstable();
                http.expected_codes.dedup();
                let (path, is_cut) = sent(&http.url_path);
                http.url_path = path;
                if is_cut && http.domain_name.is_none() {
                    http.version = HttpVersion::Http10;
                }
            }
            HealthCheck::Tcp
            | HealthCheck::TlsHello
            | HealthCheck::Ping
            | HealthCheck::UdpConnect
            | HealthCheck::Sctp => {}
        }
        if monitor.timeout.is_zero() {
            monitor.timeout = Duration::from_secs(monitor.delay.as_secs());
        }
    }
    for member in &mut new.members {
        member.name = String::new();
        if new.health_monitor.is_none() {
            (member.monitor_address, member.monitor_port) = (None, None);
        }
    }
    new
}

/// Octavia takes ciphers as a set from release 19 on, without those of versions that are not spoken. So that lists may be compared, both
/// sides are brought into one order.
pub(super) fn settings(settings: &TlsSettings, release: Release) -> TlsSettings {
    let mut new = settings.clone();
    let newest = new.versions.contains(&TlsVersion::Tls1_3);
    let older = new.versions.iter().any(|version| *version != TlsVersion::Tls1_3);
    new.ciphers = new.ciphers.as_deref().and_then(|list| {
        let mut list: Vec<&str> = list.split(':').collect();
        if release.0 >= 19 {
            list.retain(|name| if name.starts_with("TLS_") { newest } else { older });
            list.sort_unstable();
            list.dedup();
        }
        (!list.is_empty()).then(|| list.join(":").into())
    });
    new
}
