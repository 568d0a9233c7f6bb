//! side_by_side
fn main() {}
