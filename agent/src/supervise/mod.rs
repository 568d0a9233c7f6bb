//! `--supervise`: the proxy as a child of the agent, for containers and hosts without systemd.
//!
//! [`restart`] decides when to start, terminate and kill; it has no process and no clock. [`process`] is one
//! process, our own child or one that a former agent left running. [`Supervisor`] is the loop around them.

pub mod process;
pub mod restart;

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use self::{
    process::{Command, Process},
    restart::{Action, Restart},
};
use crate::{config::Config, metrics::Metrics, proxy_client::ProxyClient};

/// How long to wait before looking again at a process that runs but cannot be found.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// How much longer than its own bound a proxy may take to end before it is killed.
const KILL_AFTER: Duration = Duration::from_secs(1);

/// Keeps one proxy running.
#[derive(Debug)]
pub struct Supervisor {
    command: Command,
    client: ProxyClient,
    metrics: Arc<Metrics>,
    grace: Duration,
}

impl Supervisor {
    /// A supervisor of the proxy that the configuration describes.
    pub fn new(config: &Config, client: ProxyClient, metrics: Arc<Metrics>) -> Self {
        let mut arguments = vec![
            "--state-dir".into(),
            config.base_path.clone().into_os_string(),
            "--control-socket".into(),
            config.control_socket.clone().into_os_string(),
            "--drain-timeout".into(),
            config.drain_timeout.as_secs().to_string().into(),
        ];
        if let Some(workers) = config.proxy_workers {
            arguments.extend(["--workers".into(), workers.to_string().into()]);
        }
        if let Some(namespace) = &config.network_namespace {
            arguments.extend(["--netns".into(), namespace.into()]);
        }
        if let Some(file) = &config.peers_file {
            arguments.extend(["--peers-file".into(), file.into()]);
        }
        let program = config.proxy_cmd.clone().unwrap_or_else(beside_this_program);
        let command = Command::new(program, arguments, config.run_dir.join("amphora-proxy.lock"));
        Self { command, client, metrics, grace: config.drain_timeout + KILL_AFTER }
    }

    /// Runs until `stop` becomes true and the proxy has ended. `started` is called whenever a proxy was started or
    /// found.
    pub async fn run(self, mut stop: watch::Receiver<bool>, started: impl Fn()) {
        let mut restart = Restart::new(self.grace);
        let mut process: Option<Process> = None;
        loop {
            while let Some(action) = restart.poll_action() {
                match (action, &process) {
                    (Action::Start, _) => {
                        process = self.start(&mut restart).await;
                        if process.is_some() {
                            started();
                        }
                    }
                    (Action::Terminate, Some(process)) => process.terminate(),
                    (Action::Kill, Some(process)) => {
                        tracing::warn!(pid = process.pid(), "the proxy outlives drain_timeout; killing it");
                        process.kill();
                    }
                    (Action::Terminate | Action::Kill, None) => {}
                }
            }
            if restart.is_finished() {
                return;
            }
            let timer = restart.poll_timeout().map(Instant::from_std);
            let stopping = restart.is_stopping();
            tokio::select! {
                status = wait(&mut process) => {
                    if stopping {
                        tracing::info!(%status, "the proxy ended");
                    } else {
                        tracing::warn!(%status, "the proxy ended");
                    }
                    process = None;
                    restart.handle_exited(Instant::now().into_std());
                }
                () = sleep_until(timer.unwrap_or_else(Instant::now)), if timer.is_some() => {
                    restart.handle_timeout(Instant::now().into_std());
                }
                () = stopped(&mut stop), if !stopping => {
                    restart.handle_stop(Instant::now().into_std());
                }
            }
        }
    }

    async fn start(&self, restart: &mut Restart) -> Option<Process> {
        let now = || Instant::now().into_std();
        match self.find_or_spawn().await {
            Ok(Some(process)) => {
                restart.handle_started(now());
                Some(process)
            }
            Ok(None) => {
                restart.handle_deferred(now(), LOOK_AGAIN);
                None
            }
            Err(error) => {
                tracing::error!(program = %self.command.program().display(), %error, "cannot start the proxy");
                restart.handle_exited(now());
                None
            }
        }
    }

    /// The proxy that runs already, else a new one. `None` when one runs that cannot be found yet.
    async fn find_or_spawn(&self) -> std::io::Result<Option<Process>> {
        if let Ok(info) = self.client.info().await
            && let Some(process) = Process::adopt(info.pid)?
        {
            tracing::info!(pid = info.pid, "took over the running proxy");
            return Ok(Some(process));
        }
        let Some(lock) = self.command.lock()? else {
            let found = self.command.find()?;
            if let Some(process) = &found {
                tracing::info!(pid = process.pid(), "took over the running proxy, which does not answer yet");
            }
            return Ok(found);
        };
        let process = self.command.spawn(lock)?;
        self.metrics.proxy_starts.increment();
        tracing::info!(pid = process.pid(), "started the proxy");
        Ok(Some(process))
    }
}

async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn wait(process: &mut Option<Process>) -> String {
    match process {
        Some(process) => process.wait().await,
        None => std::future::pending().await,
    }
}

fn beside_this_program() -> PathBuf {
    let beside = std::env::current_exe().ok().map(|exe| exe.with_file_name("amphora-proxy"));
    beside.unwrap_or_else(|| PathBuf::from("amphora-proxy"))
}

#[cfg(test)]
mod tests;
