//! Whether an amphora lives cannot always be found out: who cannot be asked of is not replaced.

use std::process::Command;

use nix::sys::signal::{Signal, kill};

use crate::{
    MEMBER, active, agent_of,
    ground::{Serve, Way},
    rows::LoadBalancer,
};

/// One agent is killed while `spoil` holds. The amphora of the other load balancer outlives that, the killed one is replaced after `mend`.
fn only_the_dead_is_replaced(serve: &Serve, said: &str, spoil: impl Fn(), mend: impl Fn()) {
    serve.member("10.250.0.1:8081", "one");
    let mut db = serve.db();
    let [dead, well] = [(); 2].map(|()| LoadBalancer::create(serve, &mut db, "SINGLE", MEMBER));
    for lb in [&dead, &well] {
        active(serve, lb);
        serve.eventually("traffic", |serve| serve.get(&lb.vip));
    }
    let (before, stays) = (dead.amphorae(&db), well.amphorae(&db));
    spoil();
    kill(agent_of(serve, &before[0].0), Signal::SIGKILL).unwrap();
    serve.eventually("word of it", |serve| serve.log().contains(said).then_some(()));
    assert_eq!(well.amphorae(&db), stays, "{}", serve.log());
    assert_eq!(serve.get(&well.vip).as_deref(), Some("one"));
    mend();
    serve.eventually("another amphora", |_| (dead.amphorae(&db) != before).then_some(()));
    active(serve, &dead);
    serve.eventually("traffic", |serve| serve.get(&dead.vip));
    assert_eq!(well.amphorae(&db), stays, "{}", serve.log());
}

#[test]
fn with_no_descriptor_left_nobody_is_called_dead() {
    let Some(mut serve) = Serve::start() else { return };
    let limit = |files: &str| {
        let done = Command::new("prlimit")
            .args(["--pid", &serve.id().to_string(), &format!("--nofile={files}:20000")])
            .status();
        assert!(done.unwrap().success());
    };
    only_the_dead_is_replaced(&serve, "cannot tell whether amphorae run", || limit("8"), || limit("20000"));
    serve.stop();
}

#[test]
fn where_nothing_may_be_written_nobody_is_called_dead() {
    let Some(mut serve) = Serve::start_as(Way { disk: Some(64 << 20), ..Way::default() }) else { return };
    let amphorae = serve.dir.path().join("data/amphorae");
    let mount = |words: &[&str]| {
        assert!(Command::new("mount").args(words).arg(&amphorae).status().unwrap().success());
    };
    let spoil = || {
        mount(&["--bind", amphorae.to_str().unwrap()]);
        mount(&["-o", "remount,ro,bind"]);
    };
    let mend = || assert!(Command::new("umount").arg(&amphorae).status().unwrap().success());
    only_the_dead_is_replaced(&serve, "Read-only file system", spoil, mend);
    serve.stop();
}
