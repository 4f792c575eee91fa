//! Clocks that are wrong, or are set: libfaketime shows a program another time of day.
#![allow(dead_code, reason = "each test program uses what it needs of it")]

use std::fs;
use std::path::{Path, PathBuf};

/// The library, where it is installed; in CI it has to be.
pub(crate) fn library() -> Option<PathBuf> {
    named("libfaketime.so.1")
}

/// The same for a program that has many threads.
pub(crate) fn library_for_threads() -> Option<PathBuf> {
    named("libfaketimeMT.so.1")
}

fn named(name: &str) -> Option<PathBuf> {
    let arch = std::env::consts::ARCH;
    let library = PathBuf::from(format!("/usr/lib/{arch}-linux-gnu/faketime/{name}"));
    if library.exists() {
        return Some(library);
    }
    crate::policy::cannot_run("libfaketime is not installed");
    None
}

/// Sets the clock of every program that was started with [`environment`] of this file: `+0`, `-1h`.
pub(crate) fn set(clock: &Path, offset: &str) {
    // Whole or not at all, since it is read at any time.
    let new = clock.with_extension("new");
    fs::write(&new, offset).expect("write");
    fs::rename(&new, clock).expect("rename");
}

/// What a program is started with whose time of day is as the file says, and whose other clocks are
/// the kernel's.
pub(crate) fn environment(library: &Path, clock: &Path) -> [(&'static str, String); 5] {
    [
        ("LD_PRELOAD", library.display().to_string()),
        ("FAKETIME_TIMESTAMP_FILE", clock.display().to_string()),
        ("FAKETIME_NO_CACHE", "1".to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        // The times of files are the kernel's.
        ("NO_FAKE_STAT", "1".to_owned()),
    ]
}
