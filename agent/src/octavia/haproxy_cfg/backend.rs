//! `backend`: a pool, as one listener has it.

use amphora_model::{HttpMethod, HttpVersion};

use super::{
    super::path::sent,
    Fault,
    args::Args,
    frontend::{MAX_MILLIS, Mode},
    server::{self, Server},
    words::Line,
};

/// The longest `timeout check`, s: HAProxy's 2^31 - 1 ms.
pub(super) const MAX_SECONDS: u64 = 2_147_483;

/// A statement of `backend`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Backend {
    /// `mode`.
    Mode(Mode),
    /// `http-reuse safe`.
    HttpReuse,
    /// `balance`.
    Balance(Balance),
    /// `stick-table type ip` or `ipv6`.
    AddressTable(Table),
    /// `stick-table type string len 64`.
    StringTable(Table),
    /// `stick on src`.
    StickOnSource,
    /// `stick store-response res.cook(..)`: the cookie.
    StickStore(String),
    /// `stick match req.cook(..)`: the cookie.
    StickMatch(String),
    /// `cookie SRV insert indirect nocache`.
    CookieInsert,
    /// `load-server-state-from-file global`.
    LoadServerState,
    /// `timeout check`, s.
    TimeoutCheck(u64),
    /// `option httpchk`.
    HttpCheck(HttpCheck),
    /// `http-check send hdr Host ..`.
    HttpCheckHost(String),
    /// `http-check expect rstatus`: the codes.
    HttpCheckExpect(Vec<u16>),
    /// `option ssl-hello-chk`: up to Octavia 13.
    SslHello,
    /// `option external-check`.
    ExternalCheck,
    /// `external-check command`.
    ExternalCheckCommand,
    /// `option forwardfor`.
    ForwardFor,
    /// `http-request set-header`.
    SetHeader(Header),
    /// `fullconn`.
    Fullconn,
    /// `option allbackups`.
    Allbackups,
    /// `timeout connect`, ms.
    TimeoutConnect(u64),
    /// `timeout server`, ms.
    TimeoutServer(u64),
    /// `server`.
    Server(Box<Server>),
}

/// `balance`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Balance {
    /// `roundrobin`.
    RoundRobin,
    /// `leastconn`.
    LeastConnections,
    /// `source`.
    Source,
}

/// What a `stick-table` says besides its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Table {
    /// `peers`.
    pub(super) peers: Option<String>,
}

/// `option httpchk`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HttpCheck {
    /// The method.
    pub(super) method: HttpMethod,
    /// The path, as it is sent.
    pub(super) path: String,
    /// Whether there was a `#` in it, behind which HAProxy sees nothing of the line.
    pub(super) is_cut: bool,
    /// The version, 1.0 when there is none.
    pub(super) version: HttpVersion,
    /// The host, which up to Octavia 16 is here.
    pub(super) host: Option<String>,
}

/// A header that is set on requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Header {
    ForwardedPort,
    ForwardedProtoHttp,
    ForwardedProtoHttps,
    ClientVerify,
    ClientHasCert,
    ClientDn,
    ClientCn,
    Issuer,
    ClientSha1,
    ClientNotBefore,
    ClientNotAfter,
}

/// Each header with what is behind `set-header`.
const HEADERS: [(&str, Header); 11] = [
    ("X-Forwarded-Port %[dst_port]", Header::ForwardedPort),
    ("X-Forwarded-Proto http", Header::ForwardedProtoHttp),
    ("X-Forwarded-Proto https", Header::ForwardedProtoHttps),
    ("X-SSL-Client-Verify %[ssl_c_verify]", Header::ClientVerify),
    ("X-SSL-Client-Has-Cert %[ssl_c_used]", Header::ClientHasCert),
    ("X-SSL-Client-DN %{+Q}[ssl_c_s_dn]", Header::ClientDn),
    ("X-SSL-Client-CN %{+Q}[ssl_c_s_dn(cn)]", Header::ClientCn),
    ("X-SSL-Issuer %{+Q}[ssl_c_i_dn]", Header::Issuer),
    ("X-SSL-Client-SHA1 %{+Q}[ssl_c_sha1,hex]", Header::ClientSha1),
    ("X-SSL-Client-Not-Before %{+Q}[ssl_c_notbefore]", Header::ClientNotBefore),
    ("X-SSL-Client-Not-After %{+Q}[ssl_c_notafter]", Header::ClientNotAfter),
];

