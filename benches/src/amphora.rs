//! A whole amphora on loopback: `amphora-agent --supervise` with certificates of its own, and the proxy that it
//! starts.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
    sync::Arc,
    time::Duration,
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    crypto::aws_lc_rs,
    pki_types::{PrivateKeyDer, ServerName},
};

use crate::{
    Result,
    control::{Control, exchange},
    document::Document,
    process::Process,
};

const DEADLINE: Duration = Duration::from_secs(30);

/// A running amphora. Dropping it stops it.
#[derive(Debug)]
pub struct Amphora {
    /// The agent; the proxy is its child.
    pub agent: Process,
    /// The proxy's control socket.
    pub control: Control,
    rest: SocketAddr,
    tls: Arc<ClientConfig>,
}

impl Amphora {
    /// Starts agent and proxy on `core` with their files in `dir`, and waits until both answer. Heartbeats go to
    /// `controller` every second.
    pub fn start(
        agent: &Path,
        proxy: &Path,
        workers: usize,
        dir: &Path,
        rest: SocketAddr,
        controller: SocketAddr,
        core: usize,
    ) -> Result<Self> {
        let state = dir.join("state");
        fs::create_dir_all(&state)?;
        // The proxy, which runs as another user where this is root, has to pass.
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
        // One certificate for both sides, which is its own authority.
        let cert = rcgen::generate_simple_self_signed([rest.ip().to_string()])?;
        let (ca, server) = (dir.join("ca.pem"), dir.join("server.pem"));
        fs::write(&ca, cert.cert.pem())?;
        fs::write(&server, cert.cert.pem() + &cert.signing_key.serialize_pem())?;
        let config = dir.join("amphora-agent.conf");
        let text = format!(
            "[haproxy_amphora]\nbase_path = {}\nbind_host = {}\nbind_port = {}\n\
             [health_manager]\ncontroller_ip_port_list = {controller}\nheartbeat_interval = 1\nheartbeat_key = bench\n\
             [amphora_agent]\nagent_server_ca = {}\nagent_server_cert = {}\namphora_id = bench\n\
             [controller_worker]\nloadbalancer_topology = SINGLE\n\
             [amphora]\nproxy_cmd = {}\nrun_dir = {}\nproxy_workers = {workers}\n",
            state.display(),
            rest.ip(),
            rest.port(),
            ca.display(),
            server.display(),
            fs::canonicalize(proxy).map_err(|e| format!("{}: {e}", proxy.display()))?.display(),
            dir.display(),
        );
        fs::write(&config, text)?;
        let mut roots = RootCertStore::empty();
        roots.add(cert.cert.der().clone())?;
        let key = PrivateKeyDer::try_from(cert.signing_key.serialize_der())?;
        let tls = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![cert.cert.der().clone()], key)?;

        let mut command = Command::new(agent);
        command.arg("--supervise").arg("--config-file").arg(&config);
        let log = dir.join("output.log");
        let mut amphora = Self {
            agent: Process::start(command, core, &log)?,
            control: Control::new(&dir.join("proxy.sock")),
            rest,
            tls: tls.into(),
        };
        let (client, control) = (amphora.client(), amphora.control.clone());
        amphora
            .agent
            .wait_ready(&log, || client("GET", "/2.0/info", b"").is_ok() && control.info().is_ok())?;
        Ok(amphora)
    }

    /// Makes a document run, by the agent's REST.
    pub fn apply(&self, document: &Document) -> Result<()> {
        self.put(&document.loadbalancer.id.to_string(), &document.to_json())
    }

    /// The same with the text of a document.
    pub fn put(&self, id: &str, document: &[u8]) -> Result<()> {
        self.client()("PUT", &format!("/2.0/loadbalancers/{id}"), document).map(drop)
    }

    fn client(&self) -> impl Fn(&str, &str, &[u8]) -> Result<Vec<u8>> + use<> {
        let (rest, tls) = (self.rest, self.tls.clone());
        move |method, target, body| {
            let stream = TcpStream::connect_timeout(&rest, DEADLINE)?;
            stream.set_read_timeout(Some(DEADLINE))?;
            stream.set_write_timeout(Some(DEADLINE))?;
            let session = ClientConnection::new(tls.clone(), ServerName::from(rest.ip()))?;
            exchange(&mut StreamOwned::new(session, stream), method, target, body)
        }
    }
}
