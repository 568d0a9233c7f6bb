//! One amphora on this host: `amphora-agent --supervise`, which starts the proxy, and of a pair the VRRP daemon.

use std::{
    env, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    sys::signal::{self, Signal},
    unistd::{Pid, geteuid},
};
use serde_json::Value;
use tokio::time::Instant;
use uuid::Uuid;

use super::{
    Programs,
    process::{Process, leashed},
};
use crate::{
    client::{Client, TlsOptions},
    error::{Error, Result},
    host::AgentFile,
};

/// How long the agent may take until it answers, and until it and the proxy have ended.
const START: Duration = Duration::from_secs(20);
const GRACE: Duration = Duration::from_secs(15);

/// Where an amphora is, and who.
#[derive(Clone, Debug)]
pub(super) struct Site {
    /// Its agent's REST API.
    pub(super) agent: SocketAddr,
    /// Names its certificate.
    pub(super) id: Uuid,
    /// The network namespace of its data plane.
    pub(super) netns: Option<String>,
    /// Configuration, state and sockets.
    pub(super) dir: PathBuf,
    /// What `certs init` made, for this amphora among others.
    pub(super) certs: PathBuf,
    /// What its programs say.
    pub(super) log: PathBuf,
    /// Whether it is one of a pair, and so has VRRP.
    pub(super) paired: bool,
}

/// Where heartbeats go.
#[derive(Clone, Debug)]
pub(super) struct Controller {
    pub(super) address: SocketAddr,
    /// Signs them.
    pub(super) key: String,
}

/// A running amphora. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Amphora {
    process: Process,
    /// The agent, its configuration and its log, to start it again.
    program: PathBuf,
    file: PathBuf,
    log: PathBuf,
    paired: bool,
    /// Speaks to its agent.
    pub(super) client: Client,
}

impl Amphora {
    /// Makes a configuration file, and starts the agent.
    ///
    /// # Errors
    /// [`Error::Local`]: a program is not there, or a file cannot be written.
    pub(super) fn start(site: &Site, programs: &Programs, controller: &Controller) -> Result<Self> {
        let program = programs.agent()?;
        let file = site.dir.join("amphora-agent.conf");
        fs::write(&file, configuration(site, programs, controller))
            .map_err(|e| Error::local(file.display(), e))?;
        let process = launch(&program, &file, &site.log)?;
        let tls = TlsOptions { certs: Some(site.certs.clone()), ..TlsOptions::default() }.client_config()?;
        let endpoint = format!("https://{}@{}", site.id, site.agent).parse().map_err(Error::Local)?;
        let client = Client::new(endpoint, tls, None, Duration::from_secs(30));
        Ok(Self { process, program, file, log: site.log.clone(), paired: site.paired, client })
    }

    /// Starts the agent again, as a host does that comes back with its disk.
    ///
    /// # Errors
    /// [`Error::Local`]: it cannot be started.
    pub(super) fn restart(&mut self) -> Result<()> {
        self.process = launch(&self.program, &self.file, &self.log)?;
        Ok(())
    }

    /// SIGKILL for the agent and for `daemons`, which are its children: nothing is said to anyone. The agent comes
    /// first, because it would start them again.
    pub(super) fn strike(&self, daemons: &[u32]) {
        self.process.strike();
        daemons.iter().for_each(|pid| kill(*pid));
    }

    /// Waits for the end of an agent that was killed.
    pub(super) async fn reap(&mut self) {
        self.process.kill().await;
    }

    /// Waits until the agent answers and its daemons run, and returns what it says of itself.
    ///
    /// # Errors
    /// It ended, or took too long.
    pub(super) async fn ready(&mut self) -> Result<Value> {
        let deadline = Instant::now() + START;
        loop {
            match self.running().await {
                Ok(Some(info)) => return Ok(info),
                _ if self.ended() => {
                    return Err(Error::Local("amphora-agent ended while starting".to_owned()));
                }
                Ok(None) if Instant::now() > deadline => {
                    return Err(Error::Local(format!("not all of it runs after {} s", START.as_secs())));
                }
                Err(error) if Instant::now() > deadline => return Err(error),
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// What the agent says of itself once its daemons run.
    async fn running(&self) -> Result<Option<Value>> {
        let info = self.client.info().await?;
        let vrrp = !self.paired || self.client.vrrp_status().await?.is_some();
        Ok(Some(info).filter(|info| vrrp && info.get("proxy").is_none_or(|proxy| !proxy.is_null())))
    }

    /// True when the agent is gone.
    pub(super) fn ended(&mut self) -> bool {
        self.process.ended()
    }

    /// Ends agent and proxy in order.
    pub(super) async fn stop(&mut self) {
        self.process.stop(GRACE).await;
    }
}

/// SIGKILL for one process.
pub(super) fn kill(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().filter(|pid| *pid > 1) {
        let _ = signal::kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

impl Programs {
    /// Where it was said to be, else beside this program.
    pub(super) fn agent(&self) -> Result<PathBuf> {
        let path = match &self.agent {
            Some(path) => path.clone(),
            None => env::current_exe()
                .map_err(|e| Error::local("amphora-agent", e))?
                .with_file_name("amphora-agent"),
        };
        there(path)
    }

    /// Whether there is a VRRP daemon: where it was said to be, else beside the agent, which looks there for it.
    ///
    /// # Errors
    /// [`Error::Local`]: there is none.
    pub(super) fn check_vrrp(&self) -> Result<()> {
        let path = match &self.vrrp {
            Some(path) => path.clone(),
            None => self.agent()?.with_file_name("amphora-vrrp"),
        };
        there(path).map(drop)
    }
}

fn there(path: PathBuf) -> Result<PathBuf> {
    if path.is_file() {
        return Ok(path);
    }
    Err(Error::Local(format!("{} is not there; `cargo build --workspace` makes it", path.display())))
}

fn launch(agent: &Path, file: &Path, log: &Path) -> Result<Process> {
    let mut command = leashed(agent)?;
    command.arg("--supervise").arg("--config-file").arg(file);
    Process::start(command, log)
}

fn configuration(site: &Site, programs: &Programs, controller: &Controller) -> String {
    let id = site.id.to_string();
    AgentFile {
        bind: site.agent,
        id: &id,
        dir: &site.dir,
        ca: site.certs.join("ca.pem"),
        certificate: site.certs.join(format!("server-{id}.pem")),
        heartbeats: Some((controller.address, &controller.key, 1)),
        paired: site.paired,
        netns: site.netns.as_deref(),
        // No package has made users here.
        user: geteuid().is_root().then_some("nobody"),
        drain_timeout: Some(2),
        proxy: programs.proxy.as_deref(),
        vrrp: programs.vrrp.as_deref(),
    }
    .text()
}
