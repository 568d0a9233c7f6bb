//! The two amphorae: agents outside of the namespaces, and inside what they supervise.

use std::{
    env, fmt,
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use amphora_ipc::proxy::{Info, Peers};
use amphora_tests::{Document, eventually, free_port, loopback, read_message};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpStream, UnixStream},
};

use crate::network::{AMPHORAE, Network, VIP};

const IDS: [&str; 2] = ["3c63f388-da4f-44a3-982d-45d8e243d501", "3c63f388-da4f-44a3-982d-45d8e243d502"];

/// Whom the proxy and the VRRP daemon run as: users that every Debian has, two as a package makes two.
const USERS: [&str; 2] = ["daemon", "games"];

/// Both, and who drives them.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) amphorae: [Amphora; 2],
    controller: PathBuf,
    directory: TempDir,
}

/// An agent, and what it supervises.
#[derive(Debug)]
pub(crate) struct Amphora {
    program: PathBuf,
    directory: PathBuf,
    rest: SocketAddr,
    agent: Child,
}

/// What the controller's program said.
pub(crate) struct Said(Output);

impl Said {
    pub(crate) fn success(&self) -> bool {
        self.0.status.success()
    }

    pub(crate) fn code(&self) -> Option<i32> {
        self.0.status.code()
    }

    /// On both outputs.
    pub(crate) fn text(&self) -> String {
        [&self.0.stdout, &self.0.stderr].map(|bytes| String::from_utf8_lossy(bytes)).concat()
    }
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

impl Pair {
    /// Starts both and waits until they answer; `None`, said loudly, when a program is not there.
    pub(crate) async fn start(network: &Network) -> Option<Self> {
        let agent = program("AMPHORA_AGENT_BIN", "amphora-agent")?;
        let controller = program("AMPHORA_CONTROLLER_BIN", "amphora-controller")?;
        let proxy = program("AMPHORA_PROXY_BIN", "amphora-proxy")?;
        let vrrp = program("AMPHORA_VRRP_BIN", "amphora-vrrp")?;
        let directory = amphora_tests::shared_directory();
        let root = directory.path().display();
        let made = Command::new(&controller)
            .args(["certs", "init", &format!("{root}/certs"), "--amphora-id", IDS[0], "--amphora-id", IDS[1]])
            .stdout(Stdio::null())
            .status();
        assert!(made.unwrap().success(), "certificates cannot be made");
        let amphorae = [0, 1].map(|n| {
            let (id, address) = (IDS[n], loopback());
            let rest = SocketAddr::new(address, free_port(address));
            let own = directory.path().join(n.to_string());
            fs::create_dir(&own).unwrap();
            let text = format!(
                "[haproxy_amphora]\nbase_path = {own}/state\nbind_host = {address}\nbind_port = {port}\n\
                 [amphora_agent]\namphora_id = {id}\nagent_server_ca = {root}/certs/ca.pem\n\
                 agent_server_cert = {root}/certs/server-{id}.pem\n\
                 [controller_worker]\nloadbalancer_topology = ACTIVE_STANDBY\n\
                 [DEFAULT]\ndebug = true\n\
                 [amphora]\nrun_dir = {own}/run\nproxy_cmd = {proxy}\nvrrp_cmd = {vrrp}\n\
                 network_namespace = {namespace}\nproxy_workers = 2\ndrain_timeout = 1\n\
                 proxy_user = {}\nvrrp_user = {}\n",
                USERS[0],
                USERS[1],
                own = own.display(),
                port = rest.port(),
                proxy = proxy.display(),
                vrrp = vrrp.display(),
                namespace = network.amphorae[n].name(),
            );
            fs::write(own.join("agent.conf"), text).unwrap();
            Amphora { agent: spawn(&agent, &own), program: agent.clone(), directory: own, rest }
        });
        for amphora in &amphorae {
            amphora.answers().await;
        }
        Some(Self { amphorae, controller, directory })
    }

    /// Runs the controller's program against both.
    pub(crate) fn controller(&self, arguments: &[&str]) -> Said {
        let mut command = Command::new(&self.controller);
        command.args(arguments).arg("--certs").arg(self.directory.path().join("certs"));
        for (amphora, id) in self.amphorae.iter().zip(IDS) {
            command.args(["--amphora", &format!("https://{id}@{}", amphora.rest)]);
        }
        Said(command.stdin(Stdio::null()).output().unwrap())
    }

    pub(crate) fn apply(&self, document: &Document) {
        let said = self.controller(&["apply", &self.write("lb.json", &document.to_json())]);
        assert!(said.success(), "{}", said.text());
    }

    /// `vrrp pair` with a document of one instance that has these fields as well.
    pub(crate) fn configure(&self, fields: Value, more: &[&str]) {
        let said = self.try_configure(fields, more);
        assert!(said.success(), "{}", said.text());
    }

    pub(crate) fn try_configure(&self, fields: Value, more: &[&str]) -> Said {
        let mut instance = json!({
            "name": "lb", "interface": "eth1", "vrid": 1, "interval_ms": 300, "unicast": {"peers": AMPHORAE},
            "addresses": [{"address": format!("{VIP}/32")}], "track": {"fall": 2, "rise": 2},
        });
        instance.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let file = self.write("pair.json", &json!({ "instances": [instance] }));
        self.controller(&[&["vrrp", "pair", &file][..], more].concat())
    }

