//! What members are told of clients over TLS by the PROXY protocol, byte by byte as by HAProxy's `send-proxy-v2-ssl-cn`.

use std::sync::{Arc, Mutex};

use amphora_tests::{
    Backend, Certificates, Document, HaProxy, HaProxyConfig, Listener, Pool, Proxy, TlsClient, TlsMember,
};
use rustls::version::{TLS12, TLS13};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_proxy_protocols_header_comes_before_the_handshake_and_tells_of_the_client() {
    let certificates = Certificates::new();
    certificates.issue("web", &["shop.example"]);
    certificates.issue("me", &["me"]);
    let member = TlsMember::start(&certificates, "web", false).await;
    let pool = Pool::new("PROXYV2").members([&member.backend]).with("tls_enabled", true);
    let listener = Listener::https("web")
        .with("client_authentication", "OPTIONAL")
        .with("client_ca_tls_container_ref", "ca");
    let options = ["--certificates", &certificates.option()];
    let proxy = Proxy::start_with(Document::of(listener, pool), &options).await;
    for (certificate, ends) in [
        (None, "20000f0100000000210007544c5376312e33"),
        (Some("me"), "2000140700000000210007544c5376312e332200026d65"),
    ] {
        let config = Arc::new(certificates.client_with(certificate, &[&TLS13]));
        let mut client = TlsClient::connect(proxy.address(), &config, "shop.example").await.unwrap();
        let text = client.get("/", "").await.unwrap().text();
        assert!(text.contains("header=2111") && text.ends_with(ends), "{text}");
    }
}

/// A plain member that keeps the headers it gets, and answers one request on each connection.
async fn listening(headers: &Arc<Mutex<Vec<Vec<u8>>>>) -> Backend {
    let headers = Arc::clone(headers);
    Backend::tcp("headers", move |stream| {
        let headers = Arc::clone(&headers);
        async move {
            let _ = listen(stream, &headers).await;
        }
    })
    .await
}

async fn listen(mut stream: TcpStream, headers: &Mutex<Vec<Vec<u8>>>) -> std::io::Result<()> {
    let mut header = vec![0; 16];
    stream.read_exact(&mut header).await?;
    header.resize(16 + usize::from(u16::from_be_bytes([header[14], header[15]])), 0);
    stream.read_exact(&mut header[16..]).await?;
    headers.lock().unwrap().push(header);
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await?);
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_told_of_clients_is_what_haproxy_tells() {
    let certificates = Certificates::new();
    certificates.issue("me", &["me"]);
    certificates.issue_named("umlauts", &["Grüße aus Köln, 東京"]);
    certificates.issue_named("long", &["x".repeat(64).as_str()]);
    certificates.issue_named("longer", &["y".repeat(3000).as_str()]);
    certificates.issue_named("odd", &["a=b/c+d,\\\"e\" "]);
    certificates.issue_named("many", &["first", "second"]);
    certificates.issue_named("nameless", &[]);
    certificates.issue_named("empty", &[""]);
    let headers = Arc::default();
    let member = listening(&headers).await;
    let listener = Listener::https("server")
        .with("client_authentication", "OPTIONAL")
        .with("client_ca_tls_container_ref", "ca");
    let document = Document::of(listener, Pool::new("PROXYV2").members([&member]));
    let proxy = Proxy::start_with(document, &["--certificates", &certificates.option()]).await;
    let mut config = HaProxyConfig::http([member.address]);
    let (server, ca) = (certificates.file("server"), certificates.file("ca"));
    config.bind = format!("ssl crt {} ca-file {} verify optional", server.display(), ca.display());
    config.servers[0].2 = "send-proxy-v2-ssl-cn".into();
    let Some(judge) = HaProxy::start(&config).await else { return };
    let mut compared = 0;
    for version in [&TLS12, &TLS13] {
        for id in ["", "me", "umlauts", "long", "longer", "odd", "many", "nameless", "empty"] {
            let told = async |address| {
                let config =
                    Arc::new(certificates.client_with(Some(id).filter(|id| !id.is_empty()), &[version]));
                // The second takes the session up.
                for resumed in [false, true] {
                    let mut client = TlsClient::connect(address, &config, "shop.example").await.unwrap();
                    assert_eq!(client.get("/", "").await.unwrap().text(), "a");
                    assert_eq!(client.is_resumed(), resumed, "{address} {id:?}");
                }
                std::mem::take(&mut *headers.lock().unwrap())
            };
            let (ours, theirs): (Vec<Vec<u8>>, Vec<Vec<u8>>) =
                (told(proxy.address()).await, told(judge.address).await);
            assert_eq!((ours.len(), theirs.len()), (2, 2));
            for (ours, theirs) in ours.iter().zip(&theirs) {
                // Between them are the addresses.
                let parts = |header: &[u8]| (header[..16].to_vec(), header[28..].to_vec());
                let shown = String::from_utf8_lossy(&theirs[28..]).into_owned();
                assert_eq!(parts(ours), parts(theirs), "{version:?} {id:?}: {shown:?}");
                compared += 1;
            }
        }
    }
    println!("{compared} headers, 0 differences");
}
