//! `global`, `defaults` and `peers`.

use std::net::{IpAddr, SocketAddr};

use super::{Fault, args::Args, words::Line};

/// Where Octavia's amphora listens for its log.
const LOG: &str = "/run/rsyslog/octavia/log";

/// The most connections that HAProxy is given.
const MAX_MAXCONN: u32 = i32::MAX as u32;

/// A statement of `global`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Global {
    /// `daemon`.
    Daemon,
    /// `user nobody`.
    User,
    /// `group`, of old controllers: Octavia's own agent takes it out.
    Group,
    /// `log .. local0`: the flow logs' facility.
    UserLog(u8),
    /// `log .. local1 notice`: what HAProxy itself has to say.
    AdministrativeLog,
    /// `stats socket <base>/<load balancer>.sock mode 0666 level user`: the name without `.sock`.
    StatsSocket(String),
    /// `server-state-file`.
    ServerStateFile,
    /// `maxconn`.
    Maxconn,
    /// `tune.ssl.cachesize`.
    SslCacheSize,
    /// `nbthread`.
    Nbthread,
    /// `cpu-map`. Up to Octavia 18 `external-check` comes on the same line if both are there.
    CpuMap,
    /// `external-check`.
    ExternalCheck,
    /// `insecure-fork-wanted`.
    InsecureFork,
}

impl Global {
    /// Reads one.
    pub(super) fn read(line: &Line<'_>) -> Result<Self, Fault> {
        let mut args = Args::new(line);
        let this = match args.plain("a keyword")?.as_ref() {
            "daemon" => Self::Daemon,
            "user" => {
                args.expect("nobody")?;
                Self::User
            }
            "group" => {
                args.plain("a group")?;
                Self::Group
            }
            "log" => {
                args.expect(LOG)?;
                let facility = args.plain("a facility")?;
                let number = facility.strip_prefix("local").filter(|digit| digit.len() == 1);
                let number = number
                    .and_then(|digit| digit.parse::<u8>().ok())
                    .filter(|number| *number <= 7)
                    .ok_or_else(|| args.fault("has no facility from local0 to local7"))?;
                if args.take("notice") { Self::AdministrativeLog } else { Self::UserLog(number) }
            }
            "stats" => {
                args.expect("socket")?;
                let path = args.plain("a path")?;
                let name = path.rsplit('/').next().and_then(|name| name.strip_suffix(".sock"));
                let name = name.ok_or_else(|| args.fault("has a path that does not end in .sock"))?;
                args.expect("mode 0666 level user")?;
                Self::StatsSocket(name.to_owned())
            }
            "server-state-file" => {
                args.plain("a path")?;
                Self::ServerStateFile
            }
            "maxconn" => {
                args.number("a number", 1..=MAX_MAXCONN, "")?;
                Self::Maxconn
            }
            "tune.ssl.cachesize" => {
                args.number("a number", 0..=u64::from(u32::MAX), "")?;
                Self::SslCacheSize
            }
            "nbthread" => {
                args.number("a number", 1..=4096_u16, "")?;
                Self::Nbthread
            }
            "cpu-map" => {
                for _ in 0..2 {
                    let text = args.plain("processors")?;
                    let range = text.strip_prefix("auto:1/").unwrap_or(&text);
                    if range.is_empty() || !range.bytes().all(|b| b.is_ascii_digit() || b == b'-') {
                        return Err(args.fault("has no range of threads or processors"));
                    }
                }
                args.take("external-check");
                Self::CpuMap
            }
            "external-check" => Self::ExternalCheck,
            "insecure-fork-wanted" => Self::InsecureFork,
            _ => return Err(args.fault("is not known in section global")),
        };
        args.last(this)
    }

    /// Why it changes nothing here.
    pub(super) fn without_effect(&self) -> Option<&'static str> {
        Some(match self {
            // That there is one process without a terminal, as a user without rights, is what systemd sees to.
            Self::Daemon | Self::User | Self::Group | Self::UserLog(_) | Self::StatsSocket(_) => return None,
            Self::AdministrativeLog => "the programs' own log goes to the journal",
            Self::ServerStateFile => "the states of members are kept without a file of HAProxy's",
            Self::Maxconn => "each listener has its own limit, of which this is the sum",
            Self::SslCacheSize => "sessions of TLS are resumed by tickets, which take no memory here",
            Self::Nbthread | Self::CpuMap => "there is a worker for each processor",
            Self::ExternalCheck | Self::InsecureFork => "pings need no program",
        })
    }
}

/// A statement of `defaults`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Defaults {
    /// `log global`.
    LogGlobal,
    /// `no log`.
    NoLog,
    /// `retries 3`, which is what a connection to a member that fails has here as well.
    Retries,
    /// `option redispatch`, likewise.
    Redispatch,
    /// `option splice-request`, likewise.
    SpliceRequest,
    /// `option splice-response`, likewise.
    SpliceResponse,
    /// `option http-keep-alive`, likewise.
    HttpKeepAlive,
}

impl Defaults {
    /// Reads one.
    pub(super) fn read(line: &Line<'_>) -> Result<Self, Fault> {
        const ALL: [(&str, Defaults); 6] = [
            ("log global", Defaults::LogGlobal),
            ("no log", Defaults::NoLog),
            ("option redispatch", Defaults::Redispatch),
            ("option splice-request", Defaults::SpliceRequest),
            ("option splice-response", Defaults::SpliceResponse),
            ("option http-keep-alive", Defaults::HttpKeepAlive),
        ];
        let mut args = Args::new(line);
        if args.take("retries") {
            args.expect("3")?;
            return args.last(Self::Retries);
        }
        let found = ALL.into_iter().find(|(words, _)| args.take(words));
        let (_, this) = found.ok_or_else(|| args.fault("is not known in section defaults"))?;
        args.last(this)
    }
}

/// A statement of `peers`: one of the amphorae of a pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its name: what [`peer_name`] makes of an amphora's id.
    pub name: String,
    /// Where HAProxy would listen.
    pub address: SocketAddr,
}

impl Peer {
    /// Reads one.
    pub(super) fn read(line: &Line<'_>) -> Result<Self, Fault> {
        let mut args = Args::new(line);
        if !args.take("peer") {
            return Err(args.fault("is not known in section peers"));
        }
        let name = args.plain("a name")?.into_owned();
        let address = address(&mut args)?;
        args.last(Self { name, address })
    }
}

/// What Octavia calls an amphora among peers: the SHA-1 of its id in Base64, without padding.
pub fn peer_name(amphora: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, amphora.as_bytes());
    data_encoding::BASE64_NOPAD.encode(digest.as_ref())
}

/// The next word: an address and a port, those of IPv6 without brackets.
pub(super) fn address(args: &mut Args<'_, '_>) -> Result<SocketAddr, Fault> {
    let text = args.plain("an address")?;
    let parsed = text.rsplit_once(':').and_then(|(address, port)| {
        let port = Some(port).filter(|port| port.bytes().all(|b| b.is_ascii_digit()))?;
        let port = port.parse::<u16>().ok().filter(|port| *port > 0)?;
        Some(SocketAddr::new(address.parse::<IpAddr>().ok()?, port))
    });
    parsed.ok_or_else(|| {
        args.fault(format!("has {} where address:port is expected", super::args::short(&text)))
    })
}
