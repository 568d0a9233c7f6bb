//! How far a change is.

use std::{collections::BTreeMap, pin::Pin, sync::Arc};

use amphora_ipc::proxy::{Applied, Checked, Refusal};
use amphora_model::Binding;
use tokio::{
    sync::oneshot,
    task::{JoinError, JoinHandle},
};

use super::change::ApplyError;
use crate::{net::NewListener, snapshot::Snapshot, state::Registry};

pub(super) type Reply = oneshot::Sender<Result<Applied, ApplyError>>;
pub(super) type Compiled = Result<Option<Snapshot>, ApplyError>;
pub(super) type Verdict = Result<Checked, ApplyError>;

/// How far the change under way is.
pub(super) enum Stage {
    /// There is none.
    Idle,
    /// Nothing that runs was touched yet.
    Compiling { task: JoinHandle<Compiled>, reply: Reply },
    /// Somebody wants to know whether something could go live; it will not.
    Checking { task: JoinHandle<Verdict>, reply: oneshot::Sender<Verdict> },
    /// Sockets are bound, and the kernel is told what datagrams it is to forward.
    Forwarding { forwarded: Pin<Box<dyn Future<Output = Result<(), String>>>>, bound: Bound, reply: Reply },
    /// The workers have been told.
    Swapping { live: Pin<Box<dyn Future<Output = ()>>>, snapshot: Arc<Snapshot>, reply: Reply },
    /// It is live, and whoever asked for it knows. Nothing else is done or answered until everything that goes by the
    /// configuration has followed.
    Settling { task: JoinHandle<Arc<Registry>> },
}

/// What is ready to go live.
pub(super) struct Bound {
    pub(super) snapshot: Arc<Snapshot>,
    /// A share for each worker of every address that is new.
    pub(super) sockets: BTreeMap<Binding, Vec<NewListener>>,
}

/// The end of a stage.
pub(super) enum Step {
    Compiled(Box<Compiled>),
    Checked(Verdict),
    Forwarded(Result<(), String>),
    Live,
    Settled(Arc<Registry>),
}

impl Stage {
    /// Waits for the end of the stage, for ever when there is none. May be cancelled.
    pub(super) async fn end(&mut self) -> Step {
        match self {
            Self::Idle => std::future::pending().await,
            Self::Compiling { task, .. } => {
                Step::Compiled(Box::new(task.await.unwrap_or_else(|error| Err(defect(&error)))))
            }
            Self::Checking { task, .. } => {
                Step::Checked(task.await.unwrap_or_else(|error| Err(defect(&error))))
            }
            Self::Forwarding { forwarded, .. } => Step::Forwarded(forwarded.as_mut().await),
            Self::Swapping { live, .. } => {
                live.as_mut().await;
                Step::Live
            }
            Self::Settling { task } => match task.await {
                Ok(registry) => Step::Settled(registry),
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            },
        }
    }
}

fn defect(error: &JoinError) -> ApplyError {
    tracing::error!(%error, "a change could not be compiled");
    ApplyError::Failed(Refusal::one("", format!("a defect of the proxy: {error}")))
}
