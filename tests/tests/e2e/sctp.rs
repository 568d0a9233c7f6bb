//! Listeners of SCTP: associations of usrsctp's, in user space. As root, where the kernel has nf_tables and there is libusrsctp2.

use std::{collections::BTreeMap, net::SocketAddr};

use amphora_tests::{Document, HealthMonitor, Listener, Member, Pool, SctpPeer, eventually};
use serde_json::json;

use super::datagrams::{CLIENT, CLIENT6, NEIGHBOUR, Network, VIP, VIP6};

const PORT: u16 = 3868;

/// The number of a member is the end of its address.
fn at(number: u8, v4: bool) -> SocketAddr {
    let ip = if v4 { format!("10.9.0.{number}") } else { format!("2001:db8:9::{number}") };
    SocketAddr::new(ip.parse().unwrap(), 5300)
}

fn listen(peer: &mut SctpPeer, number: u8, v4: bool) {
    let address = at(number, v4);
    peer.listen(&format!("{number}{}", if v4 { "" } else { "six" }), address.ip(), address.port());
}

fn ground() -> Option<(Network, SctpPeer, SctpPeer)> {
    let network = Network::create()?;
    // usrsctp leaves it to the kernel which address of IPv6 it sends from: the first.
    for number in 3..6 {
        let address = format!("2001:db8:9::{number}/64");
        network.members.ip(&["address", "change", &address, "dev", "amphora", "preferred_lft", "0"]);
    }
    let (client, members) = (SctpPeer::start(&network.client)?, SctpPeer::start(&network.members)?);
    Some((network, client, members))
}

fn pool(members: impl IntoIterator<Item = (SocketAddr, u16)>) -> Pool {
    let member = |(address, weight)| Member::at(address).weight(weight);
    members.into_iter().map(member).fold(Pool::new("SCTP"), Pool::member)
}

fn document(listener: Listener, pool: &Pool) -> Document {
    Document::at(VIP.parse().unwrap())
        .with("additional_vips", json!([{ "ip_address": VIP6 }]))
        .listener(listener.port(PORT).to(pool))
        .pool(pool)
}

/// Associates, and says which member has it.
fn open(client: &mut SctpPeer, label: &str, from: &str) -> String {
    let to = if from.contains(':') { VIP6 } else { VIP };
    assert_eq!(client.open(label, from, to, PORT), "ok");
    member(client, label)
}

fn member(client: &mut SctpPeer, label: &str) -> String {
    client.ask(label, "who").split(' ').next().unwrap().to_owned()
}

fn spread(client: &mut SctpPeer, prefix: &str, from: &str, count: usize) -> BTreeMap<String, usize> {
    let mut spread = BTreeMap::new();
    for number in 0..count {
        *spread.entry(open(client, &format!("{prefix}{number}"), from)).or_default() += 1;
    }
    spread
}

fn counts<const N: usize>(expected: [(&str, usize); N]) -> BTreeMap<String, usize> {
    expected.map(|(member, count)| (member.to_owned(), count)).into()
}

#[tokio::test]
async fn associations_go_by_weights_and_are_answered_from_the_vip() {
    let Some((network, mut client, mut members)) = ground() else { return };
    for (number, v4) in [(2, true), (3, true), (2, false)] {
        listen(&mut members, number, v4);
    }
    let to = pool([(at(2, true), 1), (at(3, true), 3), (at(2, false), 1)]);
    // Another transport's listener may have the port.
    let document = document(Listener::sctp(), &to).listener(Listener::udp().port(PORT));
    let mut proxy = network.proxy(document).await;

    assert_eq!(spread(&mut client, "a", CLIENT, 8), counts([("2", 2), ("3", 6)]));
    assert_eq!(spread(&mut client, "b", CLIENT6, 2), counts([("2six", 2)]));
    let from = "10.9.0.1";
    for number in 0..8 {
        // The member sees the amphora, and the association stays.
        let label = format!("a{number}");
        let member = member(&mut client, &label);
        assert_eq!(client.ask(&label, "again"), format!("{member} {from} again"));
    }
    proxy
        .until_listener("associations are counted", |listener| {
            (listener.active_connections, listener.total_connections) == (10, 10)
        })
        .await;
    let stats = proxy
        .until_listener("bytes are counted", |listener| listener.bytes_in > 0 && listener.bytes_out > 0)
        .await;
    let sctp = &stats.listeners[&proxy.document.listeners[0].id];
    // INIT, COOKIE ECHO and four of DATA, each with its headers, and their acknowledgements.
    assert!(sctp.bytes_in > 10 * 4 * 48, "{sctp:?}");

    // A change of weights moves nobody, nor does the end of the proxy.
    let of = |client: &mut SctpPeer| {
        (0..8).map(|number| member(client, &format!("a{number}"))).collect::<Vec<_>>()
    };
    let before = of(&mut client);
    proxy
        .change(|document| document.pools[0].members[0] = document.pools[0].members[0].clone().weight(0))
        .await;
    assert_eq!(of(&mut client), before);
    assert_eq!(spread(&mut client, "c", CLIENT, 3), counts([("3", 3)]));
    proxy.signal(nix::sys::signal::Signal::SIGKILL);
    proxy.ended().await;
    assert_eq!(of(&mut client), before, "without a proxy");
    let again = network.proxy(proxy.document.clone()).await;
    assert_eq!(of(&mut client), before, "with another");
    // What is shut down is over on both sides.
    assert_eq!(client.close("a0"), "ok");
    drop(again);
}

