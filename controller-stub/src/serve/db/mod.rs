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
//! | `files` | whether the files are still those that were opened |
//! | `deadline` | what takes too long ends |

mod deadline;
mod error;
mod events;
mod files;
mod migrations;
#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};
use tokio::sync::{Semaphore, oneshot, watch};

pub use self::error::Error;
use self::{deadline::Deadline, files::Files};
use super::metrics::metrics;
use crate::failpoint::reach;

/// How long a connection waits for a lock that another process holds.
const BUSY: Duration = Duration::from_secs(5);

/// How long a piece may take, or a query: then it is undone.
const PATIENCE: Duration = Duration::from_secs(10);

/// The most pieces of one transaction.
const BATCH: usize = 256;

/// The most pieces that wait; more are refused, so that memory is bounded.
const QUEUE: usize = 4096;

/// How many read at a time.
const READERS: usize = 8;

/// Something to write in a transaction, or why there is none.
type Piece = Box<dyn FnOnce(Result<&Transaction<'_>, Error>) -> Verdict + Send>;

/// Whether a piece is kept, and who is told once it is decided how its transaction ended.
struct Verdict {
    keep: bool,
    tell: Box<dyn FnOnce(Result<(), Error>) + Send>,
}

/// The database. Clones are the same one.
#[derive(Clone)]
pub struct Db {
    path: Arc<Path>,
    files: Arc<Files>,
    patience: Duration,
    // Readers end before the writer, who tidies up when he is the last.
    readers: Arc<Readers>,
    pieces: mpsc::SyncSender<Piece>,
    /// Counts transactions that have changed something: who waits for changes looks then.
    changes: watch::Receiver<u64>,
}

struct Readers {
    turns: Arc<Semaphore>,
    idle: std::sync::Mutex<Vec<Reader>>,
}

struct Reader {
    connection: Connection,
    deadline: Deadline,
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
        Self::open_with(path, PATIENCE)
    }

    fn open_with(path: &Path, patience: Duration) -> Result<Self, Error> {
        files::make(path)?;
        let mut connection = Connection::open(path)?;
        configure(&connection)?;
        let sound: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if sound != "ok" {
            return Err(Error::Damaged(sound));
        }
        migrations::migrate(&mut connection)?;
        let deadline = Deadline::of(&mut connection, patience)?;
        let files = Arc::new(Files::of(path));
        let (pieces, waiting) = mpsc::sync_channel(QUEUE);
        let (changed, changes) = watch::channel(0);
        let watched = files.clone();
        thread::Builder::new()
            .name("db".to_owned())
            .spawn(move || write(connection, &deadline, &watched, &waiting, &changed))
            .map_err(|e| Error::Unusable(e.to_string()))?;
        let turns = Arc::new(Semaphore::new(READERS));
        let readers = Arc::new(Readers { turns, idle: Vec::new().into() });
        Ok(Self { path: path.into(), files, patience, pieces, readers, changes })
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
            let result = match transaction {
                Ok(transaction) => piece(transaction),
                Err(error) => Err(error.into()),
            };
            let keep = result.is_ok();
            Verdict {
                keep,
                tell: Box::new(move |committed| {
                    let _ = answer.send(committed.map_err(E::from).and(result));
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
        let (path, files, patience) = (self.path.clone(), self.files.clone(), self.patience);
        let turn = readers.turns.clone().acquire_owned().await.map_err(|_| E::from(Error::Closed))?;
        let job = tokio::task::spawn_blocking(move || {
            // Whoever has asked may be gone, and this goes on.
            let _turn = turn;
            let mut reader = match readers.take() {
                Some(reader) => reader,
                None => {
                    files.check()?;
                    let mut connection = open_reader(&path)?;
                    let deadline = Deadline::of(&mut connection, patience).map_err(Error::from)?;
                    Reader { connection, deadline }
                }
            };
            let transaction = reader.connection.transaction().map_err(Error::from)?;
            reader.deadline.set();
            let result = query(&transaction);
            reader.deadline.clear();
            drop(transaction);
            readers.give(reader);
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
    fn take(&self) -> Option<Reader> {
        self.idle.lock().unwrap().pop()
    }

    fn give(&self, reader: Reader) {
        self.idle.lock().unwrap().push(reader);
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

/// Opens the file of a `serve`, which may run, to read it. Blocks.
///
/// # Errors
/// There is none, or it is of another release.
pub fn open_to_read(path: &Path) -> Result<Connection, Error> {
    let connection = open_reader(path)?;
    migrations::check(&connection)?;
    Ok(connection)
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
fn write(
    mut connection: Connection,
    deadline: &Deadline,
    files: &Files,
    waiting: &mpsc::Receiver<Piece>,
    changed: &watch::Sender<u64>,
) {
    while let Ok(first) = waiting.recv() {
        let mut pieces: VecDeque<Piece> =
            std::iter::once(first).chain(waiting.try_iter().take(BATCH - 1)).collect();
        while !pieces.is_empty() {
            if write_batch(&mut connection, deadline, files, &mut pieces) {
                changed.send_modify(|count| *count += 1);
            }
        }
    }
}

/// Writes as many of them as one transaction takes: all, unless one of them ends it. True when something was written.
fn write_batch(
    connection: &mut Connection,
    deadline: &Deadline,
    files: &Files,
    pieces: &mut VecDeque<Piece>,
) -> bool {
    let mut told = Vec::with_capacity(pieces.len());
    let begin = Instant::now();
    let committed = (|| {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        while !pieces.is_empty() {
            transaction.execute_batch("SAVEPOINT piece")?;
            let Some(piece) = pieces.pop_front() else { break };
            // What panics is answered by the end of its channel, and costs nobody else.
            deadline.set();
            let verdict = catch_unwind(AssertUnwindSafe(|| piece(Ok(&transaction))));
            deadline.clear();
            let keep = verdict.as_ref().is_ok_and(|verdict| verdict.keep);
            told.extend(verdict);
            // SQLite undoes the whole on a full or failing disk, and when what writes is ended.
            if transaction.is_autocommit() {
                return Err(Error::Undone);
            }
            let end = if keep { "RELEASE piece" } else { "ROLLBACK TO piece; RELEASE piece" };
            transaction.execute_batch(end)?;
        }
        files.check()?;
        reach("commit");
        transaction.commit()?;
        reach("commit.done");
        Ok(())
    })();
    let took = begin.elapsed();
    if let (Err(error), true) = (&committed, told.is_empty()) {
        // There was no transaction at all.
        told.extend(pieces.drain(..).map(|piece| piece(Err(error.clone()))));
    }
    let kept = told.iter().any(|verdict| verdict.keep);
    // A piece that was refused is answered with its own reason, whatever became of the others.
    for Verdict { keep, tell } in told {
        tell(if keep { committed.clone() } else { Ok(()) });
    }
    let changed = kept && committed.is_ok();
    if changed {
        metrics().committed(took);
    }
    changed
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
