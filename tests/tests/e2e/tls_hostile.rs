//! Clients that mean harm with TLS: others are served meanwhile, memory and processor time stay bounded, and HAProxy says what
//! becomes of them.

use std::{
    net::SocketAddr,
    process::Stdio,
    time::{Duration, Instant},
};

use amphora_model::LoadBalancer;
use amphora_tests::{
    Backend, Certificates, Client, Document, HaProxy, HaProxyConfig, Listener, PATIENCE, Pool, Proxy,
    SERVER_NAME, cpu_time, https_get, in_time, resident_kib,
};
use rustls::{
    ClientConnection, SupportedProtocolVersion,
    pki_types::ServerName,
    version::{TLS12, TLS13},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::Command,
    task::JoinSet,
};

/// How long a good client may wait while the machine is busy with bad ones.
const GOOD: Duration = Duration::from_secs(5);
/// Of a client's silence.
const TIMEOUT: u32 = 2000;

/// The proxy, or HAProxy, with the same listener.
pub(super) struct Peer {
    pub(super) name: &'static str,
    pub(super) address: SocketAddr,
    pub(super) pid: u32,
    pub(super) certificates: Certificates,
    _running: Running,
    member: Backend,
}

#[allow(dead_code, reason = "what runs is kept until the end of the test")]
enum Running {
    Proxy(Box<Proxy>),
    HaProxy(HaProxy),
}

impl Peer {
    async fn all() -> Vec<Self> {
        Self::all_with("", |listener| listener).await
    }

    /// With more words on HAProxy's line, in which `{ca}` is the authority, and as much for the listener.
    pub(super) async fn all_with(bind: &str, listener: impl FnOnce(Listener) -> Listener) -> Vec<Self> {
        [Self::haproxy(bind).await, Self::proxy(listener).await].into_iter().flatten().collect()
    }

    async fn proxy(more: impl FnOnce(Listener) -> Listener) -> Option<Self> {
        let member = Backend::named("a").await;
        let certificates = Certificates::new();
        let listener = more(Listener::https("server").with("timeout_client_data", TIMEOUT));
        let document = Document::of(listener, Pool::http().members([&member]));
        if let Err(refusal) = LoadBalancer::from_json(document.to_json().to_string().as_bytes()) {
            eprintln!("SKIPPED: nothing but HAProxy was tried: {refusal}");
            return None;
        }
        let directory = certificates.path().display().to_string();
        let proxy = Proxy::start_with(document, &["--workers", "1", "--certificates", &directory]).await;
        let (address, pid) = (proxy.address(), proxy.pid());
        let running = Running::Proxy(Box::new(proxy));
        Some(Self { name: "the proxy", address, pid, certificates, _running: running, member })
    }

    async fn haproxy(more: &str) -> Option<Self> {
        let member = Backend::named("a").await;
        let certificates = Certificates::new();
        let mut config = HaProxyConfig::http([member.address]);
        let more = more.replace("{ca}", &certificates.file("ca").display().to_string());
        config.bind = format!("ssl crt {} alpn h2,http/1.1 {more}", certificates.file("server").display());
        config.client_timeout = TIMEOUT;
        let haproxy = HaProxy::start(&config).await?;
        let (address, pid) = (haproxy.address, haproxy.pid());
        let running = Running::HaProxy(haproxy);
        Some(Self { name: "HAProxy", address, pid, certificates, _running: running, member })
    }

    pub(super) fn member(&self) -> &Backend {
        &self.member
    }

    pub(super) async fn serves_good_clients(&self) {
        for _ in 0..3 {
            let begun = Instant::now();
            let mut stream = self.certificates.connect(self.address).await.unwrap();
            let answer = https_get(&mut stream).await.unwrap();
            assert!(
                answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\na"),
                "{}: {answer}",
                self.name
            );
            assert!(begun.elapsed() < GOOD, "{}: {:?}", self.name, begun.elapsed());
        }
    }

    /// A ClientHello as a good client sends it, without the head of its record.
    pub(super) fn hello(&self) -> Vec<u8> {
        self.hello_of(&[&TLS13])
    }

