//! All probes that are under way, in one epoll instance of one thread.
//!
//! A probe costs what its packets cost and as few system calls as they allow: the last packet of the handshake is held back
//! until the question goes with it, as HAProxy does; every connection ends with a reset, which HAProxy uses where the target
//! has not closed yet; and sockets are used again, so that they are made, registered (edge-triggered) and closed once
//! for many probes. Where several are under way the thread does not wake up for each of their packets, but
//! [gathers](GATHER) what comes.

use std::{
    collections::BTreeSet,
    io,
    os::fd::AsFd as _,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, ppoll},
    sys::{
        epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
        eventfd::{EfdFlags, EventFd},
        time::TimeSpec,
    },
};
use socket2::Socket;

use super::{
    dialogue::{Family, Probe, READ, Turn},
    http::Answer,
    outcome::{CheckStatus, Found, Outcome},
};
use crate::{
    health::core::{Target, TargetId},
    net,
};

/// The token of the descriptor that wakes the thread up.
const WAKE: u64 = u64::MAX;
/// From one look at what has come to the next, where at least [`MANY`] probes are under way. Results are that much later; that is
/// below the millisecond in which durations are told.
const GATHER: Duration = Duration::from_micros(500);
const MANY: usize = 2;
/// Sockets that are kept for the next probes. Some more are under way at once only where targets do not answer.
const KEPT: usize = 64;
/// Events that are taken at once.
const EVENTS: usize = 256;
/// Sleeps end at the latest then, whatever is due.
const LONGEST: Duration = Duration::from_secs(60);

/// The probes under way.
#[derive(Debug)]
pub(in crate::health) struct Prober {
    epoll: Epoll,
    wake: Arc<EventFd>,
    /// Sockets at once, those that are kept among them.
    max_sockets: usize,
    /// A socket's token is the index of its slot.
    slots: Vec<Slot>,
    /// Slots without anything.
    free: Vec<u32>,
    /// Slots with a socket that is not connected, of [`Family::V4`] and [`Family::V6`].
    kept: [Vec<u32>; 2],
    /// When each probe under way is late.
    deadlines: BTreeSet<(Instant, u32)>,
    /// Slots, with their generation, of those who have had their share of a turn and have more to read.
    again: Vec<(u32, u32)>,
    events: Vec<EpollEvent>,
    /// Probes were begun since the last look: some are connected by now.
    begun: bool,
    spare: Vec<Answer>,
    scratch: Vec<u8>,
    done: Vec<(TargetId, Outcome)>,
}

#[derive(Debug, Default)]
struct Slot {
    /// Tells its probes apart.
    generation: u32,
    probe: Option<Probe>,
    /// Registered.
    kept: Option<Socket>,
}

