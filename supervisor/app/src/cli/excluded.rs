//! `sessionkeep excluded`: what of the session directory is not saved, and why.

use std::fmt::Write as _;
use std::io;
use std::process::ExitCode;

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::config::Flags;
use sessionkeep_core::entry::RelPath;
use sessionkeep_session::{Directory, FoundKind, sqlite};

use super::context;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
A directory is named once, with all below it. What a running instance holds back since it
is damaged stands in `sessionkeep status`.

Example:
  sessionkeep excluded --json")]
pub(super) struct Args {
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) fn main(args: &Args, flags: &Flags) -> anyhow::Result<ExitCode> {
    let settings = context::settings(flags)?;
    let opened = Directory::open(&settings.dir, settings.profile.files());
    let directory =
        opened.with_context(|| format!("failed to open `{}`", settings.dir.display()))?;
    let mut unopened: Vec<(RelPath, String)> = Vec::new();
    let report = directory.scan(None, &mut |_, _| {}, &mut |found| {
        if found.kind == FoundKind::File
            && let Err(error) = sqlite::read_start(directory.fd(), found.path.as_bytes())
            && error.kind() != io::ErrorKind::NotFound
        {
            unopened.push((found.path, error.to_string()));
        }
    });
    if let Some(error) = report.root_unreadable {
        return Err(error).with_context(|| format!("failed to read `{}`", settings.dir.display()));
    }
    let by_profile = report
        .excluded
        .iter()
        .map(|(path, why)| (path, why.to_string()));
    let others = report
        .skipped
        .iter()
        .map(|(path, why)| (path, why.to_string()));
    let unreadable = report
        .unreadable
        .iter()
        .chain(&unopened)
        .map(|(path, why)| (path, format!("it cannot be read: {why}")));
    let all: Vec<_> = by_profile.chain(others).chain(unreadable).collect();
    let unreadable = report.unreadable.len() + unopened.len();
    let count = report.excluded_count + report.skipped_count + unreadable as u64;
    if args.json {
        let rows: Vec<Value> = all
            .iter()
            .map(|(path, why)| json!({ "path": path.to_string(), "why": why }))
            .collect();
        super::print_json(&json!({ "excluded": rows, "count": count }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = String::new();
    for (path, why) in &all {
        // A name can hold anything, and a terminal is not to obey it.
        let _ = writeln!(text, "{}  {why}", path.to_string().escape_debug());
    }
    let more = count - all.len() as u64;
    if more > 0 {
        let _ = writeln!(text, "and {more} more");
    }
    if all.is_empty() {
        text.push_str("nothing is left out\n");
    }
    super::print(&text)?;
    Ok(ExitCode::SUCCESS)
}
