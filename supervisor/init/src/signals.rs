//! Signals as data: blocked for the whole life of init and read from a descriptor, so that none
//! arrives in the middle of anything.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// Signals that cannot be caught. Those that tell of a fault (SEGV, ILL and others) can: blocked, the
/// kernel keeps one that somebody sends, and still ends this process by one that it raises for a fault
/// of our own. `abort` unblocks its own.
const LEFT_ALONE: &[i32] = &[libc::SIGKILL, libc::SIGSTOP];

/// Two more, which the C library keeps for itself and leaves out of every set.
const C_LIBRARYS: [i32; 2] = [32, 33];

/// Signals that the kernel sends us for something that we did ourselves: writing to a log that
/// nobody reads any more, or beyond a file's largest size. Those are not the gateway's.
const OUR_OWN_DOING: &[i32] = &[libc::SIGPIPE, libc::SIGXFSZ];

/// Whether a signal that is sent to us reaches the machine.
pub(super) fn is_passed_on(signal: i32) -> bool {
    signal != libc::SIGCHLD && !LEFT_ALONE.contains(&signal) && !C_LIBRARYS.contains(&signal)
}

/// Whether SIGPIPE was ignored when the program was started. The runtime ignores it before
/// `main`, so it has to be asked before that.
static PIPE_WAS_IGNORED: AtomicBool = AtomicBool::new(false);

#[used]
// SAFETY: the loader calls each function of this section once, before the runtime starts; this one
// makes a plain system call and stores to an atomic.
#[unsafe(link_section = ".init_array")]
static ASK_FOR_PIPE: extern "C" fn() = {
    extern "C" fn ask() {
        let mut old = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: a null action only asks; the result is filled by the kernel, and all zeroes is
        // a valid value of it.
        let old = unsafe {
            libc::sigaction(libc::SIGPIPE, std::ptr::null(), old.as_mut_ptr());
            old.assume_init()
        };
        PIPE_WAS_IGNORED.store(old.sa_sigaction == libc::SIG_IGN, Ordering::Relaxed);
    }
    ask
};

/// What a child gets back.
#[derive(Debug, Clone, Copy)]
pub(super) struct Inherited {
    mask: libc::sigset_t,
    term_ignored: bool,
    child_ignored: bool,
    pipe_ignored: bool,
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
            if self.pipe_ignored {
                libc::signal(libc::SIGPIPE, libc::SIG_IGN);
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
                pipe_ignored: PIPE_WAS_IGNORED.load(Ordering::Relaxed),
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
            let sender = info.ssi_pid;
            if signal == libc::SIGCHLD {
                all.push(Received::Child);
            } else if sender != std::process::id() || !OUR_OWN_DOING.contains(&signal) {
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
