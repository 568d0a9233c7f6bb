//! The connection to the data plane's fitness socket.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use amphora_ipc::{
    fitness::{ASK as QUESTION, BUSY, FIT, QUIESCE, QUIET, RESUME},
    threads::Starvation,
};
use tokio::{
    io::AsyncReadExt,
    net::UnixStream,
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep, sleep_until},
};

use crate::{config::Track, core::Fitness};

/// Requests of a [`Drainer`] that wait.
const REQUESTS: usize = 4;
/// Time between attempts to connect.
const RECONNECT: Duration = Duration::from_millis(50);

/// What the watch has found out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) fit: bool,
    /// False until it has answered, or has failed to.
    pub(super) known: bool,
    pub(super) connected: bool,
    /// Times that it became unfit.
    pub(super) went_unfit: u64,
}

/// A watch that runs until it is dropped.
#[derive(Debug)]
pub(super) struct Watch {
    verdict: watch::Receiver<Verdict>,
    drainer: Drainer,
    task: tokio::task::JoinHandle<()>,
}

/// Lets the clients of the data plane go, through the connection of a [`Watch`].
#[derive(Clone, Debug)]
pub(super) struct Drainer(mpsc::Sender<Request>);

#[derive(Debug)]
enum Request {
    Quiesce(oneshot::Sender<bool>),
    Resume,
}

impl Drainer {
    /// Lets nobody in any more, and says whether nobody is left; `None` when the data plane does not answer.
    pub(super) async fn is_quiet(&self) -> Option<bool> {
        let (reply, quiet) = oneshot::channel();
        self.0.send(Request::Quiesce(reply)).await.ok()?;
        quiet.await.ok()
    }

    /// Lets clients in again.
    pub(super) fn resume(&self) {
        // When so much waits that it does not fit, the connection hangs and will be closed, which resumes as well.
        let _ = self.0.try_send(Request::Resume);
    }
}

impl Watch {
    /// To be called within a `LocalSet`.
    pub(super) fn start(socket: &Path, track: Track, interval: Duration) -> Self {
        let (verdict, watched) = watch::channel(Verdict::default());
        let (requests, requested) = mpsc::channel(REQUESTS);
        let fitness = Fitness::new(track, interval);
        let task = tokio::task::spawn_local(run(socket.to_owned(), fitness, requested, verdict));
        Self { verdict: watched, drainer: Drainer(requests), task }
    }

    /// To let its clients go.
    pub(super) fn drainer(&self) -> Drainer {
        self.drainer.clone()
    }

    pub(super) fn verdict(&self) -> Verdict {
        *self.verdict.borrow()
    }

    /// Resolves when the verdict is another.
    pub(super) async fn changed(&mut self) {
        if self.verdict.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(
    socket: PathBuf,
    mut fitness: Fitness,
    mut requests: mpsc::Receiver<Request>,
    verdict: watch::Sender<Verdict>,
) {
    let publish = |fitness: &Fitness, connected: bool| {
        verdict.send_if_modified(|verdict| {
            let before = *verdict;
            verdict.went_unfit += u64::from(before.fit && !fitness.is_fit());
            verdict.fit = fitness.is_fit();
            verdict.known = fitness.is_known();
            verdict.connected = connected;
            *verdict != before
        });
    };
    let mut told = None;
    loop {
        match UnixStream::connect(&socket).await {
            Ok(mut stream) => {
                told = None;
                fitness.handle_connected(Instant::now().into_std());
                let publish = |fitness: &Fitness| publish(fitness, true);
                let reason = converse(&mut stream, &mut fitness, &mut requests, publish).await;
                tracing::warn!(%reason, "the connection to the data plane is gone");
            }
            Err(error) if means_absence(error.kind()) => {
                tracing::debug!(%error, socket = %socket.display(), "no data plane");
            }
            // It may be there and well; without the reason nobody would find out why this router takes no part.
            Err(error) => {
                if told.replace(error.kind()) != Some(error.kind()) {
                    tracing::error!(%error, socket = %socket.display(), "the data plane cannot be asked whether it is fit");
                }
            }
        }
        fitness.handle_closed();
        publish(&fitness, false);
        // Who asked is told by that that there is no answer.
        while requests.try_recv().is_ok() {}
        sleep(RECONNECT).await;
    }
}

/// Whether nobody listens, for now, rather than that this process may not, or cannot, connect.
fn means_absence(error: io::ErrorKind) -> bool {
    matches!(error, io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::WouldBlock)
}

/// Asks and listens until the connection ends; says why it did.
async fn converse(
    stream: &mut UnixStream,
    fitness: &mut Fitness,
    requests: &mut mpsc::Receiver<Request>,
    publish: impl Fn(&Fitness),
) -> String {
    let mut answers = [0; 16];
    let process = stream.peer_cred().ok().and_then(|peer| peer.pid());
    let mut starvation = Starvation::default();
    let mut quiesce: Option<oneshot::Sender<bool>> = None;
    loop {
        let due = fitness.poll_timeout().map_or_else(Instant::now, Instant::from_std);
        let sent = tokio::select! {
            biased;
            read = stream.read(&mut answers) => match read {
                Ok(0) => return "closed by the data plane".to_owned(),
                Ok(n) => {
                    for octet in &answers[..n] {
                        if !matches!(*octet, QUIET | BUSY) {
                            fitness.handle_answer(*octet == FIT);
                            starvation.forget();
                        } else if let Some(reply) = quiesce.take() {
                            // Whoever asked may have given up.
                            let _ = reply.send(*octet == QUIET);
                        }
                    }
                    Ok(())
                }
                Err(error) => return error.to_string(),
            },
            Some(request) = requests.recv() => match request {
                Request::Quiesce(reply) => {
                    quiesce = Some(reply);
                    send(stream, QUIESCE)
                }
                Request::Resume => send(stream, RESUME),
            },
            () = sleep_until(due) => {
                let now = Instant::now().into_std();
                if fitness.handle_timeout(now, || process.is_some_and(|process| starvation.look(process, None, now))) {
                    send(stream, QUESTION)
                } else {
                    Ok(())
                }
            }
        };
        if let Err(error) = sent {
            return error.to_string();
        }
        publish(fitness);
    }
}

fn send(stream: &UnixStream, octet: u8) -> io::Result<()> {
    match stream.try_write(&[octet]) {
        // It has hung for so long that the socket is full of questions.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        sent => sent.map(|_| ()),
    }
}
