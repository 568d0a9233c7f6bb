//! Ports that cannot be plugged, and agents that are killed while they plug one: what is left, and the ways out.

use super::*;

/// What the kernel refuses: an address of its own is no gateway.
fn refused() -> (MacAddress, Port) {
    let (mac, mut port) = vip();
    port.vip.as_mut().unwrap().vips[0].gateway = "10.77.0.100".parse().ok();
    (mac, port)
}

/// Another interface with what the VIPs' port is.
fn elsewhere() -> (MacAddress, Port) {
    (NETWORK_MAC.parse().unwrap(), vip().1)
}

/// What is written before the kernel is asked for anything.
fn record(machine: &Machine, (mac_address, port): (MacAddress, Port), leftovers: &[&str]) {
    let store = Store::open(&machine.disk.path().join("octavia")).unwrap();
    let interface = InterfaceName::new("eth1").unwrap();
    let leftovers = leftovers.iter().map(|net| net.parse().unwrap()).collect();
    let plugged = Plugged { mac_address, interface, port, lease: None };
    assert!(Record::open(Arc::new(store)).unwrap().put(plugged, leftovers).unwrap());
}

fn names(plugged: &[Plugged]) -> Vec<&str> {
    plugged.iter().map(|plugged| plugged.interface.as_str()).collect()
}

#[tokio::test]
async fn an_interface_that_is_not_there_is_asked_for_again_later() {
    let Some(machine) = Machine::new(Topology::Single) else { return };
    let (_, port) = vip();
    let mac: MacAddress = "fa:16:3e:ff:ff:ff".parse().unwrap();
    let rescan = machine.disk.path().join("rescan");
    fs::write(&rescan, "").unwrap();
    let open = machine.open(Some(rescan.clone()));
    machine
        .outside
        .run(move || async move {
            let plumbing = open();
            let error = plumbing.plug(mac, port).await.unwrap_err();
            assert!(matches!(error, PlugError::NoInterface(missing) if missing == mac));
            assert_eq!(error.to_string(), "No suitable network interface found");
            assert_eq!(plumbing.plugged().await, []);
        })
        .await;
    assert_eq!(fs::read_to_string(rescan).unwrap(), "1");
}

#[tokio::test]
async fn the_name_of_the_vips_interface_is_not_taken_from_another() {
    let Some(machine) = Machine::new(Topology::Single) else { return };
    machine.plug(vip()).await.unwrap();
    let (_, port) = vip();
    let error = machine.plug((NETWORK_MAC.parse().unwrap(), port)).await.unwrap_err();
    assert_eq!(error.to_string(), "eth1 is already in use by fa:16:3e:00:21:01");
    assert_vip(&machine);
    assert!(machine.show_in(machine.outside.name(), &["link"]).contains("ens5"));
}

#[tokio::test]
async fn what_the_kernel_refuses_leaves_nothing_behind() {
    let Some(machine) = Machine::new(Topology::Single) else { return };
    machine.plug(network(PLUG_NETWORK)).await.unwrap();
    let before = (machine.addresses("eth2"), machine.routes());
    let error = machine.plug(refused()).await.unwrap_err();
    assert!(error.to_string().starts_with("cannot add the route to 0.0.0.0/0 via 10.77.0.100"), "{error}");
    let (plugged, failures) =
        machine.run(|plumbing| async move { (plumbing.plugged().await, plumbing.failures()) }).await;
    assert_eq!((names(&plugged), failures), (vec!["eth2"], BTreeMap::new()));
    assert_unplugged(&machine, "unplugged0", VIP_MAC);
    assert_lines(machine.rules(), &[]);
    assert_eq!((machine.addresses("eth2"), machine.routes()), before);
    // The right request is as good as the first one.
    machine.plug(vip()).await.unwrap();
    assert_lines(machine.addresses("eth1"), &VIP_ADDRESSES);
}

#[tokio::test]
async fn what_the_kernel_refuses_leaves_the_name_to_another_interface() {
    let Some(machine) = Machine::new(Topology::Single) else { return };
    machine.plug(refused()).await.unwrap_err();
    assert_eq!(machine.plug(elsewhere()).await.unwrap().interface.as_str(), "eth1");
    assert_vip_of(&machine, NETWORK_MAC);
    // It is free once more when that is unplugged.
    machine.run(|plumbing| async move { plumbing.unplug(NETWORK_MAC.parse().unwrap()).await.unwrap() }).await;
    assert_eq!(machine.plug(vip()).await.unwrap().interface.as_str(), "eth1");
    assert_vip_of(&machine, VIP_MAC);
    assert_unplugged(&machine, "unplugged1", NETWORK_MAC);
}

#[tokio::test]
async fn a_change_that_the_kernel_refuses_is_undone() {
    let Some(machine) = Machine::new(Topology::Single) else { return };
    let (mac, mut small) = vip();
    small.mtu = None;
    machine.plug((mac, small.clone())).await.unwrap();
    let (_, mut port) = refused();
    port.mtu = Some(1400);
    port.vip.as_mut().unwrap().vrrp = "10.77.0.7/24".parse().unwrap();
    port.vip.as_mut().unwrap().vips[1].address = "10.79.0.99".parse().unwrap();
    machine.plug((mac, port)).await.unwrap_err();
    assert_vip(&machine);
    assert!(machine.show(&["link", "show", "eth1"]).contains("mtu 1500"));
    assert!(!machine.plug((mac, small)).await.unwrap().changed);
}

