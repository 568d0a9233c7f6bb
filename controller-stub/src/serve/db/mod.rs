//! What `serve` knows, in one SQLite file: who is told 2xx finds it again after a power cut.
//!
//! One thread writes. What waits for it is written in one transaction, each piece behind a savepoint of its own, so that a piece that
//! fails takes nothing of the others with it; answers are given once all of it is on the disk. So a disk that takes 10 ms to
//! be sure costs 1,000 clients 10 ms and not 10 s. Readers have connections of their own (WAL), and never wait for the writer.
//!
//! | file | what |
//! | --- | --- |
//! | `migrations` | the schema, by numbers |
//! | `events` | the triggers that write what has changed |

mod events;
mod migrations;
#[cfg(test)]
mod tests;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};
use tokio::sync::{Semaphore, oneshot, watch};

use super::metrics::metrics;

/// How long a connection waits for a lock that another process holds.
const BUSY: Duration = Duration::from_secs(5);

/// The most pieces of one transaction.
const BATCH: usize = 256;

/// The most pieces that wait; more are refused, so that memory is bounded.
const QUEUE: usize = 4096;

/// How many read at a time.
const READERS: usize = 8;

/// Why the database did not do what it was asked.
#[derive(Debug, thiserror::Error)]
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
    #[error("the disk of the database is full")]
    Full,
    /// Another process holds the file, or too much waits. Nothing was changed; asking again is of use.
    #[error("the database is busy: {0}")]
    Busy(String),
    /// The file is damaged.
    #[error("the database is damaged: {0}")]
    Damaged(String),
    /// Another fault of the file, or a defect. Nothing was changed.
    #[error("the database: {0}")]
    Sql(rusqlite::Error),
    /// The program is about to end.
    #[error("the database is closed")]
    Closed,
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy(error.to_string()),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Damaged(error.to_string()),
            _ => Self::Sql(error),
        }
    }
}

