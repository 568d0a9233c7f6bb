//! A section `backend`, the pool that it means, and what it says of its listener.

use std::time::Duration;

use amphora_model::{
    HealthCheck, HealthMonitor, HealthMonitorId, HttpCheck, HttpVersion, LbAlgorithm, Member, MemberOptions,
    Pool, PoolId, PoolProtocol, PoolTls, SessionPersistence,
};

use uuid::Uuid;

use super::{
    Fault,
    backend::{self, Backend, Balance, Header, Table},
    draft::{Once, Order, Remarks},
    frontend::{self, Mode},
    lines::What,
    names::Names,
    server::{Check, SendProxy, Server, ServerTls},
    words::{Line, Place},
};

/// What a section has said.
#[derive(Debug)]
pub(super) struct PoolDraft<'t> {
    /// Where it begins.
    pub(super) place: Place<'t>,
    /// Its name.
    pub(super) name: frontend::Backend,
    /// The members.
    pub(super) servers: Vec<(Place<'t>, Box<Server>)>,
    order: Order,
    mode: Once<'t, Mode>,
    balance: Once<'t, Balance>,
    addresses: Once<'t, Table>,
    strings: Once<'t, Table>,
    stick_on: Once<'t, ()>,
    store: Once<'t, String>,
    matched: Once<'t, String>,
    cookie: Once<'t, ()>,
    timeout_check: Once<'t, u64>,
    http_check: Once<'t, backend::HttpCheck>,
    http_host: Once<'t, String>,
    http_expect: Once<'t, Vec<u16>>,
    hello: Once<'t, ()>,
    external: Once<'t, ()>,
    command: Once<'t, ()>,
    forwarded_for: Once<'t, ()>,
    headers: u16,
    reuse: Once<'t, ()>,
    state: Once<'t, ()>,
    fullconn: Once<'t, ()>,
    allbackups: Once<'t, ()>,
    connect: Once<'t, u64>,
    server: Once<'t, u64>,
}

/// What a backend says that is its listener's.
#[derive(Debug)]
pub(super) struct OfListener<'t> {
    /// Where the backend begins.
    pub(super) place: Place<'t>,
    /// The pool.
    pub(super) id: PoolId,
    /// Its protocol, as far as this backend tells.
    pub(super) protocol: PoolProtocol,
    /// Whether it has no members.
    pub(super) empty: bool,
    /// `mode`.
    pub(super) mode: Mode,
    /// Whether members are told the common name of clients' certificates; none where they are sent no version 2.
    pub(super) ssl_cn: Option<bool>,
    /// The pool's session persistence, where this backend has it without effect.
    pub(super) left_out: Option<SessionPersistence>,
    /// `option forwardfor`.
    pub(super) forwarded_for: bool,
    /// `timeout connect` and `timeout server`, ms.
    pub(super) timeouts: (u64, u64),
    headers: u16,
}

impl OfListener<'_> {
    /// Whether it sets a header.
    pub(super) fn sets(&self, header: Header) -> bool {
        self.headers & (1 << header as u8) != 0
    }
}

impl<'t> PoolDraft<'t> {
    /// A section that begins here.
    pub(super) fn new(name: frontend::Backend, place: Place<'t>) -> Self {
        Self {
            place,
            name,
            servers: Vec::new(),
            order: Order::default(),
            mode: Once::default(),
            balance: Once::default(),
            addresses: Once::default(),
            strings: Once::default(),
            stick_on: Once::default(),
            store: Once::default(),
            matched: Once::default(),
            cookie: Once::default(),
            timeout_check: Once::default(),
            http_check: Once::default(),
            http_host: Once::default(),
            http_expect: Once::default(),
            hello: Once::default(),
            external: Once::default(),
            command: Once::default(),
            forwarded_for: Once::default(),
            headers: 0,
            reuse: Once::default(),
            state: Once::default(),
            fullconn: Once::default(),
            allbackups: Once::default(),
            connect: Once::default(),
            server: Once::default(),
        }
    }