#[tokio::test]
async fn an_agent_that_is_killed_before_it_moves_an_interface_has_left_only_the_record() {
    let Some(machine) = Machine::new(Topology::Single) else { return };
    record(&machine, refused(), &[]);
    // Another one waits until the first is unplugged, which may never have been there.
    let error = machine.plug(elsewhere()).await.unwrap_err();
    assert_eq!(error.to_string(), "eth1 is already in use by fa:16:3e:00:21:01");
    machine.run(|plumbing| async move { plumbing.unplug(vip().0).await.unwrap() }).await;
    machine.plug(elsewhere()).await.unwrap();
    assert_vip_of(&machine, NETWORK_MAC);
}

#[tokio::test]
async fn an_agent_that_is_killed_halfway_is_followed_by_one_that_finishes() {
    let Some(machine) = Machine::new(Topology::Single) else { return };
    // A plug: the interface is in the namespace with the name that it had outside, and nothing more.
    record(&machine, refused(), &[]);
    machine.make_inside();
    machine.outside.ip(&["link", "set", "ens4", "netns", &machine.inside]);
    machine.plug(vip()).await.unwrap();
    assert_vip(&machine);

    // A change: addresses of both documents are there.
    let (mac, mut port) = vip();
    port.vip.as_mut().unwrap().vrrp = "10.77.0.7/24".parse().unwrap();
    record(&machine, (mac, port), &["10.77.0.101/24", "10.79.0.55/32"]);
    machine.show(&["addr", "add", "10.77.0.7/24", "dev", "eth1"]);
    machine.show(&["addr", "add", "10.79.0.55/32", "dev", "eth1"]);
    machine.show(&["addr", "add", "10.79.0.56/32", "dev", "eth1"]);
    let restored = machine.run(|plumbing| async move { plumbing.restore().await.unwrap().len() }).await;
    assert_eq!(restored, 1);
    let expected = [
        &VIP_ADDRESSES[1..],
        &["inet 10.77.0.7/24 scope global eth1", "inet 10.79.0.56/32 scope global eth1"],
    ];
    assert_lines(machine.addresses("eth1"), &expected.concat());

    // The same, but the controller asks for the first document again before anybody finishes.
    record(&machine, refused(), &["10.77.0.7/24"]);
    machine.plug(vip()).await.unwrap();
    machine.show(&["addr", "del", "10.79.0.56/32", "dev", "eth1"]);
    assert_vip(&machine);
    let written = fs::read_to_string(machine.disk.path().join("octavia/interfaces.json")).unwrap();
    assert!(!written.contains("leftovers"), "{written}");
}

#[tokio::test]
async fn a_port_whose_interface_is_gone_is_unplugged_with_its_rules() {
    let Some(machine) = Machine::new(Topology::Single) else { return };
    machine.plug(vip()).await.unwrap();
    machine.show(&["link", "delete", "eth1"]);
    assert_lines(machine.rules(), &VIP_RULES);
    machine.run(|plumbing| async move { plumbing.unplug(vip().0).await.unwrap() }).await;
    assert_lines(machine.rules(), &[]);
}

#[tokio::test]
async fn the_vips_port_becomes_one_of_a_network() {
    let Some(machine) = Machine::new(Topology::Single) else { return };
    machine.plug(vip()).await.unwrap();
    let (_, port) = network(PLUG_NETWORK);
    assert_eq!(machine.plug((vip().0, port)).await.unwrap().interface.as_str(), "eth2");
    assert_eq!(machine.addresses("eth2").len(), 2);
    assert_lines(machine.rules(), &[]);
}

#[tokio::test]
async fn a_port_that_cannot_be_forgotten_stays_plugged() {
    let Some(machine) = Machine::new(Topology::Single) else { return };
    machine.plug(vip()).await.unwrap();
    let blocked = machine.disk.path().join("octavia/interfaces.json.unfinished");
    let error = machine
        .run(|plumbing| async move {
            fs::create_dir(&blocked).unwrap();
            let error = plumbing.unplug(vip().0).await.unwrap_err();
            fs::remove_dir(&blocked).unwrap();
            error
        })
        .await;
    assert!(matches!(error, PlugError::Storage(_)), "{error}");
    assert_vip(&machine);
}

#[tokio::test]
async fn a_host_route_that_the_kernel_refuses_is_left_out() {
    let Some(machine) = Machine::new(Topology::Single) else { return };
    let (mac, mut port) = network(PLUG_NETWORK);
    port.fixed_ips[0].host_routes[0].nexthop = "10.78.0.121".parse().unwrap();
    machine.plug((mac, port)).await.unwrap();
    assert!(!machine.routes().iter().any(|line| line.contains("198.51.100.0/24")));
    assert_eq!(machine.addresses("eth2").len(), 2);
}

#[tokio::test]
async fn nothing_is_plugged_without_a_namespace() {
    let disk = tempfile::tempdir().unwrap();
    let config = PlumbingConfig { namespace: None, topology: Topology::Single, pci_rescan: None };
    let (mac, port) = vip();
    let store = Arc::new(Store::open(disk.path()).unwrap());
    let error = Plumbing::open(config, store).unwrap().plug(mac, port).await.unwrap_err();
    assert!(matches!(error, PlugError::NoNamespace), "{error}");
}
