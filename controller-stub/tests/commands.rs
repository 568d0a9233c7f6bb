//! The program against an agent that keeps documents in memory: what it prints, what it sends, how it exits.

#![allow(clippy::unwrap_used, missing_docs)]

#[path = "commands/certificate.rs"]
mod certificate;
#[path = "commands/dry_run.rs"]
mod dry_run;
mod fake;
#[path = "commands/orders.rs"]
mod orders;
#[path = "commands/vrrp.rs"]
mod vrrp;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, UdpSocket},
    path::PathBuf,
    process::{Command, Output, Stdio},
    thread,
};

use fake::Fake;
use serde_json::json;

const AMPHORA: &str = "6f1b6a3e-9a57-4a0e-8f2a-0d5d6f3d2a11";
const LB: &str = "0b0e0c3a-4f43-4f0c-9b53-3d7a5f4f7c11";
const LISTENER: &str = "3c9f2c57-1d5e-4b53-9d80-7c0d9a1f9a22";
const POOL: &str = "9d1d7f0e-6a2e-4c0b-8f7d-5f0e2d6c3b33";
const MEMBER: &str = "5a8e4d21-2b3c-4d5e-9f60-1a2b3c4d5e44";

struct Setup {
    dir: tempfile::TempDir,
    agent: Fake,
}

