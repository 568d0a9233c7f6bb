//! The oracles of the HTTP/1.1 engine on generated messages: well-formed ones, spoiled ones, and cuts of both.

#![allow(clippy::unwrap_used)]
#![allow(clippy::disallowed_methods, reason = "tests may block")]

mod generate;
mod oracle;

use generate::{BYTES, chunks, requests, response};
use oracle::Comparison;
use proptest::{prelude::*, sample::select};

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases) }
}

proptest! {
    #![proptest_config(config(2000))]

    #[test]
    fn request_heads(data in requests()) {
        oracle::request_head(&data);
    }

    #[test]
    fn response_heads(data in response()) {
        oracle::response_head(&data);
    }

    #[test]
    fn chunked_bodies(data in chunks()) {
        oracle::chunked(&data);
    }

    #[test]
    fn noise(data in prop::collection::vec(select(BYTES), 0..200)) {
        oracle::request_head(&data);
        oracle::response_head(&data);
        oracle::chunked(&data);
        oracle::request_stream(&data);
    }
}

/// The generator must reach both what is accepted and what only this engine refuses, or it shows nothing.
#[test]
fn request_streams_are_read_as_hyper_reads_them() {
    let mut runner = proptest::test_runner::TestRunner::new(config(10_000));
    let counts = std::cell::Cell::new([0u32; 3]);
    let result = runner.run(&requests(), |data| {
        let mut count = counts.get();
        count[oracle::request_stream(&data) as usize] += 1;
        counts.set(count);
        Ok(())
    });
    let [same, stricter, target] = counts.get();
    println!("the same: {same}; stricter than hyper: {stricter}; refused by hyper for its target: {target}");
    result.unwrap();
    assert!(same > 1000 && stricter > 200);
    assert_eq!(Comparison::Same as usize, 0);
}
