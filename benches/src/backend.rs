//! The members: one thread that answers HTTP and TCP on as many loopback ports as wanted.
//!
//! * HTTP: `GET /bytes/N` is answered with N bytes of [`body`], `GET /port` with the number of the port that answers,
//!   anything else with 404.
//! * HTTPS: the same over TLS.
//! * TCP: the first byte says what happens. `C`: the 64 bytes that the client sends come back and the connection is
//!   closed. `E`: the same, again and again. `B`: bytes without end.
//!
//! All ports listen on every address of the host, so that 127.0.0.0/8 gives as many members as wanted.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    thread::JoinHandle,
};

use mio::{
    Events, Interest, Poll, Token, Waker,
    net::{TcpListener, TcpStream},
};
use socket2::{Domain, Protocol, Socket, Type};

use rustls::ServerConfig;

use crate::{Result, exchange::body, process, wire::Wire};

const MAX_REQUEST: usize = 16 * 1024;
const BULK: usize = 256 * 1024;
/// The largest `N` of `/bytes/N`.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// What a port speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// See the module.
    Http,
    /// See the module.
    Https,
    /// See the module.
    Tcp,
}

/// A running backend. Dropping it ends it.
#[derive(Debug)]
pub struct Backend {
    ports: Vec<u16>,
    waker: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
}

impl Backend {
    /// Starts a thread on `core` that serves each of `services` on a port of its own.
    pub fn start(services: &[Service], core: usize) -> Result<Self> {
        Self::with_tls(services, None, core)
    }

    /// The same, with what [`Service::Https`] needs.
    pub fn with_tls(services: &[Service], tls: Option<Arc<ServerConfig>>, core: usize) -> Result<Self> {
        if services.contains(&Service::Https) && tls.is_none() {
            return Err("HTTPS needs a certificate".into());
        }
        let mut server = Server::new(tls)?;
        let ports = services.iter().map(|&s| server.listen(s)).collect::<io::Result<Vec<_>>>()?;
        let waker = Arc::new(Waker::new(server.poll.registry(), STOP)?);
        let thread = std::thread::Builder::new().name("backend".into()).spawn(move || {
            process::pin(core).expect("the core was checked by the caller");
            server.run();
        })?;
        Ok(Self { ports, waker, thread: Some(thread) })
    }

