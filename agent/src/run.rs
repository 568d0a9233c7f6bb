//! A whole agent: everything wired together, from the start to the end.

use std::{fmt, sync::Arc};

use amphora_netlink::LinkChanges;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    task::JoinHandle,
};

use crate::{
    amphora::Amphora,
    config::{Config, Sources, Topology},
    directory,
    heartbeat::{Sender, Vitals},
    metrics::Metrics,
    peers::Peers,
    plumbing::Plumbing,
    proxy_client::ProxyClient,
    reconfigure::Reconfigure,
    rest::{Api, Own, Server},
    store::Store,
    supervise::{self, Supervisor, Users},
    tls::ServerTls,
    vrrp::Vrrp,
    vrrp_client::VrrpClient,
};

/// Why an agent did not start.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StartError(String);

fn cannot<E: fmt::Display>(what: impl fmt::Display) -> impl FnOnce(E) -> StartError {
    move |error| StartError(format!("cannot {what}: {error}"))
}

/// Tells of directories through which programs that run as others do not get to their files, before these say that they cannot read them.
fn remark_on_passage(config: &Config, users: &Users) {
    for (option, path) in [("base_path", &config.base_path), ("run_dir", &config.run_dir)] {
        let mut accounts = users.proxy.iter().chain(&users.vrrp);
        let found = accounts.find_map(|account| Some((account.name(), directory::keeps_out(path, account)?)));
        if let Some((user, kept_by)) = found {
            let kept_by = kept_by.display();
            tracing::warn!(%option, user, directory = %kept_by, "programs of this user do not pass here to their files: `chmod o+x`, or another place");
        }
    }
}

