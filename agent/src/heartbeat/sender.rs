//! The loop that sends heartbeats.
//!
//! The proxy is asked ahead of the moment at which a heartbeat is due, and whatever is known at that moment leaves
//! ([`Reporter`] says what that is; of a proxy that does not answer for long, nothing). Neither a proxy that hangs nor a disk that is slow can delay one.
//!
//! With VRRP configured its daemon is asked at the same time. When it is dead no heartbeat leaves: that is how a
//! controller learns of it (`Pulse` says when it counts as dead).

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use amphora_ipc::{
    client::{ControlError, Failure},
    proxy::Summary,
};
use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{Instant, error::Elapsed, sleep_until, timeout_at},
};

use super::{
    delta::Deltas,
    message::seal,
    pulse::{Beat, Pulse},
    report::{Observation, Reporter},
};
use crate::{amphora::Amphora, config::HeartbeatConfig, metrics::Metrics, store::Store, vrrp::Vrrp};

/// The longest time ahead of a heartbeat at which the proxy is asked.
const MAX_LEAD: Duration = Duration::from_secs(1);

/// Intervals without a heartbeat after which they count as overdue.
const OVERDUE: u32 = 3;

/// When the last heartbeat left, for `GET /2.0/health`.
#[derive(Debug)]
pub struct Vitals {
    start: Instant,
    wanted: AtomicBool,
    interval_ms: AtomicU64,
    last_ms: AtomicU64,
}

impl Default for Vitals {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            wanted: AtomicBool::new(false),
            interval_ms: AtomicU64::new(u64::MAX),
            last_ms: AtomicU64::new(0),
        }
    }
}

impl Vitals {
    /// How long none has left, when that is too long. `None` without controllers.
    pub fn overdue(&self) -> Option<Duration> {
        let silence = self.now().saturating_sub(self.last_ms.load(Ordering::Relaxed));
        let limit = self.interval_ms.load(Ordering::Relaxed).saturating_mul(OVERDUE.into());
        (self.wanted.load(Ordering::Relaxed) && silence > limit).then(|| Duration::from_millis(silence))
    }

    fn configured(&self, config: &HeartbeatConfig) {
        self.wanted.store(!config.controllers.is_empty(), Ordering::Relaxed);
        self.interval_ms.store(config.interval.as_millis() as u64, Ordering::Relaxed);
    }

    fn left(&self) {
        self.last_ms.store(self.now(), Ordering::Relaxed);
    }

    fn now(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }
}

/// Sends heartbeats of one amphora.
#[derive(Debug)]
pub struct Sender {
    amphora: Arc<Amphora>,
    vrrp: Arc<Vrrp>,
    store: Arc<Store>,
    metrics: Arc<Metrics>,
    vitals: Arc<Vitals>,
    reporter: Reporter,
    pulse: Pulse,
    sockets: Sockets,
    turn: usize,
    unsaved: bool,
    persisting: Arc<AtomicBool>,
    complaint: Option<String>,
    /// The last heartbeat was withheld because the proxy does not answer.
    mute: bool,
}

impl Sender {
    /// A sender that goes on from the counters in the store. Blocks on the disk.
    pub fn new(
        amphora_id: String,
        amphora: Arc<Amphora>,
        vrrp: Arc<Vrrp>,
        store: Arc<Store>,
        metrics: Arc<Metrics>,
        vitals: Arc<Vitals>,
    ) -> Self {
        Self {
            reporter: Reporter::new(amphora_id, load(&store)),
            pulse: Pulse::default(),
            amphora,
            vrrp,
            store,
            metrics,
            vitals,
            sockets: Sockets::default(),
            turn: 0,
            unsaved: false,
            persisting: Arc::default(),
            complaint: None,
            mute: false,
        }
    }

