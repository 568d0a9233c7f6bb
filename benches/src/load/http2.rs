//! Exchanges over HTTP/2: some connections, each with as many streams under way as wanted.

use std::{
    cell::{Cell, RefCell},
    fmt,
    future::poll_fn,
    rc::Rc,
    time::{Duration, Instant},
};

use h2::client::{Connection, SendRequest};
use http::Request;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    runtime::{Builder, Runtime},
    task::{JoinHandle, JoinSet, LocalSet},
    time::{interval, sleep, timeout},
};
use tokio_rustls::TlsConnector;

use super::{Command, DEADLINE, MAX_FAILURES_IN_A_ROW, TICK, Tally, Target, count_handshake};
use crate::{
    Result,
    exchange::{Answer, Exchange, Failure},
    tls::NAME,
};

/// As browsers have them, so that no answer waits for the window.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 1 << 24;
/// How often the conductor is asked.
const BEAT: Duration = Duration::from_millis(5);

/// How many exchanges are under way.
#[derive(Clone, Copy, Debug)]
pub struct Width {
    /// Connections.
    pub connections: usize,
    /// Streams of each.
    pub streams: usize,
}

/// Exchanges one after the other on each stream of each connection, at most `rate` of them per second or as many as can be,
/// until `conduct`, which is asked each 5 ms, says stop.
///
/// # Errors
/// When there is nothing but failures.
pub fn exchanges(
    target: impl Into<Target>,
    exchange: &Exchange,
    width: Width,
    rate: Option<f64>,
    conduct: &mut dyn FnMut(Instant, &Tally) -> Command,
) -> Result<Tally> {
    let mut load = Load::new(target.into(), exchange)?;
    load.period = rate.map(|rate| Duration::from_secs_f64((width.connections * width.streams) as f64 / rate));
    let load = Rc::new(load);
    let runtime = runtime()?;
    let local = LocalSet::new();
    local.block_on(&runtime, async {
        let mut clients = JoinSet::new();
        for _ in 0..width.connections {
            clients.spawn_local(load.clone().client(width.streams));
        }
        let mut beat = interval(BEAT);
        loop {
            beat.tick().await;
            let command = conduct(Instant::now(), &load.tally.borrow());
            match command {
                Command::Continue => {}
                Command::Restart => load.tally.borrow_mut().restart(),
                Command::Stop => break,
            }
            if load.failures_in_a_row.get() > MAX_FAILURES_IN_A_ROW {
                let tally = load.tally.borrow();
                return Err(format!("nothing but failures: {:?} {:?}", tally.failures, tally.statuses).into());
            }
        }
        load.stopping.set(true);
        while clients.join_next().await.is_some() {}
        Ok::<_, crate::Error>(())
    })?;
    let tally = load.tally.take();
    Ok(tally)
}

fn runtime() -> Result<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

struct Load {
    target: Target,
    request: Request<()>,
    status: u16,
    body: Option<Vec<u8>>,
    tally: RefCell<Tally>,
    failures_in_a_row: Cell<u64>,
    stopping: Cell<bool>,
    /// From the start of an exchange to that of the next on its stream, when a rate is wanted.
    period: Option<Duration>,
}

impl Load {
    fn new(target: Target, exchange: &Exchange) -> Result<Self> {
        let Answer::Http { status, body } = exchange.answer.clone() else {
            return Err("not an exchange of HTTP".into());
        };
        let request = exchange.to_http2(if target.tls.is_some() { "https" } else { "http" })?;
        Ok(Self {
            target,
            request,
            status,
            body,
            tally: RefCell::default(),
            failures_in_a_row: Cell::new(0),
            stopping: Cell::new(false),
            period: None,
        })
    }

    /// A connection after the other, as long as they are lost.
    async fn client(self: Rc<Self>, streams: usize) {
        while !self.stopping.get() {
            let Ok(Ok((send, connection))) = timeout(DEADLINE, self.connect()).await else {
                self.fail(Failure::Connect);
                sleep(TICK).await;
                continue;
            };
            let mut all = JoinSet::new();
            for _ in 0..streams {
                all.spawn_local(self.clone().stream(send.clone()));
            }
            drop(send);
            while all.join_next().await.is_some() {}
            connection.abort();
        }
    }

