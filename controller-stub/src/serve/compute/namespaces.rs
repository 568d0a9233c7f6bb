//! Amphorae in network namespaces of this host: `amphora-agent --supervise` each, which outlives `serve`.
//!
//! The agent holds a lock of its directory as its standard input, so that the kernel says for certain whether it runs, also to the
//! next `serve`. All that is made carries the instance in its name, an id of the data directory: what no row names is found by it.

mod members;

use std::{
    collections::BTreeSet,
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use amphora_agent::supervise::process::Command;
use amphora_netlink::Namespace;
use nix::{
    errno::Errno,
    sys::signal::Signal,
    unistd::{Pid, geteuid},
};
use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{Instant, sleep},
};
use uuid::Uuid;

use super::{Compute, Interface, Liveness, Machine, deaths::Deaths};
use crate::{
    certs::write,
    error::{Error, Result},
    failpoint::reach,
    host::{AgentFile, NAMESPACES, interfaces, ip, ip_batch, is_passage, make_passage},
    serve::network::links::{Behind, End},
};

/// What names of namespaces start with; the instance follows.
const PREFIX: &str = "amphora";

/// The longest path of a unix socket (unix(7)), without the zero.
const SOCKET_PATH: usize = 107;

/// How long an agent may take until it answers.
const BOOT: Duration = Duration::from_secs(30);

/// How long what was killed may take to end: it is the kernel's turn then.
const END: Duration = Duration::from_secs(5);

/// What the driver is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the machines' directories are.
    pub dir: PathBuf,
    /// `amphora-agent`.
    pub agent: PathBuf,
    /// `amphora-proxy`, when it is not beside the agent.
    pub proxy: Option<PathBuf>,
    /// `amphora-vrrp`, likewise.
    pub vrrp: Option<PathBuf>,
    /// Where heartbeats go, what signs them, and the seconds between two.
    pub heartbeats: Option<(SocketAddr, String, u64)>,
}

/// The driver.
#[derive(Debug)]
pub struct Namespaces {
    settings: Settings,
    instance: String,
    deaths: Deaths,
}

