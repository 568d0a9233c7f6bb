//! `--supervise`: the proxy, and for a pair the VRRP daemon, as children of the agent, for containers and hosts without
//! systemd.
//!
//! [`restart`] decides when to start, terminate and kill; it has no process and no clock. [`process`] is one
//! process, our own child or one that a former agent left running. [`Supervisor`] is the loop around them.

pub mod process;
pub mod restart;
mod users;

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use amphora_sandbox::Account;
use nix::unistd::{AccessFlags, access};
use prometheus::IntCounter;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

pub use self::users::Users;
use self::{
    process::{Command, Process},
    restart::{Action, Restart},
};
use crate::{
    config::{Config, Topology},
    metrics::Metrics,
    store::Kept,
};

/// How long to wait before looking again at a process that runs but cannot be found.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// How much longer than its own bound a proxy may take to end before it is killed.
const KILL_AFTER: Duration = Duration::from_secs(1);

/// How long a VRRP daemon may take to say good-bye and to give up its addresses before it is killed.
const VRRP_GRACE: Duration = Duration::from_secs(5);

/// Keeps one program running.
#[derive(Debug)]
pub struct Supervisor {
    /// What it is called in the log.
    name: &'static str,
    command: Command,
    /// Its control socket.
    socket: PathBuf,
    metrics: Arc<Metrics>,
    starts: fn(&Metrics) -> &IntCounter,
    grace: Duration,
}

impl Supervisor {
    /// A supervisor of the proxy that the configuration describes.
    pub fn proxy(config: &Config, users: &Users, metrics: Arc<Metrics>) -> Self {
        let mut arguments = vec![
            "--state-dir".into(),
            config.base_path.clone().into_os_string(),
            "--control-socket".into(),
            config.control_socket.clone().into_os_string(),
            "--drain-timeout".into(),
            config.drain_timeout.as_secs().to_string().into(),
        ];
        if let Some(socket) = &config.log_socket {
            arguments.extend(["--log-socket".into(), socket.clone().into_os_string()]);
        }
        if let Some(workers) = config.proxy_workers {
            arguments.extend(["--workers".into(), workers.to_string().into()]);
        }
        arguments.extend(namespace(config));
        arguments.extend(user("--user", users.proxy.as_ref()));
        // A daemon of another user could not connect to the fitness socket, and the address would have no master.
        let asker = users.vrrp.as_ref().filter(|_| config.topology == Topology::ActiveStandby);
        arguments.extend(user("--fitness-user", asker));
        let own = || config.base_path.join(Kept::Peers.current());
        arguments.extend(["--peers-file".into(), config.peers_file.clone().unwrap_or_else(own).into()]);
        let program = proxy_program(config);
        Self {
            name: "proxy",
            command: Command::new(program, arguments, config.run_dir.join("amphora-proxy.lock")),
            socket: config.control_socket.clone(),
            metrics,
            starts: |metrics| &metrics.proxy_starts,
            grace: config.drain_timeout + KILL_AFTER,
        }
    }

    /// A supervisor of the VRRP daemon that the configuration describes.
    pub fn vrrp(config: &Config, users: &Users, metrics: Arc<Metrics>) -> Self {
        let mut arguments = vec![
            "--config".into(),
            config.base_path.join(Kept::Vrrp.current()).into_os_string(),
            "--control-socket".into(),
            config.vrrp_control_socket.clone().into_os_string(),
            "--fitness-socket".into(),
            amphora_ipc::fitness::socket_beside(&config.control_socket).into(),
            "--fitness-interval".into(),
            config.vrrp_fitness_interval.as_millis().to_string().into(),
        ];
        arguments.extend(namespace(config));
        arguments.extend(user("--user", users.vrrp.as_ref()));
        let program = vrrp_program(config);
        Self {
            name: "VRRP daemon",
            command: Command::new(program, arguments, config.run_dir.join("amphora-vrrp.lock")),
            socket: config.vrrp_control_socket.clone(),
            metrics,
            starts: |metrics| &metrics.vrrp_starts,
            grace: VRRP_GRACE,
        }
    }

    /// Runs until `stop` becomes true and the process has ended. `started` is called whenever one was started or
    /// found. Cancelled, it leaves the process running.
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
                        tracing::warn!(
                            pid = process.pid(),
                            "the {} takes too long to end; killing it",
                            self.name
                        );
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
                        tracing::info!(%status, "the {} ended", self.name);
                    } else {
                        tracing::warn!(%status, "the {} ended", self.name);
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
                let program = self.command.program().display();
                tracing::error!(%program, %error, "cannot start the {}", self.name);
                restart.handle_exited(now());
                None
            }
        }
    }

    /// The process that runs already, else a new one. `None` when one runs that cannot be found yet.
    async fn find_or_spawn(&self) -> io::Result<Option<Process>> {
        let name = self.name;
        if let Some(process) = Process::listening_on(&self.socket).await? {
            tracing::info!(pid = process.pid(), "took over the running {name}");
            return Ok(Some(process));
        }
        let Some(lock) = self.command.lock()? else {
            let found = self.command.find()?;
            if let Some(process) = &found {
                tracing::info!(
                    pid = process.pid(),
                    "took over the running {name}, which does not answer yet"
                );
            }
            return Ok(found);
        };
        let process = self.command.spawn(lock)?;
        (self.starts)(&self.metrics).inc();
        tracing::info!(pid = process.pid(), "started the {name}");
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

fn namespace(config: &Config) -> impl Iterator<Item = OsString> {
    config.network_namespace.iter().flat_map(|name| ["--netns".into(), name.into()])
}

fn user(option: &str, account: Option<&Account>) -> impl Iterator<Item = OsString> {
    account.into_iter().flat_map(move |account| [option.into(), account.name().into()])
}

fn proxy_program(config: &Config) -> PathBuf {
    config.proxy_cmd.clone().unwrap_or_else(|| beside_this_program("amphora-proxy"))
}

fn vrrp_program(config: &Config) -> PathBuf {
    config.vrrp_cmd.clone().unwrap_or_else(|| beside_this_program("amphora-vrrp"))
}

/// The programs that are supervised, by what they are called.
pub fn programs(config: &Config) -> Vec<(&'static str, PathBuf)> {
    let mut programs = vec![("the proxy", proxy_program(config))];
    if config.topology == Topology::ActiveStandby {
        programs.push(("the VRRP daemon", vrrp_program(config)));
    }
    programs
}

/// Whether a program can be started.
///
/// # Errors
/// Why not.
pub fn check(program: &Path) -> io::Result<()> {
    if !program.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a file"));
    }
    access(program, AccessFlags::X_OK)
        .map_err(|_| io::Error::new(io::ErrorKind::PermissionDenied, "not executable by this user"))
}

fn beside_this_program(name: &str) -> PathBuf {
    let beside = std::env::current_exe().ok().map(|exe| exe.with_file_name(name));
    beside.unwrap_or_else(|| PathBuf::from(name))
}

#[cfg(test)]
mod tests;
