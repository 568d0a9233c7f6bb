//! What both address families say, as one listener.

use std::time::Duration;

use amphora_model::{
    HealthMonitor, InsertHeaders, Listener, ListenerProtocol, ListenerTimeouts, LoadBalancer, Member,
    MemberOptions, Pool, PoolProtocol, SessionPersistence, SourceNetwork, Transport, Vip,
};

use super::{
    super::fault::Place,
    Fault, Translated,
    section::{Check, Common, Real, Server, Text},
    statement::{Family, Granularity},
};

/// `max_retries_down`, where a text has no `retry`: Octavia's default.
const RETRIES: u8 = 3;

impl Text<'_> {
    /// What the text means.
    pub(super) fn finish(&self) -> Result<Translated, Fault> {
        let mut disabled = Vec::new();
        for server in &self.servers {
            for id in &server.disabled {
                if disabled.contains(&(server.common.pool, *id)) {
                    return Err(server.place.fault(format!("has member {id} twice")));
                }
                disabled.push((server.common.pool, *id));
            }
        }
        let served = match self.servers.split_first() {
            Some((first, others)) => Some(self.served(first, others)?),
            None => None,
        };
        Ok(Translated {
            load_balancer: self.load_balancer,
            listener: self.listener,
            enabled: self.enabled,
            served,
            disabled,
        })
    }

    fn served(&self, first: &Server<'_>, others: &[Server<'_>]) -> Result<LoadBalancer, Fault> {
        for other in others {
            if (&other.common, other.port) != (&first.common, first.port) {
                return Err(other.place.fault("says something else than the virtual_server above it"));
            }
        }
        let members: Vec<&(Place<'_>, Real)> =
            self.servers.iter().flat_map(|server| &server.members).collect();
        let limit = alike(&members, |real| &real.limit, "uthreshold")?.copied().flatten();
        let common = &first.common;
        let (protocol, pool_protocol) = match common.transport {
            Transport::Sctp => (ListenerProtocol::Sctp, PoolProtocol::Sctp),
            Transport::Udp | Transport::Tcp => (ListenerProtocol::Udp, PoolProtocol::Udp),
        };
        let pool = Pool {
            id: common.pool,
            name: String::new(),
            admin_state_up: true,
            protocol: pool_protocol,
            lb_algorithm: common.algorithm,
            tls: None,
            session_persistence: self.persistence(common)?,
            health_monitor: monitor(common, &members)?,
            member_options: MemberOptions::default(),
            members: members.iter().map(|(_, real)| member(real)).collect(),
        };
        let listener = Listener {
            id: self.listener,
            name: String::new(),
            admin_state_up: true,
            protocol,
            port: first.port,
            connection_limit: None,
            member_connection_limit: limit,
            rate_limit_policies: Vec::new(),
            trusted_proxies: None,
            default_pool: common.pool_enabled.then_some(common.pool),
            tls: None,
            insert_headers: InsertHeaders::default(),
            l7policies: Vec::new(),
            timeouts: ListenerTimeouts::default(),
            allowed_cidrs: Vec::new(),
            flow_log: None,
            routing: Default::default(),
        };
        let vips = self.servers.iter().flat_map(|server| &server.vips);
        let load_balancer = LoadBalancer {
            id: self.load_balancer,
            name: String::new(),
            admin_state_up: true,
            vips: vips.map(|address| Vip { address: *address }).collect(),
            listeners: vec![listener],
            pools: common.pool_enabled.then_some(pool).into_iter().collect(),
        };
        self.checked(&load_balancer, &members)
    }

    /// The client's network, by which it is remembered. Where a tenant has said nothing of it, each family has the whole address;
    /// what it has said stands in both, though it means something to one of them alone.
    fn persistence(&self, common: &Common) -> Result<Option<SessionPersistence>, Fault> {
        let Some(seconds) = common.persistence else { return Ok(None) };
        let mut network = SourceNetwork { timeout: Duration::from_secs(seconds), ..SourceNetwork::default() };
        let said: Vec<_> =
            self.servers.iter().filter_map(|server| Some((server.family, server.granularity?))).collect();
        let of_none = said.iter().all(|(family, (_, granularity))| match family {
            Family::V4 => *granularity == Granularity::V4(32),
            Family::V6 => *granularity == Granularity::V6(128),
        });
        if of_none {
            return Ok(Some(SessionPersistence::SourceNetwork(network)));
        }
        for (_, (place, granularity)) in &said {
            if said.iter().any(|(_, (_, other))| other != granularity) {
                return Err(place.fault("is not what the other virtual_server says"));
            }
            match granularity {
                Granularity::V4(prefix) => network.v4_prefix = *prefix,
                Granularity::V6(prefix) => network.v6_prefix = *prefix,
            }
        }
        Ok(Some(SessionPersistence::SourceNetwork(network)))
    }

    /// The last look: that of the parser of documents, whose faults have paths. Here these are lines.
    fn checked(
        &self,
        load_balancer: &LoadBalancer,
        members: &[&(Place<'_>, Real)],
    ) -> Result<LoadBalancer, Fault> {
        LoadBalancer::from_value(&load_balancer.to_json()).map_err(|refusal| {
            let Some(fault) = refusal.faults.into_iter().next() else { return Fault::whole("is refused") };
            let index = |name: &str| {
                let (_, rest) = fault.path.split_once(name)?;
                rest.split_once(']')?.0.parse::<usize>().ok()
            };
            let server = self.servers.first().map(|server| server.place);
            let place = match index(".members[") {
                Some(at) => members.get(at).map(|(place, _)| *place),
                None if fault.path.contains("pools[") => server,
                None => Some(self.place),
            };
            let field = fault.path.rsplit('.').next().unwrap_or_default();
            let reason = match field.ends_with(']') {
                true => fault.reason.clone(),
                false => format!("{field} {}", fault.reason),
            };
            place.map_or_else(|| Fault::whole(reason.clone()), |place| place.fault(reason.clone()))
        })
    }
}

/// What all members say alike; none without members.
fn alike<'m, T: PartialEq>(
    members: &[&'m (Place<'_>, Real)],
    of: impl Fn(&'m Real) -> &'m T,
    what: &str,
) -> Result<Option<&'m T>, Fault> {
    let first = members.first().map(|(_, real)| of(real));
    match members.iter().find(|(_, real)| Some(of(real)) != first) {
        Some((place, _)) => Err(place.fault(format!("says something else of {what} than the member above"))),
        None => Ok(first),
    }
}

