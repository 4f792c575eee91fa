//! `sessionkeep show`: what one commit changed.

use std::process::ExitCode;

use anyhow::bail;

use crate::config::Flags;
use crate::store::Seq;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  sessionkeep show 42")]
pub(super) struct Args {
    /// The commit's number, as in sessionkeep log
    pub(super) seq: Seq,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) fn main(_: &Args, _: &Flags) -> anyhow::Result<ExitCode> {
    bail!("not built into this binary")
}
