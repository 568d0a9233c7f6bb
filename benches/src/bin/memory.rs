//! memory
fn main() {}
