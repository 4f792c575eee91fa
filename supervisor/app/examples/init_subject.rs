//! What an init is tried with, where a shell is not exact enough: started by the tests of
//! `tests/peers.rs` and the bench `init` as the main process of a container.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::IntoRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

fn main() -> io::Result<ExitCode> {
    match std::env::args().nth(1).as_deref() {
        Some("record") => record(),
        Some("arguments") => arguments(),
        Some("speak") => speak(),
        Some("launch") => launch(),
        Some("measured") => measured(),
        other => panic!("what is {other:?}?"),
    }
}

/// Where the handler writes to. A handler can be given nothing else than a static.
static GOT: AtomicI32 = AtomicI32::new(-1);

/// Writes the number of each signal that arrives into `got`, one a line, for ever.
fn record() -> io::Result<ExitCode> {
    let got = OpenOptions::new().create(true).append(true).open("got")?;
    // Given away, it is never closed.
    GOT.store(got.into_raw_fd(), Ordering::Relaxed);
    for signal in 1..=libc::SIGRTMAX() {
        let fault = [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL];
        // 32 and 33 belong to the C library.
        if fault.contains(&signal) || [32, 33].contains(&signal) {
            continue;
        }
        // SAFETY: a zeroed `sigaction` is a valid one, and the handler is async-signal-safe. That
        // KILL and STOP are refused is expected.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = note as *const () as usize;
            action.sa_flags = libc::SA_RESTART;
            libc::sigfillset(&raw mut action.sa_mask);
            libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        }
    }
    fs::write("ready", "up\n")?;
    loop {
        std::thread::sleep(Duration::from_secs(1000));
    }
}

extern "C" fn note(signal: libc::c_int) {
    let line = [
        b'0' + (signal / 10).cast_unsigned() as u8,
        b'0' + (signal % 10).cast_unsigned() as u8,
        b'\n',
    ];
    // SAFETY: `write` is async-signal-safe, and the buffer lives through the call.
    unsafe { libc::write(GOT.load(Ordering::Relaxed), line.as_ptr().cast(), 3) };
}

/// Writes its arguments into a file, each ended by a zero byte.
fn arguments() -> io::Result<ExitCode> {
    let mut file = File::create("arguments")?;
    for argument in std::env::args_os().skip(2) {
        file.write_all(argument.as_bytes())?;
        file.write_all(&[0])?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes a megabyte of all byte values to standard output, and as much to standard error.
fn speak() -> io::Result<ExitCode> {
    let all: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
    io::stdout().write_all(&all)?;
    io::stdout().flush()?;
    io::stderr().write_all(&all)?;
    Ok(ExitCode::SUCCESS)
}

/// Writes the time to standard output, and becomes the command in its arguments.
fn launch() -> io::Result<ExitCode> {
    let line: Vec<_> = std::env::args_os().skip(2).collect();
    stamp(b'L');
    Err(Command::new(&line[0]).args(&line[1..]).exec())
}

/// Writes the time of its start, of TERM in its handler, and of its end.
fn measured() -> io::Result<ExitCode> {
    stamp(b'S');
    // SAFETY: zeroed sets and actions are valid ones, and the handler is async-signal-safe.
    unsafe {
        let mut term: libc::sigset_t = std::mem::zeroed();
        let mut old: libc::sigset_t = std::mem::zeroed();
        libc::sigaddset(&raw mut term, libc::SIGTERM);
        // Taken only while it waits: one that came in between would not end the wait.
        libc::sigprocmask(libc::SIG_BLOCK, &raw const term, &raw mut old);
        libc::signal(libc::SIGTERM, told as *const () as usize);
        stamp(b'R');
        libc::sigsuspend(&raw const old);
        stamp(b'E');
        libc::_exit(0)
    }
}

extern "C" fn told(_: libc::c_int) {
    stamp(b'T');
}

/// What, and when, as 17 bytes: async-signal-safe.
fn stamp(what: u8) {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the structure is written to, and the buffer lives through the call.
    unsafe {
        libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now);
        let mut line = [0; 17];
        line[0] = what;
        line[1..9].copy_from_slice(&now.tv_sec.to_le_bytes());
        line[9..].copy_from_slice(&now.tv_nsec.to_le_bytes());
        libc::write(1, line.as_ptr().cast(), line.len());
    }
}
