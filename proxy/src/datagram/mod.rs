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
//! | `answers` | the way by which answers leave |
//! | `returns` | what members answer to clients' own addresses ends here |
//! | `settings` | settings of the network namespace |
//! | `told` | which clients the kernel remembers |
//! | `alike` | the same in the tables that the pair's other amphora is told of |
//! | [`helper`] | the process that may change them |
//! | `wire` | what the two tell each other |

mod alike;
mod answers;
mod choice;
pub mod helper;
pub mod plan;
mod render;
mod returns;
mod settings;
mod steward;
mod told;
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

pub use self::helper::Helpers;
use self::{
    alike::Alike,
    helper::Helper,
    plan::Plan,
    wire::{Count, Limited, Reply, Request},
};
use crate::{
    limits::rate::PolicyState,
    net,
    snapshot::Snapshot,
    state::{ListenerState, MemberState},
};

/// From one look at members' health to the next, while there are listeners of datagrams.
const LOOK: Duration = Duration::from_millis(50);
/// From one count to the next.
const COUNT: Duration = Duration::from_secs(1);
/// Asking who is remembered may take that part of the time.
const SHARE: u32 = 20;

/// The way to the thread that has datagrams forwarded; it ends with this.
#[derive(Debug)]
pub struct Datagrams {
    applies: Option<mpsc::Sender<Apply>>,
}

/// Resolves when nobody is left who could forward what is to be forwarded.
#[derive(Debug)]
pub struct Lost(Option<oneshot::Receiver<()>>);

impl Lost {
    /// Waits for it; mostly for ever.
    pub async fn lost(self) {
        let lost = match self.0 {
            Some(lost) => lost.await.is_ok(),
            None => false,
        };
        if !lost {
            std::future::pending().await
        }
    }
}

#[derive(Debug)]
struct Apply {
    snapshot: Arc<Snapshot>,
    /// Where the workers' clock began.
    epoch: Instant,
    done: oneshot::Sender<Result<(), String>>,
}

impl Datagrams {
    /// Starts the thread, over helpers if there are any.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn start(helpers: Option<Helpers>) -> io::Result<(Self, Lost)> {
        let Some((helper, helpers)) = helpers.and_then(|mut all| Some((all.next()?, all))) else {
            return Ok((Self { applies: None }, Lost(None)));
        };
        let (applies, queue) = mpsc::channel();
        let (losing, lost) = oneshot::channel();
        let thread = thread::Builder::new().name("datagrams".into());
        let link = Link {
            helper,
            helpers,
            snapshot: None,
            told: false,
            epoch: 0,
            known: HashMap::new(),
            policies: HashMap::new(),
            alike: Alike::default(),
            clock: net::now(),
            asked: net::now(),
        };
        thread.spawn(move || {
            if link.run(&queue) {
                // The process may be ending.
                let _ = losing.send(());
            }
        })?;
        Ok((Self { applies: Some(applies) }, Lost(Some(lost))))
    }

    /// Has the datagrams of a snapshot forwarded, and resolves when they are: `Err` with the reason when they cannot be, and
    /// nothing has changed. `epoch` is where the workers' clock began.
    pub fn apply(
        &self,
        snapshot: &Arc<Snapshot>,
        epoch: Instant,
    ) -> impl Future<Output = Result<(), String>> + use<> {
        let (done, is_done) = oneshot::channel();
        let wanted = plan::has_services(snapshot) || plan::transparent(snapshot).next().is_some();
        let told = self.applies.as_ref().map(|applies| {
            // When the thread has ended, so has the receiver's other end.
            let _ = applies.send(Apply { snapshot: Arc::clone(snapshot), epoch, done });
        });
        async move {
            match told {
                None if !wanted => Ok(()),
                None => Err(
                    "UDP, SCTP and transparent_client_address take CAP_NET_ADMIN in the network namespace, which the proxy \
                     was started without"
                        .to_owned(),
                ),
                Some(()) => match is_done.await {
                    Ok(done) => done,
                    // Without datagrams all else goes on.
                    Err(_) if !wanted => Ok(()),
                    Err(_) => {
                        Err("the processes that forward datagrams have ended: restart the proxy".to_owned())
                    }
                },
            }
        }
    }
}

struct Link {
    helper: Helper,
    /// Who stands by.
    helpers: Helpers,
    /// What is forwarded, while anything is.
    snapshot: Option<Arc<Snapshot>>,
    /// Whether the helper was told of it.
    told: bool,
    /// Of the members' health that the helper was told of.
    epoch: u64,
    /// Whose counters counts are added to; those of the last snapshot, too, until they are told of no more.
    known: HashMap<(Uuid, Uuid), (Arc<ListenerState>, Arc<MemberState>)>,
    /// The same of policies of rate limits.
    policies: HashMap<Uuid, Arc<PolicyState>>,
    alike: Alike,
    /// Where the workers' clock began.
    clock: Instant,
    /// When it is asked next who is remembered.
    asked: Instant,
}

