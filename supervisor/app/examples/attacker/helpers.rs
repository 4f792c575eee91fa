//! What an attacker of the same user knows of sessionkeep's processes: init is its parent, and
//! init's other children are the helpers.

use std::fs;

/// The process id of init.
pub(super) fn init() -> i32 {
    // SAFETY: it takes nothing and cannot fail.
    unsafe { libc::getppid() }
}

/// The helpers that are alive.
pub(super) fn helpers() -> Vec<i32> {
    let init = init();
    let own = std::process::id().cast_signed();
    let children = fs::read_to_string(format!("/proc/{init}/task/{init}/children"));
    let children = children.unwrap_or_default();
    let all = children
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok());
    all.filter(|pid| *pid != own).collect()
}

/// Sends a signal; says whether it could be sent.
pub(super) fn send(pid: i32, signal: i32) -> bool {
    // SAFETY: `kill` touches no memory of ours.
    pid > 1 && unsafe { libc::kill(pid, signal) } == 0
}
