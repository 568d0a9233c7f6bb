//! Pools.

use super::{Family, Kind, Series, mean, put_codes, put_last_session, put_reasons, put_refusals, put_states};

const STATES: [&str; 2] = ["DOWN", "UP"];

/// In the order of the text.
pub(super) static FAMILIES: &[Family] = &[
    Family {
        name: "octavia_pool_current_queue",
        kind: Kind::Gauge,
        help: "Number of current queued connections",
        series: Series::Pool(|_, sink| sink.put(0)),
    },
    Family {
        name: "octavia_pool_max_queue",
        kind: Kind::Gauge,
        help: "Highest value of queued connections encountered since process started",
        series: Series::Pool(|_, sink| sink.put(0)),
    },
    Family {
        name: "octavia_pool_current_sessions",
        kind: Kind::Gauge,
        help: "Number of current sessions on the frontend, backend or server",
        series: Series::Pool(|pool, sink| sink.put(pool.sessions)),
    },
    Family {
        name: "octavia_pool_max_sessions",
        kind: Kind::Gauge,
        help: "Highest value of current sessions encountered since process started",
        series: Series::Pool(|pool, sink| sink.put(pool.max_sessions)),
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
        name: "octavia_pool_requests_denied_total",
        kind: Kind::Counter,
        help: "Total number of denied requests since process started",
        series: Series::Pool(|_, sink| sink.put(0)),
    },
    Family {
        name: "octavia_pool_responses_denied_total",
        kind: Kind::Counter,
        help: "Total number of denied responses since process started",
        series: Series::Pool(|_, sink| sink.put(0)),
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
        name: "octavia_pool_check_up_down_total",
        kind: Kind::Counter,
        help: "Total number of failed checks causing UP to DOWN server transitions, per server/backend, since the worker process started",
        series: Series::Pool(|pool, sink| sink.put(pool.history.went_down)),
    },
    Family {
        name: "octavia_pool_check_last_change_seconds",
        kind: Kind::Gauge,
        help: "How long ago the last server state changed, in seconds",
        series: Series::Pool(|pool, sink| sink.put_millis(pool.history.unchanged_ms)),
    },
    Family {
        name: "octavia_pool_downtime_seconds_total",
        kind: Kind::Counter,
        help: "Total downtime (in seconds) for the pool.",
        series: Series::Pool(|pool, sink| sink.put_millis(pool.history.downtime_ms)),
    },
    Family {
        name: "octavia_pool_loadbalanced_total",
        kind: Kind::Counter,
        help: "Total number of times a pool was selected, either for new sessions, or when redispatching.",
        series: Series::Pool(|pool, sink| sink.put(pool.selected)),
    },
    Family {
        name: "octavia_pool_max_session_rate",
        kind: Kind::Gauge,
        help: "Highest value of sessions per second observed since the worker process started",
        series: Series::Pool(|pool, sink| sink.put(pool.history.max_session_rate)),
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
        name: "octavia_pool_http_comp_bytes_in_total",
        kind: Kind::Counter,
        help: "Total number of bytes submitted to the HTTP compressor for this object since the worker process started",
        series: Series::Pool(|_, sink| sink.put(0)),
    },
    Family {
        name: "octavia_pool_http_comp_bytes_out_total",
        kind: Kind::Counter,
        help: "Total number of bytes emitted by the HTTP compressor for this object since the worker process started",
        series: Series::Pool(|_, sink| sink.put(0)),
    },
    Family {
        name: "octavia_pool_http_comp_bytes_bypassed_total",
        kind: Kind::Counter,
        help: "Total number of bytes that bypassed HTTP compression for this object since the worker process started (CPU/memory/bandwidth limitation)",
        series: Series::Pool(|_, sink| sink.put(0)),
    },
    Family {
        name: "octavia_pool_http_comp_responses_total",
        kind: Kind::Counter,
        help: "Total number of HTTP responses that were compressed for this object since the worker process started",
        series: Series::Pool(|_, sink| sink.put(0)),
    },
    Family {
        name: "octavia_pool_last_session_seconds",
        kind: Kind::Gauge,
        help: "Number of seconds since last session assigned to a member.",
        series: Series::Pool(|pool, sink| put_last_session(sink, &pool.history)),
    },
    Family {
        name: "octavia_pool_queue_time_average_seconds",
        kind: Kind::Gauge,
        help: "Avg. queue time for last 1024 successful connections.",
        series: Series::Pool(|_, sink| sink.put(0)),
    },
    Family {
        name: "octavia_pool_connect_time_average_seconds",
        kind: Kind::Gauge,
        help: "Avg. connect time for last 1024 successful connections.",
        series: Series::Pool(|pool, sink| sink.put_micros(mean(&pool.times, pool.times.connect))),
    },
    Family {
        name: "octavia_pool_response_time_average_seconds",
        kind: Kind::Gauge,
        help: "Avg. response time for last 1024 successful connections.",
        series: Series::Pool(|pool, sink| sink.put_micros(mean(&pool.times, pool.times.response))),
    },
    Family {
        name: "octavia_pool_total_time_average_seconds",
        kind: Kind::Gauge,
        help: "Avg. total time for last 1024 successful connections.",
        series: Series::Pool(|pool, sink| sink.put_micros(mean(&pool.times, pool.times.total))),
    },
    Family {
        name: "octavia_pool_failed_header_rewriting_total",
        kind: Kind::Counter,
        help: "Total number of failed HTTP header rewrites since the worker process started",
        series: Series::Pool(|_, sink| sink.put(0)),
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
        name: "octavia_pool_http_cache_lookups_total",
        kind: Kind::Counter,
        help: "Total number of HTTP requests looked up in the cache on this frontend/backend since the worker process started",
        series: Series::Pool(|_, sink| sink.put(0)),
    },
    Family {
        name: "octavia_pool_http_cache_hits_total",
        kind: Kind::Counter,
        help: "Total number of HTTP requests not found in the cache on this frontend/backend since the worker process started",
        series: Series::Pool(|_, sink| sink.put(0)),
    },
    Family {
        name: "octavia_pool_max_queue_time_seconds",
        kind: Kind::Gauge,
        help: "Maximum observed time spent in the queue",
        series: Series::Pool(|_, sink| sink.put(0)),
    },
    Family {
        name: "octavia_pool_max_connect_time_seconds",
        kind: Kind::Gauge,
        help: "Maximum observed time spent waiting for a connection to complete",
        series: Series::Pool(|pool, sink| sink.put_micros(pool.times.connect.max_us)),
    },
    Family {
        name: "octavia_pool_max_response_time_seconds",
        kind: Kind::Gauge,
        help: "Maximum observed time spent waiting for a member response.",
        series: Series::Pool(|pool, sink| sink.put_micros(pool.times.response.max_us)),
    },
    Family {
        name: "octavia_pool_max_total_time_seconds",
        kind: Kind::Gauge,
        help: "Maximum observed total request+response time (request+queue+connect+response+processing)",
        series: Series::Pool(|pool, sink| sink.put_micros(pool.times.total.max_us)),
    },
    Family {
        name: "amphora_pool_tls_handshakes_total",
        kind: Kind::Counter,
        help: "TLS handshakes with members that were completed.",
        series: Series::Pool(|pool, sink| {
            if let Some(handshakes) = &pool.handshakes {
                sink.put(handshakes.completed);
            }
        }),
    },
    Family {
        name: "amphora_pool_tls_handshakes_resumed_total",
        kind: Kind::Counter,
        help: "TLS handshakes with members that resumed a session.",
        series: Series::Pool(|pool, sink| {
            if let Some(handshakes) = &pool.handshakes {
                sink.put(handshakes.resumed);
            }
        }),
    },
    Family {
        name: "amphora_pool_tls_handshakes_failed_total",
        kind: Kind::Counter,
        help: "TLS handshakes with members that were not completed, by reason.",
        series: Series::Pool(|pool, sink| {
            if let Some(handshakes) = &pool.handshakes {
                put_reasons(sink, &handshakes.failed);
            }
        }),
    },
    Family {
        name: "amphora_pool_http2_connections_total",
        kind: Kind::Counter,
        help: "Connections to members that speak HTTP/2.",
        series: Series::Pool(|pool, sink| {
            if let Some(http2) = &pool.http2 {
                sink.put(http2.connections);
            }
        }),
    },
    Family {
        name: "amphora_pool_http2_streams_total",
        kind: Kind::Counter,
        help: "Streams of HTTP/2 that were opened at members, each with one request.",
        series: Series::Pool(|pool, sink| {
            if let Some(http2) = &pool.http2 {
                sink.put(http2.streams);
            }
        }),
    },
    Family {
        name: "amphora_pool_http2_resets_received_total",
        kind: Kind::Counter,
        help: "Streams that members have reset.",
        series: Series::Pool(|pool, sink| {
            if let Some(http2) = &pool.http2 {
                sink.put(http2.resets_received);
            }
        }),
    },
    Family {
        name: "amphora_pool_http2_resets_sent_total",
        kind: Kind::Counter,
        help: "Streams that were reset to members.",
        series: Series::Pool(|pool, sink| {
            if let Some(http2) = &pool.http2 {
                sink.put(http2.resets_sent);
            }
        }),
    },
    Family {
        name: "amphora_pool_http2_refused_total",
        kind: Kind::Counter,
        help: "Connections of HTTP/2 that were ended for what members did, by reason.",
        series: Series::Pool(|pool, sink| {
            if let Some(http2) = &pool.http2 {
                put_refusals(sink, &http2.refused);
            }
        }),
    },
];
