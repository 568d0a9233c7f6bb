//! Servers inside the test, each with its script, its counts, and what it was asked.

use std::{
    future::Future,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::{JoinHandle, JoinSet},
};

use crate::{
    Message, Pattern, loopback,
    message::{read_body, read_head},
};

/// What a backend does about one request.
pub type Reply = Vec<Step>;

/// A step of a [`Reply`].
#[derive(Clone, Debug)]
pub enum Step {
    /// Read the request's body and record the request. Happens at the end if it did not before.
    ReadBody,
    /// Send these bytes.
    Send(Vec<u8>),
    /// Send so many bytes of the [`Pattern`].
    SendPattern(u64),
    /// Read so many bytes of the [`Pattern`] and fail the connection if they differ.
    ReadPattern(u64),
    /// Do nothing for so long.
    Pause(Duration),
    /// Do nothing until the test calls [`Backend::proceed`].
    Wait,
    /// Send back whatever comes, until it ends.
    Echo,
    /// Close the connection.
    Close,
    /// Reset the connection.
    Reset,
}

impl Step {
    /// A whole response with status 200 to a request that is read first.
    pub fn ok(body: &str) -> Reply {
        vec![Self::ReadBody, Self::response("200 OK", "", body)]
    }

    /// A response with a body of known length and these header lines (each ends with CR LF).
    pub fn response(status: &str, lines: &str, body: &str) -> Self {
        let length = body.len();
        Self::send(format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{lines}\r\n{body}"))
    }

    /// These bytes.
    pub fn send(bytes: impl AsRef<[u8]>) -> Self {
        Self::Send(bytes.as_ref().to_vec())
    }
}

/// A server inside the test. Dropping it closes everything that it has.
#[derive(Debug)]
pub struct Backend {
    /// Its name; what it answers unless its script says otherwise.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    connections: AtomicUsize,
    open: AtomicUsize,
    started: AtomicUsize,
    requests: Mutex<Vec<Message>>,
    proceed: Notify,
}

/// Keeps a connection in the count while it is open.
struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Sends back what comes, and closes after the client has: what [`Backend::tcp`] may run.
pub async fn echo(mut stream: TcpStream) {
    let (mut read, mut write) = stream.split();
    let _ = tokio::io::copy(&mut read, &mut write).await;
    let _ = write.shutdown().await;
}

impl Backend {
    /// Answers 200 with its name.
    pub async fn named(name: &str) -> Self {
        let body = name.to_owned();
        Self::http(name, move |_| Step::ok(&body)).await
    }

    /// Answers each request, whose head alone has been read, as `script` says.
    pub async fn http(name: &str, script: impl Fn(&Message) -> Reply + Send + Sync + 'static) -> Self {
        Self::http_at(SocketAddr::new(loopback(), 0), name, script).await
    }

    /// As [`http`](Self::http), at this address.
    pub async fn http_at(
        address: SocketAddr,
        name: &str,
        script: impl Fn(&Message) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let mut backend = Self::unstarted(name);
        let shared = Arc::clone(&backend.shared);
        let script = Arc::new(script);
        backend
            .listen(address, move |stream| {
                let (shared, script) = (Arc::clone(&shared), Arc::clone(&script));
                async move {
                    let _ = serve(stream, &shared, &*script).await;
                }
            })
            .await;
        backend
    }

    /// Does with each connection what `script` says.
    pub async fn tcp<F>(name: &str, script: impl Fn(TcpStream) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::tcp_at(SocketAddr::new(loopback(), 0), name, script).await
    }

    /// As [`tcp`](Self::tcp), at this address.
    pub async fn tcp_at<F>(
        address: SocketAddr,
        name: &str,
        script: impl Fn(TcpStream) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut backend = Self::unstarted(name);
        backend.listen(address, script).await;
        backend
    }

    fn unstarted(name: &str) -> Self {
        let address = SocketAddr::new(loopback(), 0);
        Self { name: name.to_owned(), address, shared: Arc::default(), accepting: None }
    }

