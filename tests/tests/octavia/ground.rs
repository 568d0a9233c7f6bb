//! A machine for one amphora: its management network, the namespace of its data plane, and the network that its ports are in.

use std::{
    env,
    fs::{self, File},
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use amphora_tests::{Certificates, Message, Namespace, PATIENCE, read_message};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rustls::{ClientConfig, pki_types::ServerName, version::TLS13};
use tokio::{io::AsyncWriteExt, net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

/// The amphora of the recorded requests.
pub(crate) const AMPHORA: &str = "22222222-2222-4222-8222-222222222222";

/// The other one of a pair.
pub(crate) const OTHER: &str = "22222222-2222-4222-8222-222222222223";

/// Where its agent listens, in its own namespace.
const ADDRESS: &str = "127.0.0.1:9443";

/// How long an agent may take for a request, Octavia's own with its DHCP client included.
const ANSWER: Duration = Duration::from_secs(120);

/// How long an agent and what it supervises may take to end, before they are killed.
const END: Duration = Duration::from_secs(30);

/// Whom the proxy and the VRRP daemon run as: users that every Debian has, two as a package makes two.
const USERS: [&str; 2] = ["daemon", "games"];

#[derive(Debug)]
pub(crate) struct Ground {
    /// Where ports are plugged into, and clients and members are.
    pub(crate) lan: Namespace,
    /// Where the agent runs.
    pub(crate) management: Namespace,
    /// Where the agent plugs ports into.
    pub(crate) data_plane: Namespace,
    pub(crate) certificates: Certificates,
    /// Which amphora it is.
    pub(crate) id: &'static str,
    /// How long the agent took to answer when it was started last.
    pub(crate) ready_after: Option<Duration>,
    /// Where its disk is mounted, if it has one of its own.
    disk: Option<PathBuf>,
    program: PathBuf,
    agent: Option<Child>,
}

/// A program, by the variable that `./test` sets, or beside this test's.
fn program(variable: &str, name: &str) -> Option<PathBuf> {
    let beside = || {
        let test = env::current_exe().unwrap();
        test.parent().and_then(Path::parent).unwrap().join(name)
    };
    let path = env::var_os(variable).map_or_else(beside, PathBuf::from);
    if !path.exists() {
        eprintln!("SKIPPED: {} is not built (cargo build --workspace)", path.display());
        return None;
    }
    Some(path)
}

impl Ground {
    /// Starts an agent with this file of Octavia's, in which the amphora's directories are replaced by the test's. `None`, said
    /// loudly, when something is not there.
    pub(crate) async fn start(octavias: &str) -> Option<Self> {
        Self::start_as(AMPHORA, octavias).await
    }

    /// The same of another amphora.
    pub(crate) async fn start_as(id: &'static str, octavias: &str) -> Option<Self> {
        let mut this = Self::prepare(id, octavias)?;
        this.start_agent().await;
        Some(this)
    }

    /// The same of an amphora that has a disk of this many bytes for its state.
    pub(crate) async fn start_with_disk(octavias: &str, size: u32) -> Option<Self> {
        let mut this = Self::prepare(AMPHORA, octavias)?;
        let state = this.path("state");
        fs::create_dir(&state).unwrap();
        let options = format!("size={size},mode=755");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&state).status();
        assert!(mounted.unwrap().success(), "a file system of memory is mounted");
        this.disk = Some(state);
        this.start_agent().await;
        Some(this)
    }

    /// All but the agent.
    fn prepare(id: &'static str, octavias: &str) -> Option<Self> {
        let agent = program("AMPHORA_AGENT_BIN", "amphora-agent")?;
        let proxy = program("AMPHORA_PROXY_BIN", "amphora-proxy")?;
        let vrrp = program("AMPHORA_VRRP_BIN", "amphora-vrrp")?;
        if Command::new("nft").arg("--version").stdout(Stdio::null()).status().is_err() {
            eprintln!("SKIPPED: there is no nft (Debian: nftables)");
            return None;
        }
        let (lan, management, data_plane) =
            (Namespace::create()?, Namespace::create()?, Namespace::create()?);
        let certificates = Certificates::new();
        certificates.issue("agent", &[id]);
        certificates.issue("controller", &["controller"]);
        let this = Self {
            lan,
            management,
            data_plane,
            certificates,
            id,
            ready_after: None,
            disk: None,
            program: agent,
            agent: None,
        };
        fs::write(this.path("octavia.conf"), this.translated(octavias)).unwrap();
        let own = format!(
            "[amphora]\nrun_dir = {run}\nproxy_cmd = {proxy}\nvrrp_cmd = {vrrp}\nnetwork_namespace = {namespace}\n\
             proxy_workers = 2\ndrain_timeout = 1\nproxy_user = {}\nvrrp_user = {}\n",
            USERS[0],
            USERS[1],
            run = this.path("run").display(),
            proxy = proxy.display(),
            vrrp = vrrp.display(),
            namespace = this.data_plane.name(),
        );
        fs::write(this.path("own.conf"), own).unwrap();
        Some(this)
    }

    pub(crate) async fn start_agent(&mut self) {
        let log = File::options().create(true).append(true).open(self.path("log")).unwrap();
        let begun = Instant::now();
        let agent = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{}", self.management.name()))
            .arg(&self.program)
            .args(["--config-file".as_ref(), self.path("octavia.conf").as_os_str()])
            .args(["--config-file".as_ref(), self.path("own.conf").as_os_str()])
            .arg("--supervise")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.agent = Some(agent);
        self.client().answered().await;
        self.ready_after = Some(begun.elapsed());
    }

    /// SIGKILL for the agent; the programs that it supervises run on.
    pub(crate) fn kill_agent(&mut self) {
        let mut agent = self.agent.take().unwrap();
        agent.kill().unwrap();
        agent.wait().unwrap();
    }

    /// A text of Octavia's with the directories of this test.
    pub(crate) fn translated(&self, text: &str) -> String {
        text.replace("/etc/octavia/certs/client_ca.pem", &self.certificates.file("ca").display().to_string())
            .replace("/etc/octavia/certs/server.pem", &self.certificates.file("agent").display().to_string())
            .replace("/var/lib/octavia", &self.path("state").display().to_string())
            .replace(AMPHORA, self.id)
            .replace("bind_host = 0.0.0.0", "bind_host = 127.0.0.1")
            .replace("172.30.0.2:5555", "127.0.0.1:5555")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.certificates.path().join(name)
    }

    /// The machine loses power: all that runs on it ends at once.
    pub(crate) fn power_off(&mut self) {
        self.kill_agent();
        for pid in self.supervised() {
            kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        }
    }

    /// The proxy and the VRRP daemon, as far as they run.
    fn supervised(&self) -> Vec<i32> {
        let pids = Command::new("ip").args(["netns", "pids", self.data_plane.name()]).output().unwrap();
        let pids = String::from_utf8(pids.stdout).unwrap();
        pids.split_ascii_whitespace().map(|pid| pid.parse().unwrap()).collect()
    }

    /// All that runs on it.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let agent = self.agent.as_ref().map(|agent| i32::try_from(agent.id()).unwrap());
        agent.into_iter().chain(self.supervised()).collect()
    }

    /// Hot-plugs a network card with this MAC address into the machine; its other end is `name` in the network.
    pub(crate) fn hot_plug(&self, name: &str, mac: &str) {
        hot_plug(&self.management, &self.lan, name, mac);
    }

    pub(crate) fn client(&self) -> Client {
        Client::of(&self.management, self.id, &self.certificates)
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            // It stops what it supervises.
            let _ = kill(Pid::from_raw(i32::try_from(agent.id()).unwrap()), Signal::SIGTERM);
            let deadline = Instant::now() + END;
            while let Ok(None) = agent.try_wait() {
                if Instant::now() > deadline {
                    eprintln!("the agent does not end by SIGTERM: all of it is killed");
                    let _ = agent.kill();
                    let _ = agent.wait();
                    for pid in self.supervised() {
                        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                    }
                    break;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        if let Some(disk) = self.disk.take() {
            let _ = Command::new("umount").arg("--lazy").arg(disk).status();
        }
        if std::thread::panicking() {
            for (whose, name) in [("the agent's", "log"), ("the driver's", "driver.log")] {
                let log = fs::read_to_string(self.path(name)).unwrap_or_default();
                eprintln!("{whose} log:\n{log}");
            }
        }
    }
}

/// Hot-plugs a network card into a machine; its other end is `name` in the network.
pub(crate) fn hot_plug(machine: &Namespace, lan: &Namespace, name: &str, mac: &str) {
    let card = format!("n{name}");
    let end = ["peer", "name", name, "netns", lan.name()];
    machine.ip(&[&["link", "add", &card, "address", mac, "type", "veth"], &end[..]].concat());
    lan.ip(&["link", "set", name, "up"]);
}

/// A controller, in the management network.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    namespace: String,
    id: &'static str,
    config: Arc<ClientConfig>,
}

impl Client {
    /// Of the amphora with this id.
    pub(crate) fn of(management: &Namespace, id: &'static str, certificates: &Certificates) -> Self {
        let mut config = certificates.client_with(Some("controller"), &[&TLS13]);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self { namespace: management.name().to_owned(), id, config: config.into() }
    }

    /// One request on a connection of its own, and all that comes back. A body that is chunked comes in pieces of three bytes.
    pub(crate) async fn request(
        &self,
        method: &str,
        path: &str,
        content_type: Option<&str>,
        body: &[u8],
    ) -> io::Result<Message> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {AMPHORA}\r\n");
        if let Some(content_type) = content_type {
            head.push_str(&format!("Content-Type: {content_type}\r\n"));
        }
        if !body.is_empty() || matches!(method, "PUT" | "POST") {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        self.send([head.as_bytes(), body].concat(), method != "HEAD").await
    }

    /// Waits until the agent answers: asked each millisecond, for how long that takes is measured.
    pub(crate) async fn answered(&self) {
        let deadline = Instant::now() + PATIENCE;
        while self.request("GET", "/1.0/info", None, b"").await.is_err() {
            assert!(Instant::now() < deadline, "waited in vain: the agent answers");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// A body in chunks, sent once the server has said that it wants it.
    pub(crate) async fn chunked(&self, method: &str, path: &str, body: &[u8]) -> io::Result<Message> {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {AMPHORA}\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
        );
        let mut rest = Vec::new();
        for piece in body.chunks(3) {
            rest.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
            rest.extend_from_slice(piece);
            rest.extend_from_slice(b"\r\n");
        }
        rest.extend_from_slice(b"0\r\n\r\n");
        self.exchange(vec![head.into_bytes(), rest], true).await
    }

    async fn send(&self, request: Vec<u8>, has_body: bool) -> io::Result<Message> {
        self.exchange(vec![request], has_body).await
    }

    /// Sends the parts, each after the first once a 1xx has come.
    async fn exchange(&self, parts: Vec<Vec<u8>>, has_body: bool) -> io::Result<Message> {
        let (namespace, id, config) = (self.namespace.clone(), self.id, self.config.clone());
        let work = move || async move {
            let address: SocketAddr = ADDRESS.parse().unwrap();
            let stream = TcpStream::connect(address).await?;
            // As Python's client has it: else a request waits for the delayed acknowledgement of the handshake's end.
            stream.set_nodelay(true)?;
            let name = ServerName::try_from(id).unwrap();
            let mut stream = TlsConnector::from(config).connect(name, stream).await?;
            let mut buffer = Vec::new();
            let mut answer = Message::default();
            for (number, part) in parts.iter().enumerate() {
                stream.write_all(part).await?;
                let last = number + 1 == parts.len();
                if has_body {
                    let read = read_message(&mut stream, &mut buffer, last).await?;
                    answer = read.ok_or(io::ErrorKind::UnexpectedEof)?;
                } else {
                    tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut buffer).await?;
                    answer.head = String::from_utf8_lossy(&buffer).into_owned();
                }
                if !last && answer.status() != 100 {
                    return Err(io::Error::other(format!("no 100: {}", answer.head)));
                }
            }
            Ok(answer)
        };
        let answered = timeout(ANSWER, amphora_tests::in_namespace(&namespace, work)).await;
        answered.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "the agent does not answer")))
    }
}
