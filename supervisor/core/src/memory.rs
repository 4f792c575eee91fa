//! Gives back memory that something large, or the start, needed and waiting does not.
//!
//! Reading settings, forking, connecting and logging the first lines touch some megabytes of the
//! program's code and constants, of which waiting in `poll` needs next to nothing. The kernel keeps
//! them mapped, and counted, until there is pressure; on a host of 512 MB that is worth not waiting
//! for. The same goes for what the allocator keeps of memory that was freed.

use std::ffi::{CStr, c_void};
use std::ops::Range;

/// What the kernel maps into every process under this name is no file.
const KERNELS: &[u8] = b"linux-";

/// Lets go of freed memory, and of the pages of the program and its libraries that are never
/// written to. Those are read again from the page cache, a few at a time, as far as they are needed.
pub fn give_back() {
    for range in read_only() {
        // SAFETY: the range lies inside a segment that its file says is never writable, so that no
        // page of it can differ from the file: dropping them loses nothing, and the next touch
        // maps the same content again. What the loader relocates is writable at first, and hence
        // never in it.
        unsafe {
            libc::madvise(
                range.start as *mut c_void,
                range.end - range.start,
                libc::MADV_DONTNEED,
            );
        }
    }
    trim_heap();
}

/// Lets go of freed memory. The allocator would keep it for later, which is right within a piece of
/// work and wrong between a large one and the next.
pub fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes no pointer and may be called at any time from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Whole pages of segments that are not writable.
fn read_only() -> Vec<Range<usize>> {
    unsafe extern "C" fn take(
        info: *mut libc::dl_phdr_info,
        _size: usize,
        found: *mut c_void,
    ) -> libc::c_int {
        // SAFETY: the loader passes a valid structure, whose headers live as long as the program,
        // and `found` is the vector below.
        let (info, found) = unsafe { (&*info, &mut *found.cast::<Vec<Range<usize>>>()) };
        // SAFETY: as above; the name ends with a zero.
        let name = unsafe { CStr::from_ptr(info.dlpi_name) };
        if name.to_bytes().starts_with(KERNELS) {
            return 0;
        }
        // SAFETY: as above.
        let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
        for header in headers {
            if header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0 {
                let from = (info.dlpi_addr + header.p_vaddr) as usize;
                found.push(from..from + header.p_memsz as usize);
            }
        }
        0
    }
    // SAFETY: it only asks.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    let Ok(page @ 1..) = usize::try_from(page) else {
        return Vec::new();
    };
    let mut found: Vec<Range<usize>> = Vec::new();
    // SAFETY: the callback fits the vector that it is given.
    unsafe { libc::dl_iterate_phdr(Some(take), (&raw mut found).cast()) };
    found
        .into_iter()
        .map(|range| range.start.next_multiple_of(page)..range.end / page * page)
        .filter(|range| range.start < range.end)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_never_written_to_is_let_go_of() {
        static CONSTANT: [u8; 5000] = [7; 5000];
        static WRITTEN: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(1);
        let ranges = read_only();
        let holds = |at: usize| ranges.iter().any(|range| range.contains(&at));
        assert!(holds(CONSTANT[2500..].as_ptr() as usize), "{ranges:?}");
        assert!(!holds(&raw const WRITTEN as usize), "{ranges:?}");
        // A table of pointers is relocated, and read-only only after that.
        static TABLE: [&str; 2] = ["a", "b"];
        assert!(!holds(&raw const TABLE as usize), "{ranges:?}");
    }

    #[test]
    fn the_program_runs_on_without_its_start() {
        for _ in 0..3 {
            give_back();
            let text: String = (0..1000).map(|n| format!("{n:x}")).collect();
            assert!(text.ends_with("3e7"));
        }
    }
}
