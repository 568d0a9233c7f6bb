//! What is the agent's own: its certificate, its configuration; and keepalived.conf.

use super::*;

/// The amphora's id.
const AMPHORA: &str = "0f66bb06-6ab9-5d2f-abb4-8f64a2a92e49";

#[tokio::test]
async fn the_agents_certificate_is_replaced_by_one_that_can_be_used() {
    let agent = TestAgent::new().await;
    let before = std::fs::read(agent.certificates.server()).unwrap();
    let names = ["localhost", AMPHORA];
    let (one, other) = (agent.certificates.issue_for(&names), agent.certificates.issue_for(&names));
    let foreign = agent.certificates.issue("localhost");
    let (key, chain) = (
        one.split_inclusive("END PRIVATE KEY-----").next().unwrap(),
        other.split("END PRIVATE KEY-----").nth(1).unwrap(),
    );
    for wrong in ["garbage", "", chain, &format!("{key}\n{chain}"), &foreign] {
        let refused = agent.put("/1.0/certificate", wrong).await;
        assert_eq!(refused.status, 400);
        // Octavia's controller asks for the amphora's id in it, and could not mend it any more.
        assert!(wrong != foreign || said(&refused).1.contains(&format!("not one of {AMPHORA}")));
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