    fn write(&self, name: &str, document: &Value) -> String {
        let file = self.directory.path().join(name);
        fs::write(&file, document.to_string()).unwrap();
        file.display().to_string()
    }

    /// Waits until this one is master and the other backup.
    pub(crate) async fn until_master(&self, amphora: usize) {
        eventually("the address is where it should be", async || {
            let states = [self.amphorae[amphora].vrrp().await?, self.amphorae[1 - amphora].vrrp().await?];
            (states[0] == "MASTER" && states[1] != "MASTER").then_some(())
        })
        .await;
    }

    /// Waits until the first has told this many entries, and the second has heard all that it told.
    pub(crate) async fn until_same_entries(&self, entries: u64) {
        eventually("all is told", async || {
            let told = self.amphorae[0].peers().await?.entries_sent;
            let heard = self.amphorae[1].peers().await?.entries_received;
            (told >= entries && told == heard).then_some(())
        })
        .await;
    }

    /// The key is in one file on each side, for one user's eyes, and in nothing that is told or logged.
    pub(crate) async fn keys_are_secret(&self) {
        let read = |amphora: &Amphora| {
            let text = fs::read_to_string(amphora.file("state/peers.json")).unwrap();
            serde_json::from_str::<Value>(&text).unwrap()["peers"]["key"].as_str().unwrap().to_owned()
        };
        let key = read(&self.amphorae[0]);
        assert_eq!(key, read(&self.amphorae[1]));
        let mut told = vec![self.controller(&["status", "--json"]).text()];
        for amphora in &self.amphorae {
            told.push(amphora.log());
            told.push(amphora.metrics().await);
            told.push(String::from_utf8(amphora.get("proxy", "/peers").await.unwrap()).unwrap());
        }
        assert!(told.iter().all(|text| !text.is_empty() && !text.contains(&key)), "{told:?}");
    }
}

impl Amphora {
    /// Asks the agent to end, with all that it supervises, and starts it again.
    pub(crate) async fn restart(&mut self, signal: Signal) {
        self.stop(signal);
        self.agent = spawn(&self.program, &self.directory);
        self.answers().await;
    }

    fn stop(&mut self, signal: Signal) {
        let _ = kill(Pid::from_raw(i32::try_from(self.agent.id()).unwrap()), signal);
        let _ = self.agent.wait();
    }

    async fn answers(&self) {
        eventually("the agent listens", async || TcpStream::connect(self.rest).await.ok()).await;
        eventually("the proxy answers", async || self.info().await).await;
        eventually("the VRRP daemon answers", async || self.get("vrrp", "/status").await).await;
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.file("log")).unwrap_or_default()
    }

    /// The proxy, if it answers.
    pub(crate) async fn info(&self) -> Option<Info> {
        serde_json::from_slice(&self.get("proxy", "/info").await?).ok()
    }

    /// What the kernel says of the process that listens on a program's control socket (proc_pid_status(5)).
    pub(crate) async fn kernel_status(&self, program: &str) -> String {
        let socket = self.file("run").join(format!("{program}.sock"));
        let stream = UnixStream::connect(socket).await.unwrap();
        let pid = stream.peer_cred().unwrap().pid().unwrap();
        fs::read_to_string(format!("/proc/{pid}/status")).unwrap()
    }

    /// How the proxy stands with the other one, if it answers.
    pub(crate) async fn peers(&self) -> Option<Peers> {
        serde_json::from_slice(&self.get("proxy", "/peers").await?).ok()
    }

    pub(crate) async fn metrics(&self) -> String {
        String::from_utf8(self.get("proxy", "/metrics").await.unwrap()).unwrap()
    }

    pub(crate) async fn until_peers(&self, what: &str, met: impl Fn(&Peers) -> bool) -> Peers {
        eventually(what, async || self.peers().await.filter(&met)).await
    }

    /// The state of its virtual router, if the daemon answers.
    async fn vrrp(&self) -> Option<String> {
        let status: Value = serde_json::from_slice(&self.get("vrrp", "/status").await?).ok()?;
        status["instances"][0]["state"].as_str().map(str::to_owned)
    }

    async fn get(&self, socket: &str, path: &str) -> Option<Vec<u8>> {
        let mut stream = UnixStream::connect(self.file("run").join(format!("{socket}.sock"))).await.ok()?;
        let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.ok()?;
        Some(read_message(&mut stream, &mut Vec::new(), true).await.ok()??.body)
    }
}

impl Drop for Amphora {
    fn drop(&mut self) {
        // The agent stops what it supervises.
        self.stop(Signal::SIGTERM);
        if std::thread::panicking() {
            eprintln!("the log of {}:\n{}", self.rest, self.log());
        }
    }
}

impl fmt::Debug for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

fn spawn(program: &Path, directory: &Path) -> Child {
    let log = File::options().create(true).append(true).open(directory.join("log")).unwrap();
    Command::new(program)
        .arg("--config-file")
        .arg(directory.join("agent.conf"))
        .arg("--supervise")
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}
