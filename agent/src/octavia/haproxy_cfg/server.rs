//! `server`: a member.

use std::net::{IpAddr, SocketAddr};

use amphora_model::{AlpnProtocol, MemberId};

use super::{
    Fault,
    args::Args,
    backend::MAX_SECONDS,
    global,
    tls::{self, File, Settings, Verify},
};

/// What `server` says, in the order in which it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Server {
    /// Its name.
    pub(super) id: MemberId,
    /// Its address.
    pub(super) address: SocketAddr,
    /// `weight`.
    pub(super) weight: u16,
    /// `check`.
    pub(super) check: Option<Check>,
    /// `addr`: where checks go to.
    pub(super) check_address: Option<IpAddr>,
    /// `port`, likewise.
    pub(super) check_port: Option<u16>,
    /// `cookie`.
    pub(super) cookie: Option<MemberId>,
    /// `send-proxy` and its relatives.
    pub(super) send_proxy: Option<SendProxy>,
    /// `backup`.
    pub(super) backup: bool,
    /// `disabled`.
    pub(super) disabled: bool,
    /// `ssl`.
    pub(super) tls: Option<ServerTls>,
}

/// What all members of a pool have in common of their checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Check {
    /// `check-ssl verify none`.
    pub(super) tls: bool,
    /// `check-alpn`.
    pub(super) alpn: Option<Vec<AlpnProtocol>>,
    /// `inter`, s.
    pub(super) interval: u64,
    /// `fall`.
    pub(super) fall: u8,
    /// `rise`.
    pub(super) rise: u8,
}

/// The header of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SendProxy {
    /// `send-proxy`.
    V1,
    /// `send-proxy-v2`.
    V2,
    /// `send-proxy-v2-ssl-cn`.
    V2SslCn,
}

/// What `server` says of TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServerTls {
    /// `crt`.
    pub(super) certificate: Option<File>,
    /// `ca-file`.
    pub(super) authorities: Option<File>,
    /// `crl-file`.
    pub(super) revocations: Option<File>,
    /// Versions, ciphers, protocols.
    pub(super) settings: Settings,
}

/// Reads what is behind `server`.
pub(super) fn read(args: &mut Args<'_, '_>) -> Result<Server, Fault> {
    let id = args.parsed("the id of a member")?;
    let address = global::address(args)?;
    args.expect("weight")?;
    let weight = args.number("a weight", 0..=256, "")?;
    let (mut check, mut check_address, mut check_port) = (None, None, None);
    if args.take("check") {
        check = Some(read_check(args)?);
        if args.take("addr") {
            check_address = Some(args.parsed("an address")?);
        }
        if args.take("port") {
            check_port = Some(args.number("a port", 1..=u16::MAX, "")?);
        }
    }
    let cookie = match args.take("cookie") {
        true => Some(args.parsed("the id of the member")?),
        false => None,
    };
    let send_proxy = [
        ("send-proxy", SendProxy::V1),
        ("send-proxy-v2", SendProxy::V2),
        ("send-proxy-v2-ssl-cn", SendProxy::V2SslCn),
    ];
    let send_proxy = send_proxy.into_iter().find(|(word, _)| args.take(word)).map(|(_, sent)| sent);
    let backup = args.take("backup");
    let disabled = args.take("disabled");
    let tls = match args.take("ssl") {
        true => Some(read_tls(args)?),
        false => None,
    };
    let server = Server {
        id,
        address,
        weight,
        check,
        check_address,
        check_port,
        cookie,
        send_proxy,
        backup,
        disabled,
        tls,
    };
    let alpn = server.tls.as_ref().map(|tls| &tls.settings.alpn).filter(|alpn| !alpn.is_empty());
    if let Some(checked) = server.check.as_ref().and_then(|check| check.alpn.as_ref())
        && alpn != Some(checked)
    {
        return Err(args.fault("offers other protocols to checks than to traffic"));
    }
    Ok(server)
}

fn read_check(args: &mut Args<'_, '_>) -> Result<Check, Fault> {
    let tls = args.take("check-ssl");
    if tls {
        args.expect("verify none")?;
    }
    let alpn = match args.take("check-alpn") {
        true => Some(tls::protocols(args)?),
        false => None,
    };
    args.expect("inter")?;
    let interval = args.number("seconds", 1..=MAX_SECONDS, "s")?;
    args.expect("fall")?;
    let fall = args.number("a number", 1..=10, "")?;
    args.expect("rise")?;
    let rise = args.number("a number", 1..=10, "")?;
    Ok(Check { tls, alpn, interval, fall, rise })
}

fn read_tls(args: &mut Args<'_, '_>) -> Result<ServerTls, Fault> {
    let mut file = |word| args.take(word).then(|| File::read(args)).transpose();
    let certificate = file("crt")?;
    let authorities = file("ca-file")?;
    let revocations = file("crl-file")?;
    if revocations.is_some() && authorities.is_none() {
        return Err(args.fault("has crl-file without ca-file"));
    }
    let verify = match args.take("verify") {
        true => Some(Verify::read(args)?),
        false => None,
    };
    match (&authorities, verify) {
        // HAProxy verifies when it is not told otherwise, and Octavia says nothing then.
        (Some(_), None | Some(Verify::Required)) | (None, Some(Verify::None)) => {}
        (Some(_), _) => return Err(args.fault("has ca-file, and does not verify")),
        (None, _) => return Err(args.fault("has neither ca-file nor verify none")),
    }
    args.expect("sni ssl_fc_sni")?;
    let settings = Settings::read(args)?;
    Ok(ServerTls { certificate, authorities, revocations, settings })
}
