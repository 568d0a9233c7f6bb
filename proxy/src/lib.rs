//! The data plane of an amphora: a native L4/L7 proxy that carries one OpenStack Octavia load balancer.
//!
//! A change flows one way. A document becomes the typed [model](amphora_model); the model is compiled into an immutable
//! [`snapshot`]; the [`engine`] swaps the snapshot into the workers. What outlives snapshots is [`state`], keyed by
//! id.
//!
//! | module | what is inside |
//! | --- | --- |
//! | [`snapshot`] | the compiled load balancer |
//! | [`state`] | counters, health and sessions by id |
//! | [`engine`] | the control thread's core: compile, bind, swap, report |
//! | [`control`] | the control socket; its documents are in the crate `amphora-ipc` |
//! | `worker` | a thread per core: accepting, taking up snapshots, letting go |
//! | `session` | a client's connection: HTTP, TCP, the relay between two connections |
//! | `local` | what one worker has of its own: the present snapshot, idle connections, scratch memory |
//! | [`http`] | what the versions of HTTP share: heads, fields, cookies, edits |
//! | [`http1`] | HTTP/1.1 without I/O: parsing, framing, chunks, writing |
//! | [`http2`] | HTTP/2 to clients and members, within bounds on what it makes the proxy hold and do |
//! | [`l7`] | L7 policies, compiled and evaluated |
//! | [`balance`], [`persist`] | which member gets a session |
//! | [`peers`] | persistence kept alike on both amphorae of a pair |
//! | [`health`] | health monitors: the schedule and the probes |
//! | [`metrics`] | Prometheus text |
//! | [`logs`] | flow logs: formats, records, lines |
//! | [`limits`] | how much of everything there may be at once |
//! | [`memory`] | the allocator, and what it gives back |
//! | [`privileges`] | descriptors, the network namespace, the user |
//! | [`conn`] | connections to clients and members; buffers, pipes, deadlines, the PROXY protocol |
//! | [`tls`] | TLS without sockets: contexts, verification, tickets, what is known of a peer |
//! | [`net`] | listening sockets |
//! | [`datagram`] | listeners of UDP, which the kernel forwards |

#![cfg_attr(test, allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests may block"))]

pub mod balance;
pub mod conn;
pub mod control;
pub mod datagram;
pub mod engine;
pub mod health;
pub mod http;
pub mod http1;
pub mod http2;
pub mod l7;
pub mod limits;
mod local;
pub mod logs;
pub mod memory;
pub mod metrics;
pub mod net;
pub mod peers;
pub mod persist;
pub mod privileges;
pub mod session;
pub mod snapshot;
pub mod state;
mod sys;
pub mod tls;
mod worker;
