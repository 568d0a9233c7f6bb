//! A machine with nothing left: each core has more to do than it can.

use std::{
    fs,
    hint::spin_loop,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
};

use tokio::task::{LocalSet, spawn_local};

use super::Pair;
use crate::Client;

/// Connections that ask without a pause.
const CLIENTS: usize = 32;

/// Busy loops, two a core, and clients that ask the VIP of each pair as fast as it answers; until dropped.
#[derive(Debug)]
pub struct Busy {
    stop: Arc<AtomicBool>,
    answers: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
    before: Times,
}

impl Busy {
    /// Begins.
    pub fn start(pairs: &[Pair]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let answers = Arc::new(AtomicU64::new(0));
        let cores = thread::available_parallelism().unwrap().get();
        let threads = (0..2 * cores).map(|_| {
            let stop = stop.clone();
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    spin_loop();
                }
            })
        });
        let threads = threads.collect();
        for pair in pairs {
            let (stop, answers, vip) = (stop.clone(), answers.clone(), pair.vip());
            drop(pair.client().spawn(move || ask(vip, stop, answers)));
        }
        Self { stop, answers, threads, before: Times::now() }
    }

    /// Requests that were answered with 200.
    pub fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    /// The share of all cores' time that nobody has wanted, 0 to 1.
    pub fn idle(&self) -> f64 {
        let now = Times::now();
        (now.idle - self.before.idle) / (now.all - self.before.all).max(1.0)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

async fn ask(vip: SocketAddr, stop: Arc<AtomicBool>, answers: Arc<AtomicU64>) {
    let clients = async {
        let asking = (0..CLIENTS).map(|_| {
            let (stop, answers) = (stop.clone(), answers.clone());
            spawn_local(async move {
                while !stop.load(Ordering::Relaxed) {
                    let Ok(mut client) = Client::try_connect(vip).await else { continue };
                    while !stop.load(Ordering::Relaxed) {
                        match client.try_get("/", "").await {
                            Ok(answer) if answer.status() == 200 => answers.fetch_add(1, Ordering::Relaxed),
                            _ => break,
                        };
                    }
                }
            })
        });
        for client in asking.collect::<Vec<_>>() {
            let _ = client.await;
        }
    };
    LocalSet::new().run_until(clients).await;
}

/// What the kernel has counted of all cores, in ticks (proc_stat(5)).
#[derive(Clone, Copy, Debug)]
struct Times {
    idle: f64,
    all: f64,
}

impl Times {
    fn now() -> Self {
        let text = fs::read_to_string("/proc/stat").unwrap();
        let line = text.lines().next().unwrap();
        let ticks: Vec<f64> = line.split_whitespace().skip(1).map(|field| field.parse().unwrap()).collect();
        // idle and iowait; guest times are in user's.
        Self { idle: ticks[3] + ticks[4], all: ticks.iter().take(8).sum() }
    }
}