impl Backend {
    /// Reads one.
    pub(super) fn read(line: &Line<'_>) -> Result<Self, Fault> {
        const SIMPLE: [(&str, Backend); 12] = [
            ("http-reuse safe", Backend::HttpReuse),
            ("balance roundrobin", Backend::Balance(Balance::RoundRobin)),
            ("balance leastconn", Backend::Balance(Balance::LeastConnections)),
            ("balance source", Backend::Balance(Balance::Source)),
            ("stick on src", Backend::StickOnSource),
            ("cookie SRV insert indirect nocache", Backend::CookieInsert),
            ("load-server-state-from-file global", Backend::LoadServerState),
            ("option ssl-hello-chk", Backend::SslHello),
            ("option external-check", Backend::ExternalCheck),
            ("external-check command /var/lib/octavia/ping-wrapper.sh", Backend::ExternalCheckCommand),
            ("option forwardfor", Backend::ForwardFor),
            ("option allbackups", Backend::Allbackups),
        ];
        let mut args = Args::new(line);
        if let Some((_, this)) = SIMPLE.into_iter().find(|(words, _)| args.take(words)) {
            return args.last(this);
        }
        let this = match args.plain("a keyword")?.as_ref() {
            "mode" => Self::Mode(Mode::read(&mut args)?),
            "stick-table" => stick_table(&mut args)?,
            "stick" => match args.take("store-response") {
                true => Self::StickStore(cookie(&mut args, "res.cook(")?),
                false => {
                    args.expect("match")?;
                    Self::StickMatch(cookie(&mut args, "req.cook(")?)
                }
            },
            "timeout" => match args.plain("check, connect or server")?.as_ref() {
                "check" => Self::TimeoutCheck(args.number("seconds", 0..=MAX_SECONDS, "s")?),
                "connect" => Self::TimeoutConnect(args.number("milliseconds", 1..=MAX_MILLIS, "")?),
                "server" => Self::TimeoutServer(args.number("milliseconds", 1..=MAX_MILLIS, "")?),
                _ => return Err(args.fault("has a timeout other than check, connect and server")),
            },
            "option" => {
                args.expect("httpchk")?;
                Self::HttpCheck(http_check(&mut args)?)
            }
            "http-check" => match args.take("send hdr Host") {
                true => Self::HttpCheckHost(args.plain("a host")?.into_owned()),
                false => {
                    args.expect("expect rstatus")?;
                    Self::HttpCheckExpect(status_codes(&mut args)?)
                }
            },
            "http-request" => {
                args.expect("set-header")?;
                let found = HEADERS.into_iter().find(|(words, _)| args.take(words));
                let (_, header) = found
                    .ok_or_else(|| args.fault("sets a header that is not known, or to something else"))?;
                Self::SetHeader(header)
            }
            "fullconn" => {
                args.number("a number", 1..=u32::MAX, "")?;
                Self::Fullconn
            }
            "server" => Self::Server(Box::new(server::read(&mut args)?)),
            _ => return Err(args.fault("is not known in a section backend")),
        };
        args.last(this)
    }
}

