//! Bytes without end.

use std::{
    io::Write,
    net::SocketAddr,
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token, net::TcpStream};
use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, recv},
};

use super::{Command, DEADLINE, TICK, Tally, wait};
use crate::Result;

/// Receives bytes without end over `connections` connections, and counts them, until `conduct` says stop. The bytes
/// are dropped in the kernel (`MSG_TRUNC`, tcp(7)), so that the receiver is not the bottleneck.
pub fn bulk(
    target: SocketAddr,
    connections: usize,
    conduct: &mut dyn FnMut(Instant, &Tally) -> Command,
) -> Result<Tally> {
    let mut tally = Tally::default();
    let mut poll = Poll::new()?;
    let mut streams = Vec::new();
    for slot in 0..connections {
        let stream = std::net::TcpStream::connect_timeout(&target, DEADLINE)?;
        (&stream).write_all(b"B")?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        poll.registry().register(&mut stream, Token(slot), Interest::READABLE)?;
        streams.push(stream);
        tally.connections += 1;
    }
    let mut scratch = vec![0; 1024 * 1024];
    let mut readable = vec![true; connections];
    let mut events = Events::with_capacity(connections);
    let mut progress = Instant::now();
    loop {
        let patience = if readable.contains(&true) { Duration::ZERO } else { TICK };
        wait(&mut poll, &mut events, patience)?;
        for event in &events {
            readable[event.token().0] = true;
        }
        let now = Instant::now();
        for (slot, stream) in
            streams.iter().enumerate().filter(|(slot, _)| readable[*slot]).collect::<Vec<_>>()
        {
            match recv(stream.as_raw_fd(), &mut scratch, MsgFlags::MSG_TRUNC | MsgFlags::MSG_DONTWAIT) {
                Ok(0) => return Err("a bulk stream was closed".into()),
                Ok(n) => {
                    tally.bytes += n as u64;
                    progress = now;
                }
                Err(Errno::EAGAIN) => readable[slot] = false,
                Err(e) => return Err(format!("a bulk stream failed: {e}").into()),
            }
        }
        if now - progress > DEADLINE {
            return Err(format!("no bulk data for {DEADLINE:?}").into());
        }
        match conduct(now, &tally) {
            Command::Continue => {}
            Command::Restart => tally.restart(),
            Command::Stop => return Ok(tally),
        }
    }
}
