//! An advertisement that is sent is received, and its envelope is right: in network namespaces that the tests make and
//! remove. They take root, and say so where they are skipped.

#![allow(clippy::unwrap_used, reason = "what goes wrong here fails a test")]

use std::{net::IpAddr, time::Duration};

use amphora_netlink::{Family, Interface, InterfaceName, Netlink};
use amphora_tests::{Namespace, in_time};
use amphora_vrrp::{
    net::socket::{PacketBuffer, group},
    net::{AdvertisementSocket, SocketOptions},
    packet::{Advertisement, Auth, Interval, Pseudo, TTL},
};
use tokio::{sync::oneshot, time::timeout};

async fn eth1() -> Interface {
    let name = InterfaceName::new("eth1").unwrap();
    Netlink::open().unwrap().interface(&name).await.unwrap().unwrap()
}

/// Two namespaces with a link between them, `eth1` at both ends.
fn link() -> Option<(Namespace, Namespace)> {
    let (one, two) = (Namespace::create()?, Namespace::create()?);
    one.link("eth1", &two, "eth1");
    Some((one, two))
}

/// Two ends with `192.0.2.1` and `.2`, `fe80::1` and `::2`, `2001:db8::1` and `::2`.
fn pair() -> Option<(Namespace, Namespace)> {
    let (one, two) = link()?;
    for (end, number) in [(&one, 1), (&two, 2)] {
        end.ip(&["addr", "add", &format!("192.0.2.{number}/24"), "dev", "eth1"]);
        end.ip(&["addr", "add", &format!("fe80::{number}/64"), "dev", "eth1", "nodad"]);
        end.ip(&["addr", "add", &format!("2001:db8::{number}/64"), "dev", "eth1", "nodad"]);
    }
    Some((one, two))
}

async fn open(source: IpAddr, unicast: bool) -> AdvertisementSocket {
    AdvertisementSocket::open(SocketOptions { interface: eth1().await, source, unicast }).unwrap()
}

fn message(source: IpAddr, destination: IpAddr) -> Vec<u8> {
    let advertisement = Advertisement {
        vrid: 7,
        priority: 100,
        interval: Interval::Centiseconds(100),
        addresses: vec![source],
        auth: Auth::None,
    };
    advertisement.encode(Pseudo { source, destination })
}

/// Sends from `from`, receives at `to`; `group` stands for the group as a destination.
async fn exchange(from: &str, to: &str, unicast: bool) {
    let Some((one, two)) = pair() else { return };
    let (from, to): (IpAddr, IpAddr) = (from.parse().unwrap(), to.parse().unwrap());
    let destination = if unicast { to } else { group(Family::of(from)) };
    let (ready, is_ready) = oneshot::channel();
    let receiver = two.spawn(move || async move {
        let socket = open(to, unicast).await;
        ready.send(()).unwrap();
        let mut buffer = PacketBuffer::default();
        let (envelope, message) = in_time("an advertisement", socket.receive(&mut buffer)).await.unwrap();
        let decoded = Advertisement::decode(message, &envelope, group(Family::of(from))).unwrap();
        assert!(!decoded.old_checksum);
        assert_eq!(message, self::message(from, destination));
        envelope
    });
    is_ready.await.unwrap();
    one.run(move || async move {
        let socket = open(from, unicast).await;
        socket.send(&message(from, destination), destination).unwrap();
        // It does not hear itself.
        let mut buffer = PacketBuffer::default();
        assert!(timeout(Duration::from_millis(100), socket.receive(&mut buffer)).await.is_err());
    })
    .await;
    let envelope = receiver.await.unwrap();
    assert_eq!((envelope.source, envelope.destination, envelope.ttl), (from, destination, Some(TTL)));
}

#[tokio::test]
async fn ipv4_multicast() {
    exchange("192.0.2.1", "192.0.2.2", false).await;
}

#[tokio::test]
async fn ipv4_unicast() {
    exchange("192.0.2.1", "192.0.2.2", true).await;
}

#[tokio::test]
async fn ipv6_multicast() {
    exchange("fe80::1", "fe80::2", false).await;
}

#[tokio::test]
async fn ipv6_unicast() {
    exchange("2001:db8::1", "2001:db8::2", true).await;
}

#[tokio::test]
async fn ipv6_unicast_between_link_local_addresses() {
    exchange("fe80::1", "fe80::2", true).await;
}

/// A virtual address of the same prefix that was added first must not become the source.
#[tokio::test]
async fn the_source_is_the_one_that_was_asked_for() {
    let Some((one, two)) = link() else { return };
    one.ip(&["addr", "add", "192.0.2.100/32", "dev", "eth1"]);
    one.ip(&["addr", "add", "192.0.2.1/24", "dev", "eth1"]);
    two.ip(&["addr", "add", "192.0.2.2/24", "dev", "eth1"]);
    let (from, to): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
    let (ready, is_ready) = oneshot::channel();
    let receiver = two.spawn(move || async move {
        let socket = open(to, false).await;
        ready.send(()).unwrap();
        let mut buffer = PacketBuffer::default();
        in_time("an advertisement", socket.receive(&mut buffer)).await.unwrap().0
    });
    is_ready.await.unwrap();
    one.run(move || async move {
        let destination = group(Family::V4);
        open(from, false).await.send(&message(from, destination), destination).unwrap();
    })
    .await;
    assert_eq!(receiver.await.unwrap().source, from);
}

#[tokio::test]
async fn a_unicast_socket_hears_no_multicast() {
    let Some((one, two)) = pair() else { return };
    let (from, to): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
    let (ready, is_ready) = oneshot::channel();
    let receiver = two.spawn(move || async move {
        let unicast = open(to, true).await;
        // Joins the group on the same interface.
        let _multicast = open(to, false).await;
        ready.send(()).unwrap();
        let mut buffer = PacketBuffer::default();
        in_time("an advertisement", unicast.receive(&mut buffer)).await.unwrap().0
    });
    is_ready.await.unwrap();
    one.run(move || async move {
        let destination = group(Family::V4);
        open(from, false).await.send(&message(from, destination), destination).unwrap();
        open(from, true).await.send(&message(from, to), to).unwrap();
    })
    .await;
    assert_eq!(receiver.await.unwrap().destination, to);
}

#[tokio::test]
async fn unicast_waits_for_its_source() {
    let Some((one, _two)) = pair() else { return };
    one.run(|| async {
        let source = "192.0.2.77".parse().unwrap();
        let options = SocketOptions { interface: eth1().await, source, unicast: true };
        let refused = AdvertisementSocket::open(options).unwrap_err();
        assert_eq!(refused.errno(), Some(nix::errno::Errno::EADDRNOTAVAIL), "{refused}");
    })
    .await;
}
