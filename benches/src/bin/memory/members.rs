//! What each of many members takes: without anything, with every option that a pool grants, and while all of them fail.

use std::{
    net::{SocketAddr, UdpSocket},
    thread,
};

use amphora_benches::{
    Result,
    amphora::Amphora,
    document::{Document, Listener, Pool, member_address},
    process::Memory,
    report::{self, Table},
};

use super::{Args, MIB, SETTLE};

/// At most so much for each member, of agent and proxy together, whatever its pool grants and however it fails.
pub(crate) const TARGET_MEMBER: f64 = 3.0 * 1024.0;

/// What is beside the members themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Plain,
    Options,
    Failing,
}

/// A table, and whether the target is met.
pub(crate) fn measure(args: &Args, cores: &[usize]) -> Result<(String, bool)> {
    let mut table = Table::new(["members", "beside them", "agent MiB", "proxy MiB", "KiB per member"]);
    let mut good = true;
    for (kind, name) in [
        (Kind::Plain, "nothing"),
        (Kind::Options, "a health monitor and every option"),
        (Kind::Failing, "the same, and all fail their checks"),
    ] {
        let (few, many) = (one_kind(kind, 10, args, cores)?, one_kind(kind, args.members, args, cores)?);
        let more = many.sum().saturating_sub(few.sum()) as f64 / args.members as f64;
        good &= more <= TARGET_MEMBER;
        let mib = |bytes: u64| report::digits(bytes as f64 / MIB);
        table.row([
            args.members.to_string(),
            name.to_owned(),
            mib(many.agent),
            mib(many.proxy),
            report::digits(more / 1024.0),
        ]);
    }
    Ok((table.markdown(), good))
}

/// What is resident.
struct Held {
    agent: u64,
    proxy: u64,
}

impl Held {
    fn sum(&self) -> u64 {
        self.agent + self.proxy
    }
}

/// An amphora of its own with a pool of so many members.
fn one_kind(kind: Kind, members: u64, args: &Args, cores: &[usize]) -> Result<Held> {
    let (agent, proxy) = args.programs()?;
    let dir = tempfile::tempdir()?;
    let rest = SocketAddr::from(([127, 0, 0, 1], args.base_port + 20));
    let controller = UdpSocket::bind("127.0.0.1:0")?;
    let core = cores[cores.len() - 1];
    let amphora =
        Amphora::start(&agent, &proxy, args.workers, dir.path(), rest, controller.local_addr()?, core)?;
    // Whoever is bound to all addresses of a port answers for each member's.
    let listening = std::net::TcpListener::bind("0.0.0.0:0")?;
    let port = listening.local_addr()?.port();
    if kind != Kind::Failing {
        accept_all(listening.try_clone()?)?;
    }
    drop(listening);
    let addresses: Vec<_> = (0..members).map(|n| SocketAddr::new(member_address(n), port)).collect();
    let mut pool = Pool::new(1, "HTTP", &addresses);
    if kind != Kind::Plain {
        pool = pool.with_monitor(1).with_member_options();
    }
    let listener = Listener::new(1, "HTTP", args.base_port + 21, 1);
    amphora.apply(&Document::new(vec![listener], vec![pool]))?;
    // Two rounds of checks.
    thread::sleep(if kind == Kind::Plain { SETTLE } else { 4 * SETTLE });
    let proxy = amphora.control.info()?.pid;
    let (all, proxy) = (Memory::of_tree(amphora.agent.pid())?, Memory::of_tree(proxy)?);
    Ok(Held { agent: all.resident - proxy.resident, proxy: proxy.resident })
}

/// Accepts until this program ends.
fn accept_all(listening: std::net::TcpListener) -> std::io::Result<()> {
    thread::Builder::new().spawn(move || {
        for stream in listening.incoming() {
            drop(stream);
        }
    })?;
    Ok(())
}
