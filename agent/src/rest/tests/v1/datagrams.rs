//! Texts of listeners of UDP and SCTP, beside haproxy.cfg.

use super::*;
use crate::rest::tests::small_disk::on_a_small_disk;

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

/// Octavia's agent needs no room to stop something either.
#[tokio::test]
async fn listeners_are_stopped_and_deleted_while_the_disk_is_full() {
    let Some((agent, disk)) = on_a_small_disk().await else { return };
    let ids = ["5", "6", "7"].map(|digit| "55555555-5555-4555-8555-555555555555".replace('5', digit));
    let text_of = |n: usize| {
        let port = format!("10.77.0.100 {}", 53 + n);
        let text = DATAGRAMS.replace("55555555-5555-4555-8555-555555555555", &ids[n]);
        let text = text.replace("10.77.0.100 53", &port);
        // The pool's id, and the member's.
        text.replace("666666666667", &format!("66666666667{n}"))
            .replace("777777777778", &format!("77777777778{n}"))
    };
    let act = |id: &str, name: &str| format!("/1.0/loadbalancer/{id}/{name}");
    let there = async || {
        let listed = agent.get("/1.0/listeners").await.json();
        let of = |one: &serde_json::Value| {
            format!("{}{}", &one["uuid"].as_str().unwrap()[..1], &one["status"].as_str().unwrap()[..1])
        };
        listed.as_array().unwrap().iter().map(of).collect::<Vec<_>>().join(" ")
    };
    let begin = async || {
        agent.put(UPLOAD, &text("")).await;
        assert_eq!(agent.put(&action("start"), "").await.status, 202);
        for (n, id) in ids.iter().enumerate() {
            let upload = format!("/1.0/listeners/22222222-2222-4222-8222-222222222222/{id}/udp_listener");
            let uploaded = agent.put(&upload, &text_of(n)).await;
            assert_eq!(uploaded.status, 200, "{}", said(&uploaded).1);
            assert_eq!(agent.put(&act(id, "start"), "").await.status, 202);
        }
        assert_eq!(there().await, "4A 5A 6A 7A");
    };
    let ballast = disk.join("ballast");
    let fill = || assert!(std::fs::write(&ballast, vec![1; 2 << 20]).is_err());

    begin().await;
    fill();
    let upload = agent.put(UPLOAD, &text("").replace("weight 1", "weight 2")).await;
    assert!(said(&upload).0 == 500 && said(&upload).1.contains("No space left"), "{:?}", said(&upload));
    for (stopped, left) in
        [(LB, "4O 5A 6A 7A"), (&ids[1], "4O 5A 6O 7A"), (&ids[2], "4O 5A 6O 7O"), (&ids[0], "4O 5O 6O 7O")]
    {
        let answer = agent.put(&act(stopped, "stop"), "").await;
        assert_eq!((said(&answer).0, there().await), (202, left.to_owned()), "{}", said(&answer).1);
        let running = agent.proxy.document().map(|document| crate::document::parse(&document).unwrap());
        assert_eq!(running, agent.restarted().model().map(|model| (*model).clone()), "also after a reboot");
    }
    std::fs::remove_file(&ballast).unwrap();

    begin().await;
    fill();
    for (deleted, left) in [(&*ids[0], "4A 6A 7A"), (LB, "6A 7A"), (&ids[2], "6A"), (&ids[1], "")] {
        let answer = agent.request(Method::DELETE, &format!("/1.0/listeners/{deleted}"), "").await;
        assert_eq!((said(&answer).0, there().await), (200, left.to_owned()), "{}", said(&answer).1);
        assert_eq!(agent.restarted().listeners().len(), left.split_whitespace().count());
    }
}
