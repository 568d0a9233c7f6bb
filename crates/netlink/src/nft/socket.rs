//! A socket of nfnetlink. The kernel answers within the call that asks, so that nothing is waited for.

use std::io::{self, ErrorKind, Read as _};

use nix::{
    errno::Errno,
    libc,
    sys::socket::{setsockopt, sockopt},
};
use socket2::{Domain, Protocol, Type};

use super::wire::{self, Attributes, Messages, Received};
use crate::NetError;

/// `NLM_F_DUMP`.
pub(super) const DUMP: u16 = 0x300;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
/// `NLMSG_ERROR`, which says 0 where there is none.
const ERROR: u16 = 2;
/// `NLMSG_DONE`.
const DONE: u16 = 3;
/// `NLM_F_DUMP_INTR`.
const INTERRUPTED: u16 = 0x10;
/// How often a list is asked for that changes while it is written.
const ATTEMPTS: usize = 10;
/// What of an answer comes at once, at most: more than the kernel puts together.
const READ: usize = 64 * 1024;

#[derive(Debug)]
pub(super) struct Socket {
    socket: socket2::Socket,
    next: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// Of `NETLINK_NETFILTER`, or another protocol whose messages begin with a family.
    pub(super) fn open(protocol: i32) -> Result<Self, NetError> {
        let open = || -> io::Result<_> {
            let domain = Domain::from(libc::AF_NETLINK);
            let kind = Type::RAW.nonblocking().cloexec();
            let socket = socket2::Socket::new(domain, kind, Some(Protocol::from(protocol)))?;
            // For as many answers as there may be errors in a batch; where it may not, the usual has to do.
            let _ = setsockopt(&socket, sockopt::RcvBufForce, &(4 << 20));
            Ok(socket)
        };
        let socket = open().map_err(NetError::socket("open a netlink socket"))?;
        Ok(Self { socket, next: 1, buffer: vec![0; READ] })
    }

    /// The first of so many numbers of messages.
    pub(super) fn sequence(&mut self, count: u32) -> u32 {
        let first = self.next;
        self.next = self.next.wrapping_add(count);
        first
    }

    /// Sends what the kernel takes as one.
    pub(super) fn send(&mut self, bytes: &[u8]) -> Result<(), NetError> {
        let failed = NetError::socket("ask netfilter");
        // The kernel takes no more at once than the buffer has, less a little.
        let room = bytes.len() + 4096;
        if self.socket.send_buffer_size().is_ok_and(|size| size < room) {
            let _ = setsockopt(&self.socket, sockopt::SndBufForce, &room);
        }
        self.socket.send(bytes).map_err(failed).map(drop)
    }

    /// Takes a datagram; `None` when there is no more.
    fn receive(&mut self) -> Result<Option<Vec<u8>>, NetError> {
        loop {
            match (&self.socket).read(&mut self.buffer) {
                Ok(length) => return Ok(Some(self.buffer[..length].to_vec())),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(NetError::socket("hear netfilter")(error)),
            }
        }
    }

    /// What has become of each message of a batch that is told of.
    pub(super) fn answers(&mut self, mut take: impl FnMut(u32, Option<Errno>)) -> Result<(), NetError> {
        while let Some(datagram) = self.receive()? {
            for message in Messages(&datagram) {
                if message.kind == ERROR {
                    take(message.sequence, errno(message));
                }
            }
        }
        Ok(())
    }

    /// Asks for one thing, or with [`DUMP`] for a list: once more when it changed meanwhile.
    pub(super) fn ask(
        &mut self,
        kind: u16,
        flags: u16,
        family: u8,
        attributes: &Attributes,
        what: &str,
        mut take: impl FnMut(Received<'_>),
    ) -> Result<(), NetError> {
        let refused = |errno| NetError::Refused { what: what.to_owned(), errno };
        for _ in 0..ATTEMPTS {
            let mut kept = Vec::new();
            let sequence = self.sequence(1);
            let mut request = Vec::new();
            let ack = if flags & DUMP == DUMP { 0 } else { ACK };
            wire::message(
                &mut request,
                kind,
                REQUEST | flags | ack,
                sequence,
                family,
                0,
                attributes.as_slice(),
            );
            self.send(&request)?;
            let mut interrupted = false;
            let mut ended = false;
            // A list goes on as it is read.
            while !ended && let Some(datagram) = self.receive()? {
                for message in Messages(&datagram).filter(|message| message.sequence == sequence) {
                    interrupted |= message.flags & INTERRUPTED != 0;
                    match message.kind {
                        DONE => ended = true,
                        ERROR => match errno(message) {
                            Some(errno) => return Err(refused(errno)),
                            None => ended = true,
                        },
                        _ => {}
                    }
                }
                kept.push(datagram);
            }
            if ended && !interrupted {
                let messages = kept.iter().flat_map(|datagram| Messages(datagram));
                messages
                    .filter(|message| message.sequence == sequence && message.kind > DONE)
                    .for_each(&mut take);
                return Ok(());
            }
        }
        Err(refused(Errno::EAGAIN))
    }
}

fn errno(message: Received<'_>) -> Option<Errno> {
    let code = message.body.get(..4).and_then(|code| Some(i32::from_ne_bytes(code.try_into().ok()?)));
    match code {
        Some(0) => None,
        Some(code) => Some(Errno::from_raw(code.saturating_abs())),
        None => Some(Errno::EBADMSG),
    }
}
