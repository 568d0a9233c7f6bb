//! All of it wired together.

use std::{
    collections::BTreeSet,
    env,
    io::{self, IsTerminal},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use amphora_logging::{LogFormat, Style};
use aws_lc_rs::hmac;
use clap::{ArgMatches, Args};
use data_encoding::HEXLOWER;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::{
    net::UdpSocket,
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::timeout,
};
use tracing::level_filters::LevelFilter;

use super::{
    amphora::Driver,
    api::{Api, server::Server, tls::Tls},
    certificates::{Certificates, Validity, reads::Reads, tenants::Tenants},
    compute::{
        Compute as _, Drivers,
        deaths::Deaths,
        namespaces::{self, Namespaces},
        qemu::{self, Qemu},
    },
    config::{ComputeDriver, Config, Network, Source, Sources, Subnet},
    data_dir::{directories, keep_amphorae, lock, prepare, read_by_others, secret},
    db::Db,
    health_manager::{self, watch::Watch},
    housekeeping,
    network::{
        Networks,
        bridges::{self, Bridges},
    },
    worker::{outside::Ground, schedule, spares::Spares, task::Context},
};
use crate::{
    error::{Error, Result},
    host,
};

/// How long the end waits for requests under way.
const DRAIN: Duration = Duration::from_secs(5);

/// How long what is under way on this host may take when all else has ended.
const LEAVE: Duration = Duration::from_secs(1);

/// What `serve` is told on the command line.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// A file of the configuration; repeatable, in the order given
    #[arg(long, value_name = "FILE")]
    config_file: Vec<PathBuf>,
    /// Each `*.conf` in a directory, by name; repeatable
    #[arg(long, value_name = "DIR")]
    config_dir: Vec<PathBuf>,
    /// Database, certificates and amphorae; made when it is missing
    #[arg(long, value_name = "DIR", default_value = "/var/lib/amphora-controller")]
    data_dir: PathBuf,
    /// Begin anew although amphorae are there whose database is gone: they are removed
    #[arg(long)]
    new_database: bool,
    /// Files and directories in the order of the command line.
    #[arg(skip)]
    sources: Vec<Source>,
}

impl Options {
    /// Takes the order of files and directories from the command line: what is said later counts.
    pub(crate) fn put_in_order(&mut self, matches: &ArgMatches) {
        let place = |id: &str| matches.indices_of(id).into_iter().flatten();
        let files = place("config_file").zip(self.config_file.drain(..).map(Source::File));
        let directories = place("config_dir").zip(self.config_dir.drain(..).map(Source::Directory));
        let mut all: Vec<(usize, Source)> = files.chain(directories).collect();
        all.sort_by_key(|(at, _)| *at);
        self.sources = all.into_iter().map(|(_, source)| source).collect();
    }
}

/// Runs until SIGTERM or SIGINT. Amphorae go on without it.
///
/// # Errors
/// It cannot start.
pub fn run(options: &Options) -> Result<()> {
    let sources = Sources::new(options.sources.clone());
    let config = Config::load(&sources).map_err(|e| Error::Usage(e.to_string()))?;
    let data =
        std::path::absolute(&options.data_dir).map_err(|e| Error::local(options.data_dir.display(), e))?;
    if let Some(obstacle) = host::obstacle() {
        return Err(Error::Local(format!("amphorae and their networks: {obstacle}")));
    }
    let level = if config.debug { LevelFilter::DEBUG } else { LevelFilter::INFO };
    // systemd's journal has times of its own.
    let without_time = env::var_os("JOURNAL_STREAM").is_some();
    let style = Style { format: LogFormat::chosen(None), ansi: io::stderr().is_terminal(), without_time };
    let _log = amphora_logging::to_stderr(level, style);
    raise_limit();
    let runtime = crate::runtime::runtime()?;
    let done = runtime.block_on(serve(config, &data, options.new_database));
    // What hangs, as a program that was asked for links, or a disk with certificates, ends with the process.
    runtime.shutdown_timeout(LEAVE);
    done
}

/// How many files this process is to be able to open, and those that it starts. A client of the API takes one.
const FILES: u64 = 65_536;

/// Raises the number of files that may be open, beyond what was permitted where root may do that.
fn raise_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| {
        let all = hard.max(FILES);
        setrlimit(Resource::RLIMIT_NOFILE, all, all)
            .or_else(|_| setrlimit(Resource::RLIMIT_NOFILE, hard, hard))
    });
    if let Err(error) = raised {
        tracing::warn!(%error, "the number of open files stays as it is");
    }
}

