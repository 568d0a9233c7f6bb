//! The real driver of Octavia 19.0.0 against the real programs: what it does with every kind of object, with traffic after each step.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use amphora_tests::{eventually, in_namespace};
use rustls::{ClientConfig, pki_types::ServerName, version::TLS13};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsConnector;

use crate::ground::{AMPHORA, Ground};

const LB: &str = "33333333-3333-4333-8333-333333333333";
const WEB: &str = "44444444-4444-4444-8444-444444444444";
const TCP: &str = "44444444-4444-4444-8444-444444444445";
const TLS: &str = "44444444-4444-4444-8444-444444444446";
const POOL: &str = "66666666-6666-4666-8666-666666666666";
const STREAM: &str = "66666666-6666-4666-8666-666666666667";

/// Octavia's file, with the directories of an amphora.
const CONFIG: &str = "[DEFAULT]
debug = False
[haproxy_amphora]
base_cert_dir = /var/lib/octavia/certs
base_path = /var/lib/octavia
bind_host = 0.0.0.0
bind_port = 9443
[health_manager]
controller_ip_port_list = 172.30.0.2:5555
heartbeat_interval = 10
heartbeat_key = insecure
[amphora_agent]
agent_server_ca = /etc/octavia/certs/client_ca.pem
agent_server_cert = /etc/octavia/certs/server.pem
amphora_id = 22222222-2222-4222-8222-222222222222
[controller_worker]
loadbalancer_topology = SINGLE
";