impl Namespaces {
    /// Opens the directory, and makes it when there is none. Blocks.
    ///
    /// # Errors
    /// It cannot be written, or its path is too long.
    pub fn open(settings: Settings, deaths: Deaths) -> Result<Self> {
        make_passage(&settings.dir)?;
        let file = settings.dir.join("instance");
        let instance = match fs::read_to_string(&file) {
            Ok(text) => text.trim().to_owned(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let instance = Uuid::new_v4().simple().to_string()[..8].to_owned();
                write(&file, &instance, 0o644).map_err(|e| Error::local(file.display(), e))?;
                instance
            }
            Err(e) => return Err(Error::local(file.display(), e)),
        };
        if instance.len() != 8 || !instance.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(Error::local(file.display(), format!("not the id of an instance: {instance:?}")));
        }
        let this = Self { settings, instance, deaths };
        let socket = this.directory(&this.name(&Uuid::nil().to_string())).join("run/proxy.sock.fitness");
        if socket.as_os_str().len() > SOCKET_PATH {
            let text =
                format!("is too long a path: {} would have more than {SOCKET_PATH} bytes", socket.display());
            return Err(Error::local(this.settings.dir.display(), text));
        }
        Ok(this)
    }

    /// Looks for the programs that amphorae take, and whether they get to their files: as root's they become another user, and without the
    /// socket by which one asks whether the other is fit, an amphora never takes a VIP.
    ///
    /// # Errors
    /// One is not there, or does not get there.
    pub fn check(&self) -> Result<()> {
        let Settings { agent, proxy, vrrp, .. } = &self.settings;
        let mut programs = [Some(agent), proxy.as_ref(), vrrp.as_ref()].into_iter().flatten();
        let missing = programs.find(|program| !program.is_file());
        if let Some(program) = missing {
            return Err(Error::local(program.display(), "is not there"));
        }
        if geteuid().is_root() { is_passage(&self.settings.dir) } else { Ok(()) }
    }

    /// What distinguishes all that is made here from what others make.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    fn directory(&self, machine: &str) -> PathBuf {
        let prefix = self.prefix();
        // One of another instance, which a database knows that comes from elsewhere, has its name behind that one's.
        let own = machine.strip_prefix(&prefix).or_else(|| machine.rsplit('-').next());
        self.settings.dir.join(own.unwrap_or(machine))
    }

    /// What the machine of an amphora is called. No other has this name.
    pub fn name(&self, amphora: &str) -> String {
        let short: String = amphora.chars().filter(|c| *c != '-').take(16).collect();
        format!("{}{short}", self.prefix())
    }

    fn prefix(&self) -> String {
        format!("{PREFIX}-{}-", self.instance)
    }

    fn command(&self, machine: &str) -> Command {
        let dir = self.directory(machine);
        let arguments =
            vec!["--supervise".into(), "--config-file".into(), dir.join("amphora-agent.conf").into()];
        Command::new(self.settings.agent.clone(), arguments, dir.join("agent.lock")).with_log(dir.join("log"))
    }

    /// Both ends of the link of a port: on the host, and in the machine until its agent renames it.
    fn links(&self, port: &str) -> [String; 2] {
        let port: String = port.chars().filter(char::is_ascii_hexdigit).take(9).collect();
        ["v", "w"].map(|end| format!("{end}{}{port}", &self.instance[..5]))
    }

    /// The ends that a machine with these interfaces has on this host.
    pub(super) fn ends(&self, machine: &str, interfaces: &[Interface]) -> Vec<End> {
        let end = |interface: &Interface| {
            let [name, _] = self.links(&interface.port);
            let behind = Behind::Namespace { name: machine.to_owned(), mac: interface.mac.clone() };
            End { port: Some(interface.port.clone()), name, bridge: interface.bridge.clone(), behind }
        };
        interfaces.iter().map(end).collect()
    }

    fn agent_file(&self, machine: &Machine, dir: &Path) -> String {
        AgentFile {
            bind: machine.agent,
            id: &machine.amphora,
            dir,
            ca: dir.join("certs/ca.pem"),
            certificate: dir.join("certs/server.pem"),
            heartbeats: self
                .settings
                .heartbeats
                .as_ref()
                .map(|(address, key, every)| (*address, key.as_str(), *every)),
            paired: machine.paired,
            netns: Some(&machine.name),
            user: None,
            drain_timeout: Some(2),
            proxy: self.settings.proxy.as_deref(),
            vrrp: self.settings.vrrp.as_deref(),
        }
        .text()
    }

    async fn write_files(&self, machine: &Machine) -> Result<()> {
        let dir = self.directory(&machine.name);
        let (text, machine) = (self.agent_file(machine, &dir), machine.clone());
        let written = spawn_blocking(move || {
            for path in [dir.clone(), dir.join("certs"), dir.join("ports")] {
                make_passage(&path)?;
            }
            for (name, text, mode) in [
                ("certs/ca.pem", &machine.authority, 0o644),
                ("certs/server.pem", &machine.certificate, 0o600),
                ("amphora-agent.conf", &text, 0o600),
            ] {
                let path = dir.join(name);
                write(&path, text, mode).map_err(|e| Error::local(path.display(), e))?;
            }
            Ok(())
        });
        written.await.map_err(|e| Error::local("a machine's files", e))?
    }

    /// The host's ends of links that belong to a machine, which its directory says.
    fn plugged(&self, machine: &str) -> Result<Vec<String>> {
        let ports = entries(&self.directory(machine).join("ports"))?;
        Ok(ports.iter().map(|port| self.links(port)[0].clone()).collect())
    }

    /// Whether the agent of a machine was started with the directory as it is now. Blocks.
    fn has_its_files(&self, machine: &str) -> io::Result<bool> {
        // One of which the file does not say yet who it is has just been started.
        let Ok(Some(agent)) = self.command(machine).find() else { return Ok(true) };
        members::has_its_files(agent.pid(), &self.directory(machine))
    }

    /// How a machine is. Blocks.
    fn look(&self, machine: &str) -> Result<Liveness> {
        let failed = |e: io::Error| Error::local(machine, e);
        let there = |path: &Path| path.try_exists().map_err(failed);
        // Where it is not so, all of it is out of sight, and nothing is known of any machine.
        let instance = self.settings.dir.join("instance");
        if !there(&instance)? {
            return Err(Error::local(instance.display(), "is not there"));
        }
        let directory = there(&self.directory(machine))?;
        let namespace = there(&Path::new(NAMESPACES).join(machine))?;
        let runs = directory && self.command(machine).runs().map_err(failed)?;
        let runs = runs && self.has_its_files(machine).map_err(failed)?;
        Ok(match (directory, namespace, runs) {
            (false, false, _) => Liveness::Absent,
            // Without its name the agent starts what ends in another one, where nothing is plugged in.
            (_, true, true) => Liveness::Running,
            _ => Liveness::Dead,
        })
    }
}

