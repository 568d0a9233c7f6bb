//! `heartbeats`: the controller's end of an amphora's sign of life.

use std::{collections::BTreeMap, io::Write, net::SocketAddr};

use amphora_agent::heartbeat::{self, Message};
use serde::Serialize;
use serde_json::json;
use tokio::net::UdpSocket;

use super::complain;
use crate::{
    error::{Error, Result},
    style::{Colour, Style},
};

/// Listens until `count` heartbeats verified, or for ever.
///
/// # Errors
/// [`Error::Local`] when the address cannot be bound or standard output is gone.
pub(crate) async fn listen(
    out: &mut impl Write,
    style: Style,
    bind: SocketAddr,
    key: &str,
    json: bool,
    count: Option<u64>,
) -> Result<()> {
    let socket = UdpSocket::bind(bind).await.map_err(|e| Error::local(format!("UDP {bind}"), e))?;
    if !json {
        writeln!(out, "listening on UDP {}", socket.local_addr().unwrap_or(bind))?;
        out.flush()?;
    }
    let mut packet = vec![0; 65_536];
    let mut seen = 0;
    while count.is_none_or(|n| seen < n) {
        let (length, from) = socket.recv_from(&mut packet).await.map_err(|e| Error::local("UDP", e))?;
        match heartbeat::open(&packet[..length], key) {
            Ok(beat) => {
                seen += 1;
                if json {
                    writeln!(out, "{}", json!({"from": from.to_string(), "heartbeat": beat}))?;
                } else {
                    show(out, style, from, &beat)?;
                }
                out.flush()?;
            }
            Err(reason) => complain(format_args!("{from}: {length} bytes not believed: {reason}")),
        }
    }
    Ok(())
}

/// One heartbeat in a few lines: who, listeners with what they carried since the last one, pools with members by status.
fn show(out: &mut impl Write, style: Style, from: SocketAddr, beat: &Message) -> Result<()> {
    writeln!(out, "{} from {from}, seq {}", style.paint(Colour::Bold, &beat.id), beat.seq)?;
    for (id, listener) in &beat.listeners {
        let stats = &listener.stats;
        writeln!(
            out,
            "  listener {id} {}: {} connections now, +{} connections, +{} B in, +{} B out, +{} request errors",
            paint_status(style, &word(&listener.status)),
            stats.conns,
            stats.totconns,
            stats.rx,
            stats.tx,
            stats.ereq,
        )?;
    }
    for (key, pool) in &beat.pools {
        let mut members: BTreeMap<String, usize> = BTreeMap::new();
        for status in pool.members.values() {
            *members.entry(status.to_string()).or_default() += 1;
        }
        let members: Vec<String> =
            members.into_iter().map(|(s, n)| format!("{n} {}", paint_status(style, &s))).collect();
        let members = if members.is_empty() { "no member".to_owned() } else { members.join(", ") };
        writeln!(out, "  pool {} {}: {members}", word(key), paint_status(style, &word(&pool.status)))?;
    }
    Ok(())
}

/// The spelling on the wire.
fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(text)) => text,
        other => format!("{other:?}"),
    }
}

/// HAProxy's words for a state, in Octavia's colours for it.
fn paint_status(style: Style, status: &str) -> String {
    let colour = match status.split(' ').next() {
        Some("OPEN" | "UP") => Colour::Green,
        Some("DOWN") => Colour::Red,
        Some("DRAIN") => Colour::Cyan,
        _ => Colour::Dim,
    };
    style.paint(colour, status).to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[tokio::test]
    async fn shows_what_verifies_and_ends_after_the_count() {
        let ids = [1, 2, 3, 4, 5, 6].map(|n| uuid::Uuid::from_u128(n).to_string());
        let [l, p, q, a, b, c] = &ids;
        let beat = json!({"id": "amp", "seq": 7, "ver": 3,
            "listeners": {l: {"status": "OPEN", "stats": {"tx": 5, "rx": 4, "conns": 1, "totconns": 2, "ereq": 0}}},
            "pools": {format!("{p}:{l}"): {"status": "UP", "members": {a: "UP", b: "UP", c: "DRAIN"}},
                format!("{q}:{l}"): {"status": "UP", "members": {}}}});
        let message: Message = serde_json::from_value(beat.clone()).unwrap();
        let port = {
            let probe = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            probe.local_addr().unwrap().port()
        };
        let bind = SocketAddr::from(([127, 0, 0, 1], port));
        let sender = tokio::spawn({
            let (good, bad) = (heartbeat::seal(&message, "k"), heartbeat::seal(&message, "wrong"));
            async move {
                let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
                // The listener may not be bound yet: a heartbeat is repeated, as an amphora does.
                loop {
                    for packet in [&bad, &good] {
                        let _ = socket.send_to(packet, bind).await;
                    }
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                }
            }
        });
        let mut out = Vec::new();
        listen(&mut out, Style::PLAIN, bind, "k", false, Some(1)).await.unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("amp from 127.0.0.1"), "{text}");
        assert!(
            text.contains(&format!(
                "listener {l} OPEN: 1 connections now, +2 connections, +4 B in, +5 B out"
            )),
            "{text}"
        );
        assert!(text.contains(&format!("pool {p}:{l} UP: 1 DRAIN, 2 UP")), "{text}");
        assert!(text.contains(&format!("pool {q}:{l} UP: no member")), "{text}");

        let mut out = Vec::new();
        listen(&mut out, Style::PLAIN, bind, "k", true, Some(1)).await.unwrap();
        let line: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(line["heartbeat"], beat);
        sender.abort();
    }
}
