//! `sessionkeep verify`: reads everything and checks it against its hashes.

use std::process::ExitCode;

use anyhow::Context as _;
use serde_json::json;
use tracing::debug;

use crate::boot::BootError;
use crate::boot::restore::newest_readable;
use crate::config::{Flags, Settings};
use crate::process::runtime;
use crate::progress::Progress;
use sessionkeep_archive::fetch::{At, Check, Fetch, Sink, Wanted};
use sessionkeep_archive::newest::newest_seq;
use sessionkeep_archive::store::Store;
use sessionkeep_archive::version::{Version, check_record, read_listing};
use sessionkeep_archive::{ArchiveError, Result as ArchiveResult};
use sessionkeep_core::human::Bytes;
use sessionkeep_core::record::{Header, RecordKind, Seq};

use super::context;

/// How many headers are asked for at a time.
const HEADERS_PAGE: usize = 512;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exits with 1 if anything is damaged, or nothing is stored, and says what. It
only reads, and may run beside the gateway.

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

/// What was looked at and what was found.
#[derive(Debug, Default)]
struct Report {
    commits: u64,
    files: u64,
    bytes: u64,
    damage: Vec<String>,
}

impl Report {
    /// Whether nothing at all was found: mostly a name that is mistyped, and no good copy of anything.
    fn is_empty(&self) -> bool {
        self.commits == 0 && self.damage.is_empty()
    }
}

