//! `serve` as a program: rows, as the API writes them, become amphorae that carry traffic, whatever becomes of `serve` meanwhile.
//! As root only.

#![allow(clippy::unwrap_used)]

mod api;
mod clients;
mod exchange;
mod failpoints;
mod ground;
mod hardships;
mod links;
mod lost_certificate;
mod machines;
#[path = "../qemu/mod.rs"]
mod qemu;
mod reboot;
mod rows;
mod spares;
mod unknown;

use std::time::{Duration, Instant};

use amphora_agent::heartbeat::mark;
use amphora_controller::serve::queue::Kind;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use self::{
    ground::Serve,
    rows::{LoadBalancer, pending},
};

const MEMBER: (&str, u16) = ("10.250.0.1", 8081);
const OTHER: (&str, u16) = ("10.250.0.1", 8082);

fn active(serve: &Serve, lb: &LoadBalancer) {
    let db = serve.db();
    serve.eventually("ACTIVE and no work", |_| {
        (lb.status(&db).as_deref() == Some("ACTIVE") && pending(&db) == 0).then_some(())
    });
}

fn now() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(now.as_millis()).unwrap()
}

fn nothing_is_left(serve: &Serve, lb: &LoadBalancer) {
    let db = serve.db();
    serve.eventually("its end", |_| lb.status(&db).is_none().then_some(()));
    assert_eq!(serve.machines(), [""; 0]);
    assert_eq!(serve.links(), 0);
    assert_eq!(serve.processes(), [0; 0]);
    for table in ["work", "amphora", "port", "listener", "pool", "member"] {
        let count: i64 =
            db.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap();
        assert_eq!(count, 0, "{table}");
    }
}

#[test]
fn rows_become_traffic_and_nothing_is_left() {
    let Some(mut serve) = Serve::start() else { return };
    serve.member("10.250.0.1:8081", "one");
    serve.member("10.250.0.1:8082", "two");
    let mut db = serve.db();
    let begin = Instant::now();
    let lb = LoadBalancer::create(&serve, &mut db, "SINGLE", MEMBER);
    active(&serve, &lb);
    eprintln!("from the rows to ACTIVE: {} ms", begin.elapsed().as_millis());
    assert_eq!(serve.get(&lb.vip).as_deref(), Some("one"));
    let mut times = Vec::new();
    for (member, name) in [(OTHER, "two"), (MEMBER, "one")].into_iter().cycle().take(20) {
        let begin = Instant::now();
        lb.replace_members(&serve, &mut db, member);
        active(&serve, &lb);
        times.push(begin.elapsed());
        assert_eq!(serve.get(&lb.vip).as_deref(), Some(name), "what is ACTIVE is live");
    }
    let (middle, last) = middle_and_last(times);
    eprintln!("a change: p50 {middle} ms, longest {last} ms");
    lb.delete(&serve, &mut db);
    nothing_is_left(&serve, &lb);
    serve.stop();
}

#[test]
fn amphorae_outlive_serve_and_are_found_again() {
    let Some(mut serve) = Serve::start() else { return };
    serve.member("10.250.0.1:8081", "one");
    let mut db = serve.db();
    let lb = LoadBalancer::create(&serve, &mut db, "SINGLE", MEMBER);
    active(&serve, &lb);
    let amphorae = lb.amphorae(&db);
    let processes = serve.processes();
    serve.kill();
    assert_eq!(serve.get(&lb.vip).as_deref(), Some("one"), "traffic does not need it");
    serve.restart();
    lb.replace_members(&serve, &mut db, MEMBER_AGAIN);
    active(&serve, &lb);
    assert_eq!(lb.amphorae(&db), amphorae);
    assert_eq!(serve.processes(), processes, "none was started again");
    let expires = |db: &rusqlite::Connection| -> i64 {
        db.query_row("SELECT cert_expiration FROM amphora", [], |row| row.get(0)).unwrap()
    };
    let before = expires(&db);
    std::thread::sleep(Duration::from_secs(1));
    lb.ask(&serve, &db, Kind::AmphoraConfigure, &amphorae[0].0, now());
    serve.eventually("another certificate", |_| (expires(&db) > before && pending(&db) == 0).then_some(()));
    lb.replace_members(&serve, &mut db, MEMBER);
    active(&serve, &lb);
    assert_eq!(serve.processes(), processes, "none was started again");
    lb.delete(&serve, &mut db);
    nothing_is_left(&serve, &lb);
}