/// What a piece of writing may end with: its own error, or the database's.
type Piece = Box<dyn FnOnce(&mut Transaction<'_>) -> Verdict + Send>;

/// How a transaction ended.
type Committed<'a> = Result<(), &'a rusqlite::Error>;

/// Whether a piece is kept, and who is told once it is decided.
struct Verdict {
    keep: bool,
    tell: Box<dyn FnOnce(Committed<'_>) + Send>,
}

/// The database. Clones are the same one.
#[derive(Clone)]
pub struct Db {
    path: Arc<Path>,
    pieces: mpsc::SyncSender<Piece>,
    readers: Arc<Readers>,
    /// Counts transactions that have changed something: who waits for changes looks then.
    changes: watch::Receiver<u64>,
}

struct Readers {
    turns: Semaphore,
    idle: std::sync::Mutex<Vec<Connection>>,
}

impl std::fmt::Debug for Db {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Db").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Db {
    /// Opens the file, makes it when there is none, and brings it to the present version. Blocks.
    ///
    /// # Errors
    /// It is of a later release, damaged, not to be written, or held by another `serve`.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let mut connection = Connection::open(path)?;
        configure(&connection)?;
        let sound: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if sound != "ok" {
            return Err(Error::Damaged(sound));
        }
        migrations::migrate(&mut connection)?;
        let (pieces, waiting) = mpsc::sync_channel(QUEUE);
        let (changed, changes) = watch::channel(0);
        thread::Builder::new()
            .name("db".to_owned())
            .spawn(move || write(connection, &waiting, &changed))
            .map_err(|e| Error::Busy(e.to_string()))?;
        let readers = Arc::new(Readers { turns: Semaphore::new(READERS), idle: Vec::new().into() });
        Ok(Self { path: path.into(), pieces, readers, changes })
    }

    /// Runs `piece` in the writer's transaction. What it has written is on the disk when this returns, or undone
    /// when it returned an error. A caller that goes away takes nothing back.
    ///
    /// # Errors
    /// The piece's own, or the database's.
    pub async fn write<T, E, F>(&self, piece: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, E> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let piece: Piece = Box::new(move |transaction| {
            let result = piece(transaction);
            let keep = result.is_ok();
            Verdict {
                keep,
                tell: Box::new(move |committed| {
                    let _ = answer.send(match committed {
                        Ok(()) => result,
                        Err(error) => Err(copy(error).into()),
                    });
                }),
            }
        });
        self.pieces.try_send(piece).map_err(|error| match error {
            mpsc::TrySendError::Full(_) => E::from(Error::Busy(format!("{QUEUE} changes wait"))),
            mpsc::TrySendError::Disconnected(_) => E::from(Error::Closed),
        })?;
        answered.await.unwrap_or_else(|_| Err(Error::Closed.into()))
    }

    /// Runs `query` on a connection that sees one state of the database, the latest that was committed.
    ///
    /// # Errors
    /// The query's own, or the database's.
    pub async fn read<T, E, F>(&self, query: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, E> + Send + 'static,
    {
        let readers = self.readers.clone();
        let path = self.path.clone();
        let _turn = self.readers.turns.acquire().await.map_err(|_| E::from(Error::Closed))?;
        let job = tokio::task::spawn_blocking(move || {
            let mut connection = match readers.take() {
                Some(connection) => connection,
                None => open_reader(&path)?,
            };
            let transaction = connection.transaction().map_err(Error::from)?;
            let result = query(&transaction);
            drop(transaction);
            readers.give(connection);
            result
        });
        job.await.unwrap_or_else(|_| Err(Error::Closed.into()))
    }

    /// Counts what was written; it changes when something was.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }

    /// Where it is.
    pub fn path(&self) -> PathBuf {
        self.path.to_path_buf()
    }
}

#[expect(clippy::unwrap_used, reason = "nothing panics while it is held")]
impl Readers {
    fn take(&self) -> Option<Connection> {
        self.idle.lock().unwrap().pop()
    }

    fn give(&self, connection: Connection) {
        self.idle.lock().unwrap().push(connection);
    }
}

fn configure(connection: &Connection) -> Result<(), rusqlite::Error> {
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "cache_size", -4096)?;
    connection.set_prepared_statement_cache_capacity(256);
    Ok(())
}

fn open_reader(path: &Path) -> Result<Connection, Error> {
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "query_only", true)?;
    connection.pragma_update(None, "cache_size", -1024)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// The writer's thread: ends when the last [`Db`] is gone.
fn write(mut connection: Connection, waiting: &mpsc::Receiver<Piece>, changed: &watch::Sender<u64>) {
    while let Ok(first) = waiting.recv() {
        let pieces = std::iter::once(first).chain(waiting.try_iter().take(BATCH - 1)).collect();
        if write_batch(&mut connection, pieces) {
            changed.send_modify(|count| *count += 1);
        }
    }
}

/// Writes all of them in one transaction; true when something was.
fn write_batch(connection: &mut Connection, pieces: Vec<Piece>) -> bool {
    let mut told = Vec::with_capacity(pieces.len());
    let begin = Instant::now();
    let committed = (|| {
        let mut transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for piece in pieces {
            transaction.execute_batch("SAVEPOINT piece")?;
            let verdict = piece(&mut transaction);
            let end = if verdict.keep { "RELEASE piece" } else { "ROLLBACK TO piece; RELEASE piece" };
            told.push(verdict);
            transaction.execute_batch(end)?;
        }
        transaction.commit()
    })();
    let took = begin.elapsed();
    let kept = told.iter().any(|verdict| verdict.keep);
    let result = committed.as_ref().copied();
    // A piece that was refused is answered with its own reason, whatever became of the others.
    for Verdict { keep, tell } in told {
        tell(if keep { result } else { Ok(()) });
    }
    let changed = kept && committed.is_ok();
    if changed {
        metrics().committed(took);
    }
    changed
}

/// An error for each who is to be told of it.
fn copy(error: &rusqlite::Error) -> Error {
    match error {
        rusqlite::Error::SqliteFailure(code, text) => {
            rusqlite::Error::SqliteFailure(*code, text.clone()).into()
        }
        other => Error::Busy(other.to_string()),
    }
}

/// A database of a test, as the writer sees it.
#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "of tests alone")]
pub(crate) fn scratch() -> (tempfile::TempDir, Connection) {
    let dir = tempfile::tempdir().unwrap();
    let mut connection = Connection::open(dir.path().join("serve.db")).unwrap();
    configure(&connection).unwrap();
    migrations::migrate(&mut connection).unwrap();
    (dir, connection)
}
