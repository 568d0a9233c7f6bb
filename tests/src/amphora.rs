//! A whole amphora: agent and proxy as an operator starts them, driven by the controller's program.

use std::{
    env,
    fs::{self, File},
    io::Write,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use amphora_ipc::proxy::{Info, Stats};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::{NamedTempFile, TempDir};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpStream, UnixStream},
};

use crate::{Document, eventually, free_port, loopback, message::read_message, process};

const ID: &str = "3c63f388-da4f-44a3-982d-45d8e243d502";

/// An agent that supervises a proxy, and what they leave on disk.
#[derive(Debug)]
pub struct Amphora {
    programs: Programs,
    directory: TempDir,
    address: IpAddr,
    port: u16,
    agent: Child,
}

/// The programs that the tests of a whole amphora need.
#[derive(Debug)]
struct Programs {
    agent: PathBuf,
    controller: PathBuf,
    proxy: PathBuf,
}

impl Programs {
    /// `None`, said loudly, when the agent or the controller was not built.
    fn find() -> Option<Self> {
        let proxy = process::proxy_program().clone();
        let program = |variable, name| {
            let path = env::var_os(variable).map_or_else(|| proxy.with_file_name(name), PathBuf::from);
            path.exists().then_some(path)
        };
        let found = program("AMPHORA_AGENT_BIN", "amphora-agent")
            .zip(program("AMPHORA_CONTROLLER_BIN", "amphora-controller"));
        let Some((agent, controller)) = found else {
            eprintln!(
                "SKIPPED: amphora-agent and amphora-controller are not built (cargo build --workspace)"
            );
            return None;
        };
        Some(Self { agent, controller, proxy })
    }
}

impl Amphora {
    /// Starts one and waits until it answers; `None` when its programs are not there.
    pub async fn start() -> Option<Self> {
        Self::start_with("").await
    }

    /// The same with these lines in the section `[amphora]` of the agent's configuration.
    pub async fn start_with(options: &str) -> Option<Self> {
        let programs = tokio::task::spawn_blocking(Programs::find).await.unwrap()?;
        let directory = process::shared_directory();
        let address = loopback();
        let port = free_port(address);
        let root = directory.path().display();
        fs::write(
            directory.path().join("agent.conf"),
            format!(
                "[haproxy_amphora]\nbase_path = {root}/state\nbind_host = {address}\nbind_port = {port}\n\
                 [amphora_agent]\namphora_id = {ID}\nagent_server_ca = {root}/certs/ca.pem\n\
                 agent_server_cert = {root}/certs/server-{ID}.pem\n\
                 [amphora]\nrun_dir = {root}/run\nproxy_cmd = {}\nproxy_workers = 2\ndrain_timeout = 2\n{options}",
                programs.proxy.display()
            ),
        )
        .unwrap();
        let certificates = directory.path().join("certs").display().to_string();
        let made = Command::new(&programs.controller)
            .args(["certs", "init", &certificates, "--amphora-id", ID])
            .stdout(Stdio::null())
            .status();
        assert!(made.unwrap().success(), "certificates cannot be made");
        let agent = spawn_agent(&programs, &directory);
        let amphora = Self { programs, directory, address, port, agent };
        amphora.answers().await;
        Some(amphora)
    }

    /// Starts the agent again, after it was killed.
    pub async fn start_agent(&mut self) {
        self.agent = spawn_agent(&self.programs, &self.directory);
        self.answers().await;
    }

    async fn answers(&self) {
        let address = SocketAddr::new(self.address, self.port);
        eventually("the agent listens", async || TcpStream::connect(address).await.ok()).await;
        eventually("the proxy answers", async || self.info().await).await;
    }

    /// Runs the controller's program against this amphora; whether it succeeded.
    pub fn controller(&self, arguments: &[&str]) -> bool {
        self.controller_command(arguments).stderr(Stdio::null()).status().unwrap().success()
    }

