//! `sessionkeep doctor`: looks for what could go wrong.

use std::process::ExitCode;

use anyhow::bail;

use crate::config::Flags;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
One line for each thing: settings, directory, store, rights, durability of
writes, clocks, encryption, free space; with the remedy where one is needed.
Exits with 1 if something will not work.

Example:
  sessionkeep doctor --json")]
pub(super) struct Args {
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) fn main(_: &Args, _: &Flags) -> anyhow::Result<ExitCode> {
    bail!("not built into this binary")
}
