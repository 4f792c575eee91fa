//! The file system that SQLite sees when it reads a gateway's database: its own, but for one rule. It
//! opens, deletes and asks for nothing but files in a directory that we hold open.
//!
//! SQLite resolves every link in a path before it opens the file, and opens that path from the root: a
//! directory that is exchanged for a link in between leads it elsewhere. Here a path is taken as it is
//! (see [`sessionkeep_core::beneath::Place`]); SQLite itself follows no link at its end.
//!
//! And a rollback journal that its writer left behind names, where it was part of a transaction over
//! several databases, a file that SQLite reads and deletes, wherever that is. The gateway writes those
//! journals, so such a name is not believed: the snapshot fails, until the gateway has rolled back
//! its transaction itself.

use std::ffi::{CStr, c_char, c_int};
use std::ptr;
use std::sync::OnceLock;

use rusqlite::ffi::{self, sqlite3_file, sqlite3_vfs};

use sessionkeep_core::beneath::DESCRIPTORS;

const NAME: &CStr = c"sessionkeep-beneath";

/// SQLite's own, which does the work.
struct Base(*mut sqlite3_vfs);

// SAFETY: SQLite's own file system is never removed, and is used by all threads as it is.
unsafe impl Send for Base {}
// SAFETY: as above.
unsafe impl Sync for Base {}

/// The name to open a database with. Registered when it is first asked for.
pub(super) fn name() -> &'static CStr {
    let _ = base();
    NAME
}

fn base() -> &'static sqlite3_vfs {
    static BASE: OnceLock<Base> = OnceLock::new();
    let Base(base) = BASE.get_or_init(|| {
        // SAFETY: SQLite hands out its default file system, which lives as long as the process. Ours is a
        // copy of it, so that all that it does not replace works as there; it is leaked on purpose,
        // since SQLite keeps the pointer.
        unsafe {
            let base = ffi::sqlite3_vfs_find(ptr::null());
            assert!(!base.is_null(), "SQLite has a file system");
            let ours = Box::leak(Box::new(sqlite3_vfs {
                pNext: ptr::null_mut(),
                zName: NAME.as_ptr(),
                xOpen: Some(open),
                xDelete: Some(delete),
                xAccess: Some(access),
                xFullPathname: Some(full_pathname),
                ..*base
            }));
            // It only fails where SQLite itself could not be initialized; opening tells then.
            ffi::sqlite3_vfs_register(ours, 0);
            Base(base)
        }
    });
    // SAFETY: see above.
    unsafe { &**base }
}

/// Whether the path is that of a file in a directory that we hold open.
fn is_held(path: &[u8]) -> bool {
    let Some(rest) = path.strip_prefix(DESCRIPTORS.as_bytes()) else {
        return false;
    };
    let mut parts = rest.split(|byte| *byte == b'/');
    let (number, name) = (parts.next().unwrap_or_default(), parts.next());
    !number.is_empty()
        && number.iter().all(u8::is_ascii_digit)
        && name.is_some_and(|name| !matches!(name, b"" | b"." | b".."))
        && parts.next().is_none()
}

/// # Safety
/// As [`CStr::from_ptr`], but that it may be null.
unsafe fn is_held_or_none(path: *const c_char) -> bool {
    // SAFETY: the caller's.
    path.is_null() || is_held(unsafe { CStr::from_ptr(path) }.to_bytes())
}

unsafe extern "C" fn open(
    vfs: *mut sqlite3_vfs,
    path: ffi::sqlite3_filename,
    file: *mut sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite passes a path that ends with zero, or none for a temporary file, and room for a file.
    unsafe {
        let several = flags & ffi::SQLITE_OPEN_SUPER_JOURNAL != 0;
        match base().xOpen {
            Some(open) if !several && is_held_or_none(path) => {
                open(vfs, path, file, flags, out_flags)
            }
            _ => {
                // What was not opened is not to be closed.
                (*file).pMethods = ptr::null();
                ffi::SQLITE_CANTOPEN
            }
        }
    }
}

unsafe extern "C" fn delete(vfs: *mut sqlite3_vfs, path: *const c_char, sync: c_int) -> c_int {
    // SAFETY: SQLite passes a path that ends with zero.
    unsafe {
        match base().xDelete {
            Some(delete) if is_held_or_none(path) => delete(vfs, path, sync),
            _ => ffi::SQLITE_IOERR_DELETE,
        }
    }
}

unsafe extern "C" fn access(
    vfs: *mut sqlite3_vfs,
    path: *const c_char,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    // SAFETY: SQLite passes a path that ends with zero, and a place for the answer.
    unsafe {
        match base().xAccess {
            Some(access) if is_held_or_none(path) => access(vfs, path, flags, out),
            _ => ffi::SQLITE_IOERR_ACCESS,
        }
    }
}

/// The path as it is.
unsafe extern "C" fn full_pathname(
    _: *mut sqlite3_vfs,
    path: *const c_char,
    room: c_int,
    out: *mut c_char,
) -> c_int {
    // SAFETY: SQLite passes a path that ends with zero, and `room` bytes for the answer.
    unsafe {
        let bytes = CStr::from_ptr(path).to_bytes_with_nul();
        if usize::try_from(room).is_ok_and(|room| bytes.len() > room) {
            return ffi::SQLITE_CANTOPEN;
        }
        ptr::copy_nonoverlapping(bytes.as_ptr().cast(), out, bytes.len());
    }
    ffi::SQLITE_OK
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_in_directories_that_are_held_open_are_opened() {
        for path in ["/proc/self/fd/7/a.db", "/proc/self/fd/12/a.db-wal"] {
            assert!(is_held(path.as_bytes()), "{path}");
        }
        for path in [
            "/etc/passwd",
            "a.db",
            "",
            "/proc/self/fd/",
            "/proc/self/fd/7",
            "/proc/self/fd/7/",
            "/proc/self/fd/7/..",
            "/proc/self/fd/7/a/b",
            "/proc/self/fd/../a.db",
            "/proc/self/fd//a.db",
        ] {
            assert!(!is_held(path.as_bytes()), "{path}");
        }
    }
}
