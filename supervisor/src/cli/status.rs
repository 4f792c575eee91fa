//! `sessionkeep status`: the state of the session and its archive.

use std::process::ExitCode;

use anyhow::bail;

use crate::config::Flags;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  sessionkeep status --json")]
pub(super) struct Args {
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) fn main(_: &Args, _: &Flags) -> anyhow::Result<ExitCode> {
    bail!("not built into this binary")
}