const MEMBER_AGAIN: (&str, u16) = ("10.250.0.1", 8083);

#[test]
fn serve_that_is_killed_at_any_time_leaves_nothing_undone() {
    let Some(mut serve) = Serve::start() else { return };
    serve.member("10.250.0.1:8081", "one");
    let mut db = serve.db();
    let mut longest = Duration::ZERO;
    // From before anything is made until after all is.
    for wait in (0..10).map(|n| Duration::from_millis(n * 60)) {
        let lb = LoadBalancer::create(&serve, &mut db, "SINGLE", MEMBER);
        std::thread::sleep(wait);
        serve.kill();
        serve.restart();
        let begin = Instant::now();
        active(&serve, &lb);
        longest = longest.max(begin.elapsed());
        assert_eq!(serve.get(&lb.vip).as_deref(), Some("one"));
        assert_eq!(serve.machines().len(), 1, "nothing is orphaned");
        lb.delete(&serve, &mut db);
        std::thread::sleep(wait / 4);
        serve.kill();
        serve.restart();
        nothing_is_left(&serve, &lb);
    }
    eprintln!("from the start to nothing PENDING: at most {} ms", longest.as_millis());
}

/// The process of one of the agents.
fn an_agent(serve: &Serve) -> Pid {
    agent_with(serve, "")
}

/// That of an amphora.
fn agent_of(serve: &Serve, amphora: &str) -> Pid {
    let short: String = amphora.chars().filter(|c| *c != '-').take(16).collect();
    agent_with(serve, &short)
}

fn agent_with(serve: &Serve, text: &str) -> Pid {
    let supervises = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        line.contains("--supervise") && line.contains(text)
    };
    Pid::from_raw(serve.processes().into_iter().find(supervises).unwrap().try_into().unwrap())
}

#[test]
fn an_amphora_that_hangs_is_replaced_when_that_is_asked_for() {
    let Some(serve) = Serve::start() else { return };
    serve.member("10.250.0.1:8081", "one");
    let mut db = serve.db();
    for topology in ["SINGLE", "ACTIVE_STANDBY"] {
        let lb = LoadBalancer::create(&serve, &mut db, topology, MEMBER);
        active(&serve, &lb);
        let agent = an_agent(&serve);
        let line = std::fs::read(format!("/proc/{agent}/cmdline")).unwrap();
        let hangs = |id: &str| {
            let short: String = id.chars().filter(|c| *c != '-').take(16).collect();
            String::from_utf8_lossy(&line).contains(&short)
        };
        let before = lb.amphorae(&db);
        let (hanging, _) = before.iter().find(|(id, _)| hangs(id)).unwrap().clone();
        kill(agent, Signal::SIGSTOP).unwrap();
        let begin = Instant::now();
        lb.ask(&serve, &db, Kind::AmphoraFailover, &hanging, now());
        serve.eventually("another amphora", |_| {
            let after = lb.amphorae(&db);
            (after.len() == before.len() && after.iter().all(|(id, _)| *id != hanging)).then_some(())
        });
        active(&serve, &lb);
        eprintln!("{topology}: one that hangs is replaced after {} ms", begin.elapsed().as_millis());
        serve.eventually("traffic", |serve| serve.get(&lb.vip));
        lb.delete(&serve, &mut db);
        nothing_is_left(&serve, &lb);
    }
}