#[tokio::test]
async fn health_is_asked_by_init_and_who_fails_loses_its_associations() {
    let Some((network, mut client, mut members)) = ground() else { return };
    listen(&mut members, 2, true);
    listen(&mut members, 3, true);
    listen(&mut members, 2, false);
    let to = pool([(at(2, true), 1), (at(3, true), 1), (at(2, false), 1), (at(4, true), 1)])
        .monitored(&HealthMonitor::new("SCTP"));
    let proxy = network.proxy(document(Listener::sctp(), &to)).await;
    for (index, up) in [(0, "UP"), (1, "UP"), (2, "UP"), (3, "DOWN")] {
        proxy.until_member(index, "it is checked", |member| member.check.to_string() == up).await;
    }
    assert!(proxy.log().contains("INIT is answered by ABORT"), "{}", proxy.log());
    let (mut number, mut lost) = (0, String::new());
    eventually("the first has an association", async || {
        number += 1;
        lost = format!("a{number}");
        (client.open(&lost, CLIENT, VIP, PORT) == "ok" && member(&mut client, &lost) == "2").then_some(())
    })
    .await;

    members.end("2");
    assert_eq!(client.wait(&lost), "ECONNRESET", "the member's own ABORT");
    proxy.until_member(0, "it is down", |member| member.check.to_string() == "DOWN").await;
    let mut number = 0;
    eventually("the other has all", async || {
        number += 2;
        // Until then who comes to the first is refused by its host.
        let labels = [number, number + 1].map(|number| format!("b{number}"));
        let opened = labels.map(|label| client.open(&label, CLIENT, VIP, PORT) == "ok");
        (opened == [true; 2]).then_some(())
    })
    .await;
    assert_eq!(spread(&mut client, "d", CLIENT, 3), counts([("3", 3)]));
    listen(&mut members, 2, true);
    proxy.until_member(0, "it is up again", |member| member.check.to_string() == "UP").await;
    let mut number = 0;
    eventually("it has associations again", async || {
        number += 1;
        (open(&mut client, &format!("c{number}"), CLIENT) == "2").then_some(())
    })
    .await;

    // Without SCTP on its host: ICMP says so, before the time is up.
    drop(members);
    // Its first check may be one that the listener's end has failed.
    for (member, found) in [(1, "Protocol not available"), (2, "Protocol error")] {
        eventually(found, async || {
            proxy.report_of(member).await.check.is_some_and(|check| check.contains(found)).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn who_has_nobody_is_told_by_icmp() {
    let Some((network, mut client, mut members)) = ground() else { return };
    listen(&mut members, 2, true);
    listen(&mut members, 3, true);
    let to = pool([(at(2, true), 1), (at(3, true), 1)]);
    let mut proxy = network.proxy(document(Listener::sctp(), &to)).await;
    assert_eq!(spread(&mut client, "a", CLIENT, 2), counts([("2", 1), ("3", 1)]));

    // A member that goes takes its associations with it: those of the other stay.
    let kept = (0..2).map(|n| format!("a{n}")).find(|label| member(&mut client, label) == "3").unwrap();
    let lost = if kept == "a0" { "a1" } else { "a0" };
    proxy.change(|document| drop(document.pools[0].members.remove(0))).await;
    client.send(lost, "anybody");
    // Protocol unreachable, which ends an association.
    assert_eq!(client.unreachable(), "3 2");
    assert_eq!(member(&mut client, &kept), "3");
    assert_eq!(spread(&mut client, "b", CLIENT, 2), counts([("3", 2)]));

    // So is who would be one too many, and who finds nobody at all.
    proxy
        .change(|document| {
            let listener = document.listeners[0].clone().with("connection_limit", 1);
            document.listeners[0] = listener;
        })
        .await;
    assert_eq!(open(&mut client, "c", CLIENT), "3");
    client.begin("d", CLIENT, VIP, PORT);
    assert_eq!(client.unreachable(), "3 2");
    client.begin("six", CLIENT6, VIP6, PORT);
    assert_eq!(client.unreachable(), "1 4", "port unreachable");
}

#[tokio::test]
async fn clients_are_remembered_and_hashed() {
    let Some((network, mut client, mut members)) = ground() else { return };
    listen(&mut members, 2, true);
    listen(&mut members, 3, true);
    let sticky = pool([(at(2, true), 1), (at(3, true), 1)]).with(
        "session_persistence",
        json!({ "type": "SOURCE_IP", "persistence_timeout": 60, "persistence_granularity": "255.255.255.0" }),
    );
    let mut proxy = network.proxy(document(Listener::sctp(), &sticky)).await;
    let first = open(&mut client, "first", CLIENT);
    assert_eq!(spread(&mut client, "a", CLIENT, 3), BTreeMap::from([(first.clone(), 3)]));
    assert_eq!(spread(&mut client, "b", NEIGHBOUR, 3), BTreeMap::from([(first, 3)]), "of the same network");

    let hashed = pool([(at(2, true), 1), (at(3, true), 1)]).balanced_by("SOURCE_IP");
    proxy.apply(&document(Listener::sctp(), &hashed)).await;
    assert_eq!(spread(&mut client, "c", CLIENT, 5).len(), 1);

    let fewest = pool([(at(2, true), 1)]).balanced_by("LEAST_CONNECTIONS");
    proxy.apply(&document(Listener::sctp(), &fewest)).await;
    assert_eq!(spread(&mut client, "d", CLIENT, 4), counts([("2", 4)]));
    proxy.until_member(0, "they are counted", |member| member.active_sessions >= 4).await;
    proxy.change(|document| document.pools[0].members.push(Member::at(at(3, true)))).await;
    assert_eq!(spread(&mut client, "e", CLIENT, 4), counts([("3", 4)]), "until both have as many");
}
