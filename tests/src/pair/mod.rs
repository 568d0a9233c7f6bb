//! A pair of amphorae, a member and a client on a switch, each in a namespace of its own: the programs that move
//! the VIP and those that serve it, without agents.

mod advertisements;
mod busy;
mod client;

use std::{
    env,
    fs::{self, File, Permissions},
    io::{Read, Write},
    net::SocketAddr,
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use tempfile::TempDir;

pub use self::{
    advertisements::Advertisements,
    busy::Busy,
    client::{Client, Run},
};
use crate::Namespace;

const VIP: &str = "10.77.0.100";
const MEMBER: &str = "10.77.0.20";

/// The program that moves the VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// amphora-vrrp.
    Ours,
    /// keepalived, with a check script that asks the proxy.
    Keepalived,
}

/// What runs.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// What moves the VIP.
    pub program: Program,
    /// Of VRRP, 2 or 3.
    pub version: u8,
    /// Between advertisements.
    pub centiseconds: u32,
    /// Of each proxy; `None` for one a core.
    pub workers: Option<u8>,
}

/// The master comes first. What runs ends with the value.
#[derive(Debug)]
pub struct Pair {
    setting: Setting,
    amphorae: [Amphora; 2],
    _member: Running,
    client: Namespace,
    _members: Namespace,
    switch: Namespace,
}

#[derive(Debug)]
struct Amphora {
    vrrp: Running,
    proxy: Running,
    namespace: Namespace,
    directory: TempDir,
}

/// A process that is killed with the value.
#[derive(Debug)]
struct Running(Child);