#[test]
fn an_amphora_that_is_killed_is_replaced() {
    let Some(serve) = Serve::start() else { return };
    serve.member("10.250.0.1:8081", "one");
    let mut db = serve.db();
    for topology in ["SINGLE", "ACTIVE_STANDBY"] {
        let lb = LoadBalancer::create(&serve, &mut db, topology, MEMBER);
        active(&serve, &lb);
        serve.eventually("traffic", |serve| serve.get(&lb.vip));
        let before = lb.amphorae(&db);
        let agent = an_agent(&serve);
        let begin = Instant::now();
        kill(agent, Signal::SIGKILL).unwrap();
        serve.eventually("another amphora", |_| (lb.amphorae(&db) != before).then_some(()));
        active(&serve, &lb);
        eprintln!("{topology}: redundant again after {} ms", begin.elapsed().as_millis());
        let after = lb.amphorae(&db);
        assert_eq!(after.len(), before.len());
        assert_eq!(after.iter().filter(|one| before.contains(one)).count(), before.len() - 1);
        serve.eventually("traffic", |serve| serve.get(&lb.vip));
        lb.delete(&serve, &mut db);
        nothing_is_left(&serve, &lb);
    }
}

#[test]
fn an_amphora_that_is_silent_is_replaced() {
    let Some(serve) = Serve::start() else { return };
    serve.member("10.250.0.1:8081", "one");
    let mut db = serve.db();
    let lb = LoadBalancer::create(&serve, &mut db, "SINGLE", MEMBER);
    active(&serve, &lb);
    let before = lb.amphorae(&db);
    let online = |db: &rusqlite::Connection| -> i64 {
        let query = "SELECT (SELECT count(*) FROM load_balancer WHERE operating_status = 'ONLINE')
            + (SELECT count(*) FROM listener WHERE operating_status = 'ONLINE')";
        db.query_row(query, [], |row| row.get(0)).unwrap()
    };
    serve.eventually("what a heartbeat tells", |_| (online(&db) == 2).then_some(()));
    // By the name that it is said to have heartbeats call the document that the agent has.
    let name = "SELECT applied_document FROM amphora";
    let name: String = db.query_row(name, [], |row| row.get(0)).unwrap();
    let stored = serve.stored_documents();
    assert_eq!(stored.iter().map(|document| mark(document)).collect::<Vec<_>>(), [name]);
    // It is alive, and says nothing: no process ends.
    kill(an_agent(&serve), Signal::SIGSTOP).unwrap();
    let begin = Instant::now();
    serve.eventually("another amphora", |_| (lb.amphorae(&db) != before).then_some(()));
    active(&serve, &lb);
    eprintln!("silent: redundant again after {} ms", begin.elapsed().as_millis());
    serve.eventually("traffic", |serve| serve.get(&lb.vip));
    lb.delete(&serve, &mut db);
    nothing_is_left(&serve, &lb);
}

/// Ids and statuses.
type Amphorae = [(String, String)];

#[test]
fn a_pair_is_replaced_without_a_lost_request() {
    let Some(serve) = Serve::start() else { return };
    serve.member("10.250.0.1:8081", "one");
    let mut db = serve.db();
    let lb = LoadBalancer::create(&serve, &mut db, "ACTIVE_STANDBY", MEMBER);
    active(&serve, &lb);
    serve.eventually("traffic", |serve| serve.get(&lb.vip));
    let before = lb.amphorae(&db);
    assert_eq!(before.len(), 2);
    // Asks for something, and requests all the time until it is done.
    let under_requests = |what: &str, kind: Kind, subject: &str, done: &dyn Fn(&Amphorae) -> bool| {
        lb.ask(&serve, &db, kind, subject, now());
        let (begin, mut requests) = (Instant::now(), 0);
        loop {
            let answer = serve.get(&lb.vip);
            assert_eq!(answer.as_deref(), Some("one"), "{what}, {requests} requests; log:\n{}", serve.log());
            requests += 1;
            let after = lb.amphorae(&db);
            if pending(&db) == 0 && done(&after) {
                assert_eq!(after.len(), 2);
                break;
            }
            assert!(begin.elapsed() < Duration::from_secs(60), "{what}: {after:?}\n{}", serve.log());
        }
        eprintln!("{what}: after {} ms and {requests} requests, none lost", begin.elapsed().as_millis());
    };
    let others = |after: &Amphorae| after.iter().all(|one| !before.contains(one));
    under_requests("both replaced", Kind::LoadBalancerFailover, &lb.id, &others);
    for place in [0, 1] {
        let one = lb.amphorae(&db)[place].0.clone();
        let gone = |after: &Amphorae| after.iter().all(|(id, _)| *id != one);
        under_requests("one replaced", Kind::AmphoraFailover, &one, &gone);
    }
    for (one, _) in lb.amphorae(&db) {
        under_requests("one configured", Kind::AmphoraConfigure, &one, &|_| true);
    }
    lb.delete(&serve, &mut db);
    nothing_is_left(&serve, &lb);
}

