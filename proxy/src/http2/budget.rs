//! What a connection makes us hold, in bytes, against one bound.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    task::{Context, Waker},
};

/// Bounds on what a connection of HTTP/2 makes us hold and do. They are announced in SETTINGS where there is one for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes besides the windows: heads that are being served, and what is queued for a peer that does not read.
    pub budget: usize,
    /// Of these, the most that is queued, while heads leave it.
    pub queue: usize,
    /// Of these, what heads never take: streams end by what is queued, so that there must always be room for some.
    pub queue_reserve: usize,
    /// SETTINGS_MAX_HEADER_LIST_SIZE: name, value and 32 bytes for each field (RFC 9113 section 6.5.2), before cookies are joined.
    pub header_list: u32,
    /// SETTINGS_MAX_CONCURRENT_STREAMS.
    pub streams: u32,
    /// SETTINGS_INITIAL_WINDOW_SIZE: bytes of a body that may be under way.
    pub stream_window: u32,
    /// The same of all bodies together.
    pub connection_window: u32,
    /// SETTINGS_HEADER_TABLE_SIZE, and what we use of the peer's.
    pub header_table: u32,
    /// Bytes of one body that are queued at once.
    pub stream_queue: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            budget: 256 * 1024,
            queue: 96 * 1024,
            queue_reserve: 32 * 1024,
            header_list: 16 * 1024,
            streams: 100,
            stream_window: 64 * 1024,
            connection_window: 256 * 1024,
            header_table: 4096,
            stream_queue: 32 * 1024,
        }
    }
}

/// What one connection holds. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Budget(Rc<Account>);

#[derive(Debug)]
struct Account {
    limits: Limits,
    heads: Cell<usize>,
    queued: Cell<usize>,
    most: Cell<usize>,
    waiting: RefCell<VecDeque<Waker>>,
}

impl Budget {
    /// Nothing is held yet.
    pub fn new(limits: Limits) -> Self {
        Self(Rc::new(Account {
            limits,
            heads: Cell::new(0),
            queued: Cell::new(0),
            most: Cell::new(0),
            waiting: RefCell::default(),
        }))
    }

    /// The bounds.
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// Bytes held now.
    pub fn held(&self) -> usize {
        self.0.heads.get() + self.0.queued.get()
    }

    /// Of these, for heads.
    pub fn heads(&self) -> usize {
        self.0.heads.get()
    }

    /// The most bytes that were ever held.
    pub fn most(&self) -> usize {
        self.0.most.get()
    }

    /// Counts a head of so many bytes for as long as the charge lives; `None` when that is too much.
    pub fn head(&self, bytes: usize) -> Option<Charge> {
        let Limits { budget, queue_reserve, .. } = self.0.limits;
        let taken = self.0.heads.get() + self.0.queued.get().max(queue_reserve);
        (taken + bytes <= budget).then(|| self.charge(bytes, Kind::Head))
    }

    /// How many bytes more may be queued.
    #[inline]
    pub(super) fn room(&self) -> usize {
        self.0.room()
    }

    /// Wakes the task when there is room for more in the queue.
    pub(super) fn wait(&self, cx: &Context<'_>) {
        let mut waiting = self.0.waiting.borrow_mut();
        if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            waiting.push_back(cx.waker().clone());
        }
    }

    /// Counts bytes that are queued.
    pub(super) fn queue(&self, bytes: usize) -> Charge {
        self.charge(bytes, Kind::Queue)
    }

    fn charge(&self, bytes: usize, kind: Kind) -> Charge {
        let cell = self.0.cell(kind);
        cell.set(cell.get() + bytes);
        self.0.most.set(self.0.most.get().max(self.held()));
        Charge { account: Rc::clone(&self.0), bytes, kind }
    }
}

impl Account {
    fn cell(&self, kind: Kind) -> &Cell<usize> {
        match kind {
            Kind::Head => &self.heads,
            Kind::Queue => &self.queued,
        }
    }

    fn room(&self) -> usize {
        let left = self.limits.budget.saturating_sub(self.heads.get());
        left.min(self.limits.queue).saturating_sub(self.queued.get())
    }

    fn release(&self, bytes: usize, kind: Kind) {
        let cell = self.cell(kind);
        cell.set(cell.get() - bytes);
        let mut waiting = self.waiting.borrow_mut();
        if bytes == 0 || waiting.is_empty() {
            return;
        }
        // One for each share that has become free. Who is woken may have no use for it any more, so the last wakes all.
        let room = self.room();
        let woken = if self.queued.get() == 0 { waiting.len() } else { (room / SHARE).min(waiting.len()) };
        for waker in waiting.drain(..woken) {
            waker.wake();
        }
    }
}

/// Room in the queue that is worth waking a task for.
const SHARE: usize = 16 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Head,
    Queue,
}

/// Bytes that count against a [`Budget`] until it is dropped.
#[derive(Debug)]
pub struct Charge {
    account: Rc<Account>,
    bytes: usize,
    kind: Kind,
}

impl Charge {
    /// Counts so many bytes from now on, if that is less.
    pub fn shrink(&mut self, bytes: usize) {
        let freed = self.bytes.saturating_sub(bytes);
        self.bytes -= freed;
        self.account.release(freed, self.kind);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.account.release(self.bytes, self.kind);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl std::task::Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn heads_are_held_within_their_share() {
        let budget = Budget::new(Limits { budget: 100, queue: 40, queue_reserve: 10, ..Limits::default() });
        let one = budget.head(50).unwrap();
        assert_eq!(budget.room(), 40);
        let two = budget.head(20).unwrap();
        // What they take is not there to be queued, but for what is kept for that.
        assert_eq!(budget.room(), 30);
        let three = budget.head(20).unwrap();
        assert!(budget.head(1).is_none());
        assert_eq!(budget.room(), 10);
        let queued = budget.queue(10);
        assert_eq!((budget.held(), budget.room()), (100, 0));
        drop((one, two, three));
        let queued = (queued, budget.queue(30));
        assert_eq!((budget.held(), budget.room()), (40, 0));
        assert!(budget.head(61).is_none());
        drop(queued);
        assert_eq!((budget.held(), budget.most(), budget.room()), (0, 100, 40));
    }

    #[test]
    fn who_waits_for_room_is_woken_as_there_is_some() {
        let budget = Budget::new(Limits { queue: 4 * SHARE, ..Limits::default() });
        let counts: Vec<_> = (0..5).map(|_| Arc::new(Count::default())).collect();
        let wait = || {
            for count in &counts {
                let waker = Waker::from(Arc::clone(count));
                budget.wait(&Context::from_waker(&waker));
                budget.wait(&Context::from_waker(&waker));
            }
        };
        let woken = || counts.iter().map(|count| count.0.load(Ordering::Relaxed)).collect::<Vec<_>>();
        let (one, two, three) = (budget.queue(SHARE), budget.queue(1), budget.queue(4 * SHARE));
        wait();
        drop(one);
        assert_eq!((budget.room(), woken()), (0, vec![0; 5]));
        drop(three);
        assert_eq!(woken(), [1, 1, 1, 0, 0]);
        drop(two);
        assert_eq!(woken(), [1; 5]);
        assert_eq!(budget.room(), 4 * SHARE);
    }

    #[test]
    fn a_head_that_takes_less_counts_less() {
        let budget = Budget::new(Limits::default());
        let mut charge = budget.head(100).unwrap();
        charge.shrink(200);
        assert_eq!(budget.held(), 100);
        charge.shrink(30);
        assert_eq!(budget.held(), 30);
        drop(charge);
        assert_eq!(budget.held(), 0);
    }
}