    /// One exchange after the other, as long as the connection lives.
    async fn stream(self: Rc<Self>, mut send: SendRequest<bytes::Bytes>) {
        while !self.stopping.get() {
            let started = Instant::now();
            let ended = match timeout(DEADLINE, self.exchange(&mut send)).await {
                Ok(ended) => ended,
                Err(_) => Err(Ended::Stream(Failure::Timeout)),
            };
            match ended {
                Ok(()) => {
                    self.succeed(started);
                    if let Some(period) = self.period {
                        sleep(period.saturating_sub(started.elapsed())).await;
                    }
                }
                Err(Ended::Announced) => {
                    self.tally.borrow_mut().announced_closes += 1;
                    return;
                }
                Err(Ended::Stream(failure)) => self.fail(failure),
                Err(Ended::Connection(failure)) => {
                    self.fail(failure);
                    return;
                }
            }
        }
    }

    async fn exchange(&self, send: &mut SendRequest<bytes::Bytes>) -> Result<(), Ended> {
        poll_fn(|cx| send.poll_ready(cx)).await.map_err(kind)?;
        let (response, _) = send.send_request(self.request.clone(), true).map_err(kind)?;
        let response = response.await.map_err(kind)?;
        let status = response.status().as_u16();
        if status != self.status {
            *self.tally.borrow_mut().statuses.entry(status).or_default() += 1;
            return Err(Ended::Stream(Failure::Status));
        }
        let mut body = response.into_body();
        let mut length = 0;
        while let Some(piece) = body.data().await {
            let piece = piece.map_err(kind)?;
            let _ = body.flow_control().release_capacity(piece.len());
            let end = length + piece.len();
            if self.body.as_deref().is_some_and(|all| all.get(length..end) != Some(&*piece)) {
                return Err(Ended::Stream(Failure::Body));
            }
            length = end;
        }
        self.tally.borrow_mut().bytes += length as u64;
        if self.body.as_ref().is_some_and(|all| all.len() != length) {
            return Err(Ended::Stream(Failure::Body));
        }
        Ok(())
    }

    fn succeed(&self, started: Instant) {
        let mut tally = self.tally.borrow_mut();
        tally.exchanges += 1;
        tally.latency.record(started.elapsed());
        self.failures_in_a_row.set(0);
    }

    fn fail(&self, failure: Failure) {
        *self.tally.borrow_mut().failures.entry(failure).or_default() += 1;
        self.failures_in_a_row.set(self.failures_in_a_row.get() + 1);
    }

    /// A connection, and the task that drives it.
    async fn connect(&self) -> Result<(SendRequest<bytes::Bytes>, JoinHandle<()>)> {
        self.tally.borrow_mut().connections += 1;
        let socket = TcpStream::connect(self.target.address).await?;
        socket.set_nodelay(true)?;
        let Some(tls) = &self.target.tls else {
            return drive(socket).await;
        };
        let stream = TlsConnector::from(tls.clone()).connect(ServerName::try_from(NAME)?, socket).await?;
        let session = stream.get_ref().1;
        if session.alpn_protocol() != Some(b"h2") {
            return Err("the other side does not choose h2".into());
        }
        count_handshake(&mut self.tally.borrow_mut(), session.handshake_kind());
        drive(stream).await
    }
}

async fn drive<S: AsyncRead + AsyncWrite + Unpin + 'static>(
    stream: S,
) -> Result<(SendRequest<bytes::Bytes>, JoinHandle<()>)> {
    let (send, connection): (_, Connection<S>) = h2::client::Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .enable_push(false)
        .handshake(stream)
        .await?;
    let task = tokio::task::spawn_local(async {
        let _ = connection.await;
    });
    Ok((send, task))
}

/// Why there was no right answer.
#[derive(Debug)]
enum Ended {
    /// The stream has failed; the connection can be used further.
    Stream(Failure),
    /// The connection is of no use any more.
    Connection(Failure),
    /// The other side takes no more requests on it, has said so, and has not taken this one (RFC 9113 6.8). No failure.
    Announced,
}

fn kind(error: h2::Error) -> Ended {
    match () {
        () if error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR) => {
            Ended::Announced
        }
        () if error.is_reset() => Ended::Stream(Failure::Reset),
        () if error.is_io() => Ended::Connection(Failure::Reset),
        () => Ended::Connection(Failure::Closed),
    }
}

/// Connections that have carried one exchange and do nothing more.
pub struct Idle {
    load: Rc<Load>,
    connections: Vec<(SendRequest<bytes::Bytes>, JoinHandle<()>)>,
    local: LocalSet,
    runtime: Runtime,
}