/// The middle and the last of some times, in milliseconds.
fn middle_and_last(mut times: Vec<Duration>) -> (u128, u128) {
    times.sort();
    (times[times.len() / 2].as_millis(), times[times.len() - 1].as_millis())
}

#[test]
fn what_the_api_answers_becomes_so() {
    let Some(mut serve) = Serve::start() else { return };
    serve.member("10.250.0.1:8081", "one");
    serve.member("10.250.0.1:8082", "two");
    let begin = Instant::now();
    let lb = api::create(&serve, "first", MEMBER);
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let (id, vip) = (text(&lb["id"]), format!("{}:80", text(&lb["vip_address"])));
    let is = |serve: &Serve, id: &str| (api::status(serve, id).as_deref() == Some("ACTIVE")).then_some(());
    serve.eventually("ACTIVE", |serve| is(serve, &id));
    eprintln!("from the request to ACTIVE: {} ms", begin.elapsed().as_millis());
    assert_eq!(serve.get(&vip).as_deref(), Some("one"));

    let pool = text(&lb["pools"][0]["id"]);
    let mut times = Vec::new();
    for (member, name) in [(OTHER, "two"), (MEMBER, "one")].into_iter().cycle().take(20) {
        let members = serde_json::json!({"members": [{"address": member.0, "protocol_port": member.1}]});
        let (status, answer) = api::request(&serve, "PUT", &format!("pools/{pool}/members"), &members);
        assert_eq!(status, 202, "{answer}");
        let begin = Instant::now();
        serve.eventually("the change", |serve| (serve.get(&vip).as_deref() == Some(name)).then_some(()));
        times.push(begin.elapsed());
    }
    let (middle, last) = middle_and_last(times);
    eprintln!("from the answer until a change is live: p50 {middle} ms, longest {last} ms");

    let others: Vec<_> =
        (0..8).map(|n| text(&api::create(&serve, &format!("other {n}"), MEMBER)["id"])).collect();
    serve.kill();
    serve.restart();
    let begin = Instant::now();
    for id in &others {
        serve.eventually("ACTIVE after it was killed", |serve| is(serve, id));
    }
    eprintln!("eight of which it was killed in the middle: ACTIVE after {} ms", begin.elapsed().as_millis());
    assert_eq!(serve.machines().len(), 9);

    let (status, answer) =
        api::request(&serve, "PUT", &format!("loadbalancers/{id}/failover"), &serde_json::Value::Null);
    assert_eq!(status, 202, "{answer}");
    serve.eventually("ACTIVE after a failover", |serve| is(serve, &id));
    serve.eventually("traffic", |serve| serve.get(&vip));

    for id in others.iter().chain([&id]) {
        let path = format!("loadbalancers/{id}?cascade=true");
        let (status, answer) = api::request(&serve, "DELETE", &path, &serde_json::Value::Null);
        assert_eq!(status, 204, "{answer}");
    }
    serve.eventually("the end of all", |serve| serve.machines().is_empty().then_some(()));
    let db = serve.db();
    serve.eventually("no rows", |_| {
        let left: i64 = db
            .query_row(
                "SELECT (SELECT count(*) FROM port) + (SELECT count(*) FROM load_balancer)",
                [],
                |row| row.get(0),
            )
            .unwrap();
        (left == 0).then_some(())
    });
    assert_eq!(serve.links(), 0);
    serve.stop();
}

