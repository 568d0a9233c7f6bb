//! A section `frontend`, and the listener that it means.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use amphora_model::{
    CertificateId, ClientAuthentication, Hsts, InsertHeaders, L7Action, L7Policy, L7PolicyId, L7Rule,
    Listener, ListenerId, ListenerProtocol, ListenerTimeouts, ListenerTls, PoolId, PoolProtocol, SslHeaders,
};

use uuid::Uuid;

use super::{
    Fault,
    backend::Header,
    draft::{OfListeners, Once, Order, Remarks, flow_log},
    frontend::{Action, Bind, BindTls, Certificates, Condition, Frontend, Mode, Target},
    lines::What,
    names::Names,
    pool::OfListener,
    tls::Verify,
    words::{Line, Place},
};

/// What a section has said.
#[derive(Debug)]
pub(super) struct ListenerDraft<'t> {
    /// Where it begins.
    pub(super) place: Place<'t>,
    /// Where its policies and their rules are.
    policies: Vec<PolicyPlaces<'t>>,
    id: ListenerId,
    order: Order,
    maxconn: Once<'t, u32>,
    redirect_https: Once<'t, ()>,
    hsts: Once<'t, Hsts>,
    binds: Vec<(Place<'t>, Bind)>,
    mode: Once<'t, Mode>,
    /// Rules that no policy has yet.
    rules: Vec<(Place<'t>, L7Rule)>,
    l7policies: Vec<L7Policy>,
    default: Once<'t, Target>,
    client: Once<'t, u64>,
    inspect: Once<'t, u64>,
    format: Once<'t, String>,
}

/// Where a policy is.
#[derive(Debug)]
struct PolicyPlaces<'t> {
    /// What it does.
    action: Place<'t>,
    /// Its rules.
    rules: Vec<Place<'t>>,
}

/// A listener, and where it is bound.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) listener: Listener,
    pub(super) addresses: Vec<IpAddr>,
}

impl<'t> ListenerDraft<'t> {
    /// A section that begins here.
    pub(super) fn new(id: ListenerId, place: Place<'t>) -> Self {
        Self {
            place,
            policies: Vec::new(),
            id,
            order: Order::default(),
            maxconn: Once::default(),
            redirect_https: Once::default(),
            hsts: Once::default(),
            binds: Vec::new(),
            mode: Once::default(),
            rules: Vec::new(),
            l7policies: Vec::new(),
            default: Once::default(),
            client: Once::default(),
            inspect: Once::default(),
            format: Once::default(),
        }
    }

    /// Takes a line of it.
    pub(super) fn line(&mut self, line: &Line<'t>) -> Result<(), Fault> {
        let place = line.place;
        let statement = Frontend::read(line)?;
        self.order.next(place, statement.rank())?;
        match statement {
            Frontend::Maxconn(limit) => self.maxconn.set(place, limit),
            Frontend::RedirectHttps => self.redirect_https.set(place, ()),
            Frontend::Hsts(hsts) => self.hsts.set(place, hsts),
            Frontend::Bind(bind) => self.bind(place, bind),
            Frontend::Mode(mode) => self.mode.set(place, mode),
            Frontend::Acl(rule) => {
                if self.rules.iter().any(|(_, known)| known.id == rule.id) {
                    return Err(place.fault("is an acl of a name that is there already"));
                }
                self.rules.push((place, rule));
                Ok(())
            }
            Frontend::Policy(action, conditions) => self.policy(place, action, &conditions),
            Frontend::DefaultBackend(target) => self.default.set(place, target),
            Frontend::TimeoutClient(time) => self.client.set(place, time),
            Frontend::InspectDelay(time) => self.inspect.set(place, time),
            Frontend::LogFormat(format) => self.format.set(place, format),
        }
    }

    fn bind(&mut self, place: Place<'t>, bind: Bind) -> Result<(), Fault> {
        if let Some((_, first)) = self.binds.first() {
            if bind.address.port() != first.address.port() {
                return Err(place.fault("is another port than that of the bind above"));
            }
            if bind.tls != first.tls {
                return Err(place.fault("says something else of TLS than the bind above"));
            }
        }
        if self.binds.iter().any(|(_, known)| known.address == bind.address) {
            return Err(place.fault("is an address that is bound already"));
        }
        self.binds.push((place, bind));
        Ok(())
    }

