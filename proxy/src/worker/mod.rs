//! Workers: one thread per core, each with a runtime, listening sockets, connections to members and counters of
//! its own. The control thread talks to a worker through a queue of [`Command`]s; nothing else is shared but
//! immutable snapshots and atomics.

mod accept;
mod limit;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    io,
    pin::pin,
    rc::{Rc, Weak},
    sync::{Arc, mpsc::sync_channel},
    thread::{self, JoinHandle},
    time::Duration,
};

use amphora_model::Binding;
use tokio::{
    runtime::{self, LocalOptions, LocalRuntime},
    sync::{mpsc, oneshot},
    time::Instant,
};

use self::accept::{Acceptor, Stopping};
use crate::{
    limits::{Bounds, Clients},
    local::{LocalListener, LocalSnapshot, Present, Worker, WorkerPulse},
    logs::{FlowLogs, Share},
    metrics::Scrapes,
    net::NewListener,
    snapshot::Snapshot,
};

/// How often idle connections to members are looked through.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// What the control thread asks of a worker.
#[derive(Debug)]
pub(crate) enum Command {
    /// Run this snapshot from now on.
    Apply {
        snapshot: Arc<Snapshot>,
        /// Sockets for what was not bound before.
        sockets: Vec<(Binding, NewListener)>,
        /// Told once the snapshot is live.
        done: oneshot::Sender<()>,
    },
    /// Let no new clients in and the present ones go, or let new ones in again.
    Quiesce {
        /// Which of the two.
        quiesce: bool,
        /// Told how many clients there are.
        clients: oneshot::Sender<usize>,
    },
    /// Close what is left of members whose time to finish it is over.
    EndDrains,
    /// Accept nothing more, let sessions finish, and end when the last has.
    Drain,
}

/// The control thread's end of a worker.
pub(crate) struct WorkerHandle {
    commands: mpsc::UnboundedSender<Command>,
    pulse: Arc<WorkerPulse>,
    thread: JoinHandle<()>,
}

impl WorkerHandle {
    /// Starts a worker on a thread of its own.
    ///
    /// # Errors
    /// When the thread or its runtime cannot be made.
    pub(crate) fn start(
        index: usize,
        bounds: &Bounds,
        clients: Arc<Clients>,
        epoch: Instant,
        scrapes: Scrapes,
        syslog: Share,
    ) -> io::Result<Self> {
        let bounds = *bounds;
        let (commands, queue) = mpsc::unbounded_channel();
        let pulse = Arc::new(WorkerPulse::default());
        let beating = Arc::clone(&pulse);
        let (told, begun) = sync_channel(1);
        let thread = thread::Builder::new().name(format!("worker-{index}")).stack_size(512 * 1024).spawn(
            move || {
                // A runtime whose tasks are all of one thread stays on the one that has made it.
                let (runtime, logs) = match runtime(syslog) {
                    Ok(made) => made,
                    Err(error) => return drop(told.send(Err(error))),
                };
                let worker =
                    Rc::new(Worker::new(index, bounds, clients, epoch, scrapes, Arc::clone(&beating), logs));
                // Who starts workers waits for it.
                let _ = told.send(Ok(()));
                runtime.block_on(beating.of(run(worker, queue)));
            },
        )?;
        begun.recv().unwrap_or_else(|_| Err(io::Error::other("a worker has ended at its start")))?;
        Ok(Self { commands, pulse, thread })
    }

    /// Sends a command; false when the worker has died.
    pub(crate) fn send(&self, command: Command) -> bool {
        self.commands.send(command).is_ok()
    }

    /// To send commands without the handle.
    pub(crate) fn commands(&self) -> mpsc::UnboundedSender<Command> {
        self.commands.clone()
    }

    /// To see whether it lives.
    pub(crate) fn pulse(&self) -> Arc<WorkerPulse> {
        Arc::clone(&self.pulse)
    }

    /// Whether the worker's thread has ended.
    pub(crate) fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }
}