async fn serve(config: Config, data: &Path, new_database: bool) -> Result<()> {
    let listen = |kind| signal(kind).map_err(|e| Error::local("signals", e));
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    // Whoever has written rows by hand says so by this.
    let mut hang_up = listen(SignalKind::hangup())?;
    for remark in &config.remarks {
        tracing::warn!("{remark}");
    }
    prepare(data)?;
    if let Some(storage) = &config.certificates.storage_path {
        let files = read_by_others(storage);
        if let Some(first) = files.first() {
            let (first, count) = (first.display(), files.len());
            tracing::warn!(%first, count, "others may read keys of tenants in [certificates] storage_path");
        }
    }
    let _lock = lock(data)?;
    let networks = Networks::new(config.networks.clone());
    let certificates = Arc::new(certificates(&config, data)?);
    let heartbeat_key = match &config.health.key {
        Some(key) => key.clone(),
        None => HEXLOWER.encode(&secret(&data.join("heartbeat.key"))?),
    };
    let deaths = Deaths::default();
    let namespaces = namespaces(&config, data, &heartbeat_key, deaths.clone())?;
    let file = data.join("serve.db");
    if !new_database {
        keep_amphorae(&file, namespaces.list().await?.len() + directories(&data.join("machines"))?)?;
    }
    let db =
        Db::open(&file).map_err(|e| Error::Local(format!("{}: {e} ({})", file.display(), e.remedy())))?;
    let (used, has_machines): (BTreeSet<String>, bool) = db
        .read::<_, Error, _>(|t| {
            let mut query = t.prepare("SELECT DISTINCT network_id FROM port")?;
            let rows = query.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
            let query = "SELECT EXISTS (SELECT 1 FROM amphora WHERE compute_driver = 'qemu')";
            Ok((rows, t.query_row(query, [], |row| row.get(0))?))
        })
        .await?;
    let (known, machines) = (networks.clone(), config.compute.management.clone());
    for line in db.read::<_, Error, _>(move |t| Ok(known.missed(t, &machines)?)).await? {
        tracing::warn!("{line}");
    }
    // Machines that were made before the configuration named no image any more run on.
    let has_machines = has_machines || config.compute.image.is_some();
    let mut all: Vec<&Network> = networks.all().iter().collect();
    if has_machines {
        all.push(&config.compute.management);
    }
    let made = bridges::make(&all, &used, namespaces.instance())?;
    let bridges =
        Bridges { networks: all.into_iter().cloned().collect(), instance: namespaces.instance().to_owned() };
    let (client, newest) = watch::channel(certificates.client()?);
    let agents = Driver::new(newest);
    let qemu = qemu(&config, data, &heartbeat_key, namespaces.instance(), agents.clone(), deaths.clone())?;
    let died = deaths.subscribe();
    let own = certificates.clone();
    let ground = Ground {
        compute: Drivers::new(namespaces, qemu, deaths),
        usual: (config.compute.driver, config.compute.size),
        reads: Reads::of(Arc::clone(&certificates)),
        certificates,
        agents: agents.clone(),
        networks: networks.clone(),
        bridges,
        secret: hmac::Key::new(hmac::HMAC_SHA256, &secret(&data.join("pair.key"))?),
    };
    let context = Arc::new(Context {
        store: db.clone(),
        outside: ground,
        networks,
        agent_ports: config.compute.agent_ports,
        spares: Spares { size: config.house_keeping.spares, topology: config.worker.topology },
        management: management(&config)?,
    });
    let (stop, stopped) = watch::channel(false);
    let api = Arc::new(Api::new(db.clone(), config.clone(), tenants(&config, data)).with_agents(agents));
    let traffic = api.traffic();
    let tls = config.api.tls.clone().map(Tls::open).transpose();
    let tls = tls.map_err(|e| Error::Usage(format!("[api_settings] cert_file: {e}")))?;
    let server = Server::bind(config.api.bind, api).await.map(|server| server.with_tls(tls));
    let server = server.map_err(|e| Error::local(format!("[api_settings] {}", config.api.bind), e))?;
    let address = server.address().map_err(|e| Error::local("the API", e))?;
    let api = tokio::spawn(server.run(stopped.clone(), DRAIN));
    let heartbeats = heartbeats(&config, has_machines).await?;
    let silent =
        Watch::new(config.health.timeout, config.health.failover_threshold, config.health.check_interval);
    let health = health_manager::run(
        heartbeats,
        heartbeat_key,
        silent,
        (config.health.check_interval, config.health.timeout),
        db.clone(),
        traffic,
    );
    let health = tokio::spawn(health);
    let (every, buffer) = (config.house_keeping.cert_interval, config.house_keeping.cert_expiry_buffer);
    let keeping = tokio::spawn(housekeeping::run(db.clone(), own, client, every, buffer));
    // Consoles of machines are bounded where they are read.
    let dirs = vec![data.join("amphorae")];
    let tidying = tokio::spawn(housekeeping::tidy::run(db.clone(), config.house_keeping.events, dirs));
    let (wake, woken) = watch::channel(0);
    let worker = tokio::spawn(schedule::run(context, config.worker.workers, woken, died, stopped));
    made.keep();
    tracing::info!(api = %address, data = %data.display(), "serving");
    let mut changes = db.changes();
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            Some(()) = hang_up.recv() => {}
            Ok(()) = changes.changed() => {}
        }
        wake.send_modify(|count: &mut u64| *count += 1);
    }
    let _ = stop.send(true);
    health.abort();
    keeping.abort();
    tidying.abort();
    api.await.map_err(|e| Error::local("the API", e))?;
    worker.await.map_err(|e| Error::local("the worker", e))?;
    let _ = tokio::join!(health, keeping);
    // All of it is in one file once nobody has it open.
    drop(db);
    let _ = timeout(DRAIN, async { while changes.changed().await.is_ok() {} }).await;
    Ok(())
}

