//! What is on the host of networks and of amphorae's links goes away under them: what can be is made anew, and who is cut off is replaced.

use std::process::Command;

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rusqlite::Connection;

use crate::{MEMBER, active, api, ground::Serve, rows::LoadBalancer};

fn ip(serve: &Serve, words: &str) -> String {
    let output = serve.host.inside(|| Command::new("ip").args(words.split(' ')).output().unwrap());
    assert!(output.status.success(), "ip {words}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The bridge of the only network.
fn bridge(serve: &Serve) -> String {
    ip(serve, "-o link show type bridge").split(": ").nth(1).unwrap().to_owned()
}

/// The host's end of the only link of a load balancer's only amphora.
fn link(serve: &Serve, db: &Connection, amphora: &str) -> String {
    let query = "SELECT id FROM port WHERE amphora_id = ?1";
    let port: String = db.query_row(query, [amphora], |row| row.get(0)).unwrap();
    let instance = std::fs::read_to_string(serve.dir.path().join("data/amphorae/instance")).unwrap();
    let port: String = port.chars().filter(|c| *c != '-').take(9).collect();
    format!("v{}{port}", &instance[..5])
}

fn serving(serve: &Serve, db: &mut Connection) -> LoadBalancer {
    let lb = LoadBalancer::create(serve, db, "SINGLE", MEMBER);
    active(serve, &lb);
    serve.eventually("traffic", |serve| serve.get(&lb.vip));
    lb
}

#[test]
fn bridges_and_ends_that_went_are_back_and_nobody_is_replaced() {
    let Some(mut serve) = Serve::start() else { return };
    serve.member("10.250.0.1:8081", "one");
    let mut db = serve.db();
    let lb = serving(&serve, &mut db);
    let before = lb.amphorae(&db);
    let bridge = bridge(&serve);
    ip(&serve, &format!("link delete {bridge}"));
    // Whoever needs it meanwhile finds it missing, and need not wait until somebody looks.
    let new = api::create(&serve, "new", MEMBER)["id"].as_str().unwrap().to_owned();
    serve.eventually("ACTIVE", |serve| (api::status(serve, &new).as_deref() == Some("ACTIVE")).then_some(()));
    serve.eventually("traffic on the new bridge", |serve| serve.get(&lb.vip));

    // The next start finds what went before it.
    serve.kill();
    ip(&serve, &format!("link delete {bridge}"));
    serve.restart();
    serve.eventually("traffic after the start", |serve| serve.get(&lb.vip));
    serve.kill();
    ip(&serve, &format!("link set {} nomaster down", link(&serve, &db, &before[0].0)));
    serve.restart();
    serve.eventually("traffic when the link is back", |serve| serve.get(&lb.vip));

    // As whoever looks every now and then.
    ip(&serve, &format!("address flush dev {bridge}"));
    serve.eventually("the host's address", |serve| {
        ip(serve, &format!("-o address show dev {bridge}")).contains("10.250.0.1/24").then_some(())
    });
    serve.eventually("traffic", |serve| serve.get(&lb.vip));
    assert_eq!(lb.amphorae(&db), before, "{}", serve.log());
    serve.stop();
}

#[test]
fn who_is_cut_off_is_replaced() {
    let Some(mut serve) = Serve::start() else { return };
    serve.member("10.250.0.1:8081", "one");
    let mut db = serve.db();
    let [unlinked, unnamed, moved, lowered, well] = [(); 5].map(|()| serving(&serve, &mut db));
    let before = [&unlinked, &unnamed, &moved, &lowered, &well].map(|lb| lb.amphorae(&db));
    let short = |id: &str| id.chars().filter(|c| *c != '-').take(16).collect::<String>();
    let instance = std::fs::read_to_string(serve.dir.path().join("data/amphorae/instance")).unwrap();
    let namespace = |id: &str| format!("amphora-{instance}-{}", short(id));
    ip(&serve, &format!("link delete {}", link(&serve, &db, &before[0][0].0)));
    ip(&serve, &format!("netns delete {}", namespace(&before[1][0].0)));
    // Its processes live on in the one that had the name; what it starts again does not.
    ip(&serve, &format!("netns delete {}", namespace(&before[2][0].0)));
    ip(&serve, &format!("netns add {}", namespace(&before[2][0].0)));
    let proxy = serve.processes().into_iter().find(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        line.split('\0').next().unwrap().ends_with("amphora-proxy") && line.contains(&short(&before[2][0].0))
    });
    kill(Pid::from_raw(i32::try_from(proxy.unwrap()).unwrap()), Signal::SIGKILL).unwrap();
    ip(&serve, &format!("-n {} link set eth1 down", namespace(&before[3][0].0)));
    for (lb, before) in [&unlinked, &unnamed, &moved, &lowered].into_iter().zip(&before) {
        serve.eventually("another amphora", |_| (lb.amphorae(&db) != *before).then_some(()));
        active(&serve, lb);
        serve.eventually("traffic", |serve| serve.get(&lb.vip));
    }
    assert_eq!(well.amphorae(&db), before[4], "{}", serve.log());
    let said = ["is brought back", "is not as it is to be", "cannot tell"];
    assert!(said.iter().all(|words| !serve.log().contains(words)), "what is well is left: {}", serve.log());
    serve.stop();
}
