//! Listeners.

use amphora_ipc::proxy::ListenerStats;

use super::{Family, Kind, Series, put_codes, put_reasons, put_refusals, put_states};

const STATES: [&str; 2] = ["DOWN", "UP"];

/// In the order of the text.
pub(super) static FAMILIES: &[Family] = &[
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
        name: "octavia_listener_responses_denied_total",
        kind: Kind::Counter,
        help: "Total number of denied responses since process started",
        series: Series::Listener(|_, sink| sink.put(0)),
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
        series: Series::Listener(|_, sink| put_states(sink, &STATES, "UP")),
    },
    Family {
        name: "octavia_listener_limit_session_rate",
        kind: Kind::Gauge,
        help: "Limit on the number of sessions accepted in a second (frontend only, 'rate-limit sessions' setting)",
        series: Series::Listener(|_, sink| sink.put(0)),
    },
    Family {
        name: "octavia_listener_max_session_rate",
        kind: Kind::Gauge,
        help: "Highest value of sessions per second observed since the worker process started",
        series: Series::Listener(|listener, sink| sink.put(listener.stats.max_session_rate)),
    },
    Family {
        name: "octavia_listener_http_responses_total",
        kind: Kind::Counter,
        help: "Total number of HTTP responses with status 100-199 returned by this object since the worker process started",
        series: Series::Listener(|listener, sink| put_codes(sink, &listener.stats.responses)),
    },
    Family {
        name: "octavia_listener_http_requests_rate_max",
        kind: Kind::Gauge,
        help: "Highest value of http requests observed since the worker process started",
        series: Series::Listener(|listener, sink| sink.put(listener.stats.max_request_rate)),
    },
    Family {
        name: "octavia_listener_http_requests_total",
        kind: Kind::Counter,
        help: "Total number of HTTP requests processed by this object since the worker process started",
        series: Series::Listener(|listener, sink| sink.put(listener.stats.requests)),
    },
    Family {
        name: "octavia_listener_http_comp_bytes_in_total",
        kind: Kind::Counter,
        help: "Total number of bytes submitted to the HTTP compressor for this object since the worker process started",
        series: Series::Listener(|_, sink| sink.put(0)),
    },
    Family {
        name: "octavia_listener_http_comp_bytes_out_total",
        kind: Kind::Counter,
        help: "Total number of bytes emitted by the HTTP compressor for this object since the worker process started",
        series: Series::Listener(|_, sink| sink.put(0)),
    },
    Family {
        name: "octavia_listener_http_comp_bytes_bypassed_total",
        kind: Kind::Counter,
        help: "Total number of bytes that bypassed HTTP compression for this object since the worker process started (CPU/memory/bandwidth limitation)",
        series: Series::Listener(|_, sink| sink.put(0)),
    },
    Family {
        name: "octavia_listener_http_comp_responses_total",
        kind: Kind::Counter,
        help: "Total number of HTTP responses that were compressed for this object since the worker process started",
        series: Series::Listener(|_, sink| sink.put(0)),
    },
    Family {
        name: "octavia_listener_connections_rate_max",
        kind: Kind::Gauge,
        help: "Highest value of connections per second observed since the worker process started",
        series: Series::Listener(|listener, sink| sink.put(listener.stats.max_connection_rate)),
    },
    Family {
        name: "octavia_listener_connections_total",
        kind: Kind::Counter,
        help: "Total number of new connections accepted on this frontend since the worker process started",
        series: Series::Listener(|listener, sink| {
            // HAProxy counts them before it looks at the rules that refuse some, and before TLS.
            let ListenerStats { total_connections, denied_connections, handshakes, .. } = listener.stats;
            sink.put(total_connections + denied_connections + handshakes.failed.total())
        }),
    },
    Family {
        name: "octavia_listener_intercepted_requests_total",
        kind: Kind::Counter,
        help: "Total number of HTTP requests intercepted on the frontend (redirects/stats/services) since the worker process started",
        series: Series::Listener(|listener, sink| sink.put(listener.stats.requests_intercepted)),
    },
    Family {
        name: "octavia_listener_denied_connections_total",
        kind: Kind::Counter,
        help: "Total number of requests denied by connection rules.",
        series: Series::Listener(|listener, sink| sink.put(listener.stats.denied_connections)),
    },
    Family {
        name: "octavia_listener_denied_sessions_total",
        kind: Kind::Counter,
        help: "Total number of requests denied by session rules.",
        series: Series::Listener(|_, sink| sink.put(0)),
    },
    Family {
        name: "octavia_listener_failed_header_rewriting_total",
        kind: Kind::Counter,
        help: "Total number of failed header rewriting rules.",
        series: Series::Listener(|_, sink| sink.put(0)),
    },
    Family {
        name: "octavia_listener_http_cache_lookups_total",
        kind: Kind::Counter,
        help: "Total number of HTTP requests looked up in the cache on this frontend/backend since the worker process started",
        series: Series::Listener(|_, sink| sink.put(0)),
    },
    Family {
        name: "octavia_listener_http_cache_hits_total",
        kind: Kind::Counter,
        help: "Total number of HTTP requests not found in the cache on this frontend/backend since the worker process started",
        series: Series::Listener(|_, sink| sink.put(0)),
    },
    Family {
        name: "amphora_listener_requests_regex_limited_total",
        kind: Kind::Counter,
        help: "Requests for which a regular expression did not match because the time for all of them was used up.",
        series: Series::Listener(|listener, sink| sink.put(listener.stats.requests_regex_limited)),
    },
    Family {
        name: "amphora_listener_tls_handshakes_total",
        kind: Kind::Counter,
        help: "TLS handshakes with clients that were completed.",
        series: Series::Listener(|listener, sink| {
            if let Some(handshakes) = &listener.handshakes {
                sink.put(handshakes.completed);
            }
        }),
    },
    Family {
        name: "amphora_listener_tls_handshakes_resumed_total",
        kind: Kind::Counter,
        help: "TLS handshakes with clients that resumed a session.",
        series: Series::Listener(|listener, sink| {
            if let Some(handshakes) = &listener.handshakes {
                sink.put(handshakes.resumed);
            }
        }),
    },
    Family {
        name: "amphora_listener_tls_handshakes_failed_total",
        kind: Kind::Counter,
        help: "TLS handshakes with clients that were not completed, by reason.",
        series: Series::Listener(|listener, sink| {
            if let Some(handshakes) = &listener.handshakes {
                put_reasons(sink, &handshakes.failed);
            }
        }),
    },
    Family {
        name: "amphora_listener_tls_certificate_expiry_timestamp_seconds",
        kind: Kind::Gauge,
        help: "When a certificate that clients are shown, or the first of its chain, expires.",
        series: Series::Listener(|listener, sink| {
            for (id, until) in listener.expiry.iter().flat_map(|expiry| expiry.iter()) {
                sink.put_time_with("certificate", id.as_str(), *until);
            }
        }),
    },
    Family {
        name: "amphora_listener_http2_connections_total",
        kind: Kind::Counter,
        help: "Connections of clients that speak HTTP/2.",
        series: Series::Listener(|listener, sink| {
            if let Some(http2) = &listener.http2 {
                sink.put(http2.connections);
            }
        }),
    },
    Family {
        name: "amphora_listener_http2_streams_total",
        kind: Kind::Counter,
        help: "Streams of HTTP/2 that clients have opened, each with one request.",
        series: Series::Listener(|listener, sink| {
            if let Some(http2) = &listener.http2 {
                sink.put(http2.streams);
            }
        }),
    },
    Family {
        name: "amphora_listener_http2_resets_received_total",
        kind: Kind::Counter,
        help: "Streams that clients have reset.",
        series: Series::Listener(|listener, sink| {
            if let Some(http2) = &listener.http2 {
                sink.put(http2.resets_received);
            }
        }),
    },
    Family {
        name: "amphora_listener_http2_resets_sent_total",
        kind: Kind::Counter,
        help: "Streams that were reset to clients.",
        series: Series::Listener(|listener, sink| {
            if let Some(http2) = &listener.http2 {
                sink.put(http2.resets_sent);
            }
        }),
    },
    Family {
        name: "amphora_listener_http2_refused_total",
        kind: Kind::Counter,
        help: "Connections of HTTP/2 that were ended for what their clients did, by reason.",
        series: Series::Listener(|listener, sink| {
            if let Some(http2) = &listener.http2 {
                put_refusals(sink, &http2.refused);
            }
        }),
    },
];
