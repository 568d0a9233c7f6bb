//! Room that is kept for a document with less in it than the one that runs. Whoever stops a listener has to be able to on a disk that
//! is full, and what runs of the rest is a document that has to be written.
//!
//! It is a file, whose blocks the document takes over: it is written into that file, which then is renamed. Once it is used up, the
//! documents before serve for the same.

use std::{
    fs::{self, OpenOptions, Permissions},
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::PathBuf,
};

use super::{Failed, Kept, SHARED, Store, UNFINISHED, mode, share};

/// The file.
pub(super) const RESERVE: &str = "loadbalancer.reserve";

/// It grows by so many bytes, the block of most file systems.
const STEP: u64 = 4096;

/// Where a document may be written to when the disk is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    /// Nowhere.
    Free,
    /// Where room is [kept](Store::reserve) for it, or in place of what ran before the present one.
    Kept,
}

impl Store {
    /// Keeps room for a load balancer of at most so many bytes.
    ///
    /// # Errors
    /// When there is none; what was kept before is.
    pub fn reserve(&self, bytes: u64) -> io::Result<()> {
        // It guards nothing in memory that a panic could have left half done.
        let _changing = self.changing.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(self.path(RESERVE))?;
        let (before, wanted) = (file.metadata()?.len(), bytes.next_multiple_of(STEP));
        let mut zeros = io::repeat(0).take(wanted.saturating_sub(before));
        io::copy(&mut zeros, &mut file).and_then(|_| file.flush()).inspect_err(|_| {
            let _ = file.set_len(before);
        })?;
        Ok(())
    }

    /// Writes a document where room is kept for it, when there was no other.
    pub(super) fn write_into_kept(
        &self,
        kept: Kept,
        document: &[u8],
        full: Failed,
    ) -> Result<PathBuf, Failed> {
        let has_room = |name: &&str| {
            let long = |file: fs::Metadata| file.is_file() && file.len() >= document.len() as u64;
            fs::metadata(self.path(name)).is_ok_and(long)
        };
        let reserve = (kept == Kept::LoadBalancer).then_some(RESERVE);
        let spare = reserve.into_iter().chain([kept.older(), kept.previous()]).find(has_room);
        let Some(spare) = spare else { return Err(full) };
        let path = self.path(&format!("{}{UNFINISHED}", kept.current()));
        let write = || {
            fs::rename(self.path(spare), &path)?;
            let mut file = OpenOptions::new().write(true).open(&path)?;
            match self.readers.of(kept) {
                Some(group) => share(&file, group, SHARED)?,
                None => file.set_permissions(Permissions::from_mode(mode(kept.current())))?,
            }
            file.write_all(document)?;
            file.set_len(document.len() as u64)?;
            file.sync_all()
        };
        if let Err(error) = write() {
            let _ = fs::remove_file(&path);
            return Err(Failed { error, bytes: Some(document.len()) });
        }
        tracing::warn!(file = kept.current(), room = spare, "the disk is full: kept room is used");
        Ok(path)
    }
}