    /// Takes a line of it.
    pub(super) fn line(&mut self, line: &Line<'t>, remarks: &mut Remarks) -> Result<(), Fault> {
        let place = line.place;
        let statement = Backend::read(line)?;
        self.order.next(place, statement.rank())?;
        match statement {
            Backend::Mode(mode) => self.mode.set(place, mode),
            Backend::Balance(balance) => self.balance.set(place, balance),
            Backend::AddressTable(table) => self.table(place, remarks).addresses.set(place, table),
            Backend::StringTable(table) => self.table(place, remarks).strings.set(place, table),
            Backend::StickOnSource => self.stick_on.set(place, ()),
            Backend::StickStore(cookie) => self.store.set(place, cookie),
            Backend::StickMatch(cookie) => self.matched.set(place, cookie),
            Backend::CookieInsert => self.cookie.set(place, ()),
            Backend::TimeoutCheck(time) => self.timeout_check.set(place, time),
            Backend::HttpCheck(check) => self.http_check.set(place, check),
            Backend::HttpCheckHost(host) => self.http_host.set(place, host),
            Backend::HttpCheckExpect(codes) => self.http_expect.set(place, codes),
            Backend::SslHello => self.hello.set(place, ()),
            Backend::ExternalCheck => self.external.set(place, ()),
            Backend::ExternalCheckCommand => self.command.set(place, ()),
            Backend::ForwardFor => self.forwarded_for.set(place, ()),
            Backend::SetHeader(header) => {
                let bit = 1 << header as u8;
                if self.headers & bit != 0 {
                    return Err(place.fault("is said already"));
                }
                self.headers |= bit;
                Ok(())
            }
            Backend::HttpReuse => {
                remarks.note(place, "when connections to members are used again is the proxy's to decide");
                self.reuse.set(place, ())
            }
            Backend::LoadServerState => {
                remarks.note(place, "the states of members are kept without a file of HAProxy's");
                self.state.set(place, ())
            }
            Backend::Fullconn => {
                remarks.note(place, "it means nothing without minconn, which Octavia does not write");
                self.fullconn.set(place, ())
            }
            Backend::Allbackups => self.allbackups.set(place, ()),
            Backend::TimeoutConnect(time) => self.connect.set(place, time),
            Backend::TimeoutServer(time) => self.server.set(place, time),
            Backend::Server(server) => {
                self.servers.push((place, server));
                Ok(())
            }
        }
    }

    fn table(&mut self, place: Place<'t>, remarks: &mut Remarks) -> &mut Self {
        remarks.note(place, "tables of session persistence have the proxy's own size");
        self
    }

    /// The peers that its table is shared with.
    pub(super) fn peers(&self) -> Option<(Place<'t>, &String)> {
        let of = |table: &Once<'t, Table>| table.place();
        let peers = self.addresses.get().or(self.strings.get())?.peers.as_ref()?;
        Some((of(&self.addresses).or(of(&self.strings))?, peers))
    }

