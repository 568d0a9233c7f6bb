//! One amphora's VRRP: our daemon with a data plane that the test plays, or keepalived.

use std::{
    fs::{self, File, Permissions},
    io::{Read, Write},
    os::unix::{
        fs::PermissionsExt,
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};

use amphora_tests::kill_hard;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tempfile::TempDir;

use crate::lan::Host;

/// Which program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    Ours,
    Keepalived,
}

/// A running one. It ends with the value, and says what it logged when the test fails.
#[derive(Debug)]
pub(crate) struct Amphora {
    pub(crate) host: Host,
    program: Program,
    directory: TempDir,
    child: Option<Child>,
    data_plane: Option<DataPlane>,
}

impl Amphora {
    /// An amphora that runs nothing yet.
    pub(crate) fn new(host: Host, program: Program) -> Self {
        let directory = tempfile::tempdir().unwrap();
        // The check script's directory; root alone may write there, or keepalived does not run it.
        let scripts = directory.path().join("vrrp");
        fs::create_dir(&scripts).unwrap();
        let script = scripts.join("check_script.sh");
        fs::write(&script, "#!/bin/sh\nexit 0\n").unwrap();
        fs::set_permissions(&script, Permissions::from_mode(0o755)).unwrap();
        let data_plane =
            (program == Program::Ours).then(|| DataPlane::start(&directory.path().join("fitness")));
        Self { host, program, directory, child: None, data_plane }
    }

    /// Where Octavia's files are.
    pub(crate) fn base_path(&self) -> &Path {
        self.directory.path()
    }

    /// Starts the program with this configuration.
    pub(crate) fn start(&mut self, config: &str) {
        let file = self.directory.path().join("keepalived.conf");
        fs::write(&file, config).unwrap();
        let log = File::options().create(true).append(true).open(self.path("log")).unwrap();
        let mut command = match self.program {
            Program::Ours => {
                let mut command = Command::new(daemon());
                command.args(["--netns", self.host.namespace.name(), "--realtime-priority", "0"]);
                command.arg("--config").arg(&file);
                command.arg("--control-socket").arg(self.path("vrrp.sock"));
                command.arg("--fitness-socket").arg(self.path("fitness"));
                command
            }
            Program::Keepalived => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", self.host.namespace.name(), "keepalived"]);
                command.args(["--vrrp", "--dont-fork", "--log-console", "--no-syslog", "--log-detail"]);
                command.arg("-f").arg(&file);
                command.arg("-p").arg(self.path("pid")).arg("-r").arg(self.path("vrrp.pid"));
                command
            }
        };
        let child = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn();
        self.child = Some(child.unwrap_or_else(|error| panic!("{command:?}: {error}")));
    }

    /// Lets it read another configuration.
    pub(crate) fn reload(&mut self, config: &str) {
        fs::write(self.path("keepalived.conf"), config).unwrap();
        let child = self.child.as_ref().unwrap();
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGHUP).unwrap();
    }

    /// Whether the program has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        let ended = self.child.as_mut().is_none_or(|child| child.try_wait().unwrap().is_some());
        if ended {
            self.child = None;
        }
        ended
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Whether a file of its directory is there.
    pub(crate) fn path_exists(&self, name: &str) -> bool {
        self.path(name).exists()
    }

    /// The process id of the program.
    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// SIGTERM, and waits for the end.
    pub(crate) fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGTERM);
            let _ = child.wait();
        }
    }

    /// SIGKILL: no goodbye, and what it had stays.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // keepalived's child has the addresses. When its parent ends it says goodbye, and when it ends its parent starts
            // another: it stands still meanwhile.
            let protocol = fs::read_to_string(self.path("vrrp.pid")).ok();
            let protocol = protocol.and_then(|pid| pid.trim().parse().ok()).map(Pid::from_raw);
            if let Some(pid) = protocol {
                let _ = kill(pid, Signal::SIGSTOP);
            }
            kill_hard(child.id());
            if let Some(pid) = protocol {
                let _ = kill(pid, Signal::SIGKILL);
            }
            child.wait().unwrap();
        }
    }

    /// Whether the VIP is here.
    pub(crate) fn has_vip(&self) -> bool {
        self.host.has(crate::lan::VIP) && self.host.has(crate::lan::VIP6)
    }

    /// What the test's data plane says.
    pub(crate) fn data_plane(&self) -> &DataPlane {
        self.data_plane.as_ref().unwrap()
    }

    /// A request on our daemon's control socket: the body of its answer.
    pub(crate) fn control(&self, method: &str, path: &str) -> Value {
        let socket = self.path("vrrp.sock");
        let connect = || UnixStream::connect(&socket);
        let mut connected = connect();
        // A socket that is bound is there for a moment before anybody listens on it.
        for _ in 0..100 {
            match &connected {
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {}
                _ => break,
            }
            std::thread::sleep(Duration::from_millis(5));
            connected = connect();
        }
        let mut stream = connected.unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"))
    }
}

impl Drop for Amphora {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = fs::read_to_string(self.path("log")).unwrap_or_default();
            eprintln!("{:?} on {} logged:\n{log}", self.program, self.host.address);
            eprintln!("{}", self.host.table().join("\n"));
        }
    }
}

/// What a played data plane does with questions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Mood {
    Fit = 0,
    Hung = 1,
    Dead = 2,
}

/// A data plane that the test plays.
#[derive(Debug)]
pub(crate) struct DataPlane(Arc<AtomicU8>);

impl DataPlane {
    fn start(socket: &Path) -> Self {
        let mood = Arc::new(AtomicU8::new(Mood::Fit as u8));
        let listener = UnixListener::bind(socket).unwrap();
        let shared = mood.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (Ok(stream), shared) = (stream, shared.clone()) else { return };
                std::thread::spawn(move || answer(stream, &shared));
            }
        });
        Self(mood)
    }

    pub(crate) fn set(&self, mood: Mood) {
        self.0.store(mood as u8, Ordering::SeqCst);
    }
}

fn answer(mut stream: UnixStream, mood: &AtomicU8) {
    let mut octet = [0];
    stream.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    loop {
        if mood.load(Ordering::SeqCst) == Mood::Dead as u8 {
            return;
        }
        match stream.read(&mut octet) {
            Ok(0) => return,
            Ok(_) if mood.load(Ordering::SeqCst) == Mood::Fit as u8 => {
                if stream.write_all(b"+").is_err() {
                    return;
                }
            }
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

/// Waits until `met`, at most `patience`; says how long it took.
pub(crate) fn wait(what: &str, patience: Duration, mut met: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !met() {
        assert!(begun.elapsed() < patience, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
    begun.elapsed()
}

fn daemon() -> PathBuf {
    std::env::var_os("AMPHORA_VRRP_BIN").map_or_else(
        || {
            let test = std::env::current_exe().unwrap();
            test.parent().and_then(Path::parent).unwrap().join("amphora-vrrp")
        },
        PathBuf::from,
    )
}
