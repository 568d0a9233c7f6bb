//! SIGKILL for each process of a whole amphora in turn, under load: what each costs, and that the state comes back.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use amphora_tests::{
    Amphora, Document, HealthMonitor, Listener, Load, Member, Pool, eventually, free_port, kill_hard,
    loopback,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_process_may_be_killed_and_the_state_comes_back() {
    let Some(mut amphora) = Amphora::start().await else { return };
    let members: Vec<_> = (0..3)
        .map(|_| {
            let address = loopback();
            SocketAddr::new(address, free_port(address))
        })
        .collect();
    let mut processes: Vec<_> =
        members.iter().enumerate().map(|(n, at)| amphora.spawn_member(&format!("m{n}"), *at)).collect();
    let monitor = HealthMonitor::new("TCP").with("delay", 1).with("timeout", 1).with("max_retries", 1);
    let pool = members.iter().fold(Pool::http(), |pool, at| pool.member(Member::at(*at))).monitored(&monitor);
    let ids: Vec<_> = pool.members.iter().map(|member| member.id).collect();
    let document = Document::of(Listener::http(), pool);
    amphora.apply(&document);
    all_up(&amphora).await;
    let load = || Load::new().keep_alive(4, document.address()).connection_each(2, document.address());

    // A member: what it had under way is repeated elsewhere.
    let traffic = load();
    traffic.more(200).await;
    processes[1].kill();
    eventually("the member is taken out", async || {
        let stats = amphora.stats().await?;
        let member = stats.pools.values().find_map(|pool| pool.members.get(&ids[1]))?;
        (!member.check.is_up()).then_some(())
    })
    .await;
    traffic.more(200).await;
    let served: u64 = traffic.stop().await.values().sum();
    println!("member killed: {served} requests, 0 failed");
    processes[1] = amphora.spawn_member("m1", members[1]);
    all_up(&amphora).await;

    // The agent: the proxy does not notice, and the next agent takes it over.
    let before = amphora.info().await.unwrap();
    let traffic = load();
    traffic.more(200).await;
    amphora.kill_agent();
    traffic.more(200).await;
    let begun = Instant::now();
    amphora.start_agent().await;
    let took = begun.elapsed();
    traffic.more(200).await;
    let served: u64 = traffic.stop().await.values().sum();
    let after = amphora.info().await.unwrap();
    assert_eq!(after.instance, before.instance, "the agent started another proxy");
    println!(
        "agent killed: {served} requests, 0 failed; answers again {} ms after its start",
        took.as_millis()
    );

    // The proxy: what it had under way is lost, and it is back by itself with the document and its members.
    let mut traffic = load();
    traffic.more(200).await;
    let begun = Instant::now();
    kill_hard(before.pid);
    let restarted = eventually("the proxy is back", async || {
        amphora.info().await.filter(|info| info.instance != before.instance && info.loadbalancer.is_some())
    })
    .await;
    let took = begun.elapsed();
    traffic.more(200).await;
    let failed = traffic.finish().await.len();
    println!(
        "proxy killed: {} requests answered, {failed} failed; serves again after {} ms",
        traffic.done(),
        took.as_millis()
    );
    assert_eq!(restarted.loadbalancer, before.loadbalancer);
    assert!(took < Duration::from_secs(10), "{took:?}");
    all_up(&amphora).await;
}

async fn all_up(amphora: &Amphora) {
    eventually("all members are up", async || {
        let stats = amphora.stats().await?;
        let checks: Vec<_> = stats.pools.values().flat_map(|pool| pool.members.values()).collect();
        let up = checks.iter().all(|member| member.check.to_string() == "UP");
        (checks.len() == 3 && up).then_some(())
    })
    .await;
}
