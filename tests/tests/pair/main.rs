//! A whole pair: two agents that supervise a proxy and a VRRP daemon each, in network namespaces, with clients and members
//! in others, driven by the controller's program. As root only.
//!
//! What is looked at is that clients keep their member when the VIP moves.

// This is a test crate: what goes wrong here fails a test, and `unwrap` says so as well as anything.
#![allow(clippy::unwrap_used)]

mod amphora;
mod network;

use std::{
    collections::BTreeMap,
    ops::Range,
    os::unix::fs::{MetadataExt, PermissionsExt},
    sync::atomic::{AtomicU64, Ordering},
};

use amphora_ipc::proxy::{Peers, PeersState};
use amphora_tests::{Document, Listener, Member, Pool, eventually, kill_hard};
use nix::sys::signal::Signal;
use serde_json::json;

use self::{
    amphora::{Amphora, Pair},
    network::{Network, VIP},
};

/// What each client got: the member that its address is remembered for, and the one that its cookie is.
type Got = BTreeMap<u8, [String; 2]>;

/// A listener whose pool remembers addresses, and one whose pool remembers a cookie.
fn document() -> Document {
    let members = || network::members().map(Member::at);
    let pool = |algorithm: &str| members().fold(Pool::http().balanced_by(algorithm), Pool::member);
    let source = pool("ROUND_ROBIN").with("session_persistence", json!({ "type": "SOURCE_IP" }));
    let cookie = json!({ "type": "APP_COOKIE", "cookie_name": "SID" });
    let cookie = pool("LEAST_CONNECTIONS").with("session_persistence", cookie);
    Document::at(VIP.parse().unwrap())
        .pool(&source)
        .pool(&cookie)
        .listener(Listener::http().port(80).to(&source))
        .listener(Listener::http().port(81).to(&cookie))
}

/// Clients come for the first time.
async fn arrive(network: &Network, clients: Range<u8>) -> Got {
    network.ask(clients.collect(), |client| format!("/login/client-{client}")).await
}

/// The same clients come again, in another order: a member that is kept by accident of turns would be another one.
async fn return_all(network: &Network, got: &Got) -> Got {
    network.ask(got.keys().rev().copied().collect(), |_| "/".to_owned()).await
}

/// The programs that the agent has started have given up what they do not need.
async fn neither_is_root(amphora: &Amphora) {
    let [net_bind_service, net_admin, net_raw, ipc_lock] = [10, 12, 13, 14].map(|bit| 1u64 << bit);
    let programs = [
        // CAP_NET_ADMIN on hosts that let nobody else filter what comes to a socket.
        ("proxy", net_bind_service | net_raw, net_admin),
        ("vrrp", net_admin | net_raw, ipc_lock),
    ];
    for (program, kept, perhaps) in programs {
        let status = amphora.kernel_status(program).await;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim_start_matches(':').split_ascii_whitespace().next().unwrap().to_owned()
        };
        let set = |name: &str| u64::from_str_radix(&field(name), 16).unwrap();
        for effective in [set("CapEff"), set("CapPrm")] {
            assert_eq!(effective & !perhaps, kept, "{program}\n{status}");
        }
        assert_eq!([set("CapBnd"), set("CapInh"), set("CapAmb")], [0; 3], "{program}\n{status}");
        assert_eq!([field("NoNewPrivs"), field("Seccomp")], ["1", "2"], "{program}\n{status}");
        assert!([field("Uid"), field("Gid")].iter().all(|id| id != "0"), "{program}\n{status}");
    }
}

/// Both proxies have found each other, and the second of these has taken this many entries.
async fn until_alike(pair: &Pair, to: usize, entries: u64) -> Peers {
    for amphora in &pair.amphorae {
        amphora.until_peers("a connection", |peers| peers.state == PeersState::Connected).await;
    }
    pair.amphorae[to].until_peers("the entries", |peers| peers.entries_taken >= entries).await
}

#[tokio::test]
async fn clients_keep_their_member_when_the_masters_proxy_is_killed_and_when_it_is_back() {
    let Some(network) = Network::create().await else { return };
    let Some(pair) = Pair::start(&network).await else { return };
    pair.apply(&document());
    pair.configure(json!({ "preempt": false }), &[]);
    pair.until_master(0).await;
    until_alike(&pair, 1, 0).await;
    let got = arrive(&network, 1..25).await;
    until_alike(&pair, 1, 48).await;

    let before = pair.amphorae[0].info().await.unwrap();
    kill_hard(before.pid);
    pair.until_master(1).await;
    assert_eq!(return_all(&network, &got).await, got, "at the other amphora");

    // The agent starts it again; it knows its peer without being told, and the peer tells it everything.
    let restarted = async || pair.amphorae[0].info().await.filter(|info| info.instance != before.instance);
    eventually("another proxy", restarted).await;
    let peers = until_alike(&pair, 0, 48).await;
    assert!(peers.full_syncs_received >= 1, "{peers:?}");
    let handed_back = async || pair.controller(&["vrrp", "failover"]).success().then_some(());
    eventually("it can take over again", handed_back).await;
    pair.until_master(0).await;
    assert_eq!(return_all(&network, &got).await, got, "at the first again");

    let metrics = pair.amphorae[0].metrics().await;
    assert!(metrics.contains("\namphora_peers_connected 1\n"), "{metrics}");
    pair.keys_are_secret().await;
}

