//! Where flows go, and what of them comes through.

use amphora_ipc::proxy::Stats;

use super::*;

#[tokio::test]
async fn flows_go_by_weights_and_are_answered_from_the_vip() {
    let Some(network) = Network::create() else { return };
    let members =
        [network.member(2, true).await, network.member(3, true).await, network.member(4, true).await];
    let six = [network.member(2, false).await, network.member(3, false).await];
    let weighted = pool(members.iter().zip([1, 3, 0]).chain(six.iter().zip([1, 1])));
    let proxy = network.proxy(document(&weighted)).await;

    let (spread, flows) = network.spread(CLIENT, 12).await;
    assert_eq!(spread, BTreeMap::from([(2, 3), (3, 9)]));
    let (spread, _six) = network.spread(CLIENT6, 8).await;
    assert_eq!(spread, BTreeMap::from([(2, 4), (3, 4)]));
    for flow in &flows {
        let member = flow.member();
        for payload in [&b""[..], b"x", &[7; 1200]] {
            // The member sees the amphora, and the flow stays.
            assert_eq!(flow.ask(payload).unwrap(), (member, "10.9.0.1".to_owned(), payload.to_vec()));
        }
    }
    // Of each datagram the kernel counts the headers, too.
    let asked = (12 * 2 * (3 + 28) + 12 * (28 + 29 + 1228) + 8 * (3 + 48)) as u64;
    let answered = asked + 12 * 5 * "2 10.9.0.1 ".len() as u64 + 8 * "2 2001:db8:9::1 ".len() as u64;
    let stats = proxy
        .until_listener("all is counted", |listener| {
            listener.bytes_in >= asked && listener.active_connections == 20
        })
        .await;
    let listener = stats.listeners.values().next().unwrap();
    assert_eq!((listener.bytes_in, listener.bytes_out), (asked, answered));
    assert_eq!(listener.total_connections, 20);
    let totals: Vec<_> =
        stats.pools.values().next().unwrap().members.values().map(|m| m.total_sessions).collect();
    assert_eq!(totals.iter().sum::<u64>(), 20, "{totals:?}");
}

#[tokio::test]
async fn large_datagrams_and_icmp_errors_come_through() {
    let Some(network) = Network::create() else { return };
    let member = network.member(2, true).await;
    let _proxy = network.proxy(document(&pool([(&member, 1)]))).await;
    let flow = network.flow(CLIENT).await;
    let large: Vec<u8> = (0..20_000_u32).map(|n| n as u8).collect();
    assert_eq!(flow.ask(&large).unwrap().2, large, "in fragments, both ways");

    // The way to the member is narrower than the client knows, which learns of it by ICMP.
    network.amphora.ip(&["link", "set", "back", "mtu", "1300"]);
    network.members.ip(&["link", "set", "amphora", "mtu", "1300"]);
    flow.0.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    eventually("the client has learned of the path", async || {
        flow.ask(&large[..1400]).ok().filter(|(_, _, payload)| payload[..] == large[..1400])
    })
    .await;
    flow.0.set_read_timeout(Some(PATIENCE)).unwrap();

    member.end().await;
    assert!(flow.is_refused().await, "the member's error is the VIP's");
}

#[tokio::test]
async fn algorithms_choose_as_they_are_to() {
    let Some(network) = Network::create() else { return };
    let (one, other) = (network.member(2, true).await, network.member(3, true).await);
    let hashed = pool([(&one, 1), (&other, 1)]).balanced_by("SOURCE_IP");
    let mut proxy = network.proxy(document(&hashed)).await;
    let (spread, _flows) = network.spread(CLIENT, 6).await;
    assert_eq!(spread.len(), 1, "{spread:?}");

    let fewest = pool([(&one, 1)]).balanced_by("LEAST_CONNECTIONS");
    proxy.apply(&document(&fewest)).await;
    let (spread, _flows) = network.spread(CLIENT, 10).await;
    assert_eq!(spread, BTreeMap::from([(2, 10)]));
    proxy.until_member(0, "its flows are counted", |member| member.active_sessions >= 10).await;
    proxy.change(|document| document.pools[0].members.push(Member::at(other.address))).await;
    let (spread, _flows) = network.spread(CLIENT, 10).await;
    assert_eq!(spread, BTreeMap::from([(3, 10)]), "until both have as many");
}

