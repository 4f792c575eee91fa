//! `sessionkeep log`: the newest commits.

use std::process::ExitCode;

use anyhow::bail;

use crate::config::Flags;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sessionkeep log --limit 5
  sessionkeep log --json")]
pub(super) struct Args {
    /// How many commits
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(super) limit: usize,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) fn main(_: &Args, _: &Flags) -> anyhow::Result<ExitCode> {
    bail!("not built into this binary")
}
