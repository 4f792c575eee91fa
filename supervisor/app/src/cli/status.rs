//! `sessionkeep status`: the state of the session and its archive.

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::config::{Flags, Settings};
use crate::process::runtime;
use sessionkeep_archive::store::{Lease, StoreError, Usage};
use sessionkeep_core::human::{Bytes, Causes, Timestamp};
use sessionkeep_core::record::Header;

use super::{context, health, lease, log, status_text};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  sessionkeep status --watch
  sessionkeep status --json

Exits with 69, 70 or 78 where the store cannot be read, after showing the rest.")]
pub(super) struct Args {
    /// Print JSON; with --watch, one object a line
    #[arg(long)]
    pub(super) json: bool,
    /// Show it anew every second, until interrupted
    #[arg(long)]
    pub(super) watch: bool,
}

/// How often it is shown anew, and how often the store is asked meanwhile.
const EVERY: Duration = Duration::from_secs(1);
const STORE_EVERY: Duration = Duration::from_secs(10);

/// What the store says.
struct Stored {
    head: Option<Header>,
    /// One that cannot be read hides nothing else.
    lease: Result<Option<Lease>, StoreError>,
    usage: Usage,
}

pub(super) fn main(args: &Args, flags: &Flags) -> anyhow::Result<ExitCode> {
    let settings = context::settings(flags)?;
    let mut stored = ask_store(&settings)?;
    let mut asked = Instant::now();
    loop {
        // Two sources, and either may be missing: the running instance, and the store.
        let answer = health::ask(&settings.http, "/status").ok();
        let refused = answer.as_ref().is_some_and(|answer| answer.status != 200);
        let running = answer
            .filter(|answer| answer.status == 200)
            .and_then(|answer| serde_json::from_str::<Value>(&answer.body).ok());
        show(args, &settings, running.as_ref(), refused, stored.as_ref())?;
        if !args.watch {
            // All that is known was shown; a script is to learn that it is not all.
            return Ok(match &stored {
                Some(Err(error)) => ExitCode::from(super::exit_code(error)),
                Some(Ok(_)) | None => ExitCode::SUCCESS,
            });
        }
        std::thread::sleep(EVERY);
        if asked.elapsed() >= STORE_EVERY {
            stored = ask_store(&settings)?;
            asked = Instant::now();
        }
    }
}

/// `None` in file mode.
fn ask_store(settings: &Settings) -> anyhow::Result<Option<anyhow::Result<Stored>>> {
    if settings.is_file_mode() {
        return Ok(None);
    }
    Ok(Some(runtime::block_on(read(settings))?))
}

fn show(
    args: &Args,
    settings: &Settings,
    running: Option<&Value>,
    refused: bool,
    stored: Option<&anyhow::Result<Stored>>,
) -> anyhow::Result<()> {
    if !args.json {
        let text = told(settings, running, refused, stored);
        // Home, and the rest of the screen cleared: no flicker, and a pipe gets plain text.
        let is_screen = args.watch && std::io::stdout().is_terminal();
        let begin = if is_screen { "\x1b[H\x1b[J" } else { "" };
        let end = if args.watch && !is_screen { "\n" } else { "" };
        return super::print(&format!("{begin}{text}{end}"));
    }
    let stored = stored.map(|stored| match stored {
        Ok(stored) => json!({
            "head": stored.head.as_ref().map(log::as_json),
            "lease": match &stored.lease {
                Ok(lease) => json!(lease.as_ref().map(lease::as_json)),
                Err(error) => json!({ "error": Causes(error).to_string() }),
            },
            "usage": { "commits": stored.usage.commits, "commit_bytes": stored.usage.commit_bytes,
                       "packs": stored.usage.packs, "pack_bytes": stored.usage.pack_bytes },
        }),
        Err(error) => json!({ "error": format!("{error:#}") }),
    });
    let both = json!({ "running": running, "stored": stored });
    match args.watch {
        true => super::print(&format!("{both}\n")),
        false => super::print_json(&both),
    }
}

async fn read(settings: &Settings) -> anyhow::Result<Stored> {
    let store = context::open_to_read(settings).await?;
    let archive = &settings.archive;
    let stored = Stored {
        head: store.head(archive).await?,
        lease: store.lease(archive).await,
        usage: store.usage(archive).await?,
    };
    store.close().await;
    Ok(stored)
}

fn told(
    settings: &Settings,
    running: Option<&Value>,
    refused: bool,
    stored: Option<&anyhow::Result<Stored>>,
) -> String {
    let mut text = format!("archive    {}\n", settings.archive);
    match running {
        Some(status) => text.push_str(&status_text::told(status)),
        None if refused => text.push_str(
            "running    an instance answers and refuses; give the ADMIN_TOKEN that it was started with\n",
        ),
        None => text.push_str("running    no instance answers here\n"),
    }
    match stored {
        None => text.push_str("store      none (file mode)\n"),
        Some(Err(error)) => {
            let _ = writeln!(text, "store      {error:#}");
        }
        Some(Ok(stored)) => {
            match &stored.head {
                Some(head) => {
                    let _ = writeln!(
                        text,
                        "newest     commit {} of {}: {} files, {}",
                        head.seq,
                        Timestamp(head.time_ms),
                        head.live_files,
                        Bytes(head.live_bytes)
                    );
                }
                None => text.push_str("newest     nothing was ever committed\n"),
            }
            match &stored.lease {
                Ok(lease) => text.push_str(&lease::lines(lease.as_ref())),
                Err(error) => {
                    let _ = writeln!(text, "owner      {}", Causes(error));
                }
            }
            let usage = &stored.usage;
            let _ = writeln!(
                text,
                "stored     {} commits with {}, {} packs with {}",
                usage.commits,
                Bytes(usage.commit_bytes),
                usage.packs,
                Bytes(usage.pack_bytes)
            );
        }
    }
    text
}
