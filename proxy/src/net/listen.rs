//! Listening sockets: one for each worker on the same address, between which the kernel spreads connections.
//!
//! Two steps, so that a change of configuration is all or nothing: [`bind`] takes the address and can fail,
//! [`BoundListener::listen`] lets connections in. A socket that was only bound has no queue, so giving it up loses
//! nobody's connection.

use std::{
    fs, io,
    net::{SocketAddr, TcpListener},
    os::fd::AsFd,
    thread,
};

use caps::{CapSet, Capability};
use socket2::{Domain, Protocol, SockFilter, SockRef, Socket, Type};

/// Used when the kernel does not tell its own: its default since Linux 5.4.
const DEFAULT_BACKLOG: i32 = 4096;

/// Why an address could not be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step} {address}: {source}")]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// What was being done.
    pub step: &'static str,
    /// What the kernel said.
    pub source: io::Error,
}

/// A socket that owns its address but lets no connection in yet.
#[derive(Debug)]
pub struct BoundListener {
    socket: Socket,
    address: SocketAddr,
}

impl BoundListener {
    /// The address, with the port that the kernel chose where 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets connections in, as many waiting as `net.core.somaxconn` allows. Ready for
    /// `tokio::net::TcpListener::from_std`.
    ///
    /// # Errors
    /// When somebody else listens on the address by now.
    pub fn listen(self) -> Result<TcpListener, BindError> {
        let Self { socket, address } = self;
        socket.listen(backlog()).map_err(|source| BindError { address, step: "listen on", source })?;
        Ok(socket.into())
    }
}

/// A socket for a worker that serves an address from now on.
#[derive(Debug)]
pub enum NewListener {
    /// Clients may be connecting already: it must be served.
    Listening(TcpListener),
    /// Nobody is let in yet: for an address that was given up a moment ago, where the worker may still have a socket.
    Bound(BoundListener),
}

impl NewListener {
    /// Lets connections in, if nobody has yet.
    ///
    /// # Errors
    /// As [`BoundListener::listen`].
    pub fn listen(self) -> Result<TcpListener, BindError> {
        match self {
            Self::Listening(socket) => Ok(socket),
            Self::Bound(socket) => socket.listen(),
        }
    }
}

/// Binds a non-blocking TCP socket that shares the address with others of its kind (`SO_REUSEPORT`), may bind an
/// address that the host does not have (`IP_FREEBIND`: the backup of a pair binds the VIP before it owns it), listens to
/// its own family only (`IPV6_V6ONLY`), and whose connections have `TCP_NODELAY` set from the start.
///
/// # Errors
/// With the address and the kernel's reason, such as a socket of somebody else on the same address.
pub fn bind(address: SocketAddr) -> Result<BoundListener, BindError> {
    let failed = |step| move |source| BindError { address, step, source };
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))
        .map_err(failed("open a socket for"))?;
    configure(&socket, address).map_err(failed("set the options of a socket for"))?;
    socket.bind(&address.into()).map_err(failed("bind"))?;
    let bound = socket.local_addr().map_err(failed("find the port bound for"))?;
    Ok(BoundListener { socket, address: bound.as_socket().unwrap_or(address) })
}

/// Binds the address once for each worker: all of them or none.
///
/// # Errors
/// As [`bind`].
pub fn bind_for_workers(address: SocketAddr, workers: usize) -> Result<Vec<BoundListener>, BindError> {
    let mut bound: Vec<BoundListener> = Vec::with_capacity(workers);
    for _ in 0..workers {
        // Port 0 is chosen once: the others follow the first.
        bound.push(bind(bound.first().map_or(address, BoundListener::address))?);
    }
    Ok(bound)
}

/// Lets no new connections in: SYNs for the listening socket are dropped from now on. Handshakes under way are
/// completed, and what is in the queue can be accepted, so that the socket can be closed without resetting anybody.
/// Who connects in between hears nothing, asks again after a second, and is refused then.
///
/// # Errors
/// As setsockopt(2) with `SO_ATTACH_FILTER`, which some hosts permit to root alone; the socket goes on as before.
pub fn let_nobody_in(socket: &impl AsFd) -> io::Result<()> {
    // linux/bpf_common.h. The filter sees a packet from its TCP header on, where the flags are byte 13: SYN is 0x02,
    // ACK is 0x10.
    const FILTER: [SockFilter; 5] = [
        SockFilter::new(0x30, 0, 0, 13),       // BPF_LD | BPF_B | BPF_ABS
        SockFilter::new(0x54, 0, 0, 0x12),     // BPF_ALU | BPF_AND | BPF_K
        SockFilter::new(0x15, 0, 1, 0x02),     // BPF_JMP | BPF_JEQ | BPF_K
        SockFilter::new(0x06, 0, 0, 0),        // BPF_RET | BPF_K: drop
        SockFilter::new(0x06, 0, 0, u32::MAX), // BPF_RET | BPF_K: keep all of it
    ];
    SockRef::from(socket).attach_filter(&FILTER)
}

