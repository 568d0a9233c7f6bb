//! The proxy's side of [`amphora_ipc::fitness`].

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use amphora_ipc::fitness::{BUSY, QUIESCE, QUIET, RESUME, socket_beside};
pub use amphora_ipc::fitness::{FIT, UNFIT};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    task::JoinSet,
};

use crate::engine::Pulse;
use amphora_ipc::server::remove_stale;

/// Connections served at once; more wait in the socket's queue.
const MAX_CONNECTIONS: usize = 8;
/// How long accepting pauses when the system is out of resources.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The socket of one process. Removed from the file system when dropped.
#[derive(Debug)]
pub struct FitnessSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl FitnessSocket {
    /// Where the socket is that belongs to a control socket: the same name with `.fitness` behind it.
    pub fn beside(control_socket: &Path) -> PathBuf {
        socket_beside(control_socket)
    }

    /// Binds it, readable and writable by the owner and the group. To be called by who holds the control socket, so
    /// that what is there already was left by a process that is gone.
    ///
    /// # Errors
    /// As the file system says.
    pub fn bind(path: PathBuf) -> io::Result<Self> {
        remove_stale(&path)?;
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o660))?;
        Ok(Self { listener, path })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Serves until dropped, which closes all connections. To be called within a `LocalSet`.
    pub async fn serve(&self, pulse: Pulse) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let pulse = Rc::new(pulse);
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                unreachable!("the semaphore is never closed")
            };
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let pulse = Rc::clone(&pulse);
                    connections.spawn_local(async move {
                        if let Err(error) = answer(stream, &pulse).await {
                            tracing::debug!(%error, "fitness connection");
                        }
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "fitness socket");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

impl Drop for FitnessSocket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// One answer for all that was asked meanwhile, so that a peer in a hurry makes no queue.
async fn answer(mut stream: UnixStream, pulse: &Pulse) -> io::Result<()> {
    let mut asked = [0; 16];
    let mut kept_out = KeptOut(None);
    loop {
        let read = stream.read(&mut asked).await?;
        if read == 0 {
            return Ok(());
        }
        let asked = &asked[..read];
        if let Some(last) = asked.iter().rfind(|octet| matches!(**octet, QUIESCE | RESUME)) {
            kept_out.0 = (*last == QUIESCE).then_some(pulse);
            let quiet = pulse.quiesce(*last == QUIESCE).await == Some(0);
            if *last == QUIESCE {
                stream.write_all(&[if quiet { QUIET } else { BUSY }]).await?;
            }
        }
        if asked.iter().any(|octet| *octet != QUIESCE) {
            let fit = pulse.beat().await;
            stream.write_all(&[if fit { FIT } else { UNFIT }]).await?;
        }
    }
}

/// Lets clients in again at the end of the connection that kept them out.
struct KeptOut<'a>(Option<&'a Pulse>);

impl Drop for KeptOut<'_> {
    fn drop(&mut self) {
        if let Some(pulse) = self.0 {
            pulse.resume();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tokio::task::LocalSet;

    use super::*;
    use crate::engine::Engine;

    #[tokio::test]
    async fn answers_while_workers_turn_and_closes_with_the_process() {
        let directory = tempfile::tempdir().unwrap();
        let path = FitnessSocket::beside(&directory.path().join("proxy.sock"));
        assert!(path.ends_with("proxy.sock.fitness"));
        LocalSet::new()
            .run_until(async {
                let engine = Engine::start(2).unwrap();
                let socket = FitnessSocket::bind(path.clone()).unwrap();
                let pulse = engine.pulse();
                let serving = tokio::task::spawn_local(async move { socket.serve(pulse).await });
                let mut peer = UnixStream::connect(&path).await.unwrap();
                let mut octet = [0];
                for _ in 0..3 {
                    peer.write_all(b"?").await.unwrap();
                    peer.read_exact(&mut octet).await.unwrap();
                    assert_eq!(octet, [FIT]);
                }
                assert!(engine.drain(Duration::from_secs(5)).await);
                peer.write_all(b"?").await.unwrap();
                peer.read_exact(&mut octet).await.unwrap();
                assert_eq!(octet, [UNFIT]);
                serving.abort();
                assert!(serving.await.unwrap_err().is_cancelled());
                assert_eq!(peer.read(&mut octet).await.unwrap(), 0);
                assert!(!path.exists());
            })
            .await;
    }

    #[tokio::test]
    async fn clients_are_kept_out_until_resumed_or_the_connection_closes() {
        let directory = tempfile::tempdir().unwrap();
        let path = FitnessSocket::beside(&directory.path().join("proxy.sock"));
        LocalSet::new()
            .run_until(async {
                let engine = Engine::start(2).unwrap();
                let socket = FitnessSocket::bind(path.clone()).unwrap();
                let pulse = engine.pulse();
                let serving = tokio::task::spawn_local(async move { socket.serve(pulse).await });
                let ask = async |peer: &mut UnixStream, octets: &[u8], answers: &[u8]| {
                    peer.write_all(octets).await.unwrap();
                    let mut got = vec![0; answers.len()];
                    peer.read_exact(&mut got).await.unwrap();
                    assert_eq!(got, answers);
                };
                let mut peer = UnixStream::connect(&path).await.unwrap();
                ask(&mut peer, b"q", &[QUIET]).await;
                ask(&mut peer, b"?", &[FIT]).await;
                ask(&mut peer, b"q?", &[QUIET, FIT]).await;
                ask(&mut peer, b"r", &[FIT]).await;
                assert_eq!(engine.pulse().quiesce(true).await, Some(0));
                drop(engine);
                serving.abort();
            })
            .await;
    }
}
