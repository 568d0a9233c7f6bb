//! What flows outlive: changes, the proxy, and who forwards for it.

use super::*;

/// The processes that a process has started.
pub(super) fn children(of: u32) -> Vec<i32> {
    let parent =
        |status: &str| status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok());
    let entries = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let mut found: Vec<i32> = entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| {
            std::fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|text| parent(&text) == Some(of))
        })
        .collect();
    found.sort_unstable();
    found
}

#[tokio::test]
async fn changes_lose_no_datagram_and_a_listener_that_goes_leaves_nothing() {
    let Some(network) = Network::create() else { return };
    let (one, other) = (network.member(2, true).await, network.member(3, true).await);
    let to = pool([(&one, 1), (&other, 1)]);
    let mut proxy = network.proxy(document(&to)).await;
    let flow = network.flow(CLIENT).await;
    let member = flow.member();
    for round in 1..=20 {
        proxy
            .change(|document| {
                for (member, weight) in document.pools[0].members.iter_mut().zip([round, 21 - round]) {
                    *member = member.clone().weight(weight);
                }
            })
            .await;
        for _ in 0..5 {
            assert_eq!(flow.member(), member);
        }
        network.flow(CLIENT).await.member();
    }
    let before = proxy.listener().await.total_connections;
    proxy.change(|document| document.listeners.clear()).await;
    assert!(flow.is_refused().await && before > 0);
    assert_eq!(network.nft(&["list", "ruleset"]), "");
}

#[tokio::test]
async fn flows_outlive_the_proxy_and_another_hand_is_undone() {
    let Some(network) = Network::create() else { return };
    let (one, other) = (network.member(2, true).await, network.member(3, true).await);
    let to = pool([(&one, 1), (&other, 1)]);
    let mut proxy = network.proxy(document(&to)).await;
    let (_, flows) = network.spread(CLIENT, 4).await;
    let members: Vec<_> = flows.iter().map(Flow::member).collect();
    proxy.signal(nix::sys::signal::Signal::SIGKILL);
    proxy.ended().await;
    assert_eq!(flows.iter().map(Flow::member).collect::<Vec<_>>(), members, "without a proxy");
    let again = network.proxy(proxy.document.clone()).await;
    assert_eq!(flows.iter().map(Flow::member).collect::<Vec<_>>(), members, "with another");
    again.until_listener("flows are known", |listener| listener.active_connections == 4).await;

    network.nft(&["add", "table", "inet", "other"]);
    network.nft(&["delete", "table", "inet", "amphora_datagram"]);
    eventually("it is written anew", async || {
        network.nft(&["list", "tables"]).contains("amphora_datagram").then_some(())
    })
    .await;
    let (spread, _flows) = network.spread(CLIENT, 4).await;
    assert_eq!(spread, BTreeMap::from([(2, 2), (3, 2)]));
    assert!(again.log().contains("another hand"));
    assert!(network.nft(&["list", "tables"]).contains("table inet other"));
}

#[tokio::test]
async fn who_forwards_may_die_and_clients_stay_remembered() {
    let Some(network) = Network::create() else { return };
    let (one, other) = (network.member(2, true).await, network.member(3, true).await);
    let sticky = pool([(&one, 1), (&other, 1)])
        .monitored(&HealthMonitor::new("UDP-CONNECT"))
        .with("session_persistence", json!({ "type": "SOURCE_IP", "persistence_timeout": 600 }));
    let mut proxy = network.proxy(document(&sticky)).await;
    let flow = network.flow(CLIENT).await;
    let (first, second) = (flow.member(), network.flow(NEIGHBOUR).await.member());
    assert_ne!(first, second, "in turn");
    // Asked in the other order, which would be the other members' turn.
    let remembered = async || {
        let neighbour = network.flow(NEIGHBOUR).await.member();
        (neighbour, network.flow(CLIENT).await.member(), flow.member()) == (second, first, first)
    };

    // The one at work has been started last.
    let helpers = children(proxy.pid());
    assert_eq!(helpers.len(), 2, "{helpers:?}");
    let end = |helper: i32| {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(helper), nix::sys::signal::Signal::SIGKILL)
            .unwrap();
    };
    end(helpers[1]);
    eventually("the other one takes over", async || proxy.log().contains("another goes on").then_some(()))
        .await;
    proxy.until_listener("flows are known again", |listener| listener.active_connections == 2).await;
    assert!(remembered().await);
    // It does what there is to do.
    proxy.change(|document| document.listeners.clear()).await;
    assert!(flow.is_refused().await);
    proxy.apply(&document(&sticky)).await;
    let flow = network.flow(CLIENT).await;
    let (first, second) = (flow.member(), network.flow(NEIGHBOUR).await.member());
    assert_ne!(first, second);

    // Without any the proxy says so and ends, as with half of its workers; its unit starts another, with the same flows.
    end(helpers[0]);
    assert!(!proxy.ended().await.success());
    assert!(proxy.log().contains("none stands by"), "{}", proxy.log());
    assert_eq!(flow.member(), first, "without a proxy");
    let again = network.proxy(proxy.document.clone()).await;
    assert_eq!(network.flow(NEIGHBOUR).await.member(), second);
    assert_eq!((network.flow(CLIENT).await.member(), flow.member()), (first, first));

    // Who is remembered for a member that fails meanwhile chooses anew.
    let (gone, left) = if first == 2 { (one, 3) } else { (other, 2) };
    let index = usize::from(first) - 2;
    again.until_member(index, "it is checked", |member| member.check.to_string() == "UP").await;
    gone.end().await;
    again.until_member(index, "it is down", |member| member.check.to_string() == "DOWN").await;
    flow.0.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    eventually("the other has it", async || flow.ask(b"who").ok().filter(|(member, ..)| *member == left))
        .await;
}

#[tokio::test]
async fn a_change_undoes_what_another_hand_has_done() {
    let Some(network) = Network::create() else { return };
    let (one, other) = (network.member(2, true).await, network.member(3, true).await);
    let mut proxy = network.proxy(document(&pool([(&one, 1), (&other, 1)]))).await;
    for weight in 2..5 {
        network.nft(&["flush", "chain", "inet", "amphora_datagram", "in"]);
        proxy
            .change(|document| {
                let member = document.pools[0].members[0].clone();
                document.pools[0].members[0] = member.weight(weight);
            })
            .await;
        assert_eq!(network.flow(CLIENT).await.member(), 2);
    }
    for setting in ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"] {
        network.amphora.exec(&["sysctl", "-q", "-w", &format!("{setting}=0")]);
        eventually("it forwards again", async || {
            let turned_off = proxy.log().matches("another hand had turned it off").count();
            (turned_off > usize::from(setting.contains("v6"))).then_some(())
        })
        .await;
    }
    network.flow(CLIENT).await.member();
}
