//! Who scrapes gets the text of `/metrics` from a thread that does nothing else, on which everything is made once for
//! all who ask within a second. Neither the control thread nor a worker adds up or formats anything.
//!
//! What is kept while somebody reads is bounded: the rows of a few moments and a window of text over all of them. Text
//! that has left the window is written again for who comes late, which is nobody but slow readers. A scrape that takes
//! nothing for long, or that never ends, gives its place to who waits.

mod desk;

use std::{
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

use self::desk::Desk;
use crate::{engine::Observation, net, sys};

/// The way to the thread that writes the text of `/metrics`.
#[derive(Clone, Debug)]
pub struct Scrapes(mpsc::Sender<Ask>);

enum Ask {
    Begin(oneshot::Sender<u64>),
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

    /// Begins a scrape: waits for its turn, and then for values that are at most a second old, and not of before the last
    /// change. `None` when the engine has ended. May be cancelled.
    pub async fn begin(&self) -> Option<Scrape> {
        let (reply, begun) = oneshot::channel();
        self.0.send(Ask::Begin(reply)).ok()?;
        let id = begun.await.ok()?;
        Some(Scrape { id, asks: self.0.clone() })
    }
}

fn serve(queue: &mpsc::Receiver<Ask>, generation: &AtomicU64, observe: impl Fn() -> Option<Observation>) {
    let mut desk = Desk::default();
    loop {
        let ask = match desk.poll_timeout() {
            Some(at) => queue.recv_timeout(at.saturating_duration_since(net::now())),
            None => queue.recv().map_err(RecvTimeoutError::from),
        };
        let now = net::now();
        match ask {
            Ok(Ask::Begin(who)) => desk.wait(who),
            // Nothing is written for who is gone.
            Ok(Ask::Next(_, reply)) if reply.is_closed() => {}
            Ok(Ask::Next(id, reply)) => {
                if let Some(piece) = desk.next(now, id) {
                    let _ = reply.send(piece);
                }
            }
            Ok(Ask::End(id)) => desk.end(id),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        desk.admit(now, generation.load(Ordering::Acquire), || Some(observe()?.exposition()));
        desk.tidy(now);
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
