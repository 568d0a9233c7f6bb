//! `/1.0`, as far as it needs no network: the load balancer beside the native API, certificates, and what the agent is told of itself.

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, header::HOST};
use serde_json::json;

use super::vrrp::put_as;
use super::*;
use crate::testing::{Mood, TestAgent, agent::Answer};

const LB: &str = "33333333-3333-4333-8333-333333333333";
const UPLOAD: &str =
    "/1.0/loadbalancer/22222222-2222-4222-8222-222222222222/33333333-3333-4333-8333-333333333333/haproxy";

fn action(name: &str) -> String {
    format!("/1.0/loadbalancer/{LB}/{name}")
}

fn certificate(name: &str) -> String {
    format!("/1.0/loadbalancer/{LB}/certificates/{name}")
}

/// What the templates of Octavia render of one listener, with this in its `bind` line.
fn text(bind: &str) -> String {
    format!(
        "# Configuration for loadbalancer {LB}
global
    daemon
    user nobody
    log /run/rsyslog/octavia/log local0
    log /run/rsyslog/octavia/log local1 notice
    stats socket /var/lib/octavia/{LB}.sock mode 0666 level user
    server-state-file /var/lib/octavia/{LB}/servers-state
    maxconn 50000

defaults
    log global
    retries 3
    option redispatch
    option http-keep-alive

frontend 44444444-4444-4444-8444-444444444444
    maxconn 50000
    bind 10.77.0.100:80{bind}
    mode http
    default_backend 66666666-6666-4666-8666-666666666666:44444444-4444-4444-8444-444444444444
    timeout client 50000

backend 66666666-6666-4666-8666-666666666666:44444444-4444-4444-8444-444444444444
    mode http
    balance roundrobin
    option allbackups
    timeout connect 5000
    timeout server 50000
    server 77777777-7777-4777-8777-777777777777 10.77.0.11:80 weight 1
"
    )
}

fn said(answer: &Answer) -> (u16, String) {
    let json = answer.json();
    let text = |name: &str| json[name].as_str().unwrap_or_default().to_owned();
    (answer.status.as_u16(), format!("{}{} {}", text("error"), text("message"), text("details")))
}

#[tokio::test]
async fn a_text_is_kept_and_taken_up_and_stopped() {
    let agent = TestAgent::new().await;
    let text = text("");
    assert_eq!(said(&agent.put(&action("start"), "").await).0, 404);
    let uploaded = agent.put(UPLOAD, &text).await;
    assert_eq!(
        (uploaded.status.as_u16(), uploaded.headers["etag"].to_str().unwrap()),
        (202, &*format!("{:x}", md5::compute(&text)))
    );
    assert_eq!(agent.proxy.document(), None, "nothing is taken up before it is asked for");
    let listed = |status: &str| json!([{"status": status, "uuid": "44444444-4444-4444-8444-444444444444", "type": "HTTP"}]);
    assert_eq!(agent.get("/1.0/listeners").await.json(), listed("OFFLINE"));

    assert_eq!(said(&agent.put(&action("RELOAD"), "").await).0, 202);
    let document: serde_json::Value = serde_json::from_slice(&agent.proxy.document().unwrap()).unwrap();
    assert_eq!(document["loadbalancer"]["id"], LB);
    assert_eq!(agent.get("/1.0/listeners").await.json(), listed("ACTIVE"));
    assert!(said(&agent.put(&action("reload"), "").await).1.ends_with("reloaded"));
    assert_eq!(agent.get(&action("haproxy")).await.body, text);

    // Stopped across a restart of the agent, and started again.
    assert_eq!(said(&agent.put(&action("stop"), "").await).0, 202);
    assert_eq!(agent.proxy.document(), None);
    let restarted = agent.restarted();
    restarted.reconcile().await.unwrap();
    assert_eq!((agent.proxy.document(), restarted.listeners().len()), (None, 1));
    assert_eq!(said(&agent.put(&action("start"), "").await).0, 202);
    assert!(agent.proxy.document().is_some());
    assert!(agent.restarted().model().is_some(), "a reboot brings it back");

    let path = format!("/1.0/listeners/{LB}");
    for _ in 0..2 {
        assert_eq!(said(&agent.request(Method::DELETE, &path, "").await), (200, "OK ".to_owned()));
    }
    assert_eq!((agent.proxy.document(), agent.get("/1.0/listeners").await.json()), (None, json!([])));
    assert_eq!(agent.get(&action("haproxy")).await.status, 404);
}

