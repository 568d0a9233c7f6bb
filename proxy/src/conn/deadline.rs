//! The one timer abstraction: a deadline that is cheap to move.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use tokio::{
    task::coop::has_budget_remaining,
    time::{Instant, Sleep, sleep_until},
};

/// A moment that may be moved at any time. Activity on a connection moves its deadline with every read and write, so
/// moving it *later* only stores it: the runtime's timer is left alone until it fires, and is then armed again
/// for the moment that counts. Moving it earlier than the armed timer arms it anew.
///
/// Allocates once, when it is first polled with a moment set. Resolution is the runtime's, one millisecond.
///
/// Polling a timer registers the task's waker, which costs more than all else here; it is done only when the timer was
/// set anew or another task asks.
#[derive(Debug, Default)]
pub struct Deadline {
    at: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
    /// Whom the timer will wake.
    armed: Option<Waker>,
}

impl Deadline {
    /// A deadline that never comes.
    pub fn never() -> Self {
        Self::default()
    }

    /// Sets the moment; `None` is never. Poll afterwards, or nothing wakes the task.
    #[inline]
    pub fn set(&mut self, at: Option<Instant>) {
        self.at = at;
    }

    /// Ready once the moment has come (and again until it is moved); pending before, with the task woken no later than
    /// the moment, perhaps earlier.
    #[inline]
    pub fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if at < timer.deadline() {
            timer.as_mut().reset(at);
            self.armed = None;
        }
        if !timer.is_elapsed() && self.armed.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            return Poll::Pending;
        }
        loop {
            // A task that has used up its share is turned away before the timer knows of it, and woken at once.
            let registers = has_budget_remaining();
            if timer.as_mut().poll(cx).is_pending() {
                self.armed = registers.then(|| cx.waker().clone());
                return Poll::Pending;
            }
            if at <= timer.deadline() {
                return Poll::Ready(());
            }
            timer.as_mut().reset(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, time::Duration};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn poll(deadline: &mut Deadline) -> bool {
        deadline.poll_expired(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[tokio::test(start_paused = true)]
    async fn never_comes_unless_set() {
        let mut deadline = Deadline::never();
        assert!(!poll(&mut deadline));
        deadline.set(Some(Instant::now()));
        assert!(poll(&mut deadline));
        assert!(poll(&mut deadline), "stays expired until it is moved");
        deadline.set(None);
        assert!(!poll(&mut deadline));
    }

    #[tokio::test(start_paused = true)]
    async fn a_later_moment_leaves_the_timer_armed_as_it_was() {
        let mut deadline = Deadline::never();
        let start = Instant::now();
        deadline.set(Some(start + SECOND));
        assert!(!poll(&mut deadline));
        deadline.set(Some(start + 3 * SECOND));
        assert!(!poll(&mut deadline));
        assert_eq!(deadline.timer.as_ref().map(|t| t.deadline()), Some(start + SECOND));
        poll_fn(|cx| deadline.poll_expired(cx)).await;
        assert_eq!(Instant::now() - start, 3 * SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn an_earlier_moment_is_kept() {
        let mut deadline = Deadline::never();
        let start = Instant::now();
        deadline.set(Some(start + 60 * SECOND));
        assert!(!poll(&mut deadline));
        deadline.set(Some(start + SECOND));
        poll_fn(|cx| deadline.poll_expired(cx)).await;
        assert_eq!(Instant::now() - start, SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_without_budget_is_woken_all_the_same() {
        let mut deadline = Deadline::never();
        let start = Instant::now();
        deadline.set(Some(start + SECOND));
        let mut first = true;
        poll_fn(|cx| {
            if std::mem::take(&mut first) {
                while let Poll::Ready(share) = tokio::task::coop::poll_proceed(cx) {
                    share.made_progress();
                }
            }
            deadline.poll_expired(cx)
        })
        .await;
        assert_eq!(Instant::now() - start, SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn can_be_set_again_after_it_came() {
        let mut deadline = Deadline::never();
        let start = Instant::now();
        for n in 1..=3 {
            deadline.set(Some(start + n * SECOND));
            poll_fn(|cx| deadline.poll_expired(cx)).await;
            assert_eq!(Instant::now() - start, n * SECOND);
        }
    }
}