fn namespaces(config: &Config, data: &Path, key: &str, deaths: Deaths) -> Result<Namespaces> {
    let settings = namespaces::Settings {
        dir: data.join("amphorae"),
        agent: config.compute.agent_cmd.clone().map_or_else(beside, Ok)?,
        proxy: config.compute.proxy_cmd.clone(),
        vrrp: config.compute.vrrp_cmd.clone(),
        heartbeats: Some((config.health.bind, key.to_owned(), config.health.interval.as_secs())),
    };
    let driver = Namespaces::open(settings, deaths)?;
    if config.compute.driver == ComputeDriver::Namespaces {
        driver.check()?;
    }
    Ok(driver)
}

fn qemu(
    config: &Config,
    data: &Path,
    key: &str,
    instance: &str,
    agents: Driver,
    deaths: Deaths,
) -> Result<Qemu> {
    let settings = qemu::Settings {
        dir: data.join("machines"),
        image: config.compute.image.clone(),
        programs: config.compute.qemu_cmds.clone(),
        accel: config.compute.accel,
        user: config.compute.qemu_user.clone(),
        management: config.compute.management.clone(),
        heartbeats: (in_management(config)?, key.to_owned(), config.health.interval.as_secs()),
        boot_time: config.compute.boot_timeout,
        lets_go: qemu::LETS_GO,
    };
    Qemu::open(settings, instance, agents, deaths)
}

/// The prefix of the management network.
fn management(config: &Config) -> Result<Subnet> {
    let subnet = config.compute.management.subnets.first().cloned();
    subnet.ok_or_else(|| Error::Usage("[compute] management_network: has no prefix".to_owned()))
}

/// Where virtual machines send heartbeats to: this host in their network.
fn in_management(config: &Config) -> Result<SocketAddr> {
    Ok(SocketAddr::new(management(config)?.gateway(), config.health.bind.port()))
}

/// Where heartbeats come to.
async fn heartbeats(config: &Config, has_machines: bool) -> Result<Vec<UdpSocket>> {
    let (own, further) = (config.health.bind, in_management(config)?);
    let mut addresses = vec![own];
    // `::` hears IPv4, too.
    let heard = own.ip().is_unspecified() && (own.is_ipv6() || further.is_ipv4());
    if has_machines && own != further && !heard {
        addresses.push(further);
    }
    let mut sockets = Vec::new();
    for address in addresses {
        let socket = UdpSocket::bind(address).await;
        sockets.push(socket.map_err(|e| Error::local(format!("[health_manager] {address}"), e))?);
    }
    Ok(sockets)
}

fn certificates(config: &Config, data: &Path) -> Result<Certificates> {
    let tenants = tenants(config, data);
    let config = &config.certificates;
    let ca = config.ca.as_ref().map(|(certificate, key)| (certificate.as_path(), key.as_path()));
    let validity = Validity { issued: config.validity, authority: config.ca_validity };
    Certificates::open(&data.join("authority"), ca, validity, Some(tenants))
}

/// Where tenants' certificates are.
fn tenants(config: &Config, data: &Path) -> Tenants {
    let named = config.certificates.storage_path.clone();
    Tenants::of(config, &named.unwrap_or_else(|| data.join("certificates")))
}

/// `amphora-agent` beside this program.
fn beside() -> Result<PathBuf> {
    let own = env::current_exe().map_err(|e| Error::local("this program", e))?;
    Ok(own.with_file_name("amphora-agent"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use clap::{Args as _, FromArgMatches as _};

    use super::*;

    #[test]
    fn files_and_directories_keep_their_order() {
        let command = Options::augment_args(clap::Command::new("serve"));
        let words = ["serve", "--config-file", "a", "--config-dir", "b", "--config-file", "c"];
        let matches = command.try_get_matches_from(words).unwrap();
        let mut options = Options::from_arg_matches(&matches).unwrap();
        options.put_in_order(&matches);
        let [Source::File(a), Source::Directory(b), Source::File(c)] = &options.sources[..] else {
            panic!("{:?}", options.sources)
        };
        assert_eq!([a, b, c].map(|path| path.to_str().unwrap()), ["a", "b", "c"]);
    }
}
