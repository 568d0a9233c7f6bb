//! Networks of members and other VIPs, as the real driver plugs them.

use std::{
    fs::File,
    path::Path,
    process::{Child, Command, Stdio},
};

use amphora_tests::{Namespace, eventually};
use serde_json::{Value, json};

use crate::{
    controller::{CONFIG, Driver, Lan, load_balancer, member, web},
    driver::plugged,
    ground::{Ground, hot_plug},
};

#[tokio::test]
async fn networks_of_members_and_other_vips_are_plugged() {
    let Some(ground) = Ground::start(CONFIG).await else { return };
    let Some(mut driver) = Driver::start(&ground) else { return };
    ground.hot_plug("lan1", "fa:16:3e:00:21:01");
    let lan = Lan::new(&ground).await;
    ground.lan.ip(&["address", "add", "fd77::1/64", "dev", "lan1", "nodad"]);
    ground.lan.ip(&["address", "add", "10.79.0.1/24", "dev", "lan1"]);
    let more = json!([
        {"ip_address": "fd77::100", "cidr": "fd77::/64", "gateway_ip": "fd77::1"},
        {"ip_address": "10.79.0.100", "cidr": "10.79.0.0/24", "gateway_ip": "10.79.0.1"},
    ]);
    driver.does("plug_vip", json!({"mac": "fa:16:3e:00:21:01", "additional": more}));
    for address in ["10.77.0.100", "fd77::100", "10.79.0.100"] {
        assert_eq!(driver.does("interface", json!({ "ip": address })), "eth1", "{address}");
    }

    // Members in a network of their own, one of them behind a router of it.
    let Some(backend) = Namespace::create() else { return };
    let plug = |driver: &mut Driver, ip: &str, routes: Value| {
        let fixed = json!([{"ip_address": ip, "cidr": "10.78.0.0/24", "routes": routes}]);
        driver.does("plug_network", json!({"mac": "fa:16:3e:00:21:02", "fixed_ips": fixed}));
    };
    hot_plug(&ground.management, &backend, "lan2", "fa:16:3e:00:21:02");
    for address in ["10.78.0.11/24", "192.0.2.12/32"] {
        backend.ip(&["address", "add", address, "dev", "lan2"]);
    }
    for (number, address) in [(1, "10.78.0.11:80"), (2, "192.0.2.12:80")] {
        Lan::member(&backend, number, address.parse().unwrap()).await;
    }
    plug(&mut driver, "10.78.0.10", json!({"192.0.2.0/24": "10.78.0.11"}));
    plug(&mut driver, "10.78.0.10", json!({"192.0.2.0/24": "10.78.0.11"}));
    assert_eq!(driver.does("interface", json!({"ip": "10.78.0.10"})), "eth2");
    let mut members = json!([member(1), member(2)]);
    (members[0]["address"], members[1]["address"]) = ("10.78.0.11".into(), "192.0.2.12".into());
    let mut lb = load_balancer(json!([web()]), members);
    lb["additional_vips"] = json!(["fd77::100", "10.79.0.100"]);
    assert_eq!(driver.does("update", json!({ "lb": lb })), json!([]));
    assert_eq!(lan.members().await, "12");
    let request = "GET / HTTP/1.1\r\nHost: shop.example";
    for address in ["[fd77::100]:80", "10.79.0.100:80"] {
        // One of IPv6 is looked for in the network before it is used.
        let answer = eventually(address, async || lan.send(address.parse().unwrap(), request).await).await;
        assert_eq!(answer.status(), 200, "{address}");
    }

    // Another address, and no way to the router any more; then the other VIPs go, and the first stays.
    plug(&mut driver, "10.78.0.20", json!({}));
    assert_eq!(driver.does("interface", json!({"ip": "10.78.0.20"})), "eth2");
    assert_eq!(driver.is_refused("interface", json!({"ip": "10.78.0.10"})), "NotFound");
    // The connections to members that it kept were of the former address.
    assert_eq!(
        lan.send("10.77.0.100:80".parse().unwrap(), request).await.map(|answer| answer.status()),
        Some(200)
    );
    lb["pools"][0]["members"] = json!([member(1), member(2)]);
    lb["additional_vips"] = json!([]);
    driver.does("update", json!({ "lb": lb }));
    assert_eq!(lan.members().await, "12");
    assert!(lan.send("[fd77::100]:80".parse().unwrap(), request).await.is_none());
}

/// A server of DHCP that has one address to give.
struct Server(Child);

impl Server {
    /// `None`, said loudly, without dnsmasq.
    fn start(network: &Namespace, directory: &Path) -> Option<Self> {
        if Command::new("dnsmasq").arg("--version").stdout(Stdio::null()).status().is_err() {
            eprintln!("SKIPPED: there is no dnsmasq (Debian: dnsmasq-base)");
            return None;
        }
        let log = File::create(directory.join("dnsmasq.log")).unwrap();
        let leases = format!("--dhcp-leasefile={}", directory.join("leases").display());
        let started = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{}", network.name()))
            .args(["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--user=root"])
            .args([
                "--interface=lan2",
                "--bind-interfaces",
                "--no-ping",
                "--dhcp-authoritative",
                "--pid-file=",
            ])
            .args(["--dhcp-range=10.78.0.50,10.78.0.50,1h", &leases])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Some(Self(started))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_port_without_addresses_is_given_one_and_keeps_it() {
    let Some((mut ground, mut driver, lan)) = plugged().await else { return };
    let Some(backend) = Namespace::create() else { return };
    hot_plug(&ground.management, &backend, "lan2", "fa:16:3e:00:21:02");
    backend.ip(&["address", "add", "10.78.0.11/24", "dev", "lan2"]);
    Lan::member(&backend, 1, "10.78.0.11:80".parse().unwrap()).await;
    let Some(server) = Server::start(&backend, ground.certificates.path()) else { return };
    driver.does("plug_network", json!({"mac": "fa:16:3e:00:21:02", "fixed_ips": []}));
    let given = json!({"ip": "10.78.0.50"});
    eventually("it has the address", async || driver.ask("interface", given.clone()).get("ok").cloned())
        .await;
    let mut members = json!([member(1)]);
    members[0]["address"] = "10.78.0.11".into();
    driver.does("update", json!({"lb": load_balancer(json!([web()]), members)}));
    assert_eq!(lan.members().await, "1");

    // Neither the agent nor the server has to be there for it; and the agent that comes back has it, and says what is true.
    ground.kill_agent();
    drop(server);
    assert_eq!(lan.members().await, "1");
    ground.start_agent().await;
    assert_eq!((driver.does("interface", given), lan.members().await), (json!("eth2"), "1".to_owned()));
    let health = ground.client().request("GET", "/2.0/health", None, b"").await.unwrap();
    assert_eq!(health.status(), 200, "{}", health.text());
}