    async fn listen<F>(
        &mut self,
        address: SocketAddr,
        script: impl Fn(TcpStream) -> F + Send + Sync + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind(address).await.unwrap();
        self.address = listener.local_addr().unwrap();
        let shared = Arc::clone(&self.shared);
        self.accepting = Some(tokio::spawn(async move {
            // Aborted with this task, when the backend is dropped.
            let mut connections = JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                while connections.try_join_next().is_some() {}
                let _ = stream.set_nodelay(true);
                shared.connections.fetch_add(1, Ordering::SeqCst);
                shared.open.fetch_add(1, Ordering::SeqCst);
                let open = Open(Arc::clone(&shared));
                let served = script(stream);
                connections.spawn(async move {
                    let _open = open;
                    served.await;
                });
            }
        }));
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Connections that are open.
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// Requests whose head has come, so far.
    pub fn started(&self) -> usize {
        self.shared.started.load(Ordering::SeqCst)
    }

    /// Requests that have come whole, so far.
    pub fn served(&self) -> usize {
        self.shared.requests.lock().unwrap().len()
    }

    /// The requests that have come whole.
    pub fn requests(&self) -> Vec<Message> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// The request that came last.
    pub fn last_request(&self) -> Message {
        self.requests().pop().expect("a request")
    }

    /// Ends one [`Step::Wait`], now or when it comes.
    pub fn proceed(&self) {
        self.shared.proceed.notify_one();
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
        }
    }
}

async fn serve(
    mut stream: TcpStream,
    shared: &Shared,
    script: &(impl Fn(&Message) -> Reply + ?Sized),
) -> std::io::Result<()> {
    let mut buffer = Vec::new();
    while let Some(mut request) = read_head(&mut stream, &mut buffer).await? {
        shared.started.fetch_add(1, Ordering::SeqCst);
        let mut recorded = false;
        for step in script(&request) {
            match step {
                Step::ReadBody => {
                    read_body(&mut request, &mut stream, &mut buffer, false).await?;
                    shared.requests.lock().unwrap().push(request.clone());
                    recorded = true;
                }
                Step::Send(bytes) => stream.write_all(&bytes).await?,
                Step::SendPattern(length) => Pattern::default().send(length, &mut stream).await?,
                Step::ReadPattern(length) => {
                    read_pattern(length, &mut stream, &mut buffer).await?;
                    shared.requests.lock().unwrap().push(request.clone());
                    recorded = true;
                }
                Step::Pause(time) => tokio::time::sleep(time).await,
                Step::Wait => tokio::select! {
                    () = shared.proceed.notified() => {}
                    () = gone(&stream) => return Ok(()),
                },
                Step::Echo => {
                    stream.write_all(&std::mem::take(&mut buffer)).await?;
                    let (mut read, mut write) = stream.split();
                    tokio::io::copy(&mut read, &mut write).await?;
                    return write.shutdown().await;
                }
                Step::Close => return Ok(()),
                Step::Reset => return socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)),
            }
        }
        if !recorded {
            read_body(&mut request, &mut stream, &mut buffer, false).await?;
            shared.requests.lock().unwrap().push(request);
        }
    }
    Ok(())
}

/// Waits until the peer has closed, without reading what it sent.
async fn gone(stream: &TcpStream) {
    while !stream.ready(Interest::READABLE).await.is_ok_and(|ready| ready.is_read_closed()) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn read_pattern(length: u64, stream: &mut TcpStream, buffer: &mut Vec<u8>) -> std::io::Result<()> {
    let mut pattern = Pattern::default();
    pattern.expect(buffer);
    buffer.clear();
    let mut chunk = vec![0; 64 * 1024];
    while pattern.offset() < length {
        let n = stream.read(&mut chunk).await?;
        if n == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        pattern.expect(&chunk[..n]);
    }
    Ok(())
}
