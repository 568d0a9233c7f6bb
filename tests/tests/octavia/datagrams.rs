//! The real driver's listeners of UDP and SCTP, with datagrams after each step, alone and beside those of HAProxy.

use std::{net::SocketAddr, time::Duration};

use amphora_tests::{SctpPeer, eventually, in_namespace};
use serde_json::{Value, json};
use tokio::{net::UdpSocket, time::timeout};

use crate::{
    controller::{CONFIG, Driver, LB, Lan, load_balancer, member, web},
    driver::plugged_with,
    ground::Ground,
};

const UDP: &str = "55555555-5555-4555-8555-555555555555";
const OTHER: &str = "55555555-5555-4555-8555-555555555556";
const POOL: &str = "66666666-6666-4666-8666-666666666668";

/// Datagrams of so many bytes are asked and answered, each in 28 bytes of headers.
const BYTES: u64 = 5;

fn udp() -> Value {
    json!({"id": UDP, "protocol": "UDP", "protocol_port": 53, "default_pool_id": POOL})
}

/// Two members answer datagrams with their numbers, to port 53.
async fn start() -> Option<(Ground, Driver, Lan)> {
    let started = plugged_with(&CONFIG.replace("heartbeat_interval = 10", "heartbeat_interval = 1")).await?;
    for number in 1..=2_u8 {
        let served = started.0.lan.spawn(move || async move {
            let socket = UdpSocket::bind(SocketAddr::from(([10, 77, 0, 10 + number], 53))).await.unwrap();
            let mut datagram = [0; 64];
            while let Ok((length, client)) = socket.recv_from(&mut datagram).await {
                datagram[0] = number;
                let _ = socket.send_to(&datagram[..length], client).await;
            }
        });
        drop(served);
    }
    Some(started)
}

fn udp_member(number: u8) -> Value {
    let id = format!("77777777-7777-4777-8777-77777777777{number}");
    json!({"id": id, "address": format!("10.77.0.1{number}"), "protocol_port": 53})
}

/// The load balancer with these listeners and these members of the pool of datagrams.
fn with(listeners: Value, members: Value) -> Value {
    let mut web = member(1);
    web["id"] = "77777777-7777-4777-8777-777777777779".into();
    let mut lb = load_balancer(listeners, json!([web]));
    let pool = json!({"id": POOL, "protocol": "UDP", "lb_algorithm": "ROUND_ROBIN", "members": members});
    lb["pools"].as_array_mut().unwrap().push(pool);
    lb
}

fn update(driver: &mut Driver, lb: &Value) {
    driver.does("update", json!({ "lb": lb }));
}

/// A flow of its own: who answers, or `None` when nobody is there.
async fn ask(ground: &Ground, port: u16) -> Option<u8> {
    ask_at_most(ground, port, 50).await.expect("neither an answer nor a refusal")
}

/// The same with so many datagrams, half a second between two of them; `None` when nothing came back for any.
async fn ask_at_most(ground: &Ground, port: u16, times: usize) -> Option<Option<u8>> {
    let work = move || async move {
        let socket = UdpSocket::bind("10.77.0.1:0").await.unwrap();
        socket.connect(SocketAddr::from(([10, 77, 0, 100], port))).await.unwrap();
        let mut answer = [0; 64];
        for _ in 0..times {
            // Refused by ICMP: an error of the socket.
            if socket.send(&[0; BYTES as usize]).await.is_err() {
                return Some(None);
            }
            match timeout(Duration::from_millis(500), socket.recv(&mut answer)).await {
                Ok(received) => return Some(received.ok().map(|_| answer[0])),
                Err(_) => continue,
            }
        }
        None
    };
    in_namespace(ground.lan.name(), work).await
}

/// Who answers `count` flows one after the other, as a sorted list of each once.
async fn members(ground: &Ground, count: usize) -> Vec<u8> {
    let mut members = Vec::new();
    for _ in 0..count {
        members.push(ask(ground, 53).await.expect("an answer"));
    }
    members.sort_unstable();
    members.dedup();
    members
}

