//! A whole agent: everything wired together, from the start to the end.

use std::{fmt, fs, path::PathBuf, sync::Arc};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

use crate::{
    amphora::Amphora,
    config::{Config, HeartbeatConfig},
    heartbeat::{Sender, Vitals},
    metrics::Metrics,
    proxy_client::ProxyClient,
    rest::{Api, Server},
    store::Store,
    supervise::{self, Supervisor},
    tls::ServerTls,
};

/// Why an agent did not start.
#[derive(Debug)]
pub struct StartError(String);

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for StartError {}

fn cannot<E: fmt::Display>(what: impl fmt::Display) -> impl FnOnce(E) -> StartError {
    move |error| StartError(format!("cannot {what}: {error}"))
}

/// Runs until SIGTERM or SIGINT. `config` was read from `file`, which SIGHUP reads again.
///
/// # Errors
/// When something that it cannot do without is missing at the start.
pub async fn run(file: PathBuf, config: Config, supervised: bool) -> Result<(), StartError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(cannot("handle signals"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot("handle signals"))?;
    let hangup = signal(SignalKind::hangup()).map_err(cannot("handle signals"))?;

    config.remarks.iter().for_each(|remark| tracing::warn!("{remark}"));
    if supervised {
        let program = supervise::program(&config);
        supervise::check(&program).map_err(cannot(format!("run the proxy {}", program.display())))?;
    }
    let base = config.base_path.display();
    let store = Arc::new(Store::open(&config.base_path).map_err(cannot(format!("open {base}")))?);
    let client = ProxyClient::new(config.control_socket.clone());
    let amphora = Amphora::open(store.clone(), client.clone()).map_err(cannot(format!("read {base}")))?;
    let tls = ServerTls::load(&config.agent_server_ca, &config.agent_server_cert, config.tls_protocol);
    let tls = Arc::new(tls.map_err(cannot("use the certificates"))?);
    let (metrics, vitals) = (Arc::new(Metrics::default()), Arc::new(Vitals::default()));
    let api = Arc::new(Api::new(&config, amphora.clone(), metrics.clone(), vitals.clone()));
    let server = Server::bind(config.bind, config.max_connections, tls.clone(), api, metrics.clone());
    let server = server.await.map_err(cannot(format!("listen on {}", config.bind)))?;
    let address = server.address().map_err(cannot("listen"))?;

    let (stop_proxy, proxy_stopped) = watch::channel(false);
    let supervisor = if supervised {
        fs::create_dir_all(&config.run_dir).map_err(cannot(format!("make {}", config.run_dir.display())))?;
        let supervisor = Supervisor::new(&config, client, metrics.clone());
        let amphora = amphora.clone();
        Some(tokio::spawn(supervisor.run(proxy_stopped, move || amphora.wake())))
    } else {
        None
    };
    let (heartbeats, heartbeat) = watch::channel(config.heartbeat.clone());
    let sender = Sender::new(config.amphora_id.clone(), amphora.clone(), store, metrics, vitals);
    let background = [
        tokio::spawn(sender.run(heartbeat)),
        tokio::spawn(amphora.clone().run()),
        tokio::spawn(reload(hangup, file, config.clone(), tls, heartbeats)),
    ];
    let (stop, stopped) = watch::channel(false);
    let serving = tokio::spawn(server.run(stopped, config.drain_timeout));
    tracing::info!(%address, amphora_id = %config.amphora_id, supervise = supervised, "ready");

    tokio::select! {
        _ = terminate.recv() => tracing::info!("stopping on SIGTERM"),
        _ = interrupt.recv() => tracing::info!("stopping on SIGINT"),
    }
    stop.send_replace(true);
    let _ = serving.await;
    amphora.quiesce(config.drain_timeout).await;
    background.iter().for_each(tokio::task::JoinHandle::abort);
    stop_proxy.send_replace(true);
    if let Some(supervisor) = supervisor {
        let _ = supervisor.await;
    }
    tracing::info!("stopped");
    Ok(())
}

/// On each SIGHUP: reads the certificates again, and of the configuration what Octavia calls mutable.
async fn reload(
    mut hangup: Signal,
    file: PathBuf,
    config: Config,
    tls: Arc<ServerTls>,
    heartbeats: watch::Sender<HeartbeatConfig>,
) {
    while hangup.recv().await.is_some() {
        match tls.reload() {
            Ok(()) => tracing::info!("certificates were read again"),
            Err(error) => tracing::error!(%error, "the new certificates are not usable; the old ones stay"),
        }
        match Config::load(&file) {
            Ok(new) => {
                new.remarks.iter().for_each(|remark| tracing::warn!("{remark}"));
                let (heartbeat, remarks) = (config.heartbeat.clone(), config.remarks.clone());
                if (Config { heartbeat, remarks, ..new.clone() }) != config {
                    tracing::warn!(
                        "only [health_manager] changes without a restart; the rest of the file waits"
                    );
                }
                heartbeats.send_if_modified(|heartbeat| {
                    let changed = *heartbeat != new.heartbeat;
                    *heartbeat = new.heartbeat;
                    changed
                });
            }
            Err(error) => tracing::error!(%error, "the new configuration is not usable; the old one stays"),
        }
    }
}
