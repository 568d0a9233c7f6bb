//! End-to-end tests: whole programs, real peers, network namespaces that the tests make themselves.
//!
//! This library is the harness: a [`Proxy`] is a process of its own behind its control socket; [`Backend`]s are servers
//! inside the test whose behaviour is a script; a [`Client`] speaks raw bytes, so that a test says exactly what is
//! on the wire. Whatever is waited for is waited for with [`PATIENCE`], and a test fails when it does not come.
//!
//! Each proxy and each backend has a loopback address of its own ([`loopback`]), so the ports that the kernel gives
//! out on it stay free for it, however many tests share the machine.

// This is a test crate: what goes wrong here fails a test, and `unwrap` says so as well as anything.
#![allow(clippy::unwrap_used)]

mod amphora;
mod backend;
mod client;
mod document;
mod haproxy;
pub mod http2;
pub mod http2_frames;
mod http2_member;
mod judge;
mod load;
mod message;
mod namespace;
pub mod pair;
mod pattern;
mod process;
mod proxy;
mod sctp;
mod tls;
mod tls_peers;

use std::{
    collections::BTreeSet,
    future::Future,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

pub use self::{
    amphora::{Amphora, MemberProcess, kill_hard, signal},
    backend::{Backend, Reply, Step, echo},
    client::{Client, End},
    document::{Document, HealthMonitor, L7Policy, L7Rule, Listener, Member, Pool},
    haproxy::{HaProxy, HaProxyConfig},
    http2_member::{Http2Member, Seen},
    judge::{Judge, is_of_haproxy_2_6},
    load::Load,
    message::{Message, read_message},
    namespace::{Namespace, in_namespace},
    pattern::Pattern,
    process::{cpu_time, open_files, resident_kib, shared_directory},
    proxy::{Proxy, Refused},
    sctp::SctpPeer,
    tls::{Certificates, SERVER_NAME, https_get},
    tls_peers::{TlsClient, TlsEnd, TlsMember},
};

/// How long anything may take that should take milliseconds; generous, because the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// A loopback address that nothing else uses.
pub fn loopback() -> IpAddr {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let pid = std::process::id();
    let number = NEXT.fetch_add(1, Ordering::Relaxed) % 4094 + 1;
    let [_, _, high, low] = (((pid / 224) % 16) << 12 | number).to_be_bytes();
    Ipv4Addr::new(127, u8::try_from(16 + pid % 224).unwrap(), high, low).into()
}

/// A port that is free on `address`, and that nobody else of this program was told.
pub fn free_port(address: IpAddr) -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let port = TcpListener::bind(SocketAddr::new(address, 0)).unwrap().local_addr().unwrap().port();
        if GIVEN.lock().unwrap().insert(port) {
            return port;
        }
    }
}

/// Waits until `found` finds something.
///
/// # Panics
/// When it does not in [`PATIENCE`]; `what` says what was waited for.
pub async fn eventually<T>(what: &str, mut found: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = found().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Awaits `future`, at most for [`PATIENCE`].
///
/// # Panics
/// When it takes longer; `what` says what was waited for.
pub async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited in vain: {what}"),
    }
}
