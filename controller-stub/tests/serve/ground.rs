//! `serve` in a network namespace of its own, with a member and a client beside it.

use std::{
    env, fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sched::{CloneFlags, setns},
    sys::signal::{Signal, kill},
    unistd::{Pid, geteuid},
};
use rusqlite::Connection;
use tempfile::TempDir;

/// How long whatever is waited for may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// See [`Way::ip_may_hang`].
pub(crate) const HANGS: &str = "hangs";

/// A host of its own: a network namespace.
pub(crate) struct Host {
    name: String,
}

impl Host {
    /// `None`, said loudly, where that is not permitted.
    fn create() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if !geteuid().is_root() {
            eprintln!("SKIPPED: network namespaces take root");
            return None;
        }
        let name = format!("serve-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let made = Command::new("ip").args(["netns", "add", &name]).status();
        if !made.is_ok_and(|status| status.success()) {
            eprintln!("SKIPPED: no network namespaces here");
            return None;
        }
        let this = Self { name };
        this.inside(|| Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap());
        Some(this)
    }

    /// Does `work` on a thread that is inside.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            scope
                .spawn(|| {
                    let file = fs::File::open(Path::new("/run/netns").join(&self.name)).unwrap();
                    setns(file, CloneFlags::CLONE_NEWNET).unwrap();
                    work()
                })
                .join()
                .unwrap()
        })
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).status();
    }
}

/// What is special of a `serve`.
#[derive(Default)]
pub(crate) struct Way {
    /// Further lines of its configuration, which begin with a section.
    pub(crate) configuration: String,
    /// Its data directory is a disk of its own, of so many bytes.
    pub(crate) disk: Option<u64>,
    /// It may open so many files, and not raise that.
    pub(crate) files: Option<u64>,
    /// A library that is loaded before all others.
    pub(crate) preload: Option<String>,
    /// `ip` hangs while there is a file [`HANGS`] in its directory, and makes one `hung`.
    pub(crate) ip_may_hang: bool,
    /// Where the first one is to end.
    pub(crate) failpoint: Option<String>,
}

/// A running `serve`.
pub(crate) struct Serve {
    process: Child,
    pub(crate) dir: TempDir,
    pub(crate) host: Host,
    agent: PathBuf,
    way: Way,
}

impl Serve {
    /// Starts it; `None` where there are no namespaces or no programs.
    pub(crate) fn start() -> Option<Self> {
        Self::start_with("")
    }

    /// The same, with more in its configuration.
    pub(crate) fn start_with(configuration: &str) -> Option<Self> {
        Self::start_as(Way { configuration: configuration.to_owned(), ..Way::default() })
    }

    /// The same, in a special way.
    pub(crate) fn start_as(way: Way) -> Option<Self> {
        let this = Self::launch(way)?;
        this.eventually("the database", |this| this.file().exists().then_some(()));
        this.eventually("the log", |this| this.log().contains("serving").then_some(()));
        Some(this)
    }

