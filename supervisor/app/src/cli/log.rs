//! `sessionkeep log`: the newest commits.

use std::fmt::Write as _;
use std::num::NonZeroUsize;
use std::process::ExitCode;

use serde_json::{Value, json};

use crate::config::Flags;
use crate::process::runtime;
use sessionkeep_core::human::{Bytes, Timestamp};
use sessionkeep_core::record::{Header, RecordKind, Seq};

use super::context;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  sessionkeep log --limit 5
  sessionkeep log --json")]
pub(super) struct Args {
    /// How many commits
    #[arg(long, value_name = "N", default_value = "20")]
    pub(super) limit: NonZeroUsize,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) fn main(args: &Args, flags: &Flags) -> anyhow::Result<ExitCode> {
    let settings = context::settings(flags)?;
    let headers = runtime::block_on(async {
        let store = context::open_to_read(&settings).await?;
        let headers = store
            .headers(&settings.archive, 1, Seq::MAX, args.limit.get())
            .await?;
        store.close().await;
        anyhow::Ok(headers)
    })??;
    if args.json {
        let shown: Vec<Value> = headers.iter().map(as_json).collect();
        super::print_json(&shown)?;
    } else {
        super::print(&table(&headers))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What a commit is for, in a word.
pub(super) fn kind(header: &Header) -> &'static str {
    match header.kind {
        RecordKind::Barrier => "barrier",
        RecordKind::Change => "change",
        RecordKind::Checkpoint => "checkpoint",
    }
}

pub(super) fn as_json(header: &Header) -> Value {
    json!({
        "seq": header.seq,
        "time": Timestamp(header.time_ms).to_string(),
        "kind": kind(header),
        "changes": header.changes,
        "bytes": header.bytes,
        "files": header.live_files,
        "total_bytes": header.live_bytes,
        "instance": header.instance,
        "epoch": header.epoch,
        "root": header.root,
    })
}

fn table(headers: &[Header]) -> String {
    if headers.is_empty() {
        return "no commits yet\n".into();
    }
    let mut table = format!(
        "{:>8}  {:24}  {:10}  {:>7}  {:>10}  {:>7}  instance\n",
        "seq", "time", "kind", "changes", "bytes", "files"
    );
    for header in headers {
        let _ = writeln!(
            table,
            "{:>8}  {:24}  {:10}  {:>7}  {:>10}  {:>7}  {}",
            header.seq,
            Timestamp(header.time_ms).to_string(),
            kind(header),
            header.changes,
            Bytes(header.bytes).to_string(),
            header.live_files,
            header.instance,
        );
    }
    table
}
