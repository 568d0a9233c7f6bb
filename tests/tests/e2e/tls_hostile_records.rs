//! Clients that mean harm with records that no library would send: beside HAProxy.

use std::{process::Stdio, time::Duration};

use amphora_tests::{
    Certificates, Client, PATIENCE, SERVER_NAME, cpu_time, free_port, in_time, loopback, resident_kib,
};
use rustls::{
    ClientConfig, ConnectionTrafficSecrets, ContentType, ProtocolVersion, SupportedCipherSuite,
    SupportedProtocolVersion,
    crypto::cipher::{MessageEncrypter, OutboundChunks, OutboundPlainMessage},
    version::{TLS12, TLS13},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::Command,
};

use super::tls_hostile::{Peer, extended, last_said, records, with_extension};

/// A connection of which the records are written by the test.
struct Sealing {
    socket: TcpStream,
    encrypter: Box<dyn MessageEncrypter>,
    sequence: u64,
}

impl Sealing {
    async fn connect(peer: &Peer, version: &'static SupportedProtocolVersion) -> Self {
        let mut config = ClientConfig::clone(&peer.certificates.client(&[version], &["http/1.1"]));
        config.enable_secret_extraction = true;
        let stream = peer.certificates.connect_with(config.into(), peer.address).await.unwrap();
        let (socket, session) = stream.into_inner();
        let suite = session.negotiated_cipher_suite().unwrap();
        let (sequence, secrets) = session.dangerous_extract_secrets().unwrap().tx;
        let (key, iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv }
            | ConnectionTrafficSecrets::Aes256Gcm { key, iv }
            | ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (key, iv),
            _ => unreachable!("a suite that nobody has"),
        };
        let encrypter = match suite {
            SupportedCipherSuite::Tls13(suite) => suite.aead_alg.encrypter(key, iv),
            // RFC 5288: what is secret of the nonce, and what is sent.
            SupportedCipherSuite::Tls12(suite) => {
                suite.aead_alg.encrypter(key, &iv.as_ref()[..4], &iv.as_ref()[4..])
            }
        };
        let mut sealing = Self { socket, encrypter, sequence: 0 };
        // aws-lc wants to see every number, beginning with the first.
        for _ in 0..sequence {
            sealing.seal(b"");
        }
        sealing
    }

    /// A record of application data.
    fn seal(&mut self, content: &[u8]) -> Vec<u8> {
        let message = OutboundPlainMessage {
            typ: ContentType::ApplicationData,
            version: ProtocolVersion::TLSv1_2,
            payload: OutboundChunks::Single(content),
        };
        self.sequence += 1;
        self.encrypter.encrypt(message, self.sequence - 1).unwrap().encode()
    }
}

