//! What requests notice when memory goes back.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::mpsc::{self, TryRecvError},
    thread,
    time::{Duration, Instant},
};

use amphora_benches::{
    Result,
    backend::{Backend, Service},
    document::{Document, L7Policy, L7Rule, Listener, Pool, id, kind, member_address},
    exchange::{AnswerReader, Exchange, Progress},
    histogram::Histogram,
    load::{self, Command, Tally},
    report::{self, Table},
};
use amphora_model::ListenerId;

use crate::{Bench, Proxy, mib};

/// A p99.9 at most so far above that of the calm seconds before.
const TARGET: Duration = Duration::from_millis(2);
/// Connections of the load that is measured.
const STEADY: usize = 32;
/// What is measured without and with an event.
const WINDOW: Duration = Duration::from_secs(5);
/// Bursts are taken to be over some seconds after they are.
const CLOSED: Duration = Duration::from_secs(3);
/// For all that a document leaves behind to have gone, before the next thing is measured.
const SETTLE: Duration = Duration::from_secs(2);

/// What came of one kind of event, all rounds together.
struct Event {
    name: String,
    calm: Histogram,
    during: Histogram,
    /// Resident bytes before the event and after, the most of all rounds each.
    resident: (u64, u64),
}

pub(crate) fn measure(bench: &Bench) -> Result<(String, bool)> {
    let args = &bench.args;
    let backend = Backend::start(&[Service::Http], bench.load_core)?;
    let member = SocketAddr::from(([127, 0, 0, 1], backend.ports()[0]));
    let document = |members: u64, rules: u64| document(args.base_port, member, members, rules);
    let proxy = bench.start(&document(1, 0))?;
    let (asks, asked) = mpsc::channel();
    let exchange = Exchange::http(128, true);
    let steady = Steady { asks };
    let events = thread::scope(|scope| -> Result<Vec<Event>> {
        let (http, exchange) = (proxy.http, &exchange);
        let load = scope.spawn(move || {
            load::exchanges(http, exchange, STEADY, Some(args.rate), &mut |_, tally| match asked.try_recv() {
                Ok(Ask::Begin) => Command::Restart,
                Ok(Ask::End(reply)) => {
                    let _ = reply.send(tally.clone());
                    Command::Continue
                }
                Err(TryRecvError::Empty) => Command::Continue,
                Err(TryRecvError::Disconnected) => Command::Stop,
            })
        });
        let events = events(bench, &proxy, &steady, &document);
        drop(steady);
        let tally = load.join().map_err(|_| "the load has panicked")??;
        if tally.failed() > 0 {
            return Err(format!("requests failed: {:?} {:?}", tally.failures, tally.statuses).into());
        }
        events
    })?;

    let mut table = Table::new([
        "event",
        "requests",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "max ms",
        "calm p50",
        "calm p99",
        "calm p99.9",
        "calm max",
        "MiB before",
        "MiB after",
    ]);
    let mut good = true;
    for Event { name, calm, during, resident } in events {
        let ms = |d: Duration| report::digits(d.as_secs_f64() * 1e3);
        good &= during.quantile(0.999) <= calm.quantile(0.999) + TARGET;
        let numbers = |h: &Histogram| [h.quantile(0.5), h.quantile(0.99), h.quantile(0.999), h.max()].map(ms);
        let mut row = vec![name, during.count().to_string()];
        row.extend(numbers(&during));
        row.extend(numbers(&calm));
        row.extend([mib(resident.0), mib(resident.1)]);
        table.row(row);
    }
    let text = format!(
        "## Requests meanwhile\n\n{STEADY} connections kept, {} requests/s, {} rounds; bursts of {} connections. Target: a p99.9 at \
         most {} ms above that of the calm seconds before: {}.\n\n{}",
        args.rate,
        args.rounds,
        args.connections,
        TARGET.as_millis(),
        if good { "met" } else { "missed" },
        table.markdown()
    );
    Ok((text, good))
}

