//! The files of a database. SQLite goes on with files that somebody has removed, and all that it writes is lost with its end.

use std::{
    ffi::OsString,
    fs::{self, OpenOptions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use super::Error;

/// The file itself, what was written last, and what readers and the writer share.
const SUFFIXES: [&str; 3] = ["", "-wal", "-shm"];

/// Where files are, and which they were when the database was opened.
#[derive(Debug)]
pub(super) struct Files(Vec<(PathBuf, u64, u64)>);

/// Makes the file when there is none, readable by nobody else, as those that SQLite makes beside it are then.
pub(super) fn make(path: &Path) -> Result<(), Error> {
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
            if e.kind() == io::ErrorKind::StorageFull {
                return Err(Error::Full);
            }
            Err(Error::Unusable(e.to_string()))
        }
        _ => Ok(()),
    }
}

impl Files {
    /// Those of a database that is open.
    pub(super) fn of(path: &Path) -> Self {
        let paths = SUFFIXES.iter().map(|suffix| {
            let mut name = OsString::from(path);
            name.push(suffix);
            PathBuf::from(name)
        });
        Self(paths.filter_map(|path| identity(&path).map(|(device, inode)| (path, device, inode))).collect())
    }

    /// Whether all of them are still there.
    ///
    /// # Errors
    /// [`Error::Moved`].
    pub(super) fn check(&self) -> Result<(), Error> {
        let gone = self.0.iter().find(|(path, device, inode)| identity(path) != Some((*device, *inode)));
        gone.map_or(Ok(()), |(path, ..)| Err(Error::Moved(path.clone())))
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|found| (found.dev(), found.ino()))
}
