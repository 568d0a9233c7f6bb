//! `heartbeats`: the controller's end of an amphora's sign of life.

use std::{
    collections::{BTreeMap, HashMap},
    future::pending,
    io::Write,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use amphora_agent::heartbeat::{self, Message};
use amphora_logging::repeats::{LeftOut, Repeats};
use serde::Serialize;
use serde_json::json;
use tokio::{
    net::UdpSocket,
    sync::Notify,
    time::{sleep, sleep_until, timeout},
};

use super::complain;
use crate::{
    client::Client,
    error::{Error, Result},
    replay::{Believed, tag},
    style::{Colour, Style},
};

/// How often an amphora is asked what it is in VRRP.
const ROLE_INTERVAL: Duration = Duration::from_secs(1);

/// How long the first heartbeat waits for the first answer of every amphora.
const ROLE_PATIENCE: Duration = Duration::from_secs(2);

/// Listens until `count` heartbeats verified, or for ever. With amphorae to ask, each heartbeat is shown with the role
/// that its sender has in VRRP.
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
    clients: Vec<Client>,
) -> Result<()> {
    let socket = UdpSocket::bind(bind).await.map_err(|e| Error::local(format!("UDP {bind}"), e))?;
    if !json {
        writeln!(out, "listening on UDP {}", socket.local_addr().unwrap_or(bind))?;
        out.flush()?;
    }
    let roles = if clients.is_empty() { None } else { Some(Roles::ask(clients).await) };
    let mut packet = vec![0; 65_536];
    let mut seen = 0;
    let mut believed = Believed::default();
    // Anybody can send what is not believed, and as much of it as he likes.
    let mut complaints = Repeats::default();
    while count.is_none_or(|n| seen < n) {
        let received = tokio::select! {
            received = socket.recv_from(&mut packet) => received,
            () = until(complaints.poll_timeout()) => {
                complaints.handle_timeout(Instant::now()).iter().for_each(tell);
                continue;
            }
        };
        let (length, from) = received.map_err(|e| Error::local("UDP", e))?;
        let opened = heartbeat::open(&packet[..length], key).map_err(|reason| reason.to_string());
        let opened = opened.and_then(|beat| {
            let judged = believed.judge(&beat.id, beat.seq, tag(&packet[..length]), Instant::now());
            judged.map(|_| beat).map_err(|reason| reason.to_string())
        });
        match opened {
            Ok(beat) => {
                seen += 1;
                let role = roles.as_ref().and_then(|roles| roles.of(&beat.id));
                if json {
                    let mut line = json!({"from": from.to_string(), "heartbeat": beat});
                    if roles.is_some() {
                        line["vrrp_role"] = json!(role);
                    }
                    writeln!(out, "{line}")?;
                } else {
                    show(out, style, from, &beat, role.as_deref())?;
                }
                out.flush()?;
            }
            Err(reason) => {
                let line = format!("{from}: {length} bytes not believed: {reason}");
                // Reasons are few: only one who has the key could think of others.
                if complaints.admit(Instant::now(), reason, &line) {
                    complain(format_args!("{line}"));
                }
            }
        }
    }
    complaints.end().iter().for_each(tell);
    Ok(())
}

fn tell(left_out: &LeftOut<String>) {
    complain(format_args!("{left_out}"));
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at.into()).await,
        None => pending().await,
    }
}

/// What every amphora is in VRRP, by its id; asked again and again until dropped.
struct Roles {
    known: Arc<Mutex<HashMap<String, String>>>,
    asking: Vec<tokio::task::JoinHandle<()>>,
}

impl Roles {
    /// Begins to ask, and waits for the first answers.
    async fn ask(clients: Vec<Client>) -> Self {
        let known = Arc::new(Mutex::new(HashMap::new()));
        let mut asked = Vec::new();
        let asking = clients.into_iter().map(|client| {
            let (known, first) = (known.clone(), Arc::new(Notify::new()));
            asked.push(first.clone());
            tokio::spawn(keep_asking(client, known, first))
        });
        let this = Self { asking: asking.collect(), known };
        let all = async {
            for first in asked {
                first.notified().await;
            }
        };
        // Whoever has not answered by then is shown without a role until it does.
        let _ = timeout(ROLE_PATIENCE, all).await;
        this
    }

    fn of(&self, amphora: &str) -> Option<String> {
        lock(&self.known).get(amphora).cloned()
    }
}

impl Drop for Roles {
    fn drop(&mut self) {
        self.asking.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

/// An amphora that does not answer any more has no role.
async fn keep_asking(client: Client, known: Arc<Mutex<HashMap<String, String>>>, first: Arc<Notify>) {
    let mut id = None;
    loop {
        let info = client.info().await.ok();
        let text = |path: &str| info.as_ref()?.pointer(path)?.as_str().map(str::to_owned);
        id = text("/amphora_id").or(id);
        if let Some(id) = id.clone() {
            match text("/vrrp/role") {
                Some(role) => lock(&known).insert(id, role),
                None => lock(&known).remove(&id),
            };
        }
        first.notify_one();
        sleep(ROLE_INTERVAL).await;
    }
}

fn lock(known: &Mutex<HashMap<String, String>>) -> std::sync::MutexGuard<'_, HashMap<String, String>> {
    // Whole whenever another thread panics.
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One heartbeat in a few lines: who, listeners with what they carried since the last one, pools with members by status.
fn show(
    out: &mut impl Write,
    style: Style,
    from: SocketAddr,
    beat: &Message,
    role: Option<&str>,
) -> Result<()> {
    write!(out, "{}", style.paint(Colour::Bold, &beat.id))?;
    if let Some(role) = role {
        let colour = if role == "MASTER" { Colour::Green } else { Colour::Cyan };
        write!(out, " {}", style.paint(colour, role))?;
    }
    writeln!(out, " from {from}, seq {}", beat.seq)?;
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
        listen(&mut out, Style::PLAIN, bind, "k", false, Some(1), Vec::new()).await.unwrap();
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
        listen(&mut out, Style::PLAIN, bind, "k", true, Some(1), Vec::new()).await.unwrap();
        let line: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(line["heartbeat"], beat);
        sender.abort();
    }

    #[tokio::test]
    async fn a_replayed_heartbeat_is_not_shown_again() {
        let beat = |seq: u64| {
            let message = json!({"id": "amp", "seq": seq, "ver": 3, "listeners": {}, "pools": {}});
            heartbeat::seal(&serde_json::from_value(message).unwrap(), "k")
        };
        let bind = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let sender = tokio::spawn(async move {
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            // Until the listener is bound the first is repeated, which makes it a replay.
            for seq in std::iter::repeat_n(7, 100).chain([8, 7, 8, 10, 9, 8, 10, 11]) {
                let _ = socket.send_to(&beat(seq), bind).await;
                sleep(Duration::from_millis(5)).await;
            }
        });
        let mut out = Vec::new();
        listen(&mut out, Style::PLAIN, bind, "k", true, Some(5), Vec::new()).await.unwrap();
        let seqs = String::from_utf8(out)
            .unwrap()
            .lines()
            .map(|line| {
                serde_json::from_str::<serde_json::Value>(line).unwrap()["heartbeat"]["seq"].as_u64().unwrap()
            })
            .collect::<Vec<_>>();
        assert_eq!(seqs, [7, 8, 10, 9, 11]);
        sender.abort();
    }
}
