//! A panic is a mistake of ours, and no message for a user: it becomes one plain line, and the exit
//! code of an internal error.

use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook};

use crate::process::threads;

/// From here on panics are told in one line. With `RUST_BACKTRACE` set they are told as ever, for
/// whoever looks for the mistake.
pub(super) fn tell_plainly() {
    if std::env::var_os("RUST_BACKTRACE").is_none() {
        set_hook(Box::new(tell));
    }
}

fn tell(panic: &PanicHookInfo<'_>) {
    use std::io::Write as _;
    let words = panic.payload_as_str().unwrap_or("it gives no reason");
    let mut line = match threads::explain(words) {
        Some(error) => format!("error: {error}"),
        None => format!("error: this is a bug in sessionkeep: {words}"),
    };
    if let Some(at) = panic.location() {
        let _ = write!(line, " ({}:{})", at.file(), at.line());
    }
    line.push('\n');
    // In one piece, since others write there, too. A reader that has gone is no trouble.
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// What `work` gives; `None` where it panics, which has been told.
pub(super) fn caught<T>(work: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(work)).ok()
}
