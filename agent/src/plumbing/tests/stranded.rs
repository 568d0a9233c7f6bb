//! Connections of addresses that go by another hand.

use std::{
    io::{ErrorKind, Read},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
};

use socket2::{Domain, Socket, Type};

use super::*;

/// A connection from an address of the amphora to a host beyond an interface, and its other end.
async fn connected(machine: &Machine, from: &str, to: &str) -> (TcpStream, TcpStream) {
    let (from, to): (IpAddr, IpAddr) = (from.parse().unwrap(), to.parse().unwrap());
    let listener = machine.cloud.run(move || async move { TcpListener::bind((to, 0)).unwrap() }).await;
    let to = listener.local_addr().unwrap();
    let stream = amphora_tests::in_namespace(&machine.inside, move || async move {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::new(from, 0).into()).unwrap();
        socket.connect_timeout(&to.into(), Duration::from_secs(10)).unwrap();
        TcpStream::from(socket)
    })
    .await;
    (stream, listener.accept().unwrap().0)
}

#[tokio::test]
async fn connections_end_with_an_address_that_another_hand_takes_away_and_those_of_a_vip_stay() {
    let Some(machine) = Machine::new(Topology::Single) else { return };
    machine.plug(vip()).await.unwrap();
    machine.plug(network(PLUG_NETWORK_UPDATE)).await.unwrap();
    for (interface, address) in [("ens4", "10.77.0.2/24"), ("ens5", "10.78.0.2/24")] {
        machine.cloud.ip(&["address", "add", address, "dev", interface]);
    }
    let (member, _member) = connected(&machine, "10.78.0.121", "10.78.0.2").await;
    let (other, _other) = connected(&machine, "10.78.0.122", "10.78.0.2").await;
    let (client, _client) = connected(&machine, "10.77.0.100", "10.77.0.2").await;
    let inside = machine.inside.clone();
    machine
        .run(move |plumbing| async move {
            let watch = tokio::spawn(plumbing.watch_addresses());
            let ip = move |args: &[&str]| {
                assert!(Command::new("ip").args(["-n", &inside]).args(args).status().unwrap().success());
            };
            for stream in [&member, &other, &client] {
                stream.set_nonblocking(true).unwrap();
            }
            let fails = |mut stream: &TcpStream| {
                let error = stream.read(&mut [0]).unwrap_err().kind();
                (error != ErrorKind::WouldBlock).then_some(error)
            };
            // When the watch has begun is not told: the address goes until it is seen.
            let mut failed = None;
            eventually("the connection fails", async || {
                let addresses = [("10.77.0.100/32", "eth1"), ("10.78.0.121/24", "eth2")];
                for change in ["replace", "del"] {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    addresses.iter().for_each(|(address, at)| ip(&["address", change, address, "dev", at]));
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
                failed = fails(&member);
                failed.is_some()
            })
            .await;
            assert_eq!(failed, Some(ErrorKind::ConnectionAborted));
            assert_eq!((fails(&other), fails(&client)), (None, None));
            watch.abort();
        })
        .await;
}
