//! Descriptors, memory and the log have a reserve: whoever comes, whoever asks how it stands is answered, and members are probed.

use std::{collections::VecDeque, process::Command, time::Duration};

use amphora_ipc::proxy::Stats;
use amphora_tests::{
    Backend, Client, Document, HealthMonitor, Listener, PATIENCE, Pattern, Pool, Proxy, echo, eventually,
    in_time,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

use crate::quiesce::Fitness;

/// Few enough to be used up by few clients.
const DESCRIPTORS: u32 = 400;

/// The control socket has as many places as ever, and fitness is told.
async fn those_who_ask_are_answered(proxy: &Proxy) {
    let mut fitness = Fitness::of(proxy).await;
    let mut silent = Vec::new();
    for _ in 0..31 {
        silent.push(UnixStream::connect(proxy.control()).await.unwrap());
    }
    for _ in 0..5 {
        assert_eq!(proxy.info().await.pid, proxy.pid());
        assert_eq!(fitness.ask(b'?').await, b'+');
    }
    assert!(proxy.request("GET", "/metrics", "").await.unwrap().status() == 200);
}

fn connections(stats: &Stats) -> u64 {
    stats.listeners.values().map(|listener| listener.active_connections).sum()
}

/// Clients that connect and say nothing, more than there may be.
async fn crowd(proxy: &Proxy, clients: usize) -> Vec<Client> {
    let mut crowd = Vec::new();
    for _ in 0..clients {
        crowd.push(proxy.client().await);
    }
    those_who_ask_are_answered(proxy).await;
    let full =
        proxy.until("all places are taken", |stats| connections(stats) >= stats.process.max_connections);
    let stats = full.await;
    assert_eq!(connections(&stats), stats.process.max_connections);
    assert!(stats.process.max_connections < clients as u64);
    eventually("the log tells of it", async || proxy.log().contains("others wait").then_some(())).await;
    crowd
}

/// Members that go and come while the crowd is there are seen to.
async fn members_are_probed(proxy: &Proxy, gone: Backend) {
    let address = gone.address;
    drop(gone);
    proxy.until_member(1, "the one that is gone is down", |member| !member.check.is_up()).await;
    let _back = Backend::tcp_at(address, "back", echo).await;
    proxy.until_member(1, "the one that is back is up", |member| member.check.is_up()).await;
    assert!(proxy.member(0).await.check.is_up());
    assert!(!proxy.log().contains("could not be made"), "no probe lacked a descriptor");
}

/// One who comes last is served once the crowd has gone.
async fn who_waits_is_served(proxy: &Proxy, crowd: Vec<Client>, say: &str, hear: &str) {
    let mut late = proxy.client().await;
    late.send(say).await;
    those_who_ask_are_answered(proxy).await;
    assert!(late.stream.try_read(&mut [0]).is_err(), "there is no place for it");
    drop(crowd);
    let mut heard = vec![0; hear.len()];
    in_time("an answer", late.stream.read_exact(&mut heard)).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&heard), hear);
    assert!(!proxy.log().contains("accepting pauses"), "nothing was ever lacking");
    assert_eq!(proxy.log().matches("others wait").count(), 1, "it is said once");
}

