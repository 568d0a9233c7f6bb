//! A load-balancer document, from its text to the typed model.

use std::hint::black_box;

use amphora_benches::document::Document;
use amphora_model::LoadBalancer;
use divan::{Bencher, counter::BytesCount};

fn main() {
    divan::main();
}

fn parse(bencher: Bencher<'_, '_>, document: &Document) {
    let text = document.to_json();
    LoadBalancer::from_json(&text).expect("the document is right");
    bencher.counter(BytesCount::new(text.len())).bench_local(|| LoadBalancer::from_json(black_box(&text)));
}

#[divan::bench(args = [1, 100, 5000])]
fn parse_members(bencher: Bencher<'_, '_>, members: u64) {
    parse(bencher, &Document::http_with_members(members));
}

#[divan::bench(args = [1, 10, 1000])]
fn parse_policies(bencher: Bencher<'_, '_>, policies: u64) {
    parse(bencher, &Document::http_with_policies(policies));
}
