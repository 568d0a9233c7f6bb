//! Ports that change: what they keep, what goes, and what is not the agent's.

use super::*;

/// Addresses of members' subnet, one beside the other.
fn network_of(addresses: &[&str]) -> (MacAddress, Port) {
    let fixed_ips: Vec<_> = addresses
        .iter()
        .map(|address| serde_json::json!({ "ip_address": address, "subnet_cidr": "10.78.0.0/24" }))
        .collect();
    let body = serde_json::json!({ "fixed_ips": fixed_ips }).to_string();
    (NETWORK_MAC.parse().unwrap(), Port::from_json(body.as_bytes()).unwrap())
}

/// The VIPs' port with another address of the amphora's own.
fn vip_from(vrrp: &str) -> (MacAddress, Port) {
    let (mac, mut port) = vip();
    port.vip.as_mut().unwrap().vrrp = vrrp.parse().unwrap();
    (mac, port)
}

/// The lines with that address in the place of 10.77.0.101.
fn lines_from(address: &str, lines: &[&str]) -> Vec<String> {
    lines.iter().map(|line| line.replace("10.77.0.101", address)).collect()
}

fn assert_same(found: Vec<String>, expected: &[String]) {
    assert_lines(found, &expected.iter().map(String::as_str).collect::<Vec<_>>());
}

/// Octavia's controller names none of them in `plug/network`, and serves all of them still.
#[tokio::test]
async fn additional_vips_stay_when_a_network_is_plugged_beside_the_vips() {
    for topology in [Topology::Single, Topology::ActiveStandby] {
        let Some(machine) = Machine::new(topology) else { return };
        let plug = async |(mac, port)| {
            machine.run(move |plumbing| async move { plumbing.plug_network(mac, port).await.unwrap() }).await
        };
        machine.plug(vip()).await.unwrap();
        machine.plug(network(PLUG_NETWORK)).await.unwrap();
        let vips = machine.addresses("eth1");
        plug(network(PLUG_VIP_NETWORK)).await;
        let member = "inet 10.79.0.121/24 scope global eth1";
        let with: Vec<_> = vips.iter().map(String::as_str).chain([member]).collect();
        let with = with.iter().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
        let with: Vec<_> = with.collect();
        assert_same(machine.addresses("eth1"), &with);
        assert_lines(machine.rules(), if topology == Topology::Single { &VIP_RULES } else { &[] });
        let to_fd77 =
            |machine: &Machine| machine.routes().iter().any(|route| route.starts_with("fd77::/64 dev eth1"));
        assert!(to_fd77(&machine));
        assert!(!plug(network(PLUG_VIP_NETWORK)).await.changed);
        machine.reboot();
        machine.run(|plumbing| async move { plumbing.restore().await.unwrap() }).await;
        assert_same(machine.addresses("eth1"), &with);
        // Another VIP is another load balancer's.
        plug(network(&PLUG_VIP_NETWORK.replace("10.77.0.100", "10.77.0.99"))).await;
        assert!(
            !machine
                .addresses("eth1")
                .iter()
                .any(|line| line.contains("fd77::100") || line.contains("10.79.0.100"))
        );
        assert!(!to_fd77(&machine));
    }
}

#[tokio::test]
async fn addresses_of_one_subnet_change_one_after_another() {
    let Some(machine) = Machine::new(Topology::Single) else { return };
    machine.forget_promotion();
    machine.plug(network_of(&["10.78.0.121", "10.78.0.122"])).await.unwrap();
    for address in ["10.78.0.122", "10.78.0.123", "10.78.0.121"] {
        assert!(machine.plug(network_of(&[address])).await.unwrap().changed);
        assert_lines(machine.addresses("eth2"), &[&format!("inet {address}/24 scope global eth2")]);
        let subnet = format!("10.78.0.0/24 dev eth2 proto kernel scope link src {address}");
        assert_lines(machine.routes(), &[&subnet]);
        assert!(!machine.plug(network_of(&[address])).await.unwrap().changed);
    }
}

