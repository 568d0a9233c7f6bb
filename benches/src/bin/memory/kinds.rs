//! Idle connections of TLS and of HTTP/2, here and in HAProxy.

use std::{net::SocketAddr, path::Path, thread};

use amphora_benches::{
    Result,
    backend::{Backend, Service},
    exchange::Exchange,
    load::{self, Target, http2},
    peers::{Door, HttpMembers, Members, Peer, Place, Programs, Running, Setup},
    report::{self, Table},
    tls::{Identities, Offer},
};

use super::{Args, SETTLE};

/// At most so much per idle connection with TLS.
pub(crate) const TARGET_TLS: f64 = 25.0 * 1024.0;
/// At most so much per idle connection of HTTP/2 over TLS.
pub(crate) const TARGET_HTTP2: f64 = 40.0 * 1024.0;

/// What an idle connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Https,
    Http2,
}

/// A table, with what could not be measured, and whether all targets of what could are met.
pub(crate) fn measure(args: &Args, cores: &[usize]) -> Result<(String, bool)> {
    let here = std::env::current_exe()?.parent().map(Path::to_owned).unwrap_or_default();
    let programs = Programs {
        amphora: args.amphora.clone().unwrap_or_else(|| here.join("amphora-proxy")),
        haproxy: args.haproxy.clone(),
        nginx: "nginx".into(),
        pingora: "pingora".into(),
    };
    let identities = Identities::new()?;
    let (http, https) = (Service::Http, Service::Https);
    let services = [http, http, http, https, https, https, Service::Tcp];
    let backend = Backend::with_tls(&services, Some(identities.member()?), cores[0])?;
    let at = |i: usize| SocketAddr::from(([127, 0, 0, 1], backend.ports()[i]));
    let of_http = |i| HttpMembers { first: [at(i), at(i + 1)], second: at(i + 2) };
    let members = Members { plain: of_http(0), tls: of_http(3), tcp: at(6) };
    let dir = tempfile::tempdir()?;
    let mut table = Table::new(["idle connections", "proxy", "connections", "KiB per connection"]);
    let (mut notes, mut good) = (String::new(), true);
    for peer in [Peer::Amphora, Peer::Haproxy] {
        for kind in [Kind::Https, Kind::Http2] {
            let own = dir.path().join(format!("{peer:?}-{kind:?}"));
            let place = Place {
                programs: &programs,
                members: &members,
                identities: &identities,
                setup: Setup::Tls,
                syslog: None,
                dir: &own,
                port: args.base_port + 10,
                core: cores[cores.len() - 1],
            };
            if let Some(why) =
                peer.version(&programs).err().map(|e| e.to_string()).or_else(|| peer.lacks(&place))
            {
                notes += &format!("\n* {}, {kind:?}: not available: {why}", peer.name());
                continue;
            }
            // A process of its own for each: what one kind has left behind is none of the other's.
            let running = peer.start(&place)?;
            let connections = args.connections / 4;
            let each = one_kind(kind, &running, &identities, connections)?;
            let target = if kind == Kind::Https { TARGET_TLS } else { TARGET_HTTP2 };
            good &= peer != Peer::Amphora || each <= target;
            let name = if kind == Kind::Https { "HTTPS" } else { "HTTP/2 over TLS" };
            table.row([
                name.to_owned(),
                peer.name().to_owned(),
                connections.to_string(),
                report::digits(each / 1024.0),
            ]);
        }
    }
    Ok((format!("{}{notes}\n", table.markdown()), good))
}

/// Bytes for each connection that has carried one request.
fn one_kind(kind: Kind, running: &Running, identities: &Identities, connections: usize) -> Result<f64> {
    let address = running.door(Door::Ecdsa).ok_or("no listener with TLS")?;
    let exchange = Exchange::http(128, true);
    let (offer, few) = (if kind == Kind::Https { Offer::Http1 } else { Offer::Http2 }, 100);
    let target = Target { tls: Some(identities.client(offer)?), ..address.into() };
    let resident = || -> Result<f64> {
        thread::sleep(SETTLE);
        Ok(running.process.memory()?.resident as f64)
    };
    let (before, after, open) = match kind {
        Kind::Https => {
            let mut idle = load::idle(&target, &exchange, few)?;
            let before = resident()?;
            idle.grow(&target, &exchange, few + connections)?;
            (before, resident()?, idle.open())
        }
        Kind::Http2 => {
            let mut idle = http2::Idle::new(&target, &exchange)?;
            idle.grow(few)?;
            let before = resident()?;
            idle.grow(few + connections)?;
            (before, resident()?, idle.open())
        }
    };
    if open != few + connections {
        return Err(format!("{} idle connections were closed", few + connections - open).into());
    }
    Ok((after - before) / connections as f64)
}