impl Compute for Namespaces {
    fn boot_time(&self, _: &str) -> Duration {
        BOOT
    }

    async fn create(&self, machine: &Machine) -> Result<()> {
        self.write_files(machine).await?;
        let name = machine.name.clone();
        let made = spawn_blocking(move || {
            Namespace::ensure(&name).map_err(|e| Error::local(&name, e))?;
            reach("create.namespace");
            ip(&["-n", &name, "link", "set", "lo", "up"])
        });
        made.await.map_err(|e| Error::local("a machine's namespace", e))??;
        let failed = |e: io::Error| Error::local(self.settings.agent.display(), e);
        let command = self.command(&machine.name);
        let process = match command.lock().map_err(failed)? {
            Some(lock) => {
                reach("create.process");
                Some(command.spawn(lock).map_err(failed)?)
            }
            None => command.find().map_err(failed)?,
        };
        match process {
            Some(process) => {
                self.deaths.watch(&machine.name, process).await;
                Ok(())
            }
            // Whoever started it was killed before it wrote who it is.
            None => Err(Error::NotDone(format!("{}: an agent runs that nobody knows", machine.name))),
        }
    }

    async fn configure(&self, machine: &Machine) -> Result<()> {
        self.write_files(machine).await?;
        let process = self.command(&machine.name).find();
        let process = process.map_err(|e| Error::local(&machine.name, e))?;
        process.ok_or_else(|| Error::NotDone(format!("{} does not run", machine.name)))?.hang_up();
        Ok(())
    }

    async fn plug(&self, machine: &str, interface: &Interface) -> Result<()> {
        let [host, peer] = self.links(&interface.port);
        let record = self.directory(machine).join("ports").join(&interface.port);
        let interface = interface.clone();
        let plugged = spawn_blocking(move || {
            let Interface { bridge, mac, .. } = &interface;
            // Recorded before it is made, so that it goes with the machine in any case.
            fs::write(&record, "").map_err(|e| Error::local(record.display(), e))?;
            reach("plug.recorded");
            if !interfaces(Some("veth"))?.iter().any(|(name, _)| *name == host) {
                ip_batch(&[format!("link add {host} type veth peer name {peer} address {mac}")])?;
            }
            reach("plug.link");
            ip_batch(&[format!("link set {host} master {bridge} up")])?;
            Ok(())
        });
        plugged.await.map_err(|e| Error::local("a machine's interface", e))?
    }

    async fn unplug(&self, machine: &str, port: &str) -> Result<()> {
        let [host, _] = self.links(port);
        let record = self.directory(machine).join("ports").join(port);
        let unplugged = spawn_blocking(move || {
            if interfaces(Some("veth"))?.iter().any(|(name, _)| *name == host) {
                ip_batch(&[format!("link delete {host}")])?;
            }
            reach("unplug.link");
            remove_if_there(&record)
        });
        unplugged.await.map_err(|e| Error::local("a machine's interface", e))?
    }

