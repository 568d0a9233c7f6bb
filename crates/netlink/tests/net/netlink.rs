//! What netlink did is what `ip` shows.

use std::{
    fs::File,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::Command,
    time::Duration,
};

use amphora_netlink::{
    Family, InterfaceIndex, LinkChange, LinkChanges, Netlink, Outcome, Route, RouteProtocol, RouteScope,
    Rule, Table, end_connections,
};
use amphora_tests::{Namespace, in_time};
use nix::errno::Errno;
use socket2::{Domain, Socket, Type};

use super::{interface, name, pair, show};

/// For what comes at once.
const PATIENCE: Duration = Duration::from_secs(15);

#[tokio::test]
async fn an_interface_is_found_by_name_and_by_mac() {
    let Some((one, _two)) = pair() else { return };
    one.ip(&["link", "set", "eth1", "address", "fa:16:3e:00:21:01", "mtu", "1400"]);
    one.run(|| async {
        let netlink = Netlink::open().unwrap();
        let eth1 = interface(&netlink, "eth1").await;
        assert_eq!(eth1.mac, "fa:16:3e:00:21:01".parse().ok());
        assert_eq!((eth1.mtu, eth1.up, eth1.running, eth1.loopback), (1400, true, true, false));
        assert_eq!(netlink.interface_by_mac(eth1.mac.unwrap()).await.unwrap().unwrap(), eth1);
        assert_eq!(netlink.interface_by_index(eth1.index).await.unwrap().unwrap(), eth1);
        assert_eq!(netlink.interface(&name("eth7")).await.unwrap(), None);
        assert_eq!(netlink.interface_by_mac("fa:16:3e:ff:ff:ff".parse().unwrap()).await.unwrap(), None);
        assert!(interface(&netlink, "lo").await.loopback);
    })
    .await;
}

#[tokio::test]
async fn addresses_come_and_go_and_twice_is_as_good_as_once() {
    let Some((one, _two)) = pair() else { return };
    let inside = one.name().to_owned();
    one.run(move || async move {
        let netlink = Netlink::open().unwrap();
        let eth1 = interface(&netlink, "eth1").await.index;
        for net in ["10.77.0.101/24", "10.77.0.100/32", "fd77::100/128"] {
            let net = net.parse().unwrap();
            assert_eq!(netlink.add_address(eth1, net).await.unwrap(), Outcome::Changed);
            assert_eq!(netlink.add_address(eth1, net).await.unwrap(), Outcome::Unchanged);
        }
        let shown = show(&inside, &["addr", "show", "dev", "eth1"]);
        for line in [
            "inet 10.77.0.101/24 scope global eth1\nvalid_lft forever preferred_lft forever",
            "inet 10.77.0.100/32 scope global eth1\nvalid_lft forever preferred_lft forever",
            "inet6 fd77::100/128 scope global nodad\nvalid_lft forever preferred_lft forever",
        ] {
            assert!(shown.contains(line), "{line} in {shown}");
        }
        let addresses = netlink.addresses_of(eth1).await.unwrap();
        let vip = addresses.iter().find(|address| address.net.to_string() == "fd77::100/128").unwrap();
        assert!(vip.permanent && !vip.tentative && !vip.deprecated && !vip.link_local);
        for net in ["10.77.0.100/32", "fd77::100/128"] {
            let net = net.parse().unwrap();
            assert_eq!(netlink.delete_address(eth1, net).await.unwrap(), Outcome::Changed);
            assert_eq!(netlink.delete_address(eth1, net).await.unwrap(), Outcome::Unchanged);
        }
        let shown = show(&inside, &["addr", "show", "dev", "eth1"]);
        assert!(shown.contains("10.77.0.101/24") && !shown.contains("10.77.0.100"), "{shown}");
        assert!(!shown.contains("fd77"), "{shown}");
    })
    .await;
}