/// As it was recorded, but for the pool's id.
const DATAGRAMS: &str = "# Configuration for Loadbalancer 33333333-3333-4333-8333-333333333333
# Configuration for Listener 55555555-5555-4555-8555-555555555555

net_namespace amphora-haproxy

virtual_server_group ipv4-group {
    10.77.0.100 53
}

virtual_server group ipv4-group {
    lb_algo wrr
    lb_kind NAT
    protocol UDP


    # Configuration for Pool 66666666-6666-4666-8666-666666666667
    # Configuration for Member 77777777-7777-4777-8777-777777777778
    real_server 10.77.0.11 53 {
        weight 1

    }

}
";

#[tokio::test]
async fn a_listener_of_datagrams_has_its_own_text() {
    const ID: &str = "55555555-5555-4555-8555-555555555555";
    let agent = TestAgent::new().await;
    let upload = format!("/1.0/listeners/22222222-2222-4222-8222-222222222222/{ID}/udp_listener");
    let text_of = format!("/1.0/listeners/{ID}/udp_listener");
    let act = |name: &str| format!("/1.0/loadbalancer/{ID}/{name}");
    let whole = |answer: Answer| (answer.status.as_u16(), answer.json());
    let nobody = json!({
        "message": "UDP Listener Not Found",
        "details": format!("No UDP listener with UUID: {ID}"),
    });
    assert_eq!(whole(agent.get(&text_of).await), (404, nobody.clone()));

    let uploaded = agent.put(&upload, DATAGRAMS).await;
    let tag = format!("{:x}", md5::compute(DATAGRAMS));
    assert_eq!(uploaded.headers["etag"].to_str().unwrap(), tag);
    assert_eq!(whole(uploaded), (200, json!({"message": "OK"})));
    assert_eq!(agent.proxy.document(), None, "nothing is taken up before it is asked for");
    let kept = agent.get(&text_of).await;
    assert_eq!(
        (kept.status.as_u16(), &kept.headers["content-type"]),
        (200, &"text/plain; charset=UTF-8".parse().unwrap())
    );
    assert_eq!(kept.body, DATAGRAMS);
    let listed = |status: &str| json!([{"status": status, "uuid": ID, "type": "UDP"}]);
    assert_eq!(agent.get("/1.0/listeners").await.json(), listed("OFFLINE"));

    let done = |what: &str| {
        (202, json!({"message": "OK", "details": format!("keepalivedlvs listener {ID} {what}")}))
    };
    assert_eq!(whole(agent.put(&act("reload"), "").await), done("restarted"));
    assert_eq!(whole(agent.put(&act("START"), "").await), done("started"));
    let bogus = json!({"message": "Invalid Request", "details": "Unknown action: bogus"});
    assert_eq!(whole(agent.put(&act("bogus"), "").await), (400, bogus));
    assert_eq!(agent.get("/1.0/listeners").await.json(), listed("ACTIVE"));
    let details = agent.get("/1.0/details").await.json();
    assert_eq!((&details["lvs_listener_process_count"], &details["haproxy_count"]), (&json!(1), &json!(0)));

    // Beside haproxy.cfg, which comes and goes; across a restart of the agent, and not of its text alone.
    agent.put(UPLOAD, &text("")).await;
    assert_eq!(agent.put(&action("start"), "").await.status, 202);
    let ids = |agent: &TestAgent| {
        let document: serde_json::Value = serde_json::from_slice(&agent.proxy.document().unwrap()).unwrap();
        let listeners = document["loadbalancer"]["listeners"].as_array().unwrap().clone();
        listeners.iter().map(|listener| listener["id"].as_str().unwrap()[..1].to_owned()).collect::<String>()
    };
    assert_eq!(ids(&agent), "45");
    let restarted = agent.restarted();
    restarted.reconcile().await.unwrap();
    assert_eq!((restarted.listeners().len(), ids(&agent)), (2, "45".to_owned()));
    assert_eq!(agent.put(&action("stop"), "").await.status, 202);
    assert_eq!(ids(&agent), "5");
    assert_eq!(agent.put(&action("start"), "").await.status, 202);
    assert_eq!(whole(agent.put(&act("stop"), "").await), done("stoped"));
    assert_eq!(ids(&agent), "4");
    assert_eq!(agent.put(&act("start"), "").await.status, 202);

    // What is refused leaves what runs: a line, a listener, a load balancer, a pool of HTTP.
    for (text, status, reason) in [
        (DATAGRAMS.replace("wrr", "rr"), 400, "line 11: lb_algo rr"),
        (DATAGRAMS.replace("Listener 5", "Listener 6"), 400, "the text is of listener 6"),
        (DATAGRAMS.replace("Loadbalancer 3", "Loadbalancer 4"), 409, LB),
        (DATAGRAMS.replace("666667", "666666"), 400, "which is one of HTTP"),
        (DATAGRAMS.replace("10.77.0.100", "10.77.0.101"), 400, "10.77.0.101"),
        (DATAGRAMS.replace("UDP", "DCCP"), 400, "where UDP or SCTP is expected"),
    ] {
        let refused = said(&agent.put(&upload, &text).await);
        assert!(refused.0 == status && refused.1.contains(reason), "{refused:?}");
    }
    // Another listener at its port.
    let other = ID.replace('5', "9");
    let at = format!("/1.0/listeners/22222222-2222-4222-8222-222222222222/{other}/udp_listener");
    let refused = said(&agent.put(&at, &DATAGRAMS.replace(ID, &other)).await);
    let reason = format!("line 7: 10.77.0.100 53: port 53 is that of listener {ID} already");
    assert!(refused.0 == 400 && refused.1.ends_with(&reason), "{refused:?}");
    // Members whose heartbeats fit no datagram.
    let member = |n: u16| {
        let scattered = u128::from(n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        let id = uuid::Uuid::from_u128(scattered);
        format!("# Configuration for Member {id}\nreal_server 10.77.0.12 {} {{\nweight 1\n}}\n", n + 1)
    };
    let (before, after) = DATAGRAMS.split_at(DATAGRAMS.find("    # Configuration for Member").unwrap());
    let many = [before, &(0..6_000).map(member).collect::<String>(), after].concat();
    agent.amphora.must_fit_heartbeats(true);
    let refused = said(&agent.put(&upload, &many).await);
    assert!(refused.0 == 400 && refused.1.contains("line 16: "), "{refused:?}");
    assert!(refused.1.contains("are too many for a heartbeat"), "{refused:?}");
    agent.amphora.must_fit_heartbeats(false);
    // Also what only the proxy finds.
    agent.proxy.be(Mood::Refusing(ID, hyper::StatusCode::BAD_REQUEST));
    let refused = said(&agent.put(&upload, &DATAGRAMS.replace("weight 1", "weight 2")).await);
    assert!(refused.0 == 400 && refused.1.contains(" line 2: "), "{refused:?}");
    agent.proxy.be(Mood::Willing);
    assert_eq!((agent.get(&text_of).await.body, ids(&agent)), (DATAGRAMS.into(), "45".to_owned()));
    let native = agent.request(Method::DELETE, &format!("/2.0/loadbalancers/{LB}"), "").await;
    assert_eq!(native.status, 409);

    for _ in 0..2 {
        let deleted = agent.request(Method::DELETE, &format!("/1.0/listeners/{ID}"), "").await;
        assert_eq!(whole(deleted), (200, json!({"message": "OK"})));
    }
    assert_eq!((ids(&agent), whole(agent.get(&text_of).await)), ("4".to_owned(), (404, nobody)));
}

#[tokio::test]
async fn what_is_refused_leaves_what_runs() {
    let agent = TestAgent::new().await;
    agent.put(UPLOAD, &text("")).await;
    agent.put(&action("start"), "").await;
    let running = agent.proxy.document();
    for (wrong, place) in [
        ("global\n  bogus directive\n".to_owned(), "line 2: bogus directive"),
        (text(" bogus"), "line 19: bind 10.77.0.100:80 bogus"),
        (String::new(), ""),
    ] {
        let (status, words) = said(&agent.put(UPLOAD, &wrong).await);
        assert_eq!(status, 400, "{words}");
        assert!(words.starts_with("Invalid request ") && words.contains(place), "{words}");
    }
    assert_eq!(agent.get(&action("haproxy")).await.body, text(""));

    // What the proxy refuses is said with the line: when the text comes, or when it is taken up by a proxy that was not asked before.
    let listener = "44444444-4444-4444-8444-444444444444";
    let refusing = || agent.proxy.be(Mood::Refusing(listener, hyper::StatusCode::BAD_REQUEST));
    let other = text("").replace("weight 1", "weight 2");
    let place = "line 19: bind 10.77.0.100:80: tls_ciphers: has 4";
    refusing();
    let (status, words) = said(&agent.put(UPLOAD, &other).await);
    assert!(status == 400 && words.starts_with("Invalid request ") && words.contains(place), "{words}");
    assert_eq!(agent.get(&action("haproxy")).await.body, text(""));
    for mood in
        [Mood::Willing, Mood::BreakingOff, Mood::Refusing(listener, hyper::StatusCode::SERVICE_UNAVAILABLE)]
    {
        agent.proxy.be(mood);
        assert_eq!(said(&agent.put(UPLOAD, &other).await).0, 202);
    }
    refusing();
    let (status, words) = said(&agent.put(&action("reload"), "").await);
    assert!(
        status == 400 && words.starts_with("Error reloading haproxy ") && words.contains(place),
        "{words}"
    );
    agent.proxy.be(Mood::Willing);
    assert_eq!(agent.proxy.document(), running);
    assert_eq!(said(&agent.put(&action("reload"), "").await).0, 202);
    assert_ne!(agent.proxy.document(), running);
}

#[tokio::test]
async fn neither_api_overwrites_the_others_load_balancer() {
    let agent = TestAgent::new().await;
    agent.put(&lb(), DOCUMENT).await;
    assert_eq!(agent.get("/1.0/listeners").await.json()[0]["status"], "ACTIVE");
    let upload = format!("/1.0/loadbalancer/x/{ID}/haproxy");
    for answer in [
        agent.put(&upload, &text("")).await,
        agent.put(UPLOAD, &text("")).await,
        agent.put(&format!("/1.0/loadbalancer/{ID}/reload"), "").await,
        agent.put(&format!("/1.0/loadbalancer/{ID}/stop"), "").await,
        agent.request(Method::DELETE, &format!("/1.0/listeners/{ID}"), "").await,
    ] {
        assert_eq!(said(&answer).0, 409, "{}", said(&answer).1);
    }
    assert!(said(&agent.put(&upload, "").await).1.contains("came by /2.0"));
    assert_eq!(agent.request(Method::DELETE, &lb(), "").await.status, 200);

    agent.put(UPLOAD, &text("")).await;
    assert_eq!(
        agent.put(&lb(), DOCUMENT).await.code(),
        (409, "other_api".to_owned()),
        "before it is started"
    );
    agent.put(&action("start"), "").await;
    let native = format!("/2.0/loadbalancers/{LB}");
    let document = agent.get(&native).await;
    assert_eq!(document.status, 200, "it is seen");
    let document = String::from_utf8(document.body.to_vec()).unwrap();
    let member = format!(
        "{native}/pools/66666666-6666-4666-8666-666666666666/members/77777777-7777-4777-8777-777777777777"
    );
    for answer in [
        agent.put(&native, &document).await,
        agent.put(&lb(), DOCUMENT).await,
        agent.put(&member, r#"{"member": {"weight": 3}}"#).await,
        agent.request(Method::DELETE, &native, "").await,
    ] {
        assert_eq!(answer.code(), (409, "other_api".to_owned()));
    }
}

#[tokio::test]
async fn a_text_has_its_own_certificates() {
    let agent = TestAgent::new().await;
    let bind = format!(" ssl crt-list /var/lib/octavia/certs/{LB}/44444444-4444-4444-8444-444444444444.pem");
    let https = text(&bind).replace("    bind ", "    redirect scheme https if !{ ssl_fc }\n    bind ");
    let list = certificate("44444444-4444-4444-8444-444444444444.pem");
    let (status, words) = said(&agent.put(UPLOAD, &https).await);
    assert!(status == 400 && words.contains("line 20") && words.contains("not there"), "{words}");
    agent.put(&list, &format!("/var/lib/octavia/certs/{LB}/abc.pem\n")).await;
    let (status, words) = said(&agent.put(UPLOAD, &https).await);
    assert!(status == 400 && words.contains("line 20") && words.contains("abc.pem"), "{words}");
    agent.put(&certificate("abc.pem"), "garbage").await;
    let (status, words) = said(&agent.put(UPLOAD, &https).await);
    assert!(
        status == 400 && words.contains("line 20") && words.contains("abc.pem cannot be used"),
        "{words}"
    );
    // It is good for something else.
    agent.put(&certificate("abc.pem"), &std::fs::read_to_string(agent.certificates.ca()).unwrap()).await;
    let (status, words) = said(&agent.put(UPLOAD, &https).await);
    assert!(status == 400 && words.contains("line 20") && words.contains("abc has"), "{words}");

    let pem = agent.certificates.issue("one.example");
    agent.put(&certificate("abc.pem"), &pem).await;
    let known = agent.get(&certificate("abc.pem")).await;
    assert_eq!(known.json()["md5sum"], format!("{:x}", md5::compute(&pem)));
    assert_eq!(agent.put(UPLOAD, &https).await.status, 202);
    let stored =
        async || agent.get("/2.0/certificates").await.json()["certificates"].as_array().unwrap().clone();
    assert_eq!(stored().await.len(), 1, "it is there for the start");
    // Another text takes its place; one that is refused leaves nothing.
    let other = agent.certificates.issue("two.example");
    agent.put(&certificate("abc.pem"), &other).await;
    assert_eq!(agent.put(UPLOAD, &https).await.status, 202);
    assert_eq!(stored().await.len(), 1);
    agent.put(&certificate("abc.pem"), &pem).await;
    agent.proxy.be(Mood::Refusing("loadbalancer", hyper::StatusCode::BAD_REQUEST));
    assert_eq!(agent.put(UPLOAD, &https).await.status, 400);
    assert_eq!(stored().await.len(), 0);
    agent.proxy.be(Mood::Willing);
    assert_eq!(agent.put(UPLOAD, &https).await.status, 202);
    let started = agent.put(&action("start"), "").await;
    assert_eq!(started.status, 202, "{:?}", said(&started));
    let first = stored().await;
    assert_eq!((first.len(), first[0]["used_by"].as_array().unwrap().len()), (1, 1));

    // The controller deletes first, and sends the text without it then.
    for name in ["abc.pem", "44444444-4444-4444-8444-444444444444.pem"] {
        assert_eq!(agent.request(Method::DELETE, &certificate(name), "").await.status, 200);
    }
    assert_eq!(stored().await, first);
    agent.put(UPLOAD, &text("")).await;
    agent.put(&action("reload"), "").await;
    // The document before may come back.
    assert_eq!(stored().await.len(), 1);
    agent.put(UPLOAD, &text("").replace("weight 1", "weight 2")).await;
    agent.put(&action("reload"), "").await;
    assert_eq!(stored().await.len(), 0);
}

#[tokio::test]
async fn datagrams_do_not_wait_for_certificates_that_are_gone() {
    const ID: &str = "55555555-5555-4555-8555-555555555555";
    let agent = TestAgent::new().await;
    let udp = |name: &str| format!("/1.0/loadbalancer/{ID}/{name}");
    let upload = format!("/1.0/listeners/22222222-2222-4222-8222-222222222222/{ID}/udp_listener");
    let bind = format!(" ssl crt-list /var/lib/octavia/certs/{LB}/44444444-4444-4444-8444-444444444444.pem");
    let https = text(&bind).replace("    bind ", "    redirect scheme https if !{ ssl_fc }\n    bind ");
    let (list, pem) =
        (format!("/var/lib/octavia/certs/{LB}/abc.pem\n"), agent.certificates.issue("one.example"));
    let bring = async |agent: &TestAgent| {
        agent.put(&certificate("44444444-4444-4444-8444-444444444444.pem"), &list).await;
        agent.put(&certificate("abc.pem"), &pem).await;
        let uploaded = agent.put(UPLOAD, &https).await;
        assert_eq!(uploaded.status, 202, "{:?}", said(&uploaded));
        let started = agent.put(&action("start"), "").await;
        assert_eq!(started.status, 202, "{:?}", said(&started));
    };
    bring(&agent).await;
    assert_eq!(agent.put(&upload, DATAGRAMS).await.status, 200);
    assert_eq!(agent.put(&udp("start"), "").await.status, 202);
    let runs = |agent: &TestAgent| {
        let document = agent.proxy.document()?;
        let document: serde_json::Value = serde_json::from_slice(&document).unwrap();
        let listeners = document["loadbalancer"]["listeners"].as_array().unwrap().iter();
        Some(listeners.map(|listener| listener["id"].as_str().unwrap()[..1].to_owned()).collect::<String>())
    };
    let all = Some("45".to_owned());
    assert_eq!(runs(&agent), all);

    // Another start over the same files, but for the certificates. What runs with those that the proxy has read does not give way.
    let before = agent;
    let mut agent = TestAgent::with(|config| {
        std::fs::create_dir_all(config.base_path.join(LB).join("lvs")).unwrap();
        for name in
            ["loadbalancer.json".to_owned(), format!("{LB}/haproxy.cfg"), format!("{LB}/lvs/{ID}.conf")]
        {
            std::fs::copy(before.base.join(&name), config.base_path.join(&name)).unwrap();
        }
    })
    .await;
    let running = String::from_utf8(before.proxy.document().unwrap().to_vec()).unwrap();
    agent.proxy.run(Some(&running));
    assert_eq!(agent.put(&udp("reload"), "").await.status, 202);
    assert_eq!(runs(&agent), all);

    // The machine was restarted: nothing runs. Texts of datagrams come before haproxy.cfg.
    agent.proxy.start();
    agent.amphora.reconcile().await.unwrap_err();
    assert_eq!(runs(&agent), None);
    let other = DATAGRAMS.replace("weight 1", "weight 2");
    agent.proxy.be(Mood::Refusing("octavia-", hyper::StatusCode::BAD_REQUEST));
    for content in [DATAGRAMS, &other] {
        let uploaded = agent.put(&upload, content).await;
        assert_eq!(uploaded.status, 200, "{:?}", said(&uploaded));
        let started = agent.put(&udp("reload"), "").await;
        assert_eq!(started.status, 202, "{:?}", said(&started));
        assert_eq!(runs(&agent).as_deref(), Some("5"));
    }
    assert_eq!(agent.put(&udp("stop"), "").await.status, 202);
    assert_eq!(runs(&agent), None);
    assert_eq!(agent.put(&udp("start"), "").await.status, 202);
    // It is told that the rest does not run.
    assert!(!agent.amphora.certificates_missing().is_empty());
    agent.amphora.reconcile().await.unwrap_err();
    assert_eq!(agent.get("/2.0/health").await.status, 503);
    assert_eq!(runs(&agent).as_deref(), Some("5"));

    agent.proxy.be(Mood::Willing);
    bring(&agent).await;
    assert_eq!((runs(&agent), agent.amphora.certificates_missing().len()), (all, 0));
    agent.amphora.reconcile().await.unwrap();
    let document = String::from_utf8(agent.proxy.document().unwrap().to_vec()).unwrap();
    assert!(document.contains("\"weight\":2"), "{document}");
}

#[tokio::test]
async fn the_agents_certificate_is_replaced_by_one_that_can_be_used() {
    let agent = TestAgent::new().await;
    let before = std::fs::read(agent.certificates.server()).unwrap();
    let (one, other) = (agent.certificates.issue("localhost"), agent.certificates.issue("localhost"));
    let (key, chain) = (
        one.split_inclusive("END PRIVATE KEY-----").next().unwrap(),
        other.split("END PRIVATE KEY-----").nth(1).unwrap(),
    );
    for wrong in ["garbage", "", chain, &format!("{key}\n{chain}")] {
        assert_eq!(agent.put("/1.0/certificate", wrong).await.status, 400);
        assert_eq!(std::fs::read(agent.certificates.server()).unwrap(), before);
    }
    assert_eq!(agent.put("/1.0/certificate", &one).await.status, 202);
    assert_eq!(std::fs::read(agent.certificates.server()).unwrap(), one.as_bytes());
    let stream = agent.connect().await;
    let shown = stream.get_ref().1.peer_certificates().unwrap()[0].to_vec();
    assert!(one.contains(&data_encoding::BASE64.encode(&shown)[..60]));
}

#[tokio::test]
async fn the_configuration_is_read_whole_before_it_is_written() {
    let agent = TestAgent::new().await;
    let file = agent.base.parent().unwrap().join("agent.conf");
    let server = agent.certificates.server();
    let text = |interval: &str| {
        format!(
            "[health_manager]\ncontroller_ip_port_list = 127.0.0.1:5555\nheartbeat_interval = {interval}\nheartbeat_key = k\n\
             [amphora_agent]\namphora_id = 0f66bb06-6ab9-5d2f-abb4-8f64a2a92e49\nagent_server_cert = {}\nagent_server_ca = {}\n",
            server.display(),
            agent.certificates.ca().display()
        )
    };
    std::fs::write(&file, "").unwrap();
    let without = text("3").replace("server.pem", "nowhere.pem");
    for wrong in ["not an ini", "[DEFAULT]\ndebug = notabool\n", &text("abc"), "", &without] {
        let answer = agent.put("/1.0/config", wrong).await;
        assert_eq!(said(&answer).0, 400, "{}", said(&answer).1);
        assert_eq!(std::fs::read(&file).unwrap(), b"");
    }
    let before = agent.heartbeat.borrow().interval.as_secs();
    assert_ne!(before, 3);
    let answer = agent.put("/1.0/config", &text("3")).await;
    assert_eq!(said(&answer).0, 202, "{}", said(&answer).1);
    assert_eq!(std::fs::read(&file).unwrap(), text("3").as_bytes());
    let heartbeat = agent.heartbeat.borrow();
    assert_eq!((heartbeat.interval.as_secs(), heartbeat.controllers.len()), (3, 1), "it is in force");
}

#[tokio::test]
async fn keepalived_conf_is_taken_up_by_start() {
    let agent = TestAgent::new().await;
    let good = "vrrp_instance lb {\n    interface eth1\n    virtual_router_id 1\n    priority 100\n    accept\n    advert_int 1\n    \
        virtual_ipaddress {\n        10.77.0.100\n    }\n}\n";
    for name in ["start", "stop", "reload"] {
        assert_eq!(said(&agent.put(&format!("/1.0/vrrp/{name}"), "").await).0, 500, "{name}");
    }
    let (status, words) = said(&agent.put("/1.0/vrrp/upload", "garbage {").await);
    assert!(status == 400 && words.contains("line 1"), "{words}");
    let uploaded = agent.put("/1.0/vrrp/upload", good).await;
    assert_eq!((uploaded.status.as_u16(), uploaded.headers.contains_key("etag")), (200, true));
    assert_eq!(agent.daemon.configuration(), None);
    assert_eq!(said(&agent.put("/1.0/vrrp/start", "").await).0, 202);
    assert_eq!(agent.daemon.configuration(), Some(Bytes::from(good)));
    assert_eq!(
        said(&agent.put("/1.0/vrrp/bogus", "").await),
        (400, "Invalid Request Unknown action: bogus".to_owned())
    );
}

#[tokio::test]
async fn a_vrrp_configuration_is_changed_by_the_api_that_it_came_by() {
    let agent = TestAgent::new().await;
    let conf = |name: &str| {
        format!(
            "vrrp_instance {name} {{\n    interface eth1\n    virtual_router_id 1\n    priority 100\n    accept\n    \
             virtual_ipaddress {{\n        10.77.0.100\n    }}\n}}\n"
        )
    };
    let running = || agent.daemon.configuration().map(|bytes| String::from_utf8(bytes.to_vec()).unwrap());
    let other = (409, "other_api".to_owned());

    // By /2.0, in either language.
    assert_eq!(put_as(&agent, "text/plain", &conf("a")).await.status, 200);
    let (status, words) = said(&agent.put("/1.0/vrrp/upload", &conf("b")).await);
    assert!(status == 409 && words.contains("came by /2.0"), "{words}");
    assert_eq!(said(&agent.put("/1.0/vrrp/start", "").await).0, 202, "nothing waits to be taken up");
    assert_eq!(running(), Some(conf("a")));
    assert_eq!(agent.request(Method::DELETE, "/2.0/vrrp", "").await.status, 200);

    // By /1.0, before it is started and then.
    assert_eq!(said(&agent.put("/1.0/vrrp/upload", &conf("b")).await).0, 200);
    assert_eq!(put_as(&agent, "text/plain", &conf("a")).await.code(), other, "before it is started");
    assert_eq!(said(&agent.put("/1.0/vrrp/start", "").await).0, 202);
    assert_eq!(put_as(&agent, "text/plain", &conf("a")).await.code(), other);
    assert_eq!(running(), Some(conf("b")));
    assert_eq!(said(&agent.put("/1.0/vrrp/upload", &conf("c")).await).0, 200);
    assert_eq!(running(), Some(conf("b")), "until it is taken up");
    assert_eq!(said(&agent.put("/1.0/vrrp/reload", "").await).0, 202);
    assert_eq!(running(), Some(conf("c")));

    // Set free, also what waits alone.
    assert_eq!(agent.request(Method::DELETE, "/2.0/vrrp", "").await.status, 200);
    assert_eq!(said(&agent.put("/1.0/vrrp/upload", &conf("d")).await).0, 200);
    assert_eq!(agent.request(Method::DELETE, "/2.0/vrrp", "").await.status, 200);
    assert_eq!(
        agent.request(Method::DELETE, "/2.0/vrrp", "").await.code(),
        (404, "vrrp_not_found".to_owned())
    );
    assert_eq!(put_as(&agent, "text/plain", &conf("a")).await.status, 200);
}

#[tokio::test]
async fn errors_are_of_the_two_shapes_and_of_statuses_that_are_errors() {
    let agent = TestAgent::with(|config| config.max_body_size = 100_000).await;
    let answer = agent.put(UPLOAD, &"x".repeat(100_001)).await;
    assert_eq!(said(&answer).0, 400, "413 would be taken for success: {}", said(&answer).1);
    assert_eq!(answer.headers["connection"], "close");
    for (method, path, status) in [
        (Method::GET, "/nope", 404),
        (Method::GET, "/1.0/info/", 404),
        (Method::POST, "/1.0/info", 405),
        (Method::DELETE, "/", 405),
        (Method::GET, "//", 200),
    ] {
        let answer = agent.request(method, path, "").await;
        assert_eq!(
            (answer.status.as_u16(), answer.headers["connection"].to_str().unwrap()),
            (status, "close"),
            "{path}"
        );
    }
    let options = Request::builder().method(Method::OPTIONS).uri("/1.0/info").header(HOST, "x");
    let answer = agent.send(options.body(Full::default()).unwrap()).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.headers["allow"]),
        (200, &"GET, OPTIONS, HEAD".parse().unwrap())
    );
    // The native API stays as it is, and keeps connections.
    assert!(!agent.get("/2.0/nope").await.headers.contains_key("connection"));
    let udp = agent.put("/1.0/listeners/a/b/udp_listener", "x").await;
    assert!(said(&udp).0 == 400 && said(&udp).1.contains("listener's id"), "{:?}", said(&udp));
}
