//! Signals to processes of another user, where root lacks the right to send them.
//!
//! Under `cap_drop: ALL` root has no `CAP_KILL`. A gateway that gives up root is then out of reach, but
//! not for a process of its own user: a fork of init becomes one and sends the signal.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::unistd::{Uid, setresuid};
use tracing::warn;

use super::fork::{Side, fork};

/// Numbers of capabilities, from `capability.h`.
const CAP_DAC_OVERRIDE: u32 = 1;
const CAP_KILL: u32 = 5;
const CAP_SETUID: u32 = 7;

/// Whether this process may not signal those of other users, though it is root.
pub fn is_root_without_kill() -> bool {
    Uid::effective().is_root() && !has(CAP_KILL)
}

/// Says so where that is the case.
pub(super) fn warn_without_kill() {
    if is_root_without_kill() {
        let remedy = "cap_add: [KILL]";
        if has(CAP_SETUID) {
            warn!(target: "init", remedy, "root without CAP_KILL: a gateway that gives up root is signalled by a process that does the same");
        } else {
            warn!(target: "init", remedy, "root without CAP_KILL: a gateway that gives up root cannot be stopped by us");
        }
    }
}

/// Whether this process may not read and write what is kept from all but another user, though it is root.
pub fn is_root_without_override() -> bool {
    Uid::effective().is_root() && !has(CAP_DAC_OVERRIDE)
}

/// Says so where that is the case.
pub(super) fn warn_without_override() {
    if is_root_without_override() {
        warn!(target: "init", remedy = "cap_add: [DAC_OVERRIDE]", "root without CAP_DAC_OVERRIDE: what a gateway that gives up root keeps to itself can neither be read nor put back");
    }
}

/// Whether a capability is in force; where that cannot be found out, it is taken to be.
fn has(capability: u32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let set = set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    set.is_none_or(|set| set >> capability & 1 == 1)
}

/// Sends a signal that was refused to us, as the user of `of`; `to` is that process or its group.
/// Says whether somebody is at it. The fork is reaped as any child is, and not waited for: the other
/// user could stop it.
pub(super) fn send_as_owner(of: i32, to: i32, signal: i32) -> bool {
    let Some(uid) = owner(of) else {
        return false;
    };
    if !Uid::effective().is_root() || !has(CAP_SETUID) {
        // A stop tries again and again until its time is over.
        if is_first_refusal(of) {
            warn!(target: "init", pid = of, uid, signal, remedy = "cap_add: [KILL]", "failed to signal a process of another user: CAP_KILL is missing");
        }
        return false;
    }
    match fork() {
        Ok(Side::Parent(_)) => true,
        Ok(Side::Child) => {
            // The real user alone: that is enough to signal, and one whose effective user changed could be
            // looked into by that user where `fs.suid_dumpable` allows it, and has all that init has in
            // its memory.
            let (user, unchanged) = (Uid::from_raw(uid), Uid::from_raw(u32::MAX));
            let sent = setresuid(user, unchanged, unchanged) == Ok(()) && {
                // SAFETY: `kill` touches no memory of ours.
                (unsafe { libc::kill(to, signal) }) == 0
            };
            // SAFETY: it ends this process at once, which has nothing to clean up.
            unsafe { libc::_exit(i32::from(!sent)) }
        }
        Err(error) => {
            warn!(target: "init", pid = of, uid, signal, %error, "failed to signal a process of another user");
            false
        }
    }
}

/// Whether it is the first time that this process could not be signalled.
fn is_first_refusal(pid: i32) -> bool {
    static REFUSED: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());
    let mut refused = REFUSED.lock().unwrap_or_else(PoisonError::into_inner);
    refused.insert(pid)
}

/// The real user of a process, which is the one that counts for signals.
fn owner(pid: i32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Whether the last call was refused for want of a right.
pub(super) fn was_refused() -> bool {
    Errno::last() == Errno::EPERM
}
