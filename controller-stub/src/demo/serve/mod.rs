//! `serve`: Octavia's API, with a load balancer that is made, used, changed, failed over and deleted through it.
//!
//! ```text
//! a namespace that is its host: client, members, serve, bridge 10.20.0.1 --- amphorae, a namespace each
//! ```
//!
//! * `room`: processes, mounts and namespaces that end with one process, for amphorae outlive `serve`
//! * `api`: the client
//! * `steps`: the scenario

mod api;
mod room;
mod steps;

use std::{fs, net::SocketAddr, path::PathBuf, process, time::Duration};

use serde_json::Value;

use self::api::Api;
pub use self::room::{RoomOptions, run_room};
use super::{
    Programs, amphora,
    member::MemberOptions,
    netns::Namespace,
    pair::Steady,
    process::{Process, leashed},
    topology::Topology,
};
use crate::error::{Error, Result};

/// What the network of load balancers is; its first address is the host's.
const NETWORK: &str = "10.20.0.0/24";
const HOST: [u8; 4] = [10, 20, 0, 1];

/// The members' names, of the pool `web`, and their ports on the host.
const MEMBERS: [(&str, u16); 3] = [("web-1", 8081), ("web-2", 8082), ("web-3", 8083)];

/// The running `serve`. Fields are dropped from top to bottom: the client first, the host last.
#[derive(Debug)]
pub(super) struct Served {
    steady: Option<Steady>,
    process: Process,
    members: Vec<Process>,
    api: Api,
    dir: PathBuf,
    host: Namespace,
}

impl Served {
    /// Starts `serve` with an empty directory on a host of its own, and the members beside it.
    ///
    /// # Errors
    /// [`Error::Local`]: this host does not permit it, or a program is not there.
    fn start(topology: &Topology, programs: &Programs) -> Result<Self> {
        let host = Namespace::create("host")?;
        let dir = topology.dir.join("s");
        let file = topology.dir.join("serve.conf");
        let mut text = format!(
            "[networks]\nlb = {NETWORK}\n[controller_worker]\nloadbalancer_topology = ACTIVE_STANDBY\n[compute]\nagent_cmd = {}\n",
            programs.agent()?.display()
        );
        for (name, program) in [("proxy_cmd", &programs.proxy), ("vrrp_cmd", &programs.vrrp)] {
            if let Some(program) = program {
                text.push_str(&format!("{name} = {}\n", program.display()));
            }
        }
        fs::write(&file, text).map_err(|e| Error::local(file.display(), e))?;
        let own = std::env::current_exe().map_err(|e| Error::local("this program", e))?;
        let mut command = tokio::process::Command::new(&own);
        command
            .args(["demo-room", "--parent", &process::id().to_string(), "--netns", host.name(), "--"])
            .arg(&own)
            .args(["serve", "--config-file"])
            .arg(&file)
            .arg("--data-dir")
            .arg(&dir);
        let process = Process::start(command, &topology.dir.join("log/serve.log"))?;
        let mut members = Vec::new();
        for (name, port) in MEMBERS {
            let mut command = leashed(&own)?;
            // On all addresses: that of the bridge comes later.
            let bind = SocketAddr::from(([0, 0, 0, 0], port));
            command.args(MemberOptions::to_args(name, "web", bind, Some(host.name()), None));
            members.push(Process::start(command, &topology.dir.join(format!("log/serve-{name}.log")))?);
        }
        let api = Api::new(host.name());
        Ok(Self { steady: None, process, members, api, dir, host })
    }

    /// Why going on is pointless, if it is.
    pub(super) fn trouble(&mut self) -> Option<Error> {
        if self.process.ended() {
            return Some(Error::Local("serve ended".to_owned()));
        }
        let steady = self.steady.as_ref().is_some_and(Steady::ended);
        steady.then(|| Error::Local("the client of serve ended".to_owned()))
    }

    /// Ends all of it: whatever is left goes with the room.
    pub(super) async fn stop(&mut self) {
        self.steady = None;
        self.process.stop(Duration::from_secs(10)).await;
        for member in &mut self.members {
            member.kill().await;
        }
    }

    /// The host of an amphora dies: its link is gone, and all its processes are killed. As elsewhere the link goes first: the kernel of a host
    /// that dies says nothing any more.
    fn kill_host(&self, amphora: &Value) -> Result<()> {
        let digits = |name: &str, count: usize| -> String {
            let text = amphora[name].as_str().unwrap_or_default();
            text.chars().filter(char::is_ascii_hexdigit).take(count).collect()
        };
        let port = digits("vrrp_port_id", 9);
        let link = self.links()?.into_iter().find(|link| link.ends_with(&port));
        let link = link.ok_or_else(|| Error::Local(format!("no link of the amphora's port {port}")))?;
        let dir = self.dir.join("amphorae").join(digits("id", 16)).display().to_string();
        self.host.ip(&["link", "delete", &link])?;
        processes_of(&dir).into_iter().for_each(amphora::kill);
        Ok(())
    }

    /// The ends of links that amphorae have on the host.
    fn links(&self) -> Result<Vec<String>> {
        let said = self.host.ask(&["-json", "link", "show", "type", "veth"])?;
        let listed: Vec<Value> = serde_json::from_slice(&said).map_err(|e| Error::local("ip link", e))?;
        Ok(listed.iter().filter_map(|entry| entry["ifname"].as_str().map(str::to_owned)).collect())
    }

    /// Directories of amphorae.
    fn machines(&self) -> usize {
        let entries = fs::read_dir(self.dir.join("amphorae")).into_iter().flatten().flatten();
        entries.filter(|entry| entry.path().is_dir()).count()
    }

    /// Whether a hardware address is the one that the host reaches an address at.
    fn is_at(&self, address: &str, mac: &str) -> Result<bool> {
        let said = self.host.ask(&["-json", "neigh", "show", address])?;
        Ok(String::from_utf8_lossy(&said).contains(mac))
    }
}

/// Processes whose command line names a directory.
fn processes_of(dir: &str) -> Vec<u32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let names = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(dir)
    };
    numbers.filter(|pid| *pid != process::id()).filter(names).collect()
}
