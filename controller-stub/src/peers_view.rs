//! The link between the proxies of a pair for people, below what the amphora is in VRRP.

use std::fmt::{self, Write as _};

use amphora_ipc::proxy::{Peers, PeersState};

use crate::style::{Colour, Style};

/// Draws whether session persistence is kept alike, with whom, and what was counted.
///
/// # Errors
/// None but those of the writer.
pub(crate) fn draw(out: &mut String, peers: &Peers, style: Style) -> fmt::Result {
    let (state, colour) = match peers.state {
        PeersState::Off => {
            let state = style.paint(Colour::Yellow, "OFF");
            return writeln!(out, "peers {state}: session persistence is not kept alike");
        }
        PeersState::Disconnected => ("DISCONNECTED", Colour::Red),
        PeersState::Connected => ("CONNECTED", Colour::Green),
    };
    write!(out, "peers {}", style.paint(colour, state))?;
    if let (Some(listen), Some(peer)) = (peers.listen, peers.peer) {
        write!(out, " {listen} with {peer}")?;
    }
    if let Some(ms) = peers.connected_ms {
        write!(out, ", for {}.{} s", ms / 1000, ms % 1000 / 100)?;
    }
    out.push('\n');
    let lines = details(peers, style);
    for (n, line) in lines.iter().enumerate() {
        let branch = if n + 1 == lines.len() { "└─ " } else { "├─ " };
        writeln!(out, "{}{line}", style.paint(Colour::Dim, branch))?;
    }
    Ok(())
}

fn details(peers: &Peers, style: Style) -> Vec<String> {
    let rejected: Vec<_> = peers.rejected.each().into_iter().filter(|(_, count)| *count > 0).collect();
    let reasons: Vec<_> = rejected.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
    let reasons = if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join(", ")) };
    let mut lines = vec![
        format!(
            "entries of {} tables: {} sent, {} received, {} taken, {} unknown",
            peers.tables,
            peers.entries_sent,
            peers.entries_received,
            peers.entries_taken,
            peers.entries_unknown
        ),
        format!("full syncs: {} sent, {} received", peers.full_syncs_sent, peers.full_syncs_received),
        format!(
            "connections: {}, {} rejected{reasons}",
            peers.connections,
            rejected.iter().map(|(_, count)| count).sum::<u64>()
        ),
    ];
    lines.extend(peers.last_error.as_ref().map(|error| style.paint(Colour::Red, error).to_string()));
    lines
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use amphora_ipc::proxy::PeersRejected;

    use super::*;

    #[test]
    fn draws_the_link_and_its_counters() {
        let mut peers = Peers {
            state: PeersState::Connected,
            listen: Some("192.0.2.1:1025".parse().unwrap()),
            peer: Some("192.0.2.2:1025".parse().unwrap()),
            connected_ms: Some(12_345),
            tables: 2,
            connections: 3,
            entries_sent: 7,
            entries_received: 5,
            entries_taken: 4,
            full_syncs_sent: 1,
            full_syncs_received: 2,
            rejected: PeersRejected { key: 2, silent: 1, ..PeersRejected::default() },
            ..Peers::default()
        };
        let drawn = |peers: &Peers| {
            let mut out = String::new();
            draw(&mut out, peers, Style::PLAIN).unwrap();
            out
        };
        assert_eq!(
            drawn(&peers),
            "peers CONNECTED 192.0.2.1:1025 with 192.0.2.2:1025, for 12.3 s\n\
             ├─ entries of 2 tables: 7 sent, 5 received, 4 taken, 0 unknown\n\
             ├─ full syncs: 1 sent, 2 received\n\
             └─ connections: 3, 3 rejected (key 2, silent 1)\n"
        );
        (peers.state, peers.connected_ms) = (PeersState::Disconnected, None);
        peers.last_error = Some("the keys differ".to_owned());
        assert!(drawn(&peers).starts_with("peers DISCONNECTED 192.0.2.1:1025 with 192.0.2.2:1025\n├─ "));
        assert!(drawn(&peers).ends_with("└─ the keys differ\n"));
        assert_eq!(drawn(&Peers::default()), "peers OFF: session persistence is not kept alike\n");
    }
}
