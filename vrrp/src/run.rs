//! The life of the process: start, serve, stop with nothing left behind.

use std::{error::Error, fs, io, path::Path};

use amphora_ipc::server::ControlSocket;
use amphora_sandbox::Files;
use tokio::{
    runtime,
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    task::LocalSet,
};

use crate::{
    cli::Options,
    config::{self, Config},
    control::{Asked, Command, Control},
    daemon::{Daemon, WatchOptions},
    privileges,
};

type Failure = Box<dyn Error>;

/// Commands that wait.
const COMMANDS: usize = 16;

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// When something that it cannot do without is missing at the start.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let config = options.config.as_deref().and_then(|file| {
        // The control socket may bring a better one.
        let there = read(file).inspect(|config| {
            if config.is_none() {
                tracing::warn!(file = %file.display(), "no virtual router runs: the file is not there");
            }
        });
        there.unwrap_or_else(|error| {
            tracing::error!("no virtual router runs: {error}");
            None
        })
    });
    // The control socket is bound by its path, which no network namespace changes.
    if let Some(name) = &options.netns {
        privileges::enter_network_namespace(name)?;
    }
    privileges::be_on_time(options.realtime_priority);
    let runtime = runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    LocalSet::new().block_on(&runtime, serve(options, config))
}

async fn serve(options: &Options, config: Option<Config>) -> Result<(), Failure> {
    tokio::task::spawn_local(amphora_logging::tell_of_repeats());
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let socket = ControlSocket::bind(&options.control_socket, "daemon")
        .map_err(|error| format!("{}: {error}", options.control_socket.display()))?;
    let files = options.config.iter().fold(Files::none(), |files, file| files.read_beside(file));
    privileges::confine(options.user.as_deref(), &options.control_socket, files)?;
    let watch = WatchOptions {
        socket: options.fitness_socket.clone(),
        interval: options.fitness_interval(),
        drain_limit: options.drain_limit(),
    };
    let mut daemon = Daemon::new(watch).await?;
    daemon.configure(config).await;
    tracing::info!(control = %options.control_socket.display(), "ready");

    let (commands, asked) = mpsc::channel(COMMANDS);
    let reload = async {
        while hangup.recv().await.is_some() {
            if let Some(file) = &options.config {
                reload(file, &commands).await;
            }
        }
    };
    let stop = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = socket.serve(Control::new(commands.clone())) => {}
            () = reload => {}
        }
    };
    daemon.run(asked, stop).await;
    tracing::info!("stopped");
    Ok(())
}

async fn reload(file: &Path, commands: &mpsc::Sender<Asked>) {
    // An operator who wants no virtual router says so on the control socket.
    let config = read(file)
        .and_then(|config| config.ok_or_else(|| format!("{}: it is not there", file.display()).into()));
    match config.map(Some) {
        Ok(config) => {
            let (reply, replied) = tokio::sync::oneshot::channel();
            if commands.send((Command::Configure(config), reply)).await.is_ok() {
                let _ = replied.await;
                tracing::info!(file = %file.display(), "the configuration was read again");
            }
        }
        Err(error) => tracing::error!(%error, "the new configuration is not usable; the old one stays"),
    }
}

/// `None` when there is no such file.
#[expect(clippy::disallowed_methods, reason = "at the start, and once when an operator asks for it")]
fn read(file: &Path) -> Result<Option<Config>, Failure> {
    let text = match fs::read_to_string(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text.map_err(|error| format!("{}: {error}", file.display()))?,
    };
    config::parse(&text).map(Some).map_err(|refusal| {
        let faults: Vec<_> =
            refusal.faults.iter().map(|fault| format!("{}: {fault}", file.display())).collect();
        faults.join("\n").into()
    })
}
