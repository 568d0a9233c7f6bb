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
pub(crate) struct Rooms(RefCell<Vec<Rc<dyn Any>>>);

/// Those of one kind.
type Free<F> = Rc<RefCell<Vec<Pin<Box<Option<F>>>>>>;

/// A future in memory that goes back to its worker when this is dropped. It is as small as a pointer or two, whatever it does.
pub(crate) struct Lodged<F> {
    room: Option<Pin<Box<Option<F>>>>,
    free: Free<F>,
}

impl Rooms {
    /// Moves the future to where it will be polled.
    pub(crate) fn lodge<F: Future<Output = ()> + 'static>(&self, future: F) -> Lodged<F> {
        let free = self.of::<F>();
        let kept = free.borrow_mut().pop();
        let mut room = kept.unwrap_or_else(|| Box::pin(None));
        room.as_mut().set(Some(future));
        Lodged { room: Some(room), free }
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

impl<F: Future<Output = ()>> Future for Lodged<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match self.room.as_mut().and_then(|room| room.as_mut().as_pin_mut()) {
            Some(future) => future.poll(cx),
            None => Poll::Ready(()),
        }
    }
}

impl<F> Drop for Lodged<F> {
    fn drop(&mut self) {
        if let Some(mut room) = self.room.take() {
            room.as_mut().set(None);
            let mut free = self.free.borrow_mut();
            if free.len() < KEEP {
                free.push(room);
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
        let (rooms, live) = (Rooms::default(), Rc::new(Cell::new(0)));
        let run = || {
            live.set(live.get() + 1);
            let counted = Counted(Rc::clone(&live));
            rooms.lodge(async move {
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
        rooms.lodge(ready(())).await;
        assert_eq!(rooms.0.borrow().len(), 2);
    }
}
