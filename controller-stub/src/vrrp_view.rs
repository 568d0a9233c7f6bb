//! An amphora's VRRP for people, below its status tree.

use std::fmt::{self, Write as _};

use amphora_ipc::vrrp::{InstanceStatus, Status};

use crate::style::{Colour, Style};

/// Draws every virtual router: what it is, and what it has counted.
///
/// # Errors
/// None but those of the writer.
pub(crate) fn draw(out: &mut String, status: &Status, style: Style) -> fmt::Result {
    for instance in &status.instances {
        head(out, status, instance, style)?;
        let lines = details(instance, style);
        for (n, line) in lines.iter().enumerate() {
            let branch = if n + 1 == lines.len() { "└─ " } else { "├─ " };
            writeln!(out, "{}{line}", style.paint(Colour::Dim, branch))?;
        }
    }
    Ok(())
}

fn head(out: &mut String, status: &Status, instance: &InstanceStatus, style: Style) -> fmt::Result {
    let colour = match instance.state.as_str() {
        "MASTER" => Colour::Green,
        "BACKUP" => Colour::Cyan,
        _ => Colour::Red,
    };
    write!(
        out,
        "vrrp {} {} priority {} on {}, for {}",
        style.paint(Colour::Bold, &instance.name),
        style.paint(colour, &instance.state),
        instance.priority,
        instance.interface,
        seconds(instance.since_ms)
    )?;
    if !instance.reason.is_empty() {
        write!(out, " ({})", instance.reason)?;
    }
    let marks =
        [(!status.started, "stopped"), (!instance.fit, "unfit"), (instance.handed_over, "handed over")];
    for (_, mark) in marks.into_iter().filter(|(is, _)| *is) {
        write!(out, " {}", style.paint(Colour::Yellow, mark))?;
    }
    out.push('\n');
    Ok(())
}

fn details(instance: &InstanceStatus, style: Style) -> Vec<String> {
    let counters = &instance.counters;
    let refused: u64 = counters.refused.values().sum();
    let reasons: Vec<_> =
        counters.refused.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
    let reasons = if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join(", ")) };
    let mut lines = vec![
        format!(
            "advertisements: {} sent, {} received, {refused} refused{reasons}",
            counters.sent, counters.received
        ),
        format!("became master {} times, released {}", counters.became_master, counters.released_master),
    ];
    lines.extend(instance.peer.map(|peer| {
        format!("peer {} priority {}, heard {} ago", peer.address, peer.priority, seconds(peer.ago_ms))
    }));
    lines.extend(instance.error.as_ref().map(|error| style.paint(Colour::Red, error).to_string()));
    lines
}

fn seconds(ms: u64) -> String {
    format!("{}.{} s", ms / 1000, ms % 1000 / 100)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    #[test]
    fn draws_role_and_counters() {
        let status = serde_json::from_value(json!({
            "version": "0", "pid": 1, "uptime_ms": 1, "started": false, "data_plane": null,
            "instances": [{"name": "lb", "state": "MASTER", "since_ms": 12_345, "reason": "master_down",
                "interface": "eth1", "vrid": 1, "version": 3, "priority": 100, "interval_ms": 1000,
                "master_interval_ms": 1000, "fit": true, "handed_over": true, "addresses": [],
                "peer": {"address": "192.0.2.2", "priority": 90, "ago_ms": 420},
                "counters": {"sent": 7, "received": 3, "priority_zero_sent": 0, "priority_zero_received": 0,
                    "became_master": 2, "released_master": 1, "refused": {"ttl": 4, "vrid": 1}},
                "error": "no address"}]
        }))
        .unwrap();
        let mut out = String::new();
        draw(&mut out, &status, Style::PLAIN).unwrap();
        assert_eq!(
            out,
            "vrrp lb MASTER priority 100 on eth1, for 12.3 s (master_down) stopped handed over\n\
             ├─ advertisements: 7 sent, 3 received, 5 refused (ttl 4, vrid 1)\n\
             ├─ became master 2 times, released 1\n\
             ├─ peer 192.0.2.2 priority 90, heard 0.4 s ago\n\
             └─ no address\n"
        );
    }
}
