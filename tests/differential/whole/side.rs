//! Where the two run: a network namespace each, with the same addresses and the same members.

use std::{
    fs,
    io::{Read, Write},
    os::unix::{
        fs::PermissionsExt,
        net::{UnixDatagram, UnixStream},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use amphora_model::LoadBalancer;
use amphora_tests::{Namespace, Proxy, shared_directory};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::{
    client::{self, Outcome, Wallet},
    generate::{Case, SERVING, address, is_sick},
    member::{self, Book},
};

/// How long a program may take to start.
const PATIENCE: Duration = Duration::from_secs(30);

/// A namespace with members.
pub(super) struct Side {
    namespace: Namespace,
    book: Book,
    directory: TempDir,
    lines: Arc<Mutex<Vec<String>>>,
    /// Where this project's proxy is asked, if it runs here.
    control: Mutex<PathBuf>,
    wallet: Arc<Wallet>,
    /// Members serve until it goes.
    _serving: oneshot::Sender<()>,
}

/// A program that serves; it goes with the value.
pub(super) struct Running {
    child: Child,
    log: PathBuf,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    /// Starts it, and waits until it answers this on its socket.
    fn start(mut command: Command, log: PathBuf, socket: &Path, question: &str) -> Result<Self, String> {
        let _ = fs::remove_file(socket);
        let file = fs::File::create(&log).unwrap();
        let child =
            command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap();
        let mut running = Self { child, log };
        let deadline = Instant::now() + PATIENCE;
        while ask(socket, question).is_none_or(|answer| answer.is_empty()) {
            if running.child.try_wait().unwrap().is_some() {
                return Err(format!("it ended: {}", running.said()));
            }
            assert!(Instant::now() < deadline, "{command:?} does not serve: {}", running.said());
            thread::sleep(Duration::from_millis(5));
        }
        Ok(running)
    }

    /// What it has written.
    pub(super) fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

/// What is answered on a socket.
fn ask(socket: &Path, question: &str) -> Option<String> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(question.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

impl Side {
    /// `None` where namespaces are not permitted.
    pub(super) async fn new(wallet: &Arc<Wallet>) -> Option<Self> {
        let namespace = Namespace::create()?;
        for net in [7, 8, 9] {
            for is_ipv4 in [true, false] {
                let prefix = address(is_ipv4, net, 0);
                let (family, bits) = if is_ipv4 { ("-4", 16) } else { ("-6", 64) };
                namespace.ip(&[family, "route", "add", "local", &format!("{prefix}/{bits}"), "dev", "lo"]);
                for number in 1..=4 {
                    let address =
                        format!("{}/{}", address(is_ipv4, net, number), if is_ipv4 { 32 } else { 128 });
                    namespace.ip(&[family, "address", "add", &address, "dev", "lo"]);
                }
            }
        }
        // Where the peers of a pair are.
        for number in [1, 2] {
            namespace.ip(&["address", "add", &format!("192.0.2.{number}/32"), "dev", "lo"]);
        }
        let book = Book::default();
        let (serving, stop) = oneshot::channel::<()>();
        let (ready, started) = oneshot::channel();
        let (of_members, of_book) = (Arc::clone(wallet), book.clone());
        drop(namespace.spawn(move || async move {
            member::serve(SERVING, &of_members.own, of_book).await;
            let _ = ready.send(());
            let _ = stop.await;
        }));
        started.await.unwrap();
        let directory = shared_directory();
        namespace.exec(&["sysctl", "-q", "-w", "net.unix.max_dgram_qlen=4096"]);
        let path = directory.path().join("log");
        let bound = path.clone();
        let lines = collect(namespace.run(move || async move { UnixDatagram::bind(bound).unwrap() }).await);
        // The proxy of an agent may run as somebody else.
        fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap();
        let (wallet, control) = (Arc::clone(wallet), Mutex::default());
        Some(Self { namespace, book, directory, lines, control, wallet, _serving: serving })
    }

    /// The name of the namespace.
    pub(super) fn name(&self) -> &str {
        self.namespace.name()
    }

    /// This project's proxy that runs here now is asked at this socket.
    pub(super) fn is_asked_at(&self, socket: PathBuf) {
        *self.control.lock().unwrap() = socket;
    }

    /// Asks this project's proxy for its counters.
    fn stats(&self) -> Option<Value> {
        let question = "GET /stats HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        let answer = ask(&self.control.lock().unwrap(), question)?;
        serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// HAProxy with the text, of which only users, paths and the section `global` are moved; and members with authorities are verified,
    /// which the `check-ssl verify none` of a monitor would turn off.
    pub(super) fn haproxy(&self, lb: &LoadBalancer, text: &str) -> Result<Running, String> {
        let (file, socket) = (self.path("haproxy.cfg"), self.path("stats"));
        let ping = self.path("ping");
        if !ping.exists() {
            fs::write(&ping, "#!/bin/sh\ncase $3 in 10.10.* | fd00:a:*) exit 1 ;; esac\n").unwrap();
            Command::new("chmod").arg("755").arg(&ping).status().unwrap();
        }
        let certificates = self.wallet.own.path();
        for listener in &lb.listeners {
            let Some(tls) = &listener.tls else { continue };
            let all = std::iter::once(&tls.certificate).chain(&tls.sni_certificates);
            let list: String =
                all.map(|id| format!("{}\n", certificates.join(format!("{id}.pem")).display())).collect();
            fs::write(certificates.join(format!("{}.pem", listener.id)), list).unwrap();
        }
        let certificates = certificates.display().to_string();
        let text = text
            .replace("/run/rsyslog/octavia/log", &self.path("log").display().to_string())
            .replace(&format!("/var/lib/octavia/certs/{}", lb.id), &certificates)
            .replace("/var/lib/octavia/ping-wrapper.sh", &ping.display().to_string());
        let mut moved = String::new();
        let mut is_global = false;
        for line in text.lines() {
            let word = line.split_whitespace().next().unwrap_or_default();
            if !line.starts_with(' ') {
                is_global = word == "global";
            }
            let is_moved = match word {
                "daemon" | "user" | "group" | "nbthread" | "cpu-map" | "server-state-file" | "stats" => true,
                "maxconn" => is_global,
                "load-server-state-from-file" => true,
                _ => false,
            };
            let is_trusted = word == "server" && line.contains(" check-ssl verify none ");
            if is_trusted && line.contains(" ca-file ") && !line.contains(" verify required ") {
                moved.push_str(&format!("{line} verify required\n"));
            } else if !is_moved {
                moved.push_str(line);
                moved.push('\n');
            }
            if word == "global" {
                moved.push_str(&format!(
                    "    nbthread 1\n    maxconn 500\n    stats socket {}\n",
                    socket.display()
                ));
            }
        }
        fs::write(&file, moved).unwrap();
        let mut command = Command::new("ip");
        command.args(["netns", "exec", self.namespace.name(), "haproxy", "-db", "-f"]).arg(&file);
        // As the unit of an amphora has it.
        if let Some((_, peer)) = text.split_once("\n    peer ") {
            command.args(["-L", peer.split(' ').next().unwrap_or_default()]);
        }
        Running::start(command, self.path("haproxy.out"), &socket, "show info\n")
    }

    /// This project's proxy with a document.
    pub(super) fn proxy(&self, document: &Value) -> Result<Running, String> {
        let (file, socket) = (self.path("loadbalancer.json"), self.path("control"));
        fs::write(&file, document.to_string()).unwrap();
        let mut command = Proxy::command();
        command.arg("--load-balancer").arg(&file).arg("--control-socket").arg(&socket);
        command.args(["--workers", "1", "--netns", self.namespace.name()]);
        command.arg("--certificates").arg(self.wallet.own.path()).arg("--log-socket").arg(self.path("log"));
        self.is_asked_at(socket.clone());
        let question = "GET /info HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        Running::start(command, self.path("proxy.out"), &socket, question)
    }

    /// Does this in the namespace.
    pub(super) async fn within<T: Send + 'static, F: Future<Output = T>>(
        &self,
        work: impl FnOnce() -> F + Send + 'static,
    ) -> T {
        self.namespace.run(work).await
    }

    /// Waits until checks have found this of a member.
    pub(super) async fn await_state(&self, member: &str, is_down: bool) {
        let deadline = Instant::now() + PATIENCE;
        let member = [member.to_owned()];
        while self.are_down(&member) != is_down {
            assert!(Instant::now() < deadline, "{member:?} is not as its monitor has it:\n{}", self.states());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// All visits, one after the other.
    pub(super) async fn visit(&self, case: &Arc<Case>) -> Vec<Outcome> {
        let (case, wallet, book) = (Arc::clone(case), Arc::clone(&self.wallet), self.book.clone());
        let visits = move || async move {
            let mut outcomes = Vec::new();
            for visit in &case.visits {
                let port = case.lb.listeners[visit.listener].port;
                outcomes.push(client::visit(visit, port, &wallet, &book).await);
            }
            outcomes
        };
        self.namespace.run(visits).await
    }

    /// The lines of flow logs of a load balancer, or of handshakes, that have come: so many, unless they do not come.
    pub(super) fn lines(&self, case: &Case, count: usize) -> Vec<String> {
        let id = case.lb.id.to_string();
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut lines = Vec::new();
        loop {
            let new = std::mem::take(&mut *self.lines.lock().unwrap());
            lines.extend(new.into_iter().filter(|line| line.contains(&id) || !line.starts_with("project ")));
            if lines.len() >= count || Instant::now() > deadline {
                return lines;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Forgets lines of earlier cases.
    pub(super) fn forget(&self) {
        self.lines.lock().unwrap().clear();
    }

    /// Waits until those who are to be taken down are.
    pub(super) fn settle(&self, case: &Case) {
        let sick =
            case.lb.pools.iter().flat_map(|pool| pool.members.iter().filter(|member| is_sick(pool, member)));
        let sick: Vec<String> = sick.map(|member| member.id.to_string()).collect();
        let deadline = Instant::now() + PATIENCE;
        while !sick.is_empty() && !self.are_down(&sick) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// What checks have found of members, to be told beside a difference.
    pub(super) fn states(&self) -> String {
        if let Some(table) = ask(&self.path("stats"), "show stat\n") {
            let mut rows =
                table.lines().map(|row| row.trim_start_matches("# ").split(',').collect::<Vec<_>>());
            let names = rows.next().unwrap_or_default();
            let told = ["svname", "status", "check_status", "last_chk"];
            let columns: Vec<usize> =
                told.iter().filter_map(|told| names.iter().position(|name| name == told)).collect();
            let of_members = rows.filter(|row| row.len() > 1 && !matches!(row[1], "FRONTEND" | "BACKEND"));
            let told = of_members.map(|row| {
                let words = columns.iter().filter_map(|at| row.get(*at).copied());
                words.collect::<Vec<_>>().join(" ") + "\n"
            });
            return told.collect();
        }
        let stats = self.stats().unwrap_or_default();
        let pools = stats["pools"].as_object().into_iter().flat_map(|pools| pools.values());
        let members = pools.flat_map(|pool| pool["members"].as_object().into_iter().flatten());
        members.map(|(id, state)| format!("{id} {state}\n")).collect()
    }

    fn are_down(&self, members: &[String]) -> bool {
        if let Some(table) = ask(&self.path("stats"), "show stat\n") {
            let column = |row: &str, at: usize| row.split(',').nth(at).unwrap_or_default().to_owned();
            return table
                .lines()
                .all(|row| !members.contains(&column(row, 1)) || column(row, 17).starts_with("DOWN"));
        }
        let Some(stats) = self.stats() else { return false };
        let pools = stats["pools"].as_object().unwrap().values();
        let mut states = pools.flat_map(|pool| pool["members"].as_object().unwrap());
        states
            .all(|(id, state)| !members.contains(id) || state["check"].as_str().unwrap().starts_with("DOWN"))
    }
}

/// Reads what comes for syslog at once: HAProxy drops what the kernel does not keep.
fn collect(socket: UnixDatagram) -> Arc<Mutex<Vec<String>>> {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let collected = Arc::downgrade(&lines);
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Some(lines) = collected.upgrade() {
            let Ok(n) = socket.recv(&mut bytes) else { continue };
            let line = String::from_utf8_lossy(&bytes[..n]).trim_end().to_owned();
            if line.starts_with("<134>") {
                let text = line.split_once("]: ").map_or(line.clone(), |(_, text)| text.to_owned());
                lines.lock().unwrap().push(text);
            }
        }
    });
    lines
}
