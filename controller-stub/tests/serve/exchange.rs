//! Authorities of seconds: amphorae are told of the next one before the last one ends, and serve on.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use amphora_controller::serve::queue::Kind;

use crate::{MEMBER, OTHER, active, ground::Serve, now, rows::LoadBalancer};

/// How long an authority lasts, in seconds.
const LASTS: u64 = 24;

fn configuration() -> String {
    format!(
        "[certificates]\nca_validity_time = {LASTS}\ncert_validity_time = {LASTS}\n\
         [house_keeping]\ncert_interval = 1\ncert_expiry_buffer = {}\nspare_amphora_pool_size = 1\n",
        LASTS / 2
    )
}

fn file(serve: &Serve, name: &str) -> PathBuf {
    serve.dir.path().join("data/authority").join(name)
}

fn authority(serve: &Serve) -> String {
    fs::read_to_string(file(serve, "ca.pem")).unwrap()
}

/// Whether an authority that was made when the file was has ended.
fn has_ended(path: &Path) -> bool {
    let made = fs::metadata(path).unwrap().modified().unwrap();
    SystemTime::now().duration_since(made).unwrap_or_default() > Duration::from_secs(LASTS + 1)
}

#[test]
fn the_authority_is_exchanged_and_no_agent_becomes_unreachable() {
    let Some(mut serve) = Serve::start_with(&configuration()) else { return };
    serve.member("10.250.0.1:8081", "one");
    serve.member("10.250.0.1:8082", "two");
    let mut db = serve.db();
    let lb = LoadBalancer::create(&serve, &mut db, "ACTIVE_STANDBY", MEMBER);
    active(&serve, &lb);
    let (amphorae, first) = (lb.amphorae(&db), authority(&serve));
    // All the time something is changed, of which agents have to be told.
    let mut members = [OTHER, MEMBER].into_iter().cycle();
    let mut exchanged = |serve: &Serve, db: &mut rusqlite::Connection, before: &str| {
        serve.eventually("another authority, and the previous one gone", |serve| {
            lb.replace_members(serve, db, members.next().unwrap());
            active(serve, &lb);
            (authority(serve) != *before && !file(serve, "previous.pem").exists()).then_some(())
        });
    };
    exchanged(&serve, &mut db, &first);
    assert_eq!(lb.amphorae(&db), amphorae, "none was replaced");
    // Nobody exchanges this one in time.
    let second = authority(&serve);
    serve.kill();
    serve.eventually("its end", |serve| has_ended(&file(serve, "ca.key")).then_some(()));
    assert!(serve.get(&lb.vip).is_some(), "traffic needs neither");
    serve.restart();
    exchanged(&serve, &mut db, &second);
    assert_eq!(lb.amphorae(&db), amphorae, "none was replaced");
    lb.ask(&serve, &db, Kind::LoadBalancerFailover, &lb.id, now());
    active(&serve, &lb);
    assert!(lb.amphorae(&db).iter().all(|one| !amphorae.contains(one)));
    serve.eventually("traffic", |serve| serve.get(&lb.vip));
}
