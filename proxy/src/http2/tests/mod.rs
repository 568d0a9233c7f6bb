#![allow(clippy::unwrap_used)]
//! A server over loopback, against peers that mean well (of the crate `h2`) and others (of raw frames), and what it costs.

mod attacks;
mod client;
mod members;
mod raw;

use std::{
    cell::RefCell,
    future::poll_fn,
    net::{SocketAddr, TcpListener, TcpStream},
    rc::Rc,
    sync::Arc,
    task::Waker,
    thread,
    time::Duration,
};

use bytes::Bytes;
use nix::time::{ClockId, clock_gettime};
use tokio::task::{LocalSet, spawn_local};

use super::{head::ResponseBlock, *};
use crate::{
    conn::{BufferPool, Conn},
    http::RequestHead,
    state::Http2Counters,
    sys::counted,
};

const PATIENCE: Patience = Patience { idle: Duration::from_secs(20), progress: Duration::from_secs(20) };

/// What serving one connection came to.
#[derive(Debug)]
struct Report {
    ended: Ended,
    /// Requests.
    requests: usize,
    /// Bytes on the heap beyond those of the connection without streams, at most.
    grown: isize,
    /// The most bytes that were held beyond heads, which have a bound of their own, and what is [free](FREE) and
    /// [comes with streams](STREAM), for each byte that had come.
    amplification: f64,
    /// Bytes of the connection without streams.
    idle: isize,
    /// The most that its budget has counted.
    counted: usize,
    /// Streams of which something was kept beside the library in the end.
    left: usize,
    /// Processor time.
    spent: Duration,
    counters: Arc<Http2Counters>,
}

/// What a connection may take besides what its idle state does and [`STREAM`], whatever it has sent.
const FREE: f64 = 64.0 * 1024.0;

/// What each of its streams may.
const STREAM: f64 = 2048.0;

fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into()
}

/// Serves one connection of `peer`, which runs on a thread of its own, with `handle` for each request.
fn serve<P, R, H>(limits: Limits, handle: impl Fn(Incoming, Control) -> H + 'static, peer: P) -> (Report, R)
where
    P: FnOnce(SocketAddr) -> R + Send + 'static,
    R: Send + 'static,
    H: Future<Output = ()> + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let peer = thread::spawn(move || peer(address));
    let stream = listener.accept().unwrap().0;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let report = LocalSet::new().block_on(&runtime, serve_one(stream, limits, handle));
    drop(runtime);
    (report, peer.join().unwrap())
}

/// What a handler can do about its connection.
#[derive(Clone, Default)]
struct Control(Rc<RefCell<(Option<Duration>, Option<Waker>)>>);

impl Control {
    /// Drains the connection, within this time.
    fn drain(&self, bound: Duration) {
        let mut control = self.0.borrow_mut();
        control.0 = Some(bound);
        if let Some(waker) = control.1.take() {
            waker.wake();
        }
    }
}

async fn serve_one<H: Future<Output = ()> + 'static>(
    stream: TcpStream,
    limits: Limits,
    handle: impl Fn(Incoming, Control) -> H + 'static,
) -> Report {
    stream.set_nonblocking(true).unwrap();
    let counters = Arc::<Http2Counters>::default();
    let pool = BufferPool::new(4);
    // What a worker has is no connection's.
    drop((pool.get(), pool.get()));
    let before = counted::live();
    let conn = Conn::from(tokio::net::TcpStream::from_std(stream).unwrap());
    let mut connection = ServerConnection::new(conn, None, &pool, limits, PATIENCE);
    let mut counted = Counted::default();
    let control = Control::default();
    let mut requests = 0;
    let mut base = None;
    let mut amplification = 0f64;
    let start = processor_time();
    let ended = loop {
        let next = poll_fn(|cx| {
            {
                let mut control = control.0.borrow_mut();
                control.1 = Some(cx.waker().clone());
                if let Some(bound) = control.0.take() {
                    connection.drain(bound, true);
                }
            }
            let polled = connection.poll_accept(cx);
            counters.observe(&connection, &mut counted);
            if base.is_none() && connection.is_open() {
                base = Some(counted::live());
                counted::take_most();
            }
            if let Some(base) = base {
                let frames = connection.frames();
                let streams = frames.opened.min(u64::from(limits.streams)) as f64;
                let heads = connection.budget().heads() as f64;
                let held = (counted::live() - base) as f64 - FREE - STREAM * streams - heads;
                amplification = amplification.max(held / frames.bytes as f64);
            }
            polled
        })
        .await;
        match next {
            Ok(incoming) => {
                requests += 1;
                spawn_local(handle(incoming, control.clone()));
            }
            Err(ended) => break ended,
        }
    };
    let base = base.unwrap_or_else(counted::live);
    Report {
        ended,
        requests,
        grown: counted::take_most() - base,
        amplification,
        idle: base - before,
        counted: connection.budget().most(),
        left: connection.known_streams(),
        spent: processor_time() - start,
        counters,
    }
}

fn response(status: u16) -> ResponseBlock {
    ResponseBlock::new(status)
}

/// Answers with an empty 200 what is a request.
async fn answer(mut incoming: Incoming, _: Control) {
    let context =
        head::RequestContext { websocket_key: b"dGhlIHNhbXBsZSBub25jZQ==", ended: incoming.body.is_empty() };
    if let Err(reject) = head::read_request(&incoming.head, context, &mut RequestHead::new(), &mut Vec::new())
        && let Err(reason) = head::refusal(reject)
    {
        incoming.respond.reset(reason);
        return;
    }
    let _ = incoming.respond.send_head(response(200), true);
}

/// Never answers; goes when the client does.
async fn hang(mut incoming: Incoming, _: Control) {
    poll_fn(|cx| {
        incoming.body.absorb(cx);
        incoming.respond.poll_broken(cx)
    })
    .await;
}

/// Sends all of `bytes`, as fast as the client takes them.
async fn send_all(body: &mut SendBody, mut bytes: Bytes) -> Result<(), Broken> {
    while !bytes.is_empty() {
        let n = poll_fn(|cx| body.poll_capacity(cx, bytes.len())).await?;
        let end = n == bytes.len();
        body.send(bytes.split_to(n), end)?;
    }
    Ok(())
}
