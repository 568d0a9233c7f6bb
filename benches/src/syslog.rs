//! A syslog daemon that counts lines and forgets them.

use std::{
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::Duration,
};

use crate::{Result, process};

/// How often the reader looks whether it is to end.
const TICK: Duration = Duration::from_millis(100);

/// A daemon that reads. Dropping it ends it.
#[derive(Debug)]
pub struct Syslog {
    path: PathBuf,
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct State {
    lines: AtomicU64,
    last: Mutex<Vec<u8>>,
    ended: AtomicBool,
}

impl Syslog {
    /// Reads from a socket at `path`, on `core`.
    ///
    /// # Errors
    /// When there can be no socket.
    pub fn start(path: &Path, core: usize) -> Result<Self> {
        let socket = UnixDatagram::bind(path)?;
        socket.set_read_timeout(Some(TICK))?;
        let state = Arc::new(State::default());
        let for_thread = state.clone();
        let thread = std::thread::Builder::new().name("syslog".into()).spawn(move || {
            process::pin(core).expect("the core was checked by the caller");
            // Few lines wait for a reader (net.unix.max_dgram_qlen), and what finds no room is lost: it reads before anything
            // else of this core, where that may be had.
            let thread = nix::unistd::gettid().to_string();
            let _ = Command::new("chrt").args(["--fifo", "--pid", "1", &thread]).output();
            let mut line = [0; 4096];
            while !for_thread.ended.load(Relaxed) {
                if let Ok(n) = socket.recv(&mut line)
                    && for_thread.lines.fetch_add(1, Relaxed) % 4096 == 0
                    && let Ok(mut last) = for_thread.last.lock()
                {
                    *last = line[..n].to_vec();
                }
            }
        })?;
        Ok(Self { path: path.to_owned(), state, thread: Some(thread) })
    }

    /// Where it reads.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many lines it has read.
    pub fn lines(&self) -> u64 {
        self.state.lines.load(Relaxed)
    }

    /// One of the lines.
    pub fn sample(&self) -> String {
        let last = self.state.last.lock().map(|line| line.clone()).unwrap_or_default();
        String::from_utf8_lossy(&last).into_owned()
    }
}

impl Drop for Syslog {
    fn drop(&mut self) {
        self.state.ended.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
