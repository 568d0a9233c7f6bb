//! Clients that listeners remember, here and on the other amphora.

use super::*;

#[tokio::test]
async fn a_network_of_clients_is_remembered() {
    let Some(network) = Network::create() else { return };
    let (one, other) = (network.member(2, true).await, network.member(3, true).await);
    let (six, seven) = (network.member(2, false).await, network.member(3, false).await);
    let sticky = pool([(&one, 1), (&other, 1), (&six, 1), (&seven, 1)]).with(
        "session_persistence",
        json!({ "type": "SOURCE_IP", "persistence_timeout": 60, "persistence_granularity": "255.255.255.0" }),
    );
    let mut proxy = network.proxy(document(&sticky)).await;
    let (spread, _flows) = network.spread(CLIENT, 5).await;
    let member = *spread.keys().next().unwrap();
    assert_eq!(spread, BTreeMap::from([(member, 5)]));
    let (spread, _flows) = network.spread(NEIGHBOUR, 3).await;
    assert_eq!(spread, BTreeMap::from([(member, 3)]), "of the same network");
    let (spread, _flows) = network.spread(CLIENT6, 3).await;
    assert_eq!(spread.len(), 1);

    // It is remembered over changes, by one that drains as well.
    let index = if member == 2 { 0 } else { 1 };
    proxy
        .change(|document| {
            let member = document.pools[0].members[index].clone();
            document.pools[0].members[index] = member.weight(0);
        })
        .await;
    let (spread, _flows) = network.spread(CLIENT, 2).await;
    assert_eq!(spread, BTreeMap::from([(member, 2)]));
    // And not when the member has gone.
    let gone = proxy.change(|document| drop(document.pools[0].members.remove(index))).await;
    assert!(gone.changed);
    let (spread, _flows) = network.spread(CLIENT, 2).await;
    assert_eq!(spread, BTreeMap::from([(5 - member, 2)]));
}

#[tokio::test]
async fn who_is_remembered_is_of_a_network_and_for_a_time() {
    let Some(network) = Network::create() else { return };
    let members = [network.member(2, false).await, network.member(3, false).await];
    let (neighbour, stranger) = ("2001:db8:50::8", "2001:db8:50:1::7");
    network.client.ip(&["address", "add", "2001:db8:50::8/64", "dev", "amphora", "nodad"]);
    network.client.ip(&["address", "add", "2001:db8:50:1::7/128", "dev", "amphora", "nodad"]);
    network.amphora.ip(&["route", "add", "2001:db8:50:1::/64", "via", CLIENT6]);
    let sticky = |timeout: u32, prefix: &str| {
        let persistence = json!({
            "type": "SOURCE_IP", "persistence_timeout": timeout, "persistence_granularity": prefix,
        });
        pool(members.iter().map(|member| (member, 1))).with("session_persistence", persistence)
    };
    let member = async |client: &str| network.flow(client).await.member();
    let clients = [CLIENT6, neighbour, stranger];
    for (prefix, expected) in [("32", [2, 2, 2]), ("64", [2, 2, 3]), ("128", [2, 3, 2])] {
        let _proxy = network.proxy(document(&sticky(600, prefix))).await;
        for _ in 0..2 {
            for (client, expected) in clients.into_iter().zip(expected) {
                assert_eq!(member(client).await, expected, "{client} /{prefix}");
            }
        }
    }
    let _proxy = network.proxy(document(&sticky(1, "128"))).await;
    assert_eq!(member(CLIENT6).await, 2);
    eventually("it is forgotten", async || {
        (!network.nft(&["list", "table", "inet", "amphora_datagram"]).contains("expires")).then_some(())
    })
    .await;
    assert_eq!(member(CLIENT6).await, 3, "in turn");
}

/// For how many milliseconds yet each client is remembered: `expires 9m59s832ms` of nft(8).
fn left(network: &Network) -> Vec<u64> {
    let table = network.nft(&["list", "table", "inet", "amphora_datagram"]);
    let elements = table.split(" expires ").skip(1).map(|element| {
        let text = element.split(' ').next().unwrap();
        let (mut left, mut number) = (0, 0);
        for unit in text.replace("ms", "l").chars() {
            let factor = match unit {
                'h' => 3_600_000,
                'm' => 60_000,
                's' => 1000,
                'l' => 1,
                digit => {
                    number = number * 10 + u64::from(digit.to_digit(10).unwrap());
                    continue;
                }
            };
            left += std::mem::take(&mut number) * factor;
        }
        left
    });
    elements.collect()
}

