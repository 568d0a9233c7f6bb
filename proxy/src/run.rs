//! The life of the process: start, serve, drain.

use std::{
    error::Error, fs, io, path::Path, pin::pin, sync::Arc, thread::available_parallelism, time::Duration,
};

use amphora_model::LoadBalancer;
use amphora_proxy::{
    control::{Control, ControlSocket, FitnessSocket},
    datagram::{Datagrams, Helpers},
    engine::{CertificateDirectory, Engine},
    limits::{self, Bounds, Resources},
    logs::Syslog,
    peers::{Peers, PeersConfig},
    privileges::{self, Sockets, Urgent},
    snapshot::TlsSource,
    tls::{Material, TicketKeys},
};
use amphora_sandbox::Files;
use bytes::Bytes;
use nix::sys::resource::{Resource, getrlimit};
use tokio::{
    runtime,
    signal::unix::{SignalKind, signal},
    task::{LocalSet, spawn_blocking},
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
    // They keep what the rest gives up, and are of the same network namespace.
    let helpers = Helpers::start(options.user.as_deref())?;
    let mut runtime = runtime::Builder::new_current_thread();
    // A thread that has compiled a document keeps a little of what it has used until it ends.
    let runtime = runtime.enable_all().thread_keep_alive(Duration::from_secs(1)).build()?;
    LocalSet::new().block_on(&runtime, serve(options, helpers))
}

async fn serve(options: Options, helpers: Option<Helpers>) -> Result<(), Failure> {
    tokio::task::spawn_local(amphora_logging::tell_of_repeats());
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // Also sent when a terminal is lost or a process group orphaned, which is no reason to stop serving.
    let mut hangup = signal(SignalKind::hangup())?;
    options.state_dir.as_deref().map_or(Ok(()), must_be_a_directory)?;
    options.certificates.as_deref().map_or(Ok(()), must_be_a_directory)?;
    let control = ControlSocket::bind(&options.control_socket, "proxy")
        .map_err(|error| format!("{}: {error}", options.control_socket.display()))?;
    let fitness_socket = FitnessSocket::beside(&options.control_socket);
    let fitness_socket = FitnessSocket::bind(fitness_socket.clone())
        .map_err(|error| format!("{}: {error}", fitness_socket.display()))?;
    // All of these look at what is out of sight afterwards: the control group's limits, the priority that it may have.
    let bounds = resources(&options)?.share_out()?;
    let syslog = Syslog::new(&options.log_socket, bounds.workers)?;
    // For the thread that answers, which has to be made by who may do no more than the rest: it inherits both.
    let urgent = Urgent::for_now();
    let sockets = Sockets {
        control: &options.control_socket,
        fitness: fitness_socket.path(),
        fitness_user: options.fitness_user.as_deref(),
    };
    privileges::confine(options.user.as_deref(), &sockets, readable(&options))?;
    let mut fitness = fitness_socket.start()?;
    drop(urgent);
    let tls = TlsSource { material: Arc::new(certificates(&options)), keys: TicketKeys::new() };
    let (datagrams, forwarding) = Datagrams::start(helpers)?;
    let engine = Engine::start(bounds, tls, syslog, datagrams)?;
    if let Some(file) = &options.load_balancer {
        let name = file.display();
        let document = read(file).await.map_err(|error| format!("{name}: {error}"))?;
        engine.apply_document(document.into()).await.map_err(|error| format!("{name}: {error}"))?;
    }
    if let Some(dir) = &options.state_dir {
        restore(&engine, dir, certificates(&options)).await;
    }
    let (Bounds { workers, clients, .. }, control_socket) = (bounds, options.control_socket.display());
    tracing::info!(workers, clients, control = %control_socket, "ready");

    let pulse = engine.pulse();
    let stalled = pulse.stalled();
    fitness.begin(pulse);
    if let Some(file) = &options.peers_file {
        read_peers(&engine, file).await;
    }
    let peers = async {
        while hangup.recv().await.is_some() {
            if let Some(file) = &options.peers_file {
                read_peers(&engine, file).await;
            }
        }
    };
    let looking = async {
        loop {
            // Slept, not ticked: a look that was late is not followed by one too soon.
            tokio::time::sleep(Duration::from_secs(1)).await;
            if let Some((worker, lateness)) = stalled.take() {
                tracing::error!(worker, "it did {lateness}: the data plane was not fit");
            }
            if engine.look().await != Some(true) {
                return;
            }
        }
    };
    let mut serving = pin!(control.serve(Control::new(engine.clone())));
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = serving.as_mut() => {}
        () = peers => {}
        // Half a data plane is worse than a restart, which takes milliseconds.
        () = looking => return Err("a worker thread has ended".into()),
        () = forwarding.lost() => return Err("nobody is left to forward datagrams".into()),
    }

    // Its addresses may move before the sessions under way have ended.
    drop(fitness);
    tracing::info!(seconds = options.drain_timeout, "draining");
    let patience = Duration::from_secs(options.drain_timeout);
    // What members have for so long only, they have no longer now.
    let looking = async {
        while engine.look().await.is_some() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        std::future::pending().await
    };
    tokio::select! {
        drained = engine.drain(patience) => if !drained {
            tracing::warn!("sessions were cut off");
        },
        // Whoever asks is told how it stands, and that nothing changes any more.
        () = serving => {}
        () = looking => {}
        _ = terminate.recv() => tracing::warn!("told to stop again: sessions were cut off"),
        _ = interrupt.recv() => tracing::warn!("told to stop again: sessions were cut off"),
    }
    Ok(())
}

