//! The terminal that a person sits at (`docker run -it`, or a shell's job): the gateway is its
//! foreground job, as if nobody stood between.
//!
//! Where standard input is our controlling terminal, the gateway stays in our session and leads a
//! process group of its own, which is made the foreground one: `^C`, `^\`, the window's size and
//! input reach it straight from the kernel. In a session of its own it would have no terminal at
//! all, since a terminal belongs to one session. Giving ours up for it would make the kernel send
//! us HUP and CONT, which then could not be told from real ones; so there is none to be ignored.
//!
//! `^Z` stops the gateway only. Where a shell with job control is above us we stop as well, so
//! that the shell takes over; on `fg` the terminal is handed to the gateway again. Where there is
//! none, as in a container, nobody could let the gateway go on, so it goes on at once.

use std::io::{IsTerminal, stdin};
use std::os::fd::AsRawFd;

use super::machine::Resumer;
use super::signals::check;

/// How a gateway is placed when it is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Placement {
    /// In a session of its own.
    OwnSession,
    /// In our session, in a group of its own, as the terminal's foreground job.
    Foreground,
    /// The same, but another group has the terminal.
    Background,
}

impl Placement {
    /// To be called in the child, between fork and exec: only calls that are safe there.
    pub(super) fn take(self) -> std::io::Result<()> {
        const STDIN: i32 = libc::STDIN_FILENO;
        // SAFETY: plain system calls; the set is filled before it is used.
        unsafe {
            if self == Self::OwnSession {
                check(libc::setsid())?;
                // A terminal that no session has becomes the gateway's. If one has it, the
                // kernel refuses, and all is as without a terminal.
                if libc::isatty(STDIN) == 1 {
                    libc::ioctl(STDIN, libc::TIOCSCTTY, 0);
                }
                return Ok(());
            }
            check(libc::setpgid(0, 0))?;
            if self == Self::Foreground {
                // From outside of the foreground this call stops the caller, unless the signal is
                // blocked. The mask is put right after this.
                let mut set = std::mem::zeroed();
                libc::sigemptyset(&raw mut set);
                libc::sigaddset(&raw mut set, libc::SIGTTOU);
                check(libc::sigprocmask(
                    libc::SIG_BLOCK,
                    &raw const set,
                    std::ptr::null_mut(),
                ))?;
                libc::tcsetpgrp(STDIN, libc::getpid());
            }
        }
        Ok(())
    }
}

/// Our controlling terminal, on standard input.
#[derive(Debug)]
pub(super) struct Terminal {
    own_group: i32,
    resumer: Resumer,
    /// The group that we gave the terminal to.
    given: Option<i32>,
}

impl Terminal {
    /// `None` where standard input is no terminal, or another session's.
    pub(super) fn open() -> Option<Self> {
        if !stdin().is_terminal() {
            return None;
        }
        foreground()?;
        // SAFETY: both only ask.
        let (own_group, session) = unsafe { (libc::getpgrp(), libc::getsid(0)) };
        Some(Self {
            own_group,
            // The group of a session's leader is nobody's job.
            resumer: if own_group == session {
                Resumer::Nobody
            } else {
                Resumer::Shell
            },
            given: None,
        })
    }

    pub(super) fn resumer(&self) -> Resumer {
        self.resumer
    }

    /// How a gateway that is started now is placed.
    pub(super) fn placement(&self) -> Placement {
        if foreground() == Some(self.own_group) {
            Placement::Foreground
        } else {
            Placement::Background
        }
    }

    /// The gateway was started in the foreground.
    pub(super) fn was_given(&mut self, group: i32) {
        self.given = Some(group);
    }

    /// Hands the terminal to the gateway's group, if it is ours to give.
    pub(super) fn give(&mut self, group: i32) {
        if self.placement() == Placement::Foreground && set_foreground(group) {
            self.given = Some(group);
        }
    }

    /// Takes the terminal back from a gateway that has ended. What a shell has taken meanwhile, or
    /// another job of the gateway's that is alive still has, stays theirs.
    pub(super) fn take_back(&mut self) {
        let Some(given) = self.given.take() else {
            return;
        };
        let now = foreground();
        if now == Some(given) || now.is_some_and(|group| !is_alive(group)) {
            set_foreground(self.own_group);
        }
    }
}

fn foreground() -> Option<i32> {
    // SAFETY: it only asks. In a pid namespace a group of outside it is 0.
    let group = unsafe { libc::tcgetpgrp(stdin().as_raw_fd()) };
    (group >= 0).then_some(group)
}

/// SIGTTOU is blocked in init, so that this never stops us.
fn set_foreground(group: i32) -> bool {
    // SAFETY: it touches no memory of ours.
    group > 0 && unsafe { libc::tcsetpgrp(stdin().as_raw_fd(), group) } == 0
}

fn is_alive(group: i32) -> bool {
    // SAFETY: signal 0 only asks.
    group > 0 && unsafe { libc::kill(-group, 0) } == 0
}