    /// What the controller's program writes, which must be JSON.
    pub fn told(&self, arguments: &[&str]) -> serde_json::Value {
        let output = self.controller_command(arguments).stdout(Stdio::piped()).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Where the agent keeps this certificate.
    pub fn certificate_file(&self, id: &str) -> PathBuf {
        self.directory.path().join(format!("state/certificates/{id}.pem"))
    }

    fn controller_command(&self, arguments: &[&str]) -> Command {
        let endpoint = format!("https://{ID}@{}", SocketAddr::new(self.address, self.port));
        let certificates = self.directory.path().join("certs").display().to_string();
        let mut command = Command::new(&self.programs.controller);
        command.args(arguments).args(["--amphora", &endpoint, "--certs", &certificates]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    /// Applies a document with the controller's program.
    pub fn apply(&self, document: &Document) {
        assert!(self.try_apply(document), "the document was not applied");
    }

    /// The same of one that may be refused; whether it was applied.
    pub fn try_apply(&self, document: &Document) -> bool {
        self.controller(&["apply", &self.write(document)])
    }

    /// What the controller's program says of a document that is refused.
    pub fn refusal(&self, document: &Document) -> String {
        self.refused(document, &[])
    }

    /// What it says of one that a dry run refuses.
    pub fn dry_refusal(&self, document: &Document) -> String {
        self.refused(document, &["--dry-run", "--proxy", &self.programs.proxy.display().to_string()])
    }

    fn refused(&self, document: &Document, options: &[&str]) -> String {
        let file = self.write(document);
        let arguments = [&["apply", &file], options].concat();
        let output = self.controller_command(&arguments).stderr(Stdio::piped()).output().unwrap();
        assert!(!output.status.success(), "the document was applied");
        String::from_utf8(output.stderr).unwrap()
    }

    /// A file of its own for each: several may be applied at once.
    fn write(&self, document: &Document) -> String {
        let mut file = NamedTempFile::with_suffix_in(".json", self.directory.path()).unwrap();
        file.write_all(document.to_json().to_string().as_bytes()).unwrap();
        file.into_temp_path().keep().unwrap().display().to_string()
    }

    /// Starts a member as a process of its own, so that it can be killed.
    pub fn spawn_member(&self, name: &str, address: SocketAddr) -> MemberProcess {
        let child = Command::new(&self.programs.controller)
            .args(["demo-member", "--name", name, "--pool", "kills", "--bind", &address.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        MemberProcess(child)
    }

    /// The document that the proxy says it runs, if it answers and runs one.
    pub async fn running(&self) -> Option<serde_json::Value> {
        self.get("/loadbalancer").await
    }

    /// The document that the agent has stored.
    pub fn stored(&self) -> serde_json::Value {
        let document = fs::read(self.directory.path().join("state/loadbalancer.json")).unwrap();
        serde_json::from_slice(&document).unwrap()
    }

    /// What the present agent has logged since it was ready.
    pub fn log(&self) -> String {
        let log = fs::read_to_string(self.directory.path().join("log")).unwrap();
        log.rsplit("ready address=").next().unwrap_or_default().to_owned()
    }

    /// The proxy, if it answers.
    pub async fn info(&self) -> Option<Info> {
        self.get("/info").await
    }

    /// Every counter, if the proxy answers.
    pub async fn stats(&self) -> Option<Stats> {
        self.get("/stats").await
    }

    async fn get<T: serde::de::DeserializeOwned>(&self, path: &str) -> Option<T> {
        let socket = self.directory.path().join("run/proxy.sock");
        let mut stream = UnixStream::connect(socket).await.ok()?;
        let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.ok()?;
        let answer = read_message(&mut stream, &mut Vec::new(), true).await.ok()??;
        serde_json::from_slice(&answer.body).ok()
    }

    /// SIGKILL for the agent.
    pub fn kill_agent(&mut self) {
        self.agent.kill().unwrap();
        self.agent.wait().unwrap();
    }
}

impl Drop for Amphora {
    fn drop(&mut self) {
        // The agent stops its proxy; it has two seconds for that by its configuration, and a third to kill it.
        let _ = kill(Pid::from_raw(i32::try_from(self.agent.id()).unwrap()), Signal::SIGTERM);
        let _ = self.agent.wait();
        if std::thread::panicking() {
            let log = fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
            eprintln!("the agent's log:\n{log}");
        }
    }
}

/// A member that is a process of its own; it does not outlive the test, however that ends.
#[derive(Debug)]
pub struct MemberProcess(Child);

impl MemberProcess {
    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for MemberProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// SIGKILL for a process.
pub fn kill_hard(pid: u32) {
    signal(pid, Signal::SIGKILL);
}

/// A signal for a process.
pub fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal).unwrap();
}

fn spawn_agent(programs: &Programs, directory: &TempDir) -> Child {
    let log = File::options().create(true).append(true).open(directory.path().join("log")).unwrap();
    Command::new(&programs.agent)
        .arg("--config-file")
        .arg(directory.path().join("agent.conf"))
        .arg("--supervise")
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}
