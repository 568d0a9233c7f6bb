//! Real processes: a script stands for the proxy.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{sync::watch, task::JoinHandle, time::timeout};

use super::*;
use crate::{
    config::Config,
    metrics::Metrics,
    testing::{agent, eventually},
};

/// A supervisor of one of the programs.
type MakeSupervisor = fn(&Config, Arc<Metrics>) -> Supervisor;

struct Supervised {
    config: Config,
    directory: tempfile::TempDir,
    supervisor: MakeSupervisor,
    metrics: Arc<Metrics>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Supervised {
    /// Supervises a script that notes its process id and arguments before it goes on with `body`.
    fn new(body: &str) -> Self {
        Self::with(body, Self::proxy)
    }

    fn with(body: &str, supervisor: MakeSupervisor) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let script = directory.path().join("proxy");
        let text = format!(
            "#!/bin/sh\necho $$ >> {0}/pids\necho \"$@\" > {0}/arguments\n{body}\n",
            directory.path().display()
        );
        fs::write(&script, text).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        let mut config = agent::config(directory.path());
        config.proxy_cmd = Some(script.clone());
        config.vrrp_cmd = Some(script);
        config.drain_timeout = Duration::from_millis(300);
        let (metrics, stop, task) = Self::start(supervisor, &config);
        Self { config, directory, supervisor, metrics, stop, task }
    }

    fn proxy(config: &Config, metrics: Arc<Metrics>) -> Supervisor {
        Supervisor::proxy(config, &Users::default(), metrics)
    }

    fn vrrp(config: &Config, metrics: Arc<Metrics>) -> Supervisor {
        Supervisor::vrrp(config, &Users::default(), metrics)
    }

    fn start(
        supervisor: MakeSupervisor,
        config: &Config,
    ) -> (Arc<Metrics>, watch::Sender<bool>, JoinHandle<()>) {
        let metrics = Arc::new(Metrics::default());
        let supervisor = supervisor(config, metrics.clone());
        let (stop, stopped) = watch::channel(false);
        (metrics, stop, tokio::spawn(supervisor.run(stopped, || {})))
    }

    /// As when the agent is killed and started again.
    fn restart(&mut self) {
        self.task.abort();
        (self.metrics, self.stop, self.task) = Self::start(self.supervisor, &self.config);
    }

    fn pids(&self) -> Vec<u32> {
        let text = fs::read_to_string(self.directory.path().join("pids")).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    async fn started(&self, count: usize) -> u32 {
        eventually("the process is started", async || self.pids().len() >= count).await;
        self.pids()[count - 1]
    }

    async fn stop(&mut self) {
        self.stop.send_replace(true);
        timeout(Duration::from_secs(10), &mut self.task).await.expect("stopping ends").unwrap();
    }
}

fn alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

fn kill(pid: u32) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
}

#[tokio::test]
async fn each_program_is_told_where_everything_is() {
    let proxy = "--state-dir {0}/octavia --control-socket {0}/proxy.sock --drain-timeout 0 \
                 --peers-file {0}/octavia/peers.json\n";
    let vrrp = "--config {0}/octavia/vrrp.conf --control-socket {0}/vrrp.sock \
                --fitness-socket {0}/proxy.sock.fitness --fitness-interval 25\n";
    let options = "--state-dir {0}/octavia --control-socket {0}/proxy.sock --drain-timeout 0 \
                   --log-socket /run/log --workers 2 --peers-file {0}/octavia/peers.json\n";
    let with_options: MakeSupervisor = |config, metrics| {
        let (log_socket, proxy_workers) = (Some("/run/log".into()), Some(2));
        Supervised::proxy(&Config { log_socket, proxy_workers, ..config.clone() }, metrics)
    };
    let programs: [(&str, MakeSupervisor); 3] =
        [(proxy, Supervised::proxy), (options, with_options), (vrrp, Supervised::vrrp)];
    for (expected, supervisor) in programs {
        let mut supervised = Supervised::with("exec sleep 1000", supervisor);
        supervised.started(1).await;
        let arguments = supervised.directory.path().join("arguments");
        let expected = expected.replace("{0}", &supervised.directory.path().display().to_string());
        eventually("the arguments are noted", async || {
            fs::read_to_string(&arguments).is_ok_and(|text| text == expected)
        })
        .await;
        supervised.stop().await;
    }
}

