//! `sessionkeep watch`: commits changes until it is told to stop.

use std::process::ExitCode;

use crate::config::Flags;
use crate::process::watcher;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
sessionkeep run starts this by itself. Alone, it replicates the directory of a
gateway that something else started; stop it with TERM once the gateway is gone.

Example:
  sessionkeep watch --dir ./session --store sqlite:keep.db")]
pub(super) struct Args {}

pub(super) fn main(_: &Args, flags: &Flags) -> anyhow::Result<ExitCode> {
    let settings = super::context::settings_with_notes(flags)?;
    Ok(ExitCode::from(watcher::alone(&settings)?.exit_code()))
}