impl Prober {
    /// One without probes, of which there will be at most `max_in_flight` at once, and no more sockets than that.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub(in crate::health) fn new(max_in_flight: usize) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        epoll.add(&wake, EpollEvent::new(EpollFlags::EPOLLIN, WAKE))?;
        Ok(Self {
            epoll,
            wake: Arc::new(wake),
            max_sockets: max_in_flight,
            slots: Vec::new(),
            free: Vec::new(),
            kept: [Vec::new(), Vec::new()],
            deadlines: BTreeSet::new(),
            again: Vec::new(),
            events: vec![EpollEvent::empty(); EVENTS],
            begun: false,
            spare: Vec::new(),
            scratch: vec![0; READ],
            done: Vec::new(),
        })
    }

    /// Ends a [`turn`](Self::turn) that waits when it is written to.
    pub(in crate::health) fn waker(&self) -> Arc<EventFd> {
        Arc::clone(&self.wake)
    }

    /// The results since the last call.
    pub(in crate::health) fn done(&mut self) -> std::vec::Drain<'_, (TargetId, Outcome)> {
        self.done.drain(..)
    }

    /// Begins to probe a target.
    pub(in crate::health) fn start(&mut self, id: TargetId, target: Arc<Target>) {
        let started = net::now();
        let kept = Family::of(&target).and_then(|family| self.kept[family as usize].pop());
        if kept.is_none() && self.deadlines.len() + self.kept() >= self.max_sockets {
            self.close_one();
        }
        let index = kept.or_else(|| self.free.pop()).unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() as u32 - 1
        });
        let slot = &mut self.slots[index as usize];
        let kept = slot.kept.take();
        let registered = kept.is_some();
        let probe = match Probe::begin(id, target, started, kept) {
            Ok(probe) => probe,
            Err(found) => {
                self.free.push(index);
                return self.done.push((id, found.after(started)));
            }
        };
        self.begun = true;
        self.deadlines.insert((probe.deadline, index));
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
        let added = match registered {
            true => Ok(()),
            false => self.epoll.add(probe.socket(), EpollEvent::new(flags, index.into())),
        };
        slot.probe = Some(probe);
        if let Err(errno) = added {
            self.finish(index, Found::error(CheckStatus::SocketError, &errno.into()), false);
        }
    }

    /// Waits until a probe can go on, is over, the waker is used, or it is `until`; lets all that can go on.
    pub(in crate::health) fn turn(&mut self, until: Option<Instant>) {
        let ready = self.wait(until);
        for (index, generation) in std::mem::take(&mut self.again) {
            // Else it is over since.
            if self.slots[index as usize].generation == generation {
                self.go_on(index, EpollFlags::EPOLLIN);
            }
        }
        // These say how things are now, since no probe was begun behind them.
        for nth in 0..ready {
            let event = self.events[nth];
            match event.data() {
                WAKE => drop(self.wake.read()),
                token => self.go_on(token as u32, event.events()),
            }
        }
        let now = net::now();
        while let Some(&(at, index)) = self.deadlines.first()
            && at <= now
        {
            let late = self.slots[index as usize].probe.as_ref().map(Probe::late);
            match late {
                Some(found) => self.finish(index, found, true),
                None => drop(self.deadlines.pop_first()),
            }
        }
    }

    fn wait(&mut self, until: Option<Instant>) -> usize {
        let under_way = self.deadlines.len();
        let begun = std::mem::take(&mut self.begun);
        let deadline = self.deadlines.first().map(|&(at, _)| at);
        let next = [until, deadline].into_iter().flatten().min();
        let remaining = || next.map(|at| at.saturating_duration_since(net::now()).min(LONGEST));
        if !self.done.is_empty() || !self.again.is_empty() {
            return self.look(EpollTimeout::ZERO);
        }
        if under_way == 0 {
            self.sleep(remaining());
            return 0;
        }
        if under_way >= MANY {
            if begun {
                return self.look(EpollTimeout::ZERO);
            }
            thread::sleep(remaining().unwrap_or(GATHER).min(GATHER));
        }
        // Rounded up: what is due in half a millisecond is not asked for again and again until then.
        let timeout = remaining().map_or(EpollTimeout::NONE, |wait| {
            let millis = (wait + Duration::from_micros(999)).as_millis();
            EpollTimeout::try_from(millis as i32).unwrap_or(EpollTimeout::ZERO)
        });
        self.look(timeout)
    }

    fn look(&mut self, timeout: EpollTimeout) -> usize {
        self.epoll.wait(&mut self.events, timeout).unwrap_or_else(cannot_wait)
    }

    /// Until the waker is used, or for this long. What sockets that are kept have to say is of no interest.
    fn sleep(&self, time: Option<Duration>) {
        let mut wake = [PollFd::new(self.wake.as_fd(), PollFlags::POLLIN)];
        match ppoll(&mut wake, time.map(TimeSpec::from_duration), None) {
            Ok(0) => {}
            Ok(_) => drop(self.wake.read()),
            Err(errno) => drop(cannot_wait(errno)),
        }
    }

    /// Sockets that are kept.
    pub(super) fn kept(&self) -> usize {
        self.kept.iter().map(Vec::len).sum()
    }

    fn close_one(&mut self) {
        if let Some(index) = self.kept.iter_mut().find_map(Vec::pop) {
            self.slots[index as usize].kept = None;
            self.free.push(index);
        }
    }

    fn go_on(&mut self, index: u32, flags: EpollFlags) {
        let slot = &mut self.slots[index as usize];
        let Some(probe) = &mut slot.probe else { return };
        let mut turn = Turn { scratch: &mut self.scratch, spare: &mut self.spare, again: false };
        let progress = probe.go_on(flags, &mut turn);
        let again = turn.again;
        match progress {
            Ok(None) if again => self.again.push((index, slot.generation)),
            Ok(None) => {}
            Ok(Some(found)) | Err(found) => self.finish(index, found, true),
        }
    }

    fn finish(&mut self, index: u32, found: Found, registered: bool) {
        let slot = &mut self.slots[index as usize];
        let Some(probe) = slot.probe.take() else { return };
        slot.generation = slot.generation.wrapping_add(1);
        self.deadlines.remove(&(probe.deadline, index));
        self.done.push((probe.id, found.after(probe.started)));
        let room = registered && self.kept.iter().map(Vec::len).sum::<usize>() < KEPT.min(self.max_sockets);
        match probe.end(&mut self.spare).filter(|_| room) {
            Some((family, socket)) => {
                slot.kept = Some(socket);
                self.kept[family as usize].push(index);
            }
            None => self.free.push(index),
        }
    }
}

/// Either a signal, or what cannot be by epoll_wait(2) and ppoll(2); that is not to keep a core busy.
fn cannot_wait(errno: Errno) -> usize {
    if errno != Errno::EINTR {
        tracing::error!(%errno, "health probes cannot be waited for");
        thread::sleep(Duration::from_millis(100));
    }
    0
}

/// Probes once, waiting for the outcome.
#[cfg(test)]
pub(super) fn once(target: &Target) -> Outcome {
    let mut prober = Prober::new(1).expect("there are descriptors");
    prober.start(TargetId::default(), Arc::new(target.clone()));
    loop {
        prober.turn(None);
        if let Some((_, outcome)) = prober.done().next() {
            return outcome;
        }
    }
}