    /// The same, and does not wait until it serves.
    pub(crate) fn launch(way: Way) -> Option<Self> {
        let controller = controller();
        let agent = env::var_os("AMPHORA_AGENT_BIN")
            .map_or_else(|| controller.with_file_name("amphora-agent"), PathBuf::from);
        if !agent.exists() {
            eprintln!("SKIPPED: amphora-agent is not built (cargo build --workspace)");
            return None;
        }
        let host = Host::create()?;
        let dir = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o711)).tempdir().unwrap();
        if let Some(bytes) = way.disk {
            let data = dir.path().join("data");
            fs::create_dir(&data).unwrap();
            let size = format!("size={bytes},mode=711");
            let mounted =
                Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&data).status();
            if !mounted.is_ok_and(|status| status.success()) {
                eprintln!("SKIPPED: nothing may be mounted here");
                return None;
            }
        }
        let process = launch(&host, dir.path(), &agent, &way);
        Some(Self { process, dir, host, agent, way })
    }

    /// From now on the host asks nobody again who has an address: whoever takes one over has to say so.
    pub(crate) fn neighbours_stay(&self) {
        self.host.inside(|| {
            let ip = |words: &str| Command::new("ip").args(words.split(' ')).output().unwrap().stdout;
            let bridges = String::from_utf8(ip("-o link show type bridge")).unwrap();
            for bridge in bridges.lines().filter_map(|line| line.split(": ").nth(1)) {
                ip(&format!("ntable change name arp_cache dev {bridge} base_reachable 3600000"));
            }
        });
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.process.try_wait().unwrap().is_some()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("serve.log")).unwrap_or_default()
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("data/serve.db")
    }

    /// The documents that agents have stored.
    pub(crate) fn stored_documents(&self) -> Vec<Vec<u8>> {
        let amphorae = fs::read_dir(self.dir.path().join("data/amphorae")).unwrap();
        let places = amphorae.flatten().map(|one| one.path().join("state/loadbalancer.json"));
        places.filter_map(|place| fs::read(place).ok()).collect()
    }

    /// The database, as another process sees it.
    pub(crate) fn db(&self) -> Connection {
        let connection = Connection::open(self.file()).unwrap();
        connection.busy_timeout(Duration::from_secs(10)).unwrap();
        connection.pragma_update(None, "foreign_keys", true).unwrap();
        connection
    }

    /// Lets it look at rows that it has not written itself.
    pub(crate) fn wake(&self) {
        self.signal(Signal::SIGHUP);
    }

    /// One that is not to start: what it says, once it has ended.
    pub(crate) fn refused(&self) -> String {
        fs::write(self.dir.path().join("serve.log"), "").unwrap();
        let mut process = launch(&self.host, self.dir.path(), &self.agent, &self.way);
        let ended = self.eventually("its end", |this| {
            if this.log().contains("serving") {
                let _ = process.kill();
            }
            process.try_wait().unwrap()
        });
        assert_eq!(ended.code(), Some(5), "{}", self.log());
        self.log()
    }

    /// The most of memory that it has had, in bytes.
    pub(crate) fn most_memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.process.id()).unwrap()), signal).unwrap();
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// What else its configuration says from the next start on.
    pub(crate) fn configure(&mut self, configuration: &str) {
        configuration.clone_into(&mut self.way.configuration);
    }

    /// The next one, with the same directory.
    pub(crate) fn restart(&mut self) {
        fs::write(self.dir.path().join("serve.log"), "").unwrap();
        self.way.failpoint = None;
        self.process = launch(&self.host, self.dir.path(), &self.agent, &self.way);
        self.eventually("the next start", |this| this.log().contains("serving").then_some(()));
    }

    /// SIGTERM, and the end.
    pub(crate) fn stop(&mut self) {
        self.signal(Signal::SIGTERM);
        assert!(self.process.wait().unwrap().success());
    }

    /// Waits until `found` finds something.
    pub(crate) fn eventually<T>(&self, what: &str, mut found: impl FnMut(&Self) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = found(self) {
                return found;
            }
            assert!(
                Instant::now() < deadline,
                "waited in vain for {what}; its log:\n{}\n{}",
                self.log(),
                self.agents()
            );
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// The ends of the logs of all amphorae.
    pub(crate) fn agents(&self) -> String {
        let mut text = String::new();
        for entry in fs::read_dir(self.dir.path().join("data/amphorae")).into_iter().flatten().flatten() {
            let log = fs::read_to_string(entry.path().join("log")).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(15).collect();
            text.push_str(&format!(
                "{}:\n{}\n",
                entry.path().display(),
                tail.into_iter().rev().collect::<Vec<_>>().join("\n")
            ));
        }
        text
    }

    /// Names of machines: namespaces and directories.
    pub(crate) fn machines(&self) -> Vec<String> {
        let dir = self.dir.path().join("data/amphorae");
        let instance = fs::read_to_string(dir.join("instance")).unwrap_or_default();
        let prefix = format!("amphora-{instance}-");
        let names = |path: &Path| -> Vec<String> {
            let entries = fs::read_dir(path).into_iter().flatten().flatten();
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
        };
        let mut found: Vec<String> = names(Path::new("/run/netns"))
            .into_iter()
            .filter_map(|name| Some(name.strip_prefix(&prefix)?.to_owned()))
            .collect();
        found.extend(names(&dir).into_iter().filter(|name| name != "instance"));
        found.sort();
        found.dedup();
        found
    }

    /// The ends of links that machines have on the host.
    pub(crate) fn links(&self) -> usize {
        let output = self
            .host
            .inside(|| Command::new("ip").args(["-o", "link", "show", "type", "veth"]).output().unwrap());
        String::from_utf8(output.stdout).unwrap().lines().count()
    }

    /// Processes that were started with something of this directory.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let dir = self.dir.path().join("data/amphorae").display().to_string();
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let belongs = |pid: &u32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(&dir)
        };
        numbers.filter(belongs).collect()
    }

    /// A member that answers `name` to every request.
    pub(crate) fn member(&self, address: &str, name: &'static str) {
        let listener = self.host.inside(|| TcpListener::bind(address).unwrap());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || answer(stream, name));
            }
        });
    }

    /// What a client on the host gets of a VIP: the body, when the status is 200.
    pub(crate) fn get(&self, address: &str) -> Option<String> {
        let address: SocketAddr = address.parse().unwrap();
        self.host.inside(|| {
            let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2)).ok()?;
            stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").ok()?;
            let mut text = String::new();
            stream.read_to_string(&mut text).ok()?;
            let (head, body) = text.split_once("\r\n\r\n")?;
            head.starts_with("HTTP/1.1 200").then(|| body.to_owned())
        })
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        // What a test that failed has left.
        for pid in self.processes() {
            let _ = kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGKILL);
        }
        let instance = fs::read_to_string(self.dir.path().join("data/amphorae/instance")).unwrap_or_default();
        for machine in self.machines() {
            let _ = Command::new("ip")
                .args(["netns", "delete", &format!("amphora-{instance}-{machine}")])
                .output();
        }
        if self.way.disk.is_some() {
            let _ = Command::new("umount").arg("--lazy").arg(self.dir.path().join("data")).status();
        }
    }
}

