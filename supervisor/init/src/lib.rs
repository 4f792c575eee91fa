//! PID 1: starts the restorer, the watcher and the gateway, passes signals on, reaps whatever is
//! adopted, and ends in order: gateway, its descendants, flush, exit code.
//!
//! [`machine`] decides and is pure; [`run`]'s executor carries out. It is one thread around one
//! `poll`, and there is no async runtime, driver or TLS in it: what it promises must hold however
//! the rest fares. Nothing here waits for anything without a deadline, but for the gateway's life.
//!
//! What each child gets:
//! - helpers (`restore`, `watch`): they are forks of init, and have a [`Handover`] with the control
//!   socket and the HTTP socket, a session of their own, and a TERM when init dies;
//! - the gateway: our stdio, a process group of its own, a session of its own unless it is the
//!   foreground job of our terminal (`terminal`), the signal mask that we were started with, and the
//!   environment without what is ours ([`scrub`]).

mod browser_locks;
mod channel;
mod child;
pub mod descendants;
pub mod directory;
mod executor;
mod fork;
mod listeners;
pub mod lock;
pub mod machine;
mod options;
pub mod place;
mod preflight;
mod reaper;
mod report;
pub mod rights;
mod setup;
pub mod signal_names;
mod signals;
mod terminal;
mod visible;

use std::collections::hash_map::RandomState;
use std::ffi::OsString;
use std::hash::BuildHasher;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tracing::{error, info, warn};

pub use child::scrub;
pub use lock::{DirLock, LockError};
pub use options::{
    ExitMap, ExitMapping, OptionError, Options, ParentDeath, Reach, Reaping, Rewrite, Rewrites,
    Scope,
};

use executor::Executor;
use machine::InitPlan;
pub use sessionkeep_core::control::{Handover, Helpers};
use sessionkeep_core::exit;
use sessionkeep_core::record::InstanceId;
pub use setup::{AtLeaseEnd, Listen, RestartPolicy, Setup, Storage};
use signals::Signals;

/// Runs `command` as a gateway until it is over, and returns what to exit with.
///
/// To be called while the process has one thread, from `main`'s: signals are blocked for the
/// thread that calls, a helper is told to end when the thread that started it does, and helpers are
/// forks.
#[must_use]
pub fn run(setup: &Setup, options: &Options, helpers: &dyn Helpers, command: Vec<OsString>) -> u8 {
    let ran = catch_unwind(AssertUnwindSafe(|| {
        supervise(setup, options, helpers, command)
    }));
    match ran {
        Ok(Ok(code)) => code,
        Ok(Err(failure)) => {
            error!(target: "init", error = %failure, "init failed");
            exit::INTERNAL
        }
        // The panic has been printed; an abort here would leave as an unrelated code.
        Err(_) => exit::INTERNAL,
    }
}

fn supervise(
    setup: &Setup,
    options: &Options,
    helpers: &dyn Helpers,
    command: Vec<OsString>,
) -> std::io::Result<u8> {
    // First of all: a signal that comes from here on is kept and not lost.
    let signals = Signals::install()?;
    let pid = std::process::id();
    let reaps_as = if pid == 1 {
        "PID 1"
    } else {
        match nix::sys::prctl::set_child_subreaper(true) {
            Ok(()) => "subreaper",
            Err(error) => {
                warn!(target: "init", %error, "cannot adopt orphans: detached processes of the gateway will not be waited for");
                "nothing"
            }
        }
    };
    rights::warn_without_kill();
    if let Some(signal) = options.parent_death {
        tell_of_parents_death(signal, pid);
    }
    let instance = InstanceId::generate(&host());
    let version = env!("CARGO_PKG_VERSION");
    match options.scope {
        Scope::InitOnly => info!(
            target: "init",
            version, pid, reaps_as,
            "sessionkeep starts as an init only: no session is kept"
        ),
        Scope::Session => info!(
        target: "init",
        version, pid, reaps_as, %instance,
        archive = %setup.archive, dir = %setup.dir.display(), file_mode = setup.storage == Storage::Directory,
        "sessionkeep starts"
        ),
    }
    // Seeded per process by the standard library.
    let jitter_seed = RandomState::new().hash_one(pid);
    let plan = InitPlan::new(setup, options, jitter_seed);
    Executor::new(setup, options, helpers, command, instance, plan, signals).run()
}

/// Has the kernel send us a signal when our parent dies. To be called when signals are blocked.
fn tell_of_parents_death(ParentDeath(signal): ParentDeath, pid: u32) {
    if pid == 1 {
        warn!(target: "init", "--pdeathsig has no effect: the parent of PID 1 is outside of its container");
        return;
    }
    // SAFETY: all three touch no memory of ours.
    let (before, set, after) = unsafe {
        let before = libc::getppid();
        let set = libc::prctl(libc::PR_SET_PDEATHSIG, signal);
        (before, set, libc::getppid())
    };
    if set != 0 {
        let error = std::io::Error::last_os_error();
        warn!(target: "init", %error, "cannot be told of the parent's death");
    } else if before != after {
        // It died while we asked, so that nobody tells us.
        reaper::send(pid.cast_signed(), signal);
    }
}

/// The host's name, empty where the kernel has none.
#[must_use]
pub fn host() -> String {
    nix::sys::utsname::uname()
        .map(|names| names.nodename().to_string_lossy().into_owned())
        .unwrap_or_default()
}
