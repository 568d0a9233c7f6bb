//! The program itself: how it starts, stops, dies and comes back.
#![allow(clippy::unwrap_used, missing_docs)]
#![allow(clippy::disallowed_methods, reason = "tests may block")]

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

struct Host {
    directory: tempfile::TempDir,
}

impl Host {
    /// A directory with certificates, a configuration, and a script that stands for the proxy.
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(vec!["amphora".to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
        fs::write(path.join("client_ca.pem"), ca.pem()).unwrap();
        fs::write(path.join("server.pem"), format!("{}{}", key.serialize_pem(), certificate.pem())).unwrap();
        let script = format!("#!/bin/sh\necho $$ >> {}/pids\nexec sleep 1000\n", path.display());
        fs::write(path.join("proxy"), script).unwrap();
        fs::set_permissions(path.join("proxy"), fs::Permissions::from_mode(0o755)).unwrap();
        let this = Self { directory };
        this.configure("");
        this
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Port 0 lets the kernel choose, so that tests do not meet.
    fn configure(&self, more: &str) {
        let text = format!(
            "[DEFAULT]\nroot = {}\n[haproxy_amphora]\nbase_path = $root/octavia\nbind_host = 127.0.0.1\n\
             bind_port = 0\n[amphora_agent]\namphora_id = a\nagent_server_ca = $root/client_ca.pem\n\
             agent_server_cert = $root/server.pem\n[amphora]\nrun_dir = $root/run\nproxy_cmd = $root/proxy\n\
             drain_timeout = 2\n{more}",
            self.path().display()
        );
        fs::write(self.path().join("agent.conf"), text).unwrap();
    }

    fn agent(&self, arguments: &[&str]) -> Agent {
        let mut command = Command::new(env!("CARGO_BIN_EXE_amphora-agent"));
        command.arg("--config-file").arg(self.path().join("agent.conf")).args(arguments);
        let log = fs::File::create(self.path().join("log")).unwrap();
        Agent(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path().join("log")).unwrap_or_default()
    }

    fn pids(&self) -> Vec<i32> {
        let text = fs::read_to_string(self.path().join("pids")).unwrap_or_default();
        text.lines().map(|line| line.parse().unwrap()).collect()
    }
}

/// Killed when a test fails half-way.
struct Agent(Child);

impl Agent {
    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.0.id()).unwrap()), signal).unwrap();
    }

    fn ends(&mut self) -> Option<i32> {
        let mut status = None;
        eventually("the agent ends", || {
            status = self.0.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap().code()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "not within twenty seconds: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

fn refused(host: &Host) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_amphora-agent"));
    command.arg("--config-file").arg(host.path().join("agent.conf")).output().unwrap()
}

#[test]
fn sigterm_ends_it_with_0_and_its_proxy_with_it() {
    let host = Host::new();
    let mut agent = host.agent(&["--supervise"]);
    eventually("the proxy is started", || host.pids().len() == 1);
    // The last that it says of a start.
    eventually("the agent is ready", || {
        host.log().contains("ready") && host.log().contains("no heartbeats are sent")
    });
    let log = host.log();
    assert!(
        !log.contains("does not run what is stored"),
        "a proxy that has just been started is waited for: {log}"
    );
    assert!(log.contains("amphora_id: \"a\" is not a UUID"), "{log}");
    let before = log.len();
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.ends(), Some(0), "{}", host.log());
    assert!(!alive(host.pids()[0]));
    let log = host.log().split_off(before);
    assert!(log.contains("the proxy ended") && !log.contains("WARN") && !log.contains("ERROR"), "{log}");
}

/// Units are hardened with `UMask=0077`.
#[test]
fn programs_of_other_users_look_into_its_directories_whatever_its_umask() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: not root, so its programs are of the same user");
        return;
    }
    let host = Host::new();
    let mut command = Command::new("sh");
    command.args(["-c", "umask 077; exec \"$0\" --supervise --config-file \"$1\""]);
    command.arg(env!("CARGO_BIN_EXE_amphora-agent")).arg(host.path().join("agent.conf"));
    let mut agent = Agent(command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    eventually("the proxy is started", || host.path().join("run/amphora-proxy.lock").exists());
    let mode = |name: &str| fs::metadata(host.path().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!([mode("octavia"), mode("run"), mode("run/amphora-proxy.lock")], [0o755, 0o755, 0o600]);
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.ends(), Some(0));
}

