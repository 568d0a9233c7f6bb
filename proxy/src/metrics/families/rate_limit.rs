//! Rate limit policies, and what they count in.

use super::{Family, Kind, Series};

/// In the order of the text.
pub(super) static FAMILIES: &[Family] = &[
    Family {
        name: "amphora_rate_limit_limited_total",
        kind: Kind::Counter,
        help: "Requests, connections or packets that the policy has turned away.",
        series: Series::RateLimit(|policy, sink| sink.put(policy.stats.limited)),
    },
    Family {
        name: "amphora_rate_limit_queued_total",
        kind: Kind::Counter,
        help: "Requests or connections that had to wait for their turn.",
        series: Series::RateLimit(|policy, sink| sink.put(policy.stats.queued)),
    },
    Family {
        name: "amphora_rate_limit_queue_seconds_total",
        kind: Kind::Counter,
        help: "Sum of the times that they had to wait.",
        series: Series::RateLimit(|policy, sink| sink.put_millis(policy.stats.waited_ms)),
    },
    Family {
        name: "amphora_rate_limit_queue_length",
        kind: Kind::Gauge,
        help: "Requests or connections that wait for their turn.",
        series: Series::RateLimit(|policy, sink| sink.put(u64::from(policy.stats.waiting))),
    },
    Family {
        name: "amphora_proxy_rate_limit_places",
        kind: Kind::Gauge,
        help: "Clients that rate limits can count at once, each for every rule; only with rate limits.",
        series: Series::Process(|process, sink| {
            sink.put_known(process.rate_limiter.map(|limiter| limiter.places))
        }),
    },
    Family {
        name: "amphora_proxy_rate_limit_places_used",
        kind: Kind::Gauge,
        help: "Those of them that are in use.",
        series: Series::Process(|process, sink| {
            sink.put_known(process.rate_limiter.map(|limiter| limiter.used))
        }),
    },
    Family {
        name: "amphora_proxy_rate_limit_forgotten_total",
        kind: Kind::Counter,
        help: "Clients that were forgotten while they still counted, because there was no place.",
        series: Series::Process(|process, sink| {
            sink.put_known(process.rate_limiter.map(|limiter| limiter.forgotten))
        }),
    },
];
