//! A thread of its own, in a network namespace of its own where there is one: clients live in such.

use std::{
    future::Future,
    thread::{self, JoinHandle},
};

use tokio::sync::oneshot;

use super::netns::Namespace;
use crate::{
    error::{Error, Result},
    runtime::runtime,
};

/// The running thread. Dropping it ends it at once.
#[derive(Debug)]
pub(super) struct Worker {
    thread: Option<JoinHandle<Result<()>>>,
    abort: Option<oneshot::Sender<()>>,
}

impl Worker {
    /// Does what `work` says, in the network namespace `netns`, with an asynchronous runtime.
    ///
    /// # Errors
    /// [`Error::Local`]: no thread can be had.
    pub(super) fn start<F: Future<Output = ()>>(
        netns: Option<&str>,
        work: impl FnOnce() -> F + Send + 'static,
    ) -> Result<Self> {
        let (abort, aborted) = oneshot::channel::<()>();
        let netns = netns.map(str::to_owned);
        let thread = thread::Builder::new()
            .name("clients".to_owned())
            .spawn(move || {
                if let Some(name) = netns {
                    Namespace::enter(&name)?;
                }
                runtime()?.block_on(async {
                    tokio::select! {
                        _ = aborted => {}
                        () = work() => {}
                    }
                });
                Ok(())
            })
            .map_err(|e| Error::local("the clients' thread", e))?;
        Ok(Self { thread: Some(thread), abort: Some(abort) })
    }

    /// Waits until the work is done.
    ///
    /// # Errors
    /// What kept it from being done at all.
    pub(super) async fn finish(&mut self) -> Result<()> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        tokio::task::spawn_blocking(move || join(thread))
            .await
            .map_err(|e| Error::local("the clients' thread", e))?
    }

    /// True when the thread has ended and nobody waited for it.
    pub(super) fn ended(&self) -> bool {
        self.thread.as_ref().is_some_and(JoinHandle::is_finished)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.abort.take());
        if let Some(thread) = self.thread.take() {
            let _ = join(thread);
        }
    }
}

fn join(thread: JoinHandle<Result<()>>) -> Result<()> {
    thread.join().unwrap_or_else(|_| Err(Error::Local("the clients' thread panicked".to_owned())))
}