#[tokio::test]
async fn nothing_leaves_from_a_virtual_address_that_is_a_prefix_of_its_own() {
    let Some((one, _two)) = pair() else { return };
    one.run(|| async {
        let netlink = Netlink::open().unwrap();
        let eth1 = interface(&netlink, "eth1").await.index;
        for (net, deprecated) in [("10.77.0.100/32", false), ("fd77::100/128", true), ("fd77::101/64", false)]
        {
            let net = net.parse().unwrap();
            assert_eq!(netlink.add_virtual_address(eth1, net).await.unwrap(), Outcome::Changed);
            assert_eq!(netlink.add_virtual_address(eth1, net).await.unwrap(), Outcome::Unchanged);
            let addresses = netlink.addresses_of(eth1).await.unwrap();
            let found = addresses.iter().find(|address| address.net == net).unwrap();
            assert!(found.permanent && !found.tentative, "{found:?}");
            assert_eq!(found.deprecated, deprecated, "{net}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_deprecated_address_that_was_left_is_made_good() {
    let Some((one, _two)) = pair() else { return };
    one.ip(&["addr", "add", "fd77::100/128", "dev", "eth1", "nodad", "preferred_lft", "0"]);
    one.run(|| async {
        let netlink = Netlink::open().unwrap();
        let eth1 = interface(&netlink, "eth1").await.index;
        let net = "fd77::100/128".parse().unwrap();
        let deprecated = async || {
            let addresses = netlink.addresses_of(eth1).await.unwrap();
            addresses.iter().find(|address| address.net == net).unwrap().deprecated
        };
        assert!(deprecated().await);
        assert_eq!(netlink.add_address(eth1, net).await.unwrap(), Outcome::Unchanged);
        assert!(!deprecated().await);
    })
    .await;
}

#[tokio::test]
async fn an_address_outlives_the_first_one_of_its_subnet() {
    let Some((one, _two)) = pair() else { return };
    let inside = one.name().to_owned();
    let script = "for of in all eth1; do echo 0 >/proc/sys/net/ipv4/conf/$of/promote_secondaries; done";
    let told = Command::new("ip").args(["netns", "exec", &inside, "sh", "-c", script]).status().unwrap();
    assert!(told.success());
    one.run(move || async move {
        let netlink = Netlink::open().unwrap();
        let eth1 = interface(&netlink, "eth1").await.index;
        let [first, second] = ["10.77.0.1/24", "10.77.0.2/24"].map(|net| net.parse().unwrap());
        let without_the_first = async || {
            netlink.add_address(eth1, first).await.unwrap();
            netlink.add_address(eth1, second).await.unwrap();
            netlink.delete_address(eth1, first).await.unwrap();
            show(&inside, &["addr", "show", "dev", "eth1"])
        };
        assert!(!without_the_first().await.contains("10.77.0.2"));
        netlink.promote_secondaries(eth1).await.unwrap();
        assert!(without_the_first().await.contains("inet 10.77.0.2/24 scope global eth1"));
    })
    .await;
}

#[tokio::test]
async fn connections_end_with_their_address_and_no_others() {
    let Some((one, two)) = pair() else { return };
    for (namespace, addresses) in
        [(&one, &["10.77.0.1/24", "10.77.0.2/24", "fd77::1/64"][..]), (&two, &["10.77.0.9/24", "fd77::9/64"])]
    {
        for address in addresses {
            let nodad: &[&str] = if address.contains(':') { &["nodad"] } else { &[] };
            namespace.ip(&[&["address", "add", address, "dev", "eth1"], nodad].concat());
        }
    }
    // Of IPv6, which connections of IPv4 come to, too.
    let listener = two.run(|| async { TcpListener::bind("[::]:80").unwrap() }).await;
    let connect = async |from: &str, to: &str| {
        let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
        let connect = move || async move {
            let socket = Socket::new(Domain::for_address(from), Type::STREAM, None).unwrap();
            socket.bind(&from.into()).unwrap();
            socket.connect_timeout(&to.into(), PATIENCE).unwrap();
            socket.into()
        };
        let ends: [TcpStream; 2] = [one.run(connect).await, listener.accept().unwrap().0];
        ends.iter().for_each(|end| end.set_read_timeout(Some(PATIENCE)).unwrap());
        ends
    };
    let [mut first, mut its_end] = connect("10.77.0.1:0", "10.77.0.9:80").await;
    let [mut second, mut second_end] = connect("10.77.0.2:0", "10.77.0.9:80").await;
    let [mut third, mut third_end] = connect("[fd77::1]:0", "[fd77::9]:80").await;
    let end = async |namespace: &Namespace, address: &str| {
        let address = address.parse().unwrap();
        namespace.run(move || async move { end_connections(&[address]) }).await.unwrap()
    };
    let fails = |end: &mut TcpStream| end.read(&mut [0]).unwrap_err().kind();
    assert_eq!(end(&one, "10.77.0.3").await, 0);
    assert_eq!(end(&one, "10.77.0.1").await, 1);
    assert_eq!(fails(&mut first), ErrorKind::ConnectionAborted);
    assert_eq!(fails(&mut its_end), ErrorKind::ConnectionReset);
    for (near, far) in [(&mut second, &mut second_end), (&mut third, &mut third_end)] {
        near.write_all(b"x").unwrap();
        assert_eq!(far.read(&mut [0]).unwrap(), 1);
    }
    // A socket of IPv6 with an address of IPv4, and one with one of IPv6; what listens stays.
    assert_eq!(end(&two, "10.77.0.9").await, 1);
    assert_eq!(fails(&mut second), ErrorKind::ConnectionReset);
    assert_eq!(end(&two, "fd77::9").await, 1);
    assert_eq!(fails(&mut third), ErrorKind::ConnectionReset);
    connect("10.77.0.2:0", "10.77.0.9:80").await;
}

fn route_to(destination: &str, interface: InterfaceIndex) -> Route {
    Route {
        destination: destination.parse().unwrap(),
        gateway: None,
        interface,
        source: None,
        scope: RouteScope::Global,
        onlink: false,
        table: Table(1),
        metric: None,
        protocol: RouteProtocol::KEEPALIVED,
    }
}

#[tokio::test]
async fn routes_are_those_that_octavia_gives_keepalived() {
    let Some((one, _two)) = pair() else { return };
    let inside = one.name().to_owned();
    one.run(move || async move {
        let netlink = Netlink::open().unwrap();
        let eth1 = interface(&netlink, "eth1").await.index;
        for net in ["10.77.0.100/32", "fd77::100/128"] {
            netlink.add_address(eth1, net.parse().unwrap()).await.unwrap();
        }
        let (vip, vip6) = ("10.77.0.100".parse().ok(), "fd77::100".parse().ok());
        let gateway = |text: &str| Some(text.parse().unwrap());
        let to = |destination| route_to(destination, eth1);
        let wanted = [
            Route { scope: RouteScope::Link, source: vip, ..to("10.77.0.0/24") },
            Route { gateway: gateway("10.77.0.1"), onlink: true, ..to("0.0.0.0/0") },
            Route { table: Table(1000), scope: RouteScope::Link, ..to("192.0.2.0/24") },
            Route { scope: RouteScope::Link, source: vip6, ..to("fd77::/64") },
            Route { gateway: gateway("fd77::1"), onlink: true, metric: Some(7), ..to("::/0") },
        ];
        for route in &wanted {
            assert_eq!(netlink.add_route(route).await.unwrap(), Outcome::Changed, "{route:?}");
            assert_eq!(netlink.add_route(route).await.unwrap(), Outcome::Unchanged);
            netlink.replace_route(route).await.unwrap();
            let family = Family::of(route.destination.addr());
            let there = netlink.routes(family).await.unwrap();
            assert_eq!(there.iter().filter(|there| there.is(route)).count(), 1, "{route:?} in {there:?}");
        }
        assert_eq!(
            show(&inside, &["-N", "route", "show", "table", "1"]),
            "default via 10.77.0.1 dev eth1 proto 18 onlink\n\
             10.77.0.0/24 dev eth1 proto 18 scope 253 src 10.77.0.100"
        );
        assert_eq!(
            show(&inside, &["route", "show", "table", "1000"]),
            "192.0.2.0/24 dev eth1 proto keepalived scope link"
        );
        assert_eq!(
            show(&inside, &["-6", "route", "show", "table", "1"]),
            "fd77::/64 dev eth1 proto keepalived src fd77::100 metric 1024 pref medium\n\
             default via fd77::1 dev eth1 proto keepalived metric 7 onlink pref medium"
        );
        // What a predecessor left is deleted as it is listed.
        for family in [Family::V4, Family::V6] {
            for route in netlink.routes(family).await.unwrap() {
                if route.protocol == RouteProtocol::KEEPALIVED {
                    assert_eq!(netlink.delete_route(&route).await.unwrap(), Outcome::Changed, "{route:?}");
                    assert_eq!(netlink.delete_route(&route).await.unwrap(), Outcome::Unchanged);
                }
            }
        }
        assert_eq!(show(&inside, &["route", "show", "table", "1"]), "");
        assert_eq!(show(&inside, &["-6", "route", "show", "table", "1"]), "");
    })
    .await;
}

#[tokio::test]
async fn a_route_is_replaced_or_stays_as_is_asked_for() {
    let Some((one, _two)) = pair() else { return };
    let inside = one.name().to_owned();
    one.run(move || async move {
        let netlink = Netlink::open().unwrap();
        let eth1 = interface(&netlink, "eth1").await.index;
        for (any, first, second) in [("0.0.0.0/0", "10.77.0.1", "10.77.0.2"), ("::/0", "fd77::1", "fd77::2")]
        {
            let via =
                |gateway: &str| Route { gateway: gateway.parse().ok(), onlink: true, ..route_to(any, eth1) };
            let family = Family::of(via(first).destination.addr());
            netlink.add_route(&via(first)).await.unwrap();
            assert_eq!(netlink.add_route(&via(second)).await.unwrap(), Outcome::Unchanged);
            let gateway = async || {
                let routes = netlink.routes(family).await.unwrap();
                let mut in_table = routes.iter().filter(|route| route.table == Table(1));
                let gateway = in_table.next().unwrap().gateway.unwrap().to_string();
                assert_eq!(in_table.next(), None);
                gateway
            };
            assert_eq!(gateway().await, first);
            netlink.replace_route(&via(second)).await.unwrap();
            assert_eq!(gateway().await, second);
        }
        let unreachable = Route { gateway: "203.0.113.1".parse().ok(), ..route_to("198.51.100.0/24", eth1) };
        let refused = netlink.add_route(&unreachable).await.unwrap_err();
        assert_eq!(refused.errno(), Some(Errno::ENETUNREACH), "{refused}");
        assert!(refused.to_string().starts_with("cannot add the route to 198.51.100.0/24 via 203.0.113.1"));
        assert!(!show(&inside, &["route", "show", "table", "1"]).contains("198.51.100"));
    })
    .await;
}

#[tokio::test]
async fn rules_come_and_go() {
    let Some((one, _two)) = pair() else { return };
    let inside = one.name().to_owned();
    one.run(move || async move {
        let netlink = Netlink::open().unwrap();
        let rule = |source: &str, table, priority| Rule {
            source: source.parse().unwrap(),
            table: Table(table),
            priority,
            protocol: RouteProtocol::KEEPALIVED,
        };
        let rules = [
            rule("10.77.0.100/32", 1, Some(100)),
            rule("10.79.0.0/24", 1000, None),
            rule("fd77::100/128", 1, Some(100)),
        ];
        for rule in &rules {
            assert_eq!(netlink.add_rule(rule).await.unwrap(), Outcome::Changed);
            assert_eq!(netlink.add_rule(rule).await.unwrap(), Outcome::Unchanged, "{rule:?}");
        }
        assert_eq!(
            show(&inside, &["rule"]),
            "0: from all lookup local\n\
             99: from 10.79.0.0/24 lookup 1000 proto keepalived\n\
             100: from 10.77.0.100 lookup 1 proto keepalived\n\
             32766: from all lookup main\n\
             32767: from all lookup default"
        );
        assert!(show(&inside, &["-6", "rule"]).contains("100: from fd77::100 lookup 1 proto keepalived"));
        let listed =
            [netlink.rules(Family::V4).await.unwrap(), netlink.rules(Family::V6).await.unwrap()].concat();
        assert_eq!(listed.len(), 3, "{listed:?}");
        for rule in &rules {
            assert_eq!(listed.iter().filter(|listed| listed.is(rule)).count(), 1);
            assert_eq!(netlink.delete_rule(rule).await.unwrap(), Outcome::Changed);
            assert_eq!(netlink.delete_rule(rule).await.unwrap(), Outcome::Unchanged);
        }
        assert_eq!(show(&inside, &["rule"]).lines().count(), 3);
    })
    .await;
}

#[tokio::test]
async fn an_interface_is_moved_renamed_and_set_up() {
    let Some((one, _peer)) = pair() else { return };
    let Some(inner) = Namespace::create() else { return };
    let file = File::open(format!("/run/netns/{}", inner.name())).unwrap();
    one.run(move || async move {
        let netlink = Netlink::open().unwrap();
        let eth1 = interface(&netlink, "eth1").await;
        netlink.move_to_namespace(eth1.index, &file, &name("eth9")).await.unwrap();
        assert_eq!(netlink.interface(&name("eth1")).await.unwrap(), None);
        let refused = netlink.set_up(eth1.index).await.unwrap_err();
        assert_eq!(refused.errno(), Some(Errno::ENODEV));
    })
    .await;
    inner
        .run(|| async {
            let netlink = Netlink::open().unwrap();
            let eth9 = interface(&netlink, "eth9").await;
            assert!(!eth9.up);
            netlink.set_mtu(eth9.index, 1300).await.unwrap();
            netlink.rename(eth9.index, &name("eth2")).await.unwrap();
            netlink.set_up(eth9.index).await.unwrap();
            let eth2 = interface(&netlink, "eth2").await;
            assert_eq!((eth2.index, eth2.mtu, eth2.up), (eth9.index, 1300, true));
            netlink.set_down(eth9.index).await.unwrap();
            assert!(!interface(&netlink, "eth2").await.up);
            let refused = netlink.set_mtu(eth9.index, 1).await.unwrap_err();
            assert!(refused.to_string().contains("cannot set the MTU"), "{refused}");
        })
        .await;
}

#[tokio::test]
async fn changes_of_links_are_told() {
    let Some((one, two)) = pair() else { return };
    let inside = one.name().to_owned();
    let peer = two.name().to_owned();
    one.run(move || async move {
        let netlink = Netlink::open().unwrap();
        let eth1 = interface(&netlink, "eth1").await.index;
        let mut changes = LinkChanges::open().unwrap();
        let mut until = async |what: &str, wanted: &dyn Fn(&LinkChange) -> bool| {
            in_time(what, async {
                loop {
                    if wanted(&changes.next().await.unwrap()) {
                        return;
                    }
                }
            })
            .await;
        };
        show(&peer, &["link", "set", "eth1", "down"]);
        until("no carrier", &|change| {
            matches!(change, LinkChange::Now(link) if link.index == eth1 && link.up && !link.running)
        })
        .await;
        show(&peer, &["link", "set", "eth1", "up"]);
        until(
            "a carrier",
            &|change| matches!(change, LinkChange::Now(link) if link.index == eth1 && link.is_usable()),
        )
        .await;
        show(&inside, &["link", "set", "eth1", "down"]);
        until("down", &|change| matches!(change, LinkChange::Now(link) if link.index == eth1 && !link.up))
            .await;
        show(&inside, &["link", "set", "eth1", "name", "eth5"]);
        until("a new name", &|change| {
            matches!(change, LinkChange::Now(link) if link.index == eth1 && link.name == name("eth5"))
        })
        .await;
        show(&peer, &["link", "delete", "eth1"]);
        until("gone", &|change| *change == LinkChange::Gone(eth1)).await;
    })
    .await;
}
