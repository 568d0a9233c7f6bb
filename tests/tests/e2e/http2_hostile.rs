//! Clients that mean harm with HTTP/2: others are served meanwhile, memory and processor time stay bounded, and HAProxy says what
//! becomes of them.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use amphora_tests::{
    Backend, Client, Document, HaProxy, HaProxyConfig, Listener, Pool, Proxy, Step, cpu_time, eventually,
    http2::Http2Client, resident_kib,
};

/// Connections that attack at once.
const ATTACKERS: usize = 8;

/// What they may make the process hold together, in KiB: what an idle connection has and the budget of each, with what the
/// sessions of their streams and the allocator add.
const MEMORY: u64 = ATTACKERS as u64 * (64 + 256 + 1200) + 4 * 1024;

/// Processor time that all of them may buy.
const TIME: Duration = Duration::from_secs(6);

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = (payload.len() as u32).to_be_bytes();
    let mut bytes = vec![a, b, c, kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// HEADERS of `GET /` or `POST /`, of the static table, with the authority `a` and more.
fn head(post: bool, flags: u8, stream: u32, more: &[u8]) -> Vec<u8> {
    let block = [&[0x82 + u8::from(post), 0x86, 0x84, 0x01, 0x01, b'a'], more].concat();
    frame(HEADERS, flags | END_HEADERS, stream, &block)
}

/// A literal field, put into the table or not; its value is below 16 KiB.
pub(super) fn field(index: bool, name: &str, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![if index { 0x40 } else { 0 }, name.len() as u8];
    bytes.extend(name.as_bytes());
    if value.len() < 127 {
        bytes.push(value.len() as u8);
    } else {
        let rest = value.len() - 127;
        bytes.extend([0x7f, rest as u8 | 0x80, (rest >> 7) as u8]);
    }
    bytes.extend(value);
    bytes
}

/// What an attacker sends: on and on, until there is no more or nobody takes it.
type Script = Box<dyn Iterator<Item = Vec<u8>> + Send>;

struct Attack {
    name: &'static str,
    script: fn() -> Script,
    settings: &'static [u8],
    /// The proxy ends it with ENHANCE_YOUR_CALM, or with the first frame that breaks a rule of the whole connection, and not only
    /// with the client.
    refused: bool,
}

fn streams(of: impl Fn(u32) -> Vec<u8> + Send + 'static) -> Script {
    Box::new((0..20_000).map(move |n| of(1 + 2 * n)))
}

fn again(first: Vec<u8>, piece: Vec<u8>, times: usize) -> Script {
    let each = (8 * 1024 / piece.len()).max(1);
    let pieces = std::iter::repeat_n(piece.repeat(each), times / each);
    Box::new(std::iter::once(first).chain(pieces))
}

const ATTACKS: &[Attack] = &[
    Attack {
        name: "rapid reset",
        script: || {
            streams(|stream| {
                [head(false, END_STREAM, stream, &[]), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
            })
        },
        settings: &[],
        refused: true,
    },
    Attack {
        name: "made you reset",
        script: || {
            streams(|stream| {
                let full = frame(WINDOW_UPDATE, 0, stream, &0x7fff_ffffu32.to_be_bytes());
                [head(true, 0, stream, &[]), full].concat()
            })
        },
        settings: &[],
        refused: true,
    },
    Attack {
        name: "continuation flood",
        script: || {
            let first = frame(HEADERS, END_STREAM, 1, &[0x82]);
            again(first, frame(CONTINUATION, 0, 1, &[]), 200_000)
        },
        settings: &[],
        refused: true,
    },
    Attack {
        name: "table references",
        script: || {
            let first = head(false, END_STREAM, 1, &field(true, "x", &[b'x'; 3000]));
            let rest = (1..20_000).map(|n| head(false, END_STREAM, 1 + 2 * n, &[0xbe; 4]));
            Box::new(std::iter::once(first).chain(rest))
        },
        settings: &[],
        refused: false,
    },
    Attack {
        name: "cookie crumbs",
        script: || {
            let first = head(false, END_STREAM, 1, &[0x60, 1, b'a']);
            let rest = (1..20_000).map(|n| head(false, END_STREAM, 1 + 2 * n, &[0xbe; 400]));
            Box::new(std::iter::once(first).chain(rest))
        },
        settings: &[],
        refused: false,
    },
    Attack {
        name: "a table of 4 GiB",
        script: || streams(|stream| head(false, END_STREAM, stream, &[])),
        settings: &[0, 1, 0xff, 0xff, 0xff, 0xff],
        refused: false,
    },
    Attack {
        name: "empty data",
        script: || again(head(true, 0, 1, &[]), frame(DATA, 0, 1, &[]), 200_000),
        settings: &[],
        refused: true,
    },
    Attack {
        name: "data of one byte",
        script: || again(head(true, 0, 1, &[]), frame(DATA, 0, 1, &[1]), 60_000),
        settings: &[],
        refused: false,
    },
    Attack {
        name: "windows that stay shut",
        script: || Box::new((0..100).map(|n| head(false, END_STREAM, 1 + 2 * n, &[]))),
        settings: &[0, 4, 0, 0, 0, 0],
        refused: false,
    },
    Attack {
        name: "windows of one byte",
        script: || {
            let first = head(false, END_STREAM, 1, &[]);
            again(first, frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]), 100_000)
        },
        settings: &[0, 4, 0, 0, 0, 0],
        refused: true,
    },
    Attack {
        name: "pings",
        script: || again(Vec::new(), frame(PING, 0, 0, &[0; 8]), 200_000),
        settings: &[],
        refused: true,
    },
    Attack {
        name: "settings",
        script: || again(Vec::new(), frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff]), 200_000),
        settings: &[],
        refused: true,
    },
    Attack {
        name: "priorities",
        script: || again(Vec::new(), frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1]), 200_000),
        settings: &[],
        refused: true,
    },
    Attack {
        name: "made you reset by a window of nothing",
        script: || {
            streams(|stream| {
                let nothing = frame(WINDOW_UPDATE, 0, stream, &[0; 4]);
                [head(true, 0, stream, &[]), nothing].concat()
            })
        },
        settings: &[],
        refused: true,
    },
    Attack {
        name: "made you reset by data behind the end",
        script: || {
            streams(|stream| [head(false, END_STREAM, stream, &[]), frame(DATA, 0, stream, b"x")].concat())
        },
        settings: &[],
        refused: true,
    },
    Attack {
        name: "made you reset by a stream that waits for itself",
        script: || {
            streams(|stream| {
                let itself = [&stream.to_be_bytes()[..], &[1]].concat();
                [head(true, 0, stream, &[]), frame(PRIORITY, 0, stream, &itself)].concat()
            })
        },
        settings: &[],
        refused: true,
    },
    Attack {
        name: "made you reset by a head that makes no sense",
        script: || streams(|stream| head(false, END_STREAM, stream, &field(false, "x:y", b""))),
        settings: &[],
        refused: true,
    },
    Attack {
        name: "continuations of one byte",
        script: || {
            let first = frame(HEADERS, END_STREAM, 1, &[0x82]);
            again(first, frame(CONTINUATION, 0, 1, &[0x86]), 200_000)
        },
        settings: &[],
        refused: true,
    },
    Attack {
        name: "padding without data",
        script: || again(head(true, 0, 1, &[]), frame(DATA, 8, 1, &[&[255], &[0; 255][..]].concat()), 60_000),
        settings: &[],
        refused: true,
    },
    Attack {
        name: "frames that nobody knows",
        script: || again(Vec::new(), frame(0x20, 0, 0, &[]), 200_000),
        settings: &[],
        refused: true,
    },
    Attack {
        name: "priorities of RFC 9218",
        script: || again(Vec::new(), frame(0x10, 0, 0, &[0, 0, 0, 1, b'u', b'=', b'1']), 200_000),
        settings: &[],
        refused: true,
    },
    Attack {
        name: "tables of other sizes",
        script: || {
            let both =
                [[0, 1, 0, 0, 0, 0], [0, 1, 0, 0, 0x10, 0]].map(|size| frame(SETTINGS, 0, 0, &size)).concat();
            again(Vec::new(), both, 100_000)
        },
        settings: &[],
        refused: true,
    },
    Attack {
        name: "ends that do not end",
        script: || again(Vec::new(), frame(GOAWAY, 0, 0, &[0; 8]), 200_000),
        settings: &[],
        refused: false,
    },
    Attack {
        name: "websockets of which none comes about",
        script: || {
            streams(|stream| {
                let fields = [
                    (":method", "CONNECT"),
                    (":protocol", "websocket"),
                    (":scheme", "http"),
                    (":path", "/"),
                    (":authority", "a"),
                ];
                let block: Vec<_> =
                    fields.iter().flat_map(|(name, value)| field(false, name, value.as_bytes())).collect();
                frame(HEADERS, END_HEADERS, stream, &block)
            })
        },
        settings: &[],
        refused: false,
    },
];

