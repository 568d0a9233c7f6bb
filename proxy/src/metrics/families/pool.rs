//! Pools.

use super::{Family, Kind, Series, put_codes, put_states};

const STATES: [&str; 2] = ["DOWN", "UP"];

/// In the order of the text.
pub(super) static FAMILIES: &[Family] = &[
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
        series: Series::Pool(|pool, sink| put_states(sink, &STATES, if pool.up { "UP" } else { "DOWN" })),
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
];
