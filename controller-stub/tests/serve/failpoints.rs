//! `serve` is ended at each commit, and before and after each thing that it does outside, and started again.
//!
//! `the_program_is_ended_everywhere` is the whole walk; `AMPHORA_FAILPOINT_LANES` (2) histories run at a time:
//!
//! ```text
//! cargo test -p amphora-controller --test serve -- --ignored --nocapture the_program_is_ended_everywhere
//! ```

mod history;

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use self::history::History;

/// What must not take longer: from the start until nothing is PENDING.
const AGAIN: Duration = Duration::from_secs(5);

/// Each point and how often it is passed, from a history in which nothing happens; `None` where there are no namespaces.
fn points(history: fn(&str) -> Option<History>) -> Option<Vec<String>> {
    let history = history("list")?;
    let mut counts = BTreeMap::<String, usize>::new();
    for line in history.log().lines() {
        if let Some((_, name)) = line.split_once("failpoint=\"") {
            *counts.entry(name.split('"').next().unwrap().to_owned()).or_default() += 1;
        }
    }
    assert!(counts.len() > 20, "{counts:?}");
    Some(
        counts
            .into_iter()
            .flat_map(|(name, count)| (1..=count).map(move |n| format!("{name}:{n}")))
            .collect(),
    )
}

/// Whether it was ended there, and how long it took until all was so again.
fn end_at(history: fn(&str) -> Option<History>, point: &str) -> (bool, Duration) {
    let history = history(point).unwrap();
    (history.again.is_some(), history.again.unwrap_or_default())
}

/// What tenants and operators ask for.
fn requests(point: &str) -> Option<History> {
    Some(History::new(Some(point))?.run())
}

/// What housekeeping does.
fn exchange(point: &str) -> Option<History> {
    Some(History::exchanging(Some(point))?.exchange())
}

#[test]
fn the_program_is_ended_in_some_places() {
    let Some(points) = points(requests) else { return };
    let begin = Instant::now();
    // Others each day would not be the same test; these are spread over all.
    for point in points.iter().skip(points.len() / 8).step_by(points.len() / 4) {
        let (ended, again) = end_at(requests, point);
        eprintln!("{point}: ended {ended}, again after {} ms", again.as_millis());
    }
    eprintln!("{} points, some of them in {} ms", points.len(), begin.elapsed().as_millis());
}

#[test]
#[ignore = "takes a quarter of an hour"]
fn the_program_is_ended_everywhere() {
    walk(requests);
}

#[test]
#[ignore = "takes a quarter of an hour"]
fn the_program_is_ended_everywhere_in_an_exchange_of_the_authority() {
    walk(exchange);
}

/// Ends it at each point of a history, and says how that went.
fn walk(history: fn(&str) -> Option<History>) {
    let Some(points) = points(history) else { return };
    let lanes = std::env::var("AMPHORA_FAILPOINT_LANES").ok().and_then(|text| text.parse().ok()).unwrap_or(2);
    let wanted = std::env::var("AMPHORA_FAILPOINT_ONLY").unwrap_or_default();
    let points: Vec<String> = points.into_iter().filter(|point| point.starts_with(&wanted)).collect();
    let (next, results) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..lanes {
            scope.spawn(|| {
                while let Some(point) = points.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let result = thread::scope(|scope| scope.spawn(|| end_at(history, point)).join());
                    eprintln!("{point}: {:?}", result.as_ref().ok());
                    results.lock().unwrap().push((point.clone(), result.ok()));
                }
            });
        }
    });
    let results = results.into_inner().unwrap();
    let violations: Vec<_> = results.iter().filter(|(_, result)| result.is_none()).collect();
    let ended = results.iter().filter(|(_, result)| result.is_some_and(|(ended, _)| ended)).count();
    let longest = results.iter().filter_map(|(_, result)| result.map(|(_, again)| again)).max().unwrap();
    eprintln!(
        "{} points, {} runs, {ended} ended there, longest {} ms, {} violations: {violations:?}",
        points.len(),
        results.len(),
        longest.as_millis(),
        violations.len()
    );
    assert_eq!(violations.len(), 0);
    assert!(longest < AGAIN, "{longest:?}");
}