/// Whether a process without this capability may do [`let_nobody_in`]. Linux itself asks for none; some hosts do.
///
/// # Errors
/// When no socket or thread can be made to try it.
pub(crate) fn may_keep_out_without(capability: Capability) -> io::Result<bool> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM.cloexec(), Some(Protocol::TCP))?;
    // Capabilities are a thread's own, and end with it.
    let tried = thread::Builder::new().spawn(move || {
        caps::drop(None, CapSet::Effective, capability).map_err(io::Error::other)?;
        match let_nobody_in(&socket) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(false),
            done => done.map(|()| true),
        }
    });
    tried?.join().unwrap_or_else(|_| Err(io::Error::other("the attempt panicked")))
}

/// Undoes [`let_nobody_in`].
///
/// # Errors
/// As setsockopt(2) with `SO_DETACH_FILTER`: `ENOENT` when nobody was kept out.
pub fn let_in_again(socket: &impl AsFd) -> io::Result<()> {
    SockRef::from(socket).detach_filter()
}

fn configure(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_tcp_nodelay(true)?;
    match address {
        SocketAddr::V4(_) => socket.set_freebind_v4(true),
        SocketAddr::V6(_) => {
            socket.set_only_v6(true)?;
            socket.set_freebind_v6(true)
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "procfs answers from memory")]
fn backlog() -> i32 {
    let limit = fs::read_to_string("/proc/sys/net/core/somaxconn").ok();
    limit.and_then(|text| text.trim().parse().ok()).unwrap_or(DEFAULT_BACKLOG)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{
        io::{Read, Write},
        net::TcpStream,
        time::Duration,
    };

    use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    #[test]
    fn workers_share_an_address_and_the_kernel_spreads_connections() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let bound = bind_for_workers(address.parse().unwrap(), 3).unwrap();
            let address = bound[0].address();
            assert!(address.port() != 0 && bound.iter().all(|b| b.address() == address));
            let listeners: Vec<_> = bound.into_iter().map(|b| b.listen().unwrap()).collect();
            let clients: Vec<_> = (0..60).map(|_| TcpStream::connect(address).unwrap()).collect();
            let accepted: Vec<_> =
                listeners.iter().map(|l| std::iter::from_fn(|| l.accept().ok()).count()).collect();
            assert_eq!(accepted.iter().sum::<usize>(), clients.len(), "{accepted:?}");
            assert!(accepted.iter().all(|n| *n > 0), "{accepted:?}");
        }
    }

    #[test]
    fn the_socket_and_its_connections_have_their_options() {
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap().listen().unwrap();
        let flags = OFlag::from_bits_retain(fcntl(&listener, FcntlArg::F_GETFL).unwrap());
        assert!(flags.contains(OFlag::O_NONBLOCK));
        let flags = FdFlag::from_bits_retain(fcntl(&listener, FcntlArg::F_GETFD).unwrap());
        assert!(flags.contains(FdFlag::FD_CLOEXEC));

        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert!(SockRef::from(&accepted).tcp_nodelay().unwrap());
    }

    #[test]
    fn lets_nobody_in_before_it_listens() {
        let bound = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let refused = TcpStream::connect(bound.address()).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        let address = bound.address();
        let _listener = bound.listen().unwrap();
        TcpStream::connect(address).unwrap();
    }

    #[test]
    fn who_was_let_in_stays_in_and_others_stay_out() {
        let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap().listen().unwrap();
        let address = listener.local_addr().unwrap();
        let mut inside = TcpStream::connect(address).unwrap();
        if let Err(error) = let_nobody_in(&listener) {
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
            eprintln!("SKIPPED: this host lets no plain user attach a filter to a socket");
            return;
        }
        let soon = Duration::from_millis(100);
        assert_eq!(TcpStream::connect_timeout(&address, soon).unwrap_err().kind(), io::ErrorKind::TimedOut);
        let (mut accepted, _) = listener.accept().unwrap();
        assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let_in_again(&listener).unwrap();
        TcpStream::connect_timeout(&address, PATIENCE).unwrap();
        listener.accept().unwrap();
        let_nobody_in(&listener).unwrap();
        drop(listener);
        inside.write_all(b"x").unwrap();
        accepted.read_exact(&mut [0]).unwrap();
    }

    #[test]
    fn an_address_that_is_not_here_yet_can_be_bound() {
        // TEST-NET-1 and the documentation prefix: on no host.
        for address in ["192.0.2.77:18080", "[2001:db8::77]:18080"] {
            bind(address.parse().unwrap()).unwrap().listen().unwrap();
        }
    }

    #[test]
    fn families_do_not_shadow_each_other() {
        // The port of one family may be in use by others in the other, though not each time.
        let both = (0..20).any(|_| {
            let v6 = bind("[::]:0".parse().unwrap()).unwrap();
            bind(SocketAddr::new("0.0.0.0".parse().unwrap(), v6.address().port())).is_ok()
        });
        assert!(both);
    }

    #[test]
    fn says_what_is_in_the_way() {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = other.local_addr().unwrap();
        let error = bind_for_workers(address, 2).unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().starts_with(&format!("cannot bind {address}: ")), "{error}");
    }
}
