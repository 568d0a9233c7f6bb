//! A pair with work to do: on a machine with nothing left to give advertisements are not late and nothing fails over, and a
//! planned hand-over costs no request.

// This is a test crate: what goes wrong here fails a test, and `unwrap` says so as well as anything.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use amphora_tests::{
    PATIENCE,
    pair::{Busy, Client, Pair, Program, Setting},
};

/// Advertisements that are listened for.
const ADVERTISEMENTS: usize = 80;

#[test]
fn advertisements_are_late_by_less_than_an_interval_while_every_core_is_busy() {
    let interval = Duration::from_millis(100);
    let setting = Setting { program: Program::Ours, version: 3, centiseconds: 10, workers: None };
    let Some(pair) = Pair::start(setting) else { return };
    if pair.logs().contains("no real-time priority") {
        eprintln!(
            "SKIPPED: real-time priority is not allowed here, and without it advertisements may be late"
        );
        return;
    }
    let pairs = [pair];
    let busy = Busy::start(&pairs);
    let capture = pairs[0].advertisements();
    let begun = Instant::now();
    while capture.heard() < ADVERTISEMENTS && begun.elapsed() < PATIENCE {
        std::thread::sleep(interval);
    }
    let (heard, longest) = capture.finish();
    let (idle, answers) = (busy.idle(), busy.answers());
    drop(busy);
    println!(
        "{heard} advertisements, {longest:?} between two at most, {answers} requests, {:.1} % idle",
        idle * 100.0
    );

    assert!(heard >= ADVERTISEMENTS, "the master ceased to advertise");
    assert!(idle < 0.02, "the machine was not busy: {idle}");
    assert!(answers > 100, "the data plane was not busy: {answers}");
    assert!(longest < 2 * interval, "late by more than an interval: {longest:?}");
    let [first, second] = pairs[0].statuses();
    for (status, state) in [(&first, "MASTER"), (&second, "BACKUP")] {
        assert_eq!(status["instances"][0]["state"], state);
        assert_eq!(status["data_plane"]["went_unfit"], 0);
    }
    assert_eq!(second["instances"][0]["counters"]["became_master"], 0);
}

#[test]
fn a_planned_hand_over_costs_no_request_and_nobody_asks_twice() {
    let setting = Setting { program: Program::Ours, version: 3, centiseconds: 10, workers: None };
    for _ in 0..3 {
        let Some(mut pair) = Pair::start(setting) else { return };
        let client = Client::start(pair.client(), pair.vip(), 500);
        client.more(250, PATIENCE);
        pair.hand_over();
        pair.await_takeover(PATIENCE);
        client.more(500, PATIENCE);
        let run = client.finish();
        println!("{run:?}");
        assert_eq!(run.lost, 0, "{run:?}\n{}", pair.logs());
        // A SYN that nobody answers is sent again after a second.
        assert!(run.slowest < Duration::from_millis(900), "{run:?}\n{}", pair.logs());
    }
}
