//! `sessionkeep verify`: reads everything and checks it against its hashes.

use std::process::ExitCode;

use anyhow::bail;

use crate::config::Flags;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exits with 1 if anything is damaged, and says what. It only reads, and may run
beside the gateway.

Example:
  sessionkeep verify --all")]
pub(super) struct Args {
    /// Every commit that is kept, not only what the newest one needs
    #[arg(long)]
    pub(super) all: bool,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) fn main(_: &Args, _: &Flags) -> anyhow::Result<ExitCode> {
    bail!("not built into this binary")
}
