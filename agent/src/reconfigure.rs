//! The configuration read again while the agent runs: on SIGHUP, and when a controller replaces Octavia's file.

use std::{io, path::Path, sync::Arc};

use tokio::{
    sync::{Mutex, watch},
    task::spawn_blocking,
};

use crate::{
    config::{Config, ConfigError, DEFAULT_FILE, HeartbeatConfig, Sources},
    directory::replace_file,
    tls::{ServerTls, TlsError},
};

/// Said of what was read and does not count yet.
const WAITS: &str = "only [health_manager] and debug change without a restart; the rest of the files waits";

/// What may change while the agent runs.
#[derive(Debug)]
pub struct Reconfigure {
    sources: Sources,
    /// As the agent was started.
    config: Config,
    tls: Arc<ServerTls>,
    heartbeats: watch::Sender<HeartbeatConfig>,
    /// Held while the file is replaced.
    turn: Mutex<()>,
}

/// Why the configuration was not replaced. What was before is as it was.
#[derive(Debug, thiserror::Error)]
pub enum NotReconfigured {
    /// It is not usable.
    #[error(transparent)]
    Faulty(#[from] ConfigError),
    /// The certificates that it names are not usable.
    #[error(transparent)]
    Certificates(#[from] TlsError),
    /// It is no text.
    #[error("the configuration is not UTF-8")]
    NotText,
    /// The disk does not take it.
    #[error("cannot be stored: {0}")]
    Storage(io::Error),
    /// A defect.
    #[error("{0}")]
    Internal(String),
}

impl Reconfigure {
    /// Of an agent that was started with `config`, read from `sources`.
    pub fn new(
        sources: Sources,
        config: Config,
        tls: Arc<ServerTls>,
        heartbeats: watch::Sender<HeartbeatConfig>,
    ) -> Arc<Self> {
        Arc::new(Self { sources, config, tls, heartbeats, turn: Mutex::new(()) })
    }

    /// Reads the certificates again, and of the configuration what Octavia calls mutable. What is not usable is logged, and the old
    /// stays.
    pub async fn reload(&self) {
        let (tls, sources) = (Arc::clone(&self.tls), self.sources.clone());
        let read = spawn_blocking(move || (tls.reload(), Config::load(&sources)));
        // It can only have panicked, which is told by then.
        let Ok((certificates, configuration)) = read.await else { return };
        match certificates {
            Ok(()) => tracing::info!("certificates were read again"),
            Err(error) => tracing::error!(%error, "the new certificates are not usable; the old ones stay"),
        }
        match configuration {
            Ok(new) => {
                self.take_up(new);
            }
            Err(error) => tracing::error!(%error, "the new configuration is not usable; the old one stays"),
        }
    }

    /// Replaces the file that is the controller's, and takes it up: what of it waits for a restart is answered.
    ///
    /// # Errors
    /// See [`NotReconfigured`].
    pub async fn replace(&self, text: Vec<u8>) -> Result<Option<&'static str>, NotReconfigured> {
        let _turn = self.turn.lock().await;
        let sources = self.sources.clone();
        let work = move || -> Result<Config, NotReconfigured> {
            let text = String::from_utf8(text).map_err(|_| NotReconfigured::NotText)?;
            let new = Config::load_with(&sources, &text)?;
            // The next start would not be one.
            ServerTls::load(new.certificates(), new.tls_protocol)?;
            replace_file(sources.first().unwrap_or(Path::new(DEFAULT_FILE)), text.as_bytes())
                .map_err(NotReconfigured::Storage)?;
            Ok(new)
        };
        let replaced = spawn_blocking(work).await;
        let new = replaced.map_err(|error| NotReconfigured::Internal(error.to_string()))??;
        tracing::info!("the configuration was replaced");
        Ok(self.take_up(new))
    }

    fn take_up(&self, new: Config) -> Option<&'static str> {
        new.remarks.iter().for_each(|remark| tracing::warn!("{remark}"));
        let (heartbeat, remarks) = (self.config.heartbeat.clone(), self.config.remarks.clone());
        let waits = Config { heartbeat, remarks, debug: self.config.debug, ..new.clone() } != self.config;
        if waits {
            tracing::warn!("{WAITS}");
        }
        amphora_logging::set_levels(new.log_level());
        tracing::debug!("the configuration was read again");
        self.heartbeats.send_if_modified(|heartbeat| {
            let changed = *heartbeat != new.heartbeat;
            *heartbeat = new.heartbeat;
            changed
        });
        waits.then_some(WAITS)
    }
}
