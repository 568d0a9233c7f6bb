//! `vrrp`, and what the other commands show of it.

use super::*;

const DOCUMENT: &str =
    "instances:\n- name: lb\n  interface: eth1\n  vrid: 1\n  unicast: {peers: [192.0.2.1, 192.0.2.2]}\n";

/// Two agents, the first of them master.
struct Pair {
    setup: Setup,
    other: Fake,
}

impl Pair {
    fn new() -> Self {
        let setup = Setup::new();
        let other = Fake::start(&setup.certs(), AMPHORA);
        let pair = Self { setup, other };
        pair.of_first(|state| {
            state.vrrp_state = "MASTER".to_owned();
            state.successor = Some(pair.other.state.clone());
        });
        pair.of_other(|state| state.vrrp_state = "BACKUP".to_owned());
        pair
    }

    fn configured() -> Self {
        let pair = Self::new();
        let file = pair.setup.file("pair.yaml", DOCUMENT);
        let output = pair.run(&["pair", &file]);
        assert_eq!(output.status.code(), Some(0), "{}", err(&output));
        pair
    }

    fn of_first(&self, change: impl FnOnce(&mut fake::State)) {
        change(&mut self.setup.agent.state.lock().unwrap());
    }

    fn of_other(&self, change: impl FnOnce(&mut fake::State)) {
        change(&mut self.other.state.lock().unwrap());
    }

    fn other_url(&self) -> String {
        format!("https://{AMPHORA}@{}", self.other.address)
    }

    fn run(&self, args: &[&str]) -> Output {
        self.setup.run(&[&["vrrp"][..], args, &["--amphora", &self.other_url()]].concat())
    }

    /// In the order in which `run` names them: the other comes first.
    fn documents(&self) -> [serde_json::Value; 2] {
        [&self.other, &self.setup.agent].map(|fake| {
            let state = fake.state.lock().unwrap();
            let (kind, text) = state.vrrp.as_ref().unwrap();
            assert_eq!(kind, "application/json");
            serde_json::from_str(text).unwrap()
        })
    }
}

