//! The real driver of Octavia 19.0.0, the objects that it is given, and clients and members of them.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, mpsc},
    time::Duration,
};

use amphora_tests::{Certificates, Message, Namespace, in_namespace, in_time};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rustls::{
    ClientConfig, ServerConfig, pki_types::ServerName, server::WebPkiClientVerifier, version::TLS13,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::ground::{AMPHORA, Ground, OTHER};

pub(crate) const LB: &str = "33333333-3333-4333-8333-333333333333";
pub(crate) const WEB: &str = "44444444-4444-4444-8444-444444444444";
pub(crate) const TCP: &str = "44444444-4444-4444-8444-444444444445";
pub(crate) const TLS: &str = "44444444-4444-4444-8444-444444444446";
pub(crate) const POOL: &str = "66666666-6666-4666-8666-666666666666";
const STREAM: &str = "66666666-6666-4666-8666-666666666667";

/// Octavia's file, with the directories of an amphora.
pub(crate) const CONFIG: &str = "[DEFAULT]
debug = False
[haproxy_amphora]
base_cert_dir = /var/lib/octavia/certs
base_path = /var/lib/octavia
bind_host = 0.0.0.0
bind_port = 9443
[health_manager]
controller_ip_port_list = 172.30.0.2:5555
heartbeat_interval = 10
heartbeat_key = insecure
[amphora_agent]
agent_server_ca = /etc/octavia/certs/client_ca.pem
agent_server_cert = /etc/octavia/certs/server.pem
amphora_id = 22222222-2222-4222-8222-222222222222
[controller_worker]
loadbalancer_topology = SINGLE
";

/// What the driver has to know of the machine of an amphora.
pub(crate) struct Machine<'a> {
    pub(crate) management: &'a Namespace,
    pub(crate) certificates: &'a Certificates,
    /// Where the texts say that files are.
    pub(crate) base_path: &'a Path,
    /// `STANDALONE`; or `MASTER` or `BACKUP` of a pair, at 10.77.0.101 or 10.77.0.102.
    pub(crate) role: &'static str,
}

/// A Python with the package octavia; `None`, said loudly, without one.
pub(crate) fn python() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/octavia-venv/bin/python");
    let python = std::env::var_os("AMPHORA_OCTAVIA_PYTHON").map_or(beside, PathBuf::from);
    if !python.exists() {
        eprintln!("SKIPPED: no Octavia; set AMPHORA_OCTAVIA_PYTHON to a Python with the package octavia");
        return None;
    }
    Some(python)
}

/// How long the driver may take for what it is asked, its own start included: it asks an amphora up to five times, and waits for an
/// answer for up to a minute.
const ANSWER: Duration = Duration::from_secs(180);

/// The driver, in a process of its own in the management network.
pub(crate) struct Driver {
    child: Child,
    stdin: ChildStdin,
    /// Its answers, read by a thread, so that they are not waited for for ever.
    answers: mpsc::Receiver<String>,
}

impl Driver {
    /// `None`, said loudly, without an Octavia.
    pub(crate) fn start(ground: &Ground) -> Option<Self> {
        Self::start_for(&Machine {
            management: &ground.management,
            certificates: &ground.certificates,
            base_path: &ground.path("state"),
            role: "STANDALONE",
        })
    }