/// Attacks, and reads what is said; the error code of the last GOAWAY.
fn attack(address: SocketAddr, attack: &'static Attack) -> Option<u32> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut reader = stream.try_clone().unwrap();
    let reading = thread::spawn(move || {
        let mut last = None;
        let mut head = [0; 9];
        while reader.read_exact(&mut head).is_ok() {
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            if reader.read_exact(&mut payload).is_err() {
                break;
            }
            if head[3] == GOAWAY {
                last = payload.get(4..8).map(|code| u32::from_be_bytes(code.try_into().unwrap()));
            }
        }
        last
    });
    let preface = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(SETTINGS, 0, 0, attack.settings)[..]].concat();
    let _ = stream.write_all(&preface);
    for piece in (attack.script)() {
        if stream.write_all(&piece).is_err() {
            break;
        }
    }
    if !attack.refused {
        // What is held now is held until the client is gone.
        thread::sleep(Duration::from_millis(300));
    }
    let _ = stream.shutdown(Shutdown::Write);
    reading.join().unwrap()
}

pub(super) struct Peer {
    name: &'static str,
    pub(super) address: SocketAddr,
    pid: u32,
    _running: Running,
    pub(super) member: Backend,
}

#[allow(dead_code, reason = "what runs is kept until the end of the test")]
enum Running {
    Proxy(Box<Proxy>),
    HaProxy(HaProxy),
}

