//! What is counted, beside HAProxy: of members that fail after they were connected to, and of clients that give up.
//! (Members that cannot be connected to are in `failures`.)

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use amphora_tests::{
    Backend, Client, Document, HaProxy, HaProxyConfig, Judge, Listener, PATIENCE, Pool, Proxy, Step, in_time,
};
use tokio::{task::LocalSet, time::sleep};

/// What the client does.
#[derive(Clone, Copy, Debug)]
enum Act {
    /// Sends this and reads an answer, or an end.
    Ask(&'static str),
    /// Sends this and then no more, and reads what comes.
    Finish(&'static str),
    /// Sends this and leaves.
    Leave(&'static str),
    /// The same with a reset.
    Reset(&'static str),
    /// Sends the second piece a moment after the first, and reads what comes.
    Pieces(&'static str, &'static str),
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const LATER: Duration = Duration::from_millis(150);
const ENDLESS: u64 = 1 << 30;
const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

type Case = (&'static str, Option<Vec<Step>>, Act);

/// What it is a case of, the member's answer (none: there is no member), and the client; a moment is `later`.
fn cases(later: Duration) -> Vec<Case> {
    use Act::{Ask, Finish, Leave, Pieces, Reset};
    let ok = || Some(Step::ok("a"));
    let sent = |text: &str| vec![Step::ReadBody, Step::send(text)];
    let ended = |text: &str, end: Step| Some([sent(text), vec![Step::Pause(later), end]].concat());
    let long = "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nok";
    let endless = &format!("HTTP/1.1 200 OK\r\nContent-Length: {ENDLESS}\r\n\r\n");
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n";
    let half = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nx";
    let chunks = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n";
    vec![
        ("200", ok(), Ask(GET)),
        ("404", Some(vec![Step::ReadBody, Step::response("404 Not Found", "", "")]), Ask(GET)),
        ("no member", None, Ask(GET)),
        ("interim", Some([sent(hints), vec![Step::response("200 OK", "", "a")]].concat()), Ask(GET)),
        ("no response", ended("SSH-2.0-OpenSSH_9.2\r\n\r\n", Step::Wait), Ask(GET)),
        ("half a head", ended("HTTP/1.1 200 OK\r\nConte", Step::Close), Ask(GET)),
        ("no head in time", Some(vec![Step::ReadBody, Step::Wait]), Ask(GET)),
        ("cut", ended(long, Step::Close), Ask(GET)),
        ("no body in time", ended(long, Step::Wait), Ask(GET)),
        ("a bad first chunk", ended(&format!("{CHUNKED}zz\r\n"), Step::Wait), Ask(GET)),
        (
            "a bad later chunk",
            Some([sent(CHUNKED), vec![Step::Pause(later), Step::send("zz\r\n"), Step::Wait]].concat()),
            Ask(GET),
        ),
        ("a client that says nothing", ok(), Leave("")),
        ("one that resets", ok(), Reset("")),
        ("one that says nothing and is answered", ok(), Finish("")),
        ("half a request", ok(), Leave("GET / HT")),
        ("one that ends", ok(), Finish("GET / HTTP/1.1\r\nHo")),
        ("half of a second one", ok(), Pieces(GET, "GET /")),
        ("no request in time", ok(), Ask("")),
        ("no whole request in time", ok(), Ask("GET /")),
        ("half a body", ok(), Leave(half)),
        ("one that is reset", ok(), Reset(half)),
        ("a bad chunk of the client", ok(), Pieces(chunks, "zz\r\n")),
        (
            "a client that leaves in the middle",
            Some([sent(endless), vec![Step::SendPattern(ENDLESS)]].concat()),
            Reset(GET),
        ),
    ]
}

/// Columns that other releases of HAProxy count in another way: 3.0 has status 400 for a body that ends early, half a head
/// from a member twice, and the client's leaving where the member was late.
const OF_2_6: [(&str, &[&str]); 4] = [
    ("half a body", &["hrsp_4xx", "hrsp_other"]),
    ("one that is reset", &["hrsp_4xx", "hrsp_other"]),
    ("half a head", &["eresp"]),
    ("no body in time", &["cli_abrt", "srv_abrt"]),
];

/// The columns of a case that the HAProxy that is installed does not judge.
fn not_judged(case: &str) -> &'static [&'static str] {
    let columns = OF_2_6.iter().find(|(of, _)| *of == case).map_or(&[][..], |(_, columns)| columns);
    let rows = || format!("{case}: {}", columns.join(", "));
    if columns.is_empty() || Judge::HaProxy.judges(&rows()) { &[] } else { columns }
}

async fn act(address: SocketAddr, act: Act, later: Duration) -> Option<u16> {
    let mut client = Client::connect(address).await;
    match act {
        Act::Ask(text) => client.send(text).await,
        Act::Finish(text) => {
            client.send(text).await;
            client.finish().await;
        }
        Act::Pieces(one, two) => {
            client.send(one).await;
            sleep(later).await;
            client.send(two).await;
            if one == GET {
                client.response().await;
                client.finish().await;
            }
        }
        Act::Leave(text) | Act::Reset(text) => {
            client.send(text).await;
            sleep(later / 2).await;
            if matches!(act, Act::Reset(_)) {
                client.reset();
            }
            return None;
        }
    }
    in_time("an answer", client.try_response(false)).await.ok().map(|response| response.status())
}

/// By the name of a column of HAProxy: of the listener, of the pool, and of the member.
type Counts = [BTreeMap<String, u64>; 3];

const FAMILIES: [(&str, &[(&str, &str)]); 3] = [
    (
        "listener",
        &[
            ("stot", "sessions"),
            ("req_tot", "http_requests"),
            ("ereq", "request_errors"),
            ("dreq", "requests_denied"),
        ],
    ),
    (
        "pool",
        &[
            ("stot", "sessions"),
            ("req_tot", "http_requests"),
            ("econ", "connection_errors"),
            ("eresp", "response_errors"),
            ("cli_abrt", "client_aborts"),
            ("srv_abrt", "member_aborts"),
            ("lbtot", "loadbalanced"),
        ],
    ),
    (
        "member",
        &[
            ("stot", "sessions"),
            ("eresp", "response_errors"),
            ("cli_abrt", "client_aborts"),
            ("srv_abrt", "server_aborts"),
            ("lbtot", "loadbalanced"),
        ],
    ),
];

async fn ours(proxy: &Proxy) -> Counts {
    let text = proxy.request("GET", "/metrics", "").await.unwrap().text();
    FAMILIES.map(|(kind, families)| {
        let of = |family: &str, code: &str| {
            let name = format!("octavia_{kind}_{family}_total{{");
            let value = |line: &str| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap();
            text.lines().find(|line| line.starts_with(&name) && line.contains(code)).map(value)
        };
        let plain =
            families.iter().filter_map(|(column, family)| Some(((*column).to_owned(), of(family, "")?)));
        let codes = ["1xx", "2xx", "3xx", "4xx", "5xx", "other"].into_iter();
        let codes = codes.filter_map(|code| {
            Some((format!("hrsp_{code}"), of("http_responses", &format!("code=\"{code}\""))?))
        });
        plain.chain(codes).collect()
    })
}

async fn theirs(haproxy: &HaProxy, ours: &Counts) -> Counts {
    let mut theirs = Counts::default();
    for ((of, ours), row) in theirs.iter_mut().zip(ours).zip(["FRONTEND", "BACKEND", "member"]) {
        for column in ours.keys() {
            of.insert(column.clone(), haproxy.stat(row, column).await);
        }
    }
    theirs
}

#[tokio::test]
async fn what_becomes_of_requests_is_counted_as_in_haproxy() {
    // Where the machine is so busy that moments run into each other, HAProxy itself counts otherwise.
    let (mut differ, longer) = (differences(LATER, Duration::from_secs(5), None).await, LATER * 6);
    if !differ.is_empty() {
        let again: Vec<_> = differ.iter().map(|(case, _)| *case).collect();
        eprintln!("once more, slowly: {again:?}");
        differ = differences(longer, PATIENCE, Some(&again)).await;
    }
    let told: Vec<_> = differ.into_iter().map(|(_, told)| told).collect();
    assert!(told.is_empty(), "{}", told.join("\n"));
}

/// The cases, or these of them, of which something is not counted alike within this time.
async fn differences(
    later: Duration,
    patience: Duration,
    chosen: Option<&[&'static str]>,
) -> Vec<(&'static str, String)> {
    let all = LocalSet::new();
    let chosen = cases(later).into_iter().filter(|(case, ..)| chosen.is_none_or(|all| all.contains(case)));
    let cases: Vec<_> =
        chosen.map(|case| (case.0, all.spawn_local(compare(case, later, patience)))).collect();
    all.await;
    let mut differences = Vec::new();
    for (case, compared) in cases {
        differences.extend(compared.await.unwrap().err().map(|told| (case, told)));
    }
    differences
}

async fn compare((case, answer, client): Case, later: Duration, patience: Duration) -> Result<(), String> {
    let member = match answer.clone() {
        Some(answer) => Some(Backend::http("a", move |_| answer.clone()).await),
        None => None,
    };
    let times = u32::try_from(later.as_millis() / LATER.as_millis()).unwrap();
    let [of_members, of_clients] = [400, 700].map(|milliseconds| milliseconds * times);
    let mut config = HaProxyConfig::http([]);
    config.backend = format!("timeout server {of_members}ms");
    config.client_timeout = of_clients;
    config.servers.extend(member.iter().map(|member| ("member".to_owned(), member.address, String::new())));
    let pool = Pool::http().members(&member);
    let listener = Listener::http().with("timeout_member_data", of_members);
    let listener = listener.with("timeout_client_data", of_clients);
    let proxy = Proxy::start_with(Document::of(listener, pool), &["--workers", "1"]).await;
    let Some(haproxy) = HaProxy::start(&config).await else { return Ok(()) };
    let told = act(proxy.address(), client, later).await;
    let by_haproxy = act(haproxy.address, client, later).await;
    if told != by_haproxy {
        return Err(format!("{case}: the client gets {told:?}, from HAProxy {by_haproxy:?}"));
    }
    let not_judged = not_judged(case);
    let begun = Instant::now();
    loop {
        let mut ours = ours(&proxy).await;
        ours.iter_mut().for_each(|counts| counts.retain(|column, _| !not_judged.contains(&column.as_str())));
        let theirs = theirs(&haproxy, &ours).await;
        if ours == theirs && ours[0]["req_tot"] > 0 {
            return Ok(());
        }
        if begun.elapsed() > patience {
            return Err(format!("{case}\nours   {ours:?}\ntheirs {theirs:?}"));
        }
        sleep(Duration::from_millis(20)).await;
    }
}
