//! The proxy end to end, topic by topic. One program, so that tests of all topics run at once.
#![allow(clippy::unwrap_used)]

mod http;
