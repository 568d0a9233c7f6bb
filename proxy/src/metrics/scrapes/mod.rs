//! Who scrapes gets the text of `/metrics` from a thread that does nothing else, on which everything is made once for
//! all who ask within a second. Neither the control thread nor a worker adds up or formats anything.
//!
//! What is kept while somebody reads is bounded: the rows of a few moments and a window of text over all of them. Text
//! that has left the window is written again for who comes late, which is nobody but slow readers. A scrape that takes
//! nothing for long, or that never ends, gives its place to who waits; and those of one address take none from others.

mod desk;

use std::{
    net::{IpAddr, Ipv6Addr},
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
};

use bytes::Bytes;
use tokio::sync::oneshot;

use self::desk::{Desk, Scraper};
use crate::{engine::Observation, net, sys};

/// What is answered before it is looked whose turn it is.
const BATCH: usize = 256;

/// The way to the thread that writes the text of `/metrics`.
#[derive(Clone, Debug)]
pub struct Scrapes(mpsc::Sender<Ask>);

enum Ask {
    Begin(Scraper, oneshot::Sender<u64>),
    Next(u64, oneshot::Sender<Piece>),
    End(u64),
}

impl Scrapes {
    /// Starts the thread, which ends when nobody can ask it any more. `observe` says what runs, and nothing when the
    /// engine has ended; the number is to be set to the generation of what runs.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub(crate) fn start(
        observe: impl Fn() -> Option<Observation> + Send + 'static,
    ) -> std::io::Result<(Arc<AtomicU64>, Self)> {
        let (asks, queue) = mpsc::channel();
        let generation = Arc::new(AtomicU64::new(0));
        let present = Arc::clone(&generation);
        thread::Builder::new().name("metrics".to_owned()).stack_size(256 * 1024).spawn(move || {
            sys::stand_back();
            serve(&queue, &present, observe);
        })?;
        Ok((generation, Self(asks)))
    }

    /// Begins a scrape for a client of this address, or for the control socket: waits for its turn, and then for values that
    /// are at most a second old, and not of before the last change. `None` when the engine has ended. May be cancelled.
    pub async fn begin(&self, from: Option<IpAddr>) -> Option<Scrape> {
        let (reply, begun) = oneshot::channel();
        self.0.send(Ask::Begin(from.map(network), reply)).ok()?;
        let id = begun.await.ok()?;
        Some(Scrape { id, asks: self.0.clone() })
    }
}

/// What somebody has who has this address: of IPv6 the network.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & u128::MAX << 64).into(),
    }
}

fn serve(queue: &mpsc::Receiver<Ask>, generation: &AtomicU64, observe: impl Fn() -> Option<Observation>) {
    let mut desk = Desk::default();
    loop {
        let ask = match desk.poll_timeout() {
            Some(at) => queue.recv_timeout(at.saturating_duration_since(net::now())),
            None => queue.recv().map_err(RecvTimeoutError::from),
        };
        let first = match ask {
            Ok(ask) => Some(ask),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        // Who has asked is no one that takes nothing, however long this thread was not let run.
        for ask in first.into_iter().chain(queue.try_iter()).take(BATCH) {
            answer(&mut desk, ask);
        }
        let now = net::now();
        desk.admit(now, generation.load(Ordering::Acquire), || Some(observe()?.exposition()));
        desk.tidy(now);
    }
}

fn answer(desk: &mut Desk, ask: Ask) {
    match ask {
        Ask::Begin(from, who) => desk.wait(from, who),
        // Nothing is written for who is gone.
        Ask::Next(_, reply) if reply.is_closed() => {}
        Ask::Next(id, reply) => {
            if let Some(piece) = desk.next(net::now(), id) {
                let _ = reply.send(piece);
            }
        }
        Ask::End(id) => desk.end(id),
    }
}

/// A scrape under way: the text of one moment, piece by piece.
#[derive(Debug)]
pub struct Scrape {
    id: u64,
    asks: mpsc::Sender<Ask>,
}

impl Scrape {
    /// The next piece; there is none after the [last](Piece::is_last). `None` when the scrape was cut off, because it had
    /// taken too long and others waited. Not to be cancelled and then gone on with: a piece would be missing.
    pub async fn next(&mut self) -> Option<Piece> {
        let (reply, piece) = oneshot::channel();
        self.asks.send(Ask::Next(self.id, reply)).ok()?;
        piece.await.ok()
    }
}

impl Drop for Scrape {
    fn drop(&mut self) {
        // Nobody holds anything for it when the thread has ended.
        let _ = self.asks.send(Ask::End(self.id));
    }
}

/// Whole lines of the text, shared with everybody who reads the same.
#[derive(Clone, Debug)]
pub struct Piece {
    framed: Bytes,
    text: Range<usize>,
    last: bool,
}

impl Piece {
    /// `text` with the framing of a chunk (RFC 9112 section 7.1) around it, and behind the last one what ends a chunked
    /// body.
    fn new(text: &str, last: bool) -> Self {
        let mut framed = Vec::with_capacity(text.len() + 32);
        let mut start = 0;
        if !text.is_empty() {
            crate::http1::write_chunk_header(&mut framed, text.len() as u64);
            start = framed.len();
            framed.extend_from_slice(text.as_bytes());
            framed.extend_from_slice(b"\r\n");
        }
        if last {
            framed.extend_from_slice(b"0\r\n\r\n");
        }
        framed.shrink_to_fit();
        Self { framed: framed.into(), text: start..start + text.len(), last }
    }

    /// As it goes into a chunked body, the end of the body included.
    pub fn chunk(&self) -> &[u8] {
        &self.framed
    }

    /// The text alone.
    pub fn text(&self) -> Bytes {
        self.framed.slice(self.text.clone())
    }

    /// Whether this is the end of the text.
    pub fn is_last(&self) -> bool {
        self.last
    }
}

#[cfg(test)]
mod tests;
