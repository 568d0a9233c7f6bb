//! A line as what it says.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use amphora_model::{
    HealthMonitorId, LbAlgorithm, ListenerId, LoadBalancerId, MemberId, PoolId, Transport, excerpt,
};

use super::{
    super::{fault::Place, path::sent},
    Fault,
    lines::{Args, Line},
};

/// A statement, and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Placed<'t> {
    /// Its line.
    pub(super) place: Place<'t>,
    /// It.
    pub(super) says: Statement,
}

/// The address family that a part of the text is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// IPv4, which comes first.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Whether an address is of it.
    pub(super) fn has(self, address: IpAddr) -> bool {
        address.is_ipv4() == (self == Self::V4)
    }

    fn group(self) -> &'static str {
        match self {
            Self::V4 => "ipv4-group",
            Self::V6 => "ipv6-group",
        }
    }
}

/// `persistence_granularity`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Granularity {
    /// A netmask, as the length of its prefix.
    V4(u8),
    /// The length of a prefix.
    V6(u8),
}

/// What `misc_path` runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Script {
    /// `<base>/lvs/check/udp_check.sh <address> <port>`.
    UdpConnect(SocketAddr),
    /// `amphora-health-checker sctp -t <timeout> <address> <port>`.
    Sctp(SocketAddr, u64),
}

/// What a line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Statement {
    /// `# Configuration for Loadbalancer <id>`.
    LoadBalancer(LoadBalancerId),
    /// `# Configuration for Listener <id>`, or that it is disabled.
    Listener(ListenerId, bool),
    /// `# Configuration for Pool <id>`, or that it is disabled.
    Pool(PoolId, bool),
    /// `# Configuration for HealthMonitor <id>`.
    HealthMonitor(HealthMonitorId),
    /// `# Configuration for Member <id>`, or that it is disabled.
    Member(MemberId, bool),
    /// `net_namespace amphora-haproxy`.
    NetNamespace,
    /// `virtual_server_group <family> {`.
    Group(Family),
    /// A VIP and the port.
    Vip(IpAddr, u16),
    /// `virtual_server group <family> {`.
    Server(Family),
    /// `lb_algo`.
    LbAlgo(LbAlgorithm),
    /// `lb_kind NAT`.
    LbKind,
    /// `protocol`, which is one that IPVS knows.
    Protocol(Transport),
    /// `persistence_timeout`, s.
    PersistenceTimeout(u64),
    /// `persistence_granularity`.
    PersistenceGranularity(Granularity),
    /// `delay_loop`, s.
    DelayLoop(u64),
    /// `delay_before_retry`, s.
    DelayBeforeRetry(u64),
    /// `retry`.
    Retry(u8),
    /// `real_server <address> <port> {`.
    RealServer(SocketAddr),
    /// `weight`.
    Weight(u16),
    /// `uthreshold`.
    Uthreshold(u32),
    /// `MISC_CHECK {`.
    MiscCheck,
    /// `misc_path`.
    MiscPath(Script),
    /// `misc_timeout`, s.
    MiscTimeout(u64),
    /// `HTTP_GET {`.
    HttpGet,
    /// `url {`.
    Url,
    /// `path`.
    Path(String),
    /// `status_code`.
    StatusCode(u16),
    /// `TCP_CHECK {`.
    TcpCheck,
    /// `connect_ip`.
    ConnectIp(IpAddr),
    /// `connect_port`.
    ConnectPort(u16),
    /// `connect_timeout`, s.
    ConnectTimeout(u64),
    /// `}`.
    End,
}

/// HAProxy's longest timer, in seconds, as in documents.
const MAX_SECONDS: u64 = 2_147_483;

/// Reads a line.
pub(super) fn read<'t>(line: &Line<'t>) -> Result<Placed<'t>, Fault> {
    let mut args = Args::new(line);
    let says = statement(&mut args)?;
    args.last(Placed { place: line.place, says })
}

