//! TLS of clients and of members as the real driver has it, and certificates that are refused.

use std::sync::Arc;

use rustls::{
    SupportedProtocolVersion,
    version::{TLS12, TLS13},
};
use serde_json::{Value, json};

use crate::{
    controller::{Lan, POOL, TLS, member, web},
    driver::plugged,
    objects::Subject,
};

/// What the database has unless a tenant says something else, as far as it matters here.
const CIPHERS: &str = "TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES128-GCM-SHA256";

#[tokio::test]
async fn tls_of_clients_changes_in_every_way() {
    let Some((ground, driver, lan)) = plugged().await else { return };
    let certificates = &ground.certificates;
    for (id, host) in
        [("shop", "shop.example"), ("other", "other.example"), ("client", "client"), ("lost", "lost")]
    {
        certificates.issue(id, &[host]);
    }
    certificates.revoke("revoked", &["lost"]);
    let plain = |versions: &[&'static SupportedProtocolVersion], protocols: &[&str]| {
        certificates.client(versions, protocols)
    };
    let with = |id| Arc::new(certificates.client_with(Some(id), &[&TLS13]));
    let of = |id: &str| certificates.read(id).0[0].to_vec();
    let mut subject = Subject::new(driver, lan.clone());
    subject.lb["listeners"] = json!([{
        "id": TLS, "protocol": "TERMINATED_HTTPS", "protocol_port": 443, "default_pool_id": POOL,
        "tls_certificate_id": certificates.file("shop"), "sni_containers": [certificates.file("other")],
        "tls_ciphers": CIPHERS,
    }]);
    subject.update();

    // The default one, and one by its name; then without that.
    let asked = async |config, host| lan.send_securely(443, config, host).await;
    let (answer, shown, _) = asked(plain(&[&TLS13], &[]), "other.example").await.unwrap();
    assert!(answer.status() == 200 && shown == of("other"));
    assert_eq!(asked(plain(&[&TLS13], &[]), "shop.example").await.unwrap().1, of("shop"));
    subject.listener(|it| it["sni_containers"] = json!([]));
    assert!(asked(plain(&[&TLS13], &[]), "other.example").await.is_none(), "it is shown the default one");
    assert_eq!(asked(plain(&[&TLS13], &[]), "shop.example").await.unwrap().1, of("shop"));

    // HSTS; versions; protocols.
    subject.listener(|it| {
        (it["hsts_max_age"], it["hsts_include_subdomains"], it["hsts_preload"]) =
            (10.into(), true.into(), true.into());
    });
    let (answer, ..) = asked(plain(&[&TLS13], &[]), "shop.example").await.unwrap();
    assert_eq!(answer.field("strict-transport-security"), Some("max-age=10; includeSubDomains; preload;"));
    subject.listener(|it| it["hsts_max_age"] = Value::Null);
    assert!(!asked(plain(&[&TLS13], &[]), "shop.example").await.unwrap().0.has("strict-transport-security"));
    subject.listener(|it| it["tls_versions"] = json!(["TLSv1.2"]));
    assert!(asked(plain(&[&TLS13], &[]), "shop.example").await.is_none());
    assert_eq!(asked(plain(&[&TLS12], &[]), "shop.example").await.unwrap().0.status(), 200);
    subject.listener(|it| it["tls_versions"] = json!(["TLSv1.2", "TLSv1.3"]));
    assert_eq!(asked(plain(&[&TLS13], &["h2", "http/1.1"]), "shop.example").await.unwrap().2, b"http/1.1");
    subject.listener(|it| it["alpn_protocols"] = json!(["h2", "http/1.1"]));
    assert_eq!(asked(plain(&[&TLS13], &["h2", "http/1.1"]), "shop.example").await.unwrap().2, b"h2");

    // Clients have to show a certificate; may; those that were revoked are not let in.
    subject.listener(|it| {
        it["client_ca_tls_certificate_id"] = json!(certificates.file("ca"));
        it["client_authentication"] = "MANDATORY".into();
    });
    assert!(asked(plain(&[&TLS13], &[]), "shop.example").await.is_none());
    assert_eq!(asked(with("client"), "shop.example").await.unwrap().0.status(), 200);
    subject.listener(|it| it["client_authentication"] = "OPTIONAL".into());
    assert_eq!(asked(plain(&[&TLS13], &[]), "shop.example").await.unwrap().0.status(), 200);
    assert_eq!(asked(with("lost"), "shop.example").await.unwrap().0.status(), 200);
    subject.listener(|it| it["client_crl_container_id"] = json!(certificates.file("revoked")));
    assert!(asked(with("lost"), "shop.example").await.is_none());
    assert_eq!(asked(with("client"), "shop.example").await.unwrap().0.status(), 200);
    subject.listener(|it| {
        it["client_authentication"] = "NONE".into();
        (it["client_ca_tls_certificate_id"], it["client_crl_container_id"]) = (Value::Null, Value::Null);
    });
    assert_eq!(asked(plain(&[&TLS13], &[]), "shop.example").await.unwrap().0.status(), 200);
}