#[tokio::test]
async fn the_amphoras_own_address_changes_beside_vips_routes_and_rules_that_stay() {
    let Some(machine) = Machine::new(Topology::Single) else { return };
    machine.forget_promotion();
    machine.plug(vip()).await.unwrap();
    for address in ["10.77.0.7", "10.77.0.8"] {
        assert!(machine.plug(vip_from(&format!("{address}/24"))).await.unwrap().changed);
        assert_same(machine.addresses("eth1"), &lines_from(address, &VIP_ADDRESSES));
        assert_same(machine.routes(), &lines_from(address, &[&VIP_ROUTES[..], &VIP_ROUTES_6].concat()));
        assert_lines(machine.rules(), &VIP_RULES);
        assert!(!machine.plug(vip_from(&format!("{address}/24"))).await.unwrap().changed);
    }
}

/// The kernel had one of its own, for an address that goes.
#[tokio::test]
async fn a_route_to_the_vips_subnet_is_there_when_the_kernels_is_gone() {
    let Some(machine) = Machine::new(Topology::Single) else { return };
    let beside: SubnetAddress = network(PLUG_VIP_NETWORK).1.fixed_ips[0].clone();
    let (mac, mut port) = vip();
    port.fixed_ips.push(beside);
    machine.plug((mac, port)).await.unwrap();
    assert!(machine.routes().iter().any(|line| line.contains("10.79.0.0/24 dev eth1 proto kernel")));
    assert!(machine.plug(vip()).await.unwrap().changed);
    assert_vip(&machine);
}

#[tokio::test]
async fn an_ipv6_address_gets_another_prefix() {
    let Some(machine) = Machine::new(Topology::Single) else { return };
    machine.plug(network(PLUG_NETWORK)).await.unwrap();
    let (mac, mut port) = network(PLUG_NETWORK);
    port.fixed_ips[1].subnet = "fd78::/80".parse().unwrap();
    machine.plug((mac, port.clone())).await.unwrap();
    assert!(machine.addresses("eth2").contains(&"inet6 fd78::121/80 scope global nodad".to_owned()));
    // Nobody remembers that it is there.
    fs::remove_file(machine.disk.path().join("octavia/interfaces.json")).unwrap();
    port.fixed_ips[1].subnet = "fd78::/64".parse().unwrap();
    machine.plug((mac, port)).await.unwrap();
    assert!(machine.addresses("eth2").contains(&"inet6 fd78::121/64 scope global nodad".to_owned()));
}

#[tokio::test]
async fn what_vrrp_holds_is_left_to_it_whatever_its_prefix() {
    let Some(machine) = Machine::new(Topology::ActiveStandby) else { return };
    machine.forget_promotion();
    machine.plug(vip()).await.unwrap();
    // With the subnet's prefix, an address that the document does not have, one of IPv6, and one elsewhere.
    let held: [&[&str]; 6] = [
        &["addr", "add", "10.77.0.100/24", "dev", "eth1"],
        &["addr", "add", "10.77.0.50/32", "dev", "eth1"],
        &["addr", "add", "fd77::100/64", "dev", "eth1", "nodad"],
        &["route", "add", "10.77.0.0/24", "dev", "eth1", "table", "1", "proto", "keepalived"],
        &["rule", "add", "from", "10.77.0.100", "table", "1", "priority", "100", "protocol", "keepalived"],
        &["rule", "add", "from", "10.77.0.50", "table", "1", "priority", "100"],
    ];
    for args in held {
        machine.show(args);
    }
    let assert_held = |own: &str| {
        let mut addresses = machine.addresses("eth1");
        for line in &mut addresses {
            *line = line.replace(" secondary", "");
        }
        let own = format!("inet {own}/24 scope global eth1");
        let expected = [
            own.as_str(),
            "inet 10.77.0.100/24 scope global eth1",
            "inet 10.77.0.50/32 scope global eth1",
            "inet6 fd77::100/64 scope global nodad",
        ];
        assert_lines(addresses, &expected);
        assert!(machine.routes().iter().any(|line| line.contains("table 1 proto keepalived")));
        let rules = ["100: from 10.77.0.100 lookup 1 proto keepalived", "100: from 10.77.0.50 lookup 1"];
        assert_lines(machine.rules(), &rules);
    };
    // The agent starts, is asked for the same, and for something else.
    let restored = machine.run(|plumbing| async move { plumbing.restore().await.unwrap().len() }).await;
    assert_eq!(restored, 0);
    assert_held("10.77.0.101");
    assert!(!machine.plug(vip()).await.unwrap().changed);
    assert_held("10.77.0.101");
    assert!(machine.plug(vip_from("10.77.0.7/24")).await.unwrap().changed);
    assert_held("10.77.0.7");
}
