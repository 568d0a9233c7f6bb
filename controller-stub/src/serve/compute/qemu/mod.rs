//! Amphorae in virtual machines: QEMU with the image of `images/`, which outlives `serve`.
//!
//! QEMU holds a lock of its directory as its standard input, so that the kernel says for certain whether it runs, also to the next
//! `serve`. A machine has one interface at its start, in the management network; others are plugged in by QEMU's monitor. One that has
//! ended is not started again, but replaced.
//!
//! | module | what |
//! | --- | --- |
//! | [`command`] | QEMU's command line; no I/O |
//! | [`drive`] | the config drive; no I/O |
//! | [`qmp`] | the client of QEMU's monitor |
//! | `files` | a machine's directory: drive, disk, console |
//! | `host` | what this host has for machines |
//! | `ports` | interfaces of machines that run |

pub mod command;
pub mod drive;
mod files;
mod host;
mod ports;
pub mod qmp;

use std::{
    collections::{BTreeSet, HashMap},
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use amphora_agent::supervise::process::{Command, Process};
use nix::{errno::Errno, sys::signal::Signal, unistd::Pid};
use serde_json::Value;
use tokio::{
    sync::{Mutex, OwnedMutexGuard, watch},
    task::spawn_blocking,
    time::{Instant, sleep},
};

use self::{drive::Drive, host::Account, ports::make_tap, qmp::Monitor};
use super::{Compute, Interface, Liveness, Machine, deaths::Deaths, namespaces::entries};
use crate::{
    error::{Error, Result},
    failpoint::reach,
    host::{interfaces, ip_batch, make_passage},
    serve::{
        amphora::{Agent, Driver},
        config::{Network, Subnet},
        network::{bridges, mac},
    },
};

/// The longest path of a unix socket (unix(7)), without the zero.
const SOCKET_PATH: usize = 107;

/// How long a machine has to let a card go. Its kernel gives somebody who changes his mind 5 s, and who is emulated is slow; nobody waits for it.
pub const LETS_GO: Duration = Duration::from_secs(20);

/// How long QEMU has for an answer: what it does for one takes it some milliseconds.
const ANSWER: Duration = Duration::from_secs(10);

/// How long it has to say whether its machine runs, of which its process says nearly everything.
const GLANCE: Duration = Duration::from_secs(1);

/// How long it has from its start until it can be asked.
const START: Duration = Duration::from_secs(30);

/// How long what was killed may take to end: it is the kernel's turn then.
const END: Duration = Duration::from_secs(10);

/// How often is looked whether something has come about.
const POLL: Duration = Duration::from_millis(5);

/// Who executes a machine's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accel {
    /// The processor, by the kernel.
    Kvm,
    /// QEMU, which translates them.
    Tcg,
}

/// What the driver is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the machines' directories are.
    pub dir: PathBuf,
    /// `[compute] image`; without it no machine is made.
    pub image: Option<PathBuf>,
    /// `[compute] qemu_cmd`, `qemu_img_cmd` and `mkisofs_cmd`.
    pub programs: [PathBuf; 3],
    /// `[compute] accel`; `None`: KVM where it is to be had.
    pub accel: Option<Accel>,
    /// `[compute] qemu_user`.
    pub user: Option<String>,
    /// The management network.
    pub management: Network,
    /// Where heartbeats go, what signs them, and the seconds between two.
    pub heartbeats: (SocketAddr, String, u64),
    /// `[compute] boot_timeout`.
    pub boot_time: Duration,
    /// How long a machine has to let a card go: [`LETS_GO`], where it has a system.
    pub lets_go: Duration,
}

/// The driver.
#[derive(Debug)]
pub struct Qemu {
    settings: Settings,
    instance: String,
    accel: Accel,
    agents: Driver,
    deaths: Deaths,
    turns: Turns,
}

/// One thing at a time is done to a machine's files: what nobody waits for any more ends before they are removed.
#[derive(Debug, Default)]
struct Turns(Mutex<HashMap<String, Arc<Mutex<()>>>>);

impl Turns {
    async fn take(&self, machine: &str) -> OwnedMutexGuard<()> {
        let turn = Arc::clone(self.0.lock().await.entry(machine.to_owned()).or_default());
        turn.lock_owned().await
    }

    async fn forget(&self, machine: &str) {
        self.0.lock().await.remove(machine);
    }
}

