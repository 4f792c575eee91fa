//! `sessionkeep usage`: what takes the room in the store, and what could be deleted.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::process::ExitCode;

use serde_json::json;

use crate::config::{Flags, Settings};
use crate::process::runtime;
use sessionkeep_archive::collect::{self, CollectionPlan};
use sessionkeep_archive::store::{Store, Usage};
use sessionkeep_core::human::{Bytes, Timestamp, Took};
use sessionkeep_core::record::{ArchiveName, Header, PackId};

use super::context;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Bytes are what the store was given; indexes and journals of its own come on top.
Superseded commits go by themselves when the next checkpoint is made, once they
are older than history.grace; their packs as long after that. An archive that nobody needs any more is yours to
delete: it is the documents and rows that bear its name.

Example:
  sessionkeep usage --json")]
pub(super) struct Args {
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// What one archive takes.
struct Row {
    archive: ArchiveName,
    usage: Usage,
    head: Option<Header>,
    /// What would go if there were no grace; `None` where that cannot be told.
    superseded: Option<Superseded>,
}

/// What no restore of the newest state needs.
#[derive(Default)]
struct Superseded {
    commits: u64,
    packs: u64,
    pack_bytes: u64,
}

impl Row {
    fn bytes(&self) -> u64 {
        self.usage.commit_bytes + self.usage.pack_bytes
    }
}

pub(super) fn main(args: &Args, flags: &Flags) -> anyhow::Result<ExitCode> {
    let settings = context::settings(flags)?;
    let (described, mut rows) = runtime::block_on(async {
        let store = context::open_to_read(&settings).await?;
        let mut rows = Vec::new();
        for archive in store.archives().await? {
            rows.push(read(&*store, archive).await?);
        }
        let described = store.describe();
        store.close().await;
        anyhow::Ok((described, rows))
    })??;
    // What takes most first.
    rows.sort_by_key(|row| std::cmp::Reverse(row.bytes()));
    if args.json {
        super::print_json(&as_json(&described, &rows))?;
    } else {
        super::print(&told(&settings, &described, &rows))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn read(store: &dyn Store, archive: ArchiveName) -> anyhow::Result<Row> {
    let usage = store.usage(&archive).await?;
    // Damage is for `verify` to tell; what it takes can be told all the same.
    let head = store.head(&archive).await.ok().flatten();
    let superseded = superseded(store, &archive).await;
    Ok(Row {
        archive,
        usage,
        head,
        superseded,
    })
}

async fn superseded(store: &dyn Store, archive: &ArchiveName) -> Option<Superseded> {
    let (plan, packs): (CollectionPlan, _) = collect::without_grace(store, archive).await.ok()?;
    let going: HashSet<PackId> = plan.packs.iter().copied().collect();
    let pack_bytes = packs.iter().filter(|pack| going.contains(&pack.id));
    Some(Superseded {
        commits: plan.commits.len() as u64,
        packs: plan.packs.len() as u64,
        pack_bytes: pack_bytes.map(|pack| pack.size).sum(),
    })
}

fn as_json(described: &str, rows: &[Row]) -> serde_json::Value {
    let archives: Vec<_> = rows
        .iter()
        .map(|row| {
            json!({
                "archive": row.archive,
                "commits": row.usage.commits,
                "commit_bytes": row.usage.commit_bytes,
                "packs": row.usage.packs,
                "pack_bytes": row.usage.pack_bytes,
                "bytes": row.bytes(),
                "content_bytes": row.head.as_ref().map(|head| head.live_bytes),
                "newest": row.head.as_ref().map(|head| Timestamp(head.time_ms).to_string()),
                "superseded": row.superseded.as_ref().map(|superseded| json!({
                    "commits": superseded.commits,
                    "packs": superseded.packs,
                    "pack_bytes": superseded.pack_bytes,
                })),
            })
        })
        .collect();
    let bytes: u64 = rows.iter().map(Row::bytes).sum();
    json!({ "store": described, "bytes": bytes, "archives": archives })
}

fn told(settings: &Settings, described: &str, rows: &[Row]) -> String {
    let mut text = format!("store      {described}\n");
    let width = rows.iter().map(|row| row.archive.as_str().len()).max();
    let width = width.unwrap_or(0).max("archive".len());
    let _ = writeln!(
        text,
        "{:width$}  {:>10}  {:>8}  {:>10}  {:>6}  {:>10}  newest commit",
        "archive", "bytes", "commits", "in them", "packs", "in them"
    );
    for row in rows {
        let newest = row.head.as_ref().map_or_else(
            || "cannot be read".to_owned(),
            |head| Timestamp(head.time_ms).to_string(),
        );
        let _ = writeln!(
            text,
            "{:width$}  {:>10}  {:>8}  {:>10}  {:>6}  {:>10}  {newest}",
            row.archive.as_str(),
            Bytes(row.bytes()).to_string(),
            row.usage.commits,
            Bytes(row.usage.commit_bytes).to_string(),
            row.usage.packs,
            Bytes(row.usage.pack_bytes).to_string(),
        );
    }
    let bytes: u64 = rows.iter().map(Row::bytes).sum();
    let _ = writeln!(text, "together   {}", Bytes(bytes));
    text.push_str("\nwhat could go\n");
    let mut any = false;
    for row in rows {
        if let Some(superseded) = &row.superseded
            && superseded.commits + superseded.packs > 0
        {
            any = true;
            let _ = writeln!(
                text,
                "  {}: {} superseded commits, and {} packs with {}. With a later checkpoint, commits go once they \
                 are older than history.grace ({}), and packs as long after their last commit; a smaller \
                 one lets them go sooner",
                row.archive,
                superseded.commits,
                superseded.packs,
                Bytes(superseded.pack_bytes),
                Took(settings.history.grace),
            );
        }
        if row.archive != settings.archive {
            any = true;
            let _ = writeln!(
                text,
                "  {}: an archive of another session. If nobody uses it any more, delete what bears its name",
                row.archive
            );
        }
    }
    if !any {
        text.push_str(
            "  nothing of what is kept is superseded: make the session smaller (media that the gateway keeps), or \
             give the store more room\n",
        );
    }
    text
}
