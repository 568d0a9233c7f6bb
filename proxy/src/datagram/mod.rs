//! Listeners of UDP and SCTP: what of a snapshot the kernel forwards, and what it has counted.
//!
//! Datagrams never come to the workers. A [`Plan`] says of each listener where it is reached and which members are up; a
//! helper process makes nf_tables rules of it, which send each flow to a member, and ends the flows of members that are down or
//! gone. Here is a thread that gives the helper another plan whenever the snapshot or the health of a member is another, and adds
//! what was counted to the counters of listeners and members. Rules stay when the proxy ends or dies, and with them the flows;
//! the next one takes them over.
//!
//! | module | what is inside |
//! | --- | --- |
//! | [`plan`] | what is forwarded where; no I/O |
//! | `choice` | which members get which of the next flows; no I/O |
//! | `render` | a plan as rules; no I/O |
//! | `steward` | the kernel's table, counters and flows |
//! | [`helper`] | the process that may change them |
//! | `wire` | what the two tell each other |

mod choice;
pub mod helper;
pub mod plan;
mod render;
mod steward;
mod wire;

use std::{
    collections::HashMap,
    io,
    os::unix::net::UnixStream,
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;
use uuid::Uuid;

pub use self::helper::Helper;
use self::{
    plan::Plan,
    wire::{Count, Reply, Request},
};
use crate::{
    net,
    snapshot::Snapshot,
    state::{ListenerState, MemberState},
};

/// From one look at members' health to the next, while there are listeners of datagrams.
const LOOK: Duration = Duration::from_millis(50);
/// From one count to the next.
const COUNT: Duration = Duration::from_secs(1);
/// The helper answers within milliseconds, but for the first rules of all: the kernel loads a dozen modules for them, by a process
/// each, which has taken 45 s on an emulated machine that was starved at its boot. Whoever does not wait serves nothing then.
const PATIENCE: Duration = Duration::from_secs(180);

/// The way to the thread that has datagrams forwarded; it ends with this.
#[derive(Debug)]
pub struct Datagrams {
    applies: Option<mpsc::Sender<Apply>>,
}

#[derive(Debug)]
struct Apply {
    snapshot: Arc<Snapshot>,
    done: oneshot::Sender<Result<(), String>>,
}

impl Datagrams {
    /// Starts the thread, over a helper if there is one.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn start(helper: Option<Helper>) -> io::Result<Self> {
        let Some(helper) = helper else { return Ok(Self { applies: None }) };
        helper.stream.set_read_timeout(Some(PATIENCE))?;
        helper.stream.set_write_timeout(Some(PATIENCE))?;
        let (applies, queue) = mpsc::channel();
        let thread = thread::Builder::new().name("datagrams".into());
        thread.spawn(move || Link { helper, snapshot: None, epoch: 0, known: HashMap::new() }.run(&queue))?;
        Ok(Self { applies: Some(applies) })
    }

    /// Has the datagrams of a snapshot forwarded, and resolves when they are: `Err` with the reason when they cannot be, and
    /// nothing has changed.
    pub fn apply(&self, snapshot: &Arc<Snapshot>) -> impl Future<Output = Result<(), String>> + use<> {
        let (done, is_done) = oneshot::channel();
        let wanted = plan::has_services(snapshot);
        let told = self.applies.as_ref().map(|applies| {
            // When the thread has ended, so has the receiver's other end.
            let _ = applies.send(Apply { snapshot: Arc::clone(snapshot), done });
        });
        async move {
            match told {
                None if !wanted => Ok(()),
                None => Err(
                    "UDP and SCTP take CAP_NET_ADMIN in the network namespace, which the proxy was started without"
                        .to_owned(),
                ),
                Some(()) => match is_done.await {
                    Ok(done) => done,
                    // Without datagrams all else goes on.
                    Err(_) if !wanted => Ok(()),
                    Err(_) => {
                        Err("the process that forwards datagrams has ended: restart the proxy".to_owned())
                    }
                },
            }
        }
    }
}

struct Link {
    helper: Helper,
    /// What is forwarded, while anything is.
    snapshot: Option<Arc<Snapshot>>,
    /// Of the members' health that the helper was told of.
    epoch: u64,
    /// Whose counters counts are added to; those of the last snapshot, too, until they are told of no more.
    known: HashMap<(Uuid, Uuid), (Arc<ListenerState>, Arc<MemberState>)>,
}

