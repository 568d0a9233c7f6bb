//! The load balancer as a whole.

use amphora_ipc::proxy::ProcessStats;

use super::{Family, Kind, Series};

/// Of the last second's handshakes with clients those that resumed a session, in percent, as HAProxy rounds it.
fn reused(stats: &ProcessStats) -> u64 {
    let ProcessStats { tls_rate: all, client_key_rate: new, .. } = *stats;
    if all == 0 {
        return 0;
    }
    let new = (new.saturating_mul(100) + (all - 1) / 2) / all;
    100u64.saturating_sub(new)
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
        name: "octavia_loadbalancer_max_connections",
        kind: Kind::Gauge,
        help: "Hard limit on the number of per-process connections (configured or imposed by Ulimit-n)",
        series: Series::Process(|process, sink| sink.put(process.stats.max_connections)),
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
        series: Series::Process(|process, sink| sink.put(process.stats.total_connections)),
    },
    Family {
        name: "octavia_loadbalancer_requests_total",
        kind: Kind::Counter,
        help: "Total number of requests on this worker process since started",
        series: Series::Process(|process, sink| sink.put(process.stats.requests)),
    },
    Family {
        name: "octavia_loadbalancer_max_ssl_connections",
        kind: Kind::Gauge,
        help: "Hard limit on the number of per-process SSL endpoints (front+back), 0=unlimited",
        series: Series::Process(|_, sink| sink.put(0)),
    },
    Family {
        name: "octavia_loadbalancer_current_ssl_connections",
        kind: Kind::Gauge,
        help: "Number of active SSL connections.",
        series: Series::Process(|process, sink| sink.put(process.stats.tls_connections)),
    },
    Family {
        name: "octavia_loadbalancer_ssl_connections_total",
        kind: Kind::Counter,
        help: "Total number of SSL endpoints on this worker process since started (front+back)",
        series: Series::Process(|process, sink| sink.put(process.stats.total_tls_connections)),
    },
    Family {
        name: "octavia_loadbalancer_current_connection_rate",
        kind: Kind::Gauge,
        help: "Number of front connections created on this worker process over the last second",
        series: Series::Process(|process, sink| sink.put(process.stats.connection_rate)),
    },
    Family {
        name: "octavia_loadbalancer_limit_connection_rate",
        kind: Kind::Gauge,
        help: "Hard limit for ConnRate (global.maxconnrate)",
        series: Series::Process(|_, sink| sink.put(0)),
    },
    Family {
        name: "octavia_loadbalancer_max_connection_rate",
        kind: Kind::Gauge,
        help: "Highest ConnRate reached on this worker process since started (in connections per second)",
        series: Series::Process(|process, sink| sink.put(process.stats.max_connection_rate)),
    },
    Family {
        name: "octavia_loadbalancer_current_session_rate",
        kind: Kind::Gauge,
        help: "Number of sessions created on this worker process over the last second",
        series: Series::Process(|process, sink| sink.put(process.stats.session_rate)),
    },
    Family {
        name: "octavia_loadbalancer_limit_session_rate",
        kind: Kind::Gauge,
        help: "Hard limit for SessRate (global.maxsessrate)",
        series: Series::Process(|_, sink| sink.put(0)),
    },
    Family {
        name: "octavia_loadbalancer_max_session_rate",
        kind: Kind::Gauge,
        help: "Highest SessRate reached on this worker process since started (in sessions per second)",
        series: Series::Process(|process, sink| sink.put(process.stats.max_session_rate)),
    },
    Family {
        name: "octavia_loadbalancer_current_ssl_rate",
        kind: Kind::Gauge,
        help: "Number of SSL connections created on this worker process over the last second",
        series: Series::Process(|process, sink| sink.put(process.stats.tls_rate)),
    },
    Family {
        name: "octavia_loadbalancer_limit_ssl_rate",
        kind: Kind::Gauge,
        help: "Hard limit for SslRate (global.maxsslrate)",
        series: Series::Process(|_, sink| sink.put(0)),
    },
    Family {
        name: "octavia_loadbalancer_max_ssl_rate",
        kind: Kind::Gauge,
        help: "Highest SslRate reached on this worker process since started (in connections per second)",
        series: Series::Process(|process, sink| sink.put(process.stats.max_tls_rate)),
    },
    Family {
        name: "octavia_loadbalancer_current_frontend_ssl_key_rate",
        kind: Kind::Gauge,
        help: "Number of SSL keys created on frontends in this worker process over the last second",
        series: Series::Process(|process, sink| sink.put(process.stats.client_key_rate)),
    },
    Family {
        name: "octavia_loadbalancer_max_frontend_ssl_key_rate",
        kind: Kind::Gauge,
        help: "Highest SslFrontendKeyRate reached on this worker process since started (in SSL keys per second)",
        series: Series::Process(|process, sink| sink.put(process.stats.max_client_key_rate)),
    },
    Family {
        name: "octavia_loadbalancer_frontend_ssl_reuse",
        kind: Kind::Gauge,
        help: "Percent of frontend SSL connections which did not require a new key",
        series: Series::Process(|process, sink| sink.put(reused(&process.stats))),
    },
    Family {
        name: "octavia_loadbalancer_current_backend_ssl_key_rate",
        kind: Kind::Gauge,
        help: "Number of SSL keys created on backends in this worker process over the last second",
        series: Series::Process(|process, sink| sink.put(process.stats.member_key_rate)),
    },
    Family {
        name: "octavia_loadbalancer_max_backend_ssl_key_rate",
        kind: Kind::Gauge,
        help: "Highest SslBackendKeyRate reached on this worker process since started (in SSL keys per second)",
        series: Series::Process(|process, sink| sink.put(process.stats.max_member_key_rate)),
    },
    Family {
        name: "octavia_loadbalancer_ssl_cache_lookups_total",
        kind: Kind::Counter,
        help: "Total number of SSL session ID lookups in the SSL session cache on this worker since started",
        series: Series::Process(|_, sink| sink.put(0)),
    },
    Family {
        name: "octavia_loadbalancer_ssl_cache_misses_total",
        kind: Kind::Counter,
        help: "Total number of SSL session ID lookups that didn't find a session in the SSL session cache on this worker since started",
        series: Series::Process(|_, sink| sink.put(0)),
    },
    Family {
        name: "octavia_loadbalancer_http_comp_bytes_in_total",
        kind: Kind::Counter,
        help: "Number of bytes submitted to the HTTP compressor in this worker process over the last second",
        series: Series::Process(|_, sink| sink.put(0)),
    },
    Family {
        name: "octavia_loadbalancer_http_comp_bytes_out_total",
        kind: Kind::Counter,
        help: "Number of bytes emitted by the HTTP compressor in this worker process over the last second",
        series: Series::Process(|_, sink| sink.put(0)),
    },
    Family {
        name: "octavia_loadbalancer_limit_http_comp",
        kind: Kind::Gauge,
        help: "Limit of CompressBpsOut beyond which HTTP compression is automatically disabled",
        series: Series::Process(|_, sink| sink.put(0)),
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
        name: "octavia_loadbalancer_dropped_logs_total",
        kind: Kind::Counter,
        help: "Total number of dropped logs for current worker process since started",
        series: Series::Process(|process, sink| sink.put(process.stats.flow_log_lines_dropped)),
    },
    Family {
        name: "amphora_proxy_flow_log_lines_total",
        kind: Kind::Counter,
        help: "Lines of flow logs given to syslog.",
        series: Series::Process(|process, sink| sink.put(process.stats.flow_log_lines)),
    },
    Family {
        name: "amphora_proxy_flow_log_lines_dropped_total",
        kind: Kind::Counter,
        help: "Lines of flow logs that were dropped, because syslog was not there or too slow.",
        series: Series::Process(|process, sink| sink.put(process.stats.flow_log_lines_dropped)),
    },
    Family {
        name: "amphora_proxy_resident_memory_bytes",
        kind: Kind::Gauge,
        help: "Resident memory of the proxy.",
        series: Series::Process(|process, sink| sink.put_known(process.usage.resident_bytes)),
    },
    Family {
        name: "amphora_proxy_open_fds",
        kind: Kind::Gauge,
        help: "Descriptors that the proxy has open; with Linux 6.2 and newer.",
        series: Series::Process(|process, sink| sink.put_known(process.usage.open_descriptors)),
    },
    Family {
        name: "amphora_proxy_max_fds",
        kind: Kind::Gauge,
        help: "Descriptors that the proxy may have open.",
        series: Series::Process(|process, sink| sink.put_known(process.usage.max_descriptors)),
    },
];