    /// A policy, whose rules are right above it, in its order.
    ///
    /// Rules further up are of a policy whose pool is disabled, which Octavia leaves out. They belong to no other.
    fn policy(&mut self, place: Place<'t>, action: Action, conditions: &[Condition]) -> Result<(), Fault> {
        let rules = std::mem::take(&mut self.rules);
        let first = rules.len().checked_sub(conditions.len());
        let own = first.and_then(|first| rules.get(first..)).unwrap_or_default();
        let names = own.iter().map(|(_, rule)| rule.id);
        if own.is_empty() || !names.eq(conditions.iter().map(|condition| condition.rule)) {
            return Err(place.fault("has other conditions than the acls right above it"));
        }
        let own = rules.into_iter().skip(first.unwrap_or_default()).zip(conditions);
        let (places, rules): (Vec<_>, Vec<_>) = own
            .map(|((place, rule), condition)| (place, L7Rule { invert: condition.invert, ..rule }))
            .unzip();
        let id = rules.iter().map(|rule| rule.id).min().map(|rule| L7PolicyId(rule.0));
        let id = id.ok_or_else(|| place.fault("has no condition"))?;
        let action = match action {
            Action::Deny => L7Action::Reject,
            Action::Location(code, url) => L7Action::RedirectToUrl { url, code },
            Action::Prefix(code, prefix) => L7Action::RedirectPrefix { prefix, code },
            Action::UseBackend(backend) if backend.listener == self.id => {
                L7Action::RedirectToPool(backend.pool)
            }
            Action::UseBackend(_) => return Err(place.fault("sends to a backend of another listener")),
        };
        let position = u32::try_from(self.l7policies.len() + 1).unwrap_or(u32::MAX);
        self.policies.push(PolicyPlaces { action: place, rules: places });
        self.l7policies.push(L7Policy {
            id,
            name: String::new(),
            admin_state_up: true,
            position,
            action,
            edits: None,
            rules,
        });
        Ok(())
    }

