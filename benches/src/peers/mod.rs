//! The proxies that are compared, each configured for the same work on one thread: two members taken in turn, two
//! policies on each request, `X-Forwarded-For`, statistics on, request logs off but where they are what is measured, and
//! TCP relayed to one member.

mod amphora;
mod haproxy;
mod nginx;

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use clap::ValueEnum;

use crate::{
    Result,
    exchange::Exchange,
    load::{self, Target},
    process::Process,
    tls::{Identities, Offer},
};

/// A proxy under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Peer {
    /// This project's.
    Amphora,
    /// What ratios refer to, configured as Octavia renders it.
    Haproxy,
    /// nginx with its stream module.
    Nginx,
    /// `benches/peers`: HTTP only, the crate relays no plain TCP.
    Pingora,
}

/// Where the programs are.
#[derive(Clone, Debug)]
pub struct Programs {
    /// `amphora-proxy`.
    pub amphora: PathBuf,
    /// `haproxy`.
    pub haproxy: PathBuf,
    /// `nginx`.
    pub nginx: PathBuf,
    /// `amphora-bench-pingora`.
    pub pingora: PathBuf,
}

/// The members, the same for every peer.
#[derive(Clone, Debug)]
pub struct Members {
    /// That speak HTTP.
    pub plain: HttpMembers,
    /// That speak HTTPS.
    pub tls: HttpMembers,
    /// Of the TCP pool.
    pub tcp: SocketAddr,
}

/// Those of the two pools of a listener.
#[derive(Clone, Debug)]
pub struct HttpMembers {
    /// Of the default pool.
    pub first: [SocketAddr; 2],
    /// Of the pool that a policy leads to.
    pub second: SocketAddr,
}

/// Requests within [`INTERVAL`] that one client may make where a [`Setup::Limited`] counts them: more than come.
const HIGH: u32 = 2_000_000_000;

/// In seconds.
const INTERVAL: u32 = 30;

/// What a peer is set up for; each is a process of its own, so that no row pays for what another needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Setup {
    /// HTTP and TCP, without logs.
    Plain,
    /// The same with a line in the flow log for each request, to a syslog socket.
    Logged,
    /// The same as the first with a rate limit that counts each request, and that nobody breaks.
    Limited,
    /// HTTPS with certificates of both kinds, HTTP/2 offered.
    Tls,
    /// HTTPS, and HTTPS to the members.
    Reencrypt,
}

/// A listener of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Door {
    /// HTTP.
    Http,
    /// TCP.
    Tcp,
    /// HTTP/2 without TLS, of which the client knows beforehand.
    H2c,
    /// HTTPS with a certificate whose key is of ECDSA.
    Ecdsa,
    /// HTTPS with one of RSA.
    Rsa,
    /// HTTPS, and HTTPS to the members.
    Reencrypt,
}

/// Where and with what a peer is started.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The programs.
    pub programs: &'a Programs,
    /// The members.
    pub members: &'a Members,
    /// The certificates, [written](Identities::write) to `dir`.
    pub identities: &'a Identities,
    /// What it is set up for.
    pub setup: Setup,
    /// Where its logs go, if it has any.
    pub syslog: Option<&'a Path>,
    /// Its files.
    pub dir: &'a Path,
    /// Its listeners are on this port and those after it.
    pub port: u16,
    /// Where it runs.
    pub core: usize,
}

/// A peer that runs.
#[derive(Debug)]
pub struct Running {
    /// The process; dropping it stops it.
    pub process: Process,
    doors: Vec<(Door, SocketAddr)>,
}

impl Running {
    /// Where it listens for this, if it does.
    pub fn door(&self, door: Door) -> Option<SocketAddr> {
        self.doors.iter().find(|(of, _)| *of == door).map(|(_, address)| *address)
    }
}

