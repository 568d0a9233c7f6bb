use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Method, Request, StatusCode, client::conn::http1, header::HOST};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use serde_json::Value;
use tokio::{
    net::{TcpSocket, TcpStream},
    sync::watch,
    task::JoinHandle,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{Certificates, FakeProxy, FakeVrrp};
use crate::{
    amphora::Amphora,
    config::{Config, HeartbeatConfig, Source, Sources},
    heartbeat::Vitals,
    metrics::Metrics,
    peers::Peers,
    plumbing::{Plumbing, PlumbingConfig},
    proxy_client::ProxyClient,
    reconfigure::Reconfigure,
    rest::{Api, Own, Server},
    store::Store,
    tls::ServerTls,
    vrrp::Vrrp,
    vrrp_client::VrrpClient,
};

/// An agent's REST side on a loopback port, and a fake proxy and VRRP daemon behind it.
pub(crate) struct TestAgent {
    pub(crate) proxy: FakeProxy,
    pub(crate) daemon: FakeVrrp,
    pub(crate) certificates: Certificates,
    pub(crate) amphora: Arc<Amphora>,
    pub(crate) vrrp: Arc<Vrrp>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) base: PathBuf,
    pub(crate) address: SocketAddr,
    pub(crate) heartbeat: watch::Receiver<HeartbeatConfig>,
    client: Arc<ClientConfig>,
    stop: watch::Sender<bool>,
    server: Option<JoinHandle<()>>,
    _directory: tempfile::TempDir,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {:?}", self.body))
    }

    pub(crate) fn code(&self) -> (u16, String) {
        (self.status.as_u16(), self.json()["code"].as_str().unwrap_or_default().to_owned())
    }
}

/// A configuration with everything below one directory.
pub(crate) fn config(directory: &Path) -> Config {
    let mut config = Config::parse(&format!(
        "[haproxy_amphora]\nbase_path = {0}/octavia\nbind_host = 127.0.0.1\n[amphora]\nrun_dir = {0}\n\
         [amphora_agent]\namphora_id = 0f66bb06-6ab9-5d2f-abb4-8f64a2a92e49\n\
         agent_server_ca = {0}/certs/client_ca.pem\nagent_server_cert = {0}/certs/server.pem\n",
        directory.display()
    ))
    .unwrap();
    config.bind.set_port(0);
    config.drain_timeout = Duration::from_secs(5);
    config
}

impl TestAgent {
    /// An agent with a willing proxy and VRRP daemon.
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// The same with another configuration.
    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut config = config(directory.path());
        change(&mut config);
        let mut proxy = FakeProxy::new(directory.path());
        proxy.start();
        let certificates = Certificates::new(&directory.path().join("certs"));
        let mut daemon = FakeVrrp::new(directory.path());
        daemon.start();
        let store = Arc::new(Store::open(&config.base_path).unwrap());
        let proxy_client = ProxyClient::new(config.control_socket.clone(), config.proxy_timeout);
        let amphora = Amphora::open(store.clone(), proxy_client).unwrap();
        let plumbing =
            Plumbing::open(PlumbingConfig { pci_rescan: None, ..(&config).into() }, store.clone()).unwrap();
        let peers = Peers::open(store.clone(), amphora.proxy().clone(), config.peers_file.is_some()).unwrap();
        let vrrp = Vrrp::open(store, VrrpClient::new(config.vrrp_control_socket.clone())).unwrap();
        let tls = Arc::new(ServerTls::load(config.certificates(), config.tls_protocol).unwrap());
        let (metrics, vitals) = (Arc::new(Metrics::default()), Arc::new(Vitals::default()));
        let (heartbeats, heartbeat) = watch::channel(config.heartbeat.clone());
        let file = Source::File(directory.path().join("agent.conf"));
        let reconfigure = Reconfigure::new(Sources::new(vec![file]), config.clone(), tls.clone(), heartbeats);
        let api = Api::new(
            &config,
            amphora.clone(),
            plumbing,
            vrrp.clone(),
            peers.clone(),
            Own { metrics: metrics.clone(), vitals, tls: tls.clone(), reconfigure },
        );
        let api = Arc::new(api);
        let server = Server::bind(config.bind, config.max_connections, tls, api, metrics).await.unwrap();
        let address = server.address().unwrap();
        let (stop, stopped) = watch::channel(false);
        let server = tokio::spawn(server.run(stopped, config.drain_timeout));
        let client = certificates.client(&certificates);
        Self {
            proxy,
            daemon,
            certificates,
            amphora,
            vrrp,
            peers,
            base: config.base_path,
            address,
            heartbeat,
            client,
            stop,
            server: Some(server),
            _directory: directory,
        }
    }

    /// Another agent over the same files and proxy, as after a restart; its start-up reconciliation is left to
    /// the test.
    pub(crate) fn restarted(&self) -> Arc<Amphora> {
        let store = Arc::new(Store::open(&self.base).unwrap());
        Amphora::open(store, self.amphora.proxy().clone()).unwrap()
    }

    /// The same of VRRP.
    pub(crate) fn restarted_vrrp(&self) -> Arc<Vrrp> {
        let store = Arc::new(Store::open(&self.base).unwrap());
        Vrrp::open(store, self.vrrp.daemon().clone()).unwrap()
    }

    /// The same of the peers.
    pub(crate) fn restarted_peers(&self) -> Arc<Peers> {
        let store = Arc::new(Store::open(&self.base).unwrap());
        Peers::open(store, self.amphora.proxy().clone(), false).unwrap()
    }

    /// Asks the server to stop, and waits until it has.
    pub(crate) async fn stop(&mut self) {
        self.stop.send_replace(true);
        self.server.take().unwrap().await.unwrap();
    }

    pub(crate) fn ask_to_stop(&self) {
        self.stop.send_replace(true);
    }

    pub(crate) async fn connect(&self) -> TlsStream<TcpStream> {
        self.connect_as(self.client.clone()).await.unwrap()
    }

    pub(crate) async fn connect_as(
        &self,
        client: Arc<ClientConfig>,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.address).await?;
        TlsConnector::from(client).connect("localhost".try_into().unwrap(), stream).await
    }

    /// A connection without TLS yet, from this address of the loopback interface.
    pub(crate) async fn tcp_from(&self, source: Ipv4Addr) -> std::io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(8192)?;
        socket.bind((source, 0).into())?;
        socket.connect(self.address).await
    }

    pub(crate) async fn connect_from(
        &self,
        source: Ipv4Addr,
        client: Arc<ClientConfig>,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = self.tcp_from(source).await?;
        TlsConnector::from(client).connect("localhost".try_into().unwrap(), stream).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.request(Method::GET, path, "").await
    }

    pub(crate) async fn put(&self, path: &str, body: &str) -> Answer {
        self.request(Method::PUT, path, body).await
    }

    pub(crate) async fn request(&self, method: Method, path: &str, body: &str) -> Answer {
        let request = Request::builder().method(method).uri(path).header(HOST, "localhost");
        self.send(request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).unwrap()).await
    }

    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Answer {
        let (mut sender, connection) = http1::handshake(TokioIo::new(self.connect().await)).await.unwrap();
        tokio::spawn(connection);
        let (head, body) = sender.send_request(request).await.unwrap().into_parts();
        Answer { status: head.status, headers: head.headers, body: body.collect().await.unwrap().to_bytes() }
    }
}
