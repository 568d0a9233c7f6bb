//! The life of the process: start, serve, drain.

use std::{
    error::Error,
    fs, io,
    path::Path,
    rc::Rc,
    thread::available_parallelism,
    time::{Duration, Instant},
};

use amphora_proxy::{
    control::{ControlSocket, FitnessSocket},
    engine::Engine,
    memory::{self, Bursts},
    model::LoadBalancer,
    peers::PeersConfig,
    privileges,
};
use tokio::{
    runtime,
    signal::unix::{SignalKind, signal},
    sync::Mutex,
    task::LocalSet,
};

use crate::cli::Options;

type Failure = Box<dyn Error>;

/// Runs until told to stop.
pub(crate) fn run(options: Options) -> Result<(), Failure> {
    privileges::raise_descriptor_limit();
    // The socket belongs to the namespace of the file system, not to the network's, but the threads made below
    // must all be in the network namespace, so it is entered first.
    if let Some(name) = &options.netns {
        privileges::enter_network_namespace(name)?;
    }
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, serve(options))
}

async fn serve(options: Options) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // Also sent when a terminal is lost or a process group orphaned, which is no reason to stop serving.
    let mut hangup = signal(SignalKind::hangup())?;
    let control = ControlSocket::bind(&options.control_socket)
        .map_err(|error| format!("{}: {error}", options.control_socket.display()))?;
    let fitness_socket = FitnessSocket::beside(&options.control_socket);
    let fitness_socket = FitnessSocket::bind(fitness_socket.clone())
        .map_err(|error| format!("{}: {error}", fitness_socket.display()))?;
    if let Some(user) = &options.user {
        privileges::become_user(user, &[&options.control_socket, fitness_socket.path()])?;
    }
    let workers = match options.workers {
        Some(workers) => usize::from(workers),
        None => available_parallelism()?.get(),
    };
    let (mut engine, mut metrics) = Engine::start(workers)?;
    if let Some(file) = &options.load_balancer {
        engine.apply(Some(read(file)?)).await.map_err(|error| format!("{}: {error}", file.display()))?;
    }
    if let Some(dir) = &options.state_dir {
        restore(&mut engine, dir).await;
    }
    tracing::info!(workers, control = %options.control_socket.display(), "ready");

    let pulse = engine.pulse();
    if let Some(file) = &options.peers_file {
        read_peers(&mut engine, file);
    }
    let engine = Rc::new(Mutex::new(engine));
    let peers = {
        let engine = Rc::clone(&engine);
        let file = options.peers_file.clone();
        async move {
            while hangup.recv().await.is_some() {
                if let Some(file) = &file {
                    read_peers(&mut *engine.lock().await, file);
                }
            }
        }
    };
    let exposition = {
        let engine = Rc::clone(&engine);
        async move {
            while let Some(reply) = metrics.recv().await {
                // The client may have gone meanwhile.
                let _ = reply.send(engine.lock().await.exposition());
            }
        }
    };
    let fitness = {
        let engine = Rc::clone(&engine);
        async move {
            let mut bursts = Bursts::default();
            loop {
                // Slept, not ticked: a look that was late is not followed by one too soon.
                tokio::time::sleep(Duration::from_secs(1)).await;
                let connections = {
                    let mut engine = engine.lock().await;
                    engine.sample(Instant::now());
                    if !engine.is_fit() {
                        return;
                    }
                    engine.connections()
                };
                if bursts.is_over(connections) {
                    let given = memory::give_back();
                    tracing::debug!(connections, given, "memory of a burst goes back");
                }
            }
        }
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = control.serve(Rc::clone(&engine)) => {}
        () = exposition => {}
        () = fitness_socket.serve(pulse) => {}
        () = peers => {}
        // Half a data plane is worse than a restart, which takes milliseconds.
        () = fitness => return Err("a worker thread has ended".into()),
    }

    // Its addresses may move before the sessions under way have ended.
    drop(fitness_socket);
    tracing::info!(seconds = options.drain_timeout, "draining");
    let patience = Duration::from_secs(options.drain_timeout);
    let mut engine = engine.lock().await;
    tokio::select! {
        drained = engine.drain(patience) => if !drained {
            tracing::warn!("sessions were cut off");
        },
        _ = terminate.recv() => tracing::warn!("told to stop again: sessions were cut off"),
        _ = interrupt.recv() => tracing::warn!("told to stop again: sessions were cut off"),
    }
    Ok(())
}

/// Makes the last good document live: the present one, or the one before when the present one cannot be
/// honoured. With neither the proxy serves nothing and waits for the agent.
async fn restore(engine: &mut Engine, dir: &Path) {
    for name in ["loadbalancer.json", "loadbalancer.previous.json"] {
        let file = dir.join(name);
        match fs::exists(&file) {
            Ok(true) => {}
            Ok(false) => continue,
            Err(error) => {
                tracing::error!(file = %file.display(), %error, "not readable");
                continue;
            }
        }
        let applied = match read(&file) {
            Ok(model) => engine.apply(Some(model)).await.map_err(Failure::from),
            Err(error) => Err(error),
        };
        match applied {
            Ok(_) => {
                tracing::info!(file = %file.display(), "restored");
                return;
            }
            Err(error) => tracing::error!(file = %file.display(), %error, "cannot be restored"),
        }
    }
}

/// Sets the peer to what the file says; a file that is gone says that there is none. One that cannot be read or honoured
/// changes nothing: clients are served without a peer, too.
fn read_peers(engine: &mut Engine, file: &Path) {
    let set = match fs::read(file) {
        Ok(bytes) => PeersConfig::from_json(&bytes)
            .and_then(|config| engine.set_peers(config, true))
            .map_err(Failure::from),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            engine.clear_peers();
            Ok(())
        }
        Err(error) => Err(error.into()),
    };
    if let Err(error) = set {
        tracing::error!(file = %file.display(), %error, "the peer stays as it is");
    }
}

fn read(file: &Path) -> Result<LoadBalancer, Failure> {
    let name = file.display();
    let bytes = fs::read(file).map_err(|error: io::Error| format!("{name}: {error}"))?;
    LoadBalancer::from_json(&bytes).map_err(|error| format!("{name}: {error}").into())
}
