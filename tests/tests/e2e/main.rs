//! The proxy end to end, topic by topic. One program, so that tests of all topics run at once.
#![allow(clippy::unwrap_used)]

mod balancing;
mod broken_answers;
mod certificates;
mod changes;
mod control;
mod expressions;
mod failures;
mod fitness;
mod flow_logs;
mod health;
mod hostile;
mod http;
mod http2;
mod http2_hostile;
mod http2_members;
mod http_bodies;
mod http_members;
mod http_rules;
mod kills;
mod late;
mod limits;
mod netns;
mod peers;
mod persistence;
mod process;
mod prometheus;
mod quiesce;
mod statistics;
mod tcp;
mod tls;
mod tls_drains;
mod tls_ends;
mod tls_hostile;
mod tls_proxy_protocol;
mod tls_sessions;
