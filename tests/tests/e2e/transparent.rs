//! Members that are connected to from the addresses of clients, in network namespaces. As root, where the kernel has nf_tables.

use std::{
    net::{IpAddr, SocketAddr},
    process::Command,
};

use amphora_tests::{Client, Document, Listener, Member, Namespace, Pool, eventually, in_time};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::oneshot,
};

use super::datagrams::{CLIENT, CLIENT6, NEIGHBOUR, Network, VIP, VIP6};

const HTTP: u16 = 80;
const TCP: u16 = 81;

/// A member that tells each connection, on its first bytes and all that follow, from which address it comes: as a response of
/// HTTP. Until the value is dropped.
async fn member(network: &Network, number: u8, v4: bool) -> (SocketAddr, oneshot::Sender<()>) {
    let ip: IpAddr = match v4 {
        true => format!("10.9.0.{number}"),
        false => format!("2001:db8:9::{number}"),
    }
    .parse()
    .unwrap();
    let address = SocketAddr::new(ip, 8080);
    let (stop, mut stopped) = oneshot::channel::<()>();
    let (ready, is_ready) = oneshot::channel();
    let _ended = network.members.spawn(move || async move {
        let listener = TcpListener::bind(address).await.unwrap();
        ready.send(()).unwrap();
        loop {
            tokio::select! {
                _ = &mut stopped => return,
                accepted = listener.accept() => {
                    let Ok((mut stream, from)) = accepted else { continue };
                    tokio::spawn(async move {
                        let body = format!("{}", from.ip());
                        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                        let mut buffer = [0; 4096];
                        while let Ok(1..) = stream.read(&mut buffer).await {
                            if stream.write_all(answer.as_bytes()).await.is_err() {
                                return;
                            }
                        }
                    });
                }
            }
        }
    });
    in_time("the member is there", is_ready).await.unwrap();
    (address, stop)
}

/// The members answer through the amphora, as where it is their gateway.
fn members_answer_through_the_amphora(network: &Network) {
    network.members.ip(&["route", "add", "default", "via", "10.9.0.1"]);
    network.members.ip(&["-6", "route", "add", "default", "via", "2001:db8:9::1"]);
}

fn transparent(members: &[SocketAddr], protocol: &str) -> Pool {
    let pool = members.iter().map(|address| Member::at(*address)).fold(Pool::new(protocol), Pool::member);
    pool.with("amphora", json!({"transparent_client_address": true}))
}

fn document(pool: &Pool) -> Document {
    Document::at(VIP.parse().unwrap())
        .with("additional_vips", json!([{ "ip_address": VIP6 }]))
        .listener(Listener::http().port(HTTP).to(pool))
        .listener(Listener::tcp().port(TCP).to(pool))
        .pool(pool)
}

/// What a member says of a client that has this address, for each of so many requests on one connection.
async fn told(network: &Network, from: &str, port: u16, requests: usize) -> Vec<String> {
    in_time("the client is told", ask(network, from, port, requests)).await.unwrap()
}

/// Asks for that.
fn ask(network: &Network, from: &str, port: u16, requests: usize) -> oneshot::Receiver<Vec<String>> {
    let from: IpAddr = from.parse().unwrap();
    let vip: IpAddr = if from.is_ipv4() { VIP } else { VIP6 }.parse().unwrap();
    network.client.spawn(move || async move {
        let mut client = Client::connect_from(from, SocketAddr::new(vip, port)).await;
        let mut told = Vec::new();
        for _ in 0..requests {
            told.push(client.get("/").await.text());
        }
        told
    })
}

fn by_mark(amphora: &Namespace) -> Vec<String> {
    let list = |family| {
        let listed = Command::new("ip").args(["-n", amphora.name(), family, "rule"]).output().unwrap();
        String::from_utf8(listed.stdout).unwrap()
    };
    let rules = ["-4", "-6"].map(list).concat();
    rules.lines().filter(|rule| rule.contains("fwmark")).map(str::to_owned).collect()
}

#[tokio::test]
async fn members_see_the_addresses_of_clients() {
    let Some(network) = Network::create() else { return };
    members_answer_through_the_amphora(&network);
    let (first, _first) = member(&network, 2, true).await;
    let (second, _second) = member(&network, 3, true).await;
    let (six, _six) = member(&network, 2, false).await;
    let mut proxy = network.proxy(document(&transparent(&[first, second], "HTTP"))).await;
    assert_eq!(by_mark(&network.amphora).len(), 1, "of IPv4 alone: {:?}", by_mark(&network.amphora));

    // No connection serves two clients, and none of them is another's.
    let mut asking = Vec::new();
    for round in 0..40 {
        let from = if round % 2 == 0 { CLIENT } else { NEIGHBOUR };
        let port = if round % 4 < 2 { HTTP } else { TCP };
        asking.push((from, ask(&network, from, port, 25)));
    }
    for (from, told) in asking {
        let told = in_time("the client is told", told).await.unwrap();
        assert!(told.iter().all(|told| told == from), "{from}: {told:?}");
    }
    // There is no such connection to a member of the other version of IP.
    assert_eq!(told(&network, CLIENT6, HTTP, 1).await, ["10.9.0.1"]);

    // Another hand is undone, and IPv6 has its own.
    network.amphora.ip(&["rule", "del", "priority", "31000"]);
    eventually("the rule is there again", async || (by_mark(&network.amphora).len() == 1).then_some(()))
        .await;
    assert_eq!(told(&network, CLIENT, HTTP, 1).await, [CLIENT]);
    let pool = proxy.document.pools[0].clone();
    proxy
        .change(|document| {
            let mut both = transparent(&[first, second, six], "HTTP");
            both.id = pool.id;
            document.pools[0] = both;
        })
        .await;
    assert_eq!(by_mark(&network.amphora).len(), 2);
    let of_six = told(&network, CLIENT6, HTTP, 6).await;
    assert!(of_six.iter().any(|told| told == CLIENT6), "{of_six:?}");
    assert!(of_six.iter().all(|told| told == CLIENT6 || told == "10.9.0.1"), "{of_six:?}");

    // Without it all is as before, and nothing is left.
    proxy.change(|document| document.pools[0] = document.pools[0].clone().with("amphora", json!(null))).await;
    assert_eq!(told(&network, CLIENT, HTTP, 1).await, ["10.9.0.1"]);
    assert_eq!(by_mark(&network.amphora), [""; 0]);
    assert!(!network.nft(&["list", "tables"]).contains("amphora_datagram"));
}