    /// Tells where it says what.
    pub(super) fn places(&self, note: &mut impl FnMut(What, Uuid, Place<'t>)) {
        let monitor =
            [self.http_check.place(), self.hello.place(), self.external.place(), self.timeout_check.place()];
        let persistence = [self.addresses.place(), self.strings.place(), self.cookie.place()];
        let own = [
            (What::Pool, Some(self.place)),
            (What::Servers, self.servers.first().map(|(place, _)| *place)),
            (What::Monitor, monitor.into_iter().flatten().next()),
            (What::Persistence, persistence.into_iter().flatten().next()),
            (What::Algorithm, self.balance.place()),
        ];
        own.into_iter().for_each(|(what, place)| {
            place.into_iter().for_each(|place| note(what, self.name.pool.0, place));
        });
        self.servers.iter().for_each(|(place, server)| note(What::Member, server.id.0, *place));
    }

    /// The pool that it means, and what it says of its listener.
    pub(super) fn finish(
        &self,
        names: &Names<'_>,
        remarks: &mut Remarks,
    ) -> Result<(Pool, OfListener<'t>), Fault> {
        let mode = *self.mode.required(self.place, "mode")?;
        let lb_algorithm = match self.balance.required(self.place, "balance")? {
            Balance::RoundRobin => LbAlgorithm::RoundRobin,
            Balance::LeastConnections => LbAlgorithm::LeastConnections,
            Balance::Source => LbAlgorithm::SourceIp,
        };
        self.allbackups.required(self.place, "option allbackups")?;
        let sent = self.alike(|server| &server.send_proxy, "send-proxy")?.copied().flatten();
        let protocol = match (sent, mode) {
            (Some(SendProxy::V1), _) => PoolProtocol::Proxy,
            (Some(SendProxy::V2 | SendProxy::V2SslCn), _) => PoolProtocol::ProxyV2,
            (None, Mode::Http) => PoolProtocol::Http,
            (None, Mode::Tcp) => PoolProtocol::Tcp,
        };
        let tls = self.alike(|server| &server.tls, "ssl")?.and_then(Option::as_ref);
        let said = self.persistence()?;
        let session_persistence = self.honoured(said.clone(), mode, remarks);
        let left_out = said.filter(|_| session_persistence.is_none());
        let pool = Pool {
            id: self.name.pool,
            name: String::new(),
            admin_state_up: true,
            protocol,
            lb_algorithm,
            tls: tls.map(|tls| self.tls(tls, names)).transpose()?,
            session_persistence,
            health_monitor: self.monitor()?,
            member_options: MemberOptions::default(),
            members: self.servers.iter().map(|(_, server)| member(server)).collect(),
        };
        let of_listener = OfListener {
            place: self.place,
            id: self.name.pool,
            protocol,
            empty: self.servers.is_empty(),
            mode,
            ssl_cn: match sent {
                Some(SendProxy::V2) => Some(false),
                Some(SendProxy::V2SslCn) => Some(true),
                Some(SendProxy::V1) | None => None,
            },
            left_out,
            forwarded_for: self.forwarded_for.get().is_some(),
            timeouts: (
                *self.connect.required(self.place, "timeout connect")?,
                *self.server.required(self.place, "timeout server")?,
            ),
            headers: self.headers,
        };
        Ok((pool, of_listener))
    }

    /// What all members say alike; none without members.
    fn alike<T: PartialEq>(&self, of: impl Fn(&Server) -> &T, what: &str) -> Result<Option<&T>, Fault> {
        let first = self.servers.first().map(|(_, server)| of(server));
        match self.servers.iter().find(|(_, server)| Some(of(server)) != first) {
            Some((place, _)) => {
                Err(place.fault(format!("says something else of {what} than the server above")))
            }
            None => Ok(first),
        }
    }

    fn tls(&self, tls: &ServerTls, names: &Names<'_>) -> Result<PoolTls, Fault> {
        let place = self.servers.first().map_or(self.place, |(place, _)| *place);
        let resolve = |file: &Option<_>| file.as_ref().map(|file| names.resolve(file, place)).transpose();
        Ok(PoolTls {
            authorities: resolve(&tls.authorities)?,
            revocations: resolve(&tls.revocations)?,
            client_certificate: resolve(&tls.certificate)?,
            settings: tls.settings.model(),
        })
    }

    fn persistence(&self) -> Result<Option<SessionPersistence>, Fault> {
        let strays = self.servers.iter().find(|(_, server)| match self.cookie.get() {
            Some(()) => server.cookie != Some(server.id),
            None => server.cookie.is_some(),
        });
        if let Some((place, _)) = strays {
            return Err(place.fault("has a cookie other than its own id with cookie SRV, or one without"));
        }
        let source = (self.addresses.get(), self.stick_on.get());
        let app = (self.strings.get(), self.store.get(), self.matched.get());
        match (source, app, self.cookie.get()) {
            ((None, None), (None, None, None), None) => Ok(None),
            ((None, None), (None, None, None), Some(())) => Ok(Some(SessionPersistence::HttpCookie)),
            ((Some(_), Some(())), (None, None, None), None) => Ok(Some(SessionPersistence::SourceIp)),
            ((None, None), (Some(_), Some(stored), Some(matched)), None) if stored == matched => {
                Ok(Some(SessionPersistence::AppCookie { cookie_name: stored.clone() }))
            }
            _ => Err(self.place.fault("has statements of session persistence that do not belong together")),
        }
    }

    /// Session persistence as HAProxy has it, which reads no cookies in mode tcp.
    fn honoured(
        &self,
        persistence: Option<SessionPersistence>,
        mode: Mode,
        remarks: &mut Remarks,
    ) -> Option<SessionPersistence> {
        let place = self.cookie.place().or(self.strings.place()).unwrap_or(self.place);
        match &persistence {
            Some(SessionPersistence::HttpCookie | SessionPersistence::AppCookie { .. })
                if mode == Mode::Tcp =>
            {
                remarks.left_out(place, "a pool of mode tcp has no session persistence by cookie");
                None
            }
            Some(SessionPersistence::AppCookie { cookie_name }) if is_beyond_ascii(cookie_name) => {
                remarks.left_out(place, "the name of a cookie is ASCII (RFC 6265 section 4.1.1)");
                None
            }
            _ => persistence,
        }
    }

    fn monitor(&self) -> Result<Option<HealthMonitor>, Fault> {
        let check = self.alike(|server| &server.check, "check")?;
        let kinds = [self.http_check.place(), self.hello.place(), self.external.place()];
        if let [Some(place), .., Some(_)] | [Some(place), Some(_), _] | [_, Some(place), Some(_)] = kinds {
            return Err(place.fault("is one of two kinds of health monitors"));
        }
        if self.external.get().is_some() != self.command.get().is_some() {
            return Err(self
                .place
                .fault("has option external-check and external-check command not together"));
        }
        let kind = self.kind()?;
        match (check, self.timeout_check.get()) {
            // What a monitor of nobody would do is of no interest.
            (None, _) | (Some(None), None) if self.servers.is_empty() || kind == HealthCheck::Tcp => Ok(None),
            (Some(Some(check)), Some(timeout)) => self.checked(check, *timeout, kind).map(Some),
            _ => Err(self.place.fault(
                "has a part of a health monitor: servers with check, timeout check, and what is checked",
            )),
        }
    }

    fn checked(&self, check: &Check, timeout: u64, kind: HealthCheck) -> Result<HealthMonitor, Fault> {
        let kind = match (check.tls, kind) {
            (false, kind) => kind,
            (true, HealthCheck::Http(http)) => HealthCheck::Https(http),
            (true, _) => return Err(self.place.fault("has servers with check-ssl and no option httpchk")),
        };
        Ok(HealthMonitor {
            id: HealthMonitorId(self.name.pool.0),
            name: String::new(),
            admin_state_up: true,
            delay: Duration::from_secs(check.interval),
            timeout: Duration::from_secs(timeout),
            max_retries: check.rise,
            max_retries_down: check.fall,
            check: kind,
        })
    }

    /// What is checked, without knowing whether TLS is spoken.
    fn kind(&self) -> Result<HealthCheck, Fault> {
        let parts = (self.http_check.get(), self.http_expect.get(), self.http_host.get());
        let (check, codes, host) = match parts {
            (None, None, None) if self.hello.get().is_some() => return Ok(HealthCheck::TlsHello),
            (None, None, None) if self.external.get().is_some() => return Ok(HealthCheck::Ping),
            (None, None, None) => return Ok(HealthCheck::Tcp),
            (Some(check), Some(codes), host) => (check, codes, host),
            _ => return Err(self.place.fault("has option httpchk and http-check expect not together")),
        };
        let domain_name = match (&check.host, host) {
            (Some(_), Some(_)) => return Err(self.place.fault("has two hosts for health checks")),
            (one, other) => one.as_ref().or(other).cloned(),
        };
        if domain_name.is_some() && check.version != HttpVersion::Http11 {
            return Err(self.place.fault("has a host for health checks of HTTP/1.0"));
        }
        Ok(HealthCheck::Http(HttpCheck {
            method: check.method,
            url_path: check.path.clone(),
            // A version behind a # is part of the comment: what members are asked in HAProxy they have to answer here.
            version: if check.is_cut && domain_name.is_none() { HttpVersion::Http10 } else { check.version },
            domain_name,
            expected_codes: ranges(codes),
        }))
    }
}

/// Whether this would be the name of a cookie (RFC 6265 section 4.1.1) but for characters beyond ASCII, which Octavia's API takes.
fn is_beyond_ascii(name: &str) -> bool {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    !name.is_ascii() && name.chars().all(|c| is_token(c) || !(c.is_ascii() || c.is_control()))
}

/// Ascending numbers as ranges.
fn ranges(codes: &[u16]) -> Vec<(u16, u16)> {
    let mut ranges: Vec<(u16, u16)> = Vec::new();
    for code in codes {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == *code => *last = *code,
            _ => ranges.push((*code, *code)),
        }
    }
    ranges
}