impl Qemu {
    /// `instance` distinguishes all that is made here from what others make. Blocks.
    ///
    /// # Errors
    /// The directory's path is too long; there is an image, and something that it takes is not there.
    pub fn open(settings: Settings, instance: &str, agents: Driver, deaths: Deaths) -> Result<Self> {
        let accel = match settings.accel {
            Some(accel) => accel,
            None if host::no_kvm().is_none() => Accel::Kvm,
            None => Accel::Tcg,
        };
        let instance = instance.to_owned();
        let this = Self { settings, instance, accel, agents, deaths, turns: Turns::default() };
        let socket = this.monitor_socket(&this.name(&uuid::Uuid::nil().to_string()));
        if socket.as_os_str().len() > SOCKET_PATH {
            let text =
                format!("is too long a path: {} would have more than {SOCKET_PATH} bytes", socket.display());
            return Err(Error::local(this.settings.dir.display(), text));
        }
        if let Some(image) = &this.settings.image {
            host::format(image)?;
            for program in &this.settings.programs {
                host::program(program)?;
            }
            host::opens_taps(Account::find(this.settings.user.as_deref(), accel)?, Path::new(host::TUN))?;
            // There is no machine yet where it was not there; from now on it is lost where it is not.
            make_passage(&this.settings.dir)?;
            match (this.settings.accel, host::no_kvm()) {
                (Some(Accel::Kvm), Some(reason)) => {
                    return Err(Error::Local(format!("[compute] accel = kvm: {reason}")));
                }
                (None, Some(reason)) => {
                    tracing::warn!(reason, "no KVM: virtual machines are emulated, and boot slowly");
                }
                _ => {}
            }
        }
        Ok(this)
    }

    /// What machines boot.
    ///
    /// # Errors
    /// None is configured, so that none are made.
    pub fn image(&self) -> Result<&Path> {
        let image = self.settings.image.as_deref();
        image.ok_or_else(|| Error::NotDone("virtual machines: [compute] image is not set".to_owned()))
    }

    /// Whether a name is one of this driver's machines.
    pub fn owns(&self, machine: &str) -> bool {
        machine.starts_with(&self.prefix())
    }

    /// What the machine of an amphora is called. No other has this name.
    pub fn name(&self, amphora: &str) -> String {
        let short: String = amphora.chars().filter(|c| *c != '-').take(16).collect();
        format!("{}{short}", self.prefix())
    }

    fn prefix(&self) -> String {
        format!("amphora-vm-{}-", self.instance)
    }

