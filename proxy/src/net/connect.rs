//! Sockets that connect.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use nix::sys::socket::{setsockopt, sockopt};
use socket2::SockRef;
use tokio::net::TcpSocket;

/// Whether this process may connect from addresses that are not the machine's own: with CAP_NET_RAW or CAP_NET_ADMIN.
pub(crate) fn may_be_transparent() -> bool {
    let socket = TcpSocket::new_v4();
    socket.and_then(|socket| SockRef::from(&socket).set_ip_transparent_v4(true)).is_ok()
}

/// A socket to connect to this address with, `TCP_NODELAY` set, from `source` if that is given and of the same version of IP
/// (`IP_TRANSPARENT`), at a port that the kernel chooses when it knows where to (`IP_BIND_ADDRESS_NO_PORT`). Where this side `speaks_first`, the last packet of the handshake
/// is what it says, as HAProxy does it: one packet less for either side. The kernel waits for that for 200 ms at most.
///
/// # Errors
/// As socket(2) and setsockopt(2).
pub(crate) fn socket_to(
    address: SocketAddr,
    source: Option<IpAddr>,
    speaks_first: bool,
) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_nodelay(true)?;
    if speaks_first {
        SockRef::from(&socket).set_tcp_quickack(false)?;
    }
    if let Some(source) = source.filter(|source| source.is_ipv4() == address.is_ipv4()) {
        let options = SockRef::from(&socket);
        setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
        match source {
            IpAddr::V4(_) => options.set_ip_transparent_v4(true)?,
            IpAddr::V6(_) => options.set_ip_transparent_v6(true)?,
        }
        socket.bind(SocketAddr::new(source, 0))?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{
        io::Read,
        net::{TcpListener, TcpStream},
    };

    use super::*;

    /// Loopback delivers before a system call returns: a connection whose handshake is complete can be accepted.
    fn accepted(listener: &TcpListener) -> Option<TcpStream> {
        match listener.accept() {
            Ok((stream, _)) => Some(stream),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) => panic!("{error}"),
        }
    }

    #[tokio::test]
    async fn who_speaks_first_completes_the_handshake_with_what_it_says() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let silent = socket_to(address, None, false).unwrap().connect(address).await.unwrap();
        assert!(silent.nodelay().unwrap() && accepted(&listener).is_some());
        let mut held_back = 0;
        // Not always: a machine may be busy for so long that the kernel has waited enough.
        for _ in 0..100 {
            let stream = socket_to(address, None, true).unwrap().connect(address).await.unwrap();
            let early = accepted(&listener);
            held_back += usize::from(early.is_none());
            stream.writable().await.unwrap();
            assert_eq!(stream.try_write(b"word").unwrap(), 4);
            let mut other = early.or_else(|| accepted(&listener)).unwrap();
            let mut got = [0; 4];
            other.read_exact(&mut got).unwrap();
            assert_eq!(&got, b"word");
        }
        assert!(held_back > 0);
    }
}
