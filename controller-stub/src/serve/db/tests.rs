#![allow(clippy::unwrap_used)]

use super::*;

fn open() -> (tempfile::TempDir, Db) {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(&dir.path().join("serve.db")).unwrap();
    (dir, db)
}

fn insert(transaction: &Transaction<'_>, project: &str) -> Result<(), Error> {
    transaction.execute("INSERT INTO quota (project_id, listener) VALUES (?1, 3)", [project])?;
    Ok(())
}

async fn projects(db: &Db) -> i64 {
    db.read::<_, Error, _>(|t| Ok(t.query_row("SELECT count(*) FROM quota", [], |row| row.get(0))?))
        .await
        .unwrap()
}

#[tokio::test]
async fn a_piece_that_fails_takes_nothing_of_the_others_with_it() {
    let (_dir, db) = open();
    let all = (0..100).map(|n| {
        let db = db.clone();
        async move {
            db.write::<_, Error, _>(move |t| {
                insert(t, &format!("project {n}"))?;
                if n % 2 == 0 { Ok(()) } else { Err(Error::Busy("no".to_owned())) }
            })
            .await
        }
    });
    let results = futures_util::future::join_all(all).await;
    assert!(results.iter().enumerate().all(|(n, result)| result.is_ok() == (n % 2 == 0)), "{results:?}");
    assert_eq!(projects(&db).await, 50);
}

#[tokio::test]
async fn what_was_answered_is_there_after_the_next_start() {
    let (dir, db) = open();
    db.write::<_, Error, _>(|t| insert(t, "one")).await.unwrap();
    drop(db);
    let db = Db::open(&dir.path().join("serve.db")).unwrap();
    assert_eq!(projects(&db).await, 1);
}

#[tokio::test]
async fn a_file_of_a_later_release_is_left_alone() {
    let (dir, db) = open();
    drop(db);
    let path = dir.path().join("serve.db");
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    assert!(matches!(Db::open(&path), Err(Error::Newer { found: 99, .. })));
}

#[tokio::test]
async fn a_damaged_file_is_told_as_such() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("serve.db");
    std::fs::write(&path, "x".repeat(4096)).unwrap();
    assert!(matches!(Db::open(&path), Err(Error::Damaged(_))));
}

#[tokio::test]
async fn each_change_of_a_status_is_an_event() {
    let (_dir, db) = open();
    db.write::<_, Error, _>(|t| {
        t.execute_batch(
            "INSERT INTO load_balancer (id, project_id, provisioning_status, topology, compute_driver, provider, vip_address,
                 vip_port_id, vip_subnet_id, vip_network_id, created_at)
                 VALUES ('lb', 'p', 'PENDING_CREATE', 'SINGLE', 'namespaces', 'amphora', '192.0.2.1', 'port', 's', 'n', 0);
             INSERT INTO pool (id, project_id, load_balancer_id, provisioning_status, protocol, lb_algorithm, created_at, generation)
                 VALUES ('pool', 'p', 'lb', 'PENDING_CREATE', 'HTTP', 'ROUND_ROBIN', 0, 1);
             INSERT INTO member (id, project_id, pool_id, provisioning_status, address, protocol_port, created_at, generation)
                 VALUES ('member', 'p', 'pool', 'PENDING_CREATE', '192.0.2.2', 80, 0, 1);
             UPDATE member SET provisioning_status = 'ACTIVE';
             UPDATE member SET provisioning_status = 'ACTIVE';
             UPDATE member SET operating_status = 'ONLINE';
             DELETE FROM load_balancer;",
        )?;
        Ok(())
    })
    .await
    .unwrap();
    let events = db
        .read::<_, Error, _>(|t| {
            let mut query = t.prepare("SELECT load_balancer_id || ' ' || object_type || ' ' || attribute || ' ' || new FROM event ORDER BY id")?;
            let rows = query.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
            Ok(rows)
        })
        .await
        .unwrap();
    let expected = [
        "lb loadbalancer provisioning_status PENDING_CREATE",
        "lb pool provisioning_status PENDING_CREATE",
        "lb member provisioning_status PENDING_CREATE",
        "lb member provisioning_status ACTIVE",
        "lb member operating_status ONLINE",
        "lb loadbalancer provisioning_status DELETED",
    ];
    assert_eq!(&events[..6], &expected);
    assert_eq!(events.len(), 8, "the deletion of pool and member is told as well: {events:?}");
}

