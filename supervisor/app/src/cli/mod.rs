//! The command line: one file for each command, and what they share.

mod completions;
mod config;
mod context;
mod doctor;
mod excluded;
pub(crate) mod health;
mod lease;
mod log;
mod panics;
mod restore;
mod run;
mod show;
mod stack;
mod status;
pub(crate) mod status_text;
mod usage;
mod verify;
mod watch;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::boot::BootError;
use crate::config::{ConfigErrors, Flags};
use sessionkeep_archive::store::StoreError;
use sessionkeep_core::state_dir::StateDirError;
use sessionkeep_core::{exit, human};
use sessionkeep_init::LockError;
pub use sessionkeep_init::place::PlaceError;

/// Keeps a WhatsApp gateway's login across restarts.
///
/// As the init of the gateway's container, it restores the session directory from a store before
/// the gateway starts, commits every change while it runs, and saves the last byte after it has
/// stopped.
#[derive(Debug, Parser)]
#[command(
    name = "sessionkeep",
    version,
    max_term_width = 80,
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = AFTER_HELP
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    flags: Flags,
}

const AFTER_HELP: &str = "\
Examples:
  ENTRYPOINT [\"sessionkeep\",\"run\",\"--\"]    in a Dockerfile, before its CMD
  MONGO_URL=mongodb://db/wa sessionkeep run -- node bot.js
  sessionkeep run --store sqlite:/data/keep.db --profile baileys -- node bot.js
  sessionkeep restore --to /tmp/copy    look at a copy while the gateway runs

All settings and exit codes: sessionkeep config --reference";

#[derive(Debug, Subcommand)]
enum Command {
    /// Restore, run the gateway, replicate, stop, save: the container's PID 1
    Run(run::Args),
    /// Bring the session directory to the store's state, or a copy elsewhere
    Restore(restore::Args),
    /// Commit changes of the session directory until told to stop
    Watch(watch::Args),
    /// Say what the store holds, who owns the session, and how far saving lags
    Status(status::Args),
    /// Say who owns the session and who waits for it; or end a lease
    Lease(lease::Args),
    /// List the newest commits
    Log(log::Args),
    /// Say what one commit changed
    Show(show::Args),
    /// Read all that a restore needs and check it against its hashes
    Verify(verify::Args),
    /// Look for whatever could go wrong, and say how to mend it
    Doctor(doctor::Args),
    /// List what of the session directory is not saved, and why
    Excluded(excluded::Args),
    /// Say what takes the room in the store, and what could be deleted
    Usage(usage::Args),
    /// Show the settings in force and where each comes from
    Config(config::Args),
    /// Ask the running sessionkeep whether all is well, for HEALTHCHECK
    Health(health::Args),
    /// Print a shell's completion script
    Completions(completions::Args),
}

impl Command {
    /// Whether all that it does is print. Such a command ends quietly when nobody reads on, as in
    /// `sessionkeep log | head`; the others must not die of a closed pipe.
    fn only_prints(&self) -> bool {
        !matches!(self, Self::Run(_) | Self::Restore(_) | Self::Watch(_))
    }

    fn main(&self, flags: &Flags) -> anyhow::Result<ExitCode> {
        match self {
            Self::Run(args) => run::main(args, flags),
            Self::Restore(args) => restore::main(args, flags),
            Self::Watch(args) => watch::main(args, flags),
            Self::Status(args) => status::main(args, flags),
            Self::Lease(args) => lease::main(args, flags),
            Self::Log(args) => log::main(args, flags),
            Self::Show(args) => show::main(args, flags),
            Self::Verify(args) => verify::main(args, flags),
            Self::Doctor(args) => doctor::main(args, flags),
            Self::Excluded(args) => excluded::main(args, flags),
            Self::Usage(args) => usage::main(args, flags),
            Self::Config(args) => config::main(args, flags),
            Self::Health(args) => health::main(args, flags),
            Self::Completions(args) => completions::main(args, flags),
        }
    }
}

/// Runs the command that `args` ask for (the program's name first) and gives its exit code. What
/// fails is told on standard error, once.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    sessionkeep_core::hardening::forbid_dumps();
    panics::tell_plainly();
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version arrive here, too, and a reader that has gone is no trouble.
            let _ = error.print();
            return u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from);
        }
    };
    if cli.command.only_prints() {
        end_quietly_on_a_closed_pipe();
    }
    match panics::caught(|| cli.command.main(&cli.flags)) {
        None => ExitCode::from(exit::INTERNAL),
        Some(Ok(code)) => code,
        Some(Err(error)) => {
            let _ = std::io::stderr().write_all(told(&error).as_bytes());
            ExitCode::from(exit_code(&error))
        }
    }
}

/// The exit code of a helper; its error is told on standard error.
fn code(helper: impl FnOnce() -> anyhow::Result<u8>) -> u8 {
    match panics::caught(helper) {
        None => exit::INTERNAL,
        Some(Ok(code)) => code,
        Some(Err(error)) => {
            let _ = std::io::stderr().write_all(told(&error).as_bytes());
            exit_code(&error)
        }
    }
}

