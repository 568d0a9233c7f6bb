//! What documents take, at most and after they have gone.

use std::{net::SocketAddr, thread, time::Duration};

use amphora_benches::{
    Result,
    backend::{Backend, Service},
    document::{Document, L7Policy, L7Rule, Listener, Pool, member_address},
    exchange::Exchange,
    load, process,
    report::Table,
};

use crate::{Bench, MIB, Proxy, mib};

/// At most so much more while a document is compiled, beside what its text makes.
const TARGET_PEAK: f64 = 64.0 * MIB;
/// For each byte of the text.
const TARGET_TEXT: f64 = 6.0;
/// At most so much more than before once it has gone, or was refused.
const TARGET_LEFT: f64 = 8.0 * MIB;
/// For what goes back a moment later.
const SETTLE: Duration = Duration::from_secs(3);

/// A document by what is in it.
struct Kind {
    name: &'static str,
    listeners: u16,
    rules: u64,
    members: u64,
    value: fn(u64) -> String,
    refused: bool,
}

/// Rules of a kind on so many listeners; each value is another.
const fn rules(name: &'static str, listeners: u16, value: fn(u64) -> String, refused: bool) -> Kind {
    Kind { name, listeners, rules: 1000, members: 1, value, refused }
}

fn ordinary(n: u64) -> String {
    format!("^/[a-z]{{1,40}}/{n}/[^/]+[.](php|asp)$")
}

const KINDS: &[Kind] = &[
    Kind { name: "10,000 members", listeners: 1, rules: 0, members: 10_000, value: ordinary, refused: false },
    rules("1,000 ordinary expressions", 1, ordinary, false),
    rules("20 x 1,000 ordinary", 20, ordinary, false),
    rules("20 x 1,000 that are equal", 20, |_| "(\\w{50}){20}".into(), false),
    rules("20 x 1,000 counted: (\\w{50}){20}", 20, |n| format!("(\\w{{50}}){{20}}{n}"), false),
    rules("20 x 1,000 counted: \\p{L}{100}", 20, |n| format!("\\p{{L}}{{100}}{n}"), false),
    rules("20 x 1,000 counted: a.{999}", 20, |n| format!("a.{{999}}{n}"), false),
    rules(
        "20 x 1,000 nested: ((((a{1,9}){1,9}){1,9}){1,9}",
        20,
        |n| format!("((((a{{1,9}}){{1,9}}){{1,9}}){{1,9}}){n}"),
        true,
    ),
    rules("20 x 1,000 with look-around", 20, |n| format!("^(?=.*[0-9])(?!.*secret)/{n}/(.+)(?<=x)$"), false),
    rules("20 x 1,000 words", 20, words, true),
    rules("20 x 1,000 words, case ignored", 20, |n| format!("(?i){}", words(n)), false),
    rules("20 x 1,000 optional: (.?){100}", 20, |n| format!("(.?){{100}}{n}"), false),
];

/// As many words as a value has room for.
fn words(n: u64) -> String {
    (0..24)
        .map(|word| format!("{:08x}", (n * 24 + word).wrapping_mul(2_654_435_761) & 0xFFFF_FFFF))
        .collect::<Vec<_>>()
        .join("|")
}