fn member(real: &Real) -> Member {
    let target = real.check.as_ref().map_or(real.address, |check| check.target);
    Member {
        id: real.id,
        name: String::new(),
        admin_state_up: true,
        address: real.address.ip(),
        port: real.address.port(),
        weight: real.weight,
        backup: false,
        monitor_address: Some(target.ip()).filter(|address| *address != real.address.ip()),
        monitor_port: Some(target.port()).filter(|port| *port != real.address.port()),
    }
}

/// keepalived counts no successes: the first one is enough. A monitor that is rendered without a check, as one of HTTP with another method than
/// GET, checks nothing.
fn monitor(common: &Common, members: &[&(Place<'_>, Real)]) -> Result<Option<HealthMonitor>, Fault> {
    let odd = |place: &Place<'_>| place.fault("has a check, or has none, unlike the member above");
    let mut first: Option<&Check> = None;
    for (at, (place, real)) in members.iter().enumerate() {
        let same = match (first, &real.check) {
            (Some(first), Some(check)) => first.kind == check.kind && first.timeout == check.timeout,
            (None, None) => true,
            (None, Some(_)) => at == 0,
            (Some(_), None) => false,
        };
        if !same {
            return Err(odd(place));
        }
        first = first.or(real.check.as_ref());
    }
    let Some(check) = first else { return Ok(None) };
    let (Some(id), Some((delay, retry))) = (common.monitor, common.looks) else {
        let place = members.first().map(|(place, _)| *place);
        return Err(place.map_or_else(
            || Fault::whole("has a check"),
            |place| place.fault("has a check, and the pool has no health monitor"),
        ));
    };
    let delay = Duration::from_secs(delay);
    let timeout = Duration::from_secs(check.timeout);
    Ok(Some(HealthMonitor {
        id,
        name: String::new(),
        admin_state_up: true,
        delay,
        // As documents have it.
        timeout: if timeout.is_zero() { delay } else { timeout },
        max_retries: 1,
        max_retries_down: retry.unwrap_or(RETRIES),
        check: check.kind.clone(),
    }))
}