#[tokio::test]
async fn clients_are_remembered_while_their_flows_go_on() {
    let Some(network) = Network::create() else { return };
    let members = [network.member(2, true).await, network.member(3, true).await];
    let six = network.member(2, false).await;
    let persistence = json!({ "type": "SOURCE_IP", "persistence_timeout": 600 });
    let sticky =
        pool(members.iter().chain([&six]).map(|member| (member, 1))).with("session_persistence", persistence);
    let mut proxy = network.proxy(document(&sticky)).await;
    for client in [CLIENT, CLIENT6] {
        let flow = network.flow(client).await;
        assert_eq!(flow.member(), 2);
        eventually("it is remembered for longer", async || {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let before = left(&network);
            assert_eq!(flow.member(), 2);
            let after = left(&network);
            assert_eq!((before.len(), after.len()), (1, 1));
            (after[0] > before[0]).then_some(())
        })
        .await;
        proxy.change(|document| document.listeners.clear()).await;
        proxy.apply(&document(&sticky)).await;
    }
}

#[tokio::test]
async fn clients_are_remembered_by_the_other_amphora() {
    let (Some(one), Some(other)) = (Network::create(), Network::create()) else { return };
    one.amphora.link("pair", &other.amphora, "pair");
    let directory = tempfile::tempdir().unwrap();
    let at = |host: u8| SocketAddr::from(([192, 0, 2, host], 1025));
    let file = |host: u8| directory.path().join(host.to_string());
    for (network, host) in [(&one, 1), (&other, 2)] {
        network.amphora.ip(&["address", "add", &format!("192.0.2.{host}/24"), "dev", "pair"]);
        network.client.ip(&["address", "add", "203.0.113.8/24", "dev", "amphora"]);
        network.client.ip(&["address", "add", "2001:db8:50::8/64", "dev", "amphora", "nodad"]);
        std::fs::write(file(host), crate::peers::told(at(host), at(3 - host), crate::peers::KEY)).unwrap();
    }
    let members = async |network: &Network| {
        let four = [network.member(2, true).await, network.member(3, true).await];
        (four, [network.member(2, false).await, network.member(3, false).await])
    };
    let ((four, six), _others) = (members(&one).await, members(&other).await);
    let sticky = pool(four.iter().chain(&six).map(|member| (member, 1)))
        .with("session_persistence", json!({ "type": "SOURCE_IP", "persistence_timeout": 600 }));
    let document = document(&sticky);
    let start = async |network: &Network, host: u8| {
        let file = file(host).display().to_string();
        Proxy::start_with(document.clone(), &["--netns", network.amphora.name(), "--peers-file", &file]).await
    };
    let member = async |network: &Network, client: &str| network.flow(client).await.member();
    let remembers = async |network: &Network, clients: usize| {
        eventually("the kernel knows them", async || {
            let table = network.nft(&["list", "table", "inet", "amphora_datagram"]);
            (table.matches("expires").count() == clients).then_some(())
        })
        .await;
    };

    let (a, b) = (start(&one, 1).await, start(&other, 2).await);
    let clients = [CLIENT, NEIGHBOUR, CLIENT6, "2001:db8:50::8"];
    for (client, first) in clients.into_iter().zip([2, 3, 2, 3]) {
        assert_eq!(member(&one, client).await, first, "in turn");
    }
    remembers(&other, 4).await;
    // Asked in the other order, which would be the other members' turn.
    let are_kept = async |network: &Network| {
        for (client, first) in clients.into_iter().zip([2, 3, 2, 3]).rev() {
            assert_eq!(member(network, client).await, first, "{client}");
        }
    };
    are_kept(&other).await;

    // The other way, and to one that starts anew without anything.
    assert_eq!(member(&other, "203.0.113.8").await, 2);
    remembers(&one, 5).await;
    let mut a = a;
    a.signal(nix::sys::signal::Signal::SIGKILL);
    a.ended().await;
    one.nft(&["delete", "table", "inet", "amphora_datagram"]);
    let again = start(&one, 1).await;
    remembers(&one, 5).await;
    are_kept(&one).await;
    assert_eq!(member(&one, "203.0.113.8").await, 2);
    // What a member that goes was remembered for is nobody's, on either side.
    let mut proxies = [again, b];
    for proxy in &mut proxies {
        proxy.change(|document| drop(document.pools[0].members.remove(0))).await;
    }
    for network in [&one, &other] {
        for client in [CLIENT, "203.0.113.8", NEIGHBOUR] {
            assert_eq!(member(network, client).await, 3);
        }
    }
}