impl Peer {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Amphora => "amphora-proxy",
            Self::Haproxy => "HAProxy",
            Self::Nginx => "nginx",
            Self::Pingora => "pingora-proxy",
        }
    }

    /// Its version, or why it cannot take part.
    pub fn version(self, programs: &Programs) -> Result<String> {
        let (program, argument) = match self {
            Self::Amphora => (&programs.amphora, "--version"),
            Self::Haproxy => (&programs.haproxy, "-v"),
            Self::Nginx => (&programs.nginx, "-v"),
            Self::Pingora => (&programs.pingora, "--version"),
        };
        let output = Command::new(program)
            .arg(argument)
            .output()
            .map_err(|e| format!("{} cannot be started: {e}", program.display()))?;
        let text = [output.stdout, output.stderr].concat();
        let line = String::from_utf8_lossy(&text).lines().next().unwrap_or_default().to_owned();
        // "HAProxy version 2.6.12-1+deb12u4 2026/10/17 - ...", "nginx version: nginx/1.22.1", "amphora-proxy 0.1.0"
        let version = line
            .split([' ', '/'])
            .find(|word| word.starts_with(|c: char| c.is_ascii_digit()))
            .ok_or_else(|| format!("{} does not tell its version: {line}", program.display()))?;
        Ok(version.to_owned())
    }

    /// Why it cannot be set up so; `None` when it can.
    pub fn lacks(self, place: &Place<'_>) -> Option<String> {
        match (self, place.setup) {
            (Self::Amphora, _) => amphora::refusal(place),
            (Self::Nginx, Setup::Limited) => Some("its limit_req is a leaky bucket".into()),
            (Self::Pingora, Setup::Logged | Setup::Limited | Setup::Tls | Setup::Reencrypt) => {
                Some("benches/peers has no such listener".into())
            }
            _ => None,
        }
    }

    fn doors(self, place: &Place<'_>) -> Vec<(Door, SocketAddr)> {
        let at = |n| SocketAddr::from(([127, 0, 0, 1], place.port + n));
        let doors: &[_] = match (self, place.setup) {
            (Self::Pingora, _) => &[(Door::Http, 0)],
            (_, Setup::Tls) => &[(Door::Ecdsa, 0), (Door::Rsa, 1)],
            (_, Setup::Reencrypt) => &[(Door::Reencrypt, 0)],
            (Self::Nginx, _) if nginx::stream_module().is_none() => &[(Door::Http, 0), (Door::H2c, 3)],
            (Self::Nginx, _) => &[(Door::Http, 0), (Door::Tcp, 1), (Door::H2c, 3)],
            _ => &[(Door::Http, 0), (Door::Tcp, 1), (Door::H2c, 0)],
        };
        doors.iter().map(|(door, n)| (*door, at(*n))).collect()
    }

    /// Starts it, and checks that it answers and that the policies work.
    pub fn start(self, place: &Place<'_>) -> Result<Running> {
        fs::create_dir_all(place.dir)?;
        place.identities.write(place.dir)?;
        let command = match self {
            Self::Amphora => amphora::command(place)?,
            Self::Haproxy => haproxy::command(place)?,
            Self::Nginx => nginx::command(place)?,
            Self::Pingora => pingora(place),
        };
        let doors = self.doors(place);
        let log = place.dir.join("output.log");
        let strict = place.identities.strict_client(Offer::Http1)?;
        let result = Process::start(command, place.core, &log).and_then(|mut process| {
            let target = |door: Door, address| Target {
                address,
                tls: matches!(door, Door::Ecdsa | Door::Rsa | Door::Reencrypt).then(|| strict.clone()),
                resumes: false,
            };
            let answers = |&(door, address): &(Door, SocketAddr)| match door {
                Door::Tcp => load::once(address, &Exchange::tcp(false)).is_ok(),
                // Whether it does is the row's affair.
                Door::H2c => true,
                _ => load::once(target(door, address), &Exchange::http(1, false)).is_ok(),
            };
            process.wait_ready(&log, || doors.iter().all(answers))?;
            process.runs_only_on(place.core)?;
            for &(door, address) in doors.iter().filter(|(door, _)| !matches!(door, Door::Tcp | Door::H2c)) {
                let members = match door {
                    Door::Reencrypt => &place.members.tls,
                    _ => &place.members.plain,
                };
                check_policies(&target(door, address), members)?;
            }
            Ok(process)
        });
        let process = result.map_err(|e| format!("{}: {e}", self.name()))?;
        Ok(Running { process, doors })
    }
}

/// That each policy does its work, so that nothing is measured that does less than the others.
fn check_policies(target: &Target, members: &HttpMembers) -> Result<()> {
    let port = |a: &SocketAddr| Some(a.port().to_string().into_bytes());
    load::once(target, &Exchange::get("/reject/this", "", 403, None))
        .map_err(|e| format!("the first policy: {e}"))?;
    load::once(target, &Exchange::get("/port", "X-Pool: second\r\n", 200, port(&members.second)))
        .map_err(|e| format!("the second policy: {e}"))?;
    for headers in ["", "X-Pool: first\r\n"] {
        let found = members.first.iter().any(|first| {
            let exchange = Exchange::get("/port", headers, 200, port(first));
            // Taken in turn: one of two tries meets it.
            (0..2).any(|_| load::once(target, &exchange).is_ok())
        });
        if !found {
            return Err("the default pool is not reached".into());
        }
    }
    Ok(())
}

/// The command line of this project's proxy.
pub fn amphora_command(program: &Path, document: &Path, control_socket: &Path, workers: usize) -> Command {
    let mut command = Command::new(program);
    command.arg("--load-balancer").arg(document).arg("--control-socket").arg(control_socket);
    command.arg("--workers").arg(workers.to_string());
    command
}

fn pingora(place: &Place<'_>) -> Command {
    let mut command = Command::new(&place.programs.pingora);
    command.arg("--listen").arg(format!("127.0.0.1:{}", place.port));
    for member in place.members.plain.first {
        command.arg("--first").arg(member.to_string());
    }
    command.arg("--second").arg(place.members.plain.second.to_string());
    command
}
