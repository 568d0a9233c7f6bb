//! Packets by an interface that has no address yet: what goes to all is sent as a frame, and what comes is taken from frames,
//! since the kernel gives nobody what is for an address that it does not have.
//!
//! While these sockets are open each IPv4 packet by the interface passes a filter; so they are open only while something is
//! asked.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    time::Duration,
};

use amphora_netlink::{Interface, InterfaceIndex, MacAddress, packet_address};
use nix::sys::socket::{MsgFlags, recv};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use tokio::io::{Interest, unix::AsyncFd};

use super::{Transmit, frame, message::Answer};

/// IPv4, UDP, not a fragment, to the client's port; linux/bpf_common.h. All of it is looked at once more.
const ANSWERS: [SockFilter; 11] = [
    SockFilter::new(0x28, 0, 0, 12),       //  0 EtherType
    SockFilter::new(0x15, 0, 8, 0x0800),   //  1 IPv4, or drop
    SockFilter::new(0x30, 0, 0, 23),       //  2 protocol
    SockFilter::new(0x15, 0, 6, 17),       //  3 UDP, or drop
    SockFilter::new(0x28, 0, 0, 20),       //  4 fragment
    SockFilter::new(0x45, 4, 0, 0x3fff),   //  5 drop, or go on
    SockFilter::new(0xb1, 0, 0, 14),       //  6 length of the header
    SockFilter::new(0x48, 0, 0, 16),       //  7 destination port
    SockFilter::new(0x15, 0, 1, 68),       //  8 the client's, or drop
    SockFilter::new(0x06, 0, 0, u32::MAX), //  9 keep all of it
    SockFilter::new(0x06, 0, 0, 0),        // 10 drop
];

/// Nothing.
const NOTHING: [SockFilter; 1] = [SockFilter::new(0x06, 0, 0, 0)];

/// The longest frame that is read, in octets: messages are asked to be shorter.
const FRAME: usize = 2048;

/// Octets of an ARP message that matter.
const ARP_FRAME: usize = 64;

/// What the kernel may keep for a socket, in octets.
const QUEUE: usize = 64 << 10;

/// So many frames are read in a row; then the others of this thread have their turn, and who floods the link waits.
const BATCH: u32 = 32;
const PAUSE: Duration = Duration::from_millis(20);

/// The sockets of a client. They belong to the namespace of the thread that opens them.
#[derive(Debug)]
pub struct Sockets {
    interface: InterfaceIndex,
    mac: MacAddress,
    answers: Socket,
    arp: Socket,
    udp: Socket,
}

impl Sockets {
    /// Opens them. Whoever wants to wait for what comes [watches](Self::watch) them.
    ///
    /// # Errors
    /// Without `CAP_NET_RAW`, or where port 68 is not to be had.
    pub fn open(interface: &Interface) -> io::Result<Self> {
        let mac = interface.mac.ok_or(io::Error::from(io::ErrorKind::Unsupported))?;
        let packets = |ethertype, filter: &[SockFilter]| {
            // Protocol 0: nothing comes in before the filter is there.
            let kind = Type::RAW.nonblocking().cloexec();
            let socket = Socket::new(Domain::PACKET, kind, Some(Protocol::from(0)))?;
            if !filter.is_empty() {
                socket.attach_filter(filter)?;
            }
            // As far as the limit of the system allows.
            let _ = socket.set_recv_buffer_size(QUEUE);
            socket.bind(&packet_address(interface.index, ethertype))?;
            Ok::<_, io::Error>(socket)
        };
        // For what goes to a server by the host's own routes. What comes back is read as a frame, too; without a socket on
        // this port the kernel would tell the server that there is nobody.
        let udp = Socket::new(Domain::IPV4, Type::DGRAM.nonblocking().cloexec(), Some(Protocol::UDP))?;
        udp.attach_filter(&NOTHING)?;
        udp.bind_device(Some(interface.name.as_str().as_bytes()))?;
        udp.set_reuse_address(true)?;
        udp.bind(&SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, frame::CLIENT_PORT).into())?;
        let (answers, arp) = (packets(frame::IPV4, &ANSWERS)?, packets(frame::ARP, &[])?);
        Ok(Self { interface: interface.index, mac, answers, arp, udp })
    }

    /// Sends, once.
    ///
    /// # Errors
    /// When the kernel does not take it, as where the interface is down.
    pub fn send(&self, transmit: &Transmit) -> io::Result<()> {
        let by = |socket: &Socket, frame: &[u8], ethertype| {
            socket.send_to(frame, &packet_address(self.interface, ethertype)).map(|_| ())
        };
        match transmit {
            Transmit::Broadcast { from, message } => {
                by(&self.answers, &frame::to_servers(self.mac, *from, message), frame::IPV4)
            }
            Transmit::Probe(address) => by(&self.arp, &frame::arp_probe(self.mac, *address), frame::ARP),
            Transmit::Unicast { to, message } => {
                let to = SocketAddrV4::new(*to, frame::SERVER_PORT);
                self.udp.send_to(message, &to.into()).map(|_| ())
            }
        }
    }

    /// Waits for what comes, from now on, by this runtime.
    ///
    /// # Errors
    /// When the system does not take them.
    pub fn watch(self) -> io::Result<Watched> {
        let (answers, arp) = (watch(&self.answers)?, watch(&self.arp)?);
        Ok(Watched { answers, arp, sockets: self, taken: 0 })
    }
}

