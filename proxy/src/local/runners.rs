//! Tasks for jobs that are many and end soon: recycled by the worker.
//!
//! To begin and to end a task costs a runtime more than to wake one, and what a task has registered its waker with, a timer above
//! all, has to be told of the next. So whoever has done one job waits for another, its memory and its timer with it. Memory that is
//! allocated for each future by itself would also empty whole pages of the allocator when a burst ends, which go back to the system
//! and are faulted in again for the next burst.

use std::{
    any::Any,
    cell::{Cell, OnceCell, RefCell},
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use tokio::task::spawn_local;

use super::tasks::{Enlisted, TaskList};
use crate::conn::Deadline;

/// How many a worker keeps of each kind of job: as many as there is [scratch memory](super::scratch) for.
const KEEP: usize = 64;

/// A worker's tasks that wait for a job.
pub(crate) struct Runners {
    /// Those of each kind.
    kinds: RefCell<Vec<Rc<dyn Any>>>,
    /// All tasks are on it for as long as they live, whatever they do: a job that waits for it registers nothing.
    list: Rc<TaskList>,
}

/// Those of one kind.
type Idle<F> = Rc<RefCell<Vec<Rc<Runner<F>>>>>;

/// What a task has.
struct Runner<F> {
    /// What it does now.
    job: RefCell<Pin<Box<Option<F>>>>,
    /// What the last job has left.
    deadline: Cell<Deadline>,
    /// Its own, once it waits.
    waker: OnceCell<Waker>,
}

/// A task, which does one job after the other.
struct Task<F> {
    runner: Rc<Runner<F>>,
    idle: Idle<F>,
    enlisted: Enlisted,
}

impl Runners {
    /// None yet. Whatever they wait for, this list wakes them.
    pub(super) fn on(list: Rc<TaskList>) -> Self {
        Self { kinds: RefCell::default(), list }
    }

    /// Lets a task do a job. A job gets a deadline that is not set and gives it back: its timer may be armed already, for an earlier moment.
    #[inline]
    pub(crate) fn run<F: Future<Output = Deadline> + 'static>(&self, job: impl FnOnce(Deadline) -> F) {
        let idle = self.idle::<F>();
        let kept = idle.borrow_mut().pop();
        if let Some(runner) = kept {
            let deadline = runner.deadline.take();
            runner.job.borrow_mut().set(Some(job(deadline)));
            if let Some(waker) = runner.waker.get() {
                waker.wake_by_ref();
            }
        } else {
            let runner = Rc::new(Runner {
                job: RefCell::new(Box::pin(Some(job(Deadline::never())))),
                deadline: Cell::default(),
                waker: OnceCell::new(),
            });
            spawn_local(Task { runner, idle, enlisted: Enlisted::on(&self.list) });
        }
    }

    fn idle<F: 'static>(&self) -> Idle<F> {
        let mut kinds = self.kinds.borrow_mut();
        let known = kinds.iter().find_map(|kind| Rc::clone(kind).downcast().ok());
        known.unwrap_or_else(|| {
            let idle = Idle::<F>::default();
            kinds.push(Rc::clone(&idle) as Rc<dyn Any>);
            idle
        })
    }
}

