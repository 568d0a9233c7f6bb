#![allow(clippy::unwrap_used)]

use std::{net::Ipv4Addr, time::Duration};

use amphora_model::{MemberId, PoolId};
use tokio::net::TcpListener;
use uuid::Uuid;

use super::*;
use crate::state::Registry;

struct Fixture {
    registry: Registry,
    engine: HealthEngine,
}

impl Fixture {
    fn new() -> Self {
        Self { registry: Registry::new(1), engine: HealthEngine::start(1, 64).unwrap() }
    }

    fn member(&mut self, pool: u128, port: u16) -> Arc<MemberState> {
        let pool = self.registry.pool(PoolId(Uuid::from_u128(pool)));
        let id = MemberId(Uuid::from_u128(u128::from(port)));
        self.registry.member(&pool, id, Ipv4Addr::LOCALHOST.into(), port)
    }

    fn update(&mut self, members: &[(&Arc<MemberState>, u8)]) {
        let monitored = |&(member, fall): &(&Arc<MemberState>, u8)| Monitored {
            member: member.clone(),
            target: target(member.port, fall),
        };
        self.engine.update(members.iter().map(monitored));
    }
}

fn target(port: u16, fall: u8) -> Target {
    Target {
        address: Ipv4Addr::LOCALHOST.into(),
        port,
        check: HealthCheck::Tcp.into(),
        delay: Duration::from_millis(20),
        proxy_protocol: None,
        tls: None,
        timeout: Duration::from_millis(500),
        rise: 2,
        fall,
        first_check: false,
    }
}

async fn listen(port: u16) -> TcpListener {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, port).into()).unwrap();
    socket.listen(64).unwrap()
}

/// Waits for a condition, for ten seconds at most.
async fn until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..2000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never: {what}");
}

#[tokio::test]
async fn members_go_down_and_come_back() {
    let mut fixture = Fixture::new();
    let listener = listen(0).await;
    let port = listener.local_addr().unwrap().port();
    // Two pools with the same target: one probe.
    let (a, b) = (fixture.member(1, port), fixture.member(2, port));
    assert_eq!(a.health.get(), CheckState::NoCheck);
    fixture.update(&[(&a, 3), (&b, 3)]);
    assert_eq!(fixture.engine.targets(), 1);
    // At once, and by now the thread that probes may have found more.
    assert!(matches!(a.health.get(), CheckState::UpFailing { passed: 1, of: 3 } | CheckState::Up));
    until("up", || a.health.get() == CheckState::Up && b.health.get() == CheckState::Up).await;
    let report = fixture.engine.report(&a).unwrap();
    assert_eq!(report.outcome.status, CheckStatus::L4Ok);

    let epoch = || b.pool.epoch.load(std::sync::atomic::Ordering::Relaxed);
    let before = epoch();
    drop(listener);
    until("down", || a.health.get() == CheckState::Down && b.health.get() == CheckState::Down).await;
    assert_eq!(epoch(), before + 1, "one change of who is up");
    assert_eq!(fixture.engine.report(&b).unwrap().outcome.status, CheckStatus::L4Connection);
    let _listener = listen(port).await;
    until("up again", || a.health.get() == CheckState::Up && b.health.get() == CheckState::Up).await;
}

#[tokio::test]
async fn each_check_that_fails_is_counted_also_of_a_member_that_is_down() {
    let mut fixture = Fixture::new();
    let closed = listen(0).await.local_addr().unwrap().port();
    // In two pools it is probed once.
    let (a, b) = (fixture.member(1, closed), fixture.member(2, closed));
    fixture.update(&[(&a, 3), (&b, 3)]);
    let told = |member: &Arc<MemberState>| member.record.failures.recent(Wall::now());
    until("counted", || told(&a).first().is_some_and(|failure| failure.times >= 3)).await;
    let before = told(&a)[0];
    until("later", || told(&a)[0].at > before.at && told(&b)[0].times > before.times).await;
    for member in [&a, &b] {
        let what: Vec<_> = told(member).iter().map(|failure| failure.what.to_string()).collect();
        assert_eq!(what, ["check: L4CON"]);
    }
    let last = fixture.engine.report(&a).unwrap().outcome.to_string();
    assert!(last.starts_with("L4CON in ") && last.ends_with(" ms: Connection refused"), "{last}");
}

#[tokio::test]
async fn a_change_of_the_configuration_changes_no_state() {
    let mut fixture = Fixture::new();
    let listener = listen(0).await;
    let port = listener.local_addr().unwrap().port();
    let closed = listen(0).await.local_addr().unwrap().port();
    let (up, down) = (fixture.member(1, port), fixture.member(1, closed));
    fixture.update(&[(&up, 2), (&down, 2)]);
    until("settled", || up.health.get() == CheckState::Up && down.health.get() == CheckState::Down).await;
    // The monitor changes: other targets, states as they were.
    fixture.update(&[(&up, 3), (&down, 3)]);
    assert_eq!((up.health.get(), down.health.get()), (CheckState::Up, CheckState::Down));
    assert_eq!(fixture.engine.report(&up), None);
    until("probed", || fixture.engine.report(&down).is_some() && fixture.engine.report(&up).is_some()).await;
    assert_eq!((up.health.get(), down.health.get()), (CheckState::Up, CheckState::Down));
    // A new member of the same target knows what is known.
    let other = fixture.member(2, closed);
    fixture.update(&[(&other, 3), (&up, 3), (&down, 3)]);
    assert_eq!(other.health.get(), CheckState::Down);
}