/// The error and its causes, each on a line.
fn told(error: &anyhow::Error) -> String {
    let mut text = format!("error: {error}\n");
    for cause in error.chain().skip(1) {
        let _ = writeln!(text, "caused by: {cause}");
    }
    if human::is_out_of_descriptors(error.chain().next()) {
        let _ = writeln!(text, "next step: {}", human::MORE_DESCRIPTORS);
    }
    text
}

/// The documented code of an error. One that no code is meant for is ours to mend.
fn exit_code(error: &anyhow::Error) -> u8 {
    for cause in error.chain() {
        let of_the_surroundings = cause.is::<PlaceError>()
            || cause.is::<StateDirError>()
            || cause.is::<crate::refused::Refused>()
            || cause.is::<crate::process::threads::ThreadError>();
        if cause.is::<ConfigErrors>() || of_the_surroundings {
            return exit::CONFIG;
        }
        if let Some(error) = cause.downcast_ref::<BootError>() {
            return error.exit_code();
        }
        match cause.downcast_ref::<LockError>() {
            Some(LockError::Held(_)) => return exit::FENCED,
            Some(_) => return exit::CONFIG,
            None => {}
        }
        match cause.downcast_ref::<StoreError>() {
            Some(StoreError::Unavailable { .. } | StoreError::WritesRefused { .. }) => {
                return exit::STORE_UNAVAILABLE;
            }
            Some(StoreError::Address(_)) => return exit::CONFIG,
            _ => {}
        }
    }
    exit::INTERNAL
}

/// Rust ignores the signal, which turns a closed pipe into an error of every write.
fn end_quietly_on_a_closed_pipe() {
    use nix::sys::signal::{SigHandler, Signal, signal};
    // SAFETY: no other thread runs yet, and the default disposition calls no code of ours.
    let result = unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) };
    debug_assert!(result.is_ok(), "SIGPIPE can be set on every Unix");
}

/// Writes to standard output; a reader that has gone is an error with a name, never a panic.
fn print(text: &str) -> anyhow::Result<()> {
    use anyhow::Context as _;
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .context("failed to write to standard output")
}

/// Writes a value to standard output as indented JSON.
fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    print(&text)
}

/// The definition of the command line, for completions.
fn definition() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    #[test]
    fn the_definition_of_the_command_line_is_sound() {
        definition().debug_assert();
    }

    #[test]
    fn every_help_fits_into_eighty_columns() {
        let mut all = definition();
        all.build();
        let names: Vec<String> = all
            .get_subcommands()
            .map(|c| c.get_name().to_owned())
            .collect();
        let mut pages = vec![
            all.render_help().to_string(),
            all.render_long_help().to_string(),
        ];
        for name in &names {
            let command = all.find_subcommand_mut(name).expect("it was just listed");
            pages.push(command.render_help().to_string());
            pages.push(command.render_long_help().to_string());
        }
        assert!(names.len() >= 11);
        for line in pages.iter().flat_map(|page| page.lines()) {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }

    #[test]
    fn the_reference_page_has_every_flag_of_run() {
        let all = definition();
        let run = all.find_subcommand("run").expect("it is there");
        let page = crate::config::reference();
        for flag in run.get_arguments().filter_map(clap::Arg::get_long) {
            assert!(page.contains(&format!("| `--{flag}")), "{flag}");
        }
    }

    #[test]
    fn the_gateways_command_is_taken_as_it_is() {
        let args = [
            "sessionkeep",
            "run",
            "--dir",
            "d",
            "--",
            "node",
            "--dir",
            "-x",
        ];
        let cli = Cli::try_parse_from(args).expect("well formed");
        let Command::Run(run) = cli.command else {
            panic!("not run")
        };
        assert_eq!(run.command, ["node", "--dir", "-x"]);
        assert_eq!(cli.flags.dir.as_deref(), Some("d"));
    }

    #[test]
    fn errors_have_their_documented_codes_through_any_context() {
        let unavailable = || StoreError::Unavailable {
            action: "answer",
            source: "refused".into(),
        };
        let error = Err::<(), _>(unavailable()).context("failed to restore");
        let error = error.expect_err("it is one");
        assert_eq!(exit_code(&error), exit::STORE_UNAVAILABLE);
        assert_eq!(
            told(&error),
            "error: failed to restore\ncaused by: the store did not answer\ncaused by: refused\n"
        );
        assert_eq!(exit_code(&anyhow::anyhow!("other")), exit::INTERNAL);
        let flags = Flags {
            set: vec![sessionkeep_core::secret::Secret::new("x")],
            ..Flags::default()
        };
        let error = crate::config::load(&flags).expect_err("it is no setting");
        assert_eq!(exit_code(&error.into()), exit::CONFIG);
    }
}