/// As under systemd, which starts the programs.
#[test]
fn programs_that_somebody_else_starts_may_read_their_documents_where_their_users_are_named() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: not root, which alone may give a file to any group");
        return;
    }
    let host = Host::new();
    let state = host.path().join("octavia");
    fs::create_dir(&state).unwrap();
    for name in ["loadbalancer.json", "vrrp.conf"] {
        fs::write(state.join(name), "{}").unwrap();
        fs::set_permissions(state.join(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
    let group = |name: &str| nix::unistd::Group::from_name(name).unwrap().unwrap().gid.as_raw();
    let shared = |name: &str| {
        let there = fs::metadata(state.join(name)).unwrap();
        (there.gid(), there.permissions().mode() & 0o777)
    };
    host.configure("proxy_user = daemon\nvrrp_user = bin\n");
    let mut agent = host.agent(&[]);
    eventually("the agent is ready", || host.log().contains("ready"));
    assert_eq!(shared("loadbalancer.json"), (group("daemon"), 0o640));
    assert_eq!(shared("vrrp.conf"), (group("bin"), 0o640));
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.ends(), Some(0));

    host.configure("proxy_user = no-such-user\n");
    let output = refused(&host);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no such user: no-such-user"), "{output:?}");
}

#[test]
fn a_pairs_vrrp_daemon_is_started_and_stopped_before_the_proxy() {
    let host = Host::new();
    let path = host.path().display().to_string();
    let names = |name: &str| {
        format!(
            "#!/bin/sh\ntrap 'echo {name} >> {path}/ended; exit' TERM\necho $$ >> {path}/pids\n\
             while :; do sleep 0.02; done\n"
        )
    };
    for name in ["proxy", "vrrp"] {
        fs::write(host.path().join(name), names(name)).unwrap();
        fs::set_permissions(host.path().join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    host.configure("vrrp_cmd = $root/vrrp\n[controller_worker]\nloadbalancer_topology = ACTIVE_STANDBY\n");
    let mut agent = host.agent(&["--supervise"]);
    eventually("both are started", || host.pids().len() == 2);
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.ends(), Some(0), "{}", host.log());
    assert!(host.pids().into_iter().all(|pid| !alive(pid)));
    assert_eq!(fs::read_to_string(host.path().join("ended")).unwrap(), "vrrp\nproxy\n");
}

#[test]
fn a_killed_agent_leaves_the_proxy_and_the_next_one_takes_it_over() {
    let host = Host::new();
    let mut agent = host.agent(&["--supervise"]);
    let lock = host.path().join("run/amphora-proxy.lock");
    eventually("the proxy is noted", || fs::read_to_string(&lock).is_ok_and(|text| text.ends_with('\n')));
    eventually("the proxy runs", || host.pids().len() == 1);
    let pid = host.pids()[0];
    agent.signal(Signal::SIGKILL);
    agent.ends();
    assert!(alive(pid));
    let mut agent = host.agent(&["--supervise"]);
    eventually("the proxy is taken over", || host.log().contains("took over the running proxy"));
    assert_eq!((host.pids(), alive(pid)), (vec![pid], true));
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.ends(), Some(0), "{}", host.log());
    assert!(!alive(pid));
}

#[test]
fn without_supervise_it_starts_nothing() {
    let host = Host::new();
    let mut agent = host.agent(&[]);
    eventually("the agent is ready", || host.log().contains("ready"));
    agent.signal(Signal::SIGINT);
    assert_eq!(agent.ends(), Some(0));
    assert!(host.pids().is_empty());
}

#[test]
fn sighup_reads_certificates_and_heartbeats_again() {
    let host = Host::new();
    let mut agent = host.agent(&[]);
    eventually("the agent is ready", || host.log().contains("ready"));
    host.configure("workers = 1\n");
    agent.signal(Signal::SIGHUP);
    eventually("what is wrong is said", || host.log().contains("the new configuration is not usable"));
    assert!(host.log().contains("certificates were read again"));
    host.configure("[health_manager]\nheartbeat_key = topsecret\ncontroller_ip_port_list = 127.0.0.1:9\n");
    agent.signal(Signal::SIGHUP);
    // Two that come before either is dealt with are one.
    eventually("it is read", || host.log().matches("certificates were read again").count() == 2);
    host.configure("[DEFAULT]\ndebug = true\n");
    agent.signal(Signal::SIGHUP);
    eventually("more is told", || host.log().contains("DEBUG the configuration was read again"));
    // The last SIGHUP is dealt with before the stop, because both are read by one thread in order.
    eventually("it is read", || host.log().matches("certificates were read again").count() == 3);
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.ends(), Some(0));
    assert!(!host.log().contains("topsecret"));
}

