//! The proxy as a process, behind its control socket.

use std::{
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use amphora_ipc::proxy::{
    Applied, Info, ListenerStats, MemberReport, MemberStats, Members, Peers, Refusal, Stats,
};
use amphora_model::{ListenerId, MemberId};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;
use tokio::{io::AsyncWriteExt, net::UnixStream};

use crate::{Client, Document, Message, eventually, in_time, message::read_message, process};

/// A running proxy. Dropping it kills it; when a test fails, its log is shown.
#[derive(Debug)]
pub struct Proxy {
    /// What it was started with, or got by [`apply`](Self::apply) last.
    pub document: Document,
    child: Child,
    directory: TempDir,
}

/// A change that was refused.
#[derive(Clone, Debug)]
pub struct Refused {
    /// 400 or 409.
    pub status: u16,
    /// Why.
    pub refusal: Refusal,
}

impl Proxy {
    /// Starts a proxy with two workers, and waits until it serves.
    pub async fn start(document: Document) -> Self {
        Self::start_with(document, &[]).await
    }

    /// As [`start`](Self::start), with more options.
    pub async fn start_with(document: Document, options: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("document.json");
        fs::write(&file, document.to_json().to_string()).unwrap();
        let file = file.display().to_string();
        let options = [&["--load-balancer", &file], options].concat();
        Self::spawn(directory, document, &options).await
    }

    /// As [`start`](Self::start), with so many descriptors at the most.
    pub async fn start_within(document: Document, descriptors: u32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("document.json");
        fs::write(&file, document.to_json().to_string()).unwrap();
        let file = file.display().to_string();
        Self::spawn_within(directory, document, &["--load-balancer", &file], Some(descriptors)).await
    }

    /// Starts a proxy that restores what is in `state`. `document` is what it is expected to find there.
    pub async fn restore(document: Document, state: &Path) -> Self {
        let state = state.display().to_string();
        Self::spawn(tempfile::tempdir().unwrap(), document, &["--state-dir", &state]).await
    }

    async fn spawn(directory: TempDir, document: Document, options: &[&str]) -> Self {
        Self::spawn_within(directory, document, options, None).await
    }

    async fn spawn_within(
        directory: TempDir,
        document: Document,
        options: &[&str],
        descriptors: Option<u32>,
    ) -> Self {
        process::open_files();
        let program = tokio::task::spawn_blocking(process::proxy_program).await.unwrap();
        let log = File::create(directory.path().join("log")).unwrap();
        let workers: &[&str] = if options.contains(&"--workers") { &[] } else { &["--workers", "2"] };
        let mut command = match descriptors {
            Some(limit) => Self::command_within(limit),
            None => Command::new(program),
        };
        let child = command
            .args(workers)
            .arg("--control-socket")
            .arg(directory.path().join("control"))
            .args(options)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut proxy = Self { document, child, directory };
        eventually("the proxy serves", async || {
            if let Some(status) = proxy.child.try_wait().unwrap() {
                panic!("the proxy ended: {status}");
            }
            proxy.request("GET", "/info", "").await.ok().filter(|answer| answer.status() == 200)
        })
        .await;
        proxy
    }

    /// The program, to be started by the test itself.
    pub fn command() -> Command {
        Command::new(process::proxy_program())
    }

    /// The same, with so many descriptors at the most.
    pub fn command_within(descriptors: u32) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", r#"ulimit -n "$0" && exec "$@""#, &descriptors.to_string()]);
        command.arg(process::proxy_program());
        command
    }

    /// How many descriptors it has.
    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count()
    }

    /// Where the first listener listens.
    pub fn address(&self) -> SocketAddr {
        self.document.address()
    }

    /// A client of the first listener.
    pub async fn client(&self) -> Client {
        Client::connect(self.address()).await
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The memory that it holds, in KiB.
    pub fn resident_kib(&self) -> u64 {
        process::resident_kib(self.pid())
    }

    /// The path of the control socket.
    pub fn control(&self) -> PathBuf {
        self.directory.path().join("control")
    }

    /// One request on the control socket.
    ///
    /// # Errors
    /// When the socket cannot be reached.
    pub async fn request(&self, method: &str, path: &str, body: &str) -> std::io::Result<Message> {
        let mut stream = UnixStream::connect(self.control()).await?;
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body.as_bytes()).await?;
        let mut buffer = Vec::new();
        let answer = read_message(&mut stream, &mut buffer, true);
        in_time("the control socket answers", answer)
            .await?
            .ok_or_else(|| std::io::ErrorKind::UnexpectedEof.into())
    }

    /// Applies a document.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn try_apply(&mut self, document: &Document) -> Result<Applied, Refused> {
        let answer = self.request("PUT", "/loadbalancer", &document.to_json().to_string()).await.unwrap();
        match answer.status() {
            200 => {
                self.document = document.clone();
                Ok(serde_json::from_slice(&answer.body).unwrap())
            }
            status => Err(Refused { status, refusal: serde_json::from_slice(&answer.body).unwrap() }),
        }
    }

    /// Applies a document.
    pub async fn apply(&mut self, document: &Document) -> Applied {
        self.try_apply(document).await.unwrap()
    }

    /// Changes the document that runs.
    pub async fn change(&mut self, change: impl FnOnce(&mut Document)) -> Applied {
        let mut document = self.document.clone();
        change(&mut document);
        self.apply(&document).await
    }

    /// Every counter.
    pub async fn stats(&self) -> Stats {
        let answer = self.request("GET", "/stats", "").await.unwrap();
        serde_json::from_slice(&answer.body).unwrap()
    }

    /// The process.
    pub async fn info(&self) -> Info {
        let answer = self.request("GET", "/info", "").await.unwrap();
        serde_json::from_slice(&answer.body).unwrap()
    }

    /// How it stands with the other amphora.
    pub async fn peers(&self) -> Peers {
        let answer = self.request("GET", "/peers", "").await.unwrap();
        serde_json::from_slice(&answer.body).unwrap()
    }

    /// Waits until it stands so with the other amphora.
    pub async fn until_peers(&self, what: &str, so: impl Fn(&Peers) -> bool) -> Peers {
        eventually(what, async || Some(self.peers().await).filter(&so)).await
    }

    /// The counters of the first listener.
    pub async fn listener(&self) -> ListenerStats {
        self.listener_of(self.document.listeners[0].id).await
    }

    /// The counters of a listener.
    pub async fn listener_of(&self, id: ListenerId) -> ListenerStats {
        self.stats().await.listeners[&id]
    }

    /// The counters of a member of the first pool.
    pub async fn member(&self, index: usize) -> MemberStats {
        self.member_of(self.document.pools[0].members[index].id).await
    }

    /// What there is to tell of members beyond counters.
    pub async fn members(&self) -> Members {
        let answer = self.request("GET", "/members", "").await.unwrap();
        serde_json::from_slice(&answer.body).unwrap()
    }

    /// The same of one of the first pool.
    pub async fn report_of(&self, index: usize) -> MemberReport {
        let pool = &self.document.pools[0];
        let pools = self.members().await.pools;
        pools.get(&pool.id).and_then(|of| of.get(&pool.members[index].id)).cloned().unwrap_or_default()
    }

    /// The counters of a member.
    pub async fn member_of(&self, id: MemberId) -> MemberStats {
        let stats = self.stats().await;
        let found = stats.pools.into_values().find_map(|mut pool| pool.members.remove(&id));
        found.expect("a member of that id")
    }

    /// Waits until the counters are so.
    pub async fn until(&self, what: &str, so: impl Fn(&Stats) -> bool) -> Stats {
        eventually(what, async || Some(self.stats().await).filter(&so)).await
    }

    /// Waits until the counters of a member of the first pool are so.
    pub async fn until_member(&self, index: usize, what: &str, so: impl Fn(&MemberStats) -> bool) -> Stats {
        let (pool, member) = (&self.document.pools[0], self.document.pools[0].members[index].id);
        self.until(what, |stats| so(&stats.pools[&pool.id].members[&member])).await
    }

    /// Waits until the counters of the first listener are so.
    pub async fn until_listener(&self, what: &str, so: impl Fn(&ListenerStats) -> bool) -> Stats {
        let id = self.document.listeners[0].id;
        self.until(what, |stats| so(&stats.listeners[&id])).await
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    /// Waits until it has ended.
    pub async fn ended(&mut self) -> ExitStatus {
        eventually("the proxy ends", async || self.child.try_wait().unwrap()).await
    }

    /// Whether it runs.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// What it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the proxy's log:\n{}", self.log());
        }
    }
}