#[tokio::test]
async fn what_is_undone_with_another_is_said_so_and_the_rest_goes_on() {
    let (_dir, db) = open();
    // As SQLite does of itself when the disk fails.
    let ends = db.write::<(), Error, _>(|t| {
        insert(t, "lost")?;
        t.execute_batch("ROLLBACK")?;
        Err(Error::Full)
    });
    let kept = |name: &'static str| db.write::<_, Error, _>(move |t| insert(t, name));
    let (before, ends, after) = tokio::join!(kept("before"), ends, kept("after"));
    assert!(matches!(ends, Err(Error::Full)), "{ends:?}");
    // Whether they were of one transaction is by chance; what was answered is so.
    assert!(matches!(before, Ok(()) | Err(Error::Undone)), "{before:?}");
    after.unwrap();
    let before = i64::from(before.is_ok());
    assert_eq!(projects(&db).await, before + 1);
}

#[tokio::test]
async fn a_piece_that_panics_costs_nobody_else() {
    let (_dir, db) = open();
    let panics = db.write::<(), Error, _>(|_| panic!("a defect"));
    let kept = db.write::<_, Error, _>(|t| insert(t, "one"));
    let (panics, kept) = tokio::join!(panics, kept);
    assert!(matches!(panics, Err(Error::Closed)), "{panics:?}");
    kept.unwrap();
    assert_eq!(projects(&db).await, 1);
}

#[tokio::test]
async fn what_takes_too_long_is_undone_and_the_rest_goes_on() {
    // It would take an hour.
    const LONG: &str = "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 10000000000) SELECT count(*) FROM n";
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open_with(&dir.path().join("serve.db"), Duration::from_millis(300)).unwrap();
    let long = format!("INSERT INTO quota (project_id, listener) {}", LONG.replace("count(*)", "n, n"));
    for text in [LONG.to_owned(), long] {
        let late = db.write::<(), Error, _>(move |t| {
            insert(t, "lost")?;
            let mut query = t.prepare(&text)?;
            let mut rows = query.query([])?;
            while rows.next()?.is_some() {}
            Ok(())
        });
        let kept = db.write::<_, Error, _>(|t| {
            t.execute("INSERT INTO quota (project_id) VALUES (lower(hex(randomblob(9))))", [])?;
            Ok(())
        });
        let (late, kept) = tokio::join!(late, kept);
        assert!(matches!(late, Err(Error::Late)) && Error::Late.is_passing(), "{late:?}");
        if kept.is_err() {
            assert!(matches!(kept, Err(Error::Undone)), "{kept:?}");
            db.write::<_, Error, _>(|t| insert(t, "again")).await.unwrap();
        }
    }
    assert_eq!(projects(&db).await, 2);
    for _ in 0..2 {
        let late = db.read::<i64, Error, _>(|t| Ok(t.query_row(LONG, [], |row| row.get(0))?)).await;
        assert!(matches!(late, Err(Error::Late)), "{late:?}");
    }
    assert_eq!(projects(&db).await, 2);
}

