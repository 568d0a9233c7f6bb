//! The loop, with a fake proxy, a real socket, and the real Octavia at the other end.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use serde_json::Value;
use tokio::{net::UdpSocket, sync::watch, task::JoinHandle, time::timeout};

use super::*;
use crate::{
    amphora::{Amphora, Unserved},
    config::HeartbeatConfig,
    fixture,
    metrics::Metrics,
    proxy_client::ProxyClient,
    store::{Kept, Store},
    testing::{FakeProxy, FakeVrrp, Mood, VrrpMood, octavia},
    vrrp::Vrrp,
    vrrp_client::VrrpClient,
};

const KEY: &str = "insecure";
const INTERVAL: Duration = Duration::from_millis(200);

struct Beating {
    amphora: Arc<Amphora>,
    proxy: FakeProxy,
    daemon: FakeVrrp,
    store: Arc<Store>,
    sockets: Vec<UdpSocket>,
    config: watch::Sender<HeartbeatConfig>,
    task: JoinHandle<()>,
    directory: tempfile::TempDir,
}

impl Beating {
    async fn new(controllers: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut proxy = FakeProxy::new(directory.path());
        proxy.start();
        proxy.set_stats(|stats| *stats = fixture::stats());
        let daemon = FakeVrrp::new(directory.path());
        let mut sockets = Vec::new();
        for _ in 0..controllers {
            sockets.push(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        }
        let controllers: Vec<SocketAddr> = sockets.iter().map(|s| s.local_addr().unwrap()).collect();
        let config =
            watch::Sender::new(HeartbeatConfig { controllers, interval: INTERVAL, key: KEY.to_owned() });
        let store = Arc::new(Store::open(&directory.path().join("octavia")).unwrap());
        let (amphora, task) = Self::start(&proxy, &daemon, &store, &config);
        Self { amphora, proxy, daemon, store, sockets, config, task, directory }
    }

    fn start(
        proxy: &FakeProxy,
        daemon: &FakeVrrp,
        store: &Arc<Store>,
        config: &watch::Sender<HeartbeatConfig>,
    ) -> (Arc<Amphora>, JoinHandle<()>) {
        let amphora =
            Amphora::open(store.clone(), ProxyClient::new(proxy.path(), Duration::from_secs(20))).unwrap();
        let vrrp = Vrrp::open(store.clone(), VrrpClient::new(daemon.path())).unwrap();
        let (metrics, vitals) = (Arc::new(Metrics::default()), Arc::new(Vitals::default()));
        let sender = Sender::new("amphora".to_owned(), amphora.clone(), vrrp, store.clone(), metrics, vitals);
        (amphora, tokio::spawn(sender.run(config.subscribe())))
    }

    fn restart(&mut self) {
        self.task.abort();
        (self.amphora, self.task) = Self::start(&self.proxy, &self.daemon, &self.store, &self.config);
    }

    async fn next_of(&self, controller: usize) -> Message {
        let mut buffer = vec![0; 65536];
        let receive = self.sockets[controller].recv(&mut buffer);
        let length = timeout(Duration::from_secs(5), receive).await.expect("a heartbeat comes").unwrap();
        open(&buffer[..length], KEY).unwrap()
    }

    /// Fails the test when one comes within this time.
    async fn none_within(&self, time: Duration) {
        let mut buffer = vec![0; 65536];
        assert!(timeout(time, self.sockets[0].recv(&mut buffer)).await.is_err(), "a heartbeat came");
    }

    /// Makes VRRP configured, as it is when the agent starts.
    fn configure_vrrp(&mut self) {
        let _ = self.store.stage(Kept::Vrrp, b"{}").unwrap();
        self.restart();
    }

    async fn next(&self) -> Message {
        self.next_of(0).await
    }

    fn set_bytes_in(&self, bytes: u64) {
        self.proxy.set_stats(|stats| stats.listeners.values_mut().next().unwrap().bytes_in = bytes);
    }

    /// Waits until so many bytes were reported in all, and that no more are.
    async fn received(&self, bytes: u64) {
        let mut sum = 0;
        while sum < bytes {
            sum += traffic(&self.next().await);
        }
        assert_eq!(sum + traffic(&self.next().await), bytes);
    }
}

fn traffic(message: &Message) -> u64 {
    message.listeners.values().map(|listener| listener.stats.rx).sum()
}

#[tokio::test]
async fn controllers_take_turns_and_the_sequence_grows() {
    let beating = Beating::new(3).await;
    for seq in 0..6 {
        let message = beating.next_of(seq % 3).await;
        assert_eq!((message.seq, message.ver, message.id.as_str()), (seq as u64, 3, "amphora"));
        assert_eq!((message.listeners.len(), message.pools.len()), (1, 1));
    }
}

#[tokio::test]
async fn bytes_are_reported_once_whoever_restarts() {
    let mut beating = Beating::new(1).await;
    beating.set_bytes_in(100);
    beating.received(100).await;
    beating.restart();
    beating.set_bytes_in(130);
    beating.received(30).await;
    beating.proxy.start();
    beating.set_bytes_in(40);
    beating.received(40).await;
    assert!(beating.directory.path().join("octavia/stats_counters.json").exists());
}

#[tokio::test]
async fn a_proxy_that_hangs_delays_nothing_and_is_not_spoken_of_for_long() {
    let beating = Beating::new(1).await;
    let first = beating.next().await;
    beating.proxy.be(Mood::Hanging);
    let start = tokio::time::Instant::now();
    let mut messages = Vec::new();
    // One may have been asked for before the proxy hung.
    for _ in 0..2 {
        messages.push(beating.next().await);
    }
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    let mut buffer = vec![0; 65536];
    while let Ok(Ok(length)) = timeout(INTERVAL * 4, beating.sockets[0].recv(&mut buffer)).await {
        messages.push(open(&buffer[..length], KEY).unwrap());
        assert!(messages.len() <= 3, "it goes on for ever");
    }
    beating.proxy.be(Mood::Willing);
    messages.push(beating.next().await);
    assert!(messages.iter().all(|message| message.pools == first.pools && !message.listeners.is_empty()));
    assert!(messages.windows(2).all(|pair| pair[1].seq == pair[0].seq + 1));
}

#[tokio::test]
async fn what_leaves_after_a_change_tells_of_what_was_made_by_it() {
    const CHANGES: u32 = 40;
    let beating = Beating::new(1).await;
    let mut before = 0;
    for change in 1..=CHANGES {
        // At any time of an interval.
        tokio::time::sleep(INTERVAL * (change * 7 % CHANGES) / CHANGES).await;
        beating.proxy.set_stats(|stats| {
            stats.listeners.values_mut().next().unwrap().active_connections = change.into();
        });
        let document =
            Bytes::from(fixture::DOCUMENT.to_owned() + &" ".repeat(usize::try_from(change).unwrap()));
        let mark = mark(&document);
        beating.amphora.put(fixture::load_balancer().id, document).await.unwrap();
        let mut buffer = vec![0; 65536];
        while beating.sockets[0].try_recv(&mut buffer).is_ok() {}
        let mut told = beating.next().await;
        if told.document.as_deref() != Some(&mark) {
            // It left in the moment between, and says so.
            before += 1;
            told = beating.next().await;
        }
        assert_eq!(told.document.as_deref(), Some(mark.as_str()));
        assert_eq!(told.listeners.into_values().next().unwrap().stats.conns, u64::from(change));
    }
    assert!(before <= 2, "{before} of {CHANGES} tell of what was before");
}

#[tokio::test]
async fn a_dead_proxy_shows_at_once() {
    let mut beating = Beating::new(1).await;
    assert_eq!(beating.next().await.listeners.len(), 1);
    beating.proxy.stop();
    while !beating.next().await.listeners.is_empty() {}
}

#[tokio::test]
async fn with_a_dead_vrrp_daemon_none_leaves_and_nothing_is_lost() {
    let mut beating = Beating::new(1).await;
    beating.daemon.start();
    beating.configure_vrrp();
    beating.next().await;
    beating.daemon.stop();
    // Two may be on their way.
    tokio::time::sleep(INTERVAL * 2).await;
    beating.set_bytes_in(70);
    let mut buffer = vec![0; 65536];
    while beating.sockets[0].try_recv(&mut buffer).is_ok() {}
    beating.none_within(INTERVAL * 4).await;
    beating.daemon.start();
    beating.received(70).await;
}

#[tokio::test]
async fn a_vrrp_daemon_that_hangs_delays_nothing_and_counts_as_dead_soon() {
    let mut beating = Beating::new(1).await;
    beating.daemon.start();
    beating.configure_vrrp();
    beating.next().await;
    beating.daemon.be(VrrpMood::Hanging);
    let start = tokio::time::Instant::now();
    beating.next().await;
    beating.next().await;
    assert!(start.elapsed() < INTERVAL * 5, "{:?}", start.elapsed());
    tokio::time::sleep(INTERVAL * 3).await;
    let mut buffer = vec![0; 65536];
    while beating.sockets[0].try_recv(&mut buffer).is_ok() {}
    beating.none_within(INTERVAL * 4).await;
    beating.daemon.be(VrrpMood::Willing);
    beating.next().await;
}

#[tokio::test]
async fn a_damaged_counter_file_does_not_stop_heartbeats() {
    let mut beating = Beating::new(1).await;
    beating.next().await;
    std::fs::write(beating.directory.path().join("octavia/stats_counters.json"), "{").unwrap();
    beating.restart();
    assert_eq!(beating.next().await.listeners.len(), 1);
}

#[tokio::test]
async fn a_new_configuration_counts_at_once() {
    let beating = Beating::new(2).await;
    beating.next_of(0).await;
    let second = beating.sockets[1].local_addr().unwrap();
    beating.config.send_modify(|config| {
        config.controllers = vec![second];
        config.key = "other".to_owned();
    });
    let mut buffer = vec![0; 65536];
    let sealed_anew = async {
        loop {
            let length = beating.sockets[1].recv(&mut buffer).await.unwrap();
            if open(&buffer[..length], "other").is_ok() {
                return;
            }
        }
    };
    timeout(Duration::from_secs(5), sealed_anew).await.unwrap();
}

#[test]
fn octavias_own_codec_opens_ours_and_we_open_its() {
    const SCRIPT: &str = r#"
import json, sys
from octavia.amphorae.backends.health_daemon import status_message
given = json.load(sys.stdin)
opened = status_message.unwrap_envelope(bytes.fromhex(given["envelope"]), given["key"])
sealed = status_message.wrap_envelope(given["message"], given["key"]).hex()
json.dump([opened, sealed], sys.stdout)
"#;
    let model = fixture::load_balancer();
    let message = report::statuses(&fixture::stats(), Some(&model), &Unserved::default());
    let hex: String = seal(&message, KEY).iter().map(|byte| format!("{byte:02x}")).collect();
    let given = serde_json::json!({"envelope": hex, "key": KEY, "message": message});
    let Some((opened, sealed)) = octavia::ask::<(Value, String)>(SCRIPT, &given) else { return };
    assert_eq!(opened, given["message"]);
    let sealed: Vec<u8> =
        (0..sealed.len()).step_by(2).map(|i| u8::from_str_radix(&sealed[i..i + 2], 16).unwrap()).collect();
    assert_eq!(open(&sealed, KEY).unwrap(), message);
}

#[test]
fn the_keys_are_octavias() {
    let model = fixture::load_balancer();
    let message =
        serde_json::to_value(report::statuses(&fixture::stats(), Some(&model), &Unserved::default()))
            .unwrap();
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(keys(&message), set(&["id", "seq", "listeners", "pools", "ver"]));
    let listener = message["listeners"].as_object().unwrap().values().next().unwrap();
    assert_eq!(keys(listener), set(&["status", "stats"]));
    assert_eq!(keys(&listener["stats"]), set(&["tx", "rx", "conns", "totconns", "ereq"]));
    let (key, pool) = message["pools"].as_object().unwrap().iter().next().unwrap();
    assert_eq!(key, "30000000-0000-4000-8000-000000000001:20000000-0000-4000-8000-000000000001");
    assert_eq!(keys(pool), set(&["status", "members"]));
}
