//! `sessionkeep restore`: brings a directory to the state of a commit.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context as _;
use serde_json::json;
use tracing::warn;

use crate::boot::decide::{Remote, decide};
use crate::boot::restore::{FallBack, Own, Place, newest_readable, stage_newest_whole};
use crate::boot::survey::survey;
use crate::boot::{self, Target};
use crate::config::{self, Flags, Settings};
use crate::ownership::Identity;
use crate::process::{alone, runtime};
use crate::progress::Progress;
use sessionkeep_archive::version::Version;
use sessionkeep_core::human::{Bytes, Took};
use sessionkeep_core::record::Seq;
use sessionkeep_core::state_dir::StateDir;
use sessionkeep_session::Directory;

use super::context;

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

pub(super) fn main(args: &Args, flags: &Flags) -> anyhow::Result<ExitCode> {
    let settings = context::settings(flags)?;
    runtime::block_on(async {
        match &args.to {
            _ if args.dry_run => dry_run(args, &settings).await,
            Some(to) => copy(args, &settings, to).await,
            None => alone(args, &settings).await,
        }
    })?
}

/// Says what a restore would do. Only reads.
async fn dry_run(args: &Args, settings: &Settings) -> anyhow::Result<ExitCode> {
    let store = context::open_to_read(settings).await?;
    let header = context::header(&*store, settings, args.seq).await?;
    let version = Version::load(&*store, header).await?;
    let because = if args.seq.is_some() || args.to.is_some() {
        "it was asked for"
    } else if settings.dir.exists() {
        let directory = Directory::open(&settings.dir, settings.profile.files())?;
        let local = survey(
            &directory,
            StateDir::existing(&settings.dir)?.as_ref(),
            &settings.archive,
        )?;
        let header = Box::new(version.header.clone());
        decide(
            &local,
            &Remote::Head {
                header,
                has_credentials: None,
            },
        )
        .because()
    } else {
        "the directory does not exist yet"
    };
    let (seq, files, bytes) = (
        version.header.seq,
        version.tree.files(),
        version.tree.bytes(),
    );
    if args.json {
        super::print_json(
            &json!({ "seq": seq, "files": files, "bytes": bytes, "because": because }),
        )?;
    } else {
        let into = args.to.as_ref().unwrap_or(&settings.dir);
        super::print(&format!(
            "commit {seq} holds {files} files, {}; target {}\n{because}\n",
            Bytes(bytes),
            into.display()
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Restores a copy elsewhere. Only reads the store, and needs no lease.
async fn copy(args: &Args, settings: &Settings, to: &Path) -> anyhow::Result<ExitCode> {
    let begun = Instant::now();
    config::as_path(&to.to_string_lossy())
        .map_err(|why| crate::refused::Refused(format!("--to {}: {why}", to.display())))?;
    let store = context::open_to_read(settings).await?;
    alone::own_dir(to)?;
    if std::fs::read_dir(to)
        .with_context(|| format!("failed to read {}", to.display()))?
        .next()
        .is_some()
    {
        return Err(crate::refused::Refused(format!(
            "{} is not empty; give an empty or a new directory",
            to.display()
        ))
        .into());
    }
    let to = to
        .canonicalize()
        .with_context(|| format!("failed to find {}", to.display()))?;
    let state = StateDir::open(&to)?;
    let (header, passed_over, fall_back) = match args.seq {
        Some(_) => {
            let header = context::header(&*store, settings, args.seq).await?;
            (header, None, FallBack::No)
        }
        None => {
            let newest = newest_readable(&*store, &settings.archive).await?;
            let (header, passed_over) = newest.ok_or_else(|| context::is_empty(settings))?;
            (header, passed_over, FallBack::Yes)
        }
    };
    let progress = Progress::default();
    let place = Place {
        state: &state,
        owners: settings.restore.owner,
        own: Own::Stays,
    };
    let staged = progress
        .show(
            "restoring",
            stage_newest_whole(&*store, header, place, fall_back, &progress),
        )
        .await?;
    let (seq, files, bytes) = (
        staged.header.seq,
        staged.summary.files,
        staged.summary.bytes,
    );
    staged.stage.install_copy()?;
    let passed_over = passed_over.map(|error| error.to_string());
    for damage in passed_over.iter().chain(&staged.damage) {
        warn!(target: "boot", damage, "a newer commit is damaged and was passed over");
    }
    tell(args, "restored", seq, files, bytes, begun, None)?;
    Ok(ExitCode::SUCCESS)
}

/// Restores the session directory, with the lease, and lets the lease go again.
async fn alone(args: &Args, settings: &Settings) -> anyhow::Result<ExitCode> {
    let begun = Instant::now();
    let lock = alone::lock(settings)?;
    let store = context::open(settings).await?;
    let who = Identity {
        instance: alone::instance(),
        predecessor: lock.predecessor(),
    };
    if args.seq.is_some() {
        // Before anything is waited for, and nobody needs to be asked for the session.
        context::header(&*store, settings, args.seq).await?;
    }
    let target = args.seq.map_or(Target::Newest, Target::Commit);
    let progress = Progress::default();
    let booted = progress
        .show(
            "restoring",
            boot::boot(
                settings,
                lock.state(),
                &store,
                &who,
                target,
                &progress,
                &mut |_| {},
            ),
        )
        .await?;
    store
        .release_lease(&settings.archive, &who.instance, booted.epoch)
        .await?;
    let because = match target {
        Target::Commit(_) => Some("it was asked for"),
        Target::Newest => booted.plan.map(|plan| plan.because()),
    };
    tell(
        args,
        "ready",
        booted.seq,
        booted.files,
        booted.bytes,
        begun,
        because,
    )?;
    Ok(ExitCode::SUCCESS)
}

fn tell(
    args: &Args,
    word: &str,
    seq: Seq,
    files: u64,
    bytes: u64,
    begun: Instant,
    because: Option<&str>,
) -> anyhow::Result<()> {
    if args.json {
        let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        return super::print_json(&json!({
            "seq": seq, "files": files, "bytes": bytes, "took_ms": took_ms, "because": because,
        }));
    }
    let because = because
        .map(|because| format!(" ({because})"))
        .unwrap_or_default();
    super::print(&format!(
        "{word}: commit {seq}, {files} files, {}, in {}{because}\n",
        Bytes(bytes),
        Took(begun.elapsed())
    ))
}