    async fn delete(&self, machine: &str) -> Result<()> {
        // First the links: from then on nobody is answered by it, whatever still runs.
        let links = self.plugged(machine);
        let cut = spawn_blocking(move || {
            let links = links?;
            if links.is_empty() {
                return Ok(());
            }
            let there = interfaces(Some("veth"))?.into_iter().filter(|(name, _)| links.contains(name));
            let deletions: Vec<String> = there.map(|(name, _)| format!("link delete {name}")).collect();
            if deletions.is_empty() { Ok(()) } else { ip_batch(&deletions) }
        });
        let cut = cut.await.map_err(|e| Error::local("a machine's links", e))?;
        reach("delete.links");
        let deadline = Instant::now() + END;
        // The agent first, which would start the others again.
        if let Ok(Some(agent)) = self.command(machine).find() {
            agent.kill();
        }
        loop {
            let (name, dir) = (machine.to_owned(), self.directory(machine));
            let found = spawn_blocking(move || members::of(&name, &dir));
            let found = found.await.map_err(|e| Error::local("processes", e))??;
            if found.is_empty() {
                break;
            }
            for pid in found {
                match nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGKILL) {
                    Ok(()) | Err(Errno::ESRCH) => {}
                    Err(e) => return Err(Error::local(format!("kill process {pid} of {machine}"), e)),
                }
            }
            if Instant::now() > deadline {
                return Err(Error::NotDone(format!("processes of {machine} do not end")));
            }
            sleep(Duration::from_millis(2)).await;
        }
        cut?;
        reach("delete.processes");
        let (name, dir) = (machine.to_owned(), self.directory(machine));
        let removed = spawn_blocking(move || {
            let path = Path::new(NAMESPACES).join(&name);
            if path.try_exists().map_err(|e| Error::local(path.display(), e))? {
                ip(&["netns", "delete", &name])?;
            }
            reach("delete.namespace");
            match fs::remove_dir_all(&dir) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::local(dir.display(), e)),
                _ => Ok(()),
            }
        });
        removed.await.map_err(|e| Error::local("a machine's files", e))?
    }

    async fn list(&self) -> Result<BTreeSet<String>> {
        let (prefix, dir) = (self.prefix(), self.settings.dir.clone());
        let listed = spawn_blocking(move || {
            let mut found: BTreeSet<String> = entries(Path::new(NAMESPACES))?
                .into_iter()
                .filter(|name| name.starts_with(&prefix))
                .collect();
            let directories = entries(&dir)?.into_iter().filter(|name| dir.join(name).is_dir());
            found.extend(directories.map(|name| format!("{prefix}{name}")));
            Ok(found)
        });
        listed.await.map_err(|e| Error::local("machines", e))?
    }

    async fn alive(&self, machine: &str) -> Result<Liveness> {
        let liveness = self.look(machine)?;
        if liveness == Liveness::Running
            && let Ok(Some(process)) = self.command(machine).find()
        {
            self.deaths.watch(machine, process).await;
        }
        Ok(liveness)
    }

    fn deaths(&self) -> watch::Receiver<u64> {
        self.deaths.subscribe()
    }
}

/// The names in a directory, of which there are none when it is not there. Blocks.
///
/// # Errors
/// It cannot be read, or not all of it.
pub(super) fn entries(dir: &Path) -> Result<Vec<String>> {
    let failed = |e: io::Error| Error::local(dir.display(), e);
    match fs::read_dir(dir) {
        Ok(entries) => entries
            .map(|entry| Ok(entry.map_err(failed)?.file_name().to_string_lossy().into_owned()))
            .collect(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(failed(e)),
    }
}

/// Removes a file, which may be gone.
pub(super) fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::local(path.display(), e)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
