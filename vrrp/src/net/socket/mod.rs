//! Raw sockets for advertisements: IP protocol 112 (RFC 9568 section 5.1).

mod header;

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    ops::Range,
    os::fd::AsRawFd,
};

use nix::{
    cmsg_space, libc,
    sys::socket::{
        ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrStorage, recvmsg,
        sendmsg, setsockopt, sockopt,
    },
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{Interest, unix::AsyncFd};

use super::{Interface, NetError};
use crate::{
    packet::{AUTH_DATA, Envelope, Family, HEADER, MAX_ADDRESSES, PROTOCOL, TTL},
    sys,
};

/// The group of IPv4 (RFC 9568 section 5.1.1.2).
pub const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);
/// The group of IPv6 (RFC 9568 section 5.1.2.2).
pub const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12);

/// Internetwork control: what a router forwards first when it cannot forward all (RFC 2474 section 4.2.2.2).
const TRAFFIC_CLASS: u32 = 0xc0;
/// `TC_PRIO_CONTROL`, the band that leaves the host first (tc-prio(8)).
const PRIORITY: u32 = 7;
/// The longest packet that can be right, its IPv4 header with options, and one more, so that a longer one does not
/// look right.
const BUFFER: usize = 60 + HEADER + MAX_ADDRESSES * 16 + AUTH_DATA + 1;

/// The group of a family.
pub fn group(family: Family) -> IpAddr {
    match family {
        Family::V4 => GROUP_V4.into(),
        Family::V6 => GROUP_V6.into(),
    }
}

/// What a socket is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketOptions {
    /// The only interface that it sends and receives by.
    pub interface: Interface,
    /// The address that it sends from, which is the interface's; its family is the socket's.
    pub source: IpAddr,
    /// It takes what is sent to `source` alone, instead of what is sent to the group. A socket for the group also
    /// receives what is sent to any address of the interface, which the envelope tells.
    pub unicast: bool,
}

/// A socket that sends and receives advertisements by one interface, in the namespace that it was opened in.
#[derive(Debug)]
pub struct AdvertisementSocket {
    socket: AsyncFd<Socket>,
    options: SocketOptions,
}

/// A place for one packet of any length that can be right.
#[derive(Debug)]
pub struct PacketBuffer(Box<[u8]>);

impl Default for PacketBuffer {
    fn default() -> Self {
        Self(vec![0; BUFFER].into_boxed_slice())
    }
}

impl AdvertisementSocket {
    /// Opens one.
    ///
    /// # Errors
    /// Without `CAP_NET_RAW` and `CAP_NET_ADMIN`; for unicast also while the source is not, or not yet, an address of
    /// this host.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub fn open(options: SocketOptions) -> Result<Self, NetError> {
        let socket = match options.source {
            IpAddr::V4(_) => open_v4(&options),
            IpAddr::V6(_) => open_v6(&options),
        };
        let socket = socket.map_err(NetError::socket("open a socket for advertisements"))?;
        let socket = sys::watch(socket).map_err(NetError::socket("watch a socket for advertisements"))?;
        Ok(Self { socket, options })
    }

    /// What it was opened for.
    pub fn options(&self) -> &SocketOptions {
        &self.options
    }

    /// Receives the next packet into `buffer`: what its IP header said, and what it carried. Dropping the future loses
    /// nothing.
    ///
    /// # Errors
    /// When the socket failed; it may work again after that.
    pub async fn receive<'a>(&self, buffer: &'a mut PacketBuffer) -> Result<(Envelope, &'a [u8]), NetError> {
        let received = self
            .socket
            .async_io(Interest::READABLE, |socket| receive(socket, self.options.source, &mut buffer.0))
            .await;
        let (envelope, message) = received.map_err(NetError::socket("receive an advertisement"))?;
        Ok((envelope, &buffer.0[message]))
    }

    /// Sends a message to a peer or to the [`group`]. Does not wait: what the queue has no room for is not sent, because the next
    /// advertisement says the same, and others must not be late for it.
    ///
    /// # Errors
    /// When the kernel does not take it, because the interface is down or the source is gone, for example.
    pub fn send(&self, message: &[u8], to: IpAddr) -> Result<(), NetError> {
        send(self.socket.get_ref(), &self.options, message, to)
            .map_err(NetError::socket("send an advertisement"))
    }
}

fn raw(domain: Domain, options: &SocketOptions) -> io::Result<Socket> {
    let protocol = Protocol::from(i32::from(PROTOCOL));
    let socket = Socket::new(domain, Type::RAW.nonblocking().cloexec(), Some(protocol))?;
    socket.bind_device(Some(options.interface.name.as_str().as_bytes()))?;
    Ok(socket)
}