/// [`Sockets`] that are waited on.
#[derive(Debug)]
pub struct Watched {
    answers: AsyncFd<OwnedFd>,
    arp: AsyncFd<OwnedFd>,
    sockets: Sockets,
    /// Frames, since there was a pause.
    taken: u32,
}

/// What came.
#[derive(Debug)]
pub enum Received {
    /// An answer, be it to this client or not.
    Answer(Box<Answer>),
    /// An ARP message: who sent it, with which address, and about which address.
    Arp((MacAddress, Ipv4Addr), Ipv4Addr),
}

impl Watched {
    /// As [`Sockets::send`].
    ///
    /// # Errors
    /// Likewise.
    pub fn send(&self, transmit: &Transmit) -> io::Result<()> {
        self.sockets.send(transmit)
    }

    /// The next thing that comes. May be cancelled.
    ///
    /// # Errors
    /// When a socket fails: the interface is down, or gone.
    pub async fn receive(&mut self) -> io::Result<Received> {
        loop {
            if self.taken == BATCH {
                tokio::time::sleep(PAUSE).await;
                self.taken = 0;
            }
            let (mut answer, mut arp) = ([0; FRAME], [0; ARP_FRAME]);
            let received = tokio::select! {
                read = read(&self.answers, &mut answer) => {
                    let message = frame::from_server(answer.get(..read?).unwrap_or_default());
                    // What is malformed is as if it had not come: a better one may.
                    let answer = message.and_then(|message| {
                        Answer::read(message)
                            .inspect_err(|error| tracing::debug!(%error, "an answer of DHCP is malformed"))
                            .ok()
                    });
                    answer.map(|answer| Received::Answer(Box::new(answer)))
                }
                read = read(&self.arp, &mut arp) => {
                    let read = read?.min(ARP_FRAME);
                    frame::read_arp(&arp[..read]).map(|(sender, target)| Received::Arp(sender, target))
                }
            };
            self.taken += 1;
            if let Some(received) = received {
                return Ok(received);
            }
        }
    }
}

#[allow(
    deprecated,
    reason = "deprecated for what is not I/O-safe; an OwnedFd is, and the new name is unsafe"
)]
fn watch(socket: &Socket) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(socket.as_fd().try_clone_to_owned()?, Interest::READABLE)
}

/// The length of the frame, which may be more than there was room for.
async fn read(socket: &AsyncFd<OwnedFd>, frame: &mut [u8]) -> io::Result<usize> {
    let read = socket
        .async_io(Interest::READABLE, |socket| Ok(recv(socket.as_raw_fd(), frame, MsgFlags::MSG_TRUNC)?));
    read.await
}
