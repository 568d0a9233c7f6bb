//! What a pool's protocol, a listener's timeouts and a client's certificate bring about, as the real driver says it.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use amphora_tests::{Namespace, eventually};
use rustls::version::TLS13;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::{
    controller::{POOL, TLS, member, tcp, web},
    driver::plugged,
    objects::{Subject, policy, rule},
};

/// A member at 10.77.0.13:80 that keeps what comes before the request, and answers unless it is to be `silent`.
async fn keeping_member(lan: &Namespace, silent: bool) -> Arc<Mutex<Vec<u8>>> {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let (bound, is_bound) = tokio::sync::oneshot::channel();
    let keeps = Arc::clone(&kept);
    let served = lan.spawn(move || async move {
        let address: SocketAddr = "10.77.0.13:80".parse().unwrap();
        let listener = TcpListener::bind(address).await.unwrap();
        let _ = bound.send(());
        while let Ok((mut stream, _)) = listener.accept().await {
            let keeps = Arc::clone(&keeps);
            tokio::spawn(async move {
                let mut come = Vec::new();
                while let Ok(1..) = stream.read_buf(&mut come).await {
                    let Some(at) = come.windows(4).position(|it| it == b"GET ") else { continue };
                    if silent || !come.ends_with(b"\r\n\r\n") {
                        continue;
                    }
                    *keeps.lock().unwrap() = come[..at].to_vec();
                    come.clear();
                    if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n3").await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    drop(served);
    is_bound.await.unwrap();
    kept
}

#[tokio::test]
async fn members_are_told_of_clients_by_the_proxy_protocol() {
    let Some((ground, driver, lan)) = plugged().await else { return };
    let mut subject = Subject::new(driver, lan.clone());
    let told = keeping_member(&ground.lan, false).await;
    let told = || std::mem::take(&mut *told.lock().unwrap());
    // Behind a listener of HTTP, and behind one of TCP; the latter's pool is the second.
    subject.lb["listeners"] = json!([web(), tcp()]);
    for (port, pool) in [(80, 0), (8080, 1)] {
        let before = subject.lb["pools"][pool].clone();
        subject.lb["pools"][pool]["members"] = json!([member(3)]);
        subject.update();
        assert_eq!(lan.get(port, "/").await, Some((200, "3".to_owned())));
        assert_eq!(told(), b"", "{port}");

        subject.lb["pools"][pool]["protocol"] = "PROXY".into();
        subject.update();
        assert_eq!(lan.get(port, "/").await, Some((200, "3".to_owned())));
        let line = String::from_utf8(told()).unwrap();
        assert!(line.starts_with("PROXY TCP4 10.77.0.1 10.77.0.100 "), "{line}");
        assert!(line.ends_with(&format!(" {port}\r\n")), "{line}");

        subject.lb["pools"][pool]["protocol"] = "PROXYV2".into();
        subject.update();
        assert_eq!(lan.get(port, "/").await, Some((200, "3".to_owned())));
        let header = told();
        assert!(header.starts_with(b"\r\n\r\n\0\r\nQUIT\n\x21\x11"), "{}", header.escape_ascii());
        assert_eq!(header[16..24], [10, 77, 0, 1, 10, 77, 0, 100]);
        assert_eq!(header[26..28], u16::to_be_bytes(port));

        subject.lb["pools"][pool] = before;
        subject.update();
        assert_eq!(lan.get(port, "/").await.unwrap().0, 200);
    }
    assert_eq!(lan.members().await, "12");
}

#[tokio::test]
async fn who_does_not_answer_in_time_is_given_up() {
    let Some((ground, driver, lan)) = plugged().await else { return };
    let mut subject = Subject::new(driver, lan.clone());
    keeping_member(&ground.lan, true).await;
    subject.lb["pools"][0]["members"] = json!([member(3)]);
    subject.listener(|it| it["timeout_member_data"] = 500.into());
    assert_eq!(lan.get(80, "/").await.unwrap().0, 504);
    // Nobody has the fourth address.
    subject.lb["pools"][0]["members"] = json!([member(4)]);
    subject.listener(|it| it["timeout_member_connect"] = 100.into());
    assert_eq!(lan.get(80, "/").await.unwrap().0, 503);
    subject.lb["pools"][0]["members"] = json!([member(1), member(2)]);
    subject.listener(|it| {
        (it["timeout_member_data"], it["timeout_member_connect"]) = (50_000.into(), 5000.into());
    });
    assert_eq!(lan.members().await, "12");

    // A member that serves is judged by another address, where nobody does, and then by its own.
    let monitor = json!({"id": POOL, "type": "TCP", "delay": 1, "timeout": 1, "fall_threshold": 1});
    subject.pool(|it| {
        it["healthmonitor"] = monitor;
        (it["members"][1]["monitor_address"], it["members"][1]["monitor_port"]) =
            ("10.77.0.11".into(), 81.into());
    });
    eventually("it is found dead", async || (lan.members().await == "1").then_some(())).await;
    subject.pool(|it| it["members"][1] = member(2));
    eventually("it is found again", async || (lan.members().await == "12").then_some(())).await;
}

#[tokio::test]
async fn what_a_clients_certificate_says_is_told_and_judged() {
    let Some((ground, driver, lan)) = plugged().await else { return };
    let certificates = &ground.certificates;
    for id in ["shop", "client", "other"] {
        certificates.issue(id, &[if id == "shop" { "shop.example" } else { id }]);
    }
    let mut subject = Subject::new(driver, lan.clone());
    subject.lb["listeners"] = json!([{
        "id": TLS, "protocol": "TERMINATED_HTTPS", "protocol_port": 443, "default_pool_id": POOL,
        "tls_certificate_id": certificates.file("shop"), "client_authentication": "OPTIONAL",
        "client_ca_tls_certificate_id": certificates.file("ca"),
        "insert_headers": {"X-SSL-Client-Verify": "true", "X-SSL-Client-Has-Cert": "true", "X-SSL-Client-DN": "true",
            "X-SSL-Client-CN": "true", "X-SSL-Issuer": "true", "X-SSL-Client-SHA1": "true"},
    }]);
    subject.update();
    let ask = async |id: Option<&str>, path: &str| {
        let config = Arc::new(certificates.client_with(id, &[&TLS13]));
        lan.ask_securely(443, config, "shop.example", path).await.unwrap().0
    };
    let told = ask(Some("client"), "/echo").await.text().to_ascii_lowercase();
    for line in [
        "x-ssl-client-verify: 0\r\n",
        "x-ssl-client-has-cert: 1\r\n",
        "x-ssl-client-dn: /cn=client\r\n",
        "x-ssl-client-cn: client\r\n",
        "x-ssl-issuer: /cn=test authority\r\n",
    ] {
        assert!(told.contains(line), "{line}: {told}");
    }
    let print = told.lines().find_map(|line| line.strip_prefix("x-ssl-client-sha1: ")).unwrap_or_default();
    assert!(print.len() == 40 && print.bytes().all(|it| it.is_ascii_hexdigit()), "{told}");
    let told = ask(None, "/echo").await.text().to_ascii_lowercase();
    assert!(told.contains("x-ssl-client-has-cert: 0\r\n"), "{told}");

    for (rule, refused) in [
        (rule("SSL_CONN_HAS_CERT", "EQUAL_TO", None, "True"), [true, true, false]),
        (rule("SSL_VERIFY_RESULT", "EQUAL_TO", None, "0"), [true, true, true]),
        (rule("SSL_DN_FIELD", "EQUAL_TO", Some("CN"), "client"), [true, false, false]),
        (rule("SSL_DN_FIELD", "STARTS_WITH", Some("CN"), "oth"), [false, true, false]),
    ] {
        for invert in [false, true] {
            let mut rule: Value = rule.clone();
            rule["invert"] = invert.into();
            subject.listener(|it| it["l7policies"] = json!([policy(1, "REJECT", json!([rule]))]));
            for (id, refused) in [Some("client"), Some("other"), None].into_iter().zip(refused) {
                let status = ask(id, "/").await.status();
                assert_eq!(status, if refused == invert { 200 } else { 403 }, "{rule} {id:?}");
            }
        }
    }
    subject.listener(|it| it["l7policies"] = json!([]));
    assert_eq!(ask(None, "/").await.status(), 200);
    assert_eq!(lan.get(80, "/").await, None, "there is no other listener");
}
