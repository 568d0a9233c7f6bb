//! Ports of SR-IOV, which nothing outside filters.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    process::Stdio,
};

use super::*;

const PORT: u16 = 8080;

fn machine() -> Option<Machine> {
    let machine = Machine::new(Topology::Single)?;
    machine.cloud.ip(&["address", "add", "10.77.0.2/24", "dev", "ens4"]);
    machine.cloud.ip(&["address", "add", "10.78.0.2/24", "dev", "ens5"]);
    if Command::new("nft").arg("--version").stdout(Stdio::null()).status().is_err() {
        eprintln!("SKIPPED: there is no nft (Debian: nftables)");
        return None;
    }
    Some(machine)
}

fn network_of_sriov() -> (MacAddress, Port) {
    network(&PLUG_NETWORK.replace("\"is_sriov\": false", "\"is_sriov\": true"))
}

fn vip_of_sriov() -> (MacAddress, Port) {
    let body = PLUG_VIP.replace("\"is_sriov\": false", "\"is_sriov\": true");
    Port::from_plug_vip("10.77.0.100", body.as_bytes()).unwrap()
}

async fn plug_filtered(machine: &Machine, (mac, port): (MacAddress, Port)) -> Outcome {
    machine.run(move |plumbing| async move { plumbing.plug_filtered(mac, port).await.unwrap() }).await
}

/// On a thread in the namespace of the data plane.
fn inside<T: Send + 'static>(machine: &Machine, work: impl FnOnce() -> T + Send + 'static) -> T {
    let namespace = amphora_netlink::Namespace::named(&machine.inside).unwrap();
    let thread = std::thread::spawn(move || {
        namespace.enter().unwrap();
        work()
    });
    thread.join().unwrap()
}

/// Somebody inside who lets all in.
fn listen(machine: &Machine) -> TcpListener {
    inside(machine, || TcpListener::bind(("0.0.0.0", PORT)).unwrap())
}

/// Somebody from the cloud gets in: at once, or when the link is there.
async fn comes_in(machine: &Machine, address: &str) -> bool {
    connects(machine, address, Duration::from_secs(10)).await
}

/// Nobody does, for as long as one asks twice.
async fn stays_out(machine: &Machine, address: &str) -> bool {
    !connects(machine, address, Duration::from_millis(1200)).await
}

async fn connects(machine: &Machine, address: &str, patience: Duration) -> bool {
    let to: SocketAddr = format!("{address}:{PORT}").parse().unwrap();
    machine.cloud.run(move || async move { TcpStream::connect_timeout(&to, patience).is_ok() }).await
}

async fn allow(machine: &Machine, interface: &'static str) {
    let rules = filter::read(br#"[{"protocol": "TCP", "cidr": null, "port": 8080}]"#).unwrap();
    machine
        .run(move |plumbing| async move {
            plumbing.set_filter(InterfaceName::new(interface).unwrap(), Some(rules)).await.unwrap();
        })
        .await;
}

const VIP: &str = "10.77.0.100";
const MEMBERS: &str = "10.78.0.121";

#[tokio::test]
async fn a_port_of_members_is_closed_and_the_vip_is_open() {
    let Some(machine) = machine() else { return };
    machine.plug(vip()).await.unwrap();
    assert_eq!(plug_filtered(&machine, network_of_sriov()).await.interface.as_str(), "eth2");
    let listener = listen(&machine);
    assert!(comes_in(&machine, VIP).await && stays_out(&machine, MEMBERS).await);

    // What is asked for comes in: a member's answers.
    let member = machine.cloud.run(|| async { TcpListener::bind("10.78.0.2:9000").unwrap() }).await;
    let to = "10.78.0.2:9000".parse().unwrap();
    inside(&machine, move || TcpStream::connect_timeout(&to, Duration::from_secs(10)).unwrap());
    drop(member);

    // After a reboot, too; rules open it.
    drop(listener);
    machine.reboot();
    machine.run(|plumbing| async move { plumbing.restore().await.unwrap() }).await;
    for (interface, net) in [("ens4", "10.77.0.2/24"), ("ens5", "10.78.0.2/24")] {
        machine.cloud.ip(&["address", "add", net, "dev", interface]);
    }
    let _listener = listen(&machine);
    assert!(comes_in(&machine, VIP).await && stays_out(&machine, MEMBERS).await);
    allow(&machine, "eth2").await;
    assert!(comes_in(&machine, VIP).await && comes_in(&machine, MEMBERS).await);
}

#[tokio::test]
async fn a_vip_is_closed_until_there_are_rules() {
    let Some(machine) = machine() else { return };
    plug_filtered(&machine, vip_of_sriov()).await;
    machine.plug(network(PLUG_NETWORK)).await.unwrap();
    let _listener = listen(&machine);
    assert!(stays_out(&machine, VIP).await && stays_out(&machine, MEMBERS).await);
    allow(&machine, "eth1").await;
    assert!(comes_in(&machine, VIP).await && stays_out(&machine, MEMBERS).await);
    // Plugged again it keeps them.
    plug_filtered(&machine, vip_of_sriov()).await;
    assert!(comes_in(&machine, VIP).await);
}

/// The name of a port that could not be plugged is free for one that is open.
#[tokio::test]
async fn a_port_that_is_refused_leaves_no_rules() {
    let Some(machine) = machine() else { return };
    let (mac, mut port) = vip_of_sriov();
    // An address of its own is no gateway, as the kernel knows.
    port.vip.as_mut().unwrap().vips[0].gateway = Some(VIP.parse().unwrap());
    machine.run(move |plumbing| async move { plumbing.plug_filtered(mac, port).await.unwrap_err() }).await;
    machine.plug(vip()).await.unwrap();
    let _listener = listen(&machine);
    assert!(comes_in(&machine, VIP).await);
}