/// What a worker runs on, and where its lines go.
fn runtime(syslog: Share) -> io::Result<(LocalRuntime, FlowLogs)> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build_local(LocalOptions::default())?;
    let entered = runtime.enter();
    let logs = FlowLogs::new(syslog)?;
    drop(entered);
    Ok((runtime, logs))
}

async fn run(worker: Rc<Worker>, mut queue: mpsc::UnboundedReceiver<Command>) {
    let mut present =
        Rc::new(LocalSnapshot::new(worker.index, &worker.idle, Arc::new(Snapshot::empty(0)), None));
    let mut listeners = Listeners::default();
    let logging = Rc::clone(&worker);
    tokio::task::spawn_local(async move { logging.logs.run().await });
    let mut sweep = tokio::time::interval(SWEEP_INTERVAL);
    sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            command = queue.recv() => match command {
                Some(Command::Apply { snapshot, sockets, done }) => {
                    present = Rc::new(LocalSnapshot::new(worker.index, &worker.idle, snapshot, Some(&present)));
                    listeners.apply(&worker, &present, sockets);
                    // The control thread may have given up waiting; the snapshot is live all the same.
                    let _ = done.send(());
                }
                Some(Command::Quiesce { quiesce, clients }) => {
                    listeners.quiesce(quiesce);
                    let _ = clients.send(worker.sessions().saturating_sub(listeners.acceptors.len()));
                }
                Some(Command::EndDrains) => end_drains(&worker, &present, &listeners),
                Some(Command::Drain) | None => {
                    worker.end();
                    listeners.close();
                    break;
                }
            },
            _ = sweep.tick() => present.sweep(Instant::now()),
        }
    }
    let mut ended = pin!(worker.ended());
    loop {
        tokio::select! {
            biased;
            () = &mut ended => break,
            Some(command) = queue.recv() => if let Command::EndDrains = command {
                end_drains(&worker, &present, &listeners);
            },
        }
    }
    worker.logs.finish();
}

/// The time of some members is over: what is kept of them is closed, and who waits for them is woken.
fn end_drains(worker: &Worker, present: &LocalSnapshot, listeners: &Listeners) {
    present.end_drains();
    worker.idle.wake_sessions();
    listeners.wake();
}

/// Whether a listening socket at `wide` takes all that connect to `narrow`, once nobody listens there.
fn covers(wide: &Binding, narrow: &Binding) -> bool {
    let same_kind = wide.transport == narrow.transport && wide.address.is_ipv4() == narrow.address.is_ipv4();
    same_kind && wide.address.ip().is_unspecified() && wide.address.port() == narrow.address.port()
}

/// The listeners of one worker and its acceptors, by what they are bound to: an address that moves from one listener to
/// another keeps its socket, and the clients of an address that a listener gives up are let go, whatever else it keeps. So
/// are those of a listener that asks for more when it shakes hands, and those whom it would not let in any more.
#[derive(Default)]
struct Listeners {
    by_binding: HashMap<Binding, Rc<LocalListener>>,
    acceptors: HashMap<Binding, Acceptor>,
    /// Those whose clients were let go, while any of them is there.
    closed: Vec<Weak<LocalListener>>,
    /// Those whose address was given up, until their sockets are closed.
    stopping: HashMap<Binding, Stopping>,
    /// Nobody new is let in, because the VIP is about to move.
    quiesced: bool,
}

