//! Certificates of a whole amphora: brought by the controller's program, named by the document, replaced under clients.

use std::net::SocketAddr;

use amphora_tests::{Amphora, Backend, Certificates, Document, Listener, Pool, in_time};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{client::TlsStream, rustls::pki_types::CertificateDer};

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
