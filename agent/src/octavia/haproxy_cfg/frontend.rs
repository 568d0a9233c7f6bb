//! `frontend`: a listener.

use std::net::SocketAddr;

use amphora_model::{Hsts, L7Rule, L7RuleId, ListenerId, PoolId, RedirectCode};

use super::{
    Fault, acl,
    args::Args,
    global,
    tls::{File, Settings, Verify},
    words::Line,
};

/// The longest timeout: HAProxy's, 2^31 - 1 ms.
pub(super) const MAX_MILLIS: u64 = i32::MAX as u64;

/// The highest limit of connections that there is here. HAProxy's, up to 2^32 - 1, limit no more.
const MAX_CONNECTIONS: u32 = i32::MAX as u32;

/// A statement of `frontend`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Frontend {
    /// `maxconn`.
    Maxconn(u32),
    /// `redirect scheme https if !{ ssl_fc }`.
    RedirectHttps,
    /// `http-response set-header Strict-Transport-Security`.
    Hsts(Hsts),
    /// `bind`.
    Bind(Bind),
    /// `mode`.
    Mode(Mode),
    /// `acl`.
    Acl(L7Rule),
    /// What is done when all rules match.
    Policy(Action, Vec<Condition>),
    /// `default_backend`.
    DefaultBackend(Target),
    /// `timeout client`, ms.
    TimeoutClient(u64),
    /// `tcp-request inspect-delay`, ms.
    InspectDelay(u64),
    /// `log-format`.
    LogFormat(String),
}

/// `mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// `http`.
    Http,
    /// `tcp`.
    Tcp,
}

impl Mode {
    /// Reads what is behind `mode`.
    pub(super) fn read(args: &mut Args<'_, '_>) -> Result<Self, Fault> {
        match args.plain("http or tcp")?.as_ref() {
            "http" => Ok(Self::Http),
            "tcp" => Ok(Self::Tcp),
            _ => Err(args.fault("has a mode other than http and tcp")),
        }
    }
}

/// A pool as a listener has it: the name of a `backend`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Backend {
    /// What is in front of the colon.
    pub(super) pool: PoolId,
    /// What is behind it.
    pub(super) listener: ListenerId,
}

impl Backend {
    /// Reads a name.
    pub(super) fn read(args: &mut Args<'_, '_>) -> Result<Self, Fault> {
        let name = args.plain("the name of a backend")?;
        let ids = name.split_once(':').and_then(|(pool, listener)| {
            Some(Self { pool: pool.parse().ok()?, listener: listener.parse().ok()? })
        });
        ids.ok_or_else(|| args.fault("has a backend's name that is no <pool>:<listener>"))
    }
}

/// `default_backend`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// A pool.
    Pool(Backend),
    /// `prometheus-exporter-internal`.
    Exporter,
}

/// What a policy does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// `http-request deny`.
    Deny,
    /// `redirect .. location`.
    Location(RedirectCode, String),
    /// `redirect .. prefix`.
    Prefix(RedirectCode, String),
    /// `use_backend`.
    UseBackend(Backend),
}

/// A word behind `if`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    /// `!`.
    pub(super) invert: bool,
    /// The name of an ACL.
    pub(super) rule: L7RuleId,
}

/// `bind`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bind {
    /// Where.
    pub(super) address: SocketAddr,
    /// With TLS, or without.
    pub(super) tls: Option<BindTls>,
}

/// What `bind` says of TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BindTls {
    /// `crt-list`, or `crt`.
    pub(super) certificates: Certificates,
    /// `ca-file`, `verify`.
    pub(super) clients: Option<(File, Verify)>,
    /// `crl-file`.
    pub(super) revocations: Option<File>,
    /// Versions, ciphers, protocols.
    pub(super) settings: Settings,
}

/// Where a listener's certificates are said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Certificates {
    /// `crt-list`.
    List(File),
    /// `crt`, the first of which is for those that name no host.
    Each(Vec<File>),
}

impl Frontend {
    /// Reads one.
    pub(super) fn read(line: &Line<'_>) -> Result<Self, Fault> {
        let mut args = Args::new(line);
        let this = match args.plain("a keyword")?.as_ref() {
            "maxconn" => Self::Maxconn(args.number("a number", 1..=u32::MAX, "")?.min(MAX_CONNECTIONS)),
            "redirect" => redirect(&mut args)?,
            "http-response" => Self::Hsts(hsts(&mut args)?),
            "bind" => Self::Bind(bind(&mut args)?),
            "mode" => Self::Mode(Mode::read(&mut args)?),
            "acl" => Self::Acl(acl::read(&mut args)?),
            "http-request" => {
                args.expect("deny")?;
                Self::Policy(Action::Deny, conditions(&mut args)?)
            }
            "use_backend" => {
                let backend = Backend::read(&mut args)?;
                Self::Policy(Action::UseBackend(backend), conditions(&mut args)?)
            }
            "default_backend" => match args.take("prometheus-exporter-internal") {
                true => Self::DefaultBackend(Target::Exporter),
                false => Self::DefaultBackend(Target::Pool(Backend::read(&mut args)?)),
            },
            "timeout" => {
                args.expect("client")?;
                Self::TimeoutClient(args.number("milliseconds", 1..=MAX_MILLIS, "")?)
            }
            "tcp-request" => {
                args.expect("inspect-delay")?;
                Self::InspectDelay(args.number("milliseconds", 1..=MAX_MILLIS, "")?)
            }
            "log-format" => Self::LogFormat(args.value("a format")?.into_owned()),
            _ => return Err(args.fault("is not known in a section frontend")),
        };
        args.last(this)
    }
}