/// Where certificates are.
fn certificates(options: &Options) -> CertificateDirectory {
    let beside = || Some(options.state_dir.as_ref()?.join("certificates"));
    CertificateDirectory(options.certificates.clone().or_else(beside))
}

/// What there is to share out.
fn resources(options: &Options) -> Result<Resources, Failure> {
    let workers = match options.workers {
        Some(workers) => usize::from(workers),
        None => available_parallelism()?.get(),
    };
    let (descriptors, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let memory = options.memory_limit.map_or_else(limits::memory::available, |mib| mib << 20);
    let set_aside = ControlSocket::DESCRIPTORS + FitnessSocket::DESCRIPTORS + Peers::DESCRIPTORS;
    Ok(Resources { descriptors, memory, set_aside, workers })
}

/// The documents, which are read again whenever the agent says so, and which it replaces.
fn readable(options: &Options) -> Files {
    let files = Files::none();
    let files = options.state_dir.iter().fold(files, |files, directory| files.read(directory));
    let files = options.certificates.iter().fold(files, |files, directory| files.read(directory));
    let files = options.load_balancer.iter().fold(files, |files, file| files.read(file));
    options.peers_file.iter().fold(files, |files, file| files.read_beside(file))
}

/// One that is not there, or is something else, is a mistake in the command line, and not an amphora without a load balancer.
fn must_be_a_directory(directory: &Path) -> Result<(), Failure> {
    #[expect(clippy::disallowed_methods, reason = "at the start, before anybody is served")]
    let there = fs::metadata(directory);
    match there {
        Ok(there) if there.is_dir() => Ok(()),
        Ok(_) => Err(format!("--state-dir {}: it is no directory", directory.display()).into()),
        Err(error) => Err(format!("--state-dir {}: {error}", directory.display()).into()),
    }
}

/// Reads a file, and meanwhile does what else there is to do.
async fn read(file: &Path) -> io::Result<Vec<u8>> {
    let file = file.to_owned();
    #[expect(clippy::disallowed_methods, reason = "on a blocking thread")]
    spawn_blocking(move || fs::read(file)).await.map_err(io::Error::other)?
}

/// Makes the last good document live: the present one, or the one before when the present one cannot be
/// honoured. With neither the proxy serves nothing and waits for the agent.
///
/// So it does where certificates are not there that the present one names, as after a boot of a machine that keeps them in memory
/// alone: that is no fault of the document, and what it has replaced is not to come back in its stead.
async fn restore(engine: &Engine, dir: &Path, certificates: CertificateDirectory) {
    for name in ["loadbalancer.json", "loadbalancer.previous.json"] {
        let file = dir.join(name);
        let document = match read(&file).await {
            Ok(document) => document,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => {
                tracing::error!(file = %file.display(), %error, "not readable");
                continue;
            }
        };
        let document = Bytes::from(document);
        match engine.apply_document(document.clone()).await {
            Ok(_) => {
                tracing::info!(file = %file.display(), "restored");
                return;
            }
            Err(error) => tracing::error!(file = %file.display(), %error, "cannot be restored"),
        }
        let certificates = certificates.clone();
        if spawn_blocking(move || lacks_certificates(&document, &certificates)).await.unwrap_or(false) {
            tracing::warn!(file = %file.display(), "it lacks certificates: nothing is served until they are there");
            return;
        }
    }
}

/// Whether a document that is good in itself names what there is not.
fn lacks_certificates(document: &[u8], certificates: &CertificateDirectory) -> bool {
    let Ok(model) = LoadBalancer::from_json(document) else { return false };
    model.certificates().any(|named| certificates.pem(named.id).is_err())
}

/// Sets the peer to what the file says; a file that is gone says that there is none. One that cannot be read or honoured
/// changes nothing: clients are served without a peer, too.
async fn read_peers(engine: &Engine, file: &Path) {
    let set: Result<(), Failure> = match read(file).await {
        Ok(bytes) => match PeersConfig::from_json(&bytes) {
            Ok(config) => engine.set_peers(config, true).await.map(drop).map_err(Failure::from),
            Err(refusal) => Err(refusal.into()),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            engine.clear_peers().await;
            Ok(())
        }
        Err(error) => Err(error.into()),
    };
    if let Err(error) = set {
        tracing::error!(file = %file.display(), %error, "the peer stays as it is");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods)]

    use super::*;

    #[test]
    fn a_state_directory_that_is_none_is_named() {
        let there = tempfile::tempdir().unwrap();
        must_be_a_directory(there.path()).unwrap();
        let path = there.path().join("octavia");
        let reason = || must_be_a_directory(&path).unwrap_err().to_string();
        let name = format!("--state-dir {}: ", path.display());
        assert_eq!(reason(), format!("{name}No such file or directory (os error 2)"));
        fs::write(&path, "").unwrap();
        assert_eq!(reason(), format!("{name}it is no directory"));
    }
}
