//! Documents, plans and the record, without a kernel.

use amphora_netlink::Table;

use super::{super::plan::Plan, *};

fn faults(body: &str) -> Vec<String> {
    let refusal = Port::from_json(body.as_bytes()).unwrap_err();
    refusal.faults.iter().map(ToString::to_string).collect()
}

#[test]
fn the_native_document_and_octavias_are_the_same_port() {
    let native = r#"{"mtu": 1500, "vrrp_ip": "10.77.0.101", "vips": [
        {"ip_address": "10.77.0.100", "subnet_cidr": "10.77.0.0/24", "gateway": "10.77.0.1",
            "host_routes": [{"destination": "192.0.2.0/24", "nexthop": "10.77.0.1"}]},
        {"ip_address": "10.79.0.100", "subnet_cidr": "10.79.0.0/24", "gateway": "10.79.0.1"},
        {"ip_address": "fd77::100", "subnet_cidr": "fd77::/64", "gateway": "fd77::1"}]}"#;
    let (mac, octavia) = vip();
    assert_eq!(mac.to_string(), VIP_MAC);
    assert_eq!(Port::from_json(native.as_bytes()).unwrap(), octavia);

    let (mac, port) = network(PLUG_NETWORK);
    assert_eq!(mac.to_string(), NETWORK_MAC);
    assert_eq!((port.vip, port.fixed_ips.len()), (None, 2));
    let (_, port) = network(PLUG_VIP_NETWORK);
    assert_eq!((port.vip.unwrap().vips.len(), port.fixed_ips.len()), (1, 1));
}

#[test]
fn a_port_without_addresses_is_given_some() {
    let native = Port::from_json(b"{}").unwrap();
    assert!(native.is_dynamic());
    for body in ["", r#", "fixed_ips": null"#, r#", "fixed_ips": []"#] {
        let body = format!(r#"{{"mac_address": "{NETWORK_MAC}"{body}}}"#);
        assert_eq!(network(&body).1, native, "{body}");
    }
    assert!(!vip().1.is_dynamic() && !network(PLUG_NETWORK).1.is_dynamic());
    let plan = |port: &Port| Plan::new(port, Topology::Single);
    assert!(plan(&native).autoconfigured && plan(&native).addresses.is_empty());
    assert!(!plan(&vip().1).autoconfigured && !plan(&network(PLUG_NETWORK).1).autoconfigured);
}

#[test]
fn every_fault_is_told_with_its_place() {
    assert_eq!(
        faults(
            r#"{"mtu": 1, "vrrp_ip": "zzz", "vips": [
                {"ip_address": "bogus", "subnet_cidr": "10.77.0.5/24", "gateway": "x",
                    "host_routes": [{"destination": "nowhere", "nexthop": "10.77.0.1"}]},
                {"ip_address": "10.77.0.1", "subnet_cidr": "fd77::/64"},
                {"ip_address": "10.77.0.1", "subnet_cidr": "10.77.0.0/24", "gateway": "fd77::1",
                    "host_routes": [{"destination": "192.0.2.0/24", "nexthop": "fd77::1"}]},
                {"ip_address": "10.77.0.1", "subnet_cidr": "10.77.0.0/24"}]}"#
        ),
        [
            "mtu: must be from 68 to 65535",
            "vips[0].ip_address: \"bogus\" does not appear to be an IPv4 or IPv6 address",
            "vips[0].subnet_cidr: 10.77.0.5/24 has host bits set",
            "vips[0].gateway: \"x\" does not appear to be an IPv4 or IPv6 address",
            "vips[0].host_routes[0].destination: \"nowhere\" does not appear to be an IPv4 or IPv6 network",
            "vips[1].subnet_cidr: must be of the family of the address",
            "vips[2].host_routes[0].nexthop: must be of the family of the destination",
            "vips[2].gateway: must be of the family of the address",
            "vrrp_ip: \"zzz\" does not appear to be an IPv4 or IPv6 address",
        ]
    );
    let no_vrrp_ip = r#"{"vips": [{"ip_address": "10.77.0.1", "subnet_cidr": "10.77.0.0/24"}]}"#;
    assert_eq!(faults(no_vrrp_ip), ["vrrp_ip: must be set where there are vips"]);
    let no_vips = r#"{"vrrp_ip": "10.77.0.1", "fixed_ips": [{"ip_address": "10.77.0.1", "subnet_cidr": "10.77.0.0/24"}]}"#;
    assert_eq!(faults(no_vips), ["vrrp_ip: means nothing without vips"]);
    assert!(faults("{bad")[0].starts_with("key must be a string"));
    assert!(faults(r#"{"fixed_ip": []}"#)[0].starts_with("unknown field `fixed_ip`"));
    assert!(Port::from_plug_vip("bogus", PLUG_VIP.as_bytes()).is_err());
    assert!(Port::from_plug_network(br#"{"mac_address": "x"}"#).is_err());
}

#[test]
fn addresses_that_no_host_has_are_refused() {
    assert_eq!(
        faults(
            r#"{"vrrp_ip": "0.0.0.0", "vips": [
                {"ip_address": "224.0.0.18", "subnet_cidr": "10.77.0.0/24", "gateway": "127.0.0.1"},
                {"ip_address": "::1", "subnet_cidr": "fd77::/64", "gateway": "ff02::12"},
                {"ip_address": "10.77.0.1", "subnet_cidr": "10.77.0.0/24", "gateway": "224.0.0.1"}],
                "fixed_ips": [{"ip_address": "::", "subnet_cidr": "fd78::/64", "gateway": "fe80::1"},
                {"ip_address": "255.255.255.255", "subnet_cidr": "10.78.0.0/24", "gateway": "0.0.0.0",
                    "host_routes": [{"destination": "192.0.2.0/24", "nexthop": "224.0.0.1"}]}]}"#
        ),
        [
            "vips[0].ip_address: 224.0.0.18 is a multicast address, which no host has",
            "vips[0].gateway: 127.0.0.1 is a loopback address, which no host has",
            "vips[1].ip_address: ::1 is a loopback address, which no host has",
            "vips[1].gateway: ff02::12 is a multicast address, which no host has",
            "vips[2].gateway: 224.0.0.1 is a multicast address, which no host has",
            "fixed_ips[0].ip_address: :: is the unspecified address, which no host has",
            "fixed_ips[1].ip_address: 255.255.255.255 is the broadcast address, which no host has",
            "fixed_ips[1].gateway: 0.0.0.0 is the unspecified address, which no host has",
        ]
    );
    let vrrp_ip =
        r#"{"vrrp_ip": "0.0.0.0", "vips": [{"ip_address": "10.77.0.1", "subnet_cidr": "10.77.0.0/24"}]}"#;
    assert_eq!(faults(vrrp_ip), ["vrrp_ip: 0.0.0.0 is the unspecified address, which no host has"]);
}

#[test]
fn the_first_way_to_a_destination_counts() {
    let (_, port) = vip();
    let plan = Plan::new(&port, Topology::Single);
    let defaults: Vec<_> = plan
        .routes
        .iter()
        .filter(|route| route.destination.prefix_len() == 0 && route.table == Table::MAIN)
        .map(|route| route.gateway.unwrap().to_string())
        .collect();
    assert_eq!(defaults, ["10.77.0.1", "fd77::1"]);
}

#[test]
fn an_interface_has_an_ipv6_address_with_one_prefix() {
    let (_, mut port) = network(PLUG_NETWORK);
    let mut again = port.fixed_ips[1].clone();
    again.subnet = "fd78::/80".parse().unwrap();
    port.fixed_ips.push(again);
    let plan = Plan::new(&port, Topology::Single);
    let addresses: Vec<_> = plan.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["10.78.0.121/24", "fd78::121/64"]);
}