    /// Sends for ever, under the latest configuration. May be cancelled.
    pub async fn run(mut self, mut config: watch::Receiver<HeartbeatConfig>) {
        let mut due = Instant::now();
        loop {
            let now = config.borrow_and_update().clone();
            self.vitals.configured(&now);
            self.amphora.must_fit_heartbeats(!now.controllers.is_empty());
            if now.controllers.is_empty() {
                tracing::warn!("controller_ip_port_list is empty: no heartbeats are sent");
                if config.changed().await.is_err() {
                    return;
                }
                due = Instant::now();
                continue;
            }
            let lead = MAX_LEAD.min(now.interval / 4);
            due = due.max(Instant::now() + lead);
            tokio::select! {
                () = sleep_until(due - lead) => {}
                changed = config.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    due = Instant::now();
                    continue;
                }
            }
            self.beat(&now, due).await;
            due += now.interval;
        }
    }

    /// Asks the proxy and the VRRP daemon until `due`, and sends then.
    async fn beat(&mut self, config: &HeartbeatConfig, due: Instant) {
        let ((asked, document), beat) = tokio::join!(ask(&self.amphora, due), listen(&self.vrrp, due));
        sleep_until(due).await;
        let dead = self.pulse.is_dead();
        if self.pulse.observe(beat) {
            self.metrics.heartbeats_withheld.inc();
            if !dead {
                tracing::error!("the VRRP daemon is dead: no heartbeat leaves until it is back");
            }
            return;
        }
        let (model, unserved) = (self.amphora.model(), self.amphora.unserved());
        let observation = match &asked {
            Ok(Ok(stats)) => Observation::Answered { stats, model: model.as_deref(), unserved: &unserved },
            Ok(Err(error)) if error.is_not_found() => Observation::Idle { unserved: &unserved },
            Ok(Err(error)) if error.is_not_running() => Observation::Absent,
            Ok(Err(_)) | Err(_) => Observation::Late,
        };
        if !matches!(asked, Ok(Ok(_))) {
            self.metrics.heartbeats_blind.inc();
        }
        let Some(message) = self.reporter.next(observation, document.as_ref()) else {
            self.metrics.heartbeats_withheld.inc();
            if !std::mem::replace(&mut self.mute, true) {
                tracing::error!("the proxy does not answer: no heartbeat leaves until it does");
            }
            return;
        };
        self.mute = false;
        let envelope = seal(&message, &config.key);
        let controller = config.controllers[self.turn % config.controllers.len()];
        self.turn = self.turn.wrapping_add(1);
        match self.sockets.send(&envelope, controller) {
            Ok(()) => {
                self.metrics.heartbeats.inc();
                self.vitals.left();
                self.complaint = None;
                self.persist();
            }
            Err(error) => {
                self.metrics.heartbeats_failed.inc();
                let complaint = format!("{controller}: {error}");
                if self.complaint.as_ref() != Some(&complaint) {
                    tracing::warn!(%controller, bytes = envelope.len(), %error, "cannot send a heartbeat");
                    self.complaint = Some(complaint);
                }
            }
        }
    }

    /// Writes what was reported, beside the loop. When the disk is still busy with the last time, this time's
    /// counters go with the next.
    fn persist(&mut self) {
        self.unsaved |= self.reporter.sent();
        if !self.unsaved || self.persisting.swap(true, Ordering::AcqRel) {
            return;
        }
        self.unsaved = false;
        let counters = serde_json::to_vec(self.reporter.reported()).expect("the keys are strings");
        let (store, persisting) = (self.store.clone(), self.persisting.clone());
        spawn_blocking(move || {
            if let Err(error) = store.write_counters(&counters) {
                tracing::warn!(%error, "cannot store the counters that heartbeats reported");
            }
            persisting.store(false, Ordering::Release);
        });
    }
}

/// What the proxy says, and of which document. When it is given another document before `due`, it is asked again: what it said is not of that one,
/// and a listener that has just come would be missed.
async fn ask(
    amphora: &Amphora,
    due: Instant,
) -> (Result<Result<Summary, ControlError>, Elapsed>, Option<Arc<str>>) {
    let mut models = amphora.models();
    let mut document = models.borrow_and_update().mark.clone();
    let mut asked = timeout_at(due, amphora.proxy().summary()).await;
    while let Ok(Ok(())) = timeout_at(due, models.changed()).await {
        let present = models.borrow_and_update().mark.clone();
        if let Ok(again) = timeout_at(due, amphora.proxy().summary()).await {
            (asked, document) = (Ok(again), present);
        }
    }
    (asked, document)
}

async fn listen(vrrp: &Vrrp, due: Instant) -> Beat {
    if !vrrp.is_configured() {
        return Beat::Unwanted;
    }
    match timeout_at(due, vrrp.daemon().status()).await {
        Ok(Err(error)) if error.is_not_running() => Beat::Absent,
        Ok(Err(ControlError { failure: Failure::Late, .. })) | Err(_) => Beat::Late,
        // Whatever it answered, it lives.
        Ok(_) => Beat::Answered,
    }
}

fn load(store: &Store) -> Deltas {
    let counters = match store.read_counters() {
        Ok(Some(counters)) => serde_json::from_slice(&counters).map_err(io::Error::from),
        Ok(None) => return Deltas::default(),
        Err(error) => Err(error),
    };
    counters.unwrap_or_else(|error| {
        tracing::warn!(%error, "the counters that heartbeats reported are not usable; counting from zero");
        Deltas::default()
    })
}

/// A socket for each family, made when it is first needed.
#[derive(Debug, Default)]
struct Sockets {
    v4: Option<UdpSocket>,
    v6: Option<UdpSocket>,
}

impl Sockets {
    fn send(&mut self, envelope: &[u8], to: SocketAddr) -> io::Result<()> {
        let (slot, any): (_, SocketAddr) = match to {
            SocketAddr::V4(_) => (&mut self.v4, (Ipv4Addr::UNSPECIFIED, 0).into()),
            SocketAddr::V6(_) => (&mut self.v6, (Ipv6Addr::UNSPECIFIED, 0).into()),
        };
        if slot.is_none() {
            let socket = UdpSocket::bind(any)?;
            socket.set_nonblocking(true)?;
            *slot = Some(socket);
        }
        let socket = slot.as_ref().expect("it was made just now");
        socket.send_to(envelope, to).map(drop)
    }
}