/// Octavia's file stays as it came; an image adds its own section, and its operator more.
#[test]
fn files_beside_octavias_count_and_sighup_reads_them_all_again() {
    let host = Host::new();
    let more = host.path().join("conf.d");
    fs::create_dir(&more).unwrap();
    fs::write(host.path().join("image.conf"), "[amphora]\nproxy_cmd = $root/other\n").unwrap();
    fs::copy(host.path().join("proxy"), host.path().join("other")).unwrap();
    fs::remove_file(host.path().join("proxy")).unwrap();
    let (image, directory) = (host.path().join("image.conf"), more.display().to_string());
    let arguments = ["--config-file", image.to_str().unwrap(), "--config-dir", &directory, "--supervise"];
    let mut agent = host.agent(&arguments);
    eventually("the agent is ready and its proxy runs", || {
        host.log().contains("ready") && host.pids().len() == 1
    });

    fs::write(more.join("10-own.conf"), "\n[amphora]\nworkers = 1\n").unwrap();
    agent.signal(Signal::SIGHUP);
    let reason = format!("{directory}/10-own.conf: line 3: [amphora] workers: no such option");
    eventually("what is wrong is said", || host.log().contains(&reason));
    let controller = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    controller.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let heartbeats = format!(
        "[health_manager]\nheartbeat_key = topsecret\ncontroller_ip_port_list = {}\n",
        controller.local_addr().unwrap()
    );
    fs::write(more.join("10-own.conf"), heartbeats).unwrap();
    agent.signal(Signal::SIGHUP);
    controller.recv(&mut [0; 65_536]).expect("a heartbeat comes to where the new file says");
    agent.signal(Signal::SIGTERM);
    assert_eq!(agent.ends(), Some(0));
}

#[test]
fn without_the_proxys_program_supervision_does_not_begin() {
    let host = Host::new();
    let script = host.path().join("proxy");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o644)).unwrap();
    let ends = |reason: &str| {
        assert_eq!(host.agent(&["--supervise"]).ends(), Some(1));
        let said = format!("cannot run the proxy {}: {reason}", script.display());
        assert!(host.log().contains(&said), "{}", host.log());
    };
    ends("not executable");
    fs::remove_file(&script).unwrap();
    ends("No such file");
    fs::create_dir(&script).unwrap();
    ends("not a file");
}

#[test]
fn what_is_wrong_with_the_file_is_said_by_name() {
    let host = Host::new();
    host.configure("workers = 1\n");
    let output = refused(&host);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        String::from_utf8_lossy(&output.stderr)
            .contains("agent.conf: line 15: [amphora] workers: no such option")
    );
    host.configure("");
    fs::remove_file(host.path().join("server.pem")).unwrap();
    let output = refused(&host);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("server.pem"), "{output:?}");
}
