//! The API over a database of its own, with a worker that believes all of it: `api ADDRESS [octavia.conf]`.
#![allow(clippy::unwrap_used)]

use std::{sync::Arc, time::Duration};

use amphora_controller::serve::{
    api::{Api, server::Server},
    certificates::tenants::Tenants,
    config::Config,
    db::{Db, Error},
};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap().parse().unwrap();
    let text = arguments.next().map(|path| std::fs::read_to_string(path).unwrap()).unwrap_or_default();
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(&dir.path().join("serve.db")).unwrap();
    let worker = db.clone();
    let certificates = std::env::var("CERTIFICATES").map_or_else(|_| dir.path().to_owned(), Into::into);
    let config = Config::parse(&text).unwrap();
    let certificates = Tenants::of(&config, &certificates);
    let api = Api::new(db, config, certificates);
    tokio::spawn(work(worker));
    let server = Server::bind(address, Arc::new(api)).await.unwrap();
    println!("{}", server.address().unwrap());
    let (_stop, stopped) = tokio::sync::watch::channel(false);
    server.run(stopped, Duration::ZERO).await;
}

async fn work(db: Db) {
    let mut changes = db.changes();
    loop {
        changes.mark_unchanged();
        let is_work = |t: &rusqlite::Transaction<'_>| {
            Ok(t.query_row("SELECT EXISTS (SELECT 1 FROM work)", [], |row| row.get::<_, bool>(0))?)
        };
        if !db.read::<_, Error, _>(is_work).await.unwrap() {
            changes.changed().await.unwrap();
            continue;
        }
        db.write::<_, Error, _>(|t| {
            for table in
                ["l7rule", "l7policy", "health_monitor", "member", "listener", "pool", "load_balancer"]
            {
                t.execute_batch(&format!(
                    "DELETE FROM {table} WHERE provisioning_status = 'PENDING_DELETE';
                     UPDATE {table} SET provisioning_status = 'ACTIVE', operating_status = 'ONLINE'
                     WHERE provisioning_status <> 'ACTIVE'"
                ))?;
            }
            t.execute_batch("DELETE FROM work")?;
            Ok(())
        })
        .await
        .unwrap();
    }
}