impl Running {
    fn start(command: &mut Command, log: &Path) -> Self {
        let log = File::options().create(true).append(true).open(log).unwrap();
        let child = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn();
        Self(child.unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }

    fn signal(&self, signal: Signal) {
        let _ = kill(Pid::from_raw(i32::try_from(self.0.id()).unwrap()), signal);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Pair {
    /// With the first as master and the second as backup; `None`, and a line that says so, without root.
    pub fn start(setting: Setting) -> Option<Self> {
        let mut made = Vec::new();
        for _ in 0..5 {
            made.push(Namespace::create()?);
        }
        let [switch, first, second, members, client] = made.try_into().unwrap();
        switch.ip(&["link", "add", "br0", "type", "bridge", "forward_delay", "0", "mcast_snooping", "0"]);
        switch.ip(&["link", "set", "br0", "up"]);
        let hosts = [(&first, "101"), (&second, "102"), (&members, "20"), (&client, "10")];
        for (namespace, number) in hosts {
            let port = format!("port{number}");
            switch.link(&port, namespace, "eth1");
            switch.ip(&["link", "set", &port, "master", "br0"]);
            namespace.ip(&["address", "add", &format!("10.77.0.{number}/24"), "dev", "eth1"]);
        }
        let directory = tempfile::tempdir().unwrap();
        let mut member = Command::new("ip");
        member.args(["netns", "exec", members.name()]).arg(program("amphora-controller"));
        member.args(["demo-member", "--name", "m", "--pool", "p", "--bind", &format!("{MEMBER}:80")]);
        let member = Running::start(&mut member, &directory.path().join("log"));
        let first = Amphora::start(setting, first, 101, 102, 100);
        until("the first is master", || has_vip(&first.namespace));
        let second = Amphora::start(setting, second, 102, 101, 90);
        if setting.program == Program::Ours {
            until("the second is backup", || second.status().contains("\"BACKUP\""));
        }
        Some(Self { setting, amphorae: [first, second], _member: member, client, _members: members, switch })
    }

    /// Where clients are.
    pub fn client(&self) -> &Namespace {
        &self.client
    }

    /// The address that moves, and a port that is served there.
    pub fn vip(&self) -> SocketAddr {
        SocketAddr::new(VIP.parse().unwrap(), 80)
    }

    /// Kills what moves the VIP at the master.
    pub fn kill_vrrp(&mut self) {
        // keepalived's child has the sockets; its parent would start another.
        let child = fs::read_to_string(self.amphorae[0].directory.path().join("vrrp.pid")).ok();
        self.amphorae[0].vrrp.signal(Signal::SIGKILL);
        if let Some(pid) = child.and_then(|pid| pid.trim().parse().ok()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }

    /// Kills the proxy of the master.
    pub fn kill_proxy(&mut self) {
        self.amphorae[0].proxy.signal(Signal::SIGKILL);
    }

    /// Stops the proxy of the master: it hangs.
    pub fn stop_proxy(&mut self) {
        self.amphorae[0].proxy.signal(Signal::SIGSTOP);
    }

    /// Lets the master hand over, as planned. keepalived has no such thing: it is told to stop.
    pub fn hand_over(&mut self) {
        match self.setting.program {
            Program::Ours => {
                let answer = self.amphorae[0].ask("POST", "/hand-over");
                assert!(answer.contains("200 OK"), "{answer}");
            }
            Program::Keepalived => self.amphorae[0].vrrp.signal(Signal::SIGTERM),
        }
    }

    /// Pulls the plug of the master.
    pub fn cut(&mut self) {
        self.switch.ip(&["link", "set", "port101", "down"]);
    }

    /// Waits until the second has the VIP.
    pub fn await_takeover(&self, patience: Duration) {
        let begun = Instant::now();
        while !has_vip(&self.amphorae[1].namespace) {
            assert!(begun.elapsed() < patience, "nobody took over");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Pair {
    /// Listens for what the first advertises to the second.
    pub fn advertisements(&self) -> Advertisements {
        Advertisements::capture(&self.amphorae[1].namespace, [10, 77, 0, 101].into())
    }

    /// What our daemons say of themselves: the body of `GET /status`.
    pub fn statuses(&self) -> [Value; 2] {
        [0, 1].map(|n| {
            let answer = self.amphorae[n].status();
            let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
            serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"))
        })
    }

    /// What all programs of both have logged.
    pub fn logs(&self) -> String {
        let read = |amphora: &Amphora| fs::read_to_string(amphora.directory.path().join("log"));
        self.amphorae.iter().flat_map(read).collect()
    }
}

impl Amphora {
    fn start(setting: Setting, namespace: Namespace, own: u8, peer: u8, priority: u8) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("lb.json"), document()).unwrap();
        let mut proxy = Command::new(program("amphora-proxy"));
        proxy.args(["--netns", namespace.name(), "--log-level", "warn"]);
        if let Some(workers) = setting.workers {
            proxy.arg("--workers").arg(workers.to_string());
        }
        proxy.arg("--load-balancer").arg(path("lb.json")).arg("--control-socket").arg(path("proxy.sock"));
        let proxy = Running::start(&mut proxy, &path("log"));
        until("the proxy answers", || UnixStream::connect(path("proxy.sock")).is_ok());
        let vrrp = match setting.program {
            Program::Ours => {
                fs::write(path("vrrp.conf"), text(setting, own, peer, priority, Path::new("/bin/true")))
                    .unwrap();
                let mut command = Command::new(program("amphora-vrrp"));
                command.args(["--netns", namespace.name()]).arg("--config").arg(path("vrrp.conf"));
                command.arg("--control-socket").arg(path("vrrp.sock"));
                command.arg("--fitness-socket").arg(path("proxy.sock.fitness"));
                Running::start(&mut command, &path("log"))
            }
            Program::Keepalived => {
                let check = path("check.sh");
                let socket = path("proxy.sock");
                let script = format!(
                    "#!/bin/sh\nexec timeout 2 curl -sf --unix-socket {} http://proxy/info -o /dev/null\n",
                    socket.display()
                );
                fs::write(&check, script).unwrap();
                fs::set_permissions(&check, Permissions::from_mode(0o755)).unwrap();
                fs::write(path("vrrp.conf"), text(setting, own, peer, priority, &check)).unwrap();
                let mut command = Command::new("ip");
                command.args(["netns", "exec", namespace.name(), "keepalived", "--vrrp", "--dont-fork"]);
                command.args(["--log-console", "--no-syslog"]).arg("-f").arg(path("vrrp.conf"));
                command.arg("-p").arg(path("pid")).arg("-r").arg(path("vrrp.pid"));
                Running::start(&mut command, &path("log"))
            }
        };
        Self { vrrp, proxy, namespace, directory }
    }

    fn ask(&self, method: &str, path: &str) -> String {
        let Ok(mut stream) = UnixStream::connect(self.directory.path().join("vrrp.sock")) else {
            return String::new();
        };
        let mut answer = String::new();
        let asked =
            write!(stream, "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        if asked.is_ok() {
            let _ = stream.read_to_string(&mut answer);
        }
        answer
    }

    fn status(&self) -> String {
        self.ask("GET", "/status")
    }
}

impl Drop for Amphora {
    fn drop(&mut self) {
        self.proxy.signal(Signal::SIGCONT);
        if env::var_os("AMPHORA_FAILOVER_LOG").is_some() {
            eprintln!("{}", fs::read_to_string(self.directory.path().join("log")).unwrap_or_default());
        }
        if let Ok(pid) = fs::read_to_string(self.directory.path().join("vrrp.pid"))
            && let Ok(pid) = pid.trim().parse()
        {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// Octavia's text for these timers. Its check runs each 5 s and fails twice before it counts.
fn text(setting: Setting, own: u8, peer: u8, priority: u8, check: &Path) -> String {
    let seconds = f64::from(setting.centiseconds) / 100.0;
    let version = if setting.version == 2 {
        "    authentication {\n        auth_type PASS\n        auth_pass 79944cc\n    }\n".to_owned()
    } else {
        "    version 3\n".to_owned()
    };
    format!(
        "vrrp_script check_script {{
    script {}
    interval 5
    fall 2
    rise 2
}}
vrrp_instance pair {{
    interface eth1
    virtual_router_id 1
    priority {priority}
    nopreempt
    accept
    garp_master_refresh 5
    garp_master_refresh_repeat 2
    advert_int {seconds}
{version}    unicast_src_ip 10.77.0.{own}
    unicast_peer {{
        10.77.0.{peer}
    }}
    virtual_ipaddress {{
        {VIP}
    }}
    virtual_routes {{
        10.77.0.0/24 dev eth1 src {VIP} scope link table 1
    }}
    virtual_rules {{
        from {VIP}/32 table 1 priority 100
    }}
    track_script {{
        check_script
    }}
}}
",
        check.display()
    )
}

fn document() -> String {
    let id = |n: u32| format!("00000000-0000-4000-8000-{n:012}");
    json!({"loadbalancer": {"id": id(1), "name": "failover", "vip_address": VIP, "listeners": [{
        "id": id(2), "protocol": "HTTP", "protocol_port": 80,
        "default_pool": {"id": id(3), "protocol": "HTTP", "lb_algorithm": "ROUND_ROBIN",
            "members": [{"id": id(4), "address": MEMBER, "protocol_port": 80}]},
    }]}})
    .to_string()
}

fn has_vip(namespace: &Namespace) -> bool {
    let shown =
        Command::new("ip").args(["-n", namespace.name(), "-4", "address", "show", "dev", "eth1"]).output();
    shown.is_ok_and(|shown| String::from_utf8_lossy(&shown.stdout).contains(VIP))
}

fn until(what: &str, mut met: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !met() {
        assert!(begun.elapsed() < Duration::from_secs(20), "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// One of this project's programs: where the environment says, or beside this program, or beside its directory.
fn program(name: &str) -> PathBuf {
    let variable = format!("{}_BIN", name.to_uppercase().replace('-', "_"));
    env::var_os(variable).map_or_else(
        || {
            let beside = env::current_exe().unwrap().with_file_name(name);
            if beside.exists() { beside } else { beside.parent().unwrap().with_file_name(name) }
        },
        PathBuf::from,
    )
}
