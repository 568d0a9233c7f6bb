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
    task::{Context, Poll, Waker, ready},
};

use tokio::task::spawn_local;

use crate::conn::Deadline;

/// How many a worker keeps of each kind of job: as many as there is [scratch memory](super::scratch) for.
const KEEP: usize = 64;

/// A worker's tasks that wait for a job.
#[derive(Default)]
pub(crate) struct Runners(RefCell<Vec<Rc<dyn Any>>>);

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
}

impl Runners {
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
            spawn_local(Task { runner, idle });
        }
    }

    fn idle<F: 'static>(&self) -> Idle<F> {
        let mut kinds = self.0.borrow_mut();
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

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { runner, idle } = &*self;
        {
            let mut job = runner.job.borrow_mut();
            // A job that has ended may have asked to be woken.
            let Some(running) = job.as_mut().as_pin_mut() else { return Poll::Pending };
            let mut deadline = ready!(running.poll(cx));
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
                let (runners, live) = (Runners::default(), Rc::new(Cell::new(0)));
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
                    let kinds = runners.0.borrow();
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
                assert_eq!(runners.0.borrow().len(), 2);
            })
            .await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_timer_of_one_job_wakes_the_next() {
        LocalSet::new()
            .run_until(async {
                let (runners, over) = (Runners::default(), Rc::new(Cell::new(None)));
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
    async fn a_job_that_panics_takes_no_other_with_it() {
        LocalSet::new()
            .run_until(async {
                let (runners, live) = (Runners::default(), Rc::new(Cell::new(0)));
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
