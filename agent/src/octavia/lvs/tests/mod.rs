#![allow(clippy::unwrap_used)]

mod keywords;
mod roundtrip;

use amphora_model::{
    HealthCheck, LbAlgorithm, ListenerProtocol, PoolProtocol, SessionPersistence, SourceNetwork,
};
use std::time::Duration;

use super::*;

/// What the controller has really sent, by the name of the scenario.
const SAMPLES: [(&str, &str); 4] = [
    ("lvs_udp_sctp", include_str!("../samples/lvs_udp_sctp.conf")),
    ("lvs_udp_sctp-2", include_str!("../samples/lvs_udp_sctp-2.conf")),
    ("lvs_udp_sctp-3", include_str!("../samples/lvs_udp_sctp-3.conf")),
    ("lvs_udp_sctp-4", include_str!("../samples/lvs_udp_sctp-4.conf")),
];

#[test]
fn what_the_controller_has_sent_translates() {
    let [first, second, third, fourth] = SAMPLES.map(|(_, text)| translate(text.as_bytes()));
    for (translated, algorithm, check) in [
        (&first, LbAlgorithm::RoundRobin, "UDP-CONNECT"),
        (&second, LbAlgorithm::LeastConnections, "TCP"),
        (&third, LbAlgorithm::SourceIp, "HTTP"),
        (&fourth, LbAlgorithm::RoundRobin, "SCTP"),
    ] {
        let translated = translated.as_ref().unwrap();
        let served = translated.served.as_ref().unwrap();
        let (listener, pool) = (&served.listeners[0], &served.pools[0]);
        assert_eq!(served.vips.len(), 3);
        assert_eq!((listener.port, listener.member_connection_limit), (53, Some(2000)));
        assert_eq!((listener.default_pool, pool.lb_algorithm), (Some(pool.id), algorithm));
        let document = pool.health_monitor.as_ref().map(|_| served.to_json()).unwrap();
        let monitor = &document["loadbalancer"]["pools"][0]["healthmonitor"];
        assert_eq!(
            (&monitor["type"], &monitor["delay"], &monitor["timeout"]),
            (&check.into(), &2.into(), &1.into())
        );
        assert_eq!((&monitor["max_retries"], &monitor["max_retries_down"]), (&1.into(), &2.into()));
        let members: Vec<_> =
            pool.members.iter().map(|member| (member.address.to_string(), member.weight)).collect();
        let wanted = [("10.78.0.11", 1), ("10.78.0.12", 3), ("fd78::11", 1)];
        assert_eq!(members, wanted.map(|(address, weight)| (address.to_owned(), weight)));
        assert_eq!(translated.disabled.len(), 1);
    }
    let pool = &second.unwrap().served.unwrap().pools[0];
    let network = SourceNetwork { timeout: Duration::from_secs(33), v4_prefix: 16, v6_prefix: 128 };
    assert_eq!(pool.session_persistence, Some(SessionPersistence::SourceNetwork(network)));
    let pool = &third.unwrap().served.unwrap().pools[0];
    let Some(HealthCheck::Http(http)) = pool.health_monitor.as_ref().map(|monitor| &monitor.check) else {
        panic!()
    };
    assert_eq!((http.url_path.as_str(), &http.expected_codes[..]), ("/health", &[(200, 200)][..]));
    let served = fourth.unwrap().served.unwrap();
    assert_eq!(served.listeners[0].protocol, ListenerProtocol::Sctp);
    let pool = &served.pools[0];
    assert_eq!(pool.protocol, PoolProtocol::Sctp);
    assert_eq!(pool.session_persistence, Some(SessionPersistence::SourceNetwork(SourceNetwork::default())));
}