#[tokio::test]
async fn who_goes_away_lets_nobody_read_in_his_place_before_his_query_ends() {
    let (_dir, db) = open();
    let (go, wait) = mpsc::channel::<()>();
    let (begun, begins) = oneshot::channel();
    let read = db.read::<(), Error, _>(move |_| {
        let _ = begun.send(());
        let _ = wait.recv();
        Ok(())
    });
    tokio::select! {
        _ = read => unreachable!("it waits"),
        begins = begins => begins.unwrap(),
    }
    assert_eq!(db.readers.turns.available_permits(), READERS - 1);
    drop(go);
    while db.readers.turns.available_permits() < READERS {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_file_that_is_full_is_told_as_such_and_goes_on_when_there_is_room() {
    let (_dir, db) = open();
    let pages = |count: i64| {
        db.write::<_, Error, _>(move |t| {
            t.pragma_update_and_check(None, "max_page_count", count, |row| row.get::<_, i64>(0))?;
            Ok(())
        })
    };
    pages(1).await.unwrap();
    let large = || db.write::<_, Error, _>(|t| insert(t, &"x".repeat(100_000)));
    assert!(matches!(large().await, Err(Error::Full)));
    assert_eq!(projects(&db).await, 0);
    pages(1_000_000).await.unwrap();
    large().await.unwrap();
    assert_eq!(projects(&db).await, 1);
}

#[tokio::test]
async fn a_file_that_another_process_holds_is_told_as_such() {
    let (dir, db) = open();
    let path = dir.path().join("serve.db");
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let refused = db.write::<_, Error, _>(|t| insert(t, "one")).await;
    assert!(matches!(refused, Err(Error::Busy(_))), "{refused:?}");
    projects(&db).await;
    other.execute_batch("COMMIT").unwrap();
    db.write::<_, Error, _>(|t| insert(t, "one")).await.unwrap();
}

#[tokio::test]
async fn nothing_is_written_into_a_file_that_is_gone() {
    let (dir, db) = open();
    db.write::<_, Error, _>(|t| insert(t, "one")).await.unwrap();
    for name in ["serve.db", "serve.db-wal", "serve.db-shm"] {
        let (path, aside) = (dir.path().join(name), dir.path().join("aside"));
        std::fs::rename(&path, &aside).unwrap();
        let refused = db.write::<_, Error, _>(|t| insert(t, "two")).await;
        assert!(matches!(&refused, Err(Error::Moved(moved)) if *moved == path), "{refused:?}");
        std::fs::write(&path, "").unwrap();
        let refused = db.write::<_, Error, _>(|t| insert(t, "two")).await;
        assert!(matches!(refused, Err(Error::Moved(_))), "another one is none: {refused:?}");
        std::fs::rename(&aside, &path).unwrap();
        assert_eq!(projects(&db).await, 1);
    }
    db.write::<_, Error, _>(|t| insert(t, "two")).await.unwrap();
    assert_eq!(projects(&db).await, 2);
}

#[tokio::test]
async fn a_migration_that_was_killed_begins_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("serve.db");
    let killed = Connection::open(&path).unwrap();
    configure(&killed).unwrap();
    // So much that half of it is in the file before it is decided.
    killed.pragma_update(None, "cache_size", 1).unwrap();
    killed.execute_batch("BEGIN IMMEDIATE; CREATE TABLE load_balancer (id TEXT);").unwrap();
    for _ in 0..100 {
        killed.execute("INSERT INTO load_balancer VALUES (hex(randomblob(2000)))", []).unwrap();
    }
    // What is on the disk at this moment.
    let left = tempfile::tempdir().unwrap();
    for name in ["serve.db", "serve.db-wal"] {
        std::fs::copy(dir.path().join(name), left.path().join(name)).unwrap();
    }
    assert!(std::fs::metadata(left.path().join("serve.db-wal")).unwrap().len() > 100_000);
    let db = Db::open(&left.path().join("serve.db")).unwrap();
    db.write::<_, Error, _>(|t| insert(t, "one")).await.unwrap();
    assert_eq!(projects(&db).await, 1);
}

#[tokio::test]
async fn nobody_else_reads_it() {
    use std::os::unix::fs::PermissionsExt;
    let (dir, db) = open();
    db.write::<_, Error, _>(|t| insert(t, "one")).await.unwrap();
    for name in ["serve.db", "serve.db-wal", "serve.db-shm"] {
        let mode = std::fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}