impl Link {
    /// Until nobody can ask any more, or the helper has ended.
    fn run(mut self, queue: &mpsc::Receiver<Apply>) {
        let mut counted = net::now();
        loop {
            let next = match self.snapshot {
                Some(_) => queue.recv_timeout(LOOK),
                None => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            let turned = match next {
                Ok(Apply { snapshot, done }) => self.apply(snapshot).map(|applied| {
                    // Whoever asked may be gone.
                    let _ = done.send(applied);
                }),
                Err(RecvTimeoutError::Timeout) => self.look(&mut counted),
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if let Err(error) = turned {
                tracing::error!(
                    %error,
                    "the process that forwards datagrams has ended or does not answer: members that fail keep their flows"
                );
                return;
            }
        }
    }

    fn ask(&mut self, request: &Request) -> io::Result<Result<(), String>> {
        let stream: &mut UnixStream = &mut self.helper.stream;
        wire::write(stream, request)?;
        let Reply { error, counts } = wire::read(stream)?;
        for count in &counts {
            if let Some((listener, member)) = self.known.get(&(count.listener, count.member)) {
                add(listener, member, count);
            }
        }
        self.sum_up(&counts);
        Ok(error.map_or(Ok(()), Err))
    }

    fn apply(&mut self, snapshot: Arc<Snapshot>) -> io::Result<Result<(), String>> {
        let epoch = plan::epoch(&snapshot);
        let plan = Plan::of(&snapshot);
        let mut states = HashMap::new();
        for (listener, pool) in plan::services(&snapshot) {
            for member in
                pool.and_then(|pool| snapshot.pools.get(pool)).into_iter().flat_map(|pool| &pool.members)
            {
                let whose = (listener.state.id.0, member.state.id.0);
                states.insert(whose, (Arc::clone(&listener.state), Arc::clone(&member.state)));
            }
        }
        self.known.extend(states.iter().map(|(whose, states)| (*whose, states.clone())));
        let applied = self.ask(&Request::Apply(plan))?;
        if applied.is_ok() {
            for (listener, member) in self
                .known
                .values()
                .filter(|(listener, member)| !states.contains_key(&(listener.id.0, member.id.0)))
            {
                // What has gone has no flows.
                member.sessions.store(0, std::sync::atomic::Ordering::Relaxed);
                listener.counters.of(0).connections.set(0);
            }
            self.known = states;
            self.epoch = epoch;
            self.snapshot = plan::has_services(&snapshot).then_some(snapshot);
        }
        Ok(applied)
    }

    fn look(&mut self, counted: &mut Instant) -> io::Result<()> {
        let Some(snapshot) = &self.snapshot else { return Ok(()) };
        let epoch = plan::epoch(snapshot);
        if epoch != self.epoch {
            let plan = Plan::of(snapshot);
            self.epoch = epoch;
            if let Err(error) = self.ask(&Request::Apply(plan))? {
                // Tried again with the next look.
                self.epoch = epoch.wrapping_sub(1);
                tracing::error!(%error, "datagrams are forwarded as before");
                thread::sleep(COUNT);
            }
        }
        let now = net::now();
        if now.saturating_duration_since(*counted) >= COUNT {
            *counted = now;
            if let Err(error) = self.ask(&Request::Count)? {
                tracing::warn!(%error, "datagrams could not be counted");
            }
        }
        Ok(())
    }

    /// The flows of listeners and members are those of all that they have to do with.
    fn sum_up(&self, counts: &[Count]) {
        let mut listeners: HashMap<Uuid, u64> = HashMap::new();
        let mut members: HashMap<Uuid, u64> = HashMap::new();
        for count in counts {
            *listeners.entry(count.listener).or_default() += count.flows;
            *members.entry(count.member).or_default() += count.flows;
        }
        for (listener, member) in self.known.values() {
            // The cells of the first worker, which has no datagrams: nobody else writes them.
            let counters = listener.counters.of(0);
            let flows = listeners.get(&listener.id.0).copied().unwrap_or_default();
            counters.connections.set(flows);
            counters.connections_max.max(flows);
            let flows = members.get(&member.id.0).copied().unwrap_or_default();
            member.counters.of(0).sessions_max.max(flows);
            member
                .sessions
                .store(u32::try_from(flows).unwrap_or(u32::MAX), std::sync::atomic::Ordering::Relaxed);
        }
    }
}

fn add(listener: &ListenerState, member: &MemberState, count: &Count) {
    let counters = listener.counters.of(0);
    counters.bytes_in.add(count.sent);
    counters.bytes_out.add(count.received);
    counters.connections_total.add(count.begun);
    let counters = member.counters.of(0);
    counters.bytes_in.add(count.sent);
    counters.bytes_out.add(count.received);
    counters.sessions_total.add(count.begun);
    counters.selected.add(count.begun);
    member.pool.counters.of(0).sessions_total.add(count.begun);
}
