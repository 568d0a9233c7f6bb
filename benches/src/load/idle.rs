//! Single exchanges, and connections that stay after them.

use std::{
    io::{Read, Write},
    net::TcpStream,
    os::fd::AsRawFd,
};

use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, recv},
};

use super::{DEADLINE, Target};
use crate::{
    Result,
    exchange::{AnswerReader, Exchange, Progress},
    wire::Wire,
};

/// Connections that have carried one exchange and do nothing more.
#[derive(Debug)]
pub struct Idle(Vec<Wire<TcpStream>>);

impl Idle {
    /// How many the other side has not closed.
    pub fn open(&self) -> usize {
        let is_open = |stream: &&Wire<TcpStream>| {
            let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
            recv(stream.socket().as_raw_fd(), &mut [0], flags) == Err(Errno::EAGAIN)
        };
        self.0.iter().filter(is_open).count()
    }

    /// Adds as many as are missing to `connections`.
    pub fn grow(&mut self, target: impl Into<Target>, exchange: &Exchange, connections: usize) -> Result<()> {
        let target = target.into();
        while self.0.len() < connections {
            self.0.push(once(&target, exchange)?);
        }
        Ok(())
    }
}

/// Opens `connections` connections, one exchange each, and keeps them.
pub fn idle(target: impl Into<Target>, exchange: &Exchange, connections: usize) -> Result<Idle> {
    let mut idle = Idle(Vec::with_capacity(connections));
    idle.grow(target, exchange, connections)?;
    Ok(idle)
}

/// One exchange over a connection of its own, blocking.
pub fn once(target: impl Into<Target>, exchange: &Exchange) -> Result<Wire<TcpStream>> {
    let target = target.into();
    let stream = TcpStream::connect_timeout(&target.address, DEADLINE)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    let mut stream = Wire::client(stream, target.tls.as_ref())?;
    stream.write_all(&exchange.request)?;
    let mut reader = AnswerReader::default();
    let mut scratch = [0; 16 * 1024];
    loop {
        let n = stream.read(&mut scratch)?;
        if n == 0 {
            return Err("closed before the answer was complete".into());
        }
        match reader.feed(&exchange.answer, &scratch[..n]) {
            Ok(Progress::Partial) => {}
            Ok(Progress::Complete { .. }) => return Ok(stream),
            Err(failure) => {
                return Err(format!("wrong answer: {failure:?}, status {}", reader.status()).into());
            }
        }
    }
}
