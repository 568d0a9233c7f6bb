//! What is left to do on the disk after a certificate was staged: to remove the one before, when the proxy takes the new one, or to take it
//! back. A disk that fails then, and an agent that was killed in between, leave that to be done later.

use std::sync::Arc;

use super::{Amphora, State};
use crate::{
    change_error::ChangeError,
    store::{Slot, Staged, Store},
};

/// What the proxy has said of a certificate that is staged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing yet, as far as this agent knows.
    Open,
    /// It runs with it.
    Taken,
    /// It does not. What was staged is to be taken back.
    Refused(Staged),
}

impl Amphora {
    /// Those that an agent before this one has left open.
    pub(super) fn left_open(store: &Store) -> std::io::Result<super::Unsettled> {
        let left = store.undecided_certificates()?;
        Ok(left.into_iter().map(|id| (id, Verdict::Open)).collect())
    }

    /// Does what is left to do.
    ///
    /// # Errors
    /// When the proxy has not said, or a certificate that it has refused is still in its place: the present document would be refused
    /// with it.
    pub(super) async fn settle(self: &Arc<Self>, state: &mut State) -> Result<(), ChangeError> {
        if state.unsettled.values().any(|verdict| *verdict == Verdict::Open) {
            let verdict = self.ask_for_verdict(state).await?;
            let open = state.unsettled.values_mut().filter(|verdict| **verdict == Verdict::Open);
            open.for_each(|open| *open = verdict);
        }
        let mut result = Ok(());
        for (id, verdict) in state.unsettled.clone() {
            let name = id.clone();
            let done = match verdict {
                Verdict::Open => continue,
                Verdict::Taken => {
                    let kept = self.keeper.blocking(move |store| store.keep_certificate(&name)).await;
                    kept.inspect_err(|error| {
                        tracing::warn!(%id, %error, "the certificate before the present one is still stored");
                    })
                    .is_ok()
                }
                Verdict::Refused(staged) => {
                    let work = move |store: &Store| store.unstage_certificate(&name, staged);
                    let unstaged = self.keeper.blocking(work).await;
                    let done = unstaged.is_ok();
                    if let Err(error) = unstaged {
                        self.diverged(state);
                        result = Err(error);
                    } else {
                        self.read_again(&id).await?;
                    }
                    done
                }
            };
            if done {
                state.unsettled.remove(&id);
            }
        }
        result
    }

    /// Gives the proxy the present document with all that is staged. One that lacks something does not run, and none names nothing: then
    /// there is nothing that a certificate could break.
    async fn ask_for_verdict(self: &Arc<Self>, state: &mut State) -> Result<Verdict, ChangeError> {
        if !self.certificates_missing().is_empty() {
            return Ok(Verdict::Taken);
        }
        let Some(document) = self.keeper.read(Slot::Current).await? else { return Ok(Verdict::Taken) };
        match self.proxy.apply(document).await {
            Ok(_) => Ok(Verdict::Taken),
            Err(error) if error.is_faulty() => {
                tracing::error!(%error, "certificates that were just replaced are taken back");
                Ok(Verdict::Refused(Staged::Replaced))
            }
            Err(error) => {
                if !error.is_refused() && !error.is_not_running() {
                    self.diverged(state);
                }
                Err(error.into())
            }
        }
    }
}