    /// Tells where it says what.
    pub(super) fn places(&self, note: &mut impl FnMut(What, Uuid, Place<'t>)) {
        let own = [
            (What::Listener, Some(self.place)),
            (What::Bind, self.binds.first().map(|(place, _)| *place)),
            (What::Hsts, self.hsts.place()),
            (What::Limit, self.maxconn.place()),
            (What::Timeouts, self.client.place()),
            (What::DefaultPool, self.default.place()),
            (What::Log, self.format.place()),
        ];
        own.into_iter().for_each(|(what, place)| {
            place.into_iter().for_each(|place| note(what, self.id.0, place));
        });
        for (policy, places) in self.l7policies.iter().zip(&self.policies) {
            note(What::Policy, policy.id.0, places.action);
            let rules = policy.rules.iter().zip(&places.rules);
            rules.for_each(|(rule, place)| note(What::Rule, rule.id.0, *place));
        }
    }

    /// The listener that it means.
    pub(super) fn finish(
        &self,
        names: &Names<'_>,
        pools: &OfListeners<'t>,
        log: Option<&u8>,
        remarks: &mut Remarks,
    ) -> Result<Finished, Fault> {
        let (place, bind) = self.binds.first().ok_or_else(|| self.place.fault("has no bind"))?;
        let mode = self.protocol(bind.tls.is_some())?;
        let tls = bind.tls.as_ref().map(|tls| self.tls(tls, names, *place)).transpose()?;
        let pools = pools.get(&self.id).map_or(&[][..], Vec::as_slice);
        self.check_pools(mode, pools)?;
        let default_pool = match (self.default.get(), self.default.place()) {
            (Some(Target::Pool(backend)), Some(place)) if backend.listener != self.id => {
                return Err(place.fault("is a backend of another listener"));
            }
            (Some(Target::Pool(backend)), Some(place)) => Some(known(backend.pool, pools, place)?),
            _ => None,
        };
        for (policy, places) in self.l7policies.iter().zip(&self.policies) {
            if let L7Action::RedirectToPool(pool) = policy.action {
                known(pool, pools, places.action)?;
            }
        }
        let (protocol, l7policies) = self.honoured(mode, default_pool, pools, remarks);
        let flow_log = match (self.format.get(), self.format.place()) {
            (Some(_), Some(place)) if protocol == ListenerProtocol::Prometheus || log.is_none() => {
                remarks.note(
                    place,
                    "listeners of protocol PROMETHEUS have no flow log, nor has any without log global",
                );
                None
            }
            (Some(format), _) => flow_log(log, format),
            (None, _) if log.is_some() => {
                remarks.note(self.place, "a listener without log-format has no flow log");
                None
            }
            (None, _) => None,
        };
        let client = *self.client.required(self.place, "timeout client")?;
        let listener = Listener {
            id: self.id,
            name: String::new(),
            admin_state_up: true,
            protocol,
            port: bind.address.port(),
            connection_limit: self.maxconn.get().copied(),
            member_connection_limit: None,
            rate_limit_policies: Vec::new(),
            trusted_proxies: None,
            default_pool,
            tls,
            insert_headers: insert_headers(protocol, pools)?,
            l7policies,
            timeouts: timeouts(client, self.inspect.get().copied(), pools)?,
            allowed_cidrs: Vec::new(),
            flow_log,
            routing: Default::default(),
        };
        let addresses = self.binds.iter().map(|(_, bind)| SocketAddr::ip(&bind.address)).collect();
        Ok(Finished { listener, addresses })
    }

    fn protocol(&self, tls: bool) -> Result<ListenerProtocol, Fault> {
        let mode = *self.mode.required(self.place, "mode")?;
        let exporter = self.default.get() == Some(&Target::Exporter);
        if let Some(place) = self.hsts.place()
            && self.redirect_https.get().is_none()
        {
            return Err(place.fault("is for listeners that redirect to https"));
        }
        match (mode, self.redirect_https.place(), exporter) {
            (Mode::Http, Some(place), false) if !tls => {
                Err(place.fault("is for a listener that terminates TLS, and this one has no certificate"))
            }
            (Mode::Http, Some(_), false) => Ok(ListenerProtocol::TerminatedHttps),
            (Mode::Http, None, true) => Ok(ListenerProtocol::Prometheus),
            (Mode::Http, None, false) if !tls => Ok(ListenerProtocol::Http),
            (Mode::Tcp, None, false) if !tls => Ok(ListenerProtocol::Tcp),
            (_, _, true) => {
                Err(self.place.fault("sends to the exporter for Prometheus, and does something else"))
            }
            (Mode::Tcp, Some(place), _) => Err(place.fault("is for listeners of mode http")),
            _ => Err(self.place.fault("terminates TLS without a redirect to https")),
        }
    }

    /// The protocol that is spoken, and the policies that hold: in mode tcp HAProxy ignores what policies do with a request, but not where a
    /// backend of mode http makes the connection one of HTTP. `use_backend` is looked at there before a request has come for sure.
    fn honoured(
        &self,
        protocol: ListenerProtocol,
        default_pool: Option<PoolId>,
        pools: &[OfListener<'t>],
        remarks: &mut Remarks,
    ) -> (ListenerProtocol, Vec<L7Policy>) {
        if protocol != ListenerProtocol::Tcp {
            return (protocol, self.l7policies.clone());
        }
        let speaks_http =
            pools.iter().any(|pool| Some(pool.id) == default_pool && pool.protocol == PoolProtocol::Http);
        let mut policies: Vec<L7Policy> = Vec::new();
        for (policy, places) in self.l7policies.iter().zip(&self.policies) {
            match policy.action {
                L7Action::RedirectToPool(_) => {
                    remarks.left_out(places.action, "a listener of mode tcp chooses no pool by requests");
                }
                _ if speaks_http => {
                    let position = u32::try_from(policies.len() + 1).unwrap_or(u32::MAX);
                    policies.push(L7Policy { position, ..policy.clone() });
                }
                _ => remarks.left_out(places.action, "policies need a listener or a pool of mode http"),
            }
        }
        // A listener of HTTP is what such a one has become.
        let protocol = if policies.is_empty() { protocol } else { ListenerProtocol::Http };
        (protocol, policies)
    }

    fn tls(&self, tls: &BindTls, names: &Names<'_>, place: Place<'t>) -> Result<ListenerTls, Fault> {
        let listed: Vec<CertificateId> = match &tls.certificates {
            Certificates::List(file) => names.crt_list(file, self.id, place)?,
            Certificates::Each(files) => {
                files.iter().map(|file| names.resolve(file, place)).collect::<Result<_, _>>()?
            }
        };
        let mut listed = listed.into_iter();
        let certificate = listed.next().ok_or_else(|| place.fault("names no certificate"))?;
        let mut sni_certificates: Vec<CertificateId> = Vec::new();
        for id in listed {
            if id != certificate && !sni_certificates.contains(&id) {
                sni_certificates.push(id);
            }
        }
        // Also what has no effect has to be there: HAProxy would not start.
        let revocations = tls.revocations.as_ref().map(|file| names.resolve(file, place)).transpose()?;
        let clients = tls.clients.as_ref().map(|(file, verify)| Ok((names.resolve(file, place)?, *verify)));
        let client_authentication = match clients.transpose()? {
            None | Some((_, Verify::None)) => None,
            Some((authorities, verify)) => {
                Some(ClientAuthentication { mandatory: verify == Verify::Required, authorities, revocations })
            }
        };
        Ok(ListenerTls {
            certificate,
            sni_certificates,
            client_authentication,
            settings: tls.settings.model(),
            hsts: self.hsts.get().copied(),
        })
    }

    fn check_pools(&self, protocol: ListenerProtocol, pools: &[OfListener<'t>]) -> Result<(), Fault> {
        for pool in pools {
            let proxied = matches!(pool.protocol, PoolProtocol::Proxy | PoolProtocol::ProxyV2);
            if proxied && Some(&pool.mode) != self.mode.get() {
                return Err(pool.place.fault("has another mode than its listener"));
            }
            let terminates = protocol == ListenerProtocol::TerminatedHttps;
            if pool.ssl_cn.is_some_and(|ssl_cn| ssl_cn != terminates) {
                let reason = "has members with send-proxy-v2 where send-proxy-v2-ssl-cn is for listeners that terminate TLS, or the other way round";
                return Err(pool.place.fault(reason));
            }
        }
        Ok(())
    }
}

/// A pool that is there.
fn known(pool: PoolId, pools: &[OfListener<'_>], place: Place<'_>) -> Result<PoolId, Fault> {
    match pools.iter().any(|known| known.id == pool) {
        true => Ok(pool),
        false => Err(place.fault("names a backend that is not there")),
    }
}

/// What backends say of a listener's timeouts. One without a pool has no use for them.
fn timeouts(client: u64, inspect: Option<u64>, pools: &[OfListener<'_>]) -> Result<ListenerTimeouts, Fault> {
    let default = ListenerTimeouts::default();
    let first = pools.first();
    if let Some(other) = pools.iter().find(|pool| Some(pool.timeouts) != first.map(|first| first.timeouts)) {
        return Err(other.place.fault("has other timeouts than another backend of the same listener"));
    }
    let (member_connect, member_data) = match first {
        Some(first) => (Duration::from_millis(first.timeouts.0), Duration::from_millis(first.timeouts.1)),
        None => (default.member_connect, default.member_data),
    };
    Ok(ListenerTimeouts {
        client_data: Duration::from_millis(client),
        member_connect,
        member_data,
        tcp_inspect: inspect.map_or(default.tcp_inspect, Duration::from_millis),
    })
}

/// What backends say of a listener's `insert_headers`.
///
/// Octavia writes `X-Forwarded-For` and `X-Forwarded-Port` for pools of protocol HTTP alone, and the others for all. A pool without
/// members may be of protocol PROXY though it looks like HTTP.
fn insert_headers(protocol: ListenerProtocol, pools: &[OfListener<'_>]) -> Result<InsertHeaders, Fault> {
    let all = |on: &dyn Fn(&OfListener<'_>) -> bool, of: &dyn Fn(&OfListener<'_>) -> bool| {
        let any = pools.iter().any(on);
        match pools.iter().find(|pool| any && of(pool) && !on(pool)) {
            Some(pool) => {
                Err(pool.place.fault("sets other headers than another backend of the same listener"))
            }
            None => Ok(any),
        }
    };
    let http = |pool: &OfListener<'_>| pool.protocol == PoolProtocol::Http;
    if let Some(pool) =
        pools.iter().find(|pool| !http(pool) && (pool.forwarded_for || pool.sets(Header::ForwardedPort)))
    {
        return Err(pool.place.fault("sets headers that only pools of protocol HTTP have"));
    }
    let certain = |pool: &OfListener<'_>| http(pool) && !pool.empty;
    let set = |header| all(&move |pool: &OfListener<'_>| pool.sets(header), &|_| true);
    let (plain, terminated) = (set(Header::ForwardedProtoHttp)?, set(Header::ForwardedProtoHttps)?);
    let wrong = if protocol == ListenerProtocol::TerminatedHttps { plain } else { terminated };
    if let Some(pool) = pools.first().filter(|_| wrong) {
        return Err(pool.place.fault("sets X-Forwarded-Proto to what its listener is not"));
    }
    Ok(InsertHeaders {
        x_forwarded_for: all(&|pool| pool.forwarded_for, &certain)?,
        x_forwarded_port: all(&|pool| pool.sets(Header::ForwardedPort), &certain)?,
        x_forwarded_proto: plain || terminated,
        ssl: SslHeaders {
            client_verify: set(Header::ClientVerify)?,
            client_has_cert: set(Header::ClientHasCert)?,
            client_dn: set(Header::ClientDn)?,
            client_cn: set(Header::ClientCn)?,
            issuer: set(Header::Issuer)?,
            client_sha1: set(Header::ClientSha1)?,
            client_not_before: set(Header::ClientNotBefore)?,
            client_not_after: set(Header::ClientNotAfter)?,
        },
    })
}
