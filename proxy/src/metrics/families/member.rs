//! Members.

use super::{super::rows::status, Family, Kind, Series, mean, put_codes, put_last_session, put_states};
use crate::state::MemberStatus;

/// In the order of the text.
pub(super) static FAMILIES: &[Family] = &[
    Family {
        name: "octavia_member_current_queue",
        kind: Kind::Gauge,
        help: "Number of current queued connections",
        series: Series::Member(|_, sink| sink.put(0)),
    },
    Family {
        name: "octavia_member_max_queue",
        kind: Kind::Gauge,
        help: "Highest value of queued connections encountered since process started",
        series: Series::Member(|_, sink| sink.put(0)),
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
        name: "octavia_member_responses_denied_total",
        kind: Kind::Counter,
        help: "Total number of denied responses since process started",
        series: Series::Member(|_, sink| sink.put(0)),
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
        series: Series::Member(|member, sink| {
            put_states(sink, &MemberStatus::ALL.map(MemberStatus::as_str), status(&member.stats).as_str())
        }),
    },
    Family {
        name: "octavia_member_weight",
        kind: Kind::Gauge,
        help: "Member weight.",
        series: Series::Member(|member, sink| sink.put(u64::from(member.stats.weight))),
    },
    Family {
        name: "octavia_member_check_failures_total",
        kind: Kind::Counter,
        help: "Total number of failed check (Only counts checks failed when the member is up).",
        series: Series::Member(|member, sink| sink.put(member.stats.history.check_failures)),
    },
    Family {
        name: "octavia_member_check_up_down_total",
        kind: Kind::Counter,
        help: "Total number of failed checks causing UP to DOWN server transitions, per server/backend, since the worker process started",
        series: Series::Member(|member, sink| sink.put(member.stats.history.went_down)),
    },
    Family {
        name: "octavia_member_check_last_change_seconds",
        kind: Kind::Gauge,
        help: "How long ago the last server state changed, in seconds",
        series: Series::Member(|member, sink| sink.put_millis(member.stats.history.unchanged_ms)),
    },
    Family {
        name: "octavia_member_downtime_seconds_total",
        kind: Kind::Counter,
        help: "Total downtime (in seconds) for the member.",
        series: Series::Member(|member, sink| sink.put_millis(member.stats.history.downtime_ms)),
    },
    Family {
        name: "octavia_member_loadbalanced_total",
        kind: Kind::Counter,
        help: "Total number of times a member was selected, either for new sessions, or when redispatching.",
        series: Series::Member(|member, sink| sink.put(member.stats.selected)),
    },
    Family {
        name: "octavia_member_max_session_rate",
        kind: Kind::Gauge,
        help: "Highest value of sessions per second observed since the worker process started",
        series: Series::Member(|member, sink| sink.put(member.stats.history.max_session_rate)),
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
        name: "octavia_member_last_session_seconds",
        kind: Kind::Gauge,
        help: "Number of seconds since last session assigned to the member.",
        series: Series::Member(|member, sink| put_last_session(sink, &member.stats.history)),
    },
    Family {
        name: "octavia_member_queue_time_average_seconds",
        kind: Kind::Gauge,
        help: "Avg. queue time for last 1024 successful connections.",
        series: Series::Member(|_, sink| sink.put(0)),
    },
    Family {
        name: "octavia_member_connect_time_average_seconds",
        kind: Kind::Gauge,
        help: "Avg. connect time for last 1024 successful connections.",
        series: Series::Member(|member, sink| {
            sink.put_micros(mean(&member.stats.times, member.stats.times.connect))
        }),
    },
    Family {
        name: "octavia_member_response_time_average_seconds",
        kind: Kind::Gauge,
        help: "Avg. response time for last 1024 successful connections.",
        series: Series::Member(|member, sink| {
            sink.put_micros(mean(&member.stats.times, member.stats.times.response))
        }),
    },
    Family {
        name: "octavia_member_total_time_average_seconds",
        kind: Kind::Gauge,
        help: "Avg. total time for last 1024 successful connections.",
        series: Series::Member(|member, sink| {
            sink.put_micros(mean(&member.stats.times, member.stats.times.total))
        }),
    },
    Family {
        name: "octavia_member_failed_header_rewriting_total",
        kind: Kind::Counter,
        help: "Total number of failed HTTP header rewrites since the worker process started",
        series: Series::Member(|_, sink| sink.put(0)),
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
        name: "octavia_member_idle_connections_limit",
        kind: Kind::Gauge,
        help: "Limit on the number of available idle connections on this server (server 'pool_max_conn' directive)",
        series: Series::Member(|member, sink| sink.put(member.stats.idle_limit)),
    },
    Family {
        name: "octavia_member_max_queue_time_seconds",
        kind: Kind::Gauge,
        help: "Maximum observed time spent in the queue",
        series: Series::Member(|_, sink| sink.put(0)),
    },
    Family {
        name: "octavia_member_max_connect_time_seconds",
        kind: Kind::Gauge,
        help: "Maximum observed time spent waiting for a connection to complete",
        series: Series::Member(|member, sink| sink.put_micros(member.stats.times.connect.max_us)),
    },
    Family {
        name: "octavia_member_max_response_time_seconds",
        kind: Kind::Gauge,
        help: "Maximum observed time spent waiting for a member response.",
        series: Series::Member(|member, sink| sink.put_micros(member.stats.times.response.max_us)),
    },
    Family {
        name: "octavia_member_max_total_time_seconds",
        kind: Kind::Gauge,
        help: "Maximum observed total request+response time (request+queue+connect+response+processing)",
        series: Series::Member(|member, sink| sink.put_micros(member.stats.times.total.max_us)),
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
    Family {
        name: "amphora_member_weight_ratio",
        kind: Kind::Gauge,
        help: "How much of its weight the member has: less than 1 while it starts slowly.",
        series: Series::Member(|member, sink| {
            member
                .stats
                .member_options
                .iter()
                .for_each(|of| sink.put_float(f64::from(of.weight_share) / 16.0))
        }),
    },
    Family {
        name: "amphora_member_ejections_total",
        kind: Kind::Counter,
        help: "Times that the member was taken out because of what it does with real traffic.",
        series: Series::Member(|member, sink| {
            member.stats.member_options.iter().for_each(|of| sink.put(of.ejections))
        }),
    },
    Family {
        name: "amphora_member_ejected",
        kind: Kind::Gauge,
        help: "Whether the member is taken out because of what it does with real traffic.",
        series: Series::Member(|member, sink| {
            member.stats.member_options.iter().for_each(|of| sink.put(of.ejected.into()))
        }),
    },
    Family {
        name: "amphora_member_draining",
        kind: Kind::Gauge,
        help: "Whether the member may finish what it has until its pool's drain_timeout.",
        series: Series::Member(|member, sink| {
            member.stats.member_options.iter().for_each(|of| sink.put(of.draining.into()))
        }),
    },
];