impl Setup {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let setup =
            program(&["certs", "init", "--amphora-id", AMPHORA, dir.path().join("certs").to_str().unwrap()]);
        assert!(setup.status.success(), "{}", err(&setup));
        let agent = Fake::start(&dir.path().join("certs"), AMPHORA);
        Self { dir, agent }
    }

    fn certs(&self) -> PathBuf {
        self.dir.path().join("certs")
    }

    fn url(&self) -> String {
        format!("https://{AMPHORA}@{}", self.agent.address)
    }

    fn run(&self, args: &[&str]) -> Output {
        let mut all = args.to_vec();
        let (certs, url) = (self.certs(), self.url());
        all.extend(["--certs", certs.to_str().unwrap(), "--amphora", &url]);
        program(&all)
    }

    /// Applies a document with a cipher that nobody has.
    fn apply_what_is_honoured_in_part(&self) -> Output {
        let document = yaml(443, 1).replace(
            "protocol: HTTP\n    protocol_port",
            "tls_ciphers: DES\n    protocol: HTTP\n    protocol_port",
        );
        let applied = self.run(&["apply", &self.file("a.yaml", &document)]);
        assert_eq!(applied.status.code(), Some(0), "{}", err(&applied));
        applied
    }

    /// An executable copy. Another process writes it: a file that a thread of this one has open for writing is open, for a moment,
    /// in whatever the other threads start, too, and cannot be executed then.
    fn executable(&self, of: &str, name: &str) -> String {
        let path = self.dir.path().join(name);
        let copied = Command::new("install").args(["-D", "-m", "755", of]).arg(&path).status().unwrap();
        assert!(copied.success());
        path.to_str().unwrap().to_owned()
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

fn program(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_amphora-controller"))
        .args(args)
        .env_remove("AMPHORA_CERTS")
        .env_remove("AMPHORA_ENDPOINTS")
        .output()
        .unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn yaml(port: u16, weight: u16) -> String {
    format!(
        "loadbalancer:\n  id: {LB}\n  name: shop\n  vip_address: 192.0.2.10\n  listeners:\n  - id: {LISTENER}\n    \
         protocol: HTTP\n    protocol_port: {port}\n    default_pool:\n      id: {POOL}\n      protocol: HTTP\n      \
         lb_algorithm: ROUND_ROBIN\n      members:\n      \
         - {{id: {MEMBER}, name: web-1, address: 192.0.2.7, protocol_port: 8080, weight: {weight}}}\n"
    )
}

#[test]
fn a_document_is_applied_changed_shown_and_deleted() {
    let setup = Setup::new();
    let first = setup.file("a.yaml", &yaml(80, 1));

    let dry = setup.run(&["apply", &first, "--dry-run"]);
    assert!(out(&dry).contains("things would change"), "{}{}", out(&dry), err(&dry));
    assert!(setup.agent.state.lock().unwrap().documents.is_empty());

    let applied = setup.run(&["apply", &first]);
    assert_eq!(applied.status.code(), Some(0), "{}", err(&applied));
    assert!(out(&applied).contains("+ load balancer shop\n"), "{}", out(&applied));
    assert!(out(&applied).contains("+ member web-1 (192.0.2.7:8080)\n"), "{}", out(&applied));

    let again = setup.run(&["apply", &first]);
    assert!(out(&again).contains("nothing changed"), "{}", out(&again));

    let second = setup.file("b.yaml", &yaml(80, 0));
    let changed = setup.run(&["apply", &second]);
    assert!(
        out(&changed).contains("1 thing changed\n  ~ member web-1 (192.0.2.7:8080): weight 1 -> 0\n"),
        "{}",
        out(&changed)
    );

    let status = setup.run(&["status"]);
    let tree: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(tree["statuses"]["loadbalancer"]["id"], LB, "JSON when standard output is no terminal");
    assert_eq!(out(&setup.run(&["status", "--tree"])), format!("load balancer shop ONLINE {LB}\n"));

    let stats = out(&setup.run(&["stats"]));
    assert!(
        stats.contains("ACTIVE  TOTAL  REQUESTS  ERRORS  BYTES IN  BYTES OUT\nload balancer       3      4"),
        "{stats}"
    );
    assert!(out(&setup.run(&["stats", LB, "--json"])).contains("\"total_connections\":4"));

    let member = setup.run(&["member", POOL, MEMBER, "--weight", "0"]);
    assert!(out(&member).contains("weight 0 (draining)"), "{}{}", out(&member), err(&member));
    let sent = setup.agent.state.lock().unwrap().requests.last().cloned().unwrap();
    assert_eq!(sent.0, format!("PUT /2.0/loadbalancers/{LB}/pools/{POOL}/members/{MEMBER}"));
    assert_eq!(sent.1, json!({"member": {"weight": 0}}));

    let deleted = setup.run(&["delete"]);
    assert!(out(&deleted).contains("removed"), "{}", err(&deleted));
    let gone = setup.run(&["status"]);
    assert_eq!(gone.status.code(), Some(1));
    assert!(err(&gone).contains("carries no load balancer"), "{}", err(&gone));
}

#[test]
fn what_is_honoured_in_part_is_told() {
    let setup = Setup::new();
    let applied = setup.apply_what_is_honoured_in_part();
    assert_eq!(
        err(&applied),
        format!("{}: loadbalancer.listeners[x].tls_ciphers: leaves out DES\n", setup.url())
    );
    assert_eq!(
        out(&setup.run(&["status", "--tree"])),
        format!(
            "load balancer shop ONLINE {LB}\nin part loadbalancer.listeners[x].tls_ciphers: leaves out DES\n"
        )
    );
    assert_eq!(err(&setup.run(&["apply", &setup.file("b.yaml", &yaml(80, 1))])), "");
}

#[test]
fn a_member_is_found_by_name() {
    let setup = Setup::new();
    setup.run(&["apply", &setup.file("a.yaml", &yaml(80, 1))]);
    let id = |n: u128| uuid::Uuid::from_u128(n).to_string();
    let member =
        |n: u128, name: &str| json!({"id": id(n), "name": name, "address": "192.0.2.7", "protocol_port": n});
    setup.agent.state.lock().unwrap().pools = vec![
        json!({"id": POOL, "name": "web", "members": [member(1, "a"), member(2, "b"), member(3, "b")]}),
        json!({"id": id(9), "name": "api", "members": [member(4, "b")]}),
        json!({"id": id(8), "name": "", "members": []}),
    ];
    let sent = || setup.agent.state.lock().unwrap().requests.last().cloned().unwrap().0;
    let path = |pool: &str, n: u128| format!("PUT /2.0/loadbalancers/{LB}/pools/{pool}/members/{}", id(n));
    for (pool, name, wanted) in [
        ("web", "a", path(POOL, 1)),
        ("api", "b", path(&id(9), 4)),
        (POOL, "a", path(POOL, 1)),
        ("web", &id(3), path(POOL, 3)),
        // Ids are the amphora's to judge.
        (&id(7), &id(3), path(&id(7), 3)),
    ] {
        let output = setup.run(&["member", pool, name, "--weight", "0"]);
        assert_eq!((output.status.code(), sent()), (Some(0), wanted), "{}", err(&output));
    }
    let web = format!("\n  {} a 192.0.2.7:1\n  {} b 192.0.2.7:2\n  {} b 192.0.2.7:3\n", id(1), id(2), id(3));
    let pools = format!("\n  {POOL} web\n  {} api\n  {}\n", id(9), id(8));
    let two = format!("\n  {} b 192.0.2.7:2\n  {} b 192.0.2.7:3\n", id(2), id(3));
    for (pool, name, code, message) in [
        ("web", "c", 1, format!("there is no member c; there are:{web}")),
        ("shop", "a", 1, format!("there is no pool shop; there are:{pools}")),
        (&id(7), "a", 1, format!("there is no pool {}; there are:{pools}", id(7))),
        ("web", "b", 2, format!("has 2 members named b; say which by id:{two}")),
    ] {
        let output = setup.run(&["member", pool, name, "--weight", "0"]);
        assert_eq!(output.status.code(), Some(code), "{pool} {name}");
        assert!(err(&output).contains(&message), "{} {message}", err(&output));
    }
}

#[test]
fn faults_come_one_per_line_with_their_path() {
    let setup = Setup::new();
    let refused = setup.run(&["apply", &setup.file("bad.yaml", &yaml(0, 1))]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(err(&refused).contains("refused with 400: the document has 1 fault"), "{}", err(&refused));
    assert!(
        err(&refused).contains("\n  loadbalancer.listeners[0].protocol_port: must be 1 to 65535\n"),
        "{}",
        err(&refused)
    );
}

#[test]
fn a_pair_gets_the_document_and_one_that_is_away_does_not_keep_it_from_the_other() {
    let setup = Setup::new();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (certs, url, away) = (setup.certs(), setup.url(), format!("https://{AMPHORA}@{nobody}"));
    let file = setup.file("a.yaml", &yaml(80, 1));
    let certs = certs.to_str().unwrap();
    let result = program(&["apply", &file, "--certs", certs, "--amphora", &away, "--amphora", &url]);
    assert_eq!(result.status.code(), Some(3), "{}", err(&result));
    assert!(err(&result).contains(&away), "{}", err(&result));
    assert!(out(&result).contains("+ load balancer shop"), "{}", out(&result));

    let bad = setup.file("bad.yaml", &yaml(0, 1));
    let before = setup.agent.state.lock().unwrap().requests.len();
    let result = program(&["apply", &bad, "--certs", certs, "--amphora", &url, "--amphora", &url]);
    assert_eq!(result.status.code(), Some(1));
    assert_eq!(
        setup.agent.state.lock().unwrap().requests.len(),
        before + 2,
        "a refused document goes no further"
    );
}

#[test]
fn files_that_cannot_be_used_exit_with_2() {
    let setup = Setup::new();
    let broken = setup.run(&["apply", &setup.file("x.yaml", "loadbalancer: [")]);
    assert_eq!(broken.status.code(), Some(2));
    assert!(err(&broken).contains("x.yaml: not YAML"), "{}", err(&broken));
    let missing = program(&["status", "--amphora", "https://127.0.0.1"]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(err(&missing).contains("certs init"), "{}", err(&missing));
    let nowhere = program(&["status", "--certs", "/nonexistent"]);
    assert_eq!(nowhere.status.code(), Some(2));
    assert!(err(&nowhere).contains("AMPHORA_ENDPOINTS"), "{}", err(&nowhere));
    let elsewhere = program(&["status", "--amphora", "https://127.0.0.1", "--certs", "/nonexistent"]);
    assert_eq!(elsewhere.status.code(), Some(2));
    assert!(err(&elsewhere).contains("/nonexistent/"), "{}", err(&elsewhere));
}

#[test]
fn tls_that_does_not_fit_is_explained() {
    let setup = Setup::new();
    let (certs, address) = (setup.certs(), setup.agent.address);
    let unnamed = format!("https://{address}");
    let result = program(&["status", "--amphora", &unnamed, "--certs", certs.to_str().unwrap()]);
    assert_eq!(result.status.code(), Some(3));
    assert!(err(&result).contains(&format!("is for {AMPHORA}, not for ")), "{}", err(&result));
    assert!(err(&result).contains("--server-name"), "{}", err(&result));
    let named =
        ["status", "--amphora", &unnamed, "--certs", certs.to_str().unwrap(), "--server-name", AMPHORA];
    assert_eq!(program(&named).status.code(), Some(1), "named rightly it gets an answer");

    let other = setup.dir.path().join("other");
    let other = other.to_str().unwrap();
    assert!(program(&["certs", "init", other]).status.success());
    let strangers = program(&["status", "--amphora", &setup.url(), "--certs", other]);
    assert_eq!(strangers.status.code(), Some(3));
    assert!(
        err(&strangers).contains("not signed by the CA that --ca or --certs names"),
        "{}",
        err(&strangers)
    );

    let plain = TcpListener::bind("127.0.0.1:0").unwrap();
    let there = format!("https://{AMPHORA}@{}", plain.local_addr().unwrap());
    let answer = thread::spawn(move || {
        let (mut stream, _) = plain.accept().unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        // Its end would be an answer, too: the client is the first to close.
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let no_tls = program(&["status", "--amphora", &there, "--certs", other]);
    assert_eq!(no_tls.status.code(), Some(3));
    assert!(err(&no_tls).contains("it does not speak TLS"), "{}", err(&no_tls));
    answer.join().unwrap();

    let ca = certs.join("ca.pem");
    let (cert, key) = (format!("{other}/client.pem"), format!("{other}/client.key"));
    let refused = program(&[
        "status",
        "--amphora",
        &setup.url(),
        "--ca",
        ca.to_str().unwrap(),
        "--cert",
        &cert,
        "--key",
        &key,
    ]);
    assert_eq!(refused.status.code(), Some(3));
    assert!(err(&refused).contains("refused this client's certificate"), "{}", err(&refused));
}

/// Runs the program with standard output closed on the other side after so many bytes; exit code, and what it says.
fn closed_after(bytes: usize, args: &[&str], meanwhile: impl FnOnce()) -> (Option<i32>, String) {
    let (reader, writer) = std::io::pipe().unwrap();
    // With no byte to read it is closed before the program can have written any.
    let mut reader = (bytes > 0).then_some(reader);
    let child = Command::new(env!("CARGO_BIN_EXE_amphora-controller"))
        .args(args)
        .stdout(writer)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    if let Some(reader) = &mut reader {
        reader.read_exact(&mut vec![0; bytes]).unwrap();
    }
    drop(reader);
    meanwhile();
    let output = child.wait_with_output().unwrap();
    (output.status.code(), err(&output))
}

#[test]
fn a_closed_pipe_ends_every_command_quietly() {
    let setup = Setup::new();
    let quiet = (Some(141), String::new());
    setup.run(&["apply", &setup.file("a.yaml", &yaml(80, 1))]);
    let (certs, url) = (setup.certs(), setup.url());
    let target = ["--certs", certs.to_str().unwrap(), "--amphora", &url];
    // A pair: what cannot be shown of the second is no error either.
    let pair = [&target[..], &["--amphora", &url]].concat();

    let watch = [&["stats", "--watch", "--interval", "0.1"], &target[..]].concat();
    assert_eq!(closed_after(10, &watch, || ()), quiet);
    assert_eq!(closed_after(0, &[&["status"], &pair[..]].concat(), || ()), quiet);
    assert_eq!(closed_after(0, &["completions", "bash"], || ()), quiet);

    // A heartbeat comes when nobody reads any more.
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let bind = socket.local_addr().unwrap().to_string();
    drop(socket);
    let heartbeats = ["heartbeats", "--bind", &bind, "--key", "k"];
    let listening = format!("listening on UDP {bind}\n");
    let beat = json!({"id": "amp", "seq": 7, "ver": 3, "listeners": {}, "pools": {}});
    let packet = amphora_agent::heartbeat::seal(&serde_json::from_value(beat).unwrap(), "k");
    let send = || {
        UdpSocket::bind("127.0.0.1:0").unwrap().send_to(&packet, &bind).unwrap();
    };
    assert_eq!(closed_after(listening.len(), &heartbeats, send), quiet);
}

#[test]
fn of_833_forged_heartbeats_a_handful_is_told_and_how_many_there_were() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let bind = socket.local_addr().unwrap().to_string();
    drop(socket);
    let mut listening = Command::new(env!("CARGO_BIN_EXE_amphora-controller"))
        .args(["heartbeats", "--bind", &bind, "--key", "k"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = String::new();
    BufReader::new(listening.stdout.as_mut().unwrap()).read_line(&mut first).unwrap();
    assert!(first.starts_with("listening on UDP"), "{first}");
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    for _ in 0..833 {
        sender.send_to(&[b'f'; 100], &bind).unwrap();
        // The kernel would drop what comes faster than it is read.
        thread::sleep(std::time::Duration::from_millis(1));
    }
    let mut told = Vec::new();
    for line in BufReader::new(listening.stderr.take().unwrap()).lines().take(100) {
        told.push(line.unwrap());
        if told.last().unwrap().contains("left out") {
            break;
        }
    }
    listening.kill().unwrap();
    listening.wait().unwrap();
    assert_eq!(told.len(), 6, "{told:#?}");
    let from = sender.local_addr().unwrap();
    assert!(told[0].starts_with(&format!("{from}: 100 bytes not believed")), "{}", told[0]);
    assert!(told[1..5].iter().all(|line| *line == told[0]));
    let (count, line) = told[5].split_once(" more like this left out: ").unwrap();
    assert_eq!(line, told[0]);
    assert!((1..=828).contains(&count.parse::<u64>().unwrap()), "{count}");
}

#[test]
fn the_manuals_first_steps_fit_together() {
    let manual = include_str!("../../docs/controller.md");
    let file = |name: &str| {
        let (_, rest) = manual.split_once(&format!("cat > {name} <<END\n")).unwrap();
        rest.split_once("\nEND\n").unwrap().0.to_owned()
    };
    let config = amphora_agent::config::Config::parse(&file("agent.conf").replace("$PWD", "/here")).unwrap();
    let document = amphora_controller::document::Document::parse(&file("lb.yaml")).unwrap();
    let model = amphora_model::LoadBalancer::from_value(&document.body).unwrap();
    assert_eq!(model.pools[0].members.len(), 2);
    let (_, more) = manual.split_once("cat >> lb.yaml <<END\n").unwrap();
    let both = file("lb.yaml") + "\n" + more.split_once("END\n").unwrap().0;
    let document = amphora_controller::document::Document::parse(&both).unwrap();
    let model = amphora_model::LoadBalancer::from_value(&document.body).unwrap();
    let named: Vec<_> = model.certificates().map(|used| used.id.to_string()).collect();
    assert_eq!((model.listeners.len(), named), (2, vec!["shop".to_owned()]));
    assert!(manual.contains("certificate put shop -\n"));
    let id = &config.amphora_id;
    for step in [
        format!("certs init certs --amphora-id {id}\n"),
        format!("AMPHORA_ENDPOINTS=https://{id}@127.0.0.1\n"),
    ] {
        assert!(manual.contains(&step), "{step}");
    }
    assert!(config.agent_server_cert.ends_with(format!("certs/server-{id}.pem")));
    // The minimal configuration of the agent's manual is the same one.
    let minimal = file("agent.conf").replace("$PWD", "/home/me/amphora");
    assert!(include_str!("../../docs/agent.md").contains(&minimal), "{minimal}");
}

#[test]
fn completions_and_help_are_there() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(out(&program(&["completions", shell])).contains("amphora-controller"));
    }
    let help = out(&program(&["--help"]));
    assert!(help.contains("Exit codes") && help.contains("apply") && !help.contains("demo-member"), "{help}");
}
