#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

fn read(links: &str, networks: &str, services: &str) -> (Network, Vec<String>) {
    let text = format!(r#"{{"links": [{links}], "networks": [{networks}], "services": [{services}]}}"#);
    let mut remarks = Remarks::default();
    let network = parse(text.as_bytes(), &mut remarks).unwrap();
    (network, remarks.iter().map(|remark| remark.text.clone()).collect())
}

const TAP0: &str = r#"{"id": "tap0", "type": "ovs", "ethernet_mac_address": "FA:16:3e:00:00:01", "mtu": 1450, "vif_id": "v"}"#;

fn one(networks: &str) -> String {
    let (network, remarks) = read(TAP0, networks, "");
    assert!(remarks.is_empty(), "{remarks:?}");
    assert_eq!((network.files.len(), network.files[0].name.as_str()), (1, "10-amphora-fa163e000001.network"));
    network.files[0].text.clone()
}

#[test]
fn dhcp() {
    assert_eq!(
        one(r#"{"id": "network0", "type": "ipv4_dhcp", "link": "tap0", "network_id": "n"}"#),
        "[Match]\nMACAddress=fa:16:3e:00:00:01\n\n[Link]\nMTUBytes=1450\n\n[Network]\nDHCP=ipv4\nLinkLocalAddressing=ipv6\n\
         IPv6AcceptRA=no\n\n[DHCPv4]\nClientIdentifier=mac\nUseHostname=no\nUseMTU=no\n"
    );
    let text = one(
        r#"{"id": "network0", "type": "ipv6_dhcpv6-stateful", "link": "tap0", "ip_address": "fd00::5", "netmask": "ffff::", "routes": []}"#,
    );
    assert!(
        text.contains("DHCP=ipv6\n")
            && text.contains("IPv6AcceptRA=yes\n")
            && text.contains("WithoutRA=solicit\n"),
        "{text}"
    );
    let text = one(
        r#"{"id": "network0", "type": "ipv6_dhcpv6-stateless", "link": "tap0"}, {"id": "network1", "type": "ipv4_dhcp", "link": "tap0"}"#,
    );
    assert!(
        text.contains("DHCP=yes\n") && text.contains("IPv6AcceptRA=yes\n") && !text.contains("WithoutRA"),
        "{text}"
    );
    let text = one(
        r#"{"id": "network0", "type": "ipv6_slaac", "link": "tap0", "ip_address": "fd00::5", "netmask": "ffff:ffff:ffff:ffff::", "routes": []}"#,
    );
    assert!(
        text.contains("DHCP=no\n")
            && text.contains("IPv6AcceptRA=yes\n")
            && text.contains("Token=eui64\n")
            && !text.contains("Address=fd"),
        "{text}"
    );
}

#[test]
fn addresses_and_routes() {
    let text = one(
        r#"{"id": "network0", "type": "ipv4", "link": "tap0", "ip_address": "10.0.0.5", "netmask": "255.255.255.0",
        "routes": [{"network": "0.0.0.0", "netmask": "0.0.0.0", "gateway": "10.0.0.1"},
        {"network": "169.254.169.254", "netmask": "255.255.255.255", "gateway": "10.0.1.2"}], "services": [{"type": "dns", "address": "10.0.0.2"}]},
        {"id": "network1", "type": "ipv6", "link": "tap0", "ip_address": "fd00::5", "netmask": "ffff:ffff:ffff:ffff::",
        "routes": [{"network": "::", "netmask": "::", "gateway": "fd00::1"}, {"network": "2001:db8:0:1::1", "netmask": "ffff:ffff:ffff::", "gateway": "fe80::1"}]}"#,
    );
    assert_eq!(
        text.split_once("[Network]\n").unwrap().1,
        "DHCP=no\nLinkLocalAddressing=ipv6\nIPv6AcceptRA=no\nAddress=10.0.0.5/24\nAddress=fd00::5/64\nDNS=10.0.0.2\n\n\
         [Route]\nDestination=0.0.0.0/0\nGateway=10.0.0.1\n\n\
         [Route]\nDestination=169.254.169.254/32\nGateway=10.0.1.2\nGatewayOnLink=yes\n\n\
         [Route]\nDestination=::/0\nGateway=fd00::1\n\n\
         [Route]\nDestination=2001:db8::/48\nGateway=fe80::1\n"
    );
    // As other writers of this format have it.
    let text = one(
        r#"{"id": "n", "type": "ipv4", "link": "tap0", "ip_address": "10.0.0.5/25"}, {"id": "m", "type": "ipv6", "link": "tap0", "ip_address": "fd00::5", "netmask": 56}"#,
    );
    assert!(text.contains("Address=10.0.0.5/25\nAddress=fd00::5/56\n"), "{text}");
}

#[test]
fn servers_of_a_network_and_of_all() {
    let two = format!(
        r#"{TAP0}, {{"id": "tap1", "type": "bridge", "ethernet_mac_address": "fa:16:3e:00:00:02", "mtu": null}}"#
    );
    let (network, remarks) = read(
        &two,
        r#"{"id": "a", "type": "ipv4_dhcp", "link": "tap0"}, {"id": "b", "type": "ipv4_dhcp", "link": "tap1", "services": [{"type": "dns", "address": "fd00::2"}]}"#,
        r#"{"type": "dns", "address": "10.0.0.2"}, {"type": "dns", "address": "10.0.0.2"}, {"type": "ntp", "address": "10.0.0.3"}"#,
    );
    assert_eq!(network.servers, ["10.0.0.2".parse::<IpAddr>().unwrap(), "fd00::2".parse().unwrap()]);
    assert_eq!(resolv_conf(&network.servers), "nameserver 10.0.0.2\nnameserver fd00::2\n");
    assert!(
        network.files[0].text.contains("DNS=10.0.0.2\n")
            && network.files[1].text.contains("DNS=fd00::2\nDNS=10.0.0.2\n")
    );
    assert!(network.files[1].text.contains("UseMTU=yes\n") && !network.files[1].text.contains("[Link]"));
    assert_eq!(remarks, ["network data: a service of type \"ntp\" is left out"]);
}

#[test]
fn what_is_not_set_up_is_said_by_name() {
    let (network, remarks) = read(
        &format!(
            r#"{TAP0}, {{"id": "bond0", "type": "bond", "ethernet_mac_address": "fa:16:3e:00:00:03", "bond_links": ["tap0"]}},
            {{"id": "vlan0", "type": "vlan", "vlan_id": 7, "vlan_link": "tap0"}}, {{"id": "x", "type": "phy", "ethernet_mac_address": "01:16:3e:00:00:03"}},
            {{"id": "tap0", "type": "phy", "ethernet_mac_address": "fa:16:3e:00:00:04"}},
            {{"id": "y", "type": "phy", "ethernet_mac_address": "fa:16:3e:00:00:05", "mtu": 70000}}"#
        ),
        r#"{"id": "n0", "type": "ipv4_dhcp", "link": "bond0"}, {"id": "n1", "type": "ipv4_dhcp", "link": "tap0"}, {"id": "n2", "type": "ipx", "link": "tap0"},
        {"id": "n3", "type": "ipv4", "link": "tap0", "ip_address": "10.0.0.5", "netmask": "255.0.255.0"},
        {"id": "n4", "type": "ipv4", "link": "tap0", "ip_address": "fd00::1", "netmask": "64"},
        {"id": "n5", "type": "ipv4", "link": "tap0", "ip_address": "0.0.0.0", "netmask": "24"},
        {"id": "n6", "type": "ipv4", "link": "tap0", "ip_address": "10.0.0.6", "netmask": "255.255.255.0", "routes": [
            {"network": "::", "netmask": "::", "gateway": "10.0.0.1"}, {"network": "0.0.0.0", "netmask": "0.0.0.0", "gateway": "x"}, 5]}"#,
        "",
    );
    assert_eq!(network.files.len(), 1);
    assert!(
        network.files[0].text.contains("Address=10.0.0.6/24\n") && !network.files[0].text.contains("[Route]")
    );
    assert_eq!(
        remarks,
        [
            "network data: link \"bond0\" is left out: a bond is not set up here",
            "network data: link \"vlan0\" is left out: a vlan is not set up here",
            "network data: link \"x\" is left out: no hardware address",
            "network data: link \"tap0\" is left out: another has its id or its hardware address",
            "network data: the MTU of link \"y\" is left out: not from 68 to 65535",
            "network data: network \"n0\" is left out: no link \"bond0\"",
            "network data: network \"n2\" is left out: networks of type \"ipx\" are not known here",
            "network data: network \"n3\" is left out: no netmask: \"255.0.255.0\"",
            "network data: network \"n4\" is left out: fd00::1 is no ipv4 address",
            "network data: network \"n5\" is left out: 0.0.0.0 is no machine's address",
            "network data: a route of link \"tap0\" is left out: :: by 10.0.0.1 is not of one family with 10.0.0.6",
            "network data: a route of link \"tap0\" is left out: no gateway: \"x\"",
            "network data: a route of link \"tap0\" is left out: no network: \"\"",
            "network data: link \"y\" has no network",
        ]
    );
    assert!(parse(b"{", &mut Remarks::default()).is_err());
    assert_eq!(parse(b"[]", &mut Remarks::default()), Ok(Network::default()));
}

#[test]
fn a_machine_that_was_told_nothing_takes_what_is_offered() {
    let file = fallback(Mac::parse("52:54:00:12:34:56").unwrap());
    assert_eq!(
        file.text,
        "[Match]\nMACAddress=52:54:00:12:34:56\n\n[Network]\nDHCP=yes\nLinkLocalAddressing=ipv6\nIPv6AcceptRA=yes\n\n\
         [DHCPv4]\nClientIdentifier=mac\nUseHostname=no\nUseMTU=yes\n\n[DHCPv6]\nUseHostname=no\n\n[IPv6AcceptRA]\nToken=eui64\nUseMTU=yes\n"
    );
}

proptest! {
    #[test]
    fn a_prefix_is_read_in_every_form(length in 0u8..=32, address in any::<u32>()) {
        let of = IpAddr::V4(Ipv4Addr::from(address));
        let dotted = masked(Ipv4Addr::BROADCAST.into(), length).to_string();
        for form in [Value::from(dotted), Value::from(length), Value::from(length.to_string())] {
            prop_assert_eq!(mask(&form, of), Ok(length));
        }
        let six = masked(IpAddr::V6(Ipv6Addr::from(u128::MAX)), length * 4).to_string();
        prop_assert_eq!(mask(&Value::from(six), Ipv6Addr::LOCALHOST.into()), Ok(length * 4));
    }
}