/// The program: that of this build, unless another is named.
fn controller() -> PathBuf {
    env::var_os("AMPHORA_CONTROLLER_BIN")
        .map_or_else(|| env!("CARGO_BIN_EXE_amphora-controller").into(), PathBuf::from)
}

fn launch(host: &Host, dir: &Path, agent: &Path, way: &Way) -> Child {
    let configuration = dir.join("serve.conf");
    let text = format!(
        "[DEFAULT]\ndebug = true\n[networks]\nlb = 10.250.0.0/24\n[compute]\nagent_cmd = {}\n{}\n",
        agent.display(),
        way.configuration
    );
    fs::write(&configuration, text).unwrap();
    let log = fs::File::options().create(true).append(true).open(dir.join("serve.log")).unwrap();
    host.inside(|| {
        let mut command = Command::new("sh");
        command.envs(way.failpoint.iter().map(|point| ("AMPHORA_FAILPOINT", point)));
        let (files, drop) = way.files.map_or_else(Default::default, |files| {
            let drop = "setpriv --bounding-set=-sys_resource --inh-caps=-sys_resource ";
            (format!("ulimit -n {files}; "), drop)
        });
        if way.ip_may_hang {
            command.env("PATH", ip_that_may_hang(dir));
        }
        if let Some(library) = &way.preload {
            let clock = dir.join("clock");
            fs::write(&clock, "+0").unwrap();
            command.env("LD_PRELOAD", library).env("FAKETIME_TIMESTAMP_FILE", clock);
            command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        }
        command
            .args(["-c", &format!("{files}exec {drop}\"$@\""), "sh"])
            .arg(controller())
            .args(["serve", "--config-file"])
            .arg(&configuration)
            .arg("--data-dir")
            .arg(dir.join("data"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap()
    })
}

/// Where programs are, with another `ip` before all others.
fn ip_that_may_hang(dir: &Path) -> String {
    let (bin, path) = (dir.join("bin"), env::var("PATH").unwrap());
    fs::create_dir_all(&bin).unwrap();
    let (place, ip) = (dir.display(), bin.join("ip"));
    let text = format!(
        "#!/bin/sh\nwhile [ -e {place}/{HANGS} ]; do touch {place}/hung; sleep 0.2; done\nexec env 'PATH={path}' ip \"$@\"\n"
    );
    fs::write(&ip, text).unwrap();
    fs::set_permissions(&ip, fs::Permissions::from_mode(0o755)).unwrap();
    format!("{}:{path}", bin.display())
}

/// Answers requests of a connection, which has each in one piece.
fn answer(mut stream: TcpStream, name: &str) {
    let mut head = [0; 4096];
    while stream.read(&mut head).is_ok_and(|length| length > 0) {
        let text = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len());
        if stream.write_all(text.as_bytes()).is_err() {
            return;
        }
    }
}