#[tokio::test]
async fn who_is_probed_no_more_stays_down_and_begins_anew_when_probed_again() {
    let mut fixture = Fixture::new();
    let listener = listen(0).await;
    let port = listener.local_addr().unwrap().port();
    let closed = listen(0).await.local_addr().unwrap().port();
    let (up, down) = (fixture.member(1, port), fixture.member(1, closed));
    fixture.update(&[(&up, 2), (&down, 2)]);
    until("settled", || up.health.get() == CheckState::Up && down.health.get() == CheckState::Down).await;
    // Disabled, deleted, moved, or the process drains: sessions under way still ask.
    fixture.update(&[(&up, 2)]);
    assert_eq!((up.health.get(), down.health.get()), (CheckState::Up, CheckState::Down));
    assert_eq!(fixture.engine.report(&down), None);
    fixture.update(&[]);
    assert_eq!((up.health.get(), down.health.get()), (CheckState::Up, CheckState::Down));
    // Without the thread that probes there is no result before the state is looked at.
    fixture.engine.shared.stop.store(true, Ordering::Release);
    wake(&fixture.engine.waker);
    fixture.engine.thread.take().unwrap().join().unwrap();
    // HAProxy's are up on their last chance when they leave MAINT.
    fixture.update(&[(&down, 3)]);
    assert_eq!(down.health.get(), CheckState::UpFailing { passed: 1, of: 3 });
}

#[tokio::test]
async fn a_target_is_what_the_document_says() {
    let mut member = Member {
        id: MemberId(Uuid::nil()),
        name: String::new(),
        admin_state_up: true,
        address: Ipv4Addr::new(192, 0, 2, 1).into(),
        port: 80,
        weight: 0,
        backup: false,
        monitor_address: None,
        monitor_port: None,
    };
    let monitor = HealthMonitor {
        id: amphora_model::HealthMonitorId(Uuid::nil()),
        name: String::new(),
        admin_state_up: true,
        delay: Duration::from_secs(5),
        timeout: Duration::from_secs(3),
        max_retries: 2,
        max_retries_down: 4,
        check: HealthCheck::Tcp,
    };
    let mut pool = Pool {
        id: PoolId(Uuid::nil()),
        name: String::new(),
        admin_state_up: true,
        protocol: amphora_model::PoolProtocol::Tcp,
        lb_algorithm: amphora_model::LbAlgorithm::RoundRobin,
        tls: None,
        session_persistence: None,
        health_monitor: Some(monitor.clone()),
        member_options: Default::default(),
        members: vec![],
    };
    let target = Target::of_member(&pool, &member, None).unwrap();
    assert_eq!(target.to_string(), "TCP 192.0.2.1:80");
    assert_eq!((target.rise, target.fall), (2, 4));
    member.monitor_address = Some("2001:db8::1".parse().unwrap());
    member.monitor_port = Some(8080);
    assert_eq!(Target::of_member(&pool, &member, None).unwrap().to_string(), "TCP [2001:db8::1]:8080");
    pool.health_monitor = Some(HealthMonitor { check: HealthCheck::Ping, ..monitor.clone() });
    assert_eq!(Target::of_member(&pool, &member, None).unwrap().to_string(), "PING 2001:db8::1");
    assert_eq!(Target::of_member(&pool, &member, None).unwrap().port, 0);

    // The header is for the port that takes traffic, and for no echo.
    use amphora_model::PoolProtocol;

    use crate::conn::proxy_protocol::Version;
    for (protocol, header) in [
        (PoolProtocol::Http, None),
        (PoolProtocol::Proxy, Some(Version::V1)),
        (PoolProtocol::ProxyV2, Some(Version::V2)),
    ] {
        pool.protocol = protocol;
        for (monitor_address, monitor_port) in
            [(None, None), (Some(Ipv4Addr::LOCALHOST.into()), None), (None, Some(80))]
        {
            (member.monitor_address, member.monitor_port) = (monitor_address, monitor_port);
            let elsewhere = monitor_address.is_some() || monitor_port.is_some();
            for check in [HealthCheck::Tcp, HealthCheck::TlsHello, HealthCheck::Ping] {
                let expected = header.filter(|_| !elsewhere && check != HealthCheck::Ping);
                pool.health_monitor = Some(HealthMonitor { check, ..monitor.clone() });
                assert_eq!(Target::of_member(&pool, &member, None).unwrap().proxy_protocol, expected);
            }
        }
    }

    pool.health_monitor = Some(HealthMonitor { admin_state_up: false, ..monitor.clone() });
    assert_eq!(Target::of_member(&pool, &member, None), None);
    pool.health_monitor = Some(monitor);
    let disabled = Member { admin_state_up: false, ..member.clone() };
    assert_eq!(Target::of_member(&pool, &disabled, None), None);

    // All at once as one by one, and what they have in common is there once.
    pool.members = vec![member.clone(), disabled, Member { monitor_port: Some(81), ..member }];
    let all: Vec<_> = Target::of_members(&pool, None).collect();
    let one_by_one: Vec<_> =
        pool.members.iter().map(|member| Target::of_member(&pool, member, None)).collect();
    assert_eq!(all, one_by_one);
    let [Some(first), None, Some(last)] = &all[..] else { panic!("{all:?}") };
    assert!(Arc::ptr_eq(&first.check, &last.check));
    pool.admin_state_up = false;
    assert_eq!(Target::of_members(&pool, None).collect::<Vec<_>>(), [None, None, None]);
}