async fn member() -> Backend {
    let body = "b".repeat(64 * 1024);
    Backend::http("a", move |_| vec![Step::ReadBody, Step::response("200 OK", "", &body)]).await
}

impl Peer {
    pub(super) async fn all() -> Vec<Self> {
        let proxy_member = member().await;
        let document = Document::of(Listener::http(), Pool::http().members([&proxy_member]));
        let proxy = Proxy::start_with(document, &["--workers", "1"]).await;
        let mut peers = vec![Self {
            name: "the proxy",
            address: proxy.address(),
            pid: proxy.pid(),
            _running: Running::Proxy(Box::new(proxy)),
            member: proxy_member,
        }];
        let member = member().await;
        if let Some(haproxy) = HaProxy::start(&HaProxyConfig::http([member.address])).await {
            peers.push(Self {
                name: "HAProxy",
                address: haproxy.address,
                pid: haproxy.pid(),
                _running: Running::HaProxy(haproxy),
                member,
            });
        }
        peers
    }

    /// As long as anything in these tests may take; says how long it took.
    pub(super) async fn serves_a_good_client(&self) -> Duration {
        let begun = Instant::now();
        let mut client = Http2Client::connect(self.address).await;
        for _ in 0..3 {
            let answer = client.get("/").await;
            assert_eq!((answer.status, answer.body.len()), (Some(200), 64 * 1024), "{}", self.name);
        }
        begun.elapsed()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attacks_are_bounded_and_good_clients_are_served() {
    for peer in Peer::all().await {
        peer.serves_a_good_client().await;
        for one in ATTACKS {
            let (memory, time) = (resident_kib(peer.pid), cpu_time(peer.pid));
            let address = peer.address;
            let attackers: Vec<_> =
                (0..ATTACKERS).map(|_| tokio::task::spawn_blocking(move || attack(address, one))).collect();
            let mut most = memory;
            let (mut served, mut longest) = (0, Duration::ZERO);
            while !attackers.iter().all(|attacker| attacker.is_finished()) {
                longest = longest.max(peer.serves_a_good_client().await);
                served += 1;
                most = most.max(resident_kib(peer.pid));
            }
            let mut codes = Vec::new();
            for attacker in attackers {
                codes.push(attacker.await.unwrap());
            }
            let grown = most - memory;
            let spent = cpu_time(peer.pid) - time;
            println!(
                "{} and {}: {grown} KiB, {spent:?} of processor, {served} good clients served in at most {longest:?}, {codes:?}",
                peer.name, one.name
            );
            if matches!(peer._running, Running::Proxy(_)) {
                assert!(grown <= MEMORY, "{}: {grown} KiB", one.name);
                assert!(spent <= TIME, "{}: {spent:?}", one.name);
                if one.refused {
                    assert!(codes.iter().all(|code| *code != Some(0)), "{}: {codes:?}", one.name);
                }
            }
        }
        peer.serves_a_good_client().await;
    }
}

/// What the library warns of is what a client does, each time in other words: it would write the log.
#[tokio::test]
async fn a_client_writes_no_line_of_the_log_unless_somebody_asks_for_them() {
    for (level, told) in [("info", false), ("info,h2=warn", true)] {
        let member = Backend::named("a").await;
        let proxy = Proxy::start_with(Document::http([&member]), &["--log-level", level]).await;
        let mut client = Client::connect(proxy.address()).await;
        let acknowledgements: Vec<u8> =
            (0..20_u8).flat_map(|n| frame(PING, 1, 0, &[n, 1, 2, 3, 4, 5, 6, 7])).collect();
        let begin = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(SETTINGS, 0, 0, &[])[..]].concat();
        client.send([begin, acknowledgements, head(false, END_STREAM, 1, &[])].concat()).await;
        // It came behind them.
        eventually("the member is asked", async || (member.served() == 1).then_some(())).await;
        let log = proxy.log();
        assert_eq!(log.contains("PING ack"), told, "{level}: {log}");
        assert_eq!(log.contains("WARN"), told, "{level}: {log}");
    }
}
