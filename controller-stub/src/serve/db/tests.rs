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
