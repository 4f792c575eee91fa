//! Inits with one fault each, so that the tests of `tests/peers.rs` can show that they see it.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicI32, Ordering};

/// The main process, for the handler.
static MAIN: AtomicI32 = AtomicI32::new(0);

extern "C" fn pass_on(signal: libc::c_int) {
    // SAFETY: `kill` is async-signal-safe.
    unsafe { libc::kill(MAIN.load(Ordering::Relaxed), signal) };
}

fn main() -> io::Result<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    let fault = arguments.next().unwrap_or_default();
    let program = arguments.next().expect("a command");
    // What comes before there is somebody to pass it on to waits. The child starts with nothing
    // blocked: the standard library sees to that.
    let blocked = block();
    let child = Command::new(program)
        .args(arguments)
        .process_group(0)
        .spawn()?;
    let main = child.id().cast_signed();
    MAIN.store(main, Ordering::Relaxed);
    let who = match fault.to_str() {
        // Passes nothing on.
        Some("deaf") => -1,
        // Waits for nobody but its own child.
        Some("messy") => {
            listen();
            main
        }
        // Ends with the main process, and always well.
        Some("hasty") => {
            listen();
            -1
        }
        other => panic!("what is {other:?}?"),
    };
    // SAFETY: the set was filled by the kernel.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const blocked, std::ptr::null_mut()) };
    loop {
        let mut status = 0;
        // SAFETY: the status is written to a variable of the right type.
        let ended = unsafe { libc::waitpid(who, &raw mut status, 0) };
        if ended == main {
            let code = if libc::WIFEXITED(status) {
                libc::WEXITSTATUS(status)
            } else {
                128 + libc::WTERMSIG(status)
            };
            let hasty = fault == "hasty";
            return Ok(ExitCode::from(if hasty { 0 } else { code as u8 }));
        }
    }
}

/// Blocks all signals; returns what was blocked before.
fn block() -> libc::sigset_t {
    // SAFETY: zeroed sets are valid ones, and the calls write to nothing else.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut old: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::sigprocmask(libc::SIG_BLOCK, &raw const all, &raw mut old);
        old
    }
}

fn listen() {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGUSR1] {
        // SAFETY: the handler is async-signal-safe.
        unsafe { libc::signal(signal, pass_on as *const () as usize) };
    }
}
