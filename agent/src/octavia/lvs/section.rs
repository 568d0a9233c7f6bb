//! Statements one after the other, as the templates write them: what each address family has.

use std::net::{IpAddr, SocketAddr};

use amphora_model::{
    HealthCheck, HealthMonitorId, HttpCheck, HttpMethod, HttpVersion, LbAlgorithm, ListenerId,
    LoadBalancerId, MemberId, PoolId, Transport,
};

use super::{
    super::fault::Place,
    Fault,
    statement::{Family, Granularity, Placed, Script, Statement},
};

/// A text.
#[derive(Debug)]
pub(super) struct Text<'t> {
    /// Whose it is.
    pub(super) load_balancer: LoadBalancerId,
    /// The listener.
    pub(super) listener: ListenerId,
    /// Where that is named.
    pub(super) place: Place<'t>,
    /// Whether it is enabled.
    pub(super) enabled: bool,
    /// At most one of each family.
    pub(super) servers: Vec<Server<'t>>,
}

/// A `virtual_server`, with its group.
#[derive(Debug)]
pub(super) struct Server<'t> {
    /// Where it begins.
    pub(super) place: Place<'t>,
    /// Its family.
    pub(super) family: Family,
    /// At least one.
    pub(super) vips: Vec<IpAddr>,
    /// `protocol_port`.
    pub(super) port: u16,
    /// Where `persistence_granularity` stands, if it does.
    pub(super) granularity: Option<(Place<'t>, Granularity)>,
    /// What is said alike for both families.
    pub(super) common: Common,
    /// The pool's members that are enabled.
    pub(super) members: Vec<(Place<'t>, Real)>,
    /// Those that are not.
    pub(super) disabled: Vec<MemberId>,
}

/// What both families say alike.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Common {
    pub(super) algorithm: LbAlgorithm,
    pub(super) transport: Transport,
    /// `persistence_timeout`, s.
    pub(super) persistence: Option<u64>,
    /// `delay_loop`, s, and `retry`.
    pub(super) looks: Option<(u64, Option<u8>)>,
    pub(super) pool: PoolId,
    pub(super) pool_enabled: bool,
    pub(super) monitor: Option<HealthMonitorId>,
}

/// A `real_server`.
#[derive(Debug)]
pub(super) struct Real {
    pub(super) id: MemberId,
    pub(super) address: SocketAddr,
    pub(super) weight: u16,
    /// `uthreshold`.
    pub(super) limit: Option<u32>,
    pub(super) check: Option<Check>,
}

/// How a member is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Check {
    pub(super) target: SocketAddr,
    /// Seconds.
    pub(super) timeout: u64,
    pub(super) kind: HealthCheck,
}

/// What is left of a text.
#[derive(Debug)]
pub(super) struct Statements<'s, 't> {
    left: &'s [Placed<'t>],
    /// The last one that was taken.
    last: Option<Place<'t>>,
}

impl<'s, 't> Statements<'s, 't> {
    /// All of them.
    pub(super) fn new(all: &'s [Placed<'t>]) -> Self {
        Self { left: all, last: None }
    }

    /// Takes the next one if it is what `of` knows.
    fn take<T>(&mut self, of: impl FnOnce(&'s Statement) -> Option<T>) -> Option<(Place<'t>, T)> {
        let (next, rest) = self.left.split_first()?;
        let taken = of(&next.says)?;
        self.left = rest;
        self.last = Some(next.place);
        Some((next.place, taken))
    }

    /// The next one has to be what `of` knows.
    fn expect<T>(
        &mut self,
        what: &str,
        of: impl FnOnce(&'s Statement) -> Option<T>,
    ) -> Result<(Place<'t>, T), Fault> {
        self.take(of).ok_or_else(|| self.unexpected(what))
    }

    /// The next one is none of what may stand here.
    fn unexpected(&self, what: &str) -> Fault {
        match (self.left.first(), self.last) {
            (Some(next), _) => next.place.fault(format!("stands where {what} is expected")),
            (None, Some(last)) => last.fault(format!("is the end, where {what} is expected")),
            (None, None) => Fault::whole("is empty"),
        }
    }

    fn says(&mut self, what: &str, statement: &Statement) -> Result<Place<'t>, Fault> {
        self.expect(what, |next| (next == statement).then_some(())).map(|(place, ())| place)
    }
}