#[tokio::test]
async fn clients_keep_their_member_over_a_planned_failover_and_lose_it_without_peers() {
    let Some(network) = Network::create().await else { return };
    let Some(mut pair) = Pair::start(&network).await else { return };
    pair.apply(&document());
    // Without what is tested they do not keep it.
    pair.configure(json!({}), &["--no-peers"]);
    pair.until_master(0).await;
    let got = arrive(&network, 30..42).await;
    assert_eq!(return_all(&network, &got).await, got, "at the same amphora");
    assert!(pair.controller(&["vrrp", "failover"]).success());
    assert_ne!(return_all(&network, &got).await, got);

    // The address goes back by priority, which both have kept.
    assert!(pair.controller(&["vrrp", "resume"]).success());
    pair.until_master(0).await;
    pair.configure(json!({}), &[]);
    until_alike(&pair, 1, 0).await;
    let got = arrive(&network, 1..25).await;
    let before = pair.amphorae[1].peers().await.unwrap().entries_taken;
    until_alike(&pair, 1, before.max(48)).await;
    pair.until_same_entries(48).await;
    assert!(pair.controller(&["vrrp", "failover"]).success());
    pair.until_master(1).await;
    assert_eq!(return_all(&network, &got).await, got, "at the other amphora");
    let status = pair.controller(&["status", "--json"]).text();
    assert_eq!(status.matches("\"state\": \"CONNECTED\"").count(), 2, "{status}");
    assert!(pair.controller(&["vrrp", "resume"]).success());
    pair.until_master(0).await;
    assert_eq!(return_all(&network, &got).await, got, "at the first again");

    // A backup that boots: nobody tells its agent anything.
    pair.amphorae[1].restart(Signal::SIGTERM).await;
    let peers = until_alike(&pair, 1, 48).await;
    assert!(peers.full_syncs_received >= 1, "{peers:?}");
    assert!(pair.controller(&["vrrp", "delete"]).success());
    for amphora in &pair.amphorae {
        amphora.until_peers("nobody", |peers| peers.state == PeersState::Off).await;
        assert!(!amphora.file("state/peers.json").exists());
    }
}

/// Their next request and the end of their connection would cross on the way.
#[tokio::test]
async fn clients_that_keep_their_connections_lose_nothing_when_the_address_moves_as_planned() {
    let Some(network) = Network::create().await else { return };
    let Some(pair) = Pair::start(&network).await else { return };
    pair.apply(&document());
    pair.configure(json!({ "preempt": false }), &[]);
    pair.until_master(0).await;
    let (_stop, asked) = network.keep_asking(20);
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    // A client that does not get to run for a while, on a machine that is busy, is as one that does not ask; and a move may go well by chance.
    let mut clean = 0;
    for master in [1, 0].into_iter().cycle().take(40) {
        let before = (read(&asked.answered), read(&asked.last), read(&asked.lost));
        eventually("all are at it", async || (read(&asked.answered) > before.0 + 200).then_some(())).await;
        assert!(pair.controller(&["vrrp", "failover"]).success());
        pair.until_master(master).await;
        assert!(pair.controller(&["vrrp", "resume"]).success());
        let told = read(&asked.last) > before.1;
        clean = if told && read(&asked.lost) == before.2 { clean + 1 } else { 0 };
        if clean == 5 {
            return;
        }
    }
    panic!("no five moves in a row cost nothing: {asked:?}");
}

#[tokio::test]
async fn an_amphora_without_its_address_is_told_apart() {
    let Some(network) = Network::create().await else { return };
    let Some(pair) = Pair::start(&network).await else { return };
    network.take_address_of(1);
    let done = pair.try_configure(json!({}), &[]);
    assert_eq!(done.code(), Some(1), "{}", done.text());
    for line in [
        "refused with 409",
        "\n  peers.listen: 10.88.0.2:1025: ",
        "is its interface plugged?",
        "has a new key and",
    ] {
        assert!(done.text().contains(line), "{line} in {}", done.text());
    }
    assert_eq!(pair.amphorae[1].peers().await.unwrap().state, PeersState::Off);
    assert!(!pair.amphorae[1].file("state/peers.json").exists());
    network.give_address_of(1);
    pair.configure(json!({}), &[]);
    until_alike(&pair, 1, 0).await;
    // For the agent and the proxy's group, and for nobody else.
    let file = pair.amphorae[1].file("state/peers.json").metadata().unwrap();
    assert_eq!((file.permissions().mode() & 0o777, file.uid()), (0o640, 0));
    assert_ne!(file.gid(), 0);
    neither_is_root(&pair.amphorae[1]).await;
}
