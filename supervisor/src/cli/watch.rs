//! `sessionkeep watch`: commits changes until it is told to stop.

use std::process::ExitCode;

use anyhow::bail;

use crate::config::Flags;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
sessionkeep run starts this by itself. Alone, it replicates the directory of a
gateway that something else started; stop it with TERM once the gateway is gone.

Example:
  sessionkeep watch --dir ./session --store sqlite:keep.db")]
pub(super) struct Args {}

pub(super) fn main(_: &Args, _: &Flags) -> anyhow::Result<ExitCode> {
    bail!("not built into this binary")
}