fn statement(args: &mut Args<'_, '_>) -> Result<Statement, Fault> {
    use Statement as S;
    let keyword = args.raw("a statement")?;
    let seconds = |args: &mut Args<'_, '_>, least| args.number("a number of seconds", least..=MAX_SECONDS);
    Ok(match keyword {
        "#" => comment(args)?,
        "net_namespace" => args.expect("amphora-haproxy").map(|()| S::NetNamespace)?,
        "virtual_server_group" => S::Group(family(args)?),
        "virtual_server" => {
            args.expect("group")?;
            S::Server(family(args)?)
        }
        "lb_algo" => S::LbAlgo(match args.raw("wrr, lc or sh")? {
            "wrr" => LbAlgorithm::RoundRobin,
            "lc" => LbAlgorithm::LeastConnections,
            "sh" => LbAlgorithm::SourceIp,
            other => {
                return Err(args.fault(format!("has {} where wrr, lc or sh is expected", excerpt(other))));
            }
        }),
        "lb_kind" => args.expect("NAT").map(|()| S::LbKind)?,
        "protocol" => S::Protocol(match args.raw("UDP or SCTP")? {
            "UDP" => Transport::Udp,
            "SCTP" => Transport::Sctp,
            other => return Err(args.fault(format!("has {} where UDP or SCTP is expected", excerpt(other)))),
        }),
        "persistence_timeout" => {
            S::PersistenceTimeout(args.number("a number of seconds", 1..=i32::MAX.unsigned_abs().into())?)
        }
        "persistence_granularity" => S::PersistenceGranularity(granularity(args)?),
        "delay_loop" => S::DelayLoop(seconds(args, 1)?),
        "delay_before_retry" => S::DelayBeforeRetry(seconds(args, 1)?),
        "retry" => S::Retry(args.number("a number of failures", 1..=10)?),
        "real_server" => {
            let endpoint = endpoint(args)?;
            args.expect("{")?;
            S::RealServer(endpoint)
        }
        "weight" => S::Weight(args.number("a weight", 0..=256)?),
        "uthreshold" => {
            let limit = args.number("a number of connections", 1..=u32::MAX)?;
            S::Uthreshold(limit.min(i32::MAX.unsigned_abs()))
        }
        "MISC_CHECK" => args.expect("{").map(|()| S::MiscCheck)?,
        "misc_path" => S::MiscPath(script(args)?),
        "misc_timeout" => S::MiscTimeout(args.number("a number of seconds", 0..=MAX_SECONDS + 1)?),
        "HTTP_GET" => args.expect("{").map(|()| S::HttpGet)?,
        "url" => args.expect("{").map(|()| S::Url)?,
        "path" => S::Path(sent(&args.value("a path")?).0),
        "status_code" => S::StatusCode(args.number("a status", 100..=999)?),
        "TCP_CHECK" => args.expect("{").map(|()| S::TcpCheck)?,
        "connect_ip" => S::ConnectIp(args.parsed("an address")?),
        "connect_port" => S::ConnectPort(port(args)?),
        "connect_timeout" => S::ConnectTimeout(seconds(args, 0)?),
        "}" => S::End,
        word => match word.parse() {
            Ok(address) => S::Vip(address, port(args)?),
            Err(_) => return Err(args.fault(format!("{} is not known", excerpt(word)))),
        },
    })
}

fn comment(args: &mut Args<'_, '_>) -> Result<Statement, Fault> {
    let enabled = args.take("Configuration for");
    let kind = args.raw("what the comment is about")?;
    let read = match (kind, enabled) {
        ("Loadbalancer", true) => Statement::LoadBalancer(args.parsed("an id")?),
        ("Listener", _) => Statement::Listener(args.parsed("an id")?, enabled),
        ("Pool", _) => Statement::Pool(args.parsed("an id")?, enabled),
        ("HealthMonitor", true) => Statement::HealthMonitor(args.parsed("an id")?),
        ("Member", _) => Statement::Member(args.parsed("an id")?, enabled),
        _ => return Err(args.fault("is a comment that is not known")),
    };
    if !enabled {
        args.expect("is disabled")?;
    }
    Ok(read)
}

fn family(args: &mut Args<'_, '_>) -> Result<Family, Fault> {
    let family = if args.peek() == Family::V6.group() { Family::V6 } else { Family::V4 };
    args.expect(family.group())?;
    args.expect("{")?;
    Ok(family)
}

fn port(args: &mut Args<'_, '_>) -> Result<u16, Fault> {
    args.number("a port", 1..=u16::MAX)
}

fn endpoint(args: &mut Args<'_, '_>) -> Result<SocketAddr, Fault> {
    Ok(SocketAddr::new(args.parsed("an address")?, port(args)?))
}

fn granularity(args: &mut Args<'_, '_>) -> Result<Granularity, Fault> {
    let what = "a netmask of IPv4, or the length of a prefix of IPv6";
    if args.peek().contains('.') {
        let bits = args.parsed::<Ipv4Addr>(what)?.to_bits();
        let prefix = bits.leading_ones();
        if prefix == 0 || bits.count_ones() != prefix {
            return Err(args.fault("is no netmask"));
        }
        return Ok(Granularity::V4(prefix as u8));
    }
    args.number(what, 1..=128).map(Granularity::V6)
}

/// What is in quotes is one word to keepalived.
fn script(args: &mut Args<'_, '_>) -> Result<Script, Fault> {
    let program = args.raw("a program")?;
    let endpoint = |args: &mut Args<'_, '_>| {
        let address = args.parsed("an address")?;
        let port = args.raw("a port")?;
        let digits = port.strip_suffix('"').filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
        let number = digits.and_then(|digits| digits.parse().ok()).filter(|port| *port != 0);
        let number = number.ok_or_else(|| {
            args.fault(format!("has {} where a port and a quote are expected", excerpt(port)))
        })?;
        Ok(SocketAddr::new(address, number))
    };
    if program == "\"amphora-health-checker" {
        args.expect("sctp -t")?;
        let timeout = args.number("a number of seconds", 0..=MAX_SECONDS)?;
        return Ok(Script::Sctp(endpoint(args)?, timeout));
    }
    if !(program.starts_with("\"/") && program.ends_with("/lvs/check/udp_check.sh")) {
        return Err(args.fault("runs a program that is not known"));
    }
    Ok(Script::UdpConnect(endpoint(args)?))
}