#[test]
fn the_record_is_read_as_it_was_written() {
    let disk = tempfile::tempdir().unwrap();
    let open = || Record::open(Arc::new(Store::open(disk.path()).unwrap()));
    let mut record = open().unwrap();
    let plugged = |name: &str, (mac_address, port): (MacAddress, Port)| Plugged {
        mac_address,
        interface: InterfaceName::new(name).unwrap(),
        port,
        lease: None,
    };
    assert!(record.put(plugged("eth10", network(PLUG_NETWORK)), Vec::new()).unwrap());
    assert!(record.put(plugged("eth2", vip()), Vec::new()).unwrap());
    assert!(!record.put(plugged("eth2", vip()), Vec::new()).unwrap());
    let read = open().unwrap();
    assert_eq!(read.ports(), record.ports());
    let names: Vec<_> = read.ports().iter().map(|plugged| plugged.interface.as_str()).collect();
    assert_eq!(names, ["eth2", "eth10"]);
    // What is left of former documents is known until it is gone.
    let mac = VIP_MAC.parse().unwrap();
    let left = ["10.77.0.7/24", "fd77::7/64"].map(|net| net.parse().unwrap());
    assert!(!record.put(plugged("eth2", vip()), left.to_vec()).unwrap());
    assert_eq!(open().unwrap().leftovers(mac), left);
    record.settle(mac).unwrap();
    assert_eq!((open().unwrap().leftovers(mac).len(), open().unwrap().ports().len()), (0, 2));
    record.remove(mac).unwrap();
    assert_eq!(open().unwrap().ports().len(), 1);

    // A directory in its place makes writing fail, whoever runs the test.
    let blocked = disk.path().join("interfaces.json.unfinished");
    fs::create_dir(&blocked).unwrap();
    assert!(record.put(plugged("eth2", vip()), Vec::new()).is_err());
    assert_eq!(record.ports().len(), 1);
    fs::remove_dir(&blocked).unwrap();
    fs::write(disk.path().join("interfaces.json"), "{").unwrap();
    assert!(open().is_err());
}
