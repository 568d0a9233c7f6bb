//! apply_latency
fn main() {}