impl fmt::Debug for Idle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Idle").field("connections", &self.connections.len()).finish_non_exhaustive()
    }
}

impl Idle {
    /// None yet.
    ///
    /// # Errors
    /// When the exchange is none of HTTP.
    pub fn new(target: impl Into<Target>, exchange: &Exchange) -> Result<Self> {
        Ok(Self {
            load: Rc::new(Load::new(target.into(), exchange)?),
            connections: Vec::new(),
            local: LocalSet::new(),
            runtime: runtime()?,
        })
    }

    /// Adds as many as are missing to `connections`.
    ///
    /// # Errors
    /// When one cannot be made, or its exchange fails.
    pub fn grow(&mut self, connections: usize) -> Result<()> {
        while self.connections.len() < connections {
            let load = self.load.clone();
            let made = self.local.block_on(&self.runtime, async move {
                let (mut send, task) = timeout(DEADLINE, load.connect()).await??;
                match timeout(DEADLINE, load.exchange(&mut send)).await? {
                    Ok(()) => Ok::<_, crate::Error>((send, task)),
                    Err(ended) => Err(format!("an exchange over HTTP/2 failed: {ended:?}").into()),
                }
            })?;
            self.connections.push(made);
        }
        Ok(())
    }

    /// How many the other side has not closed.
    pub fn open(&mut self) -> usize {
        // What has come is looked at only while the tasks run.
        self.local.block_on(&self.runtime, async { sleep(TICK).await });
        self.connections.iter().filter(|(_, task)| !task.is_finished()).count()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// A server that answers with these bytes, and resets every tenth stream when it is told to.
    fn server(answer: &'static [u8], resets: bool) -> std::net::SocketAddr {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (runtime, local) = (runtime().unwrap(), LocalSet::new());
            local.block_on(&runtime, async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                loop {
                    let (socket, _) = listener.accept().await.unwrap();
                    tokio::task::spawn_local(async move {
                        let mut connection = h2::server::handshake(socket).await.unwrap();
                        let mut count = 0;
                        while let Some(Ok((request, mut respond))) = connection.accept().await {
                            assert_eq!(request.uri().path(), "/bytes/128");
                            assert_eq!(request.uri().authority().unwrap().as_str(), "bench.example");
                            count += 1;
                            if resets && count % 10 == 0 {
                                respond.send_reset(h2::Reason::REFUSED_STREAM);
                                continue;
                            }
                            let mut body = respond.send_response(http::Response::new(()), false).unwrap();
                            body.send_data(bytes::Bytes::from_static(answer), true).unwrap();
                        }
                    });
                }
            });
        });
        address
    }

    fn until(n: u64) -> impl FnMut(Instant, &Tally) -> Command {
        move |_, tally| if tally.exchanges >= n { Command::Stop } else { Command::Continue }
    }

    #[test]
    fn streams_share_connections_and_every_answer_is_checked() {
        let exchange = Exchange::http(128, true);
        let right: &'static [u8] = crate::exchange::body(128).leak();
        let width = Width { connections: 2, streams: 8 };
        let tally = exchanges(server(right, false), &exchange, width, None, &mut until(500)).unwrap();
        assert_eq!((tally.failed(), tally.connections), (0, 2), "{:?}", tally.failures);
        assert!(tally.exchanges >= 500 && tally.latency.count() == tally.exchanges);

        let mut restarted = false;
        let mut again = |_, tally: &Tally| match tally.exchanges {
            50.. if !std::mem::replace(&mut restarted, true) => Command::Restart,
            0..1000 => Command::Continue,
            _ => Command::Stop,
        };
        let tally = exchanges(server(right, false), &exchange, width, None, &mut again).unwrap();
        assert!(tally.connections == 0 && tally.latency.count() == tally.exchanges);

        let tally = exchanges(server(right, true), &exchange, width, None, &mut until(100)).unwrap();
        assert!(tally.failures[&Failure::Reset] > 0 && tally.connections == 2, "{:?}", tally.failures);

        let wrong = exchanges(server(b"short", false), &exchange, width, None, &mut |_, _| Command::Continue);
        assert!(wrong.unwrap_err().to_string().contains("Body"));

        let mut idle = Idle::new(server(right, false), &exchange).unwrap();
        idle.grow(3).unwrap();
        assert_eq!(idle.open(), 3);
    }
}