    /// The ports, in the order of the services.
    pub fn ports(&self) -> &[u16] {
        &self.ports
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        let _ = self.waker.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

const STOP: Token = Token(usize::MAX);

struct Server {
    poll: Poll,
    listeners: Vec<(TcpListener, Service, u16)>,
    /// Connections by token less the number of listeners.
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    scratch: Vec<u8>,
    bulk: Vec<u8>,
    responses: Vec<CachedResponse>,
    tls: Option<Arc<ServerConfig>>,
}

/// A response that was asked for before, whole, without the `Connection` header.
struct CachedResponse {
    len: usize,
    bytes: Arc<[u8]>,
}

struct Connection {
    stream: Wire<TcpStream>,
    port: u16,
    state: State,
    /// The rest of an answer that the socket would not take.
    pending: Option<(Arc<[u8]>, usize)>,
    close: bool,
}

enum State {
    Http(Vec<u8>),
    TcpNew(Vec<u8>),
    TcpEcho,
    TcpBulk,
}

impl Server {
    fn new(tls: Option<Arc<ServerConfig>>) -> io::Result<Self> {
        Ok(Self {
            tls,
            poll: Poll::new()?,
            listeners: Vec::new(),
            connections: Vec::new(),
            free: Vec::new(),
            scratch: vec![0; 64 * 1024],
            bulk: body(BULK),
            responses: Vec::new(),
        })
    }

    fn listen(&mut self, service: Service) -> io::Result<u16> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)).into())?;
        socket.listen(4096)?;
        let mut listener = TcpListener::from_std(socket.into());
        let port = listener.local_addr()?.port();
        self.poll.registry().register(&mut listener, Token(self.listeners.len()), Interest::READABLE)?;
        self.listeners.push((listener, service, port));
        Ok(port)
    }

    fn run(&mut self) {
        let mut events = Events::with_capacity(1024);
        loop {
            match self.poll.poll(&mut events, None) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => panic!("the backend's epoll failed: {e}"),
                Ok(()) => {}
            }
            for event in &events {
                match event.token() {
                    STOP => return,
                    Token(i) if i < self.listeners.len() => self.accept(i),
                    Token(i) => self.serve(i - self.listeners.len()),
                }
            }
        }
    }

    fn accept(&mut self, listener: usize) {
        loop {
            let (listener, service, port) = &self.listeners[listener];
            // Any error but "no more" is that of one connection, which is its proxy's affair.
            let mut stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(e) => panic!("the backend cannot accept: {e}"),
            };
            let state = match service {
                Service::Http | Service::Https => State::Http(Vec::new()),
                Service::Tcp => State::TcpNew(Vec::new()),
            };
            let _ = stream.set_nodelay(true);
            let slot = self.free.pop().unwrap_or_else(|| {
                self.connections.push(None);
                self.connections.len() - 1
            });
            let token = Token(slot + self.listeners.len());
            let interest = Interest::READABLE | Interest::WRITABLE;
            let registered = self.poll.registry().register(&mut stream, token, interest).is_ok();
            let tls = self.tls.as_ref().filter(|_| *service == Service::Https);
            if registered && let Ok(stream) = Wire::server(stream, tls) {
                let port = *port;
                self.connections[slot] =
                    Some(Connection { stream, port, state, pending: None, close: false });
                // Often the request is there already.
                self.serve(slot);
            } else {
                self.free.push(slot);
            }
        }
    }

    fn serve(&mut self, slot: usize) {
        let Some(mut connection) = self.connections[slot].take() else { return };
        match self.step(&mut connection) {
            Ok(true) => self.connections[slot] = Some(connection),
            // Closed, by plan or by the peer: the socket goes, epoll forgets it.
            Ok(false) | Err(_) => self.free.push(slot),
        }
    }

    /// Reads and answers until there is no more to do; false when the connection is over.
    fn step(&mut self, connection: &mut Connection) -> io::Result<bool> {
        connection.stream.push()?;
        loop {
            if let Some((bytes, at)) = connection.pending.take() {
                match send(&mut connection.stream, &bytes[at..])? {
                    Some(n) if at + n < bytes.len() => {
                        connection.pending = Some((bytes, at + n));
                        return Ok(true);
                    }
                    Some(_) => {}
                    None => {
                        connection.pending = Some((bytes, at));
                        return Ok(true);
                    }
                }
            }
            if connection.close {
                return Ok(false);
            }
            if matches!(connection.state, State::TcpBulk) {
                return self.stream_bulk(connection);
            }
            let n = match connection.stream.read(&mut self.scratch) {
                Ok(0) => return Ok(false),
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(e) => return Err(e),
            };
            self.received(connection, n)?;
            // Less than asked for: nothing more is there, and the next byte raises a new edge.
            let drained = connection.stream.is_drained(n, self.scratch.len());
            if drained && connection.pending.is_none() && !connection.close {
                if matches!(connection.state, State::TcpBulk) {
                    continue;
                }
                return Ok(true);
            }
        }
    }

    fn received(&mut self, connection: &mut Connection, n: usize) -> io::Result<()> {
        match &mut connection.state {
            State::Http(partial) => {
                partial.extend_from_slice(&self.scratch[..n]);
                let mut partial = std::mem::take(partial);
                while !connection.close
                    && let Some(end) = memchr::memmem::find(&partial, b"\r\n\r\n")
                {
                    let (response, close) = self.respond(connection.port, &partial[..end + 4]);
                    partial.drain(..end + 4);
                    connection.close = close;
                    answer(connection, response)?;
                }
                connection.close |= partial.len() > MAX_REQUEST;
                connection.state = State::Http(partial);
            }
            State::TcpNew(partial) => {
                partial.extend_from_slice(&self.scratch[..n]);
                match partial[0] {
                    b'B' => connection.state = State::TcpBulk,
                    b'E' => {
                        let reply = std::mem::take(partial).into();
                        connection.state = State::TcpEcho;
                        answer(connection, reply)?;
                    }
                    _ if partial.len() < 64 => {}
                    _ => {
                        let reply = std::mem::take(partial).into();
                        connection.close = true;
                        answer(connection, reply)?;
                    }
                }
            }
            State::TcpEcho => answer(connection, self.scratch[..n].into())?,
            State::TcpBulk => {}
        }
        Ok(())
    }

    fn respond(&mut self, port: u16, request: &[u8]) -> (Arc<[u8]>, bool) {
        let close = memchr::memmem::find(request, b"\r\nConnection: close\r\n").is_some()
            || memchr::memmem::find(request, b"\r\nconnection: close\r\n").is_some();
        let len = request
            .strip_prefix(b"GET /bytes/")
            .and_then(|r| r.split(|&b| b == b' ').next())
            .and_then(|n| std::str::from_utf8(n).ok()?.parse().ok())
            .filter(|&n| n <= MAX_BYTES);
        let Some(len) = len else {
            if request.starts_with(b"GET /port ") {
                let port = port.to_string();
                let response = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{port}", port.len());
                return (response.into_bytes().into(), close);
            }
            return (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"[..].into(), close);
        };
        if let Some(hit) = self.responses.iter().find(|r| r.len == len) {
            return (hit.bytes.clone(), close);
        }
        let mut bytes = format!(
            "HTTP/1.1 200 OK\r\nServer: bench\r\nContent-Type: text/plain\r\nContent-Length: {len}\r\n\r\n"
        )
        .into_bytes();
        bytes.extend(body(len));
        let bytes: Arc<[u8]> = bytes.into();
        if self.responses.len() < 64 {
            self.responses.push(CachedResponse { len, bytes: bytes.clone() });
        }
        (bytes, close)
    }

    /// Sends until the socket is full.
    fn stream_bulk(&mut self, connection: &mut Connection) -> io::Result<bool> {
        loop {
            match send(&mut connection.stream, &self.bulk)? {
                Some(n) if n == self.bulk.len() => {}
                // Full, or nearly: a new edge comes when there is room.
                Some(_) | None => return Ok(true),
            }
        }
    }
}