fn member(server: &Server) -> Member {
    Member {
        id: server.id,
        name: String::new(),
        admin_state_up: !server.disabled,
        address: server.address.ip(),
        port: server.address.port(),
        weight: server.weight,
        backup: server.backup,
        monitor_address: server.check_address,
        monitor_port: server.check_port,
    }
}

/// Makes one of a pool that two listeners have, of which one may see no cookies: each with the session persistence that it has without
/// effect.
///
/// # Errors
/// In what they differ.
pub(super) fn merge(
    (first, first_left_out): (&mut Pool, Option<&SessionPersistence>),
    (twin, twin_left_out): (&Pool, Option<&SessionPersistence>),
) -> Result<(), &'static str> {
    // Of one without members, mode is all that is known of its protocol. With both, it is PROXY or PROXYV2.
    if first.members.is_empty() && twin.members.is_empty() && first.protocol != twin.protocol {
        first.protocol = PoolProtocol::Proxy;
    } else if first.protocol != twin.protocol {
        return Err("protocol");
    }
    let differences = [
        (first.lb_algorithm != twin.lb_algorithm, "algorithm"),
        (first.tls != twin.tls, "TLS"),
        (
            first.session_persistence.as_ref().or(first_left_out)
                != twin.session_persistence.as_ref().or(twin_left_out),
            "session persistence",
        ),
        (first.health_monitor != twin.health_monitor, "health monitor"),
        (first.members != twin.members, "list of members"),
    ];
    if let Some((_, what)) = differences.into_iter().find(|(differs, _)| *differs) {
        return Err(what);
    }
    if first.session_persistence.is_none() {
        first.session_persistence.clone_from(&twin.session_persistence);
    }
    Ok(())
}