impl Frontend {
    /// Its place in the order in which Octavia writes, as [in a backend](super::backend::Backend::rank).
    pub(super) fn rank(&self) -> u8 {
        match self {
            Self::Maxconn(_) => 0,
            Self::RedirectHttps => 1,
            Self::Hsts(_) => 2,
            Self::Bind(_) => 3,
            Self::Mode(_) => 4,
            Self::Acl(_) | Self::Policy(..) => 5,
            Self::DefaultBackend(Target::Pool(_)) => 6,
            Self::TimeoutClient(_) => 7,
            Self::InspectDelay(_) => 8,
            Self::DefaultBackend(Target::Exporter) => 9,
            Self::LogFormat(_) => 10,
        }
    }
}

/// What is behind `redirect`.
fn redirect(args: &mut Args<'_, '_>) -> Result<Frontend, Fault> {
    if args.take("scheme https if !{ ssl_fc }") {
        return Ok(Frontend::RedirectHttps);
    }
    let mut code = RedirectCode::default();
    if args.take("code") {
        let number = args.number("a status code", 300..=399, "")?;
        code = RedirectCode::from_code(number)
            .ok_or_else(|| args.fault("has a status code other than 301, 302, 303, 307, 308"))?;
    }
    let location = args.take("location");
    if !location {
        args.expect("prefix")?;
    }
    // Its backslashes are not escaped, so none is a backslash for sure. In single quotes they are.
    let url = match args.peek() {
        Some(word) if word.raw.starts_with('\'') => args.value("a URL")?,
        _ => args.plain("a URL")?,
    };
    let url = url.into_owned();
    let action = if location { Action::Location(code, url) } else { Action::Prefix(code, url) };
    Ok(Frontend::Policy(action, conditions(args)?))
}

/// `if`, and names of ACLs to the end of the line.
fn conditions(args: &mut Args<'_, '_>) -> Result<Vec<Condition>, Fault> {
    args.expect("if")?;
    let mut list = Vec::new();
    while args.left() > 0 {
        let word = args.plain("the name of an acl")?;
        let (invert, name) = match word.strip_prefix('!') {
            Some(name) => (true, name),
            None => (false, word.as_ref()),
        };
        let rule = name.parse().map_err(|_| args.fault("has a condition that is not the id of a rule"))?;
        list.push(Condition { invert, rule });
    }
    if list.is_empty() {
        return Err(args.fault("has no condition"));
    }
    Ok(list)
}

/// What is behind `http-response`.
fn hsts(args: &mut Args<'_, '_>) -> Result<Hsts, Fault> {
    args.expect("set-header Strict-Transport-Security")?;
    let text = args.value("a value")?;
    let parsed = || {
        let (age, rest) = text.strip_prefix("max-age=")?.split_once(';')?;
        let max_age = age.parse().ok().filter(|_| age.bytes().all(|b| b.is_ascii_digit()))?;
        let subdomains = rest.strip_prefix(" includeSubDomains;");
        let preload = subdomains.unwrap_or(rest).strip_prefix(" preload;");
        let end = preload.or(subdomains).unwrap_or(rest);
        let hsts = Hsts { max_age, include_subdomains: subdomains.is_some(), preload: preload.is_some() };
        end.is_empty().then_some(hsts)
    };
    parsed().ok_or_else(|| args.fault("has no max-age=..; [includeSubDomains;] [preload;]"))
}

/// What is behind `bind`.
fn bind(args: &mut Args<'_, '_>) -> Result<Bind, Fault> {
    let address = global::address(args)?;
    if !args.take("ssl") {
        // Octavia writes these whenever a listener has them; without `ssl` they mean nothing.
        Settings::read(args)?;
        return Ok(Bind { address, tls: None });
    }
    let certificates = if args.take("crt-list") {
        Certificates::List(File::read(args)?)
    } else {
        let mut each = Vec::new();
        while args.take("crt") {
            each.push(File::read(args)?);
        }
        if each.is_empty() {
            return Err(args.fault("has ssl without crt-list or crt"));
        }
        Certificates::Each(each)
    };
    let mut clients = None;
    if args.take("ca-file") {
        let file = File::read(args)?;
        args.expect("verify")?;
        clients = Some((file, Verify::read(args)?));
    }
    let mut revocations = None;
    if args.take("crl-file") {
        revocations = Some(File::read(args)?);
        if clients.is_none() {
            return Err(args.fault("has crl-file without ca-file"));
        }
    }
    let settings = Settings::read(args)?;
    Ok(Bind { address, tls: Some(BindTls { certificates, clients, revocations, settings }) })
}