#[test]
fn changes_without_a_pause_are_no_failure() {
    let Some(mut serve) = Serve::start() else { return };
    let lb = api::create(&serve, "busy", MEMBER);
    let id = lb["id"].as_str().unwrap();
    serve.eventually("ACTIVE", |serve| (api::status(serve, id).as_deref() == Some("ACTIVE")).then_some(()));
    let pool = lb["pools"][0]["id"].as_str().unwrap();
    for weight in 1..=250 {
        let body = serde_json::json!({"members": [{"address": MEMBER.0, "protocol_port": MEMBER.1, "weight": weight}]});
        let (status, answer) = api::request(&serve, "PUT", &format!("pools/{pool}/members"), &body);
        assert_eq!(status, 202, "{answer}");
    }
    serve.eventually("ACTIVE again", |serve| {
        (api::status(serve, id).as_deref() == Some("ACTIVE")).then_some(())
    });
    assert!(!serve.log().contains("not so"), "{}", serve.log());
    api::request(&serve, "DELETE", &format!("loadbalancers/{id}?cascade=true"), &serde_json::Value::Null);
    serve.eventually("its end", |serve| api::status(serve, id).is_none().then_some(()));
    serve.stop();
}

#[test]
fn who_watches_sees_what_is_so() {
    let Some(serve) = Serve::start() else { return };
    serve.member("10.250.0.1:8081", "one");
    let mut db = serve.db();
    let lb = LoadBalancer::create(&serve, &mut db, "ACTIVE_STANDBY", MEMBER);
    active(&serve, &lb);
    let ask = |path: &str| {
        let (status, text) = api::ask(&serve, "GET", path, &serde_json::Value::Null);
        assert_eq!(status, 200, "{path}: {text}");
        text
    };
    let json = |path: &str| serde_json::from_str::<serde_json::Value>(&ask(path)).unwrap();
    let masters = || -> Vec<(String, bool)> {
        let told = json(&format!("/page/masters?loadbalancer_id={}", lb.id));
        let told = told["masters"].as_object().unwrap();
        told.iter().map(|(id, is)| (id.clone(), is.as_bool() == Some(true))).collect()
    };
    serve.eventually("a master", |_| (masters().iter().filter(|(_, is)| *is).count() == 1).then_some(()));
    assert_eq!(masters().len(), 2);

    for _ in 0..20 {
        assert_eq!(serve.get(&lb.vip).as_deref(), Some("one"));
    }
    // One span of ten seconds, and heartbeats in it.
    serve.eventually("traffic in a span", |_| {
        let rates = json(&format!("/page/rates?loadbalancer_id={}", lb.id));
        let sum: f64 =
            rates["connections"].as_array().unwrap().iter().filter_map(serde_json::Value::as_f64).sum();
        (sum * 10.0 >= 20.0).then_some(())
    });
    let text = ask("/metrics");
    for line in [
        "amphora_controller_amphorae{status=\"ALLOCATED\"} 2",
        "amphora_controller_load_balancer_create_duration_seconds_count 1",
        "amphora_controller_failovers_total{outcome=\"done\"} 0",
        "amphora_controller_heartbeats_refused_total 0",
    ] {
        assert!(text.contains(&format!("\n{line}\n")), "{line}: {text}");
    }
    let (first, _) = lb.amphorae(&db)[0].clone();
    lb.ask(&serve, &db, Kind::AmphoraFailover, &first, now());
    let replaced = "amphora_controller_failovers_total{outcome=\"done\"} 1";
    serve.eventually("a failover that is counted", |_| ask("/metrics").contains(replaced).then_some(()));
    lb.delete(&serve, &mut db);
    nothing_is_left(&serve, &lb);
}