/// `Some` with what is inside, for [`Statements::take`].
macro_rules! of {
    ($name:ident) => {
        |statement| match statement {
            Statement::$name(inner) => Some(inner.clone()),
            _ => None,
        }
    };
    ($name:ident, $enabled:ident) => {
        |statement| match statement {
            Statement::$name(id, $enabled) => Some((*id, *$enabled)),
            _ => None,
        }
    };
}

/// Reads all of a text.
pub(super) fn text<'t>(next: &mut Statements<'_, 't>) -> Result<Text<'t>, Fault> {
    let (_, load_balancer) = next.expect("the load balancer's id", of!(LoadBalancer))?;
    let (place, (listener, enabled)) = next.expect("the listener's id", of!(Listener, enabled))?;
    next.says("net_namespace", &Statement::NetNamespace)?;
    let mut servers: Vec<Server<'t>> = Vec::new();
    while let Some((place, family)) = next.take(of!(Group)) {
        if !enabled {
            return Err(place.fault("is of a listener that is disabled"));
        }
        if servers.iter().any(|server| family == server.family || family == Family::V4) {
            return Err(place.fault("does not come behind what is above it"));
        }
        servers.push(server(next, family)?);
    }
    match next.left.first() {
        None => Ok(Text { load_balancer, listener, place, enabled, servers }),
        Some(_) => Err(next.unexpected("a virtual_server_group or the end")),
    }
}

fn server<'t>(next: &mut Statements<'_, 't>, family: Family) -> Result<Server<'t>, Fault> {
    let mut vips = Vec::new();
    let mut port = None;
    let vip = |statement: &Statement| match statement {
        Statement::Vip(address, port) => Some((*address, *port)),
        _ => None,
    };
    while let Some((place, (address, at))) = next.take(vip) {
        if !family.has(address) || vips.contains(&address) {
            return Err(place.fault("is an address of the other family, or there already"));
        }
        if *port.get_or_insert(at) != at {
            return Err(place.fault("has another port than the address above it"));
        }
        vips.push(address);
    }
    let port = port.ok_or_else(|| next.unexpected("an address and a port"))?;
    next.says("}", &Statement::End)?;
    let place = next.says("the virtual_server of the group", &Statement::Server(family))?;
    let (_, algorithm) = next.expect("lb_algo", of!(LbAlgo))?;
    next.says("lb_kind", &Statement::LbKind)?;
    let (_, transport) = next.expect("protocol", of!(Protocol))?;
    let mut granularity = None;
    let persistence = match next.take(of!(PersistenceTimeout)) {
        Some((_, seconds)) => {
            granularity = Some(next.expect("persistence_granularity", of!(PersistenceGranularity))?);
            Some(seconds)
        }
        None => None,
    };
    let looks = match next.take(of!(DelayLoop)) {
        Some((_, delay)) => {
            let (place, again) = next.expect("delay_before_retry", of!(DelayBeforeRetry))?;
            if again != delay {
                return Err(place.fault("is not the delay_loop above it"));
            }
            Some((delay, next.take(of!(Retry)).map(|(_, retry)| retry)))
        }
        None => None,
    };
    let (_, (pool, pool_enabled)) = next.expect("the pool's id", of!(Pool, enabled))?;
    let monitor = match looks {
        Some(_) => Some(next.expect("the health monitor's id", of!(HealthMonitor))?.1),
        None => None,
    };
    let (mut members, mut disabled) = (Vec::new(), Vec::new());
    while let Some((place, (id, enabled))) = next.take(of!(Member, enabled)) {
        if !pool_enabled {
            return Err(place.fault("is of a pool that is disabled"));
        }
        match enabled {
            true => members.push((place, member(next, id, family)?)),
            false => disabled.push(id),
        }
    }
    next.says("a member or }", &Statement::End)?;
    let common = Common { algorithm, transport, persistence, looks, pool, pool_enabled, monitor };
    Ok(Server { place, family, vips, port, granularity, common, members, disabled })
}

