//! Every metric, as a table: its name, its type, its help text (Octavia's where the name is Octavia's) and where its
//! samples come from.

use super::{
    rows::{ListenerRow, MEMBER_STATES, MemberRow, PoolRow, ProcessRow, codes, status},
    sink::Sink,
};
use crate::control::api::Responses;

/// A metric.
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) help: &'static str,
    pub(super) series: Series,
}

/// A metric's type.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Counter,
    Gauge,
}

impl Kind {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
        }
    }
}

/// Writes what one object has.
type Write<Row> = fn(&Row, &mut Sink<'_>);

/// The objects that a metric speaks of.
#[derive(Clone, Copy)]
pub(super) enum Series {
    Process(Write<ProcessRow>),
    Listener(Write<ListenerRow>),
    Pool(Write<PoolRow>),
    Member(Write<MemberRow>),
}

const LISTENER_STATES: [&str; 2] = ["DOWN", "UP"];
const POOL_STATES: [&str; 2] = ["DOWN", "UP"];

fn put_states(sink: &mut Sink<'_>, states: &[&str], present: &str) {
    for state in states {
        sink.put_with("state", state, u64::from(*state == present));
    }
}

fn put_codes(sink: &mut Sink<'_>, responses: &Responses) {
    for (code, count) in codes(responses) {
        sink.put_with("code", code, count);
    }
}

/// In the order of the text.
pub(super) static FAMILIES: &[Family] = &[
    Family {
        name: "octavia_loadbalancer_cpu",
        kind: Kind::Gauge,
        help: "Load balancer CPU utilization (percentage).",
        series: Series::Process(|process, sink| {
            if let Some(host) = process.host {
                sink.put_float(host.cpu_percent);
            }
        }),
    },
    Family {
        name: "octavia_loadbalancer_memory",
        kind: Kind::Gauge,
        help: "Load balancer memory utilization (percentage).",
        series: Series::Process(|process, sink| {
            if let Some(host) = process.host {
                sink.put_float(host.memory_percent);
            }
        }),
    },
    Family {
        name: "octavia_loadbalancer_current_connections",
        kind: Kind::Gauge,
        help: "Current number of connections on this worker process",
        series: Series::Process(|process, sink| sink.put(process.connections)),
    },
    Family {
        name: "octavia_loadbalancer_connections_total",
        kind: Kind::Counter,
        help: "Total number of connections on this worker process since started",
        series: Series::Process(|process, sink| sink.put(process.connections_total)),
    },
    Family {
        name: "octavia_loadbalancer_requests_total",
        kind: Kind::Counter,
        help: "Total number of requests on this worker process since started",
        series: Series::Process(|process, sink| sink.put(process.requests_total)),
    },
    Family {
        name: "octavia_loadbalancer_listeners",
        kind: Kind::Gauge,
        help: "Current number of active listeners on the current worker process",
        series: Series::Process(|process, sink| sink.put(process.listeners)),
    },
    Family {
        name: "amphora_proxy_info",
        kind: Kind::Gauge,
        help: "The running proxy: its version, and an identifier that differs each time it starts.",
        series: Series::Process(|process, sink| sink.put_labelled(&process.labels, 1)),
    },
    Family {
        name: "amphora_proxy_workers",
        kind: Kind::Gauge,
        help: "Worker threads.",
        series: Series::Process(|process, sink| sink.put(process.workers)),
    },
    Family {
        name: "amphora_proxy_uptime_seconds",
        kind: Kind::Gauge,
        help: "Time since the proxy started, when all counters were zero.",
        series: Series::Process(|process, sink| sink.put_micros(process.uptime_ms * 1000)),
    },
    Family {
        name: "amphora_proxy_config_generation",
        kind: Kind::Gauge,
        help: "Configuration changes applied since the proxy started.",
        series: Series::Process(|process, sink| sink.put(process.generation)),
    },
    Family {
        name: "octavia_listener_current_sessions",
        kind: Kind::Gauge,
        help: "Number of current sessions on the frontend, backend or server",
        series: Series::Listener(|listener, sink| sink.put(listener.stats.active_connections)),
    },
    Family {
        name: "octavia_listener_max_sessions",
        kind: Kind::Gauge,
        help: "Highest value of current sessions encountered since process started",
        series: Series::Listener(|listener, sink| sink.put(listener.stats.max_connections)),
    },
    Family {
        name: "octavia_listener_limit_sessions",
        kind: Kind::Gauge,
        help: "Frontend/listener/server's maxconn, backend's fullconn",
        series: Series::Listener(|listener, sink| {
            if let Some(limit) = listener.connection_limit {
                sink.put(u64::from(limit));
            }
        }),
    },
    Family {
        name: "octavia_listener_sessions_total",
        kind: Kind::Counter,
        help: "Total number of sessions since process started",
        series: Series::Listener(|listener, sink| sink.put(listener.stats.total_connections)),
    },
    Family {
        name: "octavia_listener_bytes_in_total",
        kind: Kind::Counter,
        help: "Total number of request bytes since process started",
        series: Series::Listener(|listener, sink| sink.put(listener.stats.bytes_in)),
    },
    Family {
        name: "octavia_listener_bytes_out_total",
        kind: Kind::Counter,
        help: "Total number of response bytes since process started",
        series: Series::Listener(|listener, sink| sink.put(listener.stats.bytes_out)),
    },
    Family {
        name: "octavia_listener_requests_denied_total",
        kind: Kind::Counter,
        help: "Total number of denied requests since process started",
        series: Series::Listener(|listener, sink| sink.put(listener.stats.requests_denied)),
    },
    Family {
        name: "octavia_listener_request_errors_total",
        kind: Kind::Counter,
        help: "Total number of invalid requests since process started",
        series: Series::Listener(|listener, sink| sink.put(listener.stats.request_errors)),
    },
    Family {
        name: "octavia_listener_status",
        kind: Kind::Gauge,
        help: "Current status of the listener.",
        series: Series::Listener(|_, sink| put_states(sink, &LISTENER_STATES, "UP")),
    },
    Family {
        name: "octavia_listener_http_responses_total",
        kind: Kind::Counter,
        help: "Total number of HTTP responses with status 100-199 returned by this object since the worker process started",
        series: Series::Listener(|listener, sink| put_codes(sink, &listener.stats.responses)),
    },
    Family {
        name: "octavia_listener_http_requests_total",
        kind: Kind::Counter,
        help: "Total number of HTTP requests processed by this object since the worker process started",
        series: Series::Listener(|listener, sink| sink.put(listener.stats.requests)),
    },
    Family {
        name: "octavia_listener_connections_total",
        kind: Kind::Counter,
        help: "Total number of new connections accepted on this frontend since the worker process started",
        series: Series::Listener(|listener, sink| sink.put(listener.stats.total_connections)),
    },
    Family {
        name: "octavia_listener_denied_connections_total",
        kind: Kind::Counter,
        help: "Total number of requests denied by connection rules.",
        series: Series::Listener(|listener, sink| sink.put(listener.stats.denied_connections)),
    },
    Family {
        name: "octavia_pool_current_sessions",
        kind: Kind::Gauge,
        help: "Number of current sessions on the frontend, backend or server",
        series: Series::Pool(|pool, sink| sink.put(pool.sessions)),
    },
    Family {
        name: "octavia_pool_sessions_total",
        kind: Kind::Counter,
        help: "Total number of sessions since process started",
        series: Series::Pool(|pool, sink| sink.put(pool.sessions_total)),
    },
    Family {
        name: "octavia_pool_bytes_in_total",
        kind: Kind::Counter,
        help: "Total number of request bytes since process started",
        series: Series::Pool(|pool, sink| sink.put(pool.bytes_in)),
    },
    Family {
        name: "octavia_pool_bytes_out_total",
        kind: Kind::Counter,
        help: "Total number of response bytes since process started",
        series: Series::Pool(|pool, sink| sink.put(pool.bytes_out)),
    },
    Family {
        name: "octavia_pool_connection_errors_total",
        kind: Kind::Counter,
        help: "Total number of failed connections to server since the worker process started",
        series: Series::Pool(|pool, sink| sink.put(pool.connection_errors)),
    },
    Family {
        name: "octavia_pool_response_errors_total",
        kind: Kind::Counter,
        help: "Total number of invalid responses since the worker process started",
        series: Series::Pool(|pool, sink| sink.put(pool.response_errors)),
    },
    Family {
        name: "octavia_pool_retry_warnings_total",
        kind: Kind::Counter,
        help: "Total number of server connection retries since the worker process started",
        series: Series::Pool(|pool, sink| sink.put(pool.retries)),
    },
    Family {
        name: "octavia_pool_redispatch_warnings_total",
        kind: Kind::Counter,
        help: "Total number of server redispatches due to connection failures since the worker process started",
        series: Series::Pool(|pool, sink| sink.put(pool.redispatches)),
    },
    Family {
        name: "octavia_pool_status",
        kind: Kind::Gauge,
        help: "Current status of the pool.",
        series: Series::Pool(|pool, sink| {
            put_states(sink, &POOL_STATES, if pool.up { "UP" } else { "DOWN" })
        }),
    },
    Family {
        name: "octavia_pool_active_members",
        kind: Kind::Gauge,
        help: "Current number of active members.",
        series: Series::Pool(|pool, sink| sink.put(pool.active_members)),
    },
    Family {
        name: "octavia_pool_backup_members",
        kind: Kind::Gauge,
        help: "Current number of backup members.",
        series: Series::Pool(|pool, sink| sink.put(pool.backup_members)),
    },
    Family {
        name: "octavia_pool_loadbalanced_total",
        kind: Kind::Counter,
        help: "Total number of times a pool was selected, either for new sessions, or when redispatching.",
        series: Series::Pool(|pool, sink| sink.put(pool.selected)),
    },
    Family {
        name: "octavia_pool_http_responses_total",
        kind: Kind::Counter,
        help: "Total number of HTTP responses with status 100-199 returned by this object since the worker process started",
        series: Series::Pool(|pool, sink| put_codes(sink, &pool.responses)),
    },
    Family {
        name: "octavia_pool_http_requests_total",
        kind: Kind::Counter,
        help: "Total number of HTTP requests processed by this object since the worker process started",
        series: Series::Pool(|pool, sink| sink.put(pool.requests)),
    },
    Family {
        name: "octavia_pool_client_aborts_total",
        kind: Kind::Counter,
        help: "Total number of requests or connections aborted by the client since the worker process started",
        series: Series::Pool(|pool, sink| sink.put(pool.client_aborts)),
    },
    Family {
        name: "octavia_pool_member_aborts_total",
        kind: Kind::Counter,
        help: "Total number of data transfers aborted by the server.",
        series: Series::Pool(|pool, sink| sink.put(pool.server_aborts)),
    },
    Family {
        name: "octavia_pool_connection_attempts_total",
        kind: Kind::Counter,
        help: "Total number of outgoing connection attempts on this backend/server since the worker process started",
        series: Series::Pool(|pool, sink| sink.put(pool.connects)),
    },
    Family {
        name: "octavia_pool_connection_reuses_total",
        kind: Kind::Counter,
        help: "Total number of reused connection on this backend/server since the worker process started",
        series: Series::Pool(|pool, sink| sink.put(pool.reuses)),
    },
    Family {
        name: "octavia_member_current_sessions",
        kind: Kind::Gauge,
        help: "Number of current sessions on the frontend, backend or server",
        series: Series::Member(|member, sink| sink.put(member.stats.active_sessions)),
    },
    Family {
        name: "octavia_member_max_sessions",
        kind: Kind::Gauge,
        help: "Highest value of current sessions encountered since process started",
        series: Series::Member(|member, sink| sink.put(member.stats.max_sessions)),
    },
    Family {
        name: "octavia_member_sessions_total",
        kind: Kind::Counter,
        help: "Total number of sessions since process started",
        series: Series::Member(|member, sink| sink.put(member.stats.total_sessions)),
    },
    Family {
        name: "octavia_member_bytes_in_total",
        kind: Kind::Counter,
        help: "Total number of request bytes since process started",
        series: Series::Member(|member, sink| sink.put(member.stats.bytes_in)),
    },
    Family {
        name: "octavia_member_bytes_out_total",
        kind: Kind::Counter,
        help: "Total number of response bytes since process started",
        series: Series::Member(|member, sink| sink.put(member.stats.bytes_out)),
    },
    Family {
        name: "octavia_member_connection_errors_total",
        kind: Kind::Counter,
        help: "Total number of failed connections to server since the worker process started",
        series: Series::Member(|member, sink| sink.put(member.stats.connect_errors)),
    },
    Family {
        name: "octavia_member_response_errors_total",
        kind: Kind::Counter,
        help: "Total number of invalid responses since the worker process started",
        series: Series::Member(|member, sink| sink.put(member.stats.response_errors)),
    },
    Family {
        name: "octavia_member_retry_warnings_total",
        kind: Kind::Counter,
        help: "Total number of server connection retries since the worker process started",
        series: Series::Member(|member, sink| sink.put(member.stats.retries)),
    },
    Family {
        name: "octavia_member_redispatch_warnings_total",
        kind: Kind::Counter,
        help: "Total number of server redispatches due to connection failures since the worker process started",
        series: Series::Member(|member, sink| sink.put(member.stats.redispatches)),
    },
    Family {
        name: "octavia_member_status",
        kind: Kind::Gauge,
        help: "Current status of the member.",
        series: Series::Member(|member, sink| put_states(sink, &MEMBER_STATES, status(&member.stats))),
    },
    Family {
        name: "octavia_member_weight",
        kind: Kind::Gauge,
        help: "Member weight.",
        series: Series::Member(|member, sink| sink.put(u64::from(member.stats.weight))),
    },
    Family {
        name: "octavia_member_loadbalanced_total",
        kind: Kind::Counter,
        help: "Total number of times a member was selected, either for new sessions, or when redispatching.",
        series: Series::Member(|member, sink| sink.put(member.stats.selected)),
    },
    Family {
        name: "octavia_member_http_responses_total",
        kind: Kind::Counter,
        help: "Total number of HTTP responses with status 100-199 returned by this object since the worker process started",
        series: Series::Member(|member, sink| put_codes(sink, &member.stats.responses)),
    },
    Family {
        name: "octavia_member_client_aborts_total",
        kind: Kind::Counter,
        help: "Total number of requests or connections aborted by the client since the worker process started",
        series: Series::Member(|member, sink| sink.put(member.stats.client_aborts)),
    },
    Family {
        name: "octavia_member_server_aborts_total",
        kind: Kind::Counter,
        help: "Total number of requests or connections aborted by the server since the worker process started",
        series: Series::Member(|member, sink| sink.put(member.stats.server_aborts)),
    },
    Family {
        name: "octavia_member_connection_attempts_total",
        kind: Kind::Counter,
        help: "Total number of outgoing connection attempts on this backend/server since the worker process started",
        series: Series::Member(|member, sink| sink.put(member.stats.connects)),
    },
    Family {
        name: "octavia_member_connection_reuses_total",
        kind: Kind::Counter,
        help: "Total number of reused connection on this backend/server since the worker process started",
        series: Series::Member(|member, sink| sink.put(member.stats.reuses)),
    },
    Family {
        name: "octavia_member_idle_connections_current",
        kind: Kind::Gauge,
        help: "Current number of idle connections available for reuse on this server",
        series: Series::Member(|member, sink| sink.put(member.stats.idle)),
    },
    Family {
        name: "amphora_member_requests_total",
        kind: Kind::Counter,
        help: "Requests sent to the member that wait, or waited, for a response.",
        series: Series::Member(|member, sink| sink.put(member.stats.requests)),
    },
    Family {
        name: "amphora_member_connect_time_seconds_total",
        kind: Kind::Counter,
        help: "Sum of the times that connecting took; octavia_member_connection_attempts_total counts them.",
        series: Series::Member(|member, sink| sink.put_micros(member.stats.connect_time_us)),
    },
    Family {
        name: "amphora_member_response_time_seconds_total",
        kind: Kind::Counter,
        help: "Sum of the times from a request sent to the head of its response; amphora_member_requests_total counts them.",
        series: Series::Member(|member, sink| sink.put_micros(member.stats.response_time_us)),
    },
    Family {
        name: "amphora_member_session_time_seconds_total",
        kind: Kind::Counter,
        help: "Sum of the times that sessions took; octavia_member_sessions_total counts them.",
        series: Series::Member(|member, sink| sink.put_micros(member.stats.total_time_us)),
    },
];