/// The driver, in a process of its own in the management network.
struct Driver {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Driver {
    /// `None`, said loudly, without an Octavia.
    fn start(ground: &Ground) -> Option<Self> {
        let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
        let beside = tests.join("../target/octavia-venv/bin/python");
        let python = std::env::var_os("AMPHORA_OCTAVIA_PYTHON").map_or(beside, PathBuf::from);
        if !python.exists() {
            eprintln!("SKIPPED: no Octavia; set AMPHORA_OCTAVIA_PYTHON to a Python with the package octavia");
            return None;
        }
        let arguments = json!({
            "ca": ground.certificates.file("ca"),
            "client": ground.certificates.file("controller"),
            "base_path": ground.path("state"),
            "amphora": AMPHORA,
        });
        let mut child = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{}", ground.management.name()))
            .arg(python)
            .args([tests.join("octavia/driver.py").as_os_str(), arguments.to_string().as_ref()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(ground.path("driver.log")).unwrap())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Some(Self { child, stdin, stdout })
    }

    fn ask(&mut self, call: &str, arguments: Value) -> Value {
        let mut request = arguments;
        request["call"] = call.into();
        writeln!(self.stdin, "{request}").unwrap();
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{call}: {error}: {line:?}"))
    }

    fn does(&mut self, call: &str, arguments: Value) -> Value {
        let mut answer = self.ask(call, arguments);
        assert!(answer.get("error").is_none(), "{call}: {answer}");
        answer["ok"].take()
    }

    fn is_refused(&mut self, call: &str, arguments: Value) -> String {
        let answer = self.ask(call, arguments);
        answer["error"].as_str().unwrap_or_else(|| panic!("{call} is not refused: {answer}")).to_owned()
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A load balancer as the database has it.
fn load_balancer(listeners: Value, members: Value) -> Value {
    let mut stream = member(1);
    stream["id"] = "77777777-7777-4777-8777-777777777770".into();
    json!({
        "id": LB,
        "vip_address": "10.77.0.100",
        "listeners": listeners,
        "pools": [
            {"id": POOL, "protocol": "HTTP", "lb_algorithm": "ROUND_ROBIN", "members": members},
            {"id": STREAM, "protocol": "TCP", "lb_algorithm": "LEAST_CONNECTIONS", "members": [stream]},
        ],
    })
}

fn member(number: u8) -> Value {
    let id = format!("77777777-7777-4777-8777-77777777777{number}");
    json!({"id": id, "address": format!("10.77.0.1{number}"), "protocol_port": 80})
}

fn web() -> Value {
    json!({"id": WEB, "protocol": "HTTP", "protocol_port": 80, "default_pool_id": POOL})
}

fn tcp() -> Value {
    json!({"id": TCP, "protocol": "TCP", "protocol_port": 8080, "default_pool_id": STREAM})
}

/// Clients of the VIP and its members, in the network that the port is in.
struct Lan {
    name: String,
    roots: Arc<ClientConfig>,
}

impl Lan {
    /// Members 1 and 2, which answer with their numbers to whatever they are asked.
    async fn new(ground: &Ground) -> Self {
        for address in ["10.77.0.1/24", "10.77.0.11/24", "10.77.0.12/24", "10.77.0.13/24"] {
            ground.lan.ip(&["address", "add", address, "dev", "lan1"]);
        }
        for number in 1..=2 {
            let served = ground.lan.spawn(move || async move {
                let address: SocketAddr = format!("10.77.0.1{number}:80").parse().unwrap();
                let listener = TcpListener::bind(address).await.unwrap();
                while let Ok((mut stream, _)) = listener.accept().await {
                    tokio::spawn(async move {
                        let mut head = [0; 4096];
                        while let Ok(1..) = stream.read(&mut head).await {
                            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{number}");
                            if stream.write_all(answer.as_bytes()).await.is_err() {
                                return;
                            }
                        }
                    });
                }
            });
            drop(served);
        }
        let roots = ground.certificates.client(&[&TLS13], &["http/1.1"]);
        Self { name: ground.lan.name().to_owned(), roots }
    }

    /// The status and the body of an answer; `None` when nobody listens or it breaks off.
    async fn get(&self, port: u16, path: &str) -> Option<(u16, String)> {
        let path = path.to_owned();
        let work = move || async move {
            let mut stream = TcpStream::connect(SocketAddr::new([10, 77, 0, 100].into(), port)).await.ok()?;
            exchange(&mut stream, &path).await
        };
        in_namespace(&self.name, work).await
    }

    /// The same over TLS, with the certificate that was shown.
    async fn get_securely(&self, port: u16) -> Option<(u16, Vec<u8>)> {
        let config = self.roots.clone();
        let work = move || async move {
            let stream = TcpStream::connect(SocketAddr::new([10, 77, 0, 100].into(), port)).await.ok()?;
            let name = ServerName::try_from("shop.example").unwrap();
            let mut stream = TlsConnector::from(config).connect(name, stream).await.ok()?;
            let shown = stream.get_ref().1.peer_certificates()?.first()?.to_vec();
            let (status, _) = exchange(&mut stream, "/").await?;
            Some((status, shown))
        };
        in_namespace(&self.name, work).await
    }

    /// Who answers twelve requests one after another, each of them with 200.
    async fn members(&self) -> String {
        let mut members = Vec::new();
        for _ in 0..12 {
            let (status, body) = self.get(80, "/").await.expect("an answer");
            assert_eq!(status, 200, "{body}");
            members.push(body);
        }
        members.sort();
        members.dedup();
        members.concat()
    }
}

async fn exchange(
    stream: &mut (impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin),
    path: &str,
) -> Option<(u16, String)> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let answer = amphora_tests::read_message(stream, &mut Vec::new(), true).await.ok()??;
    Some((answer.status(), answer.text()))
}

/// A machine whose VIP the driver has plugged.
async fn plugged() -> Option<(Ground, Driver, Lan)> {
    let (ground, mut driver, lan) = plugged_as("SINGLE").await?;
    assert_eq!(driver.does("interface", json!({"ip": "10.77.0.100"})), "eth1");
    Some((ground, driver, lan))
}

/// The same of an amphora of this topology: of a pair, the address is VRRP's.
async fn plugged_as(topology: &str) -> Option<(Ground, Driver, Lan)> {
    let ground = Ground::start(&CONFIG.replace("SINGLE", topology)).await?;
    let mut driver = Driver::start(&ground)?;
    ground.hot_plug("lan1", "fa:16:3e:00:21:01");
    let lan = Lan::new(&ground).await;
    driver.does("plug_vip", json!({"mac": "fa:16:3e:00:21:01"}));
    // Again: a conflict, which the driver only warns of.
    driver.does("plug_vip", json!({"mac": "fa:16:3e:00:21:01"}));
    assert_eq!(driver.does("interface", json!({"ip": "10.77.0.101"})), "eth1");
    Some((ground, driver, lan))
}

#[tokio::test]
async fn objects_come_and_change_and_go() {
    let Some((ground, mut driver, lan)) = plugged().await else { return };
    let both = json!([member(1), member(2)]);
    let update = |driver: &mut Driver, lb: &Value| drop(driver.does("update", json!({ "lb": lb })));

    // A listener, a pool, members; one member less, and another that is new.
    update(&mut driver, &load_balancer(json!([web()]), both.clone()));
    assert_eq!(lan.members().await, "12");
    update(&mut driver, &load_balancer(json!([web()]), json!([member(2)])));
    assert_eq!(lan.members().await, "2");
    let mut weighted = both.clone();
    weighted[1]["weight"] = 0.into();
    update(&mut driver, &load_balancer(json!([web()]), weighted));
    assert_eq!(lan.members().await, "1");
    assert_eq!(driver.does("details", json!({}))["haproxy_count"], 1);

    // A monitor finds the third member dead, which nobody serves.
    let mut monitored = load_balancer(json!([web()]), json!([member(1), member(3)]));
    monitored["pools"][0]["healthmonitor"] = json!({
        "id": POOL, "type": "HTTP", "delay": 1, "timeout": 1, "fall_threshold": 1, "http_method": "GET",
        "url_path": "/", "expected_codes": "200",
    });
    update(&mut driver, &monitored);
    let client = ground.client();
    eventually("the third member is found dead", async || {
        let status =
            client.request("GET", &format!("/2.0/loadbalancers/{LB}/status"), None, b"").await.ok()?;
        status.text().contains("\"ERROR\"").then_some(())
    })
    .await;
    assert_eq!(lan.members().await, "1");

    // A policy, and none.
    let mut denied = load_balancer(json!([web()]), both.clone());
    denied["listeners"][0]["l7policies"] = json!([{
        "id": "88888888-8888-4888-8888-888888888888", "action": "REJECT", "position": 1,
        "rules": [{"id": "99999999-9999-4999-8999-999999999999", "type": "PATH", "compare_type": "STARTS_WITH", "value": "/no"}],
    }]);
    update(&mut driver, &denied);
    assert_eq!(lan.get(80, "/nothing").await.unwrap().0, 403);
    assert_eq!(lan.members().await, "12");
    update(&mut driver, &load_balancer(json!([web()]), both.clone()));
    assert_eq!(lan.get(80, "/nothing").await.unwrap().0, 200);

    // A second listener, and its end; the first serves on. Then the end of all.
    let two = load_balancer(json!([web(), tcp()]), both.clone());
    update(&mut driver, &two);
    assert_eq!(lan.get(8080, "/").await, Some((200, "1".to_owned())));
    assert_eq!(driver.does("listeners", json!({})).as_array().unwrap().len(), 2);
    driver.does("delete_listener", json!({"lb": two, "listener": TCP}));
    assert_eq!(lan.get(8080, "/").await, None);
    assert_eq!(lan.members().await, "12");
    let one = load_balancer(json!([web()]), both);
    driver.does("delete_listener", json!({"lb": one, "listener": WEB}));
    assert_eq!(lan.get(80, "/").await, None);
    assert_eq!(driver.does("listeners", json!({})), json!([]));
}

#[tokio::test]
async fn certificates_come_and_are_replaced_and_go() {
    let Some((ground, mut driver, lan)) = plugged().await else { return };
    ground.certificates.issue("shop", &["shop.example"]);
    let https = json!({
        "id": TLS, "protocol": "TERMINATED_HTTPS", "protocol_port": 443, "default_pool_id": POOL,
        "tls_certificate_id": ground.certificates.file("shop"),
    });
    let lb = load_balancer(json!([web(), https]), json!([member(1)]));
    driver.does("update", json!({ "lb": lb }));
    let (status, first) = lan.get_securely(443).await.unwrap();
    assert_eq!(status, 200);
    ground.certificates.issue("shop", &["shop.example"]);
    driver.does("update", json!({ "lb": lb }));
    let (_, second) = lan.get_securely(443).await.unwrap();
    assert_ne!(first, second);
    // The driver deletes the certificate first, and sends the text without the listener then.
    driver.does("delete_listener", json!({"lb": lb, "listener": TLS}));
    assert_eq!(lan.get_securely(443).await, None);
    assert_eq!(lan.members().await, "1");

    // The agent's own, by which the next connection knows it, and its configuration.
    ground.certificates.issue("next", &[AMPHORA]);
    driver.does("rotate", json!({"pem": ground.certificates.file("next")}));
    driver.does("details", json!({}));
    fs::write(ground.path("garbage"), "garbage").unwrap();
    assert_eq!(driver.is_refused("rotate", json!({"pem": ground.path("garbage")})), "InvalidRequest");
    driver.does("details", json!({}));
    let config = ground.translated(CONFIG);
    driver.does(
        "configure",
        json!({"text": config.replace("heartbeat_interval = 10", "heartbeat_interval = 3")}),
    );
    assert_eq!(driver.is_refused("configure", json!({"text": "not an ini"})), "InvalidRequest");
    assert!(fs::read_to_string(ground.path("octavia.conf")).unwrap().contains("heartbeat_interval = 3"));
}

#[tokio::test]
async fn traffic_goes_on_when_a_text_is_refused_and_the_agent_killed() {
    let Some((mut ground, mut driver, lan)) = plugged().await else { return };
    let before = load_balancer(json!([web()]), json!([member(1)]));
    driver.does("update", json!({ "lb": before }));
    let bad = json!({"lb": before, "text": "global\n    bogus directive\n"});
    assert_eq!(driver.is_refused("upload", bad), "InvalidRequest");
    assert_eq!(lan.members().await, "1");

    // Killed between the text and its reload: what ran runs on, whoever is there, and the text is taken up when it is asked for.
    let after = load_balancer(json!([web()]), json!([member(2)]));
    driver.does("upload", json!({ "lb": after }));
    ground.kill_agent();
    assert_eq!(lan.members().await, "1");
    ground.start_agent().await;
    assert_eq!(lan.members().await, "1");
    driver.does("reload", json!({ "lb": after }));
    assert_eq!(lan.members().await, "2");
}

#[tokio::test]
async fn a_load_balancer_that_is_stopped_keeps_its_address() {
    let Some((ground, mut driver, lan)) = plugged_as("ACTIVE_STANDBY").await else { return };
    let lb = load_balancer(json!([web()]), json!([member(1)]));
    driver.does("update", json!({ "lb": lb }));
    let vip = json!({"ip": "10.77.0.100"});
    assert_eq!(driver.is_refused("interface", vip.clone()), "NotFound", "the address is VRRP's");
    driver.does("start_vrrp", json!({"peer": "10.77.0.102"}));
    eventually("it is master", async || (driver.ask("interface", vip.clone())["ok"] == "eth1").then_some(()))
        .await;
    eventually("the address answers", async || lan.get(80, "/").await).await;
    assert_eq!(lan.members().await, "1");

    driver.does("stop", json!({ "lb": lb }));
    assert_eq!(lan.get(80, "/").await, None);
    driver.does("reload_vrrp", json!({}));
    driver.does("reload", json!({ "lb": lb }));
    assert_eq!(lan.members().await, "1");
    let status = ground.client().request("GET", "/2.0/vrrp/status", None, b"").await.unwrap();
    let status: Value = serde_json::from_slice(&status.body).unwrap();
    let router = &status["instances"][0];
    assert_eq!(
        (&router["state"], &router["counters"]["became_master"]),
        (&json!("MASTER"), &json!(1)),
        "{router}"
    );

    driver.does("stop_vrrp", json!({}));
    assert_eq!(driver.is_refused("interface", vip), "NotFound");
}

#[tokio::test]
async fn what_no_rule_lets_in_stays_out() {
    let Some((mut ground, mut driver, lan)) = plugged().await else { return };
    driver.does("update", json!({"lb": load_balancer(json!([web(), tcp()]), json!([member(1)]))}));
    assert_eq!((lan.members().await, lan.get(8080, "/").await.is_some()), ("1".to_owned(), true));
    let allow = |port: u16| json!({"rules": [{"protocol": "TCP", "cidr": "10.77.0.0/24", "port": port}]});
    let comes_in =
        async |port| tokio::time::timeout(Duration::from_secs(1), lan.get(port, "/")).await.is_ok();
    // In force from the first time on, which with Octavia's own agent they are not.
    driver.does("rules", allow(80));
    assert_eq!((comes_in(80).await, comes_in(8080).await), (true, false));
    let wrong = json!({"rules": [{"protocol": "TCP", "cidr": "10.77.0.0/24 accept", "port": 8080}]});
    assert_eq!(driver.is_refused("rules", wrong), "InvalidRequest");
    assert_eq!((comes_in(80).await, comes_in(8080).await), (true, false));
    driver.does("rules", allow(8080));
    assert_eq!((comes_in(80).await, comes_in(8080).await), (false, true));
    ground.kill_agent();
    ground
        .data_plane
        .run(|| async { assert!(Command::new("nft").args(["flush", "ruleset"]).status().unwrap().success()) })
        .await;
    assert!(comes_in(80).await);
    ground.start_agent().await;
    assert_eq!((comes_in(80).await, comes_in(8080).await), (false, true), "as after a boot");
    driver.does("rules", json!({"rules": []}));
    assert!(!comes_in(8080).await);
}