#[tokio::test]
async fn listeners_of_datagrams_come_and_change_and_go() {
    let Some((mut ground, mut driver, lan)) = start().await else { return };
    driver.does("heartbeat", json!({}));

    // Without a pool nobody listens, and the controller hears of the listener all the same: it counts them.
    let mut bare = udp();
    bare.as_object_mut().unwrap().remove("default_pool_id");
    update(&mut driver, &with(json!([bare]), json!([])));
    assert_eq!(ask(&ground, 53).await, None);
    assert_eq!(
        driver.does("listeners", json!({})),
        json!([{"uuid": UDP, "type": "UDP", "status": "OFFLINE"}])
    );
    let heard = driver.does("heartbeat", json!({}))["message"].take();
    assert_eq!(heard["listeners"][UDP]["status"], "OPEN", "{heard}");

    // Beside a listener of HAProxy; a member that is disabled.
    let mut off = udp_member(3);
    off["admin_state_up"] = false.into();
    let both = with(json!([web(), udp()]), json!([udp_member(1), udp_member(2), off]));
    update(&mut driver, &both);
    assert_eq!((members(&ground, 12).await, lan.members().await), (vec![1, 2], "1".to_owned()));
    let details = driver.does("details", json!({}));
    assert_eq!(
        (
            &details["haproxy_count"],
            &details["lvs_listener_process_count"],
            details["listeners"].as_array().unwrap().len()
        ),
        (&json!(1), &json!(1), 2)
    );
    let heard = eventually("all is counted", async || {
        let heard = driver.does("heartbeat", json!({}));
        (heard["totals"][UDP]["totconns"] == 12).then_some(heard)
    })
    .await;
    let bytes = 12 * (BYTES + 28);
    assert_eq!(heard["totals"][UDP], json!({"rx": bytes, "tx": bytes, "totconns": 12}));
    let (message, id) = (&heard["message"], |number| udp_member(number)["id"].as_str().unwrap().to_owned());
    assert_eq!(
        message["pools"][POOL],
        json!({"status": "UP", "members": {id(1): "no check", id(2): "no check", id(3): "MAINT"}})
    );
    assert_eq!(message["listeners"].as_object().unwrap().len(), 2, "{message}");

    // One of them changes, and the other does not notice. A weight of 0.
    let mut drained = with(json!([web(), udp()]), json!([udp_member(1), udp_member(2)]));
    drained["pools"][2]["members"][0]["weight"] = 0.into();
    update(&mut driver, &drained);
    assert_eq!((members(&ground, 6).await, lan.members().await), (vec![2], "1".to_owned()));
    let heard = driver.does("heartbeat", json!({}))["message"].take();
    assert_eq!(heard["pools"][POOL]["members"], json!({id(1): "DRAIN", id(2): "no check"}), "{heard}");

    // HAProxy's goes: its texts with it, and datagrams go on. It comes back.
    driver.does("delete_listener", json!({"lb": with(json!([web()]), json!([])), "listener": web()["id"]}));
    assert_eq!((members(&ground, 6).await, lan.get(80, "/").await), (vec![2], None));
    assert_eq!(driver.does("details", json!({}))["haproxy_count"], 0);
    update(&mut driver, &drained);
    assert_eq!((members(&ground, 6).await, lan.members().await), (vec![2], "1".to_owned()));

    // Whoever is there, also when the agent was killed.
    ground.kill_agent();
    assert_eq!(members(&ground, 6).await, [2]);
    ground.start_agent().await;
    assert_eq!(driver.does("listeners", json!({})).as_array().unwrap().len(), 2);
    update(&mut driver, &with(json!([web(), udp()]), json!([udp_member(1)])));
    assert_eq!((members(&ground, 6).await, lan.members().await), (vec![1], "1".to_owned()));

    // What came by this API is not changed by the other.
    let client = ground.client();
    let native = client.request("DELETE", &format!("/2.0/loadbalancers/{LB}"), None, b"").await.unwrap();
    assert_eq!(native.status(), 409, "{}", native.text());

    // Their ends, in the other order.
    driver.does("delete_listener", json!({"lb": both, "listener": UDP}));
    assert_eq!((ask(&ground, 53).await, lan.members().await), (None, "1".to_owned()));
    driver.does("delete_listener", json!({"lb": with(json!([web()]), json!([])), "listener": web()["id"]}));
    assert_eq!(driver.does("listeners", json!({})), json!([]));
}

