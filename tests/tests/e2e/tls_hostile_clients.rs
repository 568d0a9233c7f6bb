//! Clients that mean harm with what they show, with how they cut what they send, and by being many: beside HAProxy.

use std::time::Duration;

use amphora_tests::{Client, PATIENCE, cpu_time, in_time, resident_kib};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, DistinguishedName, DnType, IsCa,
    KeyPair,
};
use rustls::{
    ClientConfig,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    version::TLS13,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::tls_hostile::Peer;

/// One that says it is of the authority that is asked for, and is not; with so many extensions that nobody knows, and so many
/// more certificates behind it.
fn forged(extensions: u64, others: usize) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // As the authority of the tests is called.
    params.distinguished_name.push(DnType::CommonName, "test authority");
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut leaf = CertificateParams::default();
    leaf.distinguished_name = DistinguishedName::new();
    let extension = |n| CustomExtension::from_oid_content(&[1, 3, n], Vec::new());
    leaf.custom_extensions = (1_000..1_000 + extensions).map(extension).collect();
    let leaf = leaf.signed_by(&key, &issuer).unwrap().der().clone();
    let chain = std::iter::once(leaf).chain(std::iter::repeat_n(issuer.der().clone(), others)).collect();
    (chain, PrivatePkcs8KeyDer::from(key.serialize_der()).into())
}

/// What is shown is looked at before its signature is: that must not cost more than the bytes do.
#[tokio::test]
async fn certificates_with_thousands_of_parts_cost_little_to_refuse() {
    const CLIENTS: u32 = 10;
    let peers = Peer::all_with("ca-file {ca} verify optional", |listener| {
        listener.with("client_authentication", "OPTIONAL").with("client_ca_tls_container_ref", "ca")
    });
    for peer in peers.await {
        peer.serves_good_clients().await;
        let memory = resident_kib(peer.pid);
        let mut costs = Vec::new();
        for (extensions, others) in [(0, 0), (1_000, 0), (4_500, 0), (0, 90)] {
            let (chain, key) = forged(extensions, others);
            let config: ClientConfig = peer.certificates.client_showing(chain, key, &[&TLS13]);
            let config = std::sync::Arc::new(config);
            let before = cpu_time(peer.pid);
            for _ in 0..CLIENTS {
                // With TLS 1.3 a client learns of it when it reads.
                let refused = match peer.certificates.connect_with(config.clone(), peer.address).await {
                    Err(_) => true,
                    Ok(mut stream) => in_time("an end", stream.read_u8()).await.is_err(),
                };
                assert!(refused, "{}: {extensions}, {others}", peer.name);
            }
            costs.push((cpu_time(peer.pid) - before) / CLIENTS);
            peer.serves_good_clients().await;
        }
        println!("{}: {costs:?} for none, 1,000 and 4,500 extensions, and 90 more certificates", peer.name);
        let [none, some, many, chain] = costs[..] else { unreachable!() };
        let (some, many) = (some.saturating_sub(none), many.saturating_sub(none));
        // Linear is 4.5 times as much; a quadratic price, 20 times.
        assert!(many < some * 10 + Duration::from_millis(10), "{}: {costs:?}", peer.name);
        assert!(chain < none + Duration::from_millis(20), "{}: {costs:?}", peer.name);
        let grown = resident_kib(peer.pid).saturating_sub(memory);
        assert!(grown < 8 * 1024, "{}: {grown} KiB", peer.name);
    }
}

/// A record for each byte of a body: 22 bytes and a decryption each.
#[tokio::test]
async fn an_upload_in_records_of_one_byte_has_a_price_that_is_linear_and_takes_no_memory() {
    for peer in Peer::all_with("", |listener| listener).await {
        peer.serves_good_clients().await;
        let memory = resident_kib(peer.pid);
        let mut costs = Vec::new();
        for length in [2_000, 20_000] {
            let mut stream = peer.certificates.connect(peer.address).await.unwrap();
            let head = format!(
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).await.unwrap();
            let before = cpu_time(peer.pid);
            let (socket, session) = stream.get_mut();
            let mut bytes = Vec::new();
            for _ in 0..length {
                std::io::Write::write_all(&mut session.writer(), b"x").unwrap();
                session.write_tls(&mut bytes).unwrap();
            }
            in_time("sending", socket.write_all(&bytes)).await.unwrap();
            let mut answer = String::new();
            in_time("an answer", stream.read_to_string(&mut answer)).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200"), "{}: {answer}", peer.name);
            costs.push(cpu_time(peer.pid) - before);
        }
        let grown = resident_kib(peer.pid).saturating_sub(memory);
        println!("{}: {costs:?} for 2,000 and 20,000 records, {grown} KiB", peer.name);
        assert!(costs[1] < costs[0] * 25 + Duration::from_millis(50), "{}: {costs:?}", peer.name);
        assert!(grown < 4 * 1024, "{}: {grown} KiB", peer.name);
    }
}

/// Who shakes hands has a place of `connection_limit`, as with HAProxy; it is lost after the client's timeout and no later.
#[tokio::test]
async fn handshakes_that_are_never_finished_hold_a_listener_up_for_the_timeout_alone() {
    for peer in Peer::all_with("maxconn 5", |listener| listener.with("connection_limit", 5)).await {
        peer.serves_good_clients().await;
        let memory = resident_kib(peer.pid);
        let mut slow = Vec::new();
        for _ in 0..10 {
            let mut client = Client::connect(peer.address).await;
            client.send(&[22, 3, 1, 0, 200, 1]).await;
            slow.push(client);
        }
        let waited = std::time::Instant::now();
        // Two rounds of five.
        in_time("a good client", async {
            loop {
                let served = peer.certificates.connect(peer.address).await;
                if let Ok(mut stream) = served
                    && amphora_tests::https_get(&mut stream)
                        .await
                        .is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
                {
                    return;
                }
            }
        })
        .await;
        let grown = resident_kib(peer.pid).saturating_sub(memory);
        println!(
            "{}: a good client waits {:?} for 10 that do not go on, {grown} KiB",
            peer.name,
            waited.elapsed()
        );
        for client in &mut slow {
            assert!(client.ends_within(PATIENCE).await, "{}: a handshake without end", peer.name);
        }
        peer.serves_good_clients().await;
        assert!(grown < 2 * 1024, "{}: {grown} KiB", peer.name);
    }
}