    fn hello_of(&self, versions: &[&'static SupportedProtocolVersion]) -> Vec<u8> {
        let config = self.certificates.client(versions, &["http/1.1"]);
        let mut session = ClientConnection::new(config, ServerName::try_from(SERVER_NAME).unwrap()).unwrap();
        let mut record = Vec::new();
        session.write_tls(&mut record).unwrap();
        record.split_off(5)
    }
}

/// Records of the handshake, each with at most so many bytes of it.
pub(super) fn records(handshake: &[u8], each: usize) -> Vec<u8> {
    let record = |piece: &[u8]| [&[22, 3, 1], &(piece.len() as u16).to_be_bytes()[..], piece].concat();
    handshake.chunks(each).flat_map(record).collect()
}

/// A ClientHello with one more extension at its end.
pub(super) fn extended(mut hello: Vec<u8>, number: u16, content: &[u8]) -> Vec<u8> {
    // RFC 8446 4.1.2: version, random, session id, suites, compression methods, extensions.
    let mut at = 4 + 2 + 32;
    at += 1 + usize::from(hello[at]);
    at += 2 + usize::from(u16::from_be_bytes([hello[at], hello[at + 1]]));
    at += 1 + usize::from(hello[at]);
    hello.extend(number.to_be_bytes());
    hello.extend((content.len() as u16).to_be_bytes());
    hello.extend(content);
    let extensions = (hello.len() - at - 2) as u16;
    hello[at..at + 2].copy_from_slice(&extensions.to_be_bytes());
    let all = (hello.len() - 4) as u32;
    hello[1..4].copy_from_slice(&all.to_be_bytes()[1..]);
    hello
}

/// A ClientHello with something else in one of its extensions.
pub(super) fn with_extension(mut hello: Vec<u8>, number: u16, content: &[u8]) -> Vec<u8> {
    let two = |hello: &[u8], at: usize| u16::from_be_bytes([hello[at], hello[at + 1]]);
    let mut at = 4 + 2 + 32;
    at += 1 + usize::from(hello[at]);
    at += 2 + usize::from(two(&hello, at));
    at += 1 + usize::from(hello[at]) + 2;
    while two(&hello, at) != number {
        at += 4 + usize::from(two(&hello, at + 2));
    }
    hello.drain(at..at + 4 + usize::from(two(&hello, at + 2)));
    extended(hello, number, content)
}

/// A ClientHello that says that more has been tried before: `TLS_FALLBACK_SCSV` in place of its last suite.
fn falling_back(mut hello: Vec<u8>) -> Vec<u8> {
    let at = 4 + 2 + 32;
    let at = at + 1 + usize::from(hello[at]);
    let end = at + 2 + usize::from(u16::from_be_bytes([hello[at], hello[at + 1]]));
    hello[end - 2..end].copy_from_slice(&[0x56, 0x00]);
    hello
}

/// What the other side says first: the type of its record and the first byte in it; `None` when it closes.
async fn first_said(client: &mut Client) -> Option<(u8, u8)> {
    let mut head = [0; 6];
    in_time("an answer", client.stream.read_exact(&mut head)).await.ok()?;
    Some((head[0], head[5]))
}

const SERVER_HELLO: Option<(u8, u8)> = Some((22, 2));

#[tokio::test]
async fn slow_handshakes_are_bounded_in_time_and_memory() {
    const CLIENTS: usize = 300;
    for peer in Peer::all().await {
        peer.serves_good_clients().await;
        let before = resident_kib(peer.pid);
        let cost = cpu_time(peer.pid);
        let hello = records(&peer.hello(), 16_384);
        let mut slow = Vec::new();
        for number in 0..CLIENTS {
            let mut client = Client::connect(peer.address).await;
            // Nothing, the beginning of a record, all of it but the last byte.
            client.send(&hello[..[0, 7, hello.len() - 1][number % 3]]).await;
            slow.push(client);
        }
        peer.serves_good_clients().await;
        let each = resident_kib(peer.pid).saturating_sub(before) / CLIENTS as u64;
        println!("{}: {each} KiB for each slow handshake", peer.name);
        assert!(each <= 64, "{}: {each} KiB for each", peer.name);
        let begun = Instant::now();
        for client in &mut slow {
            assert!(client.ends_within(PATIENCE).await, "{}: a handshake without end", peer.name);
        }
        // With the six handshakes of those who were served meanwhile.
        let cost = cpu_time(peer.pid) - cost;
        println!(
            "{}: all were let go after {:?}, for {cost:?} of processor time",
            peer.name,
            begun.elapsed()
        );
        assert!(cost < Duration::from_secs(2), "{}: {cost:?}", peer.name);
        peer.serves_good_clients().await;
    }
}

/// RFC 8446 5.1 lets a message be in many records. What a record of one byte costs must not grow with those before it.
#[tokio::test]
async fn a_hello_in_records_of_one_byte_is_read_at_a_price_that_is_linear() {
    for peer in Peer::all().await {
        let hello = peer.hello();
        let mut costs = Vec::new();
        let memory = resident_kib(peer.pid);
        for padding in [0, 2_000, 8_000, 15_000] {
            // RFC 7685.
            let hello =
                if padding == 0 { hello.clone() } else { extended(hello.clone(), 21, &vec![0; padding]) };
            let bytes = records(&hello, 1);
            let before = cpu_time(peer.pid);
            for _ in 0..10 {
                let mut client = Client::connect(peer.address).await;
                let _ = client.stream.write_all(&bytes).await;
                let said = first_said(&mut client).await;
                // One of 90 KiB on the wire may be too much.
                assert!(said == SERVER_HELLO || padding == 15_000, "{}, {padding}: {said:?}", peer.name);
            }
            costs.push((cpu_time(peer.pid) - before) / 10);
            peer.serves_good_clients().await;
        }
        let grown = resident_kib(peer.pid).saturating_sub(memory);
        println!(
            "{}: {costs:?} for each hello of 0, 2,000, 8,000 and 15,000 bytes more, {grown} KiB",
            peer.name
        );
        assert!(grown < 4 * 1024, "{}: {grown} KiB", peer.name);
        let [none, some, most, too_much] = costs[..] else { unreachable!() };
        assert!(too_much < most * 3 + Duration::from_millis(5), "{}: {costs:?}", peer.name);
        // Linear is four times as much; a quadratic price, sixteen times.
        let (some, most) = (some.saturating_sub(none), most.saturating_sub(none));
        assert!(most < some * 8 + Duration::from_millis(5), "{}: {some:?}, {most:?}", peer.name);
    }
}

/// Tickets that nobody has given out: as many as a hello has room for.
#[tokio::test]
async fn tickets_of_nobody_cost_little_and_get_a_full_handshake() {
    for peer in Peer::all().await {
        peer.serves_good_clients().await;
        let hello = peer.hello();
        // RFC 8446 4.2.11: identities of 100 bytes with an age each, and as many binders.
        let identity = [&[0, 100][..], &[0x5a; 100], &[1, 2, 3, 4]].concat();
        let binder = [&[32][..], &[0xa5; 32]].concat();
        let flood = |count: usize| {
            let (identities, binders) = (identity.repeat(count), binder.repeat(count));
            let list = |list: &[u8]| [&(list.len() as u16).to_be_bytes()[..], list].concat();
            // The hello has psk_key_exchange_modes already.
            records(&extended(hello.clone(), 41, &[list(&identities), list(&binders)].concat()), 16_384)
        };
        let mut costs = Vec::new();
        let before_kib = resident_kib(peer.pid);
        for bytes in [records(&hello, 16_384), flood(1), flood(100)] {
            let before = cpu_time(peer.pid);
            for _ in 0..20 {
                let mut client = Client::connect(peer.address).await;
                client.send(&bytes).await;
                assert_eq!(first_said(&mut client).await, SERVER_HELLO, "{}", peer.name);
            }
            costs.push((cpu_time(peer.pid) - before) / 20);
            peer.serves_good_clients().await;
        }
        println!("{}: {costs:?} for each hello with 0, 1 and 100 tickets", peer.name);
        assert!(costs[2] < costs[0] * 4 + Duration::from_millis(2), "{}: {costs:?}", peer.name);
        let grown = resident_kib(peer.pid).saturating_sub(before_kib);
        assert!(grown < 4 * 1024, "{}: {grown} KiB", peer.name);
    }
}

/// The parts of TLS 1.3 that a client may ask for again and again: each update of keys asks for one of the other side, which
/// nobody reads.
#[tokio::test]
async fn updates_of_keys_without_end_take_no_memory() {
    for peer in Peer::all().await {
        peer.serves_good_clients().await;
        let before = (resident_kib(peer.pid), cpu_time(peer.pid));
        let mut attackers = JoinSet::new();
        for _ in 0..4 {
            let mut stream = peer.certificates.connect(peer.address).await.unwrap();
            attackers.spawn(async move {
                let mut sent = 0;
                for _ in 0..5_000 {
                    let (socket, session) = stream.get_mut();
                    if session.refresh_traffic_keys().is_err() {
                        break;
                    }
                    let mut bytes = Vec::new();
                    session.write_tls(&mut bytes).unwrap();
                    if socket.write_all(&bytes).await.is_err() {
                        break;
                    }
                    sent += 1;
                }
                sent
            });
        }
        peer.serves_good_clients().await;
        let attacks = async { attackers.join_all().await };
        let sent: u32 = tokio::time::timeout(PATIENCE, attacks).await.map_or(0, |all| all.iter().sum());
        peer.serves_good_clients().await;
        let grown = resident_kib(peer.pid).saturating_sub(before.0);
        println!("{}: {sent} updates, {grown} KiB, {:?}", peer.name, cpu_time(peer.pid) - before.1);
        assert!(grown < 4 * 1024, "{}: {grown} KiB", peer.name);
    }
}

/// CVE-2016-8610: alerts that are warnings, in the middle of a handshake.
#[tokio::test]
async fn warnings_without_end_are_cut_off() {
    for peer in Peer::all().await {
        let mut client = Client::connect(peer.address).await;
        // no_renegotiation, a warning.
        let alerts = [21, 3, 1, 0, 2, 1, 100].repeat(1000);
        let before = cpu_time(peer.pid);
        let flood = async { while client.stream.write_all(&alerts).await.is_ok() {} };
        assert!(tokio::time::timeout(PATIENCE, flood).await.is_ok(), "{}: alerts without end", peer.name);
        println!("{}: warnings cut off after {:?} of processor time", peer.name, cpu_time(peer.pid) - before);
        peer.serves_good_clients().await;
    }
}

/// The alert that the other side ends with (RFC 8446 section 6): its description, or `None` for an end without one. Records of the
/// handshake before it are passed over.
pub(super) async fn last_said(client: &mut Client) -> Option<u8> {
    let ended = async {
        let mut head = [0; 5];
        loop {
            client.stream.read_exact(&mut head).await.ok()?;
            let mut record = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
            client.stream.read_exact(&mut record).await.ok()?;
            if let (21, [2, description]) = (head[0], &record[..]) {
                return Some(*description);
            }
        }
    };
    in_time("the end", ended).await
}

/// Told as by OpenSSL, also when much is left unread of what they have sent: an alert that is lost in a reset helps nobody.
#[tokio::test]
async fn clients_that_make_no_sense_are_told_why_as_by_haproxy() {
    let mut all = Vec::new();
    for peer in Peer::all().await {
        let hello = peer.hello();
        let of_type = |number: u8| records(&[&[number], &hello[1..]].concat(), 16_384);
        // RFC 7507: a client that knows TLS 1.3 and tries 1.2, since more has failed. One that tries both is served.
        let fallback = falling_back(peer.hello_of(&[&TLS12]));
        let halves = [records(&hello[..100], 100), records(&hello[100..], 16_384)];
        let between = |record: &[u8]| [&halves[0], record, &halves[1]].concat();
        let cases = [
            ("no hello", of_type(117)),
            ("the end of a handshake", records(&[&[20, 0, 0, 12][..], &[7; 12]].concat(), 64)),
            ("a heartbeat in the middle", between(&[24, 3, 3, 0, 1, 1])),
            ("a change of ciphers in the middle", between(&[20, 3, 3, 0, 1, 1])),
            ("a fallback", records(&fallback, 16_384)),
            ("a hello of 16 MiB", records(&[&[1, 0xff, 0xff, 0xff], &[0; 100_000][..]].concat(), 16_384)),
        ];
        let mut said = Vec::new();
        for (name, bytes) in &cases {
            for more in [0, 30_000] {
                let bytes = [&bytes[..], &vec![0; more]].concat();
                let mut alert = None;
                // What comes after all was drained still takes it away, now and then.
                for _ in 0..5 {
                    let mut client = Client::connect(peer.address).await;
                    let _ = client.stream.write_all(&bytes).await;
                    alert = alert.or(last_said(&mut client).await);
                }
                said.push((*name, more, alert));
            }
        }
        println!("{}: {said:?}", peer.name);
        assert!(said.iter().all(|(_, _, alert)| alert.is_some()), "{}: {said:?}", peer.name);
        let mut client = Client::connect(peer.address).await;
        client.send(records(&falling_back(peer.hello_of(&[&TLS12, &TLS13])), 16_384)).await;
        assert_eq!(first_said(&mut client).await, SERVER_HELLO, "{}", peer.name);
        peer.serves_good_clients().await;
        all.push(said);
    }
    assert!(all.windows(2).all(|pair| pair[0] == pair[1]), "{all:?}");
}

/// What comes in the same packet as a hello is judged with it and not when there is more: six warnings are too many.
#[tokio::test]
async fn what_comes_with_a_hello_is_judged_at_once() {
    for peer in Peer::all().await {
        let config = peer.certificates.client(&[&TLS12], &["http/1.1"]);
        let mut session = ClientConnection::new(config, ServerName::try_from(SERVER_NAME).unwrap()).unwrap();
        let mut bytes = Vec::new();
        session.write_tls(&mut bytes).unwrap();
        bytes.extend([21, 3, 3, 0, 2, 1, 43].repeat(6));
        let mut client = Client::connect(peer.address).await;
        client.send(&bytes).await;
        assert_eq!(last_said(&mut client).await, Some(10), "{}", peer.name);
    }
}

/// CVE-2011-1473, by OpenSSL's client, which asks for a new handshake at a line `R`.
#[tokio::test]
async fn a_renegotiation_is_refused() {
    if Command::new("openssl").arg("version").stdout(Stdio::null()).status().await.is_err() {
        eprintln!("SKIPPED: there is no openssl program");
        return;
    }
    for peer in Peer::all().await {
        peer.serves_good_clients().await;
        let mut client = Command::new("openssl")
            .args(["s_client", "-tls1_2", "-alpn", "http/1.1", "-servername", SERVER_NAME, "-connect"])
            .arg(peer.address.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut input = client.stdin.take().unwrap();
        // A request before it, so that the handshake is over.
        let mut output = client.stdout.take().unwrap();
        input.write_all(b"GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n").await.unwrap();
        let mut said = Vec::new();
        in_time("an answer", async {
            while !said.ends_with(b"\r\n\r\na") {
                let mut byte = [0];
                assert_eq!(output.read(&mut byte).await.unwrap(), 1, "{}", String::from_utf8_lossy(&said));
                said.push(byte[0]);
            }
        })
        .await;
        input.write_all(b"R\n").await.unwrap();
        let ended = in_time("the client's end", client.wait_with_output()).await.unwrap();
        let errors = String::from_utf8_lossy(&ended.stderr);
        assert!(
            errors.contains("RENEGOTIATING") && errors.contains("no renegotiation"),
            "{}: {errors}",
            peer.name
        );
        drop(input);
        peer.serves_good_clients().await;
    }
}
