//! mimalloc, asked for what is aligned only where it does not do so by itself: its own crate asks always, which is a detour for all
//! that is not small.

use std::alloc::{GlobalAlloc, Layout};

use libmimalloc_sys as mi;

/// The allocator of the program.
#[derive(Debug)]
pub struct Allocator;

/// How all is aligned that is not smaller than this (`MI_MAX_ALIGN_SIZE` in mimalloc/types.h); what is smaller, by its size.
const ALIGNED: usize = 16;

#[inline]
fn is_aligned_so(size: usize, align: usize) -> bool {
    align <= ALIGNED && align <= size
}

// SAFETY: mimalloc's functions are malloc(3)'s and aligned_alloc(3)'s: what they return is theirs who ask until it is freed, of
// that size and aligned so, or null; none of them unwinds. All memory is mimalloc's, so that each may free what another has
// returned.
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        // SAFETY: an alignment is a power of two.
        unsafe {
            if is_aligned_so(size, align) { mi::mi_malloc(size) } else { mi::mi_malloc_aligned(size, align) }
        }
        .cast()
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        // SAFETY: as above.
        unsafe {
            if is_aligned_so(size, align) { mi::mi_zalloc(size) } else { mi::mi_zalloc_aligned(size, align) }
        }
        .cast()
    }

    #[inline]
    unsafe fn dealloc(&self, pointer: *mut u8, _: Layout) {
        // SAFETY: the caller has it of this allocator.
        unsafe { mi::mi_free(pointer.cast()) }
    }

    #[inline]
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let align = layout.align();
        // SAFETY: the caller has it of this allocator; else as above.
        unsafe {
            if is_aligned_so(size, align) {
                mi::mi_realloc(pointer.cast(), size)
            } else {
                mi::mi_realloc_aligned(pointer.cast(), size, align)
            }
        }
        .cast()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn is_aligned_by(pointer: *mut u8, align: usize) -> bool {
        !pointer.is_null() && pointer.addr().is_multiple_of(align)
    }

    #[test]
    fn all_is_aligned_as_it_is_asked_for_and_keeps_what_it_holds() {
        let sizes = (1..=300).chain((9..18).flat_map(|bits| [(1 << bits) - 1, 1 << bits, (1 << bits) + 8]));
        for (size, align) in sizes.flat_map(|size| [1, 2, 4, 8, 16, 32, 64, 4096].map(|align| (size, align)))
        {
            let layout = Layout::from_size_align(size, align).unwrap();
            let other = size * 3 / 2 + 1;
            // SAFETY: what is written and read is within what was asked for; it is freed once.
            unsafe {
                let zeroed = Allocator.alloc_zeroed(layout);
                assert!(is_aligned_by(zeroed, align), "{size} bytes by {align}");
                assert!((0..size).all(|at| *zeroed.add(at) == 0), "{size} bytes by {align}");
                Allocator.dealloc(zeroed, layout);
                let mut pointers = [const { std::ptr::null_mut::<u8>() }; 8];
                for pointer in &mut pointers {
                    *pointer = Allocator.alloc(layout);
                    assert!(is_aligned_by(*pointer, align), "{size} bytes by {align}");
                    pointer.write_bytes(7, size);
                }
                for pointer in pointers {
                    let larger = Allocator.realloc(pointer, layout, other);
                    assert!(is_aligned_by(larger, align), "{other} bytes by {align}");
                    assert!((0..size).all(|at| *larger.add(at) == 7), "{size} bytes by {align}");
                    Allocator.dealloc(larger, Layout::from_size_align(other, align).unwrap());
                }
            }
        }
    }
}
