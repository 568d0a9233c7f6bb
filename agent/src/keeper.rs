//! What the keepers of a daemon's configuration have in common ([`crate::amphora`], [`crate::vrrp`], [`crate::peers`]): a change is
//! written first and applied second, and what the daemon refuses is taken back.

use std::{io, sync::Arc, time::Duration};

use amphora_ipc::client::ControlError;
use bytes::Bytes;
use tokio::{
    sync::{Mutex, Notify},
    task::spawn_blocking,
    time::{sleep, timeout},
};

use crate::{
    change_error::ChangeError,
    store::{Kept, Slot, Staged, Store},
};

/// What is stored of one kind, and somebody who keeps a daemon at it.
#[derive(Debug)]
pub(crate) struct Keeper {
    store: Arc<Store>,
    kept: Kept,
    wake: Notify,
}

/// A change that did not come about.
#[derive(Debug)]
pub(crate) struct NotReplaced {
    error: ControlError,
    unstaged: Result<(), ChangeError>,
}

impl NotReplaced {
    /// Whether the daemon may run what is not stored, or the reverse. `untouched` says of the daemon's answer that it changed
    /// nothing.
    pub(crate) fn has_diverged(&self, untouched: impl FnOnce(&ControlError) -> bool) -> bool {
        self.unstaged.is_err() || !untouched(&self.error)
    }
}

impl From<NotReplaced> for ChangeError {
    fn from(NotReplaced { error, unstaged }: NotReplaced) -> Self {
        unstaged.err().unwrap_or_else(|| error.into())
    }
}

impl Keeper {
    pub(crate) fn new(store: Arc<Store>, kept: Kept) -> Self {
        Self { store, kept, wake: Notify::new() }
    }

    /// What is stored, as it was stored.
    pub(crate) async fn read(&self, slot: Slot) -> Result<Option<Bytes>, ChangeError> {
        let kept = self.kept;
        let document = self.blocking(move |store| store.read(kept, slot)).await?;
        Ok(document.map(Bytes::from))
    }

    /// Stores a document.
    pub(crate) async fn stage(&self, document: Bytes) -> Result<Staged, ChangeError> {
        let kept = self.kept;
        self.blocking(move |store| store.stage(kept, &document)).await
    }

    /// Takes back what was stored.
    pub(crate) async fn unstage(&self, staged: Staged) -> Result<(), ChangeError> {
        let kept = self.kept;
        self.blocking(move |store| store.unstage(kept, staged)).await
    }

    /// Stores nothing any more.
    pub(crate) async fn remove(&self) -> Result<(), ChangeError> {
        let kept = self.kept;
        self.blocking(move |store| store.remove(kept)).await
    }

    /// Stores a document and has it applied; whether another was stored before, and the answer.
    ///
    /// # Errors
    /// When it is not stored, or was taken back because it is not applied.
    pub(crate) async fn replace<T>(
        &self,
        document: Bytes,
        apply: impl Future<Output = Result<T, ControlError>>,
    ) -> Result<Result<(bool, T), NotReplaced>, ChangeError> {
        let staged = self.stage(document).await?;
        Ok(self.applied(staged, apply).await)
    }

    /// The same of a document with less in it than the one that is stored: a disk that is full does not keep it there.
    ///
    /// # Errors
    /// Likewise.
    pub(crate) async fn replace_with_less<T>(
        &self,
        document: Bytes,
        apply: impl Future<Output = Result<T, ControlError>>,
    ) -> Result<Result<(bool, T), NotReplaced>, ChangeError> {
        let kept = self.kept;
        let staged = self.blocking(move |store| store.stage_less(kept, &document)).await?;
        Ok(self.applied(staged, apply).await)
    }

    async fn applied<T>(
        &self,
        staged: Staged,
        apply: impl Future<Output = Result<T, ControlError>>,
    ) -> Result<(bool, T), NotReplaced> {
        match apply.await {
            Ok(answer) => Ok((staged != Staged::Unchanged, answer)),
            Err(error) => Err(NotReplaced { error, unstaged: self.unstage(staged).await }),
        }
    }

    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> io::Result<T> + Send + 'static,
    ) -> Result<T, ChangeError> {
        let store = self.store.clone();
        let done = spawn_blocking(move || work(&store)).await;
        done.map_err(|error| ChangeError::Internal(error.to_string()))?.map_err(ChangeError::Storage)
    }

    /// Asks for a look at the daemon soon.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Waits for the next look: so long, or until it is asked for, which is true.
    pub(crate) async fn pause(&self, at_most: Duration) -> bool {
        tokio::select! {
            () = sleep(at_most) => false,
            () = self.wake.notified() => true,
        }
    }

    /// Waits until no change of `state` is under way, at most so long.
    pub(crate) async fn quiesce<T>(&self, state: &Mutex<T>, at_most: Duration) {
        if timeout(at_most, state.lock()).await.is_err() {
            tracing::warn!(
                document = self.kept.current(),
                "a change was still under way at the end of drain_timeout"
            );
        }
    }
}
