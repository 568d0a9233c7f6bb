//! The connection to the data plane's fitness socket.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    io::AsyncReadExt,
    net::UnixStream,
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use crate::{config::Track, core::Fitness};

/// The octet that says "fit"; see the proxy's `control::fitness`.
const FIT: u8 = b'+';
/// The octet that asks.
const QUESTION: u8 = b'?';
/// Time between attempts to connect.
const RECONNECT: Duration = Duration::from_millis(50);

/// What the watch has found out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) fit: bool,
    pub(super) connected: bool,
    /// Times that it became unfit.
    pub(super) went_unfit: u64,
}

/// A watch that runs until it is dropped.
#[derive(Debug)]
pub(super) struct Watch {
    verdict: watch::Receiver<Verdict>,
    task: tokio::task::JoinHandle<()>,
}

impl Watch {
    /// To be called within a `LocalSet`.
    pub(super) fn start(socket: &Path, track: Track, interval: Duration) -> Self {
        let (verdict, watched) = watch::channel(Verdict::default());
        let task = tokio::task::spawn_local(run(socket.to_owned(), Fitness::new(track, interval), verdict));
        Self { verdict: watched, task }
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

async fn run(socket: PathBuf, mut fitness: Fitness, verdict: watch::Sender<Verdict>) {
    let publish = |fit: bool, connected: bool| {
        verdict.send_if_modified(|verdict| {
            let before = *verdict;
            verdict.went_unfit += u64::from(before.fit && !fit);
            verdict.fit = fit;
            verdict.connected = connected;
            *verdict != before
        });
    };
    loop {
        match UnixStream::connect(&socket).await {
            Ok(mut stream) => {
                fitness.handle_connected(Instant::now().into_std());
                let reason = converse(&mut stream, &mut fitness, |fit| publish(fit, true)).await;
                tracing::warn!(%reason, "the connection to the data plane is gone");
                fitness.handle_closed();
            }
            Err(error) => tracing::debug!(%error, socket = %socket.display(), "no data plane"),
        }
        publish(false, false);
        sleep(RECONNECT).await;
    }
}

/// Asks and listens until the connection ends; says why it did.
async fn converse(stream: &mut UnixStream, fitness: &mut Fitness, publish: impl Fn(bool)) -> String {
    let mut answers = [0; 16];
    let process = stream.peer_cred().ok().and_then(|peer| peer.pid());
    loop {
        let due = fitness.poll_timeout().map_or_else(Instant::now, Instant::from_std);
        tokio::select! {
            biased;
            read = stream.read(&mut answers) => match read {
                Ok(0) => return "closed by the data plane".to_owned(),
                Ok(n) => answers[..n].iter().for_each(|octet| fitness.handle_answer(*octet == FIT)),
                Err(error) => return error.to_string(),
            },
            () = sleep_until(due) => {
                if fitness.handle_timeout(Instant::now().into_std(), || is_starved(process)) {
                    match stream.try_write(&[QUESTION]) {
                        Ok(_) => {}
                        // It has hung for so long that the socket is full of questions.
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        Err(error) => return error.to_string(),
                    }
                }
            }
        }
        publish(fitness.is_fit());
    }
}

/// Whether a thread of the process wants to run, or runs; one that is stopped or waits for something does not.
fn is_starved(process: Option<i32>) -> bool {
    let Some(process) = process else { return false };
    let Ok(threads) = fs::read_dir(format!("/proc/{process}/task")) else { return false };
    threads.flatten().any(|thread| {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        // The state follows the name, which is in parentheses and may have some of its own.
        stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('R'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_very_thread_runs_and_nobody_else_is_known() {
        assert!(is_starved(i32::try_from(std::process::id()).ok()));
        assert!(!is_starved(None));
        assert!(!is_starved(Some(i32::MAX)));
    }
}
