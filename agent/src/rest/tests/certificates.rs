//! Certificates: how they come in, what is told of them, and what is left when the proxy or the disk says no.

use std::{os::unix::fs::PermissionsExt, path::Path};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, StatusCode, header::CONTENT_TYPE, header::HOST};
use nix::mount::{MsFlags, mount};
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};

use super::{small_disk::on_a_small_disk, *};
use crate::testing::{Mood, TestAgent, agent::Answer};

const PEM: &str = "application/x-pem-file";
const LISTENER: &str = "loadbalancer.listeners[20000000-0000-4000-8000-000000000001]";

/// A certificate with its key, and the key alone.
fn identity(host: &str) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec![host.to_owned()]).unwrap().self_signed(&key).unwrap();
    (certificate.pem() + &key.serialize_pem(), key.serialize_pem())
}

fn authorities() -> String {
    let key = KeyPair::generate().unwrap();
    CertificateParams::new(Vec::<String>::new()).unwrap().self_signed(&key).unwrap().pem()
}

/// The document with a listener that shows this certificate.
fn tls(id: &str) -> String {
    let fields = format!(
        r#""protocol": "TERMINATED_HTTPS", "default_tls_container_ref": "https://barbican/v1/{id}","#
    );
    DOCUMENT.replacen(r#""protocol": "HTTP","#, &fields, 1)
}

async fn put_as(agent: &TestAgent, id: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut request = Request::builder().method(Method::PUT).uri(format!("/2.0/certificates/{id}"));
    for (name, value) in [(HOST.as_str(), "localhost")].iter().chain(headers) {
        request = request.header(*name, *value);
    }
    agent.send(request.body(Full::new(Bytes::copy_from_slice(body))).unwrap()).await
}

async fn put(agent: &TestAgent, id: &str, pem: &str) -> Answer {
    put_as(agent, id, &[(CONTENT_TYPE.as_str(), PEM)], pem.as_bytes()).await
}

#[track_caller]
fn ok(answer: Answer) -> Value {
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    answer.json()
}

#[track_caller]
fn fault(answer: &Answer) -> (String, String) {
    let faults = answer.json()["faults"].clone();
    let text = |name: &str| faults[0][name].as_str().unwrap_or_default().to_owned();
    (text("path"), text("reason"))
}

async fn names(agent: &TestAgent, id: &str) -> Value {
    agent.get(&format!("/2.0/certificates/{id}")).await.json()["certificate"]["certificates"][0]["names"]
        .clone()
}

async fn delete(agent: &TestAgent, id: &str) -> Answer {
    agent.request(Method::DELETE, &format!("/2.0/certificates/{id}"), "").await
}

#[tokio::test]
async fn what_comes_in_is_told_but_for_its_key_and_goes_again() {
    let agent = TestAgent::new().await;
    assert_eq!(ok(agent.get("/2.0/certificates").await), json!({"certificates": []}));
    let (text, key) = identity("a.example.com");
    assert_eq!(ok(put(&agent, "a", &text).await), json!({"changed": true, "serving": false}));
    assert_eq!(ok(put(&agent, "a", &text).await), json!({"changed": false, "serving": false}));
    ok(put(&agent, "ca", &authorities()).await);
    let told = agent.get("/2.0/certificates/a").await;
    let certificate = ok(agent.get("/2.0/certificates/a").await)["certificate"].clone();
    assert_eq!((&certificate["id"], &certificate["kind"]), (&json!("a"), &json!("identity")));
    assert_eq!(certificate["certificates"][0]["names"], json!(["DNS:a.example.com"]));
    assert_eq!((&certificate["used_by"], &certificate["revocation_lists"]), (&json!([]), &json!([])));
    let list = agent.get("/2.0/certificates").await;
    assert_eq!(list.json()["certificates"].as_array().unwrap().len(), 2);
    let secret = key.lines().nth(1).unwrap();
    for body in [&told.body, &list.body] {
        assert!(!String::from_utf8_lossy(body).contains(secret));
    }
    // The file has it, for this user's eyes alone.
    let file = agent.base.join("certificates/a.pem");
    assert!(std::fs::read_to_string(&file).unwrap().contains(secret));
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(ok(delete(&agent, "a").await), json!({"changed": true}));
    assert!(!file.exists());
    let gone = (404, "certificate_not_found".to_owned());
    assert_eq!(delete(&agent, "a").await.code(), gone);
    assert_eq!(agent.get("/2.0/certificates/a").await.code(), gone);
}

#[tokio::test]
async fn what_cannot_be_used_is_refused_with_the_reason() {
    let agent = TestAgent::new().await;
    let (text, key) = identity("a.example.com");
    let (_, other) = identity("b.example.com");
    let certificate = text.replace(&key, "");
    let answer = put(&agent, "a", &(certificate.clone() + &other)).await;
    assert_eq!(answer.code(), (400, "invalid_document".to_owned()));
    assert!(fault(&answer).1.contains("is not that of any certificate"), "{answer:?}");
    for (id, status, code) in [
        ("-a", 400, "invalid_id"),
        ("a%2fb", 400, "invalid_id"),
        ("..", 400, "invalid_id"),
        ("a/b", 404, "not_found"),
    ] {
        assert_eq!(put(&agent, id, &text).await.code(), (status, code.to_owned()), "{id}");
    }
    let answer = put_as(&agent, "a", &[("content-type", "application/json")], b"{}").await;
    assert_eq!(answer.code(), (415, "unsupported_media_type".to_owned()));
    let answer = put(&agent, "a", &"x".repeat((4 << 20) + 1)).await;
    assert_eq!(answer.code(), (413, "body_too_large".to_owned()));
    let headers = [("content-type", PEM), ("x-certificate-password", "secret")];
    let answer = put_as(&agent, "a", &headers, text.as_bytes()).await;
    assert_eq!(fault(&answer).0, "x-certificate-password");
    let headers = [("content-type", "application/x-pkcs12"), ("x-certificate-password", "secret")];
    let answer = put_as(&agent, "a", &headers, text.as_bytes()).await;
    assert!(fault(&answer).1.contains("is not PKCS #12"));
    assert!(!String::from_utf8_lossy(&answer.body).contains("secret"));
    assert_eq!(ok(agent.get("/2.0/certificates").await), json!({"certificates": []}));
}

#[tokio::test]
async fn a_document_has_all_that_it_names_or_is_refused() {
    let agent = TestAgent::new().await;
    let answer = agent.put(&lb(), &tls("a")).await;
    assert_eq!(answer.code(), (400, "invalid_document".to_owned()));
    let expected = (format!("{LISTENER}.default_tls_container_ref"), "there is no certificate a".to_owned());
    assert_eq!(fault(&answer), expected);
    ok(put(&agent, "a", &authorities()).await);
    let answer = agent.put(&lb(), &tls("a")).await;
    assert!(
        fault(&answer).1.contains("needs a private key with its certificate; a has certificates"),
        "{answer:?}"
    );
    assert_eq!(agent.proxy.applications(), 0);
    ok(put(&agent, "a", &identity("a.example.com").0).await);
    ok(agent.put(&lb(), &tls("a")).await);
    let used = ok(agent.get("/2.0/certificates/a").await)["certificate"]["used_by"].clone();
    assert_eq!(used, json!([format!("{LISTENER}.default_tls_container_ref")]));
    let answer = delete(&agent, "a").await;
    assert_eq!(answer.code(), (409, "certificate_in_use".to_owned()));
    assert_eq!(fault(&answer).0, format!("{LISTENER}.default_tls_container_ref"));
    // What is named must stay of its kind.
    let answer = put(&agent, "a", &authorities()).await;
    assert_eq!((answer.code().0, fault(&answer).0), (400, format!("{LISTENER}.default_tls_container_ref")));
    assert_eq!(names(&agent, "a").await, json!(["DNS:a.example.com"]));
    // Nothing names it any more.
    ok(agent.put(&lb(), DOCUMENT).await);
    ok(delete(&agent, "a").await);
}

#[tokio::test]
async fn one_that_is_named_is_replaced_when_the_proxy_takes_it() {
    let mut agent = TestAgent::new().await;
    let (first, _) = identity("a.example.com");
    ok(put(&agent, "a", &first).await);
    ok(agent.put(&lb(), &tls("a")).await);
    assert_eq!(agent.proxy.applications(), 1);
    let (second, _) = identity("b.example.com");
    assert_eq!(ok(put(&agent, "a", &second).await), json!({"changed": true, "serving": true}));
    assert_eq!(agent.proxy.applications(), 2);
    assert_eq!(agent.proxy.document().unwrap(), tls("a"));
    let remark = json!({"path": format!("{LISTENER}.tls_ciphers"), "text": "those are for others"});
    agent.proxy.remark(serde_json::from_value(json!([remark])).unwrap());
    let answer = ok(put(&agent, "a", &second).await);
    assert_eq!(answer, json!({"changed": false, "serving": true, "remarks": [remark]}));
    agent.proxy.remark(Vec::new());
    let file = agent.base.join("certificates/a.pem");
    let stored = std::fs::read(&file).unwrap();
    let kept = |agent: &TestAgent| {
        assert_eq!(std::fs::read(agent.base.join("certificates/a.pem")).unwrap(), stored);
        assert_eq!(std::fs::read_dir(agent.base.join("certificates")).unwrap().count(), 1);
    };
    kept(&agent);

    let (third, _) = identity("c.example.com");
    agent.proxy.be(Mood::Refusing("lb", StatusCode::BAD_REQUEST));
    assert_eq!(put(&agent, "a", &third).await.code(), (400, "invalid_document".to_owned()));
    kept(&agent);
    agent.proxy.be(Mood::Willing);
    assert_eq!(names(&agent, "a").await, json!(["DNS:b.example.com"]));

    // Whether it took it is not known: it is brought back to what is stored.
    agent.amphora.reconcile().await.unwrap();
    agent.proxy.be(Mood::BreakingOff);
    assert_eq!(put(&agent, "a", &third).await.code(), (504, "proxy_timeout".to_owned()));
    kept(&agent);
    agent.proxy.be(Mood::Willing);
    let before = agent.proxy.applications();
    agent.amphora.reconcile().await.unwrap();
    assert_eq!(agent.proxy.applications(), before + 1);

    agent.proxy.stop();
    assert_eq!(put(&agent, "a", &third).await.code(), (503, "proxy_unavailable".to_owned()));
    kept(&agent);
    // What nothing names needs no proxy.
    assert_eq!(ok(put(&agent, "unused", &third).await), json!({"changed": true, "serving": false}));
}

#[tokio::test]
async fn what_is_kept_is_told_while_a_change_waits_for_the_proxy() {
    let agent = TestAgent::new().await;
    ok(put(&agent, "a", &identity("a.example.com").0).await);
    ok(agent.put(&lb(), &tls("a")).await);
    agent.proxy.be(Mood::Hanging);
    let (second, _) = identity("b.example.com");
    let asked = async {
        let staged = agent.base.join("certificates/.a.before");
        while !staged.exists() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        // What the proxy has not taken is not told of.
        assert_eq!(names(&agent, "a").await, json!(["DNS:a.example.com"]));
        ok(agent.get("/2.0/certificates").await);
        agent.proxy.be(Mood::Willing);
    };
    let (answer, ()) = tokio::join!(put(&agent, "a", &second), asked);
    assert_eq!(ok(answer), json!({"changed": true, "serving": true}));
    assert_eq!(names(&agent, "a").await, json!(["DNS:b.example.com"]));
}

#[tokio::test]
async fn a_disk_that_fails_changes_nothing() {
    let agent = TestAgent::new().await;
    let (first, _) = identity("a.example.com");
    ok(put(&agent, "a", &first).await);
    std::fs::create_dir(agent.base.join("certificates/.a.unfinished")).unwrap();
    let answer = put(&agent, "a", &identity("b.example.com").0).await;
    assert_eq!(answer.code(), (500, "storage_failed".to_owned()));
    assert_eq!(names(&agent, "a").await, json!(["DNS:a.example.com"]));
    let health = agent.get("/2.0/health").await;
    assert!(String::from_utf8_lossy(&health.body).contains("cannot write certificates"), "{health:?}");
}

#[tokio::test]
async fn a_stored_file_that_cannot_be_used_is_told_and_can_be_replaced_or_deleted() {
    let agent = TestAgent::new().await;
    let (text, _) = identity("a.example.com");
    for id in ["used", "other", "third"] {
        ok(put(&agent, id, &text).await);
    }
    ok(agent.put(&lb(), &tls("used")).await);
    let file = |id: &str| agent.base.join(format!("certificates/{id}.pem"));
    std::fs::write(file("used"), &text[..text.len() / 2]).unwrap();
    std::fs::write(file("other"), "").unwrap();
    std::fs::File::options().write(true).open(file("third")).unwrap().set_len(1 << 40).unwrap();

    let restarted = agent.restarted();
    let told = serde_json::to_value(restarted.certificates()).unwrap();
    let place = format!("{LISTENER}.default_tls_container_ref");
    assert_eq!(told[0], json!({"id": "other", "fault": "the stored file is empty", "used_by": []}));
    assert!(told[1]["fault"].as_str().unwrap().contains("cannot be read: "), "{told}");
    assert_eq!(told[2]["used_by"], json!([place]));
    // What runs is not at fault, and does not give way to anything.
    let missing = restarted.certificates_missing();
    assert!(missing.len() == 1 && missing[0].path == place, "{missing:?}");
    assert!(missing[0].reason.starts_with("certificate used is not usable: the stored file "), "{missing:?}");
    let error = restarted.reconcile().await.unwrap_err().to_string();
    assert!(error.contains("certificate used is not usable"), "{error}");
    assert_eq!(agent.proxy.document().unwrap(), tls("used"));

    let id = |id: &str| id.parse().unwrap();
    let error = restarted.delete_certificate(id("used")).await.unwrap_err().to_string();
    assert!(error.contains("names this certificate"), "{error}");
    restarted.delete_certificate(id("third")).await.unwrap();
    for id in ["used", "other"] {
        let text = text.clone();
        let read = move || amphora_bundle::Bundle::from_pem(text.as_bytes());
        let put = restarted.put_certificate(id.parse().unwrap(), read).await.unwrap();
        assert_eq!((put.changed, put.serving), (true, id == "used"));
    }
    restarted.reconcile().await.unwrap();
    let told = serde_json::to_value(restarted.certificates()).unwrap();
    assert!(told.as_array().unwrap().len() == 2 && !told.to_string().contains("\"fault\""), "{told}");
    assert_eq!(restarted.certificates_missing(), []);
}

fn remount(disk: &Path, flags: MsFlags) {
    mount(None::<&str>, disk, None::<&str>, MsFlags::MS_REMOUNT | flags, Some("size=1m")).unwrap();
}

/// The certificates that are stored, each with its name of a host, and the files of the directory.
fn stored(agent: &TestAgent) -> (Value, usize) {
    let told = serde_json::to_value(agent.restarted().certificates()).unwrap();
    let hosts =
        told.as_array().unwrap().iter().map(|one| one["certificates"][0]["names"][0].clone()).collect();
    (hosts, std::fs::read_dir(agent.base.join("certificates")).unwrap().count())
}

#[tokio::test]
async fn a_full_disk_keeps_what_is_served() {
    let Some((agent, disk)) = on_a_small_disk().await else { return };
    ok(put(&agent, "a", &identity("a.example.com").0).await);
    ok(agent.put(&lb(), &tls("a")).await);
    let ballast = disk.join("ballast");
    let filled = std::fs::write(&ballast, vec![1; 2 << 20]).unwrap_err();
    assert_eq!(filled.kind(), std::io::ErrorKind::StorageFull);
    let (second, _) = identity("b.example.com");
    for id in ["a", "b"] {
        assert_eq!(put(&agent, id, &second).await.code(), (507, "storage_full".to_owned()));
    }
    assert_eq!((agent.proxy.applications(), stored(&agent)), (1, (json!(["DNS:a.example.com"]), 1)));
    // What needs no room: to delete.
    assert_eq!(delete(&agent, "a").await.code(), (409, "certificate_in_use".to_owned()));
    std::fs::remove_file(&ballast).unwrap();
    ok(put(&agent, "b", &second).await);
    assert!(std::fs::write(&ballast, vec![1; 2 << 20]).is_err());
    ok(delete(&agent, "b").await);
    std::fs::remove_file(&ballast).unwrap();
    assert_eq!(ok(put(&agent, "a", &second).await), json!({"changed": true, "serving": true}));
    assert_eq!(stored(&agent), (json!(["DNS:b.example.com"]), 1));
}

/// The disk takes nothing any more from the moment on at which a certificate is staged.
#[tokio::test]
async fn a_disk_that_fails_after_the_proxy_was_asked_leaves_one_answer_for_proxy_disk_and_client() {
    let Some((agent, disk)) = on_a_small_disk().await else { return };
    ok(put(&agent, "a", &identity("a.example.com").0).await);
    ok(agent.put(&lb(), &tls("a")).await);
    agent.amphora.reconcile().await.unwrap();
    let put_while_it_fails = async |host: &str, then: Mood| {
        agent.proxy.be(Mood::Hanging);
        let (text, _) = identity(host);
        let fails = async {
            let file = |name: &str| agent.base.join("certificates").join(name);
            while !file(".a.before").exists() || file(".a.unfinished").exists() {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
            remount(&disk, MsFlags::MS_RDONLY);
            agent.proxy.be(then);
        };
        tokio::join!(put(&agent, "a", &text), fails).0
    };
    // It was taken: it is served, it was durable before, and it is what the next start finds.
    let answer = put_while_it_fails("b.example.com", Mood::Willing).await;
    assert_eq!(ok(answer), json!({"changed": true, "serving": true}));
    assert_eq!(
        (names(&agent, "a").await, stored(&agent)),
        (json!(["DNS:b.example.com"]), (json!(["DNS:b.example.com"]), 2))
    );
    let health = agent.get("/2.0/health").await;
    assert!(
        String::from_utf8_lossy(&health.body).contains("cannot write certificates: Read-only"),
        "{health:?}"
    );
    let restarted = agent.restarted();
    restarted.reconcile().await.unwrap();
    remount(&disk, MsFlags::empty());
    agent.amphora.reconcile().await.unwrap();
    assert_eq!(stored(&agent), (json!(["DNS:b.example.com"]), 1));

    // It was refused: what ran runs on, and the file is put back as soon as that can be.
    let answer = put_while_it_fails("c.example.com", Mood::Refusing("lb", StatusCode::BAD_REQUEST)).await;
    assert_eq!(answer.code(), (500, "storage_failed".to_owned()));
    assert_eq!(names(&agent, "a").await, json!(["DNS:b.example.com"]));
    let before = agent.proxy.applications();
    let refused = agent.put(&lb(), &tls("a").replace("\"lb\"", "\"other\"")).await;
    assert_eq!(refused.code(), (500, "storage_failed".to_owned()));
    assert!(agent.amphora.reconcile().await.is_err());
    assert_eq!(
        agent.proxy.applications(),
        before,
        "a document is not given to the proxy with a certificate that it has refused"
    );
    remount(&disk, MsFlags::empty());
    agent.proxy.be(Mood::Willing);
    agent.amphora.reconcile().await.unwrap();
    assert_eq!(
        (stored(&agent), agent.proxy.document().unwrap()),
        ((json!(["DNS:b.example.com"]), 1), tls("a").into())
    );
}

#[tokio::test]
async fn what_a_killed_agent_has_staged_is_decided_by_the_proxy() {
    let mut agent = TestAgent::new().await;
    for (taken, left) in [(true, "DNS:b.example.com"), (false, "DNS:a.example.com")] {
        ok(put(&agent, "a", &identity("a.example.com").0).await);
        ok(agent.put(&lb(), &tls("a")).await);
        // As when it was killed before the proxy has answered.
        let file = |name: &str| agent.base.join("certificates").join(name);
        std::fs::rename(file("a.pem"), file(".a.before")).unwrap();
        let staged = amphora_bundle::Bundle::from_pem(identity("b.example.com").0.as_bytes()).unwrap();
        std::fs::write(file("a.pem"), &*staged.to_pem()).unwrap();
        agent.proxy.start();
        agent.proxy.be(if taken { Mood::Willing } else { Mood::Refusing("lb", StatusCode::BAD_REQUEST) });
        let restarted = agent.restarted();
        let reconciled = restarted.reconcile().await;
        assert_eq!(reconciled.is_ok(), taken, "{reconciled:?}");
        agent.proxy.be(Mood::Willing);
        restarted.reconcile().await.unwrap();
        assert_eq!(agent.proxy.document().unwrap(), tls("a"));
        assert_eq!(stored(&agent), (json!([left]), 1));
        let told = serde_json::to_value(restarted.certificates()).unwrap();
        assert_eq!(told[0]["certificates"][0]["names"], json!([left]));
    }
}

#[tokio::test]
async fn what_only_the_document_before_names_is_there_to_fall_back_to() {
    let mut agent = TestAgent::new().await;
    for id in ["a", "b"] {
        ok(put(&agent, id, &identity("a.example.com").0).await);
        ok(agent.put(&lb(), &tls(id)).await);
    }
    agent.proxy.start();
    agent.proxy.be(Mood::Refusing("v1/b", StatusCode::BAD_REQUEST));
    let restarted = agent.restarted();
    restarted.reconcile().await.unwrap();
    assert_eq!(agent.proxy.document().unwrap(), tls("a"));
    assert_eq!(restarted.certificates().len(), 2);
}

#[tokio::test]
async fn keys_that_a_reboot_has_taken_are_waited_for() {
    let mut agent = TestAgent::new().await;
    let ((a, _), (b, _)) = (identity("a.example.com"), identity("b.example.com"));
    ok(agent.put(&lb(), DOCUMENT).await);
    let both = tls("a").replace("\"default_tls", r#""sni_container_refs": ["b"], "default_tls"#);
    ok(put(&agent, "a", &a).await);
    ok(put(&agent, "b", &b).await);
    ok(agent.put(&lb(), &both).await);
    agent.proxy.start();
    std::fs::remove_dir_all(agent.base.join("certificates")).unwrap();

    let restarted = agent.restarted();
    let error = restarted.reconcile().await.unwrap_err().to_string();
    assert!(error.contains("there is no certificate a"), "{error}");
    // The document does not give way to the one before, which would do without.
    assert_eq!(agent.proxy.document(), None);
    let read = |text: &str| {
        let text = text.to_owned();
        move || amphora_bundle::Bundle::from_pem(text.as_bytes())
    };
    let put = restarted.put_certificate("a".parse().unwrap(), read(&a)).await.unwrap();
    assert_eq!((put.changed, put.serving), (true, false));
    let put = restarted.put_certificate("b".parse().unwrap(), read(&b)).await.unwrap();
    assert_eq!((put.changed, put.serving), (true, true));
    assert_eq!(agent.proxy.document().unwrap(), both);
}
