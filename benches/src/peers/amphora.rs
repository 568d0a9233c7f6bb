//! This project's proxy.

use std::{fs, process::Command};

use amphora_model::LoadBalancer;

use super::{HIGH, INTERVAL, Place, Setup, amphora_command};
use crate::{
    Result,
    document::{Document, Listener, Pool, two_policies},
};

pub(super) fn command(place: &Place<'_>) -> Result<Command> {
    let file = place.dir.join("load-balancer.json");
    fs::write(&file, document(place).to_json())?;
    let mut command = amphora_command(&place.programs.amphora, &file, &place.dir.join("control.sock"), 1);
    if matches!(place.setup, Setup::Tls | Setup::Reencrypt) {
        command.arg("--certificates").arg(place.dir);
    }
    if let (Setup::Logged, Some(path)) = (place.setup, place.syslog) {
        command.arg("--log-socket").arg(path);
    }
    Ok(command)
}

/// What the model says about the document.
pub(super) fn refusal(place: &Place<'_>) -> Option<String> {
    LoadBalancer::from_json(&document(place).to_json()).err().map(|refusal| refusal.to_string())
}

fn document(place: &Place<'_>) -> Document {
    let (members, port) = (place.members, place.port);
    let listener = |number, protocol, port, first, second| {
        Listener::new(number, protocol, port, first)
            .with_forwarded_for()
            .with_l7policies(two_policies(number * 2, second))
    };
    let mut pools =
        vec![Pool::new(1, "HTTP", &members.plain.first), Pool::new(2, "HTTP", &[members.plain.second])];
    let listeners = match place.setup {
        Setup::Plain | Setup::Logged | Setup::Limited => {
            pools.push(Pool::new(3, "TCP", &[members.tcp]));
            let mut http = listener(1, "HTTP", port, 1, 2);
            if place.setup == Setup::Logged {
                http = http.with_flow_log();
            }
            if place.setup == Setup::Limited {
                http = http.with_rate_limit(HIGH, INTERVAL);
            }
            vec![http, Listener::new(2, "TCP", port + 1, 3)]
        }
        Setup::Tls => vec![
            listener(1, "TERMINATED_HTTPS", port, 1, 2).with_certificate("ecdsa"),
            listener(2, "TERMINATED_HTTPS", port + 1, 1, 2).with_certificate("rsa"),
        ],
        Setup::Reencrypt => {
            pools = vec![
                Pool::new(4, "HTTP", &members.tls.first).with_tls("authority"),
                Pool::new(5, "HTTP", &[members.tls.second]).with_tls("authority"),
            ];
            vec![listener(1, "TERMINATED_HTTPS", port, 4, 5).with_certificate("ecdsa")]
        }
    };
    Document::new(listeners, pools)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{net::SocketAddr, path::Path};

    use super::*;
    use crate::{
        peers::{HttpMembers, Members, Programs},
        tls::Identities,
    };

    /// What is not supported yet may be refused for that, and for nothing else.
    #[test]
    fn documents_are_accepted() {
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let http = |n| HttpMembers { first: [at(n), at(n + 1)], second: at(n + 2) };
        let members = Members { plain: http(1), tls: http(4), tcp: at(7) };
        let nowhere = || "nowhere".into();
        let programs =
            Programs { amphora: nowhere(), haproxy: nowhere(), nginx: nowhere(), pingora: nowhere() };
        let identities = Identities::new().unwrap();
        for setup in [Setup::Plain, Setup::Logged, Setup::Limited, Setup::Tls, Setup::Reencrypt] {
            let place = Place {
                programs: &programs,
                members: &members,
                identities: &identities,
                setup,
                syslog: None,
                dir: Path::new("/"),
                port: 80,
                core: 0,
            };
            let faults = LoadBalancer::from_json(&document(&place).to_json())
                .err()
                .map(|r| r.faults)
                .unwrap_or_default();
            let later = |reason: &str| reason.contains("not supported yet");
            assert!(
                faults.iter().all(|fault| !matches!(setup, Setup::Plain | Setup::Logged | Setup::Limited)
                    && later(&fault.reason)),
                "{faults:?}"
            );
        }
    }
}