#[tokio::test]
async fn tls_of_members_changes_in_every_way() {
    let Some((ground, driver, lan)) = plugged().await else { return };
    let certificates = &ground.certificates;
    certificates.issue("member", &["10.77.0.11"]);
    certificates.issue("lost", &["10.77.0.12"]);
    certificates.issue("proxy", &["proxy"]);
    certificates.stranger("stranger");
    certificates.revoke("revoked", &["lost"]);
    Lan::secure_member(&ground.lan, 1, certificates, "member", true).await;
    Lan::secure_member(&ground.lan, 2, certificates, "lost", false).await;
    let mut subject = Subject::new(driver, lan);
    subject.pool(|it| {
        it["members"] = json!([member(1), member(2)]);
        (it["members"][0]["protocol_port"], it["members"][1]["protocol_port"]) = (443.into(), 443.into());
        it["tls_enabled"] = true.into();
        it["tls_certificate_id"] = json!(certificates.file("proxy"));
        it["ca_tls_certificate_id"] = json!(certificates.file("ca"));
    });
    assert_eq!(subject.members("").await, "12");
    // One has been revoked; then all are signed by nobody whom one trusts; then one wants a certificate.
    subject.pool(|it| it["crl_container_id"] = json!(certificates.file("revoked")));
    assert_eq!(subject.members("").await, "1");
    subject.pool(|it| {
        it["crl_container_id"] = Value::Null;
        it["ca_tls_certificate_id"] = json!(certificates.file("stranger"));
    });
    assert_eq!(subject.get("").await.status(), 503);
    subject.pool(|it| {
        it["ca_tls_certificate_id"] = json!(certificates.file("ca"));
        it["members"].as_array_mut().unwrap().truncate(1);
        it["tls_certificate_id"] = Value::Null;
    });
    assert_ne!(subject.get("").await.status(), 200);
    subject.pool(|it| it["tls_certificate_id"] = json!(certificates.file("proxy")));
    assert_eq!(subject.members("").await, "1");
    // No TLS any more.
    subject.pool(|it| {
        (it["tls_enabled"], it["tls_certificate_id"], it["ca_tls_certificate_id"]) =
            (false.into(), Value::Null, Value::Null);
        it["members"] = json!([member(2)]);
    });
    assert_eq!(subject.members("").await, "2");
}

#[tokio::test]
async fn a_certificate_that_is_no_good_takes_nothing_else_down() {
    let Some((ground, driver, lan)) = plugged().await else { return };
    let certificates = &ground.certificates;
    certificates.issue("shop", &["shop.example"]);
    certificates.issue("next", &["shop.example"]);
    let mut subject = Subject::new(driver, lan.clone());
    let https = json!({
        "id": TLS, "protocol": "TERMINATED_HTTPS", "protocol_port": 443, "default_pool_id": POOL,
        "tls_certificate_id": certificates.file("shop"),
    });
    subject.lb["listeners"] = json!([web(), https]);
    subject.update();
    let shown = certificates.read("shop").0[0].to_vec();
    assert_eq!(lan.get_securely(443).await, Some((200, shown.clone())));

    // Of one the key, of the other the certificate: Octavia sends both, and is told. All is as before.
    let read = |id| std::fs::read_to_string(certificates.file(id)).unwrap();
    let at = |text: &str| text.find("-----BEGIN PRIVATE KEY").unwrap();
    let (first, second) = (read("shop"), read("next"));
    certificates.put("wrong", &format!("{}{}", &first[..at(&first)], &second[at(&second)..]));
    let mut lb = subject.lb.clone();
    lb["listeners"][1]["tls_certificate_id"] = json!(certificates.file("wrong"));
    lb["pools"][0]["members"] = json!([member(2)]);
    assert_eq!(subject.driver.is_refused("update", json!({ "lb": lb })), "InvalidRequest");
    assert_eq!((lan.members().await, lan.get_securely(443).await), ("12".to_owned(), Some((200, shown))));

    // One that Octavia itself cannot get: it leaves the listener out, and changes the others.
    lb["listeners"][1]["tls_certificate_id"] = json!(certificates.file("missing"));
    assert_eq!(subject.driver.does("update", json!({ "lb": lb })), json!([TLS]));
    assert_eq!((lan.members().await, lan.get_securely(443).await), ("2".to_owned(), None));
    lb["listeners"][1]["tls_certificate_id"] = json!(certificates.file("next"));
    assert_eq!(subject.driver.does("update", json!({ "lb": lb })), json!([]));
    let shown = certificates.read("next").0[0].to_vec();
    assert_eq!((lan.members().await, lan.get_securely(443).await), ("2".to_owned(), Some((200, shown))));
}
