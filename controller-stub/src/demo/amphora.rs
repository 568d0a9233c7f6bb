//! One amphora on this host: `amphora-agent --supervise`, which starts the proxy.

use std::{
    env, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;
use tokio::time::Instant;
use uuid::Uuid;

use super::{
    Programs,
    process::{Process, leashed},
    topology::Topology,
};
use crate::{
    certs,
    client::{Client, TlsOptions},
    error::{Error, Result},
};

/// How long the agent may take until it answers, and until it and the proxy have ended.
const START: Duration = Duration::from_secs(20);
const GRACE: Duration = Duration::from_secs(15);

/// A running amphora. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Amphora {
    process: Process,
    /// Speaks to its agent.
    pub(super) client: Client,
}

impl Amphora {
    /// Makes certificates and a configuration file, and starts the agent. Heartbeats go to `heartbeats`, signed
    /// with `key`.
    ///
    /// # Errors
    /// [`Error::Local`]: a program is not there, or a file cannot be written.
    pub(super) fn start(
        topology: &Topology,
        programs: &Programs,
        heartbeats: SocketAddr,
        key: &str,
    ) -> Result<Self> {
        let id = Uuid::new_v4();
        let dir = &topology.dir;
        let request = certs::Request { amphorae: vec![id], hosts: Vec::new(), days: 1, force: false };
        certs::init(&dir.join("certs"), &request)?;
        let file = dir.join("amphora-agent.conf");
        fs::write(&file, configuration(topology, programs, id, heartbeats, key))
            .map_err(|e| Error::local(file.display(), e))?;
        let mut command = leashed(&find(&programs.agent, "amphora-agent")?)?;
        command.arg("--supervise").arg("--config-file").arg(&file);
        let process = Process::start(command, &dir.join("log/amphora.log"))?;
        let tls = TlsOptions { certs: Some(dir.join("certs")), ..TlsOptions::default() }.client_config()?;
        let endpoint = format!("https://{id}@{}", topology.agent).parse().map_err(Error::Local)?;
        Ok(Self { process, client: Client::new(endpoint, tls, None, Duration::from_secs(30)) })
    }

    /// Waits until the agent answers and its proxy runs, and returns what it says of itself.
    ///
    /// # Errors
    /// It ended, or took too long.
    pub(super) async fn ready(&mut self) -> Result<Value> {
        let deadline = Instant::now() + START;
        loop {
            let answer = self.client.info().await;
            match answer {
                Ok(info) if info.get("proxy").is_none_or(|proxy| !proxy.is_null()) => return Ok(info),
                _ if self.ended() => {
                    return Err(Error::Local("amphora-agent ended while starting".to_owned()));
                }
                Ok(_) if Instant::now() > deadline => {
                    return Err(Error::Local(format!("no proxy runs after {} s", START.as_secs())));
                }
                Err(error) if Instant::now() > deadline => return Err(error),
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// True when the agent is gone.
    pub(super) fn ended(&mut self) -> bool {
        self.process.ended()
    }

    /// Ends agent and proxy in order.
    pub(super) async fn stop(self) {
        self.process.stop(GRACE).await;
    }
}

/// A program: where it was said to be, else beside this one.
fn find(given: &Option<PathBuf>, name: &str) -> Result<PathBuf> {
    let path = match given {
        Some(path) => path.clone(),
        None => env::current_exe().map_err(|e| Error::local(name, e))?.with_file_name(name),
    };
    if path.is_file() {
        return Ok(path);
    }
    Err(Error::Local(format!("{} is not there; `cargo build --workspace` makes it", path.display())))
}

fn configuration(
    topology: &Topology,
    programs: &Programs,
    id: Uuid,
    heartbeats: SocketAddr,
    key: &str,
) -> String {
    let dir = topology.dir.display();
    let agent = topology.agent;
    let mut text = format!(
        "[haproxy_amphora]\n\
         base_path = {dir}/state\n\
         bind_host = {}\n\
         bind_port = {}\n\
         [health_manager]\n\
         controller_ip_port_list = {heartbeats}\n\
         heartbeat_interval = 1\n\
         heartbeat_key = {key}\n\
         [amphora_agent]\n\
         agent_server_ca = {dir}/certs/ca.pem\n\
         agent_server_cert = {dir}/certs/server-{id}.pem\n\
         amphora_id = {id}\n\
         [controller_worker]\n\
         loadbalancer_topology = SINGLE\n\
         [amphora]\n\
         run_dir = {dir}/run\n\
         drain_timeout = 2\n",
        agent.ip(),
        agent.port(),
    );
    if let Some(netns) = topology.amphora_netns() {
        text.push_str(&format!("network_namespace = {netns}\n"));
    }
    if let Some(proxy) = programs.proxy.as_deref().map(Path::display) {
        text.push_str(&format!("proxy_cmd = {proxy}\n"));
    }
    text
}