/// Sends an answer, or remembers the rest of it.
fn answer(connection: &mut Connection, bytes: Arc<[u8]>) -> io::Result<()> {
    if let Some((earlier, at)) = connection.pending.take() {
        let joined = [&earlier[at..], &bytes].concat();
        connection.pending = Some((joined.into(), 0));
        return Ok(());
    }
    let sent = send(&mut connection.stream, &bytes)?.unwrap_or(0);
    if sent < bytes.len() {
        connection.pending = Some((bytes, sent));
    }
    Ok(())
}

/// `None` when the socket is full.
fn send(stream: &mut Wire<TcpStream>, bytes: &[u8]) -> io::Result<Option<usize>> {
    match stream.write(bytes) {
        Ok(n) => Ok(Some(n)),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::net::TcpStream as StdStream;

    use super::*;

    fn start(service: Service) -> (Backend, StdStream) {
        let backend = Backend::start(&[service], process::cores().unwrap()[0]).unwrap();
        let stream = StdStream::connect(("127.0.0.1", backend.ports()[0])).unwrap();
        (backend, stream)
    }

    #[test]
    fn http_answers_pipelined_and_large_requests() {
        let (_backend, mut stream) = start(Service::Http);
        stream
            .write_all(
                b"GET /bytes/3 HTTP/1.1\r\n\r\nGET /bytes/3000000 HTTP/1.1\r\nConnection: close\r\n\r\n",
            )
            .unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        assert!(all.starts_with(b"HTTP/1.1 200 OK\r\n"));
        assert!(all.ends_with(&body(3_000_000)[2_900_000..]));
    }

    #[test]
    fn tcp_answers_and_closes_or_goes_on() {
        let (backend, mut stream) = start(Service::Tcp);
        let mut question = [b'x'; 64];
        question[0] = b'C';
        stream.write_all(&question).unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        assert_eq!(all, question);

        let mut stream = StdStream::connect(("127.0.0.1", backend.ports()[0])).unwrap();
        for _ in 0..3 {
            stream.write_all(b"Echo").unwrap();
            let mut reply = [0; 4];
            stream.read_exact(&mut reply).unwrap();
            assert_eq!(&reply, b"Echo");
        }
    }
}