fn member(next: &mut Statements<'_, '_>, id: MemberId, family: Family) -> Result<Real, Fault> {
    let (place, address) = next.expect("real_server", of!(RealServer))?;
    if !family.has(address.ip()) {
        return Err(place.fault("has an address of the other family"));
    }
    let (_, weight) = next.expect("weight", of!(Weight))?;
    let limit = next.take(of!(Uthreshold)).map(|(_, limit)| limit);
    let check = check(next)?;
    next.says("a check or }", &Statement::End)?;
    Ok(Real { id, address, weight, limit, check })
}

fn check(next: &mut Statements<'_, '_>) -> Result<Option<Check>, Fault> {
    let is = |wanted: Statement| move |statement: &Statement| (*statement == wanted).then_some(());
    let check = if next.take(is(Statement::MiscCheck)).is_some() {
        let (_, script) = next.expect("misc_path", of!(MiscPath))?;
        let (place, until) = next.expect("misc_timeout", of!(MiscTimeout))?;
        match script {
            Script::UdpConnect(target) => Check { target, timeout: until, kind: HealthCheck::UdpConnect },
            // The program is to end by itself.
            Script::Sctp(_, timeout) if until != timeout + 1 => {
                return Err(place.fault("is not one second more than the program's"));
            }
            Script::Sctp(target, timeout) => Check { target, timeout, kind: HealthCheck::Sctp },
        }
    } else if next.take(is(Statement::TcpCheck)).is_some() {
        let (target, timeout) = connect(next)?;
        Check { target, timeout, kind: HealthCheck::Tcp }
    } else if let Some((place, ())) = next.take(is(Statement::HttpGet)) {
        let kind = HealthCheck::Http(urls(next, place)?);
        let (target, timeout) = connect(next)?;
        Check { target, timeout, kind }
    } else {
        return Ok(None);
    };
    next.says("}", &Statement::End)?;
    Ok(Some(check))
}

fn connect(next: &mut Statements<'_, '_>) -> Result<(SocketAddr, u64), Fault> {
    let (_, address) = next.expect("connect_ip", of!(ConnectIp))?;
    let (_, port) = next.expect("connect_port", of!(ConnectPort))?;
    let (_, timeout) = next.expect("connect_timeout", of!(ConnectTimeout))?;
    Ok((SocketAddr::new(address, port), timeout))
}

/// One for each status that is expected, in their order.
fn urls(next: &mut Statements<'_, '_>, place: Place<'_>) -> Result<HttpCheck, Fault> {
    let mut url_path: Option<String> = None;
    let mut expected_codes: Vec<(u16, u16)> = Vec::new();
    while next.take(|statement| (*statement == Statement::Url).then_some(())).is_some() {
        let (place, path) = next.expect("path", of!(Path))?;
        let path_line = place.number;
        if *url_path.get_or_insert_with(|| path.clone()) != path {
            return Err(place.fault("is not the path of the url above it"));
        }
        let (place, code) = next.expect("status_code", of!(StatusCode))?;
        if place.number != path_line + 1 {
            return Err(place.fault("is not right below its path: a value with a line feed?"));
        }
        match expected_codes.last_mut() {
            Some((_, last)) if code <= *last => return Err(place.fault("is not above the one before it")),
            Some((_, last)) if code == *last + 1 => *last = code,
            _ => expected_codes.push((code, code)),
        }
        next.says("}", &Statement::End)?;
    }
    let url_path = url_path.ok_or_else(|| place.fault("has no url"))?;
    Ok(HttpCheck {
        method: HttpMethod::Get,
        url_path,
        version: HttpVersion::Http10,
        domain_name: None,
        expected_codes,
    })
}
