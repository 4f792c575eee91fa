//! How helpers are started: PID 1 forks and the child goes on as the helper, without `execve`.
//!
//! `execve` would make a process open to its own user again until it has said otherwise: the
//! gateway, which may kill the watcher and so decides when the next one starts, could attach in
//! between, or keep a descriptor of `/proc/PID/mem` for later. A fork of a process that is not
//! dumpable is not dumpable from its first moment, and nothing has to be handed over in an
//! environment, in arguments, or at all. PID 1 has one thread, so that a fork is a whole copy.

use std::io;
use std::os::fd::RawFd;

use super::signals::{Inherited, check};

/// Which of the two somebody is after a fork.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// PID 1, and the child's process id.
    Parent(i32),
    /// The child.
    Child,
}

/// Forks.
///
/// # Errors
/// If there is no process to be had.
pub(super) fn fork() -> io::Result<Side> {
    // SAFETY: this process has one thread, so that no lock can be held by another one that the
    // child does not have.
    match check(unsafe { libc::fork() })? {
        0 => Ok(Side::Child),
        pid => Ok(Side::Parent(pid)),
    }
}

/// Makes the child of `parent` a helper. To be called in the child, before anything else.
///
/// It gets a session of its own, so that neither a terminal's interrupt nor a signal to our group
/// reaches it: when it ends is for init to say. It does not outlive init, and has none of init's
/// descriptors but the standard ones and `keep`.
///
/// # Errors
/// If the kernel refuses one of it, or init has died meanwhile.
pub(super) fn become_helper(parent: i32, inherited: Inherited, keep: &[RawFd]) -> io::Result<()> {
    // SAFETY: none of these touches memory of ours.
    unsafe {
        check(libc::setsid())?;
        check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM))?;
        // Init may have died before the line above; then nobody would tell us.
        if libc::getppid() != parent {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
    }
    close_all_but(keep);
    ignore_input();
    inherited.restore()
}

/// The gateway's input is not a helper's to read. A container without /dev/null is no reason not
/// to start.
fn ignore_input() {
    let Ok(null) = std::fs::File::open("/dev/null") else {
        return;
    };
    let _ = nix::unistd::dup2_stdin(null);
}

/// Closes every descriptor from 3 up that is not in `keep`. By number, and not by dropping what
/// owns them: a lock that is dropped is unlocked, and it is the parent's too.
fn close_all_but(keep: &[RawFd]) {
    let mut keep: Vec<RawFd> = keep.iter().copied().filter(|fd| *fd > 2).collect();
    keep.sort_unstable();
    let mut from = 3;
    for fd in keep {
        close_range(from, fd - 1);
        from = fd + 1;
    }
    close_range(from, RawFd::MAX);
}

fn close_range(from: RawFd, to: RawFd) {
    if from > to {
        return;
    }
    // SAFETY: what owns these descriptors is never used again in this process, nor dropped.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, from, to, 0) };
    if closed == 0 {
        return;
    }
    // A kernel, or a seccomp profile, that does not know the call yet.
    for fd in open_descriptors() {
        if (from..=to).contains(&fd) {
            // SAFETY: as above.
            unsafe { libc::close(fd) };
        }
    }
}

fn open_descriptors() -> Vec<RawFd> {
    /// How far is looked without `/proc`: PID 1 has a dozen.
    const WITHOUT_PROC: RawFd = 256;
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else {
        return (3..WITHOUT_PROC).collect();
    };
    let number = |entry: std::fs::DirEntry| entry.file_name().to_str()?.parse().ok();
    entries.flatten().filter_map(number).collect()
}