/// TCP is not followed while there are listeners of datagrams, and the rules for what comes in know answers by flows.
#[tokio::test]
async fn what_may_come_in_beside_datagrams_are_answers_and_what_rules_let_in() {
    let Some((ground, mut driver, lan)) = start().await else { return };
    update(&mut driver, &with(json!([web(), udp()]), json!([udp_member(1)])));
    let udp_from = |net: &str, tcp: u16| {
        json!({"rules": [
            {"protocol": "TCP", "cidr": "10.77.0.0/24", "port": tcp}, {"protocol": "UDP", "cidr": net, "port": 53}]})
    };
    let allow = |tcp: u16| udp_from("10.77.0.0/24", tcp);
    let comes_in = async || timeout(Duration::from_secs(1), lan.get(80, "/")).await.is_ok();
    driver.does("rules", allow(80));
    assert_eq!((lan.members().await, ask(&ground, 53).await), ("1".to_owned(), Some(1)));
    driver.does("rules", allow(81));
    assert!(!comes_in().await);
    assert_eq!(ask(&ground, 53).await, Some(1));
    driver.does("rules", allow(80));
    assert!(comes_in().await);

    // Nor does a datagram come in that no rule names, though a member is where it goes.
    let tcp_alone = json!({"rules": [{"protocol": "TCP", "cidr": null, "port": 80}]});
    for rules in [udp_from("10.99.0.0/24", 80), tcp_alone] {
        driver.does("rules", rules);
        assert_eq!((lan.members().await, ask_at_most(&ground, 53, 2).await), ("1".to_owned(), None));
    }
    driver.does("rules", allow(80));
    assert_eq!(ask(&ground, 53).await, Some(1));
}

#[tokio::test]
async fn monitors_limits_and_pools_of_two_listeners() {
    let Some((ground, mut driver, lan)) = start().await else { return };
    driver.does("heartbeat", json!({}));
    // Two listeners, each with its text, of one pool, whose third member nobody serves.
    let mut other = udp();
    (other["id"], other["protocol_port"]) = (OTHER.into(), 54.into());
    let mut lb = with(json!([udp(), other]), json!([udp_member(1), udp_member(3)]));
    lb["pools"][2]["healthmonitor"] =
        json!({"id": POOL, "type": "UDP-CONNECT", "delay": 1, "timeout": 1, "fall_threshold": 1});
    update(&mut driver, &lb);
    let id = |number| udp_member(number)["id"].as_str().unwrap().to_owned();
    eventually("the third member is found dead", async || {
        let told = driver.does("heartbeat", json!({}))["message"]["pools"][POOL].take();
        (told == json!({"status": "UP", "members": {id(1): "UP", id(3): "DOWN"}})).then_some(())
    })
    .await;
    assert_eq!((members(&ground, 6).await, ask(&ground, 54).await), (vec![1], Some(1)));

    // One of them is stopped, started, and refused a text; the other does not notice.
    let client = ground.client();
    let act = async |id: &str, action: &str| {
        let path = format!("/1.0/loadbalancer/{id}/{action}");
        let answer = client.request("PUT", &path, None, b"").await.unwrap();
        (answer.status(), answer.text())
    };
    let stopped = act(OTHER, "stop").await;
    assert_eq!(stopped.0, 202, "{}", stopped.1);
    assert_eq!((members(&ground, 6).await, ask(&ground, 54).await), (vec![1], None));
    let path = format!("/1.0/listeners/{}/{OTHER}/udp_listener", crate::ground::AMPHORA);
    let text =
        client.request("GET", &format!("/1.0/listeners/{OTHER}/udp_listener"), None, b"").await.unwrap();
    let bad = text.text().replace("lb_kind NAT", "lb_kind DR");
    let refused = client.request("PUT", &path, None, bad.as_bytes()).await.unwrap();
    assert_eq!(refused.status(), 400);
    assert!(refused.text().contains("line 12: lb_kind DR"), "{}", refused.text());
    assert_eq!(act(OTHER, "start").await.0, 202);
    assert_eq!(ask(&ground, 54).await, Some(1));

    // A load balancer's other addresses, and another load balancer, are refused.
    let elsewhere = text.text().replace("10.77.0.100 54", "10.77.0.99 54");
    let refused = client.request("PUT", &path, None, elsewhere.as_bytes()).await.unwrap();
    assert_eq!(refused.status(), 400, "{}", refused.text());
    let another = text.text().replace(LB, "33333333-3333-4333-8333-333333333334");
    let refused = client.request("PUT", &path, None, another.as_bytes()).await.unwrap();
    assert_eq!(refused.status(), 409, "{}", refused.text());

    // One flow for each member at once: the third is refused, and one that ends makes room.
    let mut limited = with(json!([udp()]), json!([udp_member(1), udp_member(2)]));
    limited["listeners"][0]["connection_limit"] = 1.into();
    driver.does("delete_listener", json!({"lb": lb, "listener": OTHER}));
    driver.does("delete_listener", json!({"lb": lb, "listener": UDP}));
    update(&mut driver, &limited);
    let mut both = [ask(&ground, 53).await.unwrap(), ask(&ground, 53).await.unwrap()];
    both.sort_unstable();
    assert_eq!((both, ask(&ground, 53).await), ([1, 2], None));
    assert_eq!(lan.get(80, "/").await, None);
}

