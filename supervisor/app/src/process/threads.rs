//! Whether this process can start threads, and what to do where it cannot: found out once, before
//! anything depends on it, since a runtime that cannot start one panics.

use std::io;

use thiserror::Error;

/// No thread can be started.
#[derive(Debug, Error)]
pub(crate) enum ThreadError {
    /// There are as many processes as there may be.
    #[error(
        "failed to start a thread: the limit of processes is reached; raise `pids_limit` (Docker, Compose), the pod's limit (Kubernetes) or `ulimit -u`"
    )]
    Limit(#[source] io::Error),
    /// Something forbids it.
    #[error(
        "failed to start a thread: a seccomp profile forbids it; upgrade Docker to 20.10.10 or newer, or allow `clone` and `clone3` in the profile"
    )]
    Forbidden(#[source] io::Error),
    /// Anything else.
    #[error("failed to start a thread; see whether there is memory left")]
    Other(#[source] io::Error),
}

impl From<io::Error> for ThreadError {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EAGAIN) => Self::Limit(error),
            Some(libc::EPERM | libc::EACCES | libc::ENOSYS) => Self::Forbidden(error),
            _ => Self::Other(error),
        }
    }
}

/// Makes sure that as many threads can be started as are needed.
///
/// Seccomp profiles that are older than `clone3`, as Docker's before 20.10.10, answer that it is
/// forbidden, and not that there is no such call: the C library then does not fall back to `clone`,
/// which is allowed. A filter of our own says so in its place.
///
/// # Errors
/// [`ThreadError`]
pub(crate) fn ensure() -> Result<(), ThreadError> {
    match try_some() {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
            // Where it cannot be had, the first answer is the one that counts.
            if make_clone3_unknown().is_err() {
                return Err(error.into());
            }
            Ok(try_some()?)
        }
        tried => Ok(tried?),
    }
}

/// What a helper has at a time besides its first thread: one for the pages, one for the store's file, one
/// that reads and one that compresses. With fewer, a later one could not be started and the runtime would
/// panic in the middle of its work.
const THREADS: usize = 4;

/// Starts so many threads at a time, which end when all are there or one could not be started.
fn try_some() -> io::Result<()> {
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = std::sync::Arc::new(std::sync::Mutex::new(held));
    let start = |_| {
        let held = held.clone();
        std::thread::Builder::new()
            .stack_size(64 << 10)
            .spawn(move || {
                // It ends with an error, when nobody can send any more.
                let held = held
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner);
                let _ = held.recv();
            })
    };
    let started: Vec<_> = (0..THREADS).map(start).collect();
    drop(release);
    let mut failed = None;
    for thread in started {
        match thread {
            // It does nothing that could fail.
            Ok(thread) => drop(thread.join()),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Has the kernel answer `clone3` with `ENOSYS` in this process. Of two filters that both refuse a
/// call, the newer one's answer counts.
fn make_clone3_unknown() -> io::Result<()> {
    /// Where the number of the call stands in `seccomp_data`.
    const NUMBER: u32 = 0;
    let step = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter {
        code: u16::try_from(code).expect("codes are short"),
        jt,
        jf,
        k,
    };
    // It need not look at the architecture: no call of ours has another one's numbers.
    let mut program = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, NUMBER),
        step(
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            0,
            1,
            u32::try_from(libc::SYS_clone3).expect("a number of a call"),
        ),
        step(
            libc::BPF_RET | libc::BPF_K,
            0,
            0,
            libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned(),
        ),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog {
        len: 4,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the program lives through the call, and has as many steps as it says.
    unsafe {
        if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
            || libc::prctl(
                libc::PR_SET_SECCOMP,
                libc::SECCOMP_MODE_FILTER,
                &raw const filter,
            ) != 0
        {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// What a panic of the runtime says that could not start a thread, in our words.
pub(crate) fn explain(panic: &str) -> Option<ThreadError> {
    let (_, after) = panic
        .starts_with("OS can't spawn worker thread")
        .then(|| panic.rsplit_once("os error "))??;
    let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
    let code = digits.parse().ok()?;
    Some(io::Error::from_raw_os_error(code).into())
}
