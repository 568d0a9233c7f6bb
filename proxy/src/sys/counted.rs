//! The allocator of the unit tests: the system's, with what each thread has of it counted.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
}

struct Counted;

#[global_allocator]
static COUNTED: Counted = Counted;

/// Bytes that this thread has allocated and no thread of its kind freed.
pub(crate) fn live() -> isize {
    LIVE.get()
}

/// The most of them since the last call.
pub(crate) fn take_most() -> isize {
    MOST.replace(LIVE.get())
}

fn count(change: isize) {
    // A thread that ends frees its own.
    let _ = LIVE.try_with(|live| {
        live.set(live.get() + change);
        let _ = MOST.try_with(|most| most.set(most.get().max(live.get())));
    });
}

// SAFETY: all is the system's; counting allocates nothing.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: as for the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: as for the caller.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as isize - layout.size() as isize);
        // SAFETY: as for the caller.
        unsafe { System.realloc(pointer, layout, size) }
    }
}