#[test]
fn one_amphora_gets_what_is_written() {
    let setup = Setup::new();
    let text = "vrrp_instance lb {\n}\n";
    let file = setup.file("keepalived.conf", text);
    let output = setup.run(&["vrrp", "apply", &file]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert_eq!(out(&output), format!("{}: changed\n", setup.url()));
    let sent = setup.agent.state.lock().unwrap().vrrp.clone().unwrap();
    assert_eq!(sent, ("text/plain; charset=utf-8".to_owned(), text.to_owned()));
    assert!(out(&setup.run(&["vrrp", "apply", &file])).contains("nothing changed"));

    let faulty = setup.file("faulty.yaml", "instances: [{name: faulty}]\n");
    let output = setup.run(&["vrrp", "apply", &faulty]);
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("\n  instances[0].vrid: is required\n"), "{}", err(&output));

    assert!(out(&setup.run(&["vrrp", "delete"])).contains("VRRP removed"));
    let output = setup.run(&["vrrp", "delete"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("no VRRP configuration"), "{}", err(&output));
}

#[test]
fn a_pair_gets_roles_and_peers_from_one_document() {
    let pair = Pair::configured();
    let [first, second] = pair.documents();
    let instance = |document: &serde_json::Value| {
        let instance = &document["instances"][0];
        (instance["priority"].clone(), instance["unicast"].clone())
    };
    let unicast = |source: &str, peer: &str| json!({"source": source, "peers": [peer]});
    assert_eq!(instance(&first), (json!(100), unicast("192.0.2.1", "192.0.2.2")));
    assert_eq!(instance(&second), (json!(90), unicast("192.0.2.2", "192.0.2.1")));

    let alone = pair.setup.run(&["vrrp", "pair", &pair.setup.file("a.yaml", DOCUMENT)]);
    assert_eq!(alone.status.code(), Some(2));
    assert!(err(&alone).contains("a pair is two amphorae; 1 given"), "{}", err(&alone));
    let given = pair.setup.file("b.yaml", "instances: [{name: lb, priority: 7}]\n");
    let output = pair.run(&["pair", &given]);
    assert_eq!(output.status.code(), Some(2));
    assert!(err(&output).contains("b.yaml: instances[0].priority: differs"), "{}", err(&output));
}

/// What the fakes were told of each other, in the order in which `run` names them.
fn peers(pair: &Pair) -> [Option<serde_json::Value>; 2] {
    [&pair.other, &pair.setup.agent].map(|fake| {
        let document = fake.state.lock().unwrap().peers.clone();
        document.map(|document| document["peers"].clone())
    })
}

#[test]
fn the_proxies_of_a_pair_are_told_of_each_other_with_a_key_of_their_own() {
    let pair = Pair::configured();
    let [Some(first), Some(second)] = peers(&pair) else { panic!("both are told") };
    let ends = |peers: &serde_json::Value| (peers["listen"].clone(), peers["peer"].clone());
    assert_eq!(ends(&first), (json!("192.0.2.1:1025"), json!("192.0.2.2:1025")));
    assert_eq!(ends(&second), (json!("192.0.2.2:1025"), json!("192.0.2.1:1025")));
    let key = first["key"].as_str().unwrap().to_owned();
    assert!(key.len() == 64 && key.bytes().all(|byte| byte.is_ascii_hexdigit()), "{key}");
    assert_eq!(first["key"], second["key"]);

    let file = pair.setup.file("pair.yaml", DOCUMENT);
    let output = pair.run(&["pair", &file, "--peers", "10.0.0.1,10.0.0.2", "--peer-port", "7"]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let line = format!("{}: keeps session persistence alike with 10.0.0.2:7\n", pair.other_url());
    assert!(out(&output).contains(&line), "{}", out(&output));
    let [Some(again), Some(_)] = peers(&pair) else { panic!("both are told") };
    assert_eq!(ends(&again), (json!("10.0.0.1:7"), json!("10.0.0.2:7")));
    let new = again["key"].as_str().unwrap();
    assert_ne!(new, key);
    assert!(![out(&output), err(&output)].concat().contains(new), "a key is not told");

    let output = pair.run(&["delete"]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert!(out(&output).contains(": session persistence is kept alike with nobody\n"), "{}", out(&output));
    assert_eq!(peers(&pair), [None, None]);
}

#[test]
fn a_document_without_addresses_and_no_peers_leave_persistence_alone() {
    let pair = Pair::new();
    let multicast = pair.setup.file("m.yaml", "instances: [{name: lb, interface: eth1, vrid: 1}]\n");
    let output = pair.run(&["pair", &multicast]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert!(out(&output).contains("`--peers ADDRESS,ADDRESS`"), "{}", out(&output));
    let unicast = pair.setup.file("pair.yaml", DOCUMENT);
    let output = pair.run(&["pair", &unicast, "--no-peers"]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert!(!out(&output).contains("persistence"), "{}", out(&output));
    assert_eq!(peers(&pair), [None, None]);
    assert_eq!(pair.run(&["pair", &multicast, "--peers", "10.0.0.1,10.0.0.2"]).status.code(), Some(0));
    assert!(peers(&pair).iter().all(Option::is_some));
    for wrong in
        [&["--peers", "10.0.0.1"][..], &["--peer-port", "0"], &["--no-peers", "--peers", "10.0.0.1,10.0.0.2"]]
    {
        assert_eq!(pair.run(&[&["pair", &unicast][..], wrong].concat()).status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn an_older_agent_is_told_and_gone_past() {
    let pair = Pair::new();
    pair.of_first(|state| state.peers_refused = Some(404));
    let output = pair.run(&["pair", &pair.setup.file("pair.yaml", DOCUMENT)]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let line = format!("{}: session persistence is not kept alike: its agent is older", pair.setup.url());
    assert!(out(&output).contains(&line), "{}", out(&output));
    assert_eq!(peers(&pair), [None, None], "nothing is done by halves");
    assert_eq!(pair.run(&["delete"]).status.code(), Some(0));
}

#[test]
fn what_came_of_it_by_halves_is_told() {
    let pair = Pair::configured();
    let before = peers(&pair);
    let file = pair.setup.file("pair.yaml", DOCUMENT);
    let refused = |reason: &str| {
        let output = pair.run(&["pair", &file]);
        assert_eq!(output.status.code(), Some(1), "{}", err(&output));
        assert!(err(&output).contains(reason), "{}", err(&output));
        err(&output)
    };
    pair.of_first(|state| state.peers_refused = Some(503));
    refused("session persistence stays as it was on both amphorae");
    assert_eq!(peers(&pair), before);
    pair.of_first(|state| state.peers_refused = None);
    pair.of_other(|state| state.peers_refused = Some(409));
    let text = refused(&format!("session persistence stays as it was on {}", pair.setup.url()));
    assert!(text.contains("192.0.2.1 must be an address of that amphora"), "{text}");
    assert!(text.contains("\n  peers.listen: Cannot assign requested address\n"), "{text}");
    assert_eq!(peers(&pair), before);
    pair.of_other(|state| state.peers_refused = None);
    pair.of_first(|state| state.peers_refused = Some(409));
    refused(&format!("{} has a new key and {} has not", pair.other_url(), pair.setup.url()));
    assert_ne!(peers(&pair)[0], before[0]);
    assert_eq!(peers(&pair)[1], before[1]);
}

#[test]
fn a_refused_document_goes_no_further() {
    let pair = Pair::new();
    let file = pair.setup.file("faulty.yaml", &DOCUMENT.replace("name: lb", "name: faulty"));
    assert_eq!(pair.run(&["pair", &file]).status.code(), Some(1));
    pair.of_other(|state| assert_eq!(state.requests.len(), 1));
    pair.of_first(|state| assert!(state.requests.is_empty()));
}

#[test]
fn a_planned_failover_goes_from_the_master_to_the_other_and_back() {
    let pair = Pair::configured();
    let output = pair.run(&["failover"]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let way = format!("lb: {} -> {} in ", pair.setup.url(), pair.other_url());
    assert!(out(&output).starts_with(&way) && out(&output).contains(" ms\n"), "{}", out(&output));
    pair.of_first(|state| assert_eq!(state.vrrp_state, "BACKUP"));
    pair.of_other(|state| state.successor = Some(pair.setup.agent.state.clone()));
    assert_eq!(pair.run(&["failover"]).status.code(), Some(0));
    pair.of_first(|state| assert_eq!(state.vrrp_state, "MASTER"));
    assert!(out(&pair.run(&["resume"])).contains(": MASTER\n"));
}

#[test]
fn a_failover_that_cannot_be_says_why() {
    let pair = Pair::configured();
    let refused = |reason: &str| {
        let output = pair.run(&["failover", "--within", "0.2"]);
        assert_eq!(output.status.code(), Some(1));
        assert!(err(&output).contains(reason), "{}", err(&output));
    };
    pair.of_first(|state| state.successor = None);
    refused("did not take over within 0.2 s: it is BACKUP");
    pair.of_other(|state| state.vrrp_state = "INIT".to_owned());
    refused("cannot take over lb: it is INIT");
    pair.of_other(|state| state.vrrp_state = "MASTER".to_owned());
    refused("each of the two is master of something");
    pair.run(&["stop"]);
    refused("none of the two is master");
    pair.of_other(|state| state.vrrp = None);
    refused("it has no VRRP configuration");
    let asked = pair.setup.agent.state.lock().unwrap().requests.clone();
    assert_eq!(asked.iter().filter(|(request, _)| request.ends_with("/hand-over")).count(), 1);
}

#[test]
fn status_shows_role_and_counters() {
    let pair = Pair::configured();
    let file = pair.setup.file("lb.yaml", &yaml(80, 1));
    assert_eq!(pair.setup.run(&["apply", &file]).status.code(), Some(0));
    let tree = out(&pair.setup.run(&["status", "--tree"]));
    assert!(tree.starts_with("load balancer shop ONLINE"), "{tree}");
    assert!(tree.contains("\nvrrp lb MASTER priority 100 on eth1, for 0.0 s (started)\n"), "{tree}");
    assert!(tree.contains("advertisements: 7 sent, 3 received, 0 refused\n"), "{tree}");
    let json: serde_json::Value = serde_json::from_slice(&pair.setup.run(&["status"]).stdout).unwrap();
    assert_eq!(json["vrrp"]["instances"][0]["state"], "MASTER");
    assert_eq!(json["statuses"]["loadbalancer"]["id"], LB);
    let link = "\npeers CONNECTED 192.0.2.2:1025 with 192.0.2.1:1025\n├─ entries of 0 tables: 7 sent";
    assert!(tree.contains(link), "{tree}");
    assert_eq!((&json["peers"]["state"], &json["peers"]["key"]), (&json!("CONNECTED"), &json!(null)));
    pair.of_first(|state| state.peers = None);
    let tree = out(&pair.setup.run(&["status", "--tree"]));
    assert!(tree.ends_with("\npeers OFF: session persistence is not kept alike\n"), "{tree}");
    // Neither an older agent nor an amphora alone has anything to say.
    pair.of_first(|state| state.peers_refused = Some(404));
    let status = pair.setup.run(&["status", "--tree"]);
    assert!(status.status.code() == Some(0) && !out(&status).contains("peers OFF"), "{}", out(&status));
    pair.of_first(|state| (state.peers_refused, state.vrrp) = (None, None));
    assert!(!out(&pair.setup.run(&["status", "--tree"])).contains("peers"));
}

#[test]
fn heartbeats_show_who_is_master() {
    let pair = Pair::configured();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let bind = socket.local_addr().unwrap().to_string();
    drop(socket);
    let beat = json!({"id": "amp", "seq": 7, "ver": 3, "listeners": {}, "pools": {}});
    let packet = amphora_agent::heartbeat::seal(&serde_json::from_value(beat).unwrap(), "k");
    let to = bind.clone();
    // It is repeated, as an amphora does: the program may not listen yet. Until the test's process ends.
    std::thread::spawn(move || {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        loop {
            let _ = socket.send_to(&packet, &to);
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    });
    let listen = ["heartbeats", "--bind", &bind, "--key", "k", "--count", "1"];
    let text = out(&pair.setup.run(&listen));
    assert!(text.contains("amp MASTER from 127.0.0.1"), "{text}");
    let line = pair.setup.run(&[&listen[..], &["--json"]].concat());
    let line: serde_json::Value = serde_json::from_slice(&line.stdout).unwrap();
    assert_eq!(line["vrrp_role"], "MASTER");
}

#[test]
fn the_manuals_pair_is_one() {
    let (_, rest) =
        include_str!("../../../docs/controller.md").split_once("cat > pair.yaml <<END\n").unwrap();
    let (text, _) = rest.split_once("\nEND\n").unwrap();
    let document = amphora_controller::vrrp_document::VrrpDocument::parse(text).unwrap();
    assert!(document.pair().is_ok());
}
