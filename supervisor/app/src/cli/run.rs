//! `sessionkeep run`: the container's init.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::process::ExitCode;

use tracing::error;

use crate::config::{Flags, Settings};
use crate::process::{restorer, runtime, setup, watcher};
use sessionkeep_core::control::{Handover, Helpers};
use sessionkeep_core::exit;
use sessionkeep_init::{ExitMapping, Options, ParentDeath, Reach, Reaping, Rewrite, Scope};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
The first TERM, INT, QUIT or RTMIN+3 stops the gateway in order and saves the last changes; a
second one shortens the gateway's time to zero, and never skips the saving.
The exit code is the gateway's own; for others see sessionkeep config --reference.

Examples:
  sessionkeep run -- node bot.js
  MONGO_ENABLED=false sessionkeep run -- /entrypoint.sh
  sessionkeep run --init-only -- /entrypoint.sh")]
pub(super) struct Args {
    /// Exchange an exit code of the gateway for another, as in 143=0; may be
    /// repeated. sessionkeep's own failures keep their codes
    #[arg(long, value_name = "CODE=CODE")]
    map_exit: Vec<ExitMapping>,
    /// Pass another signal on than was sent, as in TERM=INT or HUP=0 (drop it);
    /// may be repeated
    #[arg(long, value_name = "SIGNAL=SIGNAL")]
    rewrite: Vec<Rewrite>,
    /// Send signals to the gateway's whole process group, not only to its
    /// main process
    #[arg(long)]
    signal_group: bool,
    /// Log a warning for each orphan that is reaped
    #[arg(long)]
    warn_on_reap: bool,
    /// Where sessionkeep is not PID 1: get this signal when the parent dies, and
    /// act on it as on any other
    #[arg(long, value_name = "SIGNAL")]
    pdeathsig: Option<ParentDeath>,
    /// Be an init and nothing else, in place of `tini --`: no store, no session
    /// directory, no watcher
    #[arg(long)]
    init_only: bool,
    /// The gateway's command and its arguments
    #[arg(last = true, value_name = "CMD")]
    pub(super) command: Vec<OsString>,
}

impl Args {
    fn options(&self) -> Options {
        Options {
            map_exit: self.map_exit.iter().copied().collect(),
            rewrites: self.rewrite.iter().copied().collect(),
            reach: if self.signal_group {
                Reach::Group
            } else {
                Reach::Main
            },
            reaping: if self.warn_on_reap {
                Reaping::Warn
            } else {
                Reaping::Silent
            },
            parent_death: self.pdeathsig,
            scope: if self.init_only {
                Scope::InitOnly
            } else {
                Scope::Session
            },
        }
    }
}

pub(super) fn main(args: &Args, flags: &Flags) -> anyhow::Result<ExitCode> {
    let settings = if args.init_only {
        super::context::settings_init_only(flags)?
    } else {
        super::context::settings_with_notes(flags)?
    };
    if args.command.is_empty() {
        error!(target: "cli", "no gateway to run: give its command after `--`, as in `sessionkeep run -- node bot.js`");
        return Ok(ExitCode::from(exit::CONFIG));
    }
    Ok(ExitCode::from(sessionkeep_init::run(
        &setup::of(&settings),
        &args.options(),
        &Forks(&settings),
        args.command.clone(),
    )))
}

/// What init's forks do. Flags, environment and file are read exactly once: the settings are in their
/// memory.
struct Forks<'a>(&'a Settings);

impl Helpers for Forks<'_> {
    fn restore(&self, handover: Handover) -> u8 {
        super::code(|| runtime::block_on(restorer::under_init(self.0, handover)).flatten())
    }

    fn watch(&self, handover: Handover) -> u8 {
        super::code(|| watcher::under_init(self.0, handover))
    }

    fn descriptors(&self) -> Vec<RawFd> {
        crate::log::descriptor().into_iter().collect()
    }
}