#[tokio::test]
async fn a_killed_vrrp_daemon_is_started_again_and_its_lock_is_its_own() {
    let mut supervised = Supervised::with("exec sleep 1000", Supervised::vrrp);
    let first = supervised.started(1).await;
    kill(first);
    let second = supervised.started(2).await;
    let lock = supervised.config.run_dir.join("amphora-vrrp.lock");
    eventually("it can be found", async || {
        fs::read_to_string(&lock).unwrap().starts_with(&second.to_string())
    })
    .await;
    supervised.restart();
    tokio::time::sleep(LOOK_AGAIN * 2).await;
    assert_eq!((supervised.pids(), supervised.metrics.vrrp_starts.get()), (vec![first, second], 0));
    supervised.stop().await;
    assert!(!alive(second));
}

#[tokio::test]
async fn a_killed_proxy_is_started_again() {
    let mut supervised = Supervised::new("exec sleep 1000");
    let first = supervised.started(1).await;
    kill(first);
    let second = supervised.started(2).await;
    assert!(first != second && alive(second));
    supervised.stop().await;
    assert!(!alive(second));
    assert_eq!(supervised.metrics.proxy_starts.get(), 2);
}

#[tokio::test]
async fn one_that_ignores_sigterm_is_killed() {
    let mut supervised = Supervised::new("trap '' TERM\nwhile :; do sleep 0.05; done");
    let pid = supervised.started(1).await;
    supervised.stop().await;
    assert!(!alive(pid));
}

#[tokio::test]
async fn a_restarted_agent_takes_over_and_starts_no_second_one() {
    let mut supervised = Supervised::new("exec sleep 1000");
    let pid = supervised.started(1).await;
    // The number is in the lock file a moment after the start.
    let lock = supervised.config.run_dir.join("amphora-proxy.lock");
    eventually("it can be found", async || fs::read_to_string(&lock).unwrap().starts_with(&pid.to_string()))
        .await;
    supervised.restart();
    tokio::time::sleep(LOOK_AGAIN * 2).await;
    assert!(alive(pid));
    assert_eq!((supervised.pids(), supervised.metrics.proxy_starts.get()), (vec![pid], 0));
    kill(pid);
    let second = supervised.started(2).await;
    assert!(alive(second), "and it notices its end");
    supervised.restart();
    tokio::time::sleep(LOOK_AGAIN).await;
    supervised.stop().await;
    assert!(!alive(second), "and it stops what it took over");
}

#[tokio::test]
async fn a_program_that_is_missing_is_tried_again() {
    let mut supervised = Supervised::new("exec sleep 1000");
    let pid = supervised.started(1).await;
    let program: PathBuf = supervised.config.proxy_cmd.clone().unwrap();
    let away: &Path = &program.with_extension("away");
    fs::rename(&program, away).unwrap();
    kill(pid);
    tokio::time::sleep(restart::FIRST_DELAY * 3).await;
    fs::rename(away, &program).unwrap();
    supervised.started(2).await;
    supervised.stop().await;
}

#[test]
fn another_process_with_the_same_number_is_not_taken_for_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("lock");
    let command = process::Command::new("/bin/true".into(), Vec::new(), path.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _guard = runtime.enter();
    let own = std::process::id();
    for text in ["", "x", "1", &format!("{own} 1"), "999999999 1"] {
        fs::write(&path, text).unwrap();
        assert!(command.find().unwrap().is_none(), "{text:?}");
    }
    let held = command.lock().unwrap();
    assert!(held.is_some() && command.lock().unwrap().is_none());
}
