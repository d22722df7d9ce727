//! Memory for a process that lives for a millisecond.
//!
//! musl's allocator maps and unmaps pages for a handful of objects, and a process that makes a few hundred spends a tenth
//! of its life with that. Here objects stand one behind the other in a piece of memory that is there from the start; what
//! does not fit comes from the system's allocator. Memory that is freed is used again only if it is the newest.

#![expect(unsafe_code, reason = "an allocator hands out raw memory")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Enough for a call that attaches or detaches a container; only what is used of it is ever backed by memory.
const SIZE: usize = 256 * 1024;

/// The global allocator of a short-lived process.
#[derive(Debug)]
pub struct Arena {
    memory: UnsafeCell<[u8; SIZE]>,
    used: AtomicUsize,
}

// SAFETY: each byte of `memory` is handed out to one owner at a time, as `used` changes by compare-and-exchange only.
unsafe impl Sync for Arena {}

impl Arena {
    /// An arena of which nothing is used.
    #[must_use]
    pub const fn new() -> Self {
        Self { memory: UnsafeCell::new([0; SIZE]), used: AtomicUsize::new(0) }
    }

    /// Where an object's memory begins, counted from the arena's; `None` if it is the system's.
    fn offset(&self, object: *mut u8) -> Option<usize> {
        object.addr().checked_sub(self.memory.get().addr()).filter(|offset| *offset < SIZE)
    }
}

impl Default for Arena {
    fn default() -> Self {
        Self::new()
    }
}

// SAFETY: memory from the arena is aligned, within it, and not handed out again before it is freed; the rest is the
// system allocator's, to which it goes back.
unsafe impl GlobalAlloc for Arena {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let base = self.memory.get().cast::<u8>();
        let taken = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            let start = (base.addr() + used).next_multiple_of(layout.align()) - base.addr();
            start.checked_add(layout.size()).filter(|end| *end <= SIZE)
        });
        match taken {
            Ok(used) => {
                let start = (base.addr() + used).next_multiple_of(layout.align()) - base.addr();
                // SAFETY: `start` and what follows lie within the arena, as was just checked.
                unsafe { base.add(start) }
            }
            // SAFETY: the caller's promise about `layout` is passed on.
            Err(_) => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn dealloc(&self, object: *mut u8, layout: Layout) {
        match self.offset(object) {
            // The newest object makes room again; if another has come behind it, its memory stays taken.
            Some(offset) => {
                let end = offset + layout.size();
                let _ = self.used.compare_exchange(end, offset, Ordering::Relaxed, Ordering::Relaxed);
            }
            // SAFETY: what is not the arena's came from the system's allocator.
            None => unsafe { System.dealloc(object, layout) },
        }
    }

    unsafe fn realloc(&self, object: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let Some(offset) = self.offset(object) else {
            // SAFETY: what is not the arena's came from the system's allocator.
            return unsafe { System.realloc(object, layout, new_size) };
        };
        let (end, new_end) = (offset + layout.size(), offset.saturating_add(new_size));
        // The newest object grows, or shrinks, where it is.
        if new_end <= SIZE && self.used.compare_exchange(end, new_end, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            return object;
        }
        if new_size <= layout.size() {
            return object;
        }
        // SAFETY: the alignment is that of a valid layout, and the caller promises that the size does not overflow it. The
        // old memory is as long as the copy, and the new memory is not the old.
        unsafe {
            let moved = self.alloc(Layout::from_size_align_unchecked(new_size, layout.align()));
            if !moved.is_null() {
                std::ptr::copy_nonoverlapping(object, moved, layout.size());
                self.dealloc(object, layout);
            }
            moved
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        // Each step looks at every object that lives.
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Objects keep what is written into them, whatever comes and goes around them.
        #[test]
        fn objects_never_overlap(steps in proptest::collection::vec((0usize..3, 1usize..9000, 0u32..7, any::<usize>()), 1..300)) {
            let arena = Arena::new();
            let mut live: Vec<(*mut u8, Layout, u8)> = Vec::new();
            let holds = |(object, layout, mark): &(*mut u8, Layout, u8)| {
                // SAFETY: the object is live and as long as its layout says.
                (0..layout.size()).all(|at| unsafe { *object.add(at) } == *mark)
            };
            for (mark, (kind, size, align, pick)) in (0u8..=255).cycle().zip(steps) {
                let layout = Layout::from_size_align(size, 1 << align).unwrap();
                // SAFETY: sizes are not zero, objects are freed once and with the layout they were made with.
                unsafe {
                    if kind == 0 || live.is_empty() {
                        let object = arena.alloc(layout);
                        prop_assert!(!object.is_null() && object.addr().is_multiple_of(layout.align()));
                        object.write_bytes(mark, size);
                        live.push((object, layout, mark));
                    } else if kind == 1 {
                        let (object, old, mark) = live.swap_remove(pick % live.len());
                        prop_assert!(holds(&(object, old, mark)));
                        arena.dealloc(object, old);
                    } else {
                        let at = pick % live.len();
                        let (object, old, old_mark) = live[at];
                        let grown = arena.realloc(object, old, size);
                        let kept = old.size().min(size);
                        prop_assert!((0..kept).all(|at| *grown.add(at) == old_mark));
                        grown.write_bytes(mark, size);
                        live[at] = (grown, Layout::from_size_align(size, old.align()).unwrap(), mark);
                    }
                }
                prop_assert!(live.iter().all(holds));
            }
            for (object, layout, _) in live {
                // SAFETY: as above.
                unsafe { arena.dealloc(object, layout) };
            }
        }
    }
}
