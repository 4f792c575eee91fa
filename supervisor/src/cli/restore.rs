//! `sessionkeep restore`: brings a directory to the state of a commit.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;

use crate::config::Flags;
use crate::store::Seq;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Without --to or --dry-run it needs the session's lease, so that no other
instance may be running. What the directory held is moved to
.sessionkeep/replaced/, never deleted.

Examples:
  sessionkeep restore --dry-run
  sessionkeep restore --seq 41 --to /tmp/before")]
pub(super) struct Args {
    /// The commit to restore; the newest if not given
    #[arg(long, value_name = "N")]
    pub(super) seq: Option<Seq>,
    /// Restore into this empty directory instead, and change nothing else
    #[arg(long, value_name = "DIR")]
    pub(super) to: Option<PathBuf>,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) fn main(_: &Args, _: &Flags) -> anyhow::Result<ExitCode> {
    bail!("not built into this binary")
}