/// Runs until SIGTERM or SIGINT. `config` was read from `sources`, which SIGHUP reads again.
///
/// # Errors
/// When something that it cannot do without is missing at the start.
pub async fn run(sources: Sources, config: Config, supervised: bool) -> Result<(), StartError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(cannot("handle signals"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot("handle signals"))?;
    let hangup = signal(SignalKind::hangup()).map_err(cannot("handle signals"))?;

    config.remarks.iter().for_each(|remark| tracing::warn!("{remark}"));
    if supervised {
        for (name, program) in supervise::programs(&config) {
            supervise::check(&program).map_err(cannot(format!("run {name} {}", program.display())))?;
        }
    }
    let base = config.base_path.display();
    let users = if supervised {
        Users::find(&config).map_err(cannot("start programs as others"))?
    } else {
        Users::named(&config).map_err(cannot("share documents with others"))?
    };
    let store = Store::open(&config.base_path).map_err(cannot(format!("open {base}")))?;
    let store = store.share_with((&users).into()).map_err(cannot(format!("share what is in {base}")))?;
    let store = Arc::new(store);
    let client = ProxyClient::new(config.control_socket.clone(), config.proxy_timeout);
    let amphora = Amphora::open(store.clone(), client.clone()).map_err(cannot(format!("read {base}")))?;
    amphora.must_fit_heartbeats(!config.heartbeat.controllers.is_empty());
    let vrrp_client = VrrpClient::new(config.vrrp_control_socket.clone());
    let vrrp = Vrrp::open(store.clone(), vrrp_client).map_err(cannot(format!("read {base}")))?;
    let peers = Peers::open(store.clone(), client, config.peers_file.is_some())
        .map_err(cannot(format!("read {base}")))?;
    let tls = ServerTls::load(config.certificates(), config.tls_protocol);
    let tls = Arc::new(tls.map_err(cannot("use the certificates"))?);
    let (metrics, vitals) = (Arc::new(Metrics::default()), Arc::new(Vitals::default()));
    let plumbing = Plumbing::open((&config).into(), store.clone()).map_err(cannot(format!("read {base}")))?;
    let links = restore(&plumbing, &config).await?;
    let (heartbeats, heartbeat) = watch::channel(config.heartbeat.clone());
    let reconfigure = Reconfigure::new(sources, config.clone(), tls.clone(), heartbeats);
    let api = Api::new(
        &config,
        amphora.clone(),
        plumbing.clone(),
        vrrp.clone(),
        peers.clone(),
        Own {
            metrics: metrics.clone(),
            vitals: vitals.clone(),
            tls: tls.clone(),
            reconfigure: reconfigure.clone(),
        },
    );
    let api = Arc::new(api);
    let server = Server::bind(config.bind, config.max_connections, tls, api, metrics.clone());
    let server = server.await.map_err(cannot(format!("listen on {}", config.bind)))?;
    let address = server.address().map_err(cannot("listen"))?;

    let mut programs = Vec::new();
    if supervised {
        directory::make(&config.run_dir).map_err(cannot(format!("make {}", config.run_dir.display())))?;
        remark_on_passage(&config, &users);
        // In the order in which they are stopped: the peer takes over while the proxy still serves.
        if config.topology == Topology::ActiveStandby {
            let vrrp = vrrp.clone();
            let supervisor = Supervisor::vrrp(&config, &users, metrics.clone());
            programs.push(Supervised::start(supervisor, move || vrrp.wake()));
        }
        let (amphora, peers) = (amphora.clone(), peers.clone());
        let supervisor = Supervisor::proxy(&config, &users, metrics.clone());
        programs.push(Supervised::start(supervisor, move || {
            amphora.wake();
            peers.wake();
        }));
    }
    let id = config.amphora_id.clone();
    let sender = Sender::new(id, amphora.clone(), vrrp.clone(), store, metrics, vitals);
    let mut background = vec![
        tokio::spawn(sender.run(heartbeat)),
        tokio::spawn(amphora.clone().run()),
        tokio::spawn(vrrp.clone().run()),
        tokio::spawn(peers.clone().run()),
        tokio::spawn(reload(hangup, reconfigure)),
    ];
    if let Some(links) = links {
        background.push(tokio::spawn(plumbing.clone().watch_addresses()));
        background.push(tokio::spawn(plumbing.watch(links)));
    }
    let (stop, stopped) = watch::channel(false);
    let serving = tokio::spawn(server.run(stopped, config.drain_timeout));
    tracing::info!(%address, amphora_id = %config.amphora_id, supervise = supervised, "ready");

    tokio::select! {
        _ = terminate.recv() => tracing::info!("stopping on SIGTERM"),
        _ = interrupt.recv() => tracing::info!("stopping on SIGINT"),
    }
    stop.send_replace(true);
    let _ = serving.await;
    let at_most = config.drain_timeout;
    tokio::join!(amphora.quiesce(at_most), vrrp.quiesce(at_most), peers.quiesce(at_most));
    background.iter().for_each(JoinHandle::abort);
    for program in programs {
        program.stop().await;
    }
    tracing::info!("stopped");
    Ok(())
}

/// Plugs what was plugged before the machine booted, and what happens to interfaces from then on, when there is a
/// namespace to plug into. What fails is logged and left for later: an agent that answers can be helped.
async fn restore(plumbing: &Arc<Plumbing>, config: &Config) -> Result<Option<LinkChanges>, StartError> {
    if config.network_namespace.is_none() {
        return Ok(None);
    }
    let links = LinkChanges::open().map_err(cannot("watch interfaces"))?;
    if let Err(error) = plumbing.restore().await {
        tracing::error!(%error, "cannot plug the ports again");
    }
    Ok(Some(links))
}

/// A supervisor that runs.
struct Supervised {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Supervised {
    fn start(supervisor: Supervisor, started: impl Fn() + Send + 'static) -> Self {
        let (stop, stopped) = watch::channel(false);
        Self { stop, task: tokio::spawn(supervisor.run(stopped, started)) }
    }

    /// Returns when the program has ended.
    async fn stop(self) {
        self.stop.send_replace(true);
        let _ = self.task.await;
    }
}

/// On each SIGHUP.
async fn reload(mut hangup: Signal, reconfigure: Arc<Reconfigure>) {
    while hangup.recv().await.is_some() {
        reconfigure.reload().await;
    }
}
