//! Errors of members, and who may have made them up.

use super::*;

/// An ICMP error: a datagram from the amphora to the member's port has met nobody. From any address of the members' namespace.
fn port_unreachable(source: [u8; 4], flow_port: u16, member: u8) -> Vec<u8> {
    let sum = |bytes: &[u8]| {
        let words = bytes.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
        let sum: u32 = words.sum();
        !(((sum & 0xffff) + (sum >> 16)) as u16)
    };
    let header = |protocol: u8, length: u16, from: [u8; 4], to: [u8; 4]| {
        let mut header = [&[0x45, 0][..], &length.to_be_bytes(), &[0, 1, 0, 0, 64, protocol, 0, 0]].concat();
        header.extend([from, to].concat());
        let check = sum(&header).to_be_bytes();
        header[10..12].copy_from_slice(&check);
        header
    };
    let mut icmp = vec![3, 3, 0, 0, 0, 0, 0, 0];
    icmp.extend(header(17, 31, AMPHORA, [10, 9, 0, member]));
    icmp.extend([flow_port.to_be_bytes(), 5300_u16.to_be_bytes(), 11_u16.to_be_bytes(), [0; 2]].concat());
    let check = sum(&icmp).to_be_bytes();
    icmp[2..4].copy_from_slice(&check);
    [header(1, 20 + icmp.len() as u16, source, AMPHORA), icmp].concat()
}

const AMPHORA: [u8; 4] = [10, 9, 0, 1];

#[tokio::test]
async fn icmp_errors_alone_take_no_member_down() {
    let Some(network) = Network::create() else { return };
    let (one, other) = (network.member(2, true).await, network.member(3, true).await);
    let pool = pool([(&one, 1), (&other, 1)]).monitored(&HealthMonitor::new("UDP-CONNECT"));
    let proxy = network.proxy(document(&pool)).await;
    let (_, flows) = network.spread(CLIENT, 2).await;
    let of = |number: u8| flows.iter().find(|flow| flow.member() == number).unwrap();
    let ports = [of(2), of(3)].map(|flow| flow.0.local_addr().unwrap().port());
    proxy.until_member(1, "they are checked", |member| member.check.to_string() == "UP").await;
    let errors = async |source: [u8; 4]| {
        let packet = move |member: u8| port_unreachable(source, ports[usize::from(member) - 2], member);
        let sent = network.members.run(move || async move {
            let raw = socket2::Type::RAW;
            let socket = socket2::Socket::new(socket2::Domain::IPV4, raw, Some(255.into())).unwrap();
            let to = SocketAddr::from((AMPHORA, 0)).into();
            for member in [2, 3] {
                socket.send_to(&packet(member), &to).unwrap();
            }
        });
        sent.await;
    };
    let counted = |member: u8| {
        let set = network.nft(&["list", "set", "inet", "amphora_datagram", "refused4"]);
        let element = set.split(&format!(". 10.9.0.{member} counter packets ")).nth(1).unwrap().to_owned();
        element.split(' ').next().unwrap().parse::<u64>().unwrap()
    };
    let down = async || {
        let stats = proxy.stats().await;
        let members = stats.pools.values().next().unwrap().members.values();
        members.filter(|member| !member.check.is_up()).count()
    };
    // Of another host's address they are no member's, and clients that have gone away say nothing of members.
    errors([10, 9, 0, 5]).await;
    let gone = network.flow(CLIENT).await;
    gone.0.send(b"who").unwrap();
    drop(gone);
    errors([10, 9, 0, 2]).await;
    eventually("those of the member's address are counted", async || (counted(2) == 1).then_some(())).await;
    assert_eq!(counted(3), 0, "from another's address");

    // Members that answer clients are there, whatever else comes from their address.
    let asking = Asking::begin(&flows);
    for round in 2..30 {
        errors([10, 9, 0, 2]).await;
        eventually("they are counted", async || (counted(2) == round).then_some(())).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(down().await, 0);
    }
    asking.end();
}
