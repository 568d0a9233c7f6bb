//! Members.

use super::{
    super::rows::{MEMBER_STATES, status},
    Family, Kind, Series, put_codes, put_states,
};

/// In the order of the text.
pub(super) static FAMILIES: &[Family] = &[
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