impl Link {
    /// Until nobody can ask any more, or the last helper has ended: whether something was to be forwarded then.
    fn run(mut self, queue: &mpsc::Receiver<Apply>) -> bool {
        let mut counted = net::now();
        loop {
            let next = match self.snapshot {
                Some(_) => queue.recv_timeout(LOOK),
                None => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            let turned = match next {
                Ok(Apply { snapshot, epoch, done }) => {
                    self.clock = epoch;
                    self.insist(|link| link.apply(&snapshot)).map(|applied| {
                        // Whoever asked may be gone.
                        let _ = done.send(applied);
                    })
                }
                Err(RecvTimeoutError::Timeout) => self.insist(|link| link.look(&mut counted)),
                Err(RecvTimeoutError::Disconnected) => return false,
            };
            if let Err(error) = turned {
                tracing::error!(
                    %error,
                    "the process that forwards datagrams has ended or does not answer, and none stands by"
                );
                return self.snapshot.is_some();
            }
        }
    }

    /// Does it, over the helper that stands by where the one at work has ended. It takes over rules and flows as they are.
    fn insist<T>(&mut self, mut work: impl FnMut(&mut Self) -> io::Result<T>) -> io::Result<T> {
        loop {
            let error = match work(self) {
                Err(error) => error,
                done => return done,
            };
            let Some(next) = self.helpers.next() else { return Err(error) };
            tracing::error!(%error, "the process that forwards datagrams has ended or does not answer: another goes on");
            self.helper = next;
            self.told = false;
            self.alike.forget();
        }
    }

    fn ask(&mut self, request: &Request) -> io::Result<Result<(), String>> {
        let stream: &mut UnixStream = &mut self.helper.stream;
        wire::write(stream, request)?;
        let Reply { error, counts, limited, clients } = wire::read(stream)?;
        if let Some(snapshot) = self.snapshot.as_ref().filter(|_| !clients.is_empty()) {
            self.alike.hear(snapshot, self.clock, net::now(), &clients);
        }
        for count in &counts {
            if let Some((listener, member)) = self.known.get(&(count.listener, count.member)) {
                add(listener, member, count);
            }
        }
        for Limited { policy, packets } in limited {
            if let Some(state) = self.policies.get(&policy) {
                // As below: no worker counts packets.
                state.counters.of(0).limited.add(packets);
            }
        }
        self.sum_up(&counts);
        self.look_for_refusals(&counts);
        Ok(error.map_or(Ok(()), Err))
    }

    fn apply(&mut self, snapshot: &Arc<Snapshot>) -> io::Result<Result<(), String>> {
        let epoch = plan::epoch(snapshot);
        let plan = Plan::of(snapshot);
        let mut states = HashMap::new();
        for (listener, pool) in plan::services(snapshot) {
            for member in
                pool.and_then(|pool| snapshot.pools.get(pool)).into_iter().flat_map(|pool| &pool.members)
            {
                let whose = (listener.state.id.0, member.state.id.0);
                states.insert(whose, (Arc::clone(&listener.state), Arc::clone(&member.state)));
            }
        }
        self.known.extend(states.iter().map(|(whose, states)| (*whose, states.clone())));
        let policies: HashMap<_, _> =
            snapshot.limits().policies().map(|(_, state)| (state.id.0, Arc::clone(state))).collect();
        self.policies.extend(policies.clone());
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
            self.policies = policies;
            self.epoch = epoch;
            self.told = true;
            // What is only transparent does not depend on members' health, but is looked after as well.
            let has_any = plan::has_services(snapshot) || plan::transparent(snapshot).next().is_some();
            self.snapshot = has_any.then(|| Arc::clone(snapshot));
        }
        Ok(applied)
    }

    fn look(&mut self, counted: &mut Instant) -> io::Result<()> {
        let Some(snapshot) = self.snapshot.clone() else { return Ok(()) };
        let epoch = plan::epoch(&snapshot);
        if epoch != self.epoch || !self.told {
            let plan = Plan::of(&snapshot);
            self.epoch = epoch;
            let applied = self.ask(&Request::Apply(plan))?;
            // Tried again with the next look.
            self.told = applied.is_ok();
            if let Err(error) = applied {
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
        if now >= self.asked {
            let (listeners, learnt) = self.alike.ask(&snapshot, self.clock, now);
            if !listeners.is_empty()
                && let Err(error) = self.ask(&Request::Clients(listeners, learnt))?
            {
                tracing::warn!(%error, "clients that are remembered are not kept alike with the peer");
            }
            self.asked = now + COUNT.max(net::now().saturating_duration_since(now) * SHARE);
        }
        Ok(())
    }

    /// What clients of all listeners have heard from each member.
    fn look_for_refusals(&self, counts: &[Count]) {
        let now = net::now();
        let mut heard: HashMap<*const MemberState, (&MemberState, u64, u64)> = HashMap::new();
        for count in counts.iter().filter(|count| count.received > 0 || count.refused > 0) {
            if let Some((_, member)) = self.known.get(&(count.listener, count.member)) {
                let (_, received, refused) = heard.entry(Arc::as_ptr(member)).or_insert((member, 0, 0));
                *received += count.received;
                *refused += count.refused;
            }
        }
        for (member, received, refused) in heard.into_values() {
            member.answered(now, received == 0 && refused > 0);
        }
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
