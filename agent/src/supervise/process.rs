//! One process that outlives the agent.
//!
//! A child is given a lock file as its standard input, to read: the kernel releases the lock when the last process that
//! has the file open ends, so a restarted agent knows for certain whether its predecessor's child still runs, even
//! when that hangs or was started a moment ago. The file's content, process id and start time, says which it is; the agent
//! alone can write it. A child that listens is known by its socket, of which the kernel says whose it is: nothing that the
//! child itself says is believed.

#![expect(
    clippy::disallowed_methods,
    reason = "a lock file on a tmpfs, which nobody else writes, and procfs"
)]

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use nix::sys::socket::{getsockopt, sockopt};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::{
    io::{Interest, unix::AsyncFd},
    net::UnixStream,
    process::Child,
    time::timeout,
};

/// How long a socket may take to be reached whose queue is full.
const REACH: Duration = Duration::from_secs(1);

/// How to start the process, and its lock.
#[derive(Debug)]
pub struct Command {
    program: PathBuf,
    arguments: Vec<OsString>,
    lock: PathBuf,
    log: Option<PathBuf>,
}

/// The right to start the process: nobody else runs it.
#[derive(Debug)]
pub struct Lock(File);

/// A process that runs, or ran until a moment ago.
#[derive(Debug)]
pub struct Process {
    pid: u32,
    /// Signals by this reach the process itself and never another that was given its number.
    handle: AsyncFd<OwnedFd>,
    child: Option<Child>,
}

impl Command {
    /// `program` with `arguments`; at most one runs per lock file.
    pub fn new(program: PathBuf, arguments: Vec<OsString>, lock: PathBuf) -> Self {
        Self { program, arguments, lock, log: None }
    }

    /// Appends its output to a file, in place of our own output.
    #[must_use]
    pub fn with_log(self, log: PathBuf) -> Self {
        Self { log: Some(log), ..self }
    }

    /// The program.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Takes the lock; `None` when the process runs.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn lock(&self) -> io::Result<Option<Lock>> {
        // To make it takes writing; the lock is held, and inherited, for reading alone.
        OpenOptions::new().append(true).create(true).mode(0o600).open(&self.lock)?;
        let file = File::open(&self.lock)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Lock(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Whether the process runs, or whoever is about to be it. Nothing is written, and the lock is free afterwards.
    ///
    /// # Errors
    /// It cannot be found out.
    pub fn runs(&self) -> io::Result<bool> {
        let file = match File::open(&self.lock) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(e),
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// The process that holds the lock; `None` when the file does not say yet, or no longer.
    ///
    /// # Errors
    /// When the process may not be touched.
    pub fn find(&self) -> io::Result<Option<Process>> {
        let text = fs::read_to_string(&self.lock)?;
        let Some((pid, started)) = text.trim().split_once(' ') else { return Ok(None) };
        let Ok(pid) = pid.parse() else { return Ok(None) };
        let process = Process::adopt(pid)?;
        Ok(process.filter(|_| start_time(pid).is_some_and(|now| now == started)))
    }

    /// Starts the process. It is a group of its own, so that a terminal's Ctrl-C reaches the agent alone, and it
    /// goes on when the agent dies.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&self, lock: Lock) -> io::Result<Process> {
        let Lock(file) = lock;
        let mut command = tokio::process::Command::new(&self.program);
        if let Some(path) = &self.log {
            let log = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
            command.stdout(log.try_clone()?).stderr(log);
        }
        let child = command
            .args(&self.arguments)
            .stdin(Stdio::from(file))
            .process_group(0)
            .kill_on_drop(false)
            .spawn()?;
        let pid = child.id().expect("it was not waited for yet");
        let process = Process { pid, handle: handle(pid)?, child: Some(child) };
        let started = start_time(pid).unwrap_or_default();
        fs::write(&self.lock, format!("{pid} {started}\n"))?;
        Ok(process)
    }
}

impl Process {
    /// A process that is not our child; `None` when there is none with this number.
    ///
    /// # Errors
    /// When it may not be watched.
    ///
    /// May be cancelled.
    pub fn adopt(pid: u32) -> io::Result<Option<Self>> {
        match handle(pid) {
            Ok(handle) => Ok(Some(Self { pid, handle, child: None })),
            Err(e) if e.raw_os_error() == Some(nix::libc::ESRCH) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The process that listens on a unix socket, by what the kernel knows of it; `None` when nobody does, or nobody can be
    /// reached.
    ///
    /// # Errors
    /// When it may not be watched.
    pub async fn listening_on(socket: &Path) -> io::Result<Option<Self>> {
        let Some(stream) = reach(socket).await else { return Ok(None) };
        let Some(pid) = peer(&stream) else { return Ok(None) };
        if let Ok(handle) = getsockopt(&stream, sockopt::PeerPidfd) {
            return Ok(Some(Self { pid, handle: watch(handle)?, child: None }));
        }
        // Kernels before 6.5. Who still listens under that number once it is held by a handle has had it all the time.
        let Some(process) = Self::adopt(pid)? else { return Ok(None) };
        let still = reach(socket).await.and_then(|stream| peer(&stream));
        Ok(Some(process).filter(|_| still == Some(pid)))
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits until it has ended; how, in words. May be cancelled, and called again.
    pub async fn wait(&mut self) -> String {
        if let Some(child) = &mut self.child {
            return match child.wait().await {
                Ok(status) => status.to_string(),
                Err(error) => error.to_string(),
            };
        }
        match self.handle.readable().await {
            Ok(_) => "it was not our child, so how is unknown".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// SIGKILL.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }

    /// SIGHUP: programs of an amphora read their files again.
    pub fn hang_up(&self) {
        self.signal(Signal::HUP);
    }

    fn signal(&self, signal: Signal) {
        match pidfd_send_signal(self.handle.get_ref(), signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => tracing::error!(pid = self.pid, ?signal, %error, "cannot send a signal"),
        }
    }
}

fn handle(pid: u32) -> io::Result<AsyncFd<OwnedFd>> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::from_raw_os_error(nix::libc::ESRCH))?;
    watch(pidfd_open(pid, PidfdFlags::NONBLOCK)?)
}

#[allow(
    deprecated,
    reason = "deprecated for what is not I/O-safe; an OwnedFd is, and the new name is unsafe"
)]
fn watch(handle: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(handle, Interest::READABLE)
}

async fn reach(socket: &Path) -> Option<UnixStream> {
    timeout(REACH, UnixStream::connect(socket)).await.ok()?.ok()
}

/// Who listens at the other end.
fn peer(stream: &UnixStream) -> Option<u32> {
    stream.peer_cred().ok()?.pid().and_then(|pid| u32::try_from(pid).ok())
}

/// `starttime` of proc_pid_stat(5), which with the process id names a process for good while the machine is up.
fn start_time(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the name in parentheses, which may hold anything; the 22nd is wanted.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(19).map(str::to_owned)
}
