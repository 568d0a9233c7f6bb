//! Tasks that are woken together: clients, when their listener closes.

use std::{
    cell::RefCell,
    rc::Rc,
    task::{Context, Waker},
};

/// Places that a list keeps memory for when nobody is on it.
const KEEP: usize = 32;

/// The tasks of one worker that wait for the same thing. A task enlists once and is on the list for as long as it
/// lives: waiting for the next request then registers nothing.
#[derive(Debug, Default)]
pub(super) struct TaskList(RefCell<Places>);

#[derive(Debug, Default)]
struct Places {
    wakers: Vec<Option<Waker>>,
    free: Vec<usize>,
}

impl TaskList {
    /// Wakes every task on the list.
    pub(super) fn wake(&self) {
        for waker in self.0.borrow().wakers.iter().flatten() {
            waker.wake_by_ref();
        }
    }
}

/// A task's place on a list, given up when dropped. By default on one that nobody wakes.
#[derive(Debug, Default)]
pub(crate) struct Enlisted {
    list: Rc<TaskList>,
    place: Option<usize>,
}

impl Enlisted {
    /// For one task; it is on the list from [`ensure`](Self::ensure) on.
    pub(super) fn on(list: &Rc<TaskList>) -> Self {
        Self { list: Rc::clone(list), place: None }
    }

    /// Puts the task on the list, if it is not yet. All calls come from the same task.
    #[inline]
    pub(crate) fn ensure(&mut self, cx: &Context<'_>) {
        if self.place.is_none() {
            self.place = Some(self.list.0.borrow_mut().take(cx.waker().clone()));
        }
    }
}

impl Places {
    fn take(&mut self, waker: Waker) -> usize {
        if let Some(place) = self.free.pop() {
            self.wakers[place] = Some(waker);
            place
        } else {
            self.wakers.push(Some(waker));
            self.wakers.len() - 1
        }
    }

    fn give_up(&mut self, place: usize) {
        self.wakers[place] = None;
        self.free.push(place);
        if self.free.len() == self.wakers.len() {
            if self.wakers.len() > KEEP {
                // A burst of clients leaves no memory behind.
                *self = Self::default();
            } else {
                // One request after the other finds a place without asking for memory.
                self.wakers.clear();
                self.free.clear();
            }
        }
    }
}

impl Drop for Enlisted {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.list.0.borrow_mut().give_up(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        task::Wake,
    };

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn wakes_those_who_live_and_forgets_the_others() {
        let list = Rc::new(TaskList::default());
        let counts: Vec<_> = (0..3).map(|_| Arc::new(Count::default())).collect();
        let mut enlisted: Vec<_> = counts
            .iter()
            .map(|count| {
                let mut enlisted = Enlisted::on(&list);
                let waker = Waker::from(count.clone());
                enlisted.ensure(&Context::from_waker(&waker));
                enlisted.ensure(&Context::from_waker(&waker));
                enlisted
            })
            .collect();
        drop(enlisted.remove(1));
        list.wake();
        assert_eq!(counts.iter().map(|c| c.0.load(Ordering::Relaxed)).collect::<Vec<_>>(), [1, 0, 1]);

        // A place that was given up is taken again.
        let mut again = Enlisted::on(&list);
        again.ensure(&Context::from_waker(Waker::noop()));
        assert_eq!(list.0.borrow().wakers.len(), 3);

        drop((enlisted, again));
        assert!(list.0.borrow().wakers.is_empty() && list.0.borrow().free.is_empty());
        let memory = |list: &TaskList| (list.0.borrow().wakers.capacity(), list.0.borrow().free.capacity());
        let few = memory(&list);
        let enlist = || {
            let mut enlisted = Enlisted::on(&list);
            enlisted.ensure(&Context::from_waker(Waker::noop()));
            enlisted
        };
        drop(enlist());
        assert_eq!(memory(&list), few, "nothing is allocated for one after the other");
        let burst: Vec<_> = (0..=KEEP).map(|_| enlist()).collect();
        drop(burst);
        assert_eq!(memory(&list), (0, 0));
    }
}