/// What of a client is beyond a rate is dropped, and of nobody else.
#[tokio::test]
async fn packets_are_held_to_a_rate() {
    let Some(network) = Network::create() else { return };
    let member = network.member(2, true).await;
    let to = pool([(&member, 1)]);
    let rule = json!({
        "id": "00000000-0000-4000-8000-000000000080", "metric": "PACKETS", "threshold": 5, "interval": 86_400,
    });
    let policy =
        json!({"id": "00000000-0000-4000-8000-000000000070", "action": "SILENT_DROP", "rules": [rule]});
    let limited = listener(&to).with("rate_limit_policies", json!([policy]));
    let mut proxy = network.proxy(both(limited, &to)).await;
    let (spread, flows) = network.spread(CLIENT, 5).await;
    assert_eq!(spread, BTreeMap::from([(2, 5)]));
    let beyond = network.flow(CLIENT).await;
    beyond.0.send(b"who").unwrap();
    flows[0].0.send(b"who").unwrap();
    // What was sent before this would have been answered by now.
    let (others, _) = network.spread(NEIGHBOUR, 5).await;
    assert_eq!(others, BTreeMap::from([(2, 5)]));
    for socket in [&beyond.0, &flows[0].0] {
        socket.set_nonblocking(true).unwrap();
        assert_eq!(socket.recv(&mut [0; 64]).unwrap_err().kind(), ErrorKind::WouldBlock);
    }
    let until_dropped = async |proxy: &Proxy, count: u64| {
        let is_so =
            |stats: &Stats| stats.rate_limits.values().map(|policy| policy.limited).sum::<u64>() == count;
        proxy.until("so many are counted", is_so).await;
    };
    until_dropped(&proxy, 2).await;
    // What was counted stays, whatever changes beside it and of it, and whoever changes the table.
    let change = async |proxy: &mut Proxy, threshold: u32| {
        let mut policies = [policy.clone(), policy.clone()];
        policies[0]["rules"][0]["threshold"] = threshold.into();
        policies[1]["id"] = "00000000-0000-4000-8000-000000000071".into();
        policies[1]["rules"][0]["id"] = "00000000-0000-4000-8000-000000000081".into();
        policies[1]["rules"][0]["threshold"] = 1000.into();
        proxy
            .change(|document| {
                let listener = document.listeners.remove(0);
                document.listeners.push(listener.with("rate_limit_policies", json!(policies)));
            })
            .await;
    };
    change(&mut proxy, 5).await;
    beyond.0.send(b"who").unwrap();
    until_dropped(&proxy, 3).await;
    change(&mut proxy, 3).await;
    for _ in 0..5 {
        beyond.0.send(b"who").unwrap();
    }
    until_dropped(&proxy, 5).await;
    network.nft(&["delete", "table", "inet", "amphora_datagram"]);
    eventually("it is written again", async || {
        network.nft(&["list", "tables"]).contains("amphora_datagram").then_some(())
    })
    .await;
    for _ in 0..4 {
        beyond.0.send(b"who").unwrap();
    }
    until_dropped(&proxy, 6).await;
}

#[tokio::test]
async fn limits_and_networks_are_kept_to() {
    let Some(network) = Network::create() else { return };
    let member = network.member(2, true).await;
    let to = pool([(&member, 1)]);
    let limited = listener(&to).with("connection_limit", 3).with("allowed_cidrs", json!(["203.0.113.0/25"]));
    let _proxy = network.proxy(both(limited, &to)).await;
    let denied = network.flow(NEIGHBOUR).await;
    denied.0.send(b"who").unwrap();
    let (spread, flows) = network.spread(CLIENT, 3).await;
    assert_eq!(spread, BTreeMap::from([(2, 3)]));
    assert!(network.flow(CLIENT).await.is_refused().await, "a fourth");
    denied.0.set_nonblocking(true).unwrap();
    assert_eq!(denied.0.recv(&mut [0; 64]).unwrap_err().kind(), ErrorKind::WouldBlock);
    for kind in ["timeout", "timeout_stream"] {
        let setting = format!("net.netfilter.nf_conntrack_udp_{kind}=1");
        network.amphora.exec(&["sysctl", "-q", "-w", &setting]);
    }
    // From here on they end when they are silent for a second, and who comes then has a place.
    assert!(flows.iter().all(|flow| flow.member() == 2));
    eventually("one has ended", async || (!network.flow(CLIENT).await.is_refused().await).then_some(()))
        .await;
}