impl Listeners {
    fn apply(
        &mut self,
        worker: &Rc<Worker>,
        snapshot: &Rc<LocalSnapshot>,
        sockets: Vec<(Binding, NewListener)>,
    ) {
        let mut before = std::mem::take(&mut self.by_binding);
        let mut acceptors = std::mem::take(&mut self.acceptors);
        let mut sockets: HashMap<_, _> = sockets.into_iter().collect();
        for (binding, index) in snapshot.shared.bindings() {
            let present = Present::new(Rc::clone(snapshot), index);
            let plan = snapshot.listener(index);
            let listener = match before.remove(&binding) {
                Some(listener)
                    if present.continues(&listener.present()) && plan.admits_as(&listener.plan()) =>
                {
                    listener.replace(present);
                    listener
                }
                other => {
                    if let Some(listener) = other {
                        if present.continues(&listener.present()) {
                            listener.bar()
                        } else {
                            listener.close()
                        }
                        self.closed.push(Rc::downgrade(&listener));
                    }
                    Rc::new(LocalListener::new(present))
                }
            };
            self.by_binding.insert(binding, Rc::clone(&listener));
            if let Some(acceptor) = acceptors.remove(&binding) {
                acceptor.retarget(listener);
                self.acceptors.insert(binding, acceptor);
            } else if let Some(socket) = sockets.remove(&binding) {
                match self.accept(worker, binding, listener, socket) {
                    Ok(acceptor) => {
                        self.acceptors.insert(binding, acceptor);
                    }
                    Err(error) => {
                        tracing::error!(address = %binding.address, %error, "a listening socket could not be watched")
                    }
                }
            } else {
                // The control thread binds what workers do not have; it knows what they have.
                tracing::error!(%binding, "no socket came with the snapshot");
            }
        }
        for listener in before.into_values() {
            listener.close();
            self.closed.push(Rc::downgrade(&listener));
        }
        self.closed.retain(|listener| listener.strong_count() > 0);
        let over = |binding: &Binding| {
            let (wide, _) = snapshot.shared.bindings().find(|(other, _)| covers(other, binding))?;
            Some(&self.by_binding[&wide])
        };
        let mut stopping = HashMap::new();
        // An address that was given up by an earlier change may have come under another only with this one.
        for (binding, given_up) in self.stopping.drain().filter(|(_, given_up)| given_up.is_open()) {
            match over(&binding) {
                Some(listener) => given_up.give_way(listener, self.quiesced),
                None => drop(stopping.insert(binding, given_up)),
            }
        }
        for (binding, acceptor) in acceptors {
            match over(&binding) {
                Some(listener) => acceptor.give_way(listener),
                None => drop(stopping.insert(binding, acceptor.stop())),
            }
        }
        self.stopping = stopping;
        if self.quiesced {
            self.keep_out(true);
        }
    }

    /// An address that comes back while its socket is being closed keeps that one, and nobody who connects meets a socket
    /// that lets nobody in any more.
    fn accept(
        &mut self,
        worker: &Rc<Worker>,
        binding: Binding,
        listener: Rc<LocalListener>,
        socket: NewListener,
    ) -> io::Result<Acceptor> {
        if let NewListener::Bound(_) = socket
            && let Some(acceptor) =
                self.stopping.remove(&binding).and_then(|s| s.revive(&listener, self.quiesced))
        {
            return Ok(acceptor);
        }
        Acceptor::start(worker, listener, socket.listen().map_err(io::Error::other)?)
    }

    fn quiesce(&mut self, quiesce: bool) {
        if quiesce != self.quiesced {
            self.quiesced = quiesce;
            self.keep_out(quiesce);
        }
    }

    fn keep_out(&self, keep_out: bool) {
        for acceptor in self.acceptors.values() {
            acceptor.keep_out(keep_out);
        }
        for listener in self.by_binding.values() {
            listener.quiesce(keep_out);
        }
    }

    /// Has clients that wait look at what they have of members, also those of listeners that are gone.
    fn wake(&self) {
        self.by_binding.values().for_each(|listener| listener.wake());
        self.closed.iter().filter_map(Weak::upgrade).for_each(|listener| listener.wake());
    }

    fn close(&mut self) {
        for acceptor in std::mem::take(&mut self.acceptors).into_values() {
            acceptor.stop();
        }
        for listener in std::mem::take(&mut self.by_binding).into_values() {
            listener.close();
            self.closed.push(Rc::downgrade(&listener));
        }
    }
}