impl Backend {
    /// Its place in the order in which Octavia writes. What stands further up than it could is the rest of a value with a line feed.
    pub(super) fn rank(&self) -> u8 {
        match self {
            Self::Mode(_) => 0,
            Self::HttpReuse => 1,
            Self::Balance(_) => 2,
            Self::AddressTable(_) | Self::StringTable(_) => 3,
            Self::StickOnSource | Self::StickStore(_) => 4,
            Self::StickMatch(_) | Self::CookieInsert => 5,
            Self::LoadServerState => 6,
            Self::TimeoutCheck(_) => 7,
            Self::HttpCheck(_) => 8,
            Self::HttpCheckHost(_) => 9,
            Self::HttpCheckExpect(_) => 10,
            Self::SslHello => 11,
            Self::ExternalCheck => 12,
            Self::ExternalCheckCommand => 13,
            Self::ForwardFor => 14,
            Self::SetHeader(header) => 15 + *header as u8,
            Self::Fullconn => 30,
            Self::Allbackups => 31,
            Self::TimeoutConnect(_) => 32,
            Self::TimeoutServer(_) => 33,
            Self::Server(_) => 34,
        }
    }
}

/// What is behind `stick-table`.
fn stick_table(args: &mut Args<'_, '_>) -> Result<Backend, Fault> {
    args.expect("type")?;
    // Of IPv4 alone up to Octavia 12.
    let addresses = args.take("ipv6") || args.take("ip");
    if !addresses {
        args.expect("string len 64")?;
    }
    args.expect("size")?;
    let size = args.plain("a size")?;
    let digits = size.trim_end_matches(['k', 'm', 'g']);
    if size.len() > digits.len() + 1 || digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(args.fault("has a size that is no number with k, m, g or nothing behind it"));
    }
    let peers = match args.take("peers") {
        true => Some(args.plain("the name of a section peers")?.into_owned()),
        false => None,
    };
    let table = Table { peers };
    Ok(if addresses { Backend::AddressTable(table) } else { Backend::StringTable(table) })
}

/// The name of a cookie between `open` and `)`.
fn cookie(args: &mut Args<'_, '_>, open: &str) -> Result<String, Fault> {
    let text = args.plain("a cookie")?;
    let name = text.strip_prefix(open).and_then(|rest| rest.strip_suffix(')'));
    name.map(str::to_owned).ok_or_else(|| args.fault(format!("has no {open}..) at its end")))
}

/// What is behind `option httpchk`.
fn http_check(args: &mut Args<'_, '_>) -> Result<HttpCheck, Fault> {
    let method = HttpMethod::parse(&args.plain("a method")?);
    let method = method.ok_or_else(|| args.fault("has a method that is not known"))?;
    let path = args.plain("a path")?;
    let (path, is_cut) = sent(&path);
    let (mut version, mut host) = (HttpVersion::Http10, None);
    if let Some(raw) = args.raw() {
        // Up to Octavia 16 the version ends in \r\n, and the host is behind it in the same word.
        let (text, rest) = raw.split_once(r"\r\n").unwrap_or((raw, ""));
        version = text
            .strip_prefix("HTTP/")
            .and_then(HttpVersion::parse)
            .ok_or_else(|| args.fault("has a version other than HTTP/1.0 and HTTP/1.1"))?;
        if !rest.is_empty() {
            let name = rest.strip_prefix(r"Host:\ ").filter(|name| !name.contains(['\\', '\'', '"', '&']));
            let name = name.ok_or_else(|| args.fault("has a header other than Host"))?;
            host = Some(name.to_owned());
        }
    }
    Ok(HttpCheck { method, path, is_cut, version, host })
}

/// Codes, with `|` between them, in ascending order.
fn status_codes(args: &mut Args<'_, '_>) -> Result<Vec<u16>, Fault> {
    let text = args.plain("status codes")?;
    let mut codes = Vec::new();
    for code in text.split('|') {
        let number = code.parse().ok().filter(|number| code.len() == 3 && (100..=999).contains(number));
        codes.push(number.ok_or_else(|| args.fault("has what is no status code from 100 to 999"))?);
    }
    codes.sort_unstable();
    codes.dedup();
    Ok(codes)
}
