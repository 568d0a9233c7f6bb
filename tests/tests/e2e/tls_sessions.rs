//! TLS sessions are taken up by whoever may: the other amphora of a pair, and nobody once a certificate was revoked.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use amphora_ipc::proxy::PeersState;
use amphora_proxy::{
    peers::core::{Config, Session, Tables},
    tls::TicketSecret,
};
use amphora_tests::{
    Backend, Certificates, Document, Listener, Pool, Proxy, TlsClient, TlsEnd, eventually, in_time,
};
use nix::sys::signal::Signal;
use rustls::{
    ClientConfig,
    version::{TLS12, TLS13},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
};
use uuid::Uuid;

use crate::peers::{KEY, Place, places};

impl Place {
    async fn start_with_tls(&self, document: &Document, certificates: &Certificates) -> Proxy {
        let (file, certificates) = (self.file.display().to_string(), certificates.option());
        let options = ["--peers-file", &file, "--certificates", &certificates];
        Proxy::start_with(document.clone().on(self.address.ip()), &options).await
    }
}

/// Whether a session is taken up, of a client that is served then.
async fn comes(address: SocketAddr, config: &Arc<ClientConfig>) -> bool {
    let mut client = TlsClient::connect(address, config, "shop.example").await.unwrap();
    assert_eq!(client.get("/", "").await.unwrap().text(), "a");
    client.is_resumed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_began_at_one_amphora_are_resumed_at_the_other() {
    let directory = tempfile::tempdir().unwrap();
    let [at_a, at_b] = places(&directory);
    let certificates = Certificates::new();
    certificates.issue("me", &["client one"]);
    let member = Backend::named("a").await;
    let listener = Listener::https("server")
        .with("client_authentication", "OPTIONAL")
        .with("client_ca_tls_container_ref", "ca")
        .with("insert_headers", serde_json::json!({"X-SSL-Client-CN": "true"}));
    let document = Document::of(listener, Pool::http().members([&member]));
    let mut a = at_a.start_with_tls(&document, &certificates).await;
    let b = at_b.start_with_tls(&document, &certificates).await;
    a.until_peers("a connection", |peers| peers.state == PeersState::Connected).await;
    for version in [&TLS12, &TLS13] {
        for certificate in [None, Some("me")] {
            let config = || Arc::new(certificates.client_with(certificate, &[version]));
            let (here, there) = (a.address(), b.address());
            // Each tries anew until the secret has come over: a session that was not taken up is another's from then on.
            for (first, then) in [(here, there), (there, here)] {
                eventually("the other takes it up", async || {
                    let config = config();
                    assert!(!comes(first, &config).await);
                    comes(then, &config).await.then_some(())
                })
                .await;
                // What was known of the client is known there.
                let name = member.last_request().field("x-ssl-client-cn").map(str::to_owned);
                assert_eq!(name.as_deref(), Some(if certificate.is_some() { "client one" } else { "" }));
            }
        }
    }
    // One that is started anew takes up what the other has begun, and what it began itself before.
    let [of_a, of_b] = [a.address(), b.address()];
    let config = || Arc::new(certificates.client_with(None, &[&TLS13]));
    let (old, other, patient) = (config(), config(), config());
    for (address, config) in [(of_a, &old), (of_b, &other), (of_a, &patient)] {
        assert!(!comes(address, config).await);
    }
    a.signal(Signal::SIGTERM);
    assert!(a.ended().await.success());
    // The VIP is the other's meanwhile.
    assert!(comes(of_b, &old).await, "a ticket of one that is gone");
    let a = at_a.start_with_tls(&a.document.clone(), &certificates).await;
    eventually("it is told of the other's secrets", async || {
        let config = config();
        comes(of_b, &config).await;
        comes(a.address(), &config).await.then_some(())
    })
    .await;
    for config in [&other, &patient] {
        assert!(comes(a.address(), config).await);
    }
}

/// A ticket of the other amphora opens what one of its own would, and no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tickets_of_the_other_amphora_open_no_more_than_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let [at_a, at_b] = places(&directory);
    let certificates = Certificates::new();
    for id in ["bad", "good"] {
        certificates.issue(id, &[id]);
    }
    certificates.revoke("list", &[]);
    let member = Backend::named("a").await;
    let pool = Pool::http().members([&member]);
    let closed = Listener::https("server")
        .with("client_authentication", "MANDATORY")
        .with("client_ca_tls_container_ref", "ca")
        .with("client_crl_container_ref", "list");
    let document =
        Document::new().pool(&pool).listener(Listener::https("server").to(&pool)).listener(closed.to(&pool));
    let mut a = at_a.start_with_tls(&document, &certificates).await;
    let mut b = at_b.start_with_tls(&document, &certificates).await;
    let of = |proxy: &Proxy| [proxy.document.address_of(0), proxy.document.address_of(1)];
    let ([open_a, closed_a], [open_b, closed_b]) = (of(&a), of(&b));
    let as_who = |id, version| Arc::new(certificates.client_with(id, &[version]));
    eventually("the other takes sessions up", async || {
        let config = as_who(Some("good"), &TLS13);
        comes(closed_a, &config).await;
        comes(closed_b, &config).await.then_some(())
    })
    .await;
    let refused = async |address, config: &Arc<ClientConfig>| {
        // With TLS 1.3 the client is done before it is judged.
        let served = async { TlsClient::connect(address, config, "shop.example").await?.get("/", "").await };
        served.await.unwrap_err().to_string()
    };
    for version in [&TLS12, &TLS13] {
        // Of another listener.
        for (id, first, then) in [(Some("good"), open_a, closed_b), (Some("good"), closed_a, open_b)] {
            let config = as_who(id, version);
            assert!(!comes(first, &config).await);
            assert!(!comes(then, &config).await, "{version:?}: of another listener");
        }
        let nobody = as_who(None, version);
        assert!(!comes(open_a, &nobody).await);
        let error = refused(closed_b, &nobody).await;
        assert!(error.contains("CertificateRequired"), "{error}");
    }
    // What one of them knows already, and the other does not.
    let known = async |id, version| {
        let config = as_who(Some(id), version);
        assert!(!comes(closed_a, &config).await);
        config
    };
    let mut before = Vec::new();
    for version in [&TLS12, &TLS13] {
        before.push([known("bad", version).await, known("good", version).await]);
    }
    certificates.revoke("list", &["bad"]);
    let told = b.document.clone();
    assert!(b.apply(&told).await.changed);
    for [bad, good] in &before {
        let error = refused(closed_b, bad).await;
        assert!(error.contains("CertificateRevoked"), "{error}");
        assert!(!comes(closed_b, good).await, "a session of another list");
    }
    // With the same list there again they go on.
    let told = a.document.clone();
    assert!(a.apply(&told).await.changed);
    for version in [&TLS12, &TLS13] {
        let config = known("good", version).await;
        assert!(comes(closed_b, &config).await);
    }
    // Another kind of asking.
    let mut told = b.document.clone();
    told.listeners[1] = told.listeners[1].clone().with("client_authentication", "OPTIONAL");
    assert!(b.apply(&told).await.changed);
    for version in [&TLS12, &TLS13] {
        let config = known("good", version).await;
        assert!(!comes(closed_b, &config).await, "a session of another kind of asking");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_of_tickets_cross_the_link_encrypted_and_only_to_who_has_the_key() {
    let directory = tempfile::tempdir().unwrap();
    let [at_a, at_b] = places(&directory);
    let certificates = Certificates::new();
    let member = Backend::named("a").await;
    let document = Document::of(Listener::https("server"), Pool::http().members([&member]));
    let a = at_a.start_with_tls(&document, &certificates).await;
    let config = Arc::new(certificates.client_with(None, &[&TLS13]));
    assert!(!comes(a.address(), &config).await);
    for key in ["another key than that of the two", KEY] {
        // The other amphora's part is played here.
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(at_b.address.ip(), 0)).unwrap();
        let mut stream = socket.connect(at_a.address).await.unwrap();
        let config = Config { key: key.as_bytes().into(), instance: Uuid::new_v4(), epoch: Instant::now() };
        let nonce = *Uuid::new_v4().as_simple().to_string().as_bytes().first_chunk().unwrap();
        let mut session = Session::connect(config, nonce, Instant::now());
        let (mut wire, mut tables) = (Vec::new(), Tables::default());
        tables.set(Vec::new());
        let heard = async {
            let mut buffer = vec![0; 16 * 1024];
            loop {
                let output = session.poll_output(Instant::now(), &tables).to_vec();
                stream.write_all(&output).await.ok()?;
                session.sent(Instant::now(), output.len());
                let read = stream.read(&mut buffer).await.ok().filter(|read| *read > 0)?;
                wire.extend_from_slice(&buffer[..read]);
                session.handle_input(Instant::now(), &buffer[..read], &tables).ok()?;
                let secrets: Vec<TicketSecret> = session.take_tickets();
                if !secrets.is_empty() {
                    return Some(secrets);
                }
            }
        };
        let heard = in_time("secrets or an end", heard).await;
        assert_eq!(heard.is_some(), key == KEY);
        for secret in heard.iter().flatten() {
            for part in [&secret.secret[..], &secret.secret[..16], &secret.secret[16..], &secret.name] {
                assert!(!wire.windows(part.len()).any(|window| window == part));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_revoked_after_a_handshake_resumes_no_session() {
    let certificates = Certificates::new();
    for id in ["bad", "good"] {
        certificates.issue(id, &[id]);
    }
    certificates.revoke("list", &[]);
    let member = Backend::named("a").await;
    for kind in ["MANDATORY", "OPTIONAL"] {
        let listener = Listener::https("server")
            .with("client_authentication", kind)
            .with("client_ca_tls_container_ref", "ca")
            .with("client_crl_container_ref", "list");
        let document = Document::of(listener, Pool::http().members([&member]));
        let mut proxy = Proxy::start_with(document, &["--certificates", &certificates.option()]).await;
        let address = proxy.address();
        let config =
            |id| [&TLS12, &TLS13].map(|version| Arc::new(certificates.client_with(Some(id), &[version])));
        let (bad, good) = (config("bad"), config("good"));
        let mut open = Vec::new();
        for config in bad.iter().chain(&good) {
            assert!(!comes(address, config).await);
            assert!(comes(address, config).await);
            open.push(TlsClient::connect(address, config, "shop.example").await.unwrap());
        }
        certificates.revoke("list", &["bad"]);
        let document = proxy.document.clone();
        assert!(proxy.apply(&document).await.changed);
        for config in &bad {
            let refused = async {
                // With TLS 1.3 the client is done before it is judged.
                TlsClient::connect(address, config, "shop.example").await?.get("/", "").await
            };
            let error = refused.await.unwrap_err().to_string();
            assert!(error.contains("CertificateRevoked"), "{error}");
        }
        for config in &good {
            // Another list is another session.
            assert!(!comes(address, config).await);
            assert!(comes(address, config).await);
        }
        // Who has shaken hands before begins anew, and asks for nothing on what he has.
        for mut client in open {
            assert_eq!(client.rest().await, (String::new(), TlsEnd::Notified));
        }
        certificates.revoke("list", &[]);
    }
}
