//! Clients that connect while the VIP moves. The data plane that hands over lets nobody in any more, and its successor does not
//! have the address yet; their first packets are kept for that moment, and sent on to the successor as soon as it says
//! that it has the address. Without that they would ask again after a second.

mod frame;

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    os::fd::AsRawFd,
};

use nix::sys::socket::{MsgFlags, recv};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};
use tokio::io::{Interest, unix::AsyncFd};

pub use self::frame::{Frame, redirect};
use super::{Interface, MacAddress, NetError};
use crate::sys;
use amphora_netlink::packet_address;

/// The EtherType that means all of them.
const ETH_P_ALL: u16 = 3;
/// The longest frame that is kept, in octets: a SYN has options, and seldom data.
const FRAME: usize = 2048;
/// Frames kept, the first ones: what is beyond asks again.
const KEPT: usize = 4096;
/// What the kernel may keep for us meanwhile, in octets.
const QUEUE: usize = 4 << 20;

/// A SYN without ACK over IPv4 or IPv6, an ARP packet or a neighbour advertisement; linux/bpf_common.h. All that is looked
/// at is looked at once more: this only keeps the rest from waking us.
const FILTER: [SockFilter; 22] = [
    SockFilter::new(0x28, 0, 0, 12),       //  0 EtherType
    SockFilter::new(0x15, 18, 0, 0x0806),  //  1 ARP: keep
    SockFilter::new(0x15, 0, 8, 0x0800),   //  2 IPv4, or 11
    SockFilter::new(0x30, 0, 0, 23),       //  3 protocol
    SockFilter::new(0x15, 0, 16, 6),       //  4 TCP, or drop
    SockFilter::new(0x28, 0, 0, 20),       //  5 fragment offset
    SockFilter::new(0x45, 14, 0, 0x1fff),  //  6 none, or drop
    SockFilter::new(0xb1, 0, 0, 14),       //  7 length of the header
    SockFilter::new(0x50, 0, 0, 27),       //  8 flags of TCP
    SockFilter::new(0x54, 0, 0, 0x12),     //  9 SYN and ACK
    SockFilter::new(0x15, 9, 10, 0x02),    // 10 SYN alone: keep, or drop
    SockFilter::new(0x15, 0, 9, 0x86dd),   // 11 IPv6, or drop
    SockFilter::new(0x30, 0, 0, 20),       // 12 next header
    SockFilter::new(0x15, 0, 3, 6),        // 13 TCP, or 17
    SockFilter::new(0x30, 0, 0, 67),       // 14 flags of TCP
    SockFilter::new(0x54, 0, 0, 0x12),     // 15 SYN and ACK
    SockFilter::new(0x15, 3, 4, 0x02),     // 16 SYN alone: keep, or drop
    SockFilter::new(0x15, 0, 3, 58),       // 17 ICMPv6, or drop
    SockFilter::new(0x30, 0, 0, 54),       // 18 type
    SockFilter::new(0x15, 0, 1, 136),      // 19 neighbour advertisement: keep, or drop
    SockFilter::new(0x06, 0, 0, u32::MAX), // 20 keep all of it
    SockFilter::new(0x06, 0, 0, 0),        // 21 drop
];

/// Those of one interface.
#[derive(Debug)]
pub struct DeferredSyns {
    socket: AsyncFd<Socket>,
    interface: Interface,
    own: MacAddress,
    vips: Vec<IpAddr>,
    kept: VecDeque<(IpAddr, Box<[u8]>)>,
    successors: HashMap<IpAddr, MacAddress>,
}

impl DeferredSyns {
    /// Who connects to one of `vips` by this interface from now on. `None` where an interface resolves no addresses.
    ///
    /// # Errors
    /// Without `CAP_NET_RAW`.
    pub fn open(interface: &Interface, vips: Vec<IpAddr>) -> Result<Option<Self>, NetError> {
        let Some(own) = interface.mac.filter(|_| !interface.no_arp && !interface.loopback) else {
            return Ok(None);
        };
        // Protocol 0: nothing comes in before the filter is there.
        let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking().cloexec(), Some(Protocol::from(0)))
            .map_err(NetError::socket("open a packet socket"))?;
        socket.attach_filter(&FILTER).map_err(NetError::socket("attach a filter"))?;
        // As far as the limit of the system allows.
        let _ = socket.set_recv_buffer_size(QUEUE);
        socket
            .bind(&packet_address(interface.index, ETH_P_ALL))
            .map_err(NetError::socket("bind a packet socket"))?;
        let socket = sys::watch(socket).map_err(NetError::socket("watch a socket"))?;
        let (kept, successors) = (VecDeque::new(), HashMap::new());
        Ok(Some(Self { socket, interface: interface.clone(), own, vips, kept, successors }))
    }

    /// Keeps and sends on, until cancelled, when what is kept is lost. Returns only when the socket fails.
    pub async fn run(mut self) -> NetError {
        let mut frame = [0; FRAME];
        loop {
            let received = self.socket.async_io(Interest::READABLE, |socket| {
                Ok(recv(socket.as_raw_fd(), &mut frame, MsgFlags::MSG_TRUNC)?)
            });
            match received.await {
                Ok(length) => {
                    if let Some(frame) = frame.get(..length) {
                        self.handle(frame);
                    }
                }
                Err(error) => return NetError::socket("receive from a packet socket")(error),
            }
        }
    }

    fn handle(&mut self, frame: &[u8]) {
        match Frame::read(frame, self.own) {
            Some(Frame::Connect { to }) if self.vips.contains(&to) => match self.successors.get(&to) {
                Some(successor) => self.send(frame.into(), *successor),
                None if self.kept.len() < KEPT => self.kept.push_back((to, frame.into())),
                None => {}
            },
            Some(Frame::Announcement { address, at }) if self.vips.contains(&address) => {
                self.successors.insert(address, at);
                let kept = std::mem::take(&mut self.kept);
                let (now, later): (VecDeque<_>, _) = kept.into_iter().partition(|(to, _)| *to == address);
                self.kept = later;
                tracing::debug!(%address, %at, clients = now.len(), "clients that came late are sent on");
                for (_, frame) in now {
                    self.send(frame, at);
                }
            }
            _ => {}
        }
    }

    fn send(&self, mut frame: Box<[u8]>, to: MacAddress) {
        if redirect(&mut frame, self.own, to) {
            let address = packet_address(self.interface.index, u16::from_be_bytes([frame[12], frame[13]]));
            // What is lost asks again.
            let _ = self.socket.get_ref().send_to(&frame, &address);
        }
    }
}