    fn short<'a>(&self, machine: &'a str) -> &'a str {
        machine.strip_prefix(&self.prefix()).unwrap_or(machine)
    }

    fn directory(&self, machine: &str) -> PathBuf {
        self.settings.dir.join(self.short(machine))
    }

    fn monitor_socket(&self, machine: &str) -> PathBuf {
        self.directory(machine).join("run/qmp")
    }

    /// A tap of a machine, by what distinguishes it: the machine itself, or a port.
    fn tap(&self, kind: char, of: &str) -> String {
        let of: String = of.chars().filter(char::is_ascii_hexdigit).take(9).collect();
        format!("{kind}{}{of}", &self.instance[..5])
    }

    fn lock(&self, machine: &str) -> PathBuf {
        self.directory(machine).join("qemu.lock")
    }

    /// QEMU of a machine, whatever it is told: enough to find it.
    fn process(&self, machine: &str) -> Result<Option<Process>> {
        let command = Command::new(PathBuf::new(), Vec::new(), self.lock(machine));
        match command.find() {
            Ok(found) => Ok(found),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::local(machine, e)),
        }
    }

    /// Whether QEMU runs, or whoever is about to be it.
    fn is_running(&self, machine: &str) -> Result<bool> {
        let command = Command::new(PathBuf::new(), Vec::new(), self.lock(machine));
        command.runs().map_err(|e| Error::local(machine, e))
    }

    /// Whether there is something of a machine. Where the place of all machines is not there, nothing is known of any. Blocks.
    fn is_there(&self, machine: &str) -> Result<bool> {
        let failed = |e: io::Error| Error::local(machine, e);
        let there = self.directory(machine).try_exists().map_err(failed)?;
        if !there && !self.settings.dir.try_exists().map_err(failed)? {
            return Err(Error::local(self.settings.dir.display(), "is not there"));
        }
        Ok(there)
    }

    /// The monitor of a machine, which its own process must have.
    async fn monitor(&self, machine: &str, patience: Duration) -> Result<Monitor> {
        let gone = || Error::NotDone(format!("{machine} does not run"));
        let process = self.process(machine)?.ok_or_else(gone)?;
        let monitor = Monitor::connect(&self.monitor_socket(machine), process.pid(), patience).await;
        monitor.map_err(|e| Error::NotDone(format!("{machine}: {e}")))
    }

    fn drive<'a>(&'a self, machine: &'a Machine, mac: &'a str) -> Drive<'a> {
        let (controller, key, interval) = &self.settings.heartbeats;
        Drive {
            amphora: &machine.amphora,
            agent: machine.agent,
            length: self.subnet().map_or(0, |subnet| subnet.length),
            mac,
            paired: machine.paired,
            heartbeats: (*controller, key, *interval),
            authority: &machine.authority,
            certificate: &machine.certificate,
        }
    }

    /// That of the management network; a network without one is none.
    fn subnet(&self) -> Option<&Subnet> {
        self.settings.management.subnets.first()
    }

    fn management_mac(&self, machine: &Machine) -> String {
        let subnet = self.subnet().map(|subnet| subnet.id.to_string());
        mac(&subnet.unwrap_or_default(), machine.agent.ip())
    }

    /// Makes what a machine starts with, and gives the command that starts it.
    async fn prepare(&self, machine: &Machine) -> Result<Command> {
        let settings = &self.settings;
        let image = self.image()?.to_owned();
        let mac = self.management_mac(machine);
        let drive = self.drive(machine, &mac).files();
        let (name, uuid, size, accel) =
            (machine.name.clone(), machine.amphora.clone(), machine.size, self.accel);
        let (dir, lock, monitor) =
            (self.directory(&machine.name), self.lock(&machine.name), self.monitor_socket(&machine.name));
        let tap = self.tap('m', self.short(&machine.name));
        let bridge = bridges::name(&settings.management.id);
        let (programs, user) = (settings.programs.clone(), settings.user.clone());
        let turn = self.turns.take(&machine.name).await;
        let prepared = spawn_blocking(move || {
            let _turn = turn;
            host::has_room(size.memory, &dir)?;
            let account = Account::find(user.as_deref(), accel)?;
            let [qemu, qemu_img, mkisofs] = &programs;
            files::make(&dir, &drive, [qemu_img, mkisofs], &image, account)?;
            // Machines have nothing to say to one another here.
            make_tap(&tap, &bridge, account, true)?;
            reach("machine.create.tap");
            let arguments = command::arguments(&command::Machine {
                name: &name,
                uuid: &uuid,
                accel,
                size,
                disk: &dir.join(files::DISK),
                drive: &dir.join(files::DRIVE),
                console: &dir.join(files::CONSOLE),
                monitor: &monitor,
                management: (&tap, &mac),
            });
            let become_it = [
                format!("--reuid={}", account.uid),
                format!("--regid={}", account.gid),
                "--clear-groups".to_owned(),
                "--no-new-privs".to_owned(),
                "--inh-caps=-all".to_owned(),
                "--bounding-set=-all".to_owned(),
                "--".to_owned(),
            ];
            let words = become_it.into_iter().map(Into::into);
            let words = words.chain([host::program(qemu)?.into_os_string()]).chain(arguments);
            let setpriv = host::program(Path::new("setpriv"))?;
            Ok(Command::new(setpriv, words.collect(), lock).with_log(dir.join(files::LOG)))
        });
        prepared.await.map_err(|e| Error::local("a machine's files", e))?
    }

    /// Waits until QEMU can be asked.
    async fn answers(&self, machine: &str) -> Result<()> {
        let deadline = Instant::now() + START;
        loop {
            if matches!(self.is_running(machine), Ok(false)) {
                let said = host::tail(&self.directory(machine).join(files::LOG));
                return Err(Error::NotDone(format!("{machine}: QEMU ended: {said}")));
            }
            match self.monitor(machine, ANSWER).await {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() >= deadline => return Err(error),
                Err(_) => sleep(POLL).await,
            }
        }
    }
}

impl Compute for Qemu {
    fn boot_time(&self, _: &str) -> Duration {
        self.settings.boot_time
    }

    async fn create(&self, machine: &Machine) -> Result<()> {
        let (name, dir) = (&machine.name, self.directory(&machine.name));
        let failed = |e: io::Error| Error::local(dir.display(), e);
        let (turn, made) = (self.turns.take(name).await, dir.clone());
        let made = spawn_blocking(move || {
            let _turn = turn;
            files::make_directory(&made)?;
            reach("machine.create.directory");
            Ok::<_, Error>(())
        });
        made.await.map_err(|e| Error::local("a machine's directory", e))??;
        let process =
            match Command::new(PathBuf::new(), Vec::new(), self.lock(name)).lock().map_err(failed)? {
                Some(lock) => Some(self.prepare(machine).await?.spawn(lock).map_err(failed)?),
                None => self.process(name)?,
            };
        reach("machine.create.process");
        // Else whoever started it was killed before it wrote who it is.
        let process =
            process.ok_or_else(|| Error::NotDone(format!("{name}: a QEMU runs that nobody knows")))?;
        self.deaths.watch(name, process).await;
        self.answers(name).await
    }