fn events(
    bench: &Bench,
    proxy: &Proxy,
    steady: &Steady,
    document: &dyn Fn(u64, u64) -> Document,
) -> Result<Vec<Event>> {
    let args = &bench.args;
    let mut events = Vec::new();
    for (name, stay) in [("all of a burst is over", 0), ("two of three of a burst are over", 3)] {
        let (mut closing, mut over) =
            (Event::new(format!("{name}: the end")), Event::new(format!("{name}: 3 to 8 s later")));
        for _ in 0..args.rounds {
            let calm = steady.during(|| thread::sleep(WINDOW))?;
            let burst = burst(proxy, args.connections)?;
            let full = proxy.resident()?;
            let (mut kept, mut gone) = (Vec::new(), Vec::new());
            for (n, stream) in burst.into_iter().enumerate() {
                if stay > 0 && n % stay == 0 { kept.push(stream) } else { gone.push(stream) }
            }
            let end = steady.during(|| {
                drop(gone);
                thread::sleep(CLOSED);
            })?;
            let left = proxy.resident()?;
            let later = steady.during(|| thread::sleep(WINDOW))?;
            let back = proxy.resident()?;
            drop(kept);
            closing.add(&calm, &end, (full, left));
            over.add(&calm, &later, (left, back));
            eprintln!("reclaim: {name}: {} -> {} -> {} MiB", mib(full), mib(left), mib(back));
            // What stayed is no burst of its own.
            thread::sleep(CLOSED + WINDOW);
        }
        events.extend([closing, over]);
    }
    let apply = |document: &Document| proxy.control.apply(&document.to_json()).map(drop);
    for (name, large) in [("10,000 members go", document(10_000, 0)), ("1,000 rules go", document(1, 1000))] {
        let mut event = Event::new(name.to_owned());
        for _ in 0..args.rounds {
            apply(&large)?;
            thread::sleep(SETTLE);
            let calm = steady.during(|| thread::sleep(WINDOW))?;
            let full = proxy.resident()?;
            let mut applied = Ok(());
            let gone = steady.during(|| {
                applied = apply(&document(1, 0));
                thread::sleep(WINDOW);
            })?;
            applied?;
            let left = proxy.resident()?;
            event.add(&calm, &gone, (full, left));
            eprintln!("reclaim: {name}: {} -> {} MiB", mib(full), mib(left));
        }
        events.push(event);
    }
    Ok(events)
}

impl Event {
    fn new(name: String) -> Self {
        Self { name, calm: Histogram::default(), during: Histogram::default(), resident: (0, 0) }
    }

    fn add(&mut self, calm: &Tally, during: &Tally, resident: (u64, u64)) {
        self.calm.add(&calm.latency);
        self.during.add(&during.latency);
        self.resident = (self.resident.0.max(resident.0), self.resident.1.max(resident.1));
    }
}

enum Ask {
    /// Count from zero.
    Begin,
    /// Say what was counted.
    End(mpsc::Sender<Tally>),
}

/// The load that goes on all the time.
struct Steady {
    asks: mpsc::Sender<Ask>,
}

impl Steady {
    /// What is counted while something is done.
    fn during(&self, something: impl FnOnce()) -> Result<Tally> {
        let (reply, answer) = mpsc::channel();
        self.asks.send(Ask::Begin)?;
        something();
        self.asks.send(Ask::End(reply))?;
        Ok(answer.recv()?)
    }
}

/// So many connections, each of which has sent a part of its request before any sends the rest: every one holds a buffer
/// meanwhile, and is answered at last.
fn burst(proxy: &Proxy, connections: usize) -> Result<Vec<TcpStream>> {
    let exchange = Exchange::http(128, true);
    let (part, rest) = exchange.request.split_at(exchange.request.len() / 2);
    let mut streams = Vec::with_capacity(connections);
    for _ in 0..connections {
        let mut stream = TcpStream::connect(proxy.http)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(part)?;
        streams.push(stream);
    }
    let (deadline, listener) = (Instant::now() + Duration::from_secs(30), ListenerId(id(kind::LISTENER, 1)));
    let there = |stats: &amphora_ipc::proxy::Stats| {
        stats.listeners.get(&listener).is_some_and(|l| l.active_connections >= connections as u64)
    };
    while !there(&proxy.control.stats()?) {
        if Instant::now() > deadline {
            return Err(format!("{connections} connections are not let in").into());
        }
        thread::sleep(Duration::from_millis(50));
    }
    for stream in &mut streams {
        stream.write_all(rest)?;
    }
    let mut scratch = [0; 4096];
    for stream in &mut streams {
        let mut reader = AnswerReader::default();
        loop {
            let n = stream.read(&mut scratch)?;
            match reader.feed(&exchange.answer, &scratch[..n]) {
                Ok(Progress::Complete { .. }) => break,
                Ok(Progress::Partial) if n > 0 => {}
                other => {
                    return Err(format!("a connection of the burst was answered wrongly: {other:?}").into());
                }
            }
        }
    }
    Ok(streams)
}

/// An HTTP listener, another with rules, and a pool of which one member serves.
fn document(port: u16, member: SocketAddr, members: u64, rules: u64) -> Document {
    let policies = (1..=rules)
        .map(|n| {
            let value = format!("^/[a-z]{{1,40}}/{n}/[^/]+[.](php|asp)$");
            L7Policy::reject(n, L7Rule::new(n, "PATH", "REGEX", None, &value))
        })
        .collect();
    // Rules that each request met would be work of their own.
    let listeners = vec![
        Listener::new(1, "HTTP", port, 1),
        Listener::new(2, "HTTP", port + 1, 1).with_l7policies(policies),
    ];
    // The others are in a pool that nothing leads to.
    let more: Vec<_> = (1..members).map(|n| SocketAddr::new(member_address(n), 80)).collect();
    Document::new(listeners, vec![Pool::new(1, "HTTP", &[member]), Pool::new(2, "HTTP", &more)])
}
