//! Gives back the memory that only the start needed.
//!
//! Reading settings, forking and logging the first lines touch some three megabytes of the
//! program's code, of which waiting in `poll` needs next to nothing. The kernel keeps them mapped,
//! and counted, until there is pressure; on a host of 512 MB that is worth not waiting for.

use std::fs;

/// Lets go of the program's own code pages. They are read again from the page cache, a few at a
/// time, as far as they are needed.
pub(super) fn release_start() {
    let Ok(maps) = fs::read_to_string("/proc/self/maps") else {
        return;
    };
    let Ok(program) = fs::read_link("/proc/self/exe") else {
        return;
    };
    let Some(program) = program.to_str() else {
        return;
    };
    for line in maps.lines().filter(|line| line.ends_with(program)) {
        let Some((from, to)) = code(line) else {
            continue;
        };
        // SAFETY: the range is a whole mapping of this program's file that is private, not
        // writable and executable: no page of it can differ from the file, so dropping them loses
        // nothing, and the next touch maps the same content again. Relocated data is never
        // executable and hence never in it.
        unsafe {
            libc::madvise(from as *mut libc::c_void, to - from, libc::MADV_DONTNEED);
        }
    }
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim takes no pointer and may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// The range of a mapping, if it is code: `55d0-55e0 r-xp 0000 fe:00 123 /path`.
fn code(line: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_whitespace();
    let (range, rights) = (fields.next()?, fields.next()?);
    let (from, to) = range.split_once('-')?;
    let address = |hex| usize::from_str_radix(hex, 16).ok();
    let range = (address(from)?, address(to)?);
    (rights == "r-xp" && range.0 < range.1).then_some(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_is_let_go_of() {
        assert_eq!(
            code("1000-3000 r-xp 00251000 fe:00 5 /bin/x"),
            Some((0x1000, 0x3000))
        );
        for other in ["r--p", "rw-p", "r-xs", "rwxp"] {
            assert_eq!(code(&format!("1000-3000 {other} 0 fe:00 5 /bin/x")), None);
        }
        assert_eq!(code("garbage"), None);
        assert_eq!(code("3000-1000 r-xp 0 0 0 x"), None);
    }

    #[test]
    fn the_program_runs_on_without_its_start() {
        for _ in 0..3 {
            release_start();
            let text: String = (0..1000).map(|n| format!("{n:x}")).collect();
            assert!(text.ends_with("3e7"));
        }
    }
}