/// Records with nothing in them, which RFC 8446 5.1 allows: each is decrypted, and brings nobody forward.
#[tokio::test]
async fn records_with_nothing_in_them_cost_little_and_hold_nobody_up() {
    const RECORDS: u32 = 50_000;
    for peer in Peer::all_with("", |listener| listener).await {
        for version in [&TLS12, &TLS13] {
            peer.serves_good_clients().await;
            let before = (resident_kib(peer.pid), cpu_time(peer.pid));
            let mut client = Sealing::connect(&peer, version).await;
            let mut sent = 0;
            let mut bytes = Vec::new();
            while sent < RECORDS {
                bytes.clear();
                for _ in 0..500 {
                    bytes.extend(client.seal(b""));
                }
                if in_time("the flood", client.socket.write_all(&bytes)).await.is_err() {
                    break;
                }
                sent += 500;
                if sent == RECORDS / 2 {
                    peer.serves_good_clients().await;
                }
            }
            let request = client.seal(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
            let _ = client.socket.write_all(&request).await;
            let mut answer = Vec::new();
            let _ = in_time("the end", client.socket.read_to_end(&mut answer)).await;
            let cost = cpu_time(peer.pid) - before.1;
            let grown = resident_kib(peer.pid).saturating_sub(before.0);
            println!(
                "{}, {version:?}: {sent} records, {} octets back, {cost:?}, {grown} KiB",
                peer.name,
                answer.len()
            );
            assert!(grown < 4 * 1024, "{}: {grown} KiB", peer.name);
            assert!(cost < Duration::from_secs(5), "{}: {cost:?}", peer.name);
            peer.serves_good_clients().await;
        }
    }
}

/// Nothing at all, again and again: that is no sign of life.
#[tokio::test]
async fn records_with_nothing_in_them_keep_no_connection() {
    for peer in Peer::all_with("", |listener| listener).await {
        for version in [&TLS12, &TLS13] {
            let mut client = Sealing::connect(&peer, version).await;
            let begun = std::time::Instant::now();
            let mut pace = tokio::time::interval(Duration::from_millis(100));
            let mut sent = 0;
            let kept = async {
                let mut buffer = [0; 4096];
                loop {
                    tokio::select! {
                        read = client.socket.read(&mut buffer) => match read {
                            Ok(0) | Err(_) => return,
                            Ok(_) => {}
                        },
                        _ = pace.tick() => {
                            sent += 1;
                            let record = client.seal(b"");
                            if client.socket.write_all(&record).await.is_err() {
                                return;
                            }
                        }
                    }
                }
            };
            let ended = tokio::time::timeout(PATIENCE, kept).await.is_ok();
            println!("{}, {version:?}: {sent} records in {:?}", peer.name, begun.elapsed());
            assert!(ended, "{}, {version:?}: kept by {sent} records", peer.name);
        }
    }
}

/// RFC 8446 4.1.4: there is one `HelloRetryRequest`, and who does not heed it has no second chance.
#[tokio::test]
async fn hellos_without_a_share_are_asked_again_once() {
    const CLIENTS: u32 = 100;
    let mut all = Vec::new();
    for peer in Peer::all_with("", |listener| listener).await {
        peer.serves_good_clients().await;
        // key_share, with none in it.
        let hello = records(&with_extension(peer.hello(), 51, &[0, 0]), 16_384);
        let before = (resident_kib(peer.pid), cpu_time(peer.pid));
        let mut said = Vec::new();
        for _ in 0..CLIENTS {
            let mut client = Client::connect(peer.address).await;
            for _ in 0..10 {
                let _ = client.stream.write_all(&hello).await;
            }
            said.push(last_said(&mut client).await);
        }
        let grown = resident_kib(peer.pid).saturating_sub(before.0);
        let cost = (cpu_time(peer.pid) - before.1) / CLIENTS;
        println!("{}: {:?}, {cost:?} each, {grown} KiB", peer.name, said[0]);
        said.dedup();
        assert!(cost < Duration::from_millis(10), "{}: {cost:?}", peer.name);
        assert!(grown < 4 * 1024, "{}: {grown} KiB", peer.name);
        // Kept waiting with the second hello, it is let go as who never began.
        let mut client = Client::connect(peer.address).await;
        client.send(&hello).await;
        assert!(client.ends_within(PATIENCE).await, "{}: waits for a second hello", peer.name);
        peer.serves_good_clients().await;
        all.push(said);
    }
    println!("{all:?}");
    assert!(all.windows(2).all(|pair| pair[0] == pair[1]), "{all:?}");
}

/// Early data that is never taken: it is passed over up to a bound.
#[tokio::test]
async fn early_data_without_end_is_cut_off() {
    for peer in Peer::all_with("", |listener| listener).await {
        peer.serves_good_clients().await;
        let before = (resident_kib(peer.pid), cpu_time(peer.pid));
        let identity = [&[0, 106, 0, 100][..], &[0x5a; 100], &[1, 2, 3, 4]].concat();
        let tickets = [&identity[..], &[0, 33, 32], &[0xa5; 32]].concat();
        let hello = extended(extended(peer.hello(), 42, &[]), 41, &tickets);
        let record = [&[23, 3, 3, 0x40, 0][..], &[0x77; 0x4000]].concat();
        for _ in 0..20 {
            let mut client = Client::connect(peer.address).await;
            client.send(records(&hello, 16_384)).await;
            let flood = async { while client.stream.write_all(&record).await.is_ok() {} };
            in_time("an end", flood).await;
        }
        let grown = resident_kib(peer.pid).saturating_sub(before.0);
        let cost = (cpu_time(peer.pid) - before.1) / 20;
        println!("{}: {cost:?} each, {grown} KiB", peer.name);
        assert!(cost < Duration::from_millis(50), "{}: {cost:?}", peer.name);
        assert!(grown < 4 * 1024, "{}: {grown} KiB", peer.name);
        peer.serves_good_clients().await;
    }
}

/// By OpenSSL's client, with a ticket of a server that takes early data: it is told that it is not taken, and goes on.
#[tokio::test]
async fn early_data_is_refused_without_harm() {
    if Command::new("openssl").arg("version").stdout(Stdio::null()).status().await.is_err() {
        eprintln!("SKIPPED: there is no openssl program");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let (session, early) = (path("session"), path("early"));
    std::fs::write(&early, "GET /early HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let spawn = |address: &str, more: &[&str]| {
        let child = Command::new("openssl")
            .args([
                "s_client",
                "-tls1_3",
                "-alpn",
                "http/1.1",
                "-servername",
                SERVER_NAME,
                "-connect",
                address,
            ])
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        child.unwrap()
    };
    let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let asks = async |address: String, more: &[&str]| {
        let mut client = spawn(&address, &[more, &["-ign_eof"]].concat());
        client.stdin.as_mut().unwrap().write_all(request).await.unwrap();
        // It goes on until the other side has closed.
        let output = in_time("the client's end", client.wait_with_output()).await.unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    // Somebody who gives such tickets.
    let certificates = Certificates::new();
    let ip = loopback();
    let address = format!("{ip}:{}", free_port(ip));
    let server = certificates.file("server").display().to_string();
    let _giver = Command::new("openssl")
        .args(["s_server", "-accept", &address, "-tls1_3", "-early_data", "-alpn", "http/1.1"])
        .args(["-cert", &server, "-key", &server])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    amphora_tests::eventually("a ticket", async || {
        let _client = spawn(&address, &["-sess_out", &session]);
        // It is there as soon as the client has shaken hands, which it has not where nobody listens yet.
        for _ in 0..20 {
            if std::fs::metadata(&session).is_ok_and(|file| file.len() > 0) {
                return Some(());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        None
    })
    .await;
    for peer in Peer::all_with("", |listener| listener).await {
        let more = ["-sess_in", &session, "-early_data", &early];
        let said = asks(peer.address.to_string(), &more).await;
        assert!(said.contains("Early data was rejected"), "{}: {said}", peer.name);
        assert!(said.contains("HTTP/1.1 200") && said.contains("New, TLSv1.3"), "{}: {said}", peer.name);
        let targets: Vec<String> =
            peer.member().requests().iter().map(|request| request.target().to_owned()).collect();
        assert_eq!(targets, ["/"], "{}", peer.name);
        // A ticket of its own promises nothing of the kind.
        let own = path("own");
        asks(peer.address.to_string(), &["-sess_out", &own]).await;
        let shown = Command::new("openssl").args(["sess_id", "-noout", "-text", "-in", &own]).output().await;
        let shown = String::from_utf8_lossy(&shown.unwrap().stdout).into_owned();
        assert!(shown.contains("Max Early Data: 0"), "{}: {shown}", peer.name);
    }
}