#[tokio::test]
async fn a_listener_of_sctp_is_like_one_of_udp() {
    let Some((ground, mut driver, _lan)) = start().await else { return };
    // The client and its members are one process: what belongs to nobody is aborted by all of them.
    let Some(mut peer) = SctpPeer::start(&ground.lan) else { return };
    for number in [1, 2] {
        peer.listen(&number.to_string(), format!("10.77.0.1{number}").parse().unwrap(), 53);
    }
    driver.does("heartbeat", json!({}));
    let mut listener = udp();
    (listener["id"], listener["protocol"]) = (OTHER.into(), "SCTP".into());
    let mut lb = with(json!([web(), listener]), json!([udp_member(1), udp_member(2), udp_member(3)]));
    lb["pools"][2]["protocol"] = "SCTP".into();
    lb["pools"][2]["healthmonitor"] =
        json!({"id": POOL, "type": "SCTP", "delay": 1, "timeout": 1, "fall_threshold": 1});
    update(&mut driver, &lb);
    let id = |number| udp_member(number)["id"].as_str().unwrap().to_owned();
    eventually("the third member is found dead", async || {
        let told = driver.does("heartbeat", json!({}))["message"]["pools"][POOL].take();
        let wanted = json!({id(1): "UP", id(2): "UP", id(3): "DOWN"});
        (told == json!({"status": "UP", "members": wanted})).then_some(())
    })
    .await;
    let mut answers = Vec::new();
    for label in ["a", "b"] {
        assert_eq!(peer.open(label, "10.77.0.1", "10.77.0.100", 53), "ok");
        answers.push(peer.ask(label, "who").split(' ').next().unwrap().to_owned());
    }
    answers.sort_unstable();
    assert_eq!(answers, ["1", "2"]);
    // As Octavia's agent calls all that keepalived serves.
    let listed = driver.does("listeners", json!({}));
    assert_eq!(listed[1], json!({"uuid": OTHER, "type": "UDP", "status": "ACTIVE"}), "{listed}");
    eventually("all is counted", async || {
        let heard = driver.does("heartbeat", json!({}));
        (heard["totals"][OTHER]["totconns"] == 2).then_some(())
    })
    .await;
    driver.does("delete_listener", json!({"lb": lb, "listener": OTHER}));
    assert_eq!(driver.does("listeners", json!({})).as_array().unwrap().len(), 1);
}