impl<F: Future<Output = Deadline>> Future for Task<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { runner, idle, enlisted } = &mut *self;
        {
            let mut job = runner.job.borrow_mut();
            // A job that has ended may have asked to be woken.
            let Some(running) = job.as_mut().as_pin_mut() else { return Poll::Pending };
            let Poll::Ready(mut deadline) = running.poll(cx) else {
                enlisted.ensure(cx);
                return Poll::Pending;
            };
            job.set(None);
            deadline.set(None);
            runner.deadline.set(deadline);
        }
        let mut idle = idle.borrow_mut();
        if idle.len() == KEEP {
            return Poll::Ready(());
        }
        runner.waker.get_or_init(|| cx.waker().clone());
        idle.push(Rc::clone(runner));
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{
        task::{LocalSet, yield_now},
        time::{Instant, sleep},
    };

    use super::*;

    /// Counts itself while it lives.
    struct Counted(Rc<Cell<usize>>);

    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.set(self.0.get() - 1);
        }
    }

    async fn until(condition: impl Fn() -> bool) {
        while !condition() {
            yield_now().await;
        }
    }

    #[tokio::test]
    async fn what_has_ended_is_dropped_and_its_task_does_the_next() {
        LocalSet::new()
            .run_until(async {
                let (runners, live) = (Runners::on(Rc::default()), Rc::new(Cell::new(0)));
                let ids = Rc::new(RefCell::new(Vec::new()));
                let run = || {
                    live.set(live.get() + 1);
                    let (counted, ids) = (Counted(Rc::clone(&live)), Rc::clone(&ids));
                    runners.run(|deadline| async move {
                        ids.borrow_mut().push(tokio::task::id());
                        yield_now().await;
                        drop(counted);
                        deadline
                    });
                };
                let idle = || {
                    let kinds = runners.kinds.borrow();
                    assert_eq!(kinds.len(), 1);
                    Rc::strong_count(&kinds[0])
                };
                for _ in 0..100 {
                    run();
                }
                assert_eq!(live.get(), 100);
                until(|| live.get() == 0).await;
                // One beside those that wait.
                until(|| idle() == KEEP + 1).await;
                let first = std::mem::take(&mut *ids.borrow_mut());
                for _ in 0..KEEP {
                    run();
                }
                until(|| live.get() == 0).await;
                assert!(ids.borrow().iter().all(|id| first.contains(id)));
                // Another kind is none of these.
                runners.run(|deadline| async { deadline });
                assert_eq!(runners.kinds.borrow().len(), 2);
            })
            .await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_timer_of_one_job_wakes_the_next() {
        LocalSet::new()
            .run_until(async {
                let (runners, over) = (Runners::on(Rc::default()), Rc::new(Cell::new(None)));
                let start = Instant::now();
                let run = |seconds| {
                    let over = Rc::clone(&over);
                    runners.run(move |mut deadline| async move {
                        deadline.set(Some(start + Duration::from_secs(seconds)));
                        let waits = seconds > 10;
                        std::future::poll_fn(|cx| {
                            let expired = deadline.poll_expired(cx);
                            if waits { expired } else { Poll::Ready(()) }
                        })
                        .await;
                        over.set(Some(start.elapsed().as_secs()));
                        deadline
                    });
                };
                run(10);
                until(|| over.take() == Some(0)).await;
                run(20);
                sleep(Duration::from_secs(30)).await;
                assert_eq!(over.get(), Some(20));
            })
            .await;
    }

    #[tokio::test]
    async fn the_list_wakes_whatever_job_a_task_has() {
        LocalSet::new()
            .run_until(async {
                let (list, is_over) = (Rc::new(TaskList::default()), Rc::new(Cell::new(false)));
                let runners = Runners::on(Rc::clone(&list));
                let (live, polled) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
                // The second job of a task registers with nobody either.
                for round in 0..2 {
                    for _ in 0..3 {
                        live.set(live.get() + 1);
                        let (counted, is_over, polled) =
                            (Counted(Rc::clone(&live)), Rc::clone(&is_over), Rc::clone(&polled));
                        runners.run(|deadline| async move {
                            std::future::poll_fn(|_| {
                                polled.set(polled.get() + 1);
                                if is_over.get() { Poll::Ready(()) } else { Poll::Pending }
                            })
                            .await;
                            drop(counted);
                            deadline
                        });
                    }
                    until(|| polled.get() == 3).await;
                    assert_eq!(live.get(), 3, "{round}");
                    is_over.set(true);
                    list.wake();
                    until(|| live.get() == 0).await;
                    is_over.set(false);
                    polled.set(0);
                    // Those without a job are woken for nothing.
                    list.wake();
                    yield_now().await;
                }
            })
            .await;
    }

    #[tokio::test]
    async fn a_job_that_panics_takes_no_other_with_it() {
        LocalSet::new()
            .run_until(async {
                let (runners, live) = (Runners::on(Rc::default()), Rc::new(Cell::new(0)));
                for n in 0..3 {
                    for panics in [false, true] {
                        live.set(live.get() + 1);
                        let counted = Counted(Rc::clone(&live));
                        runners.run(move |deadline| async move {
                            let _counted = counted;
                            assert!(!panics, "on purpose, {n}");
                            deadline
                        });
                    }
                    until(|| live.get() == 0).await;
                }
            })
            .await;
    }
}