pub(crate) fn measure(bench: &Bench) -> Result<(String, bool)> {
    let backend = Backend::start(&[Service::Http], bench.load_core)?;
    let member = SocketAddr::from(([127, 0, 0, 1], backend.ports()[0]));
    let port = bench.args.base_port;
    let small = document(port, member, &Kind { rules: 0, members: 1, listeners: 1, ..KINDS[0] }, 0);
    let mut table =
        Table::new(["document", "text MiB", "answer", "MiB before", "at most", "after", "after a small one"]);
    let mut good = true;
    for kind in KINDS {
        let proxy = bench.start(&small)?;
        thread::sleep(SETTLE);
        let large = document(port, member, kind, 0).to_json();
        let before = proxy.resident()?;
        process::forget_peak(proxy.process.pid())?;
        let answer = apply(&proxy, &large)?;
        thread::sleep(SETTLE);
        let (peak, after) = (process::peak(proxy.process.pid())?, proxy.resident()?);
        load::once(proxy.http, &Exchange::http(128, false))?;
        apply(&proxy, &small.to_json())?;
        thread::sleep(SETTLE);
        let left = proxy.resident()?;
        let more = |bytes: u64| bytes.saturating_sub(before) as f64;
        good &= more(peak) <= TARGET_PEAK + TARGET_TEXT * large.len() as f64 && more(left) <= TARGET_LEFT;
        good &= answer.is_some() == kind.refused && (answer.is_none() || more(after) <= TARGET_LEFT);
        let row = [
            kind.name.to_owned(),
            mib(large.len() as u64),
            answer.map_or_else(|| "runs".to_owned(), |path| format!("refused: {path}")),
            mib(before),
            mib(peak),
            mib(after),
            mib(left),
        ];
        eprintln!("reclaim: {}", row.join(" | "));
        table.row(row);
    }
    let mut turns = Table::new([
        "again and again",
        "times",
        "MiB before",
        "after the fifth part",
        "after all",
        "at most",
    ]);
    let fifth = (bench.args.repeats / 5).max(1);
    let large = |name: &str, first: u64| {
        let kind = KINDS.iter().find(|kind| kind.name == name).ok_or("no such document")?;
        Ok::<_, amphora_benches::Error>(document(port, member, kind, first).to_json())
    };
    let cases = [
        ("refused", vec![large("20 x 1,000 nested: ((((a{1,9}){1,9}){1,9}){1,9}", 0)?]),
        (
            "1,000 ordinary expressions and 1,000 others",
            vec![large("1,000 ordinary expressions", 0)?, large("1,000 ordinary expressions", 5000)?],
        ),
        (
            "1,000 ordinary expressions and none",
            vec![large("1,000 ordinary expressions", 0)?, small.to_json()],
        ),
        ("10,000 members and 1", vec![large("10,000 members", 0)?, small.to_json()]),
        (
            "10,000 members and as many others",
            vec![large("10,000 members", 0)?, large("10,000 members", 20_000)?],
        ),
    ];
    for (name, documents) in cases {
        let proxy = bench.start(&small)?;
        thread::sleep(SETTLE);
        let before = proxy.resident()?;
        process::forget_peak(proxy.process.pid())?;
        let mut early = 0;
        for turn in 1..=bench.args.repeats {
            for document in &documents {
                apply(&proxy, document)?;
            }
            if turn == fifth {
                thread::sleep(SETTLE);
                early = proxy.resident()?;
            }
        }
        thread::sleep(SETTLE);
        let (late, peak) = (proxy.resident()?, process::peak(proxy.process.pid())?);
        // What an allocator holds at one moment goes up and down within what may stay after a single one.
        good &= late <= (early + early / 4).max(before + TARGET_LEFT as u64);
        let row =
            [name.to_owned(), bench.args.repeats.to_string(), mib(before), mib(early), mib(late), mib(peak)];
        eprintln!("reclaim: {}", row.join(" | "));
        turns.row(row);
    }
    let text = format!(
        "## Documents\n\nTargets: at most {:.0} MiB more, and {TARGET_TEXT:.0} for each byte of the text, while one is compiled; {:.0} MiB more \
         once it was refused or has gone: {}.\n\n{}\n{}",
        TARGET_PEAK / MIB,
        TARGET_LEFT / MIB,
        if good { "met" } else { "missed" },
        table.markdown(),
        turns.markdown()
    );
    Ok((text, good))
}

/// Where the first fault is when it is refused.
fn apply(proxy: &Proxy, document: &[u8]) -> Result<Option<String>> {
    match proxy.control.apply(document) {
        Ok(_) => Ok(None),
        Err(error) => {
            let text = error.to_string();
            let faults = text.split_once(": 400 ").ok_or_else(|| text.clone())?.1;
            let faults: serde_json::Value = serde_json::from_str(faults)?;
            let first = faults["faults"][0]["path"].as_str().ok_or_else(|| text.clone())?;
            Ok(Some(first.to_owned()))
        }
    }
}

fn document(port: u16, member: SocketAddr, kind: &Kind, first: u64) -> Document {
    let listeners = (0..kind.listeners).map(|listener| {
        let number = u64::from(listener) + 1;
        let policies = (1..=kind.rules)
            .map(|n| {
                let n = u64::from(listener) * kind.rules + n;
                L7Policy::reject(n, L7Rule::new(n, "PATH", "REGEX", None, &(kind.value)(first + n)))
            })
            .collect();
        Listener::new(number, "HTTP", port + listener, 1).with_l7policies(policies)
    });
    let more: Vec<_> = (1..kind.members).map(|n| SocketAddr::new(member_address(first + n), 80)).collect();
    Document::new(listeners.collect(), vec![Pool::new(1, "HTTP", &[member]), Pool::new(2, "HTTP", &more)])
}
