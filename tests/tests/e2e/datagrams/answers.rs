//! The way by which answers leave.

use super::*;

/// Of a client that comes by the port of the VIPs, and whose network a port of members reaches, too.
const FAR: &str = "198.51.100.7";
const FAR6: &str = "2001:db8:99::7";

impl Network {
    /// As an amphora has it: what leaves from a VIP is routed by table 1. The members' way leads nowhere.
    fn far(&self) {
        for (ip, vip, far, networks, client, member) in [
            ("-4", VIP, FAR, "198.51.100.0/24", CLIENT, "10.9.0.5"),
            ("-6", VIP6, FAR6, "2001:db8:99::/64", CLIENT6, "2001:db8:9::5"),
        ] {
            self.client.ip(&[ip, "address", "add", far, "dev", "lo"]);
            self.client.ip(&[ip, "route", "add", "default", "via", vip]);
            self.amphora.ip(&[ip, "route", "add", networks, "via", member]);
            self.amphora.ip(&[ip, "route", "add", "default", "via", client, "table", "1"]);
            self.amphora.ip(&[ip, "rule", "add", "from", vip, "table", "1", "priority", "32000"]);
        }
        self.amphora.exec(&["sysctl", "-q", "-w", "net.ipv4.conf.front.rp_filter=2"]);
    }

    /// The rules of routing by marks, of both families.
    fn by_mark(&self) -> Vec<String> {
        let list = |family| {
            let listed =
                Command::new("ip").args(["-n", self.amphora.name(), family, "rule"]).output().unwrap();
            String::from_utf8(listed.stdout).unwrap()
        };
        let rules = ["-4", "-6"].map(list).concat();
        rules.lines().filter(|rule| rule.contains("fwmark")).map(str::to_owned).collect()
    }
}

#[tokio::test]
async fn answers_leave_by_the_vips_port_where_members_reach_the_client() {
    let Some(network) = Network::create() else { return };
    let (four, six) = (network.member(2, true).await, network.member(2, false).await);
    network.far();
    let mut proxy = network.proxy(document(&pool([(&four, 1), (&six, 1)]))).await;
    let rules = network.by_mark();
    assert_eq!(rules.len(), 2, "{rules:?}");
    assert!(rules.iter().all(|rule| rule.starts_with("32000:") && rule.ends_with("lookup 1")), "{rules:?}");
    let flows = [network.flow(FAR).await, network.flow(FAR6).await];
    let large: Vec<u8> = (0..5_000_u32).map(|n| n as u8).collect();
    for flow in &flows {
        assert_eq!(flow.ask(&large).unwrap().2, large, "in fragments, both ways");
    }
    // Of the same amphora: those whom no table but the main one knows, and those beside the VIP.
    assert_eq!((network.flow(CLIENT).await.member(), network.flow(CLIENT6).await.member()), (2, 2));

    // What a mark of the operator's says is there yet, and another hand is undone.
    network.nft(&["add", "table", "inet", "operator"]);
    let chain = "{ type filter hook prerouting priority -190; }";
    network.nft(&["add", "chain", "inet", "operator", "marks", chain]);
    network.nft(&["add", "rule", "inet", "operator", "marks", "meta", "mark", "set", "0x7"]);
    let chain = "{ type filter hook forward priority 0; }";
    network.nft(&["add", "chain", "inet", "operator", "seen", chain]);
    network
        .nft(&["add", "rule", "inet", "operator", "seen", "meta", "mark", "&", "0x7", "!=", "0x7", "drop"]);
    network.amphora.ip(&["rule", "del", "fwmark", "0x40000000/0x40000000"]);
    eventually("the rule is there again", async || (network.by_mark().len() == 2).then_some(())).await;
    assert!(proxy.log().contains("another hand had removed the rule"), "{}", proxy.log());
    assert_eq!(flows.each_ref().map(Flow::member), [2, 2]);

    // What the amphora says itself of the path, and what members say.
    network.amphora.ip(&["link", "set", "back", "mtu", "1300"]);
    network.members.ip(&["link", "set", "amphora", "mtu", "1300"]);
    for flow in &flows {
        flow.0.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        eventually("the client has learned of the path", async || {
            flow.ask(&large[..1400]).ok().filter(|(_, _, payload)| payload[..] == large[..1400])
        })
        .await;
    }
    four.end().await;
    six.end().await;
    for flow in &flows {
        assert!(flow.is_refused().await, "the member's error is the VIP's");
    }
    proxy.change(|document| document.listeners.clear()).await;
    assert_eq!(network.by_mark(), [""; 0]);
}

#[tokio::test]
async fn answers_find_their_way_where_no_table_is_the_vips() {
    let Some(network) = Network::create() else { return };
    let member = network.member(2, true).await;
    network.client.ip(&["address", "add", FAR, "dev", "lo"]);
    network.amphora.ip(&["route", "add", FAR, "via", CLIENT]);
    // A table of the VIPs' without a gateway.
    network.amphora.ip(&["route", "add", "203.0.113.0/24", "dev", "front", "src", VIP, "table", "1"]);
    let _proxy = network.proxy(document(&pool([(&member, 1)]))).await;
    assert_eq!((network.flow(FAR).await.member(), network.flow(CLIENT).await.member()), (2, 2));
}

#[tokio::test]
async fn a_member_at_the_amphora_answers_by_the_vips_port() {
    let Some(network) = Network::create() else { return };
    network.far();
    let address = SocketAddr::from(([10, 9, 0, 1], 5300));
    let (ready, is_ready) = oneshot::channel();
    let _served = network.amphora.spawn(move || async move {
        let socket = tokio::net::UdpSocket::bind(address).await.unwrap();
        ready.send(()).unwrap();
        let mut buffer = [0; 64];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let answer = [&b"1 here "[..], &buffer[..length]].concat();
            socket.send_to(&answer, from).await.unwrap();
            if &buffer[..length] == b"end" {
                return;
            }
        }
    });
    in_time("the member is there", is_ready).await.unwrap();
    let pool = Pool::new("UDP").member(Member::at(address));
    let _proxy = network.proxy(document(&pool)).await;
    let flow = network.flow(FAR).await;
    for payload in [&b"who"[..], b"end"] {
        assert_eq!(flow.ask(payload).unwrap(), (1, "here".to_owned(), payload.to_vec()));
    }
}