    /// By the agent's API, as Octavia does: a config drive is read once.
    async fn configure(&self, machine: &Machine) -> Result<()> {
        let agent = Agent { id: machine.amphora.clone(), address: machine.agent };
        let mac = self.management_mac(machine);
        let client = self.agents.client(&agent)?;
        client.replace_certificate(&machine.certificate).await?;
        client.replace_configuration(&self.drive(machine, &mac).agent_conf()).await
    }

    async fn plug(&self, machine: &str, interface: &Interface) -> Result<()> {
        self.plug_in(machine, interface).await
    }

    async fn unplug(&self, machine: &str, port: &str) -> Result<()> {
        self.pull_out(machine, port).await
    }

    /// At once: nothing of it is kept, so that it is not asked to end in order.
    async fn delete(&self, machine: &str) -> Result<()> {
        let deadline = Instant::now() + END;
        let turn = self.turns.take(machine).await;
        loop {
            if let Ok(Some(process)) = self.process(machine) {
                process.kill();
            }
            let lock = self.lock(machine);
            let holders = spawn_blocking(move || host::holders(&lock));
            let holders = holders.await.map_err(|e| Error::local("processes", e))?;
            let holders = holders.map_err(|e| Error::local(format!("processes of {machine}"), e))?;
            if holders.is_empty() {
                break;
            }
            for pid in holders {
                match nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGKILL) {
                    Ok(()) | Err(Errno::ESRCH) => {}
                    Err(e) => return Err(Error::local(format!("kill process {pid} of {machine}"), e)),
                }
            }
            if Instant::now() > deadline {
                return Err(Error::NotDone(format!("QEMU of {machine} does not end")));
            }
            sleep(POLL).await;
        }
        reach("machine.delete.process");
        let (taps, dir) = (self.taps(machine)?, self.directory(machine));
        let removed = spawn_blocking(move || {
            let _turn = turn;
            let there = interfaces(Some("tun"))?.into_iter().filter(|(name, _)| taps.contains(name));
            let deletions: Vec<String> = there.map(|(name, _)| format!("link delete {name}")).collect();
            if !deletions.is_empty() {
                ip_batch(&deletions)?;
            }
            reach("machine.delete.taps");
            match fs::remove_dir_all(&dir) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::local(dir.display(), e)),
                _ => Ok(()),
            }
        });
        removed.await.map_err(|e| Error::local("a machine's files", e))??;
        self.turns.forget(machine).await;
        Ok(())
    }

    /// Bounds consoles by the way: whoever asks does so every now and then.
    async fn list(&self) -> Result<BTreeSet<String>> {
        let (prefix, dir) = (self.prefix(), self.settings.dir.clone());
        let listed = spawn_blocking(move || {
            let mut found = BTreeSet::new();
            for name in entries(&dir)?.into_iter().filter(|name| dir.join(name).is_dir()) {
                let _ = host::bound_console(&dir.join(&name).join(files::CONSOLE));
                found.insert(format!("{prefix}{name}"));
            }
            Ok(found)
        });
        listed.await.map_err(|e| Error::local("machines", e))?
    }

    async fn alive(&self, machine: &str) -> Result<Liveness> {
        if !self.is_there(machine)? {
            return Ok(Liveness::Absent);
        }
        if !self.is_running(machine)? {
            return Ok(Liveness::Dead);
        }
        if let Ok(Some(process)) = self.process(machine) {
            self.deaths.watch(machine, process).await;
        }
        // One that does not answer may be busy: heartbeats judge of it.
        let Ok(mut monitor) = self.monitor(machine, GLANCE).await else { return Ok(Liveness::Running) };
        Ok(match monitor.call("query-status", Value::Null).await {
            Ok(status) if has_ended(&status) => {
                tracing::warn!(machine, status = %status["status"], "a virtual machine stands still");
                Liveness::Dead
            }
            _ => Liveness::Running,
        })
    }

    fn deaths(&self) -> watch::Receiver<u64> {
        self.deaths.subscribe()
    }
}

/// Whether a machine will not go on by itself, by what QEMU says of it: its disk is full or broken, its kernel has failed for good.
fn has_ended(status: &Value) -> bool {
    matches!(
        status["status"].as_str(),
        Some("io-error" | "internal-error" | "guest-panicked" | "shutdown" | "watchdog")
    )
}

#[cfg(test)]
mod tests;
