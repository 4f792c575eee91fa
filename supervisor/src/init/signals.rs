//! Signals as data: blocked for the whole life of init and read from a descriptor, so that none
//! arrives in the middle of anything.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Signals that stay as they are: those the kernel raises for a fault of our own, those that
/// cannot be caught, and SIGPIPE, which the runtime ignores and children get back.
const LEFT_ALONE: &[i32] = &[
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGTRAP,
    libc::SIGSYS,
    libc::SIGABRT,
    libc::SIGKILL,
    libc::SIGSTOP,
    libc::SIGPIPE,
    libc::SIGPROF,
    libc::SIGVTALRM,
];

/// Signals that are taken and passed on to nobody. Blocking the two of the terminal lets us write
/// to one that another process group holds.
const NOT_PASSED_ON: &[i32] = &[libc::SIGTTIN, libc::SIGTTOU];

/// What a child gets back.
#[derive(Debug, Clone, Copy)]
pub(super) struct Inherited {
    mask: libc::sigset_t,
    term_ignored: bool,
    child_ignored: bool,
}

impl Inherited {
    /// Puts mask and dispositions back to what they were before [`Signals::install`]. Only calls
    /// that are safe between fork and exec.
    pub(super) fn restore(&self) -> io::Result<()> {
        // SAFETY: `signal` and `sigprocmask` are async-signal-safe; the set was filled by the
        // kernel, and SIG_IGN is a valid disposition.
        unsafe {
            if self.term_ignored {
                libc::signal(libc::SIGTERM, libc::SIG_IGN);
            }
            if self.child_ignored {
                libc::signal(libc::SIGCHLD, libc::SIG_IGN);
            }
            check(libc::sigprocmask(
                libc::SIG_SETMASK,
                &raw const self.mask,
                std::ptr::null_mut(),
            ))?;
        }
        Ok(())
    }
}

/// What was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Received {
    /// Some child changed its state.
    Child,
    /// Another signal, from the process with this id (0 where the kernel or an outer pid
    /// namespace sent it).
    Other { signal: i32, sender: u32 },
}

/// The descriptor that signals are read from.
#[derive(Debug)]
pub(super) struct Signals {
    fd: OwnedFd,
    inherited: Inherited,
}

impl Signals {
    /// Blocks what we handle. To be called before anything is spawned.
    pub(super) fn install() -> io::Result<Self> {
        let mut mask = MaybeUninit::<libc::sigset_t>::uninit();
        let mut old = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: `sigfillset` fills the set before it is used, `sigdelset` gets valid numbers,
        // `sigprocmask` fills `old`, and `signalfd` returns a descriptor that nobody else owns.
        unsafe {
            check(libc::sigfillset(mask.as_mut_ptr()))?;
            for signal in LEFT_ALONE {
                check(libc::sigdelset(mask.as_mut_ptr(), *signal))?;
            }
            check(libc::sigprocmask(
                libc::SIG_BLOCK,
                mask.as_ptr(),
                old.as_mut_ptr(),
            ))?;
            let inherited = Inherited {
                mask: old.assume_init(),
                term_ignored: set_default(libc::SIGTERM)?,
                // Ignored, the kernel would reap our children itself and their ends be unknown.
                child_ignored: set_default(libc::SIGCHLD)?,
            };
            let fd = check(libc::signalfd(
                -1,
                mask.as_ptr(),
                libc::SFD_CLOEXEC | libc::SFD_NONBLOCK,
            ))?;
            Ok(Self {
                fd: OwnedFd::from_raw_fd(fd),
                inherited,
            })
        }
    }

    /// What children get back.
    pub(super) fn inherited(&self) -> Inherited {
        self.inherited
    }

    /// Everything that has arrived. Signals of one kind may arrive as one.
    pub(super) fn read(&self) -> io::Result<Vec<Received>> {
        const SIZE: usize = size_of::<libc::signalfd_siginfo>();
        let mut all = Vec::new();
        loop {
            let mut info = MaybeUninit::<libc::signalfd_siginfo>::uninit();
            // SAFETY: the buffer is writable and SIZE bytes long.
            let got = unsafe { libc::read(self.fd.as_raw_fd(), info.as_mut_ptr().cast(), SIZE) };
            if got < 0 {
                let error = io::Error::last_os_error();
                match error.kind() {
                    io::ErrorKind::WouldBlock => return Ok(all),
                    io::ErrorKind::Interrupted => continue,
                    _ => return Err(error),
                }
            }
            if got.unsigned_abs() != SIZE {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            }
            // SAFETY: the kernel wrote the whole structure.
            let info = unsafe { info.assume_init() };
            let signal = info.ssi_signo.cast_signed();
            if signal == libc::SIGCHLD {
                all.push(Received::Child);
            } else if !NOT_PASSED_ON.contains(&signal) {
                let sender = info.ssi_pid;
                all.push(Received::Other { signal, sender });
            }
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Gives a signal its default disposition; says whether it was ignored.
fn set_default(signal: i32) -> io::Result<bool> {
    // SAFETY: SIG_DFL is a valid disposition for any signal that can be caught.
    let old = unsafe { libc::signal(signal, libc::SIG_DFL) };
    if old == libc::SIG_ERR {
        return Err(io::Error::last_os_error());
    }
    Ok(old == libc::SIG_IGN)
}

pub(super) fn check(result: i32) -> io::Result<i32> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}
