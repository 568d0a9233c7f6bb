//! A neighbour hears of a takeover.

use std::net::IpAddr;

use amphora_netlink::{
    Announcer, Netlink,
    announce::{ArpForm, gratuitous_arp},
};
use amphora_tests::{Namespace, eventually};

use super::{interface, show};

const OLD: &str = "fa:16:3e:00:00:01";
const NEW: &str = "fa:16:3e:00:00:02";

/// A client that believes `address` to be at [`OLD`], and a router that is at [`NEW`].
fn link(address: &str) -> Option<(Namespace, Namespace)> {
    let (router, client) = super::pair()?;
    router.ip(&["link", "set", "eth1", "address", NEW]);
    client.ip(&["addr", "add", "192.0.2.9/24", "dev", "eth1"]);
    client.ip(&["addr", "add", "2001:db8::9/64", "dev", "eth1", "nodad"]);
    client.ip(&["neigh", "replace", address, "lladdr", OLD, "dev", "eth1", "nud", "reachable"]);
    Some((router, client))
}

async fn heard(client: &Namespace, address: &str) {
    eventually("the neighbour hears of it", async || {
        show(client.name(), &["neigh", "show", address]).contains(NEW).then_some(())
    })
    .await;
}

async fn announce(router: &Namespace, address: &'static str) {
    router
        .run(move || async move {
            let eth1 = interface(&Netlink::open().unwrap(), "eth1").await;
            let address: IpAddr = address.parse().unwrap();
            Announcer::open().unwrap().announce(&eth1, address).unwrap();
        })
        .await;
}

#[tokio::test]
async fn a_gratuitous_arp_moves_an_ipv4_address() {
    let Some((router, client)) = link("192.0.2.100") else { return };
    assert!(show(client.name(), &["neigh", "show", "192.0.2.100"]).contains(OLD));
    announce(&router, "192.0.2.100").await;
    heard(&client, "192.0.2.100").await;
}

#[tokio::test]
async fn a_gratuitous_reply_does_so_too() {
    let Some((router, client)) = link("192.0.2.100") else { return };
    router
        .run(|| async {
            let eth1 = interface(&Netlink::open().unwrap(), "eth1").await;
            let frame = gratuitous_arp(eth1.mac.unwrap(), "192.0.2.100".parse().unwrap(), ArpForm::Reply);
            Announcer::open().unwrap().send(&eth1, &frame).unwrap();
        })
        .await;
    heard(&client, "192.0.2.100").await;
}

#[tokio::test]
async fn a_neighbour_advertisement_moves_an_ipv6_address() {
    let Some((router, client)) = link("2001:db8::100") else { return };
    announce(&router, "2001:db8::100").await;
    heard(&client, "2001:db8::100").await;
}

#[tokio::test]
async fn nothing_is_sent_by_loopback_and_a_link_that_is_down_is_an_error() {
    let Some((router, _client)) = link("192.0.2.100") else { return };
    router
        .run(|| async {
            let netlink = Netlink::open().unwrap();
            let announcer = Announcer::open().unwrap();
            announcer.announce(&interface(&netlink, "lo").await, "192.0.2.100".parse().unwrap()).unwrap();
            let eth1 = interface(&netlink, "eth1").await;
            netlink.set_down(eth1.index).await.unwrap();
            let refused = announcer.announce(&eth1, "192.0.2.100".parse().unwrap()).unwrap_err();
            assert!(refused.to_string().contains("cannot send an announcement"), "{refused}");
        })
        .await;
}
