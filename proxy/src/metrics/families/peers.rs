//! The other amphora of a pair; nothing without one.

use amphora_ipc::proxy::PeersState;

use super::{Family, Kind, Series};

/// In the order of the text.
pub(super) static FAMILIES: &[Family] = &[
    Family {
        name: "amphora_peers_connected",
        kind: Kind::Gauge,
        help: "Whether there is a connection to the other amphora.",
        series: Series::Peers(|peers, sink| sink.put(u64::from(peers.state == PeersState::Connected))),
    },
    Family {
        name: "amphora_peers_connections_total",
        kind: Kind::Counter,
        help: "Connections whose sides have proved that they have the key.",
        series: Series::Peers(|peers, sink| sink.put(peers.connections)),
    },
    Family {
        name: "amphora_peers_tables",
        kind: Kind::Gauge,
        help: "Tables that are kept alike.",
        series: Series::Peers(|peers, sink| sink.put(peers.tables as u64)),
    },
    Family {
        name: "amphora_peers_entries_sent_total",
        kind: Kind::Counter,
        help: "Entries told.",
        series: Series::Peers(|peers, sink| sink.put(peers.entries_sent)),
    },
    Family {
        name: "amphora_peers_entries_received_total",
        kind: Kind::Counter,
        help: "Entries that the other amphora told.",
        series: Series::Peers(|peers, sink| sink.put(peers.entries_received)),
    },
    Family {
        name: "amphora_peers_entries_taken_total",
        kind: Kind::Counter,
        help: "Entries that the other amphora told and that were news.",
        series: Series::Peers(|peers, sink| sink.put(peers.entries_taken)),
    },
    Family {
        name: "amphora_peers_entries_unknown_total",
        kind: Kind::Counter,
        help: "Entries that the other amphora told, of a pool or a member that is not known here.",
        series: Series::Peers(|peers, sink| sink.put(peers.entries_unknown)),
    },
    Family {
        name: "amphora_peers_full_syncs_sent_total",
        kind: Kind::Counter,
        help: "Times that everything was told.",
        series: Series::Peers(|peers, sink| sink.put(peers.full_syncs_sent)),
    },
    Family {
        name: "amphora_peers_full_syncs_received_total",
        kind: Kind::Counter,
        help: "Times that the other amphora told everything.",
        series: Series::Peers(|peers, sink| sink.put(peers.full_syncs_received)),
    },
    Family {
        name: "amphora_peers_rejected_total",
        kind: Kind::Counter,
        help: "Connections that were ended, by reason.",
        series: Series::Peers(|peers, sink| {
            for (reason, count) in peers.rejected.each() {
                sink.put_labelled(&format!("reason=\"{reason}\""), count);
            }
        }),
    },
];
