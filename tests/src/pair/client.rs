//! A client that asks at a rate whatever becomes of its requests, so that an outage costs it no more than its length.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
    task::LocalSet,
};

use crate::Namespace;

/// After this a request is lost. Longer than the first retransmission of a SYN, which is no loss but a delay.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What a client saw.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// The longest time without an answer.
    pub outage: Duration,
    /// The longest that an answer took.
    pub slowest: Duration,
    /// Requests without an answer.
    pub lost: usize,
    /// All of them.
    pub requests: usize,
}

/// A client in a namespace.
#[derive(Debug)]
pub struct Client {
    shared: Arc<Shared>,
    ended: oneshot::Receiver<()>,
}

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    asked: AtomicUsize,
    lost: AtomicUsize,
    answered: Mutex<Vec<Instant>>,
    slowest: Mutex<Duration>,
}

impl Client {
    /// Asks so many times a second, on a connection each, until [`finish`](Self::finish).
    pub fn start(namespace: &Namespace, vip: SocketAddr, rate: u32) -> Self {
        let shared = Arc::new(Shared::default());
        let ours = shared.clone();
        let ended = namespace.spawn(move || async move {
            LocalSet::new().run_until(ask(ours, vip, rate)).await;
        });
        Self { shared, ended }
    }

    /// Waits for so many more answers.
    pub fn more(&self, answers: usize, patience: Duration) {
        let goal = self.shared.answered.lock().unwrap().len() + answers;
        let begun = Instant::now();
        while self.shared.answered.lock().unwrap().len() < goal {
            assert!(begun.elapsed() < patience, "the VIP is not served");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Asks no more, waits for what is under way, and says what there was.
    pub fn finish(self) -> Run {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.ended.blocking_recv().unwrap();
        let answered = self.shared.answered.lock().unwrap();
        let outage = answered.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default();
        Run {
            outage,
            slowest: *self.shared.slowest.lock().unwrap(),
            lost: self.shared.lost.load(Ordering::Relaxed),
            requests: self.shared.asked.load(Ordering::Relaxed),
        }
    }
}

async fn ask(shared: Arc<Shared>, vip: SocketAddr, rate: u32) {
    let mut tick = tokio::time::interval(Duration::from_secs(1) / rate);
    let mut requests = tokio::task::JoinSet::new();
    while !shared.stop.load(Ordering::Relaxed) {
        tick.tick().await;
        shared.asked.fetch_add(1, Ordering::Relaxed);
        let shared = shared.clone();
        requests.spawn_local(async move {
            let begun = Instant::now();
            match tokio::time::timeout(TIMEOUT, request(vip)).await {
                Ok(Ok(())) => {
                    shared.answered.lock().unwrap().push(Instant::now());
                    let mut slowest = shared.slowest.lock().unwrap();
                    *slowest = slowest.max(begun.elapsed());
                }
                _ => {
                    shared.lost.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        while requests.try_join_next().is_some() {}
    }
    while requests.join_next().await.is_some() {}
}

async fn request(vip: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(vip).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: vip\r\nConnection: close\r\n\r\n").await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    if answer.starts_with(b"HTTP/1.1 200 ") { Ok(()) } else { Err(std::io::ErrorKind::InvalidData.into()) }
}
