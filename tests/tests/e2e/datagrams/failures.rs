//! Members that fail while they have flows.

use super::*;

#[tokio::test]
async fn flows_of_a_member_that_fails_go_to_others_at_once() {
    let Some(network) = Network::create() else { return };
    let (one, other) = (network.member(2, true).await, network.member(3, true).await);
    let pool = pool([(&one, 1), (&other, 1)]).monitored(&HealthMonitor::new("UDP-CONNECT"));
    let proxy = network.proxy(document(&pool)).await;
    let (spread, flows) = network.spread(CLIENT, 4).await;
    assert_eq!(spread, BTreeMap::from([(2, 2), (3, 2)]));
    proxy.until_member(0, "it is checked", |member| member.check.to_string() == "UP").await;
    one.end().await;
    proxy.until_member(0, "it is down", |member| member.check.to_string() == "DOWN").await;
    for flow in &flows {
        flow.0.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        eventually("the other has it", async || flow.ask(b"who").ok().filter(|(member, ..)| *member == 3))
            .await;
        flow.0.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(flow.member(), 3);
    }
    let _again = network.member(2, true).await;
    proxy.until_member(0, "it is up again", |member| member.check.to_string() == "UP").await;
    eventually("it has new flows again", async || (network.flow(CLIENT).await.member() == 2).then_some(()))
        .await;
}

#[tokio::test]
async fn a_closed_port_is_noticed_while_clients_ask() {
    let Some(network) = Network::create() else { return };
    for (v4, client) in [(true, CLIENT), (false, CLIENT6)] {
        let (one, other) = (network.member(2, v4).await, network.member(3, v4).await);
        let monitor = HealthMonitor::new("UDP-CONNECT").with("max_retries_down", 3);
        let pool = pool([(&one, 1), (&other, 1)]).monitored(&monitor);
        let proxy = network.proxy(document(&pool)).await;
        let (_, flows) = network.spread(client, 20).await;
        proxy.until_member(0, "it is checked", |member| member.check.to_string() == "UP").await;
        let asking = Asking::begin(&flows);
        one.end().await;
        // The host tells an error a second, and clients are told it as well as the monitor.
        proxy.until_member(0, "it is down", |member| member.check.to_string() == "DOWN").await;
        eventually("flows go to the other", async || {
            let flow = network.flow(client).await;
            flow.0.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            flow.ask(b"who").ok().filter(|(member, ..)| *member == 3)
        })
        .await;
        let (spread, _flows) = network.spread(client, 4).await;
        assert_eq!(spread, BTreeMap::from([(3, 4)]));
        // And is not up again when its clients have gone elsewhere, until it is there.
        let _again = network.member(2, v4).await;
        proxy.until_member(0, "it is up again", |member| member.check.to_string() == "UP").await;
        asking.end();
    }
}
