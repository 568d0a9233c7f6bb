//! How long one piece of work may keep a connection: what somebody has thought out badly, or in bad faith, must not keep everybody waiting.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rusqlite::Connection;

/// After about so many of SQLite's operations it asks whether to go on: some ten times in a millisecond.
const OPERATIONS: i32 = 10_000;

/// The deadline of what a connection does at present.
#[derive(Clone, Debug)]
pub(super) struct Deadline {
    patience: Duration,
    begin: Instant,
    /// Microseconds since `begin`; [`u64::MAX`] when there is none.
    until: Arc<AtomicU64>,
}

impl Deadline {
    /// Lets a connection end by itself what takes longer than `patience`.
    pub(super) fn of(connection: &mut Connection, patience: Duration) -> rusqlite::Result<Self> {
        let this = Self { patience, begin: Instant::now(), until: Arc::new(AtomicU64::new(u64::MAX)) };
        let looks = this.clone();
        connection.progress_handler(OPERATIONS, Some(move || looks.has_passed()))?;
        Ok(this)
    }

    /// It runs from now on.
    pub(super) fn set(&self) {
        let until = (self.begin.elapsed() + self.patience).as_micros();
        self.until.store(u64::try_from(until).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// It runs no more.
    pub(super) fn clear(&self) {
        self.until.store(u64::MAX, Ordering::Relaxed);
    }

    fn has_passed(&self) -> bool {
        self.begin.elapsed().as_micros() > u128::from(self.until.load(Ordering::Relaxed))
    }
}
