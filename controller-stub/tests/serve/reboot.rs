//! The host starts again: of amphorae there are directories, and nothing that runs.

use std::{process::Command, time::Instant};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{MEMBER, active, ground::Serve, nothing_is_left, rows::LoadBalancer};

/// What is left of a host after a power cut: files.
fn reboot(serve: &mut Serve) {
    serve.kill();
    for pid in serve.processes() {
        let _ = kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGKILL);
    }
    serve.eventually("the end of all", |serve| serve.processes().is_empty().then_some(()));
    let instance = std::fs::read_to_string(serve.dir.path().join("data/amphorae/instance")).unwrap();
    for machine in serve.machines() {
        let name = format!("amphora-{instance}-{machine}");
        assert!(Command::new("ip").args(["netns", "delete", &name]).status().unwrap().success());
    }
    serve.host.inside(|| {
        let output = Command::new("ip").args(["-o", "link", "show", "type", "bridge"]).output().unwrap();
        for bridge in String::from_utf8(output.stdout).unwrap().lines() {
            let name = bridge.split(": ").nth(1).unwrap();
            assert!(Command::new("ip").args(["link", "delete", name]).status().unwrap().success());
        }
    });
    serve.eventually("the end of links", |serve| (serve.links() == 0).then_some(()));
}

#[test]
fn a_host_that_starts_again_has_all_load_balancers_soon() {
    let Some(mut serve) = Serve::start_with("[house_keeping]\nspare_amphora_pool_size = 1\n") else { return };
    serve.member("10.250.0.1:8081", "one");
    let mut db = serve.db();
    let all: Vec<LoadBalancer> = ["SINGLE", "ACTIVE_STANDBY", "SINGLE"]
        .map(|topology| LoadBalancer::create(&serve, &mut db, topology, MEMBER))
        .into();
    all.iter().for_each(|lb| active(&serve, lb));
    let before: Vec<_> = all.iter().map(|lb| lb.amphorae(&db)).collect();
    reboot(&mut serve);
    let begin = Instant::now();
    serve.restart();
    for lb in &all {
        serve.eventually("traffic", |serve| serve.get(&lb.vip));
        active(&serve, lb);
    }
    eprintln!("all serve {} ms after the start", begin.elapsed().as_millis());
    for (lb, before) in all.iter().zip(before) {
        let after = lb.amphorae(&db);
        assert_eq!(after.len(), before.len());
        assert!(after.iter().all(|one| !before.contains(one)), "what was torn apart is not used again");
    }
    serve.kill();
    serve.configure("");
    serve.restart();
    for lb in &all {
        lb.delete(&serve, &mut db);
    }
    all.iter().for_each(|lb| {
        serve.eventually("its end", |_| lb.status(&db).is_none().then_some(()));
    });
    serve.eventually("the end of spares", |serve| serve.machines().is_empty().then_some(()));
    nothing_is_left(&serve, &all[0]);
}