pub(super) fn main(args: &Args, flags: &Flags) -> anyhow::Result<ExitCode> {
    let settings = context::settings(flags)?;
    let progress = Progress::default();
    let report = runtime::block_on(async {
        let store = context::open_to_read(&settings).await?;
        let report = progress
            .show("verifying", verify(args, &settings, &*store, &progress))
            .await?;
        store.close().await;
        anyhow::Ok(report)
    })??;
    if args.json {
        super::print_json(&json!({
            "commits": report.commits, "files": report.files, "bytes": report.bytes, "damage": report.damage,
        }))?;
    } else {
        let mut text = String::new();
        for damage in &report.damage {
            text.push_str(&format!("damaged: {damage}\n"));
        }
        let verdict = if report.is_empty() {
            format!(
                "nothing is stored as archive {}; see whether the archive's name and the store are the right ones",
                settings.archive
            )
        } else if report.damage.is_empty() {
            "all is as it was written".to_owned()
        } else {
            format!(
                "{} things are damaged; a restore takes the newest commit that is whole",
                report.damage.len()
            )
        };
        text.push_str(&format!(
            "verified {} commits, {} files, {}: {verdict}\n",
            report.commits,
            report.files,
            Bytes(report.bytes)
        ));
        super::print(&text)?;
    }
    Ok(if report.damage.is_empty() && !report.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn verify(
    args: &Args,
    settings: &Settings,
    store: &dyn Store,
    progress: &Progress,
) -> anyhow::Result<Report> {
    let mut report = Report::default();
    let targets = if args.all {
        every_record(settings, store, &mut report).await?
    } else {
        newest(settings, store, &mut report).await?
    };
    for seq in targets {
        if let Err(error) = version(args.all, settings, store, seq, progress, &mut report).await {
            if !error.is_damage() {
                return Err(error.into());
            }
            report
                .damage
                .push(format!("the state of commit {seq}: {error}"));
        }
    }
    Ok(report)
}

/// The number of the newest commit that can be read. One at the head that cannot is damage.
async fn newest(
    settings: &Settings,
    store: &dyn Store,
    report: &mut Report,
) -> anyhow::Result<Vec<Seq>> {
    match newest_readable(store, &settings.archive).await {
        Ok(None) => Ok(vec![]),
        Ok(Some((header, passed_over))) => {
            report
                .damage
                .extend(passed_over.map(|error| error.to_string()));
            Ok(vec![header.seq])
        }
        Err(BootError::NothingWhole(error)) => {
            report.damage.push(error.to_string());
            Ok(vec![])
        }
        Err(error) => Err(error).context("failed to read the newest commit"),
    }
}

/// Reads each record by itself, and names the commits whose whole state is then read: the newest
/// one, and the last one before each checkpoint.
async fn every_record(
    settings: &Settings,
    store: &dyn Store,
    report: &mut Report,
) -> anyhow::Result<Vec<Seq>> {
    let mut targets = Vec::new();
    let mut newer: Option<RecordKind> = None;
    let mut expected: Option<Seq> = None;
    let (headers, unreadable) = headers(settings, store, report).await?;
    // A checkpoint that has stood for so long: what is below it may go at any time, and in a dump, whose
    // commits were read while others were deleted, the rest of it is still there.
    let grace = u64::try_from(settings.history.grace.as_millis()).unwrap_or(u64::MAX);
    let old = store.now_ms().await?.saturating_sub(grace);
    let oldest = headers.last().map_or(0, |header| header.seq);
    let mut superseded = false;
    for header in headers {
        let is_last = newer.is_none_or(|kind| kind == RecordKind::Checkpoint);
        // Its first commits may be gone already.
        let is_going = superseded && header.base < oldest;
        if is_last && header.base > 0 && !is_going {
            targets.push(header.seq);
        }
        let gap = expected.map_or(0, |expected| expected.saturating_sub(header.seq));
        let is_in_it = |seq: &&Seq| **seq > header.seq && **seq - header.seq <= gap;
        if let Some(expected) = expected
            && !superseded
            && unreadable.iter().filter(is_in_it).count() as u64 != gap
        {
            report.damage.push(format!(
                "commits {} to {expected} are missing",
                header.seq + 1
            ));
        }
        (newer, expected) = (Some(header.kind), header.seq.checked_sub(1));
        superseded |= header.kind == RecordKind::Checkpoint && header.time_ms <= old;
        if let Err(error) = record(settings, store, header.seq).await {
            if !error.is_damage() {
                return Err(error.into());
            }
            report.damage.push(error.to_string());
        }
        report.commits += 1;
    }
    Ok(targets)
}

/// All headers that can be read, newest first, and the numbers of the others, which are damage.
async fn headers(
    settings: &Settings,
    store: &dyn Store,
    report: &mut Report,
) -> anyhow::Result<(Vec<Header>, Vec<Seq>)> {
    let archive = &settings.archive;
    let (mut headers, mut unreadable) = (Vec::new(), Vec::new());
    let (mut to, mut limit) = (Seq::MAX, HEADERS_PAGE);
    while to > 0 {
        let page = store.headers(archive, 1, to, limit).await;
        match page.map_err(ArchiveError::from) {
            Ok(page) => {
                let Some(last) = page.last() else { break };
                to = last.seq - 1;
                headers.extend(page);
            }
            // One that cannot be read spoils the answer, and does not tell its number.
            Err(error) if error.is_damage() && limit > 1 => limit /= 8,
            Err(error) if error.is_damage() => {
                report.damage.push(error.to_string());
                let Some(seq) = newest_seq(store, archive, to).await? else {
                    break;
                };
                unreadable.push(seq);
                (to, limit) = (seq - 1, HEADERS_PAGE);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok((headers, unreadable))
}

async fn record(settings: &Settings, store: &dyn Store, seq: Seq) -> ArchiveResult<()> {
    let records = store.records(&settings.archive, seq, seq).await?;
    let record = records
        .into_iter()
        .next()
        .ok_or(ArchiveError::MissingCommit { seq })?;
    check_record(&record)?;
    if record.header.kind != RecordKind::Barrier {
        read_listing(store, &record).await?;
    }
    Ok(())
}

async fn version(
    whole_history: bool,
    settings: &Settings,
    store: &dyn Store,
    seq: Seq,
    progress: &Progress,
    report: &mut Report,
) -> ArchiveResult<()> {
    let header = sessionkeep_archive::version::header_of(store, &settings.archive, seq).await?;
    let mut version = Version::load(store, header).await?;
    progress.begin(version.tree.files(), version.tree.bytes());
    let fetch = Fetch::plan(&mut version, |_| true);
    if !whole_history {
        report.commits += version.header.seq - version.header.base + 1;
    }
    drop(version);
    report.files += fetch.files() as u64;
    let sink = Counting {
        check: Check::default(),
        progress: progress.clone(),
    };
    match fetch.run(store, sink).await {
        Ok(sink) => {
            report.bytes += sink.check.bytes;
            let damage = sink
                .check
                .damaged
                .into_iter()
                .map(|(path, why)| format!("{path} in commit {seq}: {why}"));
            report.damage.extend(damage);
            debug!(target: "cli", seq, "verified");
            Ok(())
        }
        Err((error, _)) => Err(error),
    }
}

struct Counting {
    check: Check,
    progress: Progress,
}

impl Sink for Counting {
    fn piece(&mut self, at: At, wanted: &Wanted, content: &[u8]) -> ArchiveResult<()> {
        self.progress
            .add(u64::from(at.offset == 0), content.len() as u64);
        self.check.piece(at, wanted, content)
    }
}