#[tokio::test]
async fn six_hundred_silent_http_clients_leave_control_fitness_and_probes_as_they_were() {
    let (good, gone) = (Backend::named("good").await, Backend::named("gone").await);
    let pool = Pool::http().members([&good, &gone]).monitored(&HealthMonitor::new("TCP"));
    let proxy = Proxy::start_within(Document::of(Listener::http(), pool), DESCRIPTORS).await;
    let crowd = crowd(&proxy, 600).await;
    assert!(proxy.descriptors() < 300, "{}", proxy.descriptors());
    members_are_probed(&proxy, gone).await;
    who_waits_is_served(&proxy, crowd, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200").await;
}

#[tokio::test]
async fn six_hundred_silent_tcp_clients_leave_control_fitness_and_probes_as_they_were() {
    let (good, gone) = (Backend::tcp("good", echo).await, Backend::tcp("gone", echo).await);
    let pool = Pool::tcp().members([&good, &gone]).monitored(&HealthMonitor::new("TCP"));
    let proxy = Proxy::start_within(Document::of(Listener::tcp(), pool), DESCRIPTORS).await;
    let crowd = crowd(&proxy, 600).await;
    members_are_probed(&proxy, gone).await;
    who_waits_is_served(&proxy, crowd, "hello", "hello").await;
}

#[tokio::test]
async fn memory_bounds_clients_as_well() {
    let member = Backend::named("a").await;
    let proxy = Proxy::start_with(Document::http([&member]), &["--memory-limit", "1"]).await;
    let crowd = crowd(&proxy, 100).await;
    assert_eq!(crowd.len(), 100);
    // Three quarters of a MiB, in pieces of 32 KiB.
    assert_eq!(proxy.stats().await.process.max_connections, 24);
    who_waits_is_served(&proxy, crowd, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200").await;
}

#[tokio::test]
async fn places_are_passed_on_one_by_one_among_listeners() {
    let member = Backend::tcp("echo", echo).await;
    let pool = Pool::tcp().members([&member]);
    let listeners = (0..3).fold(Document::new(), |document, _| document.listener(Listener::tcp().to(&pool)));
    let proxy = Proxy::start_with(listeners.pool(&pool), &["--memory-limit", "1"]).await;
    let mut clients = Vec::new();
    for number in 0..60 {
        let mut client = Client::connect(proxy.document.address_of(number % 3)).await;
        client.send("x").await;
        clients.push(client);
    }
    while !clients.is_empty() {
        let served = eventually("one of those who are left is served", async || {
            clients.iter().position(|client| client.stream.try_read(&mut [0]).is_ok_and(|n| n == 1))
        })
        .await;
        clients.remove(served);
        // Listeners are counted one after the other, so that one look can find a connection that ended and the one that has
        // its place; of those who stay there are as many as there may be.
        let places = clients.len().min(24) as u64;
        proxy.until("the place is taken again", |stats| connections(stats) == places).await;
    }
}

#[tokio::test]
async fn a_crowd_that_waits_for_one_listener_keeps_nobody_out_of_another() {
    let member = Backend::tcp("echo", echo).await;
    let pool = Pool::tcp().members([&member]);
    let document = Document::new().listener(Listener::tcp().to(&pool)).listener(Listener::tcp().to(&pool));
    let options = ["--memory-limit", "1", "--workers", "1"];
    let proxy = Proxy::start_with(document.pool(&pool), &options).await;
    let mut crowd: VecDeque<_> = crowd(&proxy, 200).await.into();
    let mut late = Client::connect(proxy.document.address_of(1)).await;
    late.send("x").await;
    // Whoever goes has been served, because they are in the order in which they came.
    let mut total = proxy.stats().await.process.total_connections;
    for _ in 0..20 {
        drop(crowd.pop_front());
        total += 1;
        proxy.until("the place is passed on", |stats| stats.process.total_connections >= total).await;
    }
    let mut heard = [0];
    in_time("one of twenty places", late.stream.read_exact(&mut heard)).await.unwrap();
    assert!(crowd.len() > 100);
}

#[tokio::test]
async fn idle_connections_to_many_members_leave_room() {
    let mut members = Vec::new();
    for number in 0..150 {
        members.push(Backend::named(&number.to_string()).await);
    }
    let proxy = Proxy::start_within(Document::http(&members), DESCRIPTORS).await;
    let mut clients = Vec::new();
    for _ in 0..40 {
        clients.push(proxy.client().await);
    }
    for _ in 0..12 {
        for client in &mut clients {
            assert_eq!(client.get("/").await.status(), 200);
        }
    }
    those_who_ask_are_answered(&proxy).await;
    let stats = proxy.stats().await;
    let idle: u64 =
        stats.pools.values().flat_map(|pool| pool.members.values()).map(|member| member.idle).sum();
    assert!((1..=22).contains(&idle), "{idle} are kept of the 22 that may be");
    let open: usize = members.iter().map(Backend::open).sum();
    assert!(open <= 22, "{open} are open");
}

#[tokio::test]
async fn pipes_of_many_sessions_leave_room() {
    const LENGTH: u64 = 8 << 20;
    let member = Backend::tcp("sender", |mut stream| async move {
        let _ = Pattern::default().send(LENGTH, &mut stream).await;
        let _ = stream.shutdown().await;
    })
    .await;
    let proxy = Proxy::start_within(Document::tcp([&member]), DESCRIPTORS).await;
    let mut clients = Vec::new();
    for _ in 0..85 {
        clients.push(proxy.client().await);
    }
    let stalled = |stats: &Stats| {
        let carried: u64 = stats.listeners.values().map(|listener| listener.bytes_out).sum();
        connections(stats) == 85 && carried > 85 * 16_384
    };
    proxy.until("all of them carry more than is copied", stalled).await;
    those_who_ask_are_answered(&proxy).await;
    assert!(proxy.descriptors() < 340, "{}", proxy.descriptors());
    for mut client in clients {
        let mut pattern = Pattern::default();
        in_time("all of it", pattern.receive(&mut client.stream)).await.unwrap();
        assert_eq!(pattern.offset(), LENGTH);
    }
}

#[tokio::test]
async fn more_listeners_than_descriptors_allow_are_refused_and_nothing_changes() {
    let member = Backend::named("a").await;
    let mut proxy = Proxy::start_within(Document::http([&member]), DESCRIPTORS).await;
    let pool = proxy.document.pools[0].clone();
    let more = |document: Document, count| {
        (0..count).fold(document, |document, _| document.listener(Listener::http().to(&pool)))
    };
    let too_many = more(proxy.document.clone(), 12);
    let refused = proxy.try_apply(&too_many).await.unwrap_err();
    assert_eq!(refused.status, 409);
    let fault = &refused.refusal.faults[0];
    let last = too_many.listeners[12].id;
    assert_eq!(fault.path, format!("loadbalancer.listeners[{last}].protocol_port"));
    assert!(
        fault.reason.contains("RLIMIT_NOFILE") && fault.reason.contains("12 listening"),
        "{}",
        fault.reason
    );
    assert_eq!(proxy.client().await.get("/").await.text(), "a");
    // All may be others at once.
    for _ in 0..2 {
        let mut others = proxy.document.clone();
        others.listeners.clear();
        proxy.apply(&more(others, 12)).await;
        assert_eq!(proxy.client().await.get("/").await.text(), "a");
        those_who_ask_are_answered(&proxy).await;
    }
}

#[tokio::test]
async fn too_few_descriptors_are_an_error_that_says_how_many_are_needed() {
    let directory = tempfile::tempdir().unwrap();
    let control = directory.path().join("control");
    let run = |descriptors| {
        let mut command = Proxy::command_within(descriptors);
        command.args(["--workers", "2", "--control-socket"]).arg(&control);
        tokio::task::spawn_blocking(move || command.output().unwrap())
    };
    let output = in_time("the end of the program", run(100)).await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("(RLIMIT_NOFILE) is 100; 2 workers and 16 clients need"), "{said}");
}

#[tokio::test]
async fn a_line_that_repeats_is_told_a_few_times_and_counted() {
    let member = Backend::named("a").await;
    let proxy = Proxy::start(Document::http([&member])).await;
    let limit = |soft: u64| {
        let pid = proxy.pid().to_string();
        Command::new("prlimit").args(["--pid", &pid, &format!("--nofile={soft}:")]).status()
    };
    // Fewer than it has already, so that nobody can be let in, which it says ten times a second.
    if !limit(8).is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: there is no prlimit here");
        return;
    }
    let mut client = proxy.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let pauses = |log: &str| {
        let (counts, lines): (Vec<_>, Vec<_>) = log
            .lines()
            .filter(|line| line.contains("accepting pauses"))
            .map(str::to_owned)
            .partition(|line| line.contains("more like this left out"));
        (lines.len(), counts.len())
    };
    // It never stops, so it is told after ten seconds.
    let counted = async {
        while pauses(&proxy.log()).1 == 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(4 * PATIENCE, counted).await.expect("a count");
    limit(amphora_tests::open_files()).unwrap();
    assert_eq!(client.response().await.text(), "a");
    let (lines, counts) = pauses(&proxy.log());
    assert!((5..=5 * (counts + 1)).contains(&lines), "{lines} and {counts}");
}

#[tokio::test]
async fn who_waits_when_a_listener_goes_is_served_within_the_bound_or_let_go() {
    let member = Backend::tcp("echo", echo).await;
    let document = Document::tcp([&member]);
    let other = document.clone().listener(Listener::tcp().to(&document.pools[0]));
    let mut proxy = Proxy::start_with(other, &["--memory-limit", "1"]).await;
    let mut served = Vec::new();
    for _ in 0..24 {
        let mut client = proxy.client().await;
        client.send("x").await;
        client.expect("x").await;
        served.push(client);
    }
    let mut waiting = Vec::new();
    for _ in 0..16 {
        let mut client = proxy.client().await;
        client.send("y").await;
        waiting.push(client);
    }
    proxy.change(|document| drop(document.listeners.remove(0))).await;
    for client in &mut waiting {
        assert!(client.ends_within(PATIENCE).await);
    }
    assert_eq!(member.connections(), 24, "nobody was let in beyond the bound");
    // The address of the one that is left has been served by nobody meanwhile, and is when there is room.
    let mut late = proxy.client().await;
    late.send("z").await;
    drop(served);
    late.expect("z").await;
}
