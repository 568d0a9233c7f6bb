//! Memory for futures that are many and end soon: recycled by the worker. Allocated each by itself, those of a burst empty
//! whole pages of the allocator when they end, which go back to the system and are faulted in again for the next burst.

use std::{
    any::Any,
    cell::RefCell,
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

/// How many a worker keeps of each kind of future: as many as there is [scratch memory](super::scratch) for.
const KEEP: usize = 64;

/// A worker's recycled memory.
#[derive(Default)]
pub(crate) struct FuturePool(RefCell<Vec<Rc<dyn Any>>>);

/// Those of one kind.
type Free<F> = Rc<RefCell<Vec<Pin<Box<Option<F>>>>>>;

/// A future in memory that goes back to its worker when this is dropped. It is as small as a pointer or two, whatever it does.
pub(crate) struct Pooled<F> {
    place: Option<Pin<Box<Option<F>>>>,
    free: Free<F>,
}

impl FuturePool {
    /// Moves the future to where it will be polled.
    pub(crate) fn put<F: Future<Output = ()> + 'static>(&self, future: F) -> Pooled<F> {
        let free = self.of::<F>();
        let kept = free.borrow_mut().pop();
        let mut place = kept.unwrap_or_else(|| Box::pin(None));
        place.as_mut().set(Some(future));
        Pooled { place: Some(place), free }
    }

    fn of<F: 'static>(&self) -> Free<F> {
        let mut kinds = self.0.borrow_mut();
        let known = kinds.iter().find_map(|kind| Rc::clone(kind).downcast().ok());
        known.unwrap_or_else(|| {
            let free = Free::<F>::default();
            kinds.push(Rc::clone(&free) as Rc<dyn Any>);
            free
        })
    }
}

impl<F: Future<Output = ()>> Future for Pooled<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match self.place.as_mut().and_then(|place| place.as_mut().as_pin_mut()) {
            Some(future) => future.poll(cx),
            None => Poll::Ready(()),
        }
    }
}

impl<F> Drop for Pooled<F> {
    fn drop(&mut self) {
        if let Some(mut place) = self.place.take() {
            place.as_mut().set(None);
            let mut free = self.free.borrow_mut();
            if free.len() < KEEP {
                free.push(place);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, future::ready};

    use super::*;

    /// Counts itself while it lives.
    struct Counted(Rc<Cell<usize>>);

    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.set(self.0.get() - 1);
        }
    }

    #[tokio::test]
    async fn what_has_ended_is_dropped_and_its_memory_is_used_again() {
        let (pool, live) = (FuturePool::default(), Rc::new(Cell::new(0)));
        let run = || {
            live.set(live.get() + 1);
            let counted = Counted(Rc::clone(&live));
            pool.put(async move {
                tokio::task::yield_now().await;
                drop(counted);
            })
        };
        let all: Vec<_> = (0..100).map(|_| run()).collect();
        assert_eq!(live.get(), 100);
        let mut unpolled = 0;
        for (n, mut one) in all.into_iter().enumerate() {
            if n % 2 == 0 {
                (&mut one).await;
                assert!(live.get() < 100 - n, "it has ended");
            } else {
                unpolled += 1;
            }
        }
        assert_eq!((live.get(), unpolled), (0, 50));
        assert_eq!(run().free.borrow().len(), KEEP - 1);
        assert_eq!(live.get(), 0);
        // Another kind is none of these.
        pool.put(ready(())).await;
        assert_eq!(pool.0.borrow().len(), 2);
    }
}
