//! The one owner of `waitpid(-1)`, and of the knowledge which child is which.
//!
//! A child is entered by the same `&mut self`, in the same thread, that later reaps: there is no
//! moment at which it could end unrecognised.

use std::io;
use std::process::Command;

use super::machine::{Ended, Role};
use super::rights::{send_as_owner, was_refused};

/// What one round of reaping found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Reaped {
    /// Our own children, in the order they were found.
    pub(super) known: Vec<(Role, Ended)>,
    /// Helpers that a signal stopped.
    pub(super) halted: Vec<Role>,
    /// The terminal's signal that stopped the gateway's main process.
    pub(super) stopped: Option<i32>,
    /// Adopted processes.
    pub(super) orphans: Vec<Orphan>,
}

/// A process that was adopted, and has ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Orphan {
    pub(super) pid: i32,
    pub(super) how: Ended,
    /// What it was called, where that is asked for and can be seen.
    pub(super) name: Option<String>,
}

/// Whether the names of orphans are looked up. That takes two system calls and a file for each,
/// which a container that makes thousands of them need not pay.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Names {
    /// They are.
    Wanted,
    /// They are not.
    #[default]
    Unwanted,
}

/// Our own children that are alive.
#[derive(Debug, Default)]
pub(super) struct Children {
    alive: Vec<(i32, Role)>,
    names: Names,
    stops: Stops,
}

/// Whether it matters that the gateway is stopped by its terminal. Without one nothing but the
/// watcher stops it, which lets it go on by itself. That a helper is stopped always does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Stops {
    /// It does.
    Matter,
    /// It does not.
    #[default]
    Pass,
}

impl Children {
    pub(super) fn new(names: Names, stops: Stops) -> Self {
        Self {
            alive: Vec::new(),
            names,
            stops,
        }
    }

    /// Starts a child and enters it.
    pub(super) fn spawn(&mut self, role: Role, command: &mut Command) -> io::Result<i32> {
        // The handle is dropped on purpose: it neither kills nor waits when it is, and waiting
        // is done here.
        let pid = command.spawn()?.id().cast_signed();
        self.alive.push((pid, role));
        Ok(pid)
    }

    /// Enters a child that has been started otherwise.
    pub(super) fn enter(&mut self, role: Role, pid: i32) {
        self.alive.push((pid, role));
    }

    /// The process id of a child that is alive.
    pub(super) fn pid(&self, role: Role) -> Option<i32> {
        let (pid, _) = self.alive.iter().find(|(_, r)| *r == role)?;
        Some(*pid)
    }

    /// The process ids of our helpers.
    pub(super) fn helpers(&self) -> Vec<i32> {
        self.alive
            .iter()
            .filter(|(_, role)| *role != Role::Gateway)
            .map(|(pid, _)| *pid)
            .collect()
    }

    /// Sends a signal to a child, if it is alive. Its id cannot be another's: it is free only
    /// after [`Children::reap`] has taken the child off the list.
    pub(super) fn signal(&self, role: Role, signal: i32) -> bool {
        self.pid(role).is_some_and(|pid| send(pid, signal))
    }

    /// Sends a signal to everything in the process group that a child leads.
    pub(super) fn signal_group(&self, role: Role, signal: i32) -> bool {
        self.pid(role).is_some_and(|pid| {
            // SAFETY: `kill` touches no memory of ours. The group's id is not used anew while its
            // leader is not reaped.
            let sent = unsafe { libc::kill(-pid, signal) } == 0;
            sent || (was_refused() && send_as_owner(pid, -pid, signal))
        })
    }

    /// Reaps everything that has ended; never waits.
    pub(super) fn reap(&mut self) -> Reaped {
        let mut reaped = Reaped::default();
        let options = libc::WNOHANG | libc::WUNTRACED;
        loop {
            // A zombie has its name until it is reaped.
            let (whose, name) = match self.names {
                Names::Wanted => match ended() {
                    Some(pid) => (pid, name_of(pid)),
                    None => return reaped,
                },
                Names::Unwanted => (-1, None),
            };
            let mut status = 0;
            // SAFETY: `status` is a valid place for the kernel to write to.
            let pid = unsafe { libc::waitpid(whose, &raw mut status, options) };
            if pid <= 0 {
                // 0: the rest is alive. ECHILD: there is no child. Nothing else can be returned
                // with WNOHANG.
                return reaped;
            }
            if libc::WIFSTOPPED(status) {
                let signal = libc::WSTOPSIG(status);
                let by_terminal = matches!(signal, libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU);
                match self.alive.iter().find(|(p, _)| *p == pid) {
                    Some((_, Role::Gateway)) if by_terminal && self.stops == Stops::Matter => {
                        reaped.stopped = Some(signal);
                    }
                    Some((_, role @ (Role::Restorer | Role::Watcher))) => {
                        reaped.halted.push(*role);
                    }
                    _ => {}
                }
                continue;
            }
            let how = if libc::WIFSIGNALED(status) {
                Ended::Killed(libc::WTERMSIG(status))
            } else {
                Ended::Exited(u8::try_from(libc::WEXITSTATUS(status)).unwrap_or(u8::MAX))
            };
            match self.alive.iter().position(|(p, _)| *p == pid) {
                Some(at) => {
                    let (_, role) = self.alive.swap_remove(at);
                    reaped.known.push((role, how));
                }
                None => reaped.orphans.push(Orphan { pid, how, name }),
            }
        }
    }
}

/// A child that has ended and waits to be reaped, or has been stopped.
fn ended() -> Option<i32> {
    let options = libc::WEXITED | libc::WSTOPPED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: all zeroes is a valid value of the structure, which the kernel fills; it stays zero
    // where there is nobody, and then its process id is.
    let (result, pid) = unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let result = libc::waitid(libc::P_ALL, 0, &raw mut info, options);
        (result, info.si_pid())
    };
    (result == 0 && pid > 0).then_some(pid)
}

fn name_of(pid: i32) -> Option<String> {
    let name = std::fs::read(format!("/proc/{pid}/comm")).ok()?;
    Some(String::from_utf8_lossy(&name).trim_end().to_owned())
}

/// Sends a signal; says whether there was somebody to get it.
pub(super) fn send(pid: i32, signal: i32) -> bool {
    if pid <= 0 {
        return false;
    }
    // SAFETY: `kill` touches no memory of ours.
    let sent = unsafe { libc::kill(pid, signal) } == 0;
    sent || (was_refused() && send_as_owner(pid, pid, signal))
}
