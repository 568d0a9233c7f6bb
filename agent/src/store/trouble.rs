//! What keeps the disk from taking what is written to it, for `GET /2.0/health`.

#![expect(clippy::disallowed_types, reason = "held to copy a few lines, never while something is awaited")]

use std::{
    collections::BTreeMap,
    io,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use nix::sys::statvfs::statvfs;

/// With less than this free the disk counts as full: two of the largest documents there can be.
const MIN_FREE: u64 = 32 << 20;

/// And with fewer free inodes than this; a change takes four at most.
const MIN_INODES: u64 = 16;

/// A change that failed.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) error: io::Error,
    /// How many bytes were not taken, when that is what failed: whether so many can be written again can be tried.
    pub(super) bytes: Option<usize>,
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self { error, bytes: None }
    }
}

/// The files whose last change failed.
#[derive(Debug, Default)]
pub(super) struct Troubles(Mutex<BTreeMap<&'static str, Trouble>>);

/// Why it failed.
#[derive(Clone, Debug)]
pub(super) struct Trouble {
    /// For a human.
    pub(super) reason: String,
    /// See [`Failed`].
    pub(super) bytes: Option<usize>,
}

impl Troubles {
    /// Notes that a change of this file failed.
    pub(super) fn begin(&self, file: &'static str, failed: &Failed) {
        let reason = format!("cannot write {file}: {}", failed.error);
        self.lock().insert(file, Trouble { reason, bytes: failed.bytes });
    }

    /// Notes that one succeeded.
    pub(super) fn end(&self, file: &'static str) {
        self.lock().remove(file);
    }

    /// As of now.
    pub(super) fn all(&self) -> BTreeMap<&'static str, Trouble> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Trouble>> {
        // Insertions and removals are whole whenever another thread panics.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why the file system under `base` counts as full; `None` when it does not.
pub(super) fn scarcity(base: &Path) -> Option<String> {
    let base_text = base.display();
    let room = match statvfs(base) {
        Ok(room) => room,
        Err(error) => return Some(format!("cannot tell how much room there is in {base_text}: {error}")),
    };
    let free = room.blocks_available().saturating_mul(room.fragment_size());
    if free < MIN_FREE {
        return Some(format!("{} KiB are free in {base_text}, less than {} KiB", free >> 10, MIN_FREE >> 10));
    }
    // File systems that make inodes as they need them say that there are none.
    let inodes = room.files_available();
    (room.files() > 0 && inodes < MIN_INODES)
        .then(|| format!("{inodes} inodes are free in {base_text}, less than {MIN_INODES}"))
}
