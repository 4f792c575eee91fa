//! `sessionkeep show`: what one commit changed.

use std::fmt::Write as _;
use std::process::ExitCode;

use serde_json::json;

use crate::config::Flags;
use crate::process::runtime;
use sessionkeep_archive::format::Change;
use sessionkeep_archive::version::{check_record, read_listing};
use sessionkeep_archive::{Aside, Links};
use sessionkeep_core::entry::{EntryKind, RelPath};
use sessionkeep_core::human::{Bytes, Timestamp};
use sessionkeep_core::record::{RecordKind, Seq};

use super::{context, log};

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

pub(super) fn main(args: &Args, flags: &Flags) -> anyhow::Result<ExitCode> {
    let settings = context::settings(flags)?;
    let (header, changes, aside) = runtime::block_on(async {
        let store = context::open_to_read(&settings).await?;
        context::header(&*store, &settings, Some(args.seq)).await?;
        let mut records = store.records(&settings.archive, args.seq, args.seq).await?;
        let record = records
            .pop()
            .ok_or_else(|| anyhow::anyhow!("commit {} has just been collected", args.seq))?;
        check_record(&record)?;
        let (changes, aside) = match record.header.kind {
            RecordKind::Barrier => (Vec::new(), Aside::default()),
            _ => {
                let (listing, content) = read_listing(&*store, &record).await?;
                let aside = Aside::decode(&content).map_err(anyhow::Error::msg)?;
                (listing.changes, aside)
            }
        };
        store.close().await;
        anyhow::Ok((record.header, changes, aside))
    })??;
    if args.json {
        let changes: Vec<_> = changes
            .iter()
            .map(|change| json!({ "change": change.word(), "path": change.path().to_string(), "size": size(change) }))
            .collect();
        let mut shown = log::as_json(&header);
        shown["changed"] = changes.into();
        if let Some(own) = aside.own {
            shown["dir"] =
                json!({ "mode": format!("{:04o}", own.mode), "owner": own.owner.to_string() });
        }
        if let Some(links) = aside.links {
            let names = |group: &[RelPath]| group.iter().map(RelPath::to_string).collect();
            let groups: Vec<Vec<String>> = links.groups().map(names).collect();
            shown["links"] = groups.into();
        }
        super::print_json(&shown)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut text = format!(
        "commit {} ({}) of {} by {} at epoch {}\n{} files, {}, root {}\n\n",
        header.seq,
        log::kind(&header),
        Timestamp(header.time_ms),
        header.instance,
        header.epoch,
        header.live_files,
        Bytes(header.live_bytes),
        header.root,
    );
    if let Some(own) = aside.own {
        let _ = writeln!(
            text,
            "the directory itself: mode {:04o}, owner {}",
            own.mode, own.owner
        );
    }
    for names in aside.links.iter().flat_map(Links::groups) {
        let names: Vec<String> = names.iter().map(RelPath::to_string).collect();
        let _ = writeln!(text, "one file: {}", names.join(", "));
    }
    for change in &changes {
        let size = size(change)
            .map(|size| format!("  {}", Bytes(size)))
            .unwrap_or_default();
        let _ = writeln!(text, "{:7} {}{size}", change.word(), change.path());
    }
    super::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn size(change: &Change) -> Option<u64> {
    match change {
        Change::Put {
            kind: EntryKind::File { size, .. },
            ..
        }
        | Change::Patch { size, .. } => Some(*size),
        _ => None,
    }
}
