//! Certificates of a whole amphora: brought by the controller's program, named by the document, replaced under clients.

use std::{fs, net::SocketAddr, sync::Arc};

use amphora_tests::{
    Amphora, Backend, Certificates, Document, Listener, Pool, TlsClient, eventually, in_time, kill_hard,
};
use rustls::version::TLS12;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::{JoinSet, spawn_blocking},
};
use tokio_rustls::{
    client::TlsStream,
    rustls::pki_types::{CertificateDer, pem::PemObject},
};

type Stream = TlsStream<tokio::net::TcpStream>;

/// What the proxy shows a new client.
async fn shown(certificates: &Certificates, address: SocketAddr) -> CertificateDer<'static> {
    let stream = certificates.connect(address).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

async fn get(stream: &mut Stream) -> String {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\na") {
        let read = in_time("the answer comes", stream.read_buf(&mut answer)).await.unwrap();
        assert_ne!(read, 0, "{}", String::from_utf8_lossy(&answer));
    }
    String::from_utf8(answer).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_brought_named_replaced_and_forgotten() {
    let Some(mut amphora) = Amphora::start().await else { return };
    let certificates = Certificates::new();
    let member = Backend::named("a").await;
    let document = Document::of(Listener::https("web"), Pool::http().members([&member]));
    let address = document.address();
    let put = |id: &str, file: &str| {
        amphora.controller(&["certificate", "put", id, &certificates.file(file).display().to_string()])
    };

    let refusal = amphora.refusal(&document);
    assert!(refusal.contains("default_tls_container_ref: there is no certificate web"), "{refusal}");
    assert!(put("web", "server"));
    amphora.apply(&document);
    let first = shown(&certificates, address).await;
    let mut client = certificates.connect(address).await.unwrap();
    assert!(get(&mut client).await.starts_with("HTTP/1.1 200"));

    // Another under the same id: new clients see it at once, who is connected stays.
    certificates.issue("server", &["shop.example"]);
    assert!(put("web", "server"));
    let second = shown(&certificates, address).await;
    assert_ne!(first, second);
    assert!(get(&mut client).await.starts_with("HTTP/1.1 200"));
    assert_eq!(client.get_ref().1.peer_certificates().unwrap()[0], first);

    // What cannot take its place does not.
    assert!(!put("web", "ca"));
    assert!(!amphora.controller(&["certificate", "delete", "web"]));
    assert_eq!(shown(&certificates, address).await, second);

    // Who starts again has it still.
    amphora.kill_agent();
    amphora.start_agent().await;
    assert_eq!(shown(&certificates, address).await, second);
    assert!(get(&mut client).await.starts_with("HTTP/1.1 200"));

    let mut plain = document.clone();
    plain.listeners[0] = plain.listeners[0]
        .clone()
        .with("protocol", "HTTP")
        .with("default_tls_container_ref", serde_json::Value::Null);
    amphora.apply(&plain);
    assert!(amphora.controller(&["certificate", "delete", "web"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_honoured_in_part_is_told_for_as_long_as_it_is_so() {
    let Some(amphora) = Amphora::start().await else { return };
    let certificates = Certificates::new();
    let member = Backend::named("a").await;
    let listener = Listener::https("web")
        .with("tls_versions", json!(["TLSv1.2"]))
        .with("tls_ciphers", "ECDHE-RSA-AES128-GCM-SHA256:NOSUCH");
    let document = Document::of(listener, Pool::http().members([&member]));
    let path = format!("loadbalancer.listeners[{}].tls_ciphers", document.listeners[0].id);
    let put = || {
        let file = certificates.file("server").display().to_string();
        assert!(amphora.controller(&["certificate", "put", "web", &file]));
    };
    let remarks = || amphora.told(&["status", "--json"])["remarks"].clone();
    let unknown = json!({"path": path, "text": "NOSUCH is not known"});
    let unusable = "those of TLSv1.2 are for RSA keys: who is shown web is not served";
    let client = Arc::new(certificates.client(&[&TLS12], &["http/1.1"]));
    let connected = async || TlsClient::connect(document.address(), &client, "shop.example").await;

    put();
    amphora.apply(&document);
    assert_eq!(remarks(), json!([unknown, {"path": path, "text": unusable}]));
    let refused = connected().await.err().unwrap().to_string();
    assert!(refused.contains("HandshakeFailure"), "{refused}");

    certificates.issue_rsa("server", &["shop.example"]);
    put();
    assert_eq!(remarks(), json!([unknown]));
    assert_eq!(connected().await.unwrap().get("/", "").await.unwrap().text(), "a");
    let mut known = document.clone();
    known.listeners[0] = known.listeners[0].clone().with("tls_ciphers", "ECDHE-RSA-AES128-GCM-SHA256");
    amphora.apply(&known);
    assert_eq!(remarks(), serde_json::Value::Null);
}

/// The certificate that is stored under an id, when one is.
fn on_disk(amphora: &Amphora, id: &str) -> Option<CertificateDer<'static>> {
    let text = fs::read(amphora.certificate_file(id)).ok()?;
    Some(CertificateDer::from_pem_slice(&text).unwrap())
}

/// The hosts that the agent tells of an id.
fn told(amphora: &Amphora, id: &str) -> serde_json::Value {
    amphora.told(&["certificate", "show", id, "--json"])["certificate"]["certificates"][0]["names"].clone()
}

/// Does what nothing speaks against, though the agent may be busy with others.
fn insist(change: impl Fn() -> bool) {
    assert!((0..20).any(|_| change()), "a change that nothing speaks against was refused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_of_many_at_once_leave_proxy_disk_and_answers_alike() {
    let Some(amphora) = Amphora::start().await else { return };
    let (mut amphora, certificates) = (Arc::new(amphora), Certificates::new());
    let member = Backend::named("a").await;
    let alone = Document::of(Listener::https("web"), Pool::http().members([&member]));
    let mut with_other = alone.clone();
    with_other.listeners[0] = with_other.listeners[0].clone().with("sni_container_refs", json!(["other"]));
    let address = alone.address();
    let host = |n: usize| format!("version-{n}.example");
    let versions = (0..20).map(host);
    let files: Vec<String> = versions
        .map(|version| {
            certificates.issue(&version, &["shop.example", &version]);
            certificates.file(&version).display().to_string()
        })
        .collect();
    let issued: Vec<_> =
        files.iter().map(|file| CertificateDer::from_pem_slice(&fs::read(file).unwrap()).unwrap()).collect();
    for id in ["web", "other"] {
        assert!(amphora.controller(&["certificate", "put", id, &files[0]]));
    }
    amphora.apply(&with_other);

    let mut changes = JoinSet::new();
    for (n, file) in files.iter().enumerate() {
        let (amphora, file) = (amphora.clone(), file.clone());
        let document = if n % 2 == 0 { alone.clone() } else { with_other.clone() };
        changes.spawn_blocking(move || match n % 4 {
            0 | 1 => insist(|| amphora.controller(&["certificate", "put", "web", &file])),
            2 => {
                insist(|| amphora.controller(&["certificate", "put", "other", &file]));
                insist(|| amphora.try_apply(&document));
            }
            // It is refused while the document names it; the document is refused when it is gone.
            _ => {
                amphora.controller(&["certificate", "delete", "other"]);
                amphora.try_apply(&document);
            }
        });
    }
    // A key of one with the certificate of another would not get through a handshake.
    let mut finished = 0;
    while finished < files.len() {
        let stream = certificates.connect(address).await.unwrap();
        assert!(issued.contains(&stream.get_ref().1.peer_certificates().unwrap()[0]));
        while let Some(changed) = changes.try_join_next() {
            changed.unwrap();
            finished += 1;
        }
    }
    let last = shown(&certificates, address).await;
    let agree = async |amphora: &Arc<Amphora>| {
        assert_eq!(on_disk(amphora, "web").as_ref(), Some(&last));
        assert_eq!(shown(&certificates, address).await, last);
        let stored = amphora.stored();
        let names_other = stored.to_string().contains("\"other\"");
        assert!(!names_other || on_disk(amphora, "other").is_some());
        let amphora = amphora.clone();
        let told = spawn_blocking(move || told(&amphora, "web")).await.unwrap();
        let version = issued.iter().position(|one| *one == last).unwrap();
        assert_eq!(told, json!(["DNS:shop.example".to_owned(), format!("DNS:{}", host(version))]));
    };
    agree(&amphora).await;
    let files_left = fs::read_dir(amphora.certificate_file("web").parent().unwrap()).unwrap().count();
    assert!(files_left <= 2, "something is left half done");

    let exclusive = Arc::get_mut(&mut amphora).unwrap();
    exclusive.kill_agent();
    exclusive.start_agent().await;
    agree(&amphora).await;
    let before = amphora.info().await.unwrap();
    kill_hard(before.pid);
    eventually("another proxy serves", async || {
        let info = amphora.info().await.filter(|info| info.instance != before.instance)?;
        info.loadbalancer
    })
    .await;
    agree(&amphora).await;
}
