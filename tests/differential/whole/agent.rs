//! An agent that is told what to run as Octavia's driver tells it: by `/1.0`, over mutual TLS.

use std::{
    env, fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
};

use amphora_model::{LoadBalancer, arbitrary};
use amphora_tests::{Certificates, Message, Proxy, eventually, free_port, loopback, read_message};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rustls::{ClientConfig, pki_types::ServerName, version::TLS13};
use tokio::{io::AsyncWriteExt, net::TcpStream};
use tokio_rustls::TlsConnector;

use super::client::Wallet;

/// The amphora that it is of.
const ID: &str = "22222222-2222-4222-8222-222222222222";

/// An agent with its proxy, which go with the value.
pub(super) struct Agent {
    child: Child,
    certificates: Certificates,
    address: SocketAddr,
    config: Arc<ClientConfig>,
    wallet: Arc<Wallet>,
}

impl Agent {
    /// Starts one, whose proxy serves in this namespace; `None`, loudly, where it is not built.
    pub(super) async fn start(namespace: &str, log: &Path, wallet: &Arc<Wallet>) -> Option<Self> {
        let proxy = PathBuf::from(Proxy::command().get_program());
        let program = env::var_os("AMPHORA_AGENT_BIN")
            .map_or_else(|| proxy.with_file_name("amphora-agent"), PathBuf::from);
        if !program.exists() {
            eprintln!("SKIPPED by way of /1.0: {} is not built (cargo build --workspace)", program.display());
            return None;
        }
        let certificates = Certificates::new();
        certificates.issue("agent", &[ID]);
        certificates.issue("controller", &["controller"]);
        let address = loopback();
        let address = SocketAddr::new(address, free_port(address));
        let path = |name: &str| certificates.path().join(name).display().to_string();
        let text = format!(
            "[haproxy_amphora]\nbase_path = {}\nbind_host = {}\nbind_port = {}\n\
             [amphora_agent]\namphora_id = {ID}\nagent_server_ca = {}\nagent_server_cert = {}\n\
             [amphora]\nrun_dir = {}\nproxy_cmd = {}\nproxy_workers = 1\ndrain_timeout = 1\n\
             network_namespace = {namespace}\nlog_socket = {}\n",
            path("state"),
            address.ip(),
            address.port(),
            certificates.file("ca").display(),
            certificates.file("agent").display(),
            path("run"),
            proxy.display(),
            log.display(),
        );
        fs::write(path("agent.conf"), text).unwrap();
        let log = fs::File::create(path("log")).unwrap();
        let child = Command::new(program)
            .args(["--config-file", &path("agent.conf"), "--supervise"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut config = certificates.client_with(Some("controller"), &[&TLS13]);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let config = Arc::new(config);
        let agent = Self { child, certificates, address, config, wallet: Arc::clone(wallet) };
        eventually("the agent answers", async || agent.request("GET", "/1.0/info", b"").await.ok()).await;
        Some(agent)
    }

    /// Where its proxy is asked.
    pub(super) fn control(&self) -> PathBuf {
        self.certificates.path().join("run/proxy.sock")
    }

    /// What both have written.
    pub(super) fn said(&self) -> String {
        fs::read_to_string(self.certificates.path().join("log")).unwrap_or_default()
    }

    /// What an update of the driver's does: files first, then the text, then a reload.
    pub(super) async fn update(&self, lb: &LoadBalancer, text: &str) -> Result<(), String> {
        let id = lb.id;
        let base = self.certificates.path().join("state").display().to_string();
        let moved = |text: &str| {
            let text = text.replace("/var/lib/octavia/certs/", &format!("{base}/certs/"));
            text.replace(&format!("/var/lib/octavia/{id}"), &format!("{base}/{id}"))
        };
        let text = moved(text);
        for name in arbitrary::CERTIFICATES {
            if lb_names(lb, &text, name) {
                let pem = fs::read(self.wallet.own.file(name)).unwrap();
                self.put(&format!("loadbalancer/{id}/certificates/{name}.pem"), &pem).await?;
            }
        }
        for listener in &lb.listeners {
            if let Some(list) = arbitrary::crt_list(lb, listener.id) {
                let path = format!("loadbalancer/{id}/certificates/{}.pem", listener.id);
                self.put(&path, moved(&list).as_bytes()).await?;
            }
        }
        self.put(&format!("loadbalancer/{ID}/{id}/haproxy"), text.as_bytes()).await?;
        self.put(&format!("loadbalancer/{id}/reload"), b"").await
    }

    /// Deletes what it runs.
    pub(super) async fn delete(&self, lb: &LoadBalancer) {
        let path = format!("/1.0/listeners/{}", lb.id);
        let answer = self.request("DELETE", &path, b"").await.unwrap();
        assert!(matches!(answer.status(), 200 | 202 | 404), "{path}: {}", self.said());
    }

    async fn put(&self, path: &str, body: &[u8]) -> Result<(), String> {
        let answer =
            self.request("PUT", &format!("/1.0/{path}"), body).await.map_err(|error| error.to_string())?;
        match answer.status() {
            200 | 202 => Ok(()),
            status => Err(format!("{path}: {status} {}", String::from_utf8_lossy(&answer.body))),
        }
    }

    async fn request(&self, method: &str, path: &str, body: &[u8]) -> io::Result<Message> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(ID).unwrap();
        let mut stream = TlsConnector::from(Arc::clone(&self.config)).connect(name, stream).await?;
        let length = body.len();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {ID}\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(&[head.as_bytes(), body].concat()).await?;
        read_message(&mut stream, &mut Vec::new(), true).await?.ok_or(io::ErrorKind::UnexpectedEof.into())
    }
}

/// Whether the text or a list of its certificates names this one.
fn lb_names(lb: &LoadBalancer, text: &str, name: &str) -> bool {
    let file = format!("/{name}.pem");
    text.contains(&file)
        || lb
            .listeners
            .iter()
            .any(|listener| arbitrary::crt_list(lb, listener.id).is_some_and(|list| list.contains(&file)))
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It stops its proxy.
        let _ = kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), Signal::SIGTERM);
        let _ = self.child.wait();
    }
}
