//! The snapshot that workers run, compiled from the typed model.

use std::{hint::black_box, sync::Arc};

use amphora_benches::document::Document;
use amphora_model::LoadBalancer;
use amphora_proxy::{
    snapshot::{Snapshot, TlsSource, compile},
    state::Registry,
};
use divan::{Bencher, counter::ItemsCount};

fn main() {
    divan::main();
}

fn model(document: &Document) -> Arc<LoadBalancer> {
    LoadBalancer::from_json(&document.to_json()).expect("the document is right").into()
}

fn first(model: &Arc<LoadBalancer>) -> Snapshot {
    compile(model.clone(), 1, &Registry::new(1), &TlsSource::default()).expect("the model can be compiled")
}

/// Nothing ran before: every state is made.
#[divan::bench(args = [1, 100, 5000])]
fn compile_first(bencher: Bencher<'_, '_>, members: u64) {
    let model = model(&Document::http_with_members(members));
    bencher.counter(ItemsCount::new(members)).bench_local(|| first(black_box(&model)));
}

/// The same members ran before: their states are found again.
#[divan::bench(args = [1, 100, 5000])]
fn compile_over_running(bencher: Bencher<'_, '_>, members: u64) {
    let model = model(&Document::http_with_members(members));
    let (mut registry, source) = (Registry::new(1), TlsSource::default());
    let running = first(&model);
    running.hand_over(&mut registry);
    bencher.counter(ItemsCount::new(members)).bench_local(|| {
        compile(black_box(&model).clone(), 2, &registry, &source).expect("the model can be compiled")
    });
}

/// From the text of a document to the snapshot.
#[divan::bench(args = [1, 100, 5000])]
fn parse_and_compile(bencher: Bencher<'_, '_>, members: u64) {
    let text = Document::http_with_members(members).to_json();
    let (registry, source) = (Registry::new(1), TlsSource::default());
    bencher.counter(ItemsCount::new(members)).bench_local(|| {
        let model = LoadBalancer::from_json(black_box(&text)).expect("the document is right");
        compile(model.into(), 1, &registry, &source).expect("the model can be compiled")
    });
}
