//! What would grow without bound: events, and logs of amphorae.

use std::{
    fs::{self, OpenOptions},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::params;
use tokio::{task::spawn_blocking, time::sleep};

use crate::serve::{
    db::{self, Db},
    worker::Store as _,
};

/// How often.
const EVERY: Duration = Duration::from_secs(60);

/// The most events that are kept, of whatever age.
const EVENTS: i64 = 500_000;

/// Ids of events that are not kept: the beginning of the history, before the first that is young enough and but for the last so many. None goes out of
/// its middle, whatever the clock was set to meanwhile: who comes again is told with which event the history begins.
const OLD: &str = "SELECT id FROM event WHERE id < MAX(
    COALESCE((SELECT min(id) FROM event WHERE at >= ?1), (SELECT max(id) FROM event) + 1), (SELECT max(id) FROM event) - ?2 + 1)";

/// How many go in one transaction: others are to have their turn.
const AT_ONCE: i64 = 2000;

/// The most bytes of a log: what there was before is kept in a second file, and what was before that is gone.
const LOG: u64 = 8 << 20;

/// Every minute, until it is dropped; `dirs` have a directory for each amphora, with a file `log`.
pub async fn run(db: Db, age: Duration, dirs: Vec<PathBuf>) {
    loop {
        if let Err(error) = purge(&db, age, EVENTS).await {
            tracing::warn!(%error, "old events");
        }
        let dirs = dirs.clone();
        // What goes wrong is logged there.
        let _ = spawn_blocking(move || dirs.iter().for_each(|dir| rotate(dir, LOG))).await;
        sleep(EVERY).await;
    }
}

/// Removes events that are older than `age`, and all but the last `most`; tells how many.
///
/// # Errors
/// The database's.
pub async fn purge(db: &Db, age: Duration, most: i64) -> Result<usize, db::Error> {
    let before = db.now().saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
    let mut all = 0;
    loop {
        let old = db
            .read::<bool, db::Error, _>(move |t| {
                Ok(t.query_row(&format!("SELECT EXISTS ({OLD})"), params![before, most], |row| row.get(0))?)
            })
            .await?;
        if !old {
            return Ok(all);
        }
        let gone = db
            .write::<_, db::Error, _>(move |t| {
                let text = format!("DELETE FROM event WHERE id IN ({OLD} ORDER BY id LIMIT ?3)");
                Ok(t.execute(&text, params![before, most, AT_ONCE])?)
            })
            .await?;
        all += gone;
        if gone == 0 {
            return Ok(all);
        }
    }
}

/// Logs of more than `most` bytes begin anew. Agents outlive this program and append to the file that they have open, so it is emptied and not
/// renamed: a line that is written at that moment may be lost.
fn rotate(dir: &Path, most: u64) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let log = entry.path().join("log");
        let is_large = fs::symlink_metadata(&log).is_ok_and(|found| found.is_file() && found.len() > most);
        if is_large && let Err(error) = begin_anew(&log) {
            tracing::warn!(log = %log.display(), %error, "a log grows");
        }
    }
}

fn begin_anew(log: &Path) -> io::Result<()> {
    let (before, temporary) = (log.with_extension("1"), log.with_extension("tmp"));
    // With the mode of the log.
    fs::copy(log, &temporary)?;
    fs::rename(&temporary, &before)?;
    OpenOptions::new().write(true).open(log)?.set_len(0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::Write as _;

    use super::*;

    #[tokio::test]
    async fn events_are_kept_for_some_time_and_not_too_many() {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(&dir.path().join("serve.db")).unwrap();
        let now = db.now();
        db.write::<_, db::Error, _>(move |t| {
            for n in 0..5000 {
                let at = if n < 3000 { now - 100_000 } else { now };
                t.execute(
                    "INSERT INTO event (at, project_id, load_balancer_id, object_type, object_id, attribute) VALUES (?1, '', '', '', '', '')",
                    [at],
                )?;
            }
            Ok(())
        })
        .await
        .unwrap();
        let age = Duration::from_secs(50);
        assert_eq!(purge(&db, age, 10_000).await.unwrap(), 3000);
        assert_eq!(purge(&db, age, 10_000).await.unwrap(), 0);
        assert_eq!(purge(&db, age, 500).await.unwrap(), 1500);
        let left = db.read::<_, db::Error, _>(|t| {
            Ok(t.query_row("SELECT min(id) || ' ' || count(*) FROM event", [], |row| {
                row.get::<_, String>(0)
            })?)
        });
        assert_eq!(left.await.unwrap(), "4501 500");
    }

    #[tokio::test]
    async fn events_never_go_out_of_the_middle() {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(&dir.path().join("serve.db")).unwrap();
        let now = db.now();
        db.write::<_, db::Error, _>(move |t| {
            // The clock was wrong while the fourth was written.
            for age in [900_000, 800_000, 5000, 900_000, 1000] {
                t.execute(
                    "INSERT INTO event (at, project_id, load_balancer_id, object_type, object_id, attribute) VALUES (?1, '', '', '', '', '')",
                    [now - age],
                )?;
            }
            Ok(())
        })
        .await
        .unwrap();
        for (age, most, gone) in [(600, 100, 2), (600, 100, 0), (600, 2, 2), (0, 100, 1), (0, 100, 0)] {
            assert_eq!(purge(&db, Duration::from_secs(age), most).await.unwrap(), gone, "{age} {most}");
        }
    }

    #[test]
    fn a_log_that_is_open_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("amphora")).unwrap();
        let log = dir.path().join("amphora/log");
        let mut open = OpenOptions::new().append(true).create(true).open(&log).unwrap();
        let text = |path: &Path| fs::read_to_string(path).unwrap();
        write!(open, "0123456789").unwrap();
        rotate(dir.path(), 10);
        assert_eq!(text(&log), "0123456789");
        write!(open, "a").unwrap();
        rotate(dir.path(), 10);
        write!(open, "b").unwrap();
        assert_eq!((text(&log).as_str(), text(&log.with_extension("1")).as_str()), ("b", "0123456789a"));
    }
}
