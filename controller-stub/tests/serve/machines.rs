//! Virtual machines, of an empty disk: they are made, and never answer. `serve` is ended on the way.

use std::{fs, path::Path, process::Command};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use crate::{
    api,
    ground::{Serve, Way},
    qemu,
};

/// Where it is ended, the first time that it gets there.
const POINTS: [&str; 7] = [
    "machine.create.directory",
    "machine.create.drive",
    "machine.create.disk",
    "machine.create.tap",
    "machine.create.process",
    "machine.delete.process",
    "machine.delete.taps",
];

/// Processes of machines, by what their directories say.
fn running(serve: &Serve) -> Vec<i32> {
    let machines = fs::read_dir(serve.dir.path().join("data/machines")).into_iter().flatten().flatten();
    let locks = machines.map(|machine| machine.path().join("qemu.lock"));
    let holds = |lock: &Path| {
        let pid = fs::read_to_string(lock).ok()?.split(' ').next()?.parse().ok()?;
        (fs::read_link(format!("/proc/{pid}/fd/0")).ok()? == *lock).then_some(pid)
    };
    locks.filter_map(|lock| holds(&lock)).collect()
}

fn taps(serve: &Serve) -> String {
    let list = || Command::new("ip").args(["-o", "link", "show", "type", "tun"]).output().unwrap().stdout;
    String::from_utf8(serve.host.inside(list)).unwrap()
}

/// Ends what a test that failed has left.
struct Guard<'a>(&'a Serve);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        for pid in running(self.0) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

fn ended_at(point: &str, image: &Path) -> Option<()> {
    let way = Way {
        configuration: format!("[compute]\ndriver = qemu\nmemory = 256\nimage = {}\n", image.display()),
        failpoint: Some(format!("{point}:1")),
        ..Way::default()
    };
    let mut serve = Serve::start_as(way)?;
    let subnets = api::ask(&serve, "GET", "/v2.0/subnets", &Value::Null).1;
    let subnets: Value = serde_json::from_str(&subnets).unwrap();
    let body = json!({"loadbalancer": {"vip_subnet_id": subnets["subnets"][0]["id"]}});
    // It may end before it has said so.
    let _ = api::try_request(&serve, "POST", "loadbalancers", &body);
    let again = |serve: &mut Serve| {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while !serve.has_ended() {
            assert!(std::time::Instant::now() < deadline, "it is not ended at {point}: {}", serve.log());
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        serve.restart();
    };
    if point.starts_with("machine.create.") {
        again(&mut serve);
    }
    serve.eventually("a machine", |serve| (running(serve).len() == 1).then_some(()));
    let all: Value = api::request(&serve, "GET", "loadbalancers", &Value::Null).1;
    let path = format!("loadbalancers/{}", all["loadbalancers"][0]["id"].as_str().unwrap());
    assert_eq!(api::request(&serve, "DELETE", &path, &Value::Null).0, 204);
    if point.starts_with("machine.delete.") {
        again(&mut serve);
    }
    let guard = Guard(&serve);
    serve.eventually("the end of the load balancer", |serve| {
        (api::request(serve, "GET", &path, &Value::Null).0 == 404).then_some(())
    });
    serve.eventually("nothing of a machine", |serve| {
        let machines = fs::read_dir(serve.dir.path().join("data/machines")).unwrap().count();
        (machines == 0 && running(serve).is_empty() && taps(serve).is_empty()).then_some(())
    });
    let left: i64 = serve.db().query_row("SELECT count(*) FROM amphora", [], |row| row.get(0)).unwrap();
    assert_eq!(left, 0);
    drop(guard);
    Some(())
}

#[test]
fn a_machine_that_is_half_made_or_half_gone_leaves_nothing() {
    if let Some(lacks) = qemu::lacks() {
        return eprintln!("SKIPPED: {lacks}");
    }
    let dir = qemu::passage();
    let image = dir.path().join("image.qcow2");
    qemu::make_disk(&image);
    for point in POINTS {
        if ended_at(point, &image).is_none() {
            return;
        }
    }
}
