//! Who gets in, and with which certificates.

use std::fs;

use hyper::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::{
    config::TlsProtocol,
    testing::{Certificates, TestAgent, eventually},
};

/// Whether a client gets an answer. With TLS 1.3 the client learns of a refusal only when it reads.
async fn gets_in(agent: &TestAgent, client: std::sync::Arc<rustls::ClientConfig>) -> bool {
    let Ok(mut stream) = agent.connect_as(client).await else { return false };
    let mut answer = Vec::new();
    let sent = stream.write_all(b"GET /2.0 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    let read = stream.read_to_end(&mut answer).await;
    sent.is_ok() && read.is_ok() && answer.starts_with(b"HTTP/1.1 200")
}

#[tokio::test]
async fn only_a_certificate_of_the_ca_gets_in() {
    let agent = TestAgent::new().await;
    let own = &agent.certificates;
    let elsewhere = tempfile::tempdir().unwrap();
    let stranger = Certificates::new(elsewhere.path());
    assert!(gets_in(&agent, own.client(own)).await);
    assert!(!gets_in(&agent, Certificates::anonymous(own)).await);
    assert!(!gets_in(&agent, stranger.client(own)).await);
}

#[tokio::test]
async fn tls_1_2_serves_unless_1_3_is_the_least() {
    for (least, expected) in [(TlsProtocol::Tls12, true), (TlsProtocol::Tls13, false)] {
        let agent = TestAgent::with(|config| config.tls_protocol = least).await;
        let mut old = (*agent.certificates.client(&agent.certificates)).clone();
        assert!(gets_in(&agent, old.clone().into()).await);
        let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let versions = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS12])
            .unwrap();
        let only_12 = versions
            .dangerous()
            .with_custom_certificate_verifier(std::sync::Arc::new(AnyServer))
            .with_client_cert_resolver(old.client_auth_cert_resolver.clone());
        old = only_12;
        assert_eq!(gets_in(&agent, old.into()).await, expected);
    }
}

#[tokio::test]
async fn new_connections_use_new_certificates() {
    let agent = TestAgent::new().await;
    let own = &agent.certificates;
    let before = agent.connect().await.get_ref().1.peer_certificates().unwrap()[0].clone();
    fs::write(own.server(), own.issue("localhost")).unwrap();
    let after = agent.connect().await.get_ref().1.peer_certificates().unwrap()[0].clone();
    assert_ne!(before, after);
    fs::write(own.server(), "garbage").unwrap();
    let kept = agent.connect().await.get_ref().1.peer_certificates().unwrap()[0].clone();
    assert_eq!(after, kept, "what is not usable is not used");
    let elsewhere = tempfile::tempdir().unwrap();
    let successor = Certificates::new(elsewhere.path());
    fs::write(own.server(), own.issue("localhost")).unwrap();
    fs::copy(successor.ca(), own.ca()).unwrap();
    assert!(gets_in(&agent, successor.client(own)).await);
    assert!(!gets_in(&agent, own.client(own)).await);
}

#[tokio::test]
async fn stopping_finishes_requests_under_way() {
    let mut agent = TestAgent::new().await;
    let idle = agent.connect().await;
    let mut stream = agent.connect().await;
    let (first, second) = DOCUMENT.split_at(100);
    let head = format!("PUT {} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", lb(), DOCUMENT.len());
    stream.write_all(format!("{head}{first}").as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    // The server has one thread: once it answered a later request, it has read the head of this one.
    assert_eq!(agent.get("/2.0").await.status, StatusCode::OK);
    agent.ask_to_stop();
    let address = agent.address;
    eventually("nobody listens any more", async || tokio::net::TcpStream::connect(address).await.is_err())
        .await;
    stream.write_all(second.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    drop(idle);
    agent.stop().await;
    assert_eq!(agent.proxy.document().unwrap(), DOCUMENT);
}

#[tokio::test]
async fn a_connection_serves_many_requests() {
    let agent = TestAgent::new().await;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(agent.connect().await))
            .await
            .unwrap();
    tokio::spawn(connection);
    for path in ["/2.0", "/2.0/nowhere", "/2.0/info"] {
        sender.ready().await.unwrap();
        let request = hyper::Request::get(path)
            .header("host", "x")
            .body(http_body_util::Full::<bytes::Bytes>::default());
        let answer = sender.send_request(request.unwrap()).await.unwrap();
        let expected = if path == "/2.0/nowhere" { StatusCode::NOT_FOUND } else { StatusCode::OK };
        assert_eq!(answer.status(), expected);
        http_body_util::BodyExt::collect(answer.into_body()).await.unwrap();
    }
}

/// Trusts everyone: only for a client whose own certificate is the matter.
#[derive(Debug)]
struct AnyServer;

impl rustls::client::danger::ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
