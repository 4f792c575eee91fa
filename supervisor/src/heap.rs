//! The allocator, where it has to be told.

/// Gives the room of what was let go of back to the kernel. The allocator would keep it for later,
/// which is right within a piece of work and wrong between a large one and the next.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes no pointer and may be called at any time from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
