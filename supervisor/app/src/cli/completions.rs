//! `sessionkeep completions`: scripts for shells.

use std::process::ExitCode;

use clap_complete::Shell;

use crate::config::Flags;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sessionkeep completions bash > /etc/bash_completion.d/sessionkeep
  sessionkeep completions zsh > \"${fpath[1]}/_sessionkeep\"
  sessionkeep completions fish > ~/.config/fish/completions/sessionkeep.fish")]
pub(super) struct Args {
    /// The shell
    shell: Shell,
}

pub(super) fn main(args: &Args, _: &Flags) -> anyhow::Result<ExitCode> {
    // Into memory first: the generator panics where it cannot write.
    let mut script = Vec::new();
    clap_complete::generate(
        args.shell,
        &mut super::definition(),
        "sessionkeep",
        &mut script,
    );
    super::print(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}
