//! Why the database did not do what it was asked.

use std::path::PathBuf;

use rusqlite::ErrorCode;

/// Why the database did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The file is of a later release.
    #[error(
        "the database is of version {found}, and this program knows {known}: a later release has written it"
    )]
    Newer {
        /// Its version.
        found: usize,
        /// The last that is known.
        known: usize,
    },
    /// The disk is full. Nothing was changed.
    #[error("the disk of the database is full: there has to be room before anything can be changed")]
    Full,
    /// Another process holds the file, or too much waits. Nothing was changed; asking again is of use.
    #[error("the database is busy: {0}")]
    Busy(String),
    /// The disk, or the system, refused something. Nothing was changed; asking again is of use when that is mended.
    #[error("the database cannot be used now: {0}")]
    Unusable(String),
    /// The file is no longer where it was. Nothing was changed.
    #[error("the database was removed or replaced while it was used: {} has to come back, or this program be started again", .0.display())]
    Moved(PathBuf),
    /// It took too long. Nothing was changed.
    #[error("the database was kept busy for too long by this, and it was undone")]
    Late,
    /// Another change of the same transaction has found the disk full or failing, or took too long. Nothing was changed.
    #[error(
        "the change was undone because another failed on the disk of the database, or took too long: please try again"
    )]
    Undone,
    /// The file is damaged.
    #[error("the database is damaged: {0}")]
    Damaged(String),
    /// A defect. Nothing was changed.
    #[error("the database: {0}")]
    Sql(String),
    /// The program is about to end.
    #[error("the database is closed")]
    Closed,
}

impl Error {
    /// Whether asking again later is of use.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Full
            | Self::Busy(_)
            | Self::Unusable(_)
            | Self::Moved(_)
            | Self::Late
            | Self::Undone
            | Self::Closed => true,
            Self::Newer { .. } | Self::Damaged(_) | Self::Sql(_) => false,
        }
    }

    /// What a person does about it when the file cannot be opened.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Damaged(_) => {
                "bring back a copy of it, or what `sqlite3 FILE .recover` saves of it; amphorae go on meanwhile"
            }
            Self::Busy(_) => "end the process that holds it: `fuser FILE` tells which",
            Self::Newer { .. } => "start that release again, or bring back a copy from before it",
            Self::Full => "make room",
            _ => "amphorae go on meanwhile",
        }
    }
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::OperationInterrupted) => Self::Late,
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy(error.to_string()),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Damaged(error.to_string()),
            Some(
                ErrorCode::SystemIoFailure
                | ErrorCode::CannotOpen
                | ErrorCode::ReadOnly
                | ErrorCode::OutOfMemory
                | ErrorCode::PermissionDenied
                | ErrorCode::FileLockingProtocolFailed,
            ) => Self::Unusable(error.to_string()),
            _ => Self::Sql(error.to_string()),
        }
    }
}
