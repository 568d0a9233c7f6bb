//! Turns at what takes long: so many at a time, and fewer of one project, so that one that asks much, or waits for what hangs, holds
//! nobody else.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Who may, and how many.
#[derive(Debug)]
pub(super) struct Turns {
    all: Arc<Semaphore>,
    of_a_project: usize,
    /// Of projects that have some.
    projects: Mutex<HashMap<String, Arc<Semaphore>>>,
}

/// A turn, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    _permits: [OwnedSemaphorePermit; 2],
}

impl Turns {
    pub(super) fn new(all: usize, of_a_project: usize) -> Self {
        Self { all: Semaphore::new(all).into(), of_a_project, projects: Mutex::default() }
    }

    /// Waits for a turn of a project's, and then for one of all's.
    pub(super) async fn take(&self, project: &str) -> Option<Turn> {
        let own = {
            let mut projects = self.projects.lock().unwrap_or_else(PoisonError::into_inner);
            projects.retain(|_, turns| Arc::strong_count(turns) > 1);
            let turns = projects.entry(project.to_owned());
            turns.or_insert_with(|| Semaphore::new(self.of_a_project).into()).clone()
        };
        let permits = [own.acquire_owned().await.ok()?, self.all.clone().acquire_owned().await.ok()?];
        Some(Turn { _permits: permits })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_project_has_not_all_turns_and_is_forgotten_with_its_last() {
        let turns = Turns::new(3, 2);
        let first = [turns.take("one").await.unwrap(), turns.take("one").await.unwrap()];
        let soon = Duration::from_secs(1);
        assert!(tokio::time::timeout(soon, turns.take("one")).await.is_err(), "it has two");
        let other = turns.take("other").await.unwrap();
        assert!(tokio::time::timeout(soon, turns.take("third")).await.is_err(), "there are three");
        drop(first);
        let third = turns.take("third").await.unwrap();
        assert_eq!(turns.projects.lock().unwrap().len(), 2);
        drop((other, third));
    }
}