fn open_v4(options: &SocketOptions) -> io::Result<Socket> {
    let socket = raw(Domain::IPV4, options)?;
    // Groups that other sockets joined are none of its business.
    socket.set_multicast_all_v4(false)?;
    socket.set_ttl_v4(TTL.into())?;
    socket.set_multicast_ttl_v4(TTL.into())?;
    socket.set_multicast_loop_v4(false)?;
    // Sets a priority as well, so it goes first.
    socket.set_tos_v4(TRAFFIC_CLASS)?;
    socket.set_priority(PRIORITY)?;
    if options.unicast {
        socket.bind(&SocketAddr::new(options.source, 0).into())?;
    } else {
        let index = socket2::InterfaceIndexOrAddress::Index(options.interface.index.0);
        socket.join_multicast_v4_n(&GROUP_V4, &index)?;
    }
    Ok(socket)
}

fn open_v6(options: &SocketOptions) -> io::Result<Socket> {
    let socket = raw(Domain::IPV6, options)?;
    socket.set_multicast_all_v6(false)?;
    socket.set_unicast_hops_v6(TTL.into())?;
    socket.set_multicast_hops_v6(TTL.into())?;
    socket.set_multicast_loop_v6(false)?;
    socket.set_multicast_if_v6(options.interface.index.0)?;
    socket.set_tclass_v6(TRAFFIC_CLASS)?;
    socket.set_priority(PRIORITY)?;
    socket.set_recv_hoplimit_v6(true)?;
    setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
    match options.source {
        IpAddr::V6(source) if options.unicast => socket.bind(&v6(source, options).into())?,
        _ => socket.join_multicast_v6(&GROUP_V6, options.interface.index.0)?,
    }
    Ok(socket)
}

/// With the interface where the address means nothing without.
fn v6(address: Ipv6Addr, options: &SocketOptions) -> SocketAddrV6 {
    let scoped = address.is_unicast_link_local() || address.is_multicast();
    SocketAddrV6::new(address, 0, 0, if scoped { options.interface.index.0 } else { 0 })
}

fn receive(socket: &Socket, family: IpAddr, buffer: &mut [u8]) -> io::Result<(Envelope, Range<usize>)> {
    loop {
        let received = match family {
            IpAddr::V4(_) => receive_v4(socket, buffer)?,
            IpAddr::V6(_) => receive_v6(socket, buffer)?,
        };
        if let Some(received) = received {
            return Ok(received);
        }
    }
}

fn receive_v4(socket: &Socket, buffer: &mut [u8]) -> io::Result<Option<(Envelope, Range<usize>)>> {
    let length = io::Read::read(&mut &*socket, buffer)?;
    Ok(header::read(&buffer[..length]))
}

fn receive_v6(socket: &Socket, buffer: &mut [u8]) -> io::Result<Option<(Envelope, Range<usize>)>> {
    let mut control = cmsg_space!(libc::in6_pktinfo, libc::c_int);
    let mut slices = [IoSliceMut::new(buffer)];
    let received =
        recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut slices, Some(&mut control), MsgFlags::empty())?;
    let (mut destination, mut ttl) = (None, None);
    for message in received.cmsgs()? {
        match message {
            ControlMessageOwned::Ipv6PacketInfo(info) => {
                destination = Some(Ipv6Addr::from(info.ipi6_addr.s6_addr));
            }
            ControlMessageOwned::Ipv6HopLimit(limit) => ttl = u8::try_from(limit).ok(),
            _ => {}
        }
    }
    let source = received.address.as_ref().and_then(|address| address.as_sockaddr_in6()).map(SockaddrIn6::ip);
    let (Some(source), Some(destination)) = (source, destination) else { return Ok(None) };
    let envelope = Envelope { source: source.into(), destination: destination.into(), ttl };
    Ok(Some((envelope, 0..received.bytes)))
}

fn send(socket: &Socket, options: &SocketOptions, message: &[u8], to: IpAddr) -> io::Result<()> {
    let slices = [IoSlice::new(message)];
    // The source is said each time: the kernel would choose one by its routes, which change while addresses come and go.
    let sent = match (options.source, to) {
        (IpAddr::V4(source), IpAddr::V4(to)) => {
            let info = libc::in_pktinfo {
                ipi_ifindex: options.interface.index.0.cast_signed(),
                ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(source.octets()) },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            let control = [ControlMessage::Ipv4PacketInfo(&info)];
            let to = SockaddrIn::from(std::net::SocketAddrV4::new(to, 0));
            sendmsg(socket.as_raw_fd(), &slices, &control, MsgFlags::empty(), Some(&to))
        }
        (IpAddr::V6(source), IpAddr::V6(to)) => {
            let info = libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr { s6_addr: source.octets() },
                ipi6_ifindex: options.interface.index.0,
            };
            let control = [ControlMessage::Ipv6PacketInfo(&info)];
            let to = SockaddrIn6::from(v6(to, options));
            sendmsg(socket.as_raw_fd(), &slices, &control, MsgFlags::empty(), Some(&to))
        }
        _ => return Err(io::ErrorKind::InvalidInput.into()),
    };
    sent.map(|_| ()).map_err(Into::into)
}