    /// The same for an amphora of a pair, perhaps.
    pub(crate) fn start_for(machine: &Machine<'_>) -> Option<Self> {
        let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
        let python = python()?;
        let (id, other) = if machine.role == "BACKUP" { (OTHER, AMPHORA) } else { (AMPHORA, OTHER) };
        let arguments = json!({
            "ca": machine.certificates.file("ca"),
            "client": machine.certificates.file("controller"),
            "base_path": machine.base_path,
            "amphora": id,
            "other": other,
            "role": machine.role,
        });
        let mut child = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{}", machine.management.name()))
            .arg(python)
            // Where it is, if it has to be ended.
            .args(["-X", "faulthandler"])
            .args([tests.join("octavia/driver.py").as_os_str(), arguments.to_string().as_ref()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(machine.certificates.path().join("driver.log")).unwrap())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (answer, answers) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if answer.send(line).is_err() {
                    return;
                }
            }
        });
        Some(Self { child, stdin, answers })
    }

    pub(crate) fn ask(&mut self, call: &str, arguments: Value) -> Value {
        let mut request = arguments;
        request["call"] = call.into();
        writeln!(self.stdin, "{request}").unwrap();
        let line = self.answers.recv_timeout(ANSWER).unwrap_or_else(|error| {
            // It writes to its log where it is.
            let _ = kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), Signal::SIGABRT);
            let ended = self.child.wait();
            panic!("{call}: no answer of the driver: {error}; {ended:?}")
        });
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{call}: {error}: {line:?}"))
    }

    pub(crate) fn does(&mut self, call: &str, arguments: Value) -> Value {
        let mut answer = self.ask(call, arguments);
        assert!(answer.get("error").is_none(), "{call}: {answer}");
        answer["ok"].take()
    }

    pub(crate) fn is_refused(&mut self, call: &str, arguments: Value) -> String {
        let answer = self.ask(call, arguments);
        answer["error"].as_str().unwrap_or_else(|| panic!("{call} is not refused: {answer}")).to_owned()
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A load balancer as the database has it.
pub(crate) fn load_balancer(listeners: Value, members: Value) -> Value {
    let mut stream = member(1);
    stream["id"] = "77777777-7777-4777-8777-777777777770".into();
    json!({
        "id": LB,
        "vip_address": "10.77.0.100",
        "listeners": listeners,
        "pools": [
            {"id": POOL, "protocol": "HTTP", "lb_algorithm": "ROUND_ROBIN", "members": members},
            {"id": STREAM, "protocol": "TCP", "lb_algorithm": "LEAST_CONNECTIONS", "members": [stream]},
        ],
    })
}

pub(crate) fn member(number: u8) -> Value {
    let id = format!("77777777-7777-4777-8777-77777777777{number}");
    json!({"id": id, "address": format!("10.77.0.1{number}"), "protocol_port": 80})
}

pub(crate) fn web() -> Value {
    json!({"id": WEB, "protocol": "HTTP", "protocol_port": 80, "default_pool_id": POOL})
}

pub(crate) fn tcp() -> Value {
    json!({"id": TCP, "protocol": "TCP", "protocol_port": 8080, "default_pool_id": STREAM})
}

/// Clients of the VIP and its members, in the network that the port is in.
#[derive(Clone)]
pub(crate) struct Lan {
    name: String,
    roots: Arc<ClientConfig>,
}

impl Lan {
    /// Members 1 and 2, which answer with their numbers to whatever they are asked; but `/echo` with the head of the request,
    /// and `/session` with a cookie of their own as well.
    pub(crate) async fn new(ground: &Ground) -> Self {
        Self::on(&ground.lan, &ground.certificates, "lan1").await
    }

    /// The same on this interface of a network; clients trust who signed these certificates.
    pub(crate) async fn on(lan: &Namespace, certificates: &Certificates, interface: &str) -> Self {
        for address in ["10.77.0.1/24", "10.77.0.11/24", "10.77.0.12/24", "10.77.0.13/24"] {
            lan.ip(&["address", "add", address, "dev", interface]);
        }
        for number in 1..=2 {
            Self::member(lan, number, format!("10.77.0.1{number}:80").parse().unwrap()).await;
        }
        let roots = certificates.client(&[&TLS13], &["http/1.1"]);
        Self { name: lan.name().to_owned(), roots }
    }

    /// Member of this number at this address.
    pub(crate) async fn member(lan: &Namespace, number: u8, address: SocketAddr) {
        let (bound, is_bound) = tokio::sync::oneshot::channel();
        let served = lan.spawn(move || async move {
            let listener = TcpListener::bind(address).await.unwrap();
            let _ = bound.send(());
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, number));
            }
        });
        drop(served);
        is_bound.await.unwrap();
    }

    /// The same by TLS at port 443, with the certificate of this id; one that `verifies` wants one of the authority's.
    pub(crate) async fn secure_member(
        lan: &Namespace,
        number: u8,
        certificates: &Certificates,
        id: &str,
        verifies: bool,
    ) {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let roots = Arc::new(certificates.roots());
        let builder = match verifies {
            true => builder.with_client_cert_verifier(
                WebPkiClientVerifier::builder_with_provider(roots, provider).build().unwrap(),
            ),
            false => builder.with_no_client_auth(),
        };
        let (chain, key) = certificates.read(id);
        let acceptor = TlsAcceptor::from(Arc::new(builder.with_single_cert(chain, key).unwrap()));
        let (bound, is_bound) = tokio::sync::oneshot::channel();
        let served = lan.spawn(move || async move {
            let address: SocketAddr = format!("10.77.0.1{number}:443").parse().unwrap();
            let listener = TcpListener::bind(address).await.unwrap();
            let _ = bound.send(());
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        serve(stream, number).await;
                    }
                });
            }
        });
        drop(served);
        is_bound.await.unwrap();
    }

    /// What this request is answered with, on a connection of its own.
    pub(crate) async fn send(&self, to: SocketAddr, request: &str) -> Option<Message> {
        let request = format!("{request}\r\nConnection: close\r\n\r\n");
        let work = move || async move {
            let mut stream = TcpStream::connect(to).await.ok()?;
            stream.write_all(request.as_bytes()).await.ok()?;
            amphora_tests::read_message(&mut stream, &mut Vec::new(), true).await.ok()?
        };
        in_time("an answer, or its end", in_namespace(&self.name, work)).await
    }

    /// What a client that speaks TLS like this is answered from the VIP, asking for this host, with the certificate and the
    /// application protocol; of HTTP/2 nothing but these.
    pub(crate) async fn send_securely(
        &self,
        port: u16,
        config: Arc<ClientConfig>,
        host: &str,
    ) -> Option<(Message, Vec<u8>, Vec<u8>)> {
        self.ask_securely(port, config, host, "/").await
    }

    /// The same for this path.
    pub(crate) async fn ask_securely(
        &self,
        port: u16,
        config: Arc<ClientConfig>,
        host: &str,
        path: &str,
    ) -> Option<(Message, Vec<u8>, Vec<u8>)> {
        let host = host.to_owned();
        let request = format!("GET {path} HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n");
        let work = move || async move {
            let stream = TcpStream::connect(SocketAddr::new([10, 77, 0, 100].into(), port)).await.ok()?;
            let name = ServerName::try_from(host).unwrap();
            let mut stream = TlsConnector::from(config).connect(name, stream).await.ok()?;
            let session = stream.get_ref().1;
            let shown = session.peer_certificates()?.first()?.to_vec();
            let protocol = session.alpn_protocol().unwrap_or_default().to_vec();
            if protocol == b"h2" {
                return Some((Message::default(), shown, protocol));
            }
            stream.write_all(request.as_bytes()).await.ok()?;
            let answer = amphora_tests::read_message(&mut stream, &mut Vec::new(), true).await.ok()??;
            Some((answer, shown, protocol))
        };
        in_time("an answer over TLS, or its end", in_namespace(&self.name, work)).await
    }

    /// The status and the body of an answer; `None` when nobody listens or it breaks off.
    pub(crate) async fn get(&self, port: u16, path: &str) -> Option<(u16, String)> {
        let path = path.to_owned();
        let work = move || async move {
            let mut stream = TcpStream::connect(SocketAddr::new([10, 77, 0, 100].into(), port)).await.ok()?;
            exchange(&mut stream, &path).await
        };
        in_time("an answer, or its end", in_namespace(&self.name, work)).await
    }

    /// The same over TLS, with the certificate that was shown.
    pub(crate) async fn get_securely(&self, port: u16) -> Option<(u16, Vec<u8>)> {
        let config = self.roots.clone();
        let work = move || async move {
            let stream = TcpStream::connect(SocketAddr::new([10, 77, 0, 100].into(), port)).await.ok()?;
            let name = ServerName::try_from("shop.example").unwrap();
            let mut stream = TlsConnector::from(config).connect(name, stream).await.ok()?;
            let shown = stream.get_ref().1.peer_certificates()?.first()?.to_vec();
            let (status, _) = exchange(&mut stream, "/").await?;
            Some((status, shown))
        };
        in_time("an answer over TLS, or its end", in_namespace(&self.name, work)).await
    }

    /// Who answers twelve requests one after another, each of them with 200.
    pub(crate) async fn members(&self) -> String {
        let mut members = Vec::new();
        for _ in 0..12 {
            let (status, body) = self.get(80, "/").await.expect("an answer");
            assert_eq!(status, 200, "{body}");
            members.push(body);
        }
        members.sort();
        members.dedup();
        members.concat()
    }
}

/// A member.
async fn serve(mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin, number: u8) {
    let mut head = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut head).await {
        let head = String::from_utf8_lossy(&head[..read]);
        let (body, more) = match head.split(' ').nth(1) {
            Some("/echo") => (head.to_string(), String::new()),
            Some("/session") => (number.to_string(), format!("Set-Cookie: SESSION=of-{number}\r\n")),
            _ => (number.to_string(), String::new()),
        };
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{more}\r\n{body}", body.len());
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

pub(crate) async fn exchange(
    stream: &mut (impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin),
    path: &str,
) -> Option<(u16, String)> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let answer = amphora_tests::read_message(stream, &mut Vec::new(), true).await.ok()??;
    Some((answer.status(), answer.text()))
}
